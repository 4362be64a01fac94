"""Clients of the API, cheap enough not to be what is measured.

Raw HTTP/1.1 on kept connections, requests rendered beforehand. Closed loop: each client sends its next
request when it has its answer; or paced: one after the other with a pause. A request costs this process
about 25 µs. Its answers:

    load    → seconds, requests, by_status, latencies (seconds, in the order in which they came),
              began, ended (CLOCK_MONOTONIC), cpu (seconds of this process)
    paced   → for each recipient the moments at which the request left and the answer was there
    postfix → the same through a kept SMTP session, for the comparison at idle

`prepare` (POSTs) and `prepare_reads` (GETs) render the requests of the next `load` or `paced`, so that this is in
nobody's figures.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, cast

from tests.bench import letters
from tests.bench.programs import answer_for_ever, run

_LENGTH = b"content-length: "


class Client(asyncio.Protocol):
    """One kept connection in a closed loop over a shared supply of requests."""

    def __init__(self, requests: Iterator[bytes], *, over: asyncio.Event) -> None:
        self._requests = requests
        self._over = over
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._began = 0.0
        self._answered: asyncio.Future[None] | None = None
        self.latencies: list[float] = []
        self.by_status: Counter[str] = Counter()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # uvloop's own class does not derive from it
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._over.is_set():
            self.by_status["lost"] += 1
            self._over.set()

    def go_on(self) -> None:
        """Send the next request, if there is one."""
        request = next(self._requests, None)
        if request is None:
            self._over.set()
            return
        assert self._transport is not None
        self._began = time.monotonic()
        self._transport.write(request)

    async def ask(self, request: bytes) -> tuple[float, float]:
        """Send this one; return when it left and when its answer was there."""
        assert self._transport is not None
        self._answered = asyncio.get_running_loop().create_future()
        began = time.monotonic()
        self._transport.write(request)
        await self._answered
        return began, time.monotonic()

    def data_received(self, data: bytes) -> None:
        answer = self._buffer + data if self._buffer else data
        head = answer.find(b"\r\n\r\n")
        length = answer.find(_LENGTH, 0, head)
        if head < 0 or length < 0:
            self._buffer = answer
            return
        begin = length + len(_LENGTH)
        if len(answer) < head + 4 + int(answer[begin : answer.index(b"\r", begin)]):
            self._buffer = answer
            return
        self._buffer = b""
        self.by_status[answer[9:12].decode()] += 1
        if self._answered is not None:
            self._answered.set_result(None)
            return
        self.latencies.append(time.monotonic() - self._began)
        if answer[9:10] != b"2" and b"connection: close" in answer[:head].lower():
            self._over.set()  # the others do the rest
        else:
            self.go_on()

    def close(self) -> None:
        assert self._transport is not None
        self._over.set()
        self._transport.close()


class Loader:
    """What was prepared, and the acts on it."""

    def __init__(self) -> None:
        self._requests: list[bytes] = []
        self._recipients: list[str] = []

    async def answer(self, question: dict[str, Any]) -> Any:
        """Answer one question."""
        match question.pop("op"):
            case "prepare":
                return self._prepare(**question)
            case "prepare_reads":
                self._requests = [letters.read(path, question["token"]) for path in question["paths"]]
            case "load":
                return await self._load(**question)
            case "paced":
                return await self._paced(**question)
            case "postfix":
                return await self._postfix(**question)
        return None

    def _prepare(
        self,
        *,
        token: str,
        run: str,
        count: int,
        path: str = "/messages",
        batch: int = 1,
        key: bool = True,
        repeat: int = 1,
        routes: list[str] | None = None,
        **changes: Any,
    ) -> int:
        """Render `count` requests, each to be sent `repeat` times; with `routes` these take turns."""
        self._requests = repeat * [
            letters.request(
                path,
                token,
                number,
                run=run,
                batch=batch,
                key=key,
                **({"route": routes[number % len(routes)]} if routes else {}),
                **changes,
            )
            for number in range(count)
        ]
        self._recipients = [f"{run}.{number}@example.com" for number in range(count)]
        return count

    async def _load(self, *, port: int, clients: int) -> dict[str, Any]:
        supply = iter(self._requests)
        over = [asyncio.Event() for _ in range(clients)]
        connected = [await self._connect(port, supply, each) for each in over]
        cpu, began = time.process_time(), time.monotonic()
        for client in connected:
            client.go_on()
        for each in over:
            await each.wait()
        ended = time.monotonic()
        cpu = time.process_time() - cpu
        for client in connected:
            client.close()
        latencies = [latency for client in connected for latency in client.latencies]
        return {
            "seconds": ended - began,
            "requests": len(self._requests),
            "by_status": dict(sum((client.by_status for client in connected), Counter[str]())),
            "latencies": latencies,
            "began": began,
            "ended": ended,
            "cpu": cpu,
        }

    async def _connect(self, port: int, supply: Iterator[bytes], over: asyncio.Event) -> Client:
        _, client = await asyncio.get_running_loop().create_connection(
            lambda: Client(supply, over=over), "127.0.0.1", port
        )
        return client

    async def _paced(self, *, port: int, pause: float) -> list[tuple[str, float, float]]:
        client = await self._connect(port, iter(()), asyncio.Event())
        times = []
        for recipient, request in zip(self._recipients, self._requests, strict=True):
            times.append((recipient, *await client.ask(request)))
            await asyncio.sleep(pause)
        client.close()
        assert set(client.by_status) <= {"202"}, client.by_status
        return times

    async def _postfix(
        self, *, port: int, run: str, count: int, pause: float
    ) -> list[tuple[str, float, float]]:
        """Send through one kept SMTP session, with MAIL, RCPT and DATA in one segment."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        content = letters.octets() + b".\r\n"
        await _reply(reader)
        writer.write(b"EHLO bench.contoso.com\r\n")
        await _reply(reader)
        times = []
        for number in range(count):
            recipient = f"{run}.{number}@example.com"
            began = time.monotonic()
            writer.write(f"MAIL FROM:<noreply@contoso.com>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n".encode())
            for _ in range(3):
                await _reply(reader)
            writer.write(content)
            await _reply(reader)
            times.append((recipient, began, time.monotonic()))
            await asyncio.sleep(pause)
        writer.close()
        return times


async def _reply(reader: asyncio.StreamReader) -> bytes:
    while True:
        line = await reader.readline()
        assert line[:1] in b"23", line
        if line[3:4] == b" ":
            return line


if __name__ == "__main__":
    run(answer_for_ever({}, Loader().answer))
