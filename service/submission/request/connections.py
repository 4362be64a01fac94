"""The connections of the HTTP door: how many there are, and how long they may take.

uvicorn leaves to others what belongs in front of a server: it waits for the head of a request for ever,
takes a head or a trailer of any size, and holds as many connections as come. Postroom may stand without
a proxy in front of it, so this protocol, uvicorn's own over httptools, bounds each of them:

- A head has `head_seconds` to arrive, from its first octet; a connection that says nothing has them too.
  Then the answer is 408, and the end. An idle connection ends after uvicorn's keep-alive time.
- A head has `head_octets`, and so has everything in a chunked body that is not content: 431. Trailers
  are read over; uvicorn would add them to the headers of a request that was judged already.
- There are `connections` at the most. A further one takes the place of the one that has waited longest
  for a request; where all are at work it gets 503.
- A client that does not read its answer is given up after STALL_SECONDS.
- Where an answer leaves before the body was read, the rest is read over for a moment before the end:
  a reset would destroy the answer on its way (RFC 9112 §9.6).
"""

import asyncio
import json
from dataclasses import dataclass
from typing import Any, ClassVar

import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.ledger.ids import new_id
from service.submission.problems import Problem
from service.telemetry import figures

#: A client that takes nothing of its answer for so long is not there any more.
STALL_SECONDS = 30.0

#: How long the rest of an unwanted body is read over, and how long a closed connection may take to end.
LINGER_SECONDS = 1.0
END_SECONDS = 10.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    connections: int  # at a time
    head_seconds: float  # that a request's head may take to arrive
    head_octets: int = 64 * 1024


