"""Any reply can be staged at its moment, so that a client can be shown all that Microsoft says.

The table has the replies that Microsoft documents or that users have published, by moment and door; the
ones that a rule of the sandbox gives by itself are tried with that rule.
"""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest

from service.sandbox import Sandbox
from tests.sandbox.client import (
    ACS_SENDER,
    ACS_USER,
    CLIENT_SECRET,
    HVE_ACCOUNT,
    HVE_PASSWORD,
    MAILBOX,
    PASSWORD,
    Answer,
    Client,
    DoorName,
    connected,
    encoded,
    logged_in,
    message,
    secured,
)
from tests.sandbox.entra import readback

LOGINS = {
    "submission": (MAILBOX, PASSWORD, MAILBOX),
    "mx": ("", "", MAILBOX),
    "hve": (HVE_ACCOUNT, HVE_PASSWORD, HVE_ACCOUNT),
    "acs": (ACS_USER, CLIENT_SECRET, ACS_SENDER),
}
FAILED = "535 5.7.139 Authentication unsuccessful,"
STORE = "554 5.2.0 STOREDRV.Submission.Exception:"
PERMANENT = "Failed to process message due to a permanent exception with message"

REPLIES: list[tuple[DoorName, str, str]] = [
    # Connecting, EHLO, STARTTLS
    ("submission", "connect", "421 4.3.2 Service not active"),
    ("mx", "connect", "421 4.3.2 System not accepting network messages"),
    ("mx", "connect", "421 4.4.2 Connection dropped due to ConnectionReset"),
    ("mx", "connect", "554 5.7.1 Service unavailable; Client host [203.0.113.10] blocked"),
    ("mx", "ehlo", "550 5.7.506 Access Denied, Bad HELO"),
    ("mx", "ehlo", "550 5.7.800 Access denied, banned sender"),
    ("submission", "ehlo", "501 5.5.4 Invalid domain name"),
    ("submission", "starttls", "454 4.7.0 Cannot accept TLS as maximum TLS rate exceeded for server"),
    ("mx", "starttls", "554 5.7.3 Unable to initialize security subsystem"),
    ("mx", "starttls", "454 4.7.5 Certificate validation failure"),
    ("mx", "mail", "454 4.7.0 Failed to establish appropriate TLS channel: Access Denied"),
    ("submission", "auth", "421 4.7.66 TLS 1.0 and 1.1 are not supported. Please upgrade your client"),
    ("submission", "auth", "550 5.7.67 TLS 1.0 and 1.1 are not supported by your organization"),
    # AUTH
    ("submission", "auth", f"{FAILED} the user credentials were incorrect."),
    ("submission", "auth", f"{FAILED} federated STS service was unreachable."),
    ("submission", "auth", f"{FAILED} the federated STS URL does not support HTTPS."),
    ("hve", "auth", f"{FAILED} the organization configuration does not allow this authentication"),
    ("submission", "auth", "451 4.7.3 Authentication unsuccessful due to temporary server error. Please try again."),
    ("hve", "auth", "535 5.7.142 Authentication unsuccessful, the token will expire soon"),
    ("hve", "auth", "550 5.7.240 Application not allowed"),
    # MAIL
    ("submission", "mail", "530 5.7.1 Client was not authenticated"),
    ("submission", "mail", "550 5.7.60 SMTP; Client does not have permissions to send as this sender"),
    ("mx", "mail", "501 5.1.7 Long addresses not supported"),
    ("mx", "mail", "451 4.4.3 Temporary server error. Please try again later ATTR17"),
    ("mx", "mail", "451 4.7.700 PFA agent busy, please try again."),
    ("acs", "mail", "451 4.4.4 Temporary server error. Please try again later ATTR2"),
    # RCPT
    ("mx", "rcpt", "550 5.4.1 Relay Access Denied"),
    ("mx", "rcpt", "550 5.7.1 Unable to relay"),
    ("mx", "rcpt", "450 4.7.1 Unable to Relay. ATTR14"),
    ("mx", "rcpt", "550 5.7.511 Access denied, banned sender [203.0.113.10]"),
    ("mx", "rcpt", "550 5.7.513 Service unavailable, Client host blocked by fabrikam.com using Customer Block list"),
    ("mx", "rcpt", "550 5.7.507 Access denied, rejected by recipient"),
    ("mx", "rcpt", "550 5.7.510 Access denied, contoso.com does not accept email over IPv6"),
    ("mx", "rcpt", "550 5.7.25 Access denied, the sending IPv6 address must have a reverse DNS record"),
    ("mx", "rcpt", "450 4.7.26 Access denied, a message sent over IPv6 must pass either SPF or DKIM"),
    ("mx", "rcpt", "550 5.7.508 Access denied, sending IPv6 range exceeds limits"),
    ("mx", "rcpt", "550 5.7.1 Unable to accept unauthorized message over IPv6"),
    ("mx", "rcpt", "451 4.7.650 The mail server [203.0.113.10] has been temporarily rate limited due to IP reputation"),
    ("mx", "rcpt", "451 4.7.850 Access denied, please try again later"),
    ("submission", "rcpt", "550 5.7.501 Access denied, spam abuse detected"),
    ("submission", "rcpt", "550 5.7.502 Access denied, banned sender"),
    ("submission", "rcpt", "550 5.7.504 [email@contoso.com]: Recipient address rejected: Access denied"),
    ("submission", "rcpt", "550 5.7.505 Access denied, banned recipient"),
    ("mx", "rcpt", "501 5.1.6 Recipient addresses in single label domains not accepted"),
    # DATA
    ("submission", "data", "451 4.7.0 Temporary server error. Please try again later. CPRX1"),
    ("mx", "data", "550 4.3.2 QUEUE.TransportDecryption; a code that disagrees with its status"),
    # After the dot
    ("submission", "dot", "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded"),
    ("submission", "dot", "550 5.2.2 Submission quota exceeded"),
    ("submission", "dot", f"{STORE}SendAsDeniedException.MapiExceptionSendAsDenied; {PERMANENT} Cannot submit."),
    ("submission", "dot", "550 5.2.251 Sender throttled due to continuous mailbox full errors"),
    ("submission", "dot", "550 5.2.254 Sender throttled due to continuous invalid recipients errors"),
    ("submission", "dot", f"{STORE}InvalidRecipientsException; {PERMANENT} A recipient is invalid."),
    ("submission", "dot", f"{STORE}OutboundSpamException; {PERMANENT} WASCL UserAction verdict is RefuseQuota"),
    ("submission", "dot", "554 5.6.0 STOREDRV.Submit; invalid message content"),
    ("submission", "dot", "554 5.6.1 Messages of type message/partial are not supported"),
    ("mx", "dot", "431 4.3.1 STOREDRV; mailbox database disk is full"),
    ("mx", "dot", "451 4.4.24 Message failed to be replicated: no healthy secondary server available"),
    ("mx", "dot", "451 4.4.0 Message failed to be made redundant"),
    ("mx", "dot", "450 4.7.0 Organization queue quota exceeded"),
    ("mx", "dot", "451 4.7.0 Temporary server error. Please try again later. PRX2"),
    ("mx", "dot", "554 5.4.14 Hop count exceeded - possible mail loop ATTR34"),
    ("hve", "dot", "550 5.6.241 The From address is another"),
    ("acs", "dot", "450 4.5.127 Message rejected. Excessive message rate from sender."),
]  # fmt: skip


