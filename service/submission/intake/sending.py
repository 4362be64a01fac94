"""Send: `POST /messages`, `POST /messages/batch` and `POST /messages/plan`.

1. Who is calling, the body, and the first answer where the request was seen before.
2. The messages that it asks for, each with its place in the body; the desk does the rest.
3. The answer; with `Prefer: wait=N` after the messages have come to their end, or N seconds (RFC 7240).
"""

import asyncio
import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from service.ledger import LedgerUnavailable
from service.ledger.accepting import IdempotencyKey
from service.ledger.history import MessageView
from service.ledger.keys import Key
from service.ledger.states import OPEN
from service.submission import models, representation
from service.submission.door import BODY, Budget, Door, guarded, json_body, refusals
from service.submission.history.expectations import Expectations
from service.submission.intake.desk import Desk, Repeated, Taken, answer
from service.submission.intake.messages import Asked, asked_of, in_query
from service.submission.problems import FieldError, Problem, invalid, unprocessable
from service.submission.request.headers import content_type, given, idempotency_key, request_id
from service.submission.request.query import parameters
from service.submission.request.strict_json import parse_list, parse_object
from service.submission.request.validation import demand_json, names_of, validated

SHAPES = (models.MessageIn, models.BatchItemIn)

_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?([0-9]{1,6})\"?", re.IGNORECASE)

#: Seconds that a request may wait for its messages' end.
LONGEST_WAIT = 60.0

#: What a whole message brings along in the query.
_ENVELOPE = ("envelope_from", "envelope_to")

_PAUSES = (0.03, 0.05, 0.1, 0.2, 0.4)  # between two looks, in seconds; the last one stays

_KEY_PARAMETER = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": 256, "pattern": "^[!-~]+$"},
    "description": "Makes repeated requests one request, for 72 hours.",
}
_PREFER_PARAMETER = {
    "name": "Prefer",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "`wait=N`: answer when the messages have come to their end, or after N seconds (60 at the most).",
}


def express(door: Door) -> dict[tuple[str, str], Callable[[Request], Awaitable[Response]]]:
    """List what goes past the framework (`express`)."""
    send = _Sending(door, door.desk).send
    return {("POST", "/messages"): send, ("POST", "/v1/messages"): send}


def endpoints(door: Door) -> APIRouter:
    """Make the endpoints that take mail."""
    router = APIRouter(tags=["messages"])
    sending = _Sending(door, door.desk)
    refused = refusals(
        *BODY, 409, s403="The caller lacks the scope, or may not send from or to this address."
    )
    router.add_api_route(
        "/messages",
        sending.send,
        methods=["POST"],
        status_code=202,
        summary="Send a message",
        operation_id="send_message",
        responses={
            202: {
                "model": models.MessageOut | models.MessageListOut,
                "description": "Committed to the ledger: it will not be lost. With `merge` the answer is a list.",
            },
            200: {
                "model": models.PlanOut | models.PlanListOut,
                "description": "With `dry_run`: what would happen.",
            },
            **refused,
        },
        openapi_extra=_send_extra(),
    )
    router.add_api_route(
        "/messages/batch",
        sending.batch,
        methods=["POST"],
        status_code=202,
        summary="Send up to 500 messages",
        operation_id="send_batch",
        responses={
            202: {
                "model": models.BatchOut,
                "description": "Committed, all in one transaction, in the order of the request.",
            },
            **refused,
        },
        openapi_extra={
            **guarded()["openapi_extra"],
            "parameters": [
                _KEY_PARAMETER,
                _PREFER_PARAMETER,
                {
                    "name": "validation",
                    "in": "query",
                    "required": False,
                    "schema": {"type": "string", "enum": ["strict", "permissive"], "default": "strict"},
                    "description": "`strict`: all or none. `permissive`: the good ones, and a problem in the place of each other one.",
                },
            ],
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": {
                            "type": "array",
                            "minItems": 1,
                            "maxItems": 500,
                            "items": {"$ref": "#/components/schemas/BatchItemIn"},
                        }
                    }
                },
            },
        },
    )
    router.add_api_route(
        "/messages/plan",
        sending.plan,
        methods=["POST"],
        summary="See what would happen to a message",
        operation_id="plan_message",
        responses={200: {"model": models.PlanOut | models.PlanListOut}, **refusals(*BODY)},
        **json_body(models.MessageIn),
    )
    return router


