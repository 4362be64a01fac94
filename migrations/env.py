"""How Alembic runs our migrations: on the connection that `service.ledger.migrate` hands over,
or, for `alembic check` and `--sql`, on the address in POSTROOM_DATABASE_URL.
"""

import asyncio
import os

from alembic import context
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from service.ledger.database_url import driver_url
from service.ledger.tables import metadata


def run(connection: Connection) -> None:
    """Run each migration in a transaction of its own; how long it waits for a lock, the session says."""
    context.configure(
        connection=connection,
        target_metadata=metadata,
        compare_server_default=False,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


async def run_by_address() -> None:
    address, arguments = driver_url(os.environ["POSTROOM_DATABASE_URL"])
    engine = create_async_engine(address, connect_args=arguments)
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
