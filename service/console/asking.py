"""Ask the API: a request that never leaves the process, in the name of somebody who is signed in.

The API is an ASGI application. A request to it is a call with a scope of our own making, in which stands who calls
(`keys.CALLER`); no header can put it there. The client's address and what proxies say of it are passed on, so that a
key's networks and the audit's addresses are those of the person at the browser.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Scope

from service.ledger.keys import CALLER, Key

#: What of a browser's request the API is told.
_PASSED_ON = (b"host", b"x-forwarded-for", b"user-agent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the API said."""

    status: int
    headers: Headers
    body: bytes = field(repr=False)

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(kw_only=True, eq=False)  # not frozen: raising sets the traceback
class Refused(Exception):
    """The API said no; the page says why in its words, which repeat nothing of the request."""

    status: int
    code: str
    detail: str
    retry_after: str | None = None
    problem: Mapping[str, Any] = field(default_factory=dict)


class Api:
    """The API, as the console asks it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def get(self, request: Request, who: Key | None, *path: str, **query: str) -> Any:
        """Ask for a resource, as JSON; raises Refused. The parts of the path are quoted."""
        return (await self.ask(request, who, "GET", *path, query=query)).json()

    async def post(
        self, request: Request, who: Key | None, *path: str, body: Mapping[str, Any] | None = None
    ) -> Any:
        """Ask for an act; raises Refused."""
        return (await self.ask(request, who, "POST", *path, body=body)).json()

    async def ask(
        self,
        request: Request,
        who: Key | None,
        method: str,
        *path: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> Answer:
        """Ask anything; raises Refused where the answer is no success."""
        octets = b"" if body is None else json.dumps(body).encode()
        scope = _scope(request, method, path, query or {})
        scope["headers"] += [*headers, (b"content-length", str(len(octets)).encode())]
        if octets:
            scope["headers"].append((b"content-type", b"application/json"))
        if who is not None:
            scope[CALLER] = who
        answer = await _called(self._app, scope, octets)
        if answer.status >= 400:
            raise _refused(answer)
        return answer


def _scope(request: Request, method: str, path: Sequence[str], query: Mapping[str, str]) -> Scope:
    quoted = "".join(f"/{quote(part, safe='')}" for part in path)
    return {
        "type": "http",
        "asgi": request.scope.get("asgi", {"version": "3.0"}),
        "http_version": "1.1",
        "method": method,
        "scheme": request.scope.get("scheme", "http"),
        "path": "".join(f"/{part}" for part in path),
        "raw_path": quoted.encode(),
        "root_path": "",
        "query_string": urlencode(query).encode(),
        "headers": [(name, value) for name, value in request.scope["headers"] if name in _PASSED_ON],
        "client": request.scope.get("client"),
        "server": request.scope.get("server"),
        "state": {},
    }


async def _called(app: ASGIApp, scope: Scope, octets: bytes) -> Answer:
    given = [{"type": "http.request", "body": octets, "more_body": False}]
    status, headers, pieces = 500, [], []

    async def receive() -> Message:
        return given.pop() if given else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        nonlocal status, headers
        if message["type"] == "http.response.start":
            status, headers = message["status"], message["headers"]
        elif message["type"] == "http.response.body":
            pieces.append(message.get("body", b""))

    await app(scope, receive, send)
    return Answer(status=status, headers=Headers(raw=headers), body=b"".join(pieces))


def _refused(answer: Answer) -> Refused:
    try:
        problem = answer.json()
    except ValueError:
        problem = {}
    return Refused(
        status=answer.status,
        code=str(problem.get("code", "refused")),
        detail=str(problem.get("detail", "The request was refused.")),
        retry_after=answer.headers.get("retry-after"),
        problem=problem,
    )
