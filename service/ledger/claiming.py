"""Claim what is due in a lane: the transaction before every socket.

In one short transaction, with the lane's row locked:

1. the lane may be paused: nothing, and when to come again;
2. how much its limits leave, counted from the attempts of the last minute, hour and day;
3. what is due, the most urgent first, no more than the free sessions can carry;
4. for each of them an attempt with a lease, its recipients set to `sending`;
5. a seat for each session that will have to be opened.

Only after the commit does anybody touch a socket, so whatever crashes, the ledger knows what
may have been in hand. The lane's row makes claims of one lane follow each other, for any
number of workers; PostgreSQL's clock, read after that lock, is the only one that counts.

How limits are counted: a message counts from its claim until a whole window after the end
of its attempt. The other side counts it somewhere in between, so no window of its own can
ever hold more than the limit, whatever crashed. A lost attempt goes on counting from the
moment at which its lease was found to have run out.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.ledger.ids import new_id

#: Message windows in seconds, by the name of the limit.
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneLimits:
    """What the other side allows on a lane; None is "no limit known"."""

    connections: int
    messages_per_minute: int | None
    messages_per_hour: int | None
    recipients_per_day: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a worker could carry on a lane right now."""

    lane: str
    route: str
    worker: str
    sessions: int  # seats of its own that are free
    more: int  # seats that it could use beside these
    lease: float  # seconds
    suspects: bool  # it may take a delivery that has lost a lease before, and will carry it alone


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedRecipient:
    position: int
    email: str
    tries: int  # attempts that failed for its own sake so far
    uncertain: bool  # an earlier attempt may have reached it


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """One delivery in hand: an open attempt, written and leased."""

    attempt_id: str
    number: int
    delivery_id: str
    message_id: str
    application: str
    lane: str
    reverse_path: str
    recipients: tuple[ClaimedRecipient, ...]
    size: int
    sha256: str
    smtputf8: bool
    eightbit: bool
    on_uncertain: str
    expires_at: datetime
    alone: bool
    seat: str | None  # a new seat, for a session to be opened; None: use one of the free ones


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    claimed: tuple[Claimed, ...]
    again_in: float | None  # seconds until a permit, a retry or the end of a pause; None: when rung
    suspects_waiting: bool = False  # what is due must be carried alone, and this worker could not


_LOCK_LANE = text(
    "SELECT paused_until, troubles, clock_timestamp() AS now FROM lanes WHERE name = :lane FOR UPDATE"
)
_ADD_LANE = text("INSERT INTO lanes (name, route) VALUES (:lane, :route) ON CONFLICT DO NOTHING")
_NOW = text("SELECT clock_timestamp()")

_USE = text("""
    SELECT ended_at, recipient_count FROM attempts
     WHERE lane = :lane AND (ended_at IS NULL OR ended_at > CAST(:now AS timestamptz) - make_interval(secs => :window))
     ORDER BY ended_at NULLS LAST
""")

_SEATS = text("""
    SELECT count(*) AS taken, min(lease_until) AS free_at FROM connections
     WHERE lane = :lane AND lease_until > :now
""")

_RUNNING = text("SELECT count(*) FROM attempts WHERE lane = :lane AND outcome IS NULL")

# Each priority is a range of its own in the index, so the rows that are not due yet cost nothing.
_DUE = text("""
    SELECT d.id, d.lost, d.due_at, d.attempts, d.size
      FROM (VALUES (0), (1), (2)) AS p (priority)
     CROSS JOIN LATERAL (
           SELECT id, priority, lost, due_at, attempts, size FROM deliveries
            WHERE lane = :lane AND deliveries.priority = p.priority AND due_at <= :now AND expires_at > :now
            ORDER BY due_at LIMIT :most
              FOR UPDATE SKIP LOCKED) AS d
     ORDER BY d.priority, d.due_at LIMIT :most
""")

_NEXT_DUE = text("""
    SELECT min(d.due_at)
      FROM (VALUES (0), (1), (2)) AS p (priority)
     CROSS JOIN LATERAL (
           SELECT due_at FROM deliveries
            WHERE lane = :lane AND deliveries.priority = p.priority AND due_at IS NOT NULL AND expires_at > :now
            ORDER BY due_at LIMIT 1) AS d
""")

