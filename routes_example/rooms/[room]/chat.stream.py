"""A chat room: what one member says, all of them hear."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from msgspec import Meta, Struct

from raffel_core import Context, RaffelError
from routes_example._opening import opening
from routes_example._rooms import Line, Member, Room, joined


class Opening(Struct):
    name: Annotated[str, Meta(pattern=r"\A\w[\w .'-]{0,39}\Z")]


class Message(Struct):
    text: Annotated[str, Meta(min_length=1, max_length=2000)]


meta = {"description": "A room for several: what one says, all hear", "direction": "bidi", "tags": ["rooms"]}


async def handler(messages: AsyncIterator[Message], ctx: Context) -> AsyncIterator[Line]:
    """Sends what the room says. What the member says is read by a task beside it, which ends with it."""
    name = opening(ctx, Opening).name
    with joined(ctx.app.state.rooms, ctx.params["room"], name) as (room, member):
        reading = asyncio.create_task(listen(messages, room, member))
        try:
            async for line in member:
                yield line
        finally:
            reading.cancel()
            await asyncio.wait([reading])


async def listen(messages: AsyncIterator[Message], room: Room, member: Member) -> None:
    """Tells the room what a member says. Whatever ends this, ends what the member hears."""
    while member.writable:
        try:
            async for message in messages:
                room.say(member, message.text)
                await asyncio.sleep(0)  # a burst would leave the others no turn to hear it in
            member.end()
        except Exception as error:
            if isinstance(error, RaffelError) and error.code == "VALIDATION_ERROR":
                room.whisper(member, error.message)  # one bad message: the next ones can be read
            else:
                member.error(error)
