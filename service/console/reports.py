"""Reports: how much went out and what failed, by application, route and diagnosis; and who still uses passwords."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from service.console.asking import Api, Refused
from service.console.pages import Pages
from service.console.who import SignedIn
from service.ledger import Ledger, LedgerUnavailable
from service.ledger.volumes import NOT_REACHED, Volume

_SPANS: Mapping[str, tuple[str, timedelta]] = {
    "24h": ("24 hours", timedelta(hours=24)),
    "7d": ("7 days", timedelta(days=7)),
    "30d": ("30 days", timedelta(days=30)),
}

_REACHED = ("sent", "delivered")


class ReportsPage:
    """The page of the reports."""

    def __init__(self, pages: Pages, api: Api, ledger: Ledger) -> None:
        self._pages = pages
        self._api = api
        self._ledger = ledger

    async def page(self, request: Request, who: SignedIn) -> Response:
        """Show the figures of a span of time that ends now."""
        if not who.may("messages.read"):
            raise Refused(
                status=403, code="insufficient_scope", detail="This page needs the scope messages.read."
            )
        span = request.query_params.get("span", "24h")
        span = span if span in _SPANS else "24h"
        return self._pages.page(
            request,
            "reports",
            who,
            span=span,
            spans=_SPANS,
            volume=await self._volume(who, _SPANS[span][1]),
            passwords=await self._passwords(request, who),
        )

    async def _volume(self, who: SignedIn, span: timedelta) -> dict[str, Any] | None:
        """Count; None where that takes longer than anybody waits."""
        since = datetime.now(UTC) - span
        try:
            found = await self._ledger.volumes.volume(since=since, application=who.key.sees)
        except LedgerUnavailable:
            return None
        return {
            "applications": _applications(found),
            "routes": _routes(found),
            "diagnoses": found.diagnoses,
            "recipients": sum(each.recipients for each in found.states),
        }

    async def _passwords(self, request: Request, who: SignedIn) -> Any:
        if not who.may("routes.read"):
            return None
        return await self._api.get(request, who.key, "reports", "basic-auth")


def _applications(found: Volume) -> list[dict[str, Any]]:
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    for each in found.states:
        counts[each.application][each.status] = each.recipients
    return [
        {
            "name": name,
            "total": sum(states.values()),
            "reached": _sum(states, _REACHED),
            "failed": _sum(states, NOT_REACHED),
            "open": sum(states.values()) - _sum(states, (*_REACHED, *NOT_REACHED, "canceled", "suppressed")),
            "other": _sum(states, ("canceled", "suppressed")),
        }
        for name, states in sorted(counts.items(), key=lambda item: -sum(item[1].values()))
    ]


def _routes(found: Volume) -> list[dict[str, Any]]:
    failed: dict[str | None, int] = defaultdict(int)
    for each in found.not_reached:
        failed[each.route] += each.recipients
    shown = [
        {"name": each.name, "messages": each.messages, "failed": failed.pop(each.name, 0)}
        for each in found.routes
    ]
    return [*shown, *({"name": name, "messages": None, "failed": count} for name, count in failed.items())]


def _sum(states: Mapping[str, int], names: Sequence[str]) -> int:
    return sum(states.get(name, 0) for name in names)
