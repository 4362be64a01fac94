"""What a dead worker had in hand resumes soon, however slow the peers are: kill -9 at peers that stand still."""

import asyncio
from pathlib import Path

import asyncpg

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


async def test_suspects_do_not_wait_for_the_end_of_a_backlog(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """What was in hand goes before a backlog that came behind it, also where sessions never come to rest."""
    async with ScriptedPeer() as peer:
        first = asyncio.Event()
        peer.on("data", until=first, times=2)
        route = smarthost(peer, limits={"connections": 2})
        with processes(tmp_path, configuration(database_url, redis_url, routes=[route])) as house:
            house.start_api()
            worker = house.start_worker()
            async with house.door() as door:
                in_hand = [await door.submit(to=f"first{n}@example.com") for n in range(2)]
                await eventually(lambda: under_way(peer) == 2, within=30.0)
                worker.kill()
                worker.wait()
                first.set()
                await eventually(lambda: under_way(peer) == 0)
                many = [
                    {"from": "noreply@contoso.com", "to": [f"b{n}@example.com"], "text": "x"}
                    for n in range(400)
                ]
                answer = await door.client.post("/messages/batch", json=many)
                assert answer.status_code == 202, answer.text
                last = answer.json()["data"][-1]["id"]
                await lapsed(database_url)
                house.start_worker()
                await door.in_state(last, "sent", within=60.0)
                for message_id in in_hand:
                    await door.in_state(message_id, "sent")

        places = [place for place, taken in enumerate(peer.taken) if taken.rcpts[0].startswith("first")]
        assert len(places) == 2
        assert max(places) < 200


async def lapsed(database_url: str) -> None:
    """Wait until the leases of the worker that was killed are over."""
    connection = await asyncpg.connect(database_url)
    open_leases = "SELECT count(*) FROM attempts WHERE lease_until > clock_timestamp()"

    async def over() -> bool:
        return bool(await connection.fetchval(open_leases) == 0)

    await eventually(over, within=30.0)
    await connection.close()