_TAKE = text("""
    WITH taken AS (
        SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS row(
            delivery_id text, attempt_id text, seat text, alone boolean)
    ), before AS (
        SELECT r.delivery_id, r.message_id, r.position, r.status FROM recipients r
          JOIN taken ON taken.delivery_id = r.delivery_id
         WHERE r.status IN ('scheduled', 'queued', 'deferred', 'uncertain') AND r.due_at <= :now
           FOR UPDATE OF r
    ), claimed AS (
        UPDATE deliveries d SET due_at = NULL, attempt_id = taken.attempt_id, attempts = d.attempts + 1
          FROM taken WHERE d.id = taken.delivery_id AND d.id IN (SELECT delivery_id FROM before)
        RETURNING d.id, d.message_id, d.application, d.route, d.attempts AS number, d.size, d.expires_at,
                  taken.attempt_id, taken.seat, taken.alone
    ), moved AS (
        UPDATE recipients r
           SET status = 'sending', attempt_id = claimed.attempt_id, attempts = r.attempts + 1, due_at = NULL,
               reason = CASE WHEN before.status = 'uncertain' THEN 'resend' ELSE 'claimed' END,
               updated_at = :now
          FROM claimed, before
         WHERE r.delivery_id = claimed.id AND before.message_id = r.message_id AND before.position = r.position
        RETURNING r.delivery_id, r.position, r.email, r.tries, before.status = 'uncertain' AS uncertain
    ), carried AS (
        SELECT delivery_id, count(*) AS recipient_count,
               jsonb_agg(jsonb_build_object('position', position, 'email', email, 'tries', tries,
                                            'uncertain', uncertain) ORDER BY position) AS recipients
          FROM moved GROUP BY delivery_id
    ), written AS (
        INSERT INTO attempts (id, message_id, delivery_id, number, worker, route, lane, alone, started_at,
                              lease_until, phase, recipients, recipient_count, size, sha256)
        SELECT claimed.attempt_id, claimed.message_id, claimed.id, claimed.number, :worker, claimed.route, :lane,
               claimed.alone, :now, CAST(:now AS timestamptz) + make_interval(secs => :lease), 'connect',
               (SELECT jsonb_agg(jsonb_build_object('position', r -> 'position', 'email', r -> 'email',
                                                    'reply', NULL, 'status', 'sending'))
                  FROM jsonb_array_elements(carried.recipients) AS r),
               carried.recipient_count, claimed.size, m.sha256
          FROM claimed JOIN carried ON carried.delivery_id = claimed.id
          JOIN messages m ON m.id = claimed.message_id
        RETURNING id
    ), seated AS (
        INSERT INTO connections (id, lane, worker, lease_until)
        SELECT seat, :lane, :worker, CAST(:now AS timestamptz) + make_interval(secs => :lease)
          FROM claimed WHERE seat IS NOT NULL
        RETURNING id
    )
    SELECT claimed.*, carried.recipients, m.reverse_path, m.sha256, m.smtputf8, m.eightbit, m.on_uncertain
      FROM claimed JOIN carried ON carried.delivery_id = claimed.id
      JOIN messages m ON m.id = claimed.message_id
     ORDER BY claimed.attempt_id
""")


async def claim(db: AsyncConnection, wish: Wish, limits: LaneLimits) -> Claim:
    """Take what is due in `wish.lane`, as far as pause, limits, seats and sessions allow.

    The caller commits, and must not touch a socket before.
    """
    lane = await _locked(db, wish)
    now: datetime = lane.now
    if lane.paused_until is not None and lane.paused_until > now:
        return Claim(claimed=(), again_in=_seconds(now, lane.paused_until))
    if lane.troubles and await db.scalar(_RUNNING, {"lane": wish.lane}):
        return Claim(claimed=(), again_in=None)  # a probe is under way; its end rings
    permits = await _permits(db, wish, limits, now)
    seats, seat_at = await _seats(db, wish, limits, now)
    most = min(
        permits.messages,
        wish.sessions + min(wish.more, seats),
        1 if lane.troubles else wish.sessions + wish.more,
    )
    if most <= 0:
        return Claim(
            claimed=(), again_in=_earliest(now, permits.at if permits.messages <= 0 else None, seat_at)
        )
    due = (await db.execute(_DUE, {"lane": wish.lane, "now": now, "most": most})).all()
    chosen, alone = _choose(due, suspects=wish.suspects)
    fitting = chosen if permits.recipients is None else await _fitting(db, chosen, permits.recipients)
    if chosen and not fitting:
        return Claim(claimed=(), again_in=_earliest(now, permits.at) or MINUTE)
    if not chosen:
        if due:
            return Claim(claimed=(), again_in=None, suspects_waiting=True)
        return Claim(
            claimed=(), again_in=_earliest(now, await db.scalar(_NEXT_DUE, {"lane": wish.lane, "now": now}))
        )
    chosen = fitting
    claimed = await _take(db, wish, [row.id for row in chosen], now=now, alone=alone)
    # Nothing taken although something is due: its recipients are not, for an instant.
    again_in = 0.0 if claimed else 0.5
    return Claim(claimed=claimed, again_in=again_in, suspects_waiting=not alone and len(chosen) < len(due))


def _choose(due: Sequence[Any], *, suspects: bool) -> tuple[Sequence[Any], bool]:
    """Part the suspects from the rest: a delivery that lost a lease is carried alone."""
    if suspects and due and due[0].lost:
        return due[:1], True
    innocent = [row for row in due if not row.lost]
    if innocent:
        return innocent, False
    return (due[:1], True) if suspects and due else ([], False)


