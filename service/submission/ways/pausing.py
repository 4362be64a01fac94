"""Let a route rest by hand, and let it go on: for operators, before work on the other side or when something is wrong.

Every pause has an end, so that nobody has to remember it.
"""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import ConfigDict, Field

from service.ledger.keys import Key
from service.routes.route import Route
from service.submission.door import BODY, Budget, Door, json_body, refusals
from service.submission.models import Shape
from service.submission.problems import not_found
from service.submission.request.durations import DurationText, read_duration
from service.submission.request.validation import read
from service.submission.ways.route_models import RouteOut
from service.submission.ways.routes import Asking

_USUAL = "1h"
_MOST = timedelta(days=30)

Reason = Annotated[str, Field(strict=True, min_length=1, max_length=500)]


class ResumeIn(Shape):
    """Why a route goes on."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "the maintenance is over"}]})

    reason: Reason | None = Field(default=None, description="For people; it is kept in the audit.")


class PauseIn(Shape):
    """For how long a route rests, and why."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"for": "2h", "reason": "maintenance of the connector"}]}
    )

    for_: DurationText = Field(default=_USUAL, alias="for", description="How long: 30m, 2h, up to 30d.")
    reason: Reason | None = Field(
        default=None, description="For people; messages that wait tell it, and the audit keeps it."
    )


SHAPES = (PauseIn, ResumeIn)


def endpoints(door: Door) -> APIRouter:
    """Make the endpoints that let a route rest and go on."""
    router = APIRouter(tags=["routes"])
    pausing = _Pausing(door)
    for act, endpoint, shape, summary in (
        ("pause", pausing.pause, PauseIn, "Let a route rest"),
        ("resume", pausing.resume, ResumeIn, "Let a route go on"),
    ):
        router.add_api_route(
            f"/routes/{{name}}/{act}",
            endpoint,
            methods=["POST"],
            summary=summary,
            operation_id=f"{act}_route",
            responses={200: {"model": RouteOut}, **refusals(404, *BODY)},
            **json_body(shape, required=False),
        )
    return router


class _Pausing:
    def __init__(self, door: Door) -> None:
        self._door = door
        self._asking = Asking(door)

    async def pause(self, request: Request, name: str) -> Response:
        """Let every lane of a route rest for a while; what is in hand goes on, what comes is taken and waits.

        `route: auto` passes over it meanwhile, where another route fits.
        """
        budget, key, route = await self._opened(request, name)
        asked = await read(self._door, request, PauseIn, optional=True)
        lasts = read_duration(asked.for_, "/for", most=_MOST)
        await budget.spend(
            self._door.ledger.pausing.pause(
                name, _lanes(route), lasts=lasts, reason=asked.reason, actor=self._door.actor(request, key)
            )
        )
        return JSONResponse(await self._asking.shown(route, budget))

    async def resume(self, request: Request, name: str) -> Response:
        """Let a route go on at once: a pause is over, and a lane that rests after trouble is tried now."""
        budget, key, route = await self._opened(request, name)
        asked = await read(self._door, request, ResumeIn, optional=True)
        rested = await budget.spend(
            self._door.ledger.pausing.resume(
                name, _lanes(route), reason=asked.reason, actor=self._door.actor(request, key)
            )
        )
        self._door.ring(rested)
        return JSONResponse(await self._asking.shown(route, budget))

    async def _opened(self, request: Request, name: str) -> tuple[Budget, Key, Route]:
        budget = self._door.budget()
        key = await self._door.caller(request, "operate", budget)
        route = next((route for route in self._asking.known() if route.name == name), None)
        if route is None:
            raise not_found()
        return budget, key, route


def _lanes(route: Route) -> dict[str, str]:
    return {lane.name: route.name for lane in route.lanes()}
