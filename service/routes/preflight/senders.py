"""The SPF records of the domains that a route sends for, judged for this route.

Mail by client submission leaves from Microsoft's addresses, so the record has to include the
cloud's name. Direct send and relay come from our own addresses first, so the record needs the static
addresses of `organization.egress` as well. What a smarthost or Azure Communication Services needs is
theirs to say: there the record only has to be sound.

A record that no receiver can use (two records, a broken term, more than ten lookups, a loop) is a
failure, as is a sender that is missing, and an address that is not public: the guide's own example,
10.5.3.2, is private and says nothing to anybody. `+all`, `?all`, `ptr` and a record without an end
are warned about. The remedy is the whole corrected record.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_network

from service.routes.kinds import CLOUDS, Cloud
from service.routes.preflight import spf
from service.routes.preflight.lookups import DnsTrouble
from service.routes.preflight.spf import Answers, Mechanism, Qualifier, Record, Survey
from service.routes.preflight.steps import Status, Step, skip, warn
from service.routes.route import Route, RouteKind

#: Domains that a route may have more of than one wants to ask for.
MOST_DOMAINS = 20

_OWN_ADDRESSES = frozenset({RouteKind.DIRECT_SEND, RouteKind.SMTP_RELAY})
_BY_MICROSOFT = _OWN_ADDRESSES | {RouteKind.CLIENT_SUBMISSION}
_DOCUMENTATION = tuple(
    map(ip_network, ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32"))
)
_MANAGED = (".onmicrosoft.com", ".onmicrosoft.us", ".partner.onmschina.cn")  # Microsoft writes their records


@dataclass(frozen=True, slots=True, kw_only=True)
class Needed:
    """What the record of a route's sender domain has to cover."""

    include: str | None = None  # whose senders have to pass
    unverified: bool = False  # one source has this name
    addresses: tuple[IPv4Address | IPv6Address, ...] = ()


def needed_for(
    route: Route, *, cloud: Cloud, static_ips: tuple[IPv4Address | IPv6Address, ...]
) -> Needed | None:
    """Say what the route needs of SPF; None where its mail never leaves Microsoft 365."""
    if route.kind is RouteKind.HIGH_VOLUME_EMAIL:
        return None
    facts = CLOUDS[cloud]
    return Needed(
        include=facts.spf_include if route.kind in _BY_MICROSOFT else None,
        unverified="spf_include" in facts.unverified,
        addresses=static_ips if route.kind in _OWN_ADDRESSES else (),
    )


def domains_of(route: Route, accepted_domains: tuple[str, ...]) -> list[str]:
    """List the domains that the route sends for, without those whose records Microsoft writes."""
    if route.accounts:
        named = [
            domain
            for account in route.accounts
            for domain in (
                account.address.domain,
                *(address.domain for address in account.send_as),
                *(accepted_domains if "*" in account.send_as_domains else account.send_as_domains),
            )
        ]
    else:
        named = list(route.sender_domains if route.sender_domains is not None else accepted_domains)
    return [domain for domain in dict.fromkeys(named) if not domain.endswith(_MANAGED)]


async def spf_steps(domains: list[str], needed: Needed | None, answers: Answers) -> list[Step]:
    """Look up and judge the record of each domain."""
    if needed is None:
        return [skip("spf", "Mail of this route stays inside Microsoft 365, where SPF is not asked.")]
    if not domains:
        return [skip("spf", "No sender domain is known whose record would be one's own to write.")]
    steps = [await _step(domain, needed, answers) for domain in domains[:MOST_DOMAINS]]
    if len(domains) > MOST_DOMAINS:
        left = len(domains) - MOST_DOMAINS
        steps.append(skip("spf", f"{left} further domains were not looked at in this check."))
    return steps


async def _step(domain: str, needed: Needed, answers: Answers) -> Step:
    try:
        found = await spf.survey(domain, answers)
    except DnsTrouble as trouble:
        return warn(
            "spf",
            f"The SPF record of {domain} could not be looked up: {trouble}.",
            "Let this machine ask DNS (port 53), or set dns.nameservers; then check again.",
            domain=domain,
        )
    return judge(domain, found, needed)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finding:
    """One thing that is not as it should be."""

    detail: str
    status: Status


