"""Bring a database to this version's schema, and say how far it is (Alembic).

`upgrade` may run twice, and by several pods at once: an advisory lock lets one of them work
while the others wait and then find nothing to do. A migration never waits long for a lock
that a busy worker holds: `lock_timeout` makes it fail and be tried again.

A database that was restored from a dump into a new cluster gets its feed of events in order too.

Only `upgrade` loads Alembic, which with its compilers and highlighters is 10 MB: how far a database is,
every process asks at its start, and that takes no more than the migrations' own names.
"""

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from service.ledger import feed
from service.ledger.engine import async_url

if TYPE_CHECKING:
    from alembic.config import Config

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


def upgrade(database_url: str) -> None:
    """Bring the database to `head()`; blocks, and must not run inside an event loop."""
    asyncio.run(_upgrade(database_url))


async def _upgrade(database_url: str) -> None:
    engine = create_async_engine(async_url(database_url), poolclass=None)
    try:
        async with engine.connect() as connection:
            # A session's lock, not a transaction's: migrations commit on their own.
            await connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": _LOCK})
            await connection.commit()
            try:
                await connection.run_sync(_run)
                await connection.commit()
                await feed.move_to_this_cluster(connection)
                await connection.commit()
            finally:
                await connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": _LOCK})
                await connection.commit()
    finally:
        await engine.dispose()


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


def _history() -> dict[str, str | None]:
    """Read each migration's name, and that of the one before it."""
    names = (
        _NAMES.search(path.read_text(encoding="utf-8")) for path in (scripts() / "versions").glob("*.py")
    )
    return {found[1]: found[2] for found in names if found is not None}
