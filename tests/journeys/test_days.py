"""Limits over hours and days, with the clock moved: a day passes in seconds, and nothing else is pretended.

PostgreSQL and every process of ours live by the test's clock (`tests.tools.faketime`). The witness is the
scripted peer, whose log is put on the honest clock: the machine's, and the time that was let pass. A
clock of ours that is set back by NTP moves for us and not for the peer.
"""

import asyncio
import signal
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from service.ledger import migrate
from service.local.servers import LocalRedis
from tests.house import Door, Processes, configuration, processes, smarthost
from tests.peer import ScriptedPeer, Taken
from tests.tools.faketime import Clock, ClockedPostgres, a_clock
from tests.waiting import eventually

pytestmark = pytest.mark.debian

#: How long the sweep may take to notice that the clock has moved, in seconds of the machine: some poll intervals.
A_MOMENT = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """A clock, and a migrated database that lives by it."""

    clock: Clock
    database_url: str

    def house(
        self,
        folder: Path,
        redis_url: str,
        *,
        routes: list[dict[str, Any]],
        lease: str = "15s",
    ) -> AbstractContextManager[Processes]:
        """Give processes that live by the clock too."""
        given = configuration(self.database_url, redis_url, routes=routes, dispatch={"lease": lease})
        return processes(folder, given, environment=self.clock.environment)

    async def value(self, query: str) -> Any:
        """Ask the ledger for one value."""
        connection = await asyncpg.connect(self.database_url)
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    def fullest(self, taken: Iterable[Taken], *, seconds: float, recipients: bool = False) -> int:
        """Count what the fullest window of this length holds by the honest clock, wherever it begins."""
        entries = sorted((self.clock.true(each.at), len(each.rcpts) if recipients else 1) for each in taken)
        most = held = first = 0
        for at, amount in entries:
            held += amount
            while at - entries[first][0] >= timedelta(seconds=seconds):
                held -= entries[first][1]
                first += 1
            most = max(most, held)
        return most


@pytest.fixture
def times(tmp_path: Path) -> Iterator[Times]:
    with a_clock() as clock, ClockedPostgres.by(clock, tmp_path / "postgres") as server:
        url = server.create_database("days")
        with ThreadPoolExecutor(1) as thread:  # migrations run a loop of their own
            thread.submit(migrate.upgrade, url).result()
        yield Times(clock=clock, database_url=url)


async def send_to_many(door: Door, name: str, recipients: int) -> str:
    return await door.submit(to=[f"{name}-{n}@example.com" for n in range(recipients)])


async def with_status(door: Door, messages: Iterable[str], *statuses: str) -> list[dict[str, Any]]:
    """Return those of the messages that are in one of these states now."""
    found = [await door.message(each) for each in messages]
    return [message for message in found if message["status"] in statuses]


async def let_pass(times: Times, peer: ScriptedPeer, **by: float) -> None:
    """Let hours pass. No session lives so long without mail: the peer ends them first, as Microsoft does."""
    await peer.hang_up()
    times.clock.go_on(**by)


def taken_for(peer: ScriptedPeer, name: str) -> list[Taken]:
    return [each for each in peer.taken if each.rcpts[0].startswith(f"{name}-")]


# -- ten thousand recipients in 24 hours ------------------------------------------------------

HOUR, DAY = 3600.0, 86_400.0


