"""Send: the body, the first answer where the request was seen before, validate and compose, commit, ring.

The answer is written before the transaction and stored with it, so a repeated request gets it
again.
"""

import asyncio
import contextlib
import hashlib
import json
import re
import time
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import Response

from service.ledger.accepting import (
    Busy,
    IdempotencyKey,
    KeyReused,
    NewMessage,
    Replayed,
    Reservation,
    Submission,
)
from service.ledger.keys import Key
from service.routes.choice import Rest
from service.submission import expectations, models, representation
from service.submission.door import Budget, Door, problem_answer
from service.submission.messages import Intake
from service.submission.problems import Problem
from service.submission.strict_json import parse_object

log = structlog.get_logger()

SHAPES = (models.MessageIn,)

_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,256}")

#: Bodies up to this size are read on the event loop; larger ones cost more than a thread's switch.
_SMALL_BODY = 16_384


def endpoints(door: Door) -> APIRouter:
    """Make the endpoints that take mail."""
    router = APIRouter(tags=["messages"])
    sending = _Sending(door)
    router.add_api_route(
        "/messages",
        sending.send,
        methods=["POST"],
        status_code=202,
        summary="Send a message",
        operation_id="send_message",
        responses={
            202: {
                "model": models.MessageOut,
                "description": "Committed to the ledger: it will not be lost.",
            },
            **{
                status: problem_answer(text)
                for status, text in {
                    400: "The body is not JSON.",
                    401: "No valid API key.",
                    403: "The key lacks the scope, or may not send from this address.",
                    408: "The body took too long to arrive.",
                    409: "The first request under this Idempotency-Key is still running.",
                    413: "The body is too large.",
                    415: "Neither JSON nor message/rfc822.",
                    422: "A field is wrong, or no route takes the message.",
                    503: "The ledger cannot be used, or the queue is full.",
                }.items()
            },
        },
        openapi_extra=_send_extra(),
    )
    return router


@dataclass(frozen=True, slots=True, kw_only=True)
class _Traffic:
    good_until: float
    waiting: int  # deliveries, up to the limit of the queue
    resting: Mapping[str, Rest]  # by lane


class _Sending:
    def __init__(self, door: Door) -> None:
        self._door = door
        self._intake = Intake(book=door.book, limits=door.limits, clock=door.clock)
        self._expectations = expectations.Expectations(door.ledger, door.lane_limits)
        self._threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="compose")
        self._errands: set[asyncio.Task[None]] = set()
        self._traffic = _Traffic(good_until=0.0, waiting=0, resting={})

    async def send(self, request: Request) -> Response:
        """Keep the message and send it by the right route at the right pace.

        The 202 is given after the commit to PostgreSQL. Repeat a request with the same
        `Idempotency-Key` as often as needed: it is one message.
        """
        budget = self._door.budget()
        key = await self._door.caller(request, "messages.send", budget)
        wanted_key = _idempotency_key(request)
        kind = _content_type(request)
        body = await self._door.body(request)
        idempotency = None
        if wanted_key is not None:
            fingerprint = hashlib.sha256(f"{kind}?{request.url.query}\n".encode() + body).hexdigest()
            idempotency = IdempotencyKey(path="/messages", key=wanted_key, sha256=fingerprint)
            seen = await budget.spend(self._door.ledger.replay(key.application, idempotency))
            if seen is not None:
                return _not_the_first(seen)
        traffic = await self._look(budget)
        message = await self._composed(request, kind, body, key, traffic.resting)
        self._room_in_queue(traffic)
        expectation = await self._expectations.of_new(message, budget)
        answer = json.dumps(representation.new_message(message, expectation))
        submission = Submission(
            messages=[message],
            reservations=[] if idempotency is None else [Reservation(key=idempotency, answer=answer)],
        )
        budget.extend(len(message.octets) / 5_000_000)
        outcome = await budget.spend(self._door.ledger.accept(submission))
        if isinstance(outcome, Replayed | KeyReused | Busy):
            return _not_the_first(outcome)
        self._ring({delivery.lane for delivery in message.deliveries})
        log.info(
            "message.accepted", message=message.id, application=key.application, size=len(message.octets)
        )
        return Response(
            answer,
            status_code=202,
            media_type="application/json",
            headers={"Location": f"/messages/{message.id}"},
        )

    async def _composed(
        self, request: Request, kind: str, body: bytes, key: Key, resting: Mapping[str, Rest]
    ) -> NewMessage:
        def work() -> NewMessage:
            if kind == "message/rfc822":
                query = request.query_params
                return self._intake.from_rfc822(
                    body,
                    key,
                    envelope_from=query.get("envelope_from"),
                    envelope_to=query.getlist("envelope_to"),
                    resting=resting,
                )
            return self._intake.from_json(parse_object(body), key, resting=resting)

        if len(body) <= _SMALL_BODY:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def _look(self, budget: Budget) -> "_Traffic":
        """Look at how much waits and which lanes rest; once a second is enough."""
        if time.monotonic() >= self._traffic.good_until:
            ledger = self._door.ledger
            waiting = await budget.spend(ledger.waiting(most=self._door.limits.queue_limit))
            resting = await budget.spend(ledger.resting())
            self._traffic = _Traffic(
                good_until=time.monotonic() + 1.0,
                waiting=waiting,
                resting={
                    lane: Rest(until=rest.until, because=expectations.reason(rest.error))
                    for lane, rest in resting.items()
                },
            )
        return self._traffic

    def _room_in_queue(self, traffic: "_Traffic") -> None:
        """Close the door while too much waits."""
        if traffic.waiting >= self._door.limits.queue_limit:
            raise Problem(
                status=503,
                code="queue_full",
                detail="Too many messages wait to be sent; nothing more is taken until some have gone.",
                retry_after=30,
            )

    def _ring(self, lanes: Collection[str]) -> None:
        """Ring in the background: a bell that cannot be rung costs the caller nothing."""

        async def errand() -> None:
            with contextlib.suppress(Exception):
                await self._door.nudge(lanes)

        task = asyncio.create_task(errand())
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)


