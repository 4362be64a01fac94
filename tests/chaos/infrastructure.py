"""What the faults of infrastructure have in common: a world behind proxies, and what is asked of it meanwhile.

    async with a_world_behind_proxies(run.folder, routes=[…]) as (world, ledger, redis):
        outages = Outages(run=run, world=world, peer=peer)
        await outages.happen("killed", harm=…, mend=…, seconds=10.0)

An outage of the ledger finds a hundred messages waiting and four on their way. While it lasts, an application
knocks four times a second; once it is over, every letter is posted until its answer is definite. What must hold:

- *503 within 2 s* for whatever was posted after the ledger had died, `/readyz` the same, `/livez` well;
- *no new transaction*: a second after the death the peer's list of transactions is at its end, and nothing more is
  taken, until the ledger is back. The second is for what was under way: a transaction that had begun, or a dot that
  the ledger had let go;
- *recovery without a restart*: the same processes take and send again, within RECOVERY;
- the three records agree (`records`), and no process has logged a mistake of its own.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import quantiles
from typing import Any

import yaml

from service.local.servers import HOST
from tests.chaos.clients import Answer, Letter
from tests.chaos.proxy import PostgresProxy, Proxy
from tests.chaos.records import count
from tests.chaos.registry import Run
from tests.chaos.world import World, a_world
from tests.peer import ScriptedPeer
from tests.waiting import eventually

#: Seconds within which a refusal comes while the ledger is away (promise 5).
REFUSED_WITHIN = 2.0

#: Seconds within which taking and sending go on when the ledger is back. The driver's own limit for a
#: statement is 30 s: who waits for an answer out of a black hole may need all of it.
RECOVERY = 45.0

#: Messages that wait when an outage begins, and how often somebody knocks meanwhile, in seconds.
WAITING, KNOCKS_EVERY = 100, 0.25

#: What had begun before an outage may end within it; after so long nothing does.
MOMENT = timedelta(seconds=1)

Act = Callable[[], Awaitable[object]]


def at_once(act: Callable[[], None]) -> Act:
    """Make a coroutine of what is none."""

    async def acted() -> None:
        act()

    return acted


def reconfigure(world: World, **changes: Any) -> None:
    """Change the configuration of the processes that are started from now on."""
    given = yaml.safe_load(world.processes.config.read_text(encoding="utf-8"))
    world.processes.config.write_text(yaml.safe_dump(given | changes), encoding="utf-8")


async def start(world: World, *, apis: int = 1, workers: int = 1) -> None:
    """Start processes side by side."""
    await asyncio.gather(
        *(world.start_api() for _ in range(apis)), *(world.start_worker() for _ in range(workers))
    )


@asynccontextmanager
async def a_world_behind_proxies(
    run: Run, *, routes: Sequence[dict[str, Any]], workers: int = 1, **changes: Any
) -> AsyncIterator[tuple[World, PostgresProxy, Proxy]]:
    """Start a world whose processes reach PostgreSQL and Redis through proxies; who counts goes past them."""
    async with (
        a_world(run.folder, routes=routes, apis=0, workers=0, **changes) as world,
        PostgresProxy(HOST, world.postgres.port) as ledger,
        Proxy(HOST, world.redis.port) as redis,
    ):
        reconfigure(
            world, database_url=ledger.through(world.database_url), redis_url=redis.through(world.redis.url)
        )
        await start(world, workers=workers)
        yield world, ledger, redis


def letters(prefix: str, number: int, **each: Any) -> list[Letter]:
    """Write so many letters with keys of this prefix."""
    return [Letter(key=f"{prefix}-{n}", **each) for n in range(number)]


async def submit(world: World, written: Iterable[Letter], *, at_once: int = 20) -> list[Letter]:
    """Post each until its answer is definite; return them."""
    places, sent = asyncio.Semaphore(at_once), list(written)

    async def one(letter: Letter) -> None:
        async with places:
            await world.clients.submit(letter)

    await asyncio.gather(*(one(letter) for letter in sent))
    return sent


async def knock(
    world: World, prefix: str, *, seconds: float, every: float = KNOCKS_EVERY, **each: Any
) -> tuple[list[Letter], list[asyncio.Task[Answer]]]:
    """Post a letter every so often, each once; return the letters, and their answers as they come."""
    tasks: list[asyncio.Task[Answer]] = []
    sent: list[Letter] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        sent.append(Letter(key=f"{prefix}-{len(sent)}", **each))
        tasks.append(asyncio.create_task(world.clients.post(sent[-1])))
        await asyncio.sleep(every)
    return sent, tasks


def unhurried(peer: ScriptedPeer) -> None:
    """Let the peer take a third of a second for each message, so that others wait."""
    peer.on("dot", reply="250 2.0.0 OK", pace=0.02)


def delays(world: World, peer: ScriptedPeer, keys: Collection[str]) -> list[float]:
    """Give the seconds from the first POST of each key until the peer wrote it down, just before its 250."""
    asked: dict[str, float] = {}
    for answer in world.clients.answers:
        asked.setdefault(answer.key, answer.asked_at)
    clocks = time.time() - time.monotonic()
    taken: dict[str, float] = {}
    for each in peer.taken:
        taken.setdefault(each.mail.partition("@")[0], each.at.timestamp() - clocks)
    return [taken[key] - asked[key] for key in keys if key in taken]


def unveil(peer: ScriptedPeer, proxy: Proxy) -> None:
    """Write down who was behind the proxy, where the peer saw only that: the records find sessions by it."""
    for transaction in peer.transactions:
        transaction.client = proxy.clients.get(transaction.client, transaction.client)


def p95(seconds: Sequence[float]) -> float:
    """Give the 95th percentile."""
    return quantiles(seconds, n=20, method="inclusive")[18] if len(seconds) > 1 else max(seconds, default=0.0)


def moved(before: Sequence[float], during: Sequence[float], *, expected: int) -> tuple[str, list[str]]:
    """Compare another lane's delays, from POST to 250, before and during a fault.

    The machine has other things to do, so only what is three times as much and half a second more counts.
    """
    was, became = p95(before), p95(during)
    figures = (
        f"p95 from POST to 250: {was * 1000:.0f} ms before, {became * 1000:.0f} ms during ({len(during)})"
    )
    wrong = []
    if became > 3 * was and became > was + 0.5:
        wrong.append(f"the other lane's p95 went from {was:.2f} s to {became:.2f} s")
    if len(during) < expected:
        wrong.append(f"only {len(during)} of {expected} messages of the other lane were sent meanwhile")
    return figures, wrong


async def states(world: World, keys: Iterable[str]) -> Mapping[str, int]:
    """Count the recipients of these keys by state."""
    rows = await world.query(
        "SELECT r.status, count(*) AS n FROM recipients r JOIN messages m ON m.id = r.message_id"
        " WHERE m.idempotency_key = ANY($1) GROUP BY 1",
        list(keys),
    )
    return {str(row["status"]): int(row["n"]) for row in rows}


async def all_sent(world: World, keys: Collection[str], *, within: float = 120.0) -> None:
    """Wait until each of these keys is sent."""

    async def sent() -> bool:
        found = await states(world, keys)
        assert found == {"sent": len(keys)}, found
        return True

    await eventually(sent, within=within)


@dataclass(slots=True, kw_only=True)
class Outages:
    """Outages of one world's ledger, one after another."""

    run: Run
    world: World
    peer: ScriptedPeer
    _number: int = 0

    async def happen(
        self,
        done: str,
        *,
        harm: Act,
        mend: Act,
        seconds: float,
        refuses: bool = True,
    ) -> None:
        """Let one happen, heal, and be judged; `refuses` says that nothing may be taken or sent meanwhile."""
        self._number += 1
        prefix = f"outage{self._number}"
        before = await submit(self.world, letters(f"{prefix}-before", WAITING), at_once=WAITING)
        began = datetime.now(UTC)
        await harm()
        harmed, at = time.monotonic(), datetime.now(UTC)
        probes = asyncio.create_task(self._probe(until=harmed + seconds))
        meanwhile, answers = await knock(self.world, f"{prefix}-meanwhile", seconds=seconds)
        wrong = await probes if refuses else []
        until = datetime.now(UTC)
        mended = time.monotonic()
        await mend()
        late = await submit(self.world, [*meanwhile, *letters(f"{prefix}-after", 10)])
        took_again = time.monotonic() - mended
        keys = [letter.key for letter in [*before, *late]]
        await self.world.settled(keys)
        drained = time.monotonic() - mended
        for task in answers:
            await task
        asked = [each for each in map(asyncio.Task.result, answers) if each.asked_at + each.seconds < mended]
        first, then = self._sent(began, at + MOMENT), self._sent(at + MOMENT, until)
        if refuses:
            wrong += _not_refused(asked)
            if then != (0, 0):
                wrong.append(
                    f"{then[0]} transactions began and {then[1]} messages were taken while it was away"
                )
        if took_again > RECOVERY:
            wrong.append(f"messages were taken again only {took_again:.0f} s after it was back")
        if drained > 2 * RECOVERY:
            wrong.append(f"what waited was sent only {drained:.0f} s after it was back")
        account = await count(self.world, [self.peer], keys=keys)
        slowest = max((each.seconds for each in asked), default=0.0)
        statuses = sorted({str(each.status or each.code) for each in asked})
        self.run.row(
            done,
            figures=f"{len(asked)} POSTs meanwhile: {', '.join(statuses)} in {slowest:.2f} s at most;"
            f" {first[0]} transactions in its first second, {then[0]} after that; taken again after"
            f" {took_again:.1f} s, all sent after {drained:.1f} s. {account.figures()}",
            promise="1, 2, 5, 7, 8",
            wrong=wrong + account.wrong,
        )

    def _sent(self, since: datetime, until: datetime) -> tuple[int, int]:
        """Count the transactions that began, and the messages that were taken, between two moments."""
        begun = sum(since < each.begun_at <= until for each in self.peer.transactions)
        return begun, sum(since < each.at <= until for each in self.peer.taken)

    async def _probe(self, *, until: float) -> list[str]:
        """Look at the probes until then; say what they should not have said."""
        wrong: list[str] = []
        await asyncio.sleep(0.5)
        while time.monotonic() < until - 2.0:
            began = time.monotonic()
            ready, _ = await self.world.clients.get("/readyz")
            took = time.monotonic() - began
            began = time.monotonic()
            alive, _ = await self.world.clients.get("/livez")
            if ready != 503 or took > REFUSED_WITHIN + 1.0:
                wrong.append(f"/readyz said {ready} after {took:.1f} s")
            if alive != 200 or time.monotonic() - began > 1.0:
                wrong.append(f"/livez said {alive} after {time.monotonic() - began:.1f} s")
            await asyncio.sleep(0.5)
        return wrong[:3]


def _not_refused(answers: Sequence[Answer]) -> list[str]:
    wrong = [
        f"{each.key}: {each.status or each.code} ({each.code}) after {each.seconds:.1f} s"
        for each in answers
        if each.status != 503 or each.seconds > REFUSED_WITHIN
    ]
    if not answers:
        wrong.append("nobody knocked while it was away")
    return wrong[:5]
