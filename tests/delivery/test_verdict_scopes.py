"""What rests, and what each recipient pays: by scope, class, phase and kind of route."""

from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from service.delivery.schedule import Policy, Retry
from service.delivery.verdict import Judgement, judge, judge_token
from service.routes.route import RouteKind
from service.smtp.faults import PeerRefused
from service.smtp.phase import Phase
from service.smtp.reply import Reply
from service.smtp.session import Report
from tests.delivery.cases import TAKEN, a_case, a_report, after_the_dot

SUBMISSION = RouteKind.CLIENT_SUBMISSION
DIRECT = RouteKind.DIRECT_SEND
RELAY = RouteKind.SMTP_RELAY
SMARTHOST = RouteKind.SMARTHOST
HIGH_VOLUME = RouteKind.HIGH_VOLUME_EMAIL
AZURE = RouteKind.AZURE_COMMUNICATION_SERVICES

MINUTE, HOUR = 60.0, 3600.0


def said_at(phase: Phase, text: str) -> Report:
    """A transaction that ended with this reply in this phase, before ana@example.com was taken."""
    reply = Reply.from_text(text)
    if phase is Phase.REPLY:
        return after_the_dot(text)
    if phase is Phase.RCPT:
        return a_report({"ana@example.com": text}, phase=phase)
    fault = PeerRefused("refused", phase=phase, detail="The peer refused.", reply=reply)
    if phase is Phase.MAIL:
        return a_report(phase=phase, mail=reply, recipients={}, fault=fault)
    return a_report(phase=phase, data=reply if phase is Phase.DATA else None, fault=fault)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One reply, and what has to come of it for a single recipient."""

    reply: str
    phase: Phase = Phase.REPLY
    kind: RouteKind = SUBMISSION
    rests: str | None = None  # lane, sender, external
    first: float | None = None  # seconds of the first rest
    status: str = "deferred"
    counts: bool = False
    due_in: float | None = 0.0


ROWS = [
    # T1 of the way: the lane rests, nobody pays
    Row(reply="421 4.3.2 Service not available", phase=Phase.MAIL, rests="lane", first=30.0),
    Row(
        reply="421 4.4.2 Connection dropped due to ConnectionReset",
        phase=Phase.RCPT,
        rests="lane",
        first=5.0,
    ),
    Row(reply="432 4.3.2 Concurrent connections limit exceeded. Visit x", rests="lane", first=20.0),
    Row(
        reply="452 4.3.1 Insufficient system resources",
        phase=Phase.MAIL,
        kind=DIRECT,
        rests="lane",
        first=30.0,
    ),
    # T2 of the way
    Row(
        reply="451 4.7.500 Server busy. Please try again later from [203.0.113.10]. (S77714)",
        phase=Phase.RCPT,
        kind=DIRECT,
        rests="lane",
        first=5 * MINUTE,
    ),
    Row(
        reply="452 4.5.3 Too many recipients (AS780090) [x.prod.outlook.com]",
        phase=Phase.RCPT,
        kind=DIRECT,
        rests="lane",
        first=HOUR,
    ),
    # T3 of the way
    Row(
        reply="554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; x",
        rests="lane",
        first=HOUR,
    ),
    Row(reply="550 5.2.2 Submission quota exceeded", rests="lane", first=HOUR),
    # A and CFG of the way, as 5yz and as the 4yz that never heal
    Row(
        reply="550 5.2.252 Sender throttled due to continuous send as denied errors",
        rests="lane",
        first=24 * HOUR,
    ),
    Row(
        reply="550 5.2.254 Sender throttled due to continuous invalid recipients errors",
        rests="lane",
        first=24 * HOUR,
    ),
    Row(
        reply="530 5.7.57 Client not authenticated to send mail. Error: 535 5.7.139 Authentication "
        "unsuccessful, SmtpClientAuthentication is disabled for the Tenant. Visit x",
        phase=Phase.MAIL,
        rests="lane",
    ),
    Row(
        reply="550 5.7.606 Access denied, banned sending IP [203.0.113.10]. To request removal visit x",
        phase=Phase.RCPT,
        kind=DIRECT,
        rests="lane",
        first=15 * MINUTE,
    ),
    Row(
        reply="550 5.7.68 TenantInboundAttribution; Direct Send not allowed for this organization from "
        "unauthorized sources",
        phase=Phase.RCPT,
        kind=DIRECT,
        rests="lane",
    ),
    Row(
        reply="550 5.7.64 TenantAttribution; Relay Access Denied ATTR36",
        phase=Phase.RCPT,
        kind=RELAY,
        rests="lane",
    ),
    Row(reply="451 5.7.3 STARTTLS is required to send mail", phase=Phase.MAIL, kind=RELAY, rests="lane"),
    Row(
        reply="451 4.4.62 Mail sent to the wrong Office 365 region. ATTR35",
        phase=Phase.MAIL,
        kind=DIRECT,
        rests="lane",
    ),
    Row(
        reply="550 4.4.4 Mail received as unauthenticated, incoming to a recipient domain configured in a hosted "
        "tenant which has no mail-enabled subscriptions. ATTR5",
        phase=Phase.RCPT,
        kind=DIRECT,
        rests="lane",
    ),
    Row(reply="550 5.7.705 Access denied, tenant has exceeded threshold", phase=Phase.RCPT, rests="lane"),
    Row(reply="550 5.7.705 Access denied, tenant has exceeded threshold", rests="lane"),
    # the sender: this message fails, what follows it waits
    Row(
        reply="554 5.2.252 SendAsDenied; noreply@contoso.com not allowed to send as x@contoso.com; STOREDRV",
        rests="sender",
        first=15 * MINUTE,
        status="failed",
        counts=True,
        due_in=None,
    ),
    Row(
        reply="550 5.7.60 SMTP; Client does not have permissions to send as this sender",
        phase=Phase.MAIL,
        rests="sender",
        status="failed",
        counts=True,
        due_in=None,
    ),
    Row(
        reply="550 5.7.509 Access denied, sending domain [contoso.com] does not pass DMARC verification and has a "
        "DMARC policy of reject",
        kind=DIRECT,
        rests="sender",
        status="failed",
        counts=True,
        due_in=None,
    ),
    # the tenant's external recipients
    Row(
        reply="550 5.7.233 Your message can't be sent because your tenant exceeded its daily limit for sending "
        "email to external recipients (tenant external recipient rate limit)",
        rests="external",
        first=HOUR,
        due_in=HOUR,
    ),
    Row(
        reply="550 5.7.232 Your message can't be sent because your trial tenant exceeded its daily limit for "
        "sending email to external recipients (tenant external recipient rate limit)",
        phase=Phase.RCPT,
        kind=RELAY,
        rests="external",
        first=HOUR,
        due_in=HOUR,
    ),
    # the message
    Row(
        reply="550 5.7.703 Your message can't be delivered because messages to x are blocked by your "
        "organization using Tenant Allow Block List",
        status="failed",
        counts=True,
        due_in=None,
    ),
    Row(
        reply="552 5.3.4 Message size exceeds fixed maximum message size",
        phase=Phase.MAIL,
        status="failed",
        counts=True,
        due_in=None,
    ),
    Row(
        reply="550 5.7.1 TRANSPORT.RULES.RejectMessage; the message was rejected by organization policy",
        status="failed",
        counts=True,
        due_in=None,
    ),
    Row(reply="550 5.6.11 bare line feeds", status="failed", counts=True, due_in=None),
    # the recipient
    Row(
        reply="550 5.4.1 Recipient address rejected: Access denied. AS(201806281) [x.outlook.com 2026-01-01T00 08D]",
        phase=Phase.RCPT,
        kind=DIRECT,
        status="failed",
        counts=True,
        due_in=None,
    ),
    Row(
        reply="550 5.4.1 Recipient address rejected: Access denied. For more information see "
        "https://aka.ms/EXOSmtpErrors",
        phase=Phase.RCPT,
        kind=RELAY,
        status="failed",
        counts=True,
        due_in=None,
    ),
    Row(
        reply="550 5.2.122 The recipient has exceeded their limit for the number of messages they can receive "
        "per hour",
        phase=Phase.RCPT,
        counts=True,
        due_in=HOUR,
    ),
    Row(reply="451 4.2.1 greylisted, come back", phase=Phase.RCPT, kind=SMARTHOST, counts=True, due_in=30.0),
    # a parameter that the peer does not take is this message's own
    Row(
        reply="501 5.5.4 Invalid arguments",
        phase=Phase.RCPT,
        kind=SMARTHOST,
        status="failed",
        counts=True,
        due_in=None,
    ),
    Row(reply="503 5.5.1 Bad sequence of commands", phase=Phase.MAIL, kind=SMARTHOST, rests="lane"),
    # the sender's window: nobody fails, the sender waits
    Row(
        reply="550 5.7.236 Your message can't be sent because your tenant exceeded its daily limit for sending "
        "email to external recipients from your tenant's onmicrosoft.com domains",
        rests="sender",
        first=HOUR,
    ),
    # a single recipient is never split: it is passing trouble
    Row(reply="452 4.5.3 Too many recipients", phase=Phase.RCPT, kind=DIRECT, counts=True, due_in=30.0),
    Row(reply="550 5.5.3 STOREDRV; too many recipients (RESOLVER.ADR.RecipLimit)", counts=True, due_in=30.0),
]


def _name(row: Row) -> str:
    return f"{row.phase.word}: {row.reply[:32]}"


@pytest.mark.parametrize("row", ROWS, ids=_name)
def test_what_one_refused_recipient_pays(row: Row) -> None:
    """Each row of the table: what rests and for how long, the state, the try and the wait."""
    judged = judge(a_case(kind=row.kind), said_at(row.phase, row.reply))

    (verdict,) = judged.recipients
    assert (judged.trouble and judged.trouble.scope) == row.rests
    assert (verdict.status, verdict.counts, verdict.due_in) == (row.status, row.counts, row.due_in)
    if row.first is not None:
        assert judged.trouble is not None
        assert judged.trouble.first == row.first


@pytest.mark.parametrize("row", ROWS, ids=_name)
def test_the_error_says_whether_it_is_tried_again(row: Row) -> None:
    """`retryable` is the recipient's own future; what rests is tried again in any case."""
    judged = judge(a_case(kind=row.kind), said_at(row.phase, row.reply))

    assert judged.error is not None
    assert judged.error["retryable"] is (row.status == "deferred")
    assert judged.error["diagnosis"]["remedy"]
    assert judged.error["phase"] == row.phase.word
    assert judged.trouble is None or judged.trouble.error["retryable"] is True


