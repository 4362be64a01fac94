"""What a claim takes: windows, budgets, turns, senders that rest, on a real PostgreSQL."""

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.ledger import Ledger, accepting, choosing, claiming
from service.ledger.claiming import Wish
from service.ledger.closing import Trouble
from service.ledger.engine import transaction
from service.ledger.pace import LaneLimits
from service.ledger.states import Status
from service.ledger.stops import REFUSALS
from tests.builders import a_closing, a_submission, claim

ERROR = {"code": "send_as_denied"}


@pytest.fixture
async def ledger(database_url: str) -> AsyncIterator[Ledger]:
    opened = Ledger.open(database_url, name="tests", connections=4)
    yield opened
    await opened.dispose()


def limits(**changes: int | None) -> LaneLimits:
    unlimited: dict[str, Any] = {
        "connections": 10,
        "messages_per_minute": None,
        "messages_per_hour": None,
        "recipients_per_day": None,
        "external_per_day": None,
    }
    return LaneLimits(**(unlimited | changes), counts_external=True)


async def accept(ledger: Ledger, **what: Any) -> str:
    submission = a_submission(**what)
    await ledger.accept(submission)
    return submission.messages[0].id


async def run(ledger: Ledger, statement: str) -> Any:
    async with transaction(ledger._engine) as db:
        return await db.execute(text(statement))


async def some_days_ago(ledger: Ledger, hours: float) -> None:
    """Make everything that has ended so much older."""
    async with transaction(ledger._engine) as db:
        await db.execute(
            text("UPDATE attempts SET ended_at = ended_at - make_interval(secs => :seconds)"),
            {"seconds": hours * 3600.0},
        )


# -- turns -----------------------------------------------------------------------------------


async def test_applications_take_turns_within_a_priority(ledger: Ledger) -> None:
    """A loud application with the older backlog does not starve a quiet one."""
    for _ in range(8):
        await accept(ledger, application="loud")
    quiet = [await accept(ledger, application="quiet") for _ in range(2)]

    taken = (await claim(ledger, more=4)).claimed

    assert [each.message_id in quiet for each in taken].count(True) == 2


async def test_turns_are_remembered_between_claims_of_one(ledger: Ledger) -> None:
    """With one session at a time, three applications still go round."""
    for application in ("a", "b", "c"):
        for _ in range(3):
            await accept(ledger, application=application)

    served = [(await claim(ledger, more=1)).claimed[0].application for _ in range(9)]

    assert [sorted(served[start : start + 3]) for start in (0, 3, 6)] == [["a", "b", "c"]] * 3


async def test_the_more_urgent_goes_first_whosever_turn_it_is(ledger: Ledger) -> None:
    await accept(ledger, application="a", priority=2)
    await accept(ledger, application="b", priority=1)
    urgent = await accept(ledger, application="a", priority=0)

    assert (await claim(ledger, more=1)).claimed[0].message_id == urgent


# -- budgets ---------------------------------------------------------------------------------


async def test_a_day_is_counted_from_sums_and_from_what_they_do_not_hold_yet(ledger: Ledger) -> None:
    """Recipients of hours ago are summed up by the minute, and count until the minute is a day old."""
    day = limits(recipients_per_day=4)
    for hours in (23.9, 2):
        await accept(ledger, to=("a@example.com", "b@example.com"))
        (taken,) = (await claim(ledger, limits=day)).claimed
        await ledger.close(a_closing(taken))
        await some_days_ago(ledger, hours)
    await ledger.sum_up()
    await ledger.sum_up()  # safe to do twice
    assert (await run(ledger, "SELECT count(*) FROM uses WHERE lane = 'peer'")).scalar_one() == 1

    await accept(ledger)
    again = await claim(ledger, limits=day)

    assert len(again.claimed) == 1  # the first two are 25.9 hours old


async def test_a_full_day_says_when_it_frees(ledger: Ledger) -> None:
    day = limits(recipients_per_day=2)
    await accept(ledger, to=("a@example.com", "b@example.com"))
    (taken,) = (await claim(ledger, limits=day)).claimed
    await ledger.close(a_closing(taken))
    await some_days_ago(ledger, 23)
    await ledger.sum_up()
    await accept(ledger)

    refused = await claim(ledger, limits=day)

    assert refused.claimed == ()
    assert refused.again_in is not None
    assert 3590 < refused.again_in <= 3661


async def test_internal_mail_goes_on_when_the_external_budget_is_spent(ledger: Ledger) -> None:
    """The tenant's budget holds over all lanes that count towards it, and only for external recipients."""
    tenant = limits(external_per_day=3)
    await accept(ledger, external=True, to=("a@example.com", "b@example.com"), lane="one")
    await accept(ledger, external=True, to=("c@example.com", "d@example.com"), lane="two")
    inside = await accept(ledger, lane="two")

    assert len((await claim(ledger, lane="one", limits=tenant)).claimed) == 1
    two = await claim(ledger, lane="two", limits=tenant)
    nothing = await claim(ledger, lane="two", limits=tenant)

    assert [each.message_id for each in two.claimed] == [inside]
    assert nothing.claimed == ()
    assert nothing.again_in is not None


