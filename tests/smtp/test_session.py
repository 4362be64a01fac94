"""One transaction after another: what is sent, what is kept, when a session goes on."""

import asyncio
import json

import pytest

from service.mail.address import Address
from service.smtp.faults import (
    ContentUnfit,
    ExtensionMissing,
    PeerGarbled,
    PeerLost,
    PeerRefused,
    PeerSilent,
)
from service.smtp.phase import Phase
from service.smtp.session import Report
from tests.peer import MICROSOFT_EXTENSIONS, PATIENT, ScriptedPeer
from tests.smtp.builders import (
    ANA,
    BEN,
    CONTENT,
    EVE,
    ONE_BY_ONE,
    SHORT,
    a_session,
    an_envelope,
    lines,
    no,
    send,
)
from tests.waiting import eventually

BIG = (b"x" * 76 + b"\r\n") * 200_000  # 15.6 MB: more than all buffers on the way hold


async def test_a_message_arrives_as_it_is() -> None:
    """The peer gets envelope and content octet by octet, and the report has every reply."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        report = await send(session, an_envelope(ANA, BEN))

    (taken,) = peer.taken
    assert (taken.mail, taken.rcpts, taken.octets) == (
        "noreply@contoso.com",
        ("ana@example.com", "ben@example.com"),
        CONTENT,
    )
    assert (report.phase, report.fault, report.dot_sent, report.uncertain) == (Phase.REPLY, None, True, False)
    assert report.mail is not None
    assert report.mail.enhanced == "2.1.0"
    assert {path: reply.code for path, reply in report.recipients.items()} == {ANA: 250, BEN: 250}
    assert report.accepted == (ANA, BEN)
    assert report.data is not None
    assert report.data.code == 354
    assert report.final is not None
    assert report.final.text.startswith("OK <id@contoso.com>")
    assert report.octets == len(CONTENT)
    assert report.replied_at is not None
    json.dumps(report.transcript)


async def test_the_transcript_is_the_dialogue() -> None:
    """Command by command, with the content as one note with its size."""
    async with ScriptedPeer(extensions=ONE_BY_ONE) as peer, a_session(peer) as session:
        report = await send(session)

    assert lines(report.transcript) == [
        f"MAIL FROM:<noreply@contoso.com> SIZE={len(CONTENT)}",
        "250 2.1.0 Sender OK",
        "RCPT TO:<ana@example.com>",
        "250 2.1.5 Recipient OK",
        "DATA",
        "354 Start mail input; end with <CRLF>.<CRLF>",
        f"({len(CONTENT):,} octets of content)",
        ".",
        "250 2.0.0 OK <id@contoso.com> [Hostname=PEER.PROD.OUTLOOK.COM]",
    ]


async def test_several_messages_share_a_session() -> None:
    """A session carries one message after another; each has a transcript of its own."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        reports = [await send(session) for _ in range(3)]
        assert session.usable

    assert peer.sessions == 1
    assert session.messages == 3
    assert len(peer.taken) == 3
    assert {len(report.transcript) for report in reports} == {9}


async def test_the_null_reverse_path() -> None:
    """A notification has no sender."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        await send(session, an_envelope(sender=None))

    assert peer.taken[0].mail == ""


async def test_an_empty_message_can_be_sent() -> None:
    """No octet of content is still a dialogue with a dot."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        report = await send(session, octets=b"")

    assert report.final is not None
    assert peer.taken[0].octets == b""


async def test_a_large_message_arrives_as_it_is() -> None:
    """Content of many pieces goes through TLS and back out of it unchanged."""
    content = b"".join(b"%d\r\n" % number + b"." * (number % 80) + b"\r\n" for number in range(100_000))
    async with ScriptedPeer(tls=True) as peer, a_session(peer) as session:
        report = await send(session, octets=content)

    assert report.final is not None
    assert peer.taken[0].octets == content


