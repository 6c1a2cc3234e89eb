"""Source texts, and what is read off them before they run."""

import ast
import textwrap

import pytest

from raffel_core.discovery.outline import Outline, imported, outline, slips, with_packages

EXPORTS = ["handler", "meta", "input_schema", "output_schema", "interceptors"]


def parse(text: str) -> ast.Module:
    return ast.parse(textwrap.dedent(text))


def lines(text: str) -> dict[str, int]:
    return dict(outline(parse(text)).lines)


def meant(text: str, absent: list[str] = EXPORTS) -> list[tuple[str, str, int]]:
    tree = parse(text)
    return list(slips(tree, outline(tree), absent))


# Lines


def test_every_name_at_the_top_level_has_its_line() -> None:
    text = """\
        import os, sys as system
        from a import (
            b,
            c as d,
        )
        x = y = 1
        (p, [q, *r]) = 1, [2, 3]
        z: int = 1
        @decorated
        def f(): ...
        async def g(): ...
        class C: ...
    """
    names = {"os": 1, "system": 1, "b": 3, "d": 4, "x": 6, "y": 6, "p": 7, "q": 7, "r": 7, "z": 8}
    assert lines(text) == {**names, "f": 10, "g": 11, "C": 12}


def test_names_in_blocks_count_and_those_in_functions_and_classes_do_not() -> None:
    text = """\
        if x:
            a = 1
        elif y:
            b = 1
        else:
            try:
                c = 1
            except E:
                d = 1
            finally:
                with w:
                    e = 1
        match x:
            case 1:
                f = 1
        def g():
            h = 1
        class I:
            j = 1
    """
    names = {"a": 2, "b": 4, "c": 7, "d": 9, "e": 12, "f": 15}
    assert lines(text) == {**names, "g": 16, "I": 18}


def test_the_last_definition_counts() -> None:
    assert lines("a = 1\na = 2") == {"a": 2}


def test_an_annotation_alone_defines_nothing() -> None:
    assert lines("a: int") == {}


def test_the_keys_of_a_dict_have_their_lines() -> None:
    assert lines("meta = {\n'a': 1,\n'b': {'c': 2},\n**more}\nmeta['d'] = 3") == {
        "meta": 1,
        "meta.a": 2,
        "meta.b": 3,
        "meta.d": 5,
    }
    assert lines("meta = dict(\na=1)") == {"meta": 1, "meta.a": 2}


def test_thousands_of_branches_are_walked() -> None:
    text = "if x == 0: ...\n" + "".join(f"elif x == {n}: import a{n}\n" for n in range(1, 90))
    assert len(imported(ast.parse(text))) == 89


# Slips


@pytest.mark.parametrize(
    ("written", "export"),
    [
        ("inputSchema", "input_schema"),
        ("INPUT_SCHEMA", "input_schema"),
        ("inputschema", "input_schema"),
        ("input_shema", "input_schema"),
        ("input", "input_schema"),
        ("output", "output_schema"),
        ("Output", "output_schema"),
        ("outputSchema", "output_schema"),
        ("Handler", "handler"),
        ("handle", "handler"),
        ("hander", "handler"),
        ("Meta", "meta"),
        ("metas", "meta"),
        ("interceptor", "interceptors"),
    ],
)
def test_a_name_near_an_absent_export_is_a_slip(written: str, export: str) -> None:
    assert meant(f"x = 1\n{written} = 2") == [(written, export, 2)]


@pytest.mark.parametrize(
    "name",
    ["_handler", "_input", "helper", "metadata", "schema", "query", "inputs", "data", "handler_of_errors", "limits"],
)
def test_other_names_are_the_files_own(name: str) -> None:
    assert meant(f"{name} = 1") == []


def test_a_name_near_an_export_that_is_there_is_the_files_own() -> None:
    assert meant("handlers = {}", ["meta"]) == []
    assert meant("output = open('x')", ["handler", "input_schema"]) == []


def test_an_imported_name_is_no_slip() -> None:
    assert meant("from shared import handle, inputSchema") == []


def test_a_function_or_class_that_the_file_uses_is_no_slip() -> None:
    assert meant("class InputSchema: ...\nasync def handler(input: InputSchema): ...", ["input_schema"]) == []
    assert meant("def handle(): ...\nx = [handle]") == []
    assert meant("class InputSchema: ...") == [("InputSchema", "input_schema", 1)]


def test_a_value_is_a_slip_even_where_the_file_uses_it() -> None:
    assert meant("output = Line\ndef f(): return output") == [("output", "output_schema", 1)]


# Imports


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("import a", {"a"}),
        ("import a.b.c as d", {"a", "a.b", "a.b.c"}),
        ("from a.b import c, d", {"a", "a.b", "a.b.c", "a.b.d"}),
        ("def f():\n    import a", {"a"}),
        ("class C:\n    async def f(self):\n        with x:\n            import a", {"a"}),
        ("try:\n    import a\nexcept E:\n    import b\nelse:\n    import c", {"a", "b", "c"}),
        ("from . import x", {"p", "p.q", "p.q.x"}),
        ("from .x import y", {"p", "p.q", "p.q.x", "p.q.x.y"}),
        ("from .. import x", {"p", "p.x"}),
        ("from ... import x", set()),
        ("x = 'import a'", set()),
    ],
)
def test_imports_are_found_with_the_packages_around_them(text: str, names: set[str]) -> None:
    assert imported(ast.parse(text), "p.q") == names


def test_a_relative_import_outside_of_packages_leads_nowhere() -> None:
    assert imported(ast.parse("from . import x\nfrom .a import b")) == frozenset()


def test_a_module_lies_in_every_package_of_its_name() -> None:
    assert list(with_packages("a.b.c")) == ["a.b.c", "a.b", "a"]
    assert list(with_packages("")) == []


def test_an_empty_file_says_nothing() -> None:
    assert outline(ast.parse("")) == Outline({}, frozenset(), frozenset())
