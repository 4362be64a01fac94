"""Reports that are asked for: the parameters as RFC 3461 has them, to a peer that offers them and to one that does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.mail.address import Address
from service.sandbox.dsn import of_mail
from service.smtp.dsn import Dsn, xtext
from tests.peer import MICROSOFT_EXTENSIONS, ScriptedPeer
from tests.smtp.builders import ANA, BEN, CONTENT, a_session, an_envelope, lines, send

WITHOUT = tuple(name for name in MICROSOFT_EXTENSIONS if name != "DSN")


def dsn(*notify: str, ret: str | None = None, envid: str | None = None) -> Dsn:
    return Dsn(notify=notify, ret=ret, envid=envid)


async def test_mail_and_each_rcpt_carry_what_was_asked() -> None:
    """RET and ENVID stand behind the other parameters of MAIL, NOTIFY and ORCPT behind each path."""
    asked = dsn("success", "failure", ret="headers", envid="order 42+x=1")

    async with ScriptedPeer() as peer, a_session(peer) as session:
        report = await send(session, an_envelope(ANA, BEN), dsn=asked)

    (transaction,) = peer.transactions
    assert transaction.parameters == f"SIZE={len(CONTENT)} RET=HDRS ENVID=order+2042+2Bx+3D1"
    assert transaction.rcpt_parameters == [
        "NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;ana@example.com",
        "NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;ben@example.com",
    ]
    assert "RCPT TO:<ana@example.com> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;ana@example.com" in lines(
        report.transcript
    )


async def test_without_a_wish_nothing_is_added() -> None:
    """A message that asks for no reports is sent as ever."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        await send(session)

    (transaction,) = peer.transactions
    assert (transaction.parameters, transaction.rcpt_parameters) == (f"SIZE={len(CONTENT)}", [""])


async def test_a_peer_without_dsn_gets_the_message_without() -> None:
    """Nothing is added, the message arrives, and the transcript says why no report will come."""
    async with ScriptedPeer(extensions=WITHOUT) as peer, a_session(peer) as session:
        report = await send(session, dsn=dsn("success", ret="full", envid="42"))

    (transaction,) = peer.transactions
    assert len(peer.taken) == 1
    assert (transaction.parameters, transaction.rcpt_parameters) == (f"SIZE={len(CONTENT)}", [""])
    assert "(the peer does not offer DSN: no reports are asked for)" in lines(report.transcript)


def test_never_stands_alone() -> None:
    """NEVER is written as it is; beside another one it is refused (RFC 3461 §4.1)."""
    assert dsn("never").of_rcpt(ANA) == " NOTIFY=NEVER ORCPT=rfc822;ana@example.com"
    with pytest.raises(ValueError, match="never alone"):
        dsn("never", "failure")


@pytest.mark.parametrize(
    "wrong",
    [
        {"notify": ["sometimes"]},
        {"notify": ["success\r\nRSET"]},
        {"return": "body"},
        {"envid": ""},
        {"envid": "x" * 101},
        {"envid": "a\r\nRCPT TO:<eve@example.com>"},
        {"envid": "a\tb"},
        {"envid": "käse"},
    ],
)
def test_what_is_no_dsn_cannot_be_made(wrong: dict[str, object]) -> None:
    """A value that exists is safe to be written into a command."""
    with pytest.raises(ValueError, match=r"notify|ret|envid"):
        Dsn.of(wrong)


def test_missing_parts_are_left_to_the_peer() -> None:
    """What is null or missing adds no parameter; the address the report should name is given all the same."""
    asked = Dsn.of({"notify": None, "return": None, "envid": None})

    assert asked == Dsn.of({})
    assert (asked.of_mail(), asked.of_rcpt(ANA)) == ("", " ORCPT=rfc822;ana@example.com")


def test_addresses_that_need_it_are_encoded_or_left_out() -> None:
    """Plus, equals and spaces of a local part are encoded; beyond ASCII the original address is left out."""
    tagged, spaced, beyond = (
        Address.parse(text) for text in ("a+b=c@x.example", '"a b"@x.example', "ä@x.example")
    )

    assert dsn().of_rcpt(tagged) == " ORCPT=rfc822;a+2Bb+3Dc@x.example"
    assert dsn().of_rcpt(spaced) == ' ORCPT=rfc822;"a+20b"@x.example'
    assert dsn("success").of_rcpt(beyond) == " NOTIFY=SUCCESS"


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=100))
def test_no_envid_gets_out_of_its_parameter(envid: str) -> None:
    """Whatever printable text it is, it is one word on the wire, and the other side reads the same text."""
    written = Dsn.of({"envid": envid}).of_mail()

    assert written.startswith(" ENVID=")
    word = written.removeprefix(" ENVID=")
    assert word == xtext(envid)
    assert not set(word) & set(" =<>\r\n")
    assert of_mail({"ENVID": word}).envid == envid
