"""What came of an attempt: the only place that says what a reply or a fault means for us.

Pure functions, total: no reply whatever leaves a recipient without a verdict. What a reply
means stands in the catalogue of diagnoses; here it is turned into states.

Who was refused at its own RCPT is judged by that reply, and everybody else by what ended the
transaction. Then the scope of the damage decides:

    lane       the way is in trouble: the lane rests and is probed by one attempt at a time; the
               recipients stay due, and none of their tries is used up
    sender     the peer refuses this reverse-path: the recipients of this message fail where an
               administrator must act, so that the application hears of it; what else this sender
               has on the lane waits, because the same error once more and once more gets the
               mailbox blocked for good mail too ("Sender throttled due to continuous ... errors")
    external   the tenant's budget of external recipients is used up: they wait, the others go on
    split      too many recipients: the rest goes at once, in smaller transactions
    message    only this message, or
    recipient  only this recipient: another try later, or the end

A recipient that the peer took beside those that it refused shows that lane and sender are
well, so that a refusal then rests them only where it is a throttle.

Silence after the final dot is none of this: the recipients are `uncertain` (RFC 1047).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from service.delivery.schedule import Policy, rest_for, retry_for, wait_before
from service.ledger.claiming import Claimed, ClaimedRecipient
from service.ledger.closing import RecipientVerdict, Trouble
from service.ledger.states import Outcome, Status
from service.mail.address import Address
from service.routes import diagnoses
from service.routes.diagnoses import Class, Diagnosis, Scope
from service.routes.route import RouteKind
from service.smtp.faults import SmtpFault
from service.smtp.phase import Phase
from service.smtp.reply import Reply
from service.smtp.session import Report

#: What can rest as a whole, the widest first: one attempt rests one of them.
_RESTS: Mapping[Scope, Literal["lane", "external", "sender"]] = {
    Scope.LANE: "lane",
    Scope.EXTERNAL: "external",
    Scope.SENDER: "sender",
}

#: A command whose parameters the peer does not take (RFC 5321 §4.2.2).
_ARGUMENTS = frozenset({501, 504, 555})

#: What heals by itself.
_PASSING = frozenset({Class.T1, Class.T2, Class.T3})

#: What holds for others too, although some were taken.
_THROTTLES = frozenset({Class.T2, Class.T3})


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Our conclusions about one attempt."""

    outcome: Outcome
    phase: Phase
    recipients: tuple[RecipientVerdict, ...]
    reply: dict[str, Any] | None = None  # of the end of data, or the one that ended it
    error: dict[str, Any] | None = None
    trouble: Trouble | None = None
    lane_well: bool = False  # the peer took the message, or judged it by itself
    split: bool = False  # nobody was taken, because there were too many: halve the delivery
    peer_trailer: dict[str, Any] | None = None  # of the reply that decided


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What a judge must know beside what happened."""

    claimed: Claimed
    kind: RouteKind
    policy: Policy
    names: Mapping[str, str]  # mailbox, sender, host …: to fill the remedies
    jitter: float  # in [-1, 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cause:
    """Why a recipient was not taken."""

    diagnosis: Diagnosis
    scope: Scope
    phase: Phase
    reply: Reply | None = None
    detail: str | None = None
    free: bool = False  # our own affair: due at once, it costs no try and rests nothing

    @property
    def heals(self) -> bool:
        """Whether it may be tried again by itself."""
        if self.free or self.diagnosis.kind in _PASSING:
            return True
        if self.scope in {Scope.LANE, Scope.EXTERNAL, Scope.SPLIT}:
            return True  # the way must be mended, and then the message goes
        for_somebody = self.diagnosis.kind in {Class.A, Class.CFG}
        return for_somebody and self.reply is not None and self.reply.transient()


def judge(case: Case, report: Report) -> Judgement:
    """Judge one transaction by what the wire said."""
    own = _own_replies(case, report)
    if report.uncertain:
        fault = report.fault
        return _silence(
            case,
            own,
            reply=None if fault is None else fault.reply,
            detail=None if fault is None else fault.detail,
        )
    if report.final is not None and report.final.positive():
        return _conclude(case, own, final=report.final)
    return _conclude(case, own, ending=_ending(case, report))


def judge_opening(case: Case, fault: SmtpFault) -> Judgement:
    """Judge an attempt that never got a session: trouble of the route, whatever it was."""
    diagnosis = diagnoses.of_fault(fault, case.kind)
    ending = _Cause(
        diagnosis=diagnosis, scope=Scope.LANE, phase=fault.phase, reply=fault.reply, detail=fault.detail
    )
    return _conclude(case, {}, ending=ending)


def judge_token(case: Case, *, refused: bool, detail: str, retry_after: float | None) -> Judgement:
    """Judge an attempt that got no access token. `retry_after` is the token service's wish, in seconds."""
    diagnosis = diagnoses.of_code("token_refused" if refused else "token_unavailable")
    ending = _Cause(diagnosis=diagnosis, scope=Scope.LANE, phase=Phase.AUTH, detail=detail)
    judgement = _conclude(case, {}, ending=ending)
    trouble = judgement.trouble
    if trouble is None or retry_after is None:
        return judgement
    patient = replace(
        trouble, first=max(trouble.first, retry_after), cap=max(trouble.cap, trouble.first, retry_after)
    )
    return replace(judgement, trouble=patient)


