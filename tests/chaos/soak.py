"""The soak: a steady, mixed load for an hour, and whether anything grows. By hand, with `python -m tests.chaos.soak`.

    python -m tests.chaos.soak [--minutes 60] [--rate 20] [--dry]

One API and one worker run as processes. Each minute their memory and descriptors, the connections to PostgreSQL, the
keys in Redis and the latencies of the minute are written down; the table goes to `results/soak-<date>.md`. Most
messages go at once; some are refused, some are deferred first, some are large, some are posted twice under one key.

What may grow is the ledger: it is the record of what was sent. What must not is everything else, so the last third is
held against the first.
"""

import argparse
import asyncio
import os
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from tests.chaos.clients import Letter
from tests.chaos.report import RESULTS
from tests.chaos.world import World, a_world
from tests.house import smarthost
from tests.invariants import assert_sound
from tests.peer import ScriptedPeer

#: How much the last third may lie above the first: a part, and so many of the figure's own unit besides.
ALLOWED = {
    "api MB": (1.10, 8),
    "worker MB": (1.10, 8),
    "api fds": (1.10, 6),
    "worker fds": (1.10, 6),
    "PostgreSQL connections": (1.10, 4),
    "Redis keys": (1.10, 20),
    "accepted p95 ms": (1.5, 20),
    "at the peer p95 ms": (1.5, 40),
}


@dataclass(slots=True)
class Minute:
    """What was seen in one minute."""

    accepted: list[float] = field(default_factory=list)  # seconds
    arrived: list[float] = field(default_factory=list)
    refused: int = 0
    figures: dict[str, float] = field(default_factory=dict)


async def soak(*, minutes: int, rate: float, folder: Path) -> tuple[list[Minute], int]:
    """Load for so long; return the minutes, and how many messages there were."""
    seen: list[Minute] = [Minute()]
    posted: dict[str, float] = {}
    async with ScriptedPeer() as peer:
        peer.on("rcpt", reply="550 5.1.1 No such user", when=lambda path: path.startswith("gone"))
        peer.on("rcpt", reply="451 4.3.2 Not now", when=_first_time_of("later"))
        async with a_world(
            folder, routes=[smarthost(peer)], dispatch={"retry": {"first": "5s", "cap": "5s"}}
        ) as world:
            redis: Redis = Redis.from_url(world.redis.url)
            ends, number, tasks = time.monotonic() + 60 * minutes, 0, set[asyncio.Task[None]]()
            next_minute = time.monotonic() + 60
            while time.monotonic() < ends:
                tasks.add(asyncio.create_task(_post(world, number, posted, seen[-1])))
                number += 1
                for done in [each for each in tasks if each.done()]:
                    tasks.discard(done)
                    done.result()
                await asyncio.sleep(1 / rate)
                if time.monotonic() >= next_minute:
                    _arrivals(peer, posted, seen[-1])
                    seen[-1].figures = await _figures(world, redis, seen[-1])
                    print(f"{len(seen):3d} min  {_line(seen[-1].figures)}", flush=True)
                    seen.append(Minute())
                    next_minute += 60
            await asyncio.gather(*tasks)
            await world.settled(within=120)
            await redis.aclose()
            assert world.bugs() == [], world.bugs()
            await assert_sound(world.database_url)
    return [minute for minute in seen if minute.figures], number


def _first_time_of(word: str) -> Any:
    known: set[str] = set()

    def first(path: str) -> bool:
        new = path.startswith(word) and path not in known
        known.add(path)
        return new

    return first


async def _post(world: World, number: int, posted: dict[str, float], minute: Minute) -> None:
    kind = {0: "gone", 5: "later", 7: "large"}.get(number % 40, "plain")
    letter = Letter(key=f"{kind}-{number}", changes={"text": "x" * (100_000 if kind == "large" else 1_500)})
    (to,) = letter.to
    posted[to] = began = time.monotonic()
    answer = await world.clients.submit(letter)
    if answer.status != 202:
        minute.refused += 1
        return
    minute.accepted.append(time.monotonic() - began)
    if number % 25 == 0:
        again = await world.clients.submit(letter)
        assert again.id == answer.id, "one key, one message"
    if kind != "plain":
        posted.pop(to, None)  # only what goes at once is timed