@pytest.mark.parametrize("row", ROWS, ids=_name)
def test_the_lane_is_well_unless_it_rests(row: Row) -> None:
    """A peer that judged the message, its sender or its recipients has shown that the way works."""
    judged = judge(a_case(kind=row.kind), said_at(row.phase, row.reply))

    assert judged.lane_well is (row.rests != "lane")


def test_a_blocked_mailbox_rests_a_day_and_is_then_probed_rarely() -> None:
    """5.2.25x: more tries make it worse, so the first one is after 24 hours and the next every four."""
    judged = judge(
        a_case(), after_the_dot("550 5.2.251 Sender throttled due to continuous mailbox full errors")
    )

    trouble = judged.trouble
    assert trouble is not None
    assert trouble.first == 24 * HOUR
    assert min(trouble.cap, trouble.first * trouble.factor) == 4 * HOUR


def test_the_quick_policy_is_quick_everywhere() -> None:
    """With a cap of 9 s an hour's rest takes 36 s: a hundredth, like everything else."""
    policy = Policy(
        lease=2.0,
        poll_interval=0.3,
        retry=Retry(first=0.2, factor=2.0, cap=9.0),
        uncertain_after=1.0,
        shutdown_grace=5.0,
    )
    quota = (
        "550 5.1.90 Your message can't be sent because you've reached your daily limit for message recipients"
    )

    judged = judge(a_case(policy=policy), after_the_dot(quota))

    assert judged.trouble is not None
    assert judged.trouble.first == pytest.approx(36.0)


