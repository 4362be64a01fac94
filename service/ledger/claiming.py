"""Claim what is due in a lane: the transaction before every socket.

In one short transaction, with the lane's row locked:

1. the lane may be paused: nothing, and when to come again;
2. how much its windows leave (`pace`), and the tenant's external budget;
3. what is due: the most urgent first, within a priority each application in its turn, no more
   than the free sessions can carry, without the senders that rest (`stops`);
4. for each of them an attempt with a lease, its recipients set to `sending`;
5. a seat for each session that will have to be opened.

Only after the commit does anybody touch a socket, so whatever crashes, the ledger knows what
may have been in hand. The lane's row makes claims of one lane follow each other, for any
number of workers; PostgreSQL's clock, read after that lock, is the only one that counts.

A lane whose deliveries use the tenant's external budget also locks the row of `EXTERNAL`, after
its own, while it claims such deliveries. When that budget is spent or rests, only the others
are looked at.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.ledger import pace, stops
from service.ledger.ids import new_id
from service.ledger.pace import LaneLimits

#: The row among the lanes that stands for the tenant's external budget. It sorts behind every lane's
#: name, and is always locked last.
EXTERNAL = "~external"

#: How often one claim looks again after it has held back what a stopped sender has due.
_ROUNDS = 5

#: Contents up to this size, in octets, come with the claim.
_SMALL = 65_536

#: Before everything that was ever due.
_EVER = datetime(2000, 1, 1, tzinfo=UTC)

#: When nobody knows when a budget frees, because what uses it is still running: look again, in seconds.
_LOOK_AGAIN = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a worker could carry on a lane right now."""

    lane: str
    route: str
    worker: str
    seats: Sequence[str]  # of its own that are free, in the order in which it would use them
    more: int  # seats that it could use beside these
    lease: float  # seconds
    suspects: bool  # it may take a delivery that has lost a lease before, and will carry it alone
    from_due: datetime | None = None  # look at nothing that was due before; None: at everything
    ahead: int = 0  # deliveries beyond those, for seats that will be free in a moment (decision record 0013)


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
    sender: str  # the reverse-path in its comparison form
    external: int  # recipients that use the tenant's external budget
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
    dsn: Mapping[str, Any] | None = None  # reports to ask the peer for: notify, return, envid (RFC 3461)
    octets: bytes | None = None  # what goes after DATA; None: it is large, and read when it is its turn
    since: datetime | None = None  # when it was accepted, or was to go
    traceparent: str | None = None  # of the span that it was accepted in


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    claimed: tuple[Claimed, ...]
    again_in: float | None  # seconds until a permit, a retry or the end of a pause; None: when rung
    first_due: datetime | None = None  # before it nothing waited; None: nobody knows
    drained: bool = False  # nothing else is due now: the next look is for `again_in` or the bell
    lost_seats: frozenset[str] = (
        frozenset()
    )  # of `Wish.seats`: their leases have run out, nothing may use them


_LOCK_LANE = text("SELECT paused_until, troubles, turn FROM lanes WHERE name = :lane FOR UPDATE")
_ADD_LANE = text("INSERT INTO lanes (name, route) VALUES (:lane, :route) ON CONFLICT DO NOTHING")
_NOW = text("SELECT clock_timestamp()")

# All that a claim has to know of its lane before it looks at what is due, in one round trip. The time is
# read by a statement of its own behind the lock: the row may have been waited for.
_STANDING = text("""
    WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS now)
    SELECT clock.now, seats.*,
           CASE WHEN :troubles THEN EXISTS (SELECT 1 FROM attempts WHERE lane = :lane AND ended_at IS NULL)
           END AS running,
           EXISTS (SELECT 1 FROM stops WHERE lane = :lane) AS stopped
      FROM clock CROSS JOIN LATERAL (
           SELECT count(*) AS taken, array_agg(id) FILTER (WHERE id = ANY(:seats)) AS kept,
                  min(lease_until) AS free_at
             FROM connections WHERE lane = :lane AND lease_until > clock.now) AS seats
""")