async def test_a_quoted_local_part_stays_within_its_command() -> None:
    """A local part with a space is quoted on the wire."""
    odd = Address.parse('"ana maria"@example.com')
    async with ScriptedPeer() as peer, a_session(peer) as session:
        report = await send(session, an_envelope(odd))

    assert report.final is not None
    assert peer.commands[2] == 'RCPT TO:<"ana maria"@example.com>'


# Extensions.


async def test_parameters_are_sent_only_when_needed_and_offered() -> None:
    """BODY and SMTPUTF8 stand in MAIL when the message needs them; SIZE when it is offered."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        await send(session)
        await send(session, eightbit=True)
        await send(session, smtputf8=True)
        await send(session, an_envelope(Address.parse("jörg@example.com")))

    size = f"SIZE={len(CONTENT)}"
    assert [entry.parameters for entry in peer.transactions] == [
        size,
        f"{size} BODY=8BITMIME",
        f"{size} SMTPUTF8",
        f"{size} SMTPUTF8",
    ]
    assert peer.taken[3].rcpts == ("jörg@example.com",)


async def test_no_size_where_none_is_offered() -> None:
    """A peer without extensions gets plain commands."""
    async with ScriptedPeer(extensions=()) as peer, a_session(peer) as session:
        report = await send(session)

    assert report.final is not None
    assert peer.transactions[0].parameters == ""


@pytest.mark.parametrize(
    ("missing", "code"), [("SMTPUTF8", "smtputf8_not_offered"), ("8BITMIME", "eightbitmime_not_offered")]
)
async def test_an_extension_that_is_missing_ends_before_mail(missing: str, code: str) -> None:
    """What the peer does not offer is not used: nothing is sent, and the session serves others."""
    extensions = [line for line in MICROSOFT_EXTENSIONS if line != missing]
    async with ScriptedPeer(extensions=extensions) as peer, a_session(peer) as session:
        report = await send(session, smtputf8=missing == "SMTPUTF8", eightbit=missing == "8BITMIME")
        assert isinstance(report.fault, ExtensionMissing)
        assert report.fault.code == code
        assert (await send(session)).final is not None

    assert len(peer.transactions) == 1


@pytest.mark.parametrize(
    ("size", "fits"),
    [("10", False), ("0", True), ("", True), ("abc", True), ("9" * 30, True), (str(len(CONTENT)), True)],
)
async def test_a_message_beyond_the_announced_size_is_not_sent(size: str, fits: bool) -> None:
    """SIZE is a promise of the peer's; 0, nothing and nonsense are no limit (RFC 1870 §4)."""
    async with ScriptedPeer(extensions=[f"SIZE {size}".strip()]) as peer, a_session(peer) as session:
        report = await send(session)

    if fits:
        assert report.final is not None
    else:
        assert isinstance(report.fault, ExtensionMissing)
        assert report.fault.code == "size_exceeded"
        assert not peer.transactions


# Refusals.


async def test_a_refused_sender_ends_the_transaction_not_the_session() -> None:
    """A 5yz to MAIL is the message's; the next message goes over the same session."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        peer.on("mail", reply="501 5.1.7 Invalid address", times=1)
        report = await send(session)
        assert isinstance(report.fault, PeerRefused)
        assert (report.fault.code, report.phase) == ("mail_refused", Phase.MAIL)
        assert report.mail == report.fault.reply
        assert (await send(session)).final is not None

    assert peer.sessions == 1


async def test_every_recipient_keeps_its_own_reply() -> None:
    """Some accepted, some not: the accepted ones get the message, and each reply is kept."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        peer.on("rcpt", reply="550 5.1.1 No such user", when=lambda path: path.startswith("ben"))
        peer.on("rcpt", reply="452 4.5.3 Too many recipients", when=lambda path: path.startswith("eve"))
        report = await send(session, an_envelope(ANA, BEN, EVE))

    assert {path: reply.code for path, reply in report.recipients.items()} == {ANA: 250, BEN: 550, EVE: 452}
    assert report.accepted == (ANA,)
    assert report.fault is None
    assert peer.taken[0].rcpts == ("ana@example.com",)


