"""The rules of Azure Communication Services' SMTP, smtp.azurecomm.net: mail to anybody, at a small rate.

The user name joins resource, application and tenant with pipes, or is an SMTP Username resource; the
password is a client secret of the application. The sender is a MailFrom address of a verified domain.
30 messages a minute and 100 an hour of a resource are taken, 5 and 10 where the domain is Azure's own;
above that 450 4.5.127. It is no route of Exchange: the tenant's external recipients are not counted.

Sources: Microsoft's "Create credentials for SMTP authentication" and "Service limits for Azure
Communication Services". The EHLO list, and what a wrong sender hears and when, are guesses.
"""

from service.sandbox import replies
from service.sandbox.config import MEGABYTE, SandboxAcsResource
from service.sandbox.content import Head
from service.sandbox.door import Door, Login, Session, Transaction, same
from service.sandbox.limits import AcsMeter
from service.sandbox.mailroom import Taken
from service.sandbox.replies import Reply
from service.sandbox.tenant import Tenant

_MANAGED_PER_MINUTE, _MANAGED_PER_HOUR = 5, 10


class CommunicationServices(Door):
    """The door for resources of Azure Communication Services."""

    name = "acs"
    zone = "azurecomm.net"
    inside = "SBXACS.azurecomm.net"
    takes_logins = True
    size = 10 * MEGABYTE
    most_recipients = 50

    def __init__(self, tenant: Tenant) -> None:
        """Resources are found by their user names."""
        super().__init__(tenant)
        self._resources: dict[str, SandboxAcsResource] = {}
        for resource in tenant.config.acs_resources:
            long = f"{resource.name}|{resource.application}|{tenant.config.tenant_id}"
            self._resources[long.lower()] = resource
            if resource.username is not None:
                self._resources[resource.username.lower()] = resource
        self._secrets = {one.client_id: one.client_secret for one in tenant.config.applications}

    def mechanisms(self, session: Session) -> tuple[str, ...]:
        """Return LOGIN."""
        return ("LOGIN",) if session.tls else ()

    def login_with_password(self, username: str, password: str) -> Login | Reply:
        """Decide on AUTH LOGIN."""
        resource = self._resources.get(username.lower())
        secret = self._secrets.get(resource.application) if resource is not None else None
        reason = None
        if resource is None:
            reason = "no resource has this user name"
        elif secret is None or not same(secret, password):
            reason = "the password is no client secret of the resource's application"
        self._tenant.logins.note(
            mailbox=username[:254], method="login", succeeded=reason is None, reason=reason
        )
        return replies.LOGIN_FAILED if reason is not None else Login(account=username, method="login")

    def refuse_sender(self, session: Session, reverse_path: str) -> Reply | None:
        """Take the MailFrom addresses of the resource."""
        if refusal := super().refuse_sender(session, reverse_path):
            return refusal
        return None if self._is_sender(session, reverse_path) else replies.NOT_THIS_SENDER

    def refuse_message(
        self, session: Session, transaction: Transaction, *, head: Head, size: int
    ) -> Reply | None:
        """Look at From besides what every service looks at."""
        if refusal := super().refuse_message(session, transaction, head=head, size=size):
            return refusal
        own = all(self._is_sender(session, author) for author in head.authors)
        return None if own else replies.NOT_THIS_SENDER

    def refuse_by_limit(self, session: Session, transaction: Transaction) -> Reply | None:
        """Refuse above the rates."""
        resource, switches = self._resource(session), self._tenant.switches
        full = self._meter(session).full(
            self._tenant.now(),
            per_minute=_MANAGED_PER_MINUTE if resource.managed else switches.acs_per_minute,
            per_hour=_MANAGED_PER_HOUR if resource.managed else switches.acs_per_hour,
        )
        return replies.EXCESSIVE_RATE if full else None

    def take(self, session: Session, transaction: Transaction, *, head: Head, octets: bytes) -> Taken:
        """Count the message and keep it."""
        self._meter(session).count(self._tenant.now())
        return super().take(session, transaction, head=head, octets=octets)

    def returns(self, transaction: Transaction) -> dict[str, Reply]:
        """Return what asked for it; of the tenant's recipients this service knows nothing."""
        return {
            recipient: reply
            for recipient, reply in super().returns(transaction).items()
            if self._tenant.knows(recipient)
        }

    def _is_sender(self, session: Session, address: str) -> bool:
        return address.lower() in {sender.lower() for sender in self._resource(session).senders}

    def _resource(self, session: Session) -> SandboxAcsResource:
        assert session.login is not None, "nobody comes past MAIL without a login"
        return self._resources[session.login.account.lower()]

    def _meter(self, session: Session) -> AcsMeter:
        return self._tenant.acs_meters.setdefault(self._resource(session).name, AcsMeter())