class _Sending:
    def __init__(self, door: Door, desk: Desk) -> None:
        self._door = door
        self._desk = desk
        self._expectations = Expectations(door.ledger, door.lane_limits)

    async def send(self, request: Request) -> Response:
        """Keep the message and send it by the right route at the right pace.

        The 202 is given after the commit to PostgreSQL. Repeat a request with the same
        `Idempotency-Key` as often as needed: it is one message.
        """
        budget = self._door.budget()
        key = await self._door.caller(request, "messages.send", budget)
        wanted = idempotency_key(request)
        kind = _content_type(request)
        body = await self._door.body(request)
        reserved = _reserved("/messages", wanted, request, kind, body)

        async def serve() -> Response | Repeated:
            shape, asked = await self._door.off_loop(len(body), lambda: self._read(request, kind, body))
            if shape.dry_run:
                return await self._planned(shape, asked, key, budget)
            one = shape.merge is None
            taken = await self._desk.take(
                asked,
                key,
                budget,
                request=reserved,
                one=one,
                request_id=request_id(request),
                weight=len(body),
            )
            if isinstance(taken, Repeated):
                return taken
            return await self._answer(request, taken, key, one=one)

        return _again(await self._desk.once(key, reserved, budget, serve))

    async def batch(self, request: Request) -> Response:
        """Send up to 500 messages at once.

        They are accepted in one transaction. Each may have an `idempotency_key` of its own beside that of
        the request.
        """
        budget = self._door.budget()
        key = await self._door.caller(request, "messages.send", budget)
        wanted = idempotency_key(request)
        strict = _strict(request)
        body = await self._door.body(request)
        demand_json(request)
        reserved = _reserved("/messages/batch", wanted, request, "application/json", body)

        async def serve() -> Response | Repeated:
            asked, refused = await self._door.off_loop(len(body), lambda: self._items(body, strict=strict))
            taken = await self._desk.take(
                asked,
                key,
                budget,
                request=reserved,
                strict=strict,
                request_id=request_id(request),
                weight=len(body),
                refused=refused,
            )
            if isinstance(taken, Repeated):
                return taken
            if all(isinstance(each, Problem) for each in taken.results):
                raise _none_good(taken)
            return await self._answer(request, taken, key, one=False)

        return _again(await self._desk.once(key, reserved, budget, serve))

    async def plan(self, request: Request) -> Response:
        """Say which way a message would take and why not another one, and when it would go; nothing is sent."""
        budget = self._door.budget()
        key = await self._door.caller(request, "messages.send", budget)
        parameters(request, ())
        body = await self._door.body(request)
        demand_json(request)
        shape, asked = await self._door.off_loop(
            len(body), lambda: self._read(request, "application/json", body)
        )
        return await self._planned(shape, asked, key, budget)

    async def _planned(
        self, shape: models.MessageIn, asked: Sequence[Asked], key: Key, budget: Budget
    ) -> Response:
        plans = await self._desk.plan(asked, key, budget)
        if shape.merge is None:
            return JSONResponse(plans[0])
        return JSONResponse({"object": "list", "data": plans, "has_more": False, "next": None})

    def _read(self, request: Request, kind: str, body: bytes) -> tuple[models.MessageIn, list[Asked]]:
        if kind == "message/rfc822":
            query = parameters(request, _ENVELOPE, repeatable={"envelope_to"})
            for name in _ENVELOPE:
                if not query.get(name):
                    detail = "Give envelope_from and envelope_to in the query."
                    raise unprocessable(f"?{name}", "envelope_missing", detail)
            recipients = request.query_params.getlist("envelope_to")
            try:
                shape = validated(models.MessageIn, {"from": query["envelope_from"], "to": recipients})
            except Problem as problem:
                raise in_query(problem) from None
            return shape, [Asked(shape=shape, raw=body)]
        parameters(request, ())
        shape = validated(models.MessageIn, parse_object(body, names=names_of(models.MessageIn)))
        return shape, asked_of(shape)

    def _items(self, body: bytes, *, strict: bool) -> tuple[list[Asked], dict[int, Problem]]:
        """Read the entries of a batch, and what is wrong with those that cannot be read."""
        entries = parse_list(body, names=names_of(models.BatchItemIn))
        if not 1 <= len(entries) <= self._door.limits.batch:
            detail = f"A batch has 1 to {self._door.limits.batch} messages."
            raise unprocessable("", "batch_size", detail)
        asked: list[Asked] = []
        refused: dict[int, Problem] = {}
        for index, entry in enumerate(entries):
            try:
                asked += asked_of(_entry(entry, index), at=(index,))
            except Problem as problem:
                refused[index] = problem
        if refused and strict:
            errors = [error for problem in refused.values() for error in problem.errors]
            raise invalid(errors[:100])
        return asked, refused

    # -- the answer ---------------------------------------------------------------------------

    async def _answer(self, request: Request, taken: Taken, key: Key, *, one: bool) -> Response:
        headers = taken.headers()
        results = list(taken.results)
        wait = _wait(request)
        if wait is not None and self._desk.waiters < self._door.limits.waiters:
            self._desk.waiters += 1
            try:
                results = await self._at_their_end(request, results, key, wait)
            finally:
                self._desk.waiters -= 1
            headers["Preference-Applied"] = f"wait={wait:.0f}"
        if one:
            assert not isinstance(results[0], Problem), "a single message's problem is raised"
            shown = results[0]
            headers["Location"] = f"/messages/{shown['id']}"
        else:
            shown = answer(results, request_id=request_id(request))
        as_stored = taken.text if wait is None else None
        text = representation.written(shown) if as_stored is None else as_stored
        return Response(text, status_code=202, headers=headers, media_type="application/json")

    async def _at_their_end(
        self, request: Request, results: Sequence[dict[str, Any] | Problem], key: Key, seconds: float
    ) -> list[dict[str, Any] | Problem]:
        """Show messages as they are when all have come to their end, or after so many seconds."""
        ids = [each["id"] for each in results if not isinstance(each, Problem)]
        loop = asyncio.get_running_loop()
        deadline, look = loop.time() + seconds, 0
        shown: dict[str, dict[str, Any]] = {}
        while True:
            try:
                views = await self._door.budget().spend(
                    self._door.ledger.messages(ids, application=key.application)
                )
            except LedgerUnavailable:
                break  # they are accepted all the same; the answer says what is known
            left = deadline - loop.time()
            if left <= 0 or not any(_waits(view) for view in views) or await request.is_disconnected():
                shown = {view.id: await self._now(view) for view in views}
                break
            await asyncio.sleep(min(_PAUSES[min(look, len(_PAUSES) - 1)], max(left, 0.0)))
            look += 1
        return [each if isinstance(each, Problem) else shown.get(each["id"], each) for each in results]

    async def _now(self, view: MessageView) -> dict[str, Any]:
        expectation = await self._expectations.of_message(view, self._door.budget())
        return representation.message(view, expectation)