def judge_abort(
    case: Case, *, phase: Phase, dot_sent: bool, code: str = "aborted", report: Report | None = None
) -> Judgement:
    """Judge an attempt that we stopped ourselves: at the end of our grace, or for what `code` says.

    `report` is what the peer had said until then.
    """
    own = {} if report is None else _own_replies(case, report)
    if dot_sent:
        detail = "Postroom was stopped while it waited for the reply"
        return _silence(case, own, reply=None, detail=detail)
    error = diagnoses.error(
        diagnoses.of_code(code), phase=phase.word, reply=None, retryable=True, names=case.names
    )
    return Judgement(
        outcome=Outcome.ABORTED,
        phase=phase,
        error=error,
        recipients=tuple(
            _verdict(
                recipient,
                Status.QUEUED,
                error=None,
                due_in=0.0,
                counts=False,
                own=own.get(recipient.position),
                reason=code,
            )
            for recipient in case.claimed.recipients
        ),
    )


def judge_without_ledger(case: Case) -> Judgement:
    """Judge an attempt whose content the ledger could not give: a sick ledger stops sending."""
    return _conclude(case, {}, ending=_our_own("ledger_unavailable", phase=Phase.CONNECT))


def judge_bug(case: Case, detail: str) -> Judgement:
    """Judge an attempt that failed by a mistake of ours, before the dot."""
    internal = diagnoses.of_code("internal")
    ending = _Cause(diagnosis=internal, scope=Scope.MESSAGE, phase=Phase.CONNECT, detail=detail)
    return _conclude(case, {}, ending=ending)


# -- why ----------------------------------------------------------------------------------------

#: Replies to RCPT, by the recipient's position in the message.
_Own = Mapping[int, Reply]


def _own_replies(case: Case, report: Report) -> _Own:
    """Find each recipient's own reply; compared as addresses, because a text can be written in two ways."""
    found = (
        (recipient.position, report.recipients.get(Address.parse(recipient.email)))
        for recipient in case.claimed.recipients
    )
    return {position: reply for position, reply in found if reply is not None}


def _ending(case: Case, report: Report) -> _Cause | None:
    """Say what ended the transaction before its time; None where all recipients were refused."""
    if report.final is not None:
        return _refusal(case, report.final, phase=Phase.REPLY)
    if report.begun_behind:
        return _our_own("session_ended_behind", phase=report.phase)
    if report.fault is not None:
        return _broken(case, report, report.fault)
    if report.fenced:
        return _our_own("lease_lost", phase=report.phase)
    if report.data is not None and not report.data.intermediate():
        return _refusal(case, report.data, phase=Phase.DATA)
    if report.mail is not None and not report.mail.positive():
        return _refusal(case, report.mail, phase=Phase.MAIL)
    return None


def _refusal(case: Case, reply: Reply, *, phase: Phase, detail: str | None = None) -> _Cause:
    diagnosis = diagnoses.of_reply(reply, phase, case.kind)
    scope = diagnosis.scope
    if reply.code == 421:
        scope = Scope.LANE  # it ends the session, whatever its words are about (RFC 5321 §3.8)
    elif scope is Scope.LANE and reply.code in _ARGUMENTS and phase in {Phase.MAIL, Phase.RCPT}:
        scope = Scope.MESSAGE  # the arguments are this message's own, and must not stop the others
    return _Cause(diagnosis=diagnosis, scope=scope, phase=phase, reply=reply, detail=detail)


