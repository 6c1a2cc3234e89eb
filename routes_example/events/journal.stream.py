"""A stream that goes on where its client left it. What is no longer kept is said, not passed over in silence."""

from collections.abc import AsyncIterator

from msgspec import Struct

from raffel_core import Context, Event, tracked
from routes_example._journal import Journal, Sample


class Lost(Struct, tag="lost"):
    """Between these two ids there were entries that are no longer kept."""

    asked: str
    resumed: str


meta = {"description": "The load, twice a second; resumes by Last-Event-ID", "resumable": True, "tags": ["events"]}


async def handler(input: object, ctx: Context) -> AsyncIterator[Event[Sample] | Lost]:
    journal: Journal = ctx.app.state.journal
    asked = ctx.last_event_id
    seen = journal.newest if asked is None else journal.number(asked)
    while True:
        number, entry = await journal.after(seen)
        id = journal.id(number)
        if number > seen + 1:
            yield Lost(asked or journal.id(seen), id)
        yield tracked(id, entry)
        seen, asked = number, None