# The first delivery of each group (external or not, priority, application): the index is read once a group,
# however many deliveries wait in it. What was due before `from_due` is left alone: there an old snapshot,
# a dump's for example, keeps the entries of all that was claimed since it was taken.
_HEADS = """
    WITH RECURSIVE heads AS (
        (SELECT external, priority, application, due_at FROM deliveries
          WHERE lane = :lane AND due_at IS NOT NULL AND due_at >= :from_due
          ORDER BY external, priority, application, due_at LIMIT 1)
        UNION ALL
        SELECT next.* FROM heads CROSS JOIN LATERAL (
            SELECT external, priority, application, due_at FROM deliveries
             WHERE lane = :lane AND due_at IS NOT NULL AND due_at >= :from_due
               AND (external, priority, application) > (heads.external, heads.priority, heads.application)
             ORDER BY external, priority, application, due_at LIMIT 1) AS next
    )
"""

# Within a priority: the first of each application, the one that was served longest ago before the others,
# then the second of each, and so on.
_DUE = text(
    _HEADS  # noqa: S608  (our own words)
    + """, ready AS (
        SELECT * FROM heads WHERE due_at <= :now AND (:external OR NOT external)
    ), waiting AS (
        SELECT d.id, d.due_at, ready.priority, t.served,
               row_number() OVER (PARTITION BY ready.priority, ready.application ORDER BY d.due_at, d.id) AS turn
          FROM ready LEFT JOIN turns t ON t.lane = :lane AND t.application = ready.application
         CROSS JOIN LATERAL (
               SELECT id, due_at FROM deliveries
                WHERE lane = :lane AND external = ready.external AND priority = ready.priority
                  AND application = ready.application AND due_at <= :now AND expires_at > :now
                  AND (:suspects OR lost = 0)
                ORDER BY due_at LIMIT :most) AS d
    ), picked AS MATERIALIZED (
        SELECT id, row_number() OVER (ORDER BY priority, turn, served NULLS FIRST, due_at, id) AS place
          FROM waiting ORDER BY place LIMIT :most
    )
    SELECT d.id, d.lost, d.sender, d.application, d.external,
           (SELECT count(DISTINCT application) FROM ready) AS applications,
           (SELECT min(due_at) FROM heads) AS first_due
      FROM picked JOIN deliveries d ON d.id = picked.id
     WHERE d.due_at <= :now
     ORDER BY picked.place
       FOR UPDATE OF d SKIP LOCKED
"""
)

# Heads that are due and were not claimed are locked, expired or without budget: something else rings for them.
_NEXT_DUE = text(
    _HEADS + "SELECT min(due_at) FILTER (WHERE due_at > :now) AS at, bool_or(external) AS external FROM heads"  # noqa: S608
)

_EXTERNAL_WAITS = text("""
    SELECT EXISTS (SELECT 1 FROM deliveries WHERE lane = :lane AND due_at IS NOT NULL AND external)
""")

_EXTERNAL_RUNNING = text("SELECT count(*) FROM attempts WHERE ended_at IS NULL AND external_count > 0")

_SENDERS_RUNNING = text("""
    SELECT DISTINCT d.sender FROM attempts a JOIN deliveries d ON d.id = a.delivery_id
     WHERE a.lane = :lane AND a.ended_at IS NULL
""")

_TAKE_TURNS = text("""
    INSERT INTO turns (lane, application, served)
    SELECT :lane, application, served
      FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS row(application text, served bigint)
    ON CONFLICT (lane, application) DO UPDATE SET served = excluded.served
""")

_COUNT_TURNS = text("UPDATE lanes SET turn = turn + :count WHERE name = :lane")

