"""Where a webhook may lead: its address is judged when it is written down, and again before each use.

Applications name the addresses, and Postroom stands inside the network: without rules they could have it
knock at machines that they cannot reach themselves (server-side request forgery). So

- the address is https with a name or an IP address, no login and no fragment in it; http only by setting,
  or to a private address that is allowed;
- the name is resolved once, every address that it has is judged, and one of exactly these is dialled:
  nobody resolves the name again (DNS rebinding). Host and certificate stay the name's;
- the open internet is allowed. Private networks, loopback and carriers' networks (RFC 6598) are a setting,
  single networks another. Link-local addresses, where clouds keep their metadata, multicast and what is
  reserved stay closed, also where IPv4 hides in IPv6;
- redirects are not followed (the sender sees to it).

Names are asked of the DNS as the setting `dns` says, else as /etc/resolv.conf says, with its search list; of
/etc/hosts nothing is known but `localhost` (RFC 6761 §6.3). What is refused is a `TargetRefused`.
"""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Self, TypeAlias

from service.routes.internet import Ip, is_public, unwrapped
from service.routes.mx import Resolver

if TYPE_CHECKING:
    import dns.asyncresolver

Network: TypeAlias = IPv4Network | IPv6Network

LONGEST = 2000  # characters of an address

_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>(?:[/?][\x21\x24-\x3b\x3d\x3f-\x5b\x5d\x5f\x61-\x7a\x7e%]*)?)",
    re.IGNORECASE,
)
_NAME = re.compile(
    r"(?=.{1,253}$)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*"
)
# What ends in a number is an address in disguise (WHATWG URL §3.5): 127.1, 0x7f000001, 2130706433.
_DISGUISED = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")

_LOOPBACK = (IPv4Address("127.0.0.1"), IPv6Address("::1"))

#: Open only by `allow_private` or by name: RFC 1918, RFC 6598, RFC 4193, loopback.
_PRIVATE = tuple(
    ip_network(each)
    for each in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8", "fc00::/7", "::1/128")
)  # fmt: skip

#: Clouds' metadata in private ranges (AWS over IPv6, Alibaba, Oracle): `allow_private` does not mean them.
_METADATA = tuple(ip_network(each) for each in ("fd00:ec2::/32", "100.100.100.200/32", "192.0.0.0/24"))


class TargetRefused(Exception):
    """This address is not to be called. `code` is stable; `detail` is a sentence without what was given."""

    def __init__(self, code: str, detail: str, *, passing: bool = False) -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail
        self.passing = passing  # it may be over the next time: the DNS does not answer


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRules:
    """What is allowed beyond https to the open internet."""

    allow_http: bool = False
    allow_private: bool = False
    allowed_networks: Sequence[Network] = ()

    def allow(self, address: Ip) -> bool:
        """Say whether this address may be dialled."""
        inner = unwrapped(address)
        if _is_in(inner, self.allowed_networks):
            return True
        if inner.is_multicast or inner.is_unspecified or inner.is_link_local or _is_in(inner, _METADATA):
            return False
        return is_public(inner) or (self.allow_private and _is_in(inner, _PRIVATE))

    def allow_plain(self, addresses: Sequence[Ip]) -> bool:
        """Say whether these may be called without TLS: by setting, or because they are allowed as inside ones."""
        return self.allow_http or not any(is_public(address) for address in addresses)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """An address that was read, not yet resolved."""

    scheme: str
    host: str  # in lower case; an IPv6 address without brackets
    port: int
    path: str  # with the query, as it was written
    literal: Ip | None  # the host is an IP address

    @classmethod
    def parse(cls, url: str, rules: TargetRules) -> Self:
        """Read and judge an address as far as it can be done without the DNS; raises TargetRefused."""
        if len(url) > LONGEST:
            raise TargetRefused("too_long", f"An address has at most {LONGEST} characters.")
        if "@" in url.partition("://")[2].split("/")[0]:
            raise TargetRefused("login_in_address", "There must be no user name or password in the address.")
        if "#" in url:
            raise TargetRefused("fragment", "There must be no fragment (#…) in the address.")
        found = _URL.fullmatch(url)
        if found is None:
            detail = "This is not the address of a web server: https://host/path, with a host name in ASCII."
            raise TargetRefused("not_an_address", detail)
        scheme, host = found["scheme"].lower(), found["host"].lower()
        port = int(found["port"]) if found["port"] else {"https": 443, "http": 80}[scheme]
        if not 1 <= port <= 65535:
            raise TargetRefused("not_an_address", "There is no such port.")
        literal = _literal(host)
        name = host.strip("[]").rstrip(".")
        if literal is None and (not _NAME.fullmatch(name) or _DISGUISED.fullmatch(name)):
            raise TargetRefused(
                "not_an_address", "This is neither a host name nor an IP address in its usual form."
            )
        if literal is not None and not rules.allow(literal):
            raise _closed()
        inside = rules.allow_private or rules.allowed_networks
        if scheme == "http" and not (rules.allow_http or inside):
            raise _plain()
        path = found["path"] or "/"
        return cls(
            scheme=scheme,
            host=name,
            port=port,
            path=path if path.startswith("/") else f"/{path}",
            literal=literal,
        )

    @property
    def host_header(self) -> str:
        """What stands in the field Host (RFC 9110 §7.2)."""
        host = f"[{self.host}]" if isinstance(self.literal, IPv6Address) else self.host
        return host if self.port == {"https": 443, "http": 80}[self.scheme] else f"{host}:{self.port}"

    def at(self, address: Ip) -> str:
        """The address's own base: the scheme, the IP address that was judged, the port."""
        host = f"[{address}]" if isinstance(address, IPv6Address) else str(address)
        return f"{self.scheme}://{host}:{self.port}"


