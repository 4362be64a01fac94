"""The dialogue: what smtp.office365.com says, in which order, and to whom it says no."""

import re
import ssl

import pytest

from service.sandbox import Sandbox
from tests.sandbox.client import MAILBOX, Client, connected, encoded, logged_in, message, secured
from tests.waiting import eventually

BEFORE_TLS = ("SIZE 157286400", "PIPELINING", "DSN", "ENHANCEDSTATUSCODES", "STARTTLS", "8BITMIME", "BINARYMIME",
              "CHUNKING", "SMTPUTF8")  # fmt: skip


async def test_the_greeting_carries_host_time_and_session(sandbox: Sandbox) -> None:
    """The banner has Microsoft's form, with 16 hex digits for the session at its end."""
    async with connected(sandbox) as client:
        assert client.greeting is not None
        assert re.fullmatch(
            r"220 \w+\.outlook\.office365\.com Microsoft ESMTP MAIL Service ready at \w{3}, \d+ \w+ \d{4} [\d:]{8} "
            r"\+0000 \[[0-9A-F]{16}\]",
            str(client.greeting),
        )


async def test_ehlo_before_tls_lists_starttls_and_no_auth(sandbox: Sandbox) -> None:
    """The list is that of smtp.office365.com, in its order; AUTH is not in it."""
    async with connected(sandbox) as client:
        first, *extensions = (await client.say("EHLO client.example")).lines

        assert first.endswith("Hello [127.0.0.1]")
        assert tuple(extensions) == BEFORE_TLS


async def test_ehlo_after_tls_has_auth_in_starttls_place(sandbox: Sandbox) -> None:
    """After TLS the line STARTTLS becomes AUTH LOGIN XOAUTH2, and nothing else changes."""
    async with secured(sandbox) as client:
        _, *extensions = (await client.say("EHLO client.example")).lines

        assert extensions == ["AUTH LOGIN XOAUTH2" if line == "STARTTLS" else line for line in BEFORE_TLS]


async def test_refusals_end_with_the_session_of_the_banner(sandbox: Sandbox) -> None:
    """The trailer names host, time and the very session that the banner announced."""
    async with connected(sandbox) as client:
        assert client.greeting is not None
        session = client.greeting.text[-18:]

        refusal = await client.say("MAIL FROM:<a@b.example>")

        assert refusal.text.endswith(f" {session[1:]}")
        assert re.search(
            r"\[\w+\.\w+\.PROD\.OUTLOOK\.COM \d{4}-\d\d-\d\dT[\d:]{8}\.\d{3}Z [0-9A-F]{16}\]$", refusal.text
        )


@pytest.mark.parametrize(
    ("switches", "ending"),
    [({"trailer": False}, r"Send hello first"), ({"wording": "old"}, r"Send hello first \[[\w.]+\]")],
)
async def test_the_trailer_can_be_short_or_absent(
    sandbox: Sandbox, switches: dict[str, object], ending: str
) -> None:
    """Old wording keeps only the host; without a trailer the reply ends with its words."""
    sandbox.switch(**switches)

    async with connected(sandbox) as client:
        assert re.fullmatch(f"503 5.5.2 {ending}", str(await client.say("MAIL FROM:<a@b.example>")))


@pytest.mark.parametrize(
    ("command", "refusal"),
    [
        ("MAIL FROM:<a@b.example>", "503 5.5.2 Send hello first"),
        ("RCPT TO:<a@b.example>", "503 5.5.2 Send hello first"),
        ("DATA", "503 5.5.2 Send hello first"),
        ("AUTH LOGIN", "503 5.5.2 Send hello first"),
        ("EHLO", "501 5.0.0 EHLO requires domain address"),
        ("EHLO under_score", "501 5.5.4 Invalid domain name"),
        ("STARTTLS now", "501 5.5.4 Invalid arguments"),
        ("EXPN list", "502 5.3.3 Command not implemented"),
        ("BLAH", "500 5.3.3 Unrecognized command"),
        ("", "500 5.3.3 Unrecognized command"),
        ("NOOP " + "x" * 3000, "500 5.5.2 Command too long"),
        ("NOOP " + "x" * 30_000, "500 5.5.2 Command too long"),
        ("NOOP \x00", "501 5.5.4 Invalid arguments"),
    ],
)
async def test_what_is_out_of_order_or_malformed_is_refused(
    sandbox: Sandbox, command: str, refusal: str
) -> None:
    """Before hello, each wrong command gets its own reply and the session goes on."""
    async with connected(sandbox) as client:
        assert str(await client.say(command)).startswith(refusal)
        assert (await client.say("NOOP")).code == 250


