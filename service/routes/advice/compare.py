"""The guide's comparison of the ways to send, extended by the younger ones, for one organisation.

The rows are the features that the guide compares, and those that decide as often: who may
send, limits, cost. The columns are the ways, each with what is configured here and whether the
organisation could use it. A cell is a value, a note, and how well it is known; the words are
ours, the facts those of the sources that stand with each row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address
from typing import Final

from service.routes.advice.needs import Hosting, Organization
from service.routes.kinds import CLOUDS, KINDS, RELAY_BY_CERTIFICATE, Kind
from service.routes.route import Route, RouteKind


class Way(StrEnum):
    """One column."""

    CLIENT_SUBMISSION = "client_submission"
    DIRECT_SEND = "direct_send"
    SMTP_RELAY_CERTIFICATE = "smtp_relay_certificate"
    SMTP_RELAY_IP = "smtp_relay_ip"
    SMARTHOST = "smarthost"
    HIGH_VOLUME_EMAIL = "high_volume_email"
    AZURE_COMMUNICATION_SERVICES = "azure_communication_services"
    GRAPH = "graph"


class Mark(StrEnum):
    """How well something is known."""

    VERIFIED = "verified"
    ONE_SOURCE = "one source"
    INFERRED = "inferred"
    UNVERIFIED = "unverified"


class Possible(StrEnum):
    """Whether the organisation could use a way."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One way, and how it stands with it here."""

    way: Way
    title: str
    kind: RouteKind | None  # None: not a route of this version
    configured: tuple[str, ...]  # names of routes
    possible: Possible
    because: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What one way has to say about one feature."""

    value: str
    note: str | None = None
    mark: Mark = Mark.VERIFIED


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One feature over all ways."""

    feature: str
    title: str
    cells: Mapping[Way, Cell]
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The table."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


GUIDE: Final = (
    "Microsoft: How to set up a multifunction device or application to send email using Microsoft 365"
)
LIMITS: Final = "Microsoft: Exchange Online limits"
YOUNGER: Final = (
    "Microsoft: Manage high volume emails for Microsoft 365; Azure Communication Services: service limits; "
    "Microsoft Graph: user: sendMail"
)

TITLES: Mapping[Way, tuple[str, RouteKind | None]] = {
    Way.CLIENT_SUBMISSION: ("SMTP AUTH client submission", RouteKind.CLIENT_SUBMISSION),
    Way.DIRECT_SEND: ("Direct send", RouteKind.DIRECT_SEND),
    Way.SMTP_RELAY_CERTIFICATE: ("SMTP relay, by certificate", RouteKind.SMTP_RELAY),
    Way.SMTP_RELAY_IP: ("SMTP relay, by IP address", RouteKind.SMTP_RELAY),
    Way.SMARTHOST: ("The organisation's own mail server", RouteKind.SMARTHOST),
    Way.HIGH_VOLUME_EMAIL: ("High Volume Email", RouteKind.HIGH_VOLUME_EMAIL),
    Way.AZURE_COMMUNICATION_SERVICES: (
        "Azure Communication Services Email",
        RouteKind.AZURE_COMMUNICATION_SERVICES,
    ),
    Way.GRAPH: ("Microsoft Graph sendMail", None),
}


def compare(organization: Organization, routes: Sequence[Route]) -> Comparison:
    """Write the comparison for this organisation and its configured routes."""
    return Comparison(
        columns=tuple(_column(way, organization, routes) for way in Way), rows=_rows(organization)
    )


def way_of(route: Route) -> Way:
    """Find the column of a route; the two ways of relay have their own."""
    if route.kind is RouteKind.SMTP_RELAY:
        return Way.SMTP_RELAY_IP if route.relay_by == "ip" else Way.SMTP_RELAY_CERTIFICATE
    return Way(route.kind.value)


def _column(way: Way, organization: Organization, routes: Sequence[Route]) -> Column:
    title, kind = TITLES[way]
    mine = tuple(route.name for route in routes if way_of(route) is way)
    possible, because = _possible(way, organization)
    return Column(way=way, title=title, kind=kind, configured=mine, possible=possible, because=(because,))


