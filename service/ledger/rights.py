"""What a key may do, read from what a person wrote.

Rights are scopes and restrictions: `senders`, `routes`, `recipient_domains`, `networks`,
`messages_per_minute`, `messages_per_day`. One reader serves the HTTP door, the command line and the
settings (for applications of Entra ID), so that a right has one form everywhere:

    senders             addresses, or `@contoso.com` for a whole domain
    routes              names of routes of the configuration
    recipient_domains   lower case, A-labels; a domain alone, without those below it
    networks            `10.0.0.0/8`, `2001:db8::/32`, or one address

None is no restriction. An empty list would allow nothing, which nobody means: it is refused, but
for `senders`, where the ledger has always kept "every sender" as an empty list.

What cannot be read is a `BadRights`, with a line for each mistake and nothing of the input in it.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_network
from typing import Any

from service.mail.address import Address, BadAddress, domain_name

#: Everything a key may be allowed to do.
SCOPES: tuple[str, ...] = (
    "messages.send",
    "messages.read",
    "content.read",
    "transcripts.read",
    "routes.read",
    "routes.check",
    "templates.read",
    "templates.write",
    "webhooks.read",
    "webhooks.write",
    "suppressions.read",
    "suppressions.write",
    "keys.rotate",
    "operate",
    "admin",
)

#: What a new key may do unless told otherwise.
DEFAULT_SCOPES: tuple[str, ...] = tuple(
    scope for scope in SCOPES if scope not in {"keys.rotate", "operate", "admin"}
)

#: The rights that are kept together in `keys.restrictions`.
RESTRICTIONS: tuple[str, ...] = (
    "routes",
    "recipient_domains",
    "networks",
    "messages_per_minute",
    "messages_per_day",
)

#: The route of test keys, which is there whatever the configuration names.
SANDBOX = "sandbox"

#: The most that a key's lists may hold, and the largest of its allowances.
MOST_ENTRIES = 1000
MOST_MESSAGES = 100_000_000

_DURATION = re.compile(r"([0-9]{1,6})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """What is wrong with one right."""

    member: str
    index: int | None  # of the entry, in a list
    code: str
    detail: str


class BadRights(ValueError):
    """Rights that cannot be given; there is at least one mistake."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        super().__init__("; ".join(f"{each.member}: {each.detail}" for each in mistakes))
        self.mistakes = tuple(mistakes)


def read(given: Mapping[str, Any], *, routes: Collection[str]) -> dict[str, Any]:
    """Bring rights into their form; lists become tuples, and what is not given stays away.

    `routes` are the names that the configuration knows. Raises BadRights with all mistakes.
    """
    mistakes: list[Mistake] = []
    found: dict[str, Any] = {}
    for member, value in given.items():
        if member in _ENTRIES:
            found[member] = _listed(member, value, routes, mistakes)
        else:
            found[member] = _allowance(member, value, mistakes)
    if mistakes:
        raise BadRights(mistakes)
    return found


def restrictions_of(rights: Mapping[str, Any]) -> dict[str, Any]:
    """Pick what the column `keys.restrictions` keeps, as JSON; what is None is no restriction."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name in RESTRICTIONS
        if (value := rights.get(name)) is not None
    }


def span(text: str) -> timedelta:
    """Read `30s`, `10m`, `24h`, `90d`; raises ValueError."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError("Write a time as 30s, 10m, 24h or 90d.")
    return timedelta(seconds=int(match[1]) * _SECONDS[match[2]])


def _listed(
    member: str, value: Sequence[str] | None, routes: Collection[str], mistakes: list[Mistake]
) -> tuple[str, ...] | None:
    if value is None:
        return () if member == "senders" else None
    if not value and member != "senders":
        detail = "An empty list allows nothing. Leave it out for no restriction."
        mistakes.append(Mistake(member=member, index=None, code="too_short", detail=detail))
        return None
    if len(value) > MOST_ENTRIES:
        detail = f"There are more than {MOST_ENTRIES} entries."
        mistakes.append(Mistake(member=member, index=None, code="too_long", detail=detail))
        return None
    entries: list[str] = []
    code, reader = _ENTRIES[member]
    for index, text in enumerate(value):
        try:
            entry = reader(text, routes)
        except ValueError as exc:
            mistakes.append(Mistake(member=member, index=index, code=code, detail=str(exc)))
        else:
            if entry not in entries:
                entries.append(entry)
    return tuple(entries)


def _allowance(member: str, value: int | None, mistakes: list[Mistake]) -> int | None:
    if value is not None and not 1 <= value <= MOST_MESSAGES:
        detail = f"This is a number from 1 to {MOST_MESSAGES:,}."
        mistakes.append(Mistake(member=member, index=None, code="out_of_range", detail=detail))
    return value


def _scope(text: str, routes: Collection[str]) -> str:
    if text not in SCOPES:
        raise ValueError(f"There is no such scope. There are: {', '.join(SCOPES)}.")
    return text


def _sender(text: str, routes: Collection[str]) -> str:
    try:
        if text.startswith("@"):
            return f"@{Address.parse(f'postmaster{text}').domain}"
        return str(Address.parse(text))
    except BadAddress as exc:
        raise ValueError(f"This is an address, or @ and a domain. {exc.detail}") from None


def _route(text: str, routes: Collection[str]) -> str:
    if text not in routes:
        raise ValueError("There is no route of this name; `GET /routes` lists them.")
    return text


def _recipient_domain(text: str, routes: Collection[str]) -> str:
    try:
        return domain_name(text.removeprefix("@"))
    except BadAddress as exc:
        raise ValueError(f"This is a domain, such as contoso.com. {exc.detail}") from None


def _network(text: str, routes: Collection[str]) -> str:
    try:
        return str(ip_network(text.strip()))
    except ValueError:
        raise ValueError(
            "This is a network, such as 10.0.0.0/8 or 2001:db8::/32, without bits beside its own, or one address."
        ) from None


_ENTRIES: dict[str, tuple[str, Callable[[str, Collection[str]], str]]] = {
    "scopes": ("unknown_scope", _scope),
    "senders": ("not_a_sender", _sender),
    "routes": ("unknown_route", _route),
    "recipient_domains": ("not_a_domain", _recipient_domain),
    "networks": ("not_a_network", _network),
}
