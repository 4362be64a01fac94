"""The rules of High Volume Email, smtp.hve.mx.microsoft: much mail, to the own tenant only.

An account of its own kind logs in by password or by token, whatever the switch for SMTP AUTH says, and
sends as itself: another reverse-path is refused at MAIL, another From after the dot. No rates are
counted. Sources: Microsoft's "Manage high volume emails for Microsoft 365" and the cmdlets around it;
the numbers of most refusals are from one other source, and the words of some are a guess (replies.py).
The phase of 5.2.240, 5.7.62 and 5.6.241, and what an account without billing hears, are guesses as well.
"""

import re

from service.sandbox import replies
from service.sandbox.config import MEGABYTE, SandboxHveAccount
from service.sandbox.content import Head
from service.sandbox.door import Door, Login, Session, Transaction, same
from service.sandbox.replies import Reply
from service.sandbox.tenant import Tenant
from service.sandbox.tokens import BadToken, Entra

_ROLE = "Mail.Send"
_SOON = 60.0  # seconds of life that a token must still have; Microsoft's number is unknown


class HighVolume(Door):
    """The door for HVE accounts."""

    name = "hve"
    takes_logins = True
    size = 10 * MEGABYTE
    most_recipients = 50

    def __init__(self, tenant: Tenant, entra: Entra) -> None:
        """`entra` says which tokens are good."""
        super().__init__(tenant)
        self._entra = entra

    def mechanisms(self, session: Session) -> tuple[str, ...]:
        """Return those of smtp.office365.com."""
        return ("LOGIN", "XOAUTH2") if session.tls else ()

    # Login

    def login_with_password(self, username: str, password: str) -> Login | Reply:
        """Decide on AUTH LOGIN; the end of basic logins at smtp.office365.com changes nothing here."""
        switches = self._tenant.switches
        if switches.basic_disabled or switches.security_defaults:
            reason = "basic_disabled or security_defaults is on"
            return self._refuse(username, "login", replies.ORGANIZATION_FORBIDS, reason)
        account = self._tenant.hve_account(username)
        if account is None:
            return self._refuse_stranger(username, "login")
        if account.password is None or not same(account.password, password):
            return self._refuse(username, "login", replies.LOGIN_FAILED, "wrong password")
        return self._admit(account, "login")

    def login_with_token(self, username: str, token: str) -> Login | Reply:
        """Decide on XOAUTH2: a live token of an application with the role that the account allows."""
        try:
            shown = self._entra.read(token)
        except BadToken as exc:
            reply = replies.TOKEN_EXPIRED if exc.expired else replies.LOGIN_FAILED
            return self._refuse(username, "xoauth2", reply, exc.reason)
        try:
            shown.demand(_ROLE)
        except BadToken as exc:
            return self._refuse(username, "xoauth2", replies.TOKEN_WITHOUT_ROLE, exc.reason)
        if shown.expires_in < _SOON:
            reason = f"the token lives for less than {_SOON:.0f} s"
            return self._refuse(username, "xoauth2", replies.TOKEN_EXPIRES_SOON, reason)
        account = self._tenant.hve_account(username)
        if account is None:
            return self._refuse_stranger(username, "xoauth2")
        if shown.client_id not in account.applications:
            reason = "the application is not allowed for the account (Add-HVEAppAccess)"
            return self._refuse(username, "xoauth2", replies.APPLICATION_NOT_ALLOWED, reason)
        return self._admit(account, "xoauth2")

    def malformed_token(self, blob: str | None) -> Reply:
        """Name the argument that is missing; which of the six numbers means what is a guess."""
        if blob is None:
            return replies.XOAUTH2_NO_BASE64
        fields = dict(re.findall(r"([a-z]+)=([^\x01]*)\x01", blob))
        if "user" not in fields:
            return replies.XOAUTH2_NO_USER
        if not fields["user"]:
            return replies.XOAUTH2_EMPTY_USER
        if "auth" not in fields:
            return replies.XOAUTH2_NO_AUTH
        return replies.XOAUTH2_NO_TOKEN if fields["auth"].startswith("Bearer") else replies.XOAUTH2_NO_BEARER

    def _admit(self, account: SandboxHveAccount, method: str) -> Login:
        self._tenant.logins.note(mailbox=account.address, method=method, succeeded=True, reason=None)
        return Login(account=account.address, method=method)

    def _refuse_stranger(self, username: str, method: str) -> Reply:
        if self._tenant.mailbox(username) is not None:
            return self._refuse(username, method, replies.NO_HVE_ACCOUNT, "a mailbox is no HVE account")
        return self._refuse(username, method, replies.LOGIN_FAILED, "there is no such HVE account")

    def _refuse(self, username: str, method: str, reply: Reply, reason: str) -> Reply:
        self._tenant.logins.note(mailbox=username[:254], method=method, succeeded=False, reason=reason)
        return reply

    # Envelope and content

    def refuse_sender(self, session: Session, reverse_path: str) -> Reply | None:
        """Take the account itself and nobody else, and that only while somebody pays."""
        if refusal := super().refuse_sender(session, reverse_path):
            return refusal
        if self._tenant.switches.hve_billing != "BillingPolicyValid":
            return replies.HVE_NO_BILLING
        return None if _is_login(session, reverse_path) else replies.HVE_OTHER_SENDER

    def refuse_recipient(
        self, session: Session, transaction: Transaction, *, recipient: str | None
    ) -> Reply | None:
        """Take recipients of the tenant, fifty of them."""
        if refusal := super().refuse_recipient(session, transaction, recipient=recipient):
            return refusal
        return None if recipient is not None and self._tenant.owns(recipient) else replies.HVE_EXTERNAL

    def refuse_message(
        self, session: Session, transaction: Transaction, *, head: Head, size: int
    ) -> Reply | None:
        """Look at From besides what every service looks at."""
        if refusal := super().refuse_message(session, transaction, head=head, size=size):
            return refusal
        own = all(_is_login(session, author) for author in head.authors)
        return None if own else replies.HVE_OTHER_AUTHOR


def _is_login(session: Session, address: str) -> bool:
    return session.login is not None and session.login.account.lower() == address.lower()