@pytest.mark.parametrize("code", [251, 252, 299])
async def test_any_2yz_accepts_a_recipient(code: int) -> None:
    """251 and 252 are acceptances too (RFC 5321 §3.4)."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        peer.on("rcpt", reply=f"{code} will forward")
        report = await send(session)

    assert report.final is not None


async def test_without_a_recipient_there_is_no_data() -> None:
    """All refused: RSET, no fault, no DATA, and the session goes on."""
    async with ScriptedPeer(extensions=ONE_BY_ONE) as peer, a_session(peer) as session:
        peer.on("rcpt", reply="550 5.1.1 No such user", times=2)
        report = await send(session, an_envelope(ANA, BEN))
        assert (report.fault, report.data, report.final, report.phase) == (None, None, None, Phase.RCPT)
        assert [reply.code for reply in report.recipients.values()] == [550, 550]
        assert (await send(session)).final is not None

    assert "DATA" not in peer.commands[: peer.commands.index("RSET")]
    assert peer.transactions[0].ended == "rset"


async def test_a_refused_data_ends_the_transaction_not_the_session() -> None:
    """A 4yz or 5yz to DATA: no content, RSET, and the session goes on."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        peer.on("data", reply="451 4.3.1 Try later", times=1)
        report = await send(session)
        assert isinstance(report.fault, PeerRefused)
        assert (report.fault.code, report.phase) == ("data_refused", Phase.DATA)
        assert report.data == report.fault.reply
        assert (await send(session)).final is not None

    assert peer.transactions[0].ended == "rset"


async def test_a_refusal_after_the_dot_is_a_reply() -> None:
    """A late 554, 2 kB on one line, is kept as it is; it is no fault, and the session goes on."""
    words = (
        "SendAsDenied; a@contoso.com not allowed to send as b@contoso.com; " + "STOREDRV.Submission " * 100
    )
    async with ScriptedPeer() as peer, a_session(peer) as session:
        peer.on("dot", reply=f"554 5.2.252 {words}", times=1)
        report = await send(session)
        assert report.fault is None
        assert report.final is not None
        assert (report.final.code, report.final.enhanced) == (554, "5.2.252")
        assert report.final.text == words.strip()
        assert (await send(session)).final is not None

    assert len(peer.taken) == 1


@pytest.mark.parametrize("phase", ["mail", "rcpt", "data"])
async def test_a_421_ends_the_session_and_is_kept(phase: str) -> None:
    """421 in answer to a command: the reply is kept, and the session is not used again."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        peer.on(phase, reply="421 4.3.2 Service not available", then="close")
        report = await send(session)
        assert not session.usable

    assert isinstance(report.fault, PeerRefused)
    assert (report.fault.code, report.phase) == ("closing", Phase.named(phase))
    assert report.fault.reply is not None
    assert report.fault.reply.enhanced == "4.3.2"
    assert not peer.taken


async def test_a_421_after_the_dot_is_the_final_reply() -> None:
    """421 to the dot says that the message was not taken; the session ends."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        peer.on("dot", reply="421 4.3.2 Service not available", then="close")
        report = await send(session)
        assert not session.usable

    assert report.final is not None
    assert report.final.code == 421
    assert not report.uncertain