async def test_the_external_budget_frees_after_a_day(ledger: Ledger) -> None:
    tenant = limits(external_per_day=2)
    await accept(ledger, external=True, to=("a@example.com", "b@example.com"))
    (taken,) = (await claim(ledger, limits=tenant)).claimed
    await ledger.close(a_closing(taken))
    await accept(ledger, external=True)
    assert (await claim(ledger, limits=tenant)).claimed == ()

    await some_days_ago(ledger, 24.1)
    await ledger.sum_up()

    assert len((await claim(ledger, limits=tenant)).claimed) == 1


async def test_a_refused_external_recipient_rests_all_of_them_and_nothing_else(ledger: Ledger) -> None:
    """A refusal by the tenant's limit pauses external mail on every lane; then one delivery tries it."""
    tenant = limits(external_per_day=1000)
    await accept(ledger, external=True, lane="one")
    (taken,) = (await claim(ledger, lane="one", limits=tenant)).claimed
    trouble = Trouble(scope="external", error=ERROR, first=0.3, factor=2, cap=10)
    await ledger.close(a_closing(taken, Status.DEFERRED, due_in=0.0, trouble=trouble))
    for _ in range(2):
        await accept(ledger, external=True, lane="two")
    inside = await accept(ledger, lane="two")

    resting = await claim(ledger, lane="two", limits=tenant)
    assert [each.message_id for each in resting.claimed] == [inside]

    await run(ledger, "UPDATE lanes SET paused_until = clock_timestamp() WHERE name = '~external'")
    probe = await claim(ledger, lane="two", limits=tenant)
    assert len(probe.claimed) == 1
    assert (await claim(ledger, lane="two", limits=tenant)).claimed == ()

    await ledger.close(a_closing(probe.claimed[0]))
    assert len((await claim(ledger, lane="two", limits=tenant)).claimed) == 1


async def test_a_refused_external_recipient_rests_the_others_where_no_budget_is_known(ledger: Ledger) -> None:
    """Without a count of licences the tenant's own refusal still stops external mail, and one tries it."""
    unknown = limits()
    for _ in range(4):
        await accept(ledger, external=True)
    (taken,) = (await claim(ledger, more=1, limits=unknown)).claimed
    trouble = Trouble(scope="external", error=ERROR, first=30, factor=2, cap=100)
    await ledger.close(a_closing(taken, Status.DEFERRED, due_in=0.0, trouble=trouble))
    inside = await accept(ledger)

    assert [each.message_id for each in (await claim(ledger, limits=unknown)).claimed] == [inside]

    await run(ledger, "UPDATE lanes SET paused_until = clock_timestamp() WHERE name = '~external'")
    assert len((await claim(ledger, limits=unknown)).claimed) == 1
    assert (await claim(ledger, limits=unknown)).claimed == ()


class Interleaved:
    """A connection on which something else happens right behind one statement."""

    def __init__(self, db: AsyncConnection, behind: Any, then: Any) -> None:
        self._db, self._behind, self._then = db, behind, then

    async def execute(self, statement: Any, *values: Any) -> Any:
        return await self._db.execute(statement, *values)

    async def scalar(self, statement: Any, *values: Any) -> Any:
        found = await self._db.scalar(statement, *values)
        if statement is self._behind:
            await self._then()
        return found

    async def get_raw_connection(self) -> Any:
        return await self._db.get_raw_connection()


async def test_a_claim_that_saw_no_external_mail_takes_none(ledger: Ledger) -> None:
    """What comes between the look at the tenant's budget and the claim is for the next claim, which counts it."""
    tenant = limits(external_per_day=0)
    inside = await accept(ledger)

    wish = Wish(lane="peer", route="peer", worker="w1", seats=(), more=10, lease=30.0, suspects=True)
    async with ledger._engine.connect() as other, transaction(ledger._engine) as db:
        # Its transaction begins before the claim, so it is due by the claim's clock; its commit comes late.
        await other.execute(text("SELECT now()"))

        async def external_mail_comes() -> None:
            await accepting.accept(other, [a_submission(external=True)])
            await other.commit()

        between = cast("AsyncConnection", Interleaved(db, choosing._EXTERNAL_WAITS, external_mail_comes))
        taken = await claiming.claim(between, wish, tenant)

    assert [each.message_id for each in taken.claimed] == [inside]


async def test_a_seat_that_ran_out_carries_nothing(ledger: Ledger) -> None:
    """A worker that kept a seat for longer than its lease is told so, and another's connection counts."""
    two = limits(connections=1)
    await accept(ledger)
    (held,) = (await claim(ledger, limits=two)).claimed
    assert held.seat is not None
    await ledger.close(a_closing(held))
    await accept(ledger)
    await run(ledger, "UPDATE connections SET lease_until = clock_timestamp() - interval '1 second'")

    taken = await claim(ledger, seats=(held.seat,), more=0, limits=two)

    assert set(taken.lost_seats) == {held.seat}
    assert taken.claimed == ()