def _broken(case: Case, report: Report, fault: SmtpFault) -> _Cause:
    """Find the cause in a dialogue that broke before the dot."""
    diagnosis = diagnoses.of_fault(fault, case.kind)
    if report.untouched or fault.phase <= Phase.AUTH:
        scope = Scope.LANE
    elif fault.reply is not None and fault.reply.code >= 400:
        return _refusal(case, fault.reply, phase=fault.phase, detail=fault.detail)
    else:
        # The peer said nothing: this message may be the reason, so that the others go on.
        scope = Scope.MESSAGE
    return _Cause(diagnosis=diagnosis, scope=scope, phase=fault.phase, reply=fault.reply, detail=fault.detail)


def _our_own(code: str, *, phase: Phase) -> _Cause:
    return _Cause(diagnosis=diagnoses.of_code(code), scope=Scope.MESSAGE, phase=phase, free=True)


def _causes(case: Case, own: _Own, ending: _Cause | None, final: Reply | None) -> dict[int, _Cause | None]:
    """Say for each recipient why it was not taken; None for those that were."""
    causes: dict[int, _Cause | None] = {}
    for recipient in case.claimed.recipients:
        reply = own.get(recipient.position)
        if reply is not None and not reply.positive():
            causes[recipient.position] = _refusal(case, reply, phase=Phase.RCPT)
        elif ending is not None:
            causes[recipient.position] = ending
        elif reply is not None and final is not None:
            causes[recipient.position] = None
        else:
            # Nothing was said of it at all: it was not taken, and nobody knows more.
            lost = diagnoses.of_code("connection_lost")
            causes[recipient.position] = _Cause(diagnosis=lost, scope=Scope.MESSAGE, phase=Phase.RCPT)
    return causes


def _resting(causes: Sequence[_Cause | None]) -> _Cause | None:
    """Find the cause that rests the lane, the tenant's external mail or the sender, where there is one."""
    some_taken = None in causes
    for scope in _RESTS:
        for cause in causes:
            if cause is None or cause.free or cause.scope is not scope:
                continue
            if not some_taken or cause.diagnosis.kind in _THROTTLES:
                return cause
    return None


# -- what follows ---------------------------------------------------------------------------------


def _conclude(
    case: Case, own: _Own, *, ending: _Cause | None = None, final: Reply | None = None
) -> Judgement:
    """Turn causes into verdicts, and say what has to rest."""
    causes = _causes(case, own, ending, final)
    resting = _resting(list(causes.values()))
    verdicts = tuple(
        _taken(recipient, own=own[recipient.position], final=final)
        if cause is None
        else _not_taken(case, recipient, cause, own=own.get(recipient.position), resting=resting)
        for recipient in case.claimed.recipients
        for cause in (causes[recipient.position],)
    )
    first = ending or next((cause for cause in causes.values() if cause is not None), None)
    said = final or (ending.reply if ending else None) or (resting.reply if resting else None)
    decider = said or (first.reply if first else None)
    too_many = [cause for cause in causes.values() if cause is not None and cause.scope is Scope.SPLIT]
    error = _first_error(verdicts, causes, resting or ending)
    return Judgement(
        outcome=_outcome(verdicts),
        phase=_phase(ending, final),
        recipients=verdicts,
        reply=None if said is None else said.as_json(),
        error=error,
        trouble=_trouble(case, resting, error),
        lane_well=_well(own, ending, final, resting),
        split=None not in causes.values() and len(too_many) > 1,
        peer_trailer=None if decider is None else _trailer(decider),
    )


def _trailer(reply: Reply) -> dict[str, Any] | None:
    found = diagnoses.trailer(reply.text)
    return None if found is None else found.as_json()


def _phase(ending: _Cause | None, final: Reply | None) -> Phase:
    if ending is not None:
        return ending.phase
    return Phase.RCPT if final is None else Phase.REPLY


