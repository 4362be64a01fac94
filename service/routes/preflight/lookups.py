"""Questions to DNS that a check asks beside the route's own: text records, addresses, exchangers.

An answer is a list, empty where the name does not exist or has no such record: SPF calls that a
void lookup (RFC 7208 §4.6.4). `DnsTrouble` means that nobody could say.
"""

import ipaddress
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any

from service.routes.mx import Resolver

if TYPE_CHECKING:
    import dns.asyncresolver

_ONE_TRY = 2.0  # seconds for one question to one name server
_MOST_ANSWERS = 100


class DnsTrouble(Exception):
    """A question was not answered: no server, no answer in time, or a server that failed."""


class Lookups:
    """Asks the name servers of the configuration, or this machine's."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    async def texts(self, name: str) -> list[str]:
        """Give the TXT records; the pieces of one record are joined (RFC 7208 §3.3)."""
        answers = await self._ask(name, "TXT")
        return [b"".join(answer.strings).decode("utf-8", "replace") for answer in answers]

    async def addresses(self, name: str) -> list[IPv4Address | IPv6Address]:
        """Give the A and AAAA records."""
        return [
            ipaddress.ip_address(answer.address)
            for answer in (*await self._ask(name, "A"), *await self._ask(name, "AAAA"))
        ]

    async def exchangers(self, name: str) -> list[str]:
        """Give the names of the MX records, the most preferred first; a null MX is none."""
        ordered = sorted(await self._ask(name, "MX"), key=lambda answer: answer.preference)
        names = [answer.exchange.to_text(omit_final_dot=True).lower() for answer in ordered]
        return [each for each in names if each not in {"", ".", "@"}]

    async def _ask(self, name: str, kind: str) -> list[Any]:
        """Give the records of one type; dnspython is loaded with the first question."""
        import dns.exception
        import dns.name
        import dns.resolver

        try:
            answer = await self._stub().resolve(dns.name.from_text(name), kind, search=False)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return []
        except (dns.name.LabelTooLong, dns.name.EmptyLabel, dns.name.NameTooLong, dns.name.BadEscape):
            return []  # no such name can exist
        except dns.exception.Timeout as late:
            raise DnsTrouble(f"no answer about {name} within {self._resolver.timeout:g} s") from late
        except (dns.exception.DNSException, OSError) as trouble:
            raise DnsTrouble(f"no answer about {name} ({type(trouble).__name__})") from trouble
        return list(answer)[:_MOST_ANSWERS]

    def _stub(self) -> "dns.asyncresolver.Resolver":
        """Make a resolver; a new one each time, because the machine's own name servers may change."""
        import dns.asyncresolver
        import dns.nameserver

        given = self._resolver
        stub = dns.asyncresolver.Resolver(configure=not given.nameservers)
        if given.nameservers:
            stub.nameservers = [dns.nameserver.Do53Nameserver(host, port) for host, port in given.nameservers]
        stub.lifetime = given.timeout
        stub.timeout = min(_ONE_TRY, given.timeout)
        return stub
