"""Things of the ledger, made with as little as a test has to say."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from service.ledger import Ledger
from service.ledger.accepting import (
    IdempotencyKey,
    NewDelivery,
    NewMessage,
    NewRecipient,
    Reservation,
    Submission,
)
from service.ledger.claiming import Claim, Claimed, Wish
from service.ledger.closing import Closing, RecipientVerdict
from service.ledger.ids import new_id
from service.ledger.pace import LaneLimits
from service.ledger.states import Outcome, Status

UNLIMITED = LaneLimits(
    connections=10, messages_per_minute=None, messages_per_hour=None, recipients_per_day=None
)


def a_submission(
    *,
    lane: str = "peer",
    to: tuple[str, ...] = ("ana@example.com",),
    on_uncertain: Any = "resend",
    expires_in: float = 3600.0,
    octets: bytes = b"Subject: x\r\n\r\nx\r\n",
    idempotency: IdempotencyKey | None = None,
    application: str = "tests",
    sender: str = "noreply@contoso.com",
    priority: int = 1,
    external: bool = False,
) -> Submission:
    """A message in one delivery on one lane; `external` says so of all its recipients."""
    delivery = NewDelivery(id=new_id("dlv"), route=lane, lane=lane, external=external)
    now = datetime.now(UTC)
    message = NewMessage(
        id=new_id("msg"),
        application=application,
        key_id=new_id("key"),
        test=False,
        from_email=sender,
        from_name=None,
        reply_to=[],
        reverse_path=sender,
        sender=sender,
        subject="x",
        message_id="<x@contoso.com>",
        octets=octets,
        sha256="0" * 64,
        smtputf8=False,
        eightbit=False,
        route_requested="auto",
        plan={},
        stream="transactional",
        priority=priority,
        on_uncertain=on_uncertain,
        tags=[],
        metadata={},
        created_at=now,
        expires_at=now + timedelta(seconds=expires_in),
        deliveries=[delivery],
        recipients=[
            NewRecipient(
                position=n,
                type="to",
                email=email,
                key=email,
                name=None,
                delivery_id=delivery.id,
                external=external,
            )
            for n, email in enumerate(to)
        ],
    )
    return Submission(
        messages=[message],
        reservations=[Reservation(key=idempotency, answer='{"id": "' + message.id + '"}')]
        if idempotency
        else [],
    )


async def claim(
    ledger: Ledger,
    *,
    lane: str = "peer",
    worker: str = "w1",
    seats: Sequence[str] = (),
    more: int = 10,
    lease: float = 30.0,
    suspects: bool = True,
    limits: LaneLimits = UNLIMITED,
) -> Claim:
    """Claim as a worker without open sessions does."""
    wish = Wish(lane=lane, route=lane, worker=worker, seats=seats, more=more, lease=lease, suspects=suspects)
    return await ledger.claim(wish, limits)


async def lost_behind_the_dot(ledger: Ledger) -> Claimed:
    """Claim one delivery and pass the fence with it, as a worker does that dies then: its lease is over in a moment.

    However slow the machine is, the fence is passed before.
    """
    (claimed,) = (await claim(ledger)).claimed
    assert await ledger.fence(claimed.attempt_id)
    await ledger.renew([claimed.attempt_id], seats=[], lease=0.01)
    return claimed


def a_closing(
    claimed: Any, status: Status = Status.SENT, *, due_in: float | None = None, **changes: Any
) -> Closing:
    """A closing that gives every recipient the same verdict."""
    outcome = {
        Status.SENT: Outcome.SENT,
        Status.DEFERRED: Outcome.DEFERRED,
        Status.FAILED: Outcome.FAILED,
        Status.UNCERTAIN: Outcome.UNCERTAIN,
        Status.QUEUED: Outcome.ABORTED,
    }[status]
    values: dict[str, Any] = {
        "attempt_id": claimed.attempt_id,
        "message_id": claimed.message_id,
        "delivery_id": claimed.delivery_id,
        "lane": claimed.lane,
        "route": claimed.lane,
        "worker": "w1",
        "phase": "reply",
        "outcome": outcome,
        "recipients": tuple(
            RecipientVerdict(
                position=each.position,
                email=each.email,
                status=status,
                reason=status.value,
                reply=None,
                rcpt_reply=None,
                error=None,
                due_in=due_in,
                counts=True,
            )
            for each in claimed.recipients
        ),
        "reply": {"code": 250, "enhanced": None, "text": "ok"},
        "error": None,
        "transcript": [],
        "session_id": None,
        "session_message": None,
        "session_facts": None,
        "sender": claimed.sender,
        "external": claimed.external,
    }
    return Closing(**(values | changes))
