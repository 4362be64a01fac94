"""A task that swallows a cancellation still ends."""

import asyncio

from service.delivery.tasks import end


async def test_a_swallowed_cancellation_is_not_the_last_one() -> None:
    """`wait_for` before Python 3.12 drops a cancellation that comes together with its result."""
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                if swallowed == 2:
                    raise
                swallowed += 1

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await end([task])

    assert task.cancelled()
    assert swallowed == 2


async def test_what_a_task_raises_on_its_way_out_is_dropped() -> None:
    async def failing() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            raise RuntimeError("on the way out")

    task = asyncio.create_task(failing())
    await asyncio.sleep(0)
    await end([task])

    assert task.done()


async def test_nothing_to_end_is_no_wait() -> None:
    await end([])
