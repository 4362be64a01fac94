"""How much of large messages a worker holds in memory at a time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from service.delivery.room import SMALL, Room
from tests.waiting import eventually

MB = 1_000_000


class Holder:
    """Takes room for messages and holds it until it is told to go."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.inside: list[str] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._go: dict[str, asyncio.Event] = {}

    async def take(self, name: str, lane: str, octets: int) -> None:
        """Begin to wait; where there is room, be in at once."""
        self._go[name] = asyncio.Event()
        self._tasks[name] = asyncio.create_task(self._hold(name, lane, octets))
        for _ in range(5):
            await asyncio.sleep(0)

    async def _hold(self, name: str, lane: str, octets: int) -> None:
        async with self.room.of(lane, octets):
            self.inside.append(name)
            await self._go[name].wait()
        self.inside.remove(name)

    async def leave(self, name: str) -> None:
        self._go[name].set()
        await self._tasks[name]
        for _ in range(5):
            await asyncio.sleep(0)

    async def give_up(self, name: str) -> None:
        self._tasks[name].cancel()
        await asyncio.gather(self._tasks[name], return_exceptions=True)
        for _ in range(5):
            await asyncio.sleep(0)

    async def end(self) -> None:
        for name in list(self._tasks):
            await self.give_up(name)


@pytest.fixture
async def holder() -> AsyncIterator[Holder]:
    """A worker with room for 100 MB."""
    async with AsyncExitStack() as stack:
        holder = Holder(Room(100 * MB))
        stack.push_async_callback(holder.end)
        yield holder


async def test_what_does_not_fit_waits_for_room(holder: Holder) -> None:
    """Never more than the room is held, and who waits comes in when somebody leaves."""
    for number in range(5):
        await holder.take(f"m{number}", f"lane{number}", 30 * MB)
    assert (holder.inside, holder.room.held, holder.room.waiting) == (["m0", "m1", "m2"], 90 * MB, 2)

    await holder.leave("m1")

    assert (holder.inside, holder.room.held, holder.room.waiting) == (["m0", "m2", "m3"], 90 * MB, 1)


async def test_small_messages_never_wait(holder: Holder) -> None:
    """Where the room is full of large messages, a small one goes at once and counts nothing."""
    await holder.take("half", "a", 50 * MB)
    await holder.take("other half", "b", 50 * MB)

    await holder.take("small", "a", SMALL)

    assert holder.inside == ["half", "other half", "small"]
    assert holder.room.held == 100 * MB


async def test_a_lane_that_stalls_leaves_half_of_the_room(holder: Holder) -> None:
    """A lane whose large messages do not end waits for itself; another one's go past it."""
    for number in range(4):
        await holder.take(f"stalled{number}", "stalled", 25 * MB)
    assert holder.inside == ["stalled0", "stalled1"]

    await holder.take("well", "well", 25 * MB)

    assert holder.inside == ["stalled0", "stalled1", "well"]


async def test_a_large_message_is_not_overtaken_for_ever(holder: Holder) -> None:
    """Who waits for the whole room's sake goes before all who came later, even where these would fit."""
    await holder.take("first", "a", 50 * MB)
    await holder.take("second", "b", 40 * MB)
    await holder.take("large", "c", 45 * MB)

    await holder.take("later", "d", 5 * MB)
    assert holder.inside == ["first", "second"]

    await holder.leave("first")
    assert holder.inside == ["second", "large", "later"]


async def test_a_message_larger_than_the_room_goes_alone(holder: Holder) -> None:
    """It waits until nothing else is in hand, and then goes."""
    await holder.take("before", "a", 1 * MB)
    await holder.take("huge", "b", 150 * MB)
    await holder.take("after", "c", 1 * MB)
    assert holder.inside == ["before"]

    await holder.leave("before")
    assert holder.inside == ["huge"]

    await holder.leave("huge")
    assert holder.inside == ["after"]


async def test_who_gives_up_waiting_leaves_nothing_behind(holder: Holder) -> None:
    """A worker that stops cancels those that wait and those that are in: the room is empty then."""
    await holder.take("in", "a", 80 * MB)
    await holder.take("waits", "b", 80 * MB)
    await holder.take("waits too", "c", 10 * MB)

    await holder.give_up("waits")
    assert holder.inside == ["in", "waits too"]

    await holder.give_up("in")
    await holder.leave("waits too")
    await eventually(lambda: _empty(holder.room), within=5.0)


async def _empty(room: Room) -> bool:
    return (room.held, room.waiting) == (0, 0)
