"""Routes as methods of gRPC: their places, their messages and their converters, and the files that describe them."""

from __future__ import annotations

import functools
import hashlib
import re
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from google.protobuf.descriptor_pb2 import FileDescriptorProto, ServiceDescriptorProto
from msgspec import inspect as shapes

from raffel_core.errors import Problem
from raffel_core.protobuf.decoder import compile_decoder
from raffel_core.protobuf.descriptor import file_of, message_class
from raffel_core.protobuf.encoder import compile_encoder, tag_event_id
from raffel_core.protobuf.mapping import ROUTE_FILES, Messages, Numbering
from raffel_core.protobuf.messages import (
    EVENT_ID,
    EVENT_ID_NUMBER,
    Definition,
    Field,
    Message,
    Part,
    reached,
)
from raffel_core.protobuf.method import Method
from raffel_core.protobuf.names import Place, identifier, place_of, qualified
from raffel_core.protobuf.tree import params_reader
from raffel_core.route import Route
from raffel_core.schema import Schema
from raffel_core.schema.typed import TypedSchema

__all__ = ["Numbering", "Services", "services_of"]

_TEXT = Part("string", shapes.StrType())
_ANY = shapes.AnyType()


class RouteMethod(Method):
    """A method whose converters are compiled when they are asked for."""

    __slots__ = ("clash", "definitions", "names", "parse", "place", "roots", "symbols")

    def __init__(self, place: Place, route: Route, request: Part, response: Part, names: Sequence[str]) -> None:
        self.path = place.path
        self.route = route
        self.item_type = None
        self.place = place
        self.roots = request, response
        self.names = names
        """The parameters of the route."""
        self.definitions = [*dict.fromkeys(one for root in self.roots for one in reached(root))]
        self.symbols: dict[str, Definition | None] = {qualified(place.package, place.service): None}
        """The names that it takes, in full; that of its service has no definition."""
        self.clash = ""
        """Why it cannot be."""
        for one in self.definitions:
            for name in one.symbols:
                full = qualified(place.package, name)
                other = self.symbols.setdefault(full, one)
                if not _is_same(one, other):
                    self.clash = f"{_described(full, one)} and {_described(full, other)}"
        self.tag_event_id = tag_event_id if _is_tagged(response) else None
        if not names:
            self.params = None

    def __getattr__(self, name: str) -> Any:
        # What a slot does not hold yet. Two threads may both make it, and either will do.
        make = _LAZY.get(name)
        if make is None:
            raise AttributeError(name)
        value = make(self)
        setattr(self, name, value)
        return value


_LAZY: Mapping[str, Callable[[RouteMethod], Any]] = {
    "parse": lambda method: message_class(method.roots[0]).FromString,
    "decode": lambda method: compile_decoder(method.roots[0], method.route.input, method.parse, method.names),
    "encode": lambda method: compile_encoder(method.roots[1], _as_json(method.route.output)),
    "params": lambda method: params_reader(method.roots[0], method.parse, method.names),
    "request": lambda method: _fingerprint(method.roots[0]),
    "response": lambda method: _fingerprint(method.roots[1]),
}


def _is_tagged(response: Part) -> bool:
    return isinstance(response.proto, Message) and any(field.name == EVENT_ID for field in response.proto.others)


def _as_json(schema: Schema[Any]) -> Callable[[Any], bytes] | None:
    """How items become JSON that only their schema can make of them; None where all JSON is made alike."""
    return None if isinstance(schema, TypedSchema) or isinstance(schema.declared, dict) else schema.encode


def _fingerprint(root: Part) -> bytes:
    """The same bytes for messages that are the same on the wire and mean the same."""
    file = file_of("", reached(root))
    data = root.signature.encode() + file.SerializeToString(deterministic=True)
    return hashlib.blake2b(data, digest_size=16).digest()


