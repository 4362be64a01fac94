"""PostgreSQL's disk is full, to the last octet, and then it is not.

Its folder lies on a tmpfs of its own, which a ballast fills. A small row may still find room where a large one
does not (PostgreSQL errors 53100), and once the log cannot grow the server ends by itself. Whatever happens: an
answer is a 202 that holds or a 503 within 2 s, and when there is room again everything goes on.
"""

import asyncio
import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.infrastructure import REFUSED_WITHIN, knock, letters, submit
from tests.chaos.records import count
from tests.chaos.registry import Run, scenario
from tests.chaos.world import Victim, a_world
from tests.house import smarthost
from tests.peer import ScriptedPeer

#: Of the file system; the programs of PostgreSQL may have to lie there too.
SIZE = "700m"

FULL_SECONDS = 20.0

#: Of a message: more than what is free in a table's last page.
TEXT = "Thank you very much indeed. " * 10_000


@contextmanager
def _a_small_disk(place: Path) -> Iterator[bool]:
    """Mount a tmpfs there, where the machine allows that; say whether it does."""
    place.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=0711", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(place)], check=False)


@scenario("ledger: its disk is full")
async def full(run: Run) -> None:
    """PostgreSQL has no room left: 503 within 2 s or a 202 that holds, and with room all goes on by itself."""
    place = run.folder / "postgres"
    with _a_small_disk(place) as mounted:
        if not mounted:
            run.row("skipped: this machine lets nobody mount a tmpfs", figures="not run", promise="5")
            return
        async with ScriptedPeer() as peer:
            routes = [smarthost(peer, limits={"connections": 4})]
            async with a_world(run.folder, routes=routes) as world:
                before = await submit(world, letters("before", 50))
                ballast = place / "ballast"
                await asyncio.to_thread(_fill, ballast)
                filled = time.monotonic()
                (large, asked), (small, asked_too) = await asyncio.gather(
                    knock(world, "large", seconds=FULL_SECONDS, changes={"text": TEXT}),
                    knock(world, "small", seconds=FULL_SECONDS),
                )
                answers = await asyncio.gather(*asked, *asked_too)
                # Of its log, which lies on the same disk, only the first words are there.
                log = (world.postgres.home / "log").read_text(errors="replace")
                died = world.postgres.pid is None
                ballast.unlink()
                mended = time.monotonic()
                if died:  # nobody restarts it here as a service manager would
                    await world.raise_again(Victim.POSTGRES)
                after = await submit(world, [*large, *small, *letters("after", 10)])
                took = time.monotonic() - mended
                keys = [each.key for each in [*before, *after]]
                await world.settled(keys)
                account = await count(world, [peer], keys=keys)
                statuses = Counter(each.status for each in answers)
                slowest = max(each.seconds for each in answers)
                wrong = list(account.wrong)
                if set(statuses) - {202, 503} or not statuses[503]:
                    wrong.append(f"answered {dict(statuses)}")
                if slowest > REFUSED_WITHIN:
                    wrong.append(f"an answer took {slowest:.1f} s")
                if "No space left on device" not in log:
                    wrong.append("the disk was not full: the scenario shows nothing")
                run.row(
                    f"full for {mended - filled:.0f} s",
                    figures=f"{len(large)} POSTs of {len(TEXT) // 1000} kB and {len(small)} small ones: {dict(statuses)}"
                    f" in {slowest:.2f} s at most; PostgreSQL {'ended' if died else 'went on'}; taken again"
                    f" {took:.1f} s after there was room. {account.figures()}",
                    promise="1, 2, 5, 7, 8",
                    wrong=wrong + [f"a bug in a log: {each}" for each in world.bugs()],
                )


def _fill(ballast: Path) -> None:
    """Write until not an octet is free."""
    with ballast.open("wb", buffering=0) as file:
        for size in (1_048_576, 4096, 1):
            try:
                while file.write(b"\0" * size) == size:
                    pass
            except OSError:
                continue
        os.fsync(file.fileno())
