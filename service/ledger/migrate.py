"""Bring a database to this version's schema, and say how far it is (Alembic).

`upgrade` may run twice, and by several pods at once: an advisory lock lets one of them work while the others
wait and then find nothing to do. A database that is newer than this version is left as it is.

Workers of the release before go on meanwhile. What changes a table that they use waits at most `LOCK_PATIENCE`
for them, because all who come later wait behind it; then it gives way, and begins again a second later.

A database that was restored from a dump into a new cluster gets its feed of events in order too.

Only `upgrade` loads Alembic, which with its compilers and highlighters is 10 MB: how far a database is,
every process asks at its start, and that takes no more than the migrations' own names.
"""

import asyncio
import contextlib
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from service.ledger import feed
from service.ledger.database_url import driver_url
from service.ledger.engine import sqlstate

if TYPE_CHECKING:
    from alembic.config import Config

log = structlog.get_logger()

#: How long a migration waits for a lock; shorter than PostgreSQL's deadlock_timeout (1 s), so that of a worker and
#: a migration that wait for each other it is always the migration that gives way.
LOCK_PATIENCE = "800ms"

#: How often a migration that gave way begins again, a second later each time.
_TRIES = 60

_GAVE_WAY = frozenset({"55P03", "40P01"})  # lock_not_available, deadlock_detected

#: The advisory lock of migrations; any constant that nobody else uses in this database.
_LOCK = 0x706F7374_726F6F6D  # "postroom"

#: How a migration names itself and the one before it.
_NAMES = re.compile(r'^revision = "(\w+)"\ndown_revision = (?:"(\w+)"|None)$', re.MULTILINE)


def scripts() -> Path:
    """Find the migrations: beside the package in a checkout, inside it when installed."""
    here = Path(__file__).resolve()
    installed = here.parent / "migrations"
    return installed if installed.is_dir() else here.parents[2] / "migrations"


def configuration() -> "Config":
    """Return Alembic's configuration; there is no ini file."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(scripts()).replace("%", "%%"))
    return config


def head() -> str:
    """Return the revision that this version of the service needs."""
    before = _history()
    heads = before.keys() - before.values()
    if len(heads) != 1:
        raise RuntimeError(f"the service's migrations end in {sorted(heads) or 'nothing'}")
    return heads.pop()


def upgrade(database_url: str) -> str:
    """Bring the database to `head()`, and return the revision at which it is then.

    That is another one where the database was newer. Blocks, and must not run inside an event loop.
    """
    return asyncio.run(_upgrade(database_url))


async def _upgrade(database_url: str) -> str:
    address, arguments = driver_url(database_url)
    settings = {"application_name": "postroom-migrate", "lock_timeout": LOCK_PATIENCE}
    engine = create_async_engine(
        address, connect_args={**arguments, "timeout": 10.0, "server_settings": settings}
    )
    try:
        async with engine.connect() as connection:
            await _take_lock(connection)
            try:
                found = await revision(connection)
                await connection.commit()
                if found is not None and found not in revisions():
                    return found
                await _run_until_done(connection)
                await feed.move_to_this_cluster(connection)
                await connection.commit()
            finally:
                # What broke the migration may have broken the connection, and the lock with it.
                with contextlib.suppress(DBAPIError):
                    await connection.rollback()
                    await connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": _LOCK})
                    await connection.commit()
    finally:
        await engine.dispose()
    return head()


async def _take_lock(connection: AsyncConnection) -> None:
    """Wait until nobody else migrates this database.

    A session's lock, not a transaction's: migrations commit on their own. And asked for again and again: who waited
    inside a statement would have a snapshot, for whose end the building of an index waits, and so for itself.
    """
    waited = False
    while not await connection.scalar(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": _LOCK}):
        await connection.commit()
        if not waited:
            log.info(
                "migrate.waiting", remedy="another process migrates this database; this one waits for it"
            )
        waited = True
        await asyncio.sleep(0.5)
    await connection.commit()


async def _run_until_done(connection: AsyncConnection) -> None:
    for left in reversed(range(_TRIES)):
        try:
            await connection.run_sync(_run)
            await connection.commit()
        except DBAPIError as error:
            if sqlstate(error) not in _GAVE_WAY or not left:
                raise
            await connection.rollback()
            log.info("migrate.gave_way", remedy="it begins again in a second", tries_left=left)
            await asyncio.sleep(1.0)
        else:
            return


def _run(connection: Connection) -> None:
    from alembic import command

    config = configuration()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


async def revision(connection: AsyncConnection) -> str | None:
    """Return the revision at which this database stands, None for an empty one."""
    if await connection.scalar(text("SELECT to_regclass('alembic_version')")) is None:
        return None
    found: str | None = await connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


def revisions() -> frozenset[str]:
    """Return every revision that this version knows."""
    return frozenset(_history())


@cache
def _history() -> dict[str, str | None]:
    """Read each migration's name, and that of the one before it."""
    names = (
        _NAMES.search(path.read_text(encoding="utf-8")) for path in (scripts() / "versions").glob("*.py")
    )
    return {found[1]: found[2] for found in names if found is not None}
