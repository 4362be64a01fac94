"""The clocks of workers and APIs are wrong by ten minutes, either way, and jump while they run.

Leases and windows use PostgreSQL's clock alone, and how long a lease surely holds is measured by a clock that
nobody sets. So two workers whose clocks are twenty minutes apart never carry the same delivery, a limit holds
across them, and a worker whose clock jumps gives nothing up and doubles nothing. The clocks are libfaketime's;
PostgreSQL, Redis and the peers keep the machine's.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager

import yaml

from tests.chaos.infrastructure import letters, states, submit
from tests.chaos.infrastructure_redis import fullest
from tests.chaos.records import count
from tests.chaos.registry import Run, scenario
from tests.chaos.world import PATIENCE, Child, Victim, World, a_world
from tests.house import Processes, processes, smarthost
from tests.peer import ScriptedPeer
from tests.tools.faketime import Clock, a_clock
from tests.waiting import eventually

MINUTES = 10

#: A minute's limit of the lane that has one, and what wants to go there.
LIMIT, WANTED = 20, 30


@scenario("clocks: wrong by ten minutes")
async def wrong_clocks(run: Run) -> None:
    """One worker is ten minutes ahead, one is ten minutes behind, the API is either: nothing doubles, limits hold."""
    async with ScriptedPeer() as peer:
        routes = [
            smarthost(peer, limits={"connections": 4}),
            smarthost(peer, name="limited", limits={"messages_per_minute": LIMIT, "connections": 4}),
        ]
        async with a_world(run.folder, routes=routes, apis=0, workers=0) as world:
            with ExitStack() as closing:
                ahead, behind = closing.enter_context(a_clock()), closing.enter_context(a_clock())
                ahead.step(minutes=MINUTES)
                behind.step(minutes=-MINUTES)
                houses = {
                    "ahead": closing.enter_context(_by(ahead, world, "ahead")),
                    "behind": closing.enter_context(_by(behind, world, "behind")),
                }
                for name, house in houses.items():
                    await _worker(world, house, name)
                for name, house in houses.items():
                    async with _api(world, house, name):
                        await _judge(
                            run,
                            world,
                            peer,
                            f"the API is {MINUTES} minutes {name}, of two workers one is each",
                            name,
                        )
                async with _api(world, houses["ahead"], "jumps"):

                    async def jump() -> None:
                        for minutes in (-2 * MINUTES, 2 * MINUTES, MINUTES, -MINUTES):
                            await asyncio.sleep(1.0)
                            ahead.step(minutes=minutes)
                            behind.step(minutes=-minutes)

                    jumping = asyncio.create_task(jump())
                    await _judge(run, world, peer, "all their clocks jump, four times", "jumping")
                    await jumping


async def _judge(run: Run, world: World, peer: ScriptedPeer, done: str, prefix: str) -> None:
    """Send on both lanes, and count; what PostgreSQL says of the times must be its own."""
    sent = await submit(world, letters(f"{prefix}-free", 100, route="peer"))
    limited = await submit(world, letters(f"{prefix}-limited", WANTED, route="limited"))
    keys = [each.key for each in [*sent, *limited]]
    await world.settled(keys, within=240.0)
    account = await count(world, [peer], keys=keys)
    wrong = list(account.wrong)
    if await states(world, keys) != {"sent": len(keys)}:
        wrong.append(f"not everything was sent: {account.statuses}")
    most = fullest([each for each in peer.taken if "-limited" in each.mail], seconds=60.0)
    if most > LIMIT:
        wrong.append(f"{most} messages in a minute, {LIMIT} are allowed")
    if account.outcomes["deferred"] or account.outcomes["uncertain"]:
        wrong.append(f"leases were lost: {dict(account.outcomes)}")
    rows = await world.query(
        "SELECT max(abs(extract(epoch FROM m.created_at - a.started_at))) AS apart FROM attempts a"
        " JOIN messages m ON m.id = a.message_id WHERE m.idempotency_key = ANY($1) AND a.number = 1",
        keys,
    )
    # An acceptance tells the API's time, an attempt PostgreSQL's.
    apart = float(rows[0]["apart"] or 0.0)
    if apart < MINUTES * 60 - 30:
        wrong.append(f"the clocks are {apart:.0f} s apart only: the scenario shows nothing")
    run.row(
        done,
        figures=f"the API is {apart / 60:.0f} minutes off at most; {most} in the fullest minute of {LIMIT}. {account.figures()}",
        promise="1, 2, 4, 6, 7",
        wrong=wrong + [f"a bug in a log: {each}" for each in world.bugs()],
    )


def _by(clock: Clock, world: World, name: str) -> AbstractContextManager[Processes]:
    folder = world.folder / name
    folder.mkdir()
    given = yaml.safe_load(world.processes.config.read_text(encoding="utf-8"))
    return processes(folder, given, environment=clock.environment)


async def _worker(world: World, house: Processes, name: str) -> None:
    log = house.folder / f"worker-{len(house.children)}.log"
    world.workers.append(Child(victim=Victim.WORKER, process=house.start_worker(), log=log))
    await eventually(lambda: b"worker.started" in log.read_bytes(), within=PATIENCE)


@asynccontextmanager
async def _api(world: World, house: Processes, name: str) -> AsyncIterator[None]:
    """Let the only API live by this clock."""
    child = house.start_api()
    world.clients.ports = [house.port]
    try:
        await eventually(lambda: world.clients.ready(house.port), within=PATIENCE)
        yield
    finally:
        child.terminate()
        await asyncio.to_thread(child.wait, PATIENCE)
