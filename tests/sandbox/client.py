"""A client without manners: says any octets, in any order, and shows each reply as it came."""

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from service.sandbox import Sandbox

MAILBOX = "noreply@contoso.com"
PASSWORD = "sandbox-password"
CLIENT_ID = "11111111-1111-4111-8111-111111111111"
CLIENT_SECRET = "sandbox-client-secret"
HVE_ACCOUNT = "hve@contoso.com"
HVE_PASSWORD = "sandbox-hve-password"
ACS_USER = f"contoso-acs|{CLIENT_ID}|c0ffee00-0000-4000-8000-000000000365"
ACS_SENDER = "donotreply@contoso.com"
SECONDS = 15.0  # no reply of the sandbox takes longer, unless that is what is tested


#: Which service of the sandbox a client talks to.
DoorName = Literal["submission", "mx", "hve", "acs"]
#: A client certificate with its chain, and its key.
Pair = tuple[Path, Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One reply: the code of its last line, and all lines without their codes."""

    code: int
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """All lines in one."""
        return "\n".join(self.lines)

    def __str__(self) -> str:
        return f"{self.code} {self.text}"


class Client:
    """One connection to a door of the sandbox."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, tls: ssl.SSLContext
    ) -> None:
        self.reader = reader
        self.writer = writer
        self._tls = tls
        self.greeting: Answer | None = None

    async def octets(self) -> bytes:
        """Return the next line as it came; b"" where the server closed or reset the connection."""
        try:
            return await asyncio.wait_for(self.reader.readline(), SECONDS)
        except ConnectionError:
            return b""

    async def reply(self) -> Answer:
        """Read one reply, of several lines perhaps."""
        lines = []
        while True:
            line = (await self.octets()).decode()
            assert line.endswith("\r\n"), f"no whole line: {line!r}"
            lines.append(line[4:-2])
            if line[3] == " ":
                return Answer(code=int(line[:3]), lines=tuple(lines))

    async def raw(self, octets: bytes) -> None:
        """Send octets and wait for nothing."""
        self.writer.write(octets)
        await self.writer.drain()

    async def say(self, line: str) -> Answer:
        """Send one command and read its reply."""
        await self.raw(line.encode() + b"\r\n")
        return await self.reply()

    async def closed(self) -> bool:
        """Whether the server closes without another word."""
        return await self.octets() == b""

    async def starttls(self, *, shows: Pair | None = None) -> None:
        """Change to TLS, showing a client certificate perhaps, and say EHLO again."""
        if shows is not None:
            self._tls.load_cert_chain(*shows)
        assert (await self.say("STARTTLS")).code == 220
        await self.handshake()
        assert (await self.say("EHLO client.example")).code == 250

    async def handshake(self) -> None:
        """Change to TLS after STARTTLS was answered."""
        await self.writer.start_tls(self._tls, server_hostname="smtp.office365.com")

    async def login(self, username: str = MAILBOX, password: str = PASSWORD) -> Answer:
        """Say AUTH LOGIN; the last answer counts."""
        answer = await self.say("AUTH LOGIN")
        for secret in (username, password):
            answer = await self.say(encoded(secret)) if answer.code == 334 else answer
        return answer

    async def token(self, token: str, username: str = MAILBOX) -> Answer:
        """Say AUTH XOAUTH2 in one line."""
        return await self.say(f"AUTH XOAUTH2 {encoded(xoauth2(username, token))}")

    async def envelope(self, *recipients: str, sender: str = MAILBOX) -> Answer:
        """Say MAIL, RCPT … and DATA; return what DATA was told."""
        await self.say(f"MAIL FROM:<{sender}>")
        for recipient in recipients:
            await self.say(f"RCPT TO:<{recipient}>")
        return await self.say("DATA")

    async def content(self, octets: bytes) -> Answer:
        """Send content with its dot, and read the final reply."""
        await self.raw(octets + b".\r\n")
        return await self.reply()

    async def send(self, *recipients: str, sender: str = MAILBOX, octets: bytes | None = None) -> Answer:
        """Send one whole message and return the final reply."""
        started = await self.envelope(*recipients, sender=sender)
        return await self.content(octets or message()) if started.code == 354 else started


@contextlib.asynccontextmanager
async def connected(sandbox: Sandbox, door: DoorName = "submission") -> AsyncIterator[Client]:
    """Open a connection and read the greeting, where there is one."""
    tls = ssl.create_default_context(cafile=sandbox.ca_file)
    reader, writer = await asyncio.open_connection("127.0.0.1", getattr(sandbox, f"{door}_port"))
    client = Client(reader, writer, tls=tls)
    try:
        client.greeting = await client.reply()
        yield client
    finally:
        client.writer.transport.abort()
        with contextlib.suppress(OSError):
            await client.writer.wait_closed()


@contextlib.asynccontextmanager
async def secured(
    sandbox: Sandbox, door: DoorName = "submission", *, shows: Pair | None = None
) -> AsyncIterator[Client]:
    """Connect, and change to TLS."""
    async with connected(sandbox, door) as client:
        await client.say("EHLO client.example")
        await client.starttls(shows=shows)
        yield client


@contextlib.asynccontextmanager
async def logged_in(sandbox: Sandbox) -> AsyncIterator[Client]:
    """Connect, change to TLS and log in with the password."""
    async with secured(sandbox) as client:
        assert (await client.login()).code == 235
        yield client


def message(number: int = 1, *, sender: str = MAILBOX, body: bytes = b"Hello\r\n") -> bytes:
    """Return a small message with a Message-ID of its own."""
    return (
        f"From: <{sender}>\r\nTo: <ana@fabrikam.com>\r\nSubject: Number {number}\r\n"
        f"Date: Tue, 24 Nov 2026 09:00:00 +0000\r\nMessage-ID: <{number}@contoso.com>\r\n\r\n"
    ).encode() + body


def encoded(text: str) -> str:
    """Return the base64 of a text."""
    return base64.b64encode(text.encode()).decode()


def xoauth2(username: str, token: str) -> str:
    """Return the initial response of XOAUTH2, as Microsoft's page has it."""
    return f"user={username}\x01auth=Bearer {token}\x01\x01"


@contextlib.asynccontextmanager
async def met(sandbox: Sandbox, *, shows: Pair | None = None) -> AsyncIterator[Client]:
    """Connect to the MX and say EHLO; with a certificate to show, change to TLS first."""
    if shows is not None:
        async with secured(sandbox, "mx", shows=shows) as client:
            yield client
        return
    async with connected(sandbox, "mx") as client:
        await client.say("EHLO client.example")
        yield client


async def rcpt(client: Client, recipient: str, *, sender: str = MAILBOX) -> Answer:
    """Begin a transaction for one recipient, return what it was told, and give the transaction up."""
    started = await client.say(f"MAIL FROM:<{sender}>")
    if started.code != 250:
        return started
    answer = await client.say(f"RCPT TO:<{recipient}>")
    await client.say("RSET")
    return answer
