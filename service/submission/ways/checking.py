"""Check a route over HTTP, and send a test mail through it where one is asked for.

A check talks to the peer and takes seconds, so its answer is not given within the budget of the
other endpoints. One check of a route runs at a time over all processes: whoever asks meanwhile is
given that one (`shared`). Who asks afterwards gets a check of their own, because they may just have
mended something.
"""

import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.ledger.keys import Key
from service.mail.address import Address, BadAddress
from service.routes.preflight.conduct import APART, Asked, Conducted
from service.routes.preflight.steps import Status, skip, worst
from service.routes.route import Route
from service.submission.door import GUARDED, PROBLEMS, Door, problem_answer
from service.submission.intake.messages import Intake
from service.submission.problems import FieldError, Problem, invalid, not_found, unprocessable
from service.submission.representation import moment
from service.submission.request.strict_json import parse_object
from service.submission.request.validation import demand_json, fewer
from service.submission.ways.trial import Trial, Trials
from service.submission.who.callers import demand_scope

#: The names that a pointer of this endpoint may name.
NAMES = frozenset({"to", "from", "send_to"})


class CheckIn(BaseModel):
    """What a check should name instead of the usual addresses."""

    model_config = ConfigDict(extra="forbid")

    to: str | None = Field(default=None, max_length=320, description="The recipient to name in RCPT.")
    from_: str | None = Field(
        default=None, alias="from", max_length=320, description="The sender to name in MAIL."
    )
    send_to: str | None = Field(
        default=None,
        max_length=320,
        description="Send a real message to this address when all else is well, and follow it to its end.",
    )


class StepOut(BaseModel):
    """One thing that was looked at."""

    name: str
    status: Literal["ok", "warn", "fail", "skip"]
    lane: str | None = Field(description="Null: the step is the whole route's.")
    detail: str
    remedy: list[str] = Field(description="What to do, in this order; never empty where the step failed.")
    diagnosis: str | None
    facts: dict[str, Any]


class TestMessageOut(BaseModel):
    """The message that was sent to try the route."""

    id: str
    status: str


class RouteCheckOut(BaseModel):
    """One check of one route."""

    object: Literal["route_check"]
    id: str
    route: str
    result: Literal["ok", "warn", "fail", "skip"] = Field(description="The worst of the steps.")
    asked_by: str
    started_at: datetime
    ended_at: datetime
    shared: bool = Field(description="It was made for somebody else, and ran when this one was asked for.")
    note: str | None
    steps: list[StepOut]
    test_message: TestMessageOut | None


def endpoints(door: Door) -> APIRouter:
    """Make the endpoint that checks a route."""
    router = APIRouter(tags=["routes"])
    checking = _Checking(door)
    router.add_api_route(
        "/routes/{name}/check",
        checking.check,
        methods=["POST"],
        summary="Check a route",
        operation_id="check_route",
        responses={
            200: {"model": RouteCheckOut},
            **PROBLEMS,
            400: problem_answer("The body is not JSON."),
            409: problem_answer("Another process has been checking this route for too long."),
            422: problem_answer("A field is wrong."),
            429: problem_answer("A test message went through this route a moment ago."),
        },
        openapi_extra={
            **GUARDED["openapi_extra"],
            "requestBody": {
                "required": False,
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/CheckIn"}}},
            },
        },
    )
    return router


