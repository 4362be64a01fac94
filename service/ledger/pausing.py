"""Pauses by hand: an operator lets the lanes of a route rest until a time, or go on before it.

A pause uses the columns in which a lane rests after trouble, so nothing that claims has to know of it. It has no
troubles: nothing probes the lane when it ends, everything goes on at once; and what ends in the meantime, well or badly,
does not change it (`closing`). What an attempt has in hand is not called back.

To go on is two things. A pause by hand is over, and forgotten. A rest after trouble is cut short: one attempt tries the
lane now, and when it is taken everything goes on, as at the end of the rest.
"""

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.ledger import audit
from service.ledger.engine import transaction
from service.ledger.lane_rows import locked

#: The code of the error with which such a lane rests.
PAUSED = "paused_by_hand"

_PAUSE = text("""
    UPDATE lanes SET troubles = 0, paused_until = clock_timestamp() + CAST(:lasts AS interval),
                     pause_error = CAST(:error AS jsonb), updated_at = clock_timestamp()
     WHERE name = :lane RETURNING paused_until
""")

_BY_HAND = text("""
    UPDATE lanes SET paused_until = NULL, pause_error = NULL, updated_at = clock_timestamp()
     WHERE name = :lane AND paused_until > clock_timestamp() AND troubles = 0
""")

_AFTER_TROUBLE = text("""
    UPDATE lanes SET paused_until = clock_timestamp(), updated_at = clock_timestamp()
     WHERE name = :lane AND paused_until > clock_timestamp()
""")


async def pause(
    db: AsyncConnection, route: str, lanes: Mapping[str, str], *, lasts: timedelta, reason: str | None
) -> datetime:
    """Let these lanes of a route rest; return until when. The caller commits, and lanes are named with their routes."""
    error = json.dumps(_error(route, reason))
    until: datetime | None = None
    for lane in sorted(lanes):
        await locked(db, lane, lanes[lane])
        given = {"lane": lane, "lasts": lasts, "error": error}
        until = (await db.execute(_PAUSE, given)).scalar_one()
    assert until is not None, "every route has a lane"
    return until


async def resume(db: AsyncConnection, lanes: Mapping[str, str]) -> list[str]:
    """Let these lanes go on; return those that rested. The caller commits."""
    rested = []
    for lane in sorted(lanes):
        await locked(db, lane, lanes[lane])
        by_hand = (await db.execute(_BY_HAND, {"lane": lane})).rowcount
        if by_hand or (await db.execute(_AFTER_TROUBLE, {"lane": lane})).rowcount:
            rested.append(lane)
    return rested


def _error(route: str, reason: str | None) -> dict[str, Any]:
    """Say why it rests, in the shape of every error."""
    told = f" They said: “{reason}”." if reason else ""
    return {
        "code": PAUSED,
        "phase": None,
        "reply": None,
        "retryable": True,
        "diagnosis": {
            "id": f"postroom.{PAUSED}",
            "title": "Paused by an operator",
            "explanation": f"Somebody lets this route rest.{told} Messages are taken and wait.",
            "who": "operator",
            "remedy": [
                f"Wait for the end of the pause, or let the route go on before: POST /routes/{route}/resume."
            ],
            "source": "The audit of the route.",
        },
    }


class Pausing:
    """Pauses by hand, each act a transaction with its audit."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def pause(
        self,
        route: str,
        lanes: Mapping[str, str],
        *,
        lasts: timedelta,
        reason: str | None,
        actor: audit.Actor,
    ) -> datetime:
        """Let the lanes of a route rest; see the function of this name."""
        async with transaction(self._engine) as db:
            until = await pause(db, route, lanes, lasts=lasts, reason=reason)
            details = {"until": until.isoformat(), **({"reason": reason} if reason else {})}
            await audit.write(db, actor, action="route.pause", target=route, details=details)
            return until

    async def resume(
        self, route: str, lanes: Mapping[str, str], *, reason: str | None, actor: audit.Actor
    ) -> list[str]:
        """Let the lanes of a route go on; return those that rested."""
        async with transaction(self._engine) as db:
            rested = await resume(db, lanes)
            details = {"lanes": rested, **({"reason": reason} if reason else {})}
            await audit.write(db, actor, action="route.resume", target=route, details=details)
            return rested