@pytest.mark.parametrize(("door", "at", "text"), REPLIES, ids=lambda one: one[:40])
async def test_a_reply_is_said_word_for_word_at_its_moment(
    sandbox: Sandbox, door: DoorName, at: str, text: str
) -> None:
    """Once, on this door alone, without a trailer; then all goes well again."""
    sandbox.switch(replies=[{"at": at, "text": text, "times": 1, "door": door}])

    first = await _talk(sandbox, door, at)

    assert str(first) == text
    assert sandbox.taken == ()
    assert (await _talk(sandbox, door, "dot")).code == 250
    assert len(sandbox.taken) == 1


@pytest.mark.parametrize(
    ("at", "text"), [("rcpt", "251 2.1.5 User not local"), ("dot", "250 2.6.0 {odd} yes")]
)
async def test_another_yes_is_still_a_yes(sandbox: Sandbox, at: str, text: str) -> None:
    """The message is taken, however the yes is worded; braces mean nothing in it."""
    sandbox.switch(replies=[{"at": at, "text": text}])

    assert str(await _talk(sandbox, "submission", at)) == text
    assert len(sandbox.taken) == (1 if at == "dot" else 0)


async def test_another_yes_does_not_open_what_a_rule_closes(sandbox: Sandbox) -> None:
    """Who is refused stays refused."""
    sandbox.switch(replies=[{"at": "rcpt", "text": "251 2.1.5 User not local"}])

    async with logged_in(sandbox) as client:
        await client.say(f"MAIL FROM:<{MAILBOX}>")
        assert (await client.say("RCPT TO:<bounced@fabrikam.com>")).code == 550


async def test_421_ends_the_session(sandbox: Sandbox) -> None:
    """As every 421 does (RFC 5321 §3.8)."""
    sandbox.switch(replies=[{"at": "mail", "text": "421 4.3.2 Service not available"}])

    async with logged_in(sandbox) as client:
        assert (await client.say(f"MAIL FROM:<{MAILBOX}>")).code == 421
        assert await client.closed()


