"""A small HTTP listener: /livez, /readyz and /metrics on a port of their own.

A worker serves nothing else, so it needs no web framework in its memory; an API opens the same one where its
figures are not to be had on its public port. GET and HEAD, one request a connection, a few seconds for each, and
not many at a time: who asks is a kubelet or Prometheus. Nothing of a request is ever repeated.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

log = structlog.get_logger()

#: Seconds for a request's head, and for all of it.
_HEAD, _WHOLE = 2.0, 10.0

#: Octets of a head, and connections at a time.
_HEAD_OCTETS, _CONNECTIONS = 8 * 1024, 32

_JSON = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a path answers."""

    status: int
    content: bytes
    content_type: str

    @classmethod
    def json(cls, value: object, *, status: int = 200) -> "Answer":
        return cls(status=status, content=json.dumps(value).encode(), content_type=_JSON)


#: Gets the Accept header.
Endpoint = Callable[[str], Awaitable[Answer]]

_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Service Unavailable",
}


@asynccontextmanager
async def listening(endpoints: Mapping[str, Endpoint], *, host: str, port: int) -> AsyncIterator[int]:
    """Answer at these paths until the end; gives the port. Raises OSError where it cannot be had."""
    server = _Listener(endpoints)
    opened = await asyncio.start_server(server.connected, host, port, limit=_HEAD_OCTETS)
    try:
        found: int = opened.sockets[0].getsockname()[1]
        log.info("listener.starting", host=host, port=found)
        yield found
    finally:
        opened.close()
        await opened.wait_closed()


class _Listener:
    def __init__(self, endpoints: Mapping[str, Endpoint]) -> None:
        self._endpoints = endpoints
        self._connections = 0

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        self._connections += 1
        try:
            if self._connections <= _CONNECTIONS:
                async with asyncio.timeout(_WHOLE):
                    await self._serve(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # nobody who waits for an answer
        except Exception:
            log.exception("listener.bug")
        finally:
            self._connections -= 1
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(_HEAD):
            head = await reader.readuntil(b"\r\n\r\n")
        method, answer = await self._answer(head)
        writer.write(
            f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}\r\n"
            f"Content-Type: {answer.content_type}\r\nContent-Length: {len(answer.content)}\r\n"
            "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n".encode(
                "ascii"
            )
        )
        if method != "HEAD":
            writer.write(answer.content)
        await writer.drain()

    async def _answer(self, head: bytes) -> tuple[str, Answer]:
        first, *fields = head.decode("latin-1").split("\r\n")
        match first.split(" "):
            case [method, target, version] if version.startswith("HTTP/1."):
                pass
            case _:
                return "", Answer.json({"status": "bad request"}, status=400)
        if method not in {"GET", "HEAD"}:
            return method, Answer.json({"status": "method not allowed"}, status=405)
        endpoint = self._endpoints.get(target.partition("?")[0])
        if endpoint is None:
            return method, Answer.json({"status": "not found"}, status=404)
        names = (field.partition(":") for field in fields)
        accept = ",".join(value.strip() for name, _, value in names if name.strip().lower() == "accept")
        return method, await endpoint(accept)
