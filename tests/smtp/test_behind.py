"""The next message's commands behind the dot: each message keeps its own story, whatever becomes of the other."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import pytest

from service.mail.address import Address
from service.smtp.faults import ExtensionMissing, PeerGarbled, PeerLost, PeerRefused, PeerSilent, SmtpFault
from service.smtp.phase import Phase
from service.smtp.session import Parcel, Report, Session
from tests.peer import MICROSOFT_EXTENSIONS, ScriptedPeer
from tests.smtp.builders import (
    ANA,
    BEN,
    CONTENT,
    EVE,
    ONE_BY_ONE,
    SHORT,
    a_parcel,
    a_session,
    an_envelope,
    lines,
    no,
    yes,
)
from tests.waiting import eventually

OTHER_CONTENT = b"Subject: another\r\n\r\n.not the first\r\n"


def two_parcels() -> tuple[Parcel, Parcel]:
    return a_parcel(an_envelope(ANA)), a_parcel(an_envelope(BEN), OTHER_CONTENT)


async def both(session: Session) -> tuple[Report, Report]:
    """Transmit two messages, the second begun behind the first one's dot."""
    this, other = two_parcels()
    first = await session.transmit(this, before_dot=yes, behind=lambda: other)
    assert session.begun is other
    second = await session.transmit(other, before_dot=yes)
    assert session.begun is None
    return first, second


def assert_harmless(report: Report) -> None:
    """The session ended with the message before: nothing of this one is at the peer, nobody is to blame."""
    assert isinstance(report.fault, PeerLost)
    assert (report.fault.code, report.fault.phase) == ("session_ended_behind", Phase.MAIL)
    assert (report.begun_behind, report.untouched, report.phase) == (True, False, Phase.MAIL)
    assert (report.mail, dict(report.recipients), report.data, report.final) == (None, {}, None, None)
    assert not report.dot_sent
    assert not report.uncertain
    assert lines(report.transcript)[:3] == [
        f"MAIL FROM:<noreply@contoso.com> SIZE={len(OTHER_CONTENT)}",
        "RCPT TO:<ben@example.com>",
        "DATA",
    ]
    assert lines(report.transcript)[-1] == "(the session ended with the message before this one)"


@pytest.mark.parametrize("tls", [False, True])
async def test_the_next_message_is_begun_behind_the_dot(*, tls: bool) -> None:
    """Dot and commands are one write; both messages arrive as they are, each with its own story."""
    async with ScriptedPeer(tls=tls) as peer, a_session(peer) as session:
        first, second = await both(session)
        assert session.usable
        third = await session.transmit(a_parcel(an_envelope(EVE)), before_dot=yes)

    assert [(taken.rcpts, taken.octets) for taken in peer.taken] == [
        (("ana@example.com",), CONTENT),
        (("ben@example.com",), OTHER_CONTENT),
        (("eve@example.com",), CONTENT),
    ]
    assert [report.number for report in (first, second, third)] == [1, 2, 3]
    assert session.messages == 3
    for report in (first, second, third):
        assert (report.fault, report.phase, report.dot_sent) == (None, Phase.REPLY, True)
        assert report.final is not None
        assert not report.begun_behind
        said = [(entry["who"], entry["phase"]) for entry in report.transcript]
        assert said == [
            *[("us", "mail"), ("us", "rcpt"), ("us", "data")],
            *[("peer", "mail"), ("peer", "rcpt"), ("peer", "data")],
            *[("note", "body"), ("us", "dot"), ("peer", "dot")],
        ]
    assert lines(second.transcript)[1] == "RCPT TO:<ben@example.com>"
    assert moment(first, -2) <= moment(second, 0) <= moment(second, 3)


async def test_a_long_row_of_messages() -> None:
    """Each message begins the next one: all arrive in order, over one session."""
    parcels = [a_parcel(an_envelope(Address.parse(f"r{number}@example.com"))) for number in range(20)]
    async with ScriptedPeer() as peer, a_session(peer) as session:
        for number, parcel in enumerate(parcels):
            following = parcels[number + 1] if number + 1 < len(parcels) else None
            report = await session.transmit(
                parcel, before_dot=yes, behind=functools.partial(_given, following)
            )
            assert (report.fault, report.number) == (None, number + 1)
            assert session.begun is following

    assert [taken.rcpts[0] for taken in peer.taken] == [f"r{number}@example.com" for number in range(20)]
    assert peer.sessions == 1


