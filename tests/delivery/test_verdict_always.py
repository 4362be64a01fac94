"""What holds for every reply whatever: the judge is total, and never in a hurry by mistake."""

import json
import math
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from service.delivery.verdict import Judgement, judge, judge_opening
from service.ledger.states import MOVES, Status
from service.mail.address import Address
from service.routes.route import RouteKind
from service.smtp.faults import PeerGarbled, PeerLost, PeerRefused, PeerSilent, SmtpFault
from service.smtp.phase import Phase
from service.smtp.reply import Reply
from service.smtp.session import Report
from tests.delivery.cases import POLICY, a_case

ADDRESSES = ("ana@example.com", "bea@contoso.com", "nobody@example.com")

#: Words that Microsoft's replies are recognised by, to be put beside any digits.
WORDS = (
    "Access denied",
    "AS780090",
    "ATTR35",
    "Direct Send not allowed",
    "Recipient address rejected",
    "RESOLVER.ADR.RecipLimit",
    "STARTTLS is required",
    "SendAsDenied",
    "Sender throttled due to continuous",
    "Server busy",
    "SubmissionQuotaExceeded",
    "TenantAttribution; Relay Access Denied",
    "banned sending IP [203.0.113.10]",
    "concurrent connections limit exceeded",
    "does not pass DMARC verification",
    "mailbox full",
    "tenant external recipient rate limit",
    "too many recipients",
    "[Hostname=x.prod.outlook.com]",
    "[x.prod.outlook.com 2026-01-01T00:00:00.000Z 08DE000000000000]",
)


@st.composite
def replies(draw: st.DrawFn) -> Reply:
    """Any reply that could come off a wire: digits, an enhanced status that fits or not, words or rubbish."""
    code = draw(st.integers(200, 599))
    status = draw(
        st.sampled_from(["", "2.0.0 ", "4.3.2 ", "4.5.3 ", "4.7.500 ", "5.1.1 ", "5.2.252 ", "5.7.233 "])
    )
    if draw(st.booleans()):
        kind, subject, detail = draw(
            st.tuples(st.sampled_from("245"), st.integers(0, 9), st.integers(0, 999))
        )
        status = f"{kind}.{subject}.{detail} "
    words = draw(st.lists(st.sampled_from(WORDS), max_size=3))
    rubbish = draw(st.text(max_size=20)).replace("\n", " ").replace("\r", " ")
    return Reply.of_lines([f"{code} {status}{'; '.join(words)} {rubbish}"])


faults = st.one_of(
    st.builds(
        lambda phase, reply: PeerRefused("closing", phase=phase, detail="x", reply=reply),
        st.sampled_from(Phase),
        replies(),
    ),
    st.builds(
        lambda kind, code, phase, reply: kind(code, phase=phase, detail="x", reply=reply),
        st.sampled_from([PeerGarbled, PeerLost, PeerSilent]),
        st.sampled_from(["connection_lost", "timeout", "early_reply", "mixed_codes", "never heard of"]),
        st.sampled_from(Phase),
        st.none() | replies(),
    ),
)


@st.composite
def reports(draw: st.DrawFn) -> Report:
    """Any report, also such as no session of ours would write."""
    known = draw(st.lists(st.sampled_from(ADDRESSES), unique=True))
    dot_sent = draw(st.booleans())
    values: dict[str, Any] = {
        "phase": draw(st.sampled_from(Phase)),
        "mail": draw(st.none() | replies()),
        "recipients": {Address.parse(email): draw(replies()) for email in known},
        "data": draw(st.none() | replies()),
        "final": draw(st.none() | replies()) if dot_sent else None,
        "fault": draw(st.none() | faults),
        "dot_sent": dot_sent,
        "fenced": draw(st.booleans()),
        "untouched": draw(st.booleans()),
        "transcript": [],
        "replied_at": None,
        "octets": 10,
    }
    return Report(**values)


kinds = st.sampled_from(RouteKind)
#: No limit of time, no memory between runs.
examples = settings(deadline=None, database=None, max_examples=200)

