"""The hosts that take a domain's mail, read from its MX records (RFC 5321 §5.1) through dnspython.

A route with `mx_of` knows its host by the accepted domain alone. The host is read from the DNS
and never built from the domain's name, because Microsoft gives new domains names that say
nothing about them; nor does the domain's own address stand in where it has no MX record.

 1. Ask for the MX records of the domain, follow aliases. A null MX (RFC 7505) takes no mail.
 2. Ask for the addresses of each host. Private, loopback and reserved ones are refused unless
    the route allows them: a poisoned DNS must not turn our mail to a machine in our own network.
    What was looked at is what is dialled (`Peer.addresses`): nobody resolves the name again.
    A route with `connect_to` needs the names only (decision record 0008).
 3. Try the hosts by preference; the one that is reached gives TLS and the ledger their name.

An answer is kept for as long as its TTL says, at least half a minute and at most an hour. Many
who ask at once cause one question. While the DNS is out of order an old answer of at most a
day is given, and says that it is one.

What can go wrong is a `CannotResolve`:

| code | |
|---|---|
| `mx_missing` | the domain does not exist, or has no MX record |
| `mx_null` | the domain takes no mail |
| `mx_private` | its hosts have private or reserved addresses only |
| `name_not_found` | its hosts have no address |
| `resolver_failed` `resolve_timeout` | nobody could say so for now |
"""

import asyncio
import random
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal, TypeVar

import structlog

from service.routes.internet import is_public
from service.routes.route import Route
from service.smtp.faults import CannotConnect, CannotResolve
from service.smtp.peer import Peer
from service.smtp.phase import Phase

SHORTEST = 30.0  # seconds; nothing is asked for again sooner
LONGEST = 3600.0  # seconds; nothing is believed for longer
STALE = 24 * 3600.0  # seconds for which an old answer stands in while the DNS is out of order
REST = 5.0  # seconds between a question without an answer and the next

_MOST_HOSTS = 10
# The last label begins with a letter: what ends in a number is an address in disguise.
_HOST = re.compile(r"(?=.{1,253}$)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z][a-z0-9-]{0,61}[a-z0-9]")

_Opened = TypeVar("_Opened")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolver:
    """Whom to ask, and how long one question may take."""

    nameservers: tuple[tuple[str, int], ...] = ()  # address and port; none: those of this machine
    timeout: float = 5.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class MxHost:
    """One host that takes the domain's mail."""

    name: str
    preference: int  # the lowest first
    addresses: tuple[str, ...] = ()  # that may be dialled; none where only names were asked for
    refused: tuple[str, ...] = ()  # its private and reserved addresses


@dataclass(frozen=True, slots=True, kw_only=True)
class MxAnswer:
    """What the DNS says of a domain."""

    domain: str
    hosts: tuple[MxHost, ...]  # by preference; never empty
    ttl: float  # seconds for which the MX records hold, from `found_at` on
    found_at: datetime
    stale_because: str | None = None  # an old answer, and why there is no new one