async def test_a_421_for_one_recipient_ends_the_whole() -> None:
    """Who says 421 to the second recipient will not take a message for the first."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        peer.on(
            "rcpt", reply="421 4.7.0 Too many errors", then="close", when=lambda path: path.startswith("ben")
        )
        report = await send(session, an_envelope(ANA, BEN, EVE))

    assert {path: reply.code for path, reply in report.recipients.items()} == {ANA: 250, BEN: 421}
    assert report.fault is not None
    assert not report.dot_sent


@pytest.mark.parametrize("then", ["close", "reset", "stall"])
async def test_a_reset_that_fails_costs_the_session_only(then: str) -> None:
    """Trouble with RSET changes nothing in what is known of the message."""
    async with ScriptedPeer() as peer, a_session(peer, rset=SHORT) as session:
        peer.on("rcpt", reply="550 5.1.1 No such user")
        peer.on("rset", then=then)  # type: ignore[arg-type]  # one of the three words above
        report = await send(session)
        assert not session.usable

    assert report.fault is None
    assert report.phase is Phase.RCPT


# The fence.


async def test_the_fence_stands_between_content_and_dot() -> None:
    """When `before_dot` is asked, the peer has all of the content, and no dot has left."""
    seen = []
    async with ScriptedPeer() as peer, a_session(peer) as session:

        async def fence() -> bool:
            await eventually(lambda: peer.transactions[0].content_octets >= len(CONTENT))
            seen.append(peer.transactions[0].dot)
            return True

        report = await send(session, before_dot=fence)

    assert seen == [False]
    assert report.final is not None


async def test_a_fence_that_says_no_leaves_nothing() -> None:
    """False: no dot, the connection closes, the peer keeps nothing."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        report = await send(session, before_dot=no)
        assert not session.usable
        await eventually(lambda: peer.connections == 0)

    assert (report.fenced, report.dot_sent, report.final, report.fault) == (True, False, None, None)
    assert report.phase is Phase.BODY
    assert not peer.taken
    assert peer.transactions[0].ended == "lost"


async def test_a_fence_that_breaks_leaves_nothing() -> None:
    """What `before_dot` raises comes through, and no dot was sent."""

    async def broken() -> bool:
        raise ConnectionError("the ledger is gone")

    async with ScriptedPeer() as peer, a_session(peer) as session:
        with pytest.raises(ConnectionError, match="ledger"):
            await send(session, before_dot=broken)
        assert not session.usable
        await eventually(lambda: peer.connections == 0)

    assert not peer.taken


@pytest.mark.parametrize("tls", [False, True])
async def test_all_of_the_content_has_left_when_the_fence_is_asked(*, tls: bool) -> None:
    """Nothing of a large message waits in this process at the fence, with TLS and without."""
    waiting = []
    async with ScriptedPeer(tls=tls) as peer, a_session(peer) as session:

        async def fence() -> bool:
            network = session._wire._network
            assert network is not None
            waiting.append(network.get_write_buffer_size())
            return True

        report = await send(session, octets=BIG, before_dot=fence)

    assert waiting == [0]
    assert report.final is not None


async def test_the_fence_is_not_asked_when_the_peer_is_gone() -> None:
    """A message that cannot be finished costs no mark in the ledger."""
    asked = []

    async def fence() -> bool:
        asked.append(True)
        return True

    async with ScriptedPeer() as peer, a_session(peer) as session:
        peer.on("body", reply="552 5.3.4 Too big", then="close")
        await send(session, octets=BIG, before_dot=fence)

    assert asked == []


async def test_a_peer_that_leaves_during_the_fence_gets_no_dot() -> None:
    """The look after the fence sees what happened while the ledger was asked."""
    async with ScriptedPeer() as peer, a_session(peer) as session:

        async def fence() -> bool:
            await peer.hang_up()
            await eventually(lambda: not session.usable)
            return True

        report = await send(session, before_dot=fence)

    assert isinstance(report.fault, PeerLost)
    assert (report.dot_sent, report.phase) == (False, Phase.BODY)


async def test_a_peer_that_says_421_during_the_fence_gets_no_dot() -> None:
    """A farewell while the ledger was asked is the reason, and is kept."""
    async with ScriptedPeer() as peer, a_session(peer) as session:

        async def fence() -> bool:
            peer.say(b"421 4.3.2 Service not available\r\n")
            await eventually(lambda: not session.usable)
            return True

        report = await send(session, before_dot=fence)

    assert isinstance(report.fault, PeerRefused)
    assert report.fault.reply is not None
    assert report.fault.reply.code == 421
    assert not report.dot_sent
    assert not peer.taken


