"""The engine, and what can be wrong with a ledger.

Everything that PostgreSQL or the way to it can do to us is one of two things for the rest of
the service: the statement was wrong (a bug, it propagates) or the ledger cannot work at the
moment (`LedgerUnavailable`: answer 503, send nothing, try again later). Disk full (53100),
read-only after a fail-over (25006), too many connections (53300), shutting down (57P01..3)
and a lost connection all belong to the second kind.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, cast

from asyncpg.exceptions import InterfaceError as DriverError
from asyncpg.exceptions import InternalClientError, PostgresError
from pydantic_core import to_json
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, InvalidRequestError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from service.ledger.database_url import driver_url
from service.ledger.pool import WatchedPool
from service.telemetry import figures

if TYPE_CHECKING:
    import asyncpg

#: SQLSTATE classes and codes that say "not now" (PostgreSQL, Appendix A). A table or column that is
#: missing (42P01, 42703) is a schema that is not there yet; a password, a database or a right that is
#: missing (28, 3D000, 42501) comes back when somebody gives it back, as after a change of passwords; and so
#: does a database that somebody has closed (55000: ALLOW_CONNECTIONS false).
_NOT_NOW = (
    "08",
    "28",
    "3D000",
    "42501",
    "53",
    "57P",
    "58",
    "25006",
    "40001",
    "40P01",
    "42P01",
    "42703",
    "55000",
    "55P03",
    "57014",
    "XX001",
    "XX002",
)


class LedgerUnavailable(Exception):
    """The ledger cannot read or write at the moment; nothing was promised to anybody."""


def open_engine(url: str, *, name: str, size: int) -> AsyncEngine:
    """Make an engine with `size` connections at most; nothing is connected yet.

    `name` shows in pg_stat_activity. `synchronous_commit` is asked for by name because a 202 rests on it, whatever the server's default says.
    """
    address, arguments = driver_url(url)
    engine = create_async_engine(
        address,
        poolclass=WatchedPool,
        pool_size=size,
        max_overflow=0,
        pool_timeout=2.0,
        pool_recycle=1800,
        # What a statement was about belongs to somebody's message, and not into a log.
        hide_parameters=True,
        connect_args={
            **arguments,
            "timeout": 2.0,
            "command_timeout": 30.0,
            "server_settings": {
                "application_name": name,
                "synchronous_commit": "on",
                "timezone": "UTC",
                "jit": "off",
                # Every statement has an index. A plan that is made while a table is new and small, and kept
                # as prepared statements are, would read the whole of it when it has grown.
                "enable_seqscan": "off",
                # Nor is any so large that other processes could help: to start them takes longer.
                "max_parallel_workers_per_gather": "0",
                "lock_timeout": "10s",
                "idle_in_transaction_session_timeout": "30s",
            },
        },
    )
    event.listen(engine.sync_engine, "checkout", _alive)
    return engine


def _alive(connection: Any, _record: object, _proxy: object) -> None:
    """Let the pool replace a connection that was closed while nobody used it.

    The driver knows of it without asking, which saves the round trip of a ping before each transaction.
    """
    if connection.driver_connection.is_closed():
        raise DisconnectionError


def sqlstate(error: BaseException) -> str | None:
    """Return PostgreSQL's code of an error, by whichever way it came; None where it has none."""
    if isinstance(error, LedgerUnavailable) and error.__cause__ is not None:
        error = error.__cause__
    found = getattr(error, "sqlstate", None) or getattr(getattr(error, "orig", None), "sqlstate", None)
    return None if found is None else str(found)


def is_unavailable(error: BaseException) -> bool:
    """Say whether this error means "not now" rather than "wrong statement"."""
    if isinstance(error, DBAPIError):
        if error.connection_invalidated or isinstance(error, InterfaceError):
            return True
        state = getattr(error.orig, "sqlstate", None)
        return state is not None and str(state).startswith(_NOT_NOW)
    if isinstance(error, InvalidRequestError):
        # A connection that died between two statements of a transaction.
        return "invalidated" in str(error) or "closed" in str(error)
    if isinstance(error, OSError | TimeoutError | asyncio.TimeoutError | PoolTimeout | ConnectionError):
        return True
    # What asyncpg says where SQLAlchemy does not wrap it: before there is a connection, and to `statement`.
    state = sqlstate(error)
    # An "internal" error is what the driver calls a connection that ends between two of its steps.
    driver = isinstance(error, DriverError | InternalClientError)
    return driver or (state is not None and state.startswith(_NOT_NOW))


@contextmanager
def unavailable_as_such() -> Iterator[None]:
    """Turn every "not now" of PostgreSQL and of the way to it into LedgerUnavailable."""
    try:
        yield
    except LedgerUnavailable:
        raise
    except Exception as exc:
        if is_unavailable(exc):
            figures.LEDGER_FAILURES.add()
            raise LedgerUnavailable(type(exc).__name__) from exc
        raise


@asynccontextmanager
async def transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Give a connection inside one transaction; commit at the end, roll back on an error."""
    with unavailable_as_such():
        async with engine.begin() as connection:
            yield connection


Fetch = Callable[..., Awaitable[list[Any]]]


def as_json(rows: object) -> str:
    """Write rows for a statement that runs all the time: as `json.dumps` does, at a third of its cost."""
    return to_json(rows).decode()


async def statement(
    engine: AsyncEngine, sql: str, *arguments: object, within: float | None = None
) -> list[Any]:
    """Run one statement that is a transaction by itself, and return its rows; see `straight`.

    Raises LedgerUnavailable after `within` seconds. Whether it was carried out then, nobody knows.
    """
    with unavailable_as_such():
        async with asyncio.timeout(within), straight(engine) as fetch:
            return await fetch(sql, *arguments)


@asynccontextmanager
async def straight(engine: AsyncEngine) -> AsyncIterator[Fetch]:
    """Give a way straight to the driver, outside a transaction, for the few statements that run all the time.

    They go as they are, with `$1` for the first argument. What SQLAlchemy does around a statement costs more
    than a small one does itself. JSON goes as text, and comes as what it says.
    """
    with unavailable_as_such():
        async with engine.connect() as connection:
            driver = cast("asyncpg.Connection", (await connection.get_raw_connection()).driver_connection)
            try:
                yield driver.fetch
            except PostgresError:
                raise
            except BaseException:
                # Cancelled, too late, or lost in the middle: nobody may read somebody else's answer from it.
                driver.terminate()
                raise


async def straight_inside(db: AsyncConnection) -> Fetch:
    """Give the same inside the transaction of `db`, which has run a statement and so has begun."""
    driver = cast("asyncpg.Connection", (await db.get_raw_connection()).driver_connection)

    async def fetch(sql: str, *arguments: object) -> list[Any]:
        try:
            rows: list[Any] = await driver.fetch(sql, *arguments)
            return rows
        except PostgresError:
            raise
        except BaseException:
            driver.terminate()
            raise

    return fetch


@asynccontextmanager
async def straight_transaction(engine: AsyncEngine) -> AsyncIterator[Fetch]:
    """Give the same inside one transaction; commit at the end, roll back on an error."""
    async with straight(engine) as fetch:
        await fetch("BEGIN")
        try:
            yield fetch
        except PostgresError:
            await fetch("ROLLBACK")
            raise
        await fetch("COMMIT")
