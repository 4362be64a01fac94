"""Keep what is in hand: one heartbeat a worker for all its leases and seats.

Every third of a lease's length, everything held is renewed in one transaction. How long a
lease surely holds is judged by our own monotonic clock from the moment *before* the claim or
renewal was asked for, so that a slow answer, a paused process or a clock that was set makes
us give up too early and never too late. What PostgreSQL does not confirm is lost for good.
"""

import asyncio
import time
from collections.abc import Callable

import structlog

from service.ledger import Ledger, LedgerUnavailable
from service.telemetry import figures

log = structlog.get_logger()


class Keeper:
    """The leases and seats of one worker."""

    def __init__(self, ledger: Ledger, *, lease: float) -> None:
        self._ledger = ledger
        self._lease = lease
        self._attempts: dict[str, float] = {}  # attempt -> until when it surely is ours (monotonic)
        self._seats: dict[str, Callable[[], None]] = {}  # seat -> what to do when it is lost

    def hold(self, attempt: str, *, asked_at: float) -> None:
        """Renew this attempt from now on; `asked_at` is the monotonic time before the claim."""
        self._attempts[attempt] = asked_at + self._lease

    def holds(self, attempt: str) -> bool:
        """Say whether the lease surely is still ours at this moment."""
        return time.monotonic() < self._attempts.get(attempt, 0.0)

    def let_go(self, attempt: str) -> None:
        self._attempts.pop(attempt, None)

    def sit(self, seat: str, on_loss: Callable[[], None]) -> None:
        """Renew this seat from now on."""
        self._seats[seat] = on_loss

    def stand_up(self, seat: str) -> None:
        self._seats.pop(seat, None)

    async def run(self) -> None:
        """Renew until cancelled."""
        while True:
            await asyncio.sleep(self._lease / 3)
            try:
                await self.renew()
            except (LedgerUnavailable, TimeoutError):
                figures.RENEWALS_FAILED.add()
                log.info("leases.not_renewed", attempts=len(self._attempts), seats=len(self._seats))

    async def renew(self) -> None:
        """Renew everything once."""
        attempts, seats = list(self._attempts), list(self._seats)
        if not attempts and not seats:
            return
        asked_at = time.monotonic()
        async with asyncio.timeout(self._lease / 2):
            kept = await self._ledger.renew(attempts, seats=seats, lease=self._lease)
        for attempt in attempts:
            if attempt in kept.attempts:
                if attempt in self._attempts:
                    self._attempts[attempt] = asked_at + self._lease
            elif self._attempts.pop(attempt, None) is not None:
                figures.LEASES_LOST.add()
                log.warning("lease.lost", attempt=attempt)
        for seat in set(seats) - kept.seats:
            lost = self._seats.pop(seat, None)
            if lost is not None:
                lost()