# -- several recipients -----------------------------------------------------------------------


def judged_rcpts(
    replies: Mapping[str, str], *, taken: bool, kind: RouteKind = RELAY, tries: int = 0
) -> Judgement:
    """Judge a transaction with these replies to RCPT, ended by a 250 where one was accepted."""
    final = TAKEN if taken else None
    report = a_report(dict(replies), final=final, dot_sent=taken, phase=Phase.REPLY if taken else Phase.RCPT)
    return judge(a_case(*replies, kind=kind, tries=tries), report)


TOO_MANY = "452 4.5.3 Too many recipients"


def test_surplus_recipients_go_at_once() -> None:
    """452 4.5.3 beside others that were taken: due at once, without a try of their own, and nothing to halve."""
    judged = judged_rcpts(
        {"a@x.example": "250 OK", "b@x.example": TOO_MANY, "c@x.example": TOO_MANY}, taken=True
    )

    assert judged.outcome == "partial"
    assert [each.status for each in judged.recipients] == ["sent", "deferred", "deferred"]
    assert [each.due_in for each in judged.recipients[1:]] == [0.0, 0.0]
    assert [each.counts for each in judged.recipients[1:]] == [False, False]
    assert (judged.split, judged.trouble, judged.lane_well) == (False, None, True)


@pytest.mark.parametrize("old", ["452 4.5.3 Too many recipients", "452 too many recipients"])
def test_nobody_taken_of_too_many_is_halved(old: str) -> None:
    """All refused as too many: the delivery is halved and due at once."""
    judged = judged_rcpts({"a@x.example": old, "b@x.example": old}, taken=False)

    assert judged.outcome == "deferred"
    assert judged.split is True
    assert [each.due_in for each in judged.recipients] == [0.0, 0.0]
    assert [each.counts for each in judged.recipients] == [False, False]
    assert judged.trouble is None


