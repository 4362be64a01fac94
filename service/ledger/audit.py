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
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.ledger.engine import transaction


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


_PAGE = """
    SELECT id, at, application, actor, address, request_id, action, target, details FROM audit
     WHERE {conditions} ORDER BY id {order} LIMIT :most
"""

_CONDITIONS = {
    "target": "target = :target",
    "application": "application = :application",
    "actor": "actor = :actor",
    "action": "action LIKE :action",  # an action, or the beginning of some: `key.`
    "after": "id < :after",
    "before": "id > :before",
}

#: What a look into the past may take: who looks for something rare has a long way to go.
_PATIENCE = text("SET LOCAL statement_timeout = '3s'")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which entries; all that is given has to hold."""

    target: str | None = None
    application: str | None = None  # of whoever acted
    actor: str | None = None
    action: str | None = None  # or how it begins
    after: int | None = None  # older than this entry
    before: int | None = None  # newer than this entry


async def page(db: AsyncConnection, wanted: Wanted, *, most: int) -> list[Entry]:
    """List what was done, the newest first; with `before` the entries next to it, the oldest of them first."""
    given = {name: value for name in _CONDITIONS if (value := getattr(wanted, name)) is not None}
    if "action" in given:
        given["action"] = given["action"].replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_") + "%"
    query = _PAGE.format(
        conditions=" AND ".join([_CONDITIONS[name] for name in given] or ["true"]),
        order="ASC" if "before" in given else "DESC",
    )
    await db.execute(_PATIENCE)
    rows = await db.execute(text(query), {**given, "most": most})
    return [Entry(**row) for row in rows.mappings()]


class Audit:
    """The audit, to be read; it is written by those who act, or before the act where that is outside the ledger."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def page(self, wanted: Wanted, *, most: int) -> list[Entry]:
        """List what was done; see the function of this name."""
        async with transaction(self._engine) as db:
            return await page(db, wanted, most=most)

    async def before(self, actor: Actor, *, action: str, target: str, details: Mapping[str, Any]) -> None:
        """Write down what somebody is about to do outside the ledger."""
        async with transaction(self._engine) as db:
            await write(db, actor, action=action, target=target, details=details)
