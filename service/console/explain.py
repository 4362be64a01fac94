"""Explain: paste a reply, a line of a log or a report, and read what it means and who must do what.

The text comes by POST, because it may be long and may be personal: it is in no address, no log and no history.
"""

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from service.console import forms
from service.console.asking import Api, Refused
from service.console.pages import Pages
from service.console.who import SignedIn

#: How much of a pasted text is looked at; a request to the API carries no more.
_MOST = 15_000


class ExplainPage:
    """The page that explains."""

    def __init__(self, pages: Pages, api: Api) -> None:
        self._pages = pages
        self._api = api

    async def page(self, request: Request, who: SignedIn) -> Response:
        """Show the empty form."""
        return await self._shown(request, who, {})

    async def explain(self, request: Request, who: SignedIn) -> Response:
        """Explain what was pasted."""
        return await self._shown(request, who, await forms.read_guarded(request, who.token))

    async def _shown(self, request: Request, who: SignedIn, form: Mapping[str, str]) -> Response:
        text, route = form.get("reply", ""), form.get("route", "")
        found, refused = None, None
        if text:
            query = {"reply": text[:_MOST], **({"route": route} if route else {})}
            try:
                found = await self._api.get(request, who.key, "explain", **query)
            except Refused as exc:
                if exc.status != 422:
                    raise
                refused = exc
        routes = []
        if who.may("routes.read"):
            routes = [each["name"] for each in (await self._api.get(request, who.key, "routes"))["data"]]
        return self._pages.page(
            request, "explain", who, text=text, route=route, routes=routes, found=found, refused=refused
        )