# `coalesce`: recipients are found by their delivery, and not by the index of states (see `taken`).
_TAKE = text("""
    WITH taken AS (
        SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS row(
            delivery_id text, attempt_id text, seat text, alone boolean)
    ), before AS (
        SELECT r.delivery_id, r.message_id, r.position, r.status FROM recipients r
          JOIN taken ON taken.delivery_id = r.delivery_id
         WHERE coalesce(r.status) IN ('scheduled', 'queued', 'deferred', 'uncertain') AND r.due_at <= :now
           FOR UPDATE OF r
    ), claimed AS (
        UPDATE deliveries d SET due_at = NULL, attempt_id = taken.attempt_id, attempts = d.attempts + 1
          FROM taken WHERE d.id = taken.delivery_id AND d.id IN (SELECT delivery_id FROM before)
        RETURNING d.id, d.message_id, d.application, d.sender, d.route, d.attempts AS number,
                  d.size, d.expires_at,
                  taken.attempt_id, taken.seat, taken.alone
    ), moved AS (
        UPDATE recipients r
           SET status = 'sending', attempt_id = claimed.attempt_id, attempts = r.attempts + 1, due_at = NULL,
               reason = CASE WHEN before.status = 'uncertain' THEN 'resend' ELSE 'claimed' END,
               updated_at = :now
          FROM claimed, before
         WHERE r.delivery_id = claimed.id AND before.message_id = r.message_id AND before.position = r.position
        RETURNING r.delivery_id, r.position, r.email, r.tries, r.external,
                  before.status = 'uncertain' AS uncertain
    ), carried AS (
        SELECT delivery_id, count(*) AS recipient_count, count(*) FILTER (WHERE external) AS external_count,
               jsonb_agg(jsonb_build_object('position', position, 'email', email, 'tries', tries,
                                            'uncertain', uncertain) ORDER BY position) AS recipients
          FROM moved GROUP BY delivery_id
    ), written AS (
        INSERT INTO attempts (id, message_id, delivery_id, number, worker, route, lane, alone, started_at,
                              lease_until, phase, recipients, recipient_count, external_count,
                              size, sha256)
        SELECT claimed.attempt_id, claimed.message_id, claimed.id, claimed.number, :worker, claimed.route, :lane,
               claimed.alone, :now, CAST(:now AS timestamptz) + make_interval(secs => :lease), 'connect',
               (SELECT jsonb_agg(jsonb_build_object('position', r -> 'position', 'email', r -> 'email',
                                                    'reply', NULL, 'status', 'sending'))
                  FROM jsonb_array_elements(carried.recipients) AS r),
               carried.recipient_count, carried.external_count, claimed.size, m.sha256
          FROM claimed JOIN carried ON carried.delivery_id = claimed.id
          JOIN messages m ON m.id = claimed.message_id
        RETURNING id
    ), seated AS (
        INSERT INTO connections (id, lane, worker, lease_until)
        SELECT seat, :lane, :worker, CAST(:now AS timestamptz) + make_interval(secs => :lease)
          FROM claimed WHERE seat IS NOT NULL
        RETURNING id
    )
    SELECT claimed.*, carried.recipients, carried.external_count, m.reverse_path, m.sha256, m.smtputf8, m.eightbit, m.on_uncertain,
           m.dsn, m.traceparent, coalesce(m.scheduled_at, m.created_at) AS since,
           CASE WHEN m.size <= :small THEN (SELECT octets FROM contents WHERE message_id = m.id) END AS octets
      FROM claimed JOIN carried ON carried.delivery_id = claimed.id
      JOIN messages m ON m.id = claimed.message_id
     ORDER BY claimed.attempt_id
""")


_COUNTS = text("""
    SELECT delivery_id, count(*) AS recipients, count(*) FILTER (WHERE external) AS external
      FROM recipients
     WHERE delivery_id = ANY(:deliveries) AND coalesce(status) IN ('scheduled', 'queued', 'deferred', 'uncertain')
     GROUP BY delivery_id
""")


