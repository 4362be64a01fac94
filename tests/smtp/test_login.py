"""Logging in: one mechanism, one try, over verified TLS, without a trace of the secret."""

import base64
import json
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.smtp.faults import LoginRefused, PeerGarbled, PeerRefused, SmtpFault
from service.smtp.login import challenge_status
from service.smtp.phase import Phase
from service.smtp.session import Login, open_session
from service.smtp.transcript import STARS
from tests.peer import ScriptedPeer
from tests.smtp.builders import LOGIN, PASSWORD, TOKEN, XOAUTH2, a_session, lines, send

USER = "noreply@contoso.com"
SHORT_TOKEN = "EwBAAl3BAAUFFpUAo7J3Ve0bjLBWZWCclRC3EoAA"


@pytest.fixture
async def peer() -> AsyncIterator[ScriptedPeer]:
    async with ScriptedPeer(tls=True, logins={USER: PASSWORD}) as server:
        yield server


@pytest.fixture
async def oauth_peer() -> AsyncIterator[ScriptedPeer]:
    async with ScriptedPeer(tls=True, logins={USER: TOKEN}) as server:
        yield server


async def refused(peer: ScriptedPeer, login: Login) -> SmtpFault:
    with pytest.raises(SmtpFault) as caught:
        await open_session(peer.as_peer(), login, session_id="ses_test")
    return caught.value


async def test_auth_login(peer: ScriptedPeer) -> None:
    """User name and password arrive as they are; the session knows its identity."""
    async with a_session(peer, LOGIN) as session:
        report = await send(session)

    assert peer.logins_tried == [("LOGIN", USER, PASSWORD)]
    assert session.facts.login == {"method": "login", "identity": USER}
    assert report.final is not None


async def test_a_long_token_goes_behind_an_empty_challenge(oauth_peer: ScriptedPeer) -> None:
    """A token too long for a command line is sent after `AUTH XOAUTH2` and its 334."""
    async with a_session(oauth_peer, XOAUTH2) as session:
        said = lines(session.facts.transcript)

    assert oauth_peer.logins_tried == [("XOAUTH2", USER, TOKEN)]
    assert said[-4:] == ["AUTH XOAUTH2", "334 ", STARS, "235 2.7.0 Authentication successful"]


async def test_a_short_token_goes_on_the_line() -> None:
    """A token that fits goes on the AUTH line."""
    async with ScriptedPeer(tls=True, logins={USER: SHORT_TOKEN}) as peer:
        async with a_session(peer, Login(method="xoauth2", username=USER, secret=SHORT_TOKEN)) as session:
            said = lines(session.facts.transcript)

    assert peer.logins_tried == [("XOAUTH2", USER, SHORT_TOKEN)]
    assert said[-2:] == [f"AUTH XOAUTH2 {STARS}", "235 2.7.0 Authentication successful"]


@pytest.mark.parametrize("login", [LOGIN, XOAUTH2])
async def test_a_refused_login_is_not_tried_another_way(login: Login) -> None:
    """After 535 no second mechanism is tried: one failed login, not two, and no mail."""
    async with ScriptedPeer(tls=True, logins={USER: "something else"}) as peer:
        fault = await refused(peer, login)

    assert isinstance(fault, LoginRefused)
    assert (fault.code, fault.phase) == ("login_refused", Phase.AUTH)
    assert fault.reply is not None
    assert (fault.reply.code, fault.reply.enhanced) == (535, "5.7.3")
    assert len(peer.logins_tried) == 1
    assert not [command for command in peer.commands if command.startswith("MAIL")]


async def test_a_refused_identity_is_not_in_the_facts(peer: ScriptedPeer) -> None:
    """The facts name a login only when it succeeded."""
    fault = await refused(peer, Login(method="login", username=USER, secret="wrong password"))

    assert fault.facts is not None
    assert fault.facts.login is None


async def test_a_login_that_is_only_deferred_is_told_apart(peer: ScriptedPeer) -> None:
    """454 and 451 to AUTH heal by themselves."""
    peer.on("auth", reply="454 4.7.0 Temporary authentication failure")

    fault = await refused(peer, LOGIN)

    assert isinstance(fault, LoginRefused)
    assert fault.code == "login_deferred"


async def test_a_421_to_the_login_is_a_farewell(peer: ScriptedPeer) -> None:
    """`421 4.7.66 TLS 1.0 …` in answer to AUTH says nothing about the password."""
    peer.on("auth", reply="421 4.7.66 TLS 1.0 and 1.1 are not supported.", then="close")

    fault = await refused(peer, LOGIN)

    assert isinstance(fault, PeerRefused)
    assert (fault.code, fault.phase) == ("closing", Phase.AUTH)