class Services:
    """The methods of routes, by their paths and by their routes' names."""

    def __init__(self, methods: Iterable[RouteMethod], package: str, numbering: Numbering | None) -> None:
        self._methods = [*methods]
        self.methods: Mapping[str, Method] = {method.path: method for method in self._methods}
        self.by_route: Mapping[str, Method] = {method.route.name: method for method in self._methods}
        self._made_with = package, numbering

    @functools.cached_property
    def files(self) -> Sequence[FileDescriptorProto]:
        """What describes them, one file a package, in the order of the packages' names."""
        packages: dict[str, list[RouteMethod]] = {}
        for method in sorted(self._methods, key=lambda method: method.place):
            packages.setdefault(method.place.package, []).append(method)
        return [_file(package, methods) for package, methods in packages.items()]

    def kept(self, route: Route, package: str, numbering: Numbering | None) -> RouteMethod | None:
        """The method of this very route, made in the same way."""
        method = self.by_route.get(route.name)
        if method is None or method.route is not route or self._made_with != (package, numbering):
            return None
        return cast("RouteMethod", method)


def _file(package: str, methods: Iterable[RouteMethod]) -> FileDescriptorProto:
    definitions: dict[str, Definition] = {}
    services: dict[str, ServiceDescriptorProto] = {}
    for method in methods:
        for definition in method.definitions:
            definitions.setdefault(definition.name, definition)
        name = method.place.service
        service = services.setdefault(name, ServiceDescriptorProto(name=name))
        request, response = method.roots
        kind = method.route.kind
        service.method.add(
            name=method.place.method,
            input_type=f".{request.signature}",
            output_type=f".{response.signature}",
            client_streaming=kind.reads or None,
            server_streaming=kind.writes or None,
        )
    return file_of(package, definitions.values(), services.values())


def services_of(
    routes: Iterable[Route],
    *,
    package: str = "",
    numbering: Numbering | None = None,
    before: Services | None = None,
) -> tuple[Services, list[Problem]]:
    """The methods of all routes that have one, and all that is wrong with the rest.

    `package` is put before the packages of all. `numbering` gives fields their numbers; without it they are counted. A
    route that `before` knows keeps its method, unless either is another than it was.
    """
    routes = [*routes]
    kept = {route.name: before.kept(route, package, numbering) for route in routes} if before is not None else {}
    new = [route for route in routes if kept.get(route.name) is None]
    made, problems = _made(new, package, numbering)
    made, clashes = _without_clashes([*made.values()], [method for method in kept.values() if method is not None])
    found = [method for route in routes if (method := kept.get(route.name) or made.get(route.name)) is not None]
    return Services(found, package, numbering), [*problems, *clashes]


def _made(
    routes: Sequence[Route], package: str, numbering: Numbering | None
) -> tuple[dict[str, RouteMethod], list[Problem]]:
    """The methods of routes by their names."""
    messages = Messages(numbering)
    methods: dict[str, RouteMethod] = {}
    problems: list[Problem] = []
    for route in routes:
        place, faults = place_of(route, package)
        problems += faults
        if place is None:
            continue
        names = [segment.text for segment in route.segments if segment.kind != "literal"]
        roots = []
        for side, part, others in (
            ("Request", "input_schema", functools.partial(_parameters, route)),
            ("Response", "output_schema", functools.partial(_event_id, route)),
        ):
            shape = _shape(route.input if side == "Request" else route.output)
            roots.append(
                messages.root(shape, place.package, place.prefix, side=side, owner=route.name, others=others(shape))
            )
            problems += [route.origin.problem(part, *fault) for fault in messages.faults]
            messages.faults.clear()
        methods[route.name] = RouteMethod(place, route, roots[0], roots[1], names)
    return methods, problems


def _shape(schema: Schema[Any]) -> shapes.Type:
    """What a schema is to msgspec: any JSON where it is not its own."""
    return schema.shape if isinstance(schema, TypedSchema) else _ANY


def _parameters(route: Route, shape: shapes.Type) -> list[Field]:
    """Fields for the parameters of a route that its input has no field for."""
    own = {field.encode_name for field in getattr(shape, "fields", ())}
    return [
        Field(identifier(segment.text), _TEXT, "optional" if segment.kind == "optional" else "")
        for segment in route.segments
        if segment.kind != "literal" and segment.text not in own
    ]


def _event_id(route: Route, shape: shapes.Type) -> list[Field]:
    if not (route.meta.resumable and route.kind.writes):
        return []
    return [Field(EVENT_ID, _TEXT, "optional", number=EVENT_ID_NUMBER)]


