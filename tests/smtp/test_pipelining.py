"""Commands that leave together (RFC 2920): in order, with the same report as one by one."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence
from typing import Any

import pytest

from service.mail.address import Address
from service.smtp.faults import PeerGarbled, PeerLost, PeerRefused, PeerSilent
from service.smtp.phase import Phase
from service.smtp.session import Report
from tests.peer import MICROSOFT_EXTENSIONS, Rule, ScriptedPeer
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
    send,
)
from tests.waiting import eventually

SENDER = f"MAIL FROM:<noreply@contoso.com> SIZE={len(CONTENT)}"


def conclusions(report: Report) -> dict[str, Any]:
    """What a report says, but for the dialogue itself and its times."""
    fault = report.fault
    return {
        "phase": report.phase,
        "mail": report.mail,
        "recipients": dict(report.recipients),
        "data": report.data,
        "final": report.final,
        "fault": fault and (type(fault), fault.code, fault.phase, fault.reply),
        "dot": report.dot_sent,
        "uncertain": report.uncertain,
        "number": report.number,
    }


async def test_mail_rcpt_and_data_leave_together() -> None:
    """The peer has all commands before it has answered the first; one that does not offer it has one."""
    for extensions, together in ((MICROSOFT_EXTENSIONS, True), (ONE_BY_ONE, False)):
        answer = asyncio.Event()
        async with ScriptedPeer(extensions=extensions) as peer, a_session(peer) as session:
            held = peer.on("mail", until=answer)
            sending = asyncio.create_task(send(session, an_envelope(ANA, BEN)))
            await eventually(functools.partial(_acted, held))
            (dialogue,) = peer._open.values()
            waiting = bytes(dialogue._buffer)
            answer.set()
            report = await sending

        assert report.final is not None
        rest = b"RCPT TO:<ana@example.com>\r\nRCPT TO:<ben@example.com>\r\nDATA\r\n"
        assert waiting == (rest if together else b"")


async def test_the_transcript_has_each_line_in_the_phase_that_it_answers() -> None:
    """Commands first, then the replies, each with the phase of its command."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        peer.on("rcpt", reply="250-2.1.5 Recipient\n250 2.1.5 OK", when=lambda path: path.startswith("ben"))
        report = await send(session, an_envelope(ANA, BEN))

    assert [(entry["who"], entry["phase"], entry["text"]) for entry in report.transcript] == [
        ("us", "mail", SENDER),
        ("us", "rcpt", "RCPT TO:<ana@example.com>"),
        ("us", "rcpt", "RCPT TO:<ben@example.com>"),
        ("us", "data", "DATA"),
        ("peer", "mail", "250 2.1.0 Sender OK"),
        ("peer", "rcpt", "250 2.1.5 Recipient OK"),
        ("peer", "rcpt", "250-2.1.5 Recipient"),
        ("peer", "rcpt", "250 2.1.5 OK"),
        ("peer", "data", "354 Start mail input; end with <CRLF>.<CRLF>"),
        ("note", "body", f"({len(CONTENT):,} octets of content)"),
        ("us", "dot", "."),
        ("peer", "dot", "250 2.0.0 OK <id@contoso.com> [Hostname=PEER.PROD.OUTLOOK.COM]"),
    ]


async def test_the_offer_that_counts_is_the_last_one() -> None:
    """PIPELINING in the answer to the second EHLO is what holds over TLS."""
    async with ScriptedPeer(tls=True) as peer, a_session(peer) as session:
        assert session.pipelines
    async with ScriptedPeer(tls=True) as peer:
        peer.on("ehlo", reply="250-peer\n250 SIZE 1000000")
        peer.on("ehlo", reply="250-peer\n250-PIPELINING\n250 STARTTLS", times=1)
        async with a_session(peer) as session:
            assert not session.pipelines
            assert (await send(session)).final is not None


