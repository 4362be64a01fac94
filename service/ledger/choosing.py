"""Choose what a claim takes: what is due in a lane, in its order, as far as days' budgets and stopped senders allow.

The most urgent go first, within a priority each application in its turn. A delivery that has lost a lease goes
alone. What comes from a sender that rests is held back (`stops`), and what does not fit into what is left of the
day (`pace`) is not overtaken by smaller ones behind it.

The lane's row is locked by whoever calls, so nobody else chooses in it. A lane whose deliveries use the
tenant's external budget also locks the row of `EXTERNAL`, after its own, while it claims such deliveries. When
that budget is spent or rests, only the others are looked at.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.ledger import pace, stops
from service.ledger.engine import Fetch
from service.ledger.lane_rows import EXTERNAL, locked
from service.ledger.pace import LaneLimits

if TYPE_CHECKING:
    from service.ledger.claiming import Wish

#: How often one claim looks again after it has held back what a stopped sender has due.
_ROUNDS = 5

#: Before everything that was ever due.
_EVER = datetime(2000, 1, 1, tzinfo=UTC)

#: When nobody knows when a budget frees, because what uses it is still running: look again, in seconds.
_LOOK_AGAIN = 5.0

_NOW = text("SELECT clock_timestamp()")

# The first delivery of each group (external or not, priority, application): the index is read once a group,
# however many deliveries wait in it. What was due before `from_due` is left alone: there an old snapshot,
# a dump's for example, keeps the entries of all that was claimed since it was taken.
_HEADS = """
    WITH RECURSIVE heads AS (
        (SELECT external, priority, application, due_at FROM deliveries
          WHERE lane = $1 AND due_at IS NOT NULL AND due_at >= $2
          ORDER BY external, priority, application, due_at LIMIT 1)
        UNION ALL
        SELECT next.* FROM heads CROSS JOIN LATERAL (
            SELECT external, priority, application, due_at FROM deliveries
             WHERE lane = $1 AND due_at IS NOT NULL AND due_at >= $2
               AND (external, priority, application) > (heads.external, heads.priority, heads.application)
             ORDER BY external, priority, application, due_at LIMIT 1) AS next
    )
"""

# Within a priority: the first of each application, the one that was served longest ago before the others,
# then the second of each, and so on. `coalesce`: what was picked is locked by its key, and not found by the index of
# all that is due anywhere.
_DUE = (
    _HEADS  # noqa: S608  (our own words)
    + """, ready AS (
        SELECT * FROM heads WHERE due_at <= $3 AND ($4 OR NOT external)
    ), waiting AS (
        SELECT d.id, d.due_at, ready.priority, t.served,
               row_number() OVER (PARTITION BY ready.priority, ready.application ORDER BY d.due_at, d.id) AS turn
          FROM ready LEFT JOIN turns t ON t.lane = $1 AND t.application = ready.application
         CROSS JOIN LATERAL (
               SELECT id, due_at FROM deliveries
                WHERE lane = $1 AND external = ready.external AND priority = ready.priority
                  AND application = ready.application AND due_at >= ready.due_at AND due_at <= $3
                  AND expires_at > $3
                  AND ($5 OR lost = 0)
                ORDER BY due_at LIMIT $6) AS d
    ), picked AS MATERIALIZED (
        SELECT id, row_number() OVER (ORDER BY priority, turn, served NULLS FIRST, due_at, id) AS place
          FROM waiting ORDER BY place LIMIT $6
    ), next AS (
        SELECT later.due_at FROM heads CROSS JOIN LATERAL (
               SELECT due_at FROM deliveries
                WHERE lane = $1 AND external = heads.external AND priority = heads.priority
                  AND application = heads.application AND due_at > $3
                ORDER BY due_at LIMIT 1) AS later
    )
    SELECT d.id, d.lost, d.sender, d.application, d.external,
           (SELECT count(DISTINCT application) FROM ready) AS applications,
           (SELECT min(due_at) FROM heads) AS first_due, (SELECT min(due_at) FROM next) AS next_due
      FROM picked JOIN deliveries d ON d.id = picked.id
     WHERE coalesce(d.due_at) <= $3
     ORDER BY picked.place
       FOR UPDATE OF d SKIP LOCKED
