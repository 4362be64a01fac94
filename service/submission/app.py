"""The HTTP door.

The order of `POST /messages`: who is calling, the body, the first answer where the request
was seen before, validate and compose (in a thread), commit, ring the bell, 202. The answer is
written before the transaction and stored with it, so a repeated request gets it again.

The ledger has a budget of time in each request. When it is used up, the answer is 503, and
whatever still goes on in the background is given up.
"""

import asyncio
import contextlib
import hashlib
import json
import re
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, Protocol, TypeVar

import structlog
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.ledger import Ledger, LedgerUnavailable
from service.ledger.accepting import Busy, IdempotencyKey, KeyReused, NewMessage, Replayed, Submission
from service.ledger.history import TranscriptView
from service.ledger.ids import is_id, new_id
from service.ledger.keys import Key
from service.routes.choice import RouteBook
from service.smtp.transcript import render
from service.submission import models, representation
from service.submission.callers import Callers, demand_scope
from service.submission.document import document
from service.submission.limits import SubmissionLimits
from service.submission.messages import Intake
from service.submission.problems import Problem, by_status, ledger_unavailable, not_found, unprocessable
from service.submission.strict_json import parse_object

log = structlog.get_logger()

Nudge = Callable[[Collection[str]], Awaitable[None]]
Clock = Callable[[], datetime]
Result = TypeVar("Result")

_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,256}")

#: Bodies up to this size are read on the event loop; larger ones cost more than a thread's switch.
_SMALL_BODY = 16_384

_EVERY_ANSWER = {
    b"x-content-type-options": b"nosniff",
    b"cache-control": b"no-store",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"referrer-policy": b"no-referrer",
}


class Health(Protocol):
    """What the probes ask beside the ledger."""

    revision: str  # the schema that this version needs

    async def redis(self) -> bool: ...


def create_app(
    *, ledger: Ledger, book: RouteBook, limits: SubmissionLimits, nudge: Nudge, clock: Clock, health: Health
) -> FastAPI:
    """Make the application; whoever calls opens and closes what it is given."""
    app = FastAPI(
        title="Postroom",
        summary="A company's own mail-sending API on top of Microsoft 365",
        version="0.1.0",
        docs_url=None,
        redoc_url=None,
        openapi_tags=[
            {"name": "messages", "description": "Send mail, and see what became of it."},
            {"name": "attempts", "description": "The ledger: every try, with its dialogue."},
            {"name": "service", "description": "Who am I, and is the service well?"},
        ],
        # What the framework would refuse by itself, we refuse in our own words.
        max_body_size=limits.body_octets,
    )
    door = Door(ledger=ledger, book=book, limits=limits, nudge=nudge, clock=clock, health=health)
    router = door.router()
    app.include_router(router)
    app.include_router(router, prefix="/v1", include_in_schema=False)
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(LedgerUnavailable, _on_ledger_unavailable)
    app.add_exception_handler(RequestValidationError, _on_bad_parameters)
    app.add_exception_handler(HTTPException, _on_refusal)
    app.add_middleware(Envelope)
    app.openapi = lambda: document(app)  # type: ignore[method-assign]  # the framework's own way to extend it
    return app


