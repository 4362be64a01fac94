"""Closing what was simply taken, in groups, beside everything else that writes to the same rows.

Rounds of real concurrency; after each the whole ledger is asked whether a rule is broken (`tests.invariants`).
"""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from service.delivery.worker import rescue_errors
from service.ledger import Ledger
from service.ledger.acting import Act, Busy, Moved
from service.ledger.audit import Actor
from service.ledger.claiming import Claimed
from service.ledger.closing import Closing, Trouble
from service.ledger.pace import LaneLimits
from service.ledger.states import Outcome, Status
from tests.builders import a_closing, a_submission, claim
from tests.invariants import assert_sound
from tests.waiting import eventually

SOMEBODY = Actor(application="tests", id="key_somebody", address="192.0.2.7", request_id="req_1")

WIDE = LaneLimits(connections=500, messages_per_minute=None, messages_per_hour=None, recipients_per_day=None)


@pytest.fixture
async def ledger(database_url: str) -> AsyncIterator[Ledger]:
    """A ledger on a database of this test's own."""
    opened = Ledger.open(database_url, name="test", connections=10)
    yield opened
    await opened.dispose()


async def many(ledger: Ledger, count: int, **changes: Any) -> list[str]:
    """Accept so many messages; return their ids."""
    submissions = [a_submission(**changes) for _ in range(count)]
    await asyncio.gather(*(ledger.accept(each) for each in submissions))
    return [each.messages[0].id for each in submissions]


async def claimed(ledger: Ledger, *, lease: float = 30.0) -> Sequence[Claimed]:
    return (await claim(ledger, more=500, limits=WIDE, lease=lease)).claimed


def in_session(closing: Closing, name: str, number: int) -> Closing:
    return replace(closing, session_id=name, session_message=number, session_facts={"id": name})


async def statuses(ledger: Ledger, message_ids: Sequence[str]) -> list[str]:
    views = await ledger.messages(message_ids, application=None)
    return [view.status for view in views]


async def test_a_group_of_all_sorts(ledger: Ledger, database_url: str) -> None:
    """Taken, refused, deferred, troubled and late ones in one group: each gets its own verdict, and one only."""
    await many(ledger, 20)
    late = list(await claimed(ledger))
    assert all(await asyncio.gather(*(ledger.fence(each.attempt_id) for each in late)))
    await ledger.renew([each.attempt_id for each in late], seats=[], lease=0.01)

    async def swept() -> bool:
        rescued = await ledger.rescue(uncertain_after=900.0, errors=rescue_errors())
        return bool(rescued)

    await eventually(swept)
    views = await ledger.messages([each.message_id for each in late], application=None)
    assert {view.status for view in views} == {"uncertain"}
    await many(ledger, 40)
    fresh = list(await claimed(ledger))
    assert len(fresh) == 40
    closings = [in_session(a_closing(each), "ses_late", n) for n, each in enumerate(late, 1)]
    closings += [in_session(a_closing(each), "ses_taken", n) for n, each in enumerate(fresh[:20], 1)]
    closings += [a_closing(each, Status.FAILED) for each in fresh[20:28]]
    closings += [a_closing(each, Status.DEFERRED, due_in=900.0) for each in fresh[28:36]]
    rest = Trouble(scope="lane", error={"code": "busy"}, first=60.0, factor=1.0, cap=60.0)
    closings += [a_closing(each, Status.DEFERRED, due_in=0.0, trouble=rest) for each in fresh[36:]]
    random.shuffle(closings)

    await asyncio.gather(*(ledger.close(each) for each in closings))

    assert set(await statuses(ledger, [each.message_id for each in (*late, *fresh[:20])])) == {"sent"}
    assert set(await statuses(ledger, [each.message_id for each in fresh[20:28]])) == {"failed"}
    assert set(await statuses(ledger, [each.message_id for each in fresh[28:]])) == {"deferred"}
    for each in (*late, *fresh):
        (attempt,) = await ledger.attempts(each.message_id)
        assert attempt.outcome is not None
    assert "peer" in await ledger.resting()
    await assert_sound(database_url)


async def test_closing_twice_changes_nothing(ledger: Ledger, database_url: str) -> None:
    """A closing whose answer was lost is written again: the same states, one try, one event."""
    message_ids = await many(ledger, 10)
    fresh = list(await claimed(ledger))
    await asyncio.gather(*(ledger.close(a_closing(each)) for each in fresh))
    before = [await ledger.events(message_id) for message_id in message_ids]

    await asyncio.gather(*(ledger.close(a_closing(each)) for each in fresh))

    assert [await ledger.events(message_id) for message_id in message_ids] == before
    assert set(await statuses(ledger, message_ids)) == {"sent"}
    await assert_sound(database_url)


