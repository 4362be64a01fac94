"""Idempotency keys that this process is working on.

PostgreSQL decides whose a key is; it makes everybody else wait, each on a connection of his own. So
requests of one process that come under the same key wait for each other here, where waiting costs
nothing, and then find the first answer.

Keys that were used here lately are remembered, some thousands of them: a request under one of these is
surely a repetition, so its answer is looked up before anything is done for it.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Iterator
from contextlib import contextmanager

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

    async def free(self, application: str, keys: Collection[IdempotencyKey]) -> bool:
        """Wait until nobody holds one of these keys; says whether another request had to be waited for.

        Raises a 409 problem where it takes too long.
        """
        busy = self._busy(application, keys)
        if busy is None:
            return False  # as nearly always: a timer would cost more than the look
        try:
            async with asyncio.timeout(_PATIENCE):
                while busy is not None:
                    await busy.wait()
                    busy = self._busy(application, keys)
        except TimeoutError:
            raise in_progress() from None
        return True

    @contextmanager
    def holding(self, application: str, keys: Collection[IdempotencyKey]) -> Iterator[None]:
        """Hold all of these keys together; they are free."""
        names = [(application, key.path, key.key) for key in keys]
        done = asyncio.Event()
        self._held.update(dict.fromkeys(names, done))
        try:
            yield
        finally:
            for name in names:
                del self._held[name]
            done.set()

    def _busy(self, application: str, keys: Collection[IdempotencyKey]) -> asyncio.Event | None:
        held = self._held
        return next((held[name] for key in keys if (name := (application, key.path, key.key)) in held), None)


def in_progress() -> Problem:
    """Refuse a request whose first one is still running."""
    return Problem(
        status=409,
        code="request_in_progress",
        detail="The first request under this idempotency key is still running.",
        retry_after=1,
    )
