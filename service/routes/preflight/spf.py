"""An SPF record (RFC 7208): parsed as a whole, and surveyed with everything it leads to.

`parse` knows the grammar of §12 and says which term breaks it. `survey` follows includes and
redirects as far as they lead, counts what the limits of §4.6.4 count (ten terms that ask DNS, two
void answers, ten exchangers) over the worst case, and finds loops. It asks a bounded number of
questions, whatever a record says. `Survey.verdict(ip)` evaluates what was found for one address,
and `Survey.includes` says whose senders pass.

A domain with a macro (`%{i}._spf.%{d}`) depends on the message: it is counted and not followed.
"""

import ipaddress
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Protocol

IpAddress = IPv4Address | IPv6Address
IpNetwork = IPv4Network | IPv6Network

LOOKUP_LIMIT = 10
VOID_LIMIT = 2
EXCHANGER_LIMIT = 10

#: Questions that one survey asks at the most: enough to show by how much a record is over its limit.
_MOST_QUESTIONS = 60
_MOST_CHARACTERS = 4_096
_MOST_TERMS = 200

_VERSION = re.compile(r"v=spf1(?: |$)", re.IGNORECASE)
_MODIFIER = re.compile(r"([a-z][a-z0-9_.-]*)=(.*)", re.IGNORECASE | re.DOTALL)
_DIRECTIVE = re.compile(r"([+?~-]?)([a-z][a-z0-9]*)(?:([:/])(.*))?", re.IGNORECASE | re.DOTALL)
_MACRO = re.compile(r"%(?:\{[slodiphcrtv][0-9]*r?[.\-+,/_=]*\}|[%_-])", re.IGNORECASE)
_LITERAL = re.compile(r"[\x21-\x24\x26-\x7e]*")
_TOP_LABEL = re.compile(r"\.(?:[a-z0-9]*[a-z][a-z0-9]*|[a-z0-9]+-[a-z0-9-]*[a-z0-9])\.?$", re.IGNORECASE)
_CIDR = re.compile(r"(?:/(0|[1-9][0-9]?))?(?://(0|[1-9][0-9]{0,2}))?$")


class Qualifier(StrEnum):
    """What a matching mechanism says of the sender."""

    PASS = "+"  # noqa: S105  # the name in RFC 7208
    FAIL = "-"
    SOFTFAIL = "~"
    NEUTRAL = "?"


