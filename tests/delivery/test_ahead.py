"""What waits for a seat: how much, what may begin behind a dot, and what limits say to claims ahead."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from service.delivery.ahead import QUICK, Ahead
from service.delivery.worker import rescue_errors
from service.ledger import Ledger
from service.ledger.claiming import Claim, Claimed, ClaimedRecipient, Wish
from service.ledger.closing import Trouble
from service.ledger.pace import LaneLimits
from service.ledger.states import Outcome, Status
from tests.builders import UNLIMITED, a_closing, a_submission
from tests.waiting import eventually


def one(number: int = 0, **changes: Any) -> Claimed:
    values: dict[str, Any] = {
        "attempt_id": f"att_{number}",
        "number": 1,
        "delivery_id": "dlv",
        "message_id": "msg",
        "application": "tests",
        "lane": "peer",
        "sender": "noreply@contoso.com",
        "external": 0,
        "reverse_path": "noreply@contoso.com",
        "recipients": (ClaimedRecipient(position=0, email="a@example.com", tries=0, uncertain=False),),
        "size": 1,
        "sha256": "",
        "smtputf8": False,
        "eightbit": False,
        "on_uncertain": "resend",
        "expires_at": datetime.now(UTC) + timedelta(hours=1),
        "alone": False,
        "seat": None,
        "octets": b"x",
    }
    return Claimed(**(values | changes))


def a_well_lane() -> Ahead:
    ahead = Ahead(allowed=True)
    ahead.carried(well=True, dot_seconds=0.01)
    return ahead


def test_nothing_is_wanted_before_something_was_taken_and_after_trouble() -> None:
    """The first success opens it; a failure of the way, or having had to give back, closes it until the next."""
    ahead = Ahead(allowed=True)
    assert ahead.wanted(seats=4) == 0
    ahead.carried(well=True, dot_seconds=0.01)
    assert ahead.wanted(seats=4) == 4
    ahead.carried(well=False, dot_seconds=None)
    assert ahead.wanted(seats=4) == 0
    ahead.carried(well=True, dot_seconds=0.01)
    ahead.put(one())
    assert [each.attempt_id for each in ahead.everything()] == ["att_0"]
    assert (len(ahead), ahead.patience(), ahead.wanted(seats=4)) == (0, None, 0)


def test_a_lane_that_counts_its_messages_wants_nothing() -> None:
    """What waits would use up the window."""
    ahead = Ahead(allowed=False)
    ahead.carried(well=True, dot_seconds=0.01)
    assert ahead.wanted(seats=10) == 0


def test_it_fills_up_when_half_is_gone_and_in_the_order_of_coming() -> None:
    """More is claimed once half has been taken, and who came first goes first."""
    ahead = a_well_lane()
    for number in range(4):
        ahead.put(one(number))
    assert ahead.wanted(seats=4) == 0
    assert [each and each.attempt_id for each in (ahead.take(), ahead.take_for_behind())] == [
        "att_0",
        "att_1",
    ]
    assert ahead.wanted(seats=4) == 2
    assert ahead.patience() is not None


@pytest.mark.parametrize("first", [one(alone=True), one(octets=None)])
def test_a_suspect_or_a_large_message_does_not_begin_behind_another(first: Claimed) -> None:
    """And nobody overtakes it."""
    ahead = a_well_lane()
    ahead.put(first)
    ahead.put(one(1))
    assert ahead.take_for_behind() is None
    assert ahead.take() is first


def test_nothing_begins_behind_where_replies_take_long_or_a_session_ended_so() -> None:
    """Slow dots and a session that ended behind a message make it wary; it goes on in the usual way."""
    ahead = a_well_lane()
    ahead.put(one())
    ahead.carried(well=True, dot_seconds=QUICK * 2)
    assert ahead.take_for_behind() is None
    assert ahead.wanted(seats=4) == 0
    ahead.carried(well=True, dot_seconds=None)  # refused before its dot: that says nothing of the pace
    assert ahead.take_for_behind() is None
    ahead.carried(well=True, dot_seconds=0.01)
    ahead.ended_behind()
    ahead.carried(well=True, dot_seconds=0.01)
    assert ahead.take_for_behind() is None
    assert ahead.take() is not None


# -- claims ahead, in the ledger -------------------------------------------------------------------


@pytest.fixture
async def ledger(database_url: str) -> AsyncIterator[Ledger]:
    """A ledger on a database of this test's own."""
    opened = Ledger.open(database_url, name="test", connections=5)
    yield opened
    await opened.dispose()


async def accepted(ledger: Ledger, count: int, **changes: Any) -> None:
    await asyncio.gather(*(ledger.accept(a_submission(**changes)) for _ in range(count)))


async def claim(ledger: Ledger, limits: LaneLimits = UNLIMITED, **changes: Any) -> Claim:
    values: dict[str, Any] = {
        "lane": "peer",
        "route": "peer",
        "worker": "w1",
        "seats": (),
        "more": 2,
        "lease": 30.0,
        "suspects": True,
        "ahead": 50,
    }
    return await ledger.claim(Wish(**(values | changes)), limits)


def limits(**changes: Any) -> LaneLimits:
    values: dict[str, Any] = {
        "connections": 10,
        "messages_per_minute": None,
        "messages_per_hour": None,
        "recipients_per_day": None,
    }
    return LaneLimits(**(values | changes))


