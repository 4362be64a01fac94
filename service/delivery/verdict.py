"""What came of an attempt: the only place that says what a reply or a fault means for us.

Pure functions. The scope of the damage decides:

- trouble of the *route* (no connection, TLS, login, 421, the service itself) rests the lane;
  the recipients stay due and none of their tries is used up. The lane is then probed by one
  attempt at a time.
- trouble of the *message* or of a *recipient* touches only these: another try later, or the
  end.
- silence after the final dot is neither: the recipients are `uncertain` (RFC 1047).

What a reply means stands in the catalogue of diagnoses; here it is turned into states.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from service.delivery.schedule import Policy, wait_before
from service.ledger.claiming import Claimed, ClaimedRecipient
from service.ledger.closing import RecipientVerdict, Trouble
from service.ledger.states import Outcome, Status
from service.routes import diagnoses
from service.routes.diagnoses import Class, Diagnosis
from service.smtp.faults import SmtpFault
from service.smtp.phase import Phase
from service.smtp.reply import Reply
from service.smtp.session import Report

#: Trouble with the route pauses its lane; an administrator's business is probed rarely, because
#: repeating it gets the mailbox throttled ("Sender throttled due to continuous ... errors").
_FIRST_PAUSE = {Class.T1: 2.0, Class.T2: 300.0, Class.T3: 900.0, Class.A: 60.0, Class.CFG: 60.0}

#: Replies to RCPT, by the recipient's address.
Replies = Mapping[str, Reply]

_OPENING = frozenset({Phase.CONNECT, Phase.GREETING, Phase.EHLO, Phase.STARTTLS, Phase.AUTH})


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Our conclusions about one attempt."""

    outcome: Outcome
    phase: Phase
    recipients: tuple[RecipientVerdict, ...]
    reply: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    trouble: Trouble | None = None
    lane_well: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What a judge must know beside what happened."""

    claimed: Claimed
    policy: Policy
    names: Mapping[str, str]  # mailbox, sender, host: to fill the remedies
    jitter: float  # in [-1, 1]


def judge(case: Case, report: Report) -> Judgement:
    """Judge one transaction by what the wire said."""
    if report.uncertain:
        fault = report.fault
        return _silence(
            case,
            phase=Phase.DOT,
            rcpt=_rcpt_replies(report),
            reply=None if fault is None else fault.reply,
            detail=None if fault is None else fault.detail,
        )
    if report.final is not None:
        return (
            _by_recipient(case, report)
            if report.final.positive()
            else _refused(case, report, report.final, phase=Phase.REPLY)
        )
    if report.fault is not None:
        return _broken(case, report, report.fault)
    if report.fenced:
        lost = diagnoses.of_code("lease_lost")
        return _all(case, lost, phase=report.phase, reply=None, rcpt=_rcpt_replies(report), counts=False)
    if report.data is not None and not report.data.intermediate():
        return _refused(case, report, report.data, phase=Phase.DATA)
    if report.mail is not None and not report.mail.positive():
        return _refused(case, report, report.mail, phase=Phase.MAIL)
    return _by_recipient(case, report)


def judge_opening(case: Case, fault: SmtpFault) -> Judgement:
    """Judge an attempt that never got a session: trouble of the route, whatever it was."""
    diagnosis = diagnoses.of_fault(fault)
    return _route_trouble(case, diagnosis, phase=fault.phase, reply=fault.reply, detail=fault.detail)


def judge_token(case: Case, *, refused: bool, detail: str, retry_after: float | None) -> Judgement:
    """Judge an attempt that got no access token."""
    diagnosis = diagnoses.of_code("token_refused" if refused else "token_unavailable")
    return _route_trouble(case, diagnosis, phase=Phase.AUTH, reply=None, detail=detail, at_least=retry_after)


def judge_abort(case: Case, *, phase: Phase, dot_sent: bool) -> Judgement:
    """Judge an attempt that we stopped ourselves at the end of our grace."""
    if dot_sent:
        detail = "Postroom was stopped while it waited for the reply"
        return _silence(case, phase=Phase.DOT, rcpt={}, reply=None, detail=detail)
    error = diagnoses.error(
        diagnoses.of_code("aborted"), phase=phase.word, reply=None, retryable=True, names=case.names
    )
    return Judgement(
        outcome=Outcome.ABORTED,
        phase=phase,
        error=error,
        recipients=tuple(
            _verdict(recipient, Status.QUEUED, error=None, due_in=0.0, counts=False, reason="aborted")
            for recipient in case.claimed.recipients
        ),
    )


def judge_without_ledger(case: Case) -> Judgement:
    """Judge an attempt whose content the ledger could not give: a sick ledger stops sending."""
    sick = diagnoses.of_code("ledger_unavailable")
    return _all(case, sick, phase=Phase.CONNECT, reply=None, rcpt=None, counts=False)


def judge_bug(case: Case, detail: str) -> Judgement:
    """Judge an attempt that failed by a mistake of ours, before the dot."""
    internal = diagnoses.of_code("internal")
    return _all(case, internal, phase=Phase.CONNECT, reply=None, rcpt=None, counts=True, detail=detail)


# -- by scope ---------------------------------------------------------------------------------


def _route_trouble(
    case: Case,
    diagnosis: Diagnosis,
    *,
    phase: Phase,
    reply: Reply | None,
    rcpt: Replies | None = None,
    detail: str | None = None,
    at_least: float | None = None,
) -> Judgement:
    """Rest the lane; the recipients stay due and keep their tries."""
    judgement = _all(case, diagnosis, phase=phase, reply=reply, rcpt=rcpt, counts=False, detail=detail)
    cap = case.policy.retry.cap
    if diagnosis.kind is Class.T3:
        cap = max(cap, 3600.0)
    first = max(min(_FIRST_PAUSE.get(diagnosis.kind, 2.0), cap), at_least or 0.0)
    assert judgement.error is not None
    trouble = Trouble(scope="lane", error=judgement.error, first=first, factor=2.0, cap=max(cap, first))
    return replace(judgement, trouble=trouble, lane_well=False)


def _broken(case: Case, report: Report, fault: SmtpFault) -> Judgement:
    """Judge a dialogue that broke before the dot."""
    diagnosis = diagnoses.of_fault(fault)
    reply, rcpt = fault.reply, _rcpt_replies(report)
    if report.untouched or fault.phase in _OPENING or (reply is not None and _of_the_route(diagnosis, reply)):
        return _route_trouble(case, diagnosis, phase=fault.phase, reply=reply, rcpt=rcpt, detail=fault.detail)
    return _all(case, diagnosis, phase=report.phase, reply=reply, rcpt=rcpt, counts=True, detail=fault.detail)


def _refused(case: Case, report: Report, reply: Reply, *, phase: Phase) -> Judgement:
    """Judge a negative reply that concerns every recipient of the transaction."""
    diagnosis = diagnoses.of_reply(reply, phase)
    if _of_the_route(diagnosis, reply):
        return _route_trouble(case, diagnosis, phase=phase, reply=reply, rcpt=_rcpt_replies(report))
    judgement = _all(case, diagnosis, phase=phase, reply=reply, rcpt=_rcpt_replies(report), counts=True)
    return replace(judgement, lane_well=True)


def _of_the_route(diagnosis: Diagnosis, reply: Reply) -> bool:
    """Say whether this refusal speaks of the way, not of the message."""
    if reply.code == 421 or (reply.enhanced or "").startswith("4.3."):
        return True
    return diagnosis.kind in {Class.T2, Class.T3, Class.A, Class.CFG}


def _by_recipient(case: Case, report: Report) -> Judgement:
    """Judge each recipient by its own reply, and those that were taken by the one to the dot."""
    rcpt = _rcpt_replies(report)
    refused = {email: reply for email, reply in rcpt.items() if not reply.positive()}
    first_refusal = next(iter(refused.values()), None)
    if first_refusal is not None and len(refused) == len(rcpt):
        diagnosis = diagnoses.of_reply(first_refusal, Phase.RCPT)
        if _of_the_route(diagnosis, first_refusal):
            return _route_trouble(case, diagnosis, phase=Phase.RCPT, reply=first_refusal, rcpt=rcpt)
    phase = Phase.RCPT if report.final is None else Phase.REPLY
    verdicts = tuple(
        _by_own_reply(case, recipient, own)
        if own is not None and not own.positive()
        else _taken(recipient, own, report)
        for recipient in case.claimed.recipients
        for own in (rcpt.get(recipient.email),)
    )
    return Judgement(
        outcome=_outcome(verdicts),
        phase=phase,
        recipients=verdicts,
        reply=None if report.final is None else report.final.as_json(),
        error=next((verdict.error for verdict in verdicts if verdict.error is not None), None),
        lane_well=True,
    )


def _taken(recipient: ClaimedRecipient, own: Reply | None, report: Report) -> RecipientVerdict:
    return _verdict(
        recipient,
        Status.SENT,
        error=None,
        due_in=None,
        counts=True,
        reply=report.final,
        own=own,
        reason="accepted",
    )


def _by_own_reply(case: Case, recipient: ClaimedRecipient, own: Reply) -> RecipientVerdict:
    diagnosis = diagnoses.of_reply(own, Phase.RCPT)
    return _deferred(case, recipient, diagnosis, phase=Phase.RCPT, reply=own, own=own, counts=True)


def _rcpt_replies(report: Report) -> Replies:
    return {str(address): reply for address, reply in report.recipients.items()}


def _silence(
    case: Case, *, phase: Phase, rcpt: Replies, reply: Reply | None, detail: str | None
) -> Judgement:
    """The dot was sent: what the peer had accepted until then is uncertain, nothing else is."""
    resend = case.claimed.on_uncertain == "resend"
    error = diagnoses.error(
        diagnoses.of_code("uncertain"),
        phase=phase.word,
        reply=reply,
        retryable=resend,
        names=case.names,
        detail=detail,
    )
    due_in = case.policy.uncertain_after if resend else None
    verdicts = tuple(
        _by_own_reply(case, recipient, own)
        if own is not None and not own.positive()
        else _verdict(
            recipient, Status.UNCERTAIN, error=error, due_in=due_in, counts=True, reply=reply, own=own
        )
        for recipient in case.claimed.recipients
        for own in (rcpt.get(recipient.email),)
    )
    return Judgement(
        outcome=Outcome.UNCERTAIN,
        phase=phase,
        reply=None if reply is None else reply.as_json(),
        error=error,
        recipients=verdicts,
    )


def _all(
    case: Case,
    diagnosis: Diagnosis,
    *,
    phase: Phase,
    reply: Reply | None,
    rcpt: Replies | None,
    counts: bool,
    detail: str | None = None,
) -> Judgement:
    """Give every recipient of the attempt the same verdict; what was refused by itself stays so."""
    rcpt = rcpt or {}
    verdicts = tuple(
        _by_own_reply(case, recipient, own)
        if counts and own is not None and own.permanent()
        else _deferred(
            case, recipient, diagnosis, phase=phase, reply=reply, own=own, counts=counts, detail=detail
        )
        for recipient in case.claimed.recipients
        for own in (rcpt.get(recipient.email),)
    )
    return Judgement(
        outcome=_outcome(verdicts),
        phase=phase,
        recipients=verdicts,
        reply=None if reply is None else reply.as_json(),
        error=verdicts[0].error,
    )


def _deferred(
    case: Case,
    recipient: ClaimedRecipient,
    diagnosis: Diagnosis,
    *,
    phase: Phase,
    reply: Reply | None,
    own: Reply | None,
    counts: bool,
    detail: str | None = None,
) -> RecipientVerdict:
    """Try again where it can heal, and give up where it cannot."""
    heals = not counts or diagnosis.kind in {Class.T1, Class.T2, Class.T3}
    error = diagnoses.error(
        diagnosis,
        phase=phase.word,
        reply=reply,
        retryable=heals,
        names={**case.names, "recipient": recipient.email},
        detail=detail,
    )
    if not heals:
        return _verdict(recipient, Status.FAILED, error=error, due_in=None, counts=True, reply=reply, own=own)
    at_once = not counts or diagnosis.code == "too_many_recipients"
    due_in = 0.0 if at_once else wait_before(recipient.tries + 1, retry=case.policy.retry, jitter=case.jitter)
    return _verdict(
        recipient, Status.DEFERRED, error=error, due_in=due_in, counts=counts, reply=reply, own=own
    )


def _outcome(verdicts: tuple[RecipientVerdict, ...]) -> Outcome:
    states = {verdict.status for verdict in verdicts}
    if states == {Status.SENT}:
        return Outcome.SENT
    if Status.SENT in states:
        return Outcome.PARTIAL
    return Outcome.DEFERRED if Status.DEFERRED in states else Outcome.FAILED


def _verdict(
    recipient: ClaimedRecipient,
    status: Status,
    *,
    error: dict[str, Any] | None,
    due_in: float | None,
    counts: bool,
    reply: Reply | None = None,
    own: Reply | None = None,
    reason: str | None = None,
) -> RecipientVerdict:
    return RecipientVerdict(
        position=recipient.position,
        email=recipient.email,
        status=status,
        reason=reason or (str(error["code"]) if error else status.value),
        reply=None if reply is None else reply.as_json(),
        rcpt_reply=None if own is None else own.as_json(),
        error=error,
        due_in=due_in,
        counts=counts,
    )
