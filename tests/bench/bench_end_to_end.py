"""From the POST to the 250 and its transcript in the ledger, with Postfix beside it.

Ours: 32 clients in closed loops, each message with a Bearer key and an Idempotency-Key → one API → the
ledger → one worker → smtp-sink. Postfix: smtp-source with 32 kept sessions → Postfix → the same smtp-sink. They
take turns; the other one is idle meanwhile. A rate is messages by the time from the first request to the
moment at which the sink has them all; afterwards the ledger must know of each that it was sent.
"""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.bench.figures import ROUNDS, Figure, Table, median, ms, scaled
from tests.bench.machine import cpu_seconds, watching
from tests.bench.postfix import Postfix, SmtpSink, postfix, smtp_sink, smtp_source
from tests.bench.programs import Program, program
from tests.bench.stack import Stack, a_stack, per_thousand, used, way_out

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1200)]

_CLIENTS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One run of one side."""

    accepted: float  # messages a second
    delivered: float
    cpu: dict[str, float]
    median: float = 0.0  # of a request, in seconds


async def reached(sink: SmtpSink, count: int, *, within: float = 300.0) -> float:
    """Wait until the sink has so many; return the moment."""
    deadline = time.monotonic() + within
    while sink.count() < count:
        assert time.monotonic() < deadline, f"the sink has {sink.count()} of {count}"
        await asyncio.sleep(0.02)
    return time.monotonic()


async def ours(
    stack: Stack, loader: Program, sink: SmtpSink, *, token: str, run: str, count: int, batch: int = 1,
    clients: int = _CLIENTS,
) -> Round:  # fmt: skip
    """Send `count` messages through the service."""
    path = "/messages" if batch == 1 else "/messages/batch"
    await loader.ask(op="prepare", token=token, run=run, count=count // batch, batch=batch, path=path)
    had, sent = sink.count(), await stack.count("status = 'sent'")
    before = stack.cpu()
    load = await loader.ask(op="load", port=stack.port, clients=clients)
    end = await reached(sink, had + count)
    await stack.settled()
    cpu = used(before, stack.cpu())
    assert load["by_status"] == {"202": count // batch}, load["by_status"]
    assert await stack.count("status = 'sent'") == sent + count
    return Round(
        accepted=count / load["seconds"],
        delivered=count / (end - load["began"]),
        cpu=cpu,
        median=median(load["latencies"]),
    )


async def theirs(mta: Postfix, sink: SmtpSink, *, count: int) -> Round:
    """Send `count` messages through Postfix."""
    had, before, began = sink.count(), cpu_seconds(mta.pid), time.monotonic()
    await smtp_source(mta.port, count=count, sessions=_CLIENTS)
    accepted = time.monotonic() - began
    end = await reached(sink, had + count)
    await asyncio.sleep(0.2)  # the queue files of the last ones
    return Round(
        accepted=count / accepted,
        delivered=count / (end - began),
        cpu={"all": cpu_seconds(mta.pid) - before},
    )


async def test_single(table: Table, tmp_path: Path) -> None:
    """Single POSTs of 32 clients, Postfix in turns with them."""
    count = scaled(5000, least=500)
    tmp_path.chmod(0o755)
    with smtp_sink(tmp_path) as sink, postfix(relay_to=sink.port) as mta, watching() as noise:
        async with a_stack(routes=[way_out(sink.port)]) as stack, program("loader") as loader:
            await stack.start_api()
            await stack.start_worker()
            token = await stack.key()
            await ours(stack, loader, sink, token=token, run="warm", count=300)
            await theirs(mta, sink, count=300)
            us, them = [], []
            for number in range(ROUNDS):
                us.append(await ours(stack, loader, sink, token=token, run=f"r{number}", count=count))
                them.append(await theirs(mta, sink, count=count))
    rate, their_rate = (median([each.delivered for each in side]) for side in (us, them))
    cpu, their_cpu = (median([each.cpu["all"] for each in side]) / count for side in (us, them))
    middle = sorted(us, key=lambda each: each.cpu["all"])[len(us) // 2]
    table.add(
        Figure(
            name="end to end, single POSTs, 32 clients",
            goal="≥ 2 × Postfix",
            reached=f"{rate:.0f}/s = {rate / their_rate:.2f} × Postfix",
            met=rate >= 2 * their_rate,
            beside=f"Postfix delivered {their_rate:.0f}/s, accepted {median([each.accepted for each in them]):.0f}/s;"
            f" we accepted {median([each.accepted for each in us]):.0f}/s, median {ms(median([each.median for each in us]))}",
            noise=str(noise),
        )
    )
    table.add(
        Figure(
            name="end to end, CPU per message",
            goal="≤ 0.6 × Postfix",
            reached=f"{cpu * 1000:.2f} ms = {cpu / their_cpu:.2f} × Postfix",
            met=cpu <= 0.6 * their_cpu,
            beside=f"Postfix {their_cpu * 1000:.2f} ms; ours: {per_thousand(middle.cpu, count)}",
            noise=str(noise),
        )
    )


async def test_batches(table: Table, tmp_path: Path) -> None:
    """Batches of 100 end to end, in turns with single POSTs."""
    count = scaled(10_000, least=1000) // 100 * 100
    tmp_path.chmod(0o755)
    with smtp_sink(tmp_path) as sink, watching() as noise:
        async with a_stack(routes=[way_out(sink.port)]) as stack, program("loader") as loader:
            await stack.start_api()
            await stack.start_worker()
            token = await stack.key()
            await ours(stack, loader, sink, token=token, run="warm", count=300)
            single, batches = [], []
            for number in range(ROUNDS):
                single.append(
                    await ours(stack, loader, sink, token=token, run=f"s{number}", count=count // 2)
                )
                batches.append(
                    await ours(
                        stack, loader, sink, token=token, run=f"b{number}", count=count, batch=100, clients=1
                    )
                )
    rate, alone = (median([each.delivered for each in side]) for side in (batches, single))
    middle = sorted(batches, key=lambda each: each.cpu["all"])[len(batches) // 2]
    table.add(
        Figure(
            name="end to end, batches of 100, one client",
            goal="≥ 2,500/s and ≥ 2 × single",
            reached=f"{rate:.0f}/s = {rate / alone:.2f} × single",
            met=rate >= 2500 and rate >= 2 * alone,
            beside=f"single {alone:.0f}/s; {per_thousand(middle.cpu, count)}",
            noise=str(noise),
        )
    )