"""
)

# Heads that are due and were not claimed are locked, expired or without budget: something else rings for them.
_NEXT_DUE = (
    _HEADS + "SELECT min(due_at) FILTER (WHERE due_at > $3) AS at, bool_or(external) AS external FROM heads"  # noqa: S608
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

_COUNTS = text("""
    SELECT delivery_id, count(*) AS recipients, count(*) FILTER (WHERE external) AS external
      FROM recipients
     WHERE delivery_id = ANY(:deliveries) AND coalesce(status) IN ('scheduled', 'queued', 'deferred', 'uncertain')
     GROUP BY delivery_id
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What a claim may take, in its order."""

    rows: Sequence[Any] = ()
    everything: bool = False  # that is due, but for suspects
    alone: bool = False
    held_back: bool = False  # a stopped sender's deliveries were moved; there may be others behind them


async def choose(
    db: AsyncConnection,
    fetch: Fetch,
    wish: "Wish",
    room: "Room",
    *,
    now: datetime,
    stopped: bool,
    most: int,
    external: bool,
) -> Choice:
    """Choose among what is due, without changing it."""
    held_back = False
    due: Sequence[Any] = ()
    for _ in range(_ROUNDS):
        from_due = wish.from_due or _EVER
        due = await fetch(_DUE, wish.lane, from_due, now, external, wish.suspects, most)
        if stopped:
            due, held_back = await _without_stopped(db, wish.lane, due, now=now)
        if due or not held_back:
            break
    rows, alone = _part(due)
    fitting = await _fitting(db, rows, room)
    return Choice(
        rows=fitting,
        everything=external and not held_back and len(fitting) == len(due),
        alone=alone,
        held_back=held_back,
    )


def _part(due: Sequence[Any]) -> tuple[Sequence[Any], bool]:
    """Part the suspects from the rest: a delivery that lost a lease is carried alone."""
    if due and due[0]["lost"]:
        return due[:1], True
    return [row for row in due if not row["lost"]], False


async def _without_stopped(
    db: AsyncConnection, lane: str, due: Sequence[Any], *, now: datetime
) -> tuple[Sequence[Any], bool]:
    """Leave out what comes from senders that rest, and say whether there was something.

    When a sender's stop is over, one delivery tries it; the rest waits for what comes of it.
    """
    stopped = await stops.of_lane(db, lane) if due else {}
    hit = sorted({row["sender"] for row in due} & stopped.keys())
    if not hit:
        return due, False
    running = set((await db.execute(_SENDERS_RUNNING, {"lane": lane})).scalars())
    spared: list[str] = []
    for sender in hit:
        until = stopped[sender].until
        if until <= now:
            if sender not in running:
                spared.append(next(row["id"] for row in due if row["sender"] == sender))
            until = await stops.probe(db, lane, sender, now=now)
        await stops.hold_back(db, lane, sender, now=now, until=until, spared=spared)
    return [row for row in due if row["sender"] not in stopped or row["id"] in spared], True


async def count_turns(db: AsyncConnection, lane: str, chosen: Sequence[Any], *, turn: int) -> None:
    """Note who was served, where several applications wait."""
    if chosen[0]["applications"] < 2:
        return
    served = {row["application"]: turn + place for place, row in enumerate(chosen, start=1)}
    rows = [{"application": application, "served": turn} for application, turn in sorted(served.items())]
    await db.execute(_TAKE_TURNS, {"lane": lane, "rows": json.dumps(rows)})
    await db.execute(_COUNT_TURNS, {"lane": lane, "count": len(chosen)})


@dataclass(slots=True, kw_only=True)
class Room:
    """How many recipients may still be addressed: of the lane's day, and of the tenant's."""

    day: pace.Window | None
    external: pace.Window | None
    # The tenant's budget rests, is being probed, or was not looked at.
    external_closed_until: datetime | None = None
    external_probe: bool = False  # it was refused last time: one delivery tries it
    day_wanted: int = 0  # recipients of the first delivery that did not fit
    external_wanted: int = 0


async def room_of(db: AsyncConnection, lane: str, limits: LaneLimits, now: datetime) -> Room:
    """See how many recipients may be addressed; locks the tenant's row where its budget counts."""
    day = await pace.day_window(db, lane, limits, now)
    if not limits.counts_external:
        return Room(day=day, external=None)
    if not await db.scalar(_EXTERNAL_WAITS, {"lane": lane}):
        # One that comes this very moment is for the next claim, which counts: this one has not locked the row.
        return Room(day=day, external=None, external_closed_until=now)
    tenant = await locked(db, EXTERNAL, EXTERNAL)
    tenant_now: datetime = (await db.execute(_NOW)).scalar_one()  # its row, too, may have been waited for
    closed_until = None
    if tenant.paused_until is not None and tenant.paused_until > now:
        closed_until = tenant.paused_until
    elif tenant.troubles and await db.scalar(_EXTERNAL_RUNNING):
        closed_until = now + timedelta(seconds=_LOOK_AGAIN)  # a probe is under way, on whichever lane
    external = await pace.external_window(db, limits, tenant_now)
    return Room(
        day=day,
        external=external,
        external_closed_until=closed_until,
        external_probe=bool(tenant.troubles),
    )


async def _fitting(db: AsyncConnection, chosen: Sequence[Any], room: Room) -> Sequence[Any]:
    """Keep the deliveries whose recipients the days' budgets leave room for, in their order.

    What does not fit is not overtaken by smaller ones behind it that use the same budget.
    """
    if not chosen or (room.day is None and room.external is None and not room.external_probe):
        return chosen
    counted = await db.execute(_COUNTS, {"deliveries": [row["id"] for row in chosen]})
    counts = {row.delivery_id: (row.recipients, row.external) for row in counted}
    day = None if room.day is None else room.day.left
    external = None if room.external is None else room.external.left
    fitting = []
    for row in chosen:
        recipients, outside = counts.get(row["id"], (0, 0))
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


async def again_in(
    db: AsyncConnection, fetch: Fetch, lane: str, room: Room, now: datetime, *, held_back: bool
) -> float | None:
    """Say when there may be something to claim, after a claim that took nothing."""
    (next_due,) = await fetch(_NEXT_DUE, lane, _EVER, now)
    times = [next_due["at"]]
    if held_back:
        times.append(now + timedelta(milliseconds=50))
    if next_due["external"]:
        times.append(room.external_closed_until)
    for window, wanted in ((room.day, room.day_wanted), (room.external, room.external_wanted)):
        if window is not None and wanted:
            free = await pace.free_at(db, window, lane, now, wanted=wanted)
            times.append(free or now + timedelta(seconds=_LOOK_AGAIN))
    return earliest(now, *times)


async def free_at(
    db: AsyncConnection, lane: str, full: Sequence[pace.Window], now: datetime
) -> datetime | None:
    """Say when the last of these windows leaves room; None while what fills one is still running."""
    times = [await pace.free_at(db, window, lane, now) for window in full]
    known = [at for at in times if at is not None]
    return max(known) if known and len(known) == len(times) else None


def earliest(now: datetime, *times: datetime | None) -> float | None:
    """Say in how many seconds the first of these times is; None where there is none."""
    known = [at for at in times if at is not None]
    return max((min(known) - now).total_seconds(), 0.0) if known else None
