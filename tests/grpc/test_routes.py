"""From files to methods, as a client by reflection sees it: names, parameters, presence, resumable streams."""

from __future__ import annotations

import grpc
import pytest

from .conftest import failure, items


@pytest.fixture
def tls():
    """What becomes of a route is the same behind TLS."""


@pytest.fixture
def started(serve, connect):
    """Serves route files and returns a client of them."""

    async def start(files, **options):
        return await connect(await serve(files, **options))

    return start


ONE = "async def handler(input, ctx):\n    return ctx.route\n"
MANY = "async def handler(input, ctx):\n    yield ctx.route\n"


def text(value) -> str:
    return value.string_value


# Names


@pytest.mark.parametrize(
    ("file", "path"),
    [
        ("clock.rpc.py", "/Root/Clock"),
        ("logs/tail.rpc.py", "/Logs/Tail"),
        ("market/prices/watch.rpc.py", "/market.Prices/Watch"),
        ("a/b/c/d.rpc.py", "/a.b.C/D"),
        ("user_data/list_all.rpc.py", "/UserData/ListAll"),
        ("(admin)/users/list.rpc.py", "/Users/List"),
    ],
)
async def test_a_file_is_a_method(started, file, path):
    client = await started({file: ONE})
    assert text(await client[path](client[path].request()))


@pytest.mark.parametrize(
    ("meta", "path"),
    [
        ({"package": "shop.v1"}, "/shop.v1.Orders/List"),
        ({"service": "OrderService"}, "/OrderService/List"),
        ({"method": "ListOrders"}, "/Orders/ListOrders"),
        ({"package": "shop.v1", "service": "OrderService", "method": "All"}, "/shop.v1.OrderService/All"),
    ],
)
async def test_meta_overrides_any_part_of_the_path(started, meta, path):
    client = await started({"orders/list.rpc.py": f'meta = {{"grpc": {meta}}}\n' + ONE})
    assert text(await client[path](client[path].request())) == "orders.list"
    call = client.channel.unary_unary("/Orders/List", request_serializer=bytes, response_deserializer=bytes)
    assert (await failure(call(b"", timeout=20))).code == "UNIMPLEMENTED"


async def test_meta_may_leave_a_route_out(started):
    client = await started({"a/shown.rpc.py": ONE, "a/hidden.rpc.py": 'meta = {"grpc": False}\n' + ONE})
    assert text(await client["/A/Shown"](client["/A/Shown"].request())) == "a.shown"
    call = client.channel.unary_unary("/A/Hidden", request_serializer=bytes, response_deserializer=bytes)
    assert (await failure(call(b"", timeout=20))).code == "UNIMPLEMENTED"
    with pytest.raises(KeyError):
        client["/A/Hidden"]


async def test_the_configured_package_is_before_all(started):
    client = await started(
        {"logs/tail.rpc.py": ONE, "market/prices/watch.stream.py": MANY}, grpc={"package": "acme.v1"}
    )
    assert text(await client["/acme.v1.Logs/Tail"](client["/acme.v1.Logs/Tail"].request())) == "logs.tail"
    watch = client["/acme.v1.market.Prices/Watch"]
    assert [text(item) for item in await items(watch(watch.request()))] == ["market.prices.watch"]


# Parameters

PARAMETERS = """
    from msgspec import Struct

    class Query(Struct):
        limit: int = 10

    class Found(Struct):
        params: dict[str, str]
        limit: int

    async def handler(input: Query, ctx) -> Found:
        return Found(dict(ctx.params), input.limit)
    """
TYPED = """
    from msgspec import Struct

    class Query(Struct):
        id: int
        limit: int = 10

    async def handler(input: Query, ctx) -> list[str]:
        return [str(ctx.params["id"]), repr(input.id)]
    """


