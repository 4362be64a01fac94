"""What a dead worker had in hand resumes soon, however slow the peers are: kill -9 at peers that stand still."""

import asyncio
from pathlib import Path

from tests.house import Door, configuration, copies, processes, smarthost
from tests.peer import ScriptedPeer
from tests.waiting import eventually

SEVERAL = 6


async def submit_several(door: Door, *, name: str) -> dict[str, str]:
    """Send messages over the route of this name; return id by recipient."""
    return {
        f"{name}{n}@example.com": await door.submit(to=f"{name}{n}@example.com", route=name)
        for n in range(SEVERAL)
    }


def under_way(peer: ScriptedPeer) -> int:
    return sum(transaction.ended is None and bool(transaction.rcpts) for transaction in peer.transactions)


async def test_suspects_do_not_wait_for_each_others_end(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """Six at a peer that does not answer, and the worker dies: the next one brings all six there again."""
    async with ScriptedPeer() as peer:
        first, second = asyncio.Event(), asyncio.Event()
        peer.on("dot", until=second, when=lambda _: True)
        peer.on("data", until=first, times=SEVERAL)
        route = smarthost(peer, limits={"connections": SEVERAL})
        with processes(tmp_path, configuration(database_url, redis_url, routes=[route])) as house:
            house.start_api()
            worker = house.start_worker()
            async with house.door() as door:
                sent = await submit_several(door, name="peer")
                await eventually(lambda: under_way(peer) == SEVERAL, within=30.0)
                worker.kill()
                worker.wait()
                first.set()
                await eventually(lambda: under_way(peer) == 0)
                house.start_worker()

                def dots() -> bool:
                    return sum(each.dot for each in peer.transactions if each.ended is None) == SEVERAL

                await eventually(dots, within=60.0)
                second.set()
                for recipient, message_id in sent.items():
                    await door.in_state(message_id, "sent", within=60.0)
                    assert copies(peer, recipient) == 1
                    assert [a["outcome"] for a in await door.attempts(message_id)] == ["deferred", "sent"]


async def test_suspects_of_a_stalled_lane_keep_no_other_lane(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """What was in hand on two lanes resumes on the one whose peer answers, while the other's still does not."""
    async with ScriptedPeer() as stalled, ScriptedPeer() as well:
        never, first = asyncio.Event(), asyncio.Event()
        stalled.on("mail", until=never)
        well.on("data", until=first, times=SEVERAL)
        routes = [
            smarthost(peer, name=name, limits={"connections": SEVERAL})
            for name, peer in (("stalled", stalled), ("well", well))
        ]
        with processes(tmp_path, configuration(database_url, redis_url, routes=routes)) as house:
            house.start_api()
            worker = house.start_worker()
            async with house.door() as door:
                await submit_several(door, name="stalled")
                await eventually(lambda: len(stalled.transactions) == SEVERAL, within=30.0)
                sent = await submit_several(door, name="well")
                await eventually(lambda: under_way(well) == SEVERAL, within=30.0)
                worker.kill()
                worker.wait()
                first.set()
                house.start_worker()
                for recipient, message_id in sent.items():
                    await door.in_state(message_id, "sent", within=60.0)
                    assert copies(well, recipient) == 1
                never.set()