def test_too_many_after_the_dot_is_halved() -> None:
    """A limit on recipients that is told only after the content halves the delivery as well."""
    rcpt = {f"user{n}@x.example": "250 OK" for n in range(3)}

    judged = judge(
        a_case(*rcpt), after_the_dot("550 5.5.3 too many recipients (RESOLVER.ADR.RecipLimit)", rcpt)
    )

    assert judged.split is True
    assert {each.status for each in judged.recipients} == {"deferred"}


def test_one_recipient_that_is_too_many_waits_longer_each_time() -> None:
    """A delivery of one cannot be split, so it never comes back at once."""
    first = judged_rcpts({"a@x.example": TOO_MANY}, taken=False)
    later = judged_rcpts({"a@x.example": TOO_MANY}, taken=False, tries=3)

    assert (first.split, later.split) == (False, False)
    assert [first.recipients[0].due_in, later.recipients[0].due_in] == [30.0, 240.0]
    assert first.recipients[0].counts is True


def test_external_recipients_wait_while_internal_ones_are_taken() -> None:
    """The tenant's budget rests although this transaction took somebody; the lane is well."""
    refusal = "550 5.7.233 Your message can't be sent because your tenant exceeded its daily limit for sending email"
    judged = judged_rcpts({"ana@contoso.com": "250 OK", "x@example.com": refusal}, taken=True)

    assert [each.status for each in judged.recipients] == ["sent", "deferred"]
    assert judged.trouble is not None
    assert judged.trouble.scope == "external"
    assert judged.lane_well is True
    assert judged.recipients[1].counts is False
    assert judged.recipients[1].due_in == HOUR


def test_a_throttle_at_one_recipient_rests_the_lane_although_another_was_taken() -> None:
    """The server asks us to slow down, and means everybody."""
    busy = "451 4.7.500 Server busy. Please try again later from [203.0.113.10]. (S77714)"

    judged = judged_rcpts({"a@x.example": "250 OK", "b@x.example": busy}, taken=True, kind=DIRECT)

    assert [each.status for each in judged.recipients] == ["sent", "deferred"]
    assert judged.trouble is not None
    assert judged.trouble.scope == "lane"
    assert judged.lane_well is False
    assert judged.recipients[1].counts is False


def test_what_was_taken_shows_that_the_way_works() -> None:
    """An administrator's error for one recipient does not rest a lane that just took another one."""
    refusal = "550 5.7.64 TenantAttribution; Relay Access Denied ATTR36"

    judged = judged_rcpts({"a@contoso.com": "250 OK", "b@example.com": refusal}, taken=True)

    assert judged.trouble is None
    assert judged.lane_well is True
    assert judged.recipients[1].counts is True
    assert (judged.recipients[1].due_in or 0.0) >= 15 * MINUTE


def test_the_widest_rest_wins() -> None:
    """A banned address beside an unknown recipient: the lane rests, and the unknown one fails by itself."""
    judged = judged_rcpts(
        {
            "nobody@x.example": "550 5.4.1 Recipient address rejected: Access denied. AS(201806281)",
            "a@x.example": "550 5.7.606 Access denied, banned sending IP [203.0.113.10]",
        },
        taken=False,
        kind=DIRECT,
    )

    assert judged.trouble is not None
    assert judged.trouble.scope == "lane"
    assert [each.status for each in judged.recipients] == ["failed", "deferred"]
    assert judged.error == judged.recipients[1].error


def test_one_number_with_two_meanings() -> None:
    """5.2.252 is a refused sender and a blocked mailbox; 5.2.2 a quota and a full mailbox: the words decide."""
    refused = judge(a_case(), after_the_dot("554 5.2.252 SendAsDenied; a not allowed to send as b"))
    blocked = judge(
        a_case(), after_the_dot("550 5.2.252 Sender throttled due to continuous send as denied errors")
    )

    assert refused.trouble is not None
    assert blocked.trouble is not None
    assert (refused.trouble.scope, blocked.trouble.scope) == ("sender", "lane")
    assert (refused.recipients[0].status, blocked.recipients[0].status) == ("failed", "deferred")


# -- tokens --------------------------------------------------------------------------------------


def test_a_refused_token_rests_the_lane_for_the_administrator() -> None:
    """The message waits, the lane is probed rarely."""
    judged = judge_token(a_case(), refused=True, detail="AADSTS7000215", retry_after=None)

    assert judged.outcome == "deferred"
    assert judged.trouble is not None
    assert (judged.trouble.scope, judged.recipients[0].counts) == ("lane", False)
    assert judged.trouble.first >= 15 * MINUTE


def test_the_token_services_wish_is_kept() -> None:
    """Retry-After is the least rest, also where our own would be shorter."""
    judged = judge_token(a_case(), refused=False, detail="busy", retry_after=7_200.0)

    assert judged.trouble is not None
    assert judged.trouble.first == 7_200.0
    assert judged.trouble.cap >= 7_200.0
