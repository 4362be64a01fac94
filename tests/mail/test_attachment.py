"""Attachments: names, types, content ids."""

from __future__ import annotations

from email import message_from_bytes
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.mail.draft import FILENAME_CHARACTERS
from tests.mail.builders import an_attachment, composed, examples, line_characters, read, refusal


def part(**changes: object) -> EmailMessage:
    """Compose with one attachment and read it back."""
    (found,) = read(composed(attachments=(an_attachment(**changes),))).iter_attachments()
    assert isinstance(found, EmailMessage)
    return found


def refused(**changes: object) -> tuple[str, str]:
    return refusal(attachments=(an_attachment(), an_attachment(**changes)))


@examples
@given(
    filename=st.text(line_characters, min_size=1, max_size=60).filter(
        lambda name: name.strip() and not set(name) & {"/", "\\"} and name not in {".", ".."}
    )
)
def test_any_file_name_arrives_as_it_was_given(filename: str) -> None:
    """A name is read back as it was given, without white space around it, by an old and a new reader."""
    message = composed(attachments=(an_attachment(filename=filename),))

    new = [each.get_filename() for each in read(message).iter_attachments()]
    old = [each.get_filename() for each in message_from_bytes(message.octets).walk() if each.get_filename()]

    assert new == [filename.strip()]
    assert old == [filename.strip()]


@pytest.mark.parametrize(
    "filename",
    [
        "Rechnung für März.pdf",
        "領収書" * 80 + ".pdf",
        "😀" * FILENAME_CHARACTERS,
        "a" * FILENAME_CHARACTERS,
        'say "hi"; filename=evil.exe',
        "=?utf-8?q?evil=0D=0A?=.pdf",
        "100% 'sure'*.txt",
    ],
)
def test_awkward_file_names_arrive(filename: str) -> None:
    """Long names, quotes, percent signs and encoded words are names like others."""
    assert part(filename=filename).get_filename() == filename


@pytest.mark.parametrize(
    ("filename", "code"),
    [
        ("../../etc/passwd", "path"),
        ("C:\\temp\\a.pdf", "path"),
        ("/a.pdf", "path"),
        ("..", "path"),
        ("a\0.pdf", "nul"),
        ("a\r\nBcc: evil@example.com", "control_character"),
        ("a\tb", "control_character"),
        ("a\u2028b", "control_character"),
        ("a\ud800", "surrogate"),
        ("", "empty"),
        ("  ", "empty"),
        ("a" * (FILENAME_CHARACTERS + 1), "too_long"),
    ],
)
def test_a_file_name_is_a_name(filename: str, code: str) -> None:
    """Paths, controls and what cannot be encoded are refused."""
    assert refused(filename=filename) == ("/attachments/1/filename", code)


@pytest.mark.parametrize(
    ("filename", "content_type", "wanted"),
    [
        ("a.pdf", None, "application/pdf"),
        ("A.PDF", None, "application/pdf"),
        ("a.xlsx", None, "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
        ("a.unknown", None, "application/octet-stream"),
        (None, None, "application/octet-stream"),
        ("a.pdf", "application/x-own", "application/x-own"),
        ("a.ics", 'text/calendar; method=REQUEST; charset="utf-8"', "text/calendar"),
    ],
)
def test_a_type_is_given_or_told_by_the_name(
    filename: str | None, content_type: str | None, wanted: str
) -> None:
    """What the caller says counts; then the end of the file name."""
    assert part(filename=filename, content_type=content_type).get_content_type() == wanted


def test_parameters_of_a_type_are_kept() -> None:
    """A calendar's method is what makes it an invitation."""
    found = part(content_type="text/calendar; METHOD=REQUEST; charset=utf-8", filename="a.ics")

    assert dict(found["Content-Type"].params) == {"method": "REQUEST", "charset": "utf-8", "name": "a.ics"}


@pytest.mark.parametrize(
    ("content", "charset"), [("größe".encode(), "utf-8"), ("größe".encode("latin-1"), None), (b"size", None)]
)
def test_a_text_file_in_utf8_says_so(content: bytes, charset: str | None) -> None:
    """Readers guess wrong where nothing is said; we say only what we know."""
    assert part(filename="a.txt", content=content).get_param("charset") == charset


@pytest.mark.parametrize(
    ("content_type", "code"),
    [
        ("", "bad_content_type"),
        ("pdf", "bad_content_type"),
        ("a/b/c", "bad_content_type"),
        ("text/plain; charset", "bad_content_type"),
        ("text/plain\r\nBcc: evil@example.com", "bad_content_type"),
        ("text/plain; a=1; A=2", "bad_content_type"),
        ("text/é", "bad_content_type"),
        ("text/" + "x" * 300, "bad_content_type"),
        ("multipart/mixed; boundary=x", "content_type_refused"),
        ("Message/Partial", "content_type_refused"),
        ("message/external-body", "content_type_refused"),
    ],
)
def test_a_type_that_is_none_is_refused(content_type: str, code: str) -> None:
    """A type cannot inject a field or open a multipart without parts."""
    assert refused(content_type=content_type) == ("/attachments/1/content_type", code)


@pytest.mark.parametrize("content_id", ["logo", "<logo>", "logo@contoso.com"])
def test_a_content_id_has_brackets_on_the_wire(content_id: str) -> None:
    """With or without brackets, `cid:logo` finds the picture."""
    assert (
        f"\r\nContent-ID: <{content_id.strip('<>')}>\r\n".encode()
        in composed(html="<img>", attachments=(an_attachment(content_id=content_id),)).octets
    )


@pytest.mark.parametrize(
    "content_id",
    ["", "<>", "<logo", "logo>", "lo go", "é", "a\r\nBcc: x@y", "=?utf-8?q?x=0D=0ABcc:_y?=", "x" * 256],
)
def test_a_content_id_that_is_none_is_refused(content_id: str) -> None:
    """A content id is visible ASCII, whole or not at all in brackets."""
    assert refused(content_id=content_id) == ("/attachments/1/content_id", "bad_content_id")


def test_a_disposition_is_one_of_two() -> None:
    """Nothing else means something to a reader."""
    assert refused(disposition="form-data") == ("/attachments/1/disposition", "bad_disposition")


@pytest.mark.parametrize(
    ("disposition", "content_id", "wanted"),
    [
        (None, None, "attachment"),
        (None, "logo", "inline"),
        ("inline", None, "inline"),
        ("attachment", "logo", "attachment"),
    ],
)
def test_a_content_id_makes_a_part_inline(
    disposition: str | None, content_id: str | None, wanted: str
) -> None:
    """Unless the caller says otherwise."""
    assert part(disposition=disposition, content_id=content_id).get_content_disposition() == wanted


def test_a_forwarded_message_is_not_encoded() -> None:
    """RFC 2046 §5.2.1 forbids it, and readers show nothing of an encoded one."""
    found = part(filename="mail.eml", content=b"Subject: Hello\n\nHello.\n")

    assert (found["Content-Transfer-Encoding"], found.get_content()["Subject"]) == ("7bit", "Hello")


@pytest.mark.parametrize(
    "content", ["Subject: é\n\n".encode(), b"Subject: a\n\n" + b"x" * 999, b"Subject: a\r\n\r\rx"]
)
def test_a_message_that_needs_encoding_is_a_file(content: bytes) -> None:
    """Eight bits, long lines and bare CR arrive unchanged, as a file."""
    found = part(filename="mail.eml", content=content)

    assert (found.get_content_type(), found.get_payload(decode=True)) == ("application/octet-stream", content)
