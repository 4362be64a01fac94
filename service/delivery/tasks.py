"""End background tasks for certain.

One cancellation may be lost: until Python 3.12, `asyncio.wait_for` returns the result instead
of raising when what it waits for is done in the same turn of the loop (cpython issue 86296), and
the clients of Redis and PostgreSQL use it for every command. A task that went on would keep a
worker from ever ending, so it is told again.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

#: How long a task gets to end before it is told again, in seconds.
_PATIENCE = 0.5


async def end(tasks: Iterable["asyncio.Task[Any]"]) -> None:
    """Cancel these tasks, again and again, until they are done; what they raise is dropped."""
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        done, pending = await asyncio.wait(pending, timeout=_PATIENCE)
        for task in done:
            if not task.cancelled():
                task.exception()