# Clashes


def _without_clashes(
    new: Sequence[RouteMethod], kept: Sequence[RouteMethod]
) -> tuple[dict[str, RouteMethod], list[Problem]]:
    """Of the new methods those that have all their names for themselves; a problem for each other, which names both."""
    paths = {method.path: method for method in kept}
    taken: dict[str, Definition | None] = {}
    for method in kept:
        taken.update(method.symbols)
    methods: dict[str, RouteMethod] = {}
    problems: list[Problem] = []
    for method in new:
        first = paths.setdefault(method.path, method)
        if first is not method:
            problems.append(_problem(method, "", f"the method {method.path} is that of {_named(first)} too"))
            continue
        clash = next(
            (name for name, one in method.symbols.items() if name in taken and not _is_same(one, taken[name])), None
        )
        if clash is not None:
            one, other = method.symbols[clash], taken[clash]
            owner = next(known for known in [*kept, *methods.values()] if clash in known.symbols)
            found = f"{_described(clash, one)} and {_described(clash, other)} of {_named(owner)}"
            problems.append(_problem(method, _part_of(method, one), f"two things have one name: {found}"))
        elif method.clash:
            problems.append(_problem(method, "output_schema", f"two things have one name: {method.clash}"))
        else:
            taken.update(method.symbols)
            methods[method.route.name] = method
    return methods, problems + _named_like_packages(methods, [*kept, *methods.values()], taken)


def _named_like_packages(
    new: dict[str, RouteMethod], methods: Iterable[RouteMethod], taken: Mapping[str, Definition | None]
) -> list[Problem]:
    """A problem for each thing that has the name of a package, or of one that packages lie in."""
    packages = {method.place.package: method for method in methods} if new else {}
    problems = []
    for package, method in packages.items():
        parts = package.split(".")
        for name in (".".join(parts[:size]) for size in range(1, len(parts) + 1)):
            if name in taken:
                owner = next(one for one in methods if name in one.symbols)
                found = f"{_described(name, taken[name])} of {_named(owner)} has the name of a package"
                problems.append(_problem(method, "", found))
    return problems


def _problem(method: RouteMethod, part: str, found: str) -> Problem:
    return method.route.origin.problem(part, found, "a name for each, in code or in meta['grpc']")


def _named(method: RouteMethod) -> str:
    origin = method.route.origin
    return f"{method.route.name!r} at {origin.file}:{origin.lines.get('', 1)}"


def _part_of(method: RouteMethod, definition: Definition | None) -> str:
    """The part of a route that a definition comes from."""
    if definition is None:
        return ""
    return "input_schema" if definition in reached(method.roots[0]) else "output_schema"


def _described(name: str, definition: Definition | None) -> str:
    if definition is None:
        return f"the service {name}"
    word = "message" if isinstance(definition, Message) else "enum"
    what = f"the {word} {definition.full_name}" + (f" with its {name}" if name != definition.full_name else "")
    owner = definition.owner
    return what if isinstance(owner, tuple) else f"{what} ({'.'.join(filter(None, map(str, _identity(owner))))})"


def _is_same(one: Definition | None, other: Definition | None) -> bool:
    """Whether two definitions are one: of a module that was imported anew there may be both."""
    return one is other or (
        one is not None
        and other is not None
        and _identity(one.owner) == _identity(other.owner)
        and _content(one) == _content(other)
    )


def _identity(owner: Any) -> tuple[object, ...]:
    """What is the same for a class each time that its module is loaded."""
    origin = typing.get_origin(owner)
    if origin is not None:
        return (*_identity(origin), *map(_identity, typing.get_args(owner)))
    if isinstance(owner, type):
        module = owner.__module__
        return (_GENERATION.sub("", module) if module.startswith(ROUTE_FILES) else module, owner.__qualname__)
    return owner if isinstance(owner, tuple) else (repr(owner),)


_GENERATION = re.compile(r"\.g\d+\Z")


def _content(definition: Definition) -> list[tuple[object, ...]]:
    if isinstance(definition, Message):
        return [(field.name, field.signature, field.number) for field in definition.fields]
    return [(name, number) for name, number, _ in definition.values]