def _idempotency_key(request: Request) -> str | None:
    given = request.headers.getlist("idempotency-key")
    if not given:
        return None
    if len(given) > 1 or not _IDEMPOTENCY_KEY.fullmatch(given[0]):
        detail = "Idempotency-Key is one header of 1 to 256 visible ASCII characters."
        raise Problem(status=422, code="idempotency_key_invalid", detail=detail)
    return given[0]


def _content_type(request: Request) -> str:
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind not in {"application/json", "message/rfc822"}:
        detail = "Send application/json, or a whole message as message/rfc822."
        raise Problem(status=415, code="unsupported_media_type", detail=detail)
    return kind


def _not_the_first(outcome: Replayed | KeyReused | Busy) -> Response:
    """Answer a request whose idempotency key was seen before."""
    if isinstance(outcome, Replayed):
        location = f"/messages/{json.loads(outcome.answer)['id']}"
        return Response(
            outcome.answer,
            status_code=202,
            media_type="application/json",
            headers={"Location": location, "Idempotent-Replayed": "true"},
        )
    if isinstance(outcome, KeyReused):
        detail = "This Idempotency-Key was used with another request; a new request needs a new key."
        raise Problem(status=422, code="idempotency_key_reused", detail=detail)
    raise Problem(
        status=409,
        code="request_in_progress",
        detail="The first request under this Idempotency-Key is still running.",
        retry_after=1,
    )


def _send_extra() -> dict[str, Any]:
    """The parts of the document that the framework cannot know: the body is read by hand."""
    return {
        "security": [{"key": []}],
        "parameters": [
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": False,
                "schema": {"type": "string", "minLength": 1, "maxLength": 256},
                "description": "Makes repeated requests one message, for 72 hours.",
            },
            {
                "name": "envelope_from",
                "in": "query",
                "required": False,
                "schema": {"type": "string"},
                "description": "With message/rfc822: the reverse-path.",
            },
            {
                "name": "envelope_to",
                "in": "query",
                "required": False,
                "schema": {"type": "array", "items": {"type": "string"}},
                "description": "With message/rfc822: the recipients.",
            },
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/MessageIn"}},
                "message/rfc822": {"schema": {"type": "string", "contentMediaType": "message/rfc822"}},
            },
        },
    }
