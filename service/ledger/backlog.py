"""How much waits to be sent, and whose: what the door asks before it takes more."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

# Counts no further than the caller wants to know, on the partial index of what is due alone.
_WAITING = text("""
    SELECT application, count(*) AS waiting
      FROM (SELECT application FROM deliveries WHERE due_at IS NOT NULL LIMIT :most) AS waiting
     GROUP BY application
""")


async def waiting(db: AsyncConnection, *, most: int) -> dict[str, int]:
    """Count each application's deliveries that wait for their time, lane or next attempt, up to `most` in all."""
    rows = await db.execute(_WAITING, {"most": most})
    return {row.application: row.waiting for row in rows}
