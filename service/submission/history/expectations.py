"""When a message is expected to go, and why not before: what every waiting message says.

A lane is read at most once a second for each process; what was accepted here since then is
added, so a burst does not get one answer for all. Where the ledger cannot say it quickly, there
is no time, and the words say so: an expectation never costs an acceptance.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any

from service.ledger import Ledger, LedgerUnavailable
from service.ledger.accepting import NewMessage
from service.ledger.forecast import Forecast, forecast, latest
from service.ledger.history import MessageView
from service.ledger.lanes import LaneState, Place
from service.ledger.pace import LaneLimits
from service.submission.door import Budget
from service.submission.sharing import Readings

#: States in which a recipient waits for its lane, its window or its next attempt.
_WAITS = frozenset({"queued", "deferred", "uncertain", "scheduled"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """`at` is None where nobody can know: it waits for a person, or the ledger did not say."""

    at: datetime | None
    because: Sequence[str]


@dataclass(slots=True)
class _Reading:
    state: LaneState
    since: Counter[tuple[str, int]] = field(default_factory=Counter)  # (application, priority) -> accepted


class Expectations:
    """Forecasts for the messages of this process."""

    def __init__(self, ledger: Ledger, limits: Mapping[str, LaneLimits]) -> None:
        self._ledger = ledger
        self._limits = limits
        self._readings: Readings[_Reading] = Readings(most=len(limits) + 1)

    async def of_new(self, message: NewMessage, budget: Budget) -> Expectation:
        """Forecast a message that is about to be accepted."""
        found = []
        for lane in sorted({delivery.lane for delivery in message.deliveries}):
            reading = await self._reading(lane, budget)
            if reading is None:
                return _unknown(lane)
            mine = [delivery for delivery in message.deliveries if delivery.lane == lane]
            found.append(_of_new(reading, message, lane, external=any(each.external for each in mine)))
            reading.since[message.application, message.priority] += len(mine)
        return _decided(found)

    async def of_message(self, view: MessageView, budget: Budget) -> Expectation:
        """Forecast a message of the ledger."""
        waiting = [each for each in view.recipients if each.status in _WAITS]
        if not waiting:
            return Expectation(at=None, because=_stands_still(view))
        places = await budget.spend(self._ledger.places(view.id))
        found = []
        for place in places:
            limits = self._limits.get(place.lane)
            if limits is None:
                return Expectation(
                    at=None,
                    because=[f"The configuration has no lane {place.lane} any more: retry it by hand."],
                )
            reading = await self._reading(place.lane, budget)
            if reading is None:
                return _unknown(place.lane)
            found.append(forecast(reading.state, place))
        expectation = _decided(found)
        if not found:
            return Expectation(at=None, because=_stands_still(view) or _last_trouble(view))
        return Expectation(at=expectation.at, because=[*_last_trouble(view), *expectation.because])

    async def by_lane(
        self, view: MessageView, budget: Budget
    ) -> dict[str, tuple[LaneState, Forecast, Place]]:
        """Forecast a message of the ledger, lane by lane; what cannot be said quickly is left out."""
        found = {}
        for place in await budget.spend(self._ledger.places(view.id)):
            reading = await self._reading(place.lane, budget)
            if reading is not None:
                found[place.lane] = (reading.state, forecast(reading.state, place), place)
        return found

    async def lane(self, name: str, budget: Budget) -> LaneState | None:
        """Read a lane, at most a second old; None where it is gone, or cannot be read quickly."""
        reading = await self._reading(name, budget)
        return None if reading is None else reading.state

    async def _reading(self, lane: str, budget: Budget) -> _Reading | None:
        limits = self._limits.get(lane)
        if limits is None:
            return None
        read = partial(self._read, lane, limits)
        try:
            return self._readings.now(lane, read) or await budget.spend(self._readings.read(lane, read))
        except LedgerUnavailable:
            return None

    async def _read(self, lane: str, limits: LaneLimits) -> _Reading:
        return _Reading(await self._ledger.lane_state(lane, limits))


def _of_new(reading: _Reading, message: NewMessage, lane: str, *, external: bool) -> Forecast:
    own = sum(
        each.due
        for each in reading.state.waiting
        if each.application == message.application and each.priority == message.priority
    )
    since = sum(
        count
        for (application, priority), count in reading.since.items()
        if priority < message.priority or (application, priority) == (message.application, message.priority)
    )
    place = Place(
        delivery_id="",
        lane=lane,
        sender=message.sender,
        application=message.application,
        priority=message.priority,
        external=external,
        due_at=message.scheduled_at or reading.state.now,
        # Who is ahead of it when its time has come, nobody can know.
        own_ahead=0 if message.scheduled_at else own + since,
        counted_all=reading.state.counted_all,
        scheduled=message.scheduled_at is not None,
    )
    state = replace(reading.state, waiting=()) if message.scheduled_at else reading.state
    return forecast(state, place)


def _decided(found: Sequence[Forecast]) -> Expectation:
    last = latest(found)
    if last is None:
        return Expectation(at=None, because=[])
    because = list(last.because)
    if not last.exact:
        because.append("an estimate: it rests on what cannot be known before")
    return Expectation(at=last.at, because=because)


def _unknown(lane: str) -> Expectation:
    return Expectation(at=None, because=[f"It waits for its turn in the lane {lane}."])


def _last_trouble(view: MessageView) -> list[str]:
    errors = [each.error for each in view.recipients if each.status in _WAITS and each.error is not None]
    return [reason(errors[0])] if errors else []


def _stands_still(view: MessageView) -> list[str]:
    if any(each.status in {"held", "uncertain"} for each in view.recipients):
        return [*_last_trouble(view), "It waits for a person's decision."]
    return []


def reason(error: Mapping[str, Any] | None) -> str:
    """Say in a few words what an error of the ledger means."""
    if error is None:
        return "the route had trouble"
    return str((error.get("diagnosis") or {}).get("title") or error.get("code"))
