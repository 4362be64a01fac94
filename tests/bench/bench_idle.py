"""One message at a time, with nothing else to do: from the POST to the peer's 250, with Postfix in turns.

Ours: one kept HTTP client, a message every 50 ms, a worker whose lane is open. Each round starts the worker
anew and sends its first message at once; that one counts like all others. Postfix: one kept SMTP session with
MAIL, RCPT and DATA in one segment, the same pace, relaying to the same peer. Both are measured from the first
octet of the request to the moment at which the peer answers 250.

Then the worker is left alone for half a minute: what it uses of a core.
"""

import asyncio
import time

import pytest

from tests.bench.figures import ROUNDS, Figure, Table, median, ms, percentile, scaled
from tests.bench.machine import cpu_seconds, watching
from tests.bench.postfix import Postfix, postfix
from tests.bench.programs import Program, program
from tests.bench.stack import Stack, a_stack, way_out
from tests.waiting import eventually

pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]

_PAUSE = 0.05
_ALONE = 30.0  # seconds

Times = list[tuple[str, float, float]]


async def until_the_end(sink: Program, sent: Times) -> list[float]:
    """Return for each message the seconds from its request to the peer's 250."""

    async def all_there() -> dict[str, float] | None:
        there: dict[str, float] = dict(await sink.ask(op="times"))
        return there if there.keys() >= {recipient for recipient, _, _ in sent} else None

    arrived = await eventually(all_there, within=60.0)
    return [arrived[recipient] - began for recipient, began, _ in sent]


async def _ours(
    stack: Stack, loader: Program, sink: Program, *, token: str, run: str, count: int
) -> tuple[list[float], list[float]]:
    """Start a worker, send, end it; return the seconds to the 250 and to the 202 of each message."""
    await sink.ask(op="record")
    await loader.ask(op="prepare", token=token, run=run, count=count)
    worker = await stack.start_worker()
    sent: Times = await loader.ask(op="paced", port=stack.port, pause=_PAUSE)
    arrived = await until_the_end(sink, sent)
    await stack.stop(worker)
    return arrived, [accepted - began for _, began, accepted in sent]


async def _theirs(mta: Postfix, loader: Program, sink: Program, *, run: str, count: int) -> list[float]:
    await sink.ask(op="record")
    sent: Times = await loader.ask(op="postfix", port=mta.port, run=run, count=count, pause=_PAUSE)
    return await until_the_end(sink, sent)


async def test_latency(table: Table) -> None:
    """A message at idle, and an idle worker."""
    count = scaled(100, least=30)
    with watching() as noise:
        async with program("sink") as sink, program("loader") as loader:
            with postfix(relay_to=sink.ready["port"]) as mta:
                async with a_stack(routes=[way_out(sink.ready["port"])]) as stack:
                    await stack.start_api()
                    token = await stack.key()
                    us, accepted, them = [], [], []
                    for number in range(ROUNDS):
                        to_peer, to_us = await _ours(
                            stack, loader, sink, token=token, run=f"r{number}", count=count
                        )
                        us.append(to_peer)
                        accepted += to_us
                        them.append(await _theirs(mta, loader, sink, run=f"p{number}", count=count))
                    used, span = await _alone(stack)
    _tell(table, us, accepted, them, noise=str(noise))
    table.add(
        Figure(
            name="an idle worker",
            goal="≤ 0.5 % of a core",
            reached=f"{used / span:.2%}",
            met=used <= 0.005 * span,
            beside=f"over {span:.0f} s, 30 s after its start",
            noise=str(noise),
        )
    )


async def _alone(stack: Stack) -> tuple[float, float]:
    """Return the CPU seconds of a worker that has nothing to do, and how long that was looked at."""
    worker = await stack.start_worker()
    await asyncio.sleep(_ALONE)
    used, began = cpu_seconds(worker.pid), time.monotonic()
    await asyncio.sleep(_ALONE)
    return cpu_seconds(worker.pid) - used, time.monotonic() - began


def _tell(
    table: Table, rounds: list[list[float]], accepted: list[float], peers: list[list[float]], *, noise: str
) -> None:
    us, them = sum(rounds, []), sum(peers, [])  # noqa: RUF017  (three short lists)
    table.add(
        Figure(
            name="idle, POST to 250, median",
            goal="≤ 2 × Postfix",
            reached=f"{ms(median(us))} = {median(us) / median(them):.2f} × Postfix",
            met=median(us) <= 2 * median(them),
            beside=f"Postfix {ms(median(them))}, p99 {ms(percentile(them, 0.99))}; the 202 after {ms(median(accepted))}",
            noise=noise,
        )
    )
    firsts = ", ".join(ms(each[0]) for each in rounds)
    table.add(
        Figure(
            name="idle, POST to 250, p99",
            goal="≤ 50 ms, first messages after a start included",
            reached=f"{ms(percentile(us, 0.99))}; the slowest {ms(max(us))}",
            met=percentile(us, 0.99) <= 0.05 and max(each[0] for each in rounds) <= 0.05,
            beside=f"first messages after a start: {firsts}",
            noise=noise,
        )
    )
