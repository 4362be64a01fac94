"""What a reply or a fault means for us: recipients, tries and the outcome of an attempt."""

import pytest

from service.delivery.verdict import judge, judge_abort, judge_bug, judge_opening, judge_without_ledger
from service.ledger.states import MOVES, Status
from service.smtp.faults import CannotConnect, PeerGarbled, PeerLost, PeerRefused
from service.smtp.phase import Phase
from service.smtp.reply import Reply
from tests.delivery.cases import OK, POLICY, TAKEN, a_case, a_report, after_the_dot


@pytest.mark.parametrize(
    ("final", "outcome", "code"),
    [
        ("250 2.0.0 OK", "sent", None),
        ("251 2.0.0 taken elsewhere", "sent", None),
        ("200 fine", "sent", None),
        ("550 5.7.1 rejected by organization policy", "failed", None),
        ("554 5.2.252 SendAsDenied; a not allowed to send as b", "failed", "send_as_denied"),
        ("552 5.3.4 Message size exceeds fixed maximum message size", "failed", "message_too_large"),
        ("451 4.7.1 later", "deferred", None),
        ("421 4.3.2 Service not available", "deferred", None),
        (
            "432 4.3.2 Concurrent connections limit exceeded. Visit x",
            "deferred",
            "concurrent_connections",
        ),
        (
            "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded",
            "deferred",
            "concurrent_connections",
        ),
        # 5yz that are throttles
        (
            "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; x",
            "deferred",
            "recipient_quota",
        ),
        (
            "550 5.1.90 Your message can't be sent because you've reached your daily limit for message recipients",
            "deferred",
            "recipient_quota",
        ),
        ("550 5.2.252 Sender throttled due to continuous send as denied errors", "deferred", None),
        (
            "550 5.7.233 Your message can't be sent because your tenant exceeded its daily limit for sending email",
            "deferred",
            None,
        ),
    ],
)
def test_the_reply_to_the_dot(final: str, outcome: str, code: str | None) -> None:
    """Any 2yz is acceptance; a throttle spoken as 5yz fails nobody."""
    judged = judge(a_case(), after_the_dot(final))

    assert judged.outcome == outcome
    assert code is None or judged.error is not None
    assert code is None or (judged.error or {})["code"] == code


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
    assert judged.recipients[2].due_in == 30.0


def test_the_same_address_written_in_another_way_is_the_same_recipient() -> None:
    """A refusal is found although the ledger has the local part in quotes that it does not need."""
    report = a_report({"ana@x.example": "550 5.1.1 no", "b@x.example": "250 OK"}, final=OK, dot_sent=True)

    judged = judge(a_case('"ana"@x.example', "b@x.example"), report)

    assert [each.status for each in judged.recipients] == ["failed", "sent"]


def test_nobody_is_sent_who_was_not_accepted() -> None:
    """A recipient of whom the peer said nothing at all is not taken by a 250 that was for others."""
    report = a_report({"ana@example.com": "250 OK"}, final=TAKEN, dot_sent=True)

    judged = judge(a_case("ana@example.com", "bea@example.com"), report)

    assert [each.status for each in judged.recipients] == ["sent", "deferred"]


def test_a_recipient_refused_by_itself_is_not_asked_again_when_the_route_has_trouble() -> None:
    """The one that does not exist fails at once; the other waits with the lane and keeps its tries."""
    rcpt = {"nobody@x.example": "550 5.1.1 no such user", "ana@x.example": "250 OK"}
    report = after_the_dot("432 4.3.2 Concurrent connections limit exceeded.", rcpt)

    judged = judge(a_case(*rcpt), report)

    assert [each.status for each in judged.recipients] == ["failed", "deferred"]
    assert [each.counts for each in judged.recipients] == [True, False]
    assert judged.trouble is not None
    assert judged.trouble.scope == "lane"


def test_trouble_before_mail_uses_up_no_try() -> None:
    """No connection is the route's trouble: the lane rests, the recipient keeps its tries."""
    judged = judge_opening(a_case(), CannotConnect("connection_refused", phase=Phase.CONNECT, detail="x"))

    assert judged.trouble is not None
    assert judged.trouble.scope == "lane"
    assert judged.recipients[0].counts is False
    assert judged.recipients[0].due_in == 0.0
    assert judged.lane_well is False


