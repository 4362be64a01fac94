"""A route: one configured way out, and the lanes in which its traffic is counted.

A route is a kind, a peer to talk to, a login and limits. A lane is the traffic that one
limit of the other side counts together: a mailbox of a route where the peer counts by
mailbox (client submission, High Volume Email), otherwise the whole route. Everything that
is paced, paused or leased is so by lane, and the lane's name is what the ledger keeps: it
stays the same for as long as the route's name and the mailbox's address do.

Values only: nothing here reads a file, opens a socket or asks for a token. What is true for
every route of a kind stands in `kinds.py`, which route a message takes in `choice.py`.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Literal

from service.mail.address import Address
from service.smtp.session import Peer


class RouteKind(StrEnum):
    """The ways out that Microsoft's article on devices and applications describes, and two younger ones."""

    CLIENT_SUBMISSION = "client_submission"
    DIRECT_SEND = "direct_send"
    SMTP_RELAY = "smtp_relay"
    SMARTHOST = "smarthost"
    HIGH_VOLUME_EMAIL = "high_volume_email"
    AZURE_COMMUNICATION_SERVICES = "azure_communication_services"


#: The kinds whose mail to outsiders counts towards the tenant's external recipients ("Tenant outbound
#: email limits"): what Exchange Online sends out for the tenant. What stays inside does not, and High
#: Volume Email, Azure Communication Services and an own mail server are counted elsewhere or not at all.
COUNT_EXTERNAL = frozenset({RouteKind.CLIENT_SUBMISSION, RouteKind.SMTP_RELAY})

#: What a lane proves to its peer, and by what: None where the peer asks for nothing.
Proof = Literal["oauth", "basic", "certificate", "ip"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one lane may use; None: no limit. Rates hold in every rolling window."""

    messages_per_minute: int | None = None
    messages_per_hour: int | None = None
    recipients_per_day: int | None = None
    connections: int | None = None
    recipients_per_message: int | None = None
    message_bytes: int | None = None
    messages_per_connection: int | None = None

    @property
    def recipients_per_transaction(self) -> int | None:
        """The most recipients that one delivery may have.

        A day's allowance that is smaller than a transaction would never leave room for it.
        """
        caps = [cap for cap in (self.recipients_per_message, self.recipients_per_day) if cap is not None]
        return min(caps, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuthLogin:
    """An application of Entra ID that logs in for the mailbox (client credentials, RFC 6749 §4.4).

    Either a secret, or a certificate with its private key, both PEM files. They are read again
    for each new token, so that a renewed certificate needs no restart.
    """

    client_id: str
    client_secret: str | None = field(default=None, repr=False)
    certificate: Path | None = None
    private_key: Path | None = None
    scope: str | None = None  # of its tokens; None: the cloud's
    client_secret_expires: date | None = None  # as the configuration says: Entra ID does not tell us


@dataclass(frozen=True, slots=True, kw_only=True)
class BasicLogin:
    """A user name and a password (AUTH LOGIN)."""

    username: str
    password: str = field(repr=False)
    client_secret_expires: date | None = None  # where the password is an application's secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A mailbox that a route logs in with, and whom it may send as."""

    address: Address
    login: OAuthLogin | BasicLogin
    send_as: tuple[Address, ...] = ()
    send_as_domains: tuple[str, ...] = ()  # every address of these domains; "*" is everybody

    def may_send_as(self, sender: Address) -> bool:
        """Say whether the mailbox itself, or a Send As permission, covers this reverse-path."""
        named = {self.address.key, *(address.key for address in self.send_as)}
        return sender.key in named or not {"*", sender.domain}.isdisjoint(self.send_as_domains)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One configured way out."""

    name: str
    kind: RouteKind
    peer: Peer
    limits: Limits
    accounts: tuple[Account, ...] = ()  # where the peer counts by mailbox; otherwise empty
    login: BasicLogin | None = None  # of the whole route: smarthost, Azure Communication Services
    sender_domains: tuple[str, ...] | None = None  # None: any sender, or the accounts decide
    recipient_domains: tuple[str, ...] | None = None  # None: anyone
    enabled: bool = True
    relay_by: Literal["certificate", "ip"] | None = None  # how a connector knows us; relay only
    mx_of: str | None = None  # the peer's host is read from the MX record of this domain (mx.py)
    allow_private: bool = False  # the MX host may have a private address: a sandbox
    # Where each limit comes from: "configuration", or "Microsoft 365: …" with the page that says so.
    limit_sources: Mapping[str, str] = field(default_factory=dict, compare=False)
    # Made once: each message asks for them.
    _lanes: tuple["Lane", ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Make the lanes."""
        whole = (Lane(name=self.name, route=self, account=None, limits=self.limits),)
        lanes = tuple(map(self._lane_of, self.accounts)) or whole
        object.__setattr__(self, "_lanes", lanes)  # the class is frozen

    def lanes(self) -> tuple["Lane", ...]:
        """Give each mailbox its lane, or the whole route one."""
        return self._lanes

    @property
    def counts_external(self) -> bool:
        """Whether its external recipients count towards the tenant's budget of these."""
        return self.kind in COUNT_EXTERNAL

    def lane_for(self, *senders: Address, avoid: Collection[str] = ()) -> "Lane | None":
        """Find the lane that may send as all of these: the first one's own mailbox before a Send As.

        `avoid` names lanes that are taken only where no other may send as these.
        """
        permitted = list(self._lanes_for(senders))
        return next((lane for lane in permitted if lane.name not in avoid), next(iter(permitted), None))

    def takes(self, recipient: Address) -> bool:
        """Say whether this way leads to the recipient's domain."""
        return self.recipient_domains is None or recipient.domain in self.recipient_domains

    def _lanes_for(self, senders: Collection[Address]) -> Iterator["Lane"]:
        if not self.accounts:
            domains = self.sender_domains
            if domains is None or all(sender.domain in domains for sender in senders):
                yield from self.lanes()
            return
        first = next(iter(senders), None)
        fitting = [
            (account, lane)
            for account, lane in zip(self.accounts, self._lanes, strict=True)
            if all(map(account.may_send_as, senders))
        ]
        # A stable sort: the mailbox of the sender itself first, the others as they are listed.
        fitting.sort(key=lambda each: first is None or each[0].address.key != first.key)
        yield from (lane for _, lane in fitting)

    def _lane_of(self, account: Account) -> "Lane":
        # The comparison form: a change of capitals in the configuration must not start a lane
        # that has forgotten what was sent today.
        return Lane(
            name=f"{self.name}/{account.address.key}", route=self, account=account, limits=self.limits
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """The traffic of one route that one limit of the other side counts together."""

    name: str
    route: Route
    account: Account | None
    limits: Limits

    @property
    def login(self) -> OAuthLogin | BasicLogin | None:
        """What to log in with; None where the peer asks for no login."""
        return self.route.login if self.account is None else self.account.login

    @property
    def authenticates_by(self) -> Proof | None:
        """Say how the peer knows us; None where it takes us as anybody."""
        match self.login:
            case OAuthLogin():
                return "oauth"
            case BasicLogin():
                return "basic"
            case None if self.route.peer.client_certificate is not None:
                return "certificate"
            case None:
                return "ip" if self.route.relay_by == "ip" else None
