"""Read: messages, what happened to them, and every attempt with its dialogue."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from service.ledger.history import TranscriptView
from service.ledger.ids import is_id
from service.smtp.transcript import render
from service.submission import models, representation
from service.submission.door import GUARDED, PROBLEMS, Door
from service.submission.history.expectations import Expectations
from service.submission.problems import not_found
from service.submission.who.callers import sees


def endpoints(door: Door) -> APIRouter:
    """Make the endpoints that read the ledger."""
    router = APIRouter()
    reading = _Reading(door)
    reads: tuple[tuple[str, Any, str, str, Any], ...] = (
        ("/messages/{message_id}", reading.message, "messages", "See a message", models.MessageOut),
        (
            "/messages/{message_id}/attempts",
            reading.attempts,
            "attempts",
            "List its attempts",
            models.AttemptListOut,
        ),
        (
            "/messages/{message_id}/events",
            reading.events,
            "messages",
            "List what happened",
            models.EventListOut,
        ),
        ("/attempts/{attempt_id}", reading.attempt, "attempts", "See an attempt", models.AttemptOut),
    )
    for path, endpoint, tag, summary, shape in reads:
        router.add_api_route(
            path,
            endpoint,
            methods=["GET"],
            tags=[tag],
            summary=summary,
            operation_id=f"get_{endpoint.__name__}",
            responses={200: {"model": shape}, **PROBLEMS},
            **GUARDED,
        )
    router.add_api_route(
        "/attempts/{attempt_id}/transcript",
        reading.transcript,
        methods=["GET"],
        tags=["attempts"],
        summary="Read the dialogue",
        operation_id="get_transcript",
        response_class=PlainTextResponse,
        responses={**PROBLEMS},
        **GUARDED,
    )
    return router


class _Reading:
    def __init__(self, door: Door) -> None:
        self._door = door
        self._expectations = Expectations(door.ledger, door.lane_limits)

    async def message(self, request: Request, message_id: str) -> Response:
        """Say where the message is: its recipients, what the peer said, and what comes next."""
        budget = self._door.budget()
        key = await self._door.caller(request, "messages.read", budget)
        found = await self._door.message(message_id, key, budget)
        expectation = await self._expectations.of_message(found, budget)
        return JSONResponse(representation.message(found, expectation))

    async def attempts(self, request: Request, message_id: str) -> Response:
        """List the attempts of a message, the first first."""
        budget = self._door.budget()
        key = await self._door.caller(request, "messages.read", budget)
        await self._door.message(message_id, key, budget)
        found = await budget.spend(self._door.ledger.attempts(message_id))
        return JSONResponse(representation.whole_list([representation.attempt(each) for each in found]))

    async def events(self, request: Request, message_id: str) -> Response:
        """List every move of every recipient, the first first."""
        budget = self._door.budget()
        key = await self._door.caller(request, "messages.read", budget)
        await self._door.message(message_id, key, budget)
        found = await budget.spend(self._door.ledger.events(message_id))
        return JSONResponse(representation.whole_list([representation.event(each) for each in found]))

    async def attempt(self, request: Request, attempt_id: str) -> Response:
        """Show one attempt: session, TLS, replies, verdict."""
        budget = self._door.budget()
        key = await self._door.caller(request, "messages.read", budget)
        if not is_id(attempt_id, "att"):
            raise not_found()
        found = await budget.spend(self._door.ledger.attempt(attempt_id, application=sees(key)))
        if found is None:
            raise not_found()
        return JSONResponse(representation.attempt(found))

    async def transcript(self, request: Request, attempt_id: str) -> Response:
        """Show the dialogue as it went, secrets struck out: `C:` is Postroom, `S:` the server."""
        budget = self._door.budget()
        key = await self._door.caller(request, "transcripts.read", budget)
        if not is_id(attempt_id, "att"):
            raise not_found()
        found = await budget.spend(self._door.ledger.transcript(attempt_id, application=sees(key)))
        if found is None:
            raise not_found()
        return PlainTextResponse(_dialogue(found))


def _dialogue(view: TranscriptView) -> str:
    """Write the session's beginning and the attempt's own lines."""
    head = (
        f"Attempt {view.attempt.id}, number {view.attempt.number} of its delivery, by {view.attempt.lane}\n"
    )
    if view.lines is None:
        if view.attempt.outcome is None:
            return f"{head}\nThe attempt is running; its dialogue is kept when it ends.\n"
        return f"{head}\nThe worker died before it could write its dialogue down.\n"
    earlier = (view.session_message or 1) - 1
    parts = [head]
    if view.opening:
        parts.append(render(view.opening))
        if earlier > 0:
            parts.append(f"  … {earlier} earlier message{'s' if earlier > 1 else ''} on this session …\n")
    if view.lines:
        parts.append(render(view.lines))
    return "\n".join(parts)
