"""Every protocol there is: one that is added here is finished when it passes the list."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from raffel_core.route import Kind

from .call import Can
from .grpc import GRPC
from .jsonrpc import JSONRPC
from .ndjson import NDJSON
from .procedures import PROCEDURES
from .sse import SSE
from .tcp import TCP
from .websocket import WEBSOCKET

CARRIERS = (SSE, NDJSON, PROCEDURES, JSONRPC, WEBSOCKET, TCP, GRPC)


def over(kind: Kind, *needs: Can) -> pytest.MarkDecorator:
    """Runs a scenario over every protocol that carries calls of this kind and can what it needs."""
    able = [carrier for carrier in CARRIERS if kind in carrier.kinds and carrier.can.issuperset(needs)]
    return pytest.mark.parametrize("carrier", able, ids=str)


def every_call(*needs: Can, kinds: Iterable[Kind] = Kind) -> pytest.MarkDecorator:
    """Runs a scenario once for every kind of call that every protocol carries."""
    wanted = tuple(kinds)
    pairs = [
        pytest.param(carrier, kind, id=f"{carrier}-{kind}")
        for carrier in CARRIERS
        if carrier.can.issuperset(needs)
        for kind in Kind
        if kind in carrier.kinds and kind in wanted
    ]
    return pytest.mark.parametrize(("carrier", "kind"), pairs)


def every_protocol(*needs: Can) -> pytest.MarkDecorator:
    """Runs a scenario for which all kinds of calls are alike once over every protocol, by a kind that it carries."""
    pairs = [
        pytest.param(carrier, Kind.SERVER if Kind.SERVER in carrier.kinds else Kind.UNARY, id=str(carrier))
        for carrier in CARRIERS
        if carrier.can.issuperset(needs)
    ]
    return pytest.mark.parametrize(("carrier", "kind"), pairs)
