"""A route: one configured way out, and the lanes in which its traffic is counted.

A route is a kind, a peer to talk to, a login and limits. A lane is the traffic that one
limit of the other side counts together: a mailbox of a route where the peer counts by
mailbox (client submission, High Volume Email), otherwise the whole route. Everything that
is paced, paused or leased is so by lane, and the lane's name is what the ledger keeps: it
stays the same for as long as the route's name and the mailbox's address do.

Values only: nothing here reads a file, opens a socket or asks for a token. What is true for
every route of a kind stands in `kinds.py`, which route a message takes in `choice.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

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


@dataclass(frozen=True, slots=True, kw_only=True)
class BasicLogin:
    """A user name and a password (AUTH LOGIN)."""

    username: str
    password: str = field(repr=False)


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
    mx_of: str | None = None  # the peer's host is still to be read from the MX record of this domain

    def lanes(self) -> tuple["Lane", ...]:
        """Give each mailbox its lane, or the whole route one."""
        if not self.accounts:
            return (Lane(name=self.name, route=self, account=None, limits=self.limits),)
        return tuple(self._lane_of(account) for account in self.accounts)

    def lane_for(self, sender: Address) -> "Lane | None":
        """Find the lane that may send with this reverse-path: the sender's own mailbox before a Send As."""
        if not self.accounts:
            permitted = self.sender_domains is None or sender.domain in self.sender_domains
            return self.lanes()[0] if permitted else None
        account = next(self._accounts_for(sender), None)
        return None if account is None else self._lane_of(account)

    def takes(self, recipient: Address) -> bool:
        """Say whether this way leads to the recipient's domain."""
        return self.recipient_domains is None or recipient.domain in self.recipient_domains

    def _accounts_for(self, sender: Address) -> Iterator[Account]:
        own = (account for account in self.accounts if account.address.key == sender.key)
        yield from own
        yield from (account for account in self.accounts if account.may_send_as(sender))

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
