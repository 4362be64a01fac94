"""Ring lanes in the background: a bell that cannot be rung costs the caller nothing.

What was rung for in vain is found by the worker's sweep some seconds later.
"""

import asyncio
import contextlib
from collections.abc import Collection

from service.submission.door import Nudge


class Ringing:
    """Rings, and keeps hold of what is ringing still."""

    def __init__(self, nudge: Nudge) -> None:
        self._nudge = nudge
        self._errands: set[asyncio.Task[None]] = set()

    def ring(self, lanes: Collection[str]) -> None:
        """Let the workers look at these lanes now."""
        if not lanes:
            return

        async def errand() -> None:
            with contextlib.suppress(Exception):
                await self._nudge(lanes)

        task = asyncio.create_task(errand())
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)
