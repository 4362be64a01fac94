"""Streams: the feed over Server-Sent Events (WHATWG HTML §9.2), for as many clients as a process can bear.

One task asks the ledger about once a second, for all applications that have a stream at once, which event is
the last of each feed; it wakes the streams whose feed has moved. Each stream then reads on from its own place, so a
slow one slows nobody, and nothing is kept for it: what it does not take stays in the ledger. A client that
takes nothing at all is given up by the connection (`connections`).

Every event carries its id, and a browser sends the last one back in `Last-Event-ID` when it comes again. Where
events were passed over because their type was not wanted, their id is told without an event, so that a client
that comes again starts behind them. A comment goes out every 15 s, which keeps proxies from closing.

A stream ends when its client goes, when the caller may no longer read, and at once when the process stops.
"""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.ledger import Ledger, LedgerUnavailable
from service.ledger.feed import Page
from service.ledger.webhook_deliveries import Show
from service.submission.problems import Problem

log = structlog.get_logger()

#: Streams at a time, of this process and of one application in it.
_MOST, _MOST_OF_AN_APPLICATION = 200, 20

#: Seconds between two looks for all streams, and between two comments of one.
_LOOK, _HEARTBEAT = 1.0, 15.0

#: How long a client waits before it comes again, in milliseconds.
_COME_AGAIN = 3000

#: Events that are read at once.
_PAGE = 100

#: Seconds that a stream gets to end by itself.
_GRACE = 1.0


@dataclass(eq=False, slots=True)
class _Listener:
    application: str
    moved: asyncio.Event = field(default_factory=asyncio.Event)


class Streams:
    """All streams of a process."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._listeners: set[_Listener] = set()
        self._looking: asyncio.Task[None] | None = None
        self.closing = asyncio.Event()

    @property
    def open(self) -> int:
        """How many there are now."""
        return len(self._listeners)

    def close(self) -> None:
        """End every stream; no new one begins."""
        self.closing.set()

    async def head(self, application: str) -> int | None:
        """Say which event is the last one of an application's feed."""
        return (await self._ledger.feed.heads([application])).get(application)

    async def after(self, application: str, cursor: int | None, types: Collection[str] | None) -> Page:
        """Read what a stream tells next."""
        return await self._ledger.feed.after(application, cursor, limit=_PAGE, types=types)

    def demand_room(self, application: str) -> None:
        """Raise a 429 problem where there are as many streams as there may be."""
        count = Counter(each.application for each in self._listeners)
        if count[application] >= _MOST_OF_AN_APPLICATION or len(self._listeners) >= _MOST:
            raise Problem(
                status=429,
                code="too_many_streams",
                detail="There are as many streams of events as there may be; poll `GET /events`, or share one.",
                retry_after=30,
            )

    @contextlib.contextmanager
    def listen(self, application: str) -> Iterator[asyncio.Event]:
        """Give what is set whenever the application's feed has moved; raises a 429 problem."""
        self.demand_room(application)
        listener = _Listener(application)
        self._listeners.add(listener)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_while_wanted())
        try:
            yield listener.moved
        finally:
            self._listeners.discard(listener)

    async def _look_while_wanted(self) -> None:
        heads: dict[str, int] = {}
        while self._listeners and not self.closing.is_set():
            wanted = {each.application for each in self._listeners}
            try:
                found = await self._ledger.feed.heads(wanted)
            except LedgerUnavailable:
                found = heads
            except Exception:
                log.exception("streams.bug")
                found = heads
            for listener in self._listeners:
                if found.get(listener.application) != heads.get(listener.application):
                    listener.moved.set()
            heads = found
            await asyncio.sleep(_LOOK)


class EventStream(Response):
    """One stream, as an answer."""

    media_type = "text/event-stream"

    def __init__(
        self,
        streams: Streams,
        *,
        application: str,
        cursor: int | None,
        types: Collection[str] | None,
        allowed: Callable[[], Awaitable[None]],
        show: Show,
    ) -> None:
        """Tell what comes behind `cursor`; `show` makes the object of an event.

        `allowed` raises a Problem when the caller may no longer read.
        """
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._streams = streams
        self._application = application
        self._cursor = cursor
        self._types = types
        self._allowed = allowed
        self._show = show

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the client goes, the caller is shut out, or the process stops."""
        with self._streams.listen(self._application) as moved:
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            sending = asyncio.create_task(self._send_all(send, moved))
            gone = asyncio.create_task(_until_gone(receive))
            closing = asyncio.create_task(self._streams.closing.wait())
            try:
                await asyncio.wait({sending, gone, closing}, return_when=asyncio.FIRST_COMPLETED)
                if closing.done():
                    moved.set()
                    await asyncio.wait({sending}, timeout=_GRACE)
            finally:
                for task in (sending, gone, closing):
                    task.cancel()
                await asyncio.gather(sending, gone, closing, return_exceptions=True)

    async def _send_all(self, send: Send, moved: asyncio.Event) -> None:
        with contextlib.suppress(OSError):  # the client is gone
            await self._send(send, f"retry: {_COME_AGAIN}\n\n")
            async for text in self._told(moved):
                await self._send(send, text)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    @staticmethod
    async def _send(send: Send, text: str) -> None:
        await send({"type": "http.response.body", "body": text.encode(), "more_body": True})

    async def _told(self, moved: asyncio.Event) -> AsyncIterator[str]:
        """Give what the stream says, piece by piece; what there is already comes at once."""
        more = True
        while not self._streams.closing.is_set():
            moved.clear()
            try:
                await self._allowed()
                page = await self._streams.after(self._application, self._cursor, self._types)
            except Problem:
                return
            except LedgerUnavailable:
                more = False  # the stream waits, as everything does
            else:
                if text := self._written(page):
                    yield text
                self._cursor, more = page.next, page.more
            if more:
                continue
            try:
                async with asyncio.timeout(_HEARTBEAT):
                    await moved.wait()
            except TimeoutError:
                yield ": still here\n\n"

    def _written(self, page: Page) -> str:
        """Write a page as events, and the id of the last one that was looked at."""
        parts = [_event(self._show(each)) for each in page.events]
        last = page.events[-1].id if page.events else self._cursor
        if page.next != last:
            parts.append(f"id: evt_{page.next}\n\n")
        return "".join(parts)


def _event(event: Mapping[str, Any]) -> str:
    data = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
    return f"id: {event['id']}\nevent: {event['type']}\ndata: {data}\n\n"


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
