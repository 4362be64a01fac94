"""The jobs of the bell: each stands by itself, and leaves nothing behind that arq would hold against the next one."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from arq.connections import ArqRedis

from service.delivery.bell import QUEUE, Bell, open_redis
from tests.house import a_house, smarthost
from tests.peer import ScriptedPeer
from tests.waiting import eventually


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[ArqRedis]:
    """The Redis of the bell."""
    client = open_redis(redis_url)
    yield client
    await client.aclose(close_connection_pool=True)


async def test_a_ring_is_not_refused_because_of_another_one(redis: ArqRedis) -> None:
    """One lane, three times: three jobs. arq drops a job whose id it has, without a word."""
    bell = Bell(redis)

    for wait in (10.0, 20.0, 30.0):
        await bell.ring_at("peer", wait)

    assert await redis.zcard(QUEUE) == 3


async def test_a_job_that_has_rung_leaves_nothing_behind(
    redis: ArqRedis, redis_url: str, database_url: str, tmp_path: Path
) -> None:
    """No result is kept: for an hour, which is arq's default, it would keep its id from being used."""
    async with (
        ScriptedPeer() as peer,
        a_house(database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path),
    ):
        await Bell(redis).ring_at("peer", 1.0)
        assert await redis.keys("arq:job:*")

        async def rung() -> bool:
            return not await redis.zcard(QUEUE)

        await eventually(rung, within=30.0)

        assert await redis.keys("arq:result:*") == []