async def test_parameters_are_fields_of_the_request_and_not_of_the_path(started):
    client = await started({"rooms/[room]/chat.rpc.py": PARAMETERS})
    chat = client["/Rooms/Chat"]
    answer = await chat(chat.request(room="a/b.é", limit=3))
    assert (dict(answer.params), answer.limit) == ({"room": "a/b.é"}, 3)
    answer = await chat(chat.request(room="x"))
    assert (dict(answer.params), answer.limit) == ({"room": "x"}, 10)


async def test_a_parameter_of_the_input_has_its_type(started):
    client = await started({"users/[id]/get.rpc.py": TYPED})
    get = client["/Users/Get"]
    assert list((await get(get.request(id=42))).value) == ["42", "42"]


async def test_parameters_of_a_route_without_a_schema(started):
    source = "async def handler(input, ctx):\n    yield dict(ctx.params)\n"
    client = await started({"rooms/[room]/tail.stream.py": source})
    tail = client["/Rooms/Tail"]
    (answer,) = await items(tail(tail.request(room="42")))
    assert dict(answer.struct_value)["room"] == "42"


@pytest.mark.parametrize("direction", ["client", "bidi"])
async def test_parameters_of_a_stream_up_come_with_its_first_item(started, direction):
    last = "return" if direction == "client" else "yield"
    source = f"""
        from collections.abc import AsyncIterator
        from msgspec import Struct

        meta = {{"direction": "{direction}"}}

        class Part(Struct):
            number: int

        async def handler(items: AsyncIterator[Part], ctx):
            {last} [ctx.params["room"], *[part.number async for part in items]]
        """
    client = await started({"rooms/[room]/join.stream.py": source})
    join = client["/Rooms/Join"]
    call = join(iter([join.request(room="42", number=1), join.request(number=2)]))
    answer = (await call) if direction == "client" else (await items(call))[0]
    assert list(answer.list_value) == ["42", 1, 2]


# Presence

PRESENCE = """
    import enum
    from msgspec import Struct

    class Inner(Struct):
        x: int = 7

    class Colour(enum.Enum):
        RED = "red"
        BLUE = "blue"

    class Query(Struct):
        number: int
        text: str
        flag: bool
        inner: Inner
        colour: Colour
        other: int = 5
        maybe: int | None = 6
        name: str | None = None
        numbers: list[int] = []
        more: Inner | None = None

    async def handler(input: Query, ctx) -> str:
        return repr(input)
    """


def whole(method, **fields):
    return method.request(inner={}, colour=1, **fields)


async def test_what_is_absent_is_its_default_or_its_zero_value(started):
    client = await started({"check.rpc.py": PRESENCE})
    check = client["/Root/Check"]
    expected = (
        "Query(number=0, text='', flag=False, inner=Inner(x=7), colour=<Colour.RED: 'red'>, other=5, maybe=6, "
        "name=None, numbers=[], more=None)"
    )
    assert (await check(whole(check))).value == expected


async def test_what_is_present_is_itself_zero_or_not(started):
    client = await started({"check.rpc.py": PRESENCE})
    check = client["/Root/Check"]
    fields = {"other": 0, "maybe": 0, "name": "", "numbers": [0, 1], "more": {"x": 0}}
    expected = (
        "Query(number=0, text='', flag=False, inner=Inner(x=7), colour=<Colour.RED: 'red'>, other=0, maybe=0, "
        "name='', numbers=[0, 1], more=Inner(x=0))"
    )
    assert (await check(whole(check, **fields))).value == expected


@pytest.mark.parametrize(("given", "missing"), [({"inner": {}}, "colour"), ({"colour": 1}, "inner")])
async def test_a_required_message_or_enum_must_be_there(started, given, missing):
    client = await started({"check.rpc.py": PRESENCE})
    check = client["/Root/Check"]
    found = await failure(check(check.request(**given)))
    assert (found.code, found.error["code"]) == ("INVALID_ARGUMENT", "VALIDATION_ERROR")
    assert [detail["path"] for detail in found.error["details"]] == [missing]