class Targets:
    """Judges addresses of webhooks, and finds what may be dialled for them."""

    def __init__(self, rules: TargetRules, resolver: Resolver) -> None:
        self.rules = rules
        self._resolver = resolver

    async def addresses(self, url: str) -> tuple[Target, list[Ip]]:
        """Read an address, and resolve its name once; IPv4 comes first. Raises TargetRefused.

        One closed address among several closes them all: a name of the open internet has no business inside.
        """
        target = Target.parse(url, self.rules)
        found = [target.literal] if target.literal is not None else await self._resolve(target.host)
        if not all(self.rules.allow(address) for address in found):
            raise _closed()
        if target.scheme == "http" and not self.rules.allow_plain(found):
            raise _plain()
        return target, found

    async def _resolve(self, host: str) -> list[Ip]:
        if host == "localhost" or host.endswith(".localhost"):
            return list(_LOOPBACK)
        answers = await asyncio.gather(self._ask(host, "A"), self._ask(host, "AAAA"))
        found = [address for answer in answers if answer is not None for address in answer]
        if found:
            return found
        if None in answers:
            raise TargetRefused("name_lookup_failed", "The DNS gave no answer for the host.", passing=True)
        raise TargetRefused("name_not_found", "The host has no address in the DNS.", passing=True)

    async def _ask(self, host: str, rdtype: str) -> list[Ip] | None:
        """Ask for one kind of address; None: there was no answer."""
        import dns.exception
        import dns.resolver

        try:
            resolver = self._asked()
            # With servers that the configuration names there is no search list: it was this machine's.
            answer = await resolver.resolve(host, rdtype, search=not self._resolver.nameservers)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return []
        except (dns.exception.DNSException, OSError):
            return None
        return [ip_address(record.address) for record in answer]

    def _asked(self) -> "dns.asyncresolver.Resolver":
        import dns.asyncresolver
        import dns.nameserver

        resolver = dns.asyncresolver.Resolver(configure=not self._resolver.nameservers)
        if self._resolver.nameservers:
            resolver.nameservers = [
                dns.nameserver.Do53Nameserver(address, port) for address, port in self._resolver.nameservers
            ]
        resolver.lifetime = self._resolver.timeout
        return resolver


def _literal(host: str) -> Ip | None:
    try:
        return ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None


def _is_in(address: Ip, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks if network.version == address.version)


def _closed() -> TargetRefused:
    return TargetRefused(
        "address_not_allowed",
        "The address leads into a private or reserved network, which the configuration does not allow.",
    )


def _plain() -> TargetRefused:
    return TargetRefused("http_not_allowed", "The address has to begin with https://.")
