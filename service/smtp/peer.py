"""Whom we talk to, as whom, and how long we wait.

Values only. `Peer` is what a route knows about the other side; `Login` is what one session
proves about us, and hides its secret from every `repr`. All times are seconds.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Literal

_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


class TlsMode(StrEnum):
    """What STARTTLS (RFC 3207) is to us."""

    REQUIRED = "required"  # no TLS, or a certificate that is not the peer's: no session
    OPPORTUNISTIC = "opportunistic"  # used when offered, certificate recorded but not judged (RFC 7435)
    NONE = "none"  # never used; refuses a login


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long each step may take, in seconds.

    The defaults are RFC 5321 §4.5.3.2 where it says something, and shorter for what costs no
    mail. `body` is the time that a block of content may be stalled, not the whole content.
    """

    connect: float = 30.0
    greeting: float = 300.0
    ehlo: float = 60.0
    starttls: float = 30.0
    auth: float = 60.0
    mail: float = 300.0
    rcpt: float = 300.0
    data: float = 120.0
    body: float = 180.0
    dot: float = 600.0
    rset: float = 5.0
    quit: float = 5.0

    def total(self) -> float:
        """Sum up one step of each kind: what a session with one plain message may take at most."""
        return sum(float(getattr(self, limit.name)) for limit in fields(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One endpoint that speaks SMTP, and how we present ourselves there."""

    host: str  # the name for TLS, rules and ledger
    port: int
    ehlo_name: str  # our fully qualified name, or an address literal
    tls: TlsMode
    connect_to: tuple[str, int] | None = None  # dialled instead of host and port
    addresses: tuple[str, ...] = ()  # of the host, where somebody resolved it already; dialled in this order
    ca_file: Path | None = None  # trusted instead of the system's authorities
    client_certificate: Path | None = None  # PEM, the full chain
    client_key: Path | None = None  # PEM; None where the certificate's file has it
    minimum_tls: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    timeouts: Timeouts = field(default_factory=Timeouts)
    address_family: Literal["any", "ipv4"] = "any"


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """How a session proves who we are: a password, or an access token for XOAUTH2."""

    method: Literal["login", "xoauth2"]
    username: str
    secret: str = field(repr=False)

    def __post_init__(self) -> None:
        # XOAUTH2 separates its fields by \x01: a control character in one would add fields.
        if _CONTROLS.search(self.username) or (self.method == "xoauth2" and _CONTROLS.search(self.secret)):
            raise ValueError("a user name and an access token have no control characters")
