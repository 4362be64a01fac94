"""How single settings are written: durations, sizes, hosts, domains, addresses.

Each is a type with the reading of its text attached. What cannot be read is refused in one
sentence that says how it is written and does not repeat what was given.
"""

import re
from datetime import timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, PlainValidator, WithJsonSchema

from service.mail.address import Address, domain_name
from service.routes.kinds import MEGABYTE

_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?) ?(ms|s|m|h|d)?", re.ASCII)
_SECONDS = {"ms": 0.001, None: 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

_SIZE = re.compile(r"(\d{1,15}) ?(B|kB|KB|MB|GB)?", re.ASCII)
_OCTETS = {None: 1, "B": 1, "kB": 1024, "KB": 1024, "MB": MEGABYTE, "GB": 1024 * MEGABYTE}

_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*")
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*", re.ASCII | re.IGNORECASE)
_LITERAL = re.compile(r"\[(?:IPv6:)?([0-9a-fA-F.:]+)\]")
_HOST_AND_PORT = re.compile(r"(?:\[(?P<literal>[^\]]+)\]|(?P<host>[^:\[\]]+)):(?P<port>\d{1,5})", re.ASCII)


def duration(value: object) -> object:
    """Read `500ms`, `30s`, `10m`, `24h`, `3d`; a number alone counts seconds."""
    if isinstance(value, timedelta):
        return value
    text = "" if isinstance(value, bool) else str(value)
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError("is not a duration. Write 500ms, 30s, 10m, 24h or 3d.")
    return timedelta(seconds=float(match[1]) * _SECONDS[match[2]])


def written(value: timedelta) -> str:
    """Write a duration as it is read, in the largest unit that leaves no fraction."""
    milliseconds = round(value / timedelta(milliseconds=1))
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms"


def size(value: object) -> object:
    """Read `35MB`, `512kB` or a number of octets. 1 MB is 1,048,576 octets, as Exchange counts."""
    text = "" if isinstance(value, bool) else str(value)
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError("is not a size. Write 512kB, 35MB or a number of octets.")
    return int(match[1]) * _OCTETS[match[2]]


def host(value: object) -> object:
    """Read the name or the IP address of a host; whether an address is right, the rules say."""
    text = str(value).strip().lower().rstrip(".").removeprefix("[").removesuffix("]")
    if is_ip(text):
        return text
    if len(text) > 253 or not _HOST.fullmatch(text):
        raise ValueError("is not a host name. Write the name alone, without scheme, port or path.")
    return text


def is_ip(text: str) -> bool:
    """Say whether this is an IP address in its usual form."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def is_address(text: str) -> bool:
    """Say whether a resolver would take this for an IP address, not for a name.

    Besides the usual forms these are `2130706433`, `0x7f000001`, `127.1` and their mixtures
    (inet_aton). No top-level domain is a number, so the last label tells.
    """
    return is_ip(text) or _NUMBER.fullmatch(text.rsplit(".", 1)[-1]) is not None


def host_and_port(value: object) -> object:
    """Read `host:port`, with an IPv6 address in brackets."""
    if isinstance(value, tuple):
        return value
    match = _HOST_AND_PORT.fullmatch(str(value).strip())
    if match is None or not 1 <= int(match["port"]) <= 65535:
        raise ValueError("is not host:port. Write 127.0.0.1:2525, relay.contoso.com:25 or [::1]:2525.")
    return host(match["literal"] or match["host"]), int(match["port"])


def nameserver(value: object) -> object:
    """Read the address of a name server, with a port where it is not 53."""
    text = str(value).strip() if not isinstance(value, tuple) else ""
    if is_ip(text.removeprefix("[").removesuffix("]")):
        return text.removeprefix("[").removesuffix("]"), 53
    try:
        pair = host_and_port(value)
    except ValueError:
        pair = None
    if not isinstance(pair, tuple) or not is_ip(str(pair[0])):
        raise ValueError(
            "is not the address of a name server. Write 192.0.2.53, 127.0.0.1:5353 or [::1]:5353."
        )
    return pair


def ehlo_name(value: object) -> object:
    """Read what EHLO takes (RFC 5321 §4.1.1.1): a host's name, or an address literal."""
    text = str(value).strip()
    literal = _LITERAL.fullmatch(text)
    if literal is not None and is_ip(literal[1]):
        return text
    if len(text) > 253 or "_" in text or not _HOST.fullmatch(text.lower()) or is_address(text):
        raise ValueError("is not a name for EHLO. Write a full host name, or an address as [192.0.2.1].")
    return text


def items(value: object) -> object:
    """Read a list that came as one text: comma-separated. JSON was read before; what looks like it is broken."""
    if not isinstance(value, str):
        return () if value is None else value
    if value.lstrip().startswith(("[", "{")):
        raise ValueError("is not valid JSON. Correct it, or write the values with commas between them.")
    return [part.strip() for part in value.split(",") if part.strip()]


def group(value: object) -> object:
    """Take an empty group for one where nothing is set, and refuse a text in its place."""
    if isinstance(value, str | list | tuple):
        raise ValueError("is not a group of settings. Write `name: value` lines below it, or valid JSON.")  # noqa: TRY004 - pydantic collects ValueErrors
    return {} if value is None else value


def sequence(value: object) -> object:
    """Take an empty list for one with nothing in it, and refuse anything else in its place."""
    if isinstance(value, str | dict):
        raise ValueError("is not a list. Begin each of its entries with a dash, or write valid JSON.")  # noqa: TRY004 - pydantic collects ValueErrors
    return () if value is None else value


def _address(value: object) -> Address:
    return value if isinstance(value, Address) else Address.parse(str(value).strip())


def _domain(value: object) -> object:
    return domain_name(str(value).strip().removesuffix("."))


def sender_pattern(text: str) -> str:
    """Bring one entry of `send_as` into its form: an address, `*@domain`, or `*` for everybody."""
    if text == "*":
        return text
    return f"*@{domain_name(text[2:])}" if text.startswith("*@") else str(Address.parse(text))


def _ip(value: object) -> IPv4Address | IPv6Address:
    try:
        return ip_address(str(value).strip())
    except ValueError:
        raise ValueError("is not an IP address. Write one address, such as 203.0.113.10.") from None


def _network(value: object) -> IPv4Network | IPv6Network:
    try:
        return ip_network(str(value).strip())
    except ValueError:
        raise ValueError(
            "is not a network. Write it with the length of its prefix and no bits behind it: 10.20.0.0/16."
        ) from None


GROUP = BeforeValidator(group)
LIST = BeforeValidator(sequence)

Duration: TypeAlias = Annotated[
    timedelta,
    BeforeValidator(duration),
    PlainSerializer(written),
    Field(ge=timedelta(0)),
    WithJsonSchema(
        {
            "type": ["string", "number"],
            "pattern": rf"^{_DURATION.pattern}$",
            "examples": ["500ms", "30s", "10m", "24h"],
        }
    ),
]
Size: TypeAlias = Annotated[
    int,
    BeforeValidator(size),
    Field(ge=1),
    WithJsonSchema({"type": ["string", "integer"], "pattern": rf"^{_SIZE.pattern}$", "examples": ["35MB"]}),
]
Host: TypeAlias = Annotated[str, BeforeValidator(host)]
EhloName: TypeAlias = Annotated[str, BeforeValidator(ehlo_name)]
HostAndPort: TypeAlias = Annotated[
    tuple[str, int],
    BeforeValidator(host_and_port),
    PlainSerializer(lambda pair: f"[{pair[0]}]:{pair[1]}" if ":" in pair[0] else f"{pair[0]}:{pair[1]}"),
    WithJsonSchema({"type": "string", "examples": ["127.0.0.1:2525"]}),
]
NameServers: TypeAlias = Annotated[
    tuple[
        Annotated[
            tuple[str, int],
            BeforeValidator(nameserver),
            PlainSerializer(
                lambda pair: f"[{pair[0]}]:{pair[1]}" if ":" in pair[0] else f"{pair[0]}:{pair[1]}"
            ),
            WithJsonSchema({"type": "string", "examples": ["192.0.2.53", "127.0.0.1:5353"]}),
        ],
        ...,
    ],
    BeforeValidator(items),
]
Port: TypeAlias = Annotated[int, Field(ge=1, le=65535)]
Domain: TypeAlias = Annotated[str, BeforeValidator(_domain)]
Domains: TypeAlias = Annotated[tuple[Domain, ...], BeforeValidator(items)]
Senders: TypeAlias = Annotated[
    tuple[Annotated[str, AfterValidator(sender_pattern)], ...], BeforeValidator(items)
]
Names: TypeAlias = Annotated[tuple[str, ...], BeforeValidator(items)]
MailAddress: TypeAlias = Annotated[
    Address,
    PlainValidator(_address),
    PlainSerializer(str),
    WithJsonSchema({"type": "string", "format": "email"}),
]
IpAddress: TypeAlias = Annotated[
    IPv4Address | IPv6Address, PlainValidator(_ip), PlainSerializer(str), WithJsonSchema({"type": "string"})
]
IpAddresses: TypeAlias = Annotated[tuple[IpAddress, ...], BeforeValidator(items)]
Networks: TypeAlias = Annotated[
    tuple[
        Annotated[
            IPv4Network | IPv6Network,
            PlainValidator(_network),
            PlainSerializer(str),
            WithJsonSchema({"type": "string", "examples": ["10.20.0.0/16"]}),
        ],
        ...,
    ],
    BeforeValidator(items),
]
Durations: TypeAlias = Annotated[tuple[Duration, ...], BeforeValidator(items)]
