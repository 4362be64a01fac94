"""What is true for every route of a kind, as data.

The numbers are Microsoft's: "How to set up a multifunction device or application to send email
using Microsoft 365 or Office 365" (the guide) for hosts, ports, TLS, senders and recipients,
"Exchange Online limits" for the mailbox's rates and the size of a message, "Manage high volume
emails for Microsoft 365" and "Service limits for Azure Communication Services" for the two
others, as they stood in November 2026. A route's own `limits` override them one by one.

The kinds whose host is the tenant's MX send one transaction per recipient domain and at most
100 recipients in it: Exchange Online refuses the 201st of a domain and every recipient of a
second tenant with 452 4.5.3.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from service.routes.route import Limits, RouteKind
from service.smtp.session import TlsMode

MEGABYTE = 1024 * 1024  # as Exchange writes sizes: 35 MB is 36,700,160 octets


class Cloud(StrEnum):
    """The separate installations of Microsoft 365."""

    WORLDWIDE = "worldwide"
    GCC_HIGH = "gcc_high"
    DOD = "dod"
    CHINA = "china"


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudFacts:
    """Where the services of one cloud are."""

    authority: str  # base URL of the token service, without the tenant
    submission_host: str
    submission_scope: str  # of a token for SMTP AUTH


CLOUDS: Mapping[Cloud, CloudFacts] = {
    Cloud.WORLDWIDE: CloudFacts(
        authority="https://login.microsoftonline.com",
        submission_host="smtp.office365.com",
        submission_scope="https://outlook.office365.com/.default",
    ),
    Cloud.GCC_HIGH: CloudFacts(
        authority="https://login.microsoftonline.us",
        submission_host="smtp.office365.us",
        submission_scope="https://outlook.office365.us/.default",
    ),
    # Host and scope of the DoD and China clouds stand in one source each; `host` can override.
    Cloud.DOD: CloudFacts(
        authority="https://login.microsoftonline.us",
        submission_host="outlook-dod.office365.us",
        submission_scope="https://outlook-dod.office365.us/.default",
    ),
    Cloud.CHINA: CloudFacts(
        authority="https://login.partner.microsoftonline.cn",
        submission_host="smtp.partner.outlook.cn",
        submission_scope="https://partner.outlook.cn/.default",
    ),
}

HIGH_VOLUME_SCOPE = "https://outlook.office.com/.default"


class Domains(StrEnum):
    """Whose addresses a kind of route takes, as sender or as recipient."""

    ANY = "any"
    ACCEPTED = "accepted"  # the organisation's accepted domains
    ACCOUNT = "account"  # the mailbox that logs in, or whom it may send as


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """The rules and defaults of one kind of route."""

    host: str | None  # None: the configuration names it
    port: int
    ports: frozenset[int] | None  # None: any
    tls: TlsMode  # unless set
    tls_modes: frozenset[TlsMode]
    senders: Domains
    recipients: Domains
    limits: Limits
    microsoft: bool = True  # the host is Microsoft's: a name, never an address (the guide)
    mx: bool = False  # the host is the tenant's MX: one transaction per recipient domain
    bulk: bool = True  # takes messages of the stream "bulk"
    ipv4_only: bool = (
        False  # connectors know IPv4 only, and the MX greets IPv6 with harder rules (550 5.7.25)
    )


_REQUIRED = frozenset({TlsMode.REQUIRED})
_WHEN_OFFERED = frozenset({TlsMode.REQUIRED, TlsMode.OPPORTUNISTIC})
_MX_LIMITS = Limits(connections=10, recipients_per_message=100, message_bytes=150 * MEGABYTE)

#: Relay is two kinds in one word: the connector knows us by certificate, or by source address.
RELAY_BY_CERTIFICATE = Kind(
    host=None,
    port=25,
    ports=frozenset({25}),
    tls=TlsMode.REQUIRED,
    tls_modes=_REQUIRED,
    senders=Domains.ANY,
    recipients=Domains.ANY,
    limits=_MX_LIMITS,
    mx=True,
)
RELAY_BY_IP = Kind(
    host=None,
    port=25,
    ports=frozenset({25}),
    tls=TlsMode.OPPORTUNISTIC,
    tls_modes=_WHEN_OFFERED,
    senders=Domains.ACCEPTED,
    recipients=Domains.ANY,
    limits=_MX_LIMITS,
    mx=True,
    ipv4_only=True,
)

KINDS: Mapping[RouteKind, Kind] = {
    RouteKind.CLIENT_SUBMISSION: Kind(
        host=None,  # the cloud's
        port=587,
        ports=frozenset({587, 25}),
        tls=TlsMode.REQUIRED,
        tls_modes=_REQUIRED,
        senders=Domains.ACCOUNT,
        recipients=Domains.ANY,
        limits=Limits(
            messages_per_minute=30,
            recipients_per_day=10_000,
            connections=3,
            recipients_per_message=500,
            message_bytes=35 * MEGABYTE,
        ),
        bulk=False,  # the guide: not for bulk mail
    ),
    RouteKind.DIRECT_SEND: Kind(
        host=None,
        port=25,
        ports=frozenset({25}),
        tls=TlsMode.OPPORTUNISTIC,
        tls_modes=_WHEN_OFFERED,
        senders=Domains.ACCEPTED,
        recipients=Domains.ACCEPTED,
        limits=_MX_LIMITS,
        mx=True,
        ipv4_only=True,
    ),
    RouteKind.SMTP_RELAY: RELAY_BY_CERTIFICATE,
    RouteKind.SMARTHOST: Kind(
        host=None,
        port=25,
        ports=None,
        tls=TlsMode.OPPORTUNISTIC,
        tls_modes=frozenset(TlsMode),
        senders=Domains.ANY,
        recipients=Domains.ANY,
        limits=Limits(connections=10, recipients_per_message=100),
        microsoft=False,
    ),
    RouteKind.HIGH_VOLUME_EMAIL: Kind(
        host="smtp.hve.mx.microsoft",
        port=587,
        ports=frozenset({587}),
        tls=TlsMode.REQUIRED,
        tls_modes=_REQUIRED,
        senders=Domains.ACCOUNT,
        recipients=Domains.ACCEPTED,
        limits=Limits(connections=10, recipients_per_message=50, message_bytes=10 * MEGABYTE),
    ),
    RouteKind.AZURE_COMMUNICATION_SERVICES: Kind(
        host="smtp.azurecomm.net",
        port=587,
        ports=frozenset({587, 25}),
        tls=TlsMode.REQUIRED,
        tls_modes=_REQUIRED,
        senders=Domains.ACCEPTED,  # its verified domains, where `sender_domains` does not say otherwise
        recipients=Domains.ANY,
        limits=Limits(
            messages_per_minute=30,
            messages_per_hour=100,
            connections=10,
            recipients_per_message=50,
            message_bytes=10 * MEGABYTE,
        ),
    ),
}
