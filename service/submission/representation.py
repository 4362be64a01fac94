"""How the ledger looks in JSON: one function for each thing."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

from service.ledger.accepting import NewMessage
from service.ledger.history import AttemptView, EventView, MessageView
from service.ledger.keys import Key
from service.ledger.states import message_status

if TYPE_CHECKING:
    from service.submission.history.expectations import Expectation

PRIORITIES = ("high", "normal", "low")


def moment(at: datetime | None) -> str | None:
    """Write a time as RFC 3339, in UTC, to the millisecond."""
    if at is None:
        return None
    written = (at if at.tzinfo is UTC else at.astimezone(UTC)).isoformat(timespec="milliseconds")
    return f"{written[:-6]}Z"  # instead of +00:00


def written(shown: Mapping[str, Any]) -> str:
    """Write what is shown as JSON."""
    return to_json(shown).decode()


def new_message(message: NewMessage, expectation: "Expectation") -> dict[str, Any]:
    """Show a message that is about to be accepted."""
    where = {delivery.id: delivery for delivery in message.deliveries}
    start = message.scheduled_at or message.created_at
    recipients = [
        _recipient(
            email=each.email,
            name=each.name,
            kind=each.type,
            status=message.status_of(each),
            reply=None,
            route=where[each.delivery_id].route if each.delivery_id else None,
            lane=where[each.delivery_id].lane if each.delivery_id else None,
            attempts=0,
            reason=(each.suppressed or {}).get("code"),
            error=each.suppressed,
            next_attempt_at=start if each.suppressed is None else None,
        )
        for each in message.recipients
    ]
    first = recipients[0]
    waits = any(each["status"] != "suppressed" for each in recipients)
    return {
        "object": "message",
        "id": message.id,
        "status": message_status([each["status"] for each in recipients]),
        "message_id": message.message_id,
        "from": {"email": message.from_email, "name": message.from_name},
        "reply_to": list(message.reply_to),
        "subject": message.subject,
        "size": len(message.octets),
        "sha256": message.sha256,
        "recipients": recipients,
        "route": first["route"],
        "lane": first["lane"],
        "attempts": 0,
        "expected_at": moment(expectation.at),
        "expected_because": list(expectation.because),
        "next_attempt_at": moment(start) if waits else None,
        "expires_at": moment(message.expires_at),
        "last_error": next((each["last_error"] for each in recipients if each["last_error"]), None),
        "plan": dict(message.plan),
        "on_uncertain": message.on_uncertain,
        "priority": PRIORITIES[message.priority],
        "stream": message.stream,
        "tags": list(message.tags),
        "metadata": dict(message.metadata),
        "test": message.test,
        "scheduled_at": moment(message.scheduled_at),
        "template": message.template,
        "dsn": message.dsn,
        "created_at": moment(message.created_at),
    }


def message(view: MessageView, expectation: "Expectation") -> dict[str, Any]:
    """Show a message as the ledger has it now."""
    recipients = [
        _recipient(
            email=each.email,
            name=each.name,
            kind=each.type,
            status=each.status,
            reply=each.reply,
            route=each.route,
            lane=each.lane,
            attempts=each.attempts,
            reason=each.reason,
            error=each.error,
            next_attempt_at=each.next_attempt_at,
        )
        for each in view.recipients
    ]
    times = [each.next_attempt_at for each in view.recipients if each.next_attempt_at is not None]
    return {
        "object": "message",
        "id": view.id,
        "status": message_status([each.status for each in view.recipients]),
        "message_id": view.message_id,
        "from": {"email": view.from_email, "name": view.from_name},
        "reply_to": list(view.reply_to),
        "subject": view.subject,
        "size": view.size,
        "sha256": view.sha256,
        "recipients": recipients,
        "route": recipients[0]["route"],
        "lane": recipients[0]["lane"],
        "attempts": sum(each.attempts for each in view.recipients),
        "expected_at": moment(expectation.at),
        "expected_because": list(expectation.because),
        "next_attempt_at": moment(min(times)) if times else None,
        "expires_at": moment(view.expires_at),
        "last_error": next((each.error for each in view.recipients if each.error is not None), None),
        "plan": dict(view.plan),
        "on_uncertain": view.on_uncertain,
        "priority": PRIORITIES[view.priority],
        "stream": view.stream,
        "tags": list(view.tags),
        "metadata": dict(view.metadata),
        "test": view.test,
        "scheduled_at": moment(view.scheduled_at),
        "template": view.template,
        "dsn": view.dsn,
        "created_at": moment(view.created_at),
    }


def _recipient(
    *,
    email: str,
    name: str | None,
    kind: str,
    status: str,
    reply: Mapping[str, Any] | None,
    route: str | None,
    lane: str | None,
    attempts: int,
    reason: str | None,
    error: Mapping[str, Any] | None,
    next_attempt_at: datetime | None,
) -> dict[str, Any]:
    return {
        "email": email,
        "name": name,
        "type": kind,
        "status": status,
        "reply": reply,
        "route": route,
        "lane": lane,
        "attempts": attempts,
        "reason": reason,
        "last_error": error,
        "next_attempt_at": moment(next_attempt_at),
    }


def attempt(view: AttemptView) -> dict[str, Any]:
    """Show one attempt; its dialogue has an address of its own."""
    session = None
    if view.session is not None:
        session = {name: value for name, value in view.session.items() if name != "transcript"}
        session["message"] = view.session_message
    return {
        "object": "attempt",
        "id": view.id,
        "message": view.message_id,
        "number": view.number,
        "outcome": view.outcome,
        "phase": view.phase,
        "route": view.route,
        "lane": view.lane,
        "worker": view.worker,
        "started_at": moment(view.started_at),
        "ended_at": moment(view.ended_at),
        "recipients": [
            {"email": each["email"], "reply": each["reply"], "status": each["status"]}
            for each in view.recipients
        ],
        "reply": view.reply,
        "session": session,
        "peer_trailer": view.peer_trailer,
        "size": view.size,
        "sha256": view.sha256,
        "error": view.error,
        "next_attempt_at": moment(view.next_attempt_at),
    }


def event(view: EventView) -> dict[str, Any]:
    """Show one move of one recipient."""
    return {
        "object": "event",
        "id": f"evt_{view.id}",
        "type": f"recipient.{view.to_status}",
        "message": view.message_id,
        "recipient": view.email,
        "from_status": view.from_status,
        "status": view.to_status,
        "reason": view.reason,
        "attempt": view.attempt_id,
        "reply": view.reply,
        "diagnosis": view.diagnosis,
        "actor": view.actor,
        "created_at": moment(view.created_at),
    }


def key(found: Key) -> dict[str, Any]:
    """Show a key, or what an access token stands for, without its secret."""
    return {
        "object": found.kind,
        "id": found.id,
        "application": found.application,
        "name": found.name,
        "test": found.test,
        "scopes": list(found.scopes),
        "senders": list(found.senders),
        "routes": found.routes,
        "recipient_domains": found.recipient_domains,
        "networks": found.networks,
        "messages_per_minute": found.messages_per_minute,
        "messages_per_day": found.messages_per_day,
        "replaces": found.replaces,
        "created_at": moment(found.created_at),
        "expires_at": moment(found.expires_at),
        "revoked_at": moment(found.revoked_at),
        "last_used_at": moment(found.last_used_at),
    }


def whole_list(data: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Show a list that has no further page."""
    return {"object": "list", "data": list(data), "has_more": False, "next": None}