@pytest.mark.parametrize(
    ("command", "refusal"),
    [
        ("STARTTLS", "503 5.5.2 Only one STARTTLS"),
        ("RCPT TO:<a@b.example>", "503 5.5.2 Need mail command"),
        ("DATA", "503 5.5.2 Need mail command"),
        ("MAIL FROM:a@b.example", "501 5.5.4 Invalid arguments"),
        ("MAIL FROM:<a@b.example> WHO=me", "501 5.5.4 Unrecognized parameter"),
        ("MAIL FROM:<a@b.example> BODY=9BIT", "501 5.5.4 Unsupported BODY type"),
        ("MAIL FROM:<a@b.example> SIZE=1x", "501 5.5.4 Invalid arguments"),
        ("MAIL FROM:<a@b.example> SIZE=157286401", "552 5.3.4 Message size exceeds"),
        ("MAIL FROM:<a b@c.example>", "501 5.5.4 Invalid arguments"),
        ("MAIL FROM:<a..b@c.example>", "501 5.1.7 Invalid address"),
        ("MAIL FROM:<nobody>", "501 5.1.7 Invalid address"),
        ("MAIL FROM:<jürgen@contoso.com>", "501 5.1.9 UTF-8 addresses not supported"),
        ("AUTH LOGIN", "503 5.5.1 Bad sequence of commands"),
        ("BDAT many", "501 5.5.4 Invalid arguments"),
    ],
)
async def test_a_wrong_envelope_is_refused(sandbox: Sandbox, command: str, refusal: str) -> None:
    """After the login, what is wrong with MAIL and its like is said in Microsoft's words."""
    async with logged_in(sandbox) as client:
        assert str(await client.say(command)).startswith(refusal)


async def test_a_wrong_recipient_is_refused_alone(sandbox: Sandbox) -> None:
    """Malformed and non-ASCII recipients get their own replies, and the good one stays."""
    async with logged_in(sandbox) as client:
        await client.say(f"MAIL FROM:<{MAILBOX}>")
        assert str(await client.say("DATA")).startswith("503 5.5.2 Need rcpt command")
        assert str(await client.say("RCPT TO:<@>")).startswith("501 5.1.3 Invalid address")
        assert str(await client.say("RCPT TO:<jürgen@contoso.com>")).startswith("501 5.1.8 UTF-8")
        assert str(await client.say("RCPT TO:<ana@fabrikam.com>")) == "250 2.1.5 Recipient OK"
        assert str(await client.say(f"MAIL FROM:<{MAILBOX}>")).startswith(
            "503 5.5.2 Sender already specified"
        )


async def test_smtputf8_lets_other_letters_in(sandbox: Sandbox) -> None:
    """With SMTPUTF8 on MAIL, a recipient outside ASCII is taken as it was written."""
    async with logged_in(sandbox) as client:
        await client.say(f"MAIL FROM:<{MAILBOX}> SMTPUTF8 BODY=8BITMIME SIZE=2000")
        assert (await client.say("RCPT TO:<jürgen@contoso.com> NOTIFY=FAILURE")).code == 250
        await client.say("DATA")
        assert (await client.content(message())).code == 250

    assert sandbox.taken[0].recipients == ("jürgen@contoso.com",)


async def test_a_message_is_kept_as_it_came_less_the_stuffed_dots(sandbox: Sandbox) -> None:
    """The record has envelope, login, TLS and the very octets; the reply repeats the Message-ID."""
    octets = message(7, body=b".dot\r\n..two\r\n")

    async with logged_in(sandbox) as client:
        final = await client.send(
            "ana@fabrikam.com", "bo@fabrikam.com", octets=octets.replace(b"\r\n.", b"\r\n..")
        )

    (taken,) = sandbox.taken
    assert re.fullmatch(
        r"250 2\.0\.0 OK <7@contoso\.com> \[Hostname=\w+\.\w+\.PROD\.OUTLOOK\.COM\]", str(final)
    )
    assert sandbox.content(taken) == octets
    assert taken.recipients == taken.delivered_to == ("ana@fabrikam.com", "bo@fabrikam.com")
    assert (taken.mailbox, taken.method, taken.reverse_path) == (MAILBOX, "login", MAILBOX)
    assert (taken.message_id, taken.subject, taken.size) == ("<7@contoso.com>", "Number 7", len(octets))
    assert taken.tls is not None
    assert taken.tls.startswith("TLSv1.")
    assert taken.sent_items


async def test_commands_may_come_in_one_segment(sandbox: Sandbox) -> None:
    """PIPELINING is announced and holds: a whole transaction and QUIT at once get all their replies."""
    async with logged_in(sandbox) as client:
        await client.raw(f"MAIL FROM:<{MAILBOX}>\r\nRCPT TO:<a@b.example>\r\nDATA\r\n".encode())
        assert [(await client.reply()).code for _ in range(3)] == [250, 250, 354]
        await client.raw(message() + b".\r\nQUIT\r\n")
        assert [(await client.reply()).code for _ in range(2)] == [250, 221]
        assert await client.closed()