async def _locked(db: AsyncConnection, wish: Wish) -> Any:
    row = (await db.execute(_LOCK_LANE, {"lane": wish.lane})).one_or_none()
    if row is None:
        await db.execute(_ADD_LANE, {"lane": wish.lane, "route": wish.route})
        row = (await db.execute(_LOCK_LANE, {"lane": wish.lane})).one()
    # The row may have been waited for: what it says about the time is older than the lock.
    now = await db.scalar(_NOW)
    return _Lane(paused_until=row.paused_until, troubles=row.troubles, now=now)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lane:
    paused_until: datetime | None
    troubles: int
    now: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class _Permits:
    messages: int  # may start now
    recipients: int | None  # may be addressed now; None: no limit
    at: datetime | None  # when the tightest window frees something, where that is known


async def _permits(db: AsyncConnection, wish: Wish, limits: LaneLimits, now: datetime) -> _Permits:
    """Say how much the lane's windows leave."""
    windows = [
        (MINUTE, limits.messages_per_minute, False),
        (HOUR, limits.messages_per_hour, False),
        (DAY, limits.recipients_per_day, True),
    ]
    set_windows = [(window, limit, weigh) for window, limit, weigh in windows if limit is not None]
    messages, recipients, times = wish.sessions + wish.more, None, []
    if not set_windows:
        return _Permits(messages=messages, recipients=None, at=None)
    longest = max(window for window, _, _ in set_windows)
    rows = (await db.execute(_USE, {"lane": wish.lane, "now": now, "window": longest})).all()
    for window, limit, by_recipients in set_windows:
        used = [
            (row.ended_at, row.recipient_count if by_recipients else 1)
            for row in rows
            if row.ended_at is None or (now - row.ended_at).total_seconds() < window
        ]
        left = limit - sum(weight for _, weight in used)
        if by_recipients:
            recipients = left
        messages = min(messages, left)
        if left <= 0:
            times.append(_freed_at(used, surplus=1 - left, window=window))
        elif by_recipients and used:
            times.append(_freed_at(used, surplus=1, window=window))
    known = [at for at in times if at is not None]
    return _Permits(messages=messages, recipients=recipients, at=max(known) if known else None)


_COUNTS = text("""
    SELECT delivery_id, count(*) AS recipients FROM recipients
     WHERE delivery_id = ANY(:deliveries) AND status IN ('scheduled', 'queued', 'deferred', 'uncertain')
     GROUP BY delivery_id
""")


async def _fitting(db: AsyncConnection, chosen: Sequence[Any], recipients: int) -> Sequence[Any]:
    """Keep the first deliveries whose recipients the day's limit still leaves room for."""
    counted = await db.execute(_COUNTS, {"deliveries": [row.id for row in chosen]})
    counts = {row.delivery_id: row.recipients for row in counted}
    for index, row in enumerate(chosen):
        recipients -= counts.get(row.id, 0)
        if recipients < 0:
            return chosen[:index]
    return chosen


def _freed_at(used: Sequence[tuple[datetime | None, int]], *, surplus: int, window: float) -> datetime | None:
    """Say when `surplus` of what was used falls out of the window; None while it is still running."""
    for ended_at, weight in used:  # oldest first
        if ended_at is None:
            return None
        surplus -= weight
        if surplus <= 0:
            return ended_at + timedelta(seconds=window)
    return None


async def _seats(
    db: AsyncConnection, wish: Wish, limits: LaneLimits, now: datetime
) -> tuple[int, datetime | None]:
    row = (await db.execute(_SEATS, {"lane": wish.lane, "now": now})).one()
    left = limits.connections - row.taken
    return max(left, 0), (row.free_at if left <= 0 and wish.more and not wish.sessions else None)


async def _take(
    db: AsyncConnection, wish: Wish, deliveries: Sequence[str], *, now: datetime, alone: bool
) -> tuple[Claimed, ...]:
    rows = [
        {
            "delivery_id": delivery,
            "attempt_id": new_id("att"),
            "seat": new_id("sea") if index >= wish.sessions else None,
            "alone": alone,
        }
        for index, delivery in enumerate(deliveries)
    ]
    taken = await db.execute(
        _TAKE,
        {"rows": json.dumps(rows), "lane": wish.lane, "worker": wish.worker, "lease": wish.lease, "now": now},
    )
    return tuple(
        Claimed(
            attempt_id=row.attempt_id,
            number=row.number,
            delivery_id=row.id,
            message_id=row.message_id,
            application=row.application,
            lane=wish.lane,
            reverse_path=row.reverse_path,
            recipients=tuple(ClaimedRecipient(**recipient) for recipient in row.recipients),
            size=row.size,
            sha256=row.sha256,
            smtputf8=row.smtputf8,
            eightbit=row.eightbit,
            on_uncertain=row.on_uncertain,
            expires_at=row.expires_at,
            alone=row.alone,
            seat=row.seat,
        )
        for row in taken
    )


def _seconds(now: datetime, until: datetime) -> float:
    return max((until - now).total_seconds(), 0.0)


def _earliest(now: datetime, *times: datetime | None) -> float | None:
    known = [at for at in times if at is not None]
    return _seconds(now, min(known)) if known else None


_OCTETS = text("SELECT octets FROM contents WHERE message_id = :message")


async def octets(db: AsyncConnection, message_id: str) -> bytes:
    """Return what goes after DATA, not dot-stuffed."""
    return bytes((await db.execute(_OCTETS, {"message": message_id})).scalar_one())