def _possible(way: Way, organization: Organization) -> tuple[Possible, str]:
    """Say whether the organisation could use a way, as far as the configuration tells."""
    public = [ip for ip in organization.public_ips if isinstance(ip, IPv4Address)]
    match way:
        case Way.GRAPH:
            return Possible.NO, "It is not a route of this version of Postroom."
        case Way.DIRECT_SEND | Way.SMTP_RELAY_CERTIFICATE if not organization.accepted_domains:
            return Possible.UNKNOWN, "organization.accepted_domains is not set."
        case Way.DIRECT_SEND:
            return (
                Possible.YES,
                "Needs port 25, and RejectDirectSend off in the tenant, which only a try shows.",
            )
        case Way.SMTP_RELAY_CERTIFICATE:
            return (
                Possible.YES,
                "Needs port 25, a connector, and a certificate that covers an accepted domain.",
            )
        case Way.SMTP_RELAY_IP if organization.hosting not in {None, Hosting.OWN_STATIC_IP}:
            return (
                Possible.NO,
                f"organization.egress.hosting is {organization.hosting}: no address of your own.",
            )
        case Way.SMTP_RELAY_IP if not public:
            return Possible.UNKNOWN, "organization.egress.static_ips names no public IPv4 address."
        case Way.SMTP_RELAY_IP:
            return Possible.YES, f"Needs port 25 and a connector for {', '.join(map(str, public))}."
        case Way.HIGH_VOLUME_EMAIL if CLOUDS[organization.cloud].high_volume is False:
            return Possible.NO, "It is not offered in this cloud (from one source)."
        case Way.HIGH_VOLUME_EMAIL:
            return Possible.UNKNOWN, "Needs port 587 and a valid billing policy."
        case Way.AZURE_COMMUNICATION_SERVICES:
            return Possible.UNKNOWN, "Needs port 587 or 25 and an Azure subscription with a verified domain."
        case Way.SMARTHOST:
            return Possible.UNKNOWN, "Needs a mail server of your own that takes this host's mail."
        case Way.CLIENT_SUBMISSION:
            return Possible.YES, "Needs port 587 or 25, a licensed mailbox, and SMTP AUTH on for it."


def _row(feature: str, title: str, source: str, *cells: Cell | str) -> Row:
    """Make a row; the cells stand in the order of `Way`, a text alone is a verified value."""
    complete = [Cell(value=cell) if isinstance(cell, str) else cell for cell in cells]
    return Row(feature=feature, title=title, source=source, cells=dict(zip(Way, complete, strict=True)))


_ITS_OWN = Cell(value="as your server does", mark=Mark.INFERRED)
_NOT_BYPASSED = Cell(
    value="no", note="Suspicious mail may be filtered; put your address into the SPF record."
)
_ENTERPRISE: Final = "Microsoft: Exchange Online limits (tenant external recipient rate limit)"


