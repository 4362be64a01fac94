"""What a reply or a fault means, who must act, and the remedy: a catalogue, as data.

The first digit of a reply is not enough at Microsoft: some 5yz are throttles, some 4yz never
heal, one number can have two meanings, and texts change over the years. So an entry is matched
by code, enhanced status, words, phase and kind of route together, the special before the
general, and the first match wins. Words are matched without regard to case, and only those that
have stayed the same.

    entry.py       what an entry is
    login.py       refused logins
    opening.py     connections, EHLO, TLS, the dialogue
    sender.py      the sender: blocks after repeated errors, who may send as whom
    throttles.py   windows that are used up, calls to slow down
    relaying.py    Direct Send, connectors, whose mail it is
    blocks.py      blocks and reputations
    recipients.py  one recipient
    content.py     the message, the service, and the general forms by digits
    reports.py     what stands in non-delivery reports only
    ours.py        what we say ourselves, where there is no reply
    trailer.py     what Microsoft writes behind its replies
    explain.py     any text that somebody pastes
    pasted.py      where in such a text a reply stands
"""

import re
from collections.abc import Mapping

from service.routes.diagnoses.blocks import BLOCKS
from service.routes.diagnoses.content import CONTENTS, GENERAL
from service.routes.diagnoses.entry import Class, Diagnosis, Scope, Who
from service.routes.diagnoses.login import LOGIN
from service.routes.diagnoses.opening import OPENINGS
from service.routes.diagnoses.ours import OURS
from service.routes.diagnoses.recipients import RECIPIENTS
from service.routes.diagnoses.relaying import RELAYING
from service.routes.diagnoses.reports import REPORTS
from service.routes.diagnoses.sender import SENDERS
from service.routes.diagnoses.throttles import THROTTLES
from service.routes.diagnoses.trailer import Trailer, trailer
from service.routes.route import RouteKind
from service.smtp.faults import SmtpFault
from service.smtp.phase import Phase
from service.smtp.reply import BadReply, Reply

__all__ = [
    "CATALOGUE",
    "GENERAL",
    "Class",
    "Diagnosis",
    "Scope",
    "Trailer",
    "Who",
    "error",
    "of_code",
    "of_fault",
    "of_reply",
    "trailer",
]

#: General forms of single families stand at the end of each, so the order of the families counts.
CATALOGUE: tuple[Diagnosis, ...] = (
    *REPORTS,
    *OPENINGS,
    *SENDERS,
    *THROTTLES,
    *RELAYING,
    *BLOCKS,
    *RECIPIENTS,
    *CONTENTS,
    *LOGIN,
    *GENERAL,
    *OURS,
)

_UNKNOWN = Diagnosis(
    id="smtp.unexpected_reply",
    title="A reply that says nothing about success or failure",
    explanation="The digits of this reply do not belong here.",
    who="operator",
    remedy=(
        "Look at the transcript.",
        "Nobody has to act if it is rare: Postroom tries again by itself until the message expires.",
    ),
    kind=Class.T1,
    source="RFC 5321, section 4.2.1",
)

_BY_FAULT = {fault: entry for entry in CATALOGUE for fault in entry.faults}

#: Exchange Online tells a client that went on after a refused login the true reason at MAIL.
_HIDDEN = re.compile(r"\bError: ([45]\d\d [45]\.\d{1,3}\.\d{1,3} .*)", re.IGNORECASE | re.DOTALL)


def of_reply(reply: Reply, phase: Phase | None, kind: RouteKind | None = None) -> Diagnosis:
    """Find what a reply means in the phase in which it came, on a route of this kind."""
    hidden = _HIDDEN.search(reply.text) if reply.enhanced == "5.7.57" else None
    if hidden is not None:
        try:
            return of_reply(Reply.from_text(hidden[1]), Phase.AUTH, kind)
        except BadReply:
            pass
    return next((entry for entry in CATALOGUE if entry.matches(reply, phase, kind)), _UNKNOWN)


def of_code(code: str) -> Diagnosis:
    """Find what a fault of this code means."""
    return _BY_FAULT.get(code, _BY_FAULT["internal"])


def of_fault(fault: SmtpFault, kind: RouteKind | None = None) -> Diagnosis:
    """Find what a broken dialogue means: the peer's own words first, where there are any."""
    if fault.reply is not None and fault.reply.code >= 400:
        return of_reply(fault.reply, fault.phase, kind)
    return of_code(fault.code)


def error(
    diagnosis: Diagnosis,
    *,
    phase: str | None,
    reply: Reply | None,
    retryable: bool,
    names: Mapping[str, str],
    detail: str | None = None,
) -> dict[str, object]:
    """Write an error as the ledger keeps it and the API shows it."""
    return {
        "code": diagnosis.code,
        "phase": phase,
        "reply": None if reply is None else reply.as_json(),
        "retryable": retryable,
        "detail": detail,
        "diagnosis": diagnosis.as_json(names),
    }