async def test_success_ends_the_rest_of_a_lane_and_of_a_sender(ledger: Ledger) -> None:
    """What was simply taken still teaches: a resting lane and a stopped sender go on."""
    await many(ledger, 3)
    first, second, third = await claimed(ledger)
    rest = Trouble(scope="lane", error={"code": "busy"}, first=60.0, factor=1.0, cap=60.0)
    stop = replace(rest, scope="sender")
    await ledger.close(a_closing(first, Status.DEFERRED, due_in=0.0, trouble=rest))
    await ledger.close(a_closing(second, Status.DEFERRED, due_in=0.0, trouble=stop))
    state = await ledger.lane_state("peer", WIDE)
    assert (state.troubles, set(state.stopped)) == (1, {"noreply@contoso.com"})

    await ledger.close(a_closing(third, lane_well=True))

    state = await ledger.lane_state("peer", WIDE)
    assert (state.troubles, state.resting, dict(state.stopped)) == (0, None, {})


async def test_renewals_and_closings_do_not_wait_in_a_ring(ledger: Ledger, database_url: str) -> None:
    """A heartbeat for everything in hand runs beside closings of the same attempts: nobody is thrown out."""

    async def keep(ids: Sequence[str], over: asyncio.Event) -> None:
        while not over.is_set():
            await ledger.renew(ids, seats=[], lease=30.0)

    for _ in range(6):
        await many(ledger, 150)
        fresh = list(await claimed(ledger))
        assert all(await asyncio.gather(*(ledger.fence(each.attempt_id) for each in fresh)))
        over = asyncio.Event()
        keepers = [asyncio.create_task(keep([each.attempt_id for each in fresh], over)) for _ in range(3)]
        # In whichever order they end, the last one claimed first for example.
        await asyncio.gather(*(ledger.close(a_closing(each)) for each in reversed(fresh)))
        over.set()
        await asyncio.gather(*keepers)
    await assert_sound(database_url)


TWO = ("ana@example.com", "ben@example.com")


@pytest.mark.parametrize("deed", ["retry", "cancel", "hold", "settle_resend"])
async def test_acts_on_the_others_of_a_delivery_that_is_being_closed(
    ledger: Ledger, database_url: str, deed: str
) -> None:
    """One recipient is being closed as taken while a person acts on the other: neither is forgotten."""
    before = {
        "retry": Status.FAILED,
        "cancel": Status.DEFERRED,
        "hold": Status.DEFERRED,
        "settle_resend": Status.UNCERTAIN,
    }[deed]
    for _ in range(4):
        message_ids = await many(ledger, 12, to=TWO, on_uncertain="hold")
        first = list(await claimed(ledger))
        mixed = [_other_waits(each, before) for each in first]
        await asyncio.gather(*(ledger.close(each) for each in mixed))
        again = list(await claimed(ledger))
        assert [len(each.recipients) for each in again] == [1] * 12

        async def acted(message_id: str) -> None:
            act = Act(
                message_id=message_id,
                deed=deed,
                positions=frozenset({0}),
                reason=None,
                expires_after=timedelta(hours=1),
            )
            while isinstance(outcome := await ledger.acting.act(act, SOMEBODY), Busy):
                pass
            assert isinstance(outcome, Moved)

        work = [ledger.close(a_closing(each)) for each in again] + [acted(each) for each in message_ids]
        random.shuffle(work)
        await asyncio.gather(*work)

        await assert_sound(database_url)
        last = list(await claimed(ledger))
        going = {each.message_id for each in last}
        assert going == (set(message_ids) if deed in {"retry", "settle_resend"} else set())
        await asyncio.gather(*(ledger.close(a_closing(each)) for each in last))
        await assert_sound(database_url)


async def test_an_act_that_began_before_the_attempt(ledger: Ledger, database_url: str) -> None:
    """An act saw no attempt, one begins and ends while it has the recipients: who was put back is not forgotten."""
    (message_id,) = await many(ledger, 1, to=TWO)
    (first,) = await claimed(ledger)
    await ledger.close(_other_waits(first, Status.FAILED))
    (again,) = await claimed(ledger)
    connection = await asyncpg.connect(database_url)
    act = connection.transaction()
    await act.start()
    # As `inhand` does it, behind its look for attempts.
    await connection.execute("SELECT 1 FROM deliveries WHERE message_id = $1 FOR UPDATE", message_id)
    await connection.execute("SELECT 1 FROM recipients WHERE message_id = $1 FOR UPDATE", message_id)
    await connection.execute(
        "UPDATE recipients SET status = 'queued', due_at = now(), finished_at = NULL"
        " WHERE message_id = $1 AND position = 0",
        message_id,
    )
    closing = asyncio.create_task(ledger.close(a_closing(again)))

    async def waits() -> bool:
        other = await asyncpg.connect(database_url)
        try:
            held_up = (
                "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%recipients%'"
            )
            return bool(await other.fetch(held_up))
        finally:
            await other.close()

    await eventually(waits)
    await act.commit()
    await connection.close()
    await closing

    await assert_sound(database_url)
    (last,) = await claimed(ledger)
    assert [each.email for each in last.recipients] == ["ana@example.com"]


def _other_waits(each: Claimed, other: Status) -> Closing:
    """The first recipient has this verdict, and the second one is due again at once."""
    closing = a_closing(each, Status.DEFERRED, due_in=0.0)
    first, second = closing.recipients
    due_in = 900.0 if other is Status.DEFERRED else None
    return replace(
        closing, outcome=Outcome.DEFERRED, recipients=(replace(first, status=other, due_in=due_in), second)
    )