async def test_a_field_with_a_default_is_optional_by_reflection(started):
    client = await started({"check.rpc.py": PRESENCE})
    fields = client["/Root/Check"].request.DESCRIPTOR.fields_by_name
    present = {name for name, field in fields.items() if field.has_presence}
    assert present == {"inner", "other", "maybe", "name", "more"}


# Resumable streams

RESUMABLE = """
    from collections.abc import AsyncIterator
    from msgspec import Struct
    from raffel_core import tracked

    meta = {"resumable": True}

    class Query(Struct):
        to: int = 5

    class Step(Struct):
        number: int

    async def handler(input: Query, ctx) -> AsyncIterator[Step]:
        for number in range(int(ctx.last_event_id or -1) + 1, input.to):
            yield tracked(number, Step(number)) if number % 2 == 0 else Step(number)
    """


async def test_items_of_a_resumable_stream_have_their_ids(started):
    client = await started({"steps.stream.py": RESUMABLE})
    steps = client["/Root/Steps"]
    assert steps.response.DESCRIPTOR.fields_by_name["raffel_event_id"].number == 18999
    found = await items(steps(steps.request()))
    assert [item.number for item in found] == [0, 1, 2, 3, 4]
    ids = [item.raffel_event_id if item.HasField("raffel_event_id") else None for item in found]
    assert ids == ["0", None, "2", None, "4"]


async def test_ids_are_in_compressed_items_too(started):
    client = await started({"steps.stream.py": RESUMABLE})
    steps = client["/Root/Steps"]
    found = await items(steps(steps.request(), compression=grpc.Compression.Gzip))
    assert [(item.number, item.raffel_event_id) for item in found] == [(0, "0"), (1, ""), (2, "2"), (3, ""), (4, "4")]


async def test_a_stream_is_resumed_after_the_last_id(started):
    client = await started({"steps.stream.py": RESUMABLE})
    steps = client["/Root/Steps"]
    call = steps(steps.request(), metadata=(("last-event-id", "2"),))
    assert [(item.number, item.raffel_event_id) for item in await items(call)] == [(3, ""), (4, "4")]


async def test_too_long_a_last_id_is_refused(started):
    client = await started({"steps.stream.py": RESUMABLE})
    steps = client["/Root/Steps"]
    call = steps(steps.request(), metadata=(("last-event-id", "x" * 257),))
    assert (await failure(call.read())).code == "INVALID_ARGUMENT"


async def test_an_id_of_a_stream_that_is_not_resumable_is_not_sent(started):
    client = await started({"steps.stream.py": RESUMABLE.replace('meta = {"resumable": True}', "")})
    steps = client["/Root/Steps"]
    assert "raffel_event_id" not in steps.response.DESCRIPTOR.fields_by_name
    assert [item.number for item in await items(steps(steps.request()))] == [0, 1, 2, 3, 4]


# Who calls

AUTH = """
    from raffel_core import Auth, RaffelError

    async def authenticate(ctx):
        if ctx.metadata.get("authorization") == "Bearer broken":
            raise RaffelError("PERMISSION_DENIED", "not you")
        return Auth("kai") if ctx.metadata.get("authorization") == "Bearer good" else None
    """
SECRET = """
    async def handler(input: int, ctx) -> str:
        return ctx.auth.principal
    """


@pytest.mark.parametrize(
    ("metadata", "code"),
    [((), "UNAUTHENTICATED"), ((("authorization", "Bearer broken"),), "PERMISSION_DENIED")],
)
async def test_who_may_not_call_is_told_before_the_input_is_looked_at(started, metadata, code):
    client = await started({"_auth.py": AUTH, "secret.rpc.py": SECRET})
    call = client.channel.unary_unary("/Root/Secret", request_serializer=bytes, response_deserializer=bytes)
    assert (await failure(call(b"\xff", metadata=metadata, timeout=20))).code == code


async def test_who_may_call_is_known_to_the_handler(started):
    client = await started({"_auth.py": AUTH, "secret.rpc.py": SECRET})
    secret = client["/Root/Secret"]
    assert (await secret(secret.request(), metadata=(("authorization", "Bearer good"),))).value == "kai"
