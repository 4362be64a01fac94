"""Suspects: who is alone, for how long, and who may come then."""

import asyncio
from dataclasses import replace
from typing import Any

from service.delivery.suspects import Suspects, seconds_alone
from service.ledger import LedgerUnavailable
from service.ledger.claiming import Claimed
from tests.delivery.cases import a_case
from tests.waiting import eventually


class Ledger:
    """Takes acquittals, and is away as often as it was told."""

    def __init__(self, *, away: int = 0) -> None:
        self.acquitted: list[str] = []
        self._away = away

    async def acquit(self, attempt_id: str) -> bool:
        if self._away:
            self._away -= 1
            raise LedgerUnavailable("away")
        self.acquitted.append(attempt_id)
        return True


def a_suspect(**changes: Any) -> Claimed:
    return replace(a_case().claimed, **({"alone": True, "lost": 1} | changes))


def test_who_lost_more_leases_is_alone_for_longer() -> None:
    """What kills slowly is found by the third time at the latest; nobody is alone for more than a minute."""
    assert [seconds_alone(lost) for lost in (1, 2, 3, 4, 1_000_000)] == [0.4, 3.2, 25.6, 60.0, 60.0]


class Lane:
    """Counts how often it is rung."""

    def __init__(self) -> None:
        self.rung = 0

    def ring(self) -> None:
        self.rung += 1


async def test_one_at_a_time() -> None:
    """Lanes have their turns in the order in which they asked, the next one when a suspect has come to its end."""
    suspects = Suspects(Ledger().acquit)
    first, second, third = Lane(), Lane(), Lane()
    carried = a_suspect(attempt_id="att_1", lost=9)
    assert suspects.ask(first.ring)
    assert suspects.ask(first.ring)
    assert not suspects.ask(second.ring)
    assert not suspects.ask(third.ring)
    suspects.begin(carried)
    assert not suspects.ask(first.ring)  # it has another one
    suspects.pass_on(first.ring)
    suspects.pass_on(second.ring)
    suspects.over(a_suspect(attempt_id="att_2"))
    assert second.rung == 0

    suspects.over(carried)
    assert [first.rung, second.rung, third.rung] == [0, 1, 0]
    assert suspects.is_turn_of(second.ring)
    assert not suspects.is_turn_of(first.ring)
    suspects.pass_on(second.ring)  # there was none
    assert suspects.is_turn_of(third.ring)
    suspects.over(carried)
    assert suspects.is_turn_of(third.ring)
    suspects.pass_on(third.ring)
    assert suspects.is_turn_of(first.ring)
    suspects.pass_on(first.ring)
    assert suspects.ask(second.ring)
    assert [first.rung, second.rung, third.rung] == [1, 1, 1]
    suspects.pass_on(second.ring)


async def test_a_turn_that_nobody_uses_is_passed_on() -> None:
    """A lane whose sessions are all busy does not keep the others waiting; one whose claim is under way does."""
    suspects = Suspects(Ledger().acquit)
    busy, claiming, waiting = Lane(), Lane(), Lane()
    assert suspects.ask(busy.ring)
    assert not suspects.ask(claiming.ring)
    await eventually(lambda: suspects.is_turn_of(claiming.ring))
    suspects.hold(claiming.ring)
    assert not suspects.ask(waiting.ring)

    await asyncio.sleep(0.6)  # longer than an unused turn
    assert suspects.is_turn_of(claiming.ring)
    suspects.pass_on(claiming.ring)
    assert suspects.is_turn_of(waiting.ring)
    suspects.pass_on(waiting.ring)


async def test_who_is_carried_for_long_is_acquitted() -> None:
    """The ledger hears of it first, asked again where it was away; then the next may come, and the end is nobody's."""
    ledger, lane, next_lane = Ledger(away=1), Lane(), Lane()
    suspects = Suspects(ledger.acquit)
    first, second = a_suspect(attempt_id="att_1"), a_suspect(attempt_id="att_2", lost=9)
    assert suspects.ask(lane.ring)
    suspects.begin(first)
    assert not suspects.ask(next_lane.ring)

    await eventually(lambda: next_lane.rung)

    assert ledger.acquitted == ["att_1"]
    assert suspects.is_turn_of(next_lane.ring)
    suspects.begin(second)
    suspects.over(first)
    assert not suspects.ask(lane.ring)
    suspects.over(second)
    assert ledger.acquitted == ["att_1"]
    assert lane.rung == 1
    suspects.pass_on(lane.ring)