class Connection(HttpToolsProtocol):
    """One connection; `bounded` makes the class with the limits of this process."""

    limits: ClassVar[ConnectionLimits]
    waiting: ClassVar[dict["Connection", None]]  # for a request; the longest first

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_refused = False
        self._has_refused = False  # a request, in the server's own name
        self._is_lingering = False
        self._head_done = False
        self._octets = 0  # of the head so far, or since the last content of the body
        self._fields = 0  # octets of the target and the fields of the head so far
        self._deadline: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None

    # -- the connection --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Take the connection, or refuse it where there are too many."""
        if len(self.connections) >= self.limits.connections and not self._make_room():
            self._is_refused = True
            _log.warning("connection.refused", connections=len(self.connections))
            problem = Problem(
                status=503, code="busy", detail="There are too many connections.", retry_after=2
            )
            transport.write(_written(problem))
            transport.close()
            return
        super().connection_made(_Transport(transport, self))  # type: ignore[arg-type]  # all that uvicorn uses of it
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._is_refused:
            super().connection_lost(exc)
        self.waiting.pop(self, None)
        self._set_deadline(None)
        self._set_stall(None)

    def data_received(self, data: bytes) -> None:
        if self._is_refused or self._is_lingering:
            return
        self._octets += len(data)
        super().data_received(data)
        if self._octets > self.limits.head_octets and not self.transport.is_closing():
            self._refuse(_head_too_large())

    def pause_writing(self) -> None:
        super().pause_writing()
        self._set_stall(self.loop.call_later(STALL_SECONDS, self._abort))

    def resume_writing(self) -> None:
        self._set_stall(None)
        super().resume_writing()

    # -- the request -----------------------------------------------------------------------

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_done = False
        self._fields = 0
        self._set_deadline(self.loop.call_later(self.limits.head_seconds, self._head_is_late))

    def on_url(self, url: bytes) -> None:
        self._fields += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_done:
            self._fields += len(name) + len(value) + len(b": \r\n")
            if self._fields > self.limits.head_octets:
                raise _TooLarge  # the parser ends with it: a head that came in one piece is no smaller
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._head_done = True
        self._octets = 0
        self.waiting.pop(self, None)
        self._set_deadline(None)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._octets = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._octets = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._is_at_work():
            self._await_head()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, as everything is refused here; or a head that the parser ended with."""
        if self._fields > self.limits.head_octets:
            self._refuse(_head_too_large())
            return
        self._refuse(Problem(status=400, code="bad_request", detail="This is not an HTTP request."))

    # -- what ends it ----------------------------------------------------------------------

    def let_go(self, transport: asyncio.Transport) -> None:
        """Close the connection in order: what was written still arrives."""
        self.waiting.pop(self, None)
        unread = self.cycle is not None and self.cycle.more_body
        if (unread or self._has_refused) and not transport.is_closing() and transport.can_write_eof():
            self._is_lingering = True
            transport.write_eof()
            self.flow.resume_reading()
            self._set_deadline(self.loop.call_later(LINGER_SECONDS, transport.abort))
        else:
            transport.close()
            self._set_deadline(self.loop.call_later(END_SECONDS, transport.abort))

    def _await_head(self) -> None:
        if self.transport.is_closing():
            return
        self._octets = 0
        self.waiting.pop(self, None)
        self.waiting[self] = None
        self._set_deadline(self.loop.call_later(self.limits.head_seconds, self._head_is_late))

    def _is_at_work(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _make_room(self) -> bool:
        """End the connection that has waited longest for a request; False where none waits."""
        for longest in self.waiting:
            longest._abort()  # noqa: SLF001  # one of us
            self.connections.discard(longest)
            return True
        return False

    def _head_is_late(self) -> None:
        if self._is_at_work():  # a pipelined request comes slowly, while the one before it is answered
            self._set_deadline(self.loop.call_later(self.limits.head_seconds, self._head_is_late))
        elif self._octets:
            detail = f"The head did not arrive within {self.limits.head_seconds:g} seconds."
            self._refuse(Problem(status=408, code="request_timeout", detail=detail))
        else:
            self.transport.close()

    def _refuse(self, problem: Problem) -> None:
        """Answer in the server's own name, and close."""
        if self._is_at_work() and self.cycle.response_started:
            self._abort()  # in the middle of another answer
            return
        self._has_refused = True
        self.transport.write(_written(problem))
        self.transport.close()

    def _abort(self) -> None:
        self.waiting.pop(self, None)
        self.transport.abort()

    def _set_deadline(self, timer: asyncio.TimerHandle | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = timer

    def _set_stall(self, timer: asyncio.TimerHandle | None) -> None:
        if self._stall is not None:
            self._stall.cancel()
        self._stall = timer


class _TooLarge(Exception):
    """The head of a request is larger than it may be."""


def _head_too_large() -> Problem:
    return Problem(status=431, code="head_too_large", detail="The head of this request is too large.")


class _Transport:
    """The transport as uvicorn sees it: it is closed in our way."""

    def __init__(self, transport: asyncio.Transport, connection: Connection) -> None:
        self._transport = transport
        self._connection = connection
        self._is_closed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, octets: bytes) -> None:
        if not self._is_closed:
            self._transport.write(octets)

    def is_closing(self) -> bool:
        return self._is_closed or self._transport.is_closing()

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._connection.let_go(self._transport)


def bounded(limits: ConnectionLimits) -> type[Connection]:
    """Make the protocol for `uvicorn.Config(http=…)`."""
    return type("BoundedConnection", (Connection,), {"limits": limits, "waiting": {}})


def _written(problem: Problem) -> bytes:
    """Write a problem as a whole answer."""
    figures.REFUSED.add(problem.status, problem.code)
    request_id = new_id("req")
    body = json.dumps(problem.body(request_id)).encode()
    retry_after = f"Retry-After: {problem.retry_after}\r\n" if problem.retry_after is not None else ""
    head = (
        f"HTTP/1.1 {problem.status} {problem.code.replace('_', ' ').capitalize()}\r\n"
        f"Content-Type: application/problem+json\r\nContent-Length: {len(body)}\r\n{retry_after}"
        f"X-Request-Id: {request_id}\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode("ascii") + body