async def claim(db: AsyncConnection, wish: Wish, limits: LaneLimits) -> Claim:
    """Take what is due in `wish.lane`, as far as pause, limits, seats and sessions allow.

    The caller commits, and must not touch a socket before.
    """
    lane = await _lane(db, wish, limits)
    if lane.paused_until is not None and lane.paused_until > lane.now:
        return Claim(claimed=(), again_in=_seconds(lane.now, lane.paused_until))
    if lane.troubles and lane.running:
        return Claim(claimed=(), again_in=None)  # a probe is under way; its end rings
    windows = await pace.message_windows(db, wish.lane, limits, lane.now)
    seats = lane.seats
    lost = frozenset(wish.seats) - seats.kept
    wish = replace(
        wish,
        seats=[seat for seat in wish.seats if seat not in lost],
        more=min(wish.more, seats.left),
        # What waits for a seat would use up a window that is counted from the claim.
        ahead=0 if windows or lane.troubles else wish.ahead,
    )
    # Nor does a suspect wait for one: the worker's end in the meantime would be laid at its door.
    wish = replace(wish, suspects=wish.suspects and bool(wish.seats or wish.more))
    most = min([len(wish.seats) + wish.more + wish.ahead, *(window.left for window in windows)])
    if lane.troubles:
        most = min(most, 1)
    if most <= 0:
        full = [window for window in windows if not window.left]
        return Claim(
            claimed=(),
            again_in=_earliest(lane.now, await _free_at(db, wish.lane, full, lane.now), seats.free_at),
            lost_seats=lost,
        )
    return replace(await _claim_up_to(db, wish, limits, lane, most), lost_seats=lost)


async def _free_at(
    db: AsyncConnection, lane: str, full: Sequence[pace.Window], now: datetime
) -> datetime | None:
    """Say when the last of these windows leaves room; None while what fills one is still running."""
    times = [await pace.free_at(db, window, lane, now) for window in full]
    known = [at for at in times if at is not None]
    return max(known) if known and len(known) == len(times) else None


async def _claim_up_to(
    db: AsyncConnection, wish: Wish, limits: LaneLimits, lane: "_Lane", most: int
) -> Claim:
    """Choose and take up to `most` deliveries."""
    room = await _room(db, wish.lane, limits, lane.now)
    choice = _Choice()
    for external in (True, False):
        if external and room.external_closed_until is not None:
            continue
        choice = await _choose(db, wish, room, lane, most=most, external=external)
        if choice.rows or not room.external_wanted:
            break
    if not choice.rows:
        return Claim(
            claimed=(),
            again_in=await _again_in(db, wish.lane, room, lane.now, held_back=choice.held_back),
        )
    claimed = await _take(db, wish, [row.id for row in choice.rows], now=lane.now, alone=choice.alone)
    await _count_turns(db, lane, wish.lane, choice.rows)
    # Nothing taken although something is due: its recipients are not, for an instant.
    again_in: float | None = 0.0 if claimed else 0.5
    everything = choice.everything and wish.from_due is None and len(claimed) == len(choice.rows)
    drained = bool(claimed) and everything and not lane.troubles and len(choice.rows) < most
    if drained:
        again_in = await _again_in(db, wish.lane, room, lane.now, held_back=False)
    return Claim(claimed=claimed, again_in=again_in, drained=drained, first_due=choice.rows[0].first_due)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choice:
    rows: Sequence[Any] = ()
    everything: bool = False  # that is due, as far as it was asked for
    alone: bool = False
    held_back: bool = False  # a stopped sender's deliveries were moved; there may be others behind them


async def _choose(
    db: AsyncConnection, wish: Wish, room: "_Room", lane: "_Lane", *, most: int, external: bool
) -> _Choice:
    """Choose among what is due, without changing it."""
    held_back, now = False, lane.now
    due: Sequence[Any] = ()
    for _ in range(_ROUNDS):
        wanted = {
            "lane": wish.lane,
            "now": now,
            "most": most,
            "external": external,
            "suspects": wish.suspects,
            "from_due": wish.from_due or _EVER,
        }
        due = (await db.execute(_DUE, wanted)).all()
        if lane.stopped:
            due, held_back = await _without_stopped(db, wish.lane, due, now=now)
        if due or not held_back:
            break
    rows, alone = _part(due)
    fitting = await _fitting(db, rows, room)
    return _Choice(
        rows=fitting,
        everything=external and wish.suspects and not held_back and len(fitting) == len(due),
        alone=alone,
        held_back=held_back,
    )


