"""A lane at 30 messages a minute, with a backlog: how much of the allowance is used, and never more.

Counted at the peer, by the moment of each 250. The use is that of whole cycles: from the first message to the one
that begins the cycle after the last, a message is due every two seconds. The window that must never hold
more than 30 is a rolling one of 60 s, begun at each message.
"""

import asyncio
import bisect

import pytest

from tests.bench.figures import SCALE, Figure, Table
from tests.bench.machine import watching
from tests.bench.programs import program
from tests.bench.stack import a_stack, way_out

pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]

_A_MINUTE = 30


async def test_lane_at_its_limit(table: Table) -> None:
    """Three minutes at 30 a minute."""
    cycles = 3 if SCALE >= 1 else 1
    wanted = _A_MINUTE * cycles + 1
    with watching() as noise:
        async with program("sink") as sink, program("loader") as loader:
            route = way_out(sink.ready["port"], limits={"messages_per_minute": _A_MINUTE, "connections": 3})
            async with a_stack(routes=[route]) as stack:
                await stack.start_api()
                await stack.start_worker()
                token = await stack.key()
                await sink.ask(op="record")
                await loader.ask(
                    op="prepare", token=token, run="r", count=2, batch=100, path="/messages/batch"
                )
                await loader.ask(op="load", port=stack.port, clients=1)
                for _ in range(cycles * 65 + 60):
                    if await sink.ask(op="count") >= wanted:
                        break
                    await asyncio.sleep(1)
                # The burst that has begun shall be over: it is the one that could be too early.
                await asyncio.sleep(5)
                times = sorted(at for _, at in await sink.ask(op="times"))
    assert len(times) >= wanted, f"{len(times)} messages only"
    share = 60 * cycles / (times[_A_MINUTE * cycles] - times[0])
    most = max(bisect.bisect_left(times, at + 60) - place for place, at in enumerate(times))
    table.add(
        Figure(
            name="a lane at 30 messages a minute with a backlog",
            goal="≥ 97 % used, never over it",
            reached=f"{share:.1%} used; at most {most} in any 60 s",
            met=share >= 0.97 and most <= _A_MINUTE,
            beside=f"{len(times)} messages in {cycles} cycles, counted at the peer",
            noise=str(noise),
        )
    )
