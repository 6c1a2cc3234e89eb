"""The rules of the envelope protocol: the whole table, which ids are remembered, and how a violation is answered."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from raffel_core.errors import RaffelError
from raffel_core.wire.envelope import (
    CANCEL,
    CREDIT,
    DATA,
    END,
    MAX_CREDIT,
    REQUEST,
    START,
    TYPES,
    Envelope,
    Violation,
    encode,
)
from raffel_core.wire.protocol import (
    READING,
    REMEMBERED,
    SERVER,
    UNARY,
    Act,
    EnvelopeProtocol,
    State,
    Stream,
    in_use,
    out_of_turn,
    unknown,
)

Protocol = EnvelopeProtocol[Stream]


def message(type: str, id: str = "1", **fields: Any) -> bytes:
    return json.dumps({"type": type, "id": id, "procedure": "p", "credit": 1, **fields}).encode()


def asked(protocol: Protocol, type: str, id: str = "1") -> Act:
    """What a message asks for."""
    event = protocol.receive(message(type, id))
    assert not isinstance(event, Violation), event
    act, envelope, stream = event
    assert (envelope.type, envelope.id) == (type, id)
    assert stream is protocol.open.get(id)
    return act


def protocol_with(state: State, *ids: str) -> Protocol:
    protocol = Protocol()
    for id in ids or ("1",):
        protocol.add(Stream(id, state))
    return protocol


def ended(*ids: str) -> Protocol:
    protocol = protocol_with(SERVER, *ids)
    for id in ids:
        protocol.end(id)
    return protocol


def finished(*ids: str) -> Protocol:
    """Ids of client or bidi streams whose clients have sent their `stream:end`."""
    protocol = protocol_with(READING, *ids)
    for stream in protocol.open.values():
        protocol.finish(stream)
    return protocol


def answered(protocol: Protocol, data: bytes) -> dict[str, Any]:
    """The answer to a violation."""
    event = protocol.receive(data)
    assert isinstance(event, Violation), event
    answer: dict[str, Any] = json.loads(protocol.refuse(event.type, event.id, event.error))
    return answer


def shown(answer: dict[str, Any]) -> tuple[str, str | None, str]:
    return answer["type"], answer.get("id"), answer["payload"]["code"]


# The table

STATES = {
    "never was": lambda: Protocol(),
    "request": lambda: protocol_with(UNARY),
    "server stream": lambda: protocol_with(SERVER),
    "client or bidi stream": lambda: protocol_with(READING),
    "its client has ended": lambda: finished("1"),
    "ended": lambda: ended("1"),
}

TABLE = {
    "never was": {
        REQUEST: Act.OPEN,
        START: Act.OPEN,
        DATA: Act.UNKNOWN,
        END: Act.UNKNOWN,
        CANCEL: Act.DROP,
        CREDIT: Act.DROP,
    },
    "request": {
        REQUEST: Act.IN_USE,
        START: Act.IN_USE,
        DATA: Act.OUT_OF_TURN,
        END: Act.DROP,
        CANCEL: Act.CANCEL,
        CREDIT: Act.DROP,
    },
    "server stream": {
        REQUEST: Act.IN_USE,
        START: Act.IN_USE,
        DATA: Act.OUT_OF_TURN,
        END: Act.DROP,
        CANCEL: Act.CANCEL,
        CREDIT: Act.GRANT,
    },
    "client or bidi stream": {
        REQUEST: Act.IN_USE,
        START: Act.IN_USE,
        DATA: Act.ITEM,
        END: Act.FINISH,
        CANCEL: Act.CANCEL,
        CREDIT: Act.GRANT,
    },
    "its client has ended": {
        REQUEST: Act.IN_USE,
        START: Act.IN_USE,
        DATA: Act.OUT_OF_TURN,
        END: Act.DROP,
        CANCEL: Act.CANCEL,
        CREDIT: Act.GRANT,
    },
    "ended": {
        REQUEST: Act.OPEN,
        START: Act.OPEN,
        DATA: Act.DROP,
        END: Act.DROP,
        CANCEL: Act.DROP,
        CREDIT: Act.DROP,
    },
}


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("state", TABLE)
def test_what_a_message_asks_for(state: str, type: str) -> None:
    assert asked(STATES[state](), type) is TABLE[state][type]


@pytest.mark.parametrize("state", [UNARY, SERVER, READING])
def test_a_state_has_an_answer_to_every_type(state: State) -> None:
    assert set(state) == set(TYPES)


def test_the_streams_of_a_connection_do_not_know_each_other() -> None:
    protocol = protocol_with(READING, "a", "b")
    protocol.end("a")
    assert asked(protocol, DATA, "a") is Act.DROP
    assert asked(protocol, DATA, "b") is Act.ITEM
    assert asked(protocol, DATA, "c") is Act.UNKNOWN


def test_asking_changes_nothing() -> None:
    protocol = protocol_with(READING)
    for type in TYPES:
        asked(protocol, type)
        asked(protocol, type, "other")
    assert protocol.open["1"].state is READING and list(protocol.open) == ["1"]


def test_an_id_that_has_ended_may_be_used_again() -> None:
    protocol = ended("1")
    assert asked(protocol, START) is Act.OPEN
    protocol.add(Stream("1", READING))
    assert asked(protocol, DATA) is Act.ITEM
    protocol.end("1")
    assert asked(protocol, DATA) is Act.DROP


def test_binary_messages_are_read_unless_they_came_as_text() -> None:
    protocol = protocol_with(READING)
    data = b'\x01\x00\x1f{"type":"stream:data","id":"1"}x'
    event = protocol.receive(data)
    assert not isinstance(event, Violation) and event[0] is Act.ITEM
    event = protocol.receive(data, text=True)
    assert isinstance(event, Violation) and event.error.code == "PARSE_ERROR"


# Ids that have ended


def test_1024_ids_are_remembered() -> None:
    ids = [f"s{n}" for n in range(REMEMBERED)]
    protocol = ended(*ids)
    assert {asked(protocol, DATA, id) for id in ids} == {Act.DROP}


def test_of_1025_ids_the_one_that_ended_first_is_forgotten() -> None:
    ids = [f"s{n}" for n in range(REMEMBERED + 1)]
    protocol = ended(*ids)
    assert asked(protocol, DATA, "s0") is Act.UNKNOWN
    assert {asked(protocol, DATA, id) for id in ids[1:]} == {Act.DROP}


def test_an_id_in_use_is_not_one_of_those_that_ended() -> None:
    protocol = ended(*(f"s{n}" for n in range(REMEMBERED)))
    protocol.add(Stream("s5", SERVER))
    protocol.add(Stream("new", SERVER))
    protocol.end("new")
    assert asked(protocol, DATA, "s0") is Act.DROP


def test_an_id_that_ended_again_is_the_last_to_be_forgotten() -> None:
    protocol = ended(*(f"s{n}" for n in range(REMEMBERED)))
    protocol.add(Stream("s0", SERVER))
    protocol.end("s0")
    protocol.end("another")
    assert asked(protocol, DATA, "s0") is Act.DROP
    assert asked(protocol, DATA, "s1") is Act.UNKNOWN


def test_an_id_that_was_refused_again_is_the_last_to_be_forgotten() -> None:
    protocol = ended(*(f"s{n}" for n in range(REMEMBERED)))
    protocol.refuse(START, "s0", RaffelError("NOT_FOUND"))
    protocol.end("another")
    assert asked(protocol, DATA, "s0") is Act.DROP
    assert asked(protocol, DATA, "s1") is Act.UNKNOWN


# Credit


def test_grants_add_up() -> None:
    stream = Stream("1", SERVER, credit=1)
    assert stream.grant(2) and stream.grant(3)
    assert stream.credit == 6


def test_grants_add_up_to_the_maximum() -> None:
    stream = Stream("1", SERVER, credit=1)
    assert stream.grant(MAX_CREDIT - 1)
    assert stream.credit == MAX_CREDIT


def test_a_grant_beyond_the_maximum_adds_nothing() -> None:
    stream = Stream("1", SERVER, credit=2)
    assert not stream.grant(MAX_CREDIT - 1)
    assert stream.credit == 2


def test_a_grant_means_nothing_to_a_stream_without_credit() -> None:
    stream = Stream("1", SERVER)
    assert stream.grant(MAX_CREDIT) and stream.grant(MAX_CREDIT)
    assert stream.credit is None


# How the items of a stream begin


def led(*messages: bytes) -> Protocol:
    """A client or bidi stream of id 1 that was sent these messages."""
    protocol = protocol_with(READING, "1", "2")
    for data in messages:
        protocol.receive(data)
    return protocol


ITEM = b'{"type":"stream:data","id":"1","payload":'


@pytest.mark.parametrize("payload", [b"7", b"null", b'"x"', b"{}", b'{"payload":{"payload":1}}', b"[1,2]", b'"}"'])
@pytest.mark.parametrize(
    "lead", [ITEM, ITEM.replace(b",", b" , ").replace(b'":', b'" :\t'), b'{"x":{"payload":1},"payload":2,' + ITEM[1:]]
)
def test_an_item_leads_to_others_that_begin_alike(lead: bytes, payload: bytes) -> None:
    protocol = led(lead + payload + b"}")
    assert protocol.leader is protocol.open["1"]
    event = protocol.receive(protocol.lead + b"[8]}")
    assert not isinstance(event, Violation)
    act, envelope, stream = event
    assert (act, bytes(envelope.payload), stream) == (Act.ITEM, b"[8]", protocol.leader)


@pytest.mark.parametrize(
    "data",
    [
        ITEM + b'12,"x":{"payload":7}}',
        ITEM + b'1,"x":2}',
        ITEM + b"1 }",
        ITEM + b"1} ",
        ITEM[:-11] + b"}",
        b'{"payload":1,"type":"stream:data","id":"1"}',
        ITEM + b'"x","y":"\\"payload\\":"}',
        b'\x01\x00\x1f{"type":"stream:data","id":"1"}',
        b'\x01\x00\x1f{"type":"stream:data","id":"1"}"payload":1}',
    ],
)
def test_an_item_whose_payload_is_not_its_end_leads_to_nothing_wrong(data: bytes) -> None:
    protocol = led(data)
    if protocol.leader is not None:
        event = protocol.receive(protocol.lead + b"[8]}")
        assert not isinstance(event, Violation) and bytes(event[1].payload) == b"[8]"


@pytest.mark.parametrize("way", ["finish", "end"])
def test_a_stream_that_may_send_no_more_leads_to_nothing(way: str) -> None:
    protocol = led(ITEM + b"1}")
    if way == "finish":
        protocol.finish(protocol.open["1"])
    else:
        protocol.end("1")
    assert protocol.leader is None and protocol.lead == b""


def test_the_end_of_another_stream_changes_no_lead() -> None:
    protocol = led(ITEM + b"1}")
    protocol.end("2")
    assert protocol.leader is protocol.open["1"] and protocol.lead == ITEM


def test_the_stream_that_sent_the_last_item_leads() -> None:
    protocol = led(ITEM + b"1}", ITEM.replace(b'"1"', b'"2"') + b"1}")
    assert protocol.leader is protocol.open["2"]
    assert led(ITEM + b"1}", message(CANCEL, "2")).leader is not None


# Violations

BAD: dict[str, Any] = {"priority": "high"}
"""What makes any message one that is no envelope."""


def test_an_opening_that_is_no_envelope_ends_its_stream() -> None:
    protocol = Protocol()
    assert shown(answered(protocol, message(START, **BAD))) == ("stream:error", "1", "INVALID_ENVELOPE")
    assert asked(protocol, DATA) is Act.DROP


def test_a_request_that_is_no_envelope_is_answered_by_an_error() -> None:
    protocol = Protocol()
    assert shown(answered(protocol, message(REQUEST, **BAD))) == ("error", "1", "INVALID_ENVELOPE")
    assert asked(protocol, DATA) is Act.DROP


@pytest.mark.parametrize("type", [DATA, END, CANCEL, CREDIT])
def test_any_other_message_that_is_no_envelope_ends_nothing(type: str) -> None:
    protocol = protocol_with(READING)
    assert shown(answered(protocol, message(type, **BAD))) == ("error", "1", "INVALID_ENVELOPE")
    assert asked(protocol, DATA) is Act.ITEM
    assert shown(answered(protocol, message(type, "2", **BAD))) == ("error", "2", "INVALID_ENVELOPE")
    assert asked(protocol, DATA, "2") is Act.UNKNOWN


@pytest.mark.parametrize("type", [START, REQUEST])
@pytest.mark.parametrize("state", [UNARY, SERVER, READING])
def test_an_opening_that_is_no_envelope_harms_no_stream_of_its_id(type: str, state: State) -> None:
    protocol = protocol_with(state)
    answer = answered(protocol, message(type, **BAD))
    assert shown(answer) == ("error", "1", "ALREADY_EXISTS")
    assert answer["payload"]["details"] == {"reason": "id_in_use"}
    assert protocol.open["1"].state is state


def test_a_message_of_an_unknown_type_ends_nothing() -> None:
    protocol = protocol_with(READING)
    assert shown(answered(protocol, message("nope"))) == ("error", "1", "INVALID_TYPE")
    assert asked(protocol, DATA) is Act.ITEM
    assert shown(answered(protocol, message("nope", "2"))) == ("error", "2", "INVALID_TYPE")
    assert asked(protocol, DATA, "2") is Act.UNKNOWN


@pytest.mark.parametrize(
    "data,code",
    [
        (b"", "PARSE_ERROR"),
        (b"{", "PARSE_ERROR"),
        (b"[" * 513, "PARSE_ERROR"),
        (b"[]", "INVALID_ENVELOPE"),
        (b'{"type":"stream:start"}', "INVALID_ENVELOPE"),
        (b'{"type":"request","id":""}', "INVALID_ENVELOPE"),
        (b'{"type":"nope"}', "INVALID_TYPE"),
    ],
)
def test_a_violation_without_an_id_is_an_error_without_one(data: bytes, code: str) -> None:
    protocol = protocol_with(READING)
    assert shown(answered(protocol, data)) == ("error", None, code)
    assert list(protocol.open) == ["1"]


@pytest.mark.parametrize("code", ["NOT_FOUND", "UNAUTHENTICATED", "RESOURCE_EXHAUSTED", "UNAVAILABLE"])
@pytest.mark.parametrize("type,answer", [(START, "stream:error"), (REQUEST, "error")])
def test_an_opening_is_refused_under_its_id_whatever_the_code(type: str, answer: str, code: str) -> None:
    protocol = Protocol()
    said = json.loads(protocol.refuse(type, 'i"d', RaffelError(code, "no", details={"a": 1})))
    assert said == {"type": answer, "id": 'i"d', "payload": {"code": code, "message": "no", "details": {"a": 1}}}
    assert asked(protocol, DATA, 'i"d') is Act.DROP


# What complaints say


def test_an_id_in_use_is_told_apart_by_its_details() -> None:
    assert (in_use("1").code, in_use("1").details) == ("ALREADY_EXISTS", {"reason": "id_in_use"})


def test_complaints_name_the_id() -> None:
    late = out_of_turn(Stream("s1", SERVER), DATA)
    assert (unknown("s1").code, late.code) == ("NOT_FOUND", "FAILED_PRECONDITION")
    assert "s1" in unknown("s1").message and "s1" in late.message and DATA in late.message


# Any messages


class Model:
    """What the protocol has to know: which ids are open, and in which order the others ended."""

    def __init__(self) -> None:
        self.open: dict[str, str] = {}
        self.ended: list[str] = []

    def state(self, id: str) -> str:
        return self.open.get(id) or ("ended" if id in self.ended[-REMEMBERED:] else "never was")

    def end(self, id: str) -> None:
        self.open.pop(id, None)
        self.ended = [*(one for one in self.ended if one != id), id][-REMEMBERED:]

    def begin(self, id: str, state: str) -> None:
        self.open[id] = state
        self.ended = [one for one in self.ended if one != id]


FEW = [f"s{n}" for n in range(12)]
KINDS = {"request": UNARY, "server stream": SERVER, "client or bidi stream": READING}
JUNK = [
    b"{",
    b"[]",
    b'{"type":"nope","id":"s1"}',
    b'{"type":"cancel","id":7}',
    b'{"type":"stream:start","id":""}',
    b"\x01",
]


def test_any_messages_do_what_the_table_says() -> None:
    chance, protocol, model = random.Random(2), Protocol(), Model()
    for number in range(100_000):
        id = chance.choice(FEW)
        type = chance.choice(TYPES)
        roll = chance.random()
        if roll < 0.05:
            event = protocol.receive(chance.choice(JUNK))
            assert isinstance(event, Violation)
            json.loads(protocol.refuse(event.type, event.id, event.error))
        elif roll < 0.15:
            answer = answered(protocol, message(type, id, **BAD))
            expect_refusal(model, type, id, answer)
        elif roll < 0.25 and id in model.open:
            protocol.end(id)
            model.end(id)
        elif roll < 0.26:
            protocol.refuse(START, f"n{number}", RaffelError("NOT_FOUND"))
            model.end(f"n{number}")
        else:
            follow(protocol, model, asked(protocol, type, id), type, id, chance)


def follow(protocol: Protocol, model: Model, act: Act, type: str, id: str, chance: random.Random) -> None:
    """Checks what a message asks for, and does it."""
    assert act is TABLE[model.state(id)][type], (model.state(id), type)
    if act is Act.OPEN:
        kind = chance.choice(list(KINDS))
        protocol.add(Stream(id, KINDS[kind]))
        model.begin(id, kind)
    elif act is Act.FINISH:
        protocol.finish(protocol.open[id])
        model.open[id] = "its client has ended"
    elif act is Act.CANCEL:
        protocol.end(id)
        model.end(id)


def expect_refusal(model: Model, type: str, id: str, answer: dict[str, Any]) -> None:
    opens = type in (START, REQUEST)
    if opens and id in model.open:
        assert shown(answer) == ("error", id, "ALREADY_EXISTS")
    else:
        assert shown(answer) == ("stream:error" if type == START else "error", id, "INVALID_ENVELOPE")
        if opens:
            model.end(id)


SEEDS = [message(type, id) for type in TYPES for id in ("1", "2")]


def test_any_bytes_are_an_act_or_a_violation_that_can_be_answered() -> None:
    chance, protocol = random.Random(3), protocol_with(READING, "1")
    for _ in range(100_000):
        data = bytearray(chance.choice(SEEDS))
        for _ in range(chance.randrange(3)):
            at = chance.randrange(len(data) + 1)
            data[at : at + chance.randrange(3)] = chance.choice([b"", b'"', b"{", b"\\", b"2", chance.randbytes(2)])
        event = protocol.receive(bytes(data), text=chance.random() < 0.5)
        if isinstance(event, Violation):
            answer = json.loads(protocol.refuse(event.type, event.id, event.error))
            assert answer["type"] == (
                "stream:error" if event.type == START and event.id not in (None, "1") else "error"
            )
            assert answer.get("id") == event.id
        else:
            act, envelope, stream = event
            assert isinstance(act, Act) and isinstance(envelope, Envelope)
            assert (stream is not None) == (envelope.id == "1"), data
            assert encode(envelope.id)
