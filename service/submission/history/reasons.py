"""Why a recipient is where it is, in sentences, and what can be done: pure functions.

A sentence says what happened, what will happen by itself, and when; it is made to be read aloud to
somebody who waits for the mail. What a reply means is said in the words of its diagnosis. Words that the
application chose (the reason of an act) stand in quotation marks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from service.ledger.acting import ACTS
from service.ledger.circumstances import Move, Running
from service.ledger.forecast import Forecast
from service.ledger.history import MessageView, RecipientView
from service.ledger.lanes import LaneState
from service.ledger.pausing import PAUSED
from service.ledger.states import Status
from service.mail.address import Address
from service.submission.representation import moment

#: Characters of a reply that a sentence quotes.
_QUOTED = 300

_NOTHING = "Nobody has to act."

_BEFORE_A_RETRY = "Before a retry, look for the Message-ID in the other side's message trace: what goes may be a second copy."


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """The lane that a recipient waits for, or went by."""

    name: str | None
    known: bool = True  # the configuration has it
    enabled: bool = True  # … and its route is in use
    state: LaneState | None = None
    forecast: Forecast | None = None  # of what waits there


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """Everything that a recipient's sentences are made of."""

    message: MessageView
    recipient: RecipientView
    now: datetime
    move: Move | None
    running: Running | None
    copy: str | None  # handed over before without an answer in time: `uncertain`, or by a late one `sent`
    lane: Lane

    @property
    def error(self) -> Mapping[str, Any]:
        return self.recipient.error or {}

    @property
    def title(self) -> str:
        """What the last error means, in a few words."""
        return title(self.error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """Why a recipient is where it is."""

    summary: str
    remedy: Sequence[str]
    who: str = "nobody"  # must act
    waits_for: Sequence[str] = ()
    error: Mapping[str, Any] | None = None  # what stands in the way, or stood there


def tell(here: Situation) -> Story:
    """Tell a recipient's story, and what an attempt before may have brought about."""
    story = _STORIES[Status(here.recipient.status)](here)
    copy = _copy(here)
    if copy is None:
        return story
    again = "retry" in actions(here)
    remedy = (_BEFORE_A_RETRY, *story.remedy) if again else story.remedy
    return replace(story, summary=f"{story.summary} {copy}", remedy=remedy)


def actions(here: Situation) -> list[str]:
    """List the acts that the recipient's state allows now."""
    status = Status(here.recipient.status)
    possible = {deed.partition("_")[0] for deed, rule in ACTS.items() if status in rule.starts}
    if status in {Status.QUEUED, Status.SCHEDULED} and not here.lane.known:
        possible.add("retry")
    scheduled_at = here.message.scheduled_at
    ahead = scheduled_at is not None and scheduled_at > here.now
    untried = status in {Status.QUEUED, Status.HELD} and not here.recipient.attempts
    if status is Status.SCHEDULED or (untried and ahead):
        possible.add("reschedule")
    return [
        deed for deed in ("cancel", "hold", "release", "retry", "settle", "reschedule") if deed in possible
    ]


def title(error: Mapping[str, Any] | None) -> str:
    """Say in a few words what an error of the ledger means."""
    found = error or {}
    words = (found.get("diagnosis") or {}).get("title") or found.get("code") or "the route had trouble"
    return str(words).rstrip(".")


def clock(at: datetime) -> str:
    """Write a time for a sentence, to the second."""
    return (moment(at) or "")[:19] + "Z"


# -- waiting --------------------------------------------------------------------------------


def _scheduled(here: Situation) -> Story:
    due = here.recipient.next_attempt_at
    if due is not None and due > here.now:
        return Story(
            summary=f"It is to be sent at {clock(due)}, as scheduled; nothing is tried before.",
            waits_for=(f"its time, {clock(due)}",),
            remedy=(f"{_NOTHING} It goes by itself at its time.",),
        )
    return _in_line(here, "Its time has come. ")


def _queued(here: Situation) -> Story:
    told = {
        "released": "It was released",
        "retried": "It was put back",
        "settled_resend": "It is to be sent once more, as was decided",
        "rescheduled": "It was given another time",
    }.get(here.recipient.reason or "")
    return _in_line(here, f"{told}{_by(here)}. " if told else "")


def _in_line(here: Situation, before: str) -> Story:
    """Tell what waits for its lane."""
    lane, name = here.lane, here.lane.name
    if not lane.known:
        return Story(
            summary=f"{before}It waits for the lane {name}, which the configuration no longer has, "
            "so nothing will send it.",
            waits_for=(f"the lane {name}",),
            who="operator",
            remedy=("Retry it: it is planned anew. Or configure its route again.",),
        )
    if not lane.enabled:
        return Story(
            summary=f"{before}It waits, because its route {here.recipient.route} is switched off in the configuration.",
            waits_for=(f"the route {here.recipient.route}",),
            who="operator",
            remedy=("Enable the route, or cancel the message and send it by another one.",),
        )
    rest = _rest(here, before)
    if rest is not None:
        return rest
    reasons = lane.forecast.because if lane.forecast is not None else ()
    if not reasons or reasons == ("it is next in this lane",):
        return Story(
            summary=f"{before}It is next on the lane {name}, and goes as soon as a worker takes it.",
            waits_for=tuple(reasons),
            remedy=(f"{_NOTHING} It goes by itself; where it does not, see whether a worker is running.",),
        )
    return Story(
        summary=f"{before}It waits for its turn on the lane {name}: {_listed(reasons)}.",
        waits_for=tuple(reasons),
        remedy=(f"{_NOTHING} It goes by itself when its turn has come.",),
    )


def _afterwards(error: Mapping[str, Any] | None) -> str:
    """Say what comes when a rest is over."""
    if (error or {}).get("code") == PAUSED:
        return "Then everything goes on, or before, when an operator resumes the route."
    return "Then one message tries whether it works again."


def _rest(here: Situation, before: str) -> Story | None:
    """Tell what waits because its lane, its sender or the tenant's external mail rests."""
    state, name = here.lane.state, here.lane.name
    if state is None:
        return None
    forecast = here.lane.forecast
    waits_for = tuple(forecast.because) if forecast is not None else ()
    stop = state.stopped.get(_sender(here))
    if state.resting is not None:
        summary = f"It waits, because the lane {name} rests until {clock(state.resting.until)}"
        until, error = state.resting.until, state.resting.error
    elif stop is not None and stop.until > here.now:
        summary = f"It waits, because mail from {here.message.from_email} rests on the lane {name} until {clock(stop.until)}"
        until, error = stop.until, stop.error
    elif state.external_resting is not None and any(each.startswith("external mail") for each in waits_for):
        rest = state.external_resting
        summary = f"It waits, because mail to external recipients rests until {clock(rest.until)}"
        until, error = rest.until, rest.error
    else:
        return None
    return Story(
        summary=f"{before}{summary}: {title(error)}. {_afterwards(error)}",
        waits_for=waits_for or (f"the end of the rest, {clock(until)}",),
        who=_who(error),
        remedy=_remedy(error, f"{_NOTHING} It is tried again by itself."),
        error=error,
    )


def _sender(here: Situation) -> str:
    """Write the sender as stops have it: in the form for comparisons."""
    return Address.parse(here.message.from_email).key


def _deferred(here: Situation) -> Story:
    failed = f"The last attempt failed in a way that can pass: {here.title}.{_answer(here)} "
    due = here.recipient.next_attempt_at
    if due is None or due <= here.now or not here.lane.known or not here.lane.enabled:
        story = _in_line(here, failed)
        return Story(
            summary=story.summary,
            waits_for=story.waits_for,
            who=story.who if story.error is not None or not here.lane.known else _who(here.error),
            remedy=story.remedy,
            error=story.error or here.error or None,
        )
    rest = _rest(here, failed)
    if rest is not None:
        return rest
    return Story(
        summary=f"{failed}The next one is due at {clock(due)}; it is given up at {clock(here.message.expires_at)}.",
        waits_for=(f"its next attempt, {clock(due)}",),
        who=_who(here.error),
        remedy=_remedy(here.error, f"{_NOTHING} It is tried again by itself."),
        error=here.error or None,
    )


def _held(here: Situation) -> Story:
    end = f"It is given up at {clock(here.message.expires_at)} if nobody does."
    if here.recipient.reason == "held":
        return Story(
            summary=f"It was held{_by(here)}, and waits to be released. {end}",
            waits_for=("a release",),
            who="application",
            remedy=("Release it, or cancel it.",),
        )
    return Story(
        summary=f"Postroom stopped it: {here.title}. It waits until somebody has looked at it and releases it. {end}",
        waits_for=("a release",),
        who="operator",
        remedy=_remedy(here.error, "Find out what happened, then release it or cancel it."),
        error=here.error or None,
    )


def _sending(here: Situation) -> Story:
    attempt = here.running
    since = f" since {clock(attempt.started_at)}" if attempt is not None else ""
    dot = attempt is not None and attempt.phase in {"dot", "reply", "quit"}
    where = (
        "The message is handed over, and the answer is waited for"
        if dot
        else "The message has not been handed over yet"
    )
    return Story(
        summary=f"An attempt has been running{since}. {where}.",
        waits_for=("the end of the attempt",),
        remedy=(f"{_NOTHING} The attempt ends by itself.",),
    )


def _uncertain(here: Situation) -> Story:
    doubt = "The message was handed over completely and no usable answer came, so the other side may have it or not."
    due = here.recipient.next_attempt_at
    if due is None:
        return Story(
            summary=f"{doubt} It waits for a person's decision, and is not sent again without one.",
            waits_for=("a settlement",),
            who="application",
            remedy=("Ask the recipient, or look into the other side's message trace; then settle it.",),
            error=here.error or None,
        )
    again = (
        "The same octets are sent again now"
        if due <= here.now
        else f"The same octets are sent again at {clock(due)}"
    )
    return Story(
        summary=f"{doubt} {again}, unless the answer comes before or somebody settles it.",
        waits_for=("a late answer", f"the resend, {clock(due)}"),
        remedy=(f"{_NOTHING} It is sent again by itself; settle it where you know more.",),
        error=here.error or None,
    )


# -- over -----------------------------------------------------------------------------------


def _sent(here: Situation) -> Story:
    if here.recipient.reason == "settled_sent":
        return Story(
            summary=f"It counts as sent, because that was decided{_by(here)}; no answer of the other side says so.",
            remedy=(f"{_NOTHING} It is over.",),
        )
    reply = here.recipient.reply
    said = f" with {_reply(reply)}" if reply else ""
    return Story(
        summary=f"The other side took it at {clock(here.recipient.updated_at)}{said}.",
        remedy=(f"{_NOTHING} Where it is missed, the other side's message trace knows what became of it.",),
    )


def _delivered(here: Situation) -> Story:
    return Story(
        summary=f"A report of {clock(here.recipient.updated_at)} says that it was delivered.",
        remedy=(f"{_NOTHING} It is over.",),
    )


def _bounced(here: Situation) -> Story:
    return Story(
        summary=f"The other side took it, and reported at {clock(here.recipient.updated_at)} that it could not be "
        f"delivered{f': {here.title}' if here.error else ''}.",
        who=_who(here.error),
        remedy=_remedy(here.error, "Correct the address and send a new message."),
        error=here.error or None,
    )


def _failed(here: Situation) -> Story:
    return Story(
        summary=f"It failed for good at {clock(here.recipient.updated_at)}: {here.title}.{_answer(here)}",
        who=_who(here.error),
        remedy=_remedy(here.error, "Mend what the attempt shows, then retry it."),
        error=here.error or None,
    )


def _expired(here: Situation) -> Story:
    previous = here.error.get("previous")
    trouble = f" The trouble before was `{previous}`." if previous else ""
    return Story(
        summary=f"Its time ran out at {clock(here.recipient.updated_at)}"
        f"{' before it could be sent' if here.copy is None else ''}.{trouble}",
        who="application",
        remedy=("Retry it when what stood in the way is gone; the attempts show it.",),
        error=here.error or None,
    )


def _canceled(here: Situation) -> Story:
    if here.recipient.reason == "settled_drop":
        return Story(
            summary=f"It was decided{_by(here)} to leave it at that: the other side may have it or not, "
            "and nothing more is sent.",
            remedy=(f"{_NOTHING} It is over; a retry has to name the recipient.",),
        )
    return Story(
        summary=f"It was canceled{_by(here)}, and nothing more is sent.",
        remedy=(f"{_NOTHING} It is over; retry it where it shall go after all.",),
    )


def _suppressed(here: Situation) -> Story:
    return Story(
        summary=f"Nothing was sent: {here.title}.",
        who=_who(here.error),
        remedy=_remedy(here.error, "Lift the entry that `GET /suppressions` shows, and send a new message."),
        error=here.error or None,
    )


_STORIES: Mapping[Status, Callable[[Situation], Story]] = {
    Status.SCHEDULED: _scheduled,
    Status.QUEUED: _queued,
    Status.HELD: _held,
    Status.SENDING: _sending,
    Status.DEFERRED: _deferred,
    Status.UNCERTAIN: _uncertain,
    Status.SENT: _sent,
    Status.DELIVERED: _delivered,
    Status.BOUNCED: _bounced,
    Status.FAILED: _failed,
    Status.EXPIRED: _expired,
    Status.CANCELED: _canceled,
    Status.SUPPRESSED: _suppressed,
}


#: Whether the other side has it, these say themselves.
_SAID = frozenset({Status.UNCERTAIN, Status.SENT, Status.DELIVERED, Status.BOUNCED})


def _copy(here: Situation) -> str | None:
    """Say what became of a copy that was handed over before, where the state alone would hide it."""
    if here.copy is None or Status(here.recipient.status) in _SAID:
        return None
    if here.copy == Status.SENT:
        return "But the other side has taken it: an earlier attempt was answered so, too late."
    if here.recipient.reason in {"settled_drop", "settled_resend"}:
        return None
    return (
        "An earlier attempt was handed over completely and got no usable answer, "
        "so the other side may have it all the same."
    )


# -- words ----------------------------------------------------------------------------------


def _by(here: Situation) -> str:
    """Say who moved it, when and why."""
    move = here.move
    if move is None:
        return ""
    who = ""
    if move.act is not None:
        who = f" by the application {move.act.application} ({move.act.actor})"
    elif move.actor is not None:
        who = f" by {move.actor}"
    said = (move.act.details.get("reason") if move.act is not None else None) or ""
    return f"{who} at {clock(move.at)}" + (f", with the reason “{said}”" if said else "")


def _answer(here: Situation) -> str:
    reply = here.error.get("reply")
    return f" The answer was {_reply(reply)}." if reply else ""


def _reply(reply: Mapping[str, Any]) -> str:
    """Quote a reply on one line."""
    said = (reply.get("code"), reply.get("enhanced"), " ".join(str(reply.get("text") or "").split()))
    line = " ".join(str(part) for part in said if part)
    return f"“{line[:_QUOTED]}{'…' if len(line) > _QUOTED else ''}”"


def _who(error: Mapping[str, Any] | None) -> str:
    return str(((error or {}).get("diagnosis") or {}).get("who") or "nobody")


def _remedy(error: Mapping[str, Any] | None, otherwise: str) -> tuple[str, ...]:
    found = ((error or {}).get("diagnosis") or {}).get("remedy") or ()
    return tuple(map(str, found)) or (otherwise,)


def _listed(reasons: Sequence[str]) -> str:
    return "; ".join(reasons)