def _rows(organization: Organization) -> tuple[Row, ...]:
    submission = CLOUDS[organization.cloud].submission_host
    doubtful = "submission_host" in CLOUDS[organization.cloud].unverified
    return (
        _row(
            "own_recipients",
            "Sends to recipients of the organisation",
            GUIDE,
            *("yes",) * 8,
        ),
        _row(
            "external_recipients",
            "Sends to the internet through Microsoft 365",
            GUIDE,
            "yes",
            Cell(value="no", note="Only to the organisation's own mailboxes."),
            "yes",
            "yes",
            _ITS_OWN,
            Cell(value="no", note="Recipients of the organisation only."),
            Cell(value="yes", note="Through Azure, not through Exchange Online."),
            "yes",
        ),
        _row(
            "bypasses_spam_filter",
            "Passes the spam filter by",
            GUIDE,
            Cell(value="mostly", note="For mailboxes of the organisation."),
            _NOT_BYPASSED,
            _NOT_BYPASSED,
            _NOT_BYPASSED,
            _ITS_OWN,
            Cell(value="mostly", note="For mailboxes of the organisation."),
            Cell(value="no", mark=Mark.INFERRED),
            Cell(value="mostly", note="As other mail of the mailbox.", mark=Mark.INFERRED),
        ),
        _row(
            "third_party_hosting",
            "Works from a third party's cloud",
            GUIDE,
            "yes",
            Cell(value="yes", note="Let the SPF record name the cloud's address."),
            Cell(
                value="yes",
                note="The guide says no for relay as a whole; by certificate the source address does not matter.",
                mark=Mark.INFERRED,
            ),
            "no",
            _ITS_OWN,
            "yes",
            "yes",
            "yes",
        ),
        _row(
            "sent_items",
            "Leaves a copy in Sent Items",
            GUIDE,
            Cell(
                value="yes",
                note="It fills the mailbox; MessageCopyForSMTPClientSubmissionEnabled switches it off.",
            ),
            *("no",) * 6,
            Cell(value="yes", note="Unless saveToSentItems says otherwise."),
        ),
        _row(
            "host",
            "Host",
            GUIDE,
            Cell(value=submission, mark=Mark.ONE_SOURCE if doubtful else Mark.VERIFIED),
            *(
                Cell(
                    value="the tenant's MX",
                    note="Read it from DNS; it is not always below mail.protection.outlook.com.",
                ),
            )
            * 3,
            "your server",
            KINDS[RouteKind.HIGH_VOLUME_EMAIL].host or "",
            KINDS[RouteKind.AZURE_COMMUNICATION_SERVICES].host or "",
            "graph.microsoft.com",
        ),
        _row(
            "port",
            "Port to open",
            GUIDE,
            Cell(value="587 or 25", note="587 is recommended; 465 is not offered."),
            "25",
            "25",
            "25",
            "as configured",
            "587",
            Cell(value="587 or 25", note="587 is recommended."),
            "443",
        ),
        _row(
            "tls",
            "TLS",
            GUIDE,
            "required, 1.2 or newer",
            "optional",
            "required, 1.2 or newer",
            Cell(value="optional", note="The guide says enabled in one place and optional in another."),
            "as configured",
            "required, 1.2 or newer",
            "required, 1.2 or newer",
            "HTTPS",
        ),
        _row(
            "authentication",
            "Proves itself by",
            GUIDE,
            Cell(
                value="OAuth, or user name and password",
                note="Passwords are off by default from the end of December 2026 (the day is unverified).",
            ),
            "nothing",
            Cell(
                value="client certificate",
                note="From a public authority, with its chain; an accepted domain in CN or SAN.",
            ),
            Cell(value="static IPv4 address", note="Public, and no other organisation's."),
            "as configured",
            Cell(
                value="OAuth, or the account's password", note="It does not depend on the SMTP AUTH switch."
            ),
            "an Entra application's secret",
            "OAuth",
        ),
        _row(
            "sender",
            "Sender",
            GUIDE,
            Cell(value="the mailbox", note="Or an address that it has Send As for."),
            Cell(value="any address of an accepted domain", note="It needs no mailbox."),
            Cell(
                value="any address",
                note="The domain of the envelope sender or of the certificate has to be accepted.",
            ),
            Cell(value="any address of an accepted domain", note="It needs no mailbox."),
            "as your server allows",
            Cell(value="the account itself", note="In the envelope and in From.", mark=Mark.ONE_SOURCE),
            "a verified domain",
            Cell(value="the mailbox", note="Or an address that it has Send As for."),
        ),
        _row(
            "licence",
            "Needs a licensed mailbox",
            GUIDE,
            "yes",
            "no",
            "no",
            "no",
            "no",
            Cell(value="no", note="Billed by recipient."),
            Cell(value="no", note="Billed by message, in Azure.", mark=Mark.INFERRED),
            "yes",
        ),
        _row(
            "rate",
            "Rate limit",
            LIMITS,
            Cell(
                value=_rates(KINDS[RouteKind.CLIENT_SUBMISSION]),
                note="For each mailbox, and 3 connections. The answer to the 31st message is unverified.",
            ),
            *(
                Cell(
                    value="not published",
                    note="Higher than a mailbox's; throttled by reputation.",
                    mark=Mark.UNVERIFIED,
                ),
            )
            * 3,
            Cell(value="your server's", mark=Mark.INFERRED),
            Cell(value="none", note="How many connections it takes is unverified."),
            Cell(
                value=_rates(KINDS[RouteKind.AZURE_COMMUNICATION_SERVICES]),
                note="For a custom domain; raised on request.",
            ),
            Cell(value=_rates(KINDS[RouteKind.CLIENT_SUBMISSION]), note="The mailbox's.", mark=Mark.INFERRED),
        ),
        _row(
            "recipients_per_message",
            "Recipients of one message",
            LIMITS,
            Cell(value="500", note="1 to 1,000 by RecipientLimits of the mailbox."),
            *(
                Cell(
                    value="200 of a domain",
                    note=f"Postroom sends {RELAY_BY_CERTIFICATE.limits.recipients_per_message} at a time, by domain.",
                ),
            )
            * 3,
            "your server's",
            "50",
            "50",
            Cell(value="500", note="1 to 1,000 by RecipientLimits of the mailbox.", mark=Mark.INFERRED),
        ),
        _row(
            "message_size",
            "Size of a message",
            LIMITS,
            Cell(value="35 MB", note="Up to 150 MB by MaxSendSize; base64 makes a file a third larger."),
            "150 MB",
            "150 MB",
            "150 MB",
            "your server's",
            "10 MB",
            "10 MB",
            Cell(value="35 MB", note="Above 3 MB by an upload session; up to 150 MB."),
        ),
        _row(
            "external_budget",
            "Uses the tenant's external-recipient budget",
            _ENTERPRISE,
            "yes",
            Cell(value="no", note="It has no external recipients."),
            "yes",
            "yes",
            Cell(value="when it relays through Microsoft 365", mark=Mark.INFERRED),
            "no",
            "no",
            "yes",
        ),
        _row(
            "bulk",
            "Fit for bulk mail",
            GUIDE,
            "no",
            Cell(value="to own recipients", note="With the risk of being taken for spam."),
            "no",
            "no",
            _ITS_OWN,
            "to own recipients",
            "yes",
            Cell(value="no", mark=Mark.INFERRED),
        ),
        _row(
            "switch",
            "What in the tenant can stop it",
            f"{GUIDE}; {YOUNGER}",
            Cell(
                value="SMTP AUTH switch of organisation or mailbox",
                note="It refuses OAuth too. Passwords also by security defaults and authentication policies.",
            ),
            "RejectDirectSend",
            "the connector, or the certificate's name",
            "the connector, or a changed address",
            "your server",
            "billing policy, list of allowed applications",
            "the application's secret or role",
            "consent, or the scope of the role",
        ),
    )


def _rates(kind: Kind) -> str:
    limits = kind.limits
    parts = (
        (limits.messages_per_minute, "messages a minute"),
        (limits.messages_per_hour, "messages an hour"),
        (limits.recipients_per_day, "recipients a day"),
    )
    return ", ".join(f"{limit:,} {unit}" for limit, unit in parts if limit is not None)
