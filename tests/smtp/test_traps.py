"""Traps that real libraries and real servers set, each with a test that fails when it closes on us.

Where aiosmtplib itself is the trap, a test pins what it does: should it change, we hear of it.
"""

from __future__ import annotations

import asyncio

import aiosmtplib
import pytest

from service.mail.address import Address, BadAddress
from service.smtp.faults import LoginRefused, PeerGarbled, PeerRefused, TlsRefused
from service.smtp.phase import Phase
from service.smtp.session import TlsMode, open_session
from tests.peer import ScriptedPeer
from tests.smtp.builders import (
    ANA,
    BEN,
    CONTENT,
    LOGIN,
    ONE_BY_ONE,
    PASSWORD,
    SHORT,
    a_session,
    an_envelope,
    send,
)
from tests.waiting import eventually


async def library(peer: ScriptedPeer, **settings: object) -> aiosmtplib.SMTP:
    client = aiosmtplib.SMTP(hostname=peer.host, port=peer.port, timeout=SHORT, **settings)  # type: ignore[arg-type]  # as its users call it
    await client.connect()
    return client


# 1. The phase that matters most.


async def library_trouble(phase: str, then: str) -> tuple[type[BaseException], str]:
    """What aiosmtplib's sendmail tells of an accident."""
    async with ScriptedPeer() as peer:
        peer.on(phase, then=then)  # type: ignore[arg-type]  # "close" or "stall"
        client = await library(peer)
        with pytest.raises(aiosmtplib.SMTPException) as caught:
            await client.sendmail("a@contoso.com", ["b@contoso.com"], CONTENT)
        client.close()
    return type(caught.value), str(caught.value)


@pytest.mark.parametrize("then", ["close", "stall"])
async def test_the_library_does_not_tell_before_the_354_from_after_the_dot(then: str) -> None:
    """Aiosmtplib raises the same error with the same words on both sides of the dot; this is why we do not use it."""
    assert await library_trouble("data", then) == await library_trouble("dot", then)


@pytest.mark.parametrize("then", ["close", "stall"])
async def test_we_tell_before_the_354_from_after_the_dot(then: str) -> None:
    """The same two accidents are a message that was not sent, and one that is uncertain."""
    told = {}
    for phase in ("data", "dot"):
        async with ScriptedPeer() as peer, a_session(peer, data=SHORT, dot=SHORT) as session:
            peer.on(phase, then=then)  # type: ignore[arg-type]  # "close" or "stall"
            report = await send(session)
            told[phase] = (report.dot_sent, report.uncertain, report.phase)

    assert told == {"data": (False, False, Phase.DATA), "dot": (True, True, Phase.DOT)}


async def test_refused_data_is_not_refused_content() -> None:
    """A 451 to DATA and a 451 to the dot stand in different places of the report."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        peer.on("data", reply="451 4.3.0 not now", times=1)
        refused_data = await send(session)
        peer.on("dot", reply="451 4.3.0 not this", times=1)
        refused_content = await send(session)

    assert refused_data.data is not None
    assert (refused_data.data.code, refused_data.final) == (451, None)
    assert refused_content.data is not None
    assert refused_content.final is not None
    assert (refused_content.data.code, refused_content.final.code) == (354, 451)


# 2. Reply smuggling.


async def test_the_library_takes_an_early_reply_for_the_final_one() -> None:
    """`354` and `250` in one segment, then 550 for the message: aiosmtplib's low level reports success."""
    async with ScriptedPeer() as peer:
        peer.on("data", reply="354 go", glue=b"250 2.0.0 early\r\n")
        peer.on("dot", reply="550 5.7.1 refused")
        client = await library(peer)
        _, answer = await client.sendmail("a@contoso.com", ["b@contoso.com"], CONTENT)
        client.close()

    assert "early" in answer
    assert not peer.taken


@pytest.mark.parametrize(
    "early", [b"250 2.0.0 early\r\n", b"250-2.0.0 early\r\n", b"2", b"550 5.0.0 early\r\n"]
)
async def test_what_comes_glued_to_the_354_ends_the_transaction(early: bytes) -> None:
    """Octets behind the 354 cannot become the final reply: no dot is sent."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        peer.on("data", reply="354 go", glue=early)
        peer.on("dot", reply="550 5.7.1 refused")
        report = await send(session)

    assert isinstance(report.fault, PeerRefused if early.startswith(b"550") else PeerGarbled)
    assert (report.dot_sent, report.final) == (False, None)
    assert not peer.transactions[0].dot


async def test_an_early_reply_in_a_segment_of_its_own_is_seen_before_the_dot() -> None:
    """A 250 that comes while content travels ends the transaction without a dot."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        peer.on("body", reply="250 2.0.0 early", after_octets=1)
        peer.on("dot", reply="550 5.7.1 refused")

        async def fence() -> bool:
            # All of the content has left, so the peer's early word is on its way: wait for it.
            await eventually(lambda: not session.usable)
            return True

        report = await send(session, before_dot=fence)

    assert isinstance(report.fault, PeerGarbled)
    assert report.fault.code == "early_reply"
    assert not report.dot_sent


