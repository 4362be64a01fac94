"""Refusals in Resend's form: `{"statusCode": 422, "name": "missing_required_field", "message": "…"}`.

One place for all of it, around everything that is answered under `/emails`: what the endpoints refuse, what
the framework refuses before them (404, 405, 413), what is refused for the sake of all (401, 429, 503), and
the last resort against bugs (500). Each comes here as a problem (RFC 9457) and leaves in the other form,
with its headers, `Retry-After` among them.

The names and statuses are those of https://resend.com/docs/api-reference/errors (November 2026), which is
what the SDKs make their exceptions from. Resend has no name for 408, 413, 415 and 503; these keep their status.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_PATHS = re.compile(r"(?:/v1)?/emails(?:/.*)?", re.DOTALL)
_PROBLEM = "application/problem+json"
_CHALLENGE = 'Bearer realm="postroom", error="insufficient_scope"'

#: Seconds after which what is used up is no rate any more.
_MINUTE = 60

#: What a stable code of ours is called there.
_BY_CODE = {
    "missing_key": (401, "missing_api_key"),
    "insufficient_scope": (401, "restricted_api_key"),
    "network_not_allowed": (401, "restricted_api_key"),
    "test_key": (401, "restricted_api_key"),
    "idempotency_key_invalid": (400, "invalid_idempotency_key"),
    "idempotency_key_reused": (409, "invalid_idempotent_request"),
    "request_in_progress": (409, "concurrent_idempotent_requests"),
}

#: What a status is called there, where the code says nothing more.
_BY_STATUS = {
    400: (400, "validation_error"),
    401: (403, "invalid_api_key"),
    403: (403, "validation_error"),
    404: (404, "not_found"),
    405: (405, "method_not_allowed"),
    408: (408, "application_error"),
    409: (422, "validation_error"),
    413: (413, "validation_error"),
    415: (415, "validation_error"),
    422: (422, "validation_error"),
    429: (429, "rate_limit_exceeded"),
    500: (500, "internal_server_error"),
    503: (503, "application_error"),
}

#: What a wrong field is called there, by the field.
_BY_FIELD = {"from": "invalid_from_address", "attachments": "invalid_attachment"}

#: The fields of Resend's requests: the others are nobody's business there.
_FIELDS = frozenset({
    "from", "to", "cc", "bcc", "reply_to", "subject", "html", "text", "headers", "attachments", "tags",
    "scheduled_at", "template", "topic_id",
})  # fmt: skip


def error_of(problem: Mapping[str, Any], *, retry_after: int = 0) -> dict[str, Any]:
    """Put a problem into Resend's form.

    `retry_after` is what the answer's header says, in seconds: a quota that is back within a minute is a rate,
    one that takes longer a daily quota.
    """
    status, code = int(problem["status"]), str(problem["code"])
    first = next(iter(problem["errors"]), None)
    new_status, name = _BY_CODE.get(code) or _BY_STATUS.get(status, (status, "application_error"))
    if code == "quota_exceeded" and retry_after > _MINUTE:
        name = "daily_quota_exceeded"
    if status == 422 and first is not None and code not in _BY_CODE:
        name = _name_of_field(first)
    return {"statusCode": new_status, "name": name, "message": message_of(problem)}


def message_of(problem: Mapping[str, Any], *, of_batch: bool = True) -> str:
    """Say what is wrong as Resend says it: the first mistake, with the field it is in.

    `of_batch` says which email of a batch it is, where it is one.
    """
    first = next(iter(problem["errors"]), None)
    if first is None:
        return str(problem["detail"])
    place, field, path = _place(str(first["pointer"]))
    place = place if of_batch else ""
    detail = str(first["detail"])
    if field is None:
        return f"{place}{detail}"
    if first["code"] == "required":
        return f"{place}Missing `{path}` field."
    return f"{place}Invalid `{path}` field. {detail}"


def _name_of_field(error: Mapping[str, Any]) -> str:
    pointer = str(error["pointer"])
    if pointer.startswith("?"):
        return "invalid_parameter"
    _, field, _ = _place(pointer)
    if error["code"] == "required" and field != "attachments":
        return "missing_required_field"
    return _BY_FIELD.get(field or "", "validation_error")


def _place(pointer: str) -> tuple[str, str | None, str]:
    """Read a pointer: which email of a batch, which field of it, and the way to the fault in it."""
    if pointer.startswith("?"):
        return "", pointer[1:], pointer[1:]
    steps = pointer.split("/")[1:]
    place = ""
    if steps and steps[0].isdigit():
        place = f"Email {steps.pop(0)}: "
    if not steps or steps[0] not in _FIELDS:
        return place, None, ""
    path = "".join(f"[{step}]" if step.isdigit() else f".{step}" for step in steps)
    return place, steps[0], path[1:]


class ErrorsInTheirForm:
    """The middleware around everything, which changes problems under `/emails` and nothing else."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or "/emails" not in scope["path"] or not _PATHS.fullmatch(scope["path"]):
            await self._app(scope, receive, send)
            return
        await self._app(scope, receive, _Translator(send))


class _Translator:
    """Sends what comes; a problem is held back until it is whole, and sent in the other form."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message | None = None
        self._body = bytearray()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and _is_problem(message):
            self._start = message
            return
        if self._start is None:
            await self._send(message)
            return
        self._body += message.get("body", b"")
        if not message.get("more_body", False):
            await self._translate(self._start)

    async def _translate(self, start: Message) -> None:
        headers = MutableHeaders(raw=list(start["headers"]))
        waits = headers.get("retry-after", "")
        error = error_of(json.loads(self._body), retry_after=int(waits) if waits.isdecimal() else 0)
        body = json.dumps(error).encode()
        headers["content-type"] = "application/json"
        headers["content-length"] = str(len(body))
        if error["statusCode"] == 401:
            headers.setdefault("www-authenticate", _CHALLENGE)  # RFC 9110, section 15.5.2, wants one
        await self._send({**start, "status": error["statusCode"], "headers": headers.raw})
        await self._send({"type": "http.response.body", "body": body})


def _is_problem(start: Message) -> bool:
    return Headers(raw=list(start["headers"])).get("content-type", "").startswith(_PROBLEM)
