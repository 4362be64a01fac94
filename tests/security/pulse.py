"""How long an event loop was busy with one thing: the pulse of the process that `/livez` would wait for.

A beat goes through the loop as often as it can. Between two beats the whole process may have used so much
time of the processor, in the loop or in a thread that kept the interpreter's lock. Time on the wall would
measure the machine and whoever else works on it.
"""

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_BEAT = 0.001  # seconds


class Pulse:
    """The longest time of the processor between two beats, in seconds."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def beat(self) -> None:
        before = time.process_time()
        while True:
            await asyncio.sleep(_BEAT)
            now = time.process_time()
            self.longest = max(self.longest, now - before)
            before = now


@asynccontextmanager
async def pulse() -> AsyncIterator[Pulse]:
    """Feel the pulse of this loop for a while.

    What is there before is out of the collector's sight, as in `postroom api`: the tests' own heap is no service's.
    """
    gc.collect()
    gc.freeze()
    found = Pulse()
    beating = asyncio.create_task(found.beat())
    await asyncio.sleep(5 * _BEAT)
    found.longest = 0.0
    try:
        yield found
        await asyncio.sleep(2 * _BEAT)
    finally:
        beating.cancel()
        gc.unfreeze()
