"""Keep, rescue and expire: what time alone does to the ledger.

A lease is a worker's right to a delivery; the worker renews it every third of its length.
When it has run out, nobody knows what became of the worker: `rescue` judges its attempts by
what the ledger saw of them. Before the fence nothing can have been sent, so the recipients
are `deferred` and due at once, in the place among what waits that they had; behind it the
peer may have the message, so they are `uncertain`, and due after `uncertain_after` where
the message says `resend`.

A delivery that loses its lease may be the reason for it (a poison message that kills its
worker). From then on it is claimed alone, and after three leases lost alone it is `held`. One that has been
alone for long is acquitted, so that others may be claimed beside it (decision record 0018).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.ledger.closing import settle_deliveries

#: Leases that a delivery may lose alone before a person has to look at it.
LOST_ALONE_BEFORE_HELD = 3

_RENEW_ATTEMPTS = text("""
    WITH mine AS MATERIALIZED (
        SELECT id FROM attempts WHERE id = ANY(:ids) AND coalesce(outcome) IS NULL ORDER BY id FOR UPDATE)
    UPDATE attempts SET lease_until = clock_timestamp() + make_interval(secs => :lease) FROM mine
     WHERE attempts.id = mine.id AND lease_until > clock_timestamp()
    RETURNING attempts.id
""")

_RENEW_SEATS = text("""
    UPDATE connections SET lease_until = clock_timestamp() + make_interval(secs => :lease)
     WHERE id = ANY(:ids) AND lease_until > clock_timestamp()
    RETURNING id
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What is still ours after a renewal."""

    attempts: frozenset[str]
    seats: frozenset[str]


async def renew(db: AsyncConnection, attempts: Sequence[str], *, seats: Sequence[str], lease: float) -> Kept:
    """Renew what has not run out; what is missing from the answer is lost for good."""
    kept_attempts = await db.execute(_RENEW_ATTEMPTS, {"ids": sorted(attempts), "lease": lease})
    kept_seats = await db.execute(_RENEW_SEATS, {"ids": sorted(seats), "lease": lease})
    return Kept(attempts=frozenset(kept_attempts.scalars()), seats=frozenset(kept_seats.scalars()))


_ACQUIT = text("UPDATE attempts SET alone = false WHERE id = :id AND outcome IS NULL")


async def acquit(db: AsyncConnection, attempt_id: str) -> bool:
    """Note that an attempt is no longer carried alone; say whether it was still under way."""
    return bool((await db.execute(_ACQUIT, {"id": attempt_id})).rowcount)


async def give_back(db: AsyncConnection, seats: Sequence[str]) -> None:
    """Free the seats of sessions that are closed."""
    await db.execute(text("DELETE FROM connections WHERE id = ANY(:ids)"), {"ids": list(seats)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescued:
    attempt_id: str
    lane: str
    outcome: str


_RUN_OUT = text("""
    SELECT a.id, a.delivery_id, a.message_id, a.lane, a.phase, a.alone, m.on_uncertain, d.lost_alone
      FROM attempts a JOIN deliveries d ON d.id = a.delivery_id JOIN messages m ON m.id = a.message_id
     WHERE a.outcome IS NULL AND a.lease_until <= clock_timestamp()
     ORDER BY a.lease_until LIMIT 500
       FOR UPDATE OF a SKIP LOCKED
""")

_JUDGE = text("""
    UPDATE attempts a
       SET outcome = row.outcome, ended_at = clock_timestamp(), lease_until = NULL, error = row.error,
           recipients = (SELECT jsonb_agg(r || jsonb_build_object('status', row.status) ORDER BY r -> 'position')
                           FROM jsonb_array_elements(a.recipients) AS r),
           next_attempt_at = now() + make_interval(secs => row.due_in)
      FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS row(
           id text, outcome text, status text, error jsonb, due_in float8)
     WHERE a.id = row.id
""")

_MOVE = text("""
    UPDATE recipients r
       SET status = row.status, reason = row.reason, error = row.error, updated_at = clock_timestamp(),
           due_at = CASE WHEN row.due_in > 0 THEN now() + make_interval(secs => row.due_in)
                         WHEN row.due_in = 0 THEN (SELECT started_at FROM attempts WHERE id = row.id) END
      FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS row(
           id text, status text, reason text, error jsonb, due_in float8)
     WHERE r.attempt_id = row.id AND r.status = 'sending'
       AND r.delivery_id = ANY(:deliveries)
""")

_COUNT_LOSS = text("""
    UPDATE deliveries SET lost = lost + 1, lost_alone = lost_alone + CASE WHEN row.alone THEN 1 ELSE 0 END
      FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS row(delivery_id text, alone boolean)
     WHERE deliveries.id = row.delivery_id
