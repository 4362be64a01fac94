"""The texts of a message, read from its octets."""

import time
from datetime import UTC, datetime

import pytest

from service.mail.address import Mailbox
from service.mail.compose import compose
from service.mail.draft import Attachment, Draft
from service.submission.resend.content import Texts, texts_of


def composed(*, text: str | None, html: str | None, attachments: tuple[Attachment, ...] = ()) -> bytes:
    draft = Draft(
        sender=Mailbox.parse("a@contoso.com"),
        to=(Mailbox.parse("b@example.com"),),
        cc=(),
        bcc=(),
        reply_to=(),
        subject="Hi",
        text=text,
        html=html,
        headers={},
        attachments=attachments,
    )
    return compose(draft, message_id="<1@contoso.com>", date=datetime(2026, 11, 25, tzinfo=UTC)).octets


def a_file(content: bytes, *, filename: str, content_id: str | None = None) -> Attachment:
    return Attachment(
        filename=filename, content=content, content_type=None, content_id=content_id, disposition=None
    )


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("Hello\nAna", None),
        ("Grüße ✉ " * 50, "<p>Grüße ✉</p>\n" * 100),
        ("x" * 5000, '<img src="cid:logo">'),
        ("", "<p>a</p>"),
    ],
)
def test_what_was_given_is_read_back(text: str, html: str | None) -> None:
    """Text and HTML come back as they were given, in every encoding, with files beside them."""
    files = (a_file(b"\x89PNG", filename="l.png", content_id="logo"), a_file(b"plain", filename="a.txt"))

    for attachments in ((), files):
        found = texts_of(composed(text=text, html=html, attachments=attachments))
        assert (text, html) == ((found.text or "").rstrip("\n"), found.html and found.html[: len(html or "")])


def test_a_text_file_is_no_text_of_the_message() -> None:
    """An attachment of text/plain is a file; the message's own HTML has the derived text."""
    found = texts_of(
        composed(text=None, html="<p>Hello</p>", attachments=(a_file(b"notes", filename="a.txt"),))
    )

    assert found.html == "<p>Hello</p>"
    assert found.text is not None
    assert "Hello" in found.text
    assert "notes" not in found.text


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"\r\n",
        b"Subject: x\r\n\r\n",
        b"Content-Type: multipart/mixed\r\n\r\nx",
        b'Content-Type: multipart/mixed; boundary=""\r\n\r\nx',
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b",
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n--b--",
        b"Content-Type: text/html; charset=klingon\r\n\r\n\xff",
        b'Content-Type: text/html; charset="a\x00b"\r\n\r\n\xff',
        b"Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n===",
        b"Content-Type: multipart/mixed; boundary*=x''%ff\r\n\r\n--\xff",
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" * 50,
        b"\xff\xfe\r\n\r\n\xff",
    ],
)
def test_no_message_breaks_the_reader(octets: bytes) -> None:
    """Whole messages come from applications as they please: the reader shows what it can."""
    assert isinstance(texts_of(octets), Texts)


def test_large_files_cost_little() -> None:
    """A message with a file of 20 MB is read in a fraction of a second: files are not decoded."""
    octets = composed(text="Hello", html=None, attachments=(a_file(bytes(20_000_000), filename="a.bin"),))
    began = time.process_time()

    found = texts_of(octets)

    assert found.text == "Hello"
    assert time.process_time() - began < 0.5
