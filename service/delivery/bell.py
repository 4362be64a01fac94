"""The bell: how a lane's drains hear at once that something is due.

Two ways, both best effort and both through Redis. A message on a channel wakes every worker
that lingers, within a millisecond. An arq job for the lane, at most one a second, is there
for a worker that starts later, and, deferred, is the clock for retries and permits. Neither
holds anything that matters: the truth is in PostgreSQL, and the sweep finds what was not
rung, so a flushed, restarted or absent Redis costs seconds.

Jobs are JSON and never pickled: whoever can write to Redis must not run code in a worker.
Job ids carry an epoch, because arq refuses an id as long as a killed worker's mark on it
lasts.
"""

import asyncio
import json
import time
from collections.abc import Callable, Collection, Mapping

import structlog
from arq.connections import ArqRedis
from redis.asyncio import BlockingConnectionPool
from redis.exceptions import AuthenticationError, AuthorizationError, RedisError, ResponseError

from service.telemetry import figures

log = structlog.get_logger()

CHANNEL = "postroom:bell"
QUEUE = "postroom:drains"

#: What a bell may cost before we give up on it: the sweep rings later.
_PATIENCE = 1.0


def to_json(value: object) -> bytes:
    """Write a job, or what came of it: an exception, where nobody of ours wrote the job."""
    return json.dumps(value, default=repr).encode()


#: What arq keeps of a job, and of which types; the rest of arq fails over anything else, and never ends the job.
_JOB: Mapping[str, type | tuple[type, ...]] = {
    "t": (int, type(None)), "f": str, "a": list, "k": dict, "et": int,
}  # fmt: skip


def from_json(octets: bytes) -> dict[str, object]:
    """Read a job; whatever has not the form of one is refused, a pickle for example."""
    value = json.loads(octets)
    if not isinstance(value, dict) or not all(
        name in value and isinstance(value[name], kind) for name, kind in _JOB.items()
    ):
        raise TypeError("this is no job")
    return value


def open_redis(url: str) -> ArqRedis:
    """Make a client of Redis; nothing is connected yet, and every wait has a limit."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=20,
        timeout=_PATIENCE,
        socket_timeout=5.0,
        socket_connect_timeout=_PATIENCE,
        socket_keepalive=True,
        health_check_interval=30,
    )
    return ArqRedis(pool, job_serializer=to_json, job_deserializer=from_json, default_queue_name=QUEUE)


class Bell:
    """Ring lanes; never raises, and never takes longer than a second."""

    def __init__(self, redis: ArqRedis) -> None:
        self._redis = redis
        self._enqueued: dict[str, int] = {}  # lane -> the second of its last job

    async def ring(self, lanes: Collection[str]) -> None:
        """Say that something may be due in these lanes."""
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._redis.publish(CHANNEL, json.dumps(sorted(lanes)))
                await self._enqueue(lanes)
                figures.RINGS.add("rung")
        except (RedisError, OSError, TimeoutError) as exc:
            figures.RINGS.add("silent")
            log.info("bell.silent", reason=type(exc).__name__)

    async def _enqueue(self, lanes: Collection[str]) -> None:
        second = int(time.time())
        for lane in lanes:
            if self._enqueued.get(lane) != second:
                self._enqueued[lane] = second
                await self._redis.enqueue_job("drain", lane, _job_id=f"drain:{lane}:{second}")

    async def ring_at(self, lane: str, wait: float) -> None:
        """Ring a lane in `wait` seconds, by arq's clock."""
        at = int(time.time() + wait)
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._redis.enqueue_job("drain", lane, _job_id=f"drain:{lane}:{at}", _defer_by=wait)
        except (RedisError, OSError, TimeoutError) as exc:
            log.info("bell.silent", reason=type(exc).__name__)

    async def answers(self) -> bool:
        """Say whether Redis is there."""
        return await self.trouble() is None

    async def trouble(self) -> str | None:
        """Say what to do about Redis; None where it answers."""
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._redis.ping()
        except (RedisError, OSError, TimeoutError) as exc:
            return _why(exc)
        return None

    async def drop_queue(self) -> None:
        """Take away a queue that arq cannot read, because of what others have written into it: it is only a clock."""
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._redis.delete(QUEUE)
        except (RedisError, OSError, TimeoutError):
            return
        log.warning("bell.queue_dropped", remedy="find out who else writes to this Redis")


async def listen(redis: ArqRedis, heard: Callable[[Collection[str]], None]) -> None:
    """Call `heard` with the lanes of every ring, until cancelled; comes back by itself after Redis."""
    figures.LISTENING.set(0)
    deaf: str | None = None
    while True:
        try:
            async with redis.pubsub(ignore_subscribe_messages=True) as subscription:
                await subscription.subscribe(CHANNEL)
                figures.LISTENING.set(1)
                if deaf is not None:
                    log.info("bell.hears")
                deaf = None
                while True:
                    ring = await subscription.get_message(timeout=4.0)
                    if ring is not None:
                        figures.HEARD.add()
                        heard(_lanes(ring["data"]))
        except (RedisError, OSError, TimeoutError) as exc:
            figures.LISTENING.set(0)
            if deaf != type(exc).__name__:  # said once: it is tried again every second
                deaf = type(exc).__name__
                log.warning("bell.deaf", reason=deaf, remedy=_why(exc))
            await asyncio.sleep(1.0)


def _why(error: Exception) -> str:
    """Say what to do about a Redis that cannot be used; mail goes on meanwhile, some seconds later."""
    if isinstance(error, AuthenticationError | AuthorizationError):
        return "Redis refuses the user or the password in redis_url: correct it"
    if isinstance(error, ResponseError):
        return (
            "Redis refuses what it is told: look at the number of the database in redis_url, and at its log"
        )
    return "start Redis or Valkey, or correct redis_url (rediss:// where it speaks TLS)"


def _lanes(octets: bytes) -> list[str]:
    try:
        value = json.loads(octets)
    except (ValueError, RecursionError):  # whoever can write to Redis can say anything here
        return []
    return [lane for lane in value if isinstance(lane, str)] if isinstance(value, list) else []
