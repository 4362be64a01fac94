"""The routes: their state, the last check step by step, what expires when; buttons that check, pause and resume."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from service.console import forms
from service.console.asking import Api, Refused
from service.console.pages import Pages, elsewhere
from service.console.who import SignedIn

#: What can be done to a route, and what may be said with it.
_ACTS: Mapping[str, tuple[str, ...]] = {"check": (), "pause": ("for", "reason"), "resume": ("reason",)}

#: For how long a route may be let rest.
_LASTS = {"15m": "15 minutes", "1h": "an hour", "4h": "4 hours", "1d": "a day", "7d": "a week"}


class RoutesPage:
    """The page of the routes, and what can be done to them."""

    def __init__(self, pages: Pages, api: Api) -> None:
        self._pages = pages
        self._api = api

    async def page(self, request: Request, who: SignedIn) -> Response:
        """Show every route as it is in force."""
        return await self._shown(request, who)

    async def act(self, request: Request, who: SignedIn) -> Response:
        """Check a route now, which takes seconds; let it rest, or go on."""
        name, act = request.path_params["name"], request.path_params["act"]
        form = await forms.read_guarded(request, who.token)
        if act not in _ACTS:
            raise Refused(status=404, code="not_found", detail="There is no such act.")
        body = {member: form[member] for member in _ACTS[act] if form.get(member)}
        try:
            await self._api.post(request, who.key, "routes", name, act, body=body)
        except Refused as refused:
            if refused.status not in {403, 409, 422, 429}:
                raise
            return await self._shown(request, who, refused=refused)
        place = quote(name, safe="")
        return elsewhere(f"/console/routes?{'checked' if act == 'check' else 'acted'}={place}#{place}")

    async def _shown(self, request: Request, who: SignedIn, *, refused: Refused | None = None) -> Response:
        routes = await self._api.get(request, who.key, "routes")
        return self._pages.page(
            request,
            "routes",
            who,
            status=200 if refused is None else refused.status,
            routes=sorted(routes["data"], key=_urgency),
            lasts=_LASTS,
            checked=request.query_params.get("checked", ""),
            refused=refused,
        )


def _urgency(route: Mapping[str, Any]) -> int:
    last = route["last_check"]
    failed = last is not None and last["result"] == "fail"
    return 0 if failed else {"resting": 1, "ready": 2}.get(str(route["state"]), 3)
