"""What keeps other people's pages away: the media type of a body, the Host, the Origin, and what CORS lets through."""

from __future__ import annotations

import pytest

MARKED = """
async def handler(input, ctx):
    ctx.app.state.ran = True
    yield 1
"""
ROUTES = {"ticks.stream.py": MARKED, "ask.rpc.py": MARKED.replace("yield", "return")}
BOTH = ["/ask", "/streams/ticks"]
HOST = "app.com"


# A body is JSON


@pytest.mark.parametrize("path", BOTH)
@pytest.mark.parametrize(
    "media",
    [
        "application/json",
        "application/json; charset=utf-8",
        "APPLICATION/JSON",
        "application/vnd.api+json",
        "application/a+JSON",
    ],
)
async def test_a_body_may_be_json(serve, client, path: str, media: str) -> None:
    answer = await client(await serve(ROUTES)).post(path, content=b"{}", headers={"Content-Type": media})
    assert answer.status_code == 200


@pytest.mark.parametrize("path", BOTH)
@pytest.mark.parametrize(
    "media",
    [
        "text/plain",
        "text/plain;application/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=a",
        "text/json",
        "text/x+json",
        "application/jsonp",
        "json",
        "",
    ],
)
async def test_a_body_of_another_type_is_refused(serve, client, path: str, media: str) -> None:
    answer = await client(await serve(ROUTES)).post(path, content=b"{}", headers={"Content-Type": media})
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize("path", BOTH)
async def test_a_body_of_no_type_is_refused(serve, client, path: str) -> None:
    assert (await client(await serve(ROUTES)).post(path, content=b"{}")).status_code == 415


async def test_what_curl_sends_by_itself_is_refused(serve, curl) -> None:
    server = await serve(ROUTES)
    assert await curl("--data", "{}", "-o", "/dev/null", "-w", "%{http_code}", f"{server.url}/ask") == b"415"


@pytest.mark.parametrize("path", BOTH)
async def test_a_body_of_another_type_runs_no_handler(serve, client, state, path: str) -> None:
    server = await serve(ROUTES)
    await client(server).post(path, content=b"{}", headers={"Content-Type": "text/plain"})
    assert not hasattr(state(server), "ran")


# Host

LOCAL = [
    "localhost",
    "localhost:3000",
    "LocalHost",
    "localhost.",
    "app.localhost",
    "a.b.localhost:1",
    "127.0.0.1",
    "127.0.0.1:80",
    "127.8.9.10",
    "[::1]",
    "[::1]:3000",
]
FOREIGN = [
    "evil.com",
    "localhost.evil.com",
    "localhost.evil.com:3000",
    "evil-localhost",
    "evillocalhost",
    "xlocalhost.",
    "127.0.0.1.evil",
    "127.0.0.1.evil.com",
    "127.0.0.1.nip.io",
    "192.168.0.1",
    "10.0.0.1:3000",
    "0.0.0.0",
    "169.254.169.254",
    "[::2]",
    "[fe80::1]",
    "[::1].evil.com",
    "[::1]evil.com:80",
    "localhost:3000@evil.com",
    "localhost:evil.com",
    "evil.com:localhost",
    "localhost..",
    ".localhost",
    "",
]


@pytest.mark.parametrize("path", BOTH)
@pytest.mark.parametrize("host", LOCAL)
async def test_in_development_this_machines_names_are_served(serve, client, path: str, host: str) -> None:
    answer = await client(await serve(ROUTES, development=True)).post(path, headers={"Host": host})
    assert answer.status_code == 200


@pytest.mark.parametrize("host", FOREIGN)
async def test_in_development_no_other_host_is(serve, client, host: str) -> None:
    answer = await client(await serve(ROUTES, development=True)).get("/streams/ticks", headers={"Host": host})
    assert (answer.status_code, answer.json()["error"]["code"]) == (421, "MISDIRECTED_REQUEST")


@pytest.mark.parametrize("path", [*BOTH, "/nowhere", "/rpc", "/ws", "/docs", "/metrics"])
async def test_the_host_counts_wherever_it_is_asked(serve, client, path: str) -> None:
    http = client(await serve(ROUTES, development=True))
    assert (await http.post(path, headers={"Host": "evil.com"})).status_code == 421


