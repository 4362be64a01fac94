"""Fence and close: the two short transactions on either side of the final dot.

`fence` marks an attempt `dot` where its lease is still ours. Until that is committed no dot
may leave; after it, silence means `uncertain` and never "not sent".

`close` writes what came of an attempt: replies, transcript and session, the verdict of each
recipient, when the delivery is due again, and what the lane learnt. An attempt is judged
once: the first to write its outcome wins, be it the worker or the sweep that found its
lease run out. A worker that comes too late still has the truth of the wire in its hands:

- its replies, phase and transcript are kept in any case;
- recipients that are still `uncertain` because of this attempt move to the verdict of the
  late reply, and then the attempt's outcome says so too;
- nothing else moves: a resend that has begun goes on, and the attempt stays `uncertain`,
  so that every copy at the peer is explained by an attempt.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.ledger.states import FINAL, Outcome, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipientVerdict:
    """Our conclusion for one recipient of an attempt."""

    position: int
    email: str
    status: Status
    reason: str  # a stable code: why it came into this state
    reply: dict[str, Any] | None  # the one that decided
    rcpt_reply: dict[str, Any] | None  # the one to its own RCPT
    error: dict[str, Any] | None
    due_in: float | None  # seconds until it may be tried again; None: not by itself
    counts: bool  # this was a try of its own, in contrast to trouble of the route


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneTrouble:
    """The route failed, not the message: rest the lane and probe."""

    error: dict[str, Any]
    first: float  # seconds of the first pause; it grows with each failure in a row
    factor: float
    cap: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """What came of one attempt."""

    attempt_id: str
    message_id: str
    delivery_id: str
    lane: str
    phase: str
    outcome: Outcome
    recipients: tuple[RecipientVerdict, ...]
    reply: dict[str, Any] | None  # of the end of data, or the one that ended it
    error: dict[str, Any] | None
    transcript: list[dict[str, Any]]
    session_id: str | None
    session_message: int | None
    session_facts: dict[str, Any] | None
    worker: str
    route: str
    trouble: LaneTrouble | None = None
    lane_well: bool = False  # the peer took or judged a message: the route works
    peer_trailer: dict[str, Any] | None = field(default=None)

    def weight(self) -> int:
        """Octets, roughly: large ones are written alone."""
        return 2_000 + sum(len(line.get("text", "")) for line in self.transcript)


_FENCE = text("""
    UPDATE attempts SET phase = 'dot'
     WHERE id = ANY(:attempts) AND outcome IS NULL AND lease_until > clock_timestamp()
    RETURNING id
""")


async def fence(db: AsyncConnection, attempts: Sequence[str]) -> set[str]:
    """Mark the attempts whose lease is still ours as having sent the dot; the rest must not."""
    return set((await db.execute(_FENCE, {"attempts": list(attempts)})).scalars())


_SESSIONS = text("""
    INSERT INTO sessions (id, worker, route, lane, facts)
    SELECT id, worker, route, lane, facts FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS row(
        id text, worker text, route text, lane text, facts jsonb)
    ON CONFLICT DO NOTHING
""")

_JUDGE = text("""
    UPDATE attempts a
       SET outcome = row.outcome, ended_at = clock_timestamp(), lease_until = NULL, phase = row.phase,
           recipients = row.recipients, reply = row.reply, error = row.error, transcript = row.transcript,
           session_id = row.session_id, session_message = row.session_message, peer_trailer = row.peer_trailer,
           next_attempt_at = now() + make_interval(secs => row.due_in)
      FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS row(
           id text, outcome text, phase text, recipients jsonb, reply jsonb, error jsonb, transcript jsonb,
           session_id text, session_message integer, peer_trailer jsonb, due_in float8)
     WHERE a.id = row.id AND a.outcome IS NULL
    RETURNING a.id
""")

# A recipient follows its attempt's verdict only while it is still in that attempt's hand.
_MOVE = text("""
    UPDATE recipients r
       SET status = row.status, reason = row.reason, reply = coalesce(row.reply, r.reply), error = row.error,
           due_at = now() + make_interval(secs => row.due_in),
           tries = r.tries + CASE WHEN row.counts THEN 1 ELSE 0 END,
           updated_at = clock_timestamp(),
           finished_at = CASE WHEN row.final THEN clock_timestamp() END
      FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS row(
           message_id text, position smallint, attempt_id text, status text, reason text, reply jsonb,
           error jsonb, due_in float8, counts boolean, final boolean)
     WHERE r.message_id = row.message_id AND r.position = row.position AND r.attempt_id = row.attempt_id
       AND r.status = :status
    RETURNING r.message_id, r.position
""")

# The delivery is due when the first of its open recipients is; it is over when none is open.
_SETTLE = text("""
    UPDATE deliveries d
       SET attempt_id = NULL, due_at = open.due_at,
           finished_at = CASE WHEN open.recipients IS NULL THEN clock_timestamp() END
      FROM unnest(CAST(:deliveries AS text[])) AS wanted (id)
      LEFT JOIN LATERAL (
           SELECT min(due_at) AS due_at, nullif(count(*), 0) AS recipients FROM recipients
            WHERE delivery_id = wanted.id AND finished_at IS NULL) AS open ON true
     WHERE d.id = wanted.id AND (d.attempt_id IS NULL OR d.attempt_id = ANY(:attempts))
""")

_LANE_WELL = text("""
    UPDATE lanes SET troubles = 0, paused_until = NULL, pause_error = NULL, updated_at = clock_timestamp()
     WHERE name = ANY(:lanes) AND troubles > 0
