"""What keeps an open page up to date: a stream of Server-Sent Events that says "look again" (WHATWG HTML §9.2).

A stream carries no content: the page asks for itself anew, as whoever is signed in, and changes what has changed. What is
looked at for a stream is looked at once for all who look at the same (`_Watch`), and costs the ledger one short query
in a while, however many tabs are open. Streams are bounded for a process and for a sign-in; a page whose stream is refused
works without it. The page says in the stream's address what it shows (`seen`), so that nothing is missed between the two. A stream ends when the tab goes or sleeps, when the sign-in ends, after an hour (the script comes again), and at once when
the process stops.
"""

import asyncio
import contextlib
import hashlib
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable, Iterator
from dataclasses import dataclass, field

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.console.asking import Answer, Api, Refused
from service.console.pages import HEADERS
from service.console.who import NotSignedIn, SignedIn, Who
from service.ledger import Ledger, LedgerUnavailable

log = structlog.get_logger()

#: Streams at a time, of this process and of one sign-in in it.
_MOST, _MOST_OF_ONE = 200, 10

#: Seconds between two looks at a message, and at all lanes.
_LOOK, _LOOK_AT_LANES = 1.0, 3.0

#: Seconds between two comments, which keep proxies from closing; the sign-in is looked at then.
_HEARTBEAT = 15.0

#: Seconds that a stream lasts at the most.
_LASTS = 3600.0

_COME_AGAIN = 3000  # milliseconds

#: Seconds that a look gets to end by itself.
_GRACE = 2.0

Look = Callable[[], Awaitable[str]]


@dataclass(eq=False, slots=True)
class _Listener:
    known: str | None  # what its page shows; None: whatever there is when it begins
    moved: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(eq=False, slots=True)
class _Watch:
    """One thing that is looked at for some streams."""

    listeners: set[_Listener] = field(default_factory=set)
    over: asyncio.Event = field(default_factory=asyncio.Event)  # nobody looks any more
    task: "asyncio.Task[None] | None" = None


class Live:
    """All streams of a process."""

    def __init__(self, ledger: Ledger, api: Api, who: Who, *, closing: asyncio.Event) -> None:
        """`closing` is set when the process stops."""
        self._ledger = ledger
        self._api = api
        self._who = who
        self._closing = closing
        self._watches: dict[Hashable, _Watch] = {}
        self._open: Counter[str] = Counter()  # by sign-in
        self._looking: set[asyncio.Task[None]] = set()

    async def aclose(self) -> None:
        """End what is looked at; the streams have ended before."""
        for watch in self._watches.values():
            watch.over.set()
        if self._looking:
            await asyncio.wait(self._looking, timeout=_GRACE)

    async def message(self, request: Request, who: SignedIn) -> Response:
        """Follow a message."""
        message_id = request.path_params["message_id"]
        await self._api.get(request, who.key, "messages", message_id)  # is it theirs?

        async def look() -> str:
            return await self._ledger.explaining.pulse(message_id)

        return self._stream(who, request, ("message", message_id), look, every=_LOOK)

    async def lanes(self, request: Request, who: SignedIn) -> Response:
        """Follow the lanes; what is looked at is the same for all who see as much."""

        async def look() -> str:
            return mark(await self._api.ask(request, who.key, "GET", "lanes"))

        await look()  # may they?
        return self._stream(who, request, ("lanes", who.key.sees_everything), look, every=_LOOK_AT_LANES)

    def _stream(
        self, who: SignedIn, request: Request, name: Hashable, look: Look, *, every: float
    ) -> Response:
        if self._open.total() >= _MOST or self._open[who.id] >= _MOST_OF_ONE:
            # 204 is how a server tells a browser not to come again by itself.
            return Response(status_code=204, headers=HEADERS)

        async def allowed() -> bool:
            try:
                await self._who.of(request)
            except NotSignedIn:
                return False
            except LedgerUnavailable:
                pass  # the stream waits, as everything does
            return True

        listener = _Listener(request.query_params.get("seen"))
        told = self._told(who.id, name, listener, look, every=every, allowed=allowed)
        return _Stream(told, closing=self._closing)

    async def _told(
        self,
        sign_in: str,
        name: Hashable,
        listener: _Listener,
        look: Look,
        *,
        every: float,
        allowed: Callable[[], Awaitable[bool]],
    ) -> AsyncGenerator[str, None]:
        """Give what a stream says, piece by piece."""
        self._open[sign_in] += 1
        try:
            with self._watched(name, listener, look, every=every):
                yield f"retry: {_COME_AGAIN}\n\n"
                end = time.monotonic() + _LASTS
                while time.monotonic() < end:
                    try:
                        async with asyncio.timeout(_HEARTBEAT):
                            await listener.moved.wait()
                    except TimeoutError:
                        if not await allowed():
                            return
                        yield ": still here\n\n"
                    else:
                        listener.moved.clear()
                        yield "event: changed\ndata: 1\n\n"
        finally:
            self._open[sign_in] -= 1
            if not self._open[sign_in]:
                del self._open[sign_in]

    @contextlib.contextmanager
    def _watched(self, name: Hashable, listener: _Listener, look: Look, *, every: float) -> Iterator[None]:
        watch = self._watches.setdefault(name, _Watch())
        watch.listeners.add(listener)
        if watch.task is None:
            watch.task = asyncio.create_task(self._look_on(watch, look, every=every))
            self._looking.add(watch.task)
            watch.task.add_done_callback(self._looking.discard)
        try:
            yield
        finally:
            watch.listeners.discard(listener)
            if not watch.listeners:
                watch.over.set()  # not cancelled: a query that is cut off costs its connection
                self._watches.pop(name, None)

    async def _look_on(self, watch: _Watch, look: Look, *, every: float) -> None:
        while not watch.over.is_set():
            try:
                _tell(watch, await look())
            except (LedgerUnavailable, Refused):
                pass  # whoever needs it hears of it
            except Exception:
                log.exception("live.bug")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every):
                    await watch.over.wait()


def _tell(watch: _Watch, found: str) -> None:
    """Wake those whose page shows something else."""
    for listener in watch.listeners:
        if listener.known is not None and listener.known != found:
            listener.moved.set()
        listener.known = found


def mark(answer: Answer) -> str:
    """Say in a word what an answer says: another word means that it has changed."""
    return hashlib.sha256(answer.body).hexdigest()[:16]


class _Stream(Response):
    """One stream, as an answer."""

    media_type = "text/event-stream"

    def __init__(self, told: AsyncGenerator[str, None], *, closing: asyncio.Event) -> None:
        super().__init__(headers={**HEADERS, "Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._told = told
        self._closing = closing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the client goes, the stream ends, or the process stops."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        tasks = [
            asyncio.create_task(self._send(send)),
            asyncio.create_task(_until_gone(receive)),
            asyncio.create_task(self._closing.wait()),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._told.aclose()
        with contextlib.suppress(OSError):  # the client is gone
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, send: Send) -> None:
        with contextlib.suppress(OSError):
            async for text in self._told:
                await send({"type": "http.response.body", "body": text.encode(), "more_body": True})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
