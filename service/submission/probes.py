"""Who am I, is the service well, and what has it counted?

The probes and the figures ask for no key: a kubelet and Prometheus have none. There is nothing in them about a
recipient or a message; whoever may not see how much mail there is, gets them on a port of its own
(`metrics.port`) or not at all (`metrics.enabled`).
"""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from service.exposition.health import readiness
from service.submission import models, representation
from service.submission.door import GUARDED, Door, problem_answer, refusals
from service.submission.problems import Problem

_EXAMPLE = """\
# HELP postroom_messages_accepted_total Messages that were committed to the ledger.
# TYPE postroom_messages_accepted_total counter
postroom_messages_accepted_total{application="shop"} 4711.0
"""


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
    router.add_api_route(
        "/metrics",
        probes.metrics,
        methods=["GET"],
        summary="What was counted, for Prometheus",
        operation_id="get_metrics",
        response_class=PlainTextResponse,
        responses={
            200: {
                "content": {"text/plain": {"schema": {"type": "string"}, "example": _EXAMPLE}},
                "description": "Every metric; docs/metrics.md lists them.",
            },
            404: problem_answer("The figures are on another port, or switched off."),
        },
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

    async def metrics(self, request: Request) -> Response:
        """Show the figures of this process and of the ledger, in Prometheus' text format or in OpenMetrics.

        Without a key, as every scraper asks; there is no secret and no personal data in them.
        """
        if self._door.page is None:
            raise Problem(status=404, code="no_metrics", detail="There are no figures on this port.")
        octets, content_type = await self._door.page(request.headers.get("accept", ""))
        return Response(octets, headers={"Content-Type": content_type})

    async def readyz(self) -> Response:
        """Say whether mail can be accepted: without Redis it can, without the ledger it cannot."""
        found = await readiness(self._door.ledger, self._door.health, spend=self._door.budget().spend)
        return JSONResponse(found.body, status_code=found.status)