@pytest.mark.parametrize("token", [TOKEN, SHORT_TOKEN])
async def test_a_server_like_gmail_wants_an_empty_line(token: str) -> None:
    """A 334 with JSON after the token gets an empty line; the 535 behind it is the answer."""
    async with ScriptedPeer(tls=True, logins={}, challenge_on_failure=True) as peer:
        fault = await refused(peer, Login(method="xoauth2", username=USER, secret=token))

    assert isinstance(fault, LoginRefused)
    assert fault.reply is not None
    assert fault.reply.code == 535
    assert fault.facts is not None
    assert "(the peer's challenge says: status 400)" in lines(fault.facts.transcript)


async def test_a_peer_that_asks_without_end(peer: ScriptedPeer) -> None:
    """A 334 where the login is complete is not answered with more secrets."""
    peer.on("auth", reply="334 UGFzc3dvcmQ6")

    fault = await refused(peer, LOGIN)

    assert isinstance(fault, PeerGarbled)
    assert fault.code == "unexpected_code"


@pytest.mark.parametrize(("mechanisms", "login"), [("XOAUTH2", LOGIN), ("LOGIN PLAIN", XOAUTH2), ("", LOGIN)])
async def test_a_mechanism_that_is_not_offered_is_not_tried(mechanisms: str, login: Login) -> None:
    """No other mechanism takes the place of the one that was chosen."""
    async with ScriptedPeer(tls=True, logins={USER: PASSWORD}, mechanisms=mechanisms) as peer:
        fault = await refused(peer, login)

    assert isinstance(fault, LoginRefused)
    assert fault.code == "mechanism_not_offered"
    assert not [command for command in peer.commands if command.startswith("AUTH")]


async def test_mechanisms_named_before_tls_do_not_count() -> None:
    """What is offered in clear is forgotten after STARTTLS (RFC 3207 §4.2)."""
    async with ScriptedPeer(tls=True, logins={USER: PASSWORD}, login_without_tls=True) as peer:
        peer.on("ehlo", reply="250-peer\n250 SIZE 100")  # the second one: the newest rule first
        peer.on("ehlo", reply="250-peer\n250-AUTH LOGIN\n250 STARTTLS", times=1)
        fault = await refused(peer, LOGIN)

    assert fault.code == "mechanism_not_offered"


@pytest.mark.parametrize("login", [LOGIN, XOAUTH2])
@pytest.mark.parametrize("form", ["clear", "base64", "a part of base64", "in a challenge"])
async def test_a_secret_that_the_peer_repeats_reaches_nobody(login: Login, form: str) -> None:
    """Neither reply, transcript, facts nor the printed fault hold a secret, however the peer repeats it."""
    secret = login.secret
    blob = base64.b64encode(f"user={USER}\x01auth=Bearer {secret}\x01\x01".encode()).decode()
    coded = base64.b64encode(secret.encode()).decode()
    said = {
        "clear": f"535 5.7.3 wrong: {secret}",
        "base64": f"535 5.7.3 wrong: {coded} {blob}",
        "a part of base64": f"535 5.7.3 wrong: {coded[4:36]} {blob[8:90]}",
        "in a challenge": "334 " + base64.b64encode(f'{{"echo":"{secret}"}}'.encode()).decode(),
    }[form]
    async with ScriptedPeer(tls=True, logins={USER: secret}) as peer:
        peer.on("auth", reply=said, glue=b"" if said.startswith("535") else b"535 5.7.3 no\r\n")
        fault = await refused(peer, login)

    assert fault.facts is not None
    everything = json.dumps([fault.facts.as_json(), fault.as_json(), str(fault), repr(fault), repr(login)])
    for trace in (secret, coded, blob, coded[4:36], blob[8:90], secret[:24]):
        assert trace not in everything


async def test_a_secret_repeated_in_a_later_transaction_is_struck_out(peer: ScriptedPeer) -> None:
    """The secret of a session stays struck out for as long as the session lives."""
    peer.on("rcpt", reply=f"550 5.1.1 your password is {PASSWORD}")
    async with a_session(peer, LOGIN) as session:
        report = await send(session)

    (reply,) = report.recipients.values()
    assert reply.text == f"your password is {STARS}"
    assert PASSWORD not in json.dumps(report.transcript)


@pytest.mark.parametrize("username", ["a\x01auth=Bearer x", "a\r\nMAIL FROM:<x>", "a\x00"])
def test_a_user_name_cannot_add_fields(username: str) -> None:
    """Control characters in a user name would forge the response; such a login cannot be made."""
    with pytest.raises(ValueError, match="control characters"):
        Login(method="xoauth2", username=username, secret="token")


@given(st.text(max_size=200))
def test_a_challenge_shows_nothing_but_a_status(text: str) -> None:
    """Whatever a server puts into its challenge, three digits at most are written down."""
    status = challenge_status(text)

    assert status == "unknown" or (status.isdigit() and len(status) <= 3)
