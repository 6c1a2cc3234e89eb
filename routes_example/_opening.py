"""What a client says of itself when it opens a stream of its own items. Nobody has checked it but the handler."""

from typing import TypeVar

import msgspec

from raffel_core import Context, RaffelError

T = TypeVar("T")


def opening(ctx: Context, type: type[T]) -> T:
    """The payload that the stream was opened with, as this type. INVALID_ARGUMENT where it does not fit.

    gRPC opens a stream without one: there it is the metadata.
    """
    given = ctx.metadata if ctx.protocol == "grpc" else ctx.input
    try:
        return msgspec.convert(given, type)
    except msgspec.ValidationError as error:
        raise RaffelError("INVALID_ARGUMENT", f"the opening payload: {error}") from None
