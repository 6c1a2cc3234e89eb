"""Every option from every source: what is taken, where it came from, and how each mistake is told."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import msgspec
import pytest

from raffel_core import config as module
from raffel_core.config import (
    OPTIONS,
    Config,
    Cors,
    Docs,
    Limits,
    Loaded,
    Reload,
    Tcp,
    describe,
    in_force,
    load_config,
)
from raffel_core.errors import Problem, ProjectError

# raffel.yaml as the contract prints it: every option with its default (`docs` and `reload.streams` are dev's).
CONTRACT = """
routes: routes
host: 0.0.0.0
port: 3000
base_path: /
allowed_hosts: []
trusted_proxies: []
proxy_protocol: false
websocket: {path: /ws}
jsonrpc: {path: /rpc}
tcp: {port: null}
grpc: {port: null, package: "", reflection: true}
docs: {path: /docs}
metrics: {path: /metrics, token: null}
tls: {cert: null, key: null}
cors: {origins: []}
usd: {info: {}, content_types: {}, streams: {}}
limits: {message_bytes: 1048576, high_water_mark: 16, streams_per_connection: 100, connections: 10000, stall_seconds: 30, request_seconds: 10}
drain_seconds: 30
drain_delay_seconds: 0
heartbeat_seconds: {sse: 15, websocket: 20}
reload: {streams: restart, debounce_ms: 50}
topics: {url: "memory://", history: 1000}
log: {level: info, format: auto}
"""  # noqa: E501 the contract's own lines


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(text: str = "", environ: dict[str, str] | None = None, flags: dict[str, object] | None = None) -> Loaded:
    Path("raffel.yaml").write_text(text, encoding="utf-8")
    return load_config(None, environ or {}, flags or {})


def refused(
    text: str = "", environ: dict[str, str] | None = None, flags: dict[str, object] | None = None
) -> list[Problem]:
    with pytest.raises(ProjectError) as caught:
        load(text, environ, flags)
    return caught.value.problems


# Defaults


def test_without_any_source_every_option_has_its_default() -> None:
    loaded = load_config(None, {}, {})
    assert loaded.config == Config()
    assert set(loaded.sources) == set(OPTIONS)
    assert set(loaded.sources.values()) == {"default"}


def test_the_defaults_are_the_contracts() -> None:
    contract = load(CONTRACT)
    assert contract.config == msgspec.structs.replace(Config(), docs=Docs(), reload=Reload(streams="restart"))
    assert "default" not in contract.sources.values()


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n", "{}\n", "\ufeff"])
def test_an_empty_file_is_fine(text: str) -> None:
    assert load(text).config == Config()


def test_defaults_by_command() -> None:
    dev = load_config(None, {}, {}, "dev").config
    assert (dev.host, dev.docs, dev.reload.streams) == ("127.0.0.1", Docs(), "restart")
    serve = load_config(None, {}, {}, "serve").config
    assert (serve.host, serve.docs, serve.reload.streams) == ("0.0.0.0", False, "finish")


def test_what_a_source_says_beats_the_command() -> None:
    Path("raffel.yaml").write_text("host: 10.0.0.1\ndocs: false\nreload: {streams: end}\n")
    dev = load_config(None, {}, {}, "dev").config
    assert (dev.host, dev.docs, dev.reload.streams) == ("10.0.0.1", False, "end")


def test_a_configuration_is_frozen() -> None:
    with pytest.raises(AttributeError):
        load().config.limits.connections = 1  # type: ignore[misc] # the assignment is the test


def test_one_configuration_does_not_change_the_next() -> None:
    load().config.usd.info["title"] = "mine"  # type: ignore[index] # a dict behind its read-only type
    assert load().config.usd.info == {}


# The file


def test_the_file_overrides_the_defaults_and_is_named_with_its_line() -> None:
    loaded = load("port: 4000\nlimits:\n  # why\n  connections: 5\n")
    assert loaded.config == Config(port=4000, limits=Limits(connections=5))
    assert loaded.sources["port"] == "raffel.yaml:1"
    assert loaded.sources["limits.connections"] == "raffel.yaml:4"
    assert loaded.sources["limits.stall_seconds"] == "default"


def test_a_named_file_is_read_instead_of_the_default_one(project: Path) -> None:
    (project / "raffel.yaml").write_text("port: 1\n")
    (project / "deploy").mkdir()
    (project / "deploy" / "other.yaml").write_text("port: 2\n")
    loaded = load_config(Path("deploy/other.yaml"), {}, {})
    assert loaded.config.port == 2
    assert loaded.sources["port"] == "deploy/other.yaml:1"


def test_the_root_is_the_folder_of_the_file(project: Path) -> None:
    (project / "deploy").mkdir()
    (project / "deploy" / "raffel.yaml").touch()
    assert load_config(Path("deploy/raffel.yaml"), {}, {}).root == project / "deploy"


def test_the_root_of_a_linked_file_is_where_the_link_is(project: Path) -> None:
    (project / "data").mkdir()
    (project / "data" / "raffel.yaml").touch()
    (project / "raffel.yaml").symlink_to("data/raffel.yaml")
    assert load_config(None, {}, {}).root == project


def test_without_a_file_the_root_is_the_working_directory(project: Path) -> None:
    assert load_config(None, {}, {}).root == project


def test_a_named_file_must_exist() -> None:
    with pytest.raises(ProjectError) as caught:
        load_config(Path("absent.yaml"), {}, {})
    [problem] = caught.value.problems
    assert (problem.file, problem.line) == ("absent.yaml", 0)
    assert "No such file" in problem.found


def test_a_folder_is_no_file(project: Path) -> None:
    with pytest.raises(ProjectError, match="directory"):
        load_config(project, {}, {})


def test_a_file_elsewhere_is_named_by_its_whole_path(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    file = tmp_path_factory.mktemp("elsewhere") / "raffel.yaml"
    file.write_text("port: 4000\n")
    assert load_config(file, {}, {}).sources["port"] == f"{file}:1"


def test_small_aliases_work() -> None:
    config = load("allowed_hosts: &hosts [a.example, b.example]\ntrusted_proxies: []\ncors: {origins: []}\n").config
    assert config.allowed_hosts == ("a.example", "b.example")
    assert load("tcp: &own {port: 5000}\nusd: {info: *own}\n").config.usd.info == {"port": 5000}


# Groups that can be off


@pytest.mark.parametrize("group", ["tcp", "grpc", "docs", "metrics"])
@pytest.mark.parametrize("word", ["false", "off", "no"])
def test_a_group_is_switched_off(group: str, word: str) -> None:
    loaded = load(f"{group}: {word}\n")
    assert getattr(loaded.config, group) is False
    assert loaded.sources[group] == "raffel.yaml:1"


@pytest.mark.parametrize("text", ["docs: true\n", "docs: {}\n", "docs: {path: /docs}\n"])
def test_a_group_is_switched_on(text: str) -> None:
    assert load(text).config.docs == Docs()


def test_other_groups_cannot_be_switched_off() -> None:
    assert refused("limits: false\n") == [Problem("raffel.yaml", 1, "limits is false", "a mapping")]


def test_a_stronger_source_switches_a_group_off() -> None:
    loaded = load("tcp: {port: 5000}\n", {"RAFFEL_TCP": "false"})
    assert loaded.config.tcp is False
    assert loaded.sources["tcp"] == "RAFFEL_TCP"


def test_an_option_of_a_stronger_source_switches_its_group_on() -> None:
    loaded = load("tcp: false\n", {"RAFFEL_TCP__PORT": "5000"})
    assert loaded.config.tcp == Tcp(port=5000)
    assert loaded.sources["tcp"] == "RAFFEL_TCP__PORT"


def test_within_one_source_off_has_the_last_word() -> None:
    assert load(environ={"RAFFEL_TCP": "false", "RAFFEL_TCP__PORT": "5000"}).config.tcp is False
    assert load(flags={"tcp": False, "tcp.port": 5000}).config.tcp is False


# The environment and flags


def test_variables_override_the_file_and_flags_override_both() -> None:
    loaded = load("port: 1\nhost: a\nroutes: r\n", {"RAFFEL_PORT": "2", "RAFFEL_HOST": "b"}, {"port": 3})
    assert (loaded.config.port, loaded.config.host, loaded.config.routes) == (3, "b", "r")
    assert [loaded.sources[name] for name in ("port", "host", "routes")] == ["--port", "RAFFEL_HOST", "raffel.yaml:3"]


def test_a_flag_that_was_not_given_overrides_nothing() -> None:
    assert load("port: 1\n", flags={"port": None, "host": None}).config == Config(port=1)


def test_the_flag_of_a_nested_option() -> None:
    assert load(flags={"limits.message_bytes": 9}).sources["limits.message_bytes"] == "--limits-message-bytes"


@pytest.mark.parametrize(
    ("variable", "text", "name", "value"),
    [
        ("RAFFEL_PORT", "0", "port", 0),
        ("RAFFEL_TCP__PORT", "5000", "tcp.port", 5000),
        ("RAFFEL_TCP__PORT", "", "tcp.port", None),
        ("RAFFEL_TCP__PORT", "null", "tcp.port", None),
        ("RAFFEL_METRICS__TOKEN", "", "metrics.token", None),
        ("RAFFEL_METRICS__TOKEN", "123", "metrics.token", "123"),
        ("RAFFEL_GRPC__PACKAGE", "", "grpc.package", ""),
        ("RAFFEL_GRPC__PACKAGE", "null", "grpc.package", "null"),
        ("RAFFEL_GRPC__REFLECTION", "false", "grpc.reflection", False),
        ("RAFFEL_PROXY_PROTOCOL", "true", "proxy_protocol", True),
        ("RAFFEL_PROXY_PROTOCOL", "1", "proxy_protocol", True),
        ("RAFFEL_ALLOWED_HOSTS", "a.example, b.example", "allowed_hosts", ("a.example", "b.example")),
        ("RAFFEL_ALLOWED_HOSTS", "", "allowed_hosts", ()),
        ("RAFFEL_TRUSTED_PROXIES", "10.0.0.0/8,::1", "trusted_proxies", ("10.0.0.0/8", "::1")),
        ("RAFFEL_LIMITS__STALL_SECONDS", "0.5", "limits.stall_seconds", 0.5),
        ("RAFFEL_RELOAD__STREAMS", "end", "reload.streams", "end"),
        ("RAFFEL_HEARTBEAT_SECONDS__SSE", "5", "heartbeat_seconds.sse", 5.0),
        ("RAFFEL_USD__INFO", '{"title": "Shop"}', "usd.info", {"title": "Shop"}),
        ("RAFFEL_DOCS", "true", "docs", True),
        ("RAFFEL_DOCS", "", "docs", None),
    ],
)
def test_a_variable_is_read_as_its_option_type(variable: str, text: str, name: str, value: object) -> None:
    loaded = load(environ={variable: text})
    assert {option.name: value for option, value in in_force(loaded.config)}[name] == value
    assert loaded.sources[name] == variable


@pytest.mark.parametrize(
    ("variable", "text", "found"),
    [
        ("RAFFEL_PORT", "abc", 'port is "abc"'),
        ("RAFFEL_PORT", "", 'port is ""'),
        ("RAFFEL_PROXY_PROTOCOL", "perhaps", 'proxy_protocol is "perhaps"'),
        ("RAFFEL_USD__INFO", "title", 'usd.info is "title"'),
        ("RAFFEL_TCP", "5000", 'tcp is "5000"'),
        ("RAFFEL_LIMITS__STALL_SECONDS", "nan", 'limits.stall_seconds is "nan"'),
    ],
)
def test_a_wrong_variable_is_named_and_has_no_line(variable: str, text: str, found: str) -> None:
    [problem] = refused(environ={variable: text})
    assert problem[:3] == (variable, 0, found)


def test_an_unknown_variable_is_an_error_with_a_suggestion() -> None:
    assert refused(environ={"RAFFEL_TCP_PORT": "1"}) == [
        Problem("RAFFEL_TCP_PORT", 0, "unknown variable", "RAFFEL_TCP__PORT")
    ]


def test_an_unknown_variable_near_nothing_says_how_they_are_named() -> None:
    [problem] = refused(environ={"RAFFEL_QQ": "1"})
    assert "RAFFEL_TCP__PORT is for tcp.port" in problem.expected


def test_other_variables_are_left_alone() -> None:
    assert load(environ={"PORT": "1", "RAFFELS": "x", "raffel_port": "2"}).config == Config()


def test_a_wrong_flag_is_named() -> None:
    [problem] = refused(flags={"port": 70000})
    assert problem[:3] == ("--port", 0, "port is 70000")


# What is impossible


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("port: 65536", "port is 65536; expected an integer from 0 to 65535"),
        ("port: -1", "port is -1; expected an integer from 0 to 65535"),
        ('port: "3000"', 'port is "3000"; expected an integer from 0 to 65535'),
        ("port: true", "port is true; expected an integer from 0 to 65535"),
        ("port: 80.5", "port is 80.5; expected an integer from 0 to 65535"),
        ("port:", "port is null; expected an integer from 0 to 65535"),
        ("port: [1]", "port is [1]; expected an integer from 0 to 65535"),
        ("tcp: {port: x}", 'tcp.port is "x"; expected null or an integer from 0 to 65535'),
        ("tcp:", "tcp is null; expected a mapping, or true or false"),
        ("limits:", "limits is null; expected a mapping"),
        ("limits: [1]", "limits is a list; expected a mapping"),
        ("proxy_protocol: 1", "proxy_protocol is 1; expected true or false"),
        ("reload: {streams: stop}", 'reload.streams is "stop"; expected null or end or finish or restart'),
        ("log: {level: loud}", 'log.level is "loud"; expected debug or error or info or warning'),
        ("log: {format: xml}", 'log.format is "xml"; expected auto or json or text'),
        ("drain_seconds: .nan", "drain_seconds is NaN; expected a number from 0 to 86400"),
        ("drain_seconds: .inf", "drain_seconds is Infinity; expected a number from 0 to 86400"),
        ("heartbeat_seconds: {sse: 0}", "heartbeat_seconds.sse is 0; expected a number above 0, up to 86400"),
        ("usd: {info: []}", "usd.info is []; expected a mapping with strings as keys"),
        ("tls: {cert: a.pem}", "tls.cert without tls.key; expected both or none"),
        ("tls: {key: a.pem}", "tls.key without tls.cert; expected both or none"),
        ("host: !env HOST", "host: could not determine a constructor for the tag '!env'; expected a host name"),
        ("host: !!python/name:os.system x", "host: could not determine a constructor for the tag"),
        ("host: 2026-13-01", "host is 2026-13-01, which does not fit its YAML tag; expected a host name"),
        ("port: !!int x", "port is x, which does not fit its YAML tag; expected an integer"),
    ],
)
def test_an_impossible_value_is_told_with_its_line(text: str, problem: str) -> None:
    [found] = refused(f"# first\n{text}\n")
    assert str(found).startswith(f"raffel.yaml:2: {problem}")


@pytest.mark.parametrize(
    "name",
    [
        "limits.message_bytes",
        "limits.high_water_mark",
        "limits.streams_per_connection",
        "limits.connections",
        "limits.stall_seconds",
        "limits.request_seconds",
        "topics.history",
    ],
)
def test_a_limit_is_positive(name: str) -> None:
    group, option = name.split(".")
    [problem] = refused(f"{group}: {{{option}: 0}}\n")
    assert problem.found == f"{name} is 0"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("base_path", "api"),
        ("base_path", "/api/"),
        ("base_path", "/a//b"),
        ("websocket.path", "ws"),
        ("jsonrpc.path", "/a/b"),
        ("docs.path", "/"),
        ("metrics.path", "/metrics?x"),
        ("host", "http://example.com"),
        ("host", ""),
        ("routes", ""),
        ("grpc.package", "acme..v1"),
        ("topics.url", "mongo://host"),
        ("topics.url", "memory"),
    ],
)
def test_a_text_of_the_wrong_form_is_refused(name: str, value: str) -> None:
    [problem] = refused(flags={name: value})
    assert problem.found == f'{name} is "{value}"' or problem.found == f'{name} is "***"'


@pytest.mark.parametrize("path", ["/", "/api", "/api/v1"])
def test_a_base_path(path: str) -> None:
    assert load(f"base_path: {path}\n").config.base_path == path


@pytest.mark.parametrize("url", ["memory://", "redis://cache:6379/0", "rediss://cache", "nats://a:4222,nats://b:4222"])
def test_a_topic_engine(url: str) -> None:
    assert load(f'topics: {{url: "{url}"}}\n').config.topics.url == url


@pytest.mark.parametrize("origin", ["https://example.com/", "example.com", "null", "https://"])
def test_an_origin_that_no_browser_sends_is_refused(origin: str) -> None:
    [problem] = refused(f'cors: {{origins: [https://fine.example, "{origin}"]}}\n')
    assert problem.found.startswith("cors.origins is [")


def test_origins() -> None:
    text = 'cors: {origins: ["*", https://example.com, "http://localhost:5173"]}\n'
    assert load(text).config.cors == Cors(origins=("*", "https://example.com", "http://localhost:5173"))


def test_a_trusted_proxy_is_an_address_or_a_network() -> None:
    assert load('trusted_proxies: [127.0.0.1, 10.0.0.0/8, "::1"]\n').config.trusted_proxies[1] == "10.0.0.0/8"
    [problem] = refused("trusted_proxies: [127.0.0.1, nginx]\n")
    assert problem == Problem(
        "raffel.yaml", 1, 'trusted_proxies has "nginx"', "an address or a network like 10.0.0.0/8"
    )


def test_paths_differ() -> None:
    assert refused("port: 1\njsonrpc: {path: /ws}\n") == [
        Problem("raffel.yaml", 2, "websocket.path and jsonrpc.path are both /ws", "paths that differ")
    ]


def test_the_path_of_the_documents_counts_unless_they_are_off() -> None:
    assert "docs.path" in refused("websocket: {path: /docs}\n")[0].found
    assert load("websocket: {path: /docs}\ndocs: false\n").config.docs is False


@pytest.mark.parametrize("path", ["/streams", "/health"])
def test_a_path_of_the_servers_own_is_refused(path: str) -> None:
    [problem] = refused(f"metrics: {{path: {path}}}\n")
    assert problem.found == f"metrics.path is {path}, which the server uses itself"


def test_ports_differ_unless_free_ones_are_picked() -> None:
    [problem] = refused("tcp: {port: 3000}\n")
    assert problem.found == "port and tcp.port are both 3000"
    assert load("port: 0\ntcp: {port: 0}\ngrpc: {port: 0}\n").config.port == 0
    assert load("tcp: false\ngrpc: {port: 5000}\n", {"RAFFEL_PORT": "1"}).config.tcp is False


def test_a_contradiction_between_sources_is_told_where_it_was_made() -> None:
    [problem] = refused("tls: {cert: a.pem, key: a.key}\n", {"RAFFEL_TLS__KEY": ""})
    assert problem.file == "raffel.yaml"
    [problem] = refused("port: 4000\n", flags={"tcp.port": 4000})
    assert problem.file == "--tcp-port"


def test_a_wrong_option_is_not_told_again_as_a_contradiction() -> None:
    [problem] = refused("tls: {cert: 5, key: a.key}\n")
    assert problem.found == "tls.cert is 5"


# Keys


def test_an_unknown_option_is_an_error_with_a_suggestion() -> None:
    assert refused("port: 1\nprot: 3000\n") == [Problem("raffel.yaml", 2, "unknown option prot", "port")]


def test_an_unknown_option_of_a_group_is_an_error_with_a_suggestion() -> None:
    text = "limits:\n  conections: 5\n"
    assert refused(text) == [Problem("raffel.yaml", 2, "unknown option limits.conections", "limits.connections")]


def test_an_option_in_the_wrong_group_is_found_where_it_belongs() -> None:
    [problem] = refused("message_bytes: 5\n")
    assert problem.expected == "limits.message_bytes"


def test_an_unknown_option_near_nothing_lists_what_there_is() -> None:
    [problem] = refused("tls: {zzz: 1}\n")
    assert problem.expected == "one of cert, key"


@pytest.mark.parametrize("key", ["5", "null", "? [a, b]\n", "<<"])
def test_a_key_that_is_no_name_is_unknown(key: str) -> None:
    [problem] = refused(f"{key}: {{}}\n")
    assert problem.found.startswith("unknown option")


def test_a_key_given_twice_is_an_error() -> None:
    assert refused("port: 1\nhost: a\nport: 2\n") == [
        Problem("raffel.yaml", 3, "port for the second time", "it once, as on line 1")
    ]


@pytest.mark.parametrize(
    "text",
    ["tcp: {port: 1, port: 1}\n", "usd: {info: {title: a, title: b}}\n", "usd: {streams: {a: [{b: 1, b: 2}]}}\n"],
)
def test_a_key_given_twice_is_an_error_at_any_depth(text: str) -> None:
    assert "for the second time" in refused(text)[0].found


def test_long_keys_that_begin_alike_are_not_the_same() -> None:
    assert len(load(f"usd: {{streams: {{{'a' * 80}b: 1, {'a' * 80}c: 2}}}}\n").config.usd.streams) == 2


# Broken files


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("port: 1\nhost: [a\n", 3),
        ("port: 1\n\thost: a\n", 2),
        ("port: 1\nhost: *nobody\n", 2),
        ("port: 1\n---\nport: 2\n", 2),
        ("port: 1\nhost: 'a\n", 3),
        ("port: 1\nhost: a\x01b\n", 2),
    ],
)
def test_what_is_no_yaml_is_told_with_its_line(text: str, line: int) -> None:
    [problem] = refused(text)
    assert (problem.file, problem.line) == ("raffel.yaml", line)


def test_what_is_no_utf_8_is_told_with_its_line() -> None:
    Path("raffel.yaml").write_bytes(b"port: 1\nhost: \xff\n")
    with pytest.raises(ProjectError) as caught:
        load_config(None, {}, {})
    assert caught.value.problems == [Problem("raffel.yaml", 2, "bytes that are not UTF-8", "text in UTF-8")]


@pytest.mark.parametrize(("text", "found"), [("[1]", "a list alone"), ("hello", "hello alone")])
def test_a_file_that_is_no_mapping_is_an_error(text: str, found: str) -> None:
    assert refused(f"# first\n{text}\n") == [Problem("raffel.yaml", 2, found, "a mapping of options")]


def test_an_alias_bomb_is_refused() -> None:
    lines = ["usd:", "  info:", "    a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"    a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    [problem] = refused("\n".join(lines))
    assert (problem.line, problem.found) == (1, "usd has aliases that stand for too much")


def test_a_bomb_of_merge_keys_is_refused() -> None:
    lines = ["usd:", "  streams:", "    a0: &a0 {x: 1}"]
    lines += [f"    a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 30)]
    [problem] = refused("\n".join(lines))
    assert problem.found == "usd has aliases that stand for too much"


@pytest.mark.parametrize("text", ["usd: {info: &a {b: *a}}", "&a {usd: *a}", "allowed_hosts: &a [*a]"])
def test_an_alias_inside_its_own_anchor_is_refused(text: str) -> None:
    assert "aliases that stand for too much" in refused(text)[0].found


def test_what_is_nested_too_deeply_is_refused() -> None:
    [problem] = refused("usd: {info: {a: " + "[" * 1500 + "]" * 1500 + "}}")
    assert problem.found == "lists or mappings nested too deeply"


def test_all_problems_of_all_sources_are_told_at_once() -> None:
    problems = refused(
        "port: x\nprot: 1\ntls: {key: a}\nusd: {info: {a: 1, a: 2}}\n", {"RAFFEL_X": "1", "RAFFEL_HOST": ""}, {"tcp": 5}
    )
    assert [problem[:2] for problem in problems] == [
        ("--tcp", 0),
        ("RAFFEL_HOST", 0),
        ("RAFFEL_X", 0),
        ("raffel.yaml", 1),
        ("raffel.yaml", 2),
        ("raffel.yaml", 3),
        ("raffel.yaml", 4),
    ]


def test_the_environment_is_checked_although_the_file_is_broken() -> None:
    assert {problem.file for problem in refused("port: [", {"RAFFEL_PORT": "x"})} == {"raffel.yaml", "RAFFEL_PORT"}


# Secrets


@pytest.mark.parametrize(
    ("text", "environ"),
    [
        ("metrics: {token: {a: hunter2}}\n", {}),
        ("metrics: {token: 2026-13-45, path: 5}\n", {}),
        ('topics: {url: "mongo://me:hunter2@host"}\n', {}),
        ("topics: {url: hunter2}\n", {}),
        ("topics: {url: [hunter2]}\n", {}),
        ("port: x\n", {"RAFFEL_TOPICS__URL": "redis:/me:hunter2@host"}),
    ],
)
def test_a_problem_does_not_show_a_secret(text: str, environ: dict[str, str]) -> None:
    shown = " ".join(map(str, refused(text, environ)))
    assert "hunter2" not in shown
    assert "2026" not in shown


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("memory://", "memory://"),
        ("redis://cache:6379/0", "redis://cache:6379/0"),
        ("redis://me:pass@cache:6379/0", "redis://***@cache:6379/0"),
        ("redis://:p/a@s@cache", "redis://***@cache"),
        ("nats://token@host", "nats://***@host"),
        ("nats://a:b@h1,nats://c:d@h2", "nats://***@h2"),
        ("redis://cache?db=1&Password=x&timeout=5", "redis://cache?db=1&Password=***&timeout=5"),
    ],
)
def test_a_topic_url_is_shown_without_its_credentials(url: str, shown: str) -> None:
    assert OPTIONS["topics.url"].shown(url) == shown


def test_a_token_is_shown_as_stars_and_none_as_none() -> None:
    assert OPTIONS["metrics.token"].shown("abc") == "***"
    assert OPTIONS["metrics.token"].shown(None) is None
    assert OPTIONS["tls.key"].shown("key.pem") == "key.pem"


# What derives from the declaration


def test_every_option_is_described_with_type_default_and_text() -> None:
    rows = describe()
    assert [row.name for row in rows] == list(OPTIONS)
    assert all(row.type and row.doc.endswith(".") for row in rows)
    by_name = {row.name: row for row in rows}
    assert by_name["port"][1:3] == ("an integer from 0 to 65535", 3000)
    assert by_name["docs"][1:3] == ("a mapping, or null or true or false", None)
    assert by_name["limits.stall_seconds"].default == 30.0


def test_every_default_fits_its_own_type() -> None:
    for option in OPTIONS.values():
        assert msgspec.convert(option.default, option.type) == option.default


def test_variables_and_flags_are_distinct() -> None:
    assert len({option.variable for option in OPTIONS.values()}) == len(OPTIONS)
    assert len({option.flag for option in OPTIONS.values()}) == len(OPTIONS)


def test_the_defaults_by_command_are_options() -> None:
    assert set(module.BY_COMMAND) == set(get_args(module.Command))
    for defaults in module.BY_COMMAND.values():
        for name, value in defaults.items():
            assert msgspec.convert(value, OPTIONS[name].type) == value


def test_a_group_that_is_off_has_no_options_in_force() -> None:
    names = [option.name for option, _ in in_force(Config(tcp=False, docs=None))]
    assert "tcp" in names
    assert "docs" in names
    assert not {"tcp.port", "docs.path"} & set(names)
    assert "metrics.path" in names