""")


async def rescue(db: AsyncConnection, *, uncertain_after: float, errors: "RescueErrors") -> list[Rescued]:
    """Judge the attempts whose lease has run out; the caller commits and rings their lanes."""
    lost = (await db.execute(_RUN_OUT)).all()
    if not lost:
        return []
    rows = [_judgement(row, uncertain_after=uncertain_after, errors=errors) for row in lost]
    as_json = json.dumps(rows)
    deliveries = [row.delivery_id for row in lost]
    await db.execute(_JUDGE, {"rows": as_json})
    await db.execute(_MOVE, {"rows": as_json, "deliveries": deliveries})
    await db.execute(_COUNT_LOSS, {"rows": as_json})
    await settle_deliveries(db, deliveries, [row.id for row in lost])
    return [Rescued(attempt_id=row["id"], lane=row["lane"], outcome=row["outcome"]) for row in rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class RescueErrors:
    """The errors, with their diagnoses, that rescue and expiry write."""

    lease_lost: dict[str, Any]
    lease_lost_after_dot: dict[str, Any]
    crashes: dict[str, Any]
    expired: dict[str, Any]


def _judgement(row: Any, *, uncertain_after: float, errors: RescueErrors) -> dict[str, Any]:
    sent_dot = row.phase in {"dot", "reply", "quit"}
    poison = row.alone and row.lost_alone + 1 >= LOST_ALONE_BEFORE_HELD
    due_in: float | None = 0.0
    if sent_dot:
        due_in = uncertain_after if row.on_uncertain == "resend" else None
    status, error = (
        ("uncertain", errors.lease_lost_after_dot) if sent_dot else ("deferred", errors.lease_lost)
    )
    if poison and not (sent_dot and row.on_uncertain == "hold"):
        status, error, due_in = "held", errors.crashes, None
    return {
        "id": row.id,
        "delivery_id": row.delivery_id,
        "lane": row.lane,
        "alone": row.alone,
        "outcome": "uncertain" if sent_dot else "deferred",
        "status": status,
        "reason": error["code"],
        "error": error,
        "due_in": due_in,
    }


# What a message that says `hold` is uncertain about waits for a person, for ever.
_EXPIRED = text("""
    WITH over AS (
        SELECT d.id FROM deliveries d
         WHERE d.finished_at IS NULL AND d.expires_at <= clock_timestamp() AND d.attempt_id IS NULL
           AND EXISTS (SELECT 1 FROM recipients r JOIN messages m ON m.id = r.message_id
                        WHERE r.delivery_id = d.id AND r.finished_at IS NULL
                          AND NOT (r.status = 'uncertain' AND m.on_uncertain = 'hold'))
         ORDER BY d.expires_at LIMIT 500
           FOR UPDATE OF d SKIP LOCKED)
    UPDATE recipients r
       SET status = 'expired', reason = 'expired', finished_at = clock_timestamp(), due_at = NULL,
           updated_at = clock_timestamp(),
           error = CAST(:error AS jsonb) || jsonb_build_object('previous', r.error -> 'code')
      FROM over, messages m
     WHERE r.delivery_id = over.id AND m.id = r.message_id AND r.finished_at IS NULL AND r.status <> 'sending'
       AND NOT (r.status = 'uncertain' AND m.on_uncertain = 'hold')
    RETURNING r.delivery_id
""")


async def expire(db: AsyncConnection, *, errors: RescueErrors) -> int:
    """Give up what is open past its message's `expires_at`; return how many recipients."""
    expired = list((await db.execute(_EXPIRED, {"error": json.dumps(errors.expired)})).scalars())
    if expired:
        await settle_deliveries(db, expired, [])
    return len(expired)


# One look at each group of each lane, as in a claim: what is not due yet costs nothing.
_WITH_DUE = text("""
    WITH RECURSIVE heads AS (
        SELECT first.* FROM unnest(CAST(:lanes AS text[])) AS name CROSS JOIN LATERAL (
            SELECT lane, external, priority, application, due_at FROM deliveries
             WHERE lane = name AND due_at IS NOT NULL
             ORDER BY external, priority, application, due_at LIMIT 1) AS first
        UNION ALL
        SELECT next.* FROM heads CROSS JOIN LATERAL (
            SELECT lane, external, priority, application, due_at FROM deliveries
             WHERE lane = heads.lane AND due_at IS NOT NULL
               AND (external, priority, application) > (heads.external, heads.priority, heads.application)
             ORDER BY external, priority, application, due_at LIMIT 1) AS next
    )
    SELECT DISTINCT lane FROM heads WHERE due_at <= clock_timestamp()
""")


async def lanes_with_due(db: AsyncConnection, lanes: Sequence[str]) -> list[str]:
    """Say which of these lanes have something that may go now."""
    return list((await db.execute(_WITH_DUE, {"lanes": list(lanes)})).scalars())


async def forget_old(db: AsyncConnection) -> None:
    """Drop idempotency keys older than 72 hours and seats that ran out long ago."""
    await db.execute(
        text("DELETE FROM idempotency WHERE created_at < clock_timestamp() - interval '72 hours'")
    )
    await db.execute(
        text("DELETE FROM connections WHERE lease_until < clock_timestamp() - interval '10 minutes'")
    )


async def database_now(db: AsyncConnection) -> datetime:
    """Return PostgreSQL's clock."""
    now: datetime = (await db.execute(text("SELECT clock_timestamp()"))).scalar_one()
    return now
