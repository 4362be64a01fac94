"""What the ledger knows for metrics: queues, budgets, lanes, checks, webhooks, and its own health.

Read every few seconds by every process that Prometheus asks, so each statement goes by an index and costs the same
however long the ledger is; what waits is counted up to `COUNTED` a lane. One short transaction, which gives up
after `PATIENCE` seconds: figures must never be what ails the ledger.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.ledger import pace
from service.ledger.engine import transaction
from service.ledger.lane_rows import EXTERNAL
from service.ledger.pace import LaneLimits

#: Deliveries that are counted in one lane, and recipients of one application in one state.
COUNTED = 100_000

#: Seconds that one of these statements may take.
PATIENCE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneFigures:
    """One lane at this moment."""

    lane: str
    due: int
    later: int
    oldest_due: float  # seconds; 0 where nothing is due
    sessions: int
    running: int
    paused_until: datetime | None  # None: it does not rest
    diagnosis: str | None  # why it rests
    troubles: int
    stopped: int  # senders


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckFigures:
    """The last check of a route."""

    route: str
    result: str
    ended_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What changes from moment to moment."""

    lanes: Sequence[LaneFigures]
    external_paused_until: datetime | None  # the tenant's external recipients
    unsettled: Mapping[str, int]  # recipients, by their state: uncertain, held
    webhooks_waiting: int
    webhook_lag: float  # seconds
    checks: Sequence[CheckFigures]
    oldest_transaction: float  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """One window of one lane, or of the tenant where `lane` is empty."""

    lane: str
    window: str
    limit: int
    left: int


_HURRY = text(f"SET LOCAL statement_timeout = '{PATIENCE}s'")

# The oldest of each group, as in a claim: the index is read once a group, however many wait in it.
_LANES = text("""
    WITH RECURSIVE names AS (SELECT name FROM unnest(CAST(:lanes AS text[])) AS name), heads AS (
        SELECT first.* FROM names CROSS JOIN LATERAL (
            SELECT lane, external, priority, application, due_at FROM deliveries
             WHERE lane = name AND due_at IS NOT NULL
             ORDER BY external, priority, application, due_at LIMIT 1) AS first
        UNION ALL
        SELECT next.* FROM heads CROSS JOIN LATERAL (
            SELECT lane, external, priority, application, due_at FROM deliveries
             WHERE lane = heads.lane AND due_at IS NOT NULL
               AND (external, priority, application) > (heads.external, heads.priority, heads.application)
             ORDER BY external, priority, application, due_at LIMIT 1) AS next
    ), oldest AS (SELECT lane, min(due_at) AS due_at FROM heads GROUP BY lane)
    SELECT names.name AS lane, waiting.due, waiting.later,
           CAST(greatest(extract(epoch FROM now() - oldest.due_at), 0) AS float8) AS oldest_due,
           (SELECT count(*) FROM connections WHERE lane = names.name AND lease_until > now()) AS sessions,
           (SELECT count(*) FROM attempts WHERE lane = names.name AND ended_at IS NULL) AS running,
           CASE WHEN lanes.paused_until > now() THEN lanes.paused_until END AS paused_until,
           lanes.pause_error #>> '{diagnosis,id}' AS diagnosis, coalesce(lanes.troubles, 0) AS troubles,
           (SELECT count(*) FROM stops WHERE lane = names.name AND until > now()) AS stopped
      FROM names
      LEFT JOIN lanes ON lanes.name = names.name
      LEFT JOIN oldest ON oldest.lane = names.name
     CROSS JOIN LATERAL (
           SELECT count(*) FILTER (WHERE due_at <= now()) AS due, count(*) FILTER (WHERE due_at > now()) AS later
             FROM (SELECT due_at FROM deliveries
                    WHERE lane = names.name AND due_at IS NOT NULL LIMIT :most) AS first) AS waiting
""")

_EXTERNAL_PAUSED = text("SELECT paused_until FROM lanes WHERE name = :name AND paused_until > now()")

