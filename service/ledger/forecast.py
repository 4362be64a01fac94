"""When will it go? A simulation of a lane, as a pure function.

The order of a claim is played through without touching anything: who is ahead of a delivery
(more urgent, its own application's older ones, and the turns of the other applications), when
each permit of each window comes free, how long the lane or the sender rests, and when its own
retry is due. The latest of these decides.

What is known is exact: permits that are there, windows that free at a known second, a retry, the
end of a pause. What has to be assumed is said: how long an attempt will take, how many recipients
the ones ahead have, that a lane that rests works again when it is tried. And what nobody can
know (somebody else's urgent mail tomorrow) is nobody's promise: a forecast speaks of the lane as
it is now.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from service.ledger.lanes import Budget, LaneState, Place

#: An assumption for attempts of a lane that has none yet, in seconds.
_USUAL_ATTEMPT = 1.0

#: Below this, in seconds, an assumed time is not worth a word.
_NOT_WORTH_A_WORD = 2.0

_WORDS = {
    "messages_per_minute": "{limit:,} messages a minute",
    "messages_per_hour": "{limit:,} messages an hour",
    "recipients_per_day": "{limit:,} recipients in 24 hours",
    "external_recipients_per_day": "{limit:,} external recipients in 24 hours for the whole tenant",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """When a delivery is expected to be sent, and why not before."""

    at: datetime
    because: tuple[str, ...]
    exact: bool  # nothing was assumed that could move it by more than a few seconds


def ahead(state: LaneState, place: Place) -> int:
    """Count the deliveries that will be claimed before this one, as the lane stands now."""
    others: dict[str, int] = {}
    more_urgent = 0
    for each in state.waiting:
        if each.priority < place.priority:
            more_urgent += each.due
        elif each.priority == place.priority and each.application != place.application:
            others[each.application] = others.get(each.application, 0) + each.due
    turns = place.own_ahead + 1
    return more_urgent + place.own_ahead + sum(min(count, turns) for count in others.values())


def forecast(state: LaneState, place: Place, *, source: str = "Microsoft 365") -> Forecast:
    """Say when this delivery is expected to go. `source` is whose limits they are."""
    before = ahead(state, place)
    seconds = _USUAL_ATTEMPT if state.attempt_seconds is None else state.attempt_seconds
    start, because, exact = _earliest(state, place)
    at = start
    for budget in state.budgets:
        if budget.window.name == "external_recipients_per_day" and not place.external:
            continue
        each = 1.0 if budget.window.name.startswith("messages") else max(state.recipients_each, 1.0)
        freed = _when(budget, amount=before * each + 1, now=start, attempt=seconds)
        if freed > start + timedelta(seconds=1):
            because.append(f"{_WORDS[budget.window.name].format(limit=budget.window.limit)} ({source})")
            exact = exact and (each == 1.0 or not before)
        at = max(at, freed)
    parallel = min(max(state.limits.connections, 1), before + 1)
    carried = start + timedelta(seconds=(before + state.running) * seconds / parallel)
    if carried > at + timedelta(seconds=_NOT_WORTH_A_WORD):
        because.append(f"an attempt takes {seconds:.1f} s here, {parallel} at a time (an estimate)")
        exact = False
    at = max(at, carried)
    if before:
        count = f"{before:,}" if place.counted_all and state.counted_all else f"more than {before:,}"
        exact = exact and place.counted_all and state.counted_all
        because.insert(0, f"{count} message{'s' if before != 1 else ''} ahead in this lane")
    return Forecast(at=at, because=tuple(because or ["it is next in this lane"]), exact=exact)


def _earliest(state: LaneState, place: Place) -> tuple[datetime, list[str], bool]:
    """Say before which moment it cannot go whatever its place is."""
    at, exact = max(state.now, place.due_at), True
    because: list[str] = []
    if state.resting is not None:
        because.append(f"the lane rests until {_clock(state.resting.until)}: {_title(state.resting.error)}")
        at, exact = max(at, state.resting.until), False
    elif state.troubles:
        because.append("the lane had trouble and is being tried by one attempt at a time")
        exact = False
    if place.external and state.external_resting is not None:
        pause = state.external_resting
        because.append(f"external mail rests until {_clock(pause.until)}: {_title(pause.error)}")
        at, exact = max(at, pause.until), False
    stop = state.stopped.get(place.sender)
    if stop is not None:
        because.append(f"this sender rests on this lane until {_clock(stop.until)}: {_title(stop.error)}")
        at, exact = max(at, stop.until), False
    elif place.due_at > state.now and not because:
        what = "it is scheduled for" if place.scheduled else "its next attempt is due at"
        because.append(f"{what} {_clock(place.due_at)}")
    return at, because, exact


def _when(budget: Budget, *, amount: float, now: datetime, attempt: float) -> datetime:
    """Say when the last of `amount` units gets its permit.

    What is used again counts from the end of its attempt, so a window turns over once in its
    length and the time of an attempt.
    """
    window = budget.window
    if amount <= window.left:
        return now
    turn = timedelta(seconds=window.seconds + attempt)
    rounds, rest = divmod(max(amount - 1, 0), max(window.limit, 1))
    if rest < window.left:
        return now + turn * rounds
    wanted = rest - window.left + 1
    for freed in budget.frees:
        wanted -= freed.amount
        if wanted <= 0:
            return max(now, freed.at) + turn * rounds
    return now + turn * (rounds + 1)  # what is running now frees it


def drained(state: LaneState, *, source: str = "Microsoft 365") -> Forecast | None:
    """Say when everything that is due now will have gone; None where nothing waits."""
    if not state.due:
        return None
    # As if all of it were one application's: turns change the order, not the end.
    place = Place(
        delivery_id="",
        lane=state.name,
        sender="",
        application="",
        priority=0,
        external=any(each.external for each in state.waiting),
        due_at=state.now,
        own_ahead=state.due - 1,
        counted_all=state.counted_all,
    )
    return forecast(replace(state, waiting=()), place, source=source)


def _title(error: Any) -> str:
    if not isinstance(error, dict):
        return "the route had trouble"
    return str((error.get("diagnosis") or {}).get("title") or error.get("code") or "the route had trouble")


def _clock(at: datetime) -> str:
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")


def latest(forecasts: Sequence[Forecast]) -> Forecast | None:
    """Return the one that decides for a message that travels in several deliveries."""
    return max(forecasts, key=lambda each: each.at, default=None)