class BadSpf(ValueError):
    """A record that breaks the grammar: receivers answer `permerror` and the record protects nothing."""

    def __init__(self, term: str, reason: str) -> None:
        self.term = term
        self.reason = reason
        super().__init__(f"{term}: {reason}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mechanism:
    """One directive of a record."""

    text: str  # as it was written
    qualifier: Qualifier
    name: str  # all include a mx ptr ip4 ip6 exists
    domain: str | None = None
    network: IpNetwork | None = None
    prefix4: int = 32
    prefix6: int = 128

    @property
    def asks_dns(self) -> bool:
        """Whether it counts towards the limit of ten."""
        return self.name in {"include", "a", "mx", "ptr", "exists"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A parsed record."""

    text: str
    mechanisms: tuple[Mechanism, ...]
    redirect: str | None = None
    others: tuple[str, ...] = ()  # further modifiers, such as exp, as they were written

    @property
    def ending(self) -> Qualifier | None:
        """The qualifier of `all`; None where the record does not end in one."""
        return next((each.qualifier for each in self.mechanisms if each.name == "all"), None)


def is_spf(text: str) -> bool:
    """Say whether a TXT record is meant as SPF (RFC 7208 §4.5)."""
    return _VERSION.match(text) is not None


def parse(text: str) -> Record:
    """Take a record apart. Raises BadSpf at the first term that breaks the grammar."""
    if not is_spf(text):
        raise BadSpf(text[:20], "a record begins with v=spf1 and a space")
    if len(text) > _MOST_CHARACTERS:
        raise BadSpf("v=spf1", f"the record is longer than {_MOST_CHARACTERS} characters")
    terms = [term for term in text[6:].split(" ") if term]
    if len(terms) > _MOST_TERMS:
        raise BadSpf("v=spf1", f"the record has more than {_MOST_TERMS} terms")
    mechanisms: list[Mechanism] = []
    modifiers: dict[str, str] = {}
    others: list[str] = []
    for term in terms:
        found = _MODIFIER.fullmatch(term)
        if found is None:
            mechanisms.append(_mechanism(term))
            continue
        name = found[1].lower()
        _check_macros(term, found[2])
        if name in {"redirect", "exp"}:
            if name in modifiers:
                raise BadSpf(term, f"{name} stands twice")
            modifiers[name] = _domain(term, found[2])
        if name != "redirect":
            others.append(term)
    return Record(
        text=text, mechanisms=tuple(mechanisms), redirect=modifiers.get("redirect"), others=tuple(others)
    )


def _mechanism(term: str) -> Mechanism:
    found = _DIRECTIVE.fullmatch(term)
    if found is None:
        raise BadSpf(term, "this is neither a mechanism nor a modifier")
    qualifier, name = Qualifier(found[1] or "+"), found[2].lower()
    separator, value = found[3], found[4] or ""
    if name == "all":
        if separator:
            raise BadSpf(term, "all takes nothing behind it")
        return Mechanism(text=term, qualifier=qualifier, name=name)
    if name in {"ip4", "ip6"}:
        if separator != ":":
            raise BadSpf(term, f"{name} needs an address: {name}:…")
        return Mechanism(text=term, qualifier=qualifier, name=name, network=_network(term, name, value))
    if name in {"include", "exists"}:
        if separator != ":":
            raise BadSpf(term, f"{name} needs a domain: {name}:…")
        return Mechanism(text=term, qualifier=qualifier, name=name, domain=_domain(term, value))
    if name == "ptr":
        if separator == "/":
            raise BadSpf(term, "ptr takes no prefix length")
        domain = _domain(term, value) if separator else None
        return Mechanism(text=term, qualifier=qualifier, name=name, domain=domain)
    if name in {"a", "mx"}:
        return _with_prefix(term, qualifier, name, separator=separator, value=value)
    raise BadSpf(term, f"there is no mechanism {name}")


def _with_prefix(
    term: str, qualifier: Qualifier, name: str, *, separator: str | None, value: str
) -> Mechanism:
    written = f"/{value}" if separator == "/" else value
    found = _CIDR.search(written)
    assert found is not None, "the pattern matches the empty text"
    domain = written[: found.start()]
    prefix4, prefix6 = int(found[1] or 32), int(found[2] or 128)
    if prefix4 > 32 or prefix6 > 128:
        raise BadSpf(term, "the prefix length is longer than the address")
    if separator == ":" or domain:
        domain = _domain(term, domain)
    return Mechanism(
        text=term, qualifier=qualifier, name=name, domain=domain or None, prefix4=prefix4, prefix6=prefix6
    )


def _network(term: str, name: str, value: str) -> IpNetwork:
    _, slash, prefix = value.partition("/")
    try:
        network = ipaddress.ip_network(value, strict=False)
    except ValueError:
        network = None
    numeric = not slash or re.fullmatch(r"0|[1-9][0-9]{0,2}", prefix)  # no netmasks
    if network is None or not numeric or network.version != int(name[2]) or "%" in value:
        raise BadSpf(term, f"this is no IPv{name[2]} address or network")
    return network


def _domain(term: str, value: str) -> str:
    """Check a domain-spec (RFC 7208 §7.1): a name of two labels or more, or something with macros."""
    _check_macros(term, value)
    if not value:
        raise BadSpf(term, "a domain is missing")
    if len(value) > 253:
        raise BadSpf(term, "the domain is too long")
    if value.endswith("}") or _TOP_LABEL.search(value):
        return value.lower() if "%" not in value else value
    raise BadSpf(term, "this is no domain name")


def _check_macros(term: str, value: str) -> None:
    if not _LITERAL.fullmatch(_MACRO.sub("", value)):
        raise BadSpf(term, "a % stands for a macro, and this is none that RFC 7208 knows")


class Answers(Protocol):
    """Who answers a survey's questions: DNS."""

    async def texts(self, name: str) -> list[str]: ...
    async def addresses(self, name: str) -> list[IpAddress]: ...
    async def exchangers(self, name: str) -> list[str]: ...


@dataclass(slots=True, kw_only=True)
class Node:
    """One domain's record, and what its terms lead to."""

    domain: str
    record: Record | None = None
    found: tuple[str, ...] = ()  # every SPF record that the domain has
    led_to: dict[str, "Node"] = field(default_factory=dict)  # by domain
    networks: dict[str, tuple[IpNetwork, ...]] = field(default_factory=dict)  # of a and mx, by term


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """A domain's record with everything that it leads to."""

    root: Node
    lookups: int  # terms that ask DNS, all of them
    voids: int
    errors: tuple[str, ...]  # for each of these receivers answer permerror
    unfinished: bool  # the survey stopped asking: there is more than it wanted to know

    @property
    def record(self) -> Record | None:
        """The domain's own record, where there is exactly one and it can be read."""
        return self.root.record

    def includes(self) -> frozenset[str]:
        """Give the domains whose own senders pass: included or redirected to, at any depth."""
        return frozenset(_passing(self.root))

    def verdict(self, address: IpAddress) -> Qualifier | None:
        """Evaluate the record for an address (RFC 7208 §4.6); None where it says nothing about it.

        What depends on the message (`exists`, `ptr`, macros) counts as no match.
        """
        return _evaluated(self.root, address)


def _passing(node: Node) -> Iterator[str]:
    if node.record is None:
        return
    for mechanism in node.record.mechanisms:
        if mechanism.name == "include" and mechanism.qualifier is Qualifier.PASS and mechanism.domain:
            yield mechanism.domain.rstrip(".")
            if mechanism.domain in node.led_to:
                yield from _passing(node.led_to[mechanism.domain])
        if mechanism.name == "all":
            return  # nothing behind it is looked at, redirect included
    if node.record.redirect:
        yield node.record.redirect.rstrip(".")
        if node.record.redirect in node.led_to:
            yield from _passing(node.led_to[node.record.redirect])


def _evaluated(node: Node, address: IpAddress) -> Qualifier | None:
    if node.record is None:
        return None
    for mechanism in node.record.mechanisms:
        if _matches(mechanism, node, address):
            return mechanism.qualifier
    target = node.led_to.get(node.record.redirect or "")
    return None if target is None else _evaluated(target, address)


def _matches(mechanism: Mechanism, node: Node, address: IpAddress) -> bool:
    match mechanism.name:
        case "all":
            return True
        case "ip4" | "ip6":
            return within(address, mechanism.network)
        case "a" | "mx":
            return any(within(address, network) for network in node.networks.get(mechanism.text, ()))
        case "include":
            target = node.led_to.get(mechanism.domain or "")
            return target is not None and _evaluated(target, address) is Qualifier.PASS
        case _:
            return False


def within(address: IpAddress, network: IpNetwork | None) -> bool:
    """Say whether an address lies in a network of its own family."""
    return network is not None and network.version == address.version and address in network


async def survey(domain: str, answers: Answers) -> Survey:
    """Read a domain's record and everything it leads to. Raises what `answers` raises."""
    surveyor = _Surveyor(answers)
    root = await surveyor.visit(domain, above=())
    return Survey(
        root=root,
        lookups=surveyor.lookups,
        voids=surveyor.voids,
        errors=tuple(dict.fromkeys((*surveyor.errors, *surveyor.limits()))),
        unfinished=surveyor.asked >= _MOST_QUESTIONS,
    )


class _Surveyor:
    """Counts while it asks."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self.asked = 0
        self.lookups = 0
        self.voids = 0
        self.errors: list[str] = []

    def limits(self) -> Iterator[str]:
        """Say which limits are passed."""
        if self.lookups > LOOKUP_LIMIT:
            yield f"the record leads to {self.lookups} lookups, and receivers stop after {LOOKUP_LIMIT}"
        if self.voids > VOID_LIMIT:
            yield f"{self.voids} of its names have no answer, and receivers stop after {VOID_LIMIT}"

    async def visit(self, domain: str, *, above: tuple[str, ...]) -> Node:
        """Read one domain's record, and follow it."""
        node = Node(domain=domain)
        if self.asked >= _MOST_QUESTIONS:
            return node
        self.asked += 1
        node.found = tuple(text for text in await self._answers.texts(domain) if is_spf(text))
        if len(node.found) > 1:
            self.errors.append(f"{domain} has {len(node.found)} SPF records, and may have one")
        elif not node.found and above:
            self.errors.append(f"{above[-1]} leads to {domain}, which has no SPF record")
        elif node.found:
            try:
                node.record = parse(node.found[0])
            except BadSpf as bad:
                self.errors.append(f"the record of {domain} cannot be read at `{bad.term}`: {bad.reason}")
        if node.record is not None:
            await self._follow(node, node.record, above=(*above, domain))
        return node

    async def _follow(self, node: Node, record: Record, *, above: tuple[str, ...]) -> None:
        for mechanism in record.mechanisms:
            if mechanism.name == "all":
                return  # what stands behind it is never reached (RFC 7208 §5.1)
            if not mechanism.asks_dns:
                continue
            self.lookups += 1
            domain = mechanism.domain or node.domain
            if "%" in domain:
                continue
            if mechanism.name == "include":
                await self._lead(node, domain, above=above)
            elif mechanism.name in {"a", "mx"} and mechanism.text not in node.networks:
                node.networks[mechanism.text] = await self._networks(mechanism, domain)
            elif mechanism.name == "exists":
                await self._addresses(domain)
        if record.redirect is not None:
            self.lookups += 1
            if "%" not in record.redirect:
                await self._lead(node, record.redirect, above=above)

    async def _lead(self, node: Node, domain: str, *, above: tuple[str, ...]) -> None:
        if domain.rstrip(".") in {each.rstrip(".") for each in above}:
            self.errors.append(f"{above[-1]} leads back to {domain}: a loop")
            return
        node.led_to[domain] = await self.visit(domain, above=above)

    async def _networks(self, mechanism: Mechanism, domain: str) -> tuple[IpNetwork, ...]:
        hosts = [domain]
        if mechanism.name == "mx":
            hosts = await self._exchangers(domain)
        addresses = [address for host in hosts for address in await self._addresses(host)]
        return tuple(
            ipaddress.ip_network(
                f"{address}/{mechanism.prefix4 if address.version == 4 else mechanism.prefix6}", strict=False
            )
            for address in addresses
        )

    async def _exchangers(self, domain: str) -> list[str]:
        if self.asked >= _MOST_QUESTIONS:
            return []
        self.asked += 1
        hosts = await self._answers.exchangers(domain)
        self.voids += not hosts
        if len(hosts) > EXCHANGER_LIMIT:
            self.errors.append(
                f"mx of {domain} has {len(hosts)} exchangers, and receivers stop after {EXCHANGER_LIMIT}"
            )
        return [host for host in hosts[:EXCHANGER_LIMIT] if host]

    async def _addresses(self, host: str) -> list[IpAddress]:
        if self.asked >= _MOST_QUESTIONS:
            return []
        self.asked += 1
        found = await self._answers.addresses(host)
        self.voids += not found
        return found


def proposed(
    record: Record | None,
    *,
    includes: tuple[str, ...],
    addresses: tuple[IpAddress, ...],
    drop: Collection[str],
) -> str:
    """Write the record that would be right: what is there, without `drop`, with what is missing before `all`.

    `drop` has the terms to leave out, as they are written in the record.
    """
    kept = [each for each in (record.mechanisms if record else ()) if each.text not in drop]
    terms = [f"ip{address.version}:{address}" for address in addresses]
    terms += [each.text for each in kept if each.name != "all"]
    terms += [f"include:{include}" for include in includes]
    ending = record.ending if record else None
    if record is not None and record.redirect and ending is None and not includes and not addresses:
        return " ".join(["v=spf1", *dict.fromkeys(terms), f"redirect={record.redirect}", *record.others])
    if record is not None and record.redirect and ending is None:
        # Behind `all` a redirect is dead, so its senders are included instead.
        terms.append(f"include:{record.redirect}")
    last = "-all" if ending is Qualifier.FAIL else "~all"
    return " ".join(["v=spf1", *dict.fromkeys(terms), last, *(record.others if record else ())])
