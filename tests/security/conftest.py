"""One world for all tests of a module, because a house takes longer to open than a hundred requests."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from service.local.servers import LocalPostgres, LocalRedis
from tests.conftest import TEMPLATE, _database, _make_template
from tests.hostile.world import World, a_world


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(
    shared_postgres: LocalPostgres, shared_redis: LocalRedis, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    """A service without a worker: what it accepts stays queued."""
    _make_template(shared_postgres)
    shared_redis.flush()
    for database_url in _database(shared_postgres, template=TEMPLATE):
        async with a_world(
            database_url, shared_redis.url, tmp_path_factory.mktemp("hostile"), workers=0
        ) as opened:
            yield opened
