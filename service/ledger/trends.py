"""How busy lanes were: attempts that ended, counted in slots of time.

A slot that is over changes no more, so whoever asks again and again asks for the newest slots only. The
figures come from the index on the use of lanes alone; a query gives up after some seconds.
"""

from collections.abc import Collection
from datetime import datetime, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.ledger.engine import transaction

#: What counting may take: a lane without limits may have had millions of attempts.
_PATIENCE = text("SET LOCAL statement_timeout = '3s'")

_COUNT = text("""
    SELECT lane, CAST(floor(extract(epoch FROM ended_at) / :seconds) AS bigint) AS slot, count(*) AS attempts
      FROM attempts WHERE lane = ANY(:lanes) AND ended_at >= :since
     GROUP BY lane, slot
""")


async def attempts(
    db: AsyncConnection, lanes: Collection[str], *, since: datetime, slot: timedelta
) -> dict[str, dict[int, int]]:
    """Count each lane's attempts that ended since then, by the number of the slot since 1970."""
    await db.execute(_PATIENCE)
    given = {"lanes": list(lanes), "since": since, "seconds": slot.total_seconds()}
    counted: dict[str, dict[int, int]] = {lane: {} for lane in lanes}
    for row in await db.execute(_COUNT, given):
        counted[row.lane][row.slot] = row.attempts
    return counted


class Trends:
    """Figures over time, each reading a transaction."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def attempts(
        self, lanes: Collection[str], *, since: datetime, slot: timedelta
    ) -> dict[str, dict[int, int]]:
        """Count attempts; see the function of this name."""
        async with transaction(self._engine) as db:
            return await attempts(db, lanes, since=since, slot=slot)
