"""An upgrade while the release before is at work: both go on, nobody waits for long, nothing is missed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from service.ledger import Ledger, migrate
from service.ledger.finding import Bounds, Filters
from tests.builders import a_closing, a_submission, claim
from tests.migrations import first_release as old
from tests.migrations.steps import to_revision
from tests.waiting import eventually

#: What a process of the release before asks of its connections; the waits of its statements have limits.
THEIRS = {"application_name": "postroom-worker", "lock_timeout": "10s", "enable_seqscan": "off"}

OLDER = sorted(migrate.revisions() - {migrate.head()})

MISSING = """
    SELECT (SELECT count(*) FROM recipients WHERE application IS NULL)
         + (SELECT count(*) FROM events WHERE application IS NULL)
         + (SELECT count(*) FROM messages WHERE from_key IS NULL)
         + (SELECT count(*) FROM pg_index WHERE NOT indisvalid)
"""

#: Messages that are not found by one of these.
NOT_FOUND = """
    SELECT count(*) FROM messages m CROSS JOIN (VALUES ('to'), ('domain'), ('route'), ('lane'), ('tag'),
                                                       ('metadata.order_id')) AS wanted (name)
     WHERE NOT EXISTS (SELECT 1 FROM facets f WHERE f.application = m.application AND f.name = wanted.name
                                                AND f.message_id = m.id)
"""


@asynccontextmanager
async def connected(url: str, **settings: str) -> AsyncIterator[asyncpg.Connection]:
    db = await asyncpg.connect(url, server_settings={**THEIRS, **settings})
    try:
        yield db
    finally:
        await db.close()


class Before:
    """Processes of the release before: each accepts and carries, one message after another."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stop = asyncio.Event()
        self.accepted: list[str] = []
        self.carried: list[str] = []

    async def work(self, name: str) -> None:
        async with connected(self._url) as db:
            while not self._stop.is_set():
                self.accepted.append(await old.accept(db, f"-{name}-{len(self.accepted)}"))
                self.carried += await old.carry(db, name)
                await asyncio.sleep(0.005)

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            for name in ("a", "b"):
                group.create_task(self.work(name))
            yield
            so_far = len(self.accepted)  # and some behind the migration
            await eventually(lambda: len(self.accepted) > so_far + 10, within=60)
            self._stop.set()


@pytest.mark.parametrize("revision", OLDER)
async def test_both_work_and_nothing_is_missed(empty_database_url: str, revision: str) -> None:
    """Two pods migrate at once, two of the release before go on; all that these wrote is found by the new one."""
    url = empty_database_url
    await asyncio.to_thread(to_revision, url, "0001")
    async with connected(url) as db:
        await old.fill(db, 2_500)
    await asyncio.to_thread(to_revision, url, revision)
    before = Before(url)

    async with before.at_work():
        await eventually(lambda: len(before.accepted) > 5, within=60)
        done = await asyncio.gather(*(asyncio.to_thread(migrate.upgrade, url) for _ in range(2)))

    assert done == [migrate.head()] * 2
    ledger = Ledger.open(url, name="test", connections=2)
    async with connected(url) as db:
        while left := await old.carry(db, "a"):
            before.carried += left
        assert await db.fetchval(MISSING) == 0
        assert await db.fetchval(NOT_FOUND) == 0
        assert await db.fetchval("SELECT count(*) FROM recipients WHERE status <> 'sent'") == 0
    assert len(before.carried) == len(set(before.carried)) == len(before.accepted) + 2_500 // 20
    last = before.accepted[-1]
    by_sender = Filters(application="shop", columns={"from": "noreply@contoso.com"}, subject="order 42")
    assert last in {each.id for each in await ledger.finding.find(by_sender, Bounds(limit=1000))}
    assert [event.to_status for event in await ledger.events(last)] == ["queued", "sending", "sent"]
    await ledger.dispose()


async def test_the_new_release_and_the_one_before_share_a_lane(database_url: str) -> None:
    """On the new schema each carries what the other accepted."""
    ledger = Ledger.open(database_url, name="test", connections=2)
    async with connected(database_url) as db:
        theirs = await old.accept(db, "-theirs")
        (taken,) = (await claim(ledger)).claimed
        await ledger.close(a_closing(taken))
        submission = a_submission()
        await ledger.accept(submission)
        ours = await old.carry(db, "a")

    views = await ledger.messages([theirs, *ours], application=None)
    await ledger.dispose()

    assert (taken.message_id, ours) == (theirs, [submission.messages[0].id])
    assert [view.status for view in views] == ["sent", "sent"]


@pytest.mark.parametrize(
    ("revision", "held"),
    [
        # What a dump does, and an act that takes its time.
        ("0001", "LOCK TABLE messages IN ACCESS SHARE MODE"),
        ("0002", "SELECT 1 FROM recipients WHERE position = 0 ORDER BY message_id LIMIT 1 FOR UPDATE"),
    ],
)
async def test_an_upgrade_gives_way(empty_database_url: str, revision: str, held: str) -> None:
    """While somebody holds what the upgrade wants, the others are let through; then it is brought to its end."""
    url = empty_database_url
    await asyncio.to_thread(to_revision, url, "0001")
    async with connected(url) as db:
        await old.fill(db, 50)
    await asyncio.to_thread(to_revision, url, revision)

    async with connected(url) as holder, connected(url) as other:
        async with holder.transaction():
            await holder.execute(held)
            upgrading = asyncio.create_task(asyncio.to_thread(migrate.upgrade, url))
            for number in range(3):
                await eventually(lambda: waits(other), within=60)
                await old.accept(other, f"-through-{number}")
                # Rows of the same piece, which the upgrade let go of.
                await other.fetch("SELECT 1 FROM recipients WHERE email LIKE 'Ana.4%' FOR UPDATE")
            assert not upgrading.done()

        assert await upgrading == migrate.head()
        assert await other.fetchval(MISSING) == 0


async def test_the_building_of_an_index_waits_and_is_not_begun_again(empty_database_url: str) -> None:
    """A transaction that lasts longer than the upgrade's patience is waited for once; the others go on meanwhile."""
    url = empty_database_url
    await asyncio.to_thread(to_revision, url, "0006")
    began = "SELECT max(query_start) FROM pg_stat_activity WHERE application_name = 'postroom-migrate'"

    async with connected(url) as holder, connected(url) as other:
        async with holder.transaction():
            await holder.execute("LOCK TABLE deliveries IN ROW EXCLUSIVE MODE")
            upgrading = asyncio.create_task(asyncio.to_thread(migrate.upgrade, url))
            await eventually(lambda: waits(other), within=60)
            first = await other.fetchval(began)
            await old.accept(other, "-through")
            await asyncio.sleep(2.5)  # three times its patience
            assert await other.fetchval(began) == first
            assert not upgrading.done()

        assert await upgrading == migrate.head()
        assert await other.fetchval("SELECT count(*) FROM pg_index WHERE NOT indisvalid") == 0


async def waits(db: asyncpg.Connection) -> bool:
    return bool(
        await db.fetchval(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE application_name = 'postroom-migrate' AND wait_event_type = 'Lock'"
        )
    )
