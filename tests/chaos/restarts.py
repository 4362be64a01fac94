"""Planned restarts under load, as a rolling update makes them: SIGTERM to one process, a new one, and the next.

Two APIs and two workers are replaced in turns, while clients post and the peer takes its time with every reply. A
restart is free: it uses up no try, leaves nothing in doubt, and what a client asked for meanwhile is answered.
"""

import asyncio
from itertools import cycle, islice
from typing import Any

from tests.chaos.clients import Letter
from tests.chaos.records import count
from tests.chaos.registry import Run, scenario
from tests.chaos.world import Child, World, a_world
from tests.house import smarthost
from tests.peer import ScriptedPeer

#: Seconds that the peer takes for each reply to a dot: something is always in hand.
_DOT = 0.15

#: Seconds between two messages of a client.
_PAUSE = 0.02


async def roll(run: Run, *, times: int, clients: int, dot: float = _DOT, pause: float = _PAUSE) -> None:
    """Replace a process so many times, under the load of so many clients, and count.

    `dot` is the time of the peer for each message, `pause` that of a client between two, in seconds.
    """
    async with SlowPeer(seconds=dot) as peer:
        routes = [smarthost(peer, limits={"connections": 6})]
        dispatch = {"shutdown_grace": "20s", "lease": "5s"}
        async with a_world(
            run.folder, routes=routes, dispatch=dispatch, apis=2, workers=2, servers=run.servers
        ) as world:
            over = asyncio.Event()
            posting = [asyncio.create_task(_post(world, number, over, pause)) for number in range(clients)]
            statuses = []
            for child in islice(_in_turns(world), times):
                await asyncio.sleep(run.chance.uniform(0.1, 0.6))
                statuses.append(await world.replace(child()))
                run.step(f"{len(statuses)} of {times} restarts")
            over.set()
            await asyncio.gather(*posting)
            await world.settled(within=120.0)
            account = await count(world, [peer])
            wrong = [*account.wrong, *world.bugs()]
            wrong += [f"exit status {status}" for status in statuses if status != 0]
            wrong += await _unlike_one_try(world)
            doubled = account.copies - sum(account.statuses.values())
            if doubled:
                wrong.append(f"{doubled} copies too many")
            broken = sum(each.status is None for each in world.clients.answers)
            run.row(
                f"{times} planned restarts, API and worker in turns",
                figures=f"{account.figures()}; {broken} requests met a closed door and were asked again",
                promise="3",
                wrong=wrong,
            )


class SlowPeer(ScriptedPeer):
    """A peer that takes its time with every dot."""

    def __init__(self, *, seconds: float = _DOT, **given: Any) -> None:
        super().__init__(**given)
        self.on("dot", pace=seconds / len("250 2.0.0 OK\r\n"), reply="250 2.0.0 OK")


def _in_turns(world: World) -> Any:
    """Give who is next: the longest-serving worker, the longest-serving API, and again."""

    def worker() -> Child:
        return world.workers[0]

    def api() -> Child:
        return world.apis[0]

    return cycle([worker, api])


async def _post(world: World, client: int, over: asyncio.Event, pause: float) -> None:
    number = 0
    while not over.is_set():
        await world.clients.submit(Letter(key=f"c{client}-{number}"))
        await asyncio.sleep(pause)
        number += 1


async def _unlike_one_try(world: World) -> list[str]:
    """List what is not sent with exactly one try; what went back before its turn is none."""
    found = await world.query(
        "SELECT email, status, tries FROM recipients WHERE status <> 'sent' OR tries <> 1"
    )
    wrong = [f"{row['email']} is {row['status']} after {row['tries']} tries" for row in found]
    odd = await world.query(
        """SELECT a.id, a.outcome, a.error ->> 'code' AS code FROM attempts a
            WHERE NOT (a.outcome = 'sent' OR a.outcome = 'aborted' AND a.error ->> 'code' = 'given_back')"""
    )
    return wrong + [f"attempt {row['id']}: {row['outcome']} ({row['code']})" for row in odd]


@scenario("restarts")
async def restarts(run: Run) -> None:
    """Thirty planned restarts under load: nothing in doubt, no try used up, nothing doubled or lost."""
    await roll(run, times=30, clients=4)
