"""Bring a database to a revision of the past, as far as Alembic goes, without the service's own care."""

import asyncio
from collections.abc import Callable

from alembic import command
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from service.ledger.database_url import driver_url
from service.ledger.migrate import configuration


def to_revision(url: str, revision: str, *, watch: Callable[[Connection], None] | None = None) -> None:
    """Upgrade to `revision`; blocks. `watch` is given the connection before the first step."""

    def run(connection: Connection) -> None:
        if watch is not None:
            watch(connection)
        config = configuration()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)

    async def work() -> None:
        address, arguments = driver_url(url)
        engine = create_async_engine(address, connect_args=arguments)
        try:
            async with engine.connect() as db:
                await db.run_sync(run)
                await db.commit()
        finally:
            await engine.dispose()

    asyncio.run(work())
