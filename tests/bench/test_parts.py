"""The parts of the benchmark work: that it can be run at all is part of what is tested, its figures are not."""

from tests.bench.machine import cpu_seconds, memory
from tests.bench.programs import program


async def test_the_loader_counts_each_answer_once() -> None:
    """The loader sends what was prepared, over several connections, and knows how each was answered."""
    async with program("bare_http") as server, program("loader") as loader:
        await loader.ask(op="prepare", token="t", run="r", count=50)

        load = await loader.ask(op="load", port=server.ready["port"], clients=4)

        assert load["by_status"] == {"202": 50}
        assert len(load["latencies"]) == 50
        assert memory(server.pid).rss > 10
        assert cpu_seconds(server.pid) > 0


async def test_the_sink_knows_each_recipient() -> None:
    """The sink counts what the bare loop sends, and keeps the moment of each recipient's 250."""
    async with program("sink") as sink, program("bare_smtp") as bare:
        await sink.ask(op="record")

        await bare.ask(port=sink.ready["port"], count=20, connections=3, label="r")

        assert await sink.ask(op="count") == 20
        assert {f"r.{number}@example.com" for number in range(20)} == {
            recipient for recipient, _ in await sink.ask(op="times")
        }
