"""Who may call the routes in this folder and below it. Its presence alone makes them protected."""

import hmac
import os

from raffel_core import Auth, Context

ACCOUNTS = {
    # The defaults are for development: who serves this to others sets both variables.
    os.environ.get("EXAMPLE_ADMIN_TOKEN") or "let-me-in": Auth("admin", roles=["admin"]),
    os.environ.get("EXAMPLE_GUEST_TOKEN") or "just-looking": Auth("guest"),
}


async def authenticate(ctx: Context) -> Auth | None:
    """The account of `Authorization: Bearer TOKEN`; None, which is answered with 401, where there is none."""
    scheme, _, given = ctx.metadata.get("authorization", "").partition(" ")
    found = None
    for token, account in ACCOUNTS.items():
        # Takes as long for a wrong token as for a right one.
        if hmac.compare_digest(token.encode(), given.strip().encode()):
            found = account
    return found if scheme.lower() == "bearer" else None