# Applications one by one: the index of states begins with them.
_UNSETTLED = text("""
    WITH RECURSIVE applications AS (
        (SELECT application FROM recipients ORDER BY application LIMIT 1)
        UNION ALL
        SELECT (SELECT application FROM recipients WHERE application > applications.application
                 ORDER BY application LIMIT 1)
          FROM applications WHERE applications.application IS NOT NULL
    )
    SELECT state, sum(counted.recipients) AS recipients
      FROM unnest(ARRAY['uncertain', 'held']) AS state CROSS JOIN applications
     CROSS JOIN LATERAL (
           SELECT count(*) AS recipients FROM (
               SELECT 1 FROM recipients
                WHERE recipients.application = applications.application AND status = state
                LIMIT :most) AS few) AS counted
     WHERE applications.application IS NOT NULL
     GROUP BY state
""")

_WEBHOOKS = text("""
    SELECT coalesce(sum(waiting.count), 0) AS waiting,
           CAST(greatest(coalesce(extract(epoch FROM max(now() - oldest.due_at)), 0), 0) AS float8) AS lag
      FROM webhooks w
     CROSS JOIN LATERAL (
           SELECT count(*) AS count FROM (
               SELECT 1 FROM webhook_deliveries d
                WHERE d.webhook_id = w.id AND d.due_at IS NOT NULL LIMIT :most) AS few) AS waiting
      LEFT JOIN LATERAL (
           SELECT due_at FROM webhook_deliveries d
            WHERE d.webhook_id = w.id AND d.due_at IS NOT NULL ORDER BY d.due_at LIMIT 1) AS oldest ON true
     WHERE w.enabled
""")

_CHECKS = text("""
    SELECT name AS route, last.result, last.ended_at
      FROM unnest(CAST(:routes AS text[])) AS name CROSS JOIN LATERAL (
           SELECT result, ended_at FROM checks WHERE route = name ORDER BY id DESC LIMIT 1) AS last
""")

# Sessions of other roles show their transactions to members of pg_read_all_stats only.
_OLDEST_TRANSACTION = text("""
    SELECT CAST(coalesce(extract(epoch FROM max(clock_timestamp() - xact_start)), 0) AS float8)
      FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
""")


async def reading(db: AsyncConnection, *, lanes: Sequence[str], routes: Sequence[str]) -> Reading:
    """Read how things stand in these lanes and on these routes."""
    await db.execute(_HURRY)
    found = await db.execute(_LANES, {"lanes": list(lanes), "most": COUNTED})
    webhooks = (await db.execute(_WEBHOOKS, {"most": COUNTED})).one()
    unsettled = await db.execute(_UNSETTLED, {"most": COUNTED})
    return Reading(
        lanes=[
            LaneFigures(**{**row, "oldest_due": row["oldest_due"] or 0.0}) for row in found.mappings().all()
        ],
        external_paused_until=await db.scalar(_EXTERNAL_PAUSED, {"name": EXTERNAL}),
        unsettled={row.state: int(row.recipients) for row in unsettled},
        webhooks_waiting=int(webhooks.waiting),
        webhook_lag=webhooks.lag,
        checks=[
            CheckFigures(**row) for row in (await db.execute(_CHECKS, {"routes": list(routes)})).mappings()
        ],
        oldest_transaction=float(await db.scalar(_OLDEST_TRANSACTION) or 0.0),
    )


async def budgets(db: AsyncConnection, limits: Mapping[str, LaneLimits]) -> list[Budget]:
    """Read what the windows of these lanes leave; the tenant's own has no lane."""
    await db.execute(_HURRY)
    windows = await pace.windows_of_lanes(db, limits)
    return [
        Budget(lane=lane, window=window.name, limit=window.limit, left=window.left)
        for lane, window in windows
    ]


class Figures:
    """Figures as whoever answers Prometheus holds them."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def reading(self, *, lanes: Sequence[str], routes: Sequence[str]) -> Reading:
        """Read how things stand."""
        async with transaction(self._engine) as db:
            return await reading(db, lanes=lanes, routes=routes)

    async def budgets(self, limits: Mapping[str, LaneLimits]) -> list[Budget]:
        """Read what the windows of these lanes leave."""
        async with transaction(self._engine) as db:
            return await budgets(db, limits)
