"""From nothing to a session, and every way in which that fails."""

import asyncio
import hashlib
import json
import socket
import ssl
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from service.smtp.faults import (
    CannotConnect,
    CannotResolve,
    PeerLost,
    PeerRefused,
    PeerSilent,
    SmtpFault,
    TlsRefused,
)
from service.smtp.opening import extensions_of
from service.smtp.peer import Timeouts, TlsMode
from service.smtp.phase import Phase
from service.smtp.session import open_session
from service.smtp.tls import certificate_facts
from tests.peer import ScriptedPeer, authority, patient_timeouts
from tests.smtp.builders import LOGIN, PASSWORD, SHORT, XOAUTH2, a_session, lines, send
from tests.waiting import eventually


@pytest.fixture
async def peer() -> AsyncIterator[ScriptedPeer]:
    async with ScriptedPeer(tls=True) as server:
        yield server


async def refused(peer: ScriptedPeer, **changes: Any) -> SmtpFault:
    """Open a session that must not come to be, and give the fault."""
    with pytest.raises(SmtpFault) as caught:
        await open_session(peer.as_peer(**changes), None, session_id="ses_test")
    return caught.value


# What is known of a session.


async def test_a_session_knows_whom_it_talks_to(peer: ScriptedPeer) -> None:
    """Addresses, greeting, the second EHLO answer, TLS and certificate are all kept, and fit into JSON."""
    async with a_session(peer) as session:
        facts = session.facts.as_json()

    assert facts["id"] == "ses_test"
    assert (facts["host"], facts["port"]) == ("localhost", 587)
    assert facts["peer_address"] == f"127.0.0.1:{peer.port}"
    assert str(facts["local_address"]).startswith("127.0.0.1:")
    assert facts["greeting"] == "peer.contoso.com Microsoft ESMTP MAIL Service ready"
    assert "SIZE 157286400" in session.facts.ehlo
    assert "STARTTLS" not in session.facts.ehlo
    assert facts["login"] is None
    json.dumps(facts)


async def test_the_certificate_is_described_from_its_der(peer: ScriptedPeer) -> None:
    """Version, cipher, subject, issuer, names, end of validity and digest are those of the peer's certificate."""
    async with a_session(peer) as session:
        assert session.facts.tls is not None
        tls = dict(session.facts.tls)

    assert tls["version"] in {"TLSv1.2", "TLSv1.3"}
    assert tls["verified"] is True
    certificate = tls["certificate"]
    assert isinstance(certificate, dict)
    assert certificate["names"] == ["localhost", "127.0.0.1"]
    assert "Postroom tests" in str(certificate["issuer"])
    assert str(certificate["not_after"]).endswith("+00:00")
    assert len(str(certificate["sha256"])) == 64


def test_a_certificate_that_nobody_can_read_has_its_digest() -> None:
    """Facts are for people: a certificate in a strange form must not end a session."""
    facts = certificate_facts(b"not a certificate")

    assert facts["sha256"] == hashlib.sha256(b"not a certificate").hexdigest()
    assert facts["subject"] is None


async def test_the_opening_has_a_transcript(peer: ScriptedPeer) -> None:
    """The dialogue up to the login is kept with the session, EHLO twice, STARTTLS in between."""
    async with a_session(peer) as session:
        said = lines(session.facts.transcript)

    assert said.count("EHLO client.contoso.com") == 2
    assert said.index("STARTTLS") < said.index("220 2.0.0 SMTP server ready")
    assert any("certificate verified" in line for line in said)


async def test_small_packets_leave_at_once(peer: ScriptedPeer) -> None:
    """TCP_NODELAY is set: otherwise each dot waits 40 ms for the acknowledgement of its content."""
    async with a_session(peer) as session:
        transport = session._wire.transport
        assert transport is not None
        connection = transport.get_extra_info("socket")
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_extensions_are_read_leniently() -> None:
    """Case does not matter, `AUTH=` is an old form of `AUTH `, and AUTH lines add up."""
    assert extensions_of(("size 100", "Pipelining", "AUTH LOGIN", "AUTH=PLAIN XOAUTH2", "")) == {
        "SIZE": "100",
        "PIPELINING": "",
        "AUTH": "LOGIN PLAIN XOAUTH2",
        "": "",
    }


# Nobody there.


async def test_a_name_without_an_address() -> None:
    """A name that does not exist is its own fault, in phase connect."""
    async with ScriptedPeer() as peer:
        fault = await refused(peer, connect_to=("no-such-host.invalid", 25))

    assert isinstance(fault, CannotResolve)
    assert fault.phase is Phase.CONNECT