class MxFinder:
    """Finds the hosts of domains, and remembers them. Belongs to one event loop."""

    def __init__(
        self, resolver: Resolver | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Take whom to ask; `clock` counts seconds and never goes back."""
        self._resolver = resolver or Resolver()
        self._clock = clock
        self._questions: dict[tuple[str, str], _Question] = {}

    async def peers(self, route: Route) -> tuple[Peer, ...]:
        """List the endpoints of a route in the order in which they are to be tried.

        Hosts of equal preference come in a new order each time (RFC 5321 §5.1). A route that
        names its host has this one. Raises `CannotResolve`.
        """
        if route.mx_of is None:
            return (route.peer,)
        answer = await self.find(
            route.mx_of,
            ipv4_only=route.peer.address_family == "ipv4",
            allow_private=route.allow_private,
            names_only=route.peer.connect_to is not None,
        )
        hosts = sorted(answer.hosts, key=lambda host: (host.preference, random.random()))  # noqa: S311 - spreads load
        return tuple(replace(route.peer, host=host.name, addresses=host.addresses) for host in hosts)

    async def find(
        self, domain: str, *, ipv4_only: bool = False, allow_private: bool = False, names_only: bool = False
    ) -> MxAnswer:
        """Find the hosts of a domain, with the addresses that may be dialled unless only names are asked for.

        Raises `CannotResolve`.
        """
        found = await self._question(domain, "MX").answer()
        hosts = _hosts(domain, found)
        if not names_only:
            types: tuple[Literal["A", "AAAA"], ...] = ("A",) if ipv4_only else ("AAAA", "A")
            hosts = await self._reachable(domain, hosts, types, allow_private=allow_private)
        return MxAnswer(
            domain=domain,
            hosts=hosts,
            ttl=found.ttl,
            found_at=found.found_at,
            stale_because=found.stale_because,
        )

    async def _reachable(
        self,
        domain: str,
        hosts: tuple[MxHost, ...],
        types: tuple[Literal["A", "AAAA"], ...],
        *,
        allow_private: bool,
    ) -> tuple[MxHost, ...]:
        """Look up the hosts' addresses, and keep the hosts that have one."""
        outcomes = await asyncio.gather(*(self._addresses(host, types, allow_private) for host in hosts))
        reachable = tuple(host for host in outcomes if isinstance(host, MxHost) and host.addresses)
        if not reachable:
            raise _refusal(domain, outcomes)
        return reachable

    async def _addresses(
        self, host: MxHost, types: tuple[Literal["A", "AAAA"], ...], allow_private: bool
    ) -> MxHost | CannotResolve:
        found: list[str] = []
        trouble: CannotResolve | None = None
        for rdtype in types:
            try:
                found += (await self._question(host.name, rdtype).answer()).records
            except CannotResolve as fault:
                trouble = fault  # the other family may be enough
        if trouble is not None and not found:
            return trouble
        good = tuple(address for address in found if allow_private or is_public(address))
        return replace(host, addresses=good, refused=tuple(each for each in found if each not in good))

    def _question(self, name: str, rdtype: Literal["MX", "A", "AAAA"]) -> "_Question":
        key = (name, rdtype)
        if key not in self._questions:
            self._questions[key] = _Question(name, rdtype, resolver=self._resolver, clock=self._clock)
        return self._questions[key]


async def first_reached(peers: Sequence[Peer], open_at: Callable[[Peer], Awaitable[_Opened]]) -> _Opened:
    """Open something at the first endpoint that can be reached; what else goes wrong there is not tried elsewhere.

    Where none can be reached, the last one's `CannotConnect` or `CannotResolve` is raised.
    """
    *others, last = peers
    for peer in others:
        try:
            return await open_at(peer)
        except (CannotConnect, CannotResolve) as fault:
            _log.info("host.unreachable", host=peer.host, code=fault.code)
    return await open_at(last)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """An answer: for MX the hosts with a preference before each, otherwise addresses."""

    records: tuple[str, ...]  # empty: there is no such record
    exists: bool  # whether there is such a name
    ttl: float
    found_at: datetime
    asked_at: float  # by the clock
    stale_because: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """No answer at all."""

    code: str
    detail: str

    def fault(self) -> CannotResolve:
        return _fault(self.code, self.detail)


class _Question:
    """One name and type: its last answer, and the one request for the next."""

    def __init__(
        self,
        name: str,
        rdtype: Literal["MX", "A", "AAAA"],
        *,
        resolver: Resolver,
        clock: Callable[[], float],
    ) -> None:
        self._name = name
        self._rdtype = rdtype
        self._resolver = resolver
        self._clock = clock
        self._held: _Found | None = None
        self._trouble: Trouble | None = None
        self._rest_until = 0.0
        self._pending: asyncio.Task[None] | None = None

    async def answer(self) -> _Found:
        """Give what is known, asking where that is too old. Raises `CannotResolve`."""
        now = self._clock()
        if self._held is not None and now < self._held.asked_at + self._held.ttl:
            return self._held
        if self._trouble is None or now >= self._rest_until:
            await asyncio.shield(self._asking())
        if self._trouble is None:
            assert self._held is not None, "a question ends with an answer or a trouble"
            return self._held
        if self._held is not None and self._held.records and self._clock() < self._held.asked_at + STALE:
            return replace(self._held, stale_because=self._trouble.detail)
        raise self._trouble.fault()

    def _asking(self) -> "asyncio.Task[None]":
        """Join the question that is under way, or put it."""
        if self._pending is None or self._pending.done():
            self._pending = asyncio.create_task(self._ask())
        return self._pending

    async def _ask(self) -> None:
        """Ask once; what comes of it is kept, so that nobody has to be there for it."""
        # dnspython is loaded with the first question: 2 MB that many a worker never needs.
        from service.routes.records import asked

        asked_at = self._clock()
        outcome = await asked(self._name, self._rdtype, self._resolver)
        if isinstance(outcome, Trouble):
            self._trouble, self._rest_until = outcome, self._clock() + REST
            if self._held is not None:
                _log.warning("dns.unanswered", name=self._name, type=self._rdtype, code=outcome.code)
            return
        records, exists, ttl = outcome
        self._trouble = None
        self._held = _Found(
            records=records,
            exists=exists,
            ttl=min(max(ttl, SHORTEST), LONGEST),
            found_at=datetime.now(UTC),
            asked_at=asked_at,
        )


def _hosts(domain: str, found: _Found) -> tuple[MxHost, ...]:
    """Read MX records; raises `CannotResolve` where they name no host."""
    if not found.records:
        what = "has no MX record" if found.exists else "does not exist"
        raise _fault("mx_missing", f"The domain {domain} {what}, so there is no host that takes its mail.")
    pairs = [record.split(" ", 1) for record in found.records]
    hosts = [
        MxHost(name=name, preference=int(preference)) for preference, name in pairs if _HOST.fullmatch(name)
    ]
    if hosts:
        return tuple(sorted(hosts, key=lambda host: (host.preference, host.name))[:_MOST_HOSTS])
    if all(name in {"", "."} for _, name in pairs):
        raise _fault("mx_null", f"The domain {domain} says that it takes no mail (null MX, RFC 7505).")
    raise _fault("mx_missing", f"The MX record of {domain} names no host.")


def _refusal(domain: str, outcomes: list[MxHost | CannotResolve]) -> CannotResolve:
    """Say why no host of the domain can be reached: the DNS's trouble first, because it may pass."""
    for outcome in outcomes:
        if isinstance(outcome, CannotResolve):
            return outcome
    hosts = [outcome for outcome in outcomes if isinstance(outcome, MxHost)]
    refused = [address for host in hosts for address in host.refused]
    names = ", ".join(host.name for host in hosts)
    if refused:
        detail = f"The MX hosts of {domain} ({names}) have private or reserved addresses only ({', '.join(refused[:4])})."
        return _fault("mx_private", detail)
    return _fault("name_not_found", f"The MX hosts of {domain} ({names}) have no address.")


def _fault(code: str, detail: str) -> CannotResolve:
    return CannotResolve(code, phase=Phase.CONNECT, detail=detail)
