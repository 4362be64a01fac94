"""Read the ledger for people: the only functions that do.

They return frozen values with the words of the ledger; how these look in JSON is the door's
business. `application` narrows what is found to one application's messages; None sees all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.ledger.states import message_status


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipientView:
    position: int
    type: str
    email: str
    name: str | None
    status: str
    reason: str | None
    route: str | None
    lane: str | None
    attempts: int
    reply: Mapping[str, Any] | None
    error: Mapping[str, Any] | None
    next_attempt_at: datetime | None  # null: nothing is planned, or it is in hand
    updated_at: datetime
    lane_paused_until: datetime | None
    lane_pause_error: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageView:
    id: str
    application: str
    test: bool
    message_id: str
    from_email: str
    from_name: str | None
    reply_to: Sequence[Mapping[str, Any]]
    subject: str
    size: int
    sha256: str
    route_requested: str
    plan: Mapping[str, Any]
    stream: str
    priority: int
    on_uncertain: str
    tags: Sequence[str]
    metadata: Mapping[str, Any]
    created_at: datetime
    scheduled_at: datetime | None
    expires_at: datetime
    template: Mapping[str, Any] | None
    dsn: Mapping[str, Any] | None
    recipients: tuple[RecipientView, ...]

    @property
    def status(self) -> str:
        """The message's status, derived from its recipients'."""
        return message_status([recipient.status for recipient in self.recipients])


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptView:
    id: str
    message_id: str
    delivery_id: str
    number: int
    worker: str
    route: str
    lane: str
    started_at: datetime
    ended_at: datetime | None
    phase: str
    outcome: str | None
    recipients: Sequence[Mapping[str, Any]]
    reply: Mapping[str, Any] | None
    peer_trailer: Mapping[str, Any] | None
    session_message: int | None
    session: Mapping[str, Any] | None
    size: int
    sha256: str
    error: Mapping[str, Any] | None
    next_attempt_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventView:
    id: int
    message_id: str
    email: str
    from_status: str | None
    to_status: str
    reason: str | None
    attempt_id: str | None
    reply: Mapping[str, Any] | None
    diagnosis: str | None  # its id in the catalogue
    actor: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscriptView:
    """The dialogue of one attempt, and how its session began."""

    opening: Sequence[Mapping[str, Any]]
    lines: Sequence[Mapping[str, Any]] | None  # None: the attempt is open, or its worker died
    session_message: int | None
    attempt: AttemptView


_MESSAGES = text("""
    SELECT id, application, test, message_id, from_email, from_name, reply_to, subject, size, sha256,
           route_requested, plan, stream, priority, on_uncertain, tags, metadata, created_at, scheduled_at,
           expires_at, template, dsn
      FROM messages
     WHERE id = ANY(:ids) AND (CAST(:application AS text) IS NULL OR application = :application)
""")

_RECIPIENTS = text("""
    SELECT r.message_id, r.position, r.type, r.email, r.name, r.status, r.reason, d.route, d.lane, r.attempts,
           r.reply, r.error, r.due_at AS next_attempt_at, r.updated_at,
           CASE WHEN l.paused_until > clock_timestamp() THEN l.paused_until END AS lane_paused_until,
           CASE WHEN l.paused_until > clock_timestamp() THEN l.pause_error END AS lane_pause_error
      FROM recipients r LEFT JOIN deliveries d ON d.id = r.delivery_id LEFT JOIN lanes l ON l.name = d.lane
     WHERE r.message_id = ANY(:ids) ORDER BY r.message_id, r.position
""")


async def messages(
    db: AsyncConnection, message_ids: Sequence[str], *, application: str | None
) -> list[MessageView]:
    """Return messages with their recipients, in the order of their ids; what is not there is left out."""
    found = await db.execute(_MESSAGES, {"ids": list(message_ids), "application": application})
    rows = {row["id"]: row for row in found.mappings()}
    recipients: dict[str, list[RecipientView]] = {message_id: [] for message_id in rows}
    for row in (await db.execute(_RECIPIENTS, {"ids": list(rows)})).mappings() if rows else ():
        values = dict(row)
        recipients[values.pop("message_id")].append(RecipientView(**values))
    return [
        MessageView(**rows[message_id], recipients=tuple(recipients[message_id]))
        for message_id in message_ids
        if message_id in rows
    ]


async def message(db: AsyncConnection, message_id: str, *, application: str | None) -> MessageView | None:
    """Return one message with its recipients, or None."""
    return next(iter(await messages(db, [message_id], application=application)), None)


_ATTEMPT_COLUMNS = """
    SELECT a.id, a.message_id, a.delivery_id, a.number, a.worker, a.route, a.lane, a.started_at, a.ended_at, a.phase,
           a.outcome, a.recipients, a.reply, a.peer_trailer, a.session_message, s.facts AS session, a.size,
           a.sha256, a.error, a.next_attempt_at
      FROM attempts a JOIN messages m ON m.id = a.message_id LEFT JOIN sessions s ON s.id = a.session_id
"""

_ATTEMPTS = text(f"{_ATTEMPT_COLUMNS} WHERE a.message_id = :id ORDER BY a.id")

_ATTEMPT = text(
    f"{_ATTEMPT_COLUMNS} WHERE a.id = :id "
    "AND (CAST(:application AS text) IS NULL OR m.application = :application)"
)


async def attempts(db: AsyncConnection, message_id: str) -> list[AttemptView]:
    """List a message's attempts, the first first."""
    rows = await db.execute(_ATTEMPTS, {"id": message_id})
    return [AttemptView(**row) for row in rows.mappings()]


async def attempt(db: AsyncConnection, attempt_id: str, *, application: str | None) -> AttemptView | None:
    """Return one attempt, or None."""
    found = await db.execute(_ATTEMPT, {"id": attempt_id, "application": application})
    row = found.mappings().one_or_none()
    return None if row is None else AttemptView(**row)


async def transcript(
    db: AsyncConnection, attempt_id: str, *, application: str | None
) -> TranscriptView | None:
    """Return the dialogue of one attempt, or None where there is no such attempt."""
    found = await attempt(db, attempt_id, application=application)
    if found is None:
        return None
    lines = (
        await db.execute(text("SELECT transcript FROM attempts WHERE id = :id"), {"id": attempt_id})
    ).scalar_one()
    session = found.session or {}
    return TranscriptView(
        opening=session.get("transcript", []),
        lines=lines,
        session_message=found.session_message,
        attempt=found,
    )


_EVENTS = text("""
    SELECT e.id, e.message_id, r.email, e.from_status, e.to_status, e.reason, e.attempt_id, e.reply, e.diagnosis, e.actor,
           e.created_at
      FROM events e JOIN recipients r ON r.message_id = e.message_id AND r.position = e.position
     WHERE e.message_id = :id ORDER BY e.id
""")


async def events(db: AsyncConnection, message_id: str) -> list[EventView]:
    """List a message's moves, the first first."""
    rows = await db.execute(_EVENTS, {"id": message_id})
    return [EventView(**row) for row in rows.mappings()]
