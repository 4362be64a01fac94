"""Real processes, really killed: nothing is lost, and every second copy is explained."""

import asyncio
import signal
import time
from contextlib import AbstractContextManager
from pathlib import Path

import httpx2

from service.local.servers import LocalPostgres, LocalRedis
from tests.house import Door, Processes, configuration, copies, processes, smarthost
from tests.peer import ScriptedPeer
from tests.waiting import eventually

MANY = 30


def the_house(
    folder: Path, database_url: str, redis_url: str, peer: ScriptedPeer
) -> AbstractContextManager[Processes]:
    """Give processes before this peer, on a lane with four connections."""
    given = configuration(database_url, redis_url, routes=[smarthost(peer, limits={"connections": 4})])
    return processes(folder, given)


async def submit_many(
    door: Door, count: int, *, first: int = 0, on_uncertain: str = "resend"
) -> dict[str, str]:
    """Send messages to as many recipients; return id by recipient."""
    return {
        f"user{n}@example.com": await door.submit(
            to=f"user{n}@example.com", on_uncertain=on_uncertain, idempotency_key=f"user{n}"
        )
        for n in range(first, first + count)
    }


async def assert_nothing_lost(door: Door, peer: ScriptedPeer, sent: dict[str, str]) -> None:
    """Every message ends as sent, and has no more copies than its uncertain attempts explain."""
    for recipient, message_id in sent.items():
        await door.in_state(message_id, "sent", within=60.0)
        outcomes = [attempt["outcome"] for attempt in await door.attempts(message_id)]
        assert 1 <= copies(peer, recipient) <= 1 + outcomes.count("uncertain"), (recipient, outcomes)


