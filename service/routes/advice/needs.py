"""What an application needs, and what is known of the organisation that it belongs to."""

from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_network

from service.mail.address import Address
from service.routes.kinds import KINDS, Cloud, tenant_external_recipients
from service.routes.route import RouteKind

IpAddress = IPv4Address | IPv6Address

#: What a mailbox may send (the guide); above it, client submission and Graph are out.
MAILBOX_A_DAY = KINDS[RouteKind.CLIENT_SUBMISSION].limits.recipients_per_day or 0
MAILBOX_A_MINUTE = KINDS[RouteKind.CLIENT_SUBMISSION].limits.messages_per_minute or 0

#: External recipients a day of a tenant's own onmicrosoft.com addresses ("550 5.7.236").
ONMICROSOFT_A_DAY = 100

# Set aside by RFC 5737: they stand for a public address wherever someone tries things out.
_DOCUMENTATION = tuple(map(ip_network, ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")))


class Recipients(StrEnum):
    """Whose mailboxes the recipients are."""

    INTERNAL = "internal"
    EXTERNAL = "external"
    MIXED = "mixed"


class Senders(StrEnum):
    """Whose address stands in From."""

    ONE_MAILBOX = "one_mailbox"  # a mailbox of the tenant, and addresses that it has Send As for
    MANY = "many"  # the addresses of many users
    NO_MAILBOX = "no_mailbox"  # an address of an accepted domain that has no mailbox


class Hosting(StrEnum):
    """Where the application's connections come from."""

    OWN_STATIC_IP = "own_static_ip"
    OWN_DYNAMIC_IP = "own_dynamic_ip"
    THIRD_PARTY_CLOUD = "third_party_cloud"


@dataclass(frozen=True, slots=True, kw_only=True)
class Organization:
    """The Microsoft 365 tenant, as far as advice depends on it."""

    accepted_domains: tuple[str, ...] = ()
    external_budget: int | None = None  # external recipients in 24 hours (TERRL); None: not known
    static_ips: tuple[IpAddress, ...] = ()
    hosting: Hosting | None = None
    cloud: Cloud = Cloud.WORLDWIDE
    tenant_id: str | None = None

    @property
    def public_ips(self) -> tuple[IpAddress, ...]:
        """The addresses that may stand in an SPF record: public ones only."""
        return tuple(ip for ip in self.static_ips if is_public(ip))

    @property
    def least_budget(self) -> int:
        """External recipients that the tenant may have in 24 hours; the least there is where nobody knows."""
        return tenant_external_recipients(1) if self.external_budget is None else self.external_budget


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What is to be sent, from where, and what the tenant allows."""

    recipients: Recipients
    per_day: int  # recipients
    per_minute: int  # messages
    external_per_day: int  # recipients outside the organisation; 0 where all are internal
    external_share: int  # … of the tenant's daily budget, that this application may use
    bulk: bool  # newsletters, marketing
    senders: Senders
    sender: Address | None = field(default=None)  # the From address, where it is known
    hosting: Hosting
    ip_shared: bool  # the public address is used by other organisations too
    ipv6_only: bool  # no way out over IPv4
    port25_out: bool
    port587_out: bool
    https_out: bool
    port: int | None  # a port that the application insists on
    tls12: bool  # can do TLS 1.2 or newer
    oauth: bool  # can log in with OAuth
    client_cert: bool  # from a public authority, an accepted domain in its CN or SAN
    smtp_auth_allowed: bool  # for the mailbox, or can be
    security_defaults: bool  # of Entra ID are on
    basic_reenabled: bool  # an administrator has allowed passwords again after December 2026
    licence: bool  # the mailbox has one
    reject_direct_send: bool  # the tenant's switch
    sent_items_needed: bool
    max_message_mb: int
    own_mail_server: bool  # there is one, and it can be reached
    azure_subscription: bool
    hve_billing: bool  # a valid billing policy for High Volume Email
    cloud: Cloud

    @property
    def external(self) -> bool:
        """Whether somebody outside the organisation gets mail."""
        return self.recipients is not Recipients.INTERNAL

    @property
    def high_volume(self) -> bool:
        """Whether one mailbox may not send as much."""
        return self.per_day > MAILBOX_A_DAY or self.per_minute > MAILBOX_A_MINUTE


def is_public(ip: IpAddress) -> bool:
    """Say whether an address can be seen from the internet, as an SPF record and a connector need it."""
    return ip.is_global or any(ip in network for network in _DOCUMENTATION)
