"""How routes and lanes look in JSON: effective settings without secrets, and what they are doing.

Senders and applications are somebody's business: they are shown to keys with the scope
`operate` or `admin`, others see figures.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from service.ledger.checks import Check
from service.ledger.forecast import drained
from service.ledger.lanes import LaneState, Resting, Waiting
from service.ledger.pausing import PAUSED
from service.ledger.reports import Notice
from service.routes.advice.compare import TITLES, way_of
from service.routes.advice.steps import cloud_marks
from service.routes.choice import RouteBook
from service.routes.kinds import Cloud, kind_of
from service.routes.route import Account, BasicLogin, Lane, OAuthLogin, Route, RouteKind
from service.submission.representation import PRIORITIES, moment

_EXTERNAL_WINDOW = "external_recipients_per_day"

BUDGET_SOURCE = (
    "Microsoft: tenant external recipient rate limit, 500 × licences^0.7 + 9,500 in 24 hours; "
    "counts every message and external recipient"
)


def route(
    found: Route,
    *,
    book: RouteBook,
    cloud: Cloud,
    resting: Mapping[str, Resting],
    last_check: Mapping[str, Any] | None,
    notices: Sequence[Notice],
    now: datetime,
) -> dict[str, Any]:
    """Show one route as it is in force."""
    lanes = [_route_lane(lane, resting.get(lane.name)) for lane in found.lanes()]
    state, rest = _state(found, lanes)
    peer = found.peer
    return {
        "object": "route",
        "name": found.name,
        "kind": found.kind.value,
        "title": TITLES[way_of(found)][0],
        "enabled": found.enabled,
        "position": book.order.index(found.name) + 1 if found.name in book.order else None,
        "state": state,
        "resting": rest,
        "lanes": lanes,
        "host": peer.host,
        "mx_of": found.mx_of,
        "port": peer.port,
        "connect_to": None if peer.connect_to is None else f"{peer.connect_to[0]}:{peer.connect_to[1]}",
        "tls": peer.tls.value,
        "ehlo_name": peer.ehlo_name,
        "authenticate_by": found.relay_by,
        "client_certificate": peer.client_certificate is not None,
        "login": None if found.login is None else _login(found.login),
        "mailboxes": [_mailbox(found, account) for account in found.accounts],
        "sender_domains": _listed(found.sender_domains),
        "recipient_domains": _listed(found.recipient_domains),
        "limits": {
            name: {"value": value, "source": found.limit_sources.get(name)}
            for name, value in asdict(found.limits).items()
        },
        "timeouts": asdict(peer.timeouts),
        "last_check": last_check,
        "notices": [_notice(notice, now) for notice in notices],
        "unverified": cloud_marks(cloud) if found.kind is RouteKind.CLIENT_SUBMISSION else [],
    }


def check(found: Check) -> dict[str, Any]:
    """Show when a route was checked last, and what came of it."""
    return {
        "id": found.id,
        "result": found.result,
        "asked_by": found.asked_by,
        "started_at": moment(found.started_at),
        "ended_at": moment(found.ended_at),
        "steps": list(found.steps),
    }


def lane(found: Lane, state: LaneState, *, everything: bool) -> dict[str, Any]:
    """Show one lane at this moment; `everything` names senders and applications."""
    rest = _resting(state.resting)
    microsoft = kind_of(found.route).microsoft
    expected = drained(state, source="Microsoft 365" if microsoft else "the configuration")
    return {
        "object": "lane",
        "name": found.name,
        "route": found.route.name,
        "kind": found.route.kind.value,
        "state": "disabled" if not found.route.enabled else "resting" if rest else "ready",
        "resting": rest,
        "external_resting": _resting(state.external_resting),
        "troubles": state.troubles,
        "stopped_senders": len(state.stopped),
        "stopped": _stopped(state) if everything else None,
        "limits": asdict(found.limits),
        "budgets": [
            {
                "name": budget.window.name,
                "limit": budget.window.limit,
                "window_seconds": budget.window.seconds,
                "used": budget.window.used,
                "left": budget.window.left,
                "frees_at": moment(next((freed.at for freed in budget.frees), None)),
            }
            for budget in state.budgets
        ],
        "connections": {"limit": state.limits.connections, "in_use": state.connections},
        "running": state.running,
        "backlog": {
            **_sums(state.waiting),
            "counted_all": state.counted_all,
            "by_priority": {
                name: _sums(each for each in state.waiting if each.priority == number)
                for number, name in enumerate(PRIORITIES)
            },
            "by_application": _by_application(state) if everything else None,
        },
        "oldest_due_at": moment(state.oldest_due_at),
        "drains_at": None if expected is None else moment(expected.at),
        "drains_because": [] if expected is None else list(expected.because),
        "drains_exact": None if expected is None else expected.exact,
    }


def external_budget(states: Sequence[LaneState], *, limit: int | None) -> dict[str, Any]:
    """Show the tenant's budget of external recipients, which several lanes use together."""
    counting = [state for state in states if state.limits.external_per_day is not None]
    budgets = [
        budget for state in counting for budget in state.budgets if budget.window.name == _EXTERNAL_WINDOW
    ]
    budget = budgets[0] if budgets else None
    rest = next((state.external_resting for state in counting if state.external_resting), None)
    unknown = "" if limit is not None else ". Set organization.licences to have it kept"
    return {
        "limit": limit,
        "used": budget and budget.window.used,
        "left": budget and budget.window.left,
        "frees_at": moment(next((freed.at for freed in budget.frees), None)) if budget else None,
        "resting": _resting(rest),
        "lanes": [state.name for state in counting],
        "source": BUDGET_SOURCE + unknown,
    }


