"""Greet somebody by name."""

from typing import Annotated

from msgspec import Meta, Struct


class Guest(Struct):
    name: Annotated[str, Meta(min_length=1, max_length=100)]


class Greeting(Struct):
    message: str


async def handler(guest: Guest) -> Greeting:
    return Greeting(f"Hello, {guest.name}!")