@pytest.mark.parametrize("path", BOTH)
async def test_another_host_runs_no_handler(serve, client, state, path: str) -> None:
    server = await serve(ROUTES, development=True)
    await client(server).post(path, headers={"Host": "evil.com"})
    assert not hasattr(state(server), "ran")


async def test_in_development_a_request_without_a_host_is_no_browsers(serve, connect) -> None:
    wire = await connect(await serve(ROUTES, development=True))
    await wire.send(b"GET /streams/ticks HTTP/1.0\r\n\r\n")
    assert (await wire.head()).status == 421


@pytest.mark.parametrize(
    ("listening", "host", "status"), [("127.0.0.2", "127.0.0.2", 200), ("127.0.0.2", "b.com", 421)]
)
async def test_in_development_the_host_that_is_listened_on_is_served(
    serve, client, listening: str, host: str, status: int
) -> None:
    http = client(await serve(ROUTES, development=True, host=listening))
    assert (await http.get("/streams/ticks", headers={"Host": host})).status_code == status


@pytest.mark.parametrize(("host", "status"), [("192.168.0.1:3000", 200), ("[fe80::1]", 200), ("evil.com", 421)])
async def test_in_development_on_all_addresses_any_address_is_served_and_no_name(
    serve, curl, host: str, status: int
) -> None:
    server = await serve(ROUTES, development=True, host="0.0.0.0")
    url = f"http://127.0.0.1:{server.port}/streams/ticks"
    assert await curl("-o", "/dev/null", "-w", "%{http_code}", "-H", f"Host: {host}", url) == str(status).encode()


async def test_in_development_allowed_hosts_are_served_too(serve, client) -> None:
    http = client(await serve(ROUTES, development=True, allowed_hosts=["app.com"]))
    assert [(await http.post("/ask", headers={"Host": host})).status_code for host in ("app.com", "localhost")] == [
        200,
        200,
    ]


@pytest.mark.parametrize("host", [*LOCAL, "evil.com", "192.168.0.1"])
async def test_in_production_every_host_is_served_unless_said_otherwise(serve, client, host: str) -> None:
    assert (await client(await serve(ROUTES)).get("/streams/ticks", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("app.com", 200),
        ("APP.com:8443", 200),
        ("app.com.", 200),
        ("a.cdn.app.com", 200),
        ("a.b.cdn.app.com", 200),
        ("cdn.app.com", 421),
        ("evilcdn.app.com", 421),
        ("app.com.evil", 421),
        ("evil-app.com", 421),
        ("a.app.com", 421),
        ("localhost", 421),
        ("127.0.0.1", 421),
    ],
)
async def test_in_production_only_allowed_hosts_are_served_where_there_are_any(
    serve, client, host: str, status: int
) -> None:
    http = client(await serve(ROUTES, allowed_hosts=["app.com", "*.cdn.app.com"]))
    assert (await http.get("/streams/ticks", headers={"Host": host})).status_code == status


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready"])
async def test_a_load_balancer_may_ask_for_the_health_by_any_name(serve, client, path: str) -> None:
    http = client(await serve(ROUTES, allowed_hosts=["app.com"]))
    assert (await http.get(path, headers={"Host": "10.0.0.7:3000"})).status_code == 200


# Origin


@pytest.mark.parametrize("path", BOTH)
@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("app.com", "http://app.com"),
        ("app.com", "https://app.com"),
        ("APP.com", "http://app.COM"),
        ("app.com:80", "http://app.com"),
        ("app.com", "http://app.com:80"),
        ("app.com:3000", "http://app.com:3000"),
        ("app.com:443", "https://app.com"),
        ("[::1]:3000", "http://[::1]:3000"),
    ],
)
async def test_the_hosts_own_origin_may_call(serve, client, path: str, host: str, origin: str) -> None:
    answer = await client(await serve(ROUTES)).post(path, headers={"Host": host, "Origin": origin})
    assert answer.status_code == 200


