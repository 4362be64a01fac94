"""Proxies before PostgreSQL, Redis, a token service or a mail server, which do harm at command.

    async with Proxy("127.0.0.1", 5432) as proxy:      # listens on proxy.port
        proxy.black_hole()        # swallows both ways; nothing is closed, and new connections get no answer either
        proxy.slow(2.0)           # whatever the server says comes two seconds late
        proxy.reset()             # ends all connections with RST, and each new one too
        await proxy.refuse()      # nobody listens any more; what is open ends with RST
        await proxy.behave()      # from now on new connections pass

A connection that was in the black hole stays in it for ever, also when the proxy behaves again: what it
said is lost, as behind a firewall that has forgotten it. Only its client's own limits get it out.

`PostgresProxy` also reads the wire protocol (PostgreSQL, chapter "Frontend/Backend Protocol"), as far as is
needed to know which transaction a commit ends:

    proxy.swallow_commits(1, of=lambda statements: any("INSERT INTO messages" in each for each in statements))

The next commit of a transaction with such a statement happens; its answer never comes, and the connection
ends with RST. It is a commit, too, where one statement is a transaction by itself. Connections must be
without TLS, as they are to the servers of tests.

A proxy runs in the event loop of its test and belongs to it.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from types import TracebackType
from typing import Literal, Self
from urllib.parse import urlsplit, urlunsplit

from service.local.servers import free_port

HOST = "127.0.0.1"

Mood = Literal["pass", "black hole", "reset"]

#: Says of the statements of a transaction whether they are meant.
Meant = Callable[[Sequence[str]], bool]


class Proxy:
    """A TCP proxy on 127.0.0.1. Use with `async with`."""

    def __init__(self, host: str, port: int) -> None:
        """Take where the server is."""
        self.target = (host, port)
        # Outside the range of outgoing connections: nobody takes it while the proxy refuses.
        self.port = free_port()
        self.accepted = 0  # connections so far
        self.mood: Mood = "pass"
        self.delay = 0.0  # seconds
        self.clients: dict[str, str] = {}  # whose connection is behind one of ours, both as "host:port"
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.Task[None], _Pair] = {}

    def through(self, url: str) -> str:
        """Give the URL of the server, by way of this proxy."""
        parts = urlsplit(url)
        name, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{name}{at}{HOST}:{self.port}"))

    @property
    def connections(self) -> int:
        """How many are open now."""
        return len(self._open)

    # -- the harm ---------------------------------------------------------------------------

    def black_hole(self) -> None:
        """Swallow everything from now on."""
        self.mood = "black hole"
        for pair in self._open.values():
            pair.lost = True

    def slow(self, seconds: float) -> None:
        """Let whatever the server says come so much later."""
        self.mood, self.delay = "pass", seconds

    def reset(self) -> None:
        """End all connections with RST, and new ones as soon as they are there."""
        self.mood = "reset"
        self.cut()

    def cut(self) -> None:
        """End with RST what is open now, once."""
        for pair in list(self._open.values()):
            pair.cut()

    async def refuse(self) -> None:
        """Listen no more; what is open ends with RST."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    async def behave(self) -> None:
        """Let new connections pass, at once."""
        self.mood, self.delay = "pass", 0.0
        if self._server is None:
            self._server = await asyncio.start_server(self._take, HOST, self.port)

    # -- the work ---------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.behave()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.refuse()
        tasks = list(self._open)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        pair = self._pair(reader, writer)
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = pair
        try:
            await pair.run()
        except (OSError, asyncio.CancelledError):  # one of the sides is gone, or the proxy ends
            pass
        finally:
            del self._open[task]
            pair.close()

    def _pair(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> "_Pair":
        return _Pair(self, reader, writer)


class _Pair:
    """A connection of a client, and ours to the server for it."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.proxy = proxy
        self.lost = proxy.mood == "black hole"
        self._client = (reader, writer)
        self._server: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def run(self) -> None:
        """Carry until one side ends."""
        if self.proxy.mood == "reset":
            self.cut()
            return
        if not self.lost:
            self._server = await asyncio.open_connection(*self.proxy.target)
            ours, theirs = (
                self._server[1].get_extra_info("sockname"),
                self._client[1].get_extra_info("peername"),
            )
            self.proxy.clients["{}:{}".format(*ours)] = "{}:{}".format(*theirs)
        both = [asyncio.create_task(self._carry_up()), asyncio.create_task(self._carry_down())]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if self.lost:
                # The server's end is swallowed too: only the client's counts.
                await asyncio.wait([both[0]])
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)

    async def _carry_up(self) -> None:
        async for octets in _said(self._client[0]):
            if not self.lost and self._server is not None:
                self.heard_client(octets)
                self._server[1].write(octets)
                await self._server[1].drain()

    async def _carry_down(self) -> None:
        if self._server is None:
            return
        async for octets in _said(self._server[0]):
            if self.proxy.delay:
                await asyncio.sleep(self.proxy.delay)
            for part in self.passed_on(octets):
                if not self.lost:
                    self._client[1].write(part)
                    await self._client[1].drain()

    def heard_client(self, octets: bytes) -> None:
        """Learn from what the client says."""

    def passed_on(self, octets: bytes) -> Iterator[bytes]:
        """Give what of the server's words goes on to the client."""
        yield octets

    def cut(self) -> None:
        """End the client's connection with RST, and the server's with it."""
        _reset(self._client[1])
        self.close()

    def close(self) -> None:
        """End both connections, if they are not over."""
        for _, writer in filter(None, (self._client, self._server)):
            writer.transport.abort()


class PostgresProxy(Proxy):
    """A proxy that understands PostgreSQL, without TLS."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.swallowed = 0  # commits whose answer was swallowed, so far
        self._to_swallow = 0
        self._meant: Meant = bool

    def swallow_commits(self, times: int, *, of: Meant = bool) -> None:
        """Swallow the answers of the next commits of transactions whose statements are meant."""
        self._to_swallow, self._meant = times, of

    def swallows(self, statements: Sequence[str]) -> bool:
        """Say whether the answer of this commit is swallowed, and count it."""
        if not self._to_swallow or not self._meant(statements):
            return False
        self._to_swallow -= 1
        self.swallowed += 1
        return True

    @property
    def armed(self) -> bool:
        return self._to_swallow > 0

    def _pair(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> _Pair:
        return _PostgresPair(self, reader, writer)


#: Codes in the place of a protocol's version, which are answered with one octet.
_ASKS_FOR_ENCRYPTION = (80877103, 80877104)
_CANCEL = 80877102


class _PostgresPair(_Pair):
    """A connection of which we know what was asked, and how it ended."""

    proxy: PostgresProxy

    def __init__(
        self, proxy: PostgresProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        super().__init__(proxy, reader, writer)
        self._asked = bytearray()  # what of the client's words is no whole message yet
        self._answered = bytearray()  # the same of the server's
        self._started = False  # the client's messages have types from now on
        self._single = 0  # octets that the server answers without a frame
        self._prepared: dict[bytes, str] = {}
        self._portals: dict[bytes, bytes] = {}
        self._statements: list[str] = []  # of the transaction that runs
        self._executing = False  # something was, and its answer is not all there
        self._held = bytearray()  # of an answer that may have to be swallowed
        self._tag = b""  # of the last command that was completed

    def heard_client(self, octets: bytes) -> None:
        self._asked += octets
        while (message := self._next_asked()) is not None:
            kind, body = message
            match kind:
                case b"Q":
                    self._execute(_text(body))
                case b"P":
                    name, _, rest = body.partition(b"\0")
                    self._prepared[name] = _text(rest)
                case b"B":
                    portal, name, _ = body.split(b"\0", 2)
                    self._portals[portal] = name
                case b"E":
                    name = self._portals.get(body.partition(b"\0")[0], b"")
                    self._execute(self._prepared.get(name, ""))

    def _execute(self, statement: str) -> None:
        self._executing = True
        self._statements.append(statement)

    def _next_asked(self) -> tuple[bytes, bytes] | None:
        if self._started:
            return _message(self._asked)
        if len(self._asked) < 8 or len(self._asked) < (length := struct.unpack_from("!i", self._asked)[0]):
            return None
        (code,) = struct.unpack_from("!i", self._asked, 4)
        del self._asked[:length]
        if code in _ASKS_FOR_ENCRYPTION:
            self._single += 1
        else:
            self._started = code != _CANCEL
        return b"", b""

    def passed_on(self, octets: bytes) -> Iterator[bytes]:
        self._answered += octets
        while self._single and self._answered:
            self._single -= 1
            yield bytes([self._answered.pop(0)])
        while (message := _message(self._answered)) is not None:
            kind, body = message
            self._held += kind + struct.pack("!i", len(body) + 4) + body
            if self._is_swallowed(kind, body):
                self.lost = True
                self.cut()
                return
            # Whether the transaction is committed is known at the very end of the answer to what was executed;
            # what is only prepared may be asked for without an end (Flush).
            if kind == b"Z" or not (self.proxy.armed and self._executing):
                yield bytes(self._held)
                self._held.clear()

    def _is_swallowed(self, kind: bytes, body: bytes) -> bool:
        """Follow the transaction; say whether its commit has just happened and nobody is to hear of it."""
        if kind == b"C":
            self._tag = body.rstrip(b"\0")
        elif kind == b"E":
            self._tag = b"ROLLBACK"
        elif kind == b"Z":
            self._executing = False
            if body == b"I" and self._statements:
                statements, self._statements = self._statements, []
                return self._tag != b"ROLLBACK" and self.proxy.swallows(statements)
        return False


def _message(buffer: bytearray) -> tuple[bytes, bytes] | None:
    """Take one message with its type from the front; None where it is not all there."""
    if len(buffer) < 5 or len(buffer) < (length := 1 + struct.unpack_from("!i", buffer, 1)[0]):
        return None
    kind, body = bytes(buffer[:1]), bytes(buffer[5:length])
    del buffer[:length]
    return kind, body


def _text(octets: bytes) -> str:
    return octets.partition(b"\0")[0].decode("utf-8", "replace")


async def _said(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while octets := await reader.read(65_536):
        yield octets


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):  # it has ended meanwhile
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
