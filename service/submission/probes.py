"""Who am I, and is the service well?"""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from service.ledger import LedgerUnavailable
from service.submission import models, representation
from service.submission.door import GUARDED, Door, refusals


def endpoints(door: Door) -> APIRouter:
    """Make the endpoints about the caller and the service itself."""
    router = APIRouter(tags=["service"])
    probes = _Probes(door)
    router.add_api_route(
        "/me",
        probes.me,
        methods=["GET"],
        summary="See the key or token that is used",
        operation_id="get_me",
        responses={200: {"model": models.KeyOut}, **refusals()},
        **GUARDED,
    )
    router.add_api_route(
        "/livez",
        probes.livez,
        methods=["GET"],
        summary="Is the process alive?",
        operation_id="get_liveness",
        responses={200: {"model": models.LivenessOut}},
    )
    router.add_api_route(
        "/readyz",
        probes.readyz,
        methods=["GET"],
        summary="Can it accept mail?",
        operation_id="get_readiness",
        responses={200: {"model": models.ReadinessOut}, 503: {"model": models.ReadinessOut}},
    )
    return router


class _Probes:
    def __init__(self, door: Door) -> None:
        self._door = door

    async def me(self, request: Request) -> Response:
        """Show the key or the access token that this request uses, and what it may do."""
        budget = self._door.budget()
        key = await self._door.callers_key(request, budget)
        return JSONResponse(representation.key(key))

    async def livez(self) -> Response:
        """Say that the process answers."""
        return JSONResponse({"status": "alive"})

    async def readyz(self) -> Response:
        """Say whether mail can be accepted: without Redis it can, without the ledger it cannot."""
        checks = {"ledger": "ok", "schema": "ok", "redis": "ok"}
        budget = self._door.budget()
        try:
            if not await budget.spend(self._door.ledger.writable()):
                checks["ledger"] = "read-only"
            found = await budget.spend(self._door.ledger.revision())
            if found != self._door.health.revision:
                checks["schema"] = (
                    f"at {found or 'nothing'}, needs {self._door.health.revision}: run `postroom migrate`"
                )
        except LedgerUnavailable:
            checks["ledger"] = "unavailable"
        if not await self._door.health.redis():
            checks["redis"] = "unavailable"
        if checks["ledger"] != "ok" or checks["schema"].endswith("`postroom migrate`"):
            return JSONResponse({"status": "unavailable", "checks": checks}, status_code=503)
        status = "ready" if checks["redis"] == "ok" else "degraded"
        return JSONResponse({"status": status, "checks": checks})