def _arrivals(peer: ScriptedPeer, posted: dict[str, float], minute: Minute) -> None:
    """Time what has arrived since the last look, and forget it: the peer's record must not grow either."""
    now, wall = time.monotonic(), datetime.now(UTC)
    for taken in peer.taken:
        began = posted.pop(taken.rcpts[0], None)
        if began is not None:
            minute.arrived.append(now - (wall - taken.at).total_seconds() - began)
    peer.taken.clear()
    peer.transactions[:] = [each for each in peer.transactions if not each.ended]
    peer.commands.clear()


async def _figures(world: World, redis: Redis, minute: Minute) -> dict[str, float]:
    api, worker = world.apis[0].process.pid, world.workers[0].process.pid
    (row,) = await world.query(
        "SELECT count(*) AS open FROM pg_stat_activity WHERE datname = current_database()"
    )
    (size,) = await world.query("SELECT pg_database_size(current_database()) AS octets")
    return {
        "api MB": _resident(api),
        "worker MB": _resident(worker),
        "api fds": _descriptors(api),
        "worker fds": _descriptors(worker),
        "PostgreSQL connections": row["open"],
        "Redis keys": await redis.dbsize(),
        "accepted p95 ms": _p95(minute.accepted),
        "at the peer p95 ms": _p95(minute.arrived),
        "messages": len(minute.accepted),
        "ledger MB": size["octets"] / 1e6,
    }


def _resident(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def _descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208  # names alone


def _p95(seconds: list[float]) -> float:
    return sorted(seconds)[int(len(seconds) * 0.95)] * 1000 if seconds else 0.0


def _line(figures: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.0f}" for name, value in figures.items())


def judged(minutes: list[Minute]) -> dict[str, tuple[float, float, bool]]:
    """Hold the last third against the first, by medians: (first, last, flat)."""
    third = max(len(minutes) // 3, 1)
    found = {}
    for name, (part, besides) in ALLOWED.items():
        first = statistics.median(minute.figures[name] for minute in minutes[:third])
        last = statistics.median(minute.figures[name] for minute in minutes[-third:])
        found[name] = (first, last, last <= first * part + besides)
    return found


def page(minutes: list[Minute], *, messages: int, rate: float) -> str:
    """Write the table."""
    verdicts = judged(minutes)
    names = list(minutes[0].figures)
    rows = [
        f"| {number} | " + " | ".join(f"{minute.figures[name]:.0f}" for name in names) + " |"
        for number, minute in enumerate(minutes, start=1)
        if number == 1 or number % 5 == 0 or number == len(minutes)
    ]
    flat = [
        f"| {name} | {first:.0f} | {last:.0f} | {'yes' if ok else '**no**'} |"
        for name, (first, last, ok) in verdicts.items()
    ]
    what = (
        f"`python -m tests.chaos.soak --minutes {len(minutes)} --rate {rate:g}`: {messages:,} requests in {len(minutes)}"
        f" minutes, one API and one worker, on {os.cpu_count()} cores that other work shared. 1 in 40 each is refused,"
        " deferred first, or has 100 kB; 1 in 25 is posted twice under one key. At the end every message was at its end,"
        " the ledger sound, and no process had logged a mistake."
    )
    return "\n".join(
        [
            f"# The soak of {datetime.now(UTC):%Y-%m-%d}",
            "",
            what,
            "",
            "| figure | first third (median) | last third | flat? |",
            "| --- | --- | --- | --- |",
            *flat,
            "",
            "What may grow is the ledger, which is the record of what was sent.",
            "",
            f"| minute | {' | '.join(names)} |",
            f"| {' | '.join(['---'] * (len(names) + 1))} |",
            *rows,
            "",
        ]
    )


def main() -> None:
    """Soak, and write the table."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos.soak", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second")
    parser.add_argument("--dry", action="store_true", help="write no table")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="postroom-soak-"))
    try:
        minutes, messages = asyncio.run(soak(minutes=given.minutes, rate=given.rate, folder=folder / "world"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    text = page(minutes, messages=messages, rate=given.rate)
    if given.dry:
        print(text)
    else:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"soak-{datetime.now(UTC):%Y-%m-%d}.md").write_text(text, encoding="utf-8")
    raise SystemExit(0 if all(ok for _, _, ok in judged(minutes).values()) else 1)


if __name__ == "__main__":
    main()
