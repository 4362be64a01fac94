"""Redis forgets, lies, is full, is away, or belongs to somebody who wishes us ill: it costs seconds, and nothing else.

While the fault lasts, an application posts ten letters a second. Each must be taken at once (Redis has no part in a
202) and be at the peer soon: a bell that does not ring costs a poll interval. A lane with a limit has more to send
than it may all the time: a Redis that forgets must not give it a second allowance.
"""

import asyncio
import contextlib
import json
import pickle
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from service.delivery.bell import CHANNEL, QUEUE
from tests.chaos.infrastructure import (
    a_world_behind_proxies,
    all_sent,
    at_once,
    delays,
    knock,
    letters,
    p95,
    start,
    submit,
)
from tests.chaos.records import count
from tests.chaos.registry import Run, scenario
from tests.chaos.world import Victim, World, a_world
from tests.house import smarthost
from tests.peer import ScriptedPeer, Taken

#: Seconds until a message that no bell announced has to be at the peer; the sweep comes by every 0.3 s here.
LATEST = 15.0

#: Messages a minute on the lane that is limited, and how many wait there.
LIMIT, WAITING = 30, 45

FAULT_SECONDS = 6.0

Act = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Setting:
    run: Run
    world: World
    peer: ScriptedPeer

    async def during(
        self, done: str, fault: Callable[[], "contextlib.AbstractAsyncContextManager[object]"]
    ) -> None:
        """Send while the fault lasts, and judge."""
        prefix = f"redis{len(self.run.rows)}"
        async with fault():
            sent, answers = await knock(self.world, prefix, seconds=FAULT_SECONDS, every=0.1, route="peer")
            asked = [await each for each in answers]
            keys = [each.key for each in sent]
            with contextlib.suppress(AssertionError):  # the delays say it
                await all_sent(self.world, keys, within=LATEST)
            took = delays(self.world, self.peer, keys)
        await submit(self.world, sent)
        await self.world.settled(keys)
        account = await count(self.world, [self.peer], keys=keys)
        wrong = list(account.wrong)
        if refused := [each for each in asked if each.status != 202]:
            wrong.append(f"{len(refused)} POSTs were not taken: {refused[0].status} {refused[0].code}")
        if len(took) < len(keys):
            wrong.append(
                f"{len(keys) - len(took)} messages were not sent within {LATEST:g} s while it lasted"
            )
        slowest = max(each.seconds for each in asked)
        if (usual := p95([each.seconds for each in asked])) > 1.0:
            wrong.append(f"a 202 took {usual:.1f} s (p95)")
        self.run.row(
            done,
            figures=f"202 in {slowest:.2f} s at most; POST to 250: p95 {p95(took):.2f} s, {max(took, default=0):.2f} s"
            f" at most. {account.figures()}",
            promise="1, 2, 5, 9",
            wrong=wrong,
        )


def fullest(taken: list[Taken], *, seconds: float) -> int:
    """Count the messages in the fullest window of the peer's."""
    moments: list[datetime] = sorted(each.at for each in taken)
    return max(
        (sum(at <= other < at + timedelta(seconds=seconds) for other in moments) for at in moments), default=0
    )


@scenario("Redis: forgets, lies, is full or away")
async def unwell(run: Run) -> None:
    """Whatever Redis does, a 202 comes at once, what was taken is sent within seconds, and a limit stays one."""
    async with ScriptedPeer() as peer:
        routes = [
            smarthost(peer, limits={"connections": 4}),
            smarthost(peer, name="limited", limits={"messages_per_minute": LIMIT, "connections": 2}),
        ]
        async with a_world_behind_proxies(run, routes=routes, workers=2) as (world, _, proxy):
            setting = _Setting(run=run, world=world, peer=peer)
            limited = [each.key for each in await submit(world, letters("limited", WAITING, route="limited"))]
            began = time.monotonic()
            client: Redis
            async with Redis.from_url(world.redis.url) as client:
                evidence = world.folder / "pickled"
                await setting.during("well", contextlib.nullcontext)
                await setting.during("flushed ten times a second", lambda: _again(client.flushall))
                await setting.during(
                    "stale: old jobs, old marks, no bells", lambda: _again(lambda: _stale(client))
                )
                await setting.during("full (noeviction)", lambda: _full(client))
                await setting.during(
                    "foreign jobs, pickles, broken bells", lambda: _again(lambda: _foreign(client, evidence))
                )
                await setting.during("the queue is of another type", lambda: _another_type(client))
                await client.flushall()
            for done, harm in (
                ("connections are refused", proxy.refuse),
                ("a black hole without FIN", at_once(proxy.black_hole)),
                ("each answer comes two seconds late", at_once(lambda: proxy.slow(2.0))),
            ):
                await setting.during(done, partial(_by_proxy, harm, proxy.behave))
            await all_sent(world, limited, within=240.0)
            account = await count(world, [peer], keys=limited)
            most = fullest([each for each in peer.taken if each.mail.startswith("limited")], seconds=60.0)
            # arq says of each foreign job that it is none.
            bugs = [each for each in world.bugs() if "foreign-" not in each]
            wrong = account.wrong + [f"a bug in a log: {each}" for each in bugs]
            if most > LIMIT:
                wrong.append(f"{most} messages in a minute, {LIMIT} are allowed")
            if evidence.exists():
                wrong.append("a pickle out of Redis was run")
            run.row(
                "a lane with a limit, all the while",
                figures=f"{WAITING} messages, {most} in the fullest minute of {LIMIT},"
                f" {time.monotonic() - began:.0f} s. {account.figures()}",
                promise="6, 9",
                wrong=wrong,
            )