async def test_a_worker_killed_in_the_middle(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """Kill -9 of the worker before and after the dot: another one goes on, and the ledger tells which it was."""
    async with ScriptedPeer() as peer:
        before, after = asyncio.Event(), asyncio.Event()
        peer.on("data", until=before, when=lambda _: True, times=2)
        peer.on("dot", until=after, times=2)
        with the_house(tmp_path, database_url, redis_url, peer) as house:
            house.start_api()
            worker = house.start_worker()
            async with house.door() as door:
                sent = await submit_many(door, MANY)
                await eventually(lambda: len(peer.transactions) >= 3, within=30.0)
                worker.kill()
                before.set()
                after.set()
                house.start_worker()
                await assert_nothing_lost(door, peer, sent)


async def test_a_paused_worker_sends_nothing_after_its_lease(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """A worker that is stopped before the fence and wakes up after its lease closes without a dot."""
    async with ScriptedPeer() as peer:
        gate = asyncio.Event()
        peer.on("data", until=gate, times=1)
        with the_house(tmp_path, database_url, redis_url, peer) as house:
            house.start_api()
            paused = house.start_worker()
            async with house.door() as door:
                sent = await submit_many(door, 1, on_uncertain="hold")
                await eventually(lambda: any(t.rcpts for t in peer.transactions), within=30.0)
                paused.send_signal(signal.SIGSTOP)
                gate.set()  # the 354 waits in its socket
                house.start_worker()
                (message_id,) = sent.values()
                await door.in_state(message_id, "sent", within=60.0)
                paused.send_signal(signal.SIGCONT)
                await eventually(lambda: peer.transactions[0].ended is not None, within=30.0)

                assert copies(peer, "user0@example.com") == 1
                assert peer.transactions[0].dot is False
                outcomes = [attempt["outcome"] for attempt in await door.attempts(message_id)]
                assert outcomes == ["deferred", "sent"]


async def test_a_planned_restart_finishes_what_is_in_hand(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """SIGTERM: the message in hand gets its reply, the rest goes by the next worker, nothing twice, exit 0."""
    async with ScriptedPeer() as peer:
        gate = asyncio.Event()
        peer.on("dot", until=gate, times=1)
        with the_house(tmp_path, database_url, redis_url, peer) as house:
            house.start_api()
            worker = house.start_worker()
            async with house.door() as door:
                sent = await submit_many(door, MANY)
                await eventually(lambda: any(t.dot for t in peer.transactions), within=30.0)
                worker.send_signal(signal.SIGTERM)
                gate.set()
                assert await asyncio.to_thread(worker.wait, 30) == 0
                house.start_worker()
                for recipient, message_id in sent.items():
                    await door.in_state(message_id, "sent", within=60.0)
                    assert copies(peer, recipient) == 1
                    assert [a["outcome"] for a in await door.attempts(message_id)] == ["sent"]


async def test_a_killed_api_loses_no_202(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """Kill -9 of the API under load: whatever was answered 202 is sent, a repeated key makes no second message."""
    async with ScriptedPeer() as peer:
        with the_house(tmp_path, database_url, redis_url, peer) as house:
            api = house.start_api()
            house.start_worker()
            async with house.door() as door:
                sent = await submit_many(door, 10)
                api.kill()
                api.wait(timeout=20)
                house.start_api()
                await eventually(lambda: _ready(door), within=40.0)
                again = await submit_many(door, 15)  # the same keys, and five more
                assert sent.items() <= again.items()
                await assert_nothing_lost(door, peer, again)
                assert [copies(peer, f"user{n}@example.com") for n in range(15)] == [1] * 15


async def test_redis_killed_and_flushed_costs_nothing(
    database_url: str, redis: LocalRedis, tmp_path: Path
) -> None:
    """Redis is killed, comes back empty, and is flushed: every message goes once."""
    async with ScriptedPeer() as peer:
        with the_house(tmp_path, database_url, redis.url, peer) as house:
            house.start_api()
            house.start_worker()
            async with house.door() as door:
                sent = await submit_many(door, 5)
                redis.kill()
                sent |= await submit_many(door, 5, first=5)
                redis.restart()
                redis.flush()
                sent |= await submit_many(door, 5, first=10)
                await assert_nothing_lost(door, peer, sent)
                assert len(peer.taken) == 15


async def test_a_dead_ledger_stops_everything_and_heals(
    postgres: LocalPostgres, postgres_url: str, redis_url: str, tmp_path: Path
) -> None:
    """PostgreSQL killed: 503 within 2 s, of what waits nothing begins; back again: all goes on without a restart."""
    async with ScriptedPeer() as peer:
        gate = asyncio.Event()
        peer.on("dot", until=gate)
        with the_house(tmp_path, postgres_url, redis_url, peer) as house:
            house.start_api()
            house.start_worker()
            async with house.door() as door:
                sent = await submit_many(door, MANY)
                await eventually(lambda: any(each.dot for each in peer.transactions))
                postgres.kill()
                gate.set()
                began = time.monotonic()
                refused = await door.client.post(
                    "/messages", json={"from": "noreply@contoso.com", "to": "x@example.com", "text": "x"}
                )
                seconds = time.monotonic() - began
                ready = await door.client.get("/readyz")
                await asyncio.sleep(1.0)  # what was in hand may begin, and goes back without its dot
                await eventually(lambda: all(each.ended for each in peer.transactions))
                begun = len(peer.transactions)
                await asyncio.sleep(1.0)
                more = len(peer.transactions) - begun
                postgres.restart()
                await eventually(lambda: _ready(door), within=40.0)
                sent |= await submit_many(door, 5, first=MANY)
                await assert_nothing_lost(door, peer, sent)

        assert refused.status_code == 503
        assert refused.headers["retry-after"]
        assert refused.json()["code"] == "ledger_unavailable"
        assert seconds <= 2.0
        assert ready.status_code == 503
        assert more == 0


async def _ready(door: Door) -> bool:
    try:
        return (await door.client.get("/readyz")).status_code == 200
    except httpx2.HTTPError:
        return False
