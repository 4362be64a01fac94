"""What is true for every route of a kind, as data.

The numbers are Microsoft's: "How to set up a multifunction device or application to send email
using Microsoft 365 or Office 365" (the guide) for hosts, ports, TLS, senders and recipients,
"Exchange Online limits" for the mailbox's rates and the size of a message, "Manage high volume
emails for Microsoft 365" and "Service limits for Azure Communication Services" for the two
others, "Introducing Exchange Online Tenant Outbound Email Limits" for the tenant's external
recipients, as they stood in November 2026. A route's own `limits` override them one by one.

The kinds whose host is the tenant's MX send one transaction per recipient domain and at most
100 recipients in it: Exchange Online refuses the 201st of a domain and every recipient of a
second tenant with 452 4.5.3.

What Microsoft does not say itself, or says in one place only, is marked: `unverified` has the
names of such facts, and whoever shows them says so.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum

from service.routes.route import Limits, Route, RouteKind
from service.smtp.session import TlsMode

MEGABYTE = 1024 * 1024  # as Exchange writes sizes: 35 MB is 36,700,160 octets

#: Where Microsoft's SMTP endpoints are; an address below one of these names is Microsoft's.
MICROSOFT_DOMAINS = (
    "office365.com",
    "office365.us",
    "outlook.com",
    "outlook.cn",
    "mx.microsoft",
    "azurecomm.net",
)
#: Where the tenants' MX endpoints are. New domains get a name below mx.microsoft, which tells nothing
#: about the domain: an MX host is read from the DNS, never built.
MX_DOMAINS = (
    "mail.protection.outlook.com",
    "mail.protection.office365.us",
    "mail.protection.partner.outlook.cn",
    "mx.microsoft",
)


def is_below(host: str, domains: tuple[str, ...]) -> bool:
    """Say whether a host is one of these domains, or lies below one."""
    return any(host == domain or host.endswith(f".{domain}") for domain in domains)


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
    spf_include: str
    high_volume: bool | None  # whether High Volume Email is offered; None: Microsoft does not say
    unverified: frozenset[str] = (
        frozenset()
    )  # names of the facts above that one source has, or several dispute


CLOUDS: Mapping[Cloud, CloudFacts] = {
    Cloud.WORLDWIDE: CloudFacts(
        authority="https://login.microsoftonline.com",
        submission_host="smtp.office365.com",
        submission_scope="https://outlook.office365.com/.default",
        spf_include="spf.protection.outlook.com",
        high_volume=True,
    ),
    Cloud.GCC_HIGH: CloudFacts(
        authority="https://login.microsoftonline.us",
        submission_host="smtp.office365.us",
        submission_scope="https://outlook.office365.us/.default",
        spf_include="spf.protection.office365.us",
        high_volume=None,
        unverified=frozenset({"spf_include"}),
    ),
    Cloud.DOD: CloudFacts(
        authority="https://login.microsoftonline.us",
        submission_host="outlook-dod.office365.us",
        submission_scope="https://outlook-dod.office365.us/.default",
        spf_include="spf.protection.office365.us",
        high_volume=None,
        unverified=frozenset({"submission_host", "submission_scope", "spf_include"}),
    ),
    Cloud.CHINA: CloudFacts(
        authority="https://login.partner.microsoftonline.cn",
        submission_host="smtp.partner.outlook.cn",
        submission_scope="https://partner.outlook.cn/.default",
        spf_include="spf.protection.partner.outlook.cn",
        high_volume=False,
        unverified=frozenset({"submission_host", "submission_scope"}),
    ),
}

#: One source has it; Microsoft's page names the permission (Mail.Send) only.
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
    limits: Limits  # unless set
    caps: Limits = field(
        default_factory=Limits
    )  # what Microsoft allows at most, where an administrator may raise it
    sources: Mapping[str, str]  # who says so, for each of `limits` that has a number
    microsoft: bool = True  # the host is Microsoft's: a name, never an address (the guide)
    mx: bool = False  # the host is the tenant's MX: one transaction per recipient domain
    bulk: bool = True  # takes messages of the stream "bulk"
    null_sender: bool = False  # takes the null reverse-path of notifications
    ipv4_only: bool = (
        False  # connectors know IPv4 only, and the MX greets IPv6 with harder rules (550 5.7.25)
    )


_REQUIRED = frozenset({TlsMode.REQUIRED})
_WHEN_OFFERED = frozenset({TlsMode.REQUIRED, TlsMode.OPPORTUNISTIC})

_MAILBOX_PAGE = "Microsoft 365: Exchange Online limits"
_OUR_CONNECTIONS = "Postroom: a usual number, because the other side publishes none"

_MX_LIMITS = Limits(connections=10, recipients_per_message=100, message_bytes=150 * MEGABYTE)
_MX_CAPS = Limits(recipients_per_message=200, message_bytes=150 * MEGABYTE)
_MX_SOURCES = {
    "connections": _OUR_CONNECTIONS,
    "recipients_per_message": "Postroom: half of the 200 recipients of one domain above which Microsoft 365 answers 452 4.5.3",
    "message_bytes": f"{_MAILBOX_PAGE}, message size",
}

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
    caps=_MX_CAPS,
    sources=_MX_SOURCES,
    mx=True,
    null_sender=True,  # only a certificate says whose it is, where no address does
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
    caps=_MX_CAPS,
    sources=_MX_SOURCES,
    mx=True,
    ipv4_only=True,
)

_HIGH_VOLUME_PAGE = "Microsoft 365: Manage high volume emails"
_ACS_PAGE = "Microsoft 365: Service limits for Azure Communication Services, email"

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
        caps=Limits(
            messages_per_minute=30,
            recipients_per_day=10_000,
            connections=3,
            recipients_per_message=1000,
            message_bytes=150 * MEGABYTE,
        ),
        sources={
            "messages_per_minute": f"{_MAILBOX_PAGE}, message rate of a mailbox",
            "recipients_per_day": f"{_MAILBOX_PAGE}, recipient rate of a mailbox",
            "connections": f"{_MAILBOX_PAGE}, concurrent connections of SMTP client submission",
            "recipients_per_message": f"{_MAILBOX_PAGE}, RecipientLimits of a mailbox unless an administrator set it",
            "message_bytes": f"{_MAILBOX_PAGE}, MaxSendSize of a mailbox unless an administrator set it",
        },
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
        caps=_MX_CAPS,
        sources=_MX_SOURCES,
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
        sources={
            "connections": _OUR_CONNECTIONS,
            "recipients_per_message": "Postroom: what every mail server has to take (RFC 5321 §4.5.3.1.8)",
        },
        microsoft=False,
        null_sender=True,
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
        caps=Limits(recipients_per_message=50, message_bytes=10 * MEGABYTE),
        sources={
            "connections": _OUR_CONNECTIONS,
            "recipients_per_message": _HIGH_VOLUME_PAGE,
            "message_bytes": _HIGH_VOLUME_PAGE,
        },
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
        sources={
            "messages_per_minute": f"{_ACS_PAGE}; raised on request",
            "messages_per_hour": f"{_ACS_PAGE}; raised on request",
            "connections": _OUR_CONNECTIONS,
            "recipients_per_message": _ACS_PAGE,
            "message_bytes": _ACS_PAGE,
        },
    ),
}

#: The domains that Azure gives itself. Their mail has a lower limit, which nobody raises.
ACS_MANAGED_DOMAIN = "azurecomm.net"
ACS_MANAGED_LIMITS = Limits(
    messages_per_minute=5,
    messages_per_hour=10,
    connections=10,
    recipients_per_message=50,
    message_bytes=10 * MEGABYTE,
)

CONFIGURATION = "configuration"  # the source of a limit that the configuration sets


def kind_of(route: Route) -> Kind:
    """Find the rules for a route; the two ways of relay have their own."""
    return RELAY_BY_IP if route.relay_by == "ip" else KINDS[route.kind]


def sources_of(limits: Limits, *, given: frozenset[str], kind: Kind) -> dict[str, str]:
    """Say of each limit that holds where it comes from; `given` names those of the configuration."""
    return {
        name: CONFIGURATION if name in given else kind.sources.get(name, "Postroom")
        for name, limit in asdict(limits).items()
        if limit is not None or name in given
    }


def tenant_external_recipients(licences: int, *, trial: bool = False) -> int:
    """Give the external recipients that a tenant may have in 24 hours (TERRL).

    500 × licences^0.7 + 9,500, counted for each message and recipient. A trial has 5,000
    ("Introducing Exchange Online Tenant Outbound Email Limits"); one source says that it is 500
    since September 2026, and less for young tenants, which is unverified.
    """
    return 5000 if trial else round(500 * licences**0.7 + 9500)
