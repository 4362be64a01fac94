"""The engine, and what can be wrong with a ledger.

Everything that PostgreSQL or the way to it can do to us is one of two things for the rest of
the service: the statement was wrong (a bug, it propagates) or the ledger cannot work at the
moment (`LedgerUnavailable`: answer 503, send nothing, try again later). Disk full (53100),
read-only after a fail-over (25006), too many connections (53300), shutting down (57P01..3)
and a lost connection all belong to the second kind.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, InvalidRequestError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

#: SQLSTATE classes and codes that say "not now" (PostgreSQL, Appendix A). A table or column that is
#: missing (42P01, 42703) is a schema that is not there yet.
_NOT_NOW = (
    "08",
    "53",
    "57P",
    "58",
    "25006",
    "40001",
    "40P01",
    "42P01",
    "42703",
    "55P03",
    "57014",
    "XX001",
    "XX002",
)


class LedgerUnavailable(Exception):
    """The ledger cannot read or write at the moment; nothing was promised to anybody."""


def async_url(url: str) -> str:
    """Return `url` with our driver in it, whatever PostgreSQL spelling it had."""
    parsed = make_url(url)
    if parsed.get_backend_name() not in {"postgresql", "postgres"}:
        raise ValueError("database_url must be a postgresql:// address")
    return parsed.set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)


def open_engine(url: str, *, name: str, size: int) -> AsyncEngine:
    """Make an engine with `size` connections at most; nothing is connected yet.

    `name` shows in pg_stat_activity. `synchronous_commit` is asked for by name because a 202
    rests on it, whatever the server's default says.
    """
    return create_async_engine(
        async_url(url),
        pool_size=size,
        max_overflow=0,
        pool_timeout=2.0,
        pool_pre_ping=True,
        pool_recycle=1800,
        connect_args={
            "timeout": 2.0,
            "command_timeout": 30.0,
            "server_settings": {
                "application_name": name,
                "synchronous_commit": "on",
                "timezone": "UTC",
                "jit": "off",
                "lock_timeout": "10s",
                "idle_in_transaction_session_timeout": "30s",
            },
        },
    )


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
    # What asyncpg says before SQLAlchemy has a connection to wrap it for.
    state = getattr(error, "sqlstate", None)
    return state is not None and str(state).startswith(_NOT_NOW)


@contextmanager
def unavailable_as_such() -> Iterator[None]:
    """Turn every "not now" of PostgreSQL and of the way to it into LedgerUnavailable."""
    try:
        yield
    except LedgerUnavailable:
        raise
    except Exception as exc:
        if is_unavailable(exc):
            raise LedgerUnavailable(type(exc).__name__) from exc
        raise


@asynccontextmanager
async def transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Give a connection inside one transaction; commit at the end, roll back on an error."""
    with unavailable_as_such():
        async with engine.begin() as connection:
            yield connection
