"""The rows of the lanes, which make claims follow each other.

Whoever changes what a lane may do locks its row first, and the tenant's row, `EXTERNAL`, after every lane's.
"""

from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

#: The row among the lanes that stands for the tenant's external budget. It sorts behind every lane's
#: name, and is always locked last.
EXTERNAL = "~external"

_LOCK_LANE = text("SELECT paused_until, troubles, turn FROM lanes WHERE name = :lane FOR UPDATE")
_ADD_LANE = text("INSERT INTO lanes (name, route) VALUES (:lane, :route) ON CONFLICT DO NOTHING")


async def locked(db: AsyncConnection, name: str, route: str) -> Any:
    """Lock a lane's row until the end of the transaction, and return it: paused_until, troubles, turn."""
    row = (await db.execute(_LOCK_LANE, {"lane": name})).one_or_none()
    if row is None:
        await db.execute(_ADD_LANE, {"lane": name, "route": route})
        row = (await db.execute(_LOCK_LANE, {"lane": name})).one()
    return row
