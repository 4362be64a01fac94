"""What all endpoints share: the ledger, the routes, the limits, who is calling, and patience.

The ledger has a budget of time in each request. When it is used up, the answer is 503, and
whatever still goes on in the background is given up.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from fastapi import Request
from pydantic import BaseModel

from service.ledger import Ledger, LedgerUnavailable
from service.ledger.audit import Actor
from service.ledger.ids import is_id
from service.ledger.keys import CALLER, Key
from service.ledger.pace import LaneLimits
from service.routes.advice import Organization
from service.routes.choice import RouteBook
from service.routes.preflight.conduct import Asked, Conducted
from service.routes.route import Route
from service.submission import models
from service.submission.feed.telling import Telling
from service.submission.limits import SubmissionLimits
from service.submission.problems import not_found
from service.submission.request.bodies import Bodies
from service.submission.request.headers import given
from service.submission.request.query import parameters
from service.submission.ringing import Nudge, Ringing
from service.submission.templating.rendering import Renderer
from service.submission.who.callers import Callers, demand_scope, sees
from service.submission.who.entra import AccessTokens, EntraApi
from service.submission.who.peers import Ip, client_of
from service.telemetry import figures

if TYPE_CHECKING:
    from service.submission.intake.desk import Desk

Clock = Callable[[], datetime]
Checks = Callable[[Route, Asked], Awaitable[Conducted | None]]  # `Conductor.check`
MetricsPage = Callable[[str], Awaitable[tuple[bytes, str]]]  # `Page.write`
Result = TypeVar("Result")

#: Bodies up to this size are read on the event loop; larger ones cost more than a thread's switch.
SMALL = 16_384

#: What an operation behind a key says in the OpenAPI document.
GUARDED: dict[str, Any] = {"openapi_extra": {"security": [{"key": []}]}}


def problem_answer(description: str) -> dict[str, Any]:
    """Describe an answer that is a problem, for the OpenAPI document.

    By reference: of a `model` the framework makes a validator for each of some ten answers of each operation,
    at the start and again at the first request, which waited for it.
    """
    schema = {"$ref": f"#/components/schemas/{models.ProblemOut.__name__}"}
    return {"description": description, "content": {"application/problem+json": {"schema": schema}}}


#: What each status says of itself, for the OpenAPI document.
REFUSALS = {
    400: "The request cannot be read, or its body is not JSON.",
    401: "No valid API key or access token.",
    403: "The caller lacks the scope, or is restricted.",
    404: "There is no such resource for this caller.",
    408: "The body took too long to arrive.",
    409: "The state of the resource does not allow it now.",
    410: "It is no longer kept.",
    413: "The body is too large.",
    415: "The body's content type is not for this path.",
    422: "A field or a parameter is wrong.",
    429: "Too many requests, or a quota is used up: see Retry-After and RateLimit.",
    431: "The request's head is too large.",
    503: "The ledger cannot be used at the moment, or the queue is full: see Retry-After.",
}


def refusals(*statuses: int, **said: str) -> dict[int | str, dict[str, Any]]:
    """Describe the problems of a guarded operation: 401, 403, 429 and 503 are always possible.

    `said` has words of its own for a status: `s404="No such template."`.
    """
    return {
        status: problem_answer(said.get(f"s{status}", REFUSALS[status]))
        for status in sorted({401, 403, 429, 503, *statuses})
    }


#: What reading a JSON body can end in, beside what its fields do.
BODY = (400, 408, 413, 415, 422)


def json_body(shape: type[BaseModel], *, required: bool = True, **more: Any) -> dict[str, Any]:
    """Describe a guarded operation whose body is read by hand (`validation.read`), for the OpenAPI document.

    List the shape in the module's `SHAPES` too; `more` is added, `parameters` for example.
    """
    schema = {"$ref": f"#/components/schemas/{shape.__name__}"}
    return {
        "openapi_extra": {
            **GUARDED["openapi_extra"],
            "requestBody": {"required": required, "content": {"application/json": {"schema": schema}}},
            **more,
        }
    }


def guarded(**more: Any) -> dict[str, Any]:
    """Describe a guarded operation without a body; `more` is added, `parameters` for example."""
    return {"openapi_extra": {**GUARDED["openapi_extra"], **more}}


#: The problems that every guarded operation may answer with.
PROBLEMS: dict[int | str, dict[str, Any]] = {
    401: problem_answer("No valid API key."),
    403: problem_answer("The key lacks a scope."),
    404: problem_answer("No such resource for this key."),
    503: problem_answer("The ledger cannot be used at the moment."),
}


def _reads_a_query(request: Request) -> bool:
    described = getattr(request.scope.get("route"), "openapi_extra", None)
    # What is not described stands behind no route of this application, and answers for itself.
    return described is None or any(each.get("in") == "query" for each in described.get("parameters", ()))


class Health(Protocol):
    """What the probes ask beside the ledger."""

    revision: str  # the schema that this version needs

    async def redis(self) -> bool: ...


class Door:
    """What endpoints have in common, and the first steps of each."""

    desk: "Desk"  # what every way of sending goes through; it needs the door, so it comes after it
    page: MetricsPage | None = None  # what /metrics answers; None: it is on another port, or switched off

    def __init__(
        self,
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
        renderer: Renderer,
        telling: Telling,
        entra: EntraApi | None = None,
    ) -> None:
        """`entra` says which access tokens are taken besides keys; None: none."""
        self.ledger = ledger
        self.book = book
        self.lane_limits = lane_limits
        self.organization = organization
        self.limits = limits
        self.nudge = nudge
        self._ringing = Ringing(nudge)
        self.clock = clock
        self.health = health
        self.check = check
        self.renderer = renderer
        self.telling = telling
        self._threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="door")
        self.callers = Callers(ledger, clock, tokens=AccessTokens(entra) if entra else None)
        self.bodies = Bodies(
            each=limits.body_octets, together=limits.bodies_octets, seconds=limits.body_seconds
        )

    async def off_loop(self, size: int, work: Callable[[], Result]) -> Result:
        """Do what takes the longer the larger a body is: in a thread, where it is of some size."""
        if size <= SMALL:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def budget(self) -> "Budget":
        """Start a request's patience with the ledger."""
        return Budget(self.limits.ledger_seconds)

    async def callers_key(self, request: Request, budget: "Budget") -> Key:
        """Say who is calling; raises 401, 403, 429 and 503 problems.

        Where the operation's description knows no parameter of the query, a query is a 422: others read theirs.
        """
        headers, client = given(request, b"authorization"), self._client(request)
        vouched: Key | None = request.scope.get(CALLER)
        if vouched is not None:
            key: Key | None = self.callers.admitted(vouched, client)
        else:
            key = self.callers.remembered(headers, client)
        if key is None:
            key = await budget.spend(self.callers.caller(headers, client))
        request.scope.setdefault("state", {})["application"] = key.application
        if request.scope["query_string"] and not _reads_a_query(request):
            parameters(request, ())
        return key

    async def caller(self, request: Request, scope: str, budget: "Budget") -> Key:
        """Say who is calling, and demand a scope; raises a 401 or 403 problem, and what `callers_key` raises."""
        key = await self.callers_key(request, budget)
        demand_scope(key, scope)
        return key

    def actor(self, request: Request, key: Key) -> Actor:
        """Say who acts and from where, for the audit."""
        return Actor(
            application=key.application,
            id=key.id,
            address=str(client) if (client := self._client(request)) else None,
            request_id=request.scope.get("state", {}).get("request_id"),
        )

    def _client(self, request: Request) -> Ip | None:
        return client_of(request, trusted=self.limits.trusted_proxies)

    async def message(self, message_id: str, key: Key, budget: "Budget") -> Any:
        """Return the application's own message; raises a 404 problem."""
        if not is_id(message_id, "msg"):
            raise not_found()
        found = await budget.spend(self.ledger.message(message_id, application=sees(key)))
        if found is None:
            raise not_found()
        return found

    async def body(self, request: Request) -> bytes:
        """Read the body, within its limits of size and time; raises 400, 408, 413 and 503 problems."""
        return await self.bodies.read(request)

    def look(self) -> None:
        """Say what is in hand at this moment."""
        figures.BODIES.set(self.bodies.in_flight)
        figures.STREAMS.set(self.telling.streams.open)

    def begin(self) -> None:
        """Start what goes on in the background; needs a running event loop."""
        self.callers.prefetch()

    async def aclose(self) -> None:
        """End what goes on in the background."""
        await self.callers.aclose()
        await self._ringing.aclose()

    def ring(self, lanes: Collection[str]) -> None:
        """Let the workers look at these lanes now, without waiting for it."""
        self._ringing.ring(lanes)


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
