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
from typing import Any, Literal

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.ledger import facets, stops
from service.ledger.engine import statement
from service.ledger.ids import new_id
from service.ledger.lane_rows import EXTERNAL
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
class Trouble:
    """Not the message failed but its way: what rests, and how long.

    `lane` is the whole lane, `sender` this reverse-path on this lane, `external` every external
    recipient of the tenant. Each is then tried by one attempt at a time.
    """

    scope: Literal["lane", "sender", "external"]
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
    sender: str  # the reverse-path in its comparison form
    external: int = 0  # recipients that used the tenant's external budget
    trouble: Trouble | None = None
    lane_well: bool = False  # the peer took or judged a message: the route works
    split: bool = False  # nothing was taken because there were too many recipients: halve the delivery
    peer_trailer: dict[str, Any] | None = field(default=None)

    def weight(self) -> int:
        """Octets, roughly: large ones are written alone."""
        return 2_000 + sum(len(line.get("text", "")) for line in self.transcript)


# `coalesce` here and below: each row is found by its key, and not by the index of what is open (see `taken`).
# Attempts are locked in the order of their names wherever several are: a renewal has all of a worker's.
_FENCE = """
    WITH mine AS MATERIALIZED (
        SELECT id FROM attempts WHERE id = ANY($1) AND coalesce(outcome) IS NULL ORDER BY id FOR UPDATE)
    UPDATE attempts SET phase = 'dot' FROM mine
     WHERE attempts.id = mine.id AND lease_until > clock_timestamp()
    RETURNING attempts.id
"""


async def fence(engine: AsyncEngine, attempts: Sequence[str]) -> set[str]:
    """Mark the attempts whose lease is still ours as having sent the dot; the rest must not."""
    return {row["id"] for row in await statement(engine, _FENCE, list(attempts))}


_SESSIONS = text("""
    INSERT INTO sessions (id, worker, route, lane, facts)
    SELECT id, worker, route, lane, facts FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS row(
        id text, worker text, route text, lane text, facts jsonb)
    ON CONFLICT DO NOTHING
""")

_JUDGE = text("""
    WITH mine AS MATERIALIZED (
        SELECT id FROM attempts WHERE id = ANY(:ids) AND coalesce(outcome) IS NULL ORDER BY id FOR UPDATE)
    UPDATE attempts a
       SET outcome = row.outcome, ended_at = clock_timestamp(), lease_until = NULL, phase = row.phase,
           recipients = row.recipients, reply = row.reply, error = row.error, transcript = row.transcript,
           session_id = row.session_id, session_message = row.session_message, peer_trailer = row.peer_trailer,
           next_attempt_at = now() + make_interval(secs => row.due_in),
           -- What went back before its turn was never named to the other side, and uses up no day.
           recipient_count = CASE WHEN row.error ->> 'code' = 'given_back' THEN 0 ELSE a.recipient_count END,
           external_count = CASE WHEN row.error ->> 'code' = 'given_back' THEN 0 ELSE a.external_count END
      FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS row(
           id text, outcome text, phase text, recipients jsonb, reply jsonb, error jsonb, transcript jsonb,
           session_id text, session_message integer, peer_trailer jsonb, due_in float8), mine
     WHERE a.id = row.id AND a.id = mine.id
    RETURNING a.id
""")

# What rows name is named as an array too, see `taken`. A recipient follows its attempt's verdict only while it is still in that attempt's hand.
_MOVE = text("""
    UPDATE recipients r
       SET status = row.status, reason = row.reason, reply = coalesce(row.reply, r.reply), error = row.error,
           -- What we stopped ourselves keeps its place among what waits.
           due_at = CASE WHEN row.keeps_place THEN (SELECT started_at FROM attempts WHERE id = row.attempt_id)
                         ELSE now() + make_interval(secs => row.due_in) END,
           tries = r.tries + CASE WHEN row.counts THEN 1 ELSE 0 END,
           updated_at = clock_timestamp(),
           finished_at = CASE WHEN row.final THEN clock_timestamp() END
      FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS row(
           message_id text, position smallint, attempt_id text, status text, reason text, reply jsonb,
           error jsonb, due_in float8, counts boolean, final boolean, keeps_place boolean)
     WHERE r.message_id = ANY(:messages) AND r.message_id = row.message_id AND r.position = row.position
       AND r.attempt_id = row.attempt_id AND coalesce(r.status) = :status
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
     WHERE d.id = ANY(:deliveries) AND d.id = wanted.id
       AND (d.attempt_id IS NULL OR d.attempt_id = ANY(:attempts))
""")

_LANE_WELL = text("""
    UPDATE lanes SET troubles = 0, paused_until = NULL, pause_error = NULL, updated_at = clock_timestamp()
     WHERE name = :lane AND troubles > 0 RETURNING name
""")

# Several attempts that fail together are one trouble: the pause grows once.
_LANE_TROUBLE = text("""
    UPDATE lanes
       SET troubles = troubles + 1, pause_error = CAST(:error AS jsonb), updated_at = clock_timestamp(),
           paused_until = clock_timestamp()
               + make_interval(secs => CASE WHEN troubles = 0 THEN :first
                     ELSE least(:cap, :first * power(:factor, least(troubles, 30))) END)
     WHERE name = :lane AND (paused_until IS NULL OR paused_until <= clock_timestamp())
""")

