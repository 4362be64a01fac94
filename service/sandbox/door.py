"""A service's own rules behind the common dialogue.

smtp.py speaks SMTP; a door says what this service offers, who may log in, and what it refuses
and when. Each question is one method that answers at once: None is consent, a `Reply` the refusal.
What is written here is a service that takes everything that is well formed; each door adds its rules:

    submission.py               smtp.office365.com
    mx.py                       the tenant's MX
    high_volume.py              High Volume Email
    communication_services.py   Azure Communication Services
"""

import hmac
import itertools
import secrets
import time
from dataclasses import dataclass, field

from service.sandbox import external, replies
from service.sandbox.behaviours import When, behaviour_of
from service.sandbox.config import DoorName, SandboxMailbox
from service.sandbox.content import HEADER_LIMIT, Head
from service.sandbox.dsn import Asked
from service.sandbox.mailroom import Carried, Taken
from service.sandbox.replies import Reply
from service.sandbox.tenant import Tenant
from service.sandbox.trust import ClientCertificate

_TICKS_1970 = 621_355_968_000_000_000  # 100-nanosecond steps from the year 1 to 1970
_serial = itertools.count()

SIZE = 157_286_400  # octets; what Exchange Online announces to everyone


def _session_id() -> str:
    """Make 16 hex digits out of the time, as Exchange does; no two are alike."""
    return f"{_TICKS_1970 + time.time_ns() // 100 + next(_serial):016X}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """Who logged in, and how."""

    account: str  # the mailbox's or HVE account's address; at ACS the user name
    method: str  # login or xoauth2
    mailbox: SandboxMailbox | None = None  # only at smtp.office365.com


@dataclass(slots=True, kw_only=True, eq=False)
class Session:
    """What a door may know of one connection."""

    client: str  # its address
    zone: str = "outlook.office365.com"  # the domain of the hosts that greet
    inside: str = "SBXP365.PROD.OUTLOOK.COM"  # the same by the name that refusals end with
    id: str = field(default_factory=_session_id)
    number: int = field(default_factory=lambda: secrets.randbelow(400))  # makes the host names
    hello: str | None = None  # what the client called itself; None before EHLO
    tls: str | None = None
    shown: tuple[bytes, ...] = ()  # the client's certificates (DER), whatever they are worth
    certificate: ClientCertificate | None = None  # where they are worth something
    login: Login | None = None
    login_refusal: str | None = None  # the last 535, as it was said

    @property
    def front_end(self) -> str:
        """The host that greets."""
        return f"SB0P365CA{self.number:04d}.{self.zone}"

    @property
    def front_end_inside(self) -> str:
        """The same host by the name that refusals end with."""
        return f"SB0P365CA{self.number:04d}.{self.inside}"

    @property
    def back_end(self) -> str:
        """The host of the mailbox."""
        return f"SB0P365MB{self.number + 2000:04d}.SBXP365.PROD.OUTLOOK.COM"


@dataclass(slots=True, kw_only=True)
class Transaction:
    """One transaction from MAIL on."""

    reverse_path: str
    smtputf8: bool = False
    binary: bool = False  # BODY=BINARYMIME, which DATA cannot carry
    recipients: list[str] = field(default_factory=list)
    answers: list[dict[str, str | None]] = field(default_factory=list)  # every RCPT and what it was told
    asked: Asked = field(default_factory=Asked)  # which reports the client wants
    chunks: bytearray | None = None  # of BDAT, as far as they are worth keeping
    chunked: int = 0  # octets of BDAT so far, kept or not


@dataclass(frozen=True, slots=True, kw_only=True)
class Bearer:
    """Who brings a message, as `Taken` names it."""

    mailbox: str = ""
    method: str = "anonymous"
    connector: str | None = None


class Door:
    """The rules of one service."""

    name: DoorName
    zone = "outlook.office365.com"
    inside = "SBXP365.PROD.OUTLOOK.COM"
    size = SIZE  # octets that EHLO announces
    takes_logins = False
    most_recipients: int | None = None  # of a transaction; the surplus is put off
    counts_external = False  # whether its mail counts towards the tenant's external recipients

    def __init__(self, tenant: Tenant) -> None:
        """All doors share the tenant."""
        self._tenant = tenant

    # The session

    def address_of(self, client: str) -> str:
        """Return the client's address as this service sees it."""
        return client

    def extensions(self, session: Session) -> tuple[str, ...]:
        """Return the EHLO list for this moment, without its first line: AUTH takes STARTTLS's place."""
        mechanisms = self.mechanisms(session)
        login = ("AUTH " + " ".join(mechanisms),) if mechanisms else ()
        starttls = () if session.tls or self._tenant.switches.starttls == "absent" else ("STARTTLS",)
        return (
            f"SIZE {self.size}", "PIPELINING", "DSN", "ENHANCEDSTATUSCODES", *starttls, *login,
            "8BITMIME", "BINARYMIME", "CHUNKING", "SMTPUTF8",
        )  # fmt: skip

    def secured(self, session: Session) -> None:
        """TLS stands; `session.shown` has what the client showed."""

    def mechanisms(self, session: Session) -> tuple[str, ...]:
        """Return the SASL mechanisms that it takes now."""
        return ()

    def login_with_password(self, username: str, password: str) -> Login | Reply:
        """Decide on AUTH LOGIN."""
        return replies.UNKNOWN_MECHANISM

    def login_with_token(self, username: str, token: str) -> Login | Reply:
        """Decide on AUTH XOAUTH2."""
        return replies.UNKNOWN_MECHANISM

    def malformed_token(self, blob: str | None) -> Reply:
        """Answer an XOAUTH2 response that is none; None is no base64."""
        return replies.LOGIN_FAILED

    def arrive(self, session: Session) -> None:
        """Somebody logged in on this session."""

    def leave(self, session: Session) -> None:
        """The session is over."""

    # Envelope

    def refuse_sender(self, session: Session, reverse_path: str) -> Reply | None:
        """Decide on MAIL: where there are logins, one is demanded, and the last refusal told again."""
        if not session.tls:
            return replies.STARTTLS_FIRST
        if session.login is None:
            return replies.LOGIN_NEEDED_BECAUSE if session.login_refusal else replies.LOGIN_NEEDED
        return None

    def refuse_recipient(
        self, session: Session, transaction: Transaction, *, recipient: str | None
    ) -> Reply | None:
        """Decide on RCPT; None as recipient is an address that is not one."""
        if recipient is None:
            return replies.BAD_RECIPIENT
        if self.most_recipients is not None and len(transaction.recipients) >= self.most_recipients:
            return replies.TOO_MANY_RECIPIENTS
        return None

    # Content

    def content_limit(self, session: Session) -> int:
        """Return how many octets of content are worth keeping: one more than allowed shows the surplus."""
        return self.size + 1

    def refuse_message(
        self, session: Session, transaction: Transaction, *, head: Head, size: int
    ) -> Reply | None:
        """Decide after the final dot, without counting the message."""
        return replies.TOO_LARGE if size > self.size else malformed(head, binary=transaction.binary)

    def refuse_by_limit(self, session: Session, transaction: Transaction) -> Reply | None:
        """Decide by what was counted before this message."""
        if not self.counts_external:
            return None
        return external.refusal(self._tenant, transaction.reverse_path, transaction.recipients)

    def names_in_refusal(self, session: Session, transaction: Transaction, *, head: Head) -> dict[str, str]:
        """Return what a refusal of this message speaks of: sender, recipient, the sender's domain."""
        author = head.authors[0] if head.authors else transaction.reverse_path
        return {
            "sender": author,
            "recipient": transaction.recipients[0],
            "domain": author.rpartition("@")[2],
        }

    # A message that is taken

    def take(self, session: Session, transaction: Transaction, *, head: Head, octets: bytes) -> Taken:
        """Count the message and keep it."""
        return self._keep(session, transaction, head=head, octets=octets)

    def accepted(self, session: Session, taken: Taken) -> Reply:
        """Return the final yes."""
        return replies.ACCEPTED

    def returns(self, transaction: Transaction) -> dict[str, Reply]:
        """Return the recipients for whom the message comes back after all, with the reason."""
        came_back: dict[str, Reply] = {}
        for recipient in transaction.recipients:
            behaviour = behaviour_of(recipient)
            if behaviour is not None and behaviour.when is When.LATER and behaviour.reply is not None:
                came_back[recipient] = behaviour.reply
            elif self._tenant.owns(recipient) and not self._tenant.knows(recipient):
                came_back[recipient] = replies.RECIPIENT_NOT_FOUND
        return came_back

    def bearer(self, session: Session) -> Bearer:
        """Return who brings the message."""
        login = session.login
        return Bearer(mailbox=login.account, method=login.method) if login else Bearer()

    def _keep(
        self,
        session: Session,
        transaction: Transaction,
        *,
        head: Head,
        octets: bytes,
        delay: float = 0.0,
        sent_items: bool = False,
    ) -> Taken:
        """Keep a message; `delay` is in seconds until it is delivered."""
        bearer, came_back = self.bearer(session), self.returns(transaction)
        if self.counts_external:
            left = [recipient for recipient in transaction.recipients if recipient not in came_back]
            came_back |= external.count(self._tenant, transaction.reverse_path, left)
        carried = Carried(
            door=self.name,
            session=session.id,
            tls=session.tls,
            client=session.client,
            hello=session.hello or "",
            reverse_path=transaction.reverse_path,
            recipients=tuple(transaction.recipients),
            client_certificate=session.certificate.subject if session.certificate else None,
            mailbox=bearer.mailbox,
            method=bearer.method,
            connector=bearer.connector,
            dsn=transaction.asked.as_json(),
        )
        taken = self._tenant.mailroom.take(
            octets, head, carried=carried, delay=delay, sent_items=sent_items, returned=tuple(came_back)
        )
        if told := {
            name: reply for name, reply in came_back.items() if transaction.asked.wants_failure(name)
        }:
            self._tenant.reports.write(
                taken,
                octets,
                reasons={
                    recipient: reply.worded(
                        self._tenant.switches.wording,
                        recipient=recipient,
                        backend=session.back_end,
                        client=session.client,
                    )
                    for recipient, reply in told.items()
                },
                reporter=session.back_end,
                domain=self._tenant.config.accepted_domains[0],
            )
        return taken


def malformed(head: Head, *, binary: bool) -> Reply | None:
    """Refuse what every service refuses: too much header, bare line feeds, no author, several without Sender."""
    if head.size > HEADER_LIMIT:
        return replies.HEADER_TOO_LARGE
    if head.bare_line_feeds and not binary:
        return replies.BARE_LINE_FEEDS
    if not head.authors:
        return replies.FROM_MISSING
    if (len(head.authors) > 1 or head.from_fields > 1) and head.sender is None:
        return replies.SENDER_MISSING
    return None


def same(expected: str, given: str) -> bool:
    """Compare two secrets without telling by the time how much of them agrees."""
    return hmac.compare_digest(expected.encode("utf-8", "replace"), given.encode("utf-8", "replace"))
