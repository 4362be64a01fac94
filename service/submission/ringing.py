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
    """Rings; what is to be rung while the bell is in hand is rung together afterwards."""

    def __init__(self, nudge: Nudge) -> None:
        self._nudge = nudge
        self._lanes: set[str] = set()
        self._errand: asyncio.Task[None] | None = None

    def ring(self, lanes: Collection[str]) -> None:
        """Let the workers look at these lanes now."""
        self._lanes.update(lanes)
        if self._lanes and self._errand is None:
            self._errand = asyncio.create_task(self._ring())

    async def _ring(self) -> None:
        try:
            while self._lanes:
                lanes, self._lanes = self._lanes, set()
                with contextlib.suppress(Exception):
                    await self._nudge(lanes)
        finally:
            self._errand = None

    async def aclose(self) -> None:
        """Let what is ringing end: whoever owns the bell closes it next."""
        if self._errand is not None:
            _, late = await asyncio.wait({self._errand}, timeout=_PATIENCE)
            for errand in late:
                errand.cancel()
