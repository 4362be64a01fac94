"""Resident memory, at idle and with messages of 25 MB on every connection.

Idle is after a thousand messages and half a minute of rest, when whatever is cached is cached. With large
messages the highest resident size is told; what bounds it is, in the API, `api.bodies_in_flight`, and in the worker
so many connections as the lane has.
"""

import asyncio
import base64

import pytest

from tests.bench.figures import Figure, Table, scaled
from tests.bench.machine import memory, watching
from tests.bench.programs import program
from tests.bench.stack import a_stack, way_out

pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]

_LARGE = 18_000_000  # octets of the attachment: 25 MB as a message
_AT_ONCE = 10  # connections of a lane without limits, and clients


async def test_memory(table: Table) -> None:
    """At idle, then with 25 MB messages."""
    large = scaled(30, least=_AT_ONCE)
    with watching() as noise:
        async with program("sink") as sink, program("loader") as loader:
            async with a_stack(routes=[way_out(sink.ready["port"])]) as stack:
                await stack.start_api()
                worker = await stack.start_worker()
                api = stack.api
                assert api is not None
                token = await stack.key()
                fresh = memory(worker.pid), memory(api.pid)
                await loader.ask(op="prepare", token=token, run="small", count=scaled(1000, least=200))
                await loader.ask(op="load", port=stack.port, clients=8)
                await stack.settled()
                await asyncio.sleep(30 if large > _AT_ONCE else 5)
                idle = memory(worker.pid), memory(api.pid)
                content = base64.b64encode(bytes(_LARGE)).decode()
                # Rendered once and sent by all: its octets are the same, and it has no idempotency key.
                await loader.ask(
                    op="prepare", token=token, run="large", count=1, repeat=large, key=False,
                    attachments=[{"filename": "a.bin", "content": content}],
                )  # fmt: skip
                load = await loader.ask(op="load", port=stack.port, clients=_AT_ONCE)
                await stack.settled(within=300)
                busy = memory(worker.pid), memory(api.pid)
                await asyncio.sleep(10)
                after = memory(worker.pid), memory(api.pid)
                seen = await sink.ask(op="figures")
    for place, (name, most) in enumerate((("worker", 80), ("API", 120))):
        table.add(
            Figure(
                name=f"resident memory at idle, {name}",
                goal=f"≤ {most} MB",
                reached=f"{idle[place].rss:.0f} MB",
                met=idle[place].rss <= most,
                beside=f"private {idle[place].private:.0f} MB; {fresh[place].rss:.0f} MB at its start",
                noise=str(noise),
            )
        )
    table.add(
        Figure(
            name="resident memory, 25 MB messages at full concurrency",
            goal="bounded and said",
            reached=f"worker {busy[0].peak:.0f} MB, API {busy[1].peak:.0f} MB at the highest",
            met=None,
            beside=f"{large} messages of 25 MB from {_AT_ONCE} clients over {seen['most_open']} connections, answers {load['by_status']};"
            f" 10 s later worker {after[0].rss:.0f} MB, API {after[1].rss:.0f} MB",
            noise=str(noise),
        )
    )
