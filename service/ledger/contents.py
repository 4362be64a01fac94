"""Read what was sent, for a person: each reading is in the audit, in the transaction that reads."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.ledger import audit
from service.ledger.audit import Actor
from service.ledger.engine import transaction
from service.ledger.sealing import UNSEALED, Seal

_OCTETS = text("SELECT octets FROM contents WHERE message_id = :message")


async def read(
    db: AsyncConnection,
    message_id: str,
    actor: Actor,
    *,
    details: Mapping[str, Any],
    seal: Seal = UNSEALED,
) -> bytes | None:
    """Return the octets of a message, or None where they are no longer kept; the caller commits.

    Raises CannotOpen where no key of the configuration opens them.
    """
    octets = await db.scalar(_OCTETS, {"message": message_id})
    if octets is None:
        return None
    await audit.write(db, actor, action="content.read", target=message_id, details=details)
    return seal.open_octets(bytes(octets), purpose=message_id)


class Contents:
    """What was sent, as the other rooms hold it."""

    def __init__(self, engine: AsyncEngine, seal: Seal = UNSEALED) -> None:
        self._engine = engine
        self._seal = seal

    async def read(self, message_id: str, actor: Actor, *, details: Mapping[str, Any]) -> bytes | None:
        """Return the octets of a message, or None where they are no longer kept.

        `details` says in the audit what of them was asked for. What was read is written down even where
        nothing of it could be shown.
        """
        async with transaction(self._engine) as db:
            return await read(db, message_id, actor, details=details, seal=self._seal)