async def test_what_comes_glued_to_the_final_reply_makes_it_uncertain() -> None:
    """`250` and `550` in one segment after the dot: nobody knows which one is meant."""
    for both in (b"250 2.0.0 OK\r\n550 5.7.1 no\r\n", b"550 5.7.1 no\r\n250 2.0.0 OK\r\n"):
        async with ScriptedPeer() as peer, a_session(peer) as session:
            peer.on("dot", raw=both)
            report = await send(session)

        assert isinstance(report.fault, PeerGarbled)
        assert report.uncertain


async def test_a_late_second_reply_does_not_answer_the_next_message() -> None:
    """A reply too many is not the next MAIL's answer: the session is over before anything is sent."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        first = await send(session)
        peer.say(b"250 2.0.0 one more\r\n")
        second = await send(session)

    assert first.final is not None
    assert second.untouched
    assert len(peer.transactions) == 1


# 3. Digits.


@pytest.mark.parametrize("code", [200, 202, 250, 251, 259, 299])
async def test_after_the_dot_any_2yz_is_acceptance(code: int) -> None:
    """The library raises on 251 and 200; the standard accepts any 2yz (RFC 5321 §4.3.2)."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        peer.on("dot", reply=f"{code} 2.0.0 taken")
        report = await send(session)

    assert report.final is not None
    assert report.final.positive()
    assert report.final.code == code


async def test_the_library_raises_on_251_after_the_dot() -> None:
    """Aiosmtplib calls an accepted message refused when the code is not 250."""
    async with ScriptedPeer() as peer:
        peer.on("dot", reply="251 2.0.0 taken")
        client = await library(peer)
        with pytest.raises(aiosmtplib.SMTPDataError):
            await client.sendmail("a@contoso.com", ["b@contoso.com"], CONTENT)
        client.close()

    assert len(peer.taken) == 1


@pytest.mark.parametrize(
    "raw", [b"550-no\r\n250 yes\r\n", b"250-yes\r\n550 no\r\n", b"2_0 ok\r\n", b"+25 ok\r\n"]
)
async def test_contradicting_digits_after_the_dot_are_uncertain(raw: bytes) -> None:
    """Mixed codes and digits that are none are neither a yes nor a no."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        peer.on("dot", raw=raw)
        report = await send(session)

    assert report.uncertain
    assert isinstance(report.fault, PeerGarbled)


# 4. STARTTLS stripping, one login.


async def test_the_library_logs_in_without_tls() -> None:
    """aiosmtplib, as it comes, gives the password to a server that does not offer STARTTLS."""
    async with ScriptedPeer(logins={LOGIN.username: PASSWORD}, login_without_tls=True) as peer:
        client = await library(peer)
        await client.login(LOGIN.username, PASSWORD)
        client.close()

    assert peer.logins_tried == [("LOGIN", LOGIN.username, PASSWORD)]


async def test_no_secret_without_starttls() -> None:
    """A server that offers AUTH and no STARTTLS gets no octet of a login."""
    async with ScriptedPeer(logins={LOGIN.username: PASSWORD}, login_without_tls=True) as peer:
        with pytest.raises(TlsRefused) as caught:
            await open_session(peer.as_peer(tls=TlsMode.REQUIRED), LOGIN, session_id="ses_test")

    assert caught.value.code == "starttls_not_offered"
    assert peer.logins_tried == []
    assert peer.commands == ["EHLO client.contoso.com"]


async def test_no_secret_behind_a_wrong_certificate() -> None:
    """Somebody in between with a certificate of his own gets no octet of a login."""
    async with ScriptedPeer(tls=True, logins={}, certificate_untrusted=True) as peer:
        with pytest.raises(TlsRefused):
            await open_session(peer.as_peer(), LOGIN, session_id="ses_test")

    assert peer.logins_tried == []


@pytest.mark.parametrize(
    "injected", [b"250 STARTTLS\r\n", b"235 2.7.0 come in\r\n", b"2", b"421 4.3.2 bye\r\n"]
)
async def test_what_is_injected_before_tls_ends_the_session(injected: bytes) -> None:
    """Octets behind the 220 to STARTTLS are not read as if they had come through TLS (RFC 3207 §6)."""
    async with ScriptedPeer(tls=True, logins={LOGIN.username: PASSWORD}) as peer:
        peer.on("starttls", reply="220 2.0.0 go", glue=injected)
        with pytest.raises((PeerGarbled, PeerRefused)) as caught:
            await open_session(peer.as_peer(), LOGIN, session_id="ses_test")

    assert caught.value.phase is Phase.STARTTLS
    assert peer.logins_tried == []


async def test_one_refused_login_is_one_login() -> None:
    """After 535 the library tries the next mechanism; we do not."""
    async with ScriptedPeer(tls=True, logins={}, mechanisms="LOGIN XOAUTH2 PLAIN") as peer:
        with pytest.raises(LoginRefused):
            await open_session(peer.as_peer(), LOGIN, session_id="ses_test")

    assert len(peer.logins_tried) == 1


# 5. The envelope.


async def test_recipients_come_from_the_envelope_alone() -> None:
    """`Resent-To`, `To`, `Cc` and `Bcc` in the content are content."""
    content = b"To: eve@example.com\r\nResent-To: eve@example.com\r\nBcc: eve@example.com\r\n\r\nhi\r\n"
    async with ScriptedPeer() as peer, a_session(peer) as session:
        await send(session, an_envelope(ANA, BEN), content)

    assert peer.taken[0].rcpts == ("ana@example.com", "ben@example.com")


def test_two_addresses_are_not_one() -> None:
    """`a@b.c,d@e.f` is refused rather than sent to the first of them."""
    assert aiosmtplib.email.quote_address("a@b.example,d@e.example") == "<a@b.example>"
    with pytest.raises(BadAddress):
        Address.parse("a@b.example,d@e.example")


# 6. Time-outs.


async def test_the_dot_has_a_limit_of_its_own() -> None:
    """A peer that is slow after the dot is waited for, however short the other limits are."""
    answer = asyncio.Event()
    async with (
        ScriptedPeer() as peer,
        a_session(peer, mail=SHORT, rcpt=SHORT, data=SHORT, body=SHORT) as session,
    ):
        peer.on("dot", until=answer)
        asyncio.get_running_loop().call_later(3 * SHORT, answer.set)
        report = await send(session)

    assert report.final is not None


@pytest.mark.parametrize("reply", ["421 4.3.2 Service not available", "552 5.3.4 Message size exceeds"])
async def test_what_is_said_in_mid_content_is_kept(reply: str) -> None:
    """A 421 or 552 before the end of content is the reason in the report, not just a disconnect."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        peer.on("body", reply=reply, then="close", after_octets=100_000)
        report = await send(
            session,
            octets=b"Subject: large\r\n\r\n" + b"x" * 70 + b"\r\n" * 1 + (b"y" * 70 + b"\r\n") * 100_000,
        )

    assert isinstance(report.fault, PeerRefused)
    assert str(report.fault.reply) == reply
    assert not report.dot_sent