""")

# Several attempts that fail together are one trouble: the pause grows once.
_LANE_TROUBLE = text("""
    UPDATE lanes
       SET troubles = troubles + 1, pause_error = CAST(:error AS jsonb), updated_at = clock_timestamp(),
           paused_until = clock_timestamp()
               + make_interval(secs => least(:cap, :first * power(:factor, least(troubles, 30))))
     WHERE name = :lane AND (paused_until IS NULL OR paused_until <= clock_timestamp())
""")


async def settle_deliveries(db: AsyncConnection, deliveries: Sequence[str], attempts: Sequence[str]) -> None:
    """Set when these deliveries are due again, after their recipients have moved."""
    await db.execute(_SETTLE, {"deliveries": sorted(set(deliveries)), "attempts": list(attempts)})


async def close(db: AsyncConnection, closings: Sequence[Closing]) -> None:
    """Write what came of these attempts; the caller commits."""
    opened = {c.session_id: c for c in closings if c.session_id and c.session_facts}
    if opened:
        await db.execute(_SESSIONS, {"rows": json.dumps([_session_row(c) for c in opened.values()])})
    judged = set((await db.execute(_JUDGE, {"rows": json.dumps([_row(c) for c in closings])})).scalars())
    ours = [closing for closing in closings if closing.attempt_id in judged]
    if ours:
        rows = json.dumps([row for closing in ours for row in _recipient_rows(closing)])
        await db.execute(_MOVE, {"rows": rows, "status": Status.SENDING})
        await settle_deliveries(db, [c.delivery_id for c in ours], [c.attempt_id for c in ours])
    for closing in closings:
        if closing.attempt_id not in judged:
            await _close_late(db, closing)
    await _teach_lanes(db, ours)


async def _teach_lanes(db: AsyncConnection, closings: Sequence[Closing]) -> None:
    # Sorted, so that two groups never lock the same lanes in opposite order.
    if well := sorted({closing.lane for closing in closings if closing.lane_well}):
        await db.execute(_LANE_WELL, {"lanes": well})
    troubled = {closing.lane: closing.trouble for closing in closings if closing.trouble is not None}
    for lane, trouble in sorted(troubled.items()):
        await db.execute(
            _LANE_TROUBLE,
            {
                "lane": lane,
                "error": json.dumps(trouble.error),
                "first": trouble.first,
                "factor": trouble.factor,
                "cap": trouble.cap,
            },
        )


_LATE = text("""
    UPDATE attempts a
       SET phase = row.phase, recipients = row.recipients, reply = row.reply, transcript = row.transcript,
           session_id = row.session_id, session_message = row.session_message, peer_trailer = row.peer_trailer
      FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS row(
           id text, phase text, recipients jsonb, reply jsonb, transcript jsonb, session_id text,
           session_message integer, peer_trailer jsonb)
     WHERE a.id = row.id
    RETURNING a.outcome
""")

_LATE_OUTCOME = text("""
    UPDATE attempts SET outcome = :outcome, error = CAST(:error AS jsonb), ended_at = clock_timestamp()
     WHERE id = :attempt AND outcome = 'uncertain'
""")


async def _close_late(db: AsyncConnection, closing: Closing) -> None:
    """Keep what the wire said of an attempt that was judged without its worker."""
    before = await db.scalar(_LATE, {"rows": json.dumps([_row(closing)])})
    if before != Outcome.UNCERTAIN or closing.outcome == Outcome.UNCERTAIN:
        return
    rows = json.dumps(_recipient_rows(closing))
    moved = (await db.execute(_MOVE, {"rows": rows, "status": Status.UNCERTAIN})).all()
    if len(moved) == len(closing.recipients):
        await db.execute(
            _LATE_OUTCOME,
            {
                "attempt": closing.attempt_id,
                "outcome": closing.outcome,
                "error": None if closing.error is None else json.dumps(closing.error),
            },
        )
    if moved:
        await settle_deliveries(db, [closing.delivery_id], [closing.attempt_id])


def _session_row(closing: Closing) -> dict[str, Any]:
    return {
        "id": closing.session_id,
        "worker": closing.worker,
        "route": closing.route,
        "lane": closing.lane,
        "facts": closing.session_facts,
    }


def _row(closing: Closing) -> dict[str, Any]:
    due = [verdict.due_in for verdict in closing.recipients if verdict.due_in is not None]
    return {
        "id": closing.attempt_id,
        "outcome": closing.outcome,
        "phase": closing.phase,
        "recipients": [
            {
                "position": verdict.position,
                "email": verdict.email,
                "reply": verdict.rcpt_reply,
                "status": verdict.status,
            }
            for verdict in closing.recipients
        ],
        "reply": closing.reply,
        "error": closing.error,
        "transcript": closing.transcript,
        "session_id": closing.session_id,
        "session_message": closing.session_message,
        "peer_trailer": closing.peer_trailer,
        "due_in": min(due) if due else None,
    }


def _recipient_rows(closing: Closing) -> list[dict[str, Any]]:
    return [
        {
            "message_id": closing.message_id,
            "position": verdict.position,
            "attempt_id": closing.attempt_id,
            "status": verdict.status,
            "reason": verdict.reason,
            "reply": verdict.reply,
            "error": verdict.error,
            "due_in": verdict.due_in,
            "counts": verdict.counts,
            "final": verdict.status in FINAL,
        }
        for verdict in closing.recipients
    ]