# The second half of what is open goes on as a delivery of its own, due at the same instant as the first.
_SPLIT = text("""
    WITH open AS (
        SELECT r.message_id, r.position, row.new_id,
               row_number() OVER (PARTITION BY r.delivery_id ORDER BY r.position) AS place,
               count(*) OVER (PARTITION BY r.delivery_id) AS total, r.delivery_id
          FROM recipients r
          JOIN jsonb_to_recordset(CAST(:rows AS jsonb)) AS row(delivery_id text, new_id text)
            ON row.delivery_id = r.delivery_id
         WHERE r.finished_at IS NULL
    ), later AS (
        SELECT * FROM open WHERE total > 1 AND place > total / 2
    ), made AS (
        INSERT INTO deliveries (id, message_id, application, route, lane, sender, priority, external, size,
                                due_at, expires_at)
        SELECT DISTINCT ON (later.new_id) later.new_id, d.message_id, d.application, d.route, d.lane, d.sender,
               d.priority, d.external, d.size, now(), d.expires_at
          FROM deliveries d JOIN later ON later.delivery_id = d.id
    )
    UPDATE recipients r SET delivery_id = later.new_id FROM later
     WHERE r.message_id = later.message_id AND r.position = later.position
""")


async def settle_deliveries(db: AsyncConnection, deliveries: Sequence[str], attempts: Sequence[str]) -> None:
    """Set when these deliveries are due again, after their recipients have moved."""
    await db.execute(_SETTLE, {"deliveries": sorted(set(deliveries)), "attempts": list(attempts)})


async def close(db: AsyncConnection, closings: Sequence[Closing]) -> None:
    """Write what came of these attempts; the caller commits."""
    opened = {c.session_id: c for c in closings if c.session_id and c.session_facts}
    if opened:
        await db.execute(_SESSIONS, {"rows": json.dumps([_session_row(c) for c in opened.values()])})
    rows = json.dumps([_row(closing) for closing in closings])
    ids = [closing.attempt_id for closing in closings]
    judged = set((await db.execute(_JUDGE, {"rows": rows, "ids": ids})).scalars())
    ours = [closing for closing in closings if closing.attempt_id in judged]
    if ours:
        rows = json.dumps([row for closing in ours for row in _recipient_rows(closing)])
        messages = sorted({closing.message_id for closing in ours})
        await db.execute(_MOVE, {"rows": rows, "status": Status.SENDING, "messages": messages})
        halved = [{"delivery_id": c.delivery_id, "new_id": new_id("dlv")} for c in ours if c.split]
        if halved:
            await db.execute(_SPLIT, {"rows": json.dumps(halved)})
        # The halves too: of what was split, some may be held.
        halves = [row["new_id"] for row in halved]
        await settle_deliveries(db, [*(c.delivery_id for c in ours), *halves], [c.attempt_id for c in ours])
        await _note_answers(db, ours)
    for closing in closings:
        if closing.attempt_id not in judged:
            await _close_late(db, closing)
    await teach(db, ours)


async def teach(db: AsyncConnection, closings: Sequence[Closing]) -> None:
    """Let lanes, senders and the tenant's budget rest or go on, as these attempts have shown.

    Rows of lanes are locked in the order of their names, and `EXTERNAL` last: as a claim does.
    """
    troubles = {
        (EXTERNAL if closing.trouble.scope == "external" else closing.lane): closing.trouble
        for closing in closings
        if closing.trouble is not None and closing.trouble.scope != "sender"
    }
    well = {closing.lane for closing in closings if closing.lane_well}
    well |= {EXTERNAL for closing in closings if closing.external and closing.outcome == Outcome.SENT}
    for lane in sorted(well | troubles.keys()):
        if lane in well:
            await db.execute(_LANE_WELL, {"lane": lane})
        if lane in troubles:
            await db.execute(_LANE_TROUBLE, {"lane": lane, **_growth(troubles[lane])})
    for closing in closings:
        if closing.trouble is not None and closing.trouble.scope == "sender":
            trouble = closing.trouble
            await stops.stop(
                db,
                closing.lane,
                closing.sender,
                error=trouble.error,
                first=trouble.first,
                factor=trouble.factor,
                cap=trouble.cap,
            )
    for lane, sender in sorted({(c.lane, c.sender) for c in closings if c.outcome in _TAKEN}):
        await stops.lift(db, lane, sender)


#: Outcomes that show that the peer takes mail of this sender.
_TAKEN = frozenset({Outcome.SENT, Outcome.PARTIAL})


def _growth(trouble: Trouble) -> dict[str, Any]:
    return {
        "error": json.dumps(trouble.error),
        "first": trouble.first,
        "factor": trouble.factor,
        "cap": trouble.cap,
    }


async def lift_lane(db: AsyncConnection, lane: str) -> bool:
    """End the rest of a lane and of its stopped senders: it was seen to work. Return whether anything rested."""
    lifted = await db.scalar(_LANE_WELL, {"lane": lane}) is not None
    return await stops.try_now(db, lane) or lifted


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
    late = {"rows": rows, "status": Status.UNCERTAIN, "messages": [closing.message_id]}
    moved = (await db.execute(_MOVE, late)).all()
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
        await _note_answers(db, [closing])


async def _note_answers(db: AsyncConnection, closings: Sequence[Closing]) -> None:
    """Let messages be found by what they were answered with."""
    await facets.add_replies(
        db,
        (
            (closing.message_id, {"reply": verdict.reply, "error": verdict.error})
            for closing in closings
            for verdict in closing.recipients
        ),
    )


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
            "keeps_place": closing.outcome is Outcome.ABORTED and verdict.due_in == 0.0,
        }
        for verdict in closing.recipients
    ]