async def test_a_refused_sender_refuses_what_came_behind_it() -> None:
    """The 503s to RCPT and DATA are consequences: in the transcript, and nobody's reply."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        peer.on("mail", reply="501 5.1.7 Invalid address", times=1)
        report = await send(session, an_envelope(ANA, BEN))
        assert session.usable
        assert (await send(session)).final is not None

    assert report.fault is not None
    assert (report.fault.code, report.fault.reply, report.phase) == (
        "mail_refused",
        report.mail,
        Phase.MAIL,
    )
    assert (dict(report.recipients), report.data) == ({}, None)
    assert lines(report.transcript)[4:] == [
        "501 5.1.7 Invalid address",
        "503 5.5.2 Need mail command",
        "503 5.5.2 Need mail command",
        "503 5.5.2 Need rcpt command",
    ]
    assert "RSET" not in peer.commands


async def test_the_recipients_that_were_accepted_get_the_message() -> None:
    """Some refused: the others get it, each reply is its own recipient's."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        peer.on("rcpt", reply="550 5.1.1 No such user", when=lambda path: path.startswith("ana"))
        peer.on("rcpt", reply="452 4.5.3 Too many", when=lambda path: path.startswith("eve"))
        report = await send(session, an_envelope(ANA, BEN, EVE))

    assert {path: reply.code for path, reply in report.recipients.items()} == {ANA: 550, BEN: 250, EVE: 452}
    assert report.fault is None
    assert peer.taken[0].rcpts == ("ben@example.com",)


async def test_a_refused_data_behind_refused_recipients_says_nothing_new() -> None:
    """All refused, DATA refused: no fault but the recipients' replies, RSET, and the session goes on."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        peer.on("rcpt", reply="550 5.1.1 No such user", times=2)
        report = await send(session, an_envelope(ANA, BEN))
        assert (await send(session)).final is not None

    assert (report.fault, report.data, report.final, report.phase) == (None, None, None, Phase.RCPT)
    assert [reply.code for reply in report.recipients.values()] == [550, 550]
    assert lines(report.transcript)[-3:] == ["503 5.5.2 Need rcpt command", "RSET", "250 2.0.0 Resetting"]


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("refused", ["mail", "rcpt"])
async def test_a_peer_that_waits_for_content_for_nobody_gets_none(refused: str, *, tls: bool) -> None:
    """A 354 behind refusals: the connection closes; no dot, no RSET that would be content, no next message."""
    async with ScriptedPeer(tls=tls, data_for_nobody="354 go on") as peer, a_session(peer) as session:
        peer.on(refused, reply="550 5.7.1 no")
        report = await send(session, an_envelope(ANA, BEN))
        assert not session.usable
        second = await send(session)
        await eventually(lambda: peer.connections == 0)

    assert second.untouched
    assert not report.dot_sent
    assert not any(transaction.content_octets or transaction.dot for transaction in peer.transactions)
    assert "(accepted behind a refusal: closed without content)" in lines(report.transcript)
    if refused == "mail":
        assert report.fault is not None
        assert (report.fault.code, report.phase) == ("mail_refused", Phase.MAIL)
    else:
        assert (report.fault, report.phase) == (None, Phase.RCPT)
        assert [reply.code for reply in report.recipients.values()] == [550, 550]


@pytest.mark.parametrize("then", ["close", "reset"])
@pytest.mark.parametrize("refused", ["mail", "rcpt"])
async def test_a_refusal_stands_when_the_connection_ends_behind_it(refused: str, then: str) -> None:
    """Refused, and then the end of the connection: the refusal is what is known."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        peer.on(refused, reply="550 5.7.1 no", then=then)  # type: ignore[arg-type]  # one of the two words above
        report = await send(session)
        assert not session.usable

    if refused == "mail":
        assert report.fault is not None
        assert (report.fault.code, report.phase) == ("mail_refused", Phase.MAIL)
    else:
        assert (report.fault, report.phase) == (None, Phase.RCPT)
        assert report.recipients[ANA].code == 550


async def test_a_farewell_among_the_consequences_ends_the_session_only() -> None:
    """421 behind a refused MAIL: the refusal is the message's, the farewell the session's."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        peer.on("mail", reply="550 5.7.1 no", glue=b"421 4.7.0 bye\r\n", then="close")
        report = await send(session)
        assert not session.usable

    assert report.fault is not None
    assert report.fault.code == "mail_refused"
    assert "421 4.7.0 bye" in lines(report.transcript)


async def test_data_refused_though_a_recipient_was_accepted() -> None:
    """A 4yz to DATA is the message's: RSET, and the session goes on."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        peer.on("data", reply="451 4.3.1 Try later", times=1)
        report = await send(session)
        assert (await send(session)).final is not None

    assert report.fault is not None
    assert (report.fault.code, report.phase, report.data) == ("data_refused", Phase.DATA, report.fault.reply)
    assert peer.transactions[0].ended == "rset"


