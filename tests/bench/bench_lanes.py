"""Several workers and many lanes: nothing gets slower by there being more of them.

- A backlog on one lane, drained by one worker and by two; and spread over eight lanes, drained by one.
- 300 lanes with a message now and then each, besides one whose peer takes two seconds for every answer and which
  has a backlog of its own: no other lane may wait for it. One lane alone comes first, for comparison.
"""

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.bench.bench_drain import LANE, backlog
from tests.bench.bench_end_to_end import reached
from tests.bench.bench_idle import Times, until_the_end
from tests.bench.figures import ROUNDS, Figure, Table, median, ms, percentile, scaled
from tests.bench.machine import watching
from tests.bench.postfix import SmtpSink, smtp_sink
from tests.bench.programs import program
from tests.bench.stack import Stack, a_stack, way_out

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1200)]

_EIGHT = [f"lane{number}" for number in range(8)]
_MANY = 300


async def _rate(
    stack: Stack, sink: SmtpSink, *, token: str, run: str, count: int, routes: Sequence[str], workers: int
) -> float:
    """Let so many workers drain a backlog that is spread over the routes; return messages a second."""
    running = [await stack.start_worker() for _ in range(workers)]
    for worker in running:
        os.kill(worker.pid, signal.SIGSTOP)  # they are up, and all begin at once
    each = count // len(routes)
    await backlog(stack, each, run=run, routes=routes, token=token)
    had, began = sink.count(), time.monotonic()
    for worker in running:
        os.kill(worker.pid, signal.SIGCONT)
    end = await reached(sink, had + each * len(routes))
    await stack.settled()
    assert sink.count() == had + each * len(routes)
    for worker in running:
        await stack.stop(worker)
    return each * len(routes) / (end - began)


async def test_workers_and_lanes(table: Table, tmp_path: Path) -> None:
    """One worker and two on one lane, and one on eight lanes."""
    count = scaled(10_000, least=1600)
    tmp_path.chmod(0o755)
    one: list[float] = []
    two: list[float] = []
    eight: list[float] = []
    with smtp_sink(tmp_path) as sink, watching() as noise:
        routes = [way_out(sink.port, name=name) for name in (LANE, *_EIGHT)]
        async with a_stack(routes=routes) as stack:
            await stack.start_api()
            token = await stack.key()
            for number in range(ROUNDS):
                for rates, kind, names, workers in (
                    (one, "one", [LANE], 1),
                    (two, "two", [LANE], 2),
                    (eight, "eight", _EIGHT, 1),
                ):
                    rates.append(
                        await _rate(
                            stack, sink, token=token, run=f"{kind}{number}", count=count, routes=names, workers=workers
                        )
                    )  # fmt: skip
    for name, rates in (("two workers on one lane", two), ("eight lanes, one worker", eight)):
        table.add(
            Figure(
                name=name,
                goal="no figure falls",
                reached=f"{median(rates):.0f}/s = {median(rates) / median(one):.2f} × one lane, one worker",
                met=median(rates) >= 0.95 * median(one),
                beside=f"one lane, one worker: {median(one):.0f}/s; met from 0.95 on, which is noise",
                noise=str(noise),
            )
        )


async def test_trickle(table: Table) -> None:
    """300 lanes with a message now and then, and one that is stuck."""
    count = scaled(900, least=_MANY)
    lanes = [f"lane{number}" for number in range(_MANY)]
    with watching() as noise:
        async with program("sink") as sink, program("sink", "--delay", "2000") as slow:
            async with program("loader") as loader:
                routes = [way_out(sink.ready["port"], name=name) for name in lanes]
                stuck = way_out(slow.ready["port"], name="stuck")
                async with a_stack(routes=[*routes, stuck]) as stack:
                    await stack.start_api()
                    await stack.start_worker()
                    token = await stack.key()
                    figures = []
                    for run, names in (
                        ("warm", lanes[:1]),
                        ("one", lanes[:1]),
                        ("opening", lanes),
                        ("many", lanes),
                    ):
                        if run == "many":
                            await loader.ask(
                                op="prepare", token=token, run="stuck", count=1, batch=200, path="/messages/batch", route="stuck"
                            )  # fmt: skip
                            await loader.ask(op="load", port=stack.port, clients=1)
                        await sink.ask(op="record")
                        some = count if run in {"one", "many"} else len(names)
                        await loader.ask(op="prepare", token=token, run=run, count=some, routes=names)
                        sent: Times = await loader.ask(op="paced", port=stack.port, pause=0.015)
                        figures.append(await until_the_end(sink, sent))
                    took = await slow.ask(op="count")
    _, one, opening, many = figures
    assert took < 200, "the stuck lane was not stuck"
    table.add(
        Figure(
            name=f"{_MANY} lanes with a trickle each, besides one that is stuck",
            goal="no lane waits for another",
            reached=f"POST to 250: median {ms(median(many))}, p99 {ms(percentile(many, 0.99))}, the slowest {ms(max(many))}",
            met=median(many) <= 2 * median(one) and max(many) < 2.0,
            beside=f"one lane: median {ms(median(one))}, p99 {ms(percentile(one, 0.99))}; first messages, which open the"
            f" session: {ms(median(opening))}; the stuck lane's peer takes 2 s for each answer; met: median ≤ 2 × one lane's,"
            " nobody waits as long as the stuck lane",
            noise=str(noise),
        )
    )
