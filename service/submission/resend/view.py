"""A message of the ledger as Resend shows an email.

Resend has one `last_event` for an email, we have a state for each recipient. Bad news goes first: while some
recipients were refused and others not, the refusal is shown; `GET /messages/{id}` has the truth about each.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.ledger.history import MessageView, RecipientView
from service.mail.address import quoted
from service.submission.representation import moment

#: What each state of a message is called there. Nobody opens or clicks here: we do not track readers.
_LAST_EVENT = {
    "scheduled": "scheduled",
    "queued": "queued",
    "held": "queued",
    "sending": "queued",
    "deferred": "delivery_delayed",
    "uncertain": "delivery_delayed",
    "sent": "sent",
    "delivered": "delivered",
    "canceled": "canceled",
    "suppressed": "suppressed",
}

_PLAIN_NAME = re.compile(r"[\w !#$%&'*+/=?^`{|}~-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """What an email says; None where it has no such text, or the caller may not read it."""

    html: str | None = None
    text: str | None = None


def email(view: MessageView, texts: Texts) -> dict[str, Any]:
    """Show one email with its content."""
    return {
        "object": "email",
        **listed(view),
        "html": texts.html,
        "text": texts.text,
        "tags": _tags(view.tags, view.metadata),
        "topic_id": None,
    }


def listed(view: MessageView) -> dict[str, Any]:
    """Show one email of a list."""
    return {
        "id": view.id,
        "message_id": view.message_id,
        "to": _addresses(view.recipients, "to"),
        "from": address(view.from_email, view.from_name),
        "created_at": moment(view.created_at),
        "subject": view.subject,
        "bcc": _addresses(view.recipients, "bcc"),
        "cc": _addresses(view.recipients, "cc"),
        "reply_to": [address(str(each["email"]), each["name"]) for each in view.reply_to],
        "last_event": last_event(view.status, view.recipients),
        "scheduled_at": moment(view.scheduled_at),
    }


def last_event(status: str, recipients: Iterable[RecipientView]) -> str:
    """Say in Resend's words where a message stands.

    `bounced` is what the other side refused for the recipient's sake, at once (RCPT) or later; every other
    failure is `failed`.
    """
    if (known := _LAST_EVENT.get(status)) is not None:
        return known
    return "bounced" if any(_bounced(each) for each in recipients) else "failed"


def _bounced(recipient: RecipientView) -> bool:
    error = recipient.error or {}
    return recipient.status == "bounced" or (recipient.status == "failed" and error.get("phase") == "rcpt")


def address(email: str, name: str | None) -> str:
    """Write an address with its display name."""
    if not name:
        return email
    return f"{name if _PLAIN_NAME.fullmatch(name) else quoted(name)} <{email}>"


def _addresses(recipients: Iterable[RecipientView], kind: str) -> list[str]:
    return [address(each.email, each.name) for each in recipients if each.type == kind]


def _tags(tags: Sequence[str], metadata: Mapping[str, Any]) -> list[dict[str, str]]:
    """Show tags with their values, and what else `POST /messages` was given as metadata."""
    names = [*tags, *(name for name in metadata if name not in set(tags))]
    return [{"name": name, "value": _text(metadata.get(name))} for name in names]


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)