STRANGERS = [
    "null",
    "NULL",
    "",
    "http://evil.com",
    "http://app.com.evil",
    "http://evil-app.com",
    "http://sub.app.com",
    "http://app.com:3000",
    "https://app.com:80",
    "http://app.com:443",
    "ftp://app.com",
    "file://app.com",
    "chrome-extension://app.com",
    "app.com",
    "//app.com",
    "http:app.com",
    "http://app.com/",
    "http://app.com@evil.com",
    "http://evil.com@app.com",
    "http://app.com, http://evil.com",
    "http://localhost:3000",
    "http://127.0.0.1",
]


@pytest.mark.parametrize("origin", STRANGERS)
async def test_any_other_origin_is_refused(serve, client, origin: str) -> None:
    headers = {"Host": HOST, "Origin": origin}
    answer = await client(await serve(ROUTES)).get("/streams/ticks", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "PERMISSION_DENIED")


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
@pytest.mark.parametrize("path", ["/ask", "/streams/ticks", "/rpc", "/ws", "/nowhere"])
async def test_a_stranger_is_refused_everywhere(serve, client, path: str, method: str) -> None:
    headers = {"Host": HOST, "Origin": "http://evil.com"}
    assert (await client(await serve(ROUTES)).request(method, path, headers=headers)).status_code == 403


@pytest.mark.parametrize("path", BOTH)
async def test_a_stranger_runs_no_handler(serve, client, state, path: str) -> None:
    server = await serve(ROUTES)
    await client(server).post(path, headers={"Host": HOST, "Origin": "http://evil.com"})
    assert not hasattr(state(server), "ran")


async def test_a_stranger_is_refused_before_authentication(serve, client, state) -> None:
    guard = "async def authenticate(ctx):\n    ctx.app.state.ran = True\n"
    server = await serve({**ROUTES, "_auth.py": guard})
    await client(server).post("/ask", headers={"Host": HOST, "Origin": "http://evil.com"})
    assert not hasattr(state(server), "ran")


async def test_no_origin_is_no_browser(serve, client) -> None:
    assert (await client(await serve(ROUTES)).post("/ask", headers={"Host": HOST})).status_code == 200


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost",
        "http://localhost:5173",
        "https://localhost:5173",
        "http://127.0.0.1:8080",
        "http://[::1]:1",
        "http://a.localhost",
    ],
)
async def test_in_development_loopback_origins_may_call(serve, client, origin: str) -> None:
    http = client(await serve(ROUTES, development=True))
    assert (await http.get("/streams/ticks", headers={"Origin": origin})).status_code == 200


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "http://evil.com",
        "http://localhost.evil.com",
        "http://127.0.0.1.evil",
        "http://192.168.0.1",
        "http://[::1].evil.com",
        "http://localhost:80@evil.com",
        "app://localhost",
        "http://é€.localhost",
    ],
)
async def test_in_development_no_other_origin_may(serve, client, origin: str) -> None:
    http = client(await serve(ROUTES, development=True))
    assert (await http.get("/streams/ticks", headers={"Origin": origin.encode()})).status_code == 403


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://app.com", 200),
        ("HTTPS://App.com", 200),
        ("https://b.com:8443", 200),
        ("http://app.com", 403),
        ("https://app.com.evil", 403),
        ("https://app.com:8443", 403),
        ("https://b.com", 403),
        ("null", 403),
    ],
)
async def test_only_the_very_origins_that_are_allowed_may_call(serve, client, origin: str, status: int) -> None:
    http = client(await serve(ROUTES, cors={"origins": ["https://app.com", "https://b.com:8443"]}))
    assert (await http.get("/streams/ticks", headers={"Origin": origin})).status_code == status


async def test_null_is_not_allowed_even_where_all_are(serve, client) -> None:
    http = client(await serve(ROUTES, cors={"origins": ["*"]}))
    assert (await http.get("/streams/ticks", headers={"Origin": "null"})).status_code == 403


# What the page of an allowed origin may read

ALLOWED = {"Host": HOST, "Origin": "https://page.com"}
CORS = {"cors": {"origins": ["https://page.com"]}}
EVERY = [
    ("POST", "/ask", 200),
    ("GET", "/streams/ticks", 200),
    ("HEAD", "/streams/ticks", 200),
    ("GET", "/nowhere", 404),
    ("GET", "/ask", 405),
    ("OPTIONS", "/ask", 204),
    ("GET", "/health", 200),
]


