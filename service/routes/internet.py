"""Which addresses are the open internet's.

IPv4 hides in several forms of IPv6, and Python's own `is_global` counts ranges as global that lead nowhere or into
one's own network (IPv4-compatible, site-local, further NAT64 prefixes): of IPv6 only what is handed out as global
unicast is public here.
"""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TypeAlias

Ip: TypeAlias = IPv4Address | IPv6Address

_GLOBAL_UNICAST = ip_network("2000::/3")
_DOCUMENTATION = ip_network("3fff::/20")  # RFC 9637; Python 3.11 does not know it
_SPECIAL = tuple(map(ip_network, ("192.0.0.0/24", "192.88.99.0/24")))  # RFC 6890 §2.2.2, RFC 7526
_NAT64 = (ip_network("64:ff9b::/96"), ip_network("64:ff9b:1::/48"))


def unwrapped(address: Ip) -> Ip:
    """Take an IPv4 address out of the IPv6 address that leads to it."""
    if isinstance(address, IPv6Address):
        if any(address in network for network in _NAT64):
            return IPv4Address(int(address) & 0xFFFFFFFF)
        return address.ipv4_mapped or address.sixtofour or address
    return address


def is_public(address: Ip | str) -> bool:
    """Say whether this is an address of the open internet, also where it is wrapped into IPv6."""
    inner = unwrapped(ip_address(address))
    if not inner.is_global or inner.is_multicast:
        return False
    if isinstance(inner, IPv6Address):
        return inner in _GLOBAL_UNICAST and inner not in _DOCUMENTATION
    return not any(inner in network for network in _SPECIAL)
