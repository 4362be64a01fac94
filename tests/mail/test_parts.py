"""Messages taken apart: honest ones as they are, hostile ones within limits."""

import json
import time
from email.message import EmailMessage
from email.policy import SMTP

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.mail.parts import Parts, take_apart

MULTIPART = b"From: a@contoso.com\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"


def headers(parts: Parts) -> dict[str, str]:
    return dict(parts.headers)


def test_an_honest_message_is_shown_as_it_was_written() -> None:
    """Subject, text, HTML and files come back as they were put in, inline pictures among the files."""
    message = EmailMessage()
    message["From"] = "a@contoso.com"
    message["Subject"] = "Grüße an alle, für 5 €"
    message.set_content("Viele Grüße\nJörg\n")
    message.add_alternative("<p>Grüße <img src='cid:logo@x'></p>", subtype="html")
    _, html = message.iter_parts()
    assert isinstance(html, EmailMessage)
    html.add_related(b"\x89PNG", maintype="image", subtype="png", cid="<logo@x>")
    message.add_attachment(
        b"\x00\x01PDF", maintype="application", subtype="pdf", filename="Rechnung März.pdf"
    )

    parts = take_apart(message.as_bytes(policy=SMTP))

    assert headers(parts)["Subject"] == "Grüße an alle, für 5 €"
    assert parts.text == "Viele Grüße\nJörg\n"
    assert parts.html is not None
    assert parts.html.startswith("<p>Grüße")
    assert [
        (each.content_type, each.filename, each.content_id, each.octets) for each in parts.attachments
    ] == [
        ("image/png", None, "logo@x", b"\x89PNG"),
        ("application/pdf", "Rechnung März.pdf", None, b"\x00\x01PDF"),
    ]
    assert parts.unread == ()


def test_a_message_within_a_message_is_a_file() -> None:
    """A forwarded message is not mixed up with the one that carries it."""
    inner = b"From: x@contoso.com\r\nSubject: inner\r\n\r\ninner text\r\n"
    raw = (
        MULTIPART
        + b"--b\r\n\r\nouter\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n"
        + inner
        + b"\r\n--b--\r\n"
    )

    parts = take_apart(raw)

    assert parts.text == "outer"
    assert [(each.content_type, each.octets) for each in parts.attachments] == [("message/rfc822", inner)]


def test_a_boundary_that_begins_another_one_is_not_confused_with_it() -> None:
    """`--b` does not end at `--bb`, and what comes after the end is not shown."""
    raw = MULTIPART + b"--b\r\n\r\none\r\n--bb\r\ntwo\r\n--b--\r\n--b\r\n\r\nafter\r\n"

    parts = take_apart(raw)

    assert (parts.text, parts.attachments) == ("one\n--bb\ntwo", ())


@pytest.mark.parametrize(
    ("charset", "octets", "shown"),
    [
        ("iso-8859-1", b"caf\xe9", "café"),
        ("windows-1252", b"5 \x80", "5 €"),
        ("ISO-2022-JP", b"\x1b$B$3$s\x1b(B", "こん"),
        ("us-ascii", "naïve".encode(), "naïve"),
    ],
)
def test_texts_of_the_charsets_of_mail_are_read(charset: str, octets: bytes, shown: str) -> None:
    """What is declared is believed, and ASCII that is none is UTF-8."""
    parts = take_apart(b"Content-Type: text/plain; charset=" + charset.encode() + b"\r\n\r\n" + octets)

    assert (parts.text, parts.unread) == (shown, ())


@pytest.mark.parametrize("charset", [b"idna", b"utf-7", b"unicode_escape", b"zlib", b"x" * 3000, b"\xff"])
def test_other_charsets_are_shown_as_utf8_and_that_is_said(charset: bytes) -> None:
    """Python knows more charsets than mail does; none of these is used."""
    parts = take_apart(b"Content-Type: text/plain; charset=" + charset + b"\r\n\r\n+2AA-\xe4")

    assert parts.text == "+2AA-\ufffd"
    assert len(parts.unread) == 1


@pytest.mark.parametrize(
    ("part", "unread"),
    [
        (b"Content-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\nA", "base64"),
        (
            b"Content-Type: application/pdf\r\nContent-Transfer-Encoding: x-uuencode\r\n\r\nA",
            "transfer encoding",
        ),
        (b"Content-Type: multipart/mixed\r\n\r\nA", "where they begin"),
        (MULTIPART + b"--b\r\n\r\ntext", "no end"),
    ],
)
def test_what_cannot_be_read_is_said(part: bytes, unread: str) -> None:
    """The octets are shown as they came, with a sentence about it."""
    parts = take_apart(part)

    assert any(unread in sentence for sentence in parts.unread), parts.unread
    assert parts.text == "text" or parts.attachments[0].octets == b"A"


HOSTILE = {
    "nested": b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(100_000)
    ),
    "many parts": MULTIPART + b"--b\r\n\r\nx\r\n" * 1_000_000,
    "nearly a boundary": MULTIPART + b"--bb\r\n" * 3_000_000,
    "many fields": b"X: y\r\n" * 3_000_000,
    "a long field": b"Subject: " + b"=?utf-8?q?a?= " * 1_000_000,
    "folded for ever": b"Subject: x\r\n" + b" y\r\n" * 1_000_000,
    "quotes": MULTIPART + (b"--b\r\nContent-Disposition: x;" + b'"a;' * 1300 + b"\r\n\r\nx\r\n") * 500,
    "continuations": MULTIPART
    + (b"--b\r\nContent-Disposition: x;" + b"".join(b" a*%d=x;" % n for n in range(400)) + b"\r\n\r\nx\r\n")
    * 500,
    "a large text": b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + b"=C3=A4" * 3_000_000,
    "empty boundary": b'Content-Type: multipart/mixed; boundary=""\r\n\r\n--\r\n\r\nx\r\n----\r\n',
}


@pytest.mark.parametrize("raw", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_messages_cost_no_more_than_a_moment(raw: bytes) -> None:
    """Whatever it is, something is shown, what is missing is said, and processor time stays bounded."""
    before = time.thread_time()

    parts = take_apart(raw)

    assert (
        time.thread_time() - before < 3.0
    )  # seconds of this thread; a limit of half a second is in the code
    assert parts.unread
    assert len(parts.attachments) <= 500


FRAGMENTS = st.lists(
    st.sampled_from(
        [
            b"Content-Type: multipart/mixed; boundary=b\r\n", b"Content-Type: text/plain; charset=", b"utf-8", b"\r\n",
            b"\r\n\r\n", b"--b", b"--b--", b"--", b"Content-Disposition: attachment; filename*0*=utf-8''%C3", b"%A4",
            b"; filename*1=x", b";", b'"', b"=?utf-8?b?", b"w6Q=", b"?=", b" ", b"\t", b":", b"=", b"*", b"'",
            b"Content-Transfer-Encoding: base64\r\n", b"Content-ID: <x>\r\n", b"\x00", b"\xff", b"A", b"\\",
        ]
    ) | st.binary(max_size=6),
    max_size=40,
).map(b"".join)  # fmt: skip


@given(raw=FRAGMENTS)
@settings(max_examples=400, deadline=None, derandomize=True)
def test_no_message_is_too_broken_to_be_shown(raw: bytes) -> None:
    """Octets at random, of words that mean something, are always taken apart into what can be written as JSON."""
    parts = take_apart(raw)

    shown = [
        parts.headers,
        parts.text,
        parts.html,
        parts.unread,
        [each.filename for each in parts.attachments],
    ]
    assert json.dumps(shown, ensure_ascii=False).encode()