@pytest.mark.timeout(300)
async def test_ten_thousand_recipients_in_any_24_hours(times: Times, redis_url: str, tmp_path: Path) -> None:
    """4,000 at once and the rest six hours later, a worker killed: what does not fit waits a day, as foretold.

    The attempt of the killed worker uses its 500 for a day although the peer took nothing, because
    nobody can know that of every attempt: the peer sees 9,500, which is more than nine tenths.
    """
    clock = times.clock
    limits = {"recipients_per_day": 10_000, "recipients_per_message": 500, "connections": 3}
    async with ScriptedPeer() as peer:
        with times.house(tmp_path, redis_url, routes=[smarthost(peer, limits=limits)]) as house:
            house.start_api()
            workers = {each.pid: each for each in [house.start_worker() for _ in range(2)]}
            async with house.door() as door:
                began = clock.now()
                sent = [await send_to_many(door, f"early{n}", 500) for n in range(8)]
                for each in sent:
                    await door.in_state(each, "sent")

                await let_pass(times, peer, hours=6)
                gate = asyncio.Event()
                peer.on("data", until=gate, times=1)
                sent += [await send_to_many(door, f"later{n}", 500) for n in range(17)]
                await eventually(lambda: len(peer.taken) == 8 + 11, within=60.0)
                workers[int(await eventually(lambda: _holder(times)))].kill()
                gate.set()
                house.start_worker()

                await let_pass(times, peer, minutes=10)
                await eventually(lambda: times.value("SELECT count(*) FROM uses WHERE lane <> ''"))
                # The killed worker's message, once its lease has run out, and the five that never fitted.
                await eventually(
                    lambda: times.value("SELECT count(*) = 0 FROM attempts WHERE outcome IS NULL")
                )
                waiting = await with_status(door, sent, "queued", "deferred")
                assert len(waiting) == 6
                for message in waiting:
                    assert "10,000 recipients in 24 hours" in " ".join(message["expected_because"])
                    expected = datetime.fromisoformat(message["expected_at"])
                    # To the minute: a day is counted in sums of minutes.
                    assert timedelta(hours=24) <= expected - began < timedelta(hours=24, minutes=3)

                await let_pass(times, peer, hours=6)
                await asyncio.sleep(A_MOMENT)
                assert len(peer.taken) == 19

                await let_pass(times, peer, hours=12)
                for each in sent:
                    await door.in_state(each, "sent")

                # Of the second day 6,000 are used by what went six hours after the beginning, and 3,000 now.
                more = [await send_to_many(door, f"more{n}", 500) for n in range(4)]
                await eventually(lambda: len(peer.taken) == 25 + 2)
                await asyncio.sleep(A_MOMENT)
                for message in await with_status(door, more, "queued"):
                    expected = datetime.fromisoformat(message["expected_at"])
                    assert timedelta(hours=30) <= expected - began < timedelta(hours=30, minutes=10)
                await let_pass(times, peer, hours=6)
                for each in more:
                    await door.in_state(each, "sent")

                made = [await door.attempts(each) for each in sent + more]

    outcomes = Counter(tuple(attempt["outcome"] for attempt in attempts) for attempts in made)
    assert outcomes == {("sent",): 28, ("deferred", "sent"): 1}
    copies = Counter(recipient for each in peer.taken for recipient in each.rcpts)
    assert len(copies) == 29 * 500
    assert set(copies.values()) == {1}
    assert 9_500 <= times.fullest(peer.taken, seconds=DAY, recipients=True) <= 10_000
    assert peer.max_connections <= 3


async def _holder(times: Times) -> str | None:
    """Return the process id of the worker that holds the only open attempt."""
    worker = await times.value("SELECT min(worker) FROM attempts WHERE outcome IS NULL HAVING count(*) = 1")
    return None if worker is None else str(worker).rpartition(":")[2]


# -- the clock is set back -------------------------------------------------------------------


async def test_a_minute_holds_when_the_clock_is_set_back(
    times: Times, redis_url: str, tmp_path: Path
) -> None:
    """Our clock goes back by ten minutes: no window of the peer's holds more, and everything is sent."""
    clock = times.clock
    async with ScriptedPeer() as peer:
        route = smarthost(peer, limits={"messages_per_minute": 5, "connections": 2})
        with times.house(tmp_path, redis_url, routes=[route], lease="20m") as house:
            house.start_api()
            house.start_worker()
            async with house.door() as door:
                sent = [await send_to_many(door, f"before{n}", 1) for n in range(5)]
                for each in sent:
                    await door.in_state(each, "sent")
                clock.step(minutes=-10)
                sent += [await send_to_many(door, f"after{n}", 1) for n in range(7)]
                for _ in range(40):
                    await asyncio.sleep(A_MOMENT / 2)
                    if len(peer.taken) == len(sent):
                        break
                    clock.go_on(seconds=45)
                for each in sent:
                    await door.in_state(each, "sent")

    assert len(peer.taken) == 12
    assert times.fullest(peer.taken, seconds=60.0) == 5


