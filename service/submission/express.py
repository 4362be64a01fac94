"""The short way of what is asked for all the time: `POST /messages` goes straight to its endpoint.

The framework looks through every route for each request, and puts stacks of its own around the endpoint; for
a small message that costs as much as the message. The endpoint reads its request by hand and answers with a
response, so it needs none of it. The route itself stays where it was, for the document and for other methods.
"""

from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

Endpoint = Callable[[Request], Awaitable[Response]]
Refuse = Callable[[Request, Exception], Awaitable[Response]]


class Express:
    """The middleware just before the framework's own ways."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        endpoints: Mapping[tuple[str, str], Endpoint],
        refusals: Mapping[type[Exception], Refuse],
    ) -> None:
        """`endpoints` are found by method and path; `refusals` make answers of what they raise."""
        self._app = app
        self._endpoints = endpoints
        self._refusals = refusals

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope.get("root_path"):
            await self._app(scope, receive, send)
            return
        endpoint = self._endpoints.get((scope["method"], scope["path"]))
        if endpoint is None:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive, send)
        try:
            response = await endpoint(request)
        except tuple(self._refusals) as exc:
            refuse = next(refuse for kind, refuse in self._refusals.items() if isinstance(exc, kind))
            response = await refuse(request, exc)
        await response(scope, receive, send)
