"""Every accident at every phase: what is known, what is not, and that no lost message looks sent.

The accidents before the session are told by the fault of `open_session`, those after it by
the report of `transmit`. In all of them three things hold: the phase is the one in which it
happened; `dot_sent` says the truth; a session that broke is not used again.
"""

from __future__ import annotations

from typing import Any

import pytest

from service.smtp.faults import PeerGarbled, PeerLost, PeerRefused, PeerSilent, SmtpFault
from service.smtp.phase import Phase
from service.smtp.session import Login, Report, Session, open_session
from tests.peer import MICROSOFT_EXTENSIONS, ScriptedPeer, patient_timeouts
from tests.smtp.builders import LOGIN, ONE_BY_ONE, PASSWORD, SHORT, a_session, lines, send

# What the peer does instead of its reply, and how that is called.
ACCIDENTS: dict[str, tuple[dict[str, Any], type[SmtpFault], str]] = {
    "closes": ({"then": "close"}, PeerLost, "connection_lost"),
    "resets": ({"then": "reset"}, PeerLost, "connection_lost"),
    "closes in mid-reply": ({"raw": b"250-2.0.0 half of", "then": "close"}, PeerLost, "connection_lost"),
    "is silent": ({"then": "stall"}, PeerSilent, "timeout"),
    "is silent in mid-reply": ({"raw": b"250-2.0.0 first\r\n250", "then": "stall"}, PeerSilent, "timeout"),
    "says a code that is none": ({"raw": b"2_0 ok\r\n"}, PeerGarbled, "bad_digits"),
    "says a code of four digits": ({"raw": b"2500 ok\r\n"}, PeerGarbled, "bad_digits"),
    "says a code below 200": ({"raw": b"150 go on\r\n"}, PeerGarbled, "bad_digits"),
    "speaks another protocol": ({"raw": b"HTTP/1.1 400 Bad Request\r\n\r\n"}, PeerGarbled, "bad_digits"),
    "says an empty line": ({"raw": b"\r\n250 ok\r\n"}, PeerGarbled, "bad_digits"),
    "says binary": ({"raw": bytes(range(256)) + b"\r\n"}, PeerGarbled, "bad_digits"),
    "changes its mind to yes": ({"raw": b"550-no\r\n250 yes\r\n"}, PeerGarbled, "mixed_codes"),
    "changes its mind to no": ({"raw": b"250-yes\r\n550 no\r\n"}, PeerGarbled, "mixed_codes"),
    "says a line without end": ({"raw": b"250 " + b"x" * 9_000}, PeerGarbled, "line_too_long"),
    "says a reply without end": ({"raw": b"250-more\r\n" * 4_000}, PeerGarbled, "reply_too_long"),
    "says another reply at once": ({"raw": b"250 yes\r\n550 no\r\n"}, PeerGarbled, "unexpected_octets"),
    "says half of another reply": ({"raw": b"250 yes\r\n25"}, PeerGarbled, "unexpected_octets"),
    "says the same again": ({"raw": b"250 yes\r\n" * 40}, PeerGarbled, "unexpected_octets"),
    "asks for more": ({"reply": "334 VXNlcm5hbWU6"}, PeerGarbled, "unexpected_code"),
}  # fmt: skip

# What a peer says too much is taken for the reply to the next command where several are out.
TOO_MUCH = {"says another reply at once", "says half of another reply", "says the same again"}

every_accident = pytest.mark.parametrize("accident", list(ACCIDENTS))


@every_accident
@pytest.mark.parametrize("phase", ["greeting", "ehlo", "starttls", "auth"])
async def test_an_accident_while_a_session_is_opened(phase: str, accident: str) -> None:
    """There is no session, the fault names accident and phase, and no mail was begun."""
    script, kind, code = ACCIDENTS[accident]
    async with ScriptedPeer(tls=True, logins={LOGIN.username: PASSWORD}) as peer:
        peer.on(phase, **script)
        limits = patient_timeouts(**{phase: SHORT})
        with pytest.raises(SmtpFault) as caught:
            await open_session(peer.as_peer(timeouts=limits), LOGIN, session_id="ses_test")

    fault = caught.value
    if (phase, accident) == ("starttls", "asks for more"):
        assert fault.code == "starttls_refused"
    else:
        assert (type(fault), fault.code) == (kind, code)
    assert fault.phase is Phase.named(phase)
    assert fault.facts is not None
    assert not peer.transactions


