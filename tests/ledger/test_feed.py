"""The feed: an order in which no event can be missed, and followers that see each event once."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.ledger import Ledger, feed, migrate
from service.ledger.engine import open_engine, transaction
from tests.builders import a_submission


@pytest.fixture
async def ledger(database_url: str) -> AsyncIterator[Ledger]:
    opened = Ledger.open(database_url, name="test", connections=5)
    yield opened
    await opened.dispose()


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    opened = open_engine(database_url, name="test", size=5)
    yield opened
    await opened.dispose()


async def accepted(ledger: Ledger, **changes: Any) -> str:
    submission = a_submission(**changes)
    await ledger.accept(submission)
    return submission.messages[0].id


async def hold(db: AsyncConnection, message_id: str) -> None:
    """Move a message's recipients, which makes an event in the transaction of `db`."""
    await db.execute(text("UPDATE recipients SET status = 'held' WHERE message_id = :id"), {"id": message_id})


async def read(ledger: Ledger, cursor: int | None = None, **changes: Any) -> feed.Page:
    return await ledger.feed.after("tests", cursor, **{"limit": 100, **changes})


async def test_an_event_that_commits_late_is_not_missed(ledger: Ledger, engine: AsyncEngine) -> None:
    """While an older transaction is open nothing newer is shown; then both are, the older one first."""
    early, late = await accepted(ledger), await accepted(ledger)
    begun = (await read(ledger)).next

    async with transaction(engine) as db:
        await hold(db, early)
        async with transaction(engine) as other:
            await hold(other, late)
        while_open = await read(ledger, begun)
    afterwards = await read(ledger, begun)

    assert list(while_open.events) == []
    assert begun == while_open.next
    assert [early, late] == [event.message_id for event in afterwards.events]


async def test_numbers_out_of_order_are_read_by_transaction(ledger: Ledger, engine: AsyncEngine) -> None:
    """A transaction that began first and wrote last comes first, and going on behind it loses nothing."""
    first, second = await accepted(ledger), await accepted(ledger)
    begun = (await read(ledger)).next

    async with transaction(engine) as db:
        await db.execute(text("SELECT pg_current_xact_id()"))
        async with transaction(engine) as other:
            await hold(other, second)
        await hold(db, first)
    page = await read(ledger, begun, limit=1)
    following = await read(ledger, page.next)

    assert [first] == [event.message_id for event in page.events]
    assert page.more
    assert [second] == [event.message_id for event in following.events]
    assert page.events[0].id > following.events[0].id


async def test_readers_beside_writers_see_everything_once(ledger: Ledger, engine: AsyncEngine) -> None:
    """A reader that goes from page to page while many write sees each event exactly once."""
    messages = [await accepted(ledger) for _ in range(40)]
    cursor = (await read(ledger)).next
    seen: list[str] = []

    async def write(message_id: str, index: int) -> None:
        async with transaction(engine) as db:
            if index % 3:
                await db.execute(text("SELECT pg_current_xact_id()"))
                await asyncio.sleep(index % 5 / 100)
            await hold(db, message_id)
            await asyncio.sleep(index % 7 / 100)

    async def follow() -> None:
        nonlocal cursor
        while len(seen) < len(messages):
            page = await read(ledger, cursor, limit=7)
            seen.extend(event.message_id for event in page.events)
            cursor = page.next
            await asyncio.sleep(0.002)

    async with asyncio.timeout(30):
        await asyncio.gather(follow(), *(write(each, index) for index, each in enumerate(messages)))

    assert sorted(messages) == sorted(seen)
    assert list((await read(ledger, cursor)).events) == []


async def test_only_wanted_types_are_read_and_the_place_moves_on(ledger: Ledger, engine: AsyncEngine) -> None:
    """With types the others are passed over, and `next` stands behind them."""
    one, two = await accepted(ledger), await accepted(ledger)
    async with transaction(engine) as db:
        await hold(db, one)
    await accepted(ledger)

    page = await read(ledger, types={"held"})
    everything = await read(ledger)

    assert [one] == [event.message_id for event in page.events]
    assert everything.next == page.next
    assert two in {event.message_id for event in everything.events}


async def test_what_happened_since_a_moment(ledger: Ledger, engine: AsyncEngine) -> None:
    """From any moment on: what came before it is not there, a late commit is, and pages go on by event."""
    messages = [await accepted(ledger) for _ in range(6)]
    events = (await read(ledger)).events

    async def since(moment: datetime, limit: int = 100) -> feed.Page:
        async with transaction(engine) as db:
            return await feed.since(db, "tests", moment, limit=limit)

    third = await since(events[2].created_at)
    page = await since(events[2].created_at, limit=2)
    whole, nothing = (
        await since(datetime.min.replace(tzinfo=UTC)),
        await since(datetime.max.replace(tzinfo=UTC)),
    )

    assert messages[3:] == [event.message_id for event in third.events]
    assert (messages[3:5], events[4].id, True) == (
        [event.message_id for event in page.events],
        page.next,
        page.more,
    )
    assert (len(whole.events), len(nothing.events), nothing.next) == (6, 0, None)