async def test_behind_is_asked_when_the_dot_leaves_and_not_before() -> None:
    """The next message is chosen after the fence said yes, once."""
    story: list[str] = []

    async def fence() -> bool:
        story.append("fence")
        return True

    def behind() -> Parcel | None:
        story.append("behind")
        return None

    async with ScriptedPeer() as peer, a_session(peer) as session:
        report = await session.transmit(a_parcel(), before_dot=fence, behind=behind)
        assert session.begun is None
        assert (report.final is not None, session.messages) == (True, 1)

    assert story == ["fence", "behind"]
    assert len(peer.transactions) == 1


@pytest.mark.parametrize("hindrance", ["fence", "refused", "spoken", "gone", "one by one"])
async def test_behind_is_not_asked_when_no_dot_leaves(hindrance: str) -> None:
    """Nor where the peer takes one command at a time."""
    asked: list[bool] = []

    def behind() -> Parcel | None:
        asked.append(True)
        return a_parcel()

    async with (
        ScriptedPeer(extensions=ONE_BY_ONE if hindrance == "one by one" else MICROSOFT_EXTENSIONS) as peer,
        a_session(peer) as session,
    ):

        async def fence() -> bool:
            if hindrance == "spoken":
                peer.say(b"421 4.3.2 bye\r\n")
            if hindrance == "gone":
                await peer.hang_up()
            return True

        if hindrance == "refused":
            peer.on("data", reply="451 4.3.1 later")
        before_dot = no if hindrance == "fence" else fence
        report = await session.transmit(a_parcel(), before_dot=before_dot, behind=behind)
        assert session.begun is None

    assert asked == []
    assert report.dot_sent is (hindrance == "one by one")
    assert len(peer.transactions) == 1


async def test_a_message_that_the_peer_cannot_take_is_left_alone() -> None:
    """What needs an extension that is missing is not begun, and hurts nobody; its own turn says why."""
    extensions = [line for line in MICROSOFT_EXTENSIONS if line != "8BITMIME"]
    unsuited = a_parcel(eightbit=True)
    async with ScriptedPeer(extensions=extensions) as peer, a_session(peer) as session:
        first = await session.transmit(a_parcel(), before_dot=yes, behind=lambda: unsuited)
        assert session.begun is None
        second = await session.transmit(unsuited, before_dot=yes)
        third = await session.transmit(a_parcel(), before_dot=yes)

    assert first.final is not None
    assert isinstance(second.fault, ExtensionMissing)
    assert (second.begun_behind, second.number, third.number) == (False, 0, 2)
    assert len(peer.transactions) == 2


@pytest.mark.parametrize("final", ["250 2.0.0 OK", "299 fine", "451 4.3.1 later", "554 5.2.252 SendAsDenied"])
@pytest.mark.parametrize("tls", [False, True])
async def test_any_final_reply_lets_the_next_message_go_on(final: str, *, tls: bool) -> None:
    """Taken or refused: the reply to the dot is its message's alone."""
    async with ScriptedPeer(tls=tls) as peer, a_session(peer) as session:
        peer.on("dot", reply=final, times=1)
        first, second = await both(session)

    assert first.final is not None
    assert str(first.final) == final
    assert first.fault is None
    assert second.final is not None
    assert second.final.positive()


async def test_the_first_report_does_not_wait_for_the_second_message() -> None:
    """The reply to the dot is the end of its transmit, though nothing has been said to what is behind it."""
    this, other = two_parcels()
    async with ScriptedPeer() as peer, a_session(peer) as session:
        go_on = asyncio.Event()
        peer.on("mail", until=go_on, when=lambda _: len(peer.taken) == 1)
        first = await session.transmit(this, before_dot=yes, behind=lambda: other)
        assert first.final is not None
        assert session.messages == 2
        go_on.set()
        second = await session.transmit(other, before_dot=yes)

    assert second.final is not None


ENDS: dict[str, tuple[dict[str, Any], bool]] = {  # what the peer does with the dot, and whether that is uncertain
    "closes": ({"then": "close"}, True),
    "resets": ({"then": "reset"}, True),
    "is silent": ({"then": "stall"}, True),
    "closes in mid-reply": ({"raw": b"250-2.0.0 half", "then": "close"}, True),
    "says a code that is none": ({"raw": b"2_0 ok\r\n"}, True),
    "changes its mind": ({"raw": b"250-yes\r\n550 no\r\n"}, True),
    "asks for more": ({"raw": b"354 go on\r\n"}, True),
    "says farewell": ({"reply": "421 4.3.2 bye", "then": "close"}, False),
    "says farewell and stays": ({"reply": "421 4.3.2 bye"}, False),
    "takes it and closes": ({"reply": "250 2.0.0 OK", "then": "close"}, False),
    "takes it and resets": ({"reply": "250 2.0.0 OK", "then": "reset"}, False),
    "refuses it and closes": ({"reply": "554 5.7.1 no", "then": "close"}, False),
}  # fmt: skip