@every_accident
async def test_an_accident_after_tls_is_told_apart_from_one_before(accident: str) -> None:
    """The second EHLO, the one that counts, fails as the first one does."""
    script, kind, code = ACCIDENTS[accident]
    async with ScriptedPeer(tls=True) as peer:
        peer.on("ehlo", **script)
        peer.on("ehlo", times=1)
        limits = patient_timeouts(ehlo=SHORT)
        with pytest.raises(SmtpFault) as caught:
            await open_session(peer.as_peer(timeouts=limits), None, session_id="ses_test")

    assert (type(caught.value), caught.value.code) == (kind, code)
    assert caught.value.facts is not None
    assert caught.value.facts.tls is not None


@every_accident
@pytest.mark.parametrize("phase", ["mail", "rcpt", "data"])
@pytest.mark.parametrize(
    ("extensions", "tls"), [(ONE_BY_ONE, False), (MICROSOFT_EXTENSIONS, False), (MICROSOFT_EXTENSIONS, True)]
)
async def test_an_accident_before_the_content(
    phase: str, accident: str, extensions: list[str], *, tls: bool
) -> None:
    """The peer has no message, the report says so, and the session is over."""
    script, kind, code = ACCIDENTS[accident]
    async with (
        ScriptedPeer(tls=tls, extensions=extensions) as peer,
        a_session(peer, None, **{phase: SHORT}) as session,
    ):
        peer.on(phase, **script)
        report = await send(session)
        if session.pipelines and accident in TOO_MUCH and phase != "data":
            assert isinstance(report.fault, PeerGarbled)
            assert report.phase > Phase.named(phase)
            if report.fault.code != "bad_digits":  # nobody knows which reply was for which command
                assert (report.mail, report.recipients, report.data) == (None, {}, None)
        else:
            assert_broken(report, session, kind, code)
            assert report.phase is Phase.named(phase)
        assert not session.usable

    assert not report.dot_sent
    assert not peer.taken
    assert not any(transaction.content_octets for transaction in peer.transactions)


@every_accident
@pytest.mark.parametrize("tls", [False, True])
async def test_an_accident_after_the_dot_leaves_the_message_uncertain(accident: str, *, tls: bool) -> None:
    """The dot was sent and no usable reply came: the report says both, whoever has the message."""
    script, kind, code = ACCIDENTS[accident]
    for take in (True, False):
        async with ScriptedPeer(tls=tls) as peer, a_session(peer, dot=SHORT) as session:
            peer.on("dot", **script, take=take)
            report = await send(session)
            assert_broken(report, session, kind, code)

        assert report.phase is Phase.DOT
        assert report.dot_sent
        assert report.uncertain
        assert report.final is None
        assert report.replied_at is None
        assert len(peer.taken) == take


BIG = (b"x" * 76 + b"\r\n") * 200_000  # 15.6 MB: more than all buffers on the way hold


@pytest.mark.parametrize(
    ("script", "kind", "code"),
    [
        ({"then": "close"}, PeerLost, "connection_lost"),
        ({"then": "reset"}, PeerLost, "connection_lost"),
        ({"then": "stall"}, PeerSilent, "timeout"),
        ({"reply": "421 4.3.2 Service not available", "then": "close"}, PeerRefused, "closing"),
        ({"reply": "421 4.3.2 Service not available", "then": "stall"}, PeerRefused, "closing"),
        ({"reply": "552 5.3.4 Message size exceeds fixed maximum", "then": "close"}, PeerRefused, "refused_in_content"),
        ({"reply": "552 5.3.4 Message size exceeds fixed maximum", "then": "stall"}, PeerRefused, "refused_in_content"),
        ({"reply": "552 5.3.4 Message size exceeds fixed maximum"}, PeerRefused, "refused_in_content"),
        ({"reply": "451 4.3.1 Out of disk", "glue": b"421 4.3.2 closing\r\n", "then": "close"}, PeerRefused, "refused_in_content"),
        ({"reply": "250 2.0.0 taken already"}, PeerGarbled, "early_reply"),
        ({"reply": "354 go on"}, PeerGarbled, "early_reply"),
        ({"raw": b"garbage\r\n"}, PeerGarbled, "bad_digits"),
        ({"raw": b"250-half"}, PeerGarbled, "unexpected_octets"),
        ({"raw": b"250 ok\r\n" * 1_000}, PeerGarbled, "early_reply"),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, dict) else None,
)  # fmt: skip
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("after_octets", [0, 300_000])
async def test_an_accident_in_the_content(
    script: dict[str, Any], kind: type[SmtpFault], code: str, after_octets: int, *, tls: bool
) -> None:
    """No dot, no message; what the peer said early is kept; a peer that stops reading is waited for in vain."""
    async with ScriptedPeer(tls=tls) as peer, a_session(peer, body=SHORT) as session:
        peer.on("body", **script, after_octets=after_octets)
        report = await send(session, octets=BIG)
        assert_broken(report, session, kind, code)

    assert report.phase is Phase.BODY
    assert not report.dot_sent
    assert report.data is not None
    assert not peer.taken
    if "reply" in script:
        assert report.fault is not None
        assert report.fault.reply is not None
        assert str(report.fault.reply) == script["reply"]
        assert script["reply"] in lines(report.transcript)


