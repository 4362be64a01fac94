"""Webhooks, told beside the drains of a worker, without ever delaying mail.

    look      about once a second: one small query, and a second one where there are webhooks
    fan out   new events of the feed become deliveries
    call      what is due is claimed and sent, so many at a time in all, for one application, and for one
              webhook: a receiver that stalls holds up nobody else, and one that fails gets one call at a time
    close     the result is written; what failed is tried again after the next wait of the schedule

Everything goes through database connections of its own, two of them. A worker that is stopped claims nothing
more and lets its calls end; one that is killed leaves its deliveries to the lease, and they are sent again: at
least once, with the same `webhook-id`, by which receivers know what they have already.
"""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog

from service.delivery.calling import Answer, Caller, signed
from service.delivery.tasks import end as end_tasks
from service.ledger import Ledger, LedgerUnavailable
from service.ledger.sealing import CannotOpen, Seal
from service.ledger.telling import Claimed, Room, Told
from service.ledger.webhook_deliveries import Show
from service.telemetry import figures

log = structlog.get_logger()

_CALLS, _CALLS_OF_AN_APPLICATION, _CALLS_OF_A_WEBHOOK = 20, 10, 4

#: Seconds between two looks, where nothing is due sooner.
_PAUSE = 1.0

#: Seconds to wait when the ledger cannot be used.
_NO_LEDGER = 2.0

#: Seconds between two rounds that remove what is kept no longer.
_FORGET_EVERY = 300.0

