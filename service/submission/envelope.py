"""Around every answer: a request id, the headers of safety, a count, and a last resort against bugs."""

import time

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.ledger.ids import new_id
from service.submission.problems import Problem
from service.submission.request.operations import ACCEPTING, operation_of
from service.telemetry import figures, traces
from service.telemetry.logs import IN_HAND

log = structlog.get_logger()

_EVERY_ANSWER = {
    b"x-content-type-options": b"nosniff",
    b"cache-control": b"no-store",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"referrer-policy": b"no-referrer",
}


class Envelope:
    """The middleware around all endpoints."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = new_id("req")
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        if "traceparent" not in state:  # `Tracing` has one of its own
            state["traceparent"] = traces.given(scope["headers"])
        in_hand = IN_HAND.set(state)
        began = time.perf_counter()
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                _count(scope, message["status"], began)
                present = {name.lower() for name, _ in message["headers"]}
                extra = [(name, value) for name, value in _EVERY_ANSWER.items() if name not in present]
                message["headers"] = [*message["headers"], *extra, (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception:
            figures.BUGS.add("request")
            log.exception("request.bug", method=scope["method"])
            if started:
                raise
            detail = "This is a bug of Postroom; its log has the details under this request_id."
            problem = Problem(status=500, code="internal_error", detail=detail)
            await problem.response(request_id)(scope, receive, send_with_headers)
        finally:
            IN_HAND.reset(in_hand)


def _count(scope: Scope, status: int, began: float) -> None:
    operation = operation_of(scope)
    figures.REQUESTS.add(operation, status)
    if status < 300 and operation in ACCEPTING:
        figures.ACCEPTANCE.observe(time.perf_counter() - began, operation)