@pytest.mark.parametrize("end", list(ENDS))
@pytest.mark.parametrize("tls", [False, True])
async def test_a_session_that_ends_with_a_message_does_no_harm_to_the_next(end: str, *, tls: bool) -> None:
    """The first report says what it says alone; the second one that its session ended behind another."""
    script, uncertain = ENDS[end]
    alone = {}
    for behind in (False, True):
        this, other = two_parcels()
        async with ScriptedPeer(tls=tls) as peer, a_session(peer, dot=SHORT) as session:
            peer.on("dot", **script)
            asked = functools.partial(_given, other if behind else None)
            first = await session.transmit(this, before_dot=yes, behind=asked)
            alone[behind] = (
                *(first.phase, first.dot_sent, first.uncertain, first.fenced),
                *(first.final, first.fault and first.fault.code),
            )
            if behind:
                assert session.begun is other
                second = await session.transmit(other, before_dot=yes)
                assert_harmless(second)
                third = await session.transmit(a_parcel(), before_dot=yes)
                assert third.untouched
            await session.close()

    assert alone[True] == alone[False]
    assert alone[True][2] is uncertain
    assert not any(transaction.dot for transaction in peer.transactions[1:])


async def test_the_next_message_may_break_by_itself() -> None:
    """What happens once the peer has answered its MAIL is its own accident."""
    accidents: list[tuple[str, dict[str, Any], type[SmtpFault]]] = [
        ("mail", {"then": "stall"}, PeerSilent),
        ("mail", {"raw": b"what?\r\n"}, PeerGarbled),
        ("mail", {"reply": "421 4.3.2 bye"}, PeerRefused),
        ("rcpt", {"then": "close"}, PeerLost),
        ("data", {"then": "reset"}, PeerLost),
    ]
    for phase, script, kind in accidents:
        async with ScriptedPeer() as peer, a_session(peer, mail=SHORT) as session:
            peer.on(phase, **script, when=functools.partial(_second, peer))
            first, second = await both(session)

        assert first.final is not None
        assert isinstance(second.fault, kind), second.fault
        assert (second.begun_behind, second.phase) == (False, Phase.named(phase))
        assert not second.dot_sent


@pytest.mark.parametrize("refused", ["mail", "rcpt", "data"])
async def test_the_next_message_may_be_refused(refused: str) -> None:
    """A refusal behind the dot is a refusal like any other, and the session goes on."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        peer.on(refused, reply="550 5.7.1 no", when=lambda _: len(peer.taken) == 1)
        first, second = await both(session)
        peer.behave()
        third = await session.transmit(a_parcel(), before_dot=yes)

    assert first.final is not None
    assert second.final is None
    assert (second.fault and second.fault.code) == (None if refused == "rcpt" else f"{refused}_refused")
    assert third.final is not None


async def test_a_354_for_nobody_behind_a_dot_gets_no_content() -> None:
    """The next message's recipients refused, DATA not: the connection closes, the first message is not touched."""
    async with ScriptedPeer(data_for_nobody="354 go on") as peer, a_session(peer) as session:
        peer.on("rcpt", reply="550 5.1.1 no", when=lambda path: path.startswith("ben"))
        first, second = await both(session)
        assert not session.usable

    assert first.final is not None
    assert second.recipients[BEN].code == 550
    assert [transaction.dot for transaction in peer.transactions] == [True, False]


async def test_the_next_message_has_its_own_fence() -> None:
    """A "no" to the second dot leaves the second message nowhere, and the first where it is."""
    this, other = two_parcels()
    async with ScriptedPeer() as peer, a_session(peer) as session:
        await session.transmit(this, before_dot=yes, behind=lambda: other)
        second = await session.transmit(other, before_dot=no)

    assert second.fenced
    assert len(peer.taken) == 1


async def test_a_cancelled_message_takes_the_next_one_with_it() -> None:
    """Who is cancelled while waiting for the reply ends the session for what is behind."""
    this, other = two_parcels()
    async with ScriptedPeer() as peer, a_session(peer) as session:
        peer.on("dot", then="stall")
        sending = asyncio.create_task(session.transmit(this, before_dot=yes, behind=lambda: other))
        await eventually(lambda: session.begun is other)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert_harmless(await session.transmit(other, before_dot=yes))


