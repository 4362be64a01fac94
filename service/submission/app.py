"""The HTTP door, put together: the endpoints, what is around every answer, and every refusal.

Each group of endpoints is a module with a function `endpoints(door)`.
"""

from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from service.ledger import Ledger, LedgerUnavailable
from service.ledger.pace import LaneLimits
from service.routes.advice import Organization
from service.routes.choice import RouteBook
from service.submission import checking, documentation, explaining, probes, reading, routes, sending
from service.submission.document import document
from service.submission.door import Checks, Clock, Door, Health, Nudge
from service.submission.envelope import Envelope
from service.submission.limits import SubmissionLimits
from service.submission.problems import Problem, by_status, ledger_unavailable, unprocessable

_GROUPS = (sending, reading, routes, checking, explaining, probes, documentation)


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
) -> FastAPI:
    """Make the application; whoever calls opens and closes what it is given."""
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
            {"name": "service", "description": "Who am I, and is the service well?"},
        ],
        # What the framework would refuse by itself, we refuse in our own words.
        max_body_size=limits.body_octets,
    )
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
    )
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
    app.add_middleware(Envelope)
    app.openapi = lambda: document(app)  # type: ignore[method-assign]  # the framework's own way to extend it
    return app


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
