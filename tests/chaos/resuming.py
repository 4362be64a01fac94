"""How soon another worker goes on with what a dead one had in hand (promise 4: its lease, and ten seconds)."""

import asyncio
import time
from datetime import UTC, datetime

from tests.chaos.clients import Letter
from tests.chaos.records import count
from tests.chaos.registry import Run, scenario
from tests.chaos.world import Victim, a_world
from tests.house import smarthost
from tests.peer import ScriptedPeer
from tests.waiting import eventually

#: Seconds beyond the lease.
_BEYOND = 10.0


async def resume(run: Run, *, lease: float, poll: float, dispatch: dict[str, str]) -> None:
    """Kill a worker with three deliveries before the dot and three behind it; another worker runs already."""
    async with ScriptedPeer() as before, ScriptedPeer() as after:
        routes = [
            smarthost(before, name="before", limits={"connections": 3}),
            smarthost(after, name="after", limits={"connections": 3}),
        ]
        given = {"lease": f"{lease:g}s", "poll_interval": f"{poll:g}s", **dispatch}
        async with a_world(run.folder, routes=routes, dispatch=given) as world:
            gate = asyncio.Event()
            before.on("data", until=gate, times=3)
            after.on("dot", until=gate, times=3)
            letters = [
                Letter(key=f"{route}-{number}", route=route, on_uncertain="hold")
                for route in ("before", "after")
                for number in range(3)
            ]
            await asyncio.gather(*(world.clients.submit(letter) for letter in letters))
            await eventually(lambda: sum(bool(each.accepted) for each in before.transactions) == 3, within=60)
            await eventually(lambda: sum(each.dot for each in after.transactions) == 3, within=60)
            await world.start_worker()
            killed_at, killed = time.monotonic(), datetime.now(UTC)
            await world.kill(Victim.WORKER)
            gate.set()
            await world.settled(within=lease + _BEYOND + 60)
            resumed = [(each.begun_at - killed).total_seconds() for each in before.transactions[3:]]
            doubts = await world.query(
                """SELECT extract(epoch FROM a.ended_at - $1) AS seconds FROM attempts a
                    WHERE a.outcome = 'uncertain' AND a.lane = 'after'""",
                killed,
            )
            wrong = list((await count(world, [before, after])).wrong)
            if len(resumed) != 3 or max(resumed) > lease + _BEYOND:
                wrong.append(f"resumed after {resumed} s")
            decided = [float(row["seconds"]) for row in doubts]
            if len(decided) != 3 or max(decided) > lease + _BEYOND:
                wrong.append(f"uncertain after {decided} s")
            run.row(
                f"kill -9 with three deliveries before the dot and three behind it, lease {lease:g} s",
                figures=(
                    f"resumed after {max(resumed, default=0):.1f} s, uncertain after {max(decided, default=0):.1f} s;"
                    f" at the end after {time.monotonic() - killed_at:.0f} s"
                ),
                promise="4",
                wrong=[*wrong, *world.bugs()],
            )


@scenario("resuming")
async def resuming(run: Run) -> None:
    """A dead worker's deliveries go on, or become uncertain, within its lease and ten seconds, at production's times."""
    await resume(run, lease=30, poll=5, dispatch={})
