"""What a lane is doing: its budgets, its backlog, its pauses. For people, and for forecasts.

Reading a lane costs about the same however long the ledger is: windows are counted as in a
claim, and a backlog is counted up to `COUNTED` deliveries.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.ledger import pace, stops
from service.ledger.lane_rows import EXTERNAL
from service.ledger.pace import Freed, LaneLimits, Window

#: A backlog is counted up to here; beyond it, figures are "at least".
COUNTED = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A window of a lane, and when it frees what."""

    window: Window
    frees: Sequence[Freed]  # of what has ended, the first first


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Deliveries of one application with one priority."""

    priority: int  # 0 high, 1 normal, 2 low
    application: str
    external: bool
    due: int  # may go now
    later: int  # a retry, or held back


@dataclass(frozen=True, slots=True, kw_only=True)
class Resting:
    """A pause, and why."""

    until: datetime
    error: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneState:
    """A lane at one moment."""

    name: str
    now: datetime
    resting: Resting | None  # the whole lane
    troubles: int  # failures of the route in a row; above 0 the lane is tried by one attempt at a time
    external_resting: Resting | None  # external recipients of the whole tenant
    stopped: Mapping[str, stops.Stop]  # senders, by reverse-path
    budgets: Sequence[Budget]
    limits: LaneLimits
    connections: int  # sessions that are open, or about to be
    running: int  # attempts
    waiting: Sequence[Waiting]
    oldest_due_at: datetime | None
    attempt_seconds: float | None  # what the last attempts took, on average; None: there were none
    recipients_each: float  # what they addressed, on average

    @property
    def due(self) -> int:
        return sum(each.due for each in self.waiting)

    @property
    def counted_all(self) -> bool:
        """Whether the backlog was counted to its end."""
        return sum(each.due + each.later for each in self.waiting) < COUNTED


_LANE = text("""
    SELECT clock_timestamp() AS now,
           (SELECT count(*) FROM attempts WHERE lane = :lane AND ended_at IS NULL) AS running,
           (SELECT count(*) FROM connections WHERE lane = :lane AND lease_until > clock_timestamp()) AS connections
""")

_PAUSES = text("SELECT name, paused_until, pause_error, troubles FROM lanes WHERE name = ANY(:lanes)")

_WAITING = text("""
    SELECT priority, application, external, count(*) FILTER (WHERE due_at <= :now) AS due,
           count(*) FILTER (WHERE due_at > :now) AS later, min(due_at) AS oldest
      FROM (SELECT priority, application, external, due_at FROM deliveries
             WHERE lane = :lane AND due_at IS NOT NULL LIMIT :most) AS waiting
     GROUP BY priority, application, external ORDER BY priority, application, external
""")

_LATELY = text("""
    SELECT avg(extract(epoch FROM ended_at - started_at)) AS seconds, avg(recipient_count) AS recipients
      FROM (SELECT started_at, ended_at, recipient_count FROM attempts
             WHERE lane = :lane AND ended_at IS NOT NULL ORDER BY ended_at DESC LIMIT 20) AS lately
""")


async def state(db: AsyncConnection, lane: str, limits: LaneLimits) -> LaneState:
    """Read a lane; one that never carried anything is just empty."""
    head = (await db.execute(_LANE, {"lane": lane})).one()
    pauses = {row.name: row for row in await db.execute(_PAUSES, {"lanes": [lane, EXTERNAL]})}
    waiting = (await db.execute(_WAITING, {"lane": lane, "now": head.now, "most": COUNTED})).all()
    lately = (await db.execute(_LATELY, {"lane": lane})).one()
    own = pauses.get(lane)
    return LaneState(
        name=lane,
        now=head.now,
        resting=_resting(own, head.now),
        troubles=0 if own is None else own.troubles,
        external_resting=_resting(pauses.get(EXTERNAL), head.now) if limits.counts_external else None,
        stopped=await stops.of_lane(db, lane),
        budgets=[
            Budget(window=window, frees=await pace.frees(db, window, lane, head.now))
            for window in await _windows(db, lane, limits, head.now)
        ],
        limits=limits,
        connections=head.connections,
        running=head.running,
        waiting=[
            Waiting(
                priority=row.priority,
                application=row.application,
                external=row.external,
                due=row.due,
                later=row.later,
            )
            for row in waiting
        ],
        oldest_due_at=min((row.oldest for row in waiting if row.due), default=None),
        attempt_seconds=None if lately.seconds is None else float(lately.seconds),
        recipients_each=float(lately.recipients or 1),
    )


async def _windows(db: AsyncConnection, lane: str, limits: LaneLimits, now: datetime) -> list[Window]:
    days = [
        await pace.day_window(db, lane, limits, now),
        await pace.external_window(db, limits, now),
    ]
    return [*await pace.message_windows(db, lane, limits, now), *(day for day in days if day is not None)]


def _resting(row: Any, now: datetime) -> Resting | None:
    if row is None or row.paused_until is None or row.paused_until <= now:
        return None
    return Resting(until=row.paused_until, error=row.pause_error)


_RESTING = text("""
    SELECT name, paused_until, pause_error FROM lanes WHERE paused_until > clock_timestamp() ORDER BY name
""")


async def resting(db: AsyncConnection) -> dict[str, Resting]:
    """Return the lanes that rest now; the tenant's external budget is among them as `EXTERNAL`."""
    found = await db.execute(_RESTING)
    return {row.name: Resting(until=row.paused_until, error=row.pause_error) for row in found}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a delivery stands in the queue of its lane."""

    delivery_id: str
    lane: str
    sender: str
    application: str
    priority: int
    external: bool
    due_at: datetime
    own_ahead: int  # its application's deliveries of the same priority that are due before it
    counted_all: bool
    scheduled: bool = False  # its time is the one that the application asked for


_PLACES = text("""
    SELECT d.id, d.lane, d.sender, d.application, d.priority, d.external, d.due_at, ahead.before_it,
           d.attempts = 0 AND d.due_at = (SELECT scheduled_at FROM messages WHERE id = d.message_id) AS scheduled
      FROM (SELECT DISTINCT ON (lane) * FROM deliveries
             WHERE message_id = :message AND due_at IS NOT NULL
             ORDER BY lane, due_at DESC, id DESC) AS d
     CROSS JOIN LATERAL (
           SELECT count(*) AS before_it FROM (
               SELECT 1 FROM (VALUES (false), (true)) AS outside (external)
                CROSS JOIN LATERAL (
                      SELECT id, due_at FROM deliveries
                       WHERE lane = d.lane AND external = outside.external AND priority = d.priority
                         AND application = d.application AND due_at <= d.due_at AND id <> d.id
                       LIMIT :most) AS before
                WHERE before.due_at < d.due_at OR before.id < d.id
                LIMIT :most) AS counted) AS ahead
""")


async def places(db: AsyncConnection, message_id: str) -> list[Place]:
    """Say where a message's deliveries stand: the last one of each lane."""
    found = await db.execute(_PLACES, {"message": message_id, "most": COUNTED})
    return [
        Place(
            delivery_id=row.id,
            lane=row.lane,
            sender=row.sender,
            application=row.application,
            priority=row.priority,
            external=row.external,
            due_at=row.due_at,
            own_ahead=row.before_it,
            counted_all=row.before_it < COUNTED,
            scheduled=bool(row.scheduled),
        )
        for row in found
    ]