async def test_a_refused_greeting_ends_the_session(sandbox: Sandbox) -> None:
    """The first words are the last."""
    sandbox.switch(replies=[{"at": "connect", "text": "554 5.7.1 Go away", "door": "mx"}])

    async with connected(sandbox, "mx") as client:
        assert str(client.greeting) == "554 5.7.1 Go away"
        assert await client.closed()
    async with connected(sandbox) as client:
        assert client.greeting is not None
        assert client.greeting.code == 220


async def test_the_first_that_fits_and_is_left_is_said(sandbox: Sandbox) -> None:
    """A reply for one door comes before one for all; used up, the next takes its place; PUT counts anew."""
    replies: list[dict[str, Any]] = [
        {"at": "rcpt", "text": "550 5.7.1 elsewhere", "door": "mx"},
        {"at": "rcpt", "text": "450 4.7.1 twice", "times": 2},
        {"at": "rcpt", "text": "550 5.7.1 from then on"},
    ]
    sandbox.switch(replies=replies)

    async def told(client: Client) -> list[int]:
        return [(await client.say("RCPT TO:<ana@fabrikam.com>")).code for _ in range(3)]

    async with logged_in(sandbox) as client, readback(sandbox) as http:
        await client.say(f"MAIL FROM:<{MAILBOX}>")
        assert await told(client) == [450, 450, 550]
        assert (await http.put("/switches", json={"replies": replies})).status_code == 200
        assert await told(client) == [450, 450, 550]
        assert (await http.put("/switches", json={"replies": []})).json()["replies"] == []
        assert await told(client) == [250, 250, 250]


async def test_a_failed_login_that_is_staged_is_remembered(sandbox: Sandbox) -> None:
    """A client that goes on without a login hears the reason again at MAIL."""
    text = f"{FAILED} the user credentials were incorrect."
    sandbox.switch(replies=[{"at": "auth", "text": text}])

    async with secured(sandbox) as client:
        assert str(await client.login()) == text
        refusal = await client.say(f"MAIL FROM:<{MAILBOX}>")

    assert refusal.text.startswith(f"5.7.57 Client not authenticated to send mail. Error: {text}")


async def test_the_dot_of_bdat_is_a_dot(sandbox: Sandbox) -> None:
    """With CHUNKING the last chunk stands for it (RFC 3030)."""
    sandbox.switch(replies=[{"at": "dot", "text": "451 4.7.0 Later", "times": 1}])
    octets = message()

    async with logged_in(sandbox) as client:
        for expected in (451, 250):
            await client.say(f"MAIL FROM:<{MAILBOX}>")
            await client.say("RCPT TO:<ana@fabrikam.com>")
            await client.raw(f"BDAT {len(octets)} LAST\r\n".encode() + octets)
            assert (await client.reply()).code == expected


async def test_transactions_show_what_was_staged(sandbox: Sandbox) -> None:
    """The record has the same words as the wire."""
    sandbox.switch(replies=[{"at": "dot", "text": "554 5.6.0 No"}])

    async with logged_in(sandbox) as client, readback(sandbox) as http:
        await client.send("ana@fabrikam.com")
        (entry,) = (await http.get("/transactions")).json()["data"]

    assert (entry["final"], entry["taken"]) == ("554 5.6.0 No", None)


async def _talk(sandbox: Sandbox, door: DoorName, until: str) -> Answer:
    """Send one message to the tenant, as far as `until`, and return what was said there."""
    async with _steps(sandbox, door) as steps:
        async for at, answer in steps:
            if at == until or answer.code >= 400:
                assert at == until, f"{at}: {answer}"
                return answer
    raise AssertionError(f"there is no {until}")


@contextlib.asynccontextmanager
async def _steps(sandbox: Sandbox, door: DoorName) -> AsyncIterator[AsyncIterator[tuple[str, Answer]]]:
    username, password, sender = LOGINS[door]

    async def steps(client: Client) -> AsyncGenerator[tuple[str, Answer], None]:
        assert client.greeting is not None
        yield "connect", client.greeting
        yield "ehlo", await client.say("EHLO client.example")
        answer = await client.say("STARTTLS")
        yield "starttls", answer
        await client.handshake()
        await client.say("EHLO client.example")
        if username:
            answer = await client.say(f"AUTH LOGIN {encoded(username)}")
            yield "auth", await client.say(encoded(password)) if answer.code == 334 else answer
        yield "mail", await client.say(f"MAIL FROM:<{sender}>")
        yield "rcpt", await client.say("RCPT TO:<ana@contoso.com>")
        yield "data", await client.say("DATA")
        yield "dot", await client.content(message(sender=sender))

    async with connected(sandbox, door) as client:
        walk = steps(client)
        async with contextlib.aclosing(walk):
            yield walk
