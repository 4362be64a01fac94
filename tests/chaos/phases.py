"""What dies × the phase in which the peer is × `resend`, `hold`.

Each phase and each choice has a lane and a peer of its own, which holds the dialogue in that phase. When all of them
have come there, the victim is killed: 24 rows with one kill.

| phase | where the peer holds |
|---|---|
| connect | the connection is there, and the peer is silent |
| greeting | the first line of the greeting is out, the second is not |
| ehlo starttls auth mail rcpt data | the command was read, its reply is due |
| body | it has read some of the content, and stops reading: more waits than the kernel's buffers hold |
| dot | it has read the dot, and is silent |
| reply | its reply has just left |
| quit | the message before was taken, QUIT was read; the next message waits for that |
"""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from service.smtp.phase import Phase
from tests.chaos.clients import Letter
from tests.chaos.records import count
from tests.chaos.registry import Run, scenario
from tests.chaos.world import LOGIN, PATIENCE, Victim, World, a_world, secured
from tests.peer import Rule, ScriptedPeer
from tests.waiting import eventually

CHOICES = ("resend", "hold")

#: More than the buffers of a connection on this machine take (net.ipv4.tcp_rmem, tcp_wmem).
_LARGE = 14_000_000


@dataclass(slots=True, kw_only=True)
class Place:
    """One phase with one choice: its lane, its peer, and its letters."""

    phase: Phase
    choice: str
    peer: ScriptedPeer
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    rule: Rule | None = None
    keys: list[str] = field(default_factory=list)

    @property
    def route(self) -> str:
        return f"{self.phase.word}-{self.choice}"

    def letter(self, number: int | str) -> Letter:
        self.keys.append(f"{self.route}-{number}")
        large = {"attachments": [_attachment()]} if self.phase is Phase.BODY else {}
        return Letter(
            key=self.keys[-1], recipients=2, on_uncertain=self.choice, route=self.route, changes=large
        )

    def close(self) -> None:
        """Hold the next dialogue in this phase."""
        self.gate = asyncio.Event()
        match self.phase:
            case Phase.GREETING:
                self.peer.on("connect", raw=b"220-peer.contoso.com is about to say more\r\n", times=1)
                self.rule = self.peer.on("greeting", until=self.gate, times=1)
            case Phase.BODY:
                self.rule = self.peer.on("body", until=self.gate, after_octets=1000, times=1)
            case Phase.REPLY:
                self.rule = self.peer.on("dot", until=self.gate, times=1)
            case _:
                self.rule = self.peer.on(self.phase, until=self.gate, times=1)

    def reached(self) -> bool:
        return self.rule is not None and self.rule.acted > 0


def _attachment() -> dict[str, str]:
    content = base64.b64encode(b"x" * _LARGE).decode()
    return {"filename": "large.bin", "content": content, "content_type": "application/octet-stream"}


@asynccontextmanager
async def places(run: Run, *, phases: Sequence[Phase], choices: Sequence[str]) -> AsyncIterator[list[Place]]:
    """Give a peer for each place."""
    async with contextlib.AsyncExitStack() as closing:
        found = []
        for phase in phases:
            for choice in choices:
                peer = await closing.enter_async_context(ScriptedPeer(tls=True, logins=dict([LOGIN])))
                found.append(Place(phase=phase, choice=choice, peer=peer))
        yield found


def routes_of(found: list[Place]) -> list[dict[str, Any]]:
    """Give a route to each place: TLS, a login, one connection, and a new one for every message."""
    limits = {"connections": 1, "messages_per_connection": 1}
    return [secured(place.peer, name=place.route, limits=limits, timeouts={"quit": "60s"}) for place in found]


async def one_round(
    run: Run, world: World, found: list[Place], victim: Victim, *, number: int, down: float = 0.0
) -> None:
    """Bring every place into its phase, kill, let them all go on, bring back after `down` seconds, and count."""
    for place in found:
        place.keys = []
        if place.phase is Phase.QUIT:
            await world.clients.submit(place.letter(f"{number}-before"))
    await world.settled([key for place in found for key in place.keys])
    for place in found:
        place.close()
    letters = [place.letter(number) for place in found]
    await asyncio.gather(*(world.clients.submit(letter) for letter in letters))
    await eventually(lambda: _all_reached(found), within=PATIENCE)
    if victim is Victim.API:  # who asks at that moment gets no answer, and asks again
        asked = [
            asyncio.create_task(world.clients.submit(place.letter(f"{number}-asked"))) for place in found
        ]
        await asyncio.sleep(run.chance.uniform(0.0, 0.3))
    else:
        asked = []
    for place in found:
        if place.phase is Phase.REPLY:
            place.gate.set()
    await eventually(
        lambda: all(place.peer.taken for place in found if place.phase is Phase.REPLY), within=30.0
    )
    await world.kill(victim)
    for place in found:
        place.gate.set()
    await asyncio.sleep(down)
    await world.raise_again(victim)
    await asyncio.gather(*asked)
    await world.settled([key for place in found for key in place.keys], within=180.0)
    for place in found:
        account = await count(world, [place.peer], keys=place.keys)
        gone = f" and away for {down:g} s" if down else ""
        done = f"{victim} killed{gone} in phase {place.phase.word}, {place.choice}"
        run.row(done, figures=account.figures(), promise="1, 2, 4, 7, 8", wrong=account.wrong)


def _all_reached(found: list[Place]) -> bool:
    missing = [place.route for place in found if not place.reached()]
    assert not missing, f"not there yet: {missing}"
    return True


async def matrix(
    run: Run, *, victims: Sequence[Victim], phases: Sequence[Phase], choices: Sequence[str]
) -> None:
    """Go through the victims, each with every phase and choice."""
    async with places(run, phases=phases, choices=choices) as found:
        async with a_world(run.folder, routes=routes_of(found), servers=run.servers) as world:
            for number, victim in enumerate(victims):
                await one_round(run, world, found, victim, number=number)
            if Victim.POSTGRES in victims:  # once more, for longer than a lease
                await one_round(run, world, found, Victim.POSTGRES, number=len(victims), down=4.0)
            run.row("the logs", figures="", promise="", wrong=world.bugs())


@scenario("phases")
async def phases(run: Run) -> None:
    """Whatever dies, in whichever phase the peer is: nothing is lost, nothing doubled without a doubt."""
    await matrix(run, victims=list(Victim), phases=list(Phase), choices=CHOICES)
