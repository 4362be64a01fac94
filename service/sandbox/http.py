"""Reading back what the sandbox took, and its switches, over HTTP.

For people with curl, for the tests of applications, and for our own. Nothing here asks for a
credential: the port is meant for the machine itself or a closed network, and what lies behind it
was never sent to anybody. Errors are problem documents (RFC 9457) that repeat nothing of the
request.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException as StarletteHTTPException

from service.sandbox.behaviours import HELP
from service.sandbox.config import BadSandbox
from service.sandbox.mailroom import Taken
from service.sandbox.tenant import Tenant
from service.sandbox.tokens import Entra

_BODY_LIMIT = 256 * 1024  # octets of a PUT
_Limit = Annotated[int, Query(ge=1, le=1000)]
_Text = Annotated[str | None, Query(max_length=1000)]


def readback(
    tenant: Tenant, entra: Entra, *, ca_file: Path, doors: Callable[[], dict[str, object]]
) -> FastAPI:
    """Return the application; `doors` says where the services are to be found."""
    app = FastAPI(title="Postroom sandbox", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_exception_handler(StarletteHTTPException, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    _add_messages(app, tenant)
    _add_reports(app, tenant)
    _add_journals(app, tenant, entra)
    _add_switches(app, tenant, entra)

    @app.get("/")
    @app.get("/help")
    async def get_help() -> PlainTextResponse:
        return PlainTextResponse(HELP)

    @app.get("/doors")
    async def get_doors() -> JSONResponse:
        return JSONResponse(doors())

    @app.get("/ca.pem")
    async def get_ca() -> Response:
        return Response(ca_file.read_bytes(), media_type="application/x-pem-file")

    return app


def _add_messages(app: FastAPI, tenant: Tenant) -> None:
    @app.get("/messages")
    async def list_messages(
        to: _Text = None,
        message_id: _Text = None,
        mailbox: _Text = None,
        limit: _Limit = 100,
        after: _Text = None,
    ) -> JSONResponse:
        newest_first = reversed(list(tenant.mailroom))
        found = [one for one in newest_first if _fits(one, to=to, message_id=message_id, mailbox=mailbox)]
        names = [one.id for one in found]
        if after is not None and after not in names:
            raise HTTPException(422, "after: there is no such message in this list")
        start = names.index(after) + 1 if after is not None else 0
        page = found[start : start + limit]
        more = len(found) > start + limit
        return _list([one.as_json() for one in page], following=page[-1].id if more else None)

    @app.get("/messages/{name}")
    async def get_message(name: str) -> JSONResponse:
        taken = tenant.mailroom.get(name)
        if taken is None:
            raise HTTPException(404, "There is no such message, or it was forgotten.")
        return JSONResponse(taken.as_json())

    @app.get("/messages/{name}/content")
    async def get_content(name: str) -> Response:
        octets = tenant.mailroom.content(name)
        if octets is None:
            raise HTTPException(404, "There is no such message, or it was forgotten.")
        return _mail(name, octets)

    @app.delete("/messages")
    async def delete_messages() -> Response:
        tenant.mailroom.clear()
        tenant.reports.clear()
        return Response(status_code=204)


def _add_reports(app: FastAPI, tenant: Tenant) -> None:
    @app.get("/reports")
    async def list_reports(to: _Text = None, message_id: _Text = None, limit: _Limit = 100) -> JSONResponse:
        newest_first = reversed(list(tenant.reports))
        found = [
            report.as_json()
            for report in newest_first
            if (to is None or to.lower() == report.to.lower())
            and (message_id is None or message_id.strip("<>") == (report.message_id or "").strip("<>"))
        ]
        return _list(found[:limit])

    @app.get("/reports/{name}/content")
    async def get_report(name: str) -> Response:
        octets = tenant.reports.content(name)
        if octets is None:
            raise HTTPException(404, "There is no such report, or it was forgotten.")
        return _mail(name, octets)


def _add_journals(app: FastAPI, tenant: Tenant, entra: Entra) -> None:
    @app.get("/transactions")
    async def list_transactions(limit: _Limit = 100) -> JSONResponse:
        return _list(tenant.transactions.newest_first()[:limit])

    @app.get("/logins")
    async def list_logins(limit: _Limit = 100) -> JSONResponse:
        return _list(tenant.logins.newest_first()[:limit])

    @app.get("/token-requests")
    async def list_token_requests(limit: _Limit = 100) -> JSONResponse:
        return _list(entra.requests.newest_first()[:limit])


def _add_switches(app: FastAPI, tenant: Tenant, entra: Entra) -> None:
    @app.get("/switches")
    async def get_switches() -> JSONResponse:
        return JSONResponse(tenant.switches.as_json())

    @app.put("/switches")
    async def put_switches(request: Request) -> JSONResponse:
        try:
            tenant.switch(await _json_object(request))
        except BadSandbox as exc:
            raise HTTPException(422, str(exc)) from None
        return JSONResponse(tenant.switches.as_json())

    @app.delete("/limits")
    async def delete_limits() -> Response:
        tenant.forget_limits()
        return Response(status_code=204)

    @app.post("/tokens/roll")
    async def roll_keys() -> Response:
        await entra.roll()
        return Response(status_code=204)

    @app.post("/tokens/revoke")
    async def revoke_tokens() -> Response:
        entra.revoke_all()
        return Response(status_code=204)


def _fits(taken: Taken, *, to: str | None, message_id: str | None, mailbox: str | None) -> bool:
    if to is not None and to.lower() not in {recipient.lower() for recipient in taken.recipients}:
        return False
    if mailbox is not None and mailbox.lower() != taken.mailbox.lower():
        return False
    return message_id is None or message_id.strip("<>") == (taken.message_id or "").strip("<>")


def _mail(name: str, octets: bytes) -> Response:
    """Return a message; shown by a browser, its HTML would run with this page's rights."""
    guard = {"Content-Disposition": f"attachment; filename={name}.eml", "X-Content-Type-Options": "nosniff"}
    return Response(octets, media_type="message/rfc822", headers=guard)


async def _json_object(request: Request) -> dict[str, Any]:
    """Read a JSON object from the body, or refuse it with 413 or 422."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > _BODY_LIMIT:
            raise HTTPException(413, "The body is too large.")
    try:
        value = json.loads(bytes(body))
    except (ValueError, RecursionError):
        raise HTTPException(422, "The body is not JSON.") from None
    if not isinstance(value, dict):
        raise HTTPException(422, "The body is not a JSON object.")
    return value


def _list(entries: Sequence[dict[str, Any]], *, following: str | None = None) -> JSONResponse:
    return JSONResponse({
        "object": "list", "data": list(entries), "has_more": following is not None, "next": following,
    })  # fmt: skip


async def _problem(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, StarletteHTTPException), "registered for no other"
    return JSONResponse(
        {"title": exc.detail, "status": exc.status_code},
        status_code=exc.status_code,
        headers=exc.headers,
        media_type="application/problem+json",
    )


async def _invalid(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestValidationError), "registered for no other"
    where = sorted({str(mistake["loc"][1]) for mistake in exc.errors() if len(mistake["loc"]) > 1})
    return await _problem(request, HTTPException(422, f"not possible: {', '.join(where)}"))