class Door:
    """The endpoints, and what they share."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        book: RouteBook,
        limits: SubmissionLimits,
        nudge: Nudge,
        clock: Clock,
        health: Health,
    ) -> None:
        self._ledger = ledger
        self._limits = limits
        self._nudge = nudge
        self._health = health
        self._intake = Intake(book=book, limits=limits, clock=clock)
        self._callers = Callers(ledger.find_key, clock)
        self._threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="compose")
        self._errands: set[asyncio.Task[None]] = set()
        self._queue: tuple[float, int] = (0.0, 0)  # until when it holds, how much waits

    # -- endpoints -----------------------------------------------------------------------

    def router(self) -> APIRouter:
        router = APIRouter()
        problems: dict[int | str, dict[str, Any]] = {
            status: {
                "model": models.ProblemOut,
                "content": {"application/problem+json": {}},
                "description": text,
            }
            for status, text in {
                401: "No valid API key.",
                403: "The key lacks a scope.",
                404: "No such resource for this key.",
                503: "The ledger cannot be used at the moment.",
            }.items()
        }
        guarded: dict[str, Any] = {"openapi_extra": {"security": [{"key": []}]}}
        router.add_api_route(
            "/messages",
            self.send,
            methods=["POST"],
            status_code=202,
            tags=["messages"],
            summary="Send a message",
            operation_id="send_message",
            responses={
                **_accepted(),
                **{
                    status: _problem(text)
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
        reads: tuple[tuple[str, Any, str, str, Any], ...] = (
            ("/messages/{message_id}", self.message, "messages", "See a message", models.MessageOut),
            (
                "/messages/{message_id}/attempts",
                self.attempts,
                "attempts",
                "List its attempts",
                models.AttemptListOut,
            ),
            (
                "/messages/{message_id}/events",
                self.events,
                "messages",
                "List what happened",
                models.EventListOut,
            ),
            ("/attempts/{attempt_id}", self.attempt, "attempts", "See an attempt", models.AttemptOut),
        )
        for path, endpoint, tag, summary, shape in reads:
            router.add_api_route(
                path,
                endpoint,
                methods=["GET"],
                tags=[tag],
                summary=summary,
                operation_id=f"get_{endpoint.__name__}",
                responses={200: {"model": shape}, **problems},
                **guarded,
            )
        router.add_api_route(
            "/attempts/{attempt_id}/transcript",
            self.transcript,
            methods=["GET"],
            tags=["attempts"],
            summary="Read the dialogue",
            operation_id="get_transcript",
            response_class=PlainTextResponse,
            responses={**problems},
            **guarded,
        )
        router.add_api_route(
            "/me",
            self.me,
            methods=["GET"],
            tags=["service"],
            summary="See the key that is used",
            operation_id="get_me",
            responses={200: {"model": models.KeyOut}, 401: problems[401], 503: problems[503]},
            **guarded,
        )
        router.add_api_route(
            "/livez", self.livez, methods=["GET"], tags=["service"], summary="Is the process alive?"
        )
        router.add_api_route(
            "/readyz",
            self.readyz,
            methods=["GET"],
            tags=["service"],
            summary="Can it accept mail?",
            responses={200: {"model": models.ReadinessOut}, 503: {"model": models.ReadinessOut}},
        )
        return router

    async def send(self, request: Request) -> Response:
        """Keep the message and send it by the right route at the right pace.

        The 202 is given after the commit to PostgreSQL. Repeat a request with the same
        `Idempotency-Key` as often as needed: it is one message.
        """
        budget = Budget(self._limits.ledger_seconds)
        key = await self._caller(request, "messages.send", budget)
        wanted_key = _idempotency_key(request)
        kind = _content_type(request)
        body = await self._body(request)
        idempotency = None
        if wanted_key is not None:
            fingerprint = hashlib.sha256(f"{kind}?{request.url.query}\n".encode() + body).hexdigest()
            idempotency = IdempotencyKey(path="/messages", key=wanted_key, sha256=fingerprint)
            seen = await budget.spend(self._ledger.replay(key.application, idempotency))
            if seen is not None:
                return _not_the_first(seen)
        message = await self._composed(request, kind, body, key)
        await self._room_in_queue(budget)
        answer = json.dumps(representation.new_message(message))
        submission = Submission(message=message, idempotency=idempotency, answer=answer)
        budget.extend(len(message.octets) / 5_000_000)
        outcome = await budget.spend(self._ledger.accept(submission))
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

    async def message(self, request: Request, message_id: str) -> Response:
        """Say where the message is: its recipients, what the peer said, and what comes next."""
        budget = Budget(self._limits.ledger_seconds)
        key = await self._caller(request, "messages.read", budget)
        return JSONResponse(representation.message(await self._message(message_id, key, budget)))

    async def attempts(self, request: Request, message_id: str) -> Response:
        """List the attempts of a message, the first first."""
        budget = Budget(self._limits.ledger_seconds)
        key = await self._caller(request, "messages.read", budget)
        await self._message(message_id, key, budget)
        found = await budget.spend(self._ledger.attempts(message_id))
        return JSONResponse(representation.whole_list([representation.attempt(each) for each in found]))

    async def events(self, request: Request, message_id: str) -> Response:
        """List every move of every recipient, the first first."""
        budget = Budget(self._limits.ledger_seconds)
        key = await self._caller(request, "messages.read", budget)
        await self._message(message_id, key, budget)
        found = await budget.spend(self._ledger.events(message_id))
        return JSONResponse(representation.whole_list([representation.event(each) for each in found]))

    async def attempt(self, request: Request, attempt_id: str) -> Response:
        """Show one attempt: session, TLS, replies, verdict."""
        budget = Budget(self._limits.ledger_seconds)
        key = await self._caller(request, "messages.read", budget)
        if not is_id(attempt_id, "att"):
            raise not_found()
        found = await budget.spend(self._ledger.attempt(attempt_id, application=key.application))
        if found is None:
            raise not_found()
        return JSONResponse(representation.attempt(found))

    async def transcript(self, request: Request, attempt_id: str) -> Response:
        """Show the dialogue as it went, secrets struck out: `C:` is Postroom, `S:` the server."""
        budget = Budget(self._limits.ledger_seconds)
        key = await self._caller(request, "transcripts.read", budget)
        if not is_id(attempt_id, "att"):
            raise not_found()
        found = await budget.spend(self._ledger.transcript(attempt_id, application=key.application))
        if found is None:
            raise not_found()
        return PlainTextResponse(_dialogue(found))

    async def me(self, request: Request) -> Response:
        """Show the key that this request uses, without its secret."""
        budget = Budget(self._limits.ledger_seconds)
        key = await self._callers_key(request, budget)
        return JSONResponse(representation.key(key))

    async def livez(self) -> Response:
        """Say that the process answers."""
        return JSONResponse({"status": "alive"})

    async def readyz(self) -> Response:
        """Say whether mail can be accepted: without Redis it can, without the ledger it cannot."""
        checks = {"ledger": "ok", "schema": "ok", "redis": "ok"}
        budget = Budget(self._limits.ledger_seconds)
        try:
            if not await budget.spend(self._ledger.writable()):
                checks["ledger"] = "read-only"
            found = await budget.spend(self._ledger.revision())
            if found != self._health.revision:
                checks["schema"] = (
                    f"at {found or 'nothing'}, needs {self._health.revision}: run `postroom migrate`"
                )
        except LedgerUnavailable:
            checks["ledger"] = "unavailable"
        if not await self._health.redis():
            checks["redis"] = "unavailable"
        if checks["ledger"] != "ok" or checks["schema"].endswith("`postroom migrate`"):
            return JSONResponse({"status": "unavailable", "checks": checks}, status_code=503)
        status = "ready" if checks["redis"] == "ok" else "degraded"
        return JSONResponse({"status": status, "checks": checks})

    # -- steps ---------------------------------------------------------------------------

    async def _callers_key(self, request: Request, budget: "Budget") -> Key:
        return await budget.spend(self._callers.caller(request.headers.get("authorization")))

    async def _caller(self, request: Request, scope: str, budget: "Budget") -> Key:
        key = await self._callers_key(request, budget)
        demand_scope(key, scope)
        return key

    async def _message(self, message_id: str, key: Key, budget: "Budget") -> Any:
        if not is_id(message_id, "msg"):
            raise not_found()
        found = await budget.spend(self._ledger.message(message_id, application=key.application))
        if found is None:
            raise not_found()
        return found

    async def _body(self, request: Request) -> bytes:
        """Read the body, within its limits of size and time."""
        most = self._limits.body_octets
        too_large = Problem(
            status=413,
            code="request_too_large",
            detail=f"A request may have {most:,} octets.",
            headers={"Connection": "close"},
        )
        announced = request.headers.get("content-length", "")
        if announced.isdigit() and int(announced) > most:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                async for piece in request.stream():
                    body += piece
                    if len(body) > most:
                        raise too_large
        except TimeoutError:
            raise Problem(
                status=408,
                code="request_timeout",
                detail=f"The body did not arrive within {self._limits.body_seconds:.0f} seconds.",
                headers={"Connection": "close"},
            ) from None
        except ClientDisconnect:
            raise Problem(
                status=400, code="disconnected", detail="The request ended in the middle."
            ) from None
        return bytes(body)

    async def _composed(self, request: Request, kind: str, body: bytes, key: Key) -> NewMessage:
        def work() -> NewMessage:
            if kind == "message/rfc822":
                query = request.query_params
                return self._intake.from_rfc822(
                    body,
                    key,
                    envelope_from=query.get("envelope_from"),
                    envelope_to=query.getlist("envelope_to"),
                )
            return self._intake.from_json(parse_object(body), key)

        if len(body) <= _SMALL_BODY:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def _room_in_queue(self, budget: "Budget") -> None:
        """Close the door while too much waits; counted again each second."""
        until, waiting = self._queue
        if time.monotonic() >= until:
            waiting = await budget.spend(self._ledger.waiting(most=self._limits.queue_limit))
            self._queue = (time.monotonic() + 1.0, waiting)
        if waiting >= self._limits.queue_limit:
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
                await self._nudge(lanes)

        task = asyncio.create_task(errand())
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)


class Budget:
    """One request's patience with the ledger."""

    def __init__(self, seconds: float) -> None:
        self._left = seconds

    def extend(self, seconds: float) -> None:
        self._left += seconds

    async def spend(self, work: Coroutine[Any, Any, Result] | Awaitable[Result]) -> Result:
        """Wait for the ledger; raises LedgerUnavailable when the budget is used up.

        What is given up is cancelled, and not waited for: a connection into a black hole takes
        its own time to die.
        """
        task = asyncio.ensure_future(work)
        began = time.monotonic()
        done, _ = await asyncio.wait({task}, timeout=max(self._left, 0.05))
        self._left -= time.monotonic() - began
        if not done:
            task.cancel()
            task.add_done_callback(_forget)
            raise LedgerUnavailable("no answer in time")
        return task.result()


