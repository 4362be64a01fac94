"""The HTTP door, put together: the endpoints, what is around every answer, and every refusal.

Each group of endpoints is a module with a function `endpoints(door)`.
"""

from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.routing import Match

from service.ledger import Ledger, LedgerUnavailable
from service.ledger.pace import LaneLimits
from service.routes.advice import Organization
from service.routes.choice import RouteBook
from service.submission import probes
from service.submission.acts import acting
from service.submission.contract import documentation
from service.submission.contract.document import document
from service.submission.door import Checks, Clock, Door, Health
from service.submission.envelope import Envelope
from service.submission.erasing import erasures
from service.submission.express import Express
from service.submission.feed import events, webhooks
from service.submission.feed.telling import Telling
from service.submission.history import content, finding, reading, why
from service.submission.intake import sending
from service.submission.intake.desk import Desk
from service.submission.limits import SubmissionLimits
from service.submission.problems import Problem, by_status, ledger_unavailable, unprocessable
from service.submission.request.bodies import BodiesInFlight
from service.submission.request.headers import request_id
from service.submission.resend import emails
from service.submission.resend.errors import ErrorsInTheirForm
from service.submission.ringing import Nudge
from service.submission.suppressing import suppression_rules, suppressions
from service.submission.templating import templates
from service.submission.templating.rendering import Renderer
from service.submission.tracing import Tracing
from service.submission.ways import checking, explaining, pausing, routes
from service.submission.who import keys
from service.submission.who.entra import EntraApi
from service.telemetry import traces

_GROUPS = (
    sending,
    finding,
    reading,
    acting,
    content,
    why,
    routes,
    checking,
    pausing,
    explaining,
    suppression_rules,
    suppressions,
    erasures,
    templates,
    keys,
    events,
    webhooks,
    probes,
    emails,
    documentation,
)


def create_app(
    *,
    ledger: Ledger,
    book: RouteBook,
    lane_limits: Mapping[str, LaneLimits],
    organization: Organization,
    limits: SubmissionLimits,
    nudge: Nudge,
    clock: Clock,
    health: Health,
    check: Checks,
    telling: Telling,
    entra: EntraApi | None = None,
) -> FastAPI:
    """Make the application; whoever calls opens and closes what it is given, and `app.state.renderer`."""
    app = FastAPI(
        title="Postroom",
        summary="A company's own mail-sending API on top of Microsoft 365",
        version="0.1.0",
        # The document and its page are ours: `documentation`.
        openapi_url=None,
        openapi_tags=[
            {"name": "messages", "description": "Send mail, and see what became of it."},
            {"name": "attempts", "description": "The ledger: every try, with its dialogue."},
            {
                "name": "routes",
                "description": "The ways out: their state, pace and settings, and which to choose.",
            },
            {
                "name": "suppressions",
                "description": "Addresses and domains that get no mail, by hand and by rule.",
            },
            {"name": "erasures", "description": "Take one person out of the ledger; counts and proof stay."},
            {
                "name": "emails",
                "description": "The same messages in the shape of the Resend API, for its SDKs.",
            },
            {"name": "templates", "description": "Content in versions, rendered for each message."},
            {
                "name": "keys",
                "description": "Who may do what: API keys, their restrictions and their rotation.",
            },
            {"name": "events", "description": "What happened, in order: page by page, or as a stream."},
            {"name": "webhooks", "description": "What happens, posted to an address (Standard Webhooks)."},
            {"name": "service", "description": "Who am I, and is the service well?"},
        ],
        # A path is what it is. The framework's redirect would name the host that the caller named.
        redirect_slashes=False,
        # Its spans would have queries in them, and so addresses: ours are `Tracing`.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.renderer = Renderer()
    door = Door(
        ledger=ledger,
        book=book,
        lane_limits=lane_limits,
        organization=organization,
        limits=limits,
        nudge=nudge,
        clock=clock,
        health=health,
        check=check,
        renderer=app.state.renderer,
        telling=telling,
        entra=entra,
    )
    app.state.door = door
    door.desk = Desk(door)
    # Bodies are read by hand, so their shapes are told to the document by hand too.
    app.state.shapes = tuple(shape for group in _GROUPS for shape in getattr(group, "SHAPES", ()))
    for group in _GROUPS:
        router = group.endpoints(door)
        app.include_router(router)
        app.include_router(router, prefix="/v1", include_in_schema=False)
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(LedgerUnavailable, _on_ledger_unavailable)
    app.add_exception_handler(RequestValidationError, _on_bad_parameters)
    app.add_exception_handler(HTTPException, _on_refusal)
    app.add_middleware(
        Express,
        endpoints=sending.express(door),
        refusals={
            Problem: _on_problem,
            LedgerUnavailable: _on_ledger_unavailable,
            HTTPException: _on_refusal,
        },
    )
    app.add_middleware(Envelope)
    app.add_middleware(BodiesInFlight, bodies=door.bodies)
    app.add_middleware(ErrorsInTheirForm)  # around the envelope, which has refusals of its own
    if traces.on():
        app.add_middleware(Tracing)
    app.openapi = lambda: document(app)  # type: ignore[method-assign]  # the framework's own way to extend it
    return app


async def _on_problem(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, Problem)
    return exc.response(request_id(request))


async def _on_ledger_unavailable(request: Request, exc: Exception) -> Response:
    return ledger_unavailable().response(request_id(request))


async def _on_bad_parameters(request: Request, exc: Exception) -> Response:
    return unprocessable("", "invalid", "A parameter of the request is wrong.").response(request_id(request))


async def _on_refusal(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    problem = by_status(exc.status_code)
    response = problem.response(request_id(request))
    for name, value in (exc.headers or {}).items():
        response.headers[name] = value
    if exc.status_code == 405:
        response.headers["Allow"] = ", ".join(_allowed(request))
    return response


def _allowed(request: Request) -> list[str]:
    """List the methods of a path (RFC 9110, section 10.2.1): the framework names those of one of its routes."""
    return [
        method
        for method in ("GET", "POST", "PATCH", "DELETE")
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.router.routes
        )
    ]
