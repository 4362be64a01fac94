"""Preflights of routes as they were kept, and announcements of what expires, each made once.

The newest `KEPT` checks of a route are kept. One worker at a time checks a route: `alone` takes an
advisory lock of PostgreSQL for it, which ends with the transaction, and with the worker that dies.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.ledger.ids import new_id

#: Checks of one route that are kept.
KEPT = 50

#: The first half of the lock's key: what else takes advisory locks is not in the way.
_LOCKS = 0x706F7374  # "post"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check of one route, as it is kept."""

    id: str  # chk_…
    route: str
    asked_by: str  # 'schedule', 'cli', or an application
    started_at: datetime
    ended_at: datetime
    result: str  # ok, warn, fail, skip
    steps: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCheck:
    """A check that is to be kept."""

    route: str
    asked_by: str
    started_at: datetime
    ended_at: datetime
    result: str
    steps: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewNotice:
    """An announcement that is to be made."""

    subject: str
    expires_at: datetime
    days: int  # the threshold that was reached; 0: it has expired
    route: str
    detail: str


_INSERT = text("""
    INSERT INTO checks (id, route, asked_by, started_at, ended_at, result, steps)
    VALUES (:id, :route, :asked_by, :started_at, :ended_at, :result, CAST(:steps AS jsonb))
""")

_FORGET = text("""
    DELETE FROM checks WHERE route = :route AND id < (
        SELECT min(id) FROM (SELECT id FROM checks WHERE route = :route ORDER BY id DESC LIMIT :kept) AS newest)
""")

_HISTORY = text("""
    SELECT id, route, asked_by, started_at, ended_at, result, steps
      FROM checks WHERE route = :route ORDER BY id DESC LIMIT :most
""")

_LOCK_LANE = text("SELECT name FROM lanes WHERE name = :lane FOR UPDATE")
_ADD_LANE = text("INSERT INTO lanes (name, route) VALUES (:lane, :route) ON CONFLICT DO NOTHING")

_TAKE_SEAT = text("""
    INSERT INTO connections (id, lane, worker, lease_until)
    SELECT :id, :lane, 'check', clock_timestamp() + make_interval(secs => :lease)
     WHERE (SELECT count(*) FROM connections WHERE lane = :lane AND lease_until > clock_timestamp()) < :of
    RETURNING id
""")

_ANNOUNCE = text("""
    INSERT INTO notices (subject, expires_at, days, route, detail)
    VALUES (:subject, :expires_at, :days, :route, :detail)
    ON CONFLICT DO NOTHING RETURNING subject
""")


async def write(db: AsyncConnection, check: NewCheck) -> Check:
    """Keep a check, and forget the oldest of its route."""
    check_id = new_id("chk")
    await db.execute(
        _INSERT,
        {
            "id": check_id,
            "route": check.route,
            "asked_by": check.asked_by,
            "started_at": check.started_at,
            "ended_at": check.ended_at,
            "result": check.result,
            # JSON can have a NUL, jsonb cannot.
            "steps": json.dumps(list(check.steps)).replace("\\u0000", "\\ufffd"),
        },
    )
    await db.execute(_FORGET, {"route": check.route, "kept": KEPT})
    return Check(
        id=check_id,
        route=check.route,
        asked_by=check.asked_by,
        started_at=check.started_at,
        ended_at=check.ended_at,
        result=check.result,
        steps=check.steps,
    )


async def history(db: AsyncConnection, route: str, *, most: int = KEPT) -> list[Check]:
    """List the checks of a route, the newest first."""
    rows = (await db.execute(_HISTORY, {"route": route, "most": most})).mappings()
    return [Check(**row) for row in rows]


async def latest(db: AsyncConnection, route: str) -> Check | None:
    """Find the newest check of a route."""
    return next(iter(await history(db, route, most=1)), None)


async def try_lock(db: AsyncConnection, route: str) -> bool:
    """Take the right to check this route until the end of the transaction; False: somebody has it."""
    # The transaction is idle while the check goes on, for longer than others may be.
    await db.execute(text("SET LOCAL idle_in_transaction_session_timeout = '10min'"))
    taken = await db.scalar(
        text("SELECT pg_try_advisory_xact_lock(:locks, hashtext(:route))"),
        {"locks": _LOCKS, "route": route},
    )
    return bool(taken)


async def take_seat(db: AsyncConnection, lane: str, *, route: str, of: int, lease: float) -> str | None:
    """Take one of the lane's `of` seats for `lease` seconds; None where mail is using them all.

    Seats are taken under the lane's own lock, as claims take them.
    """
    if await db.scalar(_LOCK_LANE, {"lane": lane}) is None:
        await db.execute(_ADD_LANE, {"lane": lane, "route": route})
        await db.execute(_LOCK_LANE, {"lane": lane})
    taken: str | None = await db.scalar(
        _TAKE_SEAT, {"id": new_id("sea"), "lane": lane, "of": of, "lease": lease}
    )
    return taken


async def announced(db: AsyncConnection, subjects: Collection[str]) -> set[tuple[str, datetime, int]]:
    """Say which announcements about these subjects were made: subject, its end, days."""
    rows = await db.execute(
        text("SELECT subject, expires_at, days FROM notices WHERE subject = ANY(:subjects)"),
        {"subjects": list(subjects)},
    )
    return {(row.subject, row.expires_at, row.days) for row in rows}


async def announce(db: AsyncConnection, notice: NewNotice) -> bool:
    """Write an announcement down; False where another worker made it already."""
    made = await db.scalar(
        _ANNOUNCE,
        {
            "subject": notice.subject,
            "expires_at": notice.expires_at,
            "days": notice.days,
            "route": notice.route,
            "detail": notice.detail,
        },
    )
    return made is not None