async def test_a_name_that_is_no_name() -> None:
    """A label of more than 63 octets is a fault like any other name without an address."""
    async with ScriptedPeer() as peer:
        fault = await refused(peer, connect_to=("x" * 70 + ".example", 25))

    assert isinstance(fault, CannotResolve)
    assert fault.code == "name_not_found"


async def test_a_refused_connection_is_named() -> None:
    """A closed port is `connection_refused`, with the address that was tried."""
    async with ScriptedPeer() as peer:
        await peer.stop()
        fault = await refused(peer)

    assert isinstance(fault, CannotConnect)
    assert (fault.code, fault.phase) == ("connection_refused", Phase.CONNECT)
    assert f"127.0.0.1:{peer.port}" in fault.detail


async def test_a_connection_that_is_not_answered_ends_in_time() -> None:
    """A full backlog answers nothing; the limit of `connect` ends the wait."""
    full = socket.socket()
    waiting = []
    with full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):  # fill the backlog: what comes after gets no answer
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(full.getsockname())
            waiting.append(client)
        async with ScriptedPeer() as peer:
            fault = await refused(
                peer, connect_to=full.getsockname(), timeouts=patient_timeouts(connect=SHORT)
            )
        for client in waiting:
            client.close()

    assert isinstance(fault, CannotConnect)
    assert fault.code == "connect_timeout"


async def test_the_next_address_is_tried() -> None:
    """A name with an address that refuses (IPv6, here) and one that answers leads to the one that answers."""
    async with ScriptedPeer() as peer:
        session = await open_session(
            peer.as_peer(connect_to=("localhost", peer.port)), None, session_id="ses_test"
        )
        assert session.facts.peer_address == f"127.0.0.1:{peer.port}"
        await session.close()


async def test_ipv4_alone_can_be_asked_for() -> None:
    """`address_family="ipv4"` never tries another family."""
    async with ScriptedPeer() as peer:
        fault = await refused(peer, connect_to=("::1", peer.port), address_family="ipv4")

    assert isinstance(fault, CannotResolve)


# Greeting and EHLO.


@pytest.mark.parametrize(("phase", "code"), [("greeting", "greeting_refused"), ("ehlo", "ehlo_refused")])
async def test_a_refusal_before_the_first_command(phase: str, code: str) -> None:
    """A peer that does not want us is `PeerRefused` with its own words, in the phase in which it said so."""
    async with ScriptedPeer() as peer:
        peer.on(phase, reply="554 5.7.1 Go away")
        fault = await refused(peer)

    assert isinstance(fault, PeerRefused)
    assert (fault.code, fault.phase) == (code, Phase.named(phase))
    assert fault.reply is not None
    assert fault.reply.code == 554


async def test_a_server_of_old_gets_helo() -> None:
    """A server that knows no EHLO, where no TLS is required, is greeted by HELO and offers nothing."""
    async with ScriptedPeer() as peer:
        peer.on("ehlo", reply="500 5.3.3 Unrecognized command", times=1)
        async with a_session(peer) as session:
            report = await send(session)

    assert peer.commands[:3] == [
        "EHLO client.contoso.com",
        "HELO client.contoso.com",
        "MAIL FROM:<noreply@contoso.com>",
    ]
    assert report.final is not None


async def test_no_helo_where_tls_is_required(peer: ScriptedPeer) -> None:
    """HELO has no extensions, so it can lead to no TLS: the refusal stands."""
    peer.on("ehlo", reply="502 5.3.3 Command not implemented")

    fault = await refused(peer)

    assert fault.code == "ehlo_refused"
    assert not [command for command in peer.commands if command.startswith("HELO")]


# TLS.


async def test_starttls_that_is_not_offered_ends_a_required_session() -> None:
    """A peer (or somebody between) without STARTTLS gets neither login nor mail."""
    async with ScriptedPeer() as peer:
        fault = await refused(peer, tls=TlsMode.REQUIRED)

    assert isinstance(fault, TlsRefused)
    assert fault.code == "starttls_not_offered"
    assert peer.commands == ["EHLO client.contoso.com"]


async def test_starttls_that_is_refused_ends_a_required_session(peer: ScriptedPeer) -> None:
    """A 454 to STARTTLS is a fault of TLS and keeps the peer's words."""
    peer.on("starttls", reply="454 4.7.0 Cannot accept TLS as maximum TLS rate exceeded for server")

    fault = await refused(peer)

    assert isinstance(fault, TlsRefused)
    assert fault.code == "starttls_refused"
    assert fault.reply is not None
    assert fault.reply.code == 454