async def test_content_may_come_in_chunks(sandbox: Sandbox) -> None:
    """BDAT takes chunks as they are, dots and bare line feeds of BINARYMIME included."""
    first, last = message(), b".\r\nbare\nfeed"

    async with logged_in(sandbox) as client:
        await client.say(f"MAIL FROM:<{MAILBOX}> BODY=BINARYMIME")
        await client.say("RCPT TO:<ana@fabrikam.com>")
        assert str(await client.say("DATA")).startswith("503 5.5.1")
        await client.raw(b"BDAT %d\r\n" % len(first) + first)
        assert str(await client.reply()) == f"250 2.6.0 CHUNK received OK, {len(first)} octets"
        await client.raw(b"BDAT %d LAST\r\n" % len(last) + last)
        assert (await client.reply()).code == 250

    assert sandbox.content(sandbox.taken[0]) == first + last


async def test_a_chunk_out_of_order_is_read_and_refused(sandbox: Sandbox) -> None:
    """The octets behind a refused BDAT are no commands."""
    async with logged_in(sandbox) as client:
        await client.raw(b"BDAT 6\r\nQUIT\r\nNOOP\r\n")
        assert [(await client.reply()).code for _ in range(2)] == [503, 250]


async def test_only_the_exact_dot_ends_the_content(sandbox: Sandbox) -> None:
    """LF.LF and CRLF.LF are content, so nothing can be smuggled behind them; then they are refused."""
    smuggled = message() + b"\n.\n\r\n.\nMAIL FROM:<evil@contoso.com>\r\n"

    async with logged_in(sandbox) as client:
        assert str(await client.send("ana@fabrikam.com", octets=smuggled)).startswith("550 5.6.11")
        assert (await client.say("NOOP")).code == 250

    assert sandbox.taken == ()


@pytest.mark.parametrize(
    ("octets", "refusal"),
    [
        (b"Subject: x\r\n\r\nhi\r\n", "550 5.7.512"),
        (b"From: nobody\r\n\r\nhi\r\n", "550 5.7.512"),
        (b"From: noreply@contoso.com, billing@contoso.com\r\n\r\nhi\r\n", "550 5.1.20"),
        (b"From: noreply@contoso.com\r\nFrom: noreply@contoso.com\r\n\r\nhi\r\n", "550 5.1.20"),
        (b"From: noreply@contoso.com\r\n\r\nbare\nfeed\r\n", "550 5.6.11"),
        (b"From: noreply@contoso.com\r\nX: " + b"x" * 270_000 + b"\r\n\r\nhi\r\n", "552 5.3.4 Header size"),
        (b"\r\n", "550 5.7.512"),
        (b"", "550 5.7.512"),
        (b"From: " + b"(" * 4000 + b"\r\n\r\nhi\r\n", "550 5.7.512"),
    ],
)
async def test_malformed_content_is_refused_after_the_dot(
    sandbox: Sandbox, octets: bytes, refusal: str
) -> None:
    """What is no message is refused at its end, and nothing of it is kept."""
    async with logged_in(sandbox) as client:
        await client.envelope("ana@fabrikam.com")
        assert str(await client.content(octets)).startswith(refusal)

    assert sandbox.taken == ()


async def test_several_authors_with_a_sender_are_taken(sandbox: Sandbox) -> None:
    """RFC 5322 section 3.6.2 allows several authors where Sender names one."""
    octets = b"From: noreply@contoso.com, billing@contoso.com\r\nSender: noreply@contoso.com\r\n\r\nhi\r\n"

    async with logged_in(sandbox) as client:
        final = await client.send("ana@fabrikam.com", octets=octets)

    assert final.code == 250
    assert f"<{sandbox.taken[0].id}@" in final.text


async def test_five_blunders_end_the_session(sandbox: Sandbox) -> None:
    """The fifth protocol error is answered with 421 4.7.0, and the line closes."""
    async with connected(sandbox) as client:
        codes = [(await client.say("BLAH")).code for _ in range(4)]
        assert str(await client.say("BLAH")).startswith("421 4.7.0 Too many errors on this connection")
        assert codes == [500] * 4
        assert await client.closed()


async def test_what_stands_behind_starttls_in_clear_is_thrown_away(sandbox: Sandbox) -> None:
    """A command injected behind STARTTLS is not answered inside TLS (RFC 3207)."""
    async with connected(sandbox) as client:
        await client.say("EHLO client.example")
        await client.raw(b"STARTTLS\r\nNOOP\r\n")
        assert (await client.reply()).code == 220
        tls = ssl.create_default_context(cafile=sandbox.ca_file)
        await client.writer.start_tls(tls, server_hostname="localhost")
        assert (await client.say(f"MAIL FROM:<{MAILBOX}>")).text.startswith("5.5.2 Send hello first")


