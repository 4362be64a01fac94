"""Erase one person: everything that names them, message by message; counts and proof stay.

An erasure is a row: who asked for it and when, the SHA-256 of the address, how many messages were scrubbed. The
address itself stands there only as long as it is needed. Messages that are still under way are scrubbed when they
are over, so an erasure may last until then. Suppressions of the address stay: they are what keeps mail from going
there.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.ledger import audit, facets, scrubbing
from service.ledger.audit import Actor
from service.ledger.engine import transaction
from service.ledger.ids import new_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """One person's erasure."""

    id: str
    sha256: str  # of the address in its comparison form
    created_by: str
    created_at: datetime
    finished_at: datetime | None
    messages: int  # scrubbed so far
    waiting: int  # still under way, at the last look


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """What one step did."""

    after: str  # where the next one begins
    messages: int
    waiting: int
    more: bool


_COLUMNS = "id, sha256, created_by, created_at, finished_at, messages, waiting"

_ADD = text(f"""
    INSERT INTO erasures (id, address, sha256, created_by) VALUES (:id, :address, :sha256, :by) RETURNING {_COLUMNS}
""")  # noqa: S608  (our own words)
_GET = text(f"SELECT {_COLUMNS} FROM erasures WHERE id = :id")  # noqa: S608
_THIS = text("SELECT id, address FROM erasures WHERE id = :id AND finished_at IS NULL FOR UPDATE SKIP LOCKED")
_LIST_UNFINISHED = text("SELECT id FROM erasures WHERE finished_at IS NULL ORDER BY id LIMIT 100")
_COUNT = text("UPDATE erasures SET messages = messages + :messages, waiting = :waiting WHERE id = :id")
_FINISH = text("UPDATE erasures SET address = NULL, finished_at = clock_timestamp() WHERE id = :id")
_PATIENCE = text("SET LOCAL lock_timeout = '300ms'")

# The applications that there are: one step of the index for each.
_APPLICATIONS = """
    WITH RECURSIVE applications AS (
        (SELECT application FROM messages ORDER BY application LIMIT 1)
        UNION ALL
        SELECT next.application FROM applications AS last CROSS JOIN LATERAL (
            SELECT application FROM messages WHERE application > last.application
             ORDER BY application LIMIT 1) AS next
    )
"""

_NAMED = text(
    _APPLICATIONS  # noqa: S608  (our own words)
    + """
    SELECT DISTINCT id FROM (
        SELECT found.id FROM applications CROSS JOIN LATERAL (
            SELECT message_id AS id FROM facets f
             WHERE f.application = applications.application AND f.name = 'to' AND f.value = :value
               AND f.message_id > :after ORDER BY f.message_id LIMIT :most) AS found
        UNION ALL
        SELECT found.id FROM applications CROSS JOIN LATERAL (
            SELECT id FROM messages m
             WHERE m.application = applications.application AND m.from_key = :address AND m.id > :after
             ORDER BY m.id LIMIT :most) AS found
    ) AS named ORDER BY id LIMIT :most
    """
)


async def begin(db: AsyncConnection, address: str, actor: Actor) -> Erasure:
    """Write down that this person, by the address in its comparison form, is to be erased; it is in the audit."""
    row = (
        await db.execute(
            _ADD,
            {
                "id": new_id("era"),
                "address": address,
                "sha256": hashlib.sha256(address.encode()).hexdigest(),
                "by": actor.id,
            },
        )
    ).one()
    await audit.write(db, actor, action="person.erase", target=row.id, details={"sha256": row.sha256})
    return _erasure(row)


async def step(
    db: AsyncConnection, erasure_id: str, *, after: str = "", waiting: int = 0, most: int = 50
) -> Erased:
    """Scrub some of the messages that name the person; the caller commits.

    Begin a round with nothing; go on with what the last step said. An erasure is finished by a round at the end of
    which nothing waits.
    """
    await db.execute(_PATIENCE)
    row = (await db.execute(_THIS, {"id": erasure_id})).one_or_none()
    if row is None:
        return Erased(after=after, messages=0, waiting=waiting, more=False)  # finished, or somebody is at it
    where = {"address": row.address, "value": facets.value_of(row.address), "after": after, "most": most}
    ids = list((await db.execute(_NAMED, where)).scalars())
    over = await scrubbing.over(db, ids)
    await scrubbing.scrub(db, over, who=row.address)
    waiting += len(ids) - len(over)
    more = len(ids) == most
    await db.execute(_COUNT, {"id": row.id, "messages": len(over), "waiting": waiting})
    if not more and not waiting:
        await db.execute(_FINISH, {"id": row.id})
    return Erased(after=ids[-1] if ids else after, messages=len(over), waiting=waiting, more=more)


def _erasure(row: Any) -> Erasure:
    return Erasure(
        id=row.id,
        sha256=row.sha256,
        created_by=row.created_by,
        created_at=row.created_at,
        finished_at=row.finished_at,
        messages=row.messages,
        waiting=row.waiting,
    )


class Erasing:
    """Erasures, as the other rooms hold them."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def begin(self, address: str, actor: Actor) -> Erasure:
        """Have a person erased; `address` is in its comparison form."""
        async with transaction(self._engine) as db:
            return await begin(db, address, actor)

    async def get(self, erasure_id: str) -> Erasure | None:
        """Find an erasure."""
        async with transaction(self._engine) as db:
            row = (await db.execute(_GET, {"id": erasure_id})).one_or_none()
        return None if row is None else _erasure(row)

    async def unfinished(self) -> list[str]:
        """List erasures that are not finished, the oldest first."""
        async with transaction(self._engine) as db:
            return list((await db.execute(_LIST_UNFINISHED)).scalars())

    async def step(self, erasure_id: str, *, after: str = "", waiting: int = 0, most: int = 50) -> Erased:
        """Do one step of an erasure; see `step`."""
        async with transaction(self._engine) as db:
            return await step(db, erasure_id, after=after, waiting=waiting, most=most)
