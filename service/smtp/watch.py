"""Waiting for something to move, each time no longer than a limit.

A conversation waits several times for each message, and the limits (minutes) are hardly ever reached. A timer that
is set and cancelled each time costs more than all the rest of a wait; so one timer is left to run, and what it
finds when it rings is either the end of a wait or the time to ring again.
"""

from __future__ import annotations

import asyncio
from typing import Final

# A loop may keep time in milliseconds, and ring that much early.
_EARLY: Final = 0.001


class Watch:
    """Wakes who waits when something moves, or when his time is over."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiters: dict[asyncio.Future[bool], float] = {}  # until when each one waits
        self._alarm: asyncio.TimerHandle | None = None

    def moved(self) -> None:
        """Wake all who wait."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(True)

    async def wait(self, *, until: float) -> bool:
        """Wait until something moves; False when the loop's clock comes to `until` before."""
        waiter: asyncio.Future[bool] = self._loop.create_future()
        self._waiters[waiter] = until
        if self._alarm is None or self._alarm.when() > until:
            self._set_alarm(until)
        try:
            return await waiter
        finally:
            del self._waiters[waiter]

    def end(self) -> None:
        """Leave no timer behind. Who waits now is woken."""
        self.moved()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _set_alarm(self, at: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._loop.call_at(at, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        now = self._loop.time() + _EARLY
        for waiter, until in self._waiters.items():
            if until <= now and not waiter.done():
                waiter.set_result(False)
        waiting = [until for waiter, until in self._waiters.items() if not waiter.done()]
        if waiting:
            self._set_alarm(min(waiting))
