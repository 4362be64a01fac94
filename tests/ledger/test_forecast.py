"""When will it go: the simulation of a lane, and what it reads."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from service.ledger import Ledger
from service.ledger.engine import transaction
from service.ledger.forecast import ahead, drained, forecast
from service.ledger.lanes import Budget, LaneState, Place, Resting, Waiting
from service.ledger.pace import Freed, LaneLimits, Window
from service.ledger.states import Status
from service.ledger.stops import Stop
from tests.builders import a_closing, a_submission, claim

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
LIMITS = LaneLimits(connections=3, messages_per_minute=30, messages_per_hour=None, recipients_per_day=None)


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def a_state(**changes: Any) -> LaneState:
    quiet = LaneState(
        name="lane",
        now=NOW,
        resting=None,
        troubles=0,
        external_resting=None,
        stopped={},
        budgets=[],
        limits=LIMITS,
        connections=0,
        running=0,
        waiting=[],
        oldest_due_at=None,
        attempt_seconds=0.1,
        recipients_each=1.0,
    )
    return replace(quiet, **changes)


def a_place(**changes: Any) -> Place:
    first = Place(
        delivery_id="dlv",
        lane="lane",
        sender="noreply@contoso.com",
        application="shop",
        priority=1,
        external=False,
        due_at=NOW,
        own_ahead=0,
        counted_all=True,
    )
    return replace(first, **changes)


def minute(used: int, *frees: float) -> Budget:
    window = Window(name="messages_per_minute", limit=30, seconds=60.0, used=used)
    return Budget(window=window, frees=[Freed(at=at(seconds), amount=1) for seconds in frees])


def test_an_open_lane_is_now_and_exact() -> None:
    found = forecast(a_state(budgets=[minute(0)]), a_place())

    assert found.exact
    assert found.at - NOW < timedelta(seconds=1)
    assert found.because == ("it is next in this lane",)


def test_the_permit_that_frees_first_is_the_firsts() -> None:
    """A full minute: the first in line waits for the first permit, the third for the third."""
    full = a_state(budgets=[minute(30, *range(10, 40))])

    assert forecast(full, a_place()).at == at(10)
    third = forecast(full, a_place(own_ahead=2))
    assert third.at == at(12)
    assert third.because == ("2 messages ahead in this lane", "30 messages a minute (Microsoft 365)")
    assert third.exact


def test_a_backlog_of_ninety_takes_three_minutes() -> None:
    found = forecast(a_state(budgets=[minute(0)]), a_place(own_ahead=90))

    assert at(180) <= found.at <= at(185)


def test_a_retry_is_not_before_it_is_due() -> None:
    found = forecast(a_state(), a_place(due_at=at(300)))

    assert found.at == at(300)
    assert found.exact
    assert "12:05:00" in found.because[0]


def test_a_rest_is_said_and_never_called_exact() -> None:
    error = {"code": "x", "diagnosis": {"title": "SMTP AUTH is switched off"}}
    found = forecast(a_state(resting=Resting(until=at(900), error=error)), a_place())

    assert found.at == at(900)
    assert not found.exact
    assert "SMTP AUTH is switched off" in found.because[0]


def test_a_stopped_sender_waits_and_others_do_not() -> None:
    stop = Stop(sender="noreply@contoso.com", until=at(60), error={"code": "send_as_denied"}, troubles=1)
    state = a_state(stopped={stop.sender: stop})

    assert forecast(state, a_place()).at == at(60)
    assert forecast(state, a_place(sender="other@contoso.com")).at < at(1)


def test_only_external_mail_waits_for_the_external_budget() -> None:
    window = Window(name="external_recipients_per_day", limit=100, seconds=86400.0, used=100)
    state = a_state(budgets=[Budget(window=window, frees=[Freed(at=at(7200), amount=5)])])

    assert forecast(state, a_place(external=True)).at == at(7200)
    assert forecast(state, a_place()).at < at(1)


def test_turns_and_priorities_decide_who_is_ahead() -> None:
    def waiting(priority: int, application: str, due: int) -> Waiting:
        return Waiting(priority=priority, application=application, external=False, due=due, later=0)

    state = a_state(
        waiting=[waiting(0, "x", 4), waiting(1, "loud", 500), waiting(1, "shop", 3), waiting(2, "y", 9)]
    )

    # 4 more urgent, its own two, and three turns of the loud one
    assert ahead(state, a_place(own_ahead=2)) == 4 + 2 + 3


def test_a_slow_peer_makes_it_an_estimate() -> None:
    found = forecast(a_state(attempt_seconds=10.0), a_place(own_ahead=30))

    assert not found.exact
    assert at(95) < found.at < at(110)
    assert "estimate" in found.because[-1]


def test_what_was_not_counted_to_its_end_is_not_exact() -> None:
    found = forecast(a_state(), a_place(own_ahead=100_000, counted_all=False))

    assert not found.exact
    assert found.because[0].startswith("more than 100,000")


def test_a_lane_says_when_it_has_drained() -> None:
    waiting = [Waiting(priority=1, application="a", external=False, due=60, later=0)]
    found = drained(a_state(budgets=[minute(0)], waiting=waiting))

    assert found is not None
    assert at(60) <= found.at <= at(65)
    assert drained(a_state()) is None


# -- what is read ----------------------------------------------------------------------------


@pytest.fixture
async def ledger(database_url: str) -> AsyncIterator[Ledger]:
    opened = Ledger.open(database_url, name="tests", connections=3)
    yield opened
    await opened.dispose()


async def test_the_forecast_of_a_full_minute_comes_true(ledger: Ledger) -> None:
    """What the lane reads, the simulation foresees, and the claim does agree to the second."""
    limits = replace(LIMITS, messages_per_minute=2)
    for _ in range(3):
        await ledger.accept(a_submission())
    last = a_submission()
    await ledger.accept(last)
    for taken in (await claim(ledger, limits=limits)).claimed:
        await ledger.close(a_closing(taken))

    state = await ledger.lane_state("peer", limits)
    (place,) = await ledger.places(last.messages[0].id)
    found = forecast(state, place)
    refused = await claim(ledger, limits=limits)

    assert place.own_ahead == 1
    assert found.exact
    assert refused.again_in is not None
    seconds = (found.at - state.now).total_seconds()
    assert abs(seconds - refused.again_in) < 2


async def test_a_lane_shows_what_it_holds(ledger: Ledger) -> None:
    for application, priority in (("a", 0), ("a", 1), ("b", 1)):
        await ledger.accept(a_submission(application=application, priority=priority))
    await ledger.accept(a_submission(lane="other"))
    (taken, *_) = (await claim(ledger, more=1)).claimed
    await ledger.close(a_closing(taken, Status.DEFERRED, due_in=300.0))

    state = await ledger.lane_state("peer", LIMITS)

    assert {(each.application, each.priority): (each.due, each.later) for each in state.waiting} == {
        ("a", 0): (0, 1),
        ("a", 1): (1, 0),
        ("b", 1): (1, 0),
    }
    assert state.budgets[0].window.used == 1
    assert state.connections == 1


async def test_resting_lanes_are_listed(ledger: Ledger) -> None:
    await ledger.accept(a_submission())
    await claim(ledger)
    async with transaction(ledger._engine) as db:
        await db.execute(text("UPDATE lanes SET troubles = 1, paused_until = now() + interval '1 hour'"))

    assert list(await ledger.resting()) == ["peer"]
    assert await ledger.lift_lane("peer")
    assert await ledger.resting() == {}
