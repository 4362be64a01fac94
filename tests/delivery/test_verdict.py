"""What a reply or a fault means for us, by table."""

from datetime import UTC, datetime
from typing import Any

import pytest

from service.delivery.schedule import Policy, Retry, wait_before
from service.delivery.verdict import Case, judge, judge_abort, judge_opening
from service.ledger.claiming import Claimed, ClaimedRecipient
from service.mail.address import Address
from service.smtp.faults import CannotConnect, PeerGarbled, PeerLost
from service.smtp.phase import Phase
from service.smtp.reply import Reply
from service.smtp.session import Report

RETRY = Retry(first=30.0, factor=2.0, cap=900.0)
POLICY = Policy(lease=30.0, poll_interval=5.0, retry=RETRY, uncertain_after=900.0, shutdown_grace=60.0)
OK = Reply.from_text("250 2.1.5 Recipient OK")


def a_case(*recipients: str, on_uncertain: str = "resend", tries: int = 0) -> Case:
    claimed = Claimed(
        attempt_id="att_1",
        number=1,
        delivery_id="dlv_1",
        message_id="msg_1",
        application="tests",
        lane="peer",
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
    return Case(claimed=claimed, policy=POLICY, names=names, jitter=0.0)


def a_report(rcpt: dict[str, str] | None = None, **changes: Any) -> Report:
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


@pytest.mark.parametrize(
    ("final", "outcome", "code", "rests"),
    [
        ("250 2.0.0 OK", "sent", None, False),
        ("251 2.0.0 taken elsewhere", "sent", None, False),
        ("200 fine", "sent", None, False),
        ("451 4.7.1 later", "deferred", "passing_refusal", False),
        ("550 5.7.1 rejected by organization policy", "failed", "content_refused", False),
        ("554 5.2.252 SendAsDenied; a not allowed to send as b", "failed", "send_as_denied", False),
        ("552 5.3.4 Message size exceeds fixed maximum message size", "failed", "message_too_large", False),
        ("421 4.3.2 Service not available", "deferred", "service_unavailable", True),
        (
            "432 4.3.2 Concurrent connections limit exceeded. Visit x",
            "deferred",
            "concurrent_connections",
            True,
        ),
        (
            "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded",
            "deferred",
            "concurrent_connections",
            True,
        ),
        # 5yz that are throttles
        (
            "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; x",
            "deferred",
            "recipient_quota",
            True,
        ),
        (
            "550 5.1.90 Your message can't be sent: daily limit for message recipients",
            "deferred",
            "recipient_quota",
            True,
        ),
        (
            "550 5.2.252 Sender throttled due to continuous send as denied errors",
            "deferred",
            "sender_throttled",
            True,
        ),
        ("550 5.7.233 exceeded its daily limit", "deferred", "tenant_recipient_rate", True),
    ],
)
def test_the_reply_to_the_dot(final: str, outcome: str, code: str | None, rests: bool) -> None:
    """Any 2yz is acceptance; throttles spoken as 5yz do not fail a message; the route's trouble rests the lane."""
    judged = judge(a_case(), a_report(final=Reply.from_text(final), dot_sent=True))

    assert judged.outcome == outcome
    assert (judged.error or {}).get("code") == code
    assert (judged.trouble is not None) == rests


def test_silence_after_the_dot_is_never_deferred() -> None:
    """Once the dot was sent, a lost connection is uncertainty; who was refused before it stays refused."""
    report = a_report(
        {"ana@example.com": "250 2.1.5 OK", "nobody@example.com": "550 5.1.1 no such user"},
        dot_sent=True,
        fault=PeerLost("connection_lost", phase=Phase.DOT, detail="gone"),
    )

    judged = judge(a_case("ana@example.com", "nobody@example.com"), report)

    assert judged.outcome == "uncertain"
    assert [each.status for each in judged.recipients] == ["uncertain", "failed"]
    assert judged.recipients[0].due_in == POLICY.uncertain_after


def test_hold_is_not_due_again() -> None:
    """With `hold` an uncertain recipient waits for a person."""
    report = a_report(dot_sent=True, fault=PeerGarbled("mixed_codes", phase=Phase.DOT, detail="x"))

    judged = judge(a_case(on_uncertain="hold"), report)

    assert judged.recipients[0].due_in is None


def test_each_recipient_by_its_own_reply() -> None:
    """Taken, refused and deferred stand side by side in one attempt."""
    rcpt = {"a@x.example": "250 OK", "b@x.example": "550 5.1.1 no", "c@x.example": "451 4.7.1 later"}

    judged = judge(a_case(*rcpt), a_report(rcpt, final=OK, dot_sent=True))

    assert judged.outcome == "partial"
    assert [each.status for each in judged.recipients] == ["sent", "failed", "deferred"]
    assert [each.counts for each in judged.recipients] == [True, True, True]


def test_too_many_recipients_go_on_at_once() -> None:
    """452 4.5.3 at RCPT: the rest is due at once, in a transaction of its own."""
    rcpt = {"a@x.example": "250 OK", "b@x.example": "452 4.5.3 Too many recipients"}

    judged = judge(a_case(*rcpt), a_report(rcpt, final=OK, dot_sent=True))

    assert judged.recipients[1].due_in == 0.0


def test_trouble_before_mail_uses_up_no_try() -> None:
    """No connection is the route's trouble: the lane rests, the recipient keeps its tries."""
    judged = judge_opening(a_case(), CannotConnect("connection_refused", phase=Phase.CONNECT, detail="x"))

    assert judged.trouble is not None
    assert judged.recipients[0].counts is False
    assert judged.recipients[0].due_in == 0.0


def test_a_refused_fence_is_harmless() -> None:
    """A lease that was lost before the dot defers at once and counts as no try."""
    judged = judge(a_case(), a_report(fenced=True))

    assert judged.outcome == "deferred"
    assert judged.recipients[0].counts is False


@pytest.mark.parametrize(
    ("dot_sent", "outcome", "status"), [(False, "aborted", "queued"), (True, "uncertain", "uncertain")]
)
def test_a_planned_stop(dot_sent: bool, outcome: str, status: str) -> None:
    """At the end of the grace: before the dot it is queued again, behind it it is uncertain."""
    judged = judge_abort(a_case(), phase=Phase.BODY, dot_sent=dot_sent)

    assert judged.outcome == outcome
    assert judged.recipients[0].status == status


def test_the_waits_grow_to_their_cap() -> None:
    """30 s, 1, 2, 4, 8 minutes, then a quarter of an hour; jitter moves a wait by a fifth at most."""
    waits = [wait_before(tries, retry=RETRY, jitter=0.0) for tries in range(1, 8)]

    assert waits == [30.0, 60.0, 120.0, 240.0, 480.0, 900.0, 900.0]
    assert wait_before(1, retry=RETRY, jitter=1.0) == 36.0
    assert wait_before(10_000, retry=RETRY, jitter=-1.0) == 720.0
