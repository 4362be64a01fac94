"""What many requests look at, read now and then.

A reading is good for a second. It is begun anew in the background when half of that is over, so that under
load nobody waits for it, and who needs one that is too old waits for it together with all the others. Where very many
things are looked at, some hundred lanes for example, only so many are read anew in a second: the others are good for
longer then.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from service.ledger import LedgerUnavailable

Value = TypeVar("Value")

#: How long a reading is good, and when it is begun anew, in seconds.
GOOD_FOR = 1.0
_RENEW_AFTER = 0.5

#: Readings that are begun in a second; beyond, those that are there are good for so many seconds.
_A_SECOND = 40
_GOOD_FOR_UNDER_LOAD = 15.0


class Readings(Generic[Value]):
    """Readings by name, in one event loop."""

    def __init__(self, *, most: int) -> None:
        """Remember `most` of them."""
        self._most = most
        self._kept: dict[Hashable, tuple[float, Value]] = {}  # when its reading began
        self._under_way: dict[Hashable, asyncio.Task[Value]] = {}
        self._begun: deque[float] = deque(maxlen=_A_SECOND)  # when the last readings began

    def now(self, name: Hashable, work: Callable[[], Coroutine[Any, Any, Value]]) -> Value | None:
        """Return a reading that is still good, None where there is none; never waits."""
        kept = self._kept.get(name)
        if kept is None:
            return None
        now = time.monotonic()
        age, many = now - kept[0], len(self._begun) == _A_SECOND and now - self._begun[0] < 1.0
        if age >= (_GOOD_FOR_UNDER_LOAD if many else GOOD_FOR):
            return None
        if age >= _RENEW_AFTER and not many and name not in self._under_way:
            self._begin(name, work).add_done_callback(_unheard)
        return kept[1]

    async def read(self, name: Hashable, work: Callable[[], Coroutine[Any, Any, Value]]) -> Value:
        """Wait for a reading; raises what it raises. Who loses patience leaves it to the others."""
        return await asyncio.shield(self._under_way.get(name) or self._begin(name, work))

    def _begin(self, name: Hashable, work: Callable[[], Coroutine[Any, Any, Value]]) -> "asyncio.Task[Value]":
        self._begun.append(time.monotonic())
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
