"""Take emails: read them in Resend's shape, and hand them to the desk as the messages that they are.

    {…} ──> ResendEmailIn ──> the members of POST /messages ──> MessageIn ──> Asked ──> the desk

An idempotency key counts for its path, as everywhere, so `/emails` and `/emails/batch` have each their own.
What is stored under it is the answer in our words; a repetition gets the same ids in theirs.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response

from service.ledger.accepting import IdempotencyKey
from service.submission.door import Door
from service.submission.intake.desk import Desk, Repeated, Taken, answer
from service.submission.intake.messages import Asked, asked_of
from service.submission.models import MessageIn
from service.submission.problems import FieldError, Problem, invalid, unprocessable
from service.submission.request.headers import idempotency_key, request_id
from service.submission.request.query import parameters
from service.submission.request.strict_json import parse_list, parse_object
from service.submission.request.validation import demand_json, names_of, validated
from service.submission.resend.errors import message_of
from service.submission.resend.mapping import members_of
from service.submission.resend.shapes import ResendEmailIn

#: A header of the batch: all or none, or the good ones.
VALIDATION = "x-batch-validation"

_NAMES = names_of(ResendEmailIn)


class Taking:
    """The endpoints that take emails."""

    def __init__(self, door: Door, desk: Desk) -> None:
        self._door = door
        self._desk = desk

    async def send(self, request: Request) -> Response:
        """Send an email: what `POST /messages` does, in the shape of Resend's API."""
        budget = self._door.budget()
        key = await self._door.caller(request, "messages.send", budget)
        parameters(request, ())
        wanted = idempotency_key(request)
        body = await self._door.body(request)
        demand_json(request)
        reserved = _reserved("/emails", wanted, body)
        now = self._door.clock()

        async def serve() -> Taken | Repeated:
            asked = await self._door.off_loop(
                len(body), lambda: _asked(parse_object(body, names=_NAMES), now=now)
            )
            return await self._desk.take(
                [asked],
                key,
                budget,
                request=reserved,
                one=True,
                request_id=request_id(request),
                weight=len(body),
            )

        taken = await self._desk.once(key, reserved, budget, serve)
        if isinstance(taken, Repeated):
            return _again(taken)
        return JSONResponse(_ids(*taken.results), headers=taken.headers())

    async def batch(self, request: Request) -> Response:
        """Send several emails at once; they are accepted in one transaction."""
        budget = self._door.budget()
        key = await self._door.caller(request, "messages.send", budget)
        parameters(request, ())
        wanted = idempotency_key(request)
        strict = _strict(request)
        body = await self._door.body(request)
        demand_json(request)
        reserved = _reserved("/emails/batch", wanted, body, strict=strict)

        async def serve() -> Taken | Repeated:
            asked, refused = await self._door.off_loop(len(body), lambda: self._entries(body))
            if refused and strict:
                raise invalid([error for problem in refused.values() for error in problem.errors][:100])
            return await self._desk.take(
                asked,
                key,
                budget,
                request=reserved,
                strict=strict,
                request_id=request_id(request),
                weight=len(body),
                refused=refused,
            )

        taken = await self._desk.once(key, reserved, budget, serve)
        if isinstance(taken, Repeated):
            return _again(taken, strict=strict)
        results = answer(taken.results, request_id=request_id(request))["data"]
        return JSONResponse(_listed(results, strict=strict), headers=taken.headers())

    def _entries(self, body: bytes) -> tuple[list[Asked], dict[int, Problem]]:
        """Read the emails of a batch, and what is wrong with those that cannot be read."""
        entries = parse_list(body, names=_NAMES)
        if not 1 <= len(entries) <= self._door.limits.batch:
            detail = f"A batch has 1 to {self._door.limits.batch} emails."
            raise unprocessable("", "batch_size", detail)
        now = self._door.clock()
        asked: list[Asked] = []
        refused: dict[int, Problem] = {}
        for index, entry in enumerate(entries):
            try:
                asked.append(_asked(entry, now=now, at=(index,)))
            except Problem as problem:
                refused[index] = problem
        return asked, refused


def _asked(entry: Any, *, now: datetime, at: tuple[object, ...] = ()) -> Asked:
    """Read one email, which stands at `at` in the body; raises Problem."""
    email = validated(ResendEmailIn, entry, at=at)
    try:
        members = members_of(email, now=now)
    except Problem as problem:
        raise _placed(problem, at) from None
    (asked,) = asked_of(validated(MessageIn, members, at=at), at=at)
    return asked


def _placed(problem: Problem, at: Sequence[object]) -> Problem:
    prefix = "".join(f"/{step}" for step in at)
    return replace(
        problem, errors=[replace(error, pointer=prefix + error.pointer) for error in problem.errors]
    )


# -- answers ---------------------------------------------------------------------------------


def _again(seen: Repeated, *, strict: bool | None = None) -> Response:
    """Give the first answer again; `strict` is that of a batch."""
    first = json.loads(seen.answer)
    shown = _ids(first) if strict is None else _listed(first["data"], strict=strict)
    return JSONResponse(shown, headers={"Idempotent-Replayed": "true"})


def _ids(message: Any) -> dict[str, str]:
    return {"id": message["id"]}


def _listed(results: Sequence[dict[str, Any]], *, strict: bool) -> dict[str, Any]:
    """Show a batch: the ids in their order, and in permissive mode what was refused."""
    shown: dict[str, Any] = {"data": [_ids(each) for each in results if each["object"] == "message"]}
    if not strict:
        shown["errors"] = [
            {"index": index, "message": message_of(each, of_batch=False)}
            for index, each in enumerate(results)
            if each["object"] == "problem"
        ]
    return shown


# -- headers ---------------------------------------------------------------------------------


def _reserved(path: str, key: str | None, body: bytes, *, strict: bool = True) -> IdempotencyKey | None:
    """Name the request by its path and what it says; words like `in 1 hour` are the same words later."""
    if key is None:
        return None
    said = b"" if strict else b"permissive\n"
    return IdempotencyKey(path=path, key=key, sha256=hashlib.sha256(said + body).hexdigest())


def _strict(request: Request) -> bool:
    chosen = request.headers.get(VALIDATION, "strict").strip().lower()
    if chosen not in {"strict", "permissive"}:
        detail = f"{VALIDATION} is strict or permissive."
        raise invalid([FieldError(pointer="", code="literal_error", detail=detail)])
    return chosen == "strict"
