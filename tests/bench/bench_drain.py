"""A backlog drained by one worker, with a bare aiosmtplib loop on as many connections in turns with it.

The backlog is there before the worker starts (`filler`). It is drained in tenths: the worker is stopped with
SIGSTOP when the sink has a tenth more; then the bare loop sends some thousands to the same sink; then claims
are timed (the product's own, rolled back, in the queue as it is at that moment); then the worker goes on. So each
tenth has its own comparison, and pauses are in nobody's figure. The second backlog is drained while a
forgotten transaction holds an old snapshot.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from service.ledger import claiming
from service.ledger.engine import open_engine
from service.ledger.ids import new_id
from service.ledger.pace import LaneLimits
from tests.bench import filler
from tests.bench.bench_end_to_end import reached
from tests.bench.figures import Figure, Table, median, ms, scaled
from tests.bench.machine import memory, watching
from tests.bench.postfix import SmtpSink, smtp_sink
from tests.bench.programs import Program, program
from tests.bench.stack import Stack, a_stack, per_thousand, used, way_out

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

LANE = "smarthost"
CONNECTIONS = 10  # of a lane without limits, and of the bare loop
_TENTHS = 10
_TENTH_LIMIT = 120.0  # seconds


async def backlog(
    stack: Stack, count: int, *, run: str = "backlog", routes: Sequence[str] = (LANE,), token: str = ""
) -> None:
    """Let `count` messages wait on each of the routes, all of them due: copies of one that the API took."""
    token = token or await stack.key(f"app-{run}")
    async with stack.database() as db:
        before = await db.fetchval("SELECT coalesce(max(id), '') FROM messages")
        async with program("loader") as loader:
            await loader.ask(op="prepare", token=token, run=run, count=len(routes), routes=list(routes))
            load = await loader.ask(op="load", port=stack.port, clients=1)
            assert load["by_status"] == {"202": len(routes)}, load["by_status"]
        now = await db.fetchval("SELECT clock_timestamp()")
        originals = await db.fetch("SELECT id FROM messages WHERE id > $1 ORDER BY id", before)
        for number, original in enumerate(originals):
            await filler.copies(
                db,
                original["id"],
                count - 1,
                oldest=now - timedelta(seconds=30),
                newest=now,
                run=f"{run}.{number}",
            )
        await filler.settle(db)


_UNLIMITED = LaneLimits(
    connections=1000, messages_per_minute=None, messages_per_hour=None, recipients_per_day=None
)


async def claim_seconds(
    stack: Stack, *, lane: str = LANE, limits: LaneLimits = _UNLIMITED, rounds: int = 40
) -> float:
    """Time the product's claim of ten, in the queue as it is; nothing is kept. Return the median.

    The first claim looks at everything that is due, as a drain's does now and then; the others know from it where
    the queue begins, as a drain does that has much to do.
    """
    engine = open_engine(stack.database_url, name="bench", size=1)
    wish = claiming.Wish(
        lane=lane, route=lane, worker=new_id("wrk"), seats=[], more=10, lease=30.0, suspects=True
    )
    times = []
    try:
        async with engine.connect() as db:
            await db.execute(text("SET lock_timeout = '50ms'"))
            await db.commit()
            for _ in range(rounds):
                async with db.begin() as transaction:
                    began = time.perf_counter()
                    claim = await claiming.claim(db, wish, limits)
                    times.append(time.perf_counter() - began)
                    assert claim.claimed
                    await transaction.rollback()
                wish = replace(wish, from_due=claim.first_due)
    finally:
        await engine.dispose()
    return median(times[5:])  # the first ones plan their statements


@dataclass(slots=True)
class Drained:
    """What the tenths came to."""

    rates: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    cpu: list[dict[str, float]] = field(default_factory=list)
    bare_cpu: list[float] = field(default_factory=list)  # seconds a message
    claims: list[float] = field(default_factory=list)  # seconds, before the first tenth and in each pause
    memory: list[float] = field(default_factory=list)  # MB
    tenth: int = 0


async def _paused_claims(stack: Stack, pid: int) -> float:
    """Time claims while the worker stands still; where it was stopped inside its own claim, let it end that."""
    for _ in range(50):
        try:
            return await claim_seconds(stack)
        except DBAPIError:  # its row of the lane is locked (lock_timeout)
            os.kill(pid, signal.SIGCONT)
            await asyncio.sleep(0.003)
            os.kill(pid, signal.SIGSTOP)
    raise AssertionError("the worker always holds the lane")


async def _drain(stack: Stack, sink: SmtpSink, bare: Program | None, *, count: int) -> Drained:
    drained = Drained(tenth=count // (_TENTHS + 1))
    worker = await stack.start_worker()
    await reached(sink, sink.count() + drained.tenth // 2)  # connected, statements prepared
    os.kill(worker.pid, signal.SIGSTOP)
    drained.claims.append(await _paused_claims(stack, worker.pid))
    for number in range(_TENTHS):
        had, before = sink.count(), stack.cpu()
        os.kill(worker.pid, signal.SIGCONT)
        began = time.monotonic()
        # A drain that crawls is measured for so long and not to its end.
        with contextlib.suppress(AssertionError):
            await reached(sink, had + drained.tenth, within=_TENTH_LIMIT)
        os.kill(worker.pid, signal.SIGSTOP)
        seconds = time.monotonic() - began
        await asyncio.sleep(0.1)
        done = sink.count() - had
        drained.rates.append(done / seconds)
        drained.cpu.append({name: each / done for name, each in used(before, stack.cpu()).items()})
        drained.memory.append(memory(worker.pid).rss)
        if bare is not None:
            some = min(drained.tenth, 3000)
            sent = await bare.ask(port=sink.port, count=some, connections=CONNECTIONS, label=f"bare{number}")
            drained.bare.append(some / sent["seconds"])
            drained.bare_cpu.append(sent["cpu"] / some)
        drained.claims.append(await _paused_claims(stack, worker.pid))
        if done < drained.tenth:
            os.kill(worker.pid, signal.SIGCONT)
            return drained
    os.kill(worker.pid, signal.SIGCONT)
    await stack.settled()
    assert await stack.count("status <> 'sent'") == 0
    return drained


@pytest.mark.parametrize("snapshot", [False, True], ids=["plain", "snapshot"])
async def test_backlog(table: Table, tmp_path: Path, *, snapshot: bool) -> None:
    """A backlog of 100,000."""
    count = scaled(100_000, least=5000)
    tmp_path.chmod(0o755)
    with smtp_sink(tmp_path) as sink, watching() as noise:
        async with AsyncExitStack() as closing:
            stack = await closing.enter_async_context(a_stack(routes=[way_out(sink.port)]))
            bare = None if snapshot else await closing.enter_async_context(program("bare_smtp"))
            await stack.start_api()
            await backlog(stack, count)
            if snapshot:
                forgotten = await closing.enter_async_context(stack.database())
                await forgotten.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
                await forgotten.fetchval("SELECT count(*) FROM lanes")
            drained = await _drain(stack, sink, bare, count=count)
    if not snapshot:
        _tell_rate(table, drained, count=count, noise=str(noise))
    first, last = drained.claims[1], drained.claims[-1]
    crawled = len(drained.rates) < _TENTHS
    most = 1.5 if snapshot else 1.2
    table.add(
        Figure(
            name=f"backlog of {count:,}: the claim, last tenth to first"
            + (", with an old snapshot open" if snapshot else ""),
            goal=f"≤ {most:g} ×",
            reached=f"{last / first:.2f} × ({ms(first)} → {ms(last)})",
            met=last <= most * first and not crawled,
            beside=f"ms for a claim of ten, each tenth: {', '.join(f'{each * 1000:.1f}' for each in drained.claims)};"
            f" messages a second: {', '.join(f'{rate:.0f}' for rate in drained.rates)}"
            + (f"; given up, a tenth took more than {_TENTH_LIMIT:.0f} s" if crawled else ""),
            noise=str(noise),
        )
    )


def _tell_rate(table: Table, drained: Drained, *, count: int, noise: str) -> None:
    ratio = median([ours / bare for ours, bare in zip(drained.rates, drained.bare, strict=True)])
    middle = sorted(drained.cpu, key=lambda each: each["all"])[len(drained.cpu) // 2]
    table.add(
        Figure(
            name=f"draining a backlog of {count:,}, one worker",
            goal="≥ 1.0 × a bare aiosmtplib loop",
            reached=f"{median(drained.rates):.0f}/s = {ratio:.2f} × bare",
            met=ratio >= 1.0,
            beside=f"bare {median(drained.bare):.0f}/s, {median(drained.bare_cpu) * 1000:.2f} CPU-s per 1,000;"
            f" {per_thousand(middle, 1)}; each tenth: {', '.join(f'{rate:.0f}' for rate in drained.rates)}",
            noise=noise,
        )
    )
    assert len(drained.rates) == _TENTHS, f"a tenth took more than {_TENTH_LIMIT:.0f} s"
    growth = drained.memory[-1] - drained.memory[0]
    table.add(
        Figure(
            name=f"draining a backlog of {count:,}: the worker's memory",
            goal="flat",
            reached=f"{drained.memory[0]:.0f} → {drained.memory[-1]:.0f} MB",
            met=growth <= 5,
            beside=f"flat is: grows by 5 MB at most; each tenth: {', '.join(f'{each:.0f}' for each in drained.memory)}",
            noise=noise,
        )
    )