def judge(domain: str, found: Survey, needed: Needed) -> Step:
    """Judge one domain's record for one route."""
    drop = {mechanism.text: why for mechanism, why in _unfit(found)}
    missing = _missing(found, needed)
    findings = [
        *(_Finding(detail=_sentence(error), status=Status.FAIL) for error in found.errors),
        *_absent(domain, found, needed),
        *_missing_findings(found, missing, needed),
        *(_Finding(detail=why, status=Status.FAIL) for why in drop.values()),
        *_loose(found),
    ]
    record = found.record
    facts: dict[str, object] = {
        "domain": domain,
        "record": record.text if record else None,
        "records": list(found.root.found),
        "lookups": found.lookups,
        "void_lookups": found.voids,
        "includes": sorted(found.includes()),
    }
    if not findings:
        assert record is not None
        detail = f"{domain}: {record.text} ({found.lookups} of {spf.LOOKUP_LIMIT} lookups; {_ending(found)})."
        return Step(name="spf", status=Status.OK, detail=detail, facts=facts)
    away = drop.keys() | set(_in_the_way(record, missing))
    corrected = spf.proposed(record, includes=missing.includes, addresses=missing.addresses, drop=away)
    facts["proposed"] = corrected
    worst = Status.FAIL if any(each.status is Status.FAIL for each in findings) else Status.WARN
    detail = f"{domain}: {' '.join(each.detail for each in findings)}"
    return Step(
        name="spf",
        status=worst,
        detail=detail,
        remedy=tuple(_remedy(domain, found, corrected, needed, missing)),
        facts=facts,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Missing:
    includes: tuple[str, ...]
    addresses: tuple[IPv4Address | IPv6Address, ...]


def _missing(found: Survey, needed: Needed) -> _Missing:
    includes = (needed.include,) if needed.include and needed.include not in found.includes() else ()
    addresses = tuple(
        each for each in needed.addresses if found.verdict(each) is not Qualifier.PASS or _open(found)
    )
    return _Missing(includes=includes, addresses=addresses)


def _absent(domain: str, found: Survey, needed: Needed) -> Iterator[_Finding]:
    if not found.root.found:
        status = Status.FAIL if needed.include else Status.WARN
        yield _Finding(detail="There is no SPF record.", status=status)


def _missing_findings(found: Survey, missing: _Missing, needed: Needed) -> Iterator[_Finding]:
    if found.record is None:
        return
    for include in missing.includes:
        said = " (a name from one source, unverified)" if needed.unverified else ""
        yield _Finding(
            detail=f"Microsoft 365 may not send for it: include:{include} is missing{said}.",
            status=Status.FAIL,
        )
    for address in missing.addresses:
        yield _Finding(detail=f"Our address {address} may not send for it.", status=Status.FAIL)


def _unfit(found: Survey) -> Iterator[tuple[Mechanism, str]]:
    """Find the terms of the domain's own record that have no place in it."""
    for mechanism in found.record.mechanisms if found.record else ():
        network = mechanism.network
        if network is None or network.prefixlen == 0:
            continue
        documented = any(
            network.version == each.version and network.subnet_of(each)  # type: ignore[arg-type]  # same version
            for each in _DOCUMENTATION
        )
        if not documented and (network.is_private or not network.is_global or network.is_multicast):
            yield mechanism, f"{mechanism.text} is not a public address: no receiver ever sees it."


def _in_the_way(record: Record | None, missing: _Missing) -> Iterator[str]:
    """Find the terms that a corrected record is better without: ptr, and what goes before the new ones."""
    for mechanism in record.mechanisms if record else ():
        network = mechanism.network
        refuses = mechanism.qualifier is not Qualifier.PASS and (
            mechanism.domain in missing.includes
            or (network is not None and any(spf.within(each, network) for each in missing.addresses))
        )
        everything = network is not None and network.prefixlen == 0
        if mechanism.name == "ptr" or everything or refuses:
            yield mechanism.text


def _loose(found: Survey) -> Iterator[_Finding]:
    record = found.record
    if record is None:
        return
    if _open(found):
        yield _Finding(
            detail="It lets everybody send for the domain: it ends in +all or has a network of everything.",
            status=Status.WARN,
        )
    elif record.ending is Qualifier.NEUTRAL:
        yield _Finding(detail="It ends in ?all, which says nothing about strangers.", status=Status.WARN)
    elif record.ending is None and record.redirect is None:
        yield _Finding(detail="It has no end (~all), which says nothing about strangers.", status=Status.WARN)
    if any(mechanism.name == "ptr" for mechanism in record.mechanisms):
        yield _Finding(
            detail="It uses ptr, which RFC 7208 asks nobody to use: slow, and skipped by many.",
            status=Status.WARN,
        )


def _open(found: Survey) -> bool:
    record = found.record
    return record is not None and any(
        mechanism.qualifier is Qualifier.PASS
        and (mechanism.name == "all" or (mechanism.network is not None and mechanism.network.prefixlen == 0))
        for mechanism in record.mechanisms
    )


def _ending(found: Survey) -> str:
    said: Mapping[Qualifier | None, str] = {
        Qualifier.FAIL: "-all: strangers are refused",
        Qualifier.SOFTFAIL: "~all: strangers are suspicious, as Microsoft recommends",
    }
    return said.get(found.record.ending if found.record else None, "the end is redirected")


def _remedy(domain: str, found: Survey, corrected: str, needed: Needed, missing: _Missing) -> Iterator[str]:
    if len(found.root.found) > 1:
        yield f"Keep one SPF record at {domain}, with the terms of all: {' | '.join(found.root.found)}"
    if any("lookups" in error for error in found.errors):
        yield (
            "Fewer includes: replace those of services that have fixed addresses by ip4 terms, and remove those of "
            "services that are not used any more."
        )
    if not found.root.found and not needed.include and not needed.addresses:
        yield f"Publish for {domain} what the service or server behind this route names: its own pages show the record."
    elif found.record is not None or not found.root.found:
        changes = _changed(found, corrected)
        if changes:
            yield f'TXT record of {domain}: "{corrected}"'
        else:
            yield f"Mend what the included records say; the record of {domain} itself may stay."
    else:
        yield f'TXT record of {domain}, with your other senders added: "{corrected}"'
    if missing.addresses:
        yield "Everybody who can use these addresses passes SPF for the domain (the guide)."


def _changed(found: Survey, corrected: str) -> bool:
    return found.record is None or found.record.text.split() != corrected.split()


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