def _forget(task: "asyncio.Future[Any]") -> None:
    if not task.cancelled():
        task.exception()


class Envelope:
    """Around every answer: a request id, the headers of safety, and a last resort against bugs."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = new_id("req")
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                present = {name.lower() for name, _ in message["headers"]}
                extra = [(name, value) for name, value in _EVERY_ANSWER.items() if name not in present]
                message["headers"] = [*message["headers"], *extra, (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception:
            log.exception("request.bug", request=request_id, method=scope["method"])
            if started:
                raise
            detail = "This is a bug of Postroom; its log has the details under this request_id."
            problem = Problem(status=500, code="internal_error", detail=detail)
            await problem.response(request_id)(scope, receive, send_with_headers)


def _request_id(request: Request) -> str:
    return str(request.scope.get("state", {}).get("request_id", ""))


async def _on_problem(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, Problem)
    return exc.response(_request_id(request))


async def _on_ledger_unavailable(request: Request, exc: Exception) -> Response:
    return ledger_unavailable().response(_request_id(request))


async def _on_bad_parameters(request: Request, exc: Exception) -> Response:
    return unprocessable("", "invalid", "A parameter of the request is wrong.").response(_request_id(request))


async def _on_refusal(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    problem = by_status(exc.status_code)
    response = problem.response(_request_id(request))
    for name, value in (exc.headers or {}).items():
        response.headers[name] = value
    return response


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


def _accepted() -> dict[int | str, dict[str, Any]]:
    return {202: {"model": models.MessageOut, "description": "Committed to the ledger: it will not be lost."}}


def _problem(description: str) -> dict[str, Any]:
    return {"model": models.ProblemOut, "description": description}


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
