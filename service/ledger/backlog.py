"""How much waits to be sent: what the door asks before it takes more."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

# Counts no further than the caller wants to know, on the partial index of what is due alone.
_WAITING = text("""
    SELECT count(*) FROM (SELECT 1 FROM deliveries WHERE due_at IS NOT NULL LIMIT :most) AS waiting
""")


async def waiting(db: AsyncConnection, *, most: int) -> int:
    """Count the deliveries that wait for their lane or their next attempt, up to `most`."""
    return int((await db.execute(_WAITING, {"most": most})).scalar_one())
