"""Write together what happens at the same time.

A grouped write takes what has gathered while the last one ran, and never waits for its own
sake: alone it is as quick as a single write, under load one transaction serves many. A
group that fails is written again one by one, so that only the culprit bears its error;
a group that fails because the ledger is not available fails as a whole, since the next
try would only wait for the same thing again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from service.ledger.engine import LedgerUnavailable

Item = TypeVar("Item")
Result = TypeVar("Result")

Write = Callable[[Sequence[Item]], Awaitable[Sequence[Result]]]


class Grouped(Generic[Item, Result]):
    """One kind of write, grouped. `write` gets items and answers in the same order."""

    def __init__(self, write: "Write[Item, Result]", *, most: int, weigh: Callable[[Item], int]) -> None:
        self._write = write
        self._most = most  # weight of a group; an item that weighs more goes alone
        self._weigh = weigh
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def put(self, item: Item) -> Result:
        """Write `item`, with others where there are any; raises what its own write raised.

        A caller that goes away (cancelled) does not take the write back.
        """
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all())
        return await future

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                await self._write_group(self._next_group())
        finally:
            self._writing = None
            if self._waiting:  # cancelled in the middle of a shutdown: nobody may wait for ever
                self._fail(self._waiting, LedgerUnavailable("shutting down"))
                self._waiting = []

    def _next_group(self) -> "list[tuple[Item, asyncio.Future[Result]]]":
        weight = 0
        for count, (item, _) in enumerate(self._waiting):
            weight += self._weigh(item)
            if count and weight > self._most:
                break
        else:
            count = len(self._waiting)
        group, self._waiting = self._waiting[:count], self._waiting[count:]
        return group

    async def _write_group(self, group: "list[tuple[Item, asyncio.Future[Result]]]") -> None:
        try:
            results = await self._write([item for item, _ in group])
        except LedgerUnavailable as exc:
            self._fail(group, exc)
        except Exception as exc:
            if len(group) == 1:
                self._fail(group, exc)
                return
            for each in group:
                await self._write_group([each])
        except BaseException:
            self._fail(group, LedgerUnavailable("shutting down"))
            raise
        else:
            for (_, future), result in zip(group, results, strict=True):
                if not future.done():
                    future.set_result(result)

    @staticmethod
    def _fail(group: "list[tuple[Item, asyncio.Future[Result]]]", exc: Exception) -> None:
        for _, future in group:
            if not future.done():
                future.set_exception(exc)