async def test_an_idle_session_is_ended(sandbox: Sandbox) -> None:
    """After the idle time the server says 451 4.7.0 and closes."""
    sandbox.switch(idle_seconds=0.05)

    async with connected(sandbox) as client:
        assert str(await client.reply()).startswith("451 4.7.0 Timeout waiting for client input")
        assert await client.closed()


async def test_an_idle_session_can_be_dropped_without_a_word(sandbox: Sandbox) -> None:
    """Some sessions just end; so can the sandbox's."""
    sandbox.switch(idle_seconds=0.05, idle_goodbye="none")

    async with connected(sandbox) as client:
        assert await client.closed()


async def test_a_session_ends_after_its_time_even_while_it_is_busy(sandbox: Sandbox) -> None:
    """The total time of a session is limited too."""
    sandbox.switch(session_seconds=0.2)

    async with connected(sandbox) as client:
        await client.raw(b"NOOP\r\n")
        while (answer := await client.reply()).code == 250:
            await client.raw(b"NOOP\r\n")
        assert str(answer).startswith("421 4.4.1 Connection timed out")


async def test_a_service_that_is_down_says_so_at_once(sandbox: Sandbox) -> None:
    """While the service is not available, the greeting is 421 4.3.2."""
    sandbox.switch(available=False)

    async with connected(sandbox) as client:
        assert str(client.greeting).startswith("421 4.3.2 Service not available")


@pytest.mark.parametrize(("mood", "offered", "code"), [("absent", False, 500), ("refused", True, 454)])
async def test_starttls_can_be_absent_or_refused(
    sandbox: Sandbox, mood: str, offered: bool, code: int
) -> None:
    """A stripped or refused STARTTLS leaves the session in clear text, where nobody can log in."""
    sandbox.switch(starttls=mood)

    async with connected(sandbox) as client:
        assert ("STARTTLS" in (await client.say("EHLO client.example")).lines) is offered
        assert (await client.say("STARTTLS")).code == code
        assert str(await client.say(f"AUTH LOGIN {encoded(MAILBOX)}")).startswith("530 5.7.0")
        assert str(await client.say(f"MAIL FROM:<{MAILBOX}>")).startswith("530 5.7.0 Must issue a STARTTLS")


async def test_a_client_that_vanishes_leaves_nothing_behind(sandbox: Sandbox) -> None:
    """A connection lost in the content is no message, and its place is free again."""
    async with logged_in(sandbox) as client:
        await client.envelope("ana@fabrikam.com")
        await client.raw(b"From: <noreply@contoso.com>\r\n\r\nhalf")

    async with logged_in(sandbox) as client:
        assert (await client.send("ana@fabrikam.com")).code == 250
    assert len(sandbox.taken) == 1


async def test_a_message_whose_dot_came_is_taken_though_the_client_left(sandbox: Sandbox) -> None:
    """Leaving right after the dot does not undo the message: that is why its fate is uncertain."""
    async with logged_in(sandbox) as client:
        await client.envelope("ana@fabrikam.com")
        await client.raw(message() + b".\r\n")
        client.writer.close()

        await eventually(lambda: sandbox.taken)


async def test_rset_and_ehlo_forget_the_transaction(sandbox: Sandbox) -> None:
    """After either of them a new MAIL is welcome."""
    async with logged_in(sandbox) as client:
        for reset in ("RSET", "EHLO client.example"):
            assert (await client.say(f"MAIL FROM:<{MAILBOX}>")).code == 250
            assert (await client.say(reset)).code == 250
        assert [(await client.say(word)).code for word in ("VRFY x", "HELP", "NOOP", "QUIT")] == [
            252,
            214,
            250,
            221,
        ]


async def test_thirty_five_megabytes_are_refused_late(sandbox: Sandbox) -> None:
    """SIZE announces 150 MB to everyone; the mailbox's own limit shows only after the dot."""
    client: Client
    async with logged_in(sandbox) as client:
        assert (await client.say(f"MAIL FROM:<{MAILBOX}> SIZE=40000000")).code == 250
        await client.say("RCPT TO:<ana@fabrikam.com>")
        await client.say("DATA")
        line = b"x" * 1022 + b"\r\n"
        await client.raw(message(body=line * (36 * 1024)))
        assert str(await client.content(b"")).startswith("550 5.2.3 RESOLVER.RST.SendSizeLimit.Sender")
        assert (await client.send("ana@fabrikam.com")).code == 250
