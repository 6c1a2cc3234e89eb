"""The table has every protocol that a route is promised on."""

from __future__ import annotations

import pytest

from raffel_core.protocols.carried import carried_by
from raffel_core.route import Kind

from .clients.table import CARRIERS
from .handlers import define


@pytest.mark.parametrize("kind", Kind)
async def test_what_carries_a_route_is_what_is_held_to_the_list(build, kind):
    async def nothing(ctx):
        return None

    server = build()
    define(server, kind, nothing)
    await server.start()
    assert set(carried_by(server.router.routes["call"], server.config)) == {
        one.name for one in CARRIERS if kind in one.kinds
    }
