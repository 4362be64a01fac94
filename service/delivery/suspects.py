"""Suspects: deliveries that lost a lease may have killed their worker, so they are carried one at a time.

What kills a worker does so soon, as a rule: when its content is read, composed into a session or cut into lines. So
a suspect is alone of its kind in a process for a while, and not until its end: a peer that takes long, or for ever,
over one of them does not keep the others of all lanes (decision record 0018). Whoever has been carried for that
long is acquitted for this attempt: the ledger no longer lays the worker's end at its door, and the next suspect
may be claimed. The while is longer for who lost more leases, so that what kills slowly is found too.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from service.ledger import LedgerUnavailable
from service.ledger.claiming import Claimed

log = structlog.get_logger()

#: Seconds alone of a delivery that lost its first lease, how much longer with each further one, and at the most.
_FIRST, _FACTOR, _LONGEST = 0.4, 8.0, 60.0

#: Tells the ledger that an attempt is no longer carried alone; False where the ledger knows of no such attempt.
Acquit = Callable[[str], Awaitable[bool]]


def seconds_alone(lost: int) -> float:
    """Say for how long a delivery that lost so many leases is alone."""
    return min(_FIRST * _FACTOR ** min(lost - 1, 10), _LONGEST)


class Suspects:
    """The suspect of a process that is alone at this moment, and who waits for the end of that."""

    def __init__(self, acquit: Acquit) -> None:
        """Take what tells the ledger."""
        self._acquit = acquit
        self._alone: Claimed | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._acquittal: asyncio.Task[None] | None = None
        self._waiting: set[Callable[[], None]] = set()

    @property
    def in_hand(self) -> bool:
        """Whether one is alone: no other may be claimed."""
        return self._alone is not None

    def begin(self, claimed: Claimed) -> bool:
        """Take one that was claimed; False where another one came first, and this one has to go back."""
        if self._alone is not None:
            return False
        self._alone = claimed
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(seconds_alone(claimed.lost), self._been_long, claimed)
        return True

    def wait(self, ring: Callable[[], None]) -> None:
        """Have `ring` called, once, when the next may be claimed."""
        self._waiting.add(ring)

    def over(self, claimed: Claimed) -> None:
        """Take the end of one, which may have been acquitted long ago."""
        if self._alone is not claimed:
            return
        self._alone = None
        if self._timer is not None:
            self._timer.cancel()
        waiting, self._waiting = self._waiting, set()
        for ring in waiting:
            ring()

    def _been_long(self, claimed: Claimed) -> None:
        # Kept, so that it is not collected while it runs; it ends by itself.
        self._acquittal = asyncio.create_task(self._acquitted(claimed))

    async def _acquitted(self, claimed: Claimed) -> None:
        """Let go of one that has been carried for long, as soon as the ledger knows."""
        try:
            async with asyncio.timeout(5.0):
                await self._acquit(claimed.attempt_id)
        except (LedgerUnavailable, TimeoutError):
            if self._alone is claimed:
                self._timer = asyncio.get_running_loop().call_later(1.0, self._been_long, claimed)
            return
        log.info("suspect.acquitted", attempt=claimed.attempt_id, message=claimed.message_id)
        self.over(claimed)