def _part(due: Sequence[Any]) -> tuple[Sequence[Any], bool]:
    """Part the suspects from the rest: a delivery that lost a lease is carried alone."""
    if due and due[0].lost:
        return due[:1], True
    return [row for row in due if not row.lost], False


async def _without_stopped(
    db: AsyncConnection, lane: str, due: Sequence[Any], *, now: datetime
) -> tuple[Sequence[Any], bool]:
    """Leave out what comes from senders that rest, and say whether there was something.

    When a sender's stop is over, one delivery tries it; the rest waits for what comes of it.
    """
    stopped = await stops.of_lane(db, lane) if due else {}
    hit = sorted({row.sender for row in due} & stopped.keys())
    if not hit:
        return due, False
    running = set((await db.execute(_SENDERS_RUNNING, {"lane": lane})).scalars())
    spared: list[str] = []
    for sender in hit:
        until = stopped[sender].until
        if until <= now:
            if sender not in running:
                spared.append(next(row.id for row in due if row.sender == sender))
            until = await stops.probe(db, lane, sender, now=now)
        await stops.hold_back(db, lane, sender, now=now, until=until, spared=spared)
    return [row for row in due if row.sender not in stopped or row.id in spared], True


async def _count_turns(db: AsyncConnection, lane: "_Lane", name: str, chosen: Sequence[Any]) -> None:
    """Note who was served, where several applications wait."""
    if chosen[0].applications < 2:
        return
    served = {row.application: lane.turn + place for place, row in enumerate(chosen, start=1)}
    rows = [{"application": application, "served": turn} for application, turn in sorted(served.items())]
    await db.execute(_TAKE_TURNS, {"lane": name, "rows": json.dumps(rows)})
    await db.execute(_COUNT_TURNS, {"lane": name, "count": len(chosen)})


@dataclass(slots=True, kw_only=True)
class _Room:
    """How many recipients may still be addressed: of the lane's day, and of the tenant's."""

    day: pace.Window | None
    external: pace.Window | None
    # The tenant's budget rests, is being probed, or was not looked at.
    external_closed_until: datetime | None = None
    external_probe: bool = False  # it was refused last time: one delivery tries it
    day_wanted: int = 0  # recipients of the first delivery that did not fit
    external_wanted: int = 0


async def _room(db: AsyncConnection, lane: str, limits: LaneLimits, now: datetime) -> _Room:
    day = await pace.day_window(db, lane, limits, now)
    if not limits.counts_external:
        return _Room(day=day, external=None)
    if not await db.scalar(_EXTERNAL_WAITS, {"lane": lane}):
        # One that comes this very moment is for the next claim, which counts: this one has not locked the row.
        return _Room(day=day, external=None, external_closed_until=now)
    tenant = await _locked(db, EXTERNAL, EXTERNAL)
    tenant_now: datetime = (await db.execute(_NOW)).scalar_one()  # its row, too, may have been waited for
    closed_until = None
    if tenant.paused_until is not None and tenant.paused_until > now:
        closed_until = tenant.paused_until
    elif tenant.troubles and await db.scalar(_EXTERNAL_RUNNING):
        closed_until = now + timedelta(seconds=_LOOK_AGAIN)  # a probe is under way, on whichever lane
    external = await pace.external_window(db, limits, tenant_now)
    return _Room(
        day=day,
        external=external,
        external_closed_until=closed_until,
        external_probe=bool(tenant.troubles),
    )


