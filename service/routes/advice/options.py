"""The ways out that a recommendation can name.

They are finer than the kinds of routes: client submission is one thing with OAuth and another
with a password, and relay is two. Graph and a specialised provider are not routes of this
version; they are named where they are the better way, and the answer says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from service.routes.route import RouteKind


class Option(StrEnum):
    """One way out."""

    CLIENT_SUBMISSION_OAUTH = "client_submission_oauth"
    CLIENT_SUBMISSION_BASIC = "client_submission_basic"
    DIRECT_SEND = "direct_send"
    SMTP_RELAY_CERTIFICATE = "smtp_relay_certificate"
    SMTP_RELAY_IP = "smtp_relay_ip"
    HIGH_VOLUME_EMAIL = "high_volume_email"
    AZURE_COMMUNICATION_SERVICES = "azure_communication_services"
    GRAPH = "graph"
    OWN_MAIL_SERVER = "own_mail_server"
    SPECIALISED_PROVIDER = "specialised_provider"


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """What an option is called, and which kind of route it is here."""

    title: str
    kind: RouteKind | None  # None: not a route of this version


NAMES: Mapping[Option, Named] = {
    Option.CLIENT_SUBMISSION_OAUTH: Named(
        title="SMTP AUTH client submission with OAuth", kind=RouteKind.CLIENT_SUBMISSION
    ),
    Option.CLIENT_SUBMISSION_BASIC: Named(
        title="SMTP AUTH client submission with a password", kind=RouteKind.CLIENT_SUBMISSION
    ),
    Option.DIRECT_SEND: Named(title="Direct send", kind=RouteKind.DIRECT_SEND),
    Option.SMTP_RELAY_CERTIFICATE: Named(
        title="SMTP relay through a connector, by certificate", kind=RouteKind.SMTP_RELAY
    ),
    Option.SMTP_RELAY_IP: Named(
        title="SMTP relay through a connector, by IP address", kind=RouteKind.SMTP_RELAY
    ),
    Option.HIGH_VOLUME_EMAIL: Named(title="High Volume Email", kind=RouteKind.HIGH_VOLUME_EMAIL),
    Option.AZURE_COMMUNICATION_SERVICES: Named(
        title="Azure Communication Services Email", kind=RouteKind.AZURE_COMMUNICATION_SERVICES
    ),
    Option.GRAPH: Named(title="Microsoft Graph sendMail", kind=None),
    Option.OWN_MAIL_SERVER: Named(
        title="The organisation's own mail server, as smarthost", kind=RouteKind.SMARTHOST
    ),
    Option.SPECIALISED_PROVIDER: Named(
        title="A provider that specialises in bulk mail, as smarthost", kind=RouteKind.SMARTHOST
    ),
}

#: The options whose feasibility can be judged by conditions, in the order in which they are shown.
JUDGED: tuple[Option, ...] = (
    Option.CLIENT_SUBMISSION_OAUTH,
    Option.CLIENT_SUBMISSION_BASIC,
    Option.DIRECT_SEND,
    Option.SMTP_RELAY_CERTIFICATE,
    Option.SMTP_RELAY_IP,
    Option.HIGH_VOLUME_EMAIL,
    Option.AZURE_COMMUNICATION_SERVICES,
    Option.GRAPH,
)