async def test_a_day_holds_when_the_clock_is_set_back(times: Times, redis_url: str, tmp_path: Path) -> None:
    """Minutes that were summed up and come a second time are counted a second time."""
    clock = times.clock
    async with ScriptedPeer() as peer:
        route = smarthost(peer, limits={"recipients_per_day": 1_000, "connections": 2})
        with times.house(tmp_path, redis_url, routes=[route]) as house:
            house.start_api()
            house.start_worker()
            async with house.door() as door:
                sent = [await send_to_many(door, f"before{n}", 100) for n in range(6)]
                for each in sent:
                    await door.in_state(each, "sent")
                await let_pass(times, peer, minutes=10)
                await eventually(lambda: _summed_up(times, 600))

                clock.step(minutes=-10)
                sent += [await send_to_many(door, f"after{n}", 100) for n in range(9)]
                await eventually(lambda: len(peer.taken) >= 10)
                await asyncio.sleep(A_MOMENT)
                assert len(peer.taken) == 10

                await let_pass(times, peer, minutes=20)
                await eventually(lambda: _summed_up(times, 1_000))
                await let_pass(times, peer, hours=12)
                await asyncio.sleep(A_MOMENT)
                assert len(peer.taken) == 10

                await let_pass(times, peer, hours=12)
                for each in sent:
                    await door.in_state(each, "sent")

    assert len(peer.taken) == 15
    assert times.fullest(peer.taken, seconds=DAY, recipients=True) == 1_000


async def _summed_up(times: Times, recipients: int) -> bool:
    return bool(
        await times.value("SELECT coalesce(sum(recipients), 0) FROM uses WHERE lane <> ''") == recipients
    )


# -- minutes, many of them -------------------------------------------------------------------


@pytest.mark.timeout(300)
async def test_many_minutes_on_three_lanes_with_restarts_and_without_redis(
    times: Times, redis: LocalRedis, tmp_path: Path
) -> None:
    """Five seconds pass at a time; three workers are restarted in turn, and Redis is never there."""
    limits = {"four": 4, "seven": 7, "ten": 10}
    redis.kill()
    async with ScriptedPeer() as peer:
        routes = [
            smarthost(peer, name=name, limits={"messages_per_minute": limit, "connections": 2})
            for name, limit in limits.items()
        ]
        with times.house(tmp_path, redis.url, routes=routes, lease="20m") as house:
            house.start_api()
            workers = [house.start_worker() for _ in range(3)]
            async with house.door() as door:
                for name, limit in limits.items():
                    for n in range(4 * limit):
                        await door.submit(route=name, to=f"{name}-{n}@example.com")
                for turn in range(120):
                    await asyncio.sleep(A_MOMENT / 2)
                    if len(peer.taken) == 4 * sum(limits.values()):
                        break
                    times.clock.go_on(seconds=5)
                    if turn % 15 == 7:
                        workers.pop(0).send_signal(signal.SIGTERM)
                        workers.append(house.start_worker())

    for name, limit in limits.items():
        taken = taken_for(peer, name)
        assert len({each.rcpts for each in taken}) == len(taken) == 4 * limit
        assert times.fullest(taken, seconds=60.0) == limit


async def test_a_quiet_application_gets_its_turn_in_a_full_minute(
    times: Times, redis_url: str, tmp_path: Path
) -> None:
    """One application has a hundred messages waiting, another sends now and then: it goes with the next permits."""
    async with ScriptedPeer() as peer:
        route = smarthost(peer, limits={"messages_per_minute": 10, "connections": 2})
        with times.house(tmp_path, redis_url, routes=[route], lease="20m") as house:
            house.start_api()
            house.start_worker()
            async with house.door("loud") as loud, house.door("quiet") as quiet:
                for n in range(100):
                    await loud.submit(to=f"loud-{n}@example.com")
                overtaken = []
                for n in range(6):
                    await quiet.submit(to=f"quiet{n}-@example.com")
                    before = len(peer.taken)
                    for _ in range(30):
                        if taken_for(peer, f"quiet{n}"):
                            break
                        times.clock.go_on(seconds=10)
                        await asyncio.sleep(A_MOMENT / 2)
                    place = next(
                        place
                        for place, each in enumerate(peer.taken)
                        if each.rcpts[0] == f"quiet{n}-@example.com"
                    )
                    overtaken.append(place - before)

    assert len(peer.taken) < 100, "nothing waited any more"
    assert max(overtaken) <= 4  # two were in hand, and a turn of two has one of each
    assert times.fullest(peer.taken, seconds=60.0) <= 10