@pytest.mark.parametrize("place", ["mail", "ana", "ben", "data"])
@pytest.mark.parametrize("then", ["close", "reset", "stall"])
async def test_the_phase_is_the_one_whose_reply_is_missing(place: str, then: str) -> None:
    """Lost or silent at each reply: what was answered is kept, and the phase is that of the first missing one."""
    phase = Phase.RCPT if place in {"ana", "ben"} else Phase.named(place)
    async with ScriptedPeer() as peer, a_session(peer, None, **{phase.word: SHORT}) as session:
        peer.on(
            phase,
            then=then,  # type: ignore[arg-type]  # one of the three words above
            when=lambda path: phase is not Phase.RCPT or path.startswith(place),
        )
        report = await send(session, an_envelope(ANA, BEN))
        assert not session.usable

    assert isinstance(report.fault, PeerSilent if then == "stall" else PeerLost)
    assert (report.fault.phase, report.phase) == (phase, phase)
    assert (report.mail is not None) == (place != "mail")
    assert list(report.recipients) == {"mail": [], "ana": [], "ben": [ANA], "data": [ANA, BEN]}[place]
    assert report.transcript[-1]["phase"] == phase.word
    assert not report.dot_sent
    assert not peer.taken


async def test_each_reply_has_the_limit_of_its_own_command() -> None:
    """A slow DATA is waited for by its own limit, however short that of MAIL and RCPT."""
    answer = asyncio.Event()
    async with ScriptedPeer() as peer, a_session(peer, mail=SHORT, rcpt=SHORT) as session:
        peer.on("data", until=answer)
        asyncio.get_running_loop().call_later(3 * SHORT, answer.set)
        report = await send(session)

    assert report.final is not None


# What a peer says instead of its reply, at places of which `ana` and `ben` are recipients.
MISCOUNTED: dict[str, list[tuple[str, bytes]]] = {
    "one too many to MAIL": [("mail", b"250 ok\r\n250 ok\r\n")],
    "one too many to MAIL, a recipient refused": [("mail", b"250 ok\r\n250 ok\r\n"), ("ben", b"550 no\r\n")],
    "a refusal too many to MAIL": [("mail", b"550 no\r\n250 ok\r\n")],
    "one too many to RCPT": [("ana", b"250 ok\r\n250 ok\r\n")],
    "a refusal too many to RCPT": [("ben", b"250 ok\r\n550 no\r\n")],
    "one too few to RCPT": [("ben", b"")],
    "one too few to MAIL, and the rest refused": [("mail", b"")],
    "a yes to DATA": [("data", b"250 ok\r\n")],
    "a question to MAIL": [("mail", b"334 who\r\n")],
    "a 354 to RCPT": [("ana", b"354 go\r\n")],
}


@pytest.mark.parametrize("case", list(MISCOUNTED))
@pytest.mark.parametrize("tls", [False, True])
async def test_replies_that_cannot_be_matched_are_nobodys(case: str, *, tls: bool) -> None:
    """A reply too many, too few or of a wrong kind: nothing is sent, and no reply is reported as anybody's."""
    async with ScriptedPeer(tls=tls) as peer, a_session(peer, data=SHORT) as session:
        for place, raw in MISCOUNTED[case]:
            phase = Phase.RCPT if place in {"ana", "ben"} else Phase.named(place)
            peer.on(phase, raw=raw, when=_starts(place if phase is Phase.RCPT else ""))
        report = await send(session, an_envelope(ANA, BEN))
        assert not session.usable

    silent = case == "one too few to MAIL, and the rest refused"
    assert isinstance(report.fault, PeerSilent if silent else PeerGarbled), report.fault
    assert (report.mail, dict(report.recipients), report.data) == (None, {}, None)
    assert not report.dot_sent
    assert not peer.taken
    assert not any(transaction.dot for transaction in peer.transactions)


