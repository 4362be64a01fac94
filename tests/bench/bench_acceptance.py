"""What a 202 costs, with a bare FastAPI POST of the same fields beside it.

Only the API runs, no worker: the figure is the door's and the ledger's. Each server is idle while the other
one is measured. Beside them stands the bare POST with one durable row: what the promise alone costs.
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
    cpu: dict[str, float]  # the other side's, seconds


async def _load(
    loader: Program,
    on: Stack | Program,
    *,
    clients: int,
    count: int,
    batch: int = 1,
    path: str = "/messages",
    **prepared: Any,
) -> Load:
    """Load the service, or the bare server."""
    port = on.port if isinstance(on, Stack) else on.ready["port"]
    await loader.ask(op="prepare", count=count, batch=batch, path=path, **prepared)
    before = _cpu(on)
    load = await loader.ask(op="load", port=port, clients=clients)
    assert load["by_status"] == {"202": count}, load["by_status"]
    return Load(
        median=median(load["latencies"]),
        p99=percentile(load["latencies"], 0.99),
        rate=count * batch / load["seconds"],
        own_cpu=load["cpu"] / count,
        cpu=used(before, _cpu(on)),
    )


def _cpu(side: Stack | Program) -> dict[str, float]:
    return side.cpu() if isinstance(side, Stack) else {"server": cpu_seconds(side.pid)}


def _middle(loads: list[Load]) -> Load:
    return sorted(loads, key=lambda load: load.median)[len(loads) // 2]


@pytest.mark.parametrize(("clients", "most"), [(1, 4.0), (16, 2.0)])
async def test_single(table: Table, clients: int, most: float) -> None:
    """Single POSTs against the bare endpoint, in turns."""
    count = scaled(1500 if clients == 1 else 4000, least=200)
    loads: dict[str, list[Load]] = {"ours": [], "bare": [], "durable": []}
    with watching() as noise:
        async with a_stack(routes=[way_out(_NOWHERE)]) as stack, program("loader") as loader:
            beside = stack.postgres.create_database("beside")
            async with program("bare_http", "--database", beside) as bare:
                await stack.start_api()
                token = await stack.key()
                for number in range(ROUNDS + 1):  # the first round is for warmth
                    for name, on, path in (
                        ("ours", stack, "/messages"),
                        ("bare", bare, "/messages"),
                        ("durable", bare, "/durable"),
                    ):
                        some = count if number else 200
                        loads[name].append(
                            await _load(
                                loader, on, clients=clients, count=some, path=path, token=token, run=f"r{number}"
                            )
                        )  # fmt: skip
    ours, theirs, durable = (_middle(each[1:]) for each in loads.values())
    ratio = ours.median / theirs.median
    table.add(
        Figure(
            name=f"acceptance, {clients} client{'s' if clients > 1 else ''}",
            goal=f"median ≤ {most:g} × bare FastAPI",
            reached=f"{ms(ours.median)} = {ratio:.2f} × bare",
            met=ratio <= most,
            beside=f"bare {ms(theirs.median)}, p99 {ms(theirs.p99)}, {theirs.rate:.0f}/s, {theirs.cpu['all'] / count * 1e6:.0f} µs;"
            f" bare with one durable row {ms(durable.median)}, p99 {ms(durable.p99)};"
            f" ours p99 {ms(ours.p99)}, {ours.rate:.0f}/s, {per_thousand(ours.cpu, count)};"
            f" loader {ours.own_cpu * 1e6:.0f} µs a request",
            noise=str(noise),
        )
    )


async def test_batches(table: Table) -> None:
    """Batches of 100 of one client, in turns with its single POSTs."""
    singles, batches = scaled(1500, least=200), scaled(100, least=10)
    alone: list[Load] = []
    together: list[Load] = []
    with watching() as noise:
        async with a_stack(routes=[way_out(_NOWHERE)]) as stack, program("loader") as loader:
            await stack.start_api()
            token = await stack.key()
            for number in range(ROUNDS + 1):
                alone.append(
                    await _load(loader, stack, clients=1, count=singles, token=token, run=f"s{number}")
                )
                together.append(
                    await _load(
                        loader, stack, clients=1, count=batches, batch=100, token=token, run=f"b{number}",
                        path="/messages/batch",
                    )
                )  # fmt: skip
    single, batch = _middle(alone[1:]), _middle(together[1:])
    table.add(
        Figure(
            name="acceptance, batches of 100, one client",
            goal="≥ 6,000/s and ≥ 5 × single",
            reached=f"{batch.rate:.0f}/s = {batch.rate / single.rate:.1f} × single",
            met=batch.rate >= 6000 and batch.rate >= 5 * single.rate,
            beside=f"single {single.rate:.0f}/s; a batch takes {ms(batch.median)}; {per_thousand(batch.cpu, batches * 100)}",
            noise=str(noise),
        )
    )