def _route_lane(found: Lane, resting: Resting | None) -> dict[str, Any]:
    rest = _resting(resting)
    state = "disabled" if not found.route.enabled else "resting" if rest else "ready"
    return {"name": found.name, "state": state, "resting": rest}


def _state(found: Route, lanes: Sequence[Mapping[str, Any]]) -> tuple[str, Mapping[str, Any] | None]:
    """A route rests when all of its lanes do, until the first of them is tried again."""
    if not found.enabled:
        return "disabled", None
    rests = [each["resting"] for each in lanes]
    if not rests or None in rests:
        return "ready", None
    return "resting", min(rests, key=lambda rest: str(rest["until"]))


def _resting(found: Resting | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "until": moment(found.until),
        "reason": _reason(found.error),
        "probe": _then(found),
        "error": found.error,
    }


def _then(found: Resting) -> str:
    if (found.error or {}).get("code") == PAUSED:
        return f"Everything goes on at {moment(found.until)}, or when an operator resumes the route."
    return f"One attempt tries it at {moment(found.until)}; when it is taken, everything goes on."


def _reason(error: Mapping[str, Any] | None) -> str:
    told = error or {}
    diagnosis = told.get("diagnosis") or {}
    return str(diagnosis.get("title") or told.get("code") or "The route had trouble.")


def _stopped(state: LaneState) -> list[dict[str, Any]]:
    return [
        {
            "sender": stop.sender,
            "until": moment(stop.until),
            "reason": _reason(stop.error),
            "error": dict(stop.error),
        }
        for stop in state.stopped.values()
    ]


def _sums(waiting: Iterable[Waiting]) -> dict[str, int]:
    counted = list(waiting)
    return {"due": sum(each.due for each in counted), "later": sum(each.later for each in counted)}


def _by_application(state: LaneState) -> list[dict[str, Any]]:
    names = sorted({each.application for each in state.waiting})
    return [
        {"application": name, **_sums(each for each in state.waiting if each.application == name)}
        for name in names
    ]


def _mailbox(found: Route, account: Account) -> dict[str, Any]:
    lanes = {each.account.address.key: each.name for each in found.lanes() if each.account is not None}
    domains = ["*" if domain == "*" else f"*@{domain}" for domain in account.send_as_domains]
    return {
        "address": str(account.address),
        "login": _login(account.login),
        "send_as": [*map(str, account.send_as), *domains],
        "lane": lanes[account.address.key],
    }


def _login(login: OAuthLogin | BasicLogin) -> dict[str, str]:
    if isinstance(login, BasicLogin):
        return {"method": "basic", "identity": login.username, "credential": "password"}
    credential = "certificate" if login.certificate is not None else "secret"
    return {"method": "oauth", "identity": login.client_id, "credential": credential}


def _notice(notice: Notice, now: datetime) -> dict[str, Any]:
    return {
        "subject": notice.subject,
        "expires_at": moment(notice.expires_at),
        "days_left": (notice.expires_at - now).days,
        "detail": notice.detail,
        "announced_at": moment(notice.announced_at),
    }


def _listed(names: Sequence[str] | None) -> list[str] | None:
    return None if names is None else list(names)
