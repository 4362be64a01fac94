"""Advice over HTTP: from the request's needs to values, and from a recommendation to JSON."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import date
from enum import Enum
from typing import Any

from pydantic import ValidationError

from service.mail.address import Address, BadAddress
from service.routes.advice import (
    Hosting,
    Needs,
    Option,
    Organization,
    Recipients,
    Recommendation,
    Senders,
    recommend,
)
from service.routes.advice.compare import Comparison, Way, way_of
from service.routes.advice.names import Names, names_of
from service.routes.advice.options import NAMES
from service.routes.advice.steps import set_up
from service.routes.choice import RouteBook
from service.routes.route import OAuthLogin, Route, RouteKind
from service.submission.problems import FieldError, Problem, invalid, unprocessable
from service.submission.request.validation import fewer
from service.submission.ways.route_models import NeedsIn

#: The names that a pointer of this endpoint may name.
NEEDS = frozenset(field.alias or name for name, field in NeedsIn.model_fields.items())

_CODES = {"missing": "required", "extra_forbidden": "unknown_field"}
_DETAILS = {
    "extra_forbidden": "There is a field here that this endpoint does not know.",
    "bool_type": "This has to be true or false.",
    "int_type": "This has to be a whole number.",
    "string_type": "This has to be a string.",
    "greater_than_equal": "This number is too small.",
    "less_than_equal": "This number is too large.",
    "string_too_long": "This string is too long.",
    "string_pattern_mismatch": "This string does not have the form that is needed here.",
}


def advise(
    members: Mapping[str, Any], *, organization: Organization, book: RouteBook, today: date
) -> dict[str, Any]:
    """Answer a request for a recommendation; raises a 422 problem that names each wrong field."""
    given = _read(members)
    day = today if given.today is None else _day(given.today)
    sender = _sender(given.from_)
    needs, assumed = _needs(given, sender, organization, book)
    found = recommend(needs, organization, today=day)
    names = _names(sender, organization, book, smarthost=_host_of(RouteKind.SMARTHOST, book))
    return {
        **_recommendation(found, names, book),
        "needs": _plain(needs),
        "assumed": assumed,
        "decided_for": day.isoformat(),
    }


def comparison(found: Comparison) -> dict[str, Any]:
    """Show the table of all ways."""
    return {
        "object": "comparison",
        "columns": [
            {
                "way": column.way.value,
                "title": column.title,
                "kind": column.kind and column.kind.value,
                "configured": list(column.configured),
                "possible": column.possible.value,
                "because": list(column.because),
            }
            for column in found.columns
        ],
        "rows": [
            {
                "feature": row.feature,
                "title": row.title,
                "source": row.source,
                "cells": {
                    way.value: {"value": cell.value, "note": cell.note, "mark": cell.mark.value}
                    for way, cell in row.cells.items()
                },
            }
            for row in found.rows
        ],
    }


# -- the request ------------------------------------------------------------------------------


def _read(members: Mapping[str, Any]) -> NeedsIn:
    if "from_" in members:  # the model's own spelling is no name of the contract
        raise unprocessable("", "unknown_field", _DETAILS["extra_forbidden"])
    try:
        return NeedsIn.model_validate(members)
    except ValidationError as exc:
        few = fewer(exc, members, names=NEEDS, again=NeedsIn.model_validate)
        raise invalid(list(_field_errors(few))) from None


def _field_errors(exc: ValidationError) -> Iterator[FieldError]:
    for error in exc.errors(include_url=False, include_input=False)[:50]:
        kind, name = error["type"], str(error["loc"][0]) if error["loc"] else ""
        detail = _DETAILS.get(kind, "This value does not have the form that is needed here.")
        if kind == "enum":
            detail = f"This has to be one of {error['ctx']['expected']}."
        yield FieldError(
            pointer=f"/{name}" if name in NEEDS else "", code=_CODES.get(kind, kind), detail=detail
        )


def _sender(given: str | None) -> Address | None:
    try:
        return None if given is None else Address.parse(given)
    except BadAddress as exc:
        raise unprocessable("/from", exc.code, exc.detail) from None


def _day(given: str) -> date:
    try:
        return date.fromisoformat(given)
    except ValueError:
        raise unprocessable("/today", "not_a_date", "There is no such day.") from None


def _needs(
    given: NeedsIn, sender: Address | None, organization: Organization, book: RouteBook
) -> tuple[Needs, list[str]]:
    """Complete the needs from the configuration; return the names of those that had to be assumed."""
    known: dict[str, Any] = {
        "cloud": organization.cloud,
        **({"hosting": organization.hosting} if organization.hosting else {}),
        **(
            {"external_share": organization.external_budget}
            if organization.external_budget is not None
            else {}
        ),
        **_told_by(book),
    }
    assumed = {**_ASSUMED, "external_share": organization.least_budget}
    said = {name: value for name, value in given if name in _NAMES and value is not None}
    values = assumed | known | said
    internal = values["recipients"] is Recipients.INTERNAL
    values.setdefault("external_per_day", 0 if internal else values["per_day"])
    _agree(values, internal=internal)
    guessed = [name for name in (*_ASSUMED, "external_share", "external_per_day") if name not in known | said]
    return Needs(sender=sender, **values), sorted(guessed)


_NAMES = {field.name for field in fields(Needs)} - {"sender"}

#: What is taken where nobody says anything: the usual, and of two usual things the harder one.
_ASSUMED: Mapping[str, Any] = {
    "recipients": Recipients.MIXED,
    "per_day": 1_000,
    "per_minute": 10,
    "bulk": False,
    "senders": Senders.ONE_MAILBOX,
    "hosting": Hosting.OWN_DYNAMIC_IP,
    "ip_shared": False,
    "ipv6_only": False,
    "port25_out": True,
    "port587_out": True,
    "https_out": True,
    "port": None,
    "tls12": True,
    "oauth": True,
    "client_cert": False,
    "smtp_auth_allowed": True,
    "security_defaults": True,
    "basic_reenabled": False,
    "licence": True,
    "reject_direct_send": False,
    "sent_items_needed": False,
    "max_message_mb": 5,
    "own_mail_server": False,
    "azure_subscription": False,
    "hve_billing": False,
}


def _told_by(book: RouteBook) -> dict[str, bool]:
    """Say what the configured routes tell: whoever has set one up has what it needs."""
    ways = {way_of(route) for route in book.routes.values() if route.enabled}
    told = {
        "client_cert": Way.SMTP_RELAY_CERTIFICATE,
        "azure_subscription": Way.AZURE_COMMUNICATION_SERVICES,
        "hve_billing": Way.HIGH_VOLUME_EMAIL,
    }
    return {name: True for name, way in told.items() if way in ways}


def _agree(values: Mapping[str, Any], *, internal: bool) -> None:
    if values["external_per_day"] > values["per_day"]:
        raise _contradiction("Of per_day recipients not more than per_day can be external.")
    if internal and values["external_per_day"]:
        raise _contradiction("There are no external recipients where recipients is internal.")


def _contradiction(detail: str) -> Problem:
    return unprocessable("/external_per_day", "contradiction", detail)


# -- the answer -------------------------------------------------------------------------------


def _recommendation(found: Recommendation, names: Names, book: RouteBook) -> dict[str, Any]:
    named = None if found.option is None else NAMES[found.option]
    shown = None if found.option is None else set_up(found.option, names)
    return {
        "object": "recommendation",
        "recommended": found.option and found.option.value,
        "title": named and named.title,
        "kind": named.kind.value if named and named.kind else None,
        "route_of_this_version": named is not None and named.kind is not None,
        "configured": [] if found.option is None else _configured(found.option, book),
        "rule": found.rule,
        "reasons": [{"code": reason.code, "text": reason.text} for reason in found.reasons],
        "notes": [{"code": note.code, "text": note.text} for note in found.notes],
        "configuration": shown and shown.configuration,
        "settings": [{"setting": name, "value": value} for name, value in shown.settings] if shown else [],
        "spf": {"domain": shown.spf.domain, "record": shown.spf.record, "notes": list(shown.spf.notes)}
        if shown
        else None,
        "powershell": list(shown.powershell) if shown else [],
        "admin_centre": list(shown.admin_centre) if shown else [],
        "unverified": list(shown.unverified) if shown else [],
        "alternatives": [
            {
                "option": other.option.value,
                "title": NAMES[other.option].title,
                "kind": (kind := NAMES[other.option].kind) and kind.value,
                "route_of_this_version": NAMES[other.option].kind is not None,
                "feasible": not other.failed,
                "failed": [{"code": each.code, "detail": each.detail} for each in other.failed],
            }
            for other in found.alternatives
        ],
        "microsoft": None if found.microsoft is None else _recommendation(found.microsoft, names, book),
    }


def _configured(option: Option, book: RouteBook) -> list[str]:
    def same(route: Route) -> bool:
        way = way_of(route)
        if way is Way.CLIENT_SUBMISSION:
            oauth = any(isinstance(account.login, OAuthLogin) for account in route.accounts)
            return option is (Option.CLIENT_SUBMISSION_OAUTH if oauth else Option.CLIENT_SUBMISSION_BASIC)
        return way.value == option.value or (way is Way.SMARTHOST and option is Option.OWN_MAIL_SERVER)

    return [route.name for route in book.routes.values() if same(route)]


def _names(
    sender: Address | None, organization: Organization, book: RouteBook, *, smarthost: str | None
) -> Names:
    """Collect the real names from the request and the configuration."""
    accounts = [account for route in book.routes.values() for account in route.accounts]
    clients = [account.login.client_id for account in accounts if isinstance(account.login, OAuthLogin)]
    mailboxes = [account.address for account in accounts]
    return names_of(
        organization,
        sender=sender or next(iter(mailboxes), None),
        mx_host=_host_of(RouteKind.SMTP_RELAY, book) or _host_of(RouteKind.DIRECT_SEND, book),
        smarthost=smarthost,
        client_id=next(iter(clients), None),
    )


def _host_of(kind: RouteKind, book: RouteBook) -> str | None:
    hosts: Sequence[str] = [
        route.peer.host for route in book.routes.values() if route.kind is kind and route.mx_of is None
    ]
    return next(iter(hosts), None)


def _plain(needs: Needs) -> dict[str, Any]:
    def shown(value: Any) -> Any:
        if isinstance(value, Enum):
            return value.value
        return str(value) if isinstance(value, Address) else value

    return {
        "from" if field.name == "sender" else field.name: shown(getattr(needs, field.name))
        for field in fields(needs)
    }
