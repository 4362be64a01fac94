"""Idempotency keys that this process is working on.

PostgreSQL decides whose a key is; it makes everybody else wait, each on a connection of his own. So
requests of one process that come under the same key wait for each other here, where waiting costs
nothing, and then find the first answer.

Keys that were used here lately are remembered, some thousands of them: a request under one of these is
surely a repetition, so its answer is looked up before anything is done for it.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from service.ledger.accepting import IdempotencyKey
from service.submission.problems import Problem

#: Used keys that are remembered.
_REMEMBERED = 20_000

#: How long a request waits for another one under its key, in seconds.
_PATIENCE = 1.0


class InHand:
    """The keys in hand; one for each process."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str, str], asyncio.Event] = {}
        self._used: OrderedDict[tuple[str, str, str], None] = OrderedDict()

    def use(self, application: str, key: IdempotencyKey) -> None:
        """Remember that this key has an answer."""
        self._used[application, key.path, key.key] = None
        if len(self._used) > _REMEMBERED:
            self._used.popitem(last=False)

    def used(self, application: str, key: IdempotencyKey) -> bool:
        """Say whether this key is known to have an answer; False: nobody knows."""
        return (application, key.path, key.key) in self._used

    @asynccontextmanager
    async def holding(self, application: str, keys: Collection[IdempotencyKey]) -> AsyncIterator[bool]:
        """Hold all of these keys together; says whether another request had to be waited for.

        Raises a 409 problem where it takes too long.
        """
        names = [(application, key.path, key.key) for key in keys]
        waited = False
        try:
            async with asyncio.timeout(_PATIENCE):
                while busy := next((self._held[name] for name in names if name in self._held), None):
                    waited = True
                    await busy.wait()
        except TimeoutError:
            raise in_progress() from None
        done = asyncio.Event()
        self._held.update(dict.fromkeys(names, done))
        try:
            yield waited
        finally:
            for name in names:
                del self._held[name]
            done.set()


def in_progress() -> Problem:
    """Refuse a request whose first one is still running."""
    return Problem(
        status=409,
        code="request_in_progress",
        detail="The first request under this idempotency key is still running.",
        retry_after=1,
    )
