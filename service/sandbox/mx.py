"""The rules of the tenant's MX: Direct Send, and relay through an inbound connector.

Nobody logs in here. Who a client is follows from its certificate or its address (trust.py), and only
that opens the way out of the tenant. At RCPT, in this order:

1. an address on Microsoft's block list is refused; a tenant without a subscription takes nothing;
2. an address that no connector knows is throttled while it is new, or when it sends too much;
3. too many recipients, or those of a second tenant, are put off;
4. a connector that is blocked, or that brings mail from unregistered domains, is refused;
5. to the tenant: unknown recipients are refused, and with RejectDirectSend a stranger that uses one of
   the tenant's own domains;
6. to the internet: only through a connector of type OnPremises, and only where the reverse-path's
   domain or the certificate's is one of the tenant's. What stands in From does not matter.

Sources: Microsoft's "How to set up a multifunction device or application", "Set-OrganizationConfig",
"New-InboundConnector", and the Exchange team's notice on relay through connectors of 2023. The order is
ours. That a stranger's transaction belongs to the first recipient's tenant is how Exchange Server does it.
"""

from collections.abc import Iterable
from datetime import UTC, datetime

from cryptography import x509

from service.sandbox import replies, trust
from service.sandbox.config import SandboxConnector
from service.sandbox.content import Head
from service.sandbox.door import Bearer, Door, Session, Transaction
from service.sandbox.mailroom import Taken
from service.sandbox.replies import Reply
from service.sandbox.tenant import Tenant


class Mx(Door):
    """The door for everybody."""

    name = "mx"
    zone = "mail.protection.outlook.com"
    inside = "eop-SBXP365.prod.protection.outlook.com"
    counts_external = True

    def __init__(self, tenant: Tenant, *, trusted: Iterable[x509.Certificate]) -> None:
        """`trusted` are the authorities that stand for client certificates."""
        super().__init__(tenant)
        self._trusted = tuple(trusted)

    def address_of(self, client: str) -> str:
        """Return the address that the switches give to every client."""
        return self._tenant.switches.seen_as or client

    def secured(self, session: Session) -> None:
        """Judge the certificate that the client showed, and write the verdict into the sign-in log."""
        if not session.shown:
            return
        reason = None
        try:
            session.certificate = trust.judge(session.shown, trusted=self._trusted, now=datetime.now(UTC))
        except trust.Untrusted as exc:
            reason = exc.reason
        self._tenant.logins.note(
            mailbox=session.certificate.subject if session.certificate else None,
            method="certificate",
            succeeded=reason is None,
            reason=reason,
        )

    # Envelope

    def refuse_sender(self, session: Session, reverse_path: str) -> Reply | None:
        """Demand TLS where it is demanded; nobody has to log in."""
        connector = self._connector(session)
        demanded = self._tenant.switches.mx_requires_tls or (connector is not None and connector.require_tls)
        if demanded and not session.tls:
            return replies.STARTTLS_REQUIRED
        return replies.WRONG_REGION if self._tenant.switches.wrong_region else None

    def refuse_recipient(
        self, session: Session, transaction: Transaction, *, recipient: str | None
    ) -> Reply | None:
        """Decide on RCPT, in the order that stands above."""
        if recipient is None:
            return replies.BAD_RECIPIENT
        connector = self._connector(session)
        return (
            self._refuse_client(session, connector)
            or self._refuse_another(transaction, recipient, connector)
            or self._refuse_connector(transaction, connector)
            or (
                self._refuse_inside(transaction, recipient, connector)
                if self._tenant.owns(recipient)
                else self._refuse_outside(session, transaction, connector)
            )
        )

    def _refuse_client(self, session: Session, connector: SandboxConnector | None) -> Reply | None:
        switches = self._tenant.switches
        if trust.is_banned(session.client, banned=switches.banned_ips):
            return replies.BANNED_IP
        if not switches.subscription:
            return replies.NO_SUBSCRIPTION
        if connector is not None:
            return None
        if switches.ip_reputation == "new":
            return replies.SERVER_BUSY
        refused = self._tenant.stranger(session.client).refused(self._tenant.now())
        return replies.OVER_VOLUME if refused else None

    def _refuse_another(
        self, transaction: Transaction, recipient: str, connector: SandboxConnector | None
    ) -> Reply | None:
        """Refuse one recipient more where the transaction may not have it."""
        switches, domain = self._tenant.switches, _domain(recipient)
        domains = [_domain(one) for one in transaction.recipients]
        if domains.count(domain) >= switches.mx_recipients:
            return replies.TOO_MANY_RECIPIENTS
        if not domains or domain in domains:
            return None
        if switches.one_domain:
            return replies.TOO_MANY_RECIPIENTS
        same_tenant = self._tenant.accepts_domain(domain) and self._tenant.accepts_domain(domains[0])
        return None if connector is not None or same_tenant else replies.TOO_MANY_RECIPIENTS

    def _refuse_connector(self, transaction: Transaction, connector: SandboxConnector | None) -> Reply | None:
        switches = self._tenant.switches
        if connector is None:
            return None
        if connector.name in switches.blocked_connectors:
            return replies.BAD_CONNECTOR
        foreign = transaction.reverse_path and not self._tenant.owns(transaction.reverse_path)
        return replies.UNREGISTERED_DOMAIN if foreign and switches.unregistered_domains == "refused" else None

    def _refuse_inside(
        self, transaction: Transaction, recipient: str, connector: SandboxConnector | None
    ) -> Reply | None:
        direct_send = connector is None and self._tenant.owns(transaction.reverse_path)
        if direct_send and self._tenant.switches.reject_direct_send:
            return replies.DIRECT_SEND_REJECTED
        return None if self._tenant.knows(recipient) else replies.ACCESS_DENIED

    def _refuse_outside(
        self, session: Session, transaction: Transaction, connector: SandboxConnector | None
    ) -> Reply | None:
        if connector is None or connector.kind != "OnPremises":
            return replies.RELAY_DENIED
        if not transaction.reverse_path:
            return None if connector.certificate is not None else replies.RELAY_DENIED
        names = session.certificate.names if session.certificate is not None else ()
        ours = self._tenant.owns(transaction.reverse_path) or any(map(self._is_ours, names))
        return None if ours else replies.RELAY_DENIED

    # Content

    def take(self, session: Session, transaction: Transaction, *, head: Head, octets: bytes) -> Taken:
        """Count what a stranger's address sends, and keep the message."""
        if self._connector(session) is None:
            self._tenant.stranger(session.client).count(
                now=self._tenant.now(),
                limit=self._tenant.switches.unknown_ip_per_hour,
                refused_for=self._tenant.switches.ip_block_seconds,
            )
        return super().take(session, transaction, head=head, octets=octets)

    def accepted(self, session: Session, taken: Taken) -> Reply:
        """Return the yes of the MX, which tells size and speed."""
        return replies.QUEUED

    def bearer(self, session: Session) -> Bearer:
        """Return the connector, and by what it knew the client."""
        connector = self._connector(session)
        if connector is None:
            return Bearer()
        return Bearer(method="certificate" if connector.certificate else "ip", connector=connector.name)

    def _connector(self, session: Session) -> SandboxConnector | None:
        return trust.matching(
            self._tenant.connectors, certificate=session.certificate, address=session.client
        )

    def _is_ours(self, name: str) -> bool:
        """Whether a certificate's name is an accepted domain or lies below one."""
        labels = name.removeprefix("*.").split(".")
        return any(self._tenant.accepts_domain(".".join(labels[start:])) for start in range(len(labels)))


def _domain(address: str) -> str:
    return address.rpartition("@")[2].lower()
