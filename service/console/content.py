"""What was sent, for those who may read it: words and list of files on the page, HTML in a frame that can do nothing.

Each look is a reading, and in the audit. HTML was written by somebody else and stays as it is, in a frame with everything taken
away: `sandbox` without any permission, so no script, no form, no window, no cookie of ours; a content security policy that
loads nothing at all but pictures inside the message; and what a policy does not reach, a connection made beforehand
(`<link rel=preconnect>`) or another address for the frame (`<meta>`, `<base>`), becomes a tag that means nothing (`disarmed`).
"""

import re

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from service.console.asking import Api
from service.console.pages import HEADERS, Pages
from service.console.who import SignedIn

_FRAME_POLICY = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'self'"
)

#: A browser reads a tag only where a letter follows the bracket, whatever stands around it.
_REACHES_OUT = re.compile(r"<(?=(?:link|meta|base)(?![a-z]))", re.IGNORECASE)

_EMPTY = "<!doctype html><title>No HTML</title>"


class ContentPage:
    """The page of a message's content."""

    def __init__(self, pages: Pages, api: Api) -> None:
        self._pages = pages
        self._api = api

    async def page(self, request: Request, who: SignedIn) -> Response:
        """Show the header, the text and the names of the files."""
        message_id = request.path_params["message_id"]
        content = await self._api.get(request, who.key, "messages", message_id, "content")
        message = await self._api.get(request, who.key, "messages", message_id)
        return self._pages.page(request, "content", who, content=content, message=message)

    async def html(self, request: Request, who: SignedIn) -> Response:
        """Hand out the HTML, for the frame."""
        message_id = request.path_params["message_id"]
        content = await self._api.get(request, who.key, "messages", message_id, "content")
        headers = {
            **HEADERS,
            "Content-Security-Policy": _FRAME_POLICY,
            "X-Frame-Options": "SAMEORIGIN",
            "Referrer-Policy": "no-referrer",
        }
        return HTMLResponse(disarmed(content["html"] or _EMPTY), headers=headers)

    async def file(self, request: Request, who: SignedIn) -> Response:
        """Hand out an attachment, or the whole message, to be saved."""
        message_id, number = request.path_params["message_id"], request.path_params.get("number")
        query = {} if number is None else {"attachment": number}
        accept = [(b"accept", b"message/rfc822")] if number is None else []
        answer = await self._api.ask(
            request, who.key, "GET", "messages", message_id, "content", query=query, headers=accept
        )
        kept = ("content-type", "content-disposition")
        return Response(
            answer.body,
            headers={**HEADERS, **{name: answer.headers[name] for name in kept if name in answer.headers}},
        )


def disarmed(html: str) -> str:
    """Give the tags that reach out of the page beside its policy a name that means nothing."""
    return _REACHES_OUT.sub("<x-", html)
