"""What the tests of this room start from: an envelope, some content, a session to a peer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from service.mail.address import Address
from service.mail.envelope import Envelope
from service.smtp.dsn import Dsn
from service.smtp.session import Login, Parcel, Report, Session, open_session
from tests.peer import MICROSOFT_EXTENSIONS, ScriptedPeer, patient_timeouts

ANA = Address.parse("ana@example.com")
BEN = Address.parse("ben@example.com")
EVE = Address.parse("eve@example.com")
NOREPLY = Address.parse("noreply@contoso.com")

CONTENT = b"From: noreply@contoso.com\r\nSubject: Your receipt\r\n\r\nThank you.\r\n.\r\n..\r\n.hidden\r\n"

TOKEN = "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9." + "c2VjcmV0LXRva2VuLW9mLWNvbnRvc28" * 40
PASSWORD = "correct horse battery staple"
XOAUTH2 = Login(method="xoauth2", username="noreply@contoso.com", secret=TOKEN)
LOGIN = Login(method="login", username="noreply@contoso.com", secret=PASSWORD)

# A peer that takes one command at a time.
ONE_BY_ONE = [line for line in MICROSOFT_EXTENSIONS if line != "PIPELINING"]

# For waits that must end in a time-out: long enough for a busy machine to get there first.
SHORT = 0.3


def an_envelope(*recipients: Address, sender: Address | None = NOREPLY) -> Envelope:
    return Envelope(reverse_path=sender, forward_paths=recipients or (ANA,))


async def yes() -> bool:
    """A fence that lets the dot through."""
    return True


async def no() -> bool:
    """A fence that does not."""
    return False


async def send(
    session: Session,
    envelope: Envelope | None = None,
    octets: bytes = CONTENT,
    *,
    smtputf8: bool = False,
    eightbit: bool = False,
    before_dot: Callable[[], Awaitable[bool]] = yes,
    dsn: Dsn | None = None,
) -> Report:
    parcel = a_parcel(envelope, octets, smtputf8=smtputf8, eightbit=eightbit, dsn=dsn)
    return await session.transmit(parcel, before_dot=before_dot)


def a_parcel(
    envelope: Envelope | None = None,
    octets: bytes = CONTENT,
    *,
    smtputf8: bool = False,
    eightbit: bool = False,
    dsn: Dsn | None = None,
) -> Parcel:
    return Parcel(
        envelope=envelope or an_envelope(), octets=octets, smtputf8=smtputf8, eightbit=eightbit, dsn=dsn
    )


@asynccontextmanager
async def a_session(
    peer: ScriptedPeer, login: Login | None = None, **limits: float
) -> AsyncIterator[Session]:
    """Open a session for a test; it is closed at the end. `limits` are seconds of single phases."""
    session = await open_session(
        peer.as_peer(timeouts=patient_timeouts(**limits)), login, session_id="ses_test"
    )
    try:
        yield session
    finally:
        await session.close()


def lines(transcript: Any) -> list[str]:
    """The texts of a transcript."""
    return [entry["text"] for entry in transcript]