def test_whatever_is_said_at_the_opening_rests_the_lane() -> None:
    """A reply that would fail a message does not fail it where the session was refused."""
    reply = Reply.from_text("550 5.7.1 no mail from you")
    judged = judge_opening(
        a_case(), PeerRefused("greeting_refused", phase=Phase.GREETING, detail="x", reply=reply)
    )

    assert judged.outcome == "deferred"
    assert judged.trouble is not None
    assert judged.trouble.first > 0


@pytest.mark.parametrize("phase", [Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.BODY])
def test_a_connection_that_breaks_over_a_message_does_not_rest_the_lane(phase: Phase) -> None:
    """The message itself may be the reason: it waits longer each time, and the others go on."""
    lost = PeerLost("connection_lost", phase=phase, detail="gone")

    first = judge(a_case(), a_report(phase=phase, fault=lost))
    third = judge(a_case(tries=2), a_report(phase=phase, fault=lost))

    assert first.trouble is None
    assert [each.counts for each in first.recipients] == [True]
    assert [first.recipients[0].due_in, third.recipients[0].due_in] == [30.0, 120.0]


def test_an_idle_session_that_had_ended_is_the_routes_trouble() -> None:
    """Where not even a new session could be used, the message is not to blame."""
    expired = PeerLost("session_expired", phase=Phase.CONNECT, detail="x")

    judged = judge(a_case(), a_report(phase=Phase.CONNECT, fault=expired, untouched=True))

    assert judged.trouble is not None
    assert judged.recipients[0].counts is False


def test_a_refusal_in_the_content_is_the_peers_answer() -> None:
    """A 552 in the middle of the content fails the message as it would have after the dot."""
    reply = Reply.from_text("552 5.3.4 Message size exceeds fixed maximum message size")
    fault = PeerRefused("refused_in_content", phase=Phase.BODY, detail="x", reply=reply)

    judged = judge(a_case(), a_report(phase=Phase.BODY, fault=fault))

    assert judged.outcome == "failed"
    assert judged.phase is Phase.BODY
    assert judged.lane_well is True


def test_a_421_is_a_farewell_whatever_its_words_are_about() -> None:
    """The peer ends the session: no recipient pays for that."""
    judged = judge(a_case(), after_the_dot("421 5.1.1 no such user here"))

    assert judged.trouble is not None
    assert judged.recipients[0].status == "deferred"
    assert judged.recipients[0].counts is False


def test_a_refused_fence_is_harmless() -> None:
    """A lease that was lost before the dot defers at once and counts as no try."""
    judged = judge(a_case(), a_report(fenced=True))

    assert judged.outcome == "deferred"
    assert judged.recipients[0].due_in == 0.0
    assert judged.recipients[0].counts is False
    assert judged.trouble is None


def test_a_ledger_that_cannot_give_the_content_costs_nothing() -> None:
    """Nothing was sent and nothing is anybody's fault."""
    judged = judge_without_ledger(a_case())

    assert (judged.outcome, judged.trouble) == ("deferred", None)
    assert judged.recipients[0].counts is False


def test_a_bug_of_ours_is_not_repeated_at_once() -> None:
    """It counts as a try, so that the waits grow."""
    judged = judge_bug(a_case(tries=1), "ValueError")

    assert judged.recipients[0].due_in == 60.0
    assert judged.recipients[0].counts is True
    assert judged.trouble is None


@pytest.mark.parametrize(
    ("dot_sent", "outcome", "status"), [(False, "aborted", "queued"), (True, "uncertain", "uncertain")]
)
def test_a_planned_stop(dot_sent: bool, outcome: str, status: str) -> None:
    """At the end of the grace: before the dot it is queued again, behind it it is uncertain."""
    judged = judge_abort(a_case(), phase=Phase.BODY, dot_sent=dot_sent)

    assert judged.outcome == outcome
    assert judged.recipients[0].status == status
    assert judged.recipients[0].status in MOVES[Status.SENDING]