class _Checking:
    def __init__(self, door: Door) -> None:
        self._door = door
        self._trials = Trials(
            ledger=door.ledger,
            intake=Intake(book=door.book, limits=door.limits, clock=door.clock),
            nudge=door.nudge,
            clock=door.clock,
            accepted_domains=door.organization.accepted_domains,
        )
        self._sent: dict[
            str, float
        ] = {}  # when a route had its last test message, by the clock of the process

    async def check(self, request: Request, name: str) -> Response:
        """Go through every step from DNS to RCPT without sending, and say what is to be mended.

        With `send_to` a real message follows when no step failed; its end is the last step. It
        belongs to the application `postroom` and needs the scope messages.send as well.
        """
        budget = self._door.budget()
        key = await self._door.caller(request, "routes.check", budget)
        route = self._route(name)
        octets = await self._door.body(request)
        if octets:
            demand_json(request)
        members = parse_object(octets, names=NAMES) if octets else {}
        wanted = _addresses(members)
        if "send_to" in wanted:
            demand_scope(key, "messages.send")
            self._not_again(route)
        # It logs in at the other side, may end a lane's rest, and sends a message where it is asked to.
        await budget.spend(
            self._door.ledger.audit.before(
                self._door.actor(request, key),
                action="route.check",
                target=route.name,
                details={"test_message": "send_to" in wanted},
            )
        )
        asked = Asked(fresh=timedelta(0), by=key.application, to=wanted.get("to"), sender=wanted.get("from"))
        conducted = await self._door.check(route, asked)
        if conducted is None:
            detail = "Another process is checking this route, and has no result yet."
            raise Problem(status=409, code="check_in_progress", detail=detail, retry_after=30)
        trial = await self._trial(route, conducted, wanted, key) if "send_to" in wanted else None
        return JSONResponse(representation(conducted, trial))

    def _route(self, name: str) -> Route:
        book = self._door.book
        if book.sandbox is not None and name == book.sandbox.name:
            return book.sandbox
        if name not in book.routes:
            raise not_found()
        return book.routes[name]

    def _not_again(self, route: Route) -> None:
        """One test message in a while: a check is no way around anybody's quota."""
        now, last = time.monotonic(), self._sent.get(route.name)
        if last is not None and now < last + APART.total_seconds():
            detail = "A test message went through this route a moment ago."
            wait = int(last + APART.total_seconds() - now) + 1
            raise Problem(status=429, code="too_many_test_messages", detail=detail, retry_after=wait)
        self._sent[route.name] = now

    async def _trial(
        self, route: Route, conducted: Conducted, wanted: Mapping[str, Address], key: Key
    ) -> Trial:
        if conducted.kept.result == Status.FAIL:
            why = "Not sent: a step failed. Mend it, then ask again."
            return Trial(step=skip("test_message", why), message_id=None)
        return await self._trials.send(route, to=wanted["send_to"], sender=wanted.get("from"), key=key)


def representation(conducted: Conducted, trial: Trial | None) -> dict[str, Any]:
    """Show a check, with what became of the test message."""
    kept = conducted.kept
    steps: list[Mapping[str, Any]] = list(kept.steps)
    result = Status(kept.result)
    if trial is not None:
        steps.append(trial.step.as_json())
        result = worst([result, trial.step.status])
    note = "This check was made for somebody else who asked at the same time." if conducted.shared else None
    return {
        "object": "route_check",
        "id": kept.id,
        "route": kept.route,
        "result": result.value,
        "asked_by": kept.asked_by,
        "started_at": moment(kept.started_at),
        "ended_at": moment(kept.ended_at),
        "shared": conducted.shared,
        "note": note,
        "steps": steps,
        "test_message": trial.as_json() if trial else None,
    }


SHAPES = (CheckIn,)

_DETAILS = {
    "extra_forbidden": "There is a field here that this endpoint does not know.",
    "string_type": "This has to be a string.",
    "string_too_long": "This string is too long.",
}


def _addresses(members: Mapping[str, Any]) -> dict[str, Address]:
    """Read the addresses that are given; raises a 422 problem that names each wrong field."""
    try:
        given = CheckIn.model_validate(members).model_dump(by_alias=True, exclude_none=True)
    except ValidationError as exc:
        few = fewer(exc, members, names=NAMES, again=CheckIn.model_validate)
        raise invalid(list(_mistakes(few))) from None
    found: dict[str, Address] = {}
    for name, text in given.items():
        try:
            found[name] = Address.parse(text)
        except BadAddress as bad:
            raise unprocessable(f"/{name}", bad.code, bad.detail) from None
    return found


def _mistakes(exc: ValidationError) -> Iterator[FieldError]:
    for error in exc.errors(include_url=False, include_context=False, include_input=False)[:50]:
        name, kind = str(error["loc"][0]), error["type"]
        code = "unknown_field" if kind == "extra_forbidden" else kind
        detail = _DETAILS.get(kind, "This value does not have the form that is needed here.")
        yield FieldError(pointer=f"/{name}" if name in NAMES else "", code=code, detail=detail)
