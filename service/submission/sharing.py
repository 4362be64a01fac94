"""What many requests look at, read now and then.

A reading is good for a second. It is begun anew in the background when half of that is over, so that under
load nobody waits for it, and who needs one that is too old waits for it together with all the others.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from service.ledger import LedgerUnavailable

Value = TypeVar("Value")

#: How long a reading is good, and when it is begun anew, in seconds.
GOOD_FOR = 1.0
_RENEW_AFTER = 0.5


class Readings(Generic[Value]):
    """Readings by name, in one event loop."""

    def __init__(self, *, most: int) -> None:
        """Remember `most` of them."""
        self._most = most
        self._kept: dict[Hashable, tuple[float, Value]] = {}  # when its reading began
        self._under_way: dict[Hashable, asyncio.Task[Value]] = {}

    def now(self, name: Hashable, work: Callable[[], Coroutine[Any, Any, Value]]) -> Value | None:
        """Return a reading that is still good, None where there is none; never waits."""
        kept = self._kept.get(name)
        if kept is None or (age := time.monotonic() - kept[0]) >= GOOD_FOR:
            return None
        if age >= _RENEW_AFTER and name not in self._under_way:
            self._begin(name, work).add_done_callback(_unheard)
        return kept[1]

    async def read(self, name: Hashable, work: Callable[[], Coroutine[Any, Any, Value]]) -> Value:
        """Wait for a reading; raises what it raises. Who loses patience leaves it to the others."""
        return await asyncio.shield(self._under_way.get(name) or self._begin(name, work))

    def _begin(self, name: Hashable, work: Callable[[], Coroutine[Any, Any, Value]]) -> "asyncio.Task[Value]":
        task = self._under_way[name] = asyncio.create_task(self._read(name, work))
        task.add_done_callback(lambda _: self._under_way.pop(name, None))
        return task

    async def _read(self, name: Hashable, work: Callable[[], Coroutine[Any, Any, Value]]) -> Value:
        began = time.monotonic()
        value = await work()
        if len(self._kept) >= self._most:
            self._kept.clear()
        self._kept[name] = (began, value)
        return value


def _unheard(task: "asyncio.Task[Any]") -> None:
    """Let a renewal fail in silence where the ledger is away: whoever needs it hears of it."""
    if not task.cancelled():
        with contextlib.suppress(LedgerUnavailable):
            task.result()
