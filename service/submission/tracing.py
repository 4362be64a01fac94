"""A span around each request, while somebody wants spans (`telemetry.traces`); else this middleware is not there.

The framework has spans of its own, which are switched off: they write down whole paths and queries, and there are
addresses in these.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.submission.request.operations import operation_of
from service.telemetry import traces

#: What says nothing worth a span: probes and scrapes.
_LEFT_OUT = frozenset({"/livez", "/readyz", "/metrics"})


class Tracing:
    """The middleware around everything else."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        span = None
        if scope["type"] == "http" and scope["path"] not in _LEFT_OUT:
            span = traces.begin_request(scope["method"], scope["headers"])
        if span is None:
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})["traceparent"] = traces.traceparent_of(span)
        status: int | None = None

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            operation = operation_of(scope)
            name = operation or "unknown"
            request_id = str(scope["state"].get("request_id", ""))
            traces.end_request(
                span,
                name=f"{scope['method']} {name}",
                status=status,
                attributes={"postroom.operation": name, "postroom.request_id": request_id},
            )
