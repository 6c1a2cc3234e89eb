"""Chat rooms: who is in one, and what was said there last."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from msgspec import Struct

from raffel_core import RaffelError, RaffelStream

MEMBERS = 100
HISTORY = 20
"""Lines that a new member is shown."""

BEHIND = 64
"""Lines that a member may still have to hear."""


class Line(Struct, rename={"speaker": "from"}):
    speaker: str | None
    """Null where the room itself speaks."""
    text: str
    at: datetime


Member = RaffelStream[Line]
"""What somebody has yet to hear. Its id is the member's name."""


class Room:
    """Nobody waits for anybody: who is too far behind is dropped with RESOURCE_EXHAUSTED, and the others are told."""

    def __init__(self) -> None:
        self._members: dict[str, Member] = {}
        self._history: deque[Line] = deque(maxlen=HISTORY)

    @property
    def empty(self) -> bool:
        return not self._members

    def join(self, name: str) -> Member:
        """A new member. ALREADY_EXISTS where another has this name."""
        if name in self._members:
            raise RaffelError("ALREADY_EXISTS", f"there is a {name!r} in this room")
        if len(self._members) >= MEMBERS:
            raise RaffelError("RESOURCE_EXHAUSTED", f"a room has {MEMBERS} members at most")
        member = self._members[name] = Member(name, BEHIND)
        for earlier in self._history:
            member.try_write(earlier)
        self._tell(None, f"{name} joined")
        return member

    def leave(self, member: Member) -> None:
        if self._has(member):
            del self._members[member.id]
            self._tell(None, f"{member.id} left")

    def say(self, member: Member, text: str) -> None:
        if not self._has(member):
            raise RaffelError("FAILED_PRECONDITION", "who was dropped speaks no more")
        self._history.append(self._tell(member.id, text))

    def whisper(self, member: Member, text: str) -> None:
        """Tells one member alone, unless it is too far behind to be told anything."""
        if self._has(member):
            member.try_write(_line(None, text))

    def _has(self, member: Member) -> bool:
        # The name alone would not do: that of a member who was dropped may be another's by now.
        return self._members.get(member.id) is member

    def _tell(self, speaker: str | None, text: str) -> Line:
        line = _line(speaker, text)
        # One that is not writable has ended and is about to leave.
        slow = [member for member in self._members.values() if member.writable and not member.try_write(line)]
        for member in slow:
            del self._members[member.id]
            member.error(RaffelError("RESOURCE_EXHAUSTED", f"{BEHIND} lines behind the room"))
        for member in slow:
            self._tell(None, f"{member.id} could not keep up")
        return line


@contextmanager
def joined(rooms: dict[str, Room], room_name: str, name: str) -> Iterator[tuple[Room, Member]]:
    """A room, made for the first who comes and gone with the last, and a member of it until the end of the block."""
    room = rooms.setdefault(room_name, Room())
    member = room.join(name)
    try:
        yield room, member
    finally:
        room.leave(member)
        if room.empty and rooms.get(room_name) is room:
            del rooms[room_name]


def _line(speaker: str | None, text: str) -> Line:
    return Line(speaker, text, datetime.now(UTC))
