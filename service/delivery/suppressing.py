"""Suppressions beside a worker: rules are judged and new entries swept, outside the way of the mail.

Every worker comes by every few seconds. What one of them is at, the others pass over: the ledger's locks see
to it. Where there is no rule and no new entry a round is two questions that an index answers.
"""

import asyncio
import random

import structlog

from service.ledger import Ledger, LedgerUnavailable
from service.routes.diagnoses.suppressed import error_of

log = structlog.get_logger()

#: Events that are judged in one transaction.
_EVENTS = 500

#: Seconds after which a round that met no ledger is begun again.
_AGAIN = 10.0


class SuppressionKeeper:
    """Judges what failed, and stops what waits for new entries, again and again."""

    def __init__(self, ledger: Ledger, *, interval: float) -> None:
        """Take the ledger, and how often to come by, in seconds."""
        self._ledger = ledger
        self._interval = interval

    async def run(self) -> None:
        """Come by until cancelled. What goes wrong is logged, and never ends the worker."""
        while True:
            wait = self._interval
            try:
                await self.round()
            except LedgerUnavailable:
                log.info("suppressions.no_ledger")
                wait = _AGAIN
            except Exception:
                log.exception("suppressions.bug")
                wait = _AGAIN
            await asyncio.sleep(wait * random.uniform(0.8, 1.2))  # noqa: S311  # spreads load

    async def round(self) -> None:
        """Judge all that is new, then sweep all that is due."""
        suppressions = self._ledger.suppressions
        while (added := await suppressions.judge(limit=_EVENTS)) is not None:
            if added:
                log.info("suppressions.added", count=added)
        while (stopped := await suppressions.sweep(error_of)) is not None:
            if stopped:
                log.info("suppressions.stopped", recipients=stopped)