@pytest.mark.parametrize(("method", "path", "status"), EVERY)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("access-control-allow-origin", "https://page.com"),
        ("access-control-allow-credentials", "true"),
        ("vary", "Origin"),
    ],
)
async def test_an_allowed_origin_is_echoed(
    serve, client, method: str, path: str, status: int, name: str, value: str
) -> None:
    answer = await client(await serve(ROUTES, **CORS)).request(method, path, headers=ALLOWED)
    assert (answer.status_code, answer.headers[name]) == (status, value)


async def test_an_allowed_origin_may_read_that_its_body_is_too_large(serve, client) -> None:
    http = client(await serve(ROUTES, **CORS, limits={"message_bytes": 10}))
    answer = await http.post("/ask", content=b"a" * 11, headers=ALLOWED)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (413, "https://page.com")


async def test_an_allowed_origin_may_read_the_end_of_a_stream(serve, client) -> None:
    http = client(await serve(ROUTES, **CORS))
    answer = await http.get("/streams/ticks", headers={**ALLOWED, "Last-Event-ID": "raffel:end"})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (204, "https://page.com")


@pytest.mark.parametrize(("method", "path", "status"), EVERY)
async def test_where_all_are_allowed_there_are_no_credentials(
    serve, client, method: str, path: str, status: int
) -> None:
    http = client(await serve(ROUTES, cors={"origins": ["*"]}))
    answer = await http.request(method, path, headers=ALLOWED)
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in answer.headers


async def test_an_origin_that_is_named_beside_all_has_credentials(serve, client) -> None:
    http = client(await serve(ROUTES, cors={"origins": ["*", "https://page.com"]}))
    answer = await http.get("/streams/ticks", headers=ALLOWED)
    assert answer.headers["access-control-allow-credentials"] == "true"


@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
async def test_a_stranger_may_read_nothing(serve, client, method: str) -> None:
    headers = {"Host": HOST, "Origin": "https://evil.com"}
    answer = await client(await serve(ROUTES, **CORS)).request(method, "/streams/ticks", headers=headers)
    assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_who_is_no_browser_is_told_nothing(serve, client) -> None:
    answer = await client(await serve(ROUTES, **CORS)).post("/ask")
    assert not [name for name in answer.headers if name.startswith("access-control")]


# Preflights


@pytest.mark.parametrize("path", BOTH)
@pytest.mark.parametrize("name", ["content-type", "authorization", "last-event-id", "timeout-ms"])
async def test_a_preflight_allows_the_headers_that_clients_need(serve, client, path: str, name: str) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": name}
    answer = await client(await serve(ROUTES, **CORS)).options(path, headers={**ALLOWED, **asked})
    allowed = answer.headers["access-control-allow-headers"].split(", ")
    assert (answer.status_code // 100, name in allowed) == (2, True)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_preflight_allows_the_methods_that_open(serve, client, method: str) -> None:
    asked = {"Access-Control-Request-Method": method}
    answer = await client(await serve(ROUTES, **CORS)).options("/streams/ticks", headers={**ALLOWED, **asked})
    assert method in answer.headers["access-control-allow-methods"].split(", ")


async def test_a_preflight_allows_no_other_header(serve, client) -> None:
    answer = await client(await serve(ROUTES, **CORS)).options("/ask", headers=ALLOWED)
    assert "x-" not in answer.headers["access-control-allow-headers"].lower()


async def test_the_preflight_of_a_stranger_is_refused(serve, client) -> None:
    headers = {"Host": HOST, "Origin": "https://evil.com", "Access-Control-Request-Method": "POST"}
    assert (await client(await serve(ROUTES, **CORS)).options("/ask", headers=headers)).status_code == 403


@pytest.mark.parametrize("path", BOTH)
async def test_a_preflight_runs_no_handler(serve, client, state, path: str) -> None:
    server = await serve(ROUTES, **CORS)
    await client(server).options(path, headers={**ALLOWED, "Access-Control-Request-Method": "POST"})
    assert not hasattr(state(server), "ran")
