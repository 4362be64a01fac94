"""Cases and reports for the judge: a delivery in hand, and what the wire said of it."""

from datetime import UTC, datetime
from typing import Any

from service.delivery.schedule import Policy, Retry
from service.delivery.verdict import Case
from service.ledger.claiming import Claimed, ClaimedRecipient
from service.mail.address import Address
from service.routes.route import RouteKind
from service.smtp.phase import Phase
from service.smtp.reply import Reply
from service.smtp.session import Report

RETRY = Retry(first=30.0, factor=2.0, cap=900.0)
POLICY = Policy(lease=30.0, poll_interval=5.0, retry=RETRY, uncertain_after=900.0, shutdown_grace=60.0)
OK = Reply.from_text("250 2.1.5 Recipient OK")
TAKEN = Reply.from_text("250 2.0.0 OK <1@contoso.com> [Hostname=VI1PR01MB0001.eurprd01.prod.outlook.com]")


def a_case(
    *recipients: str,
    on_uncertain: str = "resend",
    tries: int = 0,
    kind: RouteKind = RouteKind.CLIENT_SUBMISSION,
    policy: Policy = POLICY,
) -> Case:
    """A delivery of noreply@contoso.com in hand, by default to ana@example.com alone."""
    claimed = Claimed(
        attempt_id="att_1",
        number=1,
        delivery_id="dlv_1",
        message_id="msg_1",
        application="tests",
        lane="peer",
        sender="noreply@contoso.com",
        external=1,
        reverse_path="noreply@contoso.com",
        recipients=tuple(
            ClaimedRecipient(position=n, email=email, tries=tries, uncertain=False)
            for n, email in enumerate(recipients or ("ana@example.com",))
        ),
        size=10,
        sha256="",
        smtputf8=False,
        eightbit=False,
        on_uncertain=on_uncertain,
        expires_at=datetime.now(UTC),
        alone=False,
        seat=None,
    )
    names = {"mailbox": "noreply@contoso.com", "sender": "noreply@contoso.com", "host": "smtp.office365.com"}
    return Case(claimed=claimed, kind=kind, policy=policy, names=names, jitter=0.0)


def a_report(rcpt: dict[str, str] | None = None, **changes: Any) -> Report:
    """What the wire said; without `rcpt` ana@example.com was accepted at RCPT."""
    replies = {Address.parse(email): Reply.from_text(reply) for email, reply in (rcpt or {}).items()}
    seen: dict[str, Any] = {
        "phase": Phase.REPLY,
        "mail": OK,
        "recipients": replies or {Address.parse("ana@example.com"): OK},
        "data": None,
        "final": None,
        "fault": None,
        "dot_sent": False,
        "fenced": False,
        "untouched": False,
        "transcript": [],
        "replied_at": None,
        "octets": 10,
    }
    return Report(**(seen | changes))


def after_the_dot(reply: str, rcpt: dict[str, str] | None = None) -> Report:
    """A transaction in which only the reply to the dot said something else than yes."""
    return a_report(rcpt, final=Reply.from_text(reply), dot_sent=True)