async def test_seats_come_first_and_the_rest_waits(ledger: Ledger) -> None:
    """So many new seats as were asked for, and then deliveries without one."""
    await accepted(ledger, 10)
    taken = (await claim(ledger, ahead=5)).claimed
    assert [each.seat is not None for each in taken].count(True) == 2
    assert len(taken) == 7


@pytest.mark.parametrize("window", ["messages_per_minute", "messages_per_hour"])
async def test_nothing_ahead_on_a_lane_that_counts_messages(ledger: Ledger, window: str) -> None:
    """Whatever a worker wishes: a message counts from its claim."""
    await accepted(ledger, 10)
    assert len((await claim(ledger, limits(**{window: 1000}))).claimed) == 2


@pytest.mark.parametrize(
    ("external", "window"),
    [(False, {"recipients_per_day": 7}), (True, {"counts_external": True, "external_per_day": 7})],
)
async def test_claims_ahead_do_not_overrun_the_day(
    ledger: Ledger, external: bool, window: dict[str, Any]
) -> None:
    """What is claimed ahead counts as what is sent: two recipients each, and seven a day."""
    await accepted(ledger, 10, to=("a@example.com", "b@example.com"), external=external)
    assert len((await claim(ledger, limits(**window))).claimed) == 3
    assert (await claim(ledger, limits(**window))).claimed == ()


@pytest.mark.parametrize(
    ("external", "window"),
    [(False, {"recipients_per_day": 3}), (True, {"counts_external": True, "external_per_day": 3})],
)
async def test_what_is_given_back_uses_up_no_day(
    ledger: Ledger, external: bool, window: dict[str, Any]
) -> None:
    """Three a day are claimed and given back, and can be claimed again; what a restart cut off counts."""
    await accepted(ledger, 3, external=external)
    for code, left in (("given_back", 3), ("aborted", 0)):
        taken = (await claim(ledger, limits(**window))).claimed
        assert len(taken) == 3
        for each in taken:
            await ledger.close(
                a_closing(
                    each,
                    Status.DEFERRED,
                    due_in=0.0,
                    outcome=Outcome.ABORTED,
                    error={"code": code},
                    reply=None,
                )
            )
        again = (await claim(ledger, limits(**window))).claimed
        assert len(again) == left
        for each in again:
            await ledger.close(
                a_closing(
                    each,
                    Status.DEFERRED,
                    due_in=0.0,
                    outcome=Outcome.ABORTED,
                    error={"code": "given_back"},
                    reply=None,
                )
            )


async def test_a_lane_in_trouble_is_probed_by_one(ledger: Ledger) -> None:
    """Nothing is claimed ahead while the lane is tried by one attempt at a time."""
    await accepted(ledger, 10)
    first, *others = (await claim(ledger, ahead=0)).claimed
    rest = Trouble(scope="lane", error={"code": "busy"}, first=0.0, factor=1.0, cap=0.0)
    await ledger.close(a_closing(first, Status.DEFERRED, due_in=0.0, trouble=rest))
    await asyncio.gather(*(ledger.close(a_closing(each, Status.DEFERRED, due_in=0.0)) for each in others))
    assert len((await claim(ledger)).claimed) == 1
    assert (await claim(ledger)).claimed == ()


async def lost(ledger: Ledger, count: int) -> None:
    """Let so many deliveries lose a lease."""
    await accepted(ledger, count)
    assert len((await claim(ledger, more=count, ahead=0, lease=0.01, lane="peer")).claimed) == count

    async def swept() -> bool:
        return bool(await ledger.rescue(uncertain_after=900.0, errors=rescue_errors()))

    await eventually(swept)


async def test_a_crowd_of_suspects_does_not_keep_the_innocent_waiting(ledger: Ledger) -> None:
    """More suspects than anybody looks at, one of them in hand: who comes behind them is claimed all the same."""
    await lost(ledger, 10)
    await accepted(ledger, 3)
    (suspect,) = (await claim(ledger)).claimed
    assert suspect.alone

    innocent = await claim(ledger, suspects=False, ahead=0)

    assert len(innocent.claimed) == 2
    assert not any(each.alone for each in innocent.claimed)
    assert not innocent.drained


async def test_a_suspect_does_not_wait_for_a_seat(ledger: Ledger) -> None:
    """It would keep all other suspects waiting, and the worker's end meanwhile would be laid at its door."""
    await lost(ledger, 3)
    await accepted(ledger, 2)
    waiting = await claim(ledger, more=0)
    assert len(waiting.claimed) == 2
    assert not any(each.alone for each in waiting.claimed)
    assert not waiting.drained


async def test_a_claim_that_was_not_given_everything_is_not_drained(
    ledger: Ledger, database_url: str
) -> None:
    """Only a claim that took all that is due says that nothing is left."""
    await accepted(ledger, 5)
    partly = await claim(ledger, more=2, ahead=1)
    assert (len(partly.claimed), partly.drained) == (3, False)
    rest = await claim(ledger, seats=[], more=2, ahead=5)
    assert (len(rest.claimed), rest.drained, rest.again_in) == (2, True, None)
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("SELECT count(*) FROM deliveries WHERE due_at IS NOT NULL") == 0
    await connection.close()
