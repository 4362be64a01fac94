"""The rules of smtp.office365.com: SMTP AUTH client submission.

Login by AUTH LOGIN or XOAUTH2, after STARTTLS only. MAIL and RCPT are answered with yes nearly
always; what a mailbox may not do is told after the final dot: Send As, limits, quota. An error that
an administrator must mend, repeated often enough, closes the mailbox for good mail too. Sources:
Microsoft's "How to set up a multifunction device or application", "Fix issues with SMTP AUTH client
submission" and "Improvements in the SMTP AUTH Client Submission protocol".

The true reason for a refused login, which Microsoft keeps to itself and shows to the administrator
in Entra's sign-in log, is in `GET /logins`.
"""

from service.sandbox import replies
from service.sandbox.config import SandboxMailbox
from service.sandbox.content import Head
from service.sandbox.door import Door, Login, Session, Transaction, malformed, same
from service.sandbox.limits import Meter
from service.sandbox.mailroom import Taken
from service.sandbox.replies import Reply
from service.sandbox.tenant import Tenant
from service.sandbox.tokens import BadToken, Entra

_SEND_AS_APP = "SMTP.SendAsApp"


class Submission(Door):
    """The door for mailboxes that log in."""

    name = "submission"
    takes_logins = True
    counts_external = True

    def __init__(self, tenant: Tenant, entra: Entra) -> None:
        """`entra` says which tokens are good."""
        super().__init__(tenant)
        self._entra = entra

    def mechanisms(self, session: Session) -> tuple[str, ...]:
        """Return the two that Microsoft takes; PLAIN is not among them."""
        return ("LOGIN", "XOAUTH2") if session.tls else ()

    # Login

    def login_with_password(self, username: str, password: str) -> Login | Reply:
        """Decide on AUTH LOGIN: the policies that forbid passwords come before the password."""
        switches = self._tenant.switches
        if switches.basic_retired:
            return self._refuse_login(username, "login", replies.BASIC_RETIRED, "basic_retired is on")
        if switches.basic_disabled:
            return self._refuse_login(username, "login", replies.BASIC_DISABLED, "basic_disabled is on")
        mailbox = self._tenant.mailbox(username)
        if mailbox is None:
            return self._refuse_login(username, "login", replies.LOGIN_FAILED, "there is no such mailbox")
        if mailbox.password is None or not same(mailbox.password, password):
            return self._refuse_login(username, "login", replies.LOGIN_FAILED, "wrong password")
        if switches.security_defaults:
            return self._refuse_login(username, "login", replies.SECURITY_DEFAULTS, "security_defaults is on")
        if switches.conditional_access:
            return self._refuse_login(
                username, "login", replies.CONDITIONAL_ACCESS, "conditional_access is on"
            )
        return self._admit(mailbox, "login")

    def login_with_token(self, username: str, token: str) -> Login | Reply:
        """Decide on XOAUTH2: the token must be Exchange's, with the role, of an app with access."""
        try:
            shown = self._entra.read(token)
            shown.demand(_SEND_AS_APP)
        except BadToken as exc:
            return self._refuse_login(username, "xoauth2", replies.LOGIN_FAILED, exc.reason)
        mailbox = self._tenant.mailbox(username)
        if mailbox is None:
            return self._refuse_login(username, "xoauth2", replies.LOGIN_FAILED, "there is no such mailbox")
        if shown.client_id not in mailbox.applications:
            reason = "the application has no permission on the mailbox (Add-MailboxPermission)"
            return self._refuse_login(username, "xoauth2", replies.LOGIN_FAILED, reason)
        return self._admit(mailbox, "xoauth2")

    def _admit(self, mailbox: SandboxMailbox, method: str) -> Login | Reply:
        own = self._tenant.smtp_auth(mailbox)
        if own is False:
            return self._refuse_login(
                mailbox.address, method, replies.SMTP_AUTH_OFF_MAILBOX, "off for the mailbox"
            )
        if own is None and not self._tenant.switches.smtp_auth_org:
            reason = "smtp_auth_org is off"
            return self._refuse_login(mailbox.address, method, replies.SMTP_AUTH_OFF_TENANT, reason)
        self._tenant.logins.note(mailbox=mailbox.address, method=method, succeeded=True, reason=None)
        return Login(account=mailbox.address, method=method, mailbox=mailbox)

    def _refuse_login(self, username: str, method: str, reply: Reply, reason: str) -> Reply:
        self._tenant.logins.note(mailbox=username[:254], method=method, succeeded=False, reason=reason)
        return reply

    def arrive(self, session: Session) -> None:
        """Count the session as one of its mailbox's."""
        self._meter(session).sessions.append(session)

    def leave(self, session: Session) -> None:
        """Free its place."""
        if session.login is not None and session in self._meter(session).sessions:
            self._meter(session).sessions.remove(session)

    # Envelope

    def refuse_recipient(
        self, session: Session, transaction: Transaction, *, recipient: str | None
    ) -> Reply | None:
        """Refuse what is no address, and the surplus above the organisation's cap."""
        if recipient is None:
            self._error(session, "invalid recipients")
            return replies.BAD_RECIPIENT
        if len(transaction.recipients) >= self._tenant.switches.recipients_per_envelope:
            return replies.TOO_MANY_RECIPIENTS
        return None

    # Content

    def content_limit(self, session: Session) -> int:
        """Return what the mailbox may send, and one octet more to see that it was too much."""
        return min(self.size, self._mailbox(session).max_send_octets) + 1

    def refuse_message(
        self, session: Session, transaction: Transaction, *, head: Head, size: int
    ) -> Reply | None:
        """Look at the mailbox first, then at the message."""
        mailbox, meter = self._mailbox(session), self._meter(session)
        closed = meter.closed_for(self._tenant.now())
        if size > self.size:
            return replies.TOO_LARGE
        if size > mailbox.max_send_octets:
            return replies.SEND_SIZE
        if meter.crowded(session, limit=self._tenant.switches.connections):
            return replies.CONCURRENT
        if closed is not None:
            return replies.SENDER_THROTTLED[closed]
        if refusal := malformed(head, binary=transaction.binary):
            return refusal
        if self._denied_sender(session, transaction, head=head) is not None:
            self._error(session, "send as denied")
            return replies.SEND_AS_DENIED
        if len(transaction.recipients) > mailbox.recipient_limit:
            self._error(session, "too many recipients")
            return replies.RECIPIENT_LIMIT
        if mailbox.sent_items and meter.sent_items_octets + size > mailbox.quota_octets:
            self._error(session, "mailbox full")
            return replies.MAILBOX_FULL
        return None

    def names_in_refusal(self, session: Session, transaction: Transaction, *, head: Head) -> dict[str, str]:
        """Name the sender that is not allowed, or the author where all are."""
        names = super().names_in_refusal(session, transaction, head=head)
        denied = self._denied_sender(session, transaction, head=head)
        return names | {"sender": denied} if denied else names

    def _denied_sender(self, session: Session, transaction: Transaction, *, head: Head) -> str | None:
        """Return the first sender that the mailbox may not use: reverse-path, From or Sender."""
        mailbox = self._mailbox(session)
        allowed = {address.lower() for address in (mailbox.address, *mailbox.send_as)}
        used = (transaction.reverse_path, *head.authors, head.sender or "")
        return next((address for address in used if address and address.lower() not in allowed), None)

    def refuse_by_limit(self, session: Session, transaction: Transaction) -> Reply | None:
        """Refuse above 10,000 recipients a day, and above the pace where the tenant refuses."""
        switches, meter, now = self._tenant.switches, self._meter(session), self._tenant.now()
        if meter.recipients.used(now) + len(transaction.recipients) > switches.recipients_per_day:
            return replies.QUOTA_EXCEEDED
        if switches.throttle_mode == "refuse" and self._delay(meter) > 0:
            return replies.RATE_EXCEEDED
        return super().refuse_by_limit(session, transaction)

    def take(self, session: Session, transaction: Transaction, *, head: Head, octets: bytes) -> Taken:
        """Count recipients, message and Sent Items, and keep the message."""
        mailbox, meter, now = self._mailbox(session), self._meter(session), self._tenant.now()
        delay = self._delay(meter)
        meter.pace.add(now + delay)
        meter.recipients.add(len(transaction.recipients), now=now)
        if mailbox.sent_items:
            meter.sent_items_octets += len(octets)
        return self._keep(
            session, transaction, head=head, octets=octets, delay=delay, sent_items=mailbox.sent_items
        )

    def _delay(self, meter: Meter) -> float:
        now = self._tenant.now()
        return meter.pace.next_at(now, limit=self._tenant.switches.messages_per_minute) - now

    def _error(self, session: Session, kind: str) -> None:
        switches = self._tenant.switches
        self._meter(session).error(
            kind,
            now=self._tenant.now(),
            limit=switches.repeated_errors,
            closed_for=switches.repeated_errors_seconds,
        )

    def _meter(self, session: Session) -> Meter:
        return self._tenant.meter(self._mailbox(session))

    @staticmethod
    def _mailbox(session: Session) -> SandboxMailbox:
        mailbox = session.login.mailbox if session.login is not None else None
        assert mailbox is not None, "nobody comes past MAIL without a login, and each is a mailbox's here"
        return mailbox
