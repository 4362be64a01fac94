"""Clients that are slow, endless or many, against `postroom api` on a real socket."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from service.ledger import Ledger
from service.ledger.keys import DEFAULT_SCOPES
from tests.house import a_message, configuration, processes, smarthost
from tests.peer import ScriptedPeer
from tests.waiting import eventually

KILOBYTE = 1024
ENDLESS = 4 * 1024**3  # the door reads over what comes for a second after its answer
NOT_THE_LIMIT = "300s"  # what a test does not look at must not come in between


class Line:
    """One connection to the door, without manners; what comes back is kept as it comes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._came = bytearray()
        self._reading = asyncio.create_task(self._read(reader))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            while octets := await reader.read(64 * KILOBYTE):
                self._came += octets

    async def say(self, octets: bytes) -> None:
        """Send; the door may have gone away."""
        with contextlib.suppress(ConnectionError):
            self._writer.write(octets)
            await self._writer.drain()

    async def flood(self, octets: bytes, *, most: int) -> int:
        """Send the same again and again until the door hangs up; return how much it let through."""
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < most and not self._writer.is_closing():
                self._writer.write(octets)
                async with asyncio.timeout(20.0):
                    await self._writer.drain()
                await asyncio.sleep(0)  # a write that does not wait would starve the one who reads
                sent += len(octets)
        return sent

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Wait for one answer: status, headers, body."""
        return await eventually(self._answer, within=30.0)

    def _answer(self) -> tuple[int, dict[str, str], bytes] | None:
        head, found, body = bytes(self._came).partition(b"\r\n\r\n")
        first, *lines = head.decode("ascii").split("\r\n")
        headers = (
            {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)} if found else {}
        )
        if not found or len(body) < int(headers.get("content-length", "0")):
            assert not self._reading.done(), "the door hung up without an answer"
            return None
        return int(first.split()[1]), headers, body

    async def code(self) -> tuple[int, str]:
        """Wait for one problem: status and code."""
        status, _, body = await self.answer()
        assert status >= 400, (status, body)
        return status, str(json.loads(body)["code"])

    async def ended(self) -> bool:
        """Wait until the door has hung up."""
        async with asyncio.timeout(30.0):
            await self._reading
        return True

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()
        await self._reading


class Door:
    """The API of a process, a key, and the ledger behind it."""

    def __init__(self, port: int, key: str, ledger: Ledger) -> None:
        self._port = port
        self.key = key
        self.ledger = ledger
        self.lines: list[Line] = []

    async def line(self) -> Line:
        line = Line(*await asyncio.open_connection("127.0.0.1", self._port))
        self.lines.append(line)
        return line

    async def is_open(self) -> bool:
        """Say whether it answers yet."""
        try:
            line = await self.line()
        except OSError:
            return False
        await line.say(b"GET /readyz HTTP/1.1\r\nHost: postroom\r\nConnection: close\r\n\r\n")
        status, _, _ = await line.answer()
        return status == 200

    def head(self, method: str, path: str, *headers: str, key: str | None = None) -> bytes:
        lines = [
            f"{method} {path} HTTP/1.1",
            "Host: postroom",
            f"Authorization: Bearer {key or self.key}",
            *headers,
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    async def works(self) -> bool:
        """Say whether an ordinary request is answered as ever."""
        line = await self.line()
        body = json.dumps(a_message()).encode()
        await line.say(
            self.head("POST", "/messages", "Content-Type: application/json", f"Content-Length: {len(body)}")
            + body
        )
        status, _, _ = await line.answer()
        await line.close()
        return status == 202


@asynccontextmanager
async def a_door(folder: Path, database_url: str, redis_url: str, **api: Any) -> AsyncIterator[Door]:
    """Start `postroom api` with these limits."""
    async with ScriptedPeer() as peer:
        given = configuration(database_url, redis_url, routes=[smarthost(peer)]) | {"api": api}
        ledger = Ledger.open(database_url, name="test", connections=1)
        with processes(folder, given) as house:
            house.start_api()
            key = await ledger.create_key("tests", scopes=DEFAULT_SCOPES, senders=[])
            door = Door(house.port, key.token, ledger)
            try:
                await eventually(door.is_open, within=60.0)
                yield door
            finally:
                for line in door.lines:
                    await line.close()
                await ledger.dispose()


@pytest.fixture
def place(tmp_path: Path, database_url: str, redis_url: str) -> dict[str, Any]:
    """Where a door is opened."""
    return {"folder": tmp_path, "database_url": database_url, "redis_url": redis_url}


async def test_a_head_has_its_time_and_its_size(place: dict[str, Any]) -> None:
    """Silence ends, a head that trickles gets 408, a large one 431, and what is no HTTP 400; then all is as ever."""
    async with a_door(**place, head_timeout="1500ms", body_timeout=NOT_THE_LIMIT) as door:
        silent, half, blank, large, foreign = [await door.line() for _ in range(5)]
        await half.say(b"GET /livez HTTP/1.1\r\nHost: post")
        await large.say(b"GET /livez HTTP/1.1\r\nX-Long: ")
        await large.flood(b"x" * 16 * KILOBYTE, most=10_000 * KILOBYTE)
        await foreign.say(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n")

        async def blanks() -> None:
            while True:
                await blank.say(b"\r\n")
                await asyncio.sleep(0.2)

        chatter = asyncio.create_task(blanks())
        assert await large.code() == (431, "head_too_large")
        assert await foreign.code() == (400, "bad_request")
        assert await half.code() == (408, "request_timeout")
        assert await silent.ended()
        assert await half.ended()
        assert await blank.ended()
        chatter.cancel()
        assert await door.works()


async def test_a_large_head_is_refused_however_it_comes(place: dict[str, Any]) -> None:
    """One field, many fields, or a long target that arrive in one piece are refused like those that trickle."""
    async with a_door(**place) as door:
        for head in (
            b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 66 * KILOBYTE + b"\r\n\r\n",
            b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"X-A: x\r\n" * 9 * KILOBYTE + b"\r\n",
            b"GET /livez?"
            + b"x" * 63 * KILOBYTE
            + b" HTTP/1.1\r\nX-Long: "
            + b"x" * 2 * KILOBYTE
            + b"\r\n\r\n",
        ):
            line = await door.line()
            await line.say(head)
            assert await line.code() == (431, "head_too_large")
            assert await line.ended()
        large = await door.line()
        await large.say(b"GET /nowhere HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 63 * KILOBYTE + b"\r\n\r\n")
        assert await large.code() == (404, "not_found")
        assert await door.works()


async def test_a_body_has_its_time_and_its_size(place: dict[str, Any]) -> None:
    """A trickle gets 408, what has no end 413, what is announced too large 413; each connection is closed."""
    async with a_door(**place, max_body="256kB", body_timeout="2s", head_timeout=NOT_THE_LIMIT) as door:
        json_type, chunked = "Content-Type: application/json", "Transfer-Encoding: chunked"
        trickle, endless, announced, waiting = [await door.line() for _ in range(4)]
        await trickle.say(door.head("POST", "/messages", json_type, "Content-Length: 1000") + b'{"')
        await endless.say(door.head("POST", "/messages", json_type, chunked))
        let_through = await endless.flood(b"1000\r\n" + b"x" * 4096 + b"\r\n", most=ENDLESS)
        await announced.say(door.head("POST", "/messages", json_type, "Content-Length: 50000000") + b"{")
        await waiting.say(
            door.head("POST", "/messages", json_type, "Content-Length: 50000000", "Expect: 100-continue")
        )

        assert await endless.code() == (413, "request_too_large")
        assert await announced.code() == (413, "request_too_large")
        assert await waiting.code() == (413, "request_too_large")
        assert await trickle.code() == (408, "request_timeout")
        for line in (trickle, endless, announced):
            assert await line.ended()
        assert let_through < ENDLESS
        assert await door.works()


async def test_what_is_around_a_body_has_an_end(place: dict[str, Any]) -> None:
    """Trailers and chunk extensions without end are cut long before the body's own time is over."""
    async with a_door(**place, body_timeout=NOT_THE_LIMIT, head_timeout=NOT_THE_LIMIT) as door:
        head = door.head("POST", "/messages", "Content-Type: application/json", "Transfer-Encoding: chunked")
        for start, rest in (
            (b"2\r\n{}\r\n0\r\n", b"X-Trailer: x\r\n" * 100),
            (b"2\r\n{}\r\n0\r\nX-Trailer: ", b"x" * 1000),
            (b"2;", b"x" * 1000),
        ):
            line = await door.line()
            await line.say(head + start)
            sent = await line.flood(rest, most=ENDLESS)
            assert await line.code() == (431, "head_too_large")
            assert await line.ended()
            assert sent < ENDLESS
        assert await door.works()


