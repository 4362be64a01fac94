"""A service's own rules behind the common dialogue.

smtp.py speaks SMTP; a door says what this service offers, who may log in, and what it refuses
and when. Each question is one method that answers at once: None is consent, a `Reply` the refusal.
smtp.office365.com is `submission.Submission`.
"""

import itertools
import secrets
import time
from dataclasses import dataclass, field
from typing import Protocol

from service.sandbox.config import SandboxMailbox
from service.sandbox.content import Head
from service.sandbox.mailroom import Taken
from service.sandbox.replies import Reply

_TICKS_1970 = 621_355_968_000_000_000  # 100-nanosecond steps from the year 1 to 1970
_serial = itertools.count()


def _session_id() -> str:
    """Make 16 hex digits out of the time, as Exchange does; no two are alike."""
    return f"{_TICKS_1970 + time.time_ns() // 100 + next(_serial):016X}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """Who logged in, and how."""

    mailbox: SandboxMailbox
    method: str  # login or xoauth2


@dataclass(slots=True, kw_only=True, eq=False)
class Session:
    """What a door may know of one connection."""

    client: str
    id: str = field(default_factory=_session_id)
    number: int = field(default_factory=lambda: secrets.randbelow(400))  # makes the host names
    hello: str | None = None  # what the client called itself; None before EHLO
    tls: str | None = None
    login: Login | None = None
    login_refusal: str | None = None  # the last 535, as it was said

    @property
    def front_end(self) -> str:
        """The host that greets."""
        return f"SB0P365CA{self.number:04d}.outlook.office365.com"

    @property
    def front_end_inside(self) -> str:
        """The same host by the name that refusals end with."""
        return f"SB0P365CA{self.number:04d}.SBXP365.PROD.OUTLOOK.COM"

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
    chunks: bytearray | None = None  # of BDAT, as far as they are worth keeping
    chunked: int = 0  # octets of BDAT so far, kept or not


class Door(Protocol):
    """The rules of one service."""

    name: str
    size: int  # octets that EHLO announces

    def extensions(self, session: Session) -> tuple[str, ...]:
        """Return the EHLO list for this moment of the session, without the first line."""

    def mechanisms(self, session: Session) -> tuple[str, ...]:
        """Return the SASL mechanisms that it takes now."""

    def login_with_password(self, username: str, password: str) -> Login | Reply:
        """Decide on AUTH LOGIN."""

    def login_with_token(self, username: str, token: str) -> Login | Reply:
        """Decide on AUTH XOAUTH2."""

    def arrive(self, session: Session) -> None:
        """Somebody logged in on this session."""

    def leave(self, session: Session) -> None:
        """The session is over."""

    def refuse_sender(self, session: Session, reverse_path: str) -> Reply | None:
        """Decide on MAIL."""

    def refuse_recipient(
        self, session: Session, transaction: Transaction, *, recipient: str | None
    ) -> Reply | None:
        """Decide on RCPT; None as recipient is an address that is not one."""

    def content_limit(self, session: Session) -> int:
        """Return how many octets of content are worth keeping."""

    def refuse_message(
        self, session: Session, transaction: Transaction, *, head: Head, size: int
    ) -> Reply | None:
        """Decide after the final dot, without counting the message."""

    def refuse_by_limit(self, session: Session, transaction: Transaction) -> Reply | None:
        """Decide by what was counted before this message."""

    def names_in_refusal(self, session: Session, transaction: Transaction, *, head: Head) -> dict[str, str]:
        """Return `sender` and `recipient` as a refusal of this message speaks of them."""

    def take(self, session: Session, transaction: Transaction, *, head: Head, octets: bytes) -> Taken:
        """Count the message and keep it."""

    def accepted(self, session: Session, taken: Taken) -> Reply:
        """Return the final yes."""
