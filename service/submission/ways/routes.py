"""Ask about the ways out: which there are, how they do, which one to take, and who still uses passwords."""

from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from service.ledger.lanes import Resting
from service.ledger.reports import Notice
from service.routes.advice.compare import compare
from service.routes.route import Route
from service.submission.door import GUARDED, PROBLEMS, Budget, Door, problem_answer
from service.submission.problems import not_found
from service.submission.representation import whole_list
from service.submission.request.strict_json import parse_object
from service.submission.request.validation import demand_json
from service.submission.ways import advising, basic_auth, route_models, route_view
from service.submission.who.callers import sees_everything

SHAPES = (route_models.NeedsIn,)

#: More patience with the ledger for each lane that is read, in seconds.
_A_LANE = 0.2

#: The report counts a month's sessions: more patience, in seconds.
_A_REPORT = 8.0


def endpoints(door: Door) -> APIRouter:
    """Make the endpoints about routes and lanes."""
    router = APIRouter(tags=["routes"])
    asking = Asking(door)
    # `compare` and `recommend` stand before the names: no route may have their place.
    reads: tuple[tuple[str, Any, str, str, Any], ...] = (
        ("/routes", asking.routes, "list_routes", "List the routes", route_models.RouteListOut),
        ("/routes/compare", asking.compare, "compare_routes", "Compare the ways to send", route_models.ComparisonOut),
        ("/routes/{name}", asking.route, "get_route", "See a route", route_models.RouteOut),
        ("/lanes", asking.lanes, "list_lanes", "List the lanes", route_models.LaneListOut),
        (
            "/reports/basic-auth",
            asking.basic_auth,
            "get_basic_auth_report",
            "Who still logs in with a password?",
            route_models.BasicAuthReportOut,
        ),
    )  # fmt: skip
    for path, endpoint, operation, summary, shape in reads:
        router.add_api_route(
            path,
            endpoint,
            methods=["GET"],
            summary=summary,
            operation_id=operation,
            responses={200: {"model": shape}, **PROBLEMS},
            **GUARDED,
        )
    router.add_api_route(
        "/routes/recommend",
        asking.recommend,
        methods=["POST"],
        summary="Which way to take?",
        operation_id="recommend_route",
        responses={
            200: {"model": route_models.RecommendationOut},
            **PROBLEMS,
            400: problem_answer("The body is not JSON."),
            422: problem_answer("A field is wrong."),
        },
        openapi_extra={
            **GUARDED["openapi_extra"],
            "requestBody": {
                "required": False,
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/NeedsIn"}}},
            },
        },
    )
    return router


class Asking:
    """What is asked about the ways out."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def routes(self, request: Request) -> Response:
        """List every route in the order of the configuration, then the sandbox where there is one."""
        budget = self._door.budget()
        await self._door.caller(request, "routes.read", budget)
        known = self.known()
        return JSONResponse(whole_list(await self._shown(known, budget)))

    async def route(self, request: Request, name: str) -> Response:
        """Show a route: effective settings, where its limits come from, its state, its last check."""
        budget = self._door.budget()
        await self._door.caller(request, "routes.read", budget)
        found = [route for route in self.known() if route.name == name]
        if not found:
            raise not_found()
        return JSONResponse((await self._shown(found, budget))[0])

    async def compare(self, request: Request) -> Response:
        """Show the guide's comparison of the ways to send, extended, for this organisation."""
        await self._door.caller(request, "routes.read", self._door.budget())
        found = compare(self._door.organization, tuple(self._door.book.routes.values()))
        return JSONResponse(advising.comparison(found))

    async def recommend(self, request: Request) -> Response:
        """Recommend a way for these needs, with settings, SPF record, PowerShell and admin-centre steps."""
        await self._door.caller(request, "routes.read", self._door.budget())
        octets = await self._door.body(request)
        if octets:
            demand_json(request)
        members = parse_object(octets, names=advising.NEEDS) if octets else {}
        answer = advising.advise(
            members,
            organization=self._door.organization,
            book=self._door.book,
            today=self._door.clock().date(),
        )
        return JSONResponse(answer)

    async def lanes(self, request: Request) -> Response:
        """List every lane: what its budgets leave, what waits, why it rests, and when it will be empty."""
        budget = self._door.budget()
        key = await self._door.caller(request, "routes.read", budget)
        lanes = [lane for lane in self._door.book.lanes() if lane.name in self._door.lane_limits]
        budget.extend(_A_LANE * len(lanes))
        states = [
            await budget.spend(self._door.ledger.lane_state(lane.name, self._door.lane_limits[lane.name]))
            for lane in lanes
        ]
        shown = [
            route_view.lane(lane, state, everything=sees_everything(key))
            for lane, state in zip(lanes, states, strict=True)
        ]
        tenant = route_view.external_budget(states, limit=self._door.book.external_budget)
        return JSONResponse({**whole_list(shown), "external_budget": tenant})

    async def basic_auth(self, request: Request) -> Response:
        """Report who still logs in with a password, how much goes that way, what to do, and the days left."""
        budget = self._door.budget()
        key = await self._door.caller(request, "routes.read", budget)
        now = self._door.clock()
        budget.extend(_A_REPORT)
        uses = await budget.spend(self._door.ledger.password_logins(since=now - basic_auth.SPAN))
        application = None if sees_everything(key) else key.application
        return JSONResponse(basic_auth.report(self._door.book, uses, now=now, application=application))

    async def shown(self, route: Route, budget: Budget) -> dict[str, Any]:
        """Show one route as `GET /routes/{name}` does."""
        return (await self._shown([route], budget))[0]

    def known(self) -> list[Route]:
        """List the routes, the sandbox among them where there is one."""
        sandbox = self._door.book.sandbox
        return [*self._door.book.routes.values(), *([sandbox] if sandbox else [])]

    async def _shown(self, routes: list[Route], budget: Budget) -> list[dict[str, Any]]:
        resting: dict[str, Resting] = await budget.spend(self._door.ledger.resting())
        notices: list[Notice] = await budget.spend(self._door.ledger.notices())
        now: datetime = self._door.clock()
        return [
            route_view.route(
                route,
                book=self._door.book,
                cloud=self._door.organization.cloud,
                resting=resting,
                last_check=await self._last_check(route, budget),
                notices=[notice for notice in notices if notice.route == route.name],
                now=now,
            )
            for route in routes
        ]

    async def _last_check(self, route: Route, budget: Budget) -> dict[str, Any] | None:
        """Show the last preflight of a route; null until there was one."""
        found = await budget.spend(self._door.ledger.latest_check(route.name))
        return None if found is None else route_view.check(found)