@pytest.mark.parametrize(
    "wrong", ["certificate_expired", "certificate_untrusted", "certificate_self_signed", "another name"]
)
async def test_a_certificate_that_is_not_the_peers(wrong: str) -> None:
    """Expired, from an unknown authority, its own, or for another name: no session where TLS is required."""
    server = (
        ScriptedPeer(tls=True, certificate_names=["other.contoso.com"])
        if wrong == "another name"
        else ScriptedPeer(tls=True, **{wrong: True})  # type: ignore[arg-type]  # one of the flags
    )
    async with server as peer:
        fault = await refused(peer)

    assert isinstance(fault, TlsRefused)
    assert (fault.code, fault.phase) == ("certificate_invalid", Phase.STARTTLS)
    assert fault.facts is not None
    assert fault.facts.tls is None


async def test_old_tls_is_refused() -> None:
    """With a peer that speaks TLS 1.1 at most there is no session when 1.2 is the minimum."""
    async with ScriptedPeer(tls=True, maximum_tls=ssl.TLSVersion.TLSv1_1) as peer:
        fault = await refused(peer)

    assert isinstance(fault, TlsRefused | PeerLost)
    assert fault.phase is Phase.STARTTLS


async def test_an_alert_in_the_handshake_is_a_failed_handshake(peer: ScriptedPeer) -> None:
    """A fatal alert (here: protocol version) is named in the fault."""
    peer.on("tls", raw=b"\x15\x03\x01\x00\x02\x02\x46", then="stall")

    fault = await refused(peer)

    assert isinstance(fault, TlsRefused)
    assert fault.code == "tls_handshake_failed"
    assert "protocol version" in fault.detail


async def test_a_handshake_of_noise_fails(peer: ScriptedPeer) -> None:
    """Something that is not TLS behind the 220 is a failed handshake, not a crash."""
    peer.on("tls", raw=b"HTTP/1.1 400 Bad Request\r\n\r\n", then="stall")

    fault = await refused(peer)

    assert isinstance(fault, TlsRefused)
    assert (fault.code, fault.phase) == ("tls_handshake_failed", Phase.STARTTLS)


async def test_a_handshake_that_is_broken_off(peer: ScriptedPeer) -> None:
    """A connection that ends in the handshake is lost in phase starttls."""
    peer.on("tls", then="close")

    fault = await refused(peer)

    assert isinstance(fault, PeerLost), fault.detail
    assert fault.phase is Phase.STARTTLS


async def test_a_handshake_without_an_answer_ends_in_time(peer: ScriptedPeer) -> None:
    """The limit of `starttls` also holds for the handshake."""
    peer.on("tls", then="stall")

    fault = await refused(peer, timeouts=patient_timeouts(starttls=SHORT))

    assert isinstance(fault, PeerSilent)
    assert fault.phase is Phase.STARTTLS


async def test_opportunistic_tls_takes_any_certificate_and_says_so() -> None:
    """Where TLS is opportunistic, an unknown certificate is used and marked as not verified."""
    async with ScriptedPeer(tls=True, certificate_untrusted=True) as peer:
        session = await open_session(peer.as_peer(tls=TlsMode.OPPORTUNISTIC), None, session_id="ses_test")
        assert session.facts.tls is not None
        assert session.facts.tls["verified"] is False
        await session.close()


@pytest.mark.parametrize("offered", [False, True])
async def test_opportunistic_tls_goes_on_without_it(*, offered: bool) -> None:
    """Where TLS is opportunistic, a peer that does not offer or refuses it is served in clear."""
    async with ScriptedPeer(tls=offered) as peer:
        peer.on("starttls", reply="454 4.7.0 TLS not available")
        session = await open_session(peer.as_peer(tls=TlsMode.OPPORTUNISTIC), None, session_id="ses_test")
        report = await send(session)
        await session.close()

    assert session.facts.tls is None
    assert report.final is not None


async def test_no_tls_where_none_is_wanted(peer: ScriptedPeer) -> None:
    """`tls: none` does not say STARTTLS, whatever is offered."""
    session = await open_session(peer.as_peer(tls=TlsMode.NONE), None, session_id="ses_test")
    await session.close()

    assert "STARTTLS" not in peer.commands


async def test_a_client_certificate_is_shown() -> None:
    """A peer that asks for a certificate gets the route's, with its chain; the ledger is told which it was."""
    certificate, key = authority().client_files("postroom.contoso.com")
    async with ScriptedPeer(tls=True, ask_client_certificate=True) as peer:
        session = await open_session(
            peer.as_peer(client_certificate=certificate, client_key=key), None, session_id="ses_test"
        )
        report = await send(session)
        await session.close()

    assert report.final is not None
    (shown,) = peer.client_certificates
    assert certificate_facts(shown)["names"] == ["postroom.contoso.com"]
    assert session.facts.tls is not None
    assert session.facts.tls["own_certificate"] == certificate_facts(shown)


