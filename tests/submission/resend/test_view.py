"""Messages as Resend shows emails."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from service.ledger.history import MessageView, RecipientView
from service.ledger.states import Status
from service.mail.address import Mailbox
from service.submission.resend.view import Texts, address, email

NOW = datetime(2026, 11, 25, 16, 30, 0, 123_456, tzinfo=UTC)


def a_recipient(status: str = "sent", *, kind: str = "to", **changes: Any) -> RecipientView:
    values: dict[str, Any] = {
        "position": 0,
        "type": kind,
        "email": "ana@example.com",
        "name": None,
        "status": status,
        "reason": None,
        "route": "peer",
        "lane": "peer",
        "attempts": 1,
        "reply": None,
        "error": None,
        "next_attempt_at": None,
        "updated_at": NOW,
        "lane_paused_until": None,
        "lane_pause_error": None,
    }
    return RecipientView(**{**values, **changes})


def a_view(*recipients: RecipientView, **changes: Any) -> MessageView:
    values: dict[str, Any] = dict.fromkeys(MessageView.__dataclass_fields__) | {
        "id": "msg_01",
        "message_id": "<1@contoso.com>",
        "from_email": "noreply@contoso.com",
        "from_name": "Contoso",
        "reply_to": [],
        "subject": "Hi",
        "tags": [],
        "metadata": {},
        "created_at": NOW,
        "recipients": recipients or (a_recipient(),),
    }
    return MessageView(**{**values, **changes})


def last_event(*recipients: RecipientView) -> str:
    return str(email(a_view(*recipients), Texts())["last_event"])


def test_an_email_has_everything_that_resend_shows() -> None:
    """The object has Resend's names, and recipients by kind."""
    view = a_view(
        a_recipient(name="Ana"),
        a_recipient(kind="cc", email="c@example.com"),
        a_recipient(kind="bcc", email="b@example.com"),
        reply_to=[{"email": "help@contoso.com", "name": "Help, please"}],
        scheduled_at=NOW,
        tags=["z", "a"],
        metadata={"a": "1", "z": "2", "order": 42, "paid": True},
    )

    assert email(view, Texts(html="<p>Hi</p>")) == {
        "object": "email",
        "id": "msg_01",
        "message_id": "<1@contoso.com>",
        "from": "Contoso <noreply@contoso.com>",
        "to": ["Ana <ana@example.com>"],
        "cc": ["c@example.com"],
        "bcc": ["b@example.com"],
        "reply_to": ['"Help, please" <help@contoso.com>'],
        "subject": "Hi",
        "html": "<p>Hi</p>",
        "text": None,
        "created_at": "2026-11-25T16:30:00.123Z",
        "scheduled_at": "2026-11-25T16:30:00.123Z",
        "last_event": "sent",
        "tags": [
            {"name": "z", "value": "2"},
            {"name": "a", "value": "1"},
            {"name": "order", "value": "42"},
            {"name": "paid", "value": "true"},
        ],
        "topic_id": None,
    }


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("scheduled", "scheduled"),
        ("queued", "queued"),
        ("held", "queued"),
        ("sending", "queued"),
        ("deferred", "delivery_delayed"),
        ("uncertain", "delivery_delayed"),
        ("sent", "sent"),
        ("delivered", "delivered"),
        ("bounced", "bounced"),
        ("failed", "failed"),
        ("expired", "failed"),
        ("canceled", "canceled"),
        ("suppressed", "suppressed"),
    ],
)
def test_each_state_has_its_last_event(status: str, expected: str) -> None:
    """Every state of a recipient is one of Resend's events."""
    assert expected == last_event(a_recipient(status))


def test_no_state_is_forgotten() -> None:
    """The table above has every state that there is."""
    known = {"queued", "scheduled", "delivery_delayed", "sent", "delivered", "bounced", "failed", "canceled"}

    assert {last_event(a_recipient(status)) for status in Status} == known | {"suppressed"}


def test_a_recipient_refused_by_name_is_a_bounce() -> None:
    """What the other side refuses at RCPT is `bounced`; another failure is `failed`."""
    refused = a_recipient("failed", error={"code": "recipient_unknown", "phase": "rcpt"})

    assert last_event(refused) == "bounced"
    assert last_event(replace(refused, error={"code": "x", "phase": "reply"})) == "failed"


def test_bad_news_goes_first() -> None:
    """With one recipient sent and another refused, the refusal is shown."""
    refused = a_recipient("failed", error={"code": "recipient_unknown", "phase": "rcpt"})

    assert last_event(a_recipient("sent"), refused) == "bounced"


@pytest.mark.parametrize(
    "name", [None, "Ana Müller", "Müller, Ana", 'Ana "A" @ home', "O'Hara", "a\\b", "(x)"]
)
def test_an_address_can_be_read_back(name: str | None) -> None:
    """What is shown can be sent to again: display names are quoted where they have to be."""
    assert Mailbox.of(email="ana@example.com", name=name) == Mailbox.parse(address("ana@example.com", name))