async def test_a_refused_caller_is_not_read_on(place: dict[str, Any]) -> None:
    """401 comes before the body, and the connection ends, however long the client goes on."""
    async with a_door(**place, body_timeout=NOT_THE_LIMIT, head_timeout=NOT_THE_LIMIT) as door:
        line = await door.line()
        await line.say(door.head("POST", "/messages", "Transfer-Encoding: chunked", key="nonsense"))

        status, headers, _ = await line.answer()
        sent = await line.flood(b"1000\r\n" + b"x" * 4096 + b"\r\n", most=ENDLESS)

        assert (status, headers["connection"]) == (401, "close")
        assert sent < ENDLESS


async def test_all_bodies_together_are_bounded(place: dict[str, Any]) -> None:
    """Half of the room is one application's, all of it everybody's: beyond is 503; the room comes back."""
    async with a_door(
        **place,
        max_body="256kB",
        bodies_in_flight="1MB",
        body_timeout=NOT_THE_LIMIT,
        head_timeout=NOT_THE_LIMIT,
    ) as door:
        other = (await door.ledger.create_key("other", scopes=DEFAULT_SCOPES, senders=[])).token
        head = ("POST", "/messages", "Content-Type: application/json", f"Content-Length: {200 * KILOBYTE}")

        async def half_a_body(key: str) -> Line:
            line = await door.line()
            await line.say(door.head(*head, key=key) + b" " * 199 * KILOBYTE)
            return line

        async def refused(key: str) -> bool:
            line = await door.line()
            await line.say(door.head(*head, key=key))
            # Not refused yet: what was held back is still being read.
            with contextlib.suppress(AssertionError):
                status, headers, body = await eventually(line._answer, within=1.0)
                return (status, json.loads(body)["code"], headers["retry-after"]) == (503, "busy", "2")
            await line.close()
            return False

        held = [await half_a_body(door.key) for _ in range(2)]
        assert await eventually(lambda: refused(door.key))
        held += [await half_a_body(other) for _ in range(2)]
        assert await eventually(lambda: refused(other))
        for line in held:
            await line.close()
        assert await eventually(lambda: _again(door, head))
        assert await door.works()