async def test_without_a_client_certificate_none_is_told(peer: ScriptedPeer) -> None:
    """The ledger says that there was none."""
    session = await open_session(peer.as_peer(), None, session_id="ses_test")
    await session.close()

    assert session.facts.tls is not None
    assert session.facts.tls["own_certificate"] is None


@pytest.mark.parametrize("name", ["ca_file", "client_certificate"])
@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN CERTIFICATE-----\nnonsense\n"])
async def test_files_that_cannot_be_used(tmp_path: Path, name: str, content: bytes | None) -> None:
    """A missing or broken file for TLS is a fault with its reason, before anything is dialled."""
    file = tmp_path / "file.pem"
    if content is not None:
        file.write_bytes(content)
    async with ScriptedPeer(tls=True) as peer:
        fault = await refused(peer, **{name: file})

    assert isinstance(fault, TlsRefused)
    assert fault.code == "tls_files_unusable"
    assert peer.sessions == 0


async def test_a_renewed_ca_file_is_read_again(tmp_path: Path) -> None:
    """The context for TLS is kept, but not beyond a change of its files."""
    file = tmp_path / "ca.pem"
    file.write_bytes(authority("somebody else").file.read_bytes())
    async with ScriptedPeer(tls=True) as peer:
        fault = await refused(peer, ca_file=file)
        file.write_bytes(authority().file.read_bytes())
        session = await open_session(peer.as_peer(ca_file=file), None, session_id="ses_test")
        await session.close()

    assert fault.code == "certificate_invalid"


# A session that did not come to be.


async def test_a_failed_opening_tells_how_far_it_came(peer: ScriptedPeer) -> None:
    """The fault carries what was learnt before: addresses, greeting, extensions, dialogue."""
    peer.on("starttls", then="close")

    fault = await refused(peer)

    assert fault.facts is not None
    assert fault.facts.peer_address == f"127.0.0.1:{peer.port}"
    assert "STARTTLS" in fault.facts.ehlo
    assert lines(fault.facts.transcript)[-1] == "(the peer closed the connection)"


@pytest.mark.parametrize("mode", [TlsMode.NONE, TlsMode.OPPORTUNISTIC])
@pytest.mark.parametrize("login", [LOGIN, XOAUTH2])
async def test_a_login_without_required_tls_is_refused_before_the_first_octet(
    mode: TlsMode, login: object
) -> None:
    """A configuration that would show a secret to a listener never reaches the network."""
    async with ScriptedPeer(tls=True, logins={}, login_without_tls=True) as peer:
        with pytest.raises(TlsRefused) as caught:
            await open_session(peer.as_peer(tls=mode), login, session_id="ses_test")  # type: ignore[arg-type]

    assert caught.value.code == "tls_required_for_login"
    assert peer.sessions == 0


async def test_a_cancelled_opening_leaves_no_connection(peer: ScriptedPeer) -> None:
    """Who stops waiting for a session leaves nothing behind at the peer."""
    peer.on("ehlo", then="stall")
    opening = asyncio.create_task(open_session(peer.as_peer(), None, session_id="ses_test"))
    await eventually(lambda: peer.commands)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening

    await eventually(lambda: peer.connections == 0)


def test_a_fault_prints_without_secrets() -> None:
    """What a log shows of a login and of a fault holds no secret."""
    assert PASSWORD not in repr(LOGIN)
    assert PASSWORD not in str(LOGIN)


def test_the_default_limits_are_those_of_the_standard() -> None:
    """RFC 5321 §4.5.3.2: 5 minutes for greeting, MAIL and RCPT, 2 for DATA, 3 a block, 10 for the dot."""
    limits = Timeouts()

    assert (limits.greeting, limits.mail, limits.rcpt) == (300, 300, 300)
    assert (limits.data, limits.body, limits.dot) == (120, 180, 600)
    assert limits.total() > 1_500


async def test_a_hanging_resolver_is_nobody_elses(peer: ScriptedPeer) -> None:
    """A session opens although every thread of the loop's waits: as for a name of another lane that has no answer."""
    going_on = threading.Event()
    loop = asyncio.get_running_loop()
    hanging = [loop.run_in_executor(None, going_on.wait) for _ in range(64)]
    try:
        async with a_session(peer) as session:
            assert session.facts.peer_address == f"127.0.0.1:{peer.port}"
    finally:
        going_on.set()
        await asyncio.gather(*hanging)
