"""A worker: a drain for each lane, the keeper, the sweep, and arq.

    start   a drain for every lane (what waited while nobody was there goes at once), the
            heartbeat, the sweep, the listener of the bell, arq's loop
    run     arq runs `drain(lane)`: it rings the lane's drain here. The sweep rescues, expires
            and rings every few seconds, with or without Redis
    stop    take nothing new, finish what is in hand within the grace, give seats back

arq's own loop ends on any error of Redis, so it is run again and again. Its retries and
results are not used: a job carries a lane's name and nothing else, and losing it costs
nothing.
"""

import asyncio
import random
import time
from collections.abc import Collection, Coroutine, Mapping, Sequence
from typing import Any

import structlog
from arq.connections import ArqRedis
from arq.worker import Worker as ArqWorker
from arq.worker import func
from redis.exceptions import ResponseError

from service.delivery.attempt import Kit
from service.delivery.bell import QUEUE, Bell, from_json, listen, to_json
from service.delivery.drain import Drain
from service.delivery.suspects import Suspects
from service.delivery.tasks import end as end_tasks
from service.ledger import LedgerUnavailable
from service.ledger.pace import LaneLimits
from service.ledger.reasons import why
from service.ledger.sweeping import RescueErrors
from service.routes import diagnoses
from service.routes.route import Lane
from service.telemetry import figures

log = structlog.get_logger()


class Worker:
    """All drains of one process."""

    def __init__(
        self, lanes: Sequence[Lane], *, limits: Mapping[str, LaneLimits], kit: Kit, redis: ArqRedis
    ) -> None:
        """Take the lanes to drain; `limits` has each lane's by its name."""
        self._kit = kit
        self._redis = redis
        self._bell = Bell(redis)
        suspects = Suspects(kit.ledger.acquit)
        self._drains = {
            lane.name: Drain(
                lane, limits=limits[lane.name], kit=kit, suspects=suspects, defer=self._bell.ring_at
            )
            for lane in lanes
        }

    def ring(self, lanes: Collection[str]) -> None:
        """Wake the drains of these lanes; a lane of another configuration is nobody's here."""
        for lane in lanes:
            if lane in self._drains:
                self._drains[lane].ring()

    def look(self) -> None:
        """Say what is in hand at this moment."""
        figures.IN_HAND.set_all({
            (drain.lane.route.name, name): drain.in_hand for name, drain in self._drains.items()
        })  # fmt: skip
        figures.CONTENTS.set(self._kit.room.held)
        figures.CONTENTS_WAITING.set(self._kit.room.waiting)
        figures.TOKEN_SECONDS.set_all({(name,): left for name, left in self._kit.tokens.lives().items()})

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then finish what is in hand."""
        background: list[Coroutine[Any, Any, None]] = [
            self._kit.keeper.run(),
            self._sweep_for_ever(),
            listen(self._redis, self.ring),
            self._run_arq(),
        ]
        tasks = [asyncio.create_task(each) for each in background]
        drains = [asyncio.create_task(drain.run()) for drain in self._drains.values()]
        log.info("worker.started", worker=self._kit.worker, lanes=len(self._drains))
        try:
            await stop.wait()
            log.info("worker.stopping", worker=self._kit.worker)
            # The heartbeat goes on until the last attempt is written.
            grace = self._kit.policy.shutdown_grace
            await asyncio.gather(*(drain.stop(grace=grace) for drain in self._drains.values()))
        finally:
            await end_tasks([*drains, *tasks])
            log.info("worker.stopped", worker=self._kit.worker)

    async def _sweep_for_ever(self) -> None:
        """Sweep now, and then every poll interval; workers do not sweep in step."""
        while True:
            began = time.monotonic()
            try:
                async with asyncio.timeout(30.0):
                    await self.sweep()
            except (LedgerUnavailable, TimeoutError) as gone:
                figures.SWEEPS.add("no_ledger")
                log.info("sweep.no_ledger", detail=why(gone).detail)
            except Exception:
                figures.SWEEPS.add("failed")
                figures.BUGS.add("sweep")
                log.exception("sweep.bug")
            else:
                figures.SWEEPS.add("done")
                figures.SWEEP_SECONDS.observe(time.monotonic() - began)
                figures.SWEPT_AT.set(time.time())
            await asyncio.sleep(self._kit.policy.poll_interval * random.uniform(0.8, 1.2))  # noqa: S311  # spreads load, guards nothing

    async def sweep(self) -> None:
        """Do what time alone demands, and ring what is due."""
        ledger, policy = self._kit.ledger, self._kit.policy
        errors = rescue_errors()
        rescued = await ledger.rescue(uncertain_after=policy.uncertain_after, errors=errors)
        for each in rescued:
            figures.RESCUED.add(each.outcome)
            log.warning("attempt.rescued", attempt=each.attempt_id, outcome=each.outcome)
        expired = await ledger.expire(errors=errors)
        if expired:
            figures.EXPIRED.add(by=expired)
            log.info("recipients.expired", count=expired)
        self.ring(await ledger.lanes_with_due(list(self._drains)))
        await ledger.sum_up()
        if random.random() < 0.01:  # noqa: S311  # spreads load, guards nothing
            await ledger.forget_old()

    async def _run_arq(self) -> None:
        while True:
            worker = self._arq()
            try:
                await worker.async_run()
            except asyncio.CancelledError:
                await _end(worker)
                raise
            except Exception as exc:
                log.debug("arq.interrupted", reason=type(exc).__name__)  # the bell says what is wrong
                if isinstance(exc, ValueError | ResponseError):  # no text, or no queue
                    await self._bell.drop_queue()
            await _end(worker)
            await asyncio.sleep(1.0)

    def _arq(self) -> ArqWorker:
        async def drain(ctx: dict[str, Any], lane: str) -> None:
            """Ring the drain of this lane here."""
            self.ring([lane])

        return ArqWorker(
            functions=[func(drain, name="drain", timeout=5, keep_result=0, max_tries=1)],
            redis_pool=self._redis,
            queue_name=QUEUE,
            job_serializer=to_json,
            job_deserializer=from_json,
            handle_signals=False,
            max_jobs=50,
            job_timeout=5,
            keep_result=0,
            max_tries=1,
            retry_jobs=False,
            poll_delay=0.5,
            health_check_interval=15,
            health_check_key=f"postroom:health:{self._kit.worker}",
            log_results=False,
        )


#: How long arq's jobs get to end by themselves, in seconds: each of them only rings.
_JOBS_END = 0.3


async def _end(worker: ArqWorker) -> None:
    """Let arq's own tasks go; its pool is ours and stays.

    A job writes its end to Redis behind a shield. Were it cancelled meanwhile, nobody would ask what became of that,
    and where Redis has gone, asyncio would report an error that nobody has made.
    """
    if worker.tasks:
        await asyncio.wait(worker.tasks.values(), timeout=_JOBS_END)
    tasks = [task for task in (worker.main_task, *worker.tasks.values()) if task is not None]
    await end_tasks(tasks)


def rescue_errors() -> RescueErrors:
    """The errors, with their diagnoses, that the sweep writes."""

    def written(code: str, *, phase: str | None, retryable: bool) -> dict[str, Any]:
        return diagnoses.error(
            diagnoses.of_code(code), phase=phase, reply=None, retryable=retryable, names={}
        )

    return RescueErrors(
        lease_lost=written("lease_lost", phase=None, retryable=True),
        lease_lost_after_dot=written("lease_lost_after_dot", phase="dot", retryable=True),
        crashes=written("crashed_repeatedly", phase=None, retryable=False),
        expired=written("expired", phase=None, retryable=False),
    )