def _well(own: _Own, ending: _Cause | None, final: Reply | None, resting: _Cause | None) -> bool:
    """Say whether the lane was seen to work: the peer spoke about this message, and not about its way."""
    if resting is not None and resting.scope is Scope.LANE:
        return False
    if ending is not None:
        return ending.reply is not None and ending.reply.code >= 400 and not ending.free
    return final is not None or bool(own)


def _trouble(case: Case, resting: _Cause | None, error: dict[str, Any] | None) -> Trouble | None:
    if resting is None:
        return None
    rest = rest_for(resting.diagnosis, case.policy)
    return Trouble(
        scope=_RESTS[resting.scope],
        # What rests is tried again, also where this message was not worth another try.
        error={**(error or {}), "retryable": True},
        first=rest.first,
        factor=rest.factor,
        cap=rest.cap,
    )


def _first_error(
    verdicts: Sequence[RecipientVerdict], causes: Mapping[int, _Cause | None], most_telling: _Cause | None
) -> dict[str, Any] | None:
    """Choose the attempt's error among its recipients': what ended it or rests something before the others."""
    telling = [each for each in verdicts if most_telling and causes[each.position] == most_telling]
    return next((each.error for each in (*telling, *verdicts) if each.error is not None), None)


def _taken(recipient: ClaimedRecipient, *, own: Reply, final: Reply | None) -> RecipientVerdict:
    return _verdict(
        recipient,
        Status.SENT,
        error=None,
        due_in=None,
        counts=True,
        reply=final,
        own=own,
        reason="accepted",
    )


def _not_taken(
    case: Case, recipient: ClaimedRecipient, cause: _Cause, *, own: Reply | None, resting: _Cause | None
) -> RecipientVerdict:
    """Try again where it can heal, and give up where it cannot."""
    error = diagnoses.error(
        cause.diagnosis,
        phase=cause.phase.word,
        reply=cause.reply,
        retryable=cause.heals,
        names={**case.names, "recipient": recipient.email},
        detail=cause.detail,
    )
    if not cause.heals:
        return _verdict(
            recipient, Status.FAILED, error=error, due_in=None, counts=True, reply=cause.reply, own=own
        )
    due_in, counts = _next_try(case, recipient, cause, resting)
    return _verdict(
        recipient, Status.DEFERRED, error=error, due_in=due_in, counts=counts, reply=cause.reply, own=own
    )


def _next_try(
    case: Case, recipient: ClaimedRecipient, cause: _Cause, resting: _Cause | None
) -> tuple[float, bool]:
    """Say in how many seconds a recipient is due again, and whether this was a try of its own."""
    if cause.free or (cause.scope is Scope.SPLIT and len(case.claimed.recipients) > 1):
        return 0.0, False
    if resting is not None and cause.scope is resting.scope:
        if cause.scope is not Scope.EXTERNAL:
            return 0.0, False  # it stays due; the rest of its lane or its sender holds it back
        # A lane that is not told of the tenant's budget has nothing that would hold it back.
        return wait_before(1, retry=rest_for(cause.diagnosis, case.policy), jitter=case.jitter), False
    own_retry = retry_for(cause.diagnosis, case.policy)
    return wait_before(recipient.tries + 1, retry=own_retry, jitter=case.jitter), True


def _silence(case: Case, own: _Own, *, reply: Reply | None, detail: str | None) -> Judgement:
    """The dot was sent: what the peer had accepted until then is uncertain, nothing else is."""
    resend = case.claimed.on_uncertain == "resend"
    error = diagnoses.error(
        diagnoses.of_code("uncertain"),
        phase=Phase.DOT.word,
        reply=reply,
        retryable=resend,
        names=case.names,
        detail=detail,
    )
    due_in = case.policy.uncertain_after if resend else None
    verdicts = tuple(
        _not_taken(case, recipient, _refusal(case, said, phase=Phase.RCPT), own=said, resting=None)
        if said is not None and not said.positive()
        else _verdict(
            recipient, Status.UNCERTAIN, error=error, due_in=due_in, counts=True, reply=reply, own=said
        )
        for recipient in case.claimed.recipients
        for said in (own.get(recipient.position),)
    )
    return Judgement(
        outcome=Outcome.UNCERTAIN,
        phase=Phase.DOT,
        reply=None if reply is None else reply.as_json(),
        error=error,
        recipients=verdicts,
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