# 7. Reuse of sessions, pipelining.


@pytest.mark.parametrize("phase", ["mail", "rcpt", "data", "dot"])
async def test_a_session_is_not_used_after_an_error(phase: str) -> None:
    """After a protocol error the next message gets another session, and nothing is sent on this one."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        peer.on(phase, raw=b"what?\r\n", times=1)
        await send(session)
        before = list(peer.commands)
        second = await send(session)

    assert second.untouched
    assert peer.commands[: len(before) + 1] in (before, [*before, "QUIT"])


async def test_no_data_when_every_recipient_was_refused() -> None:
    """One command at a time: a peer that would say 354 though it refused every recipient is never asked."""
    async with ScriptedPeer(extensions=ONE_BY_ONE) as peer, a_session(peer) as session:
        peer.on("rcpt", reply="550 5.1.1 no")
        await send(session, an_envelope(ANA, BEN))

    assert "DATA" not in peer.commands


async def test_no_dot_when_every_recipient_was_refused_and_data_was_not() -> None:
    """Commands together: a 354 though every recipient was refused is met without a dot (RFC 2920 §3.1)."""
    async with ScriptedPeer(data_for_nobody="354 go on") as peer, a_session(peer) as session:
        peer.on("rcpt", reply="550 5.1.1 no")
        await send(session, an_envelope(ANA, BEN))

    (transaction,) = peer.transactions
    assert (transaction.data_reply, transaction.dot, transaction.content_octets) == ("354 go on", False, 0)
    assert not session.usable


# 8. Byte-identical retries.


async def test_the_same_octets_go_out_every_time() -> None:
    """What is handed over is what arrives, in every attempt: nothing is added, folded or repaired."""
    content = b"Message-ID: <1@contoso.com>\r\nDate: Mon, 23 Nov 2026 19:40:02 +0000\r\n\r\n.\r\n..\r\n\t \r\n\xff\r\n"
    async with ScriptedPeer() as peer:
        for _ in range(2):
            async with a_session(peer) as session:
                peer.on("dot", then="close", times=1)
                await send(session, octets=content, eightbit=True)
                await send(session, octets=content, eightbit=True)

    assert {entry.octets for entry in peer.taken} == {content}
