"""`Receiver`: an HTTP or HTTPS server on a real socket of 127.0.0.1, as applications run them for webhooks.

    async with Receiver() as receiver:
        receiver.answers(500, 500, 200)      # then 200 for ever
        ...
        await receiver.has(3)
        receiver.calls[0].body

`stalls` makes it take requests and never answer. With `tls` it speaks HTTPS with that context.
"""

import asyncio
import contextlib
import ssl
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import standardwebhooks

from tests.waiting import eventually


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request, as it came."""

    line: str
    headers: dict[str, str]  # names in lower case
    body: str
    at: float

    def verified(self, secret: str) -> Any:
        """Verify it as applications do, and return the payload; raises WebhookVerificationError."""
        return standardwebhooks.Webhook(secret).verify(self.body, self.headers)


class Receiver:
    """Takes what is posted, and answers as it was told."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self.calls: list[Call] = []
        self.stalls = False
        self.headers: dict[str, str] = {}
        self.open = 0  # requests that wait for an answer
        self.most_open = 0
        self.port = 0
        self._tls = tls
        self._statuses: list[int] = []
        self._always = 200
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}/hook?token=t"

    def answers(self, *statuses: int, then: int = 200, **headers: str) -> None:
        """Answer with these, one after the other, and then always with `then`."""
        self._statuses, self._always = list(statuses), then
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    async def has(self, count: int, *, within: float = 20.0) -> list[Call]:
        """Wait for so many calls."""
        await eventually(lambda: len(self.calls) >= count, within=within)
        return self.calls

    def hangs_up(self) -> None:
        """Cut every connection."""
        for writer in self._writers:
            writer.transport.abort()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, trouble: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.hangs_up()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            fields = (line.partition(": ") for line in head[1:] if line)
            headers = {name.lower(): value for name, _, value in fields}
            body = (await reader.readexactly(int(headers["content-length"]))).decode()
            self.calls.append(Call(line=head[0], headers=headers, body=body, at=time.monotonic()))
            self.open += 1
            self.most_open = max(self.most_open, self.open)
            try:
                if self.stalls:
                    await reader.read()  # until the other side gives up
                    return
                status = self._statuses.pop(0) if self._statuses else self._always
                more = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
                writer.write(f"HTTP/1.1 {status} So\r\nContent-Length: 2\r\n{more}\r\nok".encode())
                await writer.drain()
            finally:
                self.open -= 1
        writer.close()
