"""The proxies do the harm that they promise: a campaign with tame ones would prove nothing."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.chaos.proxy import PostgresProxy, Proxy
from tests.waiting import eventually

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[], Awaitable[Streams]]


@asynccontextmanager
async def an_echo() -> AsyncIterator[tuple[Proxy, Connect]]:
    """Give a proxy before a server that says what it hears, and a way to connect to it."""
    async with contextlib.AsyncExitStack() as stack:

        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while octets := await reader.read(65_536):
                    writer.write(octets)
            except ConnectionError:
                pass
            finally:
                writer.transport.abort()

        async def connect() -> Streams:
            streams = await asyncio.open_connection("127.0.0.1", proxy.port)
            stack.callback(lambda: streams[1].transport.abort())  # the writer must live so long
            return streams

        server = await stack.enter_async_context(await asyncio.start_server(echo, "127.0.0.1", 0))
        proxy = await stack.enter_async_context(Proxy("127.0.0.1", server.sockets[0].getsockname()[1]))
        yield proxy, connect


async def echoed(streams: Streams, words: bytes = b"hello", *, within: float = 10.0) -> bytes:
    """Say something; return what comes back."""
    reader, writer = streams
    writer.write(words)
    async with asyncio.timeout(within):
        return await reader.readexactly(len(words))


async def test_without_a_command_everything_passes() -> None:
    """A megabyte goes and comes back as it was, and the end of one side reaches the other."""
    async with an_echo() as (proxy, connect):
        reader, writer = await connect()
        octets = bytes(range(256)) * 4096

        assert await echoed((reader, writer), octets) == octets
        writer.close()
        await eventually(lambda: proxy.connections == 0)


async def test_a_black_hole_swallows_and_closes_nothing() -> None:
    """Open and new connections stay open and hear nothing, for ever; new ones pass when it is over."""
    async with an_echo() as (proxy, connect):
        before = await connect()
        await echoed(before)
        proxy.black_hole()
        within = await connect()
        for streams in (before, within):
            with pytest.raises(TimeoutError):
                await echoed(streams, within=0.2)
        await proxy.behave()

        with pytest.raises(TimeoutError):
            await echoed(before, within=0.2)
        assert not before[0].at_eof()
        assert not within[0].at_eof()
        assert await echoed(await connect()) == b"hello"


async def test_slow_answers_come_late() -> None:
    """What the server says comes so many seconds later, and whole."""
    async with an_echo() as (proxy, connect):
        streams = await connect()
        proxy.slow(0.5)
        began = time.monotonic()

        assert await echoed(streams) == b"hello"
        assert time.monotonic() - began >= 0.5


async def test_reset_ends_what_is_open_and_what_comes() -> None:
    """Every connection ends with RST instead of FIN, until it behaves again."""
    async with an_echo() as (proxy, connect):
        streams = await connect()
        await echoed(streams)
        proxy.reset()

        with pytest.raises(ConnectionResetError):
            await streams[0].read()
        with pytest.raises(ConnectionError):
            await echoed(await connect())
        await proxy.behave()
        assert await echoed(await connect()) == b"hello"


async def test_refuse_lets_nobody_in() -> None:
    """Nobody listens, and what was open is reset; afterwards the port is the same."""
    async with an_echo() as (proxy, connect):
        streams = await connect()
        await echoed(streams)
        await proxy.refuse()

        with pytest.raises(ConnectionResetError):
            await streams[0].read()
        with pytest.raises(ConnectionRefusedError):
            await connect()
        await proxy.behave()
        assert await echoed(await connect()) == b"hello"


class TestPostgres:
    """The proxy that knows what a commit is."""

    @asynccontextmanager
    async def before(self, url: str) -> AsyncIterator[tuple[PostgresProxy, asyncpg.Connection]]:
        """Give a proxy, and a connection by way of it, to a database with a table."""
        parts = urlsplit(url)
        direct = await asyncpg.connect(url)
        await direct.execute("CREATE TABLE marks (word text)")
        await direct.close()
        async with PostgresProxy(str(parts.hostname), int(parts.port or 0)) as proxy:
            connection = await asyncpg.connect(proxy.through(url))
            try:
                yield proxy, connection
            finally:
                connection.terminate()

    async def marks(self, url: str) -> list[str]:
        direct = await asyncpg.connect(url)
        try:
            return [row["word"] for row in await direct.fetch("SELECT word FROM marks ORDER BY word")]
        finally:
            await direct.close()

    async def test_a_commit_happens_and_is_not_answered(self, empty_database_url: str) -> None:
        """COMMIT is done, the connection ends without a word about it; a transaction that is not meant passes."""
        async with self.before(empty_database_url) as (proxy, connection):
            proxy.swallow_commits(1, of=lambda statements: any("'meant'" in each for each in statements))
            async with connection.transaction():
                await connection.execute("INSERT INTO marks VALUES ('other')")
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute("INSERT INTO marks VALUES ('meant')")
            assert await connection.fetchval("SELECT $1::text", "prepared") == "prepared"
            with pytest.raises((ConnectionError, asyncpg.PostgresConnectionError)):
                await transaction.commit()
            await eventually(lambda: proxy.connections == 0)

            assert proxy.swallowed == 1
            assert connection.is_closed()
        assert await self.marks(empty_database_url) == ["meant", "other"]

    async def test_a_statement_by_itself_is_a_commit(self, empty_database_url: str) -> None:
        """A prepared INSERT outside a transaction is committed at its end, and that is swallowed, once."""
        async with self.before(empty_database_url) as (proxy, connection):
            insert = "INSERT INTO marks SELECT $1 || pg_backend_pid() * 0"
            await connection.fetch(insert, "a")
            proxy.swallow_commits(1, of=lambda statements: insert in statements)
            with pytest.raises((ConnectionError, asyncpg.PostgresConnectionError)):
                await connection.fetch(insert, "b")
            again = await asyncpg.connect(proxy.through(empty_database_url))
            await again.fetch(insert, "c")
            await again.close()
        assert await self.marks(empty_database_url) == ["a0", "b0", "c0"]

    async def test_what_is_rolled_back_is_no_commit(self, empty_database_url: str) -> None:
        """Neither a ROLLBACK nor a statement that fails is swallowed."""
        async with self.before(empty_database_url) as (proxy, connection):
            proxy.swallow_commits(1)
            with pytest.raises(asyncpg.UndefinedTableError):
                await connection.execute("INSERT INTO nowhere VALUES (1)")
            await connection.execute("BEGIN; INSERT INTO marks VALUES ('x'); ROLLBACK")

            assert proxy.swallowed == 0
        assert await self.marks(empty_database_url) == []
