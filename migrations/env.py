"""How Alembic runs our migrations: on the connection that `service.ledger.migrate` hands over,
or, for `alembic check` and `--sql`, on the address in POSTROOM_DATABASE_URL.
"""

import asyncio
import os

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine

from service.ledger.engine import async_url
from service.ledger.tables import metadata


def run(connection: Connection) -> None:
    """Run the migrations inside transactions that never wait long for a lock."""
    context.configure(connection=connection, target_metadata=metadata, compare_server_default=False)
    with context.begin_transaction():
        context.execute(text("SET LOCAL lock_timeout = '4s'"))
        context.run_migrations()


async def run_by_address() -> None:
    engine = create_async_engine(async_url(os.environ["POSTROOM_DATABASE_URL"]))
    async with engine.connect() as connection:
        await connection.run_sync(run)
        await connection.commit()
    await engine.dispose()


if context.is_offline_mode():
    context.configure(dialect_name="postgresql", target_metadata=metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
elif (given := context.config.attributes.get("connection")) is not None:
    run(given)
else:
    asyncio.run(run_by_address())
