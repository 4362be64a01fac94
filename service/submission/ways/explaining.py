"""Explain any text over HTTP: a reply, a line of a log, an exception, a report."""

from collections.abc import Mapping
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from service.routes.advice import Organization
from service.routes.diagnoses.explain import LONGEST, explain
from service.routes.route import Account, BasicLogin, OAuthLogin, Route, RouteKind
from service.submission.door import GUARDED, PROBLEMS, Door, problem_answer
from service.submission.models import DiagnosisOut
from service.submission.problems import unprocessable

_PARAMETERS: list[dict[str, Any]] = [
    {
        "name": "reply",
        "in": "query",
        "required": True,
        "description": "The text: a reply, a line of a log, an exception, a non-delivery report. "
        "The server reads URLs of up to 65,535 octets.",
        "schema": {"type": "string", "minLength": 1, "maxLength": LONGEST},
        "example": "550 5.7.64 TenantAttribution; Relay Access Denied",
    },
    {
        "name": "route",
        "in": "query",
        "required": False,
        "description": "The name of the route on which it came: the remedies call things by their real names.",
        "schema": {"type": "string"},
    },
    {
        "name": "kind",
        "in": "query",
        "required": False,
        "description": "The kind of route on which it came, where no route is named.",
        "schema": {"type": "string", "enum": [kind.value for kind in RouteKind]},
    },
]


#: What a character of a text costs beside one of a body, which `Door.off_loop` counts: it is looked for often.
_WEIGHT = 8


class RecognizedOut(BaseModel):
    """What the text holds of a reply; what was not there is null."""

    code: int | None
    enhanced: str | None
    text: str
    phase: str | None = Field(description="The command that it answers, where the text tells.")


class TrailerOut(BaseModel):
    """What Microsoft writes behind its replies, for a support case."""

    host: str
    time: str | None
    session: str | None


class ExplanationOut(BaseModel):
    """What a text means. Nothing is made up: without a reply in it, all is null."""

    object: Literal["explanation"]
    recognized: RecognizedOut | None
    trailer: TrailerOut | None
    diagnosis: DiagnosisOut | None = Field(
        description="Null where nothing was recognised, and for acceptances."
    )
    class_: Literal["T1", "T2", "T3", "A", "PM", "PR", "CFG"] | None = Field(
        alias="class",
        description="T1 passes soon, T2 a throttle, T3 a limit over 24 hours, A an administrator must act, "
        "PM the message fails, PR the recipient fails, CFG our own settings are wrong.",
    )
    retryable: bool = Field(description="Postroom would try again by itself.")
    then: str = Field(description="What Postroom does with it.")


def endpoints(door: Door) -> APIRouter:
    """Make the endpoint that explains."""
    router = APIRouter(tags=["service"])
    router.add_api_route(
        "/explain",
        _Explaining(door).explain,
        methods=["GET"],
        summary="What does this reply mean?",
        operation_id="explain",
        responses={
            200: {"model": ExplanationOut},
            401: PROBLEMS[401],
            403: PROBLEMS[403],
            422: problem_answer("A parameter is missing or wrong."),
            503: PROBLEMS[503],
        },
        openapi_extra={**GUARDED["openapi_extra"], "parameters": _PARAMETERS},
    )
    return router


class _Explaining:
    def __init__(self, door: Door) -> None:
        self._door = door

    async def explain(self, request: Request) -> Response:
        """Find the reply in a text: what it means, who must act and how, and what Postroom does with it."""
        await self._door.caller(request, "messages.read", self._door.budget())
        query = request.query_params
        text = query.get("reply")
        if not text or not text.strip():
            raise unprocessable("/reply", "reply_missing", "Give the text to explain in `reply`.")
        if len(text) > LONGEST:
            detail = f"`reply` may have {LONGEST:,} characters; the lines around the error are enough."
            raise unprocessable("/reply", "reply_too_long", detail)
        route = self._route(query.get("route"))
        kind = _kind(query.get("kind")) if route is None else route.kind
        if route is not None and "kind" in query:
            raise unprocessable("/kind", "route_and_kind", "Give `route` or `kind`, not both.")
        explanation = await self._door.off_loop(_WEIGHT * len(text), lambda: explain(text, kind=kind))
        organization = self._door.organization
        names = {} if route is None else names_of(route, text, organization)
        return JSONResponse(explanation.as_json(names))

    def _route(self, name: str | None) -> Route | None:
        if name is None:
            return None
        sandbox = self._door.book.sandbox
        known = {**self._door.book.routes, **({sandbox.name: sandbox} if sandbox else {})}
        if name not in known:
            raise unprocessable(
                "/route", "unknown_route", "There is no such route; `GET /routes` lists them."
            )
        return known[name]


def names_of(route: Route, text: str, organization: Organization) -> Mapping[str, str]:
    """Say what remedies may call by name on this route; what is not certain is left out.

    A route with several mailboxes has a certain one only where the text names it.
    """
    account = _account(route, text)
    login = route.login if account is None else account.login
    mailbox = str(account.address) if account is not None else ""
    if account is None and isinstance(login, BasicLogin):
        mailbox = login.username
    names = {
        "mailbox": mailbox,
        "domain": _domain(route, mailbox),
        "host": route.peer.host,
        "route": route.name,
        "tenant_id": organization.tenant_id or "",
        "application_id": login.client_id if isinstance(login, OAuthLogin) else "",
        "address": str(organization.static_ips[0]) if len(organization.static_ips) == 1 else "",
    }
    return {name: value for name, value in names.items() if value}


def _account(route: Route, text: str) -> Account | None:
    named = [each for each in route.accounts if str(each.address).lower() in text.lower()]
    if len(named) == 1:
        return named[0]
    return route.accounts[0] if len(route.accounts) == 1 else None


def _domain(route: Route, mailbox: str) -> str:
    if "@" in mailbox:
        return mailbox.rpartition("@")[2]
    if route.mx_of is not None:
        return route.mx_of
    return route.sender_domains[0] if route.sender_domains and len(route.sender_domains) == 1 else ""


def _kind(name: str | None) -> RouteKind | None:
    if name is None:
        return None
    try:
        return RouteKind(name)
    except ValueError:
        kinds = ", ".join(RouteKind)
        raise unprocessable("/kind", "unknown_kind", f"The kinds of routes are: {kinds}.") from None
