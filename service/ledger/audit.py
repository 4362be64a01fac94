"""The audit: who did what to what, when and from where.

An act on the ledger and its entry here are one transaction. Moves of recipients that an act makes name
their actor in `events` too, by a setting of the transaction that the trigger reads.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who acts, and from where."""

    application: str
    id: str  # key_…, or the application of Entra ID that the token speaks for
    address: str | None  # of the peer of HTTP
    request_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One act."""

    id: int
    at: datetime
    application: str
    actor: str
    address: str | None
    request_id: str | None
    action: str
    target: str
    details: Mapping[str, Any]


_WRITE = text("""
    INSERT INTO audit (application, actor, address, request_id, action, target, details)
    VALUES (:application, :actor, :address, :request_id, :action, :target, CAST(:details AS jsonb))
""")


async def write(
    db: AsyncConnection, actor: Actor, *, action: str, target: str, details: Mapping[str, Any] | None = None
) -> None:
    """Write one act down, in the transaction that carries it out. Never put a secret or content into `details`."""
    await db.execute(
        _WRITE,
        {
            "application": actor.application,
            "actor": actor.id,
            "address": actor.address,
            "request_id": actor.request_id,
            "action": action,
            "target": target,
            "details": json.dumps(details or {}),
        },
    )


async def speak_as(db: AsyncConnection, actor: Actor) -> None:
    """Let the events that this transaction makes name the actor."""
    await db.execute(text("SELECT set_config('postroom.actor', :actor, true)"), {"actor": actor.id})


_OF = text("""
    SELECT id, at, application, actor, address, request_id, action, target, details FROM audit
     WHERE target = :target ORDER BY id
""")


async def of_target(db: AsyncConnection, target: str) -> list[Entry]:
    """List what was done to one thing, the first act first."""
    return [Entry(**row) for row in (await db.execute(_OF, {"target": target})).mappings()]