def _waits(view: MessageView) -> bool:
    return any(recipient.status in OPEN for recipient in view.recipients)


def _entry(entry: object, index: int) -> models.BatchItemIn:
    """Read one entry of a batch; raises Problem with its place."""

    def refuse(name: str, code: str, detail: str) -> Problem:
        return invalid([FieldError(pointer=f"/{index}{name}", code=code, detail=detail)])

    if not isinstance(entry, dict):
        raise refuse("", "dict_type", "This has to be an object.")
    shape = validated(models.BatchItemIn, entry, at=(index,))
    if shape.merge is not None:
        raise refuse("/merge", "not_in_a_batch", "A batch has its messages one by one; use POST /messages.")
    if shape.dry_run:
        raise refuse("/dry_run", "not_in_a_batch", "A batch has no dry run; use POST /messages/plan.")
    return shape


def _reserved(path: str, key: str | None, request: Request, kind: str, body: bytes) -> IdempotencyKey | None:
    if key is None:
        return None
    fingerprint = hashlib.sha256(
        f"{kind}?".encode() + request.scope["query_string"] + b"\n" + body
    ).hexdigest()
    return IdempotencyKey(path=path, key=key, sha256=fingerprint)


def _content_type(request: Request) -> str:
    kind = content_type(request)
    if kind not in {"application/json", "message/rfc822"}:
        detail = "Send application/json, or a whole message as message/rfc822."
        raise Problem(status=415, code="unsupported_media_type", detail=detail)
    return kind


def _strict(request: Request) -> bool:
    chosen = parameters(request, {"validation"}).get("validation", "strict")
    if chosen not in {"strict", "permissive"}:
        detail = "validation is strict or permissive."
        raise invalid([FieldError(pointer="?validation", code="literal_error", detail=detail)])
    return chosen == "strict"


def _wait(request: Request) -> float | None:
    """Read `Prefer: wait=N`; a preference that cannot be read is none (RFC 7240, section 2)."""
    preferred = given(request, b"prefer")
    found = _WAIT.search(", ".join(preferred)) if preferred else None
    return None if found is None else min(float(found[1]), LONGEST_WAIT)


def _again(seen: Response | Repeated) -> Response:
    """Give an answer, or where the request was seen before the first one again."""
    if isinstance(seen, Response):
        return seen
    headers = {"Idempotent-Replayed": "true"}
    first = json.loads(seen.answer)
    if first["object"] == "message":
        headers["Location"] = f"/messages/{first['id']}"
    return Response(seen.answer, status_code=202, media_type="application/json", headers=headers)


def _none_good(taken: Taken) -> Problem:
    """Refuse a permissive batch of which nothing could be accepted."""
    problems = [each for each in taken.results if isinstance(each, Problem)]
    if len({problem.status for problem in problems}) == 1 and problems[0].status != 422:
        return problems[0]
    return invalid([error for problem in problems for error in problem.errors][:100])


def _send_extra() -> dict[str, Any]:
    """The parts of the document that the framework cannot know: the body is read by hand."""
    return {
        **guarded()["openapi_extra"],
        "parameters": [
            _KEY_PARAMETER,
            _PREFER_PARAMETER,
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