async def test_the_session_may_end_behind_the_final_reply() -> None:
    """250 and then the end of the connection: the message was taken, the session is over."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        peer.on("dot", reply="250 2.0.0 OK", then="close")
        report = await send(session)
        second = await send(session)

    assert report.final is not None
    assert report.final.positive()
    assert report.fault is None
    assert second.untouched


@pytest.mark.parametrize("final", ["250 2.0.0 OK", "554 5.2.252 SendAsDenied"])
async def test_a_farewell_behind_the_final_reply_does_not_unsay_it(final: str) -> None:
    """A 421 may come at any time (RFC 5321 §3.8): the reply before it stands, the session is over."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        peer.on("dot", reply=final, glue=b"421 4.3.2 Service not available\r\n", then="close")
        report = await send(session)
        assert not session.usable

    assert report.final is not None
    assert str(report.final) == final
    assert report.fault is None
    assert "421 4.3.2 Service not available" in lines(report.transcript)


async def test_a_farewell_behind_the_354_stops_the_content() -> None:
    """A 421 glued to the 354 is heard before the first octet of content."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        peer.on("data", reply="354 go", glue=b"421 4.3.2 Service not available\r\n")
        report = await send(session)

    assert isinstance(report.fault, PeerRefused)
    assert report.fault.code == "closing"
    assert peer.transactions[0].content_octets == 0


@pytest.mark.parametrize("code", [250, 220, 334])
async def test_data_needs_a_354(code: int) -> None:
    """Any other yes to DATA means that we and the peer lost step: no content leaves."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        peer.on("data", reply=f"{code} 2.0.0 fine")
        report = await send(session)
        assert_broken(report, session, PeerGarbled, "unexpected_code")

    assert report.data is None
    assert peer.transactions[0].content_octets == 0


@pytest.mark.parametrize("phase", ["mail", "rcpt", "dot"])
async def test_a_354_elsewhere_is_no_answer(phase: str) -> None:
    """An intermediate reply where the command takes none is garbled, not a yes."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        peer.on(phase, reply="354 Start mail input")
        report = await send(session)
        assert_broken(report, session, PeerGarbled, "unexpected_code")

    assert report.uncertain is (phase == "dot")


@pytest.mark.parametrize("login", [None, LOGIN])
async def test_a_connection_that_ends_before_the_greeting(login: Login | None) -> None:
    """A peer that accepts and hangs up is lost in phase greeting."""
    async with ScriptedPeer(tls=True) as peer:
        peer.on("connect", then="reset")
        with pytest.raises(PeerLost) as caught:
            await open_session(peer.as_peer(), login, session_id="ses_test")

    assert caught.value.phase is Phase.GREETING


async def test_accidents_are_in_the_transcript() -> None:
    """Silence and loss are notes, garbage is shown as it came: the ledger can be read without a debugger."""
    async with ScriptedPeer() as peer:
        async with a_session(peer, dot=SHORT) as session:
            peer.on("dot", then="stall")
            silent = await send(session)
        async with a_session(peer) as session:
            peer.on("dot", then="close")
            lost = await send(session)
        async with a_session(peer) as session:
            peer.on("dot", raw=b"2_0 ok\r\n")
            garbled = await send(session)

    assert lines(silent.transcript)[-2:] == [".", f"(The peer did not answer within {SHORT:g} s)"]
    assert lines(lost.transcript)[-2:] == [".", "(the peer closed the connection)"]
    assert lines(garbled.transcript)[-2:] == [
        "2_0 ok",
        "(not a reply: a line does not begin with a reply code)",
    ]


def assert_broken(report: Report, session: Session, kind: type[SmtpFault], code: str) -> None:
    assert report.fault is not None
    assert (type(report.fault), report.fault.code) == (kind, code), report.fault
    assert report.fault.phase is report.phase
    assert not report.untouched
    assert not session.usable
