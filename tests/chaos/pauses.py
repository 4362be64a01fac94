"""Workers that stand still (SIGSTOP) for longer than their lease, and then go on (SIGCONT).

Before the fence: the worker wakes up without its lease, and sends nothing. Between fence and dot: the ledger has been
told that the dot may leave, so another worker must take it for uncertain; whoever wakes up looks at its own clock
before it sends. Behind the dot: the reply waits in its socket, and is a late one.

To stop a worker between fence and dot, the test holds the row of its attempt: the fence waits in PostgreSQL, the worker
is stopped, and only then the fence is written.
"""

import asyncio
import signal
from collections.abc import Callable
from typing import Literal

import asyncpg

from tests.chaos.clients import Letter
from tests.chaos.records import count
from tests.chaos.registry import Run, scenario
from tests.chaos.world import Child, World, a_world
from tests.house import smarthost
from tests.peer import ScriptedPeer
from tests.waiting import eventually

Where = Literal["before the fence", "between fence and dot", "behind the dot"]
PLACES: tuple[Where, ...] = ("before the fence", "between fence and dot", "behind the dot")
CHOICES = ("resend", "hold")


async def pause(run: Run, world: World, peer: ScriptedPeer, where: Where, choice: str) -> None:
    """Stop the worker there until its lease is over and another one has gone on, wake it up, and count."""
    key = f"{where.replace(' ', '-')}-{choice}"
    gate = asyncio.Event()
    peer.behave()
    peer.on("dot" if where == "behind the dot" else "data", until=gate, times=1)
    before = len(peer.transactions)
    await world.clients.submit(Letter(key=key, on_uncertain=choice))
    await eventually(lambda: len(peer.transactions) > before, within=60.0)
    seen = peer.transactions[before]
    await eventually(lambda: seen.dot if where == "behind the dot" else seen.accepted, within=60.0)
    (paused,) = world.workers
    if where == "between fence and dot":
        await _stop_behind_the_fence(world, paused, key, gate.set)
    else:
        paused.signal(signal.SIGSTOP)
        if where == "before the fence":
            gate.set()  # the 354 waits in its socket
    await world.start_worker()
    await eventually(lambda: _judged(world, key), within=60.0)
    if choice == "resend" or where == "before the fence":
        await world.settled([key], within=60.0)
    paused.signal(signal.SIGCONT)
    gate.set()
    await eventually(lambda: seen.ended is not None, within=60.0)
    await world.settled([key], within=60.0)
    await asyncio.sleep(1.0)  # a late reply is written in this time
    await world.settled([key], within=60.0)
    account = await count(world, [peer], keys=[key])
    wrong = list(account.wrong)
    if where != "behind the dot" and (seen.dot or account.copies > 1):
        wrong.append(f"it has sent the dot without its lease: {account.copies} copies")
    figures = account.figures()
    run.row(
        f"a worker stopped {where} past its lease, {choice}", figures=figures, promise="2, 4, 7", wrong=wrong
    )
    paused.process.kill()
    await paused.ended()
    world.workers.remove(paused)


async def _stop_behind_the_fence(world: World, paused: Child, key: str, go_on: Callable[[], object]) -> None:
    """Let the fence wait for the attempt's row, stop the worker, and let the fence be written."""
    connection = await asyncpg.connect(world.database_url)
    try:
        async with connection.transaction():
            await connection.execute(f"{_MINE} FOR UPDATE OF a", key)
            go_on()
            await eventually(lambda: world.query(_FENCE_WAITS), within=60.0)
            paused.signal(signal.SIGSTOP)
    finally:
        await connection.close()
    await eventually(lambda: world.query(f"{_MINE} AND a.phase = 'dot'", key))


_MINE = "SELECT a.id FROM attempts a JOIN messages m ON m.id = a.message_id WHERE m.idempotency_key = $1"

_FENCE_WAITS = """
    SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%SET phase = ''dot''%'
"""


async def _judged(world: World, key: str) -> bool:
    """Say whether somebody has judged the attempt of the worker that stands still."""
    return bool(await world.query(f"{_MINE} AND a.number = 1 AND a.outcome IS NOT NULL", key))


@scenario("pauses")
async def pauses(run: Run) -> None:
    """A worker that wakes up without its lease sends no dot; a reply that it hears late is still believed."""
    async with ScriptedPeer() as peer:
        routes = [smarthost(peer, limits={"connections": 2})]
        async with a_world(run.folder, routes=routes) as world:
            for where in PLACES:
                for choice in CHOICES:
                    await pause(run, world, peer, where, choice)
            run.row("the logs", figures="", promise="", wrong=world.bugs())
