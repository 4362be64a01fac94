"""What the benchmark's own parts cost: they share the cores with what is measured.

The loader's cost stands in the rows of acceptance. Here are our sink and Postfix's, fed by the bare loop in turns.
"""

from pathlib import Path

import pytest

from tests.bench.figures import ROUNDS, Figure, Table, median, scaled
from tests.bench.machine import cpu_seconds, watching
from tests.bench.postfix import smtp_sink
from tests.bench.programs import program

pytestmark = [pytest.mark.bench, pytest.mark.timeout(300)]


async def test_sinks(table: Table, tmp_path: Path) -> None:
    """Our sink beside smtp-sink."""
    count = scaled(20_000, least=2000)
    tmp_path.chmod(0o755)
    costs: dict[int, list[float]] = {}
    with smtp_sink(tmp_path) as theirs, watching() as noise:
        async with program("sink") as ours, program("bare_smtp") as bare:
            sides = ((ours.pid, ours.ready["port"]), (theirs.pid, theirs.port))
            for _ in range(ROUNDS):
                for pid, port in sides:
                    before = cpu_seconds(pid)
                    await bare.ask(port=port, count=count, connections=10, label="r")
                    costs.setdefault(pid, []).append((cpu_seconds(pid) - before) / count)
            mine, other = (median(costs[pid]) * 1e6 for pid, _ in sides)
    table.add(
        Figure(
            name="the benchmark's sink, CPU a message",
            goal="–",
            reached=f"{mine:.0f} µs",
            met=None,
            beside=f"smtp-sink {other:.0f} µs, both fed by a bare aiosmtplib loop over 10 connections",
            noise=str(noise),
        )
    )