# -- senders that rest -----------------------------------------------------------------------


def refused(taken: Any, *, first: float = 30.0) -> Any:
    trouble = Trouble(scope="sender", error=ERROR, first=first, factor=2, cap=100)
    return a_closing(taken, Status.FAILED, trouble=trouble, lane_well=True)


async def refuse_sender(ledger: Ledger, *, first: float = 30.0, **what: Any) -> None:
    """Let a sender be refused as often as it takes to let it rest."""
    for _ in range(REFUSALS):
        await accept(ledger, **what)
        (taken,) = (await claim(ledger)).claimed
        await ledger.close(refused(taken, first=first))


async def test_a_refused_sender_goes_one_by_one(ledger: Ledger) -> None:
    """After the first refusal nothing waits, but nothing of that sender goes side by side either."""
    for _ in range(4):
        await accept(ledger, sender="billing@contoso.com")
    (taken,) = (await claim(ledger, more=1)).claimed
    await ledger.close(refused(taken))

    (next_one,) = (await claim(ledger)).claimed
    assert (await claim(ledger)).claimed == ()
    await ledger.close(a_closing(next_one))

    assert len((await claim(ledger)).claimed) == 2


async def test_a_sender_that_is_refused_again_and_again_rests_and_the_others_go_on(ledger: Ledger) -> None:
    await refuse_sender(ledger, sender="billing@contoso.com")
    for _ in range(30):
        await accept(ledger, sender="billing@contoso.com")
    other = await accept(ledger)

    after = await claim(ledger, more=2)

    assert [each.message_id for each in after.claimed] == [other]
    assert (await claim(ledger)).claimed == ()


async def test_one_delivery_tries_a_stopped_sender_and_brings_the_others_back(ledger: Ledger) -> None:
    await refuse_sender(ledger)
    for _ in range(3):
        await accept(ledger)
    assert (await claim(ledger)).claimed == ()
    await run(ledger, "UPDATE stops SET until = clock_timestamp()")
    await run(ledger, "UPDATE deliveries SET due_at = clock_timestamp() WHERE due_at IS NOT NULL")
    await run(ledger, "UPDATE recipients SET due_at = clock_timestamp() WHERE due_at IS NOT NULL")

    (probe,) = (await claim(ledger)).claimed
    assert (await claim(ledger)).claimed == ()
    await ledger.close(a_closing(probe))

    assert len((await claim(ledger)).claimed) == 2


async def test_a_lane_that_was_seen_to_work_lets_its_stopped_senders_be_tried(ledger: Ledger) -> None:
    """After a check that got through, nobody waits for the end of a stop; one delivery tries it."""
    await refuse_sender(ledger)
    for _ in range(3):
        await accept(ledger)
    assert (await claim(ledger)).claimed == ()

    assert await ledger.lift_lane("peer")

    assert len((await claim(ledger)).claimed) == 1
    assert (await claim(ledger)).claimed == ()


async def test_a_refused_probe_makes_the_stop_longer(ledger: Ledger) -> None:
    await refuse_sender(ledger, first=10)
    await accept(ledger)
    await run(ledger, "UPDATE stops SET until = clock_timestamp()")
    (probe,) = (await claim(ledger)).claimed

    await ledger.close(refused(probe, first=10))

    left = await run(ledger, "SELECT extract(epoch FROM until - clock_timestamp()), troubles FROM stops")
    seconds, troubles = left.one()
    assert troubles == REFUSALS + 1
    assert 15 < seconds <= 20


async def test_refusals_of_a_resting_sender_that_come_late_are_not_counted(ledger: Ledger) -> None:
    """What was under way when the stop began tells nothing new."""
    for _ in range(REFUSALS + 2):
        await accept(ledger)
    for each in (await claim(ledger)).claimed:
        await ledger.close(refused(each))

    assert (await run(ledger, "SELECT troubles FROM stops")).scalar_one() == REFUSALS


# -- too many recipients ---------------------------------------------------------------------


async def test_a_delivery_that_is_too_large_is_halved(ledger: Ledger) -> None:
    """All of its recipients are due at once, in two transactions, and none twice."""
    everybody = tuple(f"user{n}@example.com" for n in range(5))
    await accept(ledger, to=everybody)
    (taken,) = (await claim(ledger)).claimed
    await ledger.close(a_closing(taken, Status.DEFERRED, due_in=0.0, split=True))

    halves = (await claim(ledger)).claimed

    assert sorted(len(each.recipients) for each in halves) == [2, 3]
    assert sorted(one.email for each in halves for one in each.recipients) == sorted(everybody)


async def test_one_recipient_is_not_halved(ledger: Ledger) -> None:
    await accept(ledger)
    (taken,) = (await claim(ledger)).claimed
    await ledger.close(a_closing(taken, Status.DEFERRED, due_in=0.0, split=True))

    assert len((await claim(ledger)).claimed) == 1
    assert (await run(ledger, "SELECT count(*) FROM deliveries")).scalar_one() == 1
