"""A peer that takes nothing: what it costs the processes that wait for it."""

import asyncio
import base64
import os
from pathlib import Path

from tests.house import configuration, processes, smarthost
from tests.peer import ScriptedPeer
from tests.waiting import eventually

#: Messages, and the octets of each one's file. Together they are far more than what may be in memory.
MESSAGES, OCTETS = 60, 2_000_000

CONNECTIONS = 5


def resident(pid: int) -> int:
    """Return the resident memory of a process, in octets."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


async def test_memory_stays_bounded_while_a_peer_stalls(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """120 MB wait for a peer that stands still: neither the API nor the worker holds more than is in hand."""
    content = base64.b64encode(os.urandom(OCTETS)).decode()
    going_on = asyncio.Event()
    async with ScriptedPeer() as peer:
        peer.on("dot", until=going_on)
        route = smarthost(peer, limits={"connections": CONNECTIONS})
        with processes(tmp_path, configuration(database_url, redis_url, routes=[route])) as house:
            api, worker = house.start_api(), house.start_worker()
            async with house.door() as door:
                first = await door.submit(attachments=[{"filename": "f", "content": content}])
                await door.in_state(first, "sending")
                before = {child.pid: resident(child.pid) for child in (api, worker)}

                ids = [
                    await door.submit(attachments=[{"filename": "f", "content": content}])
                    for _ in range(MESSAGES - 1)
                ]

                async def in_hand() -> bool:
                    found = await door.get("/messages?status=sending&limit=100")
                    return len(found["data"]) == CONNECTIONS

                await eventually(in_hand)
                grown = {child.pid: resident(child.pid) - before[child.pid] for child in (api, worker)}

                # A message in hand is there as octets, and once more as what goes out.
                assert grown[worker.pid] < CONNECTIONS * OCTETS * 6, grown
                assert grown[api.pid] < 30 * OCTETS, grown
                going_on.set()
                await door.in_state(ids[-1], "sent", within=60.0)
