"""Blocking work beside the event loop, each piece in a thread of its own.

The loop's own threads are few, six on a machine with two cores, and everybody's. A resolver without an
answer blocks one for ten seconds and more: a handful of sessions that are to be opened to one such name would take
all of them, and every other lane would wait for a thread although its own name is known. A thread costs 0.1 ms.

Nobody waits for such a thread: neither who has given up, nor the end of the process. How many there are is
bounded by who asks: one for each session that is to be opened, and for each token; what was given up ends with the
resolver's own patience.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

Result = TypeVar("Result")


async def aside(work: Callable[[], Result], *, name: str) -> Result:
    """Do blocking work in a thread of this name, and raise what it raises."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def settle(told: Callable[[], None]) -> None:
        if not future.done():  # nobody has given up
            told()

    def run() -> None:
        try:
            told = partial(future.set_result, work())
        except Exception as fault:
            told = partial(future.set_exception, fault)  # handed to the one who waits
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, told)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await future
