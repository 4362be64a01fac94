"""What requests say in their headers, for every way of sending."""

import re

from starlette.requests import Request

from service.submission.problems import Problem

_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,256}")


def idempotency_key(request: Request) -> str | None:
    """Read the Idempotency-Key (the IETF draft of this name); raises a 422 problem where it is none."""
    given = request.headers.getlist("idempotency-key")
    if not given:
        return None
    if len(given) > 1 or not _IDEMPOTENCY_KEY.fullmatch(given[0]):
        detail = "Idempotency-Key is one header of 1 to 256 visible ASCII characters."
        raise Problem(status=422, code="idempotency_key_invalid", detail=detail)
    return given[0]


def request_id(request: Request) -> str:
    """Say by which name the logs and the answer know this request."""
    return str(request.scope.get("state", {}).get("request_id", ""))
