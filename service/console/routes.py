"""The routes: their state, the last check step by step, what expires when, and a button that checks now."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from service.console import forms
from service.console.asking import Api, Refused
from service.console.pages import Pages, elsewhere
from service.console.who import SignedIn


class RoutesPage:
    """The page of the routes, and what can be done to them."""

    def __init__(self, pages: Pages, api: Api) -> None:
        self._pages = pages
        self._api = api

    async def page(self, request: Request, who: SignedIn) -> Response:
        """Show every route as it is in force."""
        return await self._shown(request, who)

    async def check(self, request: Request, who: SignedIn) -> Response:
        """Check a route now; it takes seconds."""
        name = request.path_params["name"]
        await forms.read_guarded(request, who.token)
        try:
            await self._api.post(request, who.key, "routes", name, "check")
        except Refused as refused:
            if refused.status not in {403, 409, 429}:
                raise
            return await self._shown(request, who, refused=refused)
        return elsewhere(f"/console/routes?checked={quote(name, safe='')}#{quote(name, safe='')}")

    async def _shown(self, request: Request, who: SignedIn, *, refused: Refused | None = None) -> Response:
        routes = await self._api.get(request, who.key, "routes")
        return self._pages.page(
            request,
            "routes",
            who,
            status=200 if refused is None else refused.status,
            routes=sorted(routes["data"], key=_urgency),
            checked=request.query_params.get("checked", ""),
            refused=refused,
        )


def _urgency(route: Mapping[str, Any]) -> int:
    last = route["last_check"]
    failed = last is not None and last["result"] == "fail"
    return 0 if failed else {"resting": 1, "ready": 2}.get(str(route["state"]), 3)