async def test_a_word_that_is_just_arriving_stops_the_dot() -> None:
    """The last look reads what the kernel has, however quick the fence was."""
    async with ScriptedPeer() as peer, a_session(peer) as session:

        async def fence() -> bool:
            peer.say(b"421 4.3.2 Service not available\r\n")
            return True

        report = await send(session, before_dot=fence)

    assert isinstance(report.fault, PeerRefused)
    assert not report.dot_sent
    assert not peer.taken


async def test_the_last_look_waits_for_the_network_below_tls() -> None:
    """TLS hands its octets down and calls itself empty; flushing waits until the kernel has them."""
    go_on = asyncio.Event()
    async with ScriptedPeer(tls=True) as peer, a_session(peer) as session:
        wire = session._wire
        peer.on("noop", until=go_on)  # until then the peer reads nothing
        probing = asyncio.create_task(session.probe())
        await eventually(lambda: "NOOP" in peer.commands)
        assert wire._network is not None
        while not wire._network.get_write_buffer_size():
            await wire.send(b"NOOP\r\n" * 10_000, stall=SHORT)
        with pytest.raises(PeerSilent):
            await wire.flush(stall=SHORT)
        go_on.set()
        probing.cancel()


# Content.


async def test_content_that_is_not_canonical_gets_no_dot() -> None:
    """A bare LF in the content is refused by us: the report says so, the peer keeps nothing."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        report = await send(session, octets=b"Subject: a\r\n\r\nsmuggled\n.\nMAIL FROM:<eve@example.com>\r\n")
        assert not session.usable

    assert isinstance(report.fault, ContentUnfit)
    assert not report.dot_sent
    assert not peer.taken


async def test_a_refused_content_is_not_sent_to_its_end() -> None:
    """After a 552 in the middle the rest of a large message stays here."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        peer.on("body", reply="552 5.3.4 Too big", after_octets=100_000)
        await send(session, octets=BIG)
        await eventually(lambda: peer.connections == 0)

    assert peer.transactions[0].content_octets < len(BIG)


async def test_a_word_of_a_peer_that_reads_no_more_is_heard_at_once() -> None:
    """A refusal ends the wait for room in the network; the limit for a stall need not run out."""
    speak = asyncio.Event()
    async with ScriptedPeer() as peer, a_session(peer, body=600.0) as session:
        peer.on("body", until=speak, reply="452 4.3.1 Insufficient system resources", then="stall")
        sending = asyncio.create_task(send(session, octets=BIG))
        await eventually(lambda: session._wire._paused)
        speak.set()
        report = await sending

    assert isinstance(report.fault, PeerRefused)
    assert report.fault.reply is not None
    assert report.fault.reply.code == 452


# The session itself.


@pytest.mark.parametrize(
    "farewell",
    [b"", b"421 4.4.1 Connection timed out\r\n", b"451 4.7.0 Timeout waiting for client input\r\n"],
)
async def test_a_session_that_ended_while_idle_is_nobodys_fault(farewell: bytes) -> None:
    """An idle session closed by the peer sends nothing, says `untouched`, and keeps the farewell."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        await send(session)
        peer.say(farewell)
        await peer.hang_up()
        await eventually(lambda: not session.usable)
        report = await send(session)

    assert isinstance(report.fault, PeerLost)
    assert (report.fault.code, report.fault.phase, report.phase) == (
        "session_expired",
        Phase.CONNECT,
        Phase.CONNECT,
    )
    assert report.untouched
    assert not report.dot_sent
    assert session.messages == 1
    assert len(peer.transactions) == 1
    if farewell:
        assert farewell.decode().strip() in lines(report.transcript)


async def test_a_spoken_farewell_alone_ends_an_idle_session() -> None:
    """A 421 on an idle session ends it before the connection does."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        peer.say(b"421 4.3.2 System not accepting network messages\r\n")
        await eventually(lambda: not session.usable)
        report = await send(session)

    assert report.untouched
    assert report.fault is not None
    assert report.fault.reply is not None
    assert report.fault.reply.code == 421
    assert not peer.transactions


