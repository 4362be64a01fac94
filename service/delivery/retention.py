"""The end of what is kept, beside a worker: retention kind by kind, and the erasure of persons.

Every worker comes by every few minutes and works in small steps, with a pause as long as the step after each, so
mail that goes at the same time hardly feels it. What one of them is at, the others pass over: the ledger's locks see
to it.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from service.ledger import Ledger, LedgerUnavailable
from service.ledger.retention import Retention

log = structlog.get_logger()

#: Seconds after which a round that met no ledger, or a lock, is begun again.
_AGAIN = 30.0

#: The longest pause between two steps, in seconds.
_LONGEST_PAUSE = 1.0


class RetentionKeeper:
    """Removes what has had its time, and erases who is to be erased, again and again."""

    def __init__(self, ledger: Ledger, retention: Retention, *, interval: float) -> None:
        """Take the ledger, what is kept for how long, and how often to come by, in seconds."""
        self._ledger = ledger
        self._retention = retention
        self._interval = interval

    async def run(self) -> None:
        """Come by until cancelled. What goes wrong is logged, and never ends the worker."""
        while True:
            wait = self._interval
            try:
                await self.round()
            except LedgerUnavailable:
                log.info("retention.no_ledger")
                wait = min(_AGAIN, self._interval)
            except Exception:
                log.exception("retention.bug")
                wait = min(_AGAIN, self._interval)
            await asyncio.sleep(wait * random.uniform(0.8, 1.2))  # noqa: S311  # spreads load

    async def round(self) -> None:
        """Remove all that has had its time, and scrub all that can be scrubbed now."""
        await self._reseal()
        for erasure_id in await self._ledger.erasing.unfinished():
            await self._erase(erasure_id)
        for kind, keep in self._retention.kinds().items():
            after, handled, more = "", 0, True
            while more:
                async with _gently():
                    step = await self._ledger.keeping.step(kind, keep, after=after)
                after, more = step.after, step.more
                handled += step.handled
            if handled:
                log.info("retention.removed", kind=kind, rows=handled)

    async def _reseal(self) -> None:
        """Seal what the key of now has not sealed: nothing, but after a change of keys."""
        sealed, more = 0, True
        while more:
            async with _gently():
                step = await self._ledger.resealing.step()
            more = step.more
            sealed += step.handled
        if sealed:
            log.info("contents.sealed_anew", rows=sealed)

    async def _erase(self, erasure_id: str) -> None:
        after, waiting, messages, more = "", 0, 0, True
        while more:
            async with _gently():
                step = await self._ledger.erasing.step(erasure_id, after=after, waiting=waiting)
            after, waiting, more = step.after, step.waiting, step.more
            messages += step.messages
        if messages:
            log.info("person.erased", erasure=erasure_id, messages=messages, waiting=waiting)


@asynccontextmanager
async def _gently() -> AsyncIterator[None]:
    """Pause after a step for as long as it took."""
    began = time.monotonic()
    yield
    await asyncio.sleep(min(time.monotonic() - began, _LONGEST_PAUSE))