async def test_another_applications_event_is_no_place_to_go_on_from(ledger: Ledger) -> None:
    """The feed of one application neither shows another one's events nor takes them as position."""
    await accepted(ledger, application="others")
    theirs = (await ledger.feed.after("others", None, limit=10)).events

    with pytest.raises(feed.UnknownEvent):
        await read(ledger, theirs[0].id)
    assert list((await read(ledger)).events) == []
    assert {"others": theirs[-1].id} == await ledger.feed.heads(["others", "tests"])


async def test_a_follower_starts_at_the_present_and_sees_each_event_once(
    ledger: Ledger, engine: AsyncEngine
) -> None:
    """What was before is not followed; what a transaction that failed had read comes again; then no more."""
    await accepted(ledger)
    async with transaction(engine) as db:
        await feed.start(db, "test", "tests")
        await feed.start(db, "from-the-beginning", "tests", from_the_beginning=True)
    later = await accepted(ledger)

    async with transaction(engine) as db:
        crashed = await feed.follow(db, "test", "tests", limit=10)
        await feed.advance(db, "test", "tests", seen=crashed[-1].id)
        await db.rollback()
    async with transaction(engine) as db:
        behind = await feed.behind(db, "test", limit=10)
        events = await feed.follow(db, "test", "tests", limit=10)
        await feed.advance(db, "test", "tests", seen=events[-1].id)
    async with transaction(engine) as db:
        again = await feed.follow(db, "test", "tests", limit=10)
        everything = await feed.follow(db, "from-the-beginning", "tests", limit=10)
        behind_now = await feed.behind(db, "test", limit=10)

    assert [later] == [event.message_id for event in events]
    assert crashed == events
    assert again == []
    assert len(everything) == 2
    assert (behind, behind_now) == (["tests"], [])


async def test_one_worker_at_a_time_follows_an_application(ledger: Ledger, engine: AsyncEngine) -> None:
    """While one transaction reads for a follower another one gets nothing, without waiting."""
    async with transaction(engine) as db:
        await feed.start(db, "test", "tests")
    await accepted(ledger)

    async with transaction(engine) as db, transaction(engine) as other:
        mine = await feed.follow(db, "test", "tests", limit=10)
        theirs = await feed.follow(other, "test", "tests", limit=10)

    assert (len(mine), theirs) == (1, [])


async def test_a_restored_dump_keeps_its_order_and_every_place(
    ledger: Ledger, engine: AsyncEngine, database_url: str
) -> None:
    """Transaction ids that lie ahead, as after a restore, are moved behind: nothing is lost or told twice."""
    for _ in range(4):
        await accepted(ledger)
    async with transaction(engine) as db:
        await feed.start(db, "test", "tests", from_the_beginning=True)
        events = await feed.follow(db, "test", "tests", limit=10)
        # As if the old cluster had been much further, and number 2's transaction had been the third.
        order = [events[0].id, events[2].id, events[1].id, events[3].id]
        for txid, event in zip((5, 10**9, 10**9 + 1, 10**9 + 2), order, strict=True):
            await db.execute(
                text("UPDATE events SET txid = :txid WHERE id = :id"), {"txid": str(txid), "id": event}
            )
        await feed.advance(db, "test", "tests", seen=order[1])
        await feed.start(db, "idle", "tests")
        await db.execute(text("UPDATE feeds SET txid = 1000000010 WHERE follower = 'idle'"))
    hidden = await read(ledger)

    with ThreadPoolExecutor(1) as thread:
        await asyncio.wrap_future(thread.submit(migrate.upgrade, database_url))
    new = await accepted(ledger)
    async with transaction(engine) as db:
        followed = await feed.follow(db, "test", "tests", limit=10)
        idle = await feed.follow(db, "idle", "tests", limit=10)

    assert [order[0]] == [event.id for event in hidden.events]
    assert order == [event.id for event in (await read(ledger)).events][:4]
    assert order[2:] == [event.id for event in followed][:2]
    assert [order[3], new] == [(await read(ledger, order[2])).events[0].id, followed[2].message_id]
    assert [new] == [event.message_id for event in idle]


async def test_a_database_that_was_not_restored_is_left_alone(ledger: Ledger, engine: AsyncEngine) -> None:
    """Where no transaction id lies ahead nothing is moved."""
    await accepted(ledger)
    await accepted(ledger, application="others")

    async with transaction(engine) as db:
        assert not await feed.move_to_this_cluster(db)
