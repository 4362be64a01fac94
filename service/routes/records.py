"""One question to the name servers, through dnspython: the MX records of a domain, the addresses of a host."""

from typing import Literal

import dns.asyncresolver
import dns.exception
import dns.name
import dns.nameserver
import dns.rdtypes.ANY.MX
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA
import dns.resolver

from service.routes.mx import SHORTEST, Resolver, Trouble

_ONE_TRY = 2.0  # seconds for one question to one name server


async def asked(
    name: str, rdtype: Literal["MX", "A", "AAAA"], resolver: Resolver
) -> tuple[tuple[str, ...], bool, float] | Trouble:
    """Put a question to the name servers: records, whether the name exists, and the TTL; or the trouble."""
    what = f"The {'MX record' if rdtype == 'MX' else 'address'} of {name}"
    try:
        answer = await _stub(resolver).resolve(
            dns.name.from_text(name), rdtype, raise_on_no_answer=False, search=False
        )
    except dns.resolver.NXDOMAIN:
        return (), False, SHORTEST
    except dns.exception.Timeout:
        return Trouble(code="resolve_timeout", detail=f"{what} was not told within {resolver.timeout:g} s.")
    except dns.resolver.NoResolverConfiguration:
        return Trouble(
            code="resolver_failed",
            detail=f"{what} cannot be looked up: this machine names no name server. Set dns.nameservers.",
        )
    except (dns.exception.DNSException, OSError) as failed:
        return Trouble(
            code="resolver_failed", detail=f"{what} could not be looked up for now ({_reason(failed)})."
        )
    if answer.rrset is None:
        return (), True, SHORTEST
    records = tuple(filter(None, map(_text, answer.rrset)))
    return records, True, float(answer.chaining_result.minimum_ttl)


def _stub(resolver: Resolver) -> dns.asyncresolver.Resolver:
    """Make a resolver; a new one each time, because the machine's own name servers may change."""
    stub = dns.asyncresolver.Resolver(configure=not resolver.nameservers)
    if resolver.nameservers:
        stub.nameservers = [dns.nameserver.Do53Nameserver(host, port) for host, port in resolver.nameservers]
    stub.lifetime = resolver.timeout
    stub.timeout = min(_ONE_TRY, resolver.timeout)
    return stub


def _text(record: object) -> str:
    match record:
        case dns.rdtypes.ANY.MX.MX():
            return f"{record.preference} {record.exchange.to_text(omit_final_dot=True).lower()}"
        case dns.rdtypes.IN.A.A() | dns.rdtypes.IN.AAAA.AAAA():
            return str(record.address)
        case _:
            return ""


def _reason(failed: Exception) -> str:
    """Say in a few words why no name server gave an answer."""
    if isinstance(failed, dns.resolver.NoNameservers):
        errors = failed.kwargs.get("errors") or []
        said = sorted({str(error[3]) for error in errors})
        return ", ".join(said)[:200] or "no name server answered"
    return type(failed).__name__
