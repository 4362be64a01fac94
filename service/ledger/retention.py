"""Keep data as long as the configuration says, kind by kind, in steps that hold nobody up.

| kind | what goes | how old it is |
|---|---|---|
| content | the octets of messages that are over | since the message was accepted |
| transcripts | the dialogues of attempts, and how their sessions began | since the attempt began |
| personal | addresses, names, subjects, tags, metadata (`scrubbing`) of messages that are over | since it was accepted |
| attempts | attempts of messages that are over, and sessions | since the attempt began |
| events | events, and what webhooks are told of them | since it happened |
| audit | entries of the audit | since somebody acted |

A step is a transaction of moments on a few hundred rows at most, found by the primary key: names sort by age.
What is in somebody's hand is passed over and found by a later round. Kinds that leave their rows there remember
how far they came, in `retention`; messages that were not over when their time came wait in `retention_open`.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import TypeAlias

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.ledger import scrubbing
from service.ledger.engine import transaction
from service.ledger.ids import first_id

#: Limits are counted from the attempts of a day, so they stay longer than one.
LEAST_OF_ATTEMPTS = timedelta(days=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long each kind is kept; None: for ever."""

    content: timedelta | None = None
    transcripts: timedelta | None = None
    personal: timedelta | None = None
    attempts: timedelta | None = None
    events: timedelta | None = None
    audit: timedelta | None = None

    def kinds(self) -> dict[str, timedelta]:
        """List what has an end."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: keep for name, keep in found.items() if keep is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one step did."""

    after: str  # where the next one begins
    handled: int  # rows that were changed or removed
    more: bool  # there may be more to do


_NOW = text("SELECT clock_timestamp()")
_PATIENCE = text("SET LOCAL lock_timeout = '300ms'")

_OLD_CONTENTS = text("""
    SELECT message_id FROM contents WHERE message_id > :after AND message_id < :before ORDER BY message_id LIMIT :most
""")
_DROP_CONTENTS = text("DELETE FROM contents WHERE message_id = ANY(:ids)")

_OLD_ATTEMPTS = text("""
    SELECT id, outcome IS NULL AS open, message_id FROM attempts
     WHERE id > :after AND id < :before ORDER BY id LIMIT :most
""")
_DROP_TRANSCRIPTS = text(
    "UPDATE attempts SET transcript = NULL WHERE id = ANY(:ids) AND transcript IS NOT NULL"
)
_DROP_ATTEMPTS = text("DELETE FROM attempts WHERE id = ANY(:ids) AND outcome IS NOT NULL")

_OLD_SESSIONS = text("SELECT id FROM sessions WHERE id > :after AND id < :before ORDER BY id LIMIT :most")
_DROP_OPENINGS = text("UPDATE sessions SET facts = facts - 'transcript' WHERE id = ANY(:ids)")
_DROP_SESSIONS = text("DELETE FROM sessions WHERE id = ANY(:ids)")

_OLD_MESSAGES = text("SELECT id FROM messages WHERE id > :after AND id < :before ORDER BY id LIMIT :most")
_STILL_OPEN = text(
    "INSERT INTO retention_open (message_id) SELECT unnest(CAST(:ids AS text[])) ON CONFLICT DO NOTHING"
)
_WERE_OPEN = text(
    "SELECT message_id FROM retention_open WHERE message_id > :after ORDER BY message_id LIMIT :most"
)
_NOT_OPEN = text("DELETE FROM retention_open WHERE message_id = ANY(:ids)")

# What webhooks are told of an event is a copy of it: nobody would find it for an erasure when the event is gone.
_DROP_EVENTS = text("""
    WITH gone AS (
        DELETE FROM events WHERE id = ANY(ARRAY(
            SELECT id FROM (SELECT id, created_at FROM events ORDER BY id LIMIT :most) AS oldest
             WHERE created_at < :until))
        RETURNING id, application
    ), untold AS (
        DELETE FROM webhook_deliveries d USING gone, webhooks w
         WHERE w.application IN (gone.application, '') AND d.webhook_id = w.id AND d.event_id = gone.id
    )
    SELECT count(*) FROM gone
""")
_DROP_AUDIT = text("""
    DELETE FROM audit WHERE id = ANY(ARRAY(
        SELECT id FROM (SELECT id, at FROM audit ORDER BY id LIMIT :most) AS oldest WHERE at < :until))
""")

# Whoever has the row goes on from there; the others come later.
_HOW_FAR = text("SELECT through FROM retention WHERE kind = :kind FOR UPDATE SKIP LOCKED")
_BEGIN = text("INSERT INTO retention (kind, through) VALUES (:kind, '') ON CONFLICT DO NOTHING")
_COME_TO = text("UPDATE retention SET through = :through, updated_at = clock_timestamp() WHERE kind = :kind")

Work: TypeAlias = Callable[[AsyncConnection, datetime, str, int], Awaitable[Step]]


async def _content(db: AsyncConnection, until: datetime, after: str, most: int) -> Step:
    where = {"after": after, "before": first_id("msg", until), "most": most}
    ids = list((await db.execute(_OLD_CONTENTS, where)).scalars())
    over = await scrubbing.over(db, ids)
    await db.execute(_DROP_CONTENTS, {"ids": over})
    return Step(after=ids[-1] if ids else after, handled=len(over), more=len(ids) == most)


