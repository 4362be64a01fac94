"""The short form of the campaign's faults of the ledger: the two that tell most, in one process."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.chaos.infrastructure_commits import TRANSACTIONS, holds
from tests.chaos.proxy import PostgresProxy
from tests.house import House, a_house, a_message, copies, smarthost
from tests.invariants import assert_sound
from tests.peer import ScriptedPeer
from tests.waiting import eventually


@asynccontextmanager
async def a_house_behind_a_proxy(
    database_url: str, redis_url: str, folder: Path, peer: ScriptedPeer
) -> AsyncIterator[tuple[House, PostgresProxy]]:
    """Give a house that reaches its ledger through a proxy."""
    parts = urlsplit(database_url)
    routes = [smarthost(peer, limits={"connections": 2})]
    async with (
        PostgresProxy(str(parts.hostname), int(parts.port or 0)) as ledger,
        # A reply that cannot be written down comes late: it has time before anything is sent again for want of it.
        a_house(
            ledger.through(database_url),
            redis_url,
            routes=routes,
            folder=folder,
            dispatch={"uncertain_after": "60s"},
        ) as house,
    ):
        yield house, ledger
        await ledger.behave()


async def test_an_acceptance_whose_commit_is_not_answered(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """The application hears 503, asks again with its key, gets the one message there is, and the peer takes one copy."""
    async with ScriptedPeer() as peer:
        async with a_house_behind_a_proxy(database_url, redis_url, tmp_path, peer) as (house, ledger):
            headers = {"Idempotency-Key": "order-42"}
            ledger.swallow_commits(1, of=holds(TRANSACTIONS["acceptances"]))
            lost = await house.client.post("/messages", json=a_message(), headers=headers)
            found = await house.client.post("/messages", json=a_message(), headers=headers)
            await house.in_state(found.json()["id"], "sent")
            everything = (await house.get("/messages"))["data"]

        assert (lost.status_code, found.status_code) == (503, 202)
        assert found.headers["idempotent-replayed"] == "true"
        assert [each["id"] for each in everything] == [found.json()["id"]]
        assert copies(peer, "ana@example.com") == 1
    await assert_sound(database_url)


async def test_a_fence_whose_commit_is_not_answered(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """The worker cannot know that the dot may leave, so it does not: the first try ends without, the next one sends."""
    async with ScriptedPeer() as peer:
        async with a_house_behind_a_proxy(database_url, redis_url, tmp_path, peer) as (house, ledger):
            ledger.swallow_commits(1, of=holds(TRANSACTIONS["fences"]))
            message_id = await house.submit()
            await house.in_state(message_id, "sent")
            outcomes = [each["outcome"] for each in await house.attempts(message_id)]

        assert ledger.swallowed == 1
        assert outcomes == ["deferred", "sent"]
        assert [each.dot for each in peer.transactions] == [False, True]
    await assert_sound(database_url)


async def test_a_ledger_out_of_reach_stops_the_sending(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """503 within two seconds; of forty messages that wait not one begins; all go when it is back."""
    async with ScriptedPeer() as peer:
        gate = asyncio.Event()
        peer.on("dot", until=gate)
        async with a_house_behind_a_proxy(database_url, redis_url, tmp_path, peer) as (house, ledger):
            sent = [await house.submit(to=f"user{n}@example.com") for n in range(40)]
            await eventually(lambda: len(peer.transactions) >= 2)
            await ledger.refuse()
            gate.set()
            began = time.monotonic()
            refused = await house.client.post("/messages", json=a_message())
            seconds = time.monotonic() - began
            await asyncio.sleep(1.0)  # what was in hand may begin, and goes back without its dot
            await eventually(lambda: all(each.ended for each in peer.transactions))
            begun = len(peer.transactions)
            await asyncio.sleep(1.0)
            more = len(peer.transactions) - begun
            await ledger.behave()
            for each in sent:
                await house.in_state(each, "sent")

        assert refused.status_code == 503
        assert seconds <= 2.0
        assert more == 0
        assert [copies(peer, f"user{n}@example.com") for n in range(40)] == [1] * 40
    await assert_sound(database_url)
