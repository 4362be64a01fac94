"""One timer for many waits: each ends with what moves, or with its own limit."""

import asyncio
from collections.abc import Callable

import pytest
import uvloop

from service.smtp.watch import Watch


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def loop_factory(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    factory: Callable[[], asyncio.AbstractEventLoop] = request.param
    return factory


def test_each_wait_has_its_own_limit(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """A short wait behind a long one ends by its own limit, and a long one behind a short one does not."""

    async def story() -> None:
        loop, watch = asyncio.get_running_loop(), Watch()
        for limit in (600.0, 0.02, 600.0, 0.05):
            if limit > 1:
                loop.call_later(0.1, watch.moved)
            start = loop.time()
            assert await watch.wait(until=start + limit) is (limit > 1)
            assert loop.time() - start >= min(limit, 0.1) - 0.003
        watch.end()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(story())


async def test_one_timer_serves_many_waits() -> None:
    """Waits that are not longer than the ones before set no timer of their own."""
    loop, watch = asyncio.get_running_loop(), Watch()
    alarms = set()
    for _ in range(50):
        loop.call_soon(watch.moved)
        assert await watch.wait(until=loop.time() + 300)
        alarms.add(watch._alarm)
    watch.end()

    assert len(alarms) == 1


async def test_all_who_wait_are_woken() -> None:
    """What moves is for everybody, and a limit for one alone; who is cancelled takes nobody with him."""
    loop, watch = asyncio.get_running_loop(), Watch()
    long = [asyncio.create_task(watch.wait(until=loop.time() + 600)) for _ in range(3)]
    short = asyncio.create_task(watch.wait(until=loop.time() + 0.02))
    assert not await short
    long[0].cancel()
    await asyncio.sleep(0)
    assert not long[1].done()
    watch.moved()

    assert all(await asyncio.gather(long[1], long[2]))
    watch.end()


async def test_the_end_leaves_no_timer() -> None:
    """A connection that is gone leaves nothing in the loop, and nobody waiting."""
    loop, watch = asyncio.get_running_loop(), Watch()
    waiting = asyncio.create_task(watch.wait(until=loop.time() + 600))
    await asyncio.sleep(0)
    alarm = watch._alarm
    watch.end()

    assert await waiting
    assert alarm is not None
    assert alarm.cancelled()
