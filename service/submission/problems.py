"""Refusals: problem details (RFC 9457) with a stable code, for people and for programs.

No problem repeats anything of the request: not a value, not a name that the caller chose.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import JSONResponse

from service.telemetry import figures

_TITLES = {
    400: "The request cannot be read",
    401: "A valid API key is needed",
    403: "The API key does not allow this",
    404: "There is nothing here",
    405: "This method is not for this path",
    408: "The request took too long to arrive",
    409: "Not at this moment",
    410: "It is no longer kept",
    413: "The request is too large",
    415: "This content type is not for this path",
    422: "The request cannot be carried out as it stands",
    429: "Too many requests",
    431: "The request's header is too large",
    500: "Postroom failed",
    503: "Postroom cannot do this at the moment",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldError:
    """What is wrong with one field."""

    pointer: str  # JSON pointer (RFC 6901), ending at the last name that our contract defines
    code: str
    detail: str
    line: int | None = None  # of a template
    variable: str | None = None  # of a template, by the name that its author gave it

    def as_json(self) -> dict[str, Any]:
        place = {"line": self.line, "variable": self.variable}
        return {
            "pointer": self.pointer,
            "code": self.code,
            "detail": self.detail,
            **{name: value for name, value in place.items() if value is not None},
        }


@dataclass(kw_only=True, eq=False)  # not frozen: raising sets the traceback
class Problem(Exception):  # the word of RFC 9457
    """A refusal on its way to the caller."""

    status: int
    code: str
    detail: str
    errors: Sequence[FieldError] = ()
    retry_after: int | None = None  # seconds
    headers: Mapping[str, str] = field(default_factory=dict)
    members: Mapping[str, Any] = field(default_factory=dict)  # further members of the problem

    @property
    def retryable(self) -> bool:
        """Say whether the same request may succeed later."""
        if self.status == 409:
            return self.retry_after is not None  # what runs will end; a state does not pass by waiting
        return self.status in {408, 429, 503}

    def body(self, request_id: str) -> dict[str, Any]:
        """Write the problem as JSON."""
        return {
            "type": "about:blank",
            "title": _TITLES.get(self.status, "The request was refused"),
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "request_id": request_id,
            "retryable": self.retryable,
            "errors": [error.as_json() for error in self.errors],
            **self.members,
        }

    def response(self, request_id: str) -> JSONResponse:
        """Write the problem as an answer."""
        figures.REFUSED.add(self.status, self.code)
        headers = dict(self.headers)
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        return JSONResponse(
            self.body(request_id),
            status_code=self.status,
            headers=headers,
            media_type="application/problem+json",
        )


def unprocessable(pointer: str, code: str, detail: str) -> Problem:
    """Refuse one field."""
    return Problem(
        status=422, code=code, detail=detail, errors=[FieldError(pointer=pointer, code=code, detail=detail)]
    )


def invalid(errors: Sequence[FieldError]) -> Problem:
    """Refuse several fields at once."""
    first = errors[0]
    count = len(errors)
    detail = first.detail if count == 1 else f"{count} fields are wrong; the first: {first.detail}"
    return Problem(status=422, code=first.code if count == 1 else "invalid", detail=detail, errors=errors)


def not_ones_own(pointer: str, detail: str) -> Problem:
    """Refuse to name another application: operators may."""
    error = FieldError(pointer=pointer, code="insufficient_scope", detail=detail)
    return Problem(status=403, code=error.code, detail=detail, errors=[error])


def unauthorized(code: str, detail: str, *, error: str | None = "invalid_token") -> Problem:
    """Refuse who is calling (RFC 6750 §3); `error` is None where nothing was shown."""
    challenge = 'Bearer realm="postroom"' + (f', error="{error}"' if error else "")
    return Problem(status=401, code=code, detail=detail, headers={"WWW-Authenticate": challenge})


def not_found() -> Problem:
    """Answer for what does not exist and for what belongs to another application, alike."""
    return Problem(status=404, code="not_found", detail="There is no such resource for this key.")


def rate_limit(policies: Sequence[tuple[str, int, int, int, int]]) -> dict[str, str]:
    """Write RateLimit and RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers).

    Each policy: its name, its quota, what is left of it, its span and the time until it is whole, in seconds.
    """
    return {
        "RateLimit-Policy": ", ".join(f'"{name}";q={quota};w={span}' for name, quota, _, span, _ in policies),
        "RateLimit": ", ".join(
            f'"{name}";r={max(left, 0)};t={resets}' for name, _, left, _, resets in policies
        ),
    }


def ledger_unavailable() -> Problem:
    """Answer while PostgreSQL cannot work: nothing was promised."""
    return Problem(
        status=503,
        code="ledger_unavailable",
        detail="The ledger cannot be used at the moment. What cannot be stored is not accepted: "
        "send the request again, with the same Idempotency-Key.",
        retry_after=2,
        headers=rate_limit([("ledger", 0, 0, 2, 2)]),
    )


def by_status(status: int) -> Problem:
    """Answer for what the framework refuses by itself."""
    codes = {404: "not_found", 405: "method_not_allowed", 413: "request_too_large"}
    return Problem(status=status, code=codes.get(status, "refused"), detail=_TITLES.get(status, "Refused."))
