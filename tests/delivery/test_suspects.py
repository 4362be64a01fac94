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


async def test_one_at_a_time() -> None:
    """Whom another claim brought meanwhile is not taken, and the end of the first rings once."""
    suspects = Suspects(Ledger().acquit)
    rung: list[str] = []
    first, second = a_suspect(attempt_id="att_1", lost=9), a_suspect(attempt_id="att_2", lost=9)
    assert suspects.begin(first)
    assert not suspects.begin(second)
    suspects.wait(lambda: rung.append("rung"))

    suspects.over(second)
    assert suspects.in_hand
    assert rung == []
    suspects.over(first)
    assert not suspects.in_hand
    suspects.over(first)
    assert rung == ["rung"]
    assert suspects.begin(second)
    suspects.over(second)


async def test_who_is_carried_for_long_is_acquitted() -> None:
    """The ledger hears of it first, asked again where it was away; then the next may come, and the end is nobody's."""
    ledger, rung = Ledger(away=1), asyncio.Event()
    suspects = Suspects(ledger.acquit)
    first, second = a_suspect(attempt_id="att_1"), a_suspect(attempt_id="att_2", lost=9)
    suspects.begin(first)
    suspects.wait(rung.set)

    await eventually(rung.is_set)

    assert ledger.acquitted == ["att_1"]
    assert suspects.begin(second)
    suspects.over(first)
    assert suspects.in_hand
    suspects.over(second)
    assert ledger.acquitted == ["att_1"]
