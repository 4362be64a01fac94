"""Forms as browsers send them, and whether it was one of our pages that sent them.

A form is read within limits of size and time. That it was meant is seen twice: the browser says from where it comes
(`Sec-Fetch-Site`, or `Origin` where a browser is too old for that), and where somebody is signed in the form carries what
only our own pages can know (`guard`), which follows from the cookie that the script of another site cannot read.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import ClientDisconnect, Request

from service.console.asking import Refused

_MOST = 200_000  # octets of a form: a pasted report is the largest
_SECONDS = 10.0
_FIELDS = 100


def guard(token: str) -> str:
    """Make what the forms of somebody who is signed in carry, from what their cookie holds."""
    return hashlib.sha256(b"console form " + token.encode()).hexdigest()


async def read(request: Request) -> Mapping[str, str]:
    """Read a form that one of our own pages sent; raises Refused. Of several values the last counts."""
    if not _is_ours(request):
        raise Refused(
            status=403, code="cross_site", detail="This form did not come from a page of this console."
        )
    body = bytearray()
    try:
        async with asyncio.timeout(_SECONDS):
            async for piece in request.stream():
                body += piece
                if len(body) > _MOST:
                    raise Refused(status=413, code="request_too_large", detail="The form is too large.")
    except (TimeoutError, ClientDisconnect):
        raise Refused(
            status=408, code="request_timeout", detail="The form took too long to arrive."
        ) from None
    try:
        fields = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_FIELDS, errors="strict")
    except ValueError:
        raise Refused(status=400, code="not_a_form", detail="This is no form of a browser's.") from None
    return {name: value.strip() for name, value in fields}


async def read_guarded(request: Request, token: str) -> Mapping[str, str]:
    """Read a form of somebody who is signed in; raises Refused."""
    form = await read(request)
    if not hmac.compare_digest(form.get("guard", "").encode(), guard(token).encode()):
        raise Refused(
            status=403, code="stale_form", detail="This form is from another sign-in. Open the page again."
        )
    return form


def _is_ours(request: Request) -> bool:
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("origin")
    # No browser leaves both out of a form that another site has it send.
    return origin is None or urlsplit(origin).netloc == request.headers.get("host", "")
