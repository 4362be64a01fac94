"""Seal anew what another key has sealed, or none: after a change of keys, in small steps.

How far it came is remembered under the key's name in `retention`. When it has come to the end, the previous key can be
taken out of the configuration; what is written by processes that still have the old one is opened by it as long as
it stands there, and found by the next key's round.
"""

import json
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.ledger.engine import transaction
from service.ledger.retention import Step, come_to, how_far
from service.ledger.sealing import CannotOpen, Seal

#: Octets that one step seals at the most, roughly.
_OCTETS = 5_000_000

# The beginning of a content tells by which key it is sealed: what is as it should be is not read.
_NEXT = text("""
    SELECT message_id, substring(octets FROM 1 FOR 12) AS begins FROM contents
     WHERE message_id > :after ORDER BY message_id LIMIT :most
""")

_OCTETS_OF = text("SELECT octets FROM contents WHERE message_id = :message")

# Where its content was removed meanwhile, nothing is written.
_WRITE = text("UPDATE contents SET octets = :octets WHERE message_id = :message")

_WEBHOOKS = text("SELECT id, secrets FROM webhooks WHERE id > :after ORDER BY id LIMIT :most FOR UPDATE")
_WRITE_SECRETS = text("UPDATE webhooks SET secrets = CAST(:secrets AS jsonb) WHERE id = :id")


async def contents(db: AsyncConnection, seal: Seal, *, most: int) -> Step:
    """Seal the next contents; the caller commits."""
    kind = f"contents sealed by {seal.name}"
    through = await how_far(db, kind)
    if through is None:
        return Step(after="", handled=0, more=False)  # somebody is at it
    rows = (await db.execute(_NEXT, {"after": through, "most": most})).all()
    handled, octets, last = 0, 0, through
    for row in rows:
        if octets > _OCTETS:
            break
        last = row.message_id
        if seal.is_current(bytes(row.begins)):
            continue
        stored = await db.scalar(_OCTETS_OF, {"message": row.message_id})
        if stored is None:
            continue  # it has had its time meanwhile
        octets += len(stored)
        try:
            opened = seal.open_octets(bytes(stored), purpose=row.message_id)
        except CannotOpen:
            continue  # by a key that nobody has any more; reading it says so
        sealed = seal.close_octets(opened, purpose=row.message_id)
        await db.execute(_WRITE, {"octets": sealed, "message": row.message_id})
        handled += 1
    if rows:
        await come_to(db, kind, last)
    return Step(after="", handled=handled, more=bool(rows))


async def webhooks(db: AsyncConnection, seal: Seal, *, most: int) -> Step:
    """Seal the secrets of the next webhooks; the caller commits."""
    kind = f"webhooks sealed by {seal.name}"
    through = await how_far(db, kind)
    if through is None:
        return Step(after="", handled=0, more=False)
    rows = (await db.execute(_WEBHOOKS, {"after": through, "most": most})).all()
    for row in rows:
        secrets = [_anew(each, seal, purpose=row.id) for each in row.secrets]
        await db.execute(_WRITE_SECRETS, {"secrets": json.dumps(secrets), "id": row.id})
    if rows:
        await come_to(db, kind, rows[-1].id)
    return Step(after="", handled=len(rows), more=bool(rows))


def _anew(entry: dict[str, Any], seal: Seal, *, purpose: str) -> dict[str, Any]:
    try:
        return {**entry, "secret": seal.close(seal.open(entry["secret"], purpose=purpose), purpose=purpose)}
    except CannotOpen:
        return entry


class Resealing:
    """The change of keys, as the other rooms hold it."""

    def __init__(self, engine: AsyncEngine, seal: Seal) -> None:
        self._engine = engine
        self._seal = seal

    async def step(self, *, most: int = 200) -> Step:
        """Seal some of what is not sealed by the key of now; does nothing without a key."""
        if self._seal.name is None:
            return Step(after="", handled=0, more=False)
        async with transaction(self._engine) as db:
            first = await webhooks(db, self._seal, most=most)
            second = await contents(db, self._seal, most=most)
        return Step(after="", handled=first.handled + second.handled, more=first.more or second.more)
