"""The bodies of requests: read within limits of size and time, and bounded in memory together.

A body counts from its first octet until its request has been answered, because that is how long it is
held. Over `together` a request is refused with 503 instead of being read on; nothing waits while it
holds memory, so the bodies that are being read always come to an end. One application may hold half of
the room, so that a loud one leaves the door open for the others.

A connection whose body was not read to its end is closed after the answer: the rest of the body could
be endless, and would have to be read before the next request.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.submission.problems import Problem
from service.submission.request.headers import given

#: A body that was not wanted is read over where it is no longer than this, and the connection stays.
_READ_OVER = 64 * 1024

_CLOSE = {"Connection": "close"}


class Bodies:
    """The room for the bodies of one process."""

    def __init__(self, *, each: int, together: int, seconds: float) -> None:
        """`each` and `together` are octets; a body has `seconds` to arrive."""
        self._each = each
        self._together = max(together, each)
        self._share = max(self._together // 2, each)
        self._seconds = seconds
        self._held: Counter[str] = Counter()  # octets, by application

    @property
    def in_flight(self) -> int:
        """The octets that are held now."""
        return self._held.total()

    async def read(self, request: Request) -> bytes:
        """Read a body; raises 400, 408, 413 and 503 problems."""
        state = request.scope.setdefault("state", {})
        owner = str(state.get("application", ""))
        announced = next(iter(given(request, b"content-length")), "")
        if announced.isdigit():
            self._demand_room(owner, int(announced[:15]), already=0)
        body = bytearray()
        try:
            async with asyncio.timeout(self._seconds):
                while True:
                    message = await request.receive()
                    if message["type"] == "http.disconnect":
                        raise _cut_off()
                    piece = message.get("body", b"")
                    self._demand_room(owner, len(piece), already=len(body))
                    self._held[owner] += len(piece)
                    state["body"] = (owner, state.get("body", (owner, 0))[1] + len(piece))
                    if not message.get("more_body", False):
                        return bytes(body + piece) if body else piece
                    body += piece
        except TimeoutError:
            raise Problem(
                status=408,
                code="request_timeout",
                detail=f"The body did not arrive within {self._seconds:g} seconds.",
                headers=_CLOSE,
            ) from None

    @contextmanager
    def composed(self, owner: str, octets: int, *, of: int) -> Iterator[None]:
        """Count what was made of a body of `of` octets, too, as long as it is held.

        Raises a 503 problem where others leave no room for it. A request that is alone always has it.
        """
        others, held = self.in_flight - of, self._held[owner]
        if (others > 0 and self.in_flight + octets > self._together) or (
            held > of and held + octets > self._share
        ):
            raise _busy()
        self._held[owner] += octets
        try:
            yield
        finally:
            self._give_back(owner, octets)

    def release(self, scope: Scope) -> None:
        """Give back what a request held; it has been answered."""
        self._give_back(*scope.get("state", {}).pop("body", ("", 0)))

    def _give_back(self, owner: str, octets: int) -> None:
        self._held[owner] -= octets
        if self._held[owner] <= 0:
            del self._held[owner]

    def _demand_room(self, owner: str, octets: int, *, already: int) -> None:
        if already + octets > self._each:
            raise Problem(
                status=413,
                code="request_too_large",
                detail=f"A request may have {self._each:,} octets.",
                headers=_CLOSE,
            )
        if self._held[owner] + octets > self._share or self.in_flight + octets > self._together:
            raise _busy()


def _busy() -> Problem:
    return Problem(
        status=503,
        code="busy",
        detail="Too many large requests are in hand at the moment. Send this one again in a moment.",
        retry_after=2,
        headers=_CLOSE,
    )


def _cut_off() -> Problem:
    return Problem(status=400, code="disconnected", detail="The request ended in the middle.")


class BodiesInFlight:
    """The middleware that ends with each request what its body held, and the connection where it must."""

    def __init__(self, app: ASGIApp, *, bodies: Bodies) -> None:
        self._app = app
        self._bodies = bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        unread = _is_long(scope)

        async def noting() -> Message:
            nonlocal unread
            message = await receive()
            if not message.get("more_body", False):
                unread = False
            return message

        async def closing(message: Message) -> None:
            if message["type"] == "http.response.start" and unread:
                others = [each for each in message["headers"] if each[0].lower() != b"connection"]
                message["headers"] = [*others, (b"connection", b"close")]
            await send(message)

        try:
            await self._app(scope, noting, closing)
        finally:
            self._bodies.release(scope)


def _is_long(scope: Scope) -> bool:
    """Say whether the request has a body that is long, or of which nobody knows how long it is."""
    headers = dict(scope["headers"])
    if b"transfer-encoding" in headers:
        return True
    announced = headers.get(b"content-length", b"0")
    return not announced.isdigit() or len(announced) > 15 or int(announced) > _READ_OVER
