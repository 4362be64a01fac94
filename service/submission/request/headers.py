"""What requests say in their headers, for every way of sending."""

import re

from starlette.requests import Request

from service.submission.problems import Problem

_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,256}")


def given(request: Request, name: bytes) -> list[str]:
    """List what stands in this header, whose name is in lower case: read for each message, so without detours."""
    return [value.decode("latin-1") for each, value in request.scope["headers"] if each == name]


def content_type(request: Request) -> str:
    """Return the media type of the body, without its parameters."""
    first = next(iter(given(request, b"content-type")), "")
    return first.partition(";")[0].strip().lower()


def idempotency_key(request: Request) -> str | None:
    """Read the Idempotency-Key (the IETF draft of this name); raises a 422 problem where it is none."""
    found = given(request, b"idempotency-key")
    if not found:
        return None
    if len(found) > 1 or not _IDEMPOTENCY_KEY.fullmatch(found[0]):
        detail = "Idempotency-Key is one header of 1 to 256 visible ASCII characters."
        raise Problem(status=422, code="idempotency_key_invalid", detail=detail)
    return found[0]


def request_id(request: Request) -> str:
    """Say by which name the logs and the answer know this request."""
    return str(request.scope.get("state", {}).get("request_id", ""))
