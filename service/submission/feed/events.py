"""The feed of events: page by page, or as a stream.

`GET /events` gives the oldest events first. `next` is where to go on, also when there is no more at the moment: a
poller keeps it and asks with `after` again, and misses nothing (`service.ledger.feed`). With `Accept:
text/event-stream` the same feed comes as Server-Sent Events, from the present unless `Last-Event-ID` or `after`
says from where; `evt_0` is the beginning.
"""

import re
from collections.abc import Collection, Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from service.ledger.feed import UnknownEvent
from service.ledger.keys import Key
from service.ledger.states import Status
from service.submission import models, representation
from service.submission.door import Budget, Door, guarded, refusals
from service.submission.feed.streams import EventStream
from service.submission.problems import FieldError, Problem, invalid, not_ones_own
from service.submission.request import query
from service.submission.who.callers import sees_everything

_CURSOR = re.compile(r"evt_(0|[1-9][0-9]{0,17})")

_TYPES = {f"recipient.{status}": str(status) for status in Status}

_PARAMETERS: tuple[dict[str, Any], ...] = (
    {
        "name": "after",
        "in": "query",
        "required": False,
        "schema": {"type": "string", "pattern": "^evt_[0-9]+$"},
        "description": "The id of an event: the feed goes on behind it. From the beginning without it; a "
        "stream begins at the present without it, and at the beginning with `evt_0`.",
    },
    query.PAGE_PARAMETERS[0],  # limit
    {
        "name": "type",
        "in": "query",
        "required": False,
        "explode": True,
        "schema": {"type": "array", "items": {"type": "string", "enum": sorted(_TYPES)}},
        "description": "Types that are wanted, repeated or with commas between them; all without it.",
    },
    {
        "name": "application",
        "in": "query",
        "required": False,
        "schema": {"type": "string"},
        "description": "For operators: the feed of this application, instead of one's own.",
    },
    {
        "name": "Last-Event-ID",
        "in": "header",
        "required": False,
        "schema": {"type": "string"},
        "description": "Of a stream that was interrupted: goes over `after`.",
    },
)


def endpoints(door: Door) -> APIRouter:
    """Make the endpoint of the feed."""
    router = APIRouter()
    router.add_api_route(
        "/events",
        _Events(door).feed,
        methods=["GET"],
        tags=["events"],
        summary="Read the feed",
        operation_id="list_events",
        responses={
            200: {
                "model": models.EventListOut,
                "content": {"text/event-stream": {"schema": {"type": "string"}}},
            },
            **refusals(422),
        },
        **guarded(parameters=list(_PARAMETERS)),
    )
    return router


class _Events:
    def __init__(self, door: Door) -> None:
        self._door = door

    async def feed(self, request: Request) -> Response:
        """Read what happened, the oldest first: each move of each recipient of the application's messages.

        `next` is given whenever there is a place to go on from, also where `has_more` is false: keep it, and ask
        with `after` again. With `type` a page may be short or empty although there is more. With `Accept:
        text/event-stream` the same events come as a stream (Server-Sent Events), as they happen.
        """
        budget = self._door.budget()
        key = await self._door.caller(request, "messages.read", budget)
        types = _types(request)
        given = query.parameters(request, {"after", "limit", "type", "application"}, repeatable={"type"})
        application = _application(given.get("application"), key)
        cursor = _cursor(given.get("after"), "?after")
        limit = query.page({"limit": given["limit"]} if "limit" in given else {}, "msg").limit
        if _wants_a_stream(request):
            return await self._stream(request, application, cursor, types, budget, given="after" in given)
        try:
            page = await budget.spend(
                self._door.ledger.feed.after(application, cursor, limit=limit, types=types)
            )
        except UnknownEvent:
            raise _unknown("?after") from None
        return JSONResponse(
            {
                "object": "list",
                "data": [representation.event(each) for each in page.events],
                "has_more": page.more,
                "next": None if page.next is None else f"evt_{page.next}",
            }
        )

    async def _stream(
        self,
        request: Request,
        application: str,
        cursor: int | None,
        types: Collection[str] | None,
        budget: Budget,
        *,
        given: bool,
    ) -> Response:
        streams = self._door.telling.streams
        streams.demand_room(application)
        pointer = "?after"
        if (last := request.headers.get("last-event-id")) is not None:
            cursor, pointer, given = _cursor(last, "Last-Event-ID"), "Last-Event-ID", True
        if not given:
            cursor = await budget.spend(streams.head(application))
        try:
            await budget.spend(self._door.ledger.feed.after(application, cursor, limit=1))
        except UnknownEvent:
            raise _unknown(pointer) from None

        async def allowed() -> None:
            """Look whether the key still opens: it may be revoked, or expire, while the stream is open."""
            await self._door.caller(request, "messages.read", self._door.budget())

        return EventStream(
            streams,
            application=application,
            cursor=cursor,
            types=types,
            allowed=allowed,
            show=representation.event,
        )


def _wants_a_stream(request: Request) -> bool:
    accepted = ",".join(request.headers.getlist("accept")).lower()
    return "text/event-stream" in (part.split(";")[0].strip() for part in accepted.split(","))


def _application(named: str | None, key: Key) -> str:
    """Say whose feed is read: one's own, unless an operator names another one's."""
    if named is None or named == key.application:
        return key.application
    if not sees_everything(key):
        raise not_ones_own("?application", "Only operators may read another application's feed.")
    return named


def _cursor(written: str | None, pointer: str) -> int | None:
    if written is None:
        return None
    found = _CURSOR.fullmatch(written)
    if found is None:
        detail = "This is the id of an event: evt_…."
        raise invalid([FieldError(pointer=pointer, code="not_an_id", detail=detail)])
    return int(found[1]) or None


def _unknown(pointer: str) -> Problem:
    detail = "The feed has no such event; begin without it."
    return invalid([FieldError(pointer=pointer, code="unknown_event", detail=detail)])


def _types(request: Request) -> Sequence[str] | None:
    """Read `type`, repeated or with commas; None wants all."""
    written = [each for value in request.query_params.getlist("type") for each in value.split(",")]
    if not written:
        return None
    if not set(written) <= set(_TYPES):
        raise query.wrong("type", "unknown_type", "The types are `recipient.` and a state of recipients.")
    return sorted({_TYPES[each] for each in written})
