"""The outbox: what is joined, what waits, what is dropped."""

from __future__ import annotations

from raffel_core.wire.outbox import Outbox


def outbox(*parts: bytes) -> Outbox:
    made = Outbox(b"|".join)
    made.parts.extend(parts)
    return made


def test_all_parts_since_the_last_flush_are_one_write() -> None:
    box = outbox(b"a", b"b")
    assert box.take() == b"a|b"
    assert box.take() == b""


def test_the_first_part_since_a_flush_wants_attention_and_the_next_does_not() -> None:
    box = outbox(b"a")
    assert box.attention
    box.mark()
    assert not box.attention and box.dirty
    box.take()
    assert box.attention and not box.dirty


def test_nothing_is_taken_while_the_connection_cannot_be_written() -> None:
    box = outbox(b"a")
    box.pause()
    assert box.take() == b"" and box.parts == [b"a"] and box.attention
    box.resume()
    assert box.take() == b"a"


def test_a_paused_outbox_keeps_wanting_attention() -> None:
    box = outbox()
    box.pause()
    box.mark()
    assert box.attention


def test_what_comes_last_is_taken_also_while_paused() -> None:
    box = outbox(b"a")
    box.pause()
    assert box.take_all() == b"a"
    assert box.paused


def test_a_lost_connection_drops_its_parts() -> None:
    box = outbox(b"a")
    box.close()
    box.parts.append(b"b")
    assert box.take() == b"" and box.parts == [] and box.attention