async def test_what_arrives_just_before_a_message_is_seen() -> None:
    """The look at the beginning reads what the kernel has: no message starts on a dead session."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        await peer.hang_up()
        report = await send(session)

    assert report.untouched


async def test_a_probe_sees_whether_the_peer_is_there() -> None:
    """NOOP is answered, a lost peer is a fault, and no probe shows up in a later transcript."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        assert (await session.probe()).code == 250
        report = await send(session)
        assert lines(report.transcript)[0].startswith("MAIL")
        peer.on("noop", then="close")
        with pytest.raises(PeerLost):
            await session.probe()
        assert not session.usable


async def test_a_session_says_quit() -> None:
    """Closing is polite, waits for the 221, and can be done twice."""
    async with ScriptedPeer() as peer:
        async with a_session(peer) as session:
            pass
        await session.close()
        await eventually(lambda: peer.connections == 0)

    assert peer.commands == ["EHLO client.contoso.com", "QUIT"]
    assert not session.usable


@pytest.mark.parametrize("then", ["close", "reset", "stall"])
@pytest.mark.parametrize("tls", [False, True])
async def test_closing_never_fails(then: str, *, tls: bool) -> None:
    """Whatever the peer does with QUIT, closing ends in time and raises nothing."""
    async with ScriptedPeer(tls=tls) as peer, a_session(peer, quit=SHORT) as session:
        peer.on("quit", then=then)  # type: ignore[arg-type]  # one of the three words above
        await session.close()
        assert not session.usable


async def test_an_aborted_session_says_nothing_more() -> None:
    """Abort hangs up at once, without QUIT; a message after it is told so."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        session.abort()
        report = await send(session)
        await eventually(lambda: peer.connections == 0)

    assert report.untouched
    assert "QUIT" not in peer.commands


async def test_a_cancelled_transaction_ends_the_session() -> None:
    """Who is cancelled in the middle of a dialogue leaves no half of it behind."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        peer.on("rcpt", then="stall")
        sending = asyncio.create_task(send(session))
        await eventually(lambda: len(peer.commands) == 3)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert not session.usable
        await eventually(lambda: peer.connections == 0)

    assert not peer.taken


async def test_silence_of_the_slow_is_patience() -> None:
    """A reply that comes octet by octet, within its limit, is a reply."""
    async with ScriptedPeer() as peer, a_session(peer, dot=PATIENT) as session:
        peer.on("dot", raw=b"250-2.0.0 slow\r\n250 2.0.0 but there\r\n", pace=0.002)
        report = await send(session)

    assert report.final is not None
    assert report.final.text == "slow\nbut there"


async def test_a_repr_tells_operators_what_they_see() -> None:
    """A session prints its id, its peer and its state."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        assert repr(session) == "<Session ses_test localhost:587, 0 messages, usable>"


def test_a_report_of_silence_is_uncertain() -> None:
    """`uncertain` is: the dot was sent and no usable reply came."""

    def report(*, dot_sent: bool) -> Report:
        return Report(
            phase=Phase.DOT,
            mail=None,
            recipients={},
            data=None,
            final=None,
            fault=PeerGarbled("bad_digits", phase=Phase.DOT, detail=""),
            dot_sent=dot_sent,
            fenced=False,
            untouched=False,
            transcript=[],
            replied_at=None,
            octets=0,
        )

    assert report(dot_sent=True).uncertain
    assert not report(dot_sent=False).uncertain
