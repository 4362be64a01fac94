"""What a 202 costs, with a bare FastAPI POST of the same fields beside it.

Only the API runs, no worker: the figure is the door's and the ledger's. Each server is idle while the other
one is measured.
"""

from dataclasses import dataclass
from typing import Any

import pytest

from tests.bench.figures import ROUNDS, Figure, Table, median, ms, percentile, scaled
from tests.bench.machine import cpu_seconds, watching
from tests.bench.programs import Program, program
from tests.bench.stack import Stack, a_stack, per_thousand, used, way_out

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1200)]

_NOWHERE = 9  # nothing is sent here


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One run of the loader."""

    median: float  # seconds
    p99: float
    rate: float  # messages a second
    own_cpu: float  # the loader's, seconds a request


async def _load(
    loader: Program, *, port: int, clients: int, count: int, batch: int = 1, **prepared: Any
) -> Load:
    await loader.ask(op="prepare", count=count, batch=batch, **prepared)
    load = await loader.ask(op="load", port=port, clients=clients)
    assert load["by_status"] == {"202": count}, load["by_status"]
    return Load(
        median=median(load["latencies"]),
        p99=percentile(load["latencies"], 0.99),
        rate=count * batch / load["seconds"],
        own_cpu=load["cpu"] / count,
    )


def _middle(loads: list[Load]) -> Load:
    return sorted(loads, key=lambda load: load.median)[len(loads) // 2]


@pytest.mark.parametrize(("clients", "most"), [(1, 4.0), (16, 2.0)])
async def test_single(table: Table, clients: int, most: float) -> None:
    """Single POSTs against the bare endpoint, in turns."""
    count = scaled(1500 if clients == 1 else 4000, least=200)
    with watching() as noise:
        async with a_stack(routes=[way_out(_NOWHERE)]) as stack, program("bare_http") as bare:
            async with program("loader") as loader:
                await stack.start_api()
                token = await stack.key()
                us, them = [], []
                ports = {"us": stack.port, "them": bare.ready["port"]}
                for side in ports.values():
                    await _load(loader, port=side, clients=clients, count=200, token=token, run="warm")
                cpu: list[dict[str, float]] = []
                bare_cpu = []
                for number in range(ROUNDS):
                    before = stack.cpu()
                    us.append(
                        await _load(
                            loader,
                            port=ports["us"],
                            clients=clients,
                            count=count,
                            token=token,
                            run=f"r{number}",
                        )
                    )
                    cpu.append(used(before, stack.cpu()))
                    before_bare = cpu_seconds(bare.pid)
                    them.append(
                        await _load(
                            loader,
                            port=ports["them"],
                            clients=clients,
                            count=count,
                            token=token,
                            run=f"r{number}",
                        )
                    )
                    bare_cpu.append(cpu_seconds(bare.pid) - before_bare)
    ours, theirs = _middle(us), _middle(them)
    ratio = ours.median / theirs.median
    table.add(
        Figure(
            name=f"acceptance, {clients} client{'s' if clients > 1 else ''}",
            goal=f"median ≤ {most:g} × bare FastAPI",
            reached=f"{ms(ours.median)} = {ratio:.2f} × bare",
            met=ratio <= most,
            beside=f"bare {ms(theirs.median)}, p99 {ms(theirs.p99)}, {theirs.rate:.0f}/s,"
            f" {median(bare_cpu) / count * 1e6:.0f} µs; ours p99 {ms(ours.p99)}, {ours.rate:.0f}/s,"
            f" {per_thousand(sorted(cpu, key=lambda each: each['all'])[len(cpu) // 2], count)};"
            f" loader {ours.own_cpu * 1e6:.0f} µs a request",
            noise=str(noise),
        )
    )


async def test_batches(table: Table) -> None:
    """Batches of 100 of one client, in turns with its single POSTs."""
    singles, batches = scaled(1500, least=200), scaled(100, least=10)
    with watching() as noise:
        async with a_stack(routes=[way_out(_NOWHERE)]) as stack, program("loader") as loader:
            await stack.start_api()
            token = await stack.key()
            alone, together, cpu = await _rounds(stack, loader, token, singles=singles, batches=batches)
    single, batch = _middle(alone), _middle(together)
    table.add(
        Figure(
            name="acceptance, batches of 100, one client",
            goal="≥ 6,000/s and ≥ 5 × single",
            reached=f"{batch.rate:.0f}/s = {batch.rate / single.rate:.1f} × single",
            met=batch.rate >= 6000 and batch.rate >= 5 * single.rate,
            beside=f"single {single.rate:.0f}/s; a batch takes {ms(batch.median)};"
            f" {per_thousand(sorted(cpu, key=lambda each: each['all'])[len(cpu) // 2], batches * 100)}",
            noise=str(noise),
        )
    )


async def _rounds(
    stack: Stack, loader: Program, token: str, *, singles: int, batches: int
) -> tuple[list[Load], list[Load], list[dict[str, float]]]:
    alone: list[Load] = []
    together: list[Load] = []
    cpu = []
    for number in range(ROUNDS + 1):
        alone.append(
            await _load(loader, port=stack.port, clients=1, count=singles, token=token, run=f"s{number}")
        )
        before = stack.cpu()
        together.append(
            await _load(
                loader, port=stack.port, clients=1, count=batches, batch=100, token=token, run=f"b{number}",
                path="/messages/batch",
            )
        )  # fmt: skip
        cpu.append(used(before, stack.cpu()))
    return alone[1:], together[1:], cpu[1:]  # the first round is for warmth
