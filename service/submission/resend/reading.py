"""Read emails: the messages of the ledger, in Resend's words.

One email has its HTML and text too. They are content: a key without the scope `content.read` gets null, and
each reading of them is in the audit. The message is taken apart in a thread, because it may be large.
"""

import asyncio
import contextlib

from fastapi import Request
from fastapi.responses import JSONResponse, Response

from service.ledger.finding import Bounds, Filters
from service.ledger.history import MessageView
from service.ledger.keys import Key
from service.ledger.sealing import CannotOpen
from service.mail.parts import take_apart
from service.submission.door import Budget, Door
from service.submission.request import query
from service.submission.resend import view
from service.submission.resend.view import Texts
from service.submission.who.callers import sees

#: Messages that are taken apart at the same time in one process.
_AT_ONCE = 2


class Reading:
    """The endpoints that read emails."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def emails(self, request: Request) -> Response:
        """List emails, the newest first; `GET /messages` has filters."""
        budget = self._door.budget()
        key = await self._door.caller(request, "messages.read", budget)
        page = query.page(query.parameters(request, {"limit", "after", "before"}), "msg")
        wanted = Filters(application=sees(key))
        bounds = Bounds(limit=page.limit, after=page.after, before=page.before)
        found = await budget.spend(self._door.ledger.finding.find(wanted, bounds))
        shown = query.listed([view.listed(each) for each in found], page)
        return JSONResponse({"object": "list", "has_more": shown["has_more"], "data": shown["data"]})

    async def email(self, request: Request, email_id: str) -> Response:
        """See an email, its last event, and with the scope `content.read` what it says."""
        budget = self._door.budget()
        key = await self._door.caller(request, "messages.read", budget)
        query.parameters(request, ())
        found = await self._door.message(email_id, key, budget)
        texts = await self._texts(request, found, key, budget)
        return JSONResponse(view.email(found, texts))

    async def _texts(self, request: Request, found: MessageView, key: Key, budget: Budget) -> Texts:
        if "content.read" not in key.scopes:
            return Texts()
        budget.extend(found.size / 5_000_000)
        async with self._places:
            octets = None
            with contextlib.suppress(CannotOpen):
                octets = await budget.spend(
                    self._door.ledger.contents.read(
                        found.id, self._door.actor(request, key), details={"form": "email"}
                    )
                )
            if octets is None:
                return Texts()  # no longer kept, or sealed with a key that is not here
            parts = await asyncio.to_thread(take_apart, octets)
        return Texts(html=parts.html, text=parts.text)