async def _fitting(db: AsyncConnection, chosen: Sequence[Any], room: _Room) -> Sequence[Any]:
    """Keep the deliveries whose recipients the days' budgets leave room for, in their order.

    What does not fit is not overtaken by smaller ones behind it that use the same budget.
    """
    if not chosen or (room.day is None and room.external is None and not room.external_probe):
        return chosen
    counted = await db.execute(_COUNTS, {"deliveries": [row.id for row in chosen]})
    counts = {row.delivery_id: (row.recipients, row.external) for row in counted}
    day = None if room.day is None else room.day.left
    external = None if room.external is None else room.external.left
    fitting = []
    for row in chosen:
        recipients, outside = counts.get(row.id, (0, 0))
        if day is not None and recipients > day:
            room.day_wanted = recipients
            break
        if outside and (external is not None or room.external_probe):
            if room.external_wanted or (external is not None and outside > external):
                room.external_wanted = room.external_wanted or outside
                continue
            external = 0 if room.external_probe or external is None else external - outside
        fitting.append(row)
        day = None if day is None else day - recipients
    return fitting


async def _again_in(
    db: AsyncConnection, lane: str, room: _Room, now: datetime, *, held_back: bool
) -> float | None:
    """Say when there may be something to claim, after a claim that took nothing."""
    next_due = (await db.execute(_NEXT_DUE, {"lane": lane, "now": now, "from_due": _EVER})).one()
    times = [next_due.at]
    if held_back:
        times.append(now + timedelta(milliseconds=50))
    if next_due.external:
        times.append(room.external_closed_until)
    for window, wanted in ((room.day, room.day_wanted), (room.external, room.external_wanted)):
        if window is not None and wanted:
            free = await pace.free_at(db, window, lane, now, wanted=wanted)
            times.append(free or now + timedelta(seconds=_LOOK_AGAIN))
    return _earliest(now, *times)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seats:
    left: int  # that nobody has
    kept: frozenset[str]  # free ones of this worker, which may believe in more
    free_at: datetime | None  # when one comes free, where this is what the worker waits for


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lane:
    """A lane whose row is ours until the end of the transaction."""

    paused_until: datetime | None
    troubles: int
    turn: int
    now: datetime
    running: bool  # an attempt is under way; asked only where the lane has troubles
    stopped: bool  # senders rest
    seats: _Seats


async def _locked(db: AsyncConnection, name: str, route: str) -> Any:
    row = (await db.execute(_LOCK_LANE, {"lane": name})).one_or_none()
    if row is None:
        await db.execute(_ADD_LANE, {"lane": name, "route": route})
        row = (await db.execute(_LOCK_LANE, {"lane": name})).one()
    return row


async def _lane(db: AsyncConnection, wish: Wish, limits: LaneLimits) -> _Lane:
    """Lock the lane, and see how it stands."""
    row = await _locked(db, wish.lane, wish.route)
    now = (
        await db.execute(
            _STANDING, {"lane": wish.lane, "seats": list(wish.seats), "troubles": row.troubles > 0}
        )
    ).one()
    left, kept = max(limits.connections - now.taken, 0), frozenset(now.kept or ())
    waits = not left and wish.more and not kept
    return _Lane(
        paused_until=row.paused_until,
        troubles=row.troubles,
        turn=row.turn,
        now=now.now,
        running=bool(now.running),
        stopped=now.stopped,
        seats=_Seats(left=left, kept=kept, free_at=now.free_at if waits else None),
    )


async def _take(
    db: AsyncConnection, wish: Wish, deliveries: Sequence[str], *, now: datetime, alone: bool
) -> tuple[Claimed, ...]:
    rows = [
        {
            "delivery_id": delivery,
            "attempt_id": new_id("att"),
            "seat": new_id("sea") if 0 <= index - len(wish.seats) < wish.more else None,
            "alone": alone,
        }
        for index, delivery in enumerate(deliveries)
    ]
    taken = await db.execute(
        _TAKE,
        {
            "rows": json.dumps(rows),
            "lane": wish.lane,
            "worker": wish.worker,
            "lease": wish.lease,
            "now": now,
            "small": _SMALL,
        },
    )
    return tuple(
        Claimed(
            attempt_id=row.attempt_id,
            number=row.number,
            delivery_id=row.id,
            message_id=row.message_id,
            application=row.application,
            lane=wish.lane,
            sender=row.sender,
            external=row.external_count,
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
            dsn=row.dsn,
            octets=row.octets,
            since=row.since,
            traceparent=row.traceparent,
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