async def _transcripts(db: AsyncConnection, until: datetime, after: str, most: int) -> Step:
    through = await how_far(db, "transcripts")
    if through is None:
        return Step(after=after, handled=0, more=False)
    where = {"after": through, "before": first_id("att", until), "most": most}
    rows = (await db.execute(_OLD_ATTEMPTS, where)).all()
    # An open attempt is closed or judged in a moment; nothing behind it is forgotten over it.
    ended = [row.id for row in rows[: next((at for at, row in enumerate(rows) if row.open), len(rows))]]
    handled = (await db.execute(_DROP_TRANSCRIPTS, {"ids": ended})).rowcount
    if ended:
        await come_to(db, "transcripts", ended[-1])
    openings = await _openings(db, until, most)
    return Step(after=after, handled=handled + openings, more=len(ended) == most or openings == most)


async def _openings(db: AsyncConnection, until: datetime, most: int) -> int:
    through = await how_far(db, "openings")
    if through is None:
        return 0
    where = {"after": through, "before": first_id("ses", until), "most": most}
    ids = list((await db.execute(_OLD_SESSIONS, where)).scalars())
    await db.execute(_DROP_OPENINGS, {"ids": ids})
    if ids:
        await come_to(db, "openings", ids[-1])
    return len(ids)


async def _personal(db: AsyncConnection, until: datetime, after: str, most: int) -> Step:
    through = await how_far(db, "personal")
    if through is None:
        return Step(after=after, handled=0, more=False)
    few = max(most // 10, 1)  # each of them is many rows
    where = {"after": through, "before": first_id("msg", until), "most": few}
    ids = list((await db.execute(_OLD_MESSAGES, where)).scalars())
    over = await scrubbing.over(db, ids)
    await scrubbing.scrub(db, over)
    await db.execute(_STILL_OPEN, {"ids": sorted(set(ids) - set(over))})
    if ids:
        await come_to(db, "personal", ids[-1])
        return Step(after=after, handled=len(over), more=True)
    waited = list((await db.execute(_WERE_OPEN, {"after": after, "most": few})).scalars())
    over = await scrubbing.over(db, waited)
    await scrubbing.scrub(db, over)
    await db.execute(_NOT_OPEN, {"ids": over})
    return Step(after=waited[-1] if waited else after, handled=len(over), more=len(waited) == few)


async def _attempts(db: AsyncConnection, until: datetime, after: str, most: int) -> Step:
    where = {"after": after, "before": first_id("att", until), "most": most}
    rows = (await db.execute(_OLD_ATTEMPTS, where)).all()
    over = set(await scrubbing.over(db, sorted({row.message_id for row in rows})))
    ids = [row.id for row in rows if row.message_id in over]
    handled = (await db.execute(_DROP_ATTEMPTS, {"ids": ids})).rowcount
    # A session is older than its attempts, and none lasts for a day.
    before = first_id("ses", until - timedelta(days=1))
    sessions = list(
        (await db.execute(_OLD_SESSIONS, {"after": "", "before": before, "most": most})).scalars()
    )
    await db.execute(_DROP_SESSIONS, {"ids": sessions})
    more = len(rows) == most or len(sessions) == most
    return Step(after=rows[-1].id if rows else after, handled=handled, more=more)


async def _events(db: AsyncConnection, until: datetime, after: str, most: int) -> Step:
    handled = int((await db.execute(_DROP_EVENTS, {"until": until, "most": most})).scalar_one())
    return Step(after=after, handled=handled, more=handled == most)


async def _audit(db: AsyncConnection, until: datetime, after: str, most: int) -> Step:
    handled = (await db.execute(_DROP_AUDIT, {"until": until, "most": most})).rowcount
    return Step(after=after, handled=handled, more=handled == most)


_WORK: dict[str, Work] = {
    "content": _content,
    "transcripts": _transcripts,
    "personal": _personal,
    "attempts": _attempts,
    "events": _events,
    "audit": _audit,
}


async def how_far(db: AsyncConnection, kind: str) -> str | None:
    """Lock how far a kind has come, and return it; None where somebody else is at it."""
    await db.execute(_BEGIN, {"kind": kind})
    through = await db.scalar(_HOW_FAR, {"kind": kind})
    return None if through is None else str(through)


async def come_to(db: AsyncConnection, kind: str, through: str) -> None:
    """Remember how far a kind has come."""
    await db.execute(_COME_TO, {"kind": kind, "through": through})


async def step(db: AsyncConnection, kind: str, keep: timedelta, *, after: str = "", most: int = 500) -> Step:
    """Do one step of a kind; the caller commits."""
    await db.execute(_PATIENCE)
    now: datetime = (await db.execute(_NOW)).scalar_one()
    return await _WORK[kind](db, now - keep, after, most)


class Keeping:
    """The end of what is kept, as the other rooms hold it."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def step(self, kind: str, keep: timedelta, *, after: str = "", most: int = 500) -> Step:
        """Do one step of a kind, which is `Retention.kinds`'; begin a round with `after` empty."""
        async with transaction(self._engine) as db:
            return await step(db, kind, keep, after=after, most=most)
