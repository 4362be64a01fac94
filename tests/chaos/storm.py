"""Kill -9 of anything at any moment, under thousands of messages from clients that retry by key.

Two APIs, two workers, two lanes: one without limits, and one whose limit of messages a minute must hold in every
window of sixty seconds, however often those who count are killed and the bell is flushed. Clients post as long as
there are kills to come, so that every kill meets work under way.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tests.chaos.clients import Letter
from tests.chaos.records import Account, count
from tests.chaos.registry import Run, scenario
from tests.chaos.restarts import SlowPeer
from tests.chaos.world import Victim, World, a_world
from tests.house import smarthost
from tests.peer import ScriptedPeer

#: How often each of them is chosen, in proportion.
_WEIGHTS = {Victim.WORKER: 4, Victim.API: 3, Victim.POSTGRES: 2, Victim.REDIS: 2}

_MINUTE = timedelta(seconds=60)


@dataclass(slots=True, kw_only=True)
class Storm:
    """Kills and clients, and how far they are."""

    world: World
    chance: random.Random
    messages: int
    kills: int
    counted: int  # of the messages, about so many take the lane with a limit
    told: Callable[[str], None]
    done: int = 0
    submitted: int = 0
    victims: list[Victim] = field(default_factory=list)

    async def rage(self) -> None:
        """Kill so often, and bring back what was killed after a moment."""
        while self.done < self.kills:
            await asyncio.sleep(self.chance.uniform(0.1, 1.2))
            victim = self.chance.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
            self.victims.append(victim)
            await self.world.kill(victim, chance=self.chance)
            await asyncio.sleep(self.chance.choice([0.0, 0.3, 2.5]))  # 2.5 s: longer than a lease
            await self.world.raise_again(victim, wait=self.chance.random() < 0.5)
            if victim is Victim.REDIS and self.chance.random() < 0.5:
                self.world.redis.flush()
            self.done += 1
            self.told(f"{self.done} of {self.kills} kills, {self.submitted} of {self.messages} messages")

    async def client(self) -> None:
        """Post one message after another, with pauses that keep step with the kills."""
        while (number := self.submitted) < self.messages:
            if number > self.messages * (self.done + 1) / self.kills:
                await asyncio.sleep(0.05)
                continue
            self.submitted += 1
            counts = number % max(self.messages // self.counted, 3) == 0
            letter = Letter(
                key=f"m{number}",
                recipients=self.chance.choice([1, 1, 1, 2]),
                on_uncertain=self.chance.choice(["resend", "resend", "hold"]),
                route="counted" if counts else "free",
            )
            await self.world.clients.submit(letter, within=180.0)


async def rage(run: Run, *, messages: int, kills: int, a_minute: int, clients: int) -> None:
    """Let a storm pass, wait for the sun, and count."""
    async with SlowPeer(seconds=0.02) as free, ScriptedPeer() as counted:
        routes = [
            smarthost(free, name="free", limits={"connections": 4}),
            smarthost(counted, name="counted", limits={"connections": 2, "messages_per_minute": a_minute}),
        ]
        async with a_world(run.folder, routes=routes, apis=2, workers=2, servers=run.servers) as world:
            storm = Storm(
                world=world,
                chance=run.chance,
                messages=messages,
                kills=kills,
                # Enough that the lane is busy all the time, and little enough that it comes to an end.
                counted=a_minute * 3,
                told=run.step,
            )
            await asyncio.gather(storm.rage(), *(storm.client() for _ in range(clients)))
            await _calm(world)
            await world.settled(within=300.0)
            account = await count(world, [free, counted])
            _rows(run, storm, account, counted, a_minute)


async def _calm(world: World) -> None:
    """See that everything runs; a process that was not waited for may still be starting."""
    for server in (Victim.POSTGRES, Victim.REDIS):
        await world.raise_again(server)
    for child in (*world.apis, *world.workers):
        assert child.process.poll() is None, f"{child.victim} ended by itself: {child.log.read_text()[-800:]}"


def _rows(run: Run, storm: Storm, account: Account, counted: ScriptedPeer, a_minute: int) -> None:
    killed = ", ".join(f"{storm.victims.count(victim)} {victim}" for victim in Victim)
    run.row(
        f"{storm.kills} times kill -9 ({killed}) under {storm.messages} messages",
        figures=account.figures(),
        promise="1, 2, 7, 8",
        wrong=[*account.wrong, *storm.world.bugs()],
    )
    most = fullest([taken.at for taken in counted.taken], span=_MINUTE)
    run.row(
        f"a lane of {a_minute} messages a minute meanwhile",
        figures=f"{len(counted.taken)} taken; the fullest window of 60 s had {most}",
        promise="6",
        wrong=[] if most <= a_minute else [f"{most} in a window of 60 s"],
    )


def fullest(times: Sequence[datetime], *, span: timedelta) -> int:
    """Say how many of these moments the fullest window of this length holds."""
    ordered = sorted(times)
    first = most = 0
    for last, at in enumerate(ordered):
        while at - ordered[first] >= span:
            first += 1
        most = max(most, last - first + 1)
    return most


@scenario("storm")
async def storm(run: Run) -> None:
    """Sixty times kill -9 of anything under 3,000 messages: nothing lost, copies explained, limits kept."""
    await rage(run, messages=3000, kills=60, a_minute=40, clients=12)
