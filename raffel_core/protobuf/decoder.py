"""Decoders made to measure: google.protobuf parses, and a compiled constructor takes what it needs from the message."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import itertools
import math
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
from google.protobuf.message import DecodeError
from msgspec import inspect as shapes

from raffel_core.errors import RaffelError
from raffel_core.protobuf import wire
from raffel_core.protobuf.descriptor import field_name, message_class, oneof_name
from raffel_core.protobuf.messages import DURATION, TIMESTAMP, VALUE, Enum, Field, Member, Message, Part, Record
from raffel_core.protobuf.tree import ABSENT, finite_tree, member_tree, members_of, message_tree
from raffel_core.schema import Schema
from raffel_core.schema.check import bare, class_of, walk

Decoder = Callable[[bytes], Any]
Params = Callable[[bytes], Mapping[str, str]]


def compile_decoder(root: Part, schema: Schema[Any]) -> Decoder:
    """A function that reads a message as a value of the schema, checked whole, as the schema's own `decode` does."""
    judge = _judge(root, schema)
    message = root.proto
    if isinstance(message, Message) and message.shape is None and message.others:
        return judge  # where the value is of any fields, parameters may become some of them
    if not isinstance(message, Message):
        return judge
    source = _Source()
    try:
        body = source.body(message)
    except _Unknown:
        return judge
    returned = body.pop().removeprefix("return ")
    if any(map(_is_limited, walk(root.shape))):
        body += [f"value = {returned}", f"if {source.constant(schema.fits)}(value):", "    return value"]
    else:
        body.append(f"return {returned}")
    parse = source.constant(message_class(root).FromString)
    lines = ["try:", f"    m = {parse}(data)", *_indented(body), "except Exception:"]
    # Whatever it was, there is one who can say it: __post_init__ may raise anything.
    lines += ["    pass", f"return {source.constant(judge)}(data)"]
    source.lines += ["def decode(data):", *_indented(lines)]
    exec("\n".join(source.lines), source.names)
    return typing.cast("Decoder", source.names["decode"])


def _judge(root: Part, schema: Schema[Any]) -> Decoder:
    """The slow way: the message's JSON, and the schema's word about it."""
    parse = _parser(root)
    tree = _tree(root)
    params = compile_params(root, [])

    def judge(data: bytes) -> Any:
        message = parse(data)
        value = tree(message)
        if value is ABSENT:
            value = {}
        return schema.decode(msgspec.json.encode(value))

    return judge