@asynccontextmanager
async def waiting_for_the_reply(
    peer: ScriptedPeer, session: Session, answer: asyncio.Event
) -> AsyncIterator[tuple[asyncio.Task[Report], Parcel]]:
    """A first message whose reply is held back, and a second one behind it."""
    this, other = two_parcels()
    peer.on("dot", until=answer)
    sending = asyncio.create_task(session.transmit(this, before_dot=yes, behind=lambda: other))
    await eventually(lambda: session.begun is other)
    yield sending, other
    answer.set()
    await asyncio.gather(sending, return_exceptions=True)


async def test_another_message_is_not_taken_while_one_is_begun() -> None:
    """A mistake of the caller's is told before anything is sent, and hurts nobody."""
    answer = asyncio.Event()
    async with (
        ScriptedPeer() as peer,
        a_session(peer) as session,
        waiting_for_the_reply(peer, session, answer) as (sending, other),
    ):
        with pytest.raises(RuntimeError, match="under way"):
            await session.transmit(a_parcel(), before_dot=yes)
        with pytest.raises(RuntimeError, match="under way"):
            await session.transmit(other, before_dot=yes)
        with pytest.raises(RuntimeError, match="under way"):
            await session.rehearse(an_envelope())
        with pytest.raises(RuntimeError, match="not begun"):
            session.disown(a_parcel())
        answer.set()
        first = await sending
        with pytest.raises(RuntimeError, match="under way"):
            await session.transmit(a_parcel(), before_dot=yes)
        with pytest.raises(RuntimeError, match="under way"):
            await session.probe()
        second = await session.transmit(other, before_dot=yes)

    assert first.final is not None
    assert second.final is not None


async def test_who_does_not_want_to_wait_disowns() -> None:
    """The second report is made at once; the first message hears its reply; then the session ends."""
    answer = asyncio.Event()
    async with (
        ScriptedPeer() as peer,
        a_session(peer) as session,
        waiting_for_the_reply(peer, session, answer) as (sending, other),
    ):
        assert_harmless(session.disown(other))
        assert session.begun is None
        assert not session.usable
        assert not sending.done()
        answer.set()
        first = await sending
        await eventually(lambda: peer.connections == 0)
        third = await session.transmit(a_parcel(), before_dot=yes)

    assert first.final is not None
    assert first.fault is None
    assert third.untouched
    assert len(peer.taken) == 1
    assert not any(transaction.content_octets for transaction in peer.transactions[1:])


async def test_disowned_when_its_turn_has_come() -> None:
    """Nobody waits any more: the session ends at once."""
    this, other = two_parcels()
    async with ScriptedPeer() as peer, a_session(peer) as session:
        await session.transmit(this, before_dot=yes, behind=lambda: other)
        report = session.disown(other)
        await eventually(lambda: peer.connections == 0)

    assert report.begun_behind
    assert "QUIT" not in peer.commands


async def test_a_session_with_a_message_begun_is_closed_without_a_word() -> None:
    """A QUIT could be taken for content: closing cuts the connection, and the begun message is told."""
    this, other = two_parcels()
    async with ScriptedPeer() as peer, a_session(peer) as session:
        await session.transmit(this, before_dot=yes, behind=lambda: other)
        await session.close()
        second = await session.transmit(other, before_dot=yes)
        await eventually(lambda: peer.connections == 0)

    assert second.begun_behind
    assert peer.transactions[1].content_octets == 0


async def test_an_unasked_word_behind_all_replies_stops_the_next_content() -> None:
    """A farewell between the two messages, behind a 354, is heard before the first octet of content."""
    this, other = two_parcels()
    async with ScriptedPeer() as peer, a_session(peer) as session:
        await session.transmit(this, before_dot=yes, behind=lambda: other)
        await eventually(lambda: len(session._wire._replies) == 3)
        peer.say(b"421 4.3.2 bye\r\n")
        await eventually(lambda: not session.usable)
        second = await session.transmit(other, before_dot=yes)

    assert isinstance(second.fault, PeerRefused)
    assert (second.fault.code, second.dot_sent) == ("closing", False)
    assert "421 4.3.2 bye" in lines(second.transcript)
    assert peer.transactions[1].content_octets == 0


def _given(parcel: Parcel | None) -> Parcel | None:
    return parcel


def _second(peer: ScriptedPeer, argument: str) -> bool:
    """Whether one message has been taken."""
    return len(peer.taken) == 1


def moment(report: Report, place: int) -> datetime:
    return datetime.fromisoformat(report.transcript[place]["at"])