async def _again(door: Door, head: tuple[str, ...]) -> bool:
    """Say whether there is room again: the body is read, and found not to be JSON."""
    line = await door.line()
    await line.say(door.head(*head) + b" " * 200 * KILOBYTE)
    status, _, _ = await line.answer()
    return status == 400


async def test_connections_are_bounded_and_idle_ones_give_way(place: dict[str, Any]) -> None:
    """Idle connections make room for one with a request; where all are at work, a further one gets 503."""
    async with a_door(
        **place, connections=10, head_timeout=NOT_THE_LIMIT, body_timeout=NOT_THE_LIMIT
    ) as door:
        idle = [await door.line() for _ in range(30)]
        assert await door.works()
        assert await idle[0].ended()

        busy = [await door.line() for _ in range(10)]
        for line in busy:
            await line.say(
                door.head("POST", "/messages", "Content-Type: application/json", "Content-Length: 9")
            )

        async def refused() -> bool:
            line = await door.line()
            await line.say(door.head("GET", "/me"))
            status, headers, body = await line.answer()
            return (status, json.loads(body).get("code"), headers.get("retry-after")) == (503, "busy", "2")

        assert await eventually(refused)
        for line in busy:
            await line.close()
        assert await eventually(door.works)


async def test_a_local_process_cannot_pretend_to_be_another_client(place: dict[str, Any]) -> None:
    """Without trusted proxies X-Forwarded-For says nothing, from this machine either."""
    async with a_door(**place) as door:
        inside = {"networks": ["10.0.0.0/8"]}
        key = await door.ledger.create_key(
            "inside", scopes=["messages.read"], senders=[], restrictions=inside
        )
        line = await door.line()
        await line.say(door.head("GET", "/me", "X-Forwarded-For: 10.1.2.3", key=key.token))

        assert await line.code() == (403, "network_not_allowed")
