"""Ring lanes in the background: a bell that cannot be rung costs the caller nothing.

What was rung for in vain is found by the worker's sweep some seconds later.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection

Nudge = Callable[[Collection[str]], Awaitable[None]]

#: What an errand gets to end by itself when the door is closed, in seconds.
_PATIENCE = 2.0


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

    async def aclose(self) -> None:
        """Let what is ringing end: whoever owns the bell closes it next."""
        if self._errands:
            _, late = await asyncio.wait(set(self._errands), timeout=_PATIENCE)
            for errand in late:
                errand.cancel()