_EVENTS_AT_ONCE = 500
_APPLICATIONS_AT_ONCE = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When a call that failed is made again, and when a webhook is given up."""

    retries: Sequence[timedelta]  # the waits, one after the other
    disable_after: timedelta
    timeout: timedelta  # of one call
    spread: float = 0.1  # a wait is longer by up to so much of itself

    @property
    def lease(self) -> timedelta:
        """How long a delivery is in hand: its call, and then some for writing the result."""
        return self.timeout * 2


def next_wait(
    schedule: Schedule, *, attempt: int, jitter: float, asked_for: timedelta | None = None
) -> timedelta | None:
    """Say how long to wait after so many failed attempts; None: there is no further one.

    `attempt` is 1 after the first failure; `jitter` in [0, 1] makes the wait longer by up to `spread` of itself.
    With the schedule of Standard Webhooks 1.0 the waits are 5 s, 5 min, 30 min, 2, 5, 10, 14, 20 and 24 hours,
    over 3 days in all. What the receiver asked for by `Retry-After` is never cut short.
    """
    if attempt > len(schedule.retries):
        return None
    wait = schedule.retries[attempt - 1] * (1 + schedule.spread * jitter)
    return max(wait, asked_for or timedelta(0))


class Dispatcher:
    """Tells webhooks; one for each worker."""

    def __init__(self, ledger: Ledger, *, caller: Caller, seal: Seal, schedule: Schedule, show: Show) -> None:
        """Take a ledger of its own, and `show`, which makes the object of an event."""
        self._ledger = ledger
        self._caller = caller
        self._seal = seal
        self._schedule = schedule
        self._show = show
        self._calls: dict[asyncio.Task[None], Claimed] = {}
        self._wake = asyncio.Event()
        self._forget_at = time.monotonic() + _FORGET_EVERY * random.random()  # noqa: S311  # spreads load

    async def run(self, stop: asyncio.Event) -> None:
        """Tell until `stop` is set, then let the calls that are under way end."""
        stopping = asyncio.create_task(self._wake_on(stop))
        try:
            while not stop.is_set():
                await self._sleep(await self._round_or_pause())
            await asyncio.gather(*self._calls, return_exceptions=True)
        finally:
            await end_tasks([stopping, *self._calls])

    async def _wake_on(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._wake.set()

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()

    async def _round_or_pause(self) -> float:
        """Do one round; return the seconds to wait for the next. What goes wrong never ends the worker."""
        try:
            async with asyncio.timeout(30.0):
                return await self.round()
        except (LedgerUnavailable, TimeoutError):
            log.info("webhooks.no_ledger")
            return _NO_LEDGER
        except Exception:
            figures.BUGS.add("webhook")
            log.exception("webhooks.bug")
            return _NO_LEDGER

    async def round(self) -> float:
        """Make deliveries, start calls; return the seconds after which it is worth to look again."""
        if time.monotonic() >= self._forget_at:
            more = await self._ledger.telling.forget_old()
            self._forget_at = time.monotonic() + (_PAUSE if more else _FORGET_EVERY)
        figures.WEBHOOKS_LOOKED_AT.set(time.time())
        look = await self._ledger.telling.look(most=_APPLICATIONS_AT_ONCE)
        seen = 0
        for application in look.behind:
            seen += await self._ledger.telling.fan_out(application, limit=_EVENTS_AT_ONCE, show=self._show)
        is_due = look.due_in is not None and look.due_in <= 0
        if is_due or seen:
            await self._claim()
        if seen:
            return 0.0
        # What is due and was not taken waits for a place, and whoever gives one wakes us.
        soon = _PAUSE if look.due_in is None or is_due else min(look.due_in, _PAUSE)
        return soon * random.uniform(1.0, 1.1)  # noqa: S311  # spreads load

    async def _claim(self) -> None:
        free = _CALLS - len(self._calls)
        if free <= 0:
            return
        room = Room(
            most=free,
            for_a_webhook=_CALLS_OF_A_WEBHOOK,
            for_an_application=_CALLS_OF_AN_APPLICATION,
            in_hand=Counter(each.webhook_id for each in self._calls.values()),
            in_hand_of=Counter(each.application for each in self._calls.values()),
        )
        for claimed in await self._ledger.telling.claim(room, lease=self._schedule.lease):
            task = asyncio.create_task(self._tell(claimed))
            self._calls[task] = claimed
            task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        """Give the place to the next one, at once."""
        self._calls.pop(task, None)
        self._wake.set()
        if not task.cancelled() and (trouble := task.exception()) is not None:
            figures.BUGS.add("webhook")
            log.error("webhook.bug", exc_info=trouble)

    async def _tell(self, claimed: Claimed) -> None:
        """Make one call, and write what came of it; what cannot be written is told again after the lease."""
        answer = await self._call(claimed)
        told = self._judged(claimed, answer)
        figures.WEBHOOK_CALLS.add(told.ended or "retried")
        figures.WEBHOOK_SECONDS.observe(answer.seconds)
        with contextlib.suppress(LedgerUnavailable):
            reason = await self._ledger.telling.close(
                claimed, told, disable_after=self._schedule.disable_after
            )
            log.info(
                "webhook.told" if answer.taken else "webhook.failed",
                webhook=claimed.webhook_id,
                delivery=claimed.id,
                attempt=claimed.attempt,
                status=answer.status,
                seconds=round(answer.seconds, 3),
            )
            if reason is not None:
                figures.WEBHOOKS_DISABLED.add(reason)
                log.warning(
                    "webhook.disabled",
                    webhook=claimed.webhook_id,
                    application=claimed.application,
                    reason=reason,
                    error=answer.error,
                    remedy="mend the receiver, then PATCH the webhook with enabled: true",
                )

    async def _call(self, claimed: Claimed) -> Answer:
        try:
            secrets = [self._seal.open(each.stored, purpose=claimed.webhook_id) for each in claimed.secrets]
        except CannotOpen:
            log.warning(
                "webhook.sealed",
                webhook=claimed.webhook_id,
                remedy="configure the encryption_key that it was sealed with, or rotate its secret",
            )
            return Answer(
                error="Postroom cannot open the secret of this webhook: its encryption_key has changed."
            )
        headers = signed(
            claimed.payload,
            # An event's own id, so that a receiver knows it again, also when it is replayed.
            message_id=f"evt_{claimed.event_id}" if claimed.event_id is not None else claimed.id,
            at=datetime.now(UTC),
            secrets=secrets,
        )
        return await self._caller.call(claimed.url, claimed.payload, headers)

    def _judged(self, claimed: Claimed, answer: Answer) -> Told:
        wait = next_wait(
            self._schedule,
            attempt=claimed.attempt,
            jitter=random.random(),  # noqa: S311  # spreads load, guards nothing
            asked_for=answer.retry_after,
        )
        over = wait is None or answer.gone
        return Told(
            ended="delivered" if answer.taken else "failed" if over else None,
            wait=wait or timedelta(0),
            gone=answer.gone,
            status=answer.status,
            error=answer.error,
            seconds=answer.seconds,
        )
