"""The lanes: what each may send, what of it is used, what waits, why it rests and when it will be empty."""

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from service.console.asking import Api
from service.console.live import mark
from service.console.pages import Pages
from service.console.plots import HEIGHT, WIDTH, Plot, Plots
from service.console.who import SignedIn
from service.ledger import Ledger, LedgerUnavailable

#: What a budget is called on the page.
_BUDGETS = {
    "messages_per_minute": "messages a minute",
    "messages_per_hour": "messages an hour",
    "recipients_per_day": "recipients in 24 hours",
    "external_recipients_per_day": "external recipients in 24 hours, the whole tenant",
}

#: Lanes of which a picture is drawn.
_DRAWN = 40


class LanesPage:
    """The page of the lanes."""

    def __init__(self, pages: Pages, api: Api, ledger: Ledger) -> None:
        self._pages = pages
        self._api = api
        self._plots = Plots(ledger)

    async def page(self, request: Request, who: SignedIn) -> Response:
        """Show every lane at this moment."""
        answer = await self._api.ask(request, who.key, "GET", "lanes")
        lanes = answer.json()
        return self._pages.page(
            request,
            "lanes",
            who,
            seen=mark(answer),
            lanes=sorted(lanes["data"], key=_urgency),
            external=lanes["external_budget"],
            budgets=_BUDGETS,
            plots=await self._drawn([lane["name"] for lane in lanes["data"][:_DRAWN]]),
            width=WIDTH,
            height=HEIGHT,
        )

    async def _drawn(self, names: list[str]) -> Mapping[str, Plot]:
        try:
            return await self._plots.of(names)
        except LedgerUnavailable:
            return {}  # too much to count in time: the figures above are what matters


def _urgency(lane: Mapping[str, Any]) -> tuple[bool, bool, int]:
    """Put first what rests, then what has most to do."""
    return (lane["state"] != "resting", lane["state"] == "disabled", -lane["backlog"]["due"])
