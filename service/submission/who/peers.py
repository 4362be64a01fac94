"""Who is at the other end: the peer of the connection, or the client that a trusted proxy names.

A proxy appends to X-Forwarded-For the address that it was reached from, so the header is read
from the right, and only as far as those who wrote it are trusted (`api.trusted_proxies`): the first
address that is not a proxy's is the client. What stands further left, the client may have written
itself. Without trusted proxies the header says nothing.

An address is written in one form: an IPv4 address inside an IPv6 one (`::ffff:192.0.2.1`) is the IPv4
address. None where there is none, as on a Unix socket.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias

from fastapi import Request

Ip: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

#: The most addresses of X-Forwarded-For that are looked at; no chain of proxies is longer.
_HOPS = 20


def client_of(request: Request, *, trusted: Sequence[Network]) -> Ip | None:
    """Say whose request this is."""
    address = _read(request.client.host) if request.client else None
    if address is None or not _inside(address, trusted):
        return address
    forwarded = ",".join(request.headers.getlist("x-forwarded-for"))
    for written in reversed(forwarded.split(",")[-_HOPS:]):
        hop = _read(_without_port(written.strip()))
        if hop is None:
            return address  # nobody knows who stands behind this one
        address = hop
        if not _inside(address, trusted):
            break
    return address


def is_inside(address: Ip | None, networks: tuple[str, ...]) -> bool:
    """Say whether an address lies in one of the networks; no address lies in none."""
    return address is not None and _inside(address, _networks(networks))


def neighbourhood(address: Ip | None) -> str:
    """Name the one who is counted for this address: itself, or its /64, which is one customer's in IPv6."""
    if isinstance(address, IPv6Address):
        return str(ip_network((address, 64), strict=False))
    return str(address)


@lru_cache(maxsize=1000)
def _networks(written: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(map(ip_network, written))


def _inside(address: Ip, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)


@lru_cache(maxsize=1000)
def _read(written: str) -> Ip | None:
    try:
        address = ip_address(written)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _without_port(written: str) -> str:
    """Strip the port that some proxies write: `192.0.2.1:4711`, `[2001:db8::1]:4711`."""
    if written.startswith("["):
        return written[1:].partition("]")[0]
    return written.partition(":")[0] if written.count(":") == 1 else written