@scenario("Redis: absent from the start")
async def absent(run: Run) -> None:
    """API and worker start without Redis: ready though degraded, all is sent; when it comes, bells ring."""
    async with ScriptedPeer() as peer:
        routes = [smarthost(peer, limits={"connections": 4})]
        async with a_world(run.folder, routes=routes, apis=0, workers=0) as world:
            await world.kill(Victim.REDIS)
            await start(world)
            status, said = await world.clients.get("/readyz")
            setting = _Setting(run=run, world=world, peer=peer)
            await setting.during("never there", contextlib.nullcontext)
            await world.raise_again(Victim.REDIS)
            await setting.during("it comes", contextlib.nullcontext)
            wrong = [] if (status, said.get("status")) == (200, "degraded") else [f"/readyz: {status} {said}"]
            run.row(
                "what the probe says without it",
                figures=f"{status} {said.get('status')}",
                promise="5",
                wrong=wrong + [f"a bug in a log: {each}" for each in world.bugs()],
            )


# -- the faults --------------------------------------------------------------------------------------------


@asynccontextmanager
async def _again(act: Act) -> AsyncIterator[None]:
    """Do it ten times a second."""

    async def always() -> None:
        while True:
            with contextlib.suppress(RedisError):
                await act()
            await asyncio.sleep(0.1)

    task = asyncio.create_task(always())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def _by_proxy(harm: Act, mend: Act) -> AsyncIterator[None]:
    await harm()
    try:
        yield
    finally:
        await mend()


@asynccontextmanager
async def _full(client: Redis) -> AsyncIterator[None]:
    await client.config_set("maxmemory-policy", "noeviction")
    await client.config_set("maxmemory", 1)
    try:
        yield
    finally:
        await client.config_set("maxmemory", 0)


@asynccontextmanager
async def _another_type(client: Redis) -> AsyncIterator[None]:
    await client.flushall()
    await client.set(QUEUE, "a string, where a sorted set should be")
    try:
        yield
    finally:
        await client.delete(QUEUE)


async def _stale(client: Redis) -> None:
    """Bring back what is over, and take away what is due."""
    second = int(time.time())
    await client.delete(QUEUE)
    for ago in (1, 60, 86_400):
        job = f"drain:peer:{second - ago}"
        await client.set(f"arq:job:{job}", _job("drain", ["peer"], at=second - ago))
        await client.zadd(QUEUE, {job: (second - ago) * 1000})
    for ahead in range(5):  # a killed worker's marks on the bells that will be rung next
        await client.set(f"arq:in-progress:drain:peer:{second + ahead}", "1", ex=60)
        await client.set(f"arq:result:drain:peer:{second + ahead}", "1", ex=60)


async def _foreign(client: Redis, evidence: Path) -> None:
    """Put into the queue and on the channel what no Postroom puts there."""
    second = int(time.time())
    for name, octets in {
        "pickle": pickle.dumps(_Touch(evidence)),
        "arq": pickle.dumps(
            {"t": None, "f": "drain", "a": (_Touch(evidence),), "k": {}, "et": second * 1000}
        ),
        "unknown": _job("remove_everything", ["/"], at=second),
        "lane": _job("drain", ["no-such-lane", 17, None], at=second),
        "list": b"[1, 2]",
        "garbage": b"\x80\x04\xff\x00",
        "nothing": b"",
    }.items():
        await client.set(f"arq:job:foreign-{name}-{second}", octets)
        await client.zadd(QUEUE, {f"foreign-{name}-{second}": second * 1000})
    await client.zadd(QUEUE, {f"without-a-job-{second}": second * 1000})
    for ring in (
        b"",
        b"{",
        b"17",
        b'["no-such-lane", 17, null, {}]',
        pickle.dumps(_Touch(evidence)),
        b"[" * 100_000,
    ):
        await client.publish(CHANNEL, ring)


class _Touch:
    """Whoever unpickles it makes a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self._path,)


def _job(function: str, arguments: list[object], *, at: int) -> bytes:
    """Write a job as arq does, with our serializer."""
    return json.dumps({"t": 1, "f": function, "a": arguments, "k": {}, "et": at * 1000}).encode()