async def test_garbage_between_replies_is_found_at_its_place() -> None:
    """What is no reply stops the reading there; the replies before it stay."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        peer.on("rcpt", raw=b"what?\r\n", when=_starts("ben"))
        report = await send(session, an_envelope(ANA, BEN))

    assert isinstance(report.fault, PeerGarbled)
    assert (report.fault.code, report.phase) == ("bad_digits", Phase.RCPT)
    assert list(report.recipients) == [ANA]


async def test_what_comes_before_the_commands_stops_them() -> None:
    """A word out of turn before MAIL: nothing is sent on this session."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        peer.say(b"250 2.0.0 here I am\r\n")
        report = await send(session)

    assert report.untouched
    assert not peer.transactions


async def test_many_recipients_in_one_write() -> None:
    """Five hundred recipients, a peer that answers while we still write: nobody waits for the other."""
    paths = tuple(Address.parse(f"somebody{number}@example.com") for number in range(500))
    async with ScriptedPeer() as peer, a_session(peer) as session:
        report = await send(session, an_envelope(*paths))

    assert report.accepted == paths
    assert peer.taken[0].rcpts == tuple(map(str, paths))


SCRIPTS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "all is well": [],
    "a sender refused": [("mail", {"reply": "550 5.1.8 no"})],
    "a sender deferred": [("mail", {"reply": "451 4.1.8 later"})],
    "a farewell to MAIL": [("mail", {"reply": "421 4.3.2 bye", "then": "close"})],
    "one recipient refused": [("ana", {"reply": "550 5.1.1 no"})],
    "both recipients refused": [("rcpt", {"reply": "550-5.1.1 no\n550 5.1.1 really"})],
    "a farewell to a recipient": [("ben", {"reply": "421 4.3.2 bye"})],
    "one refused, a farewell to the other": [("ana", {"reply": "550 no"}), ("ben", {"reply": "421 4.3.2 bye"})],
    "DATA refused": [("data", {"reply": "554 5.6.0 no"})],
    "a farewell to DATA": [("data", {"reply": "421 4.3.2 bye", "then": "close"})],
    "lost at MAIL": [("mail", {"then": "close"})],
    "lost at the second recipient": [("ben", {"then": "close"})],
    "lost at DATA": [("data", {"then": "reset"})],
    "garbage at a recipient": [("ana", {"raw": b"2_0 ok\r\n"})],
    "glued to the 354": [("data", {"raw": b"354 go\r\n250 early\r\n"})],
    "refused after the dot": [("dot", {"reply": "554 5.2.252 SendAsDenied"})],
    "a farewell to the dot": [("dot", {"reply": "421 4.3.2 bye", "then": "close"})],
    "lost after the dot": [("dot", {"then": "close"})],
    "two replies to the dot": [("dot", {"raw": b"250 ok\r\n550 no\r\n"})],
    "RSET fails": [("rcpt", {"reply": "550 no"}), ("rset", {"then": "close"})],
}  # fmt: skip


@pytest.mark.parametrize("script", list(SCRIPTS))
async def test_the_report_is_the_same_as_one_by_one(script: str) -> None:
    """For the same replies the report says the same, whether commands leave together or one by one."""
    reports = []
    for extensions in (MICROSOFT_EXTENSIONS, ONE_BY_ONE):
        async with ScriptedPeer(extensions=extensions) as peer, a_session(peer) as session:
            script_peer(peer, SCRIPTS[script])
            report = await send(session, an_envelope(ANA, BEN))
            reports.append((conclusions(report), session.usable, len(peer.taken)))

    assert reports[0] == reports[1]


def script_peer(peer: ScriptedPeer, script: Sequence[tuple[str, dict[str, Any]]]) -> list[Rule]:
    """Set rules for phases; `ana` and `ben` are those recipients."""
    return [
        peer.on("rcpt", **rule, when=_starts(place)) if place in {"ana", "ben"} else peer.on(place, **rule)
        for place, rule in script
    ]


def _acted(rule: Rule) -> bool:
    return rule.acted > 0


def _starts(beginning: str) -> Any:
    return lambda argument: argument.startswith(beginning)


async def test_a_421_ends_all_whatever_was_said_behind_it() -> None:
    """A farewell to MAIL with a 250 and a 354 behind it: no content."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        peer.on("mail", reply="421 4.3.2 Service not available")
        report = await send(session)
        assert not session.usable

    assert isinstance(report.fault, PeerRefused)
    assert (report.fault.code, report.phase) == ("closing", Phase.MAIL)
    assert not report.dot_sent
