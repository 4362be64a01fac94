"""What many requests look at is read now and then, and not the more often the more there is to look at."""

import asyncio
from collections import Counter

from service.submission.sharing import Readings


class Things:
    """Things that are read, and how often each was."""

    def __init__(self) -> None:
        self.read = Counter[int]()
        self.readings = Readings[int](most=10_000)

    async def look(self, thing: int) -> int:
        async def work() -> int:
            self.read[thing] += 1
            return self.read[thing]

        found = self.readings.now(thing, work)
        return await self.readings.read(thing, work) if found is None else found


async def test_one_thing_is_read_once_for_all_who_look_at_it() -> None:
    """Together, and again within a moment."""
    things = Things()

    assert await asyncio.gather(*(things.look(1) for _ in range(100))) == [1] * 100
    assert await things.look(1) == 1


async def test_a_reading_that_is_too_old_is_read_anew() -> None:
    """After a second nobody takes it for good."""
    things = Things()
    await things.look(1)

    await asyncio.sleep(1.05)

    assert await things.look(1) == 2


async def test_very_many_things_are_read_anew_no_more_often_than_some_in_a_second() -> None:
    """Each was read once and is good for longer then; what was never read is read all the same."""
    things = Things()
    for _ in range(5):
        await asyncio.gather(*(things.look(thing) for thing in range(500)))
        await asyncio.sleep(0.45)

    assert set(things.read) == set(range(500))
    assert things.read.total() <= 500 + 5 * 40
    assert await things.look(501) == 1