several = st.integers(1, len(ADDRESSES)).map(lambda count: ADDRESSES[:count])


@examples
@given(report=reports(), kind=kinds, recipients=several, tries=st.integers(0, 10_000))
def test_every_recipient_gets_one_verdict_that_the_ledger_can_write(
    report: Report, kind: RouteKind, recipients: tuple[str, ...], tries: int
) -> None:
    """One legal move for each, in words and numbers that PostgreSQL takes."""
    judged = judge(a_case(*recipients, kind=kind, tries=tries), report)

    assert [each.email for each in judged.recipients] == list(recipients)
    for verdict in judged.recipients:
        assert verdict.status in MOVES[Status.SENDING]
        assert (verdict.error is None) == (verdict.status == Status.SENT)
        assert (verdict.due_in is not None) == (verdict.status in {Status.DEFERRED, Status.UNCERTAIN})
        assert verdict.due_in is None or 0.0 <= verdict.due_in < math.inf
        assert verdict.error is None or verdict.error["diagnosis"]["remedy"]
    written = [judged.reply, judged.error, judged.peer_trailer, judged.trouble and judged.trouble.error]
    assert "\\u0000" not in json.dumps(written, allow_nan=False)


@examples
@given(report=reports(), kind=kinds, recipients=several)
def test_sent_means_that_the_peer_took_it(
    report: Report, kind: RouteKind, recipients: tuple[str, ...]
) -> None:
    """A 2yz to its RCPT and a 2yz to the dot; and silence behind the dot is never a refusal or an acceptance."""
    judged = judge(a_case(*recipients, kind=kind), report)

    accepted = {str(address) for address in report.accepted}
    took = report.final is not None and report.final.positive()
    for verdict in judged.recipients:
        assert (verdict.status == Status.SENT) == (took and verdict.email in accepted)
        assert report.uncertain or verdict.status != Status.UNCERTAIN
        if report.uncertain and verdict.email in accepted:
            assert verdict.status == Status.UNCERTAIN


@examples
@given(report=reports(), kind=kinds, recipients=several)
def test_nothing_comes_back_at_once_without_a_reason(
    report: Report, kind: RouteKind, recipients: tuple[str, ...]
) -> None:
    """What is due at once is held back by a rest, travels in a smaller transaction, or was our own affair."""
    judged = judge(a_case(*recipients, kind=kind), report)

    at_once = [each for each in judged.recipients if each.due_in == 0.0]
    held_back = judged.trouble is not None and judged.trouble.scope in {"lane", "sender"}
    smaller = len(recipients) > 1 and (judged.split or len(at_once) < len(recipients))
    assert not at_once or held_back or smaller or (report.fenced and report.final is None)
    assert all(not each.counts for each in at_once)


@examples
@given(report=reports(), kind=kinds, recipients=several)
def test_a_rest_is_never_endless_and_never_nothing(
    report: Report, kind: RouteKind, recipients: tuple[str, ...]
) -> None:
    """Between a second and a day, growing or staying; and a lane that rests is not called well."""
    judged = judge(a_case(*recipients, kind=kind), report)

    _check_trouble(judged)
    assert not judged.split or sum(each.status == Status.DEFERRED for each in judged.recipients) > 1
    assert not judged.split or all(each.status != Status.SENT for each in judged.recipients)


@examples
@given(fault=faults, kind=kinds)
def test_an_opening_that_fails_always_rests_the_lane(fault: SmtpFault, kind: RouteKind) -> None:
    """Whatever was said: no message is to blame, and none pays."""
    judged = judge_opening(a_case(kind=kind), fault)

    assert judged.trouble is not None
    assert judged.trouble.scope == "lane"
    assert [each.counts for each in judged.recipients] == [False]
    _check_trouble(judged)


def _check_trouble(judged: Judgement) -> None:
    if judged.trouble is None:
        return
    assert 1.0 <= judged.trouble.first <= 86_400.0
    assert judged.trouble.factor >= 1.0
    assert judged.trouble.cap >= POLICY.retry.first
    assert not (judged.lane_well and judged.trouble.scope == "lane")
