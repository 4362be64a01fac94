"""Composing: the tree of parts, the fields, the refusals."""

from __future__ import annotations

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.mail.address import Mailbox
from service.mail.compose import compose, new_message_id
from service.mail.draft import ATTACHMENTS, CUSTOM_HEADERS, LINE_CHARACTERS
from service.mail.message_id import is_message_id
from tests.mail.builders import (
    DATE,
    MESSAGE_ID,
    a_draft,
    an_attachment,
    composed,
    examples,
    is_wire_clean,
    part_types,
    read,
    refusal,
)

bodies = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=400)
PICTURE = an_attachment(filename="logo.png", content_id="logo")
FILE = an_attachment(filename="receipt.pdf")


def test_a_message_is_composed() -> None:
    """The octets of a plain message, as they go over the wire."""
    message = composed()

    assert message.octets.decode().split("\r\n") == [
        "From: Contoso <noreply@contoso.com>",
        "To: Ana <ana@contoso.com>",
        "Subject: Your receipt",
        "Date: Mon, 23 Nov 2026 19:40:02 +0000",
        f"Message-ID: {MESSAGE_ID}",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 7bit",
        "",
        "Thank you.",
        "",
    ]
    assert (message.message_id, message.subject) == (MESSAGE_ID, "Your receipt")
    assert (message.smtputf8, message.eightbit) == (False, False)
    assert message.sha256 == hashlib.sha256(message.octets).hexdigest()


def test_the_same_draft_has_the_same_octets() -> None:
    """Nothing is left to chance: boundaries come from the Message-ID."""
    parts = {"html": "<p>Thank you.", "attachments": (PICTURE, FILE)}

    assert composed(**parts).octets == composed(**parts).octets


@pytest.mark.parametrize(
    ("text", "html", "attachments", "types"),
    [
        ("a", None, (), ["text/plain"]),
        ("a", "<p>a", (), ["multipart/alternative", "text/plain", "text/html"]),
        (None, "<p>a", (), ["multipart/alternative", "text/plain", "text/html"]),
        ("", "<p>a", (), ["text/html"]),
        (None, "<img>", (), ["text/html"]),
        ("", None, (), ["text/plain"]),
        (None, None, (FILE,), ["multipart/mixed", "application/pdf"]),
        ("a", None, (FILE,), ["multipart/mixed", "text/plain", "application/pdf"]),
        ("a", None, (PICTURE,), ["multipart/mixed", "text/plain", "image/png"]),
        ("", "<img src=cid:logo>", (PICTURE,), ["multipart/related", "text/html", "image/png"]),
        (
            None,
            "<p>a<img src=cid:logo>",
            (FILE, PICTURE),
            [
                *("multipart/mixed", "multipart/related", "multipart/alternative", "text/plain", "text/html"),
                *("image/png", "application/pdf"),
            ],
        ),
    ],
)
def test_the_tree_has_the_layers_that_are_needed(
    text: str | None, html: str | None, attachments: tuple[object, ...], types: list[str]
) -> None:
    """mixed( related( alternative( text, html ), pictures… ), files… ), and no layer for one part."""
    assert part_types(composed(text=text, html=html, attachments=attachments)) == types


def test_an_inline_part_without_a_content_id_is_not_hidden() -> None:
    """HTML cannot refer to it, so it stands among the files, where readers show it."""
    message = composed(html="<p>a", attachments=(an_attachment(filename="a.pdf", disposition="inline"),))

    assert part_types(message)[0] == "multipart/mixed"


def test_a_related_body_names_its_root() -> None:
    """RFC 2387 asks for the type of the part that the others belong to."""
    message = read(composed(html="<p>a", attachments=(PICTURE,)))

    assert message["Content-Type"].params["type"] == "multipart/alternative"


@examples
@given(text=bodies)
def test_any_text_arrives_as_it_was_given(text: str) -> None:
    """Text and HTML are read back as they were given, but for the form of their line ends."""
    message = composed(text=text, html=f"<p>{text}")

    plain, html = (part.get_content() for part in read(message).iter_parts()) if text else ("", "")

    wanted = re.sub(r"\r\n?", "\n", text)
    if text:
        assert [wanted, f"<p>{wanted}"] == [each.replace("\r\n", "\n") for each in (plain, html)]
    assert is_wire_clean(message.octets)


@examples
@given(content=st.binary(max_size=400))
def test_any_file_arrives_as_it_was_given(content: bytes) -> None:
    """Octets of an attachment are read back unchanged, a text file's too."""
    message = composed(
        attachments=tuple(an_attachment(filename=f"a.{end}", content=content) for end in ("bin", "txt"))
    )

    files = [part.get_payload(decode=True) for part in read(message).iter_attachments()]

    assert files == [content, content]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("short lines\nof ASCII\n", "7bit"),
        ("a.\n.\n..\nFrom here", "7bit"),
        ("x" * 79, "quoted-printable"),
        ("x" * 5000, "quoted-printable"),
        ("mostly ASCII, one é", "quoted-printable"),
        ("form\ffeed", "quoted-printable"),
        ("日本語" * 20, "base64"),
    ],
)
def test_a_text_has_the_encoding_that_it_needs(text: str, encoding: str) -> None:
    """Short lines of ASCII go as they are; the rest in what is shorter (RFC 2045 §6)."""
    message = composed(text=text)

    assert read(message)["Content-Transfer-Encoding"] == encoding
    assert is_wire_clean(message.octets)


def test_no_content_closes_its_part() -> None:
    """A text that knows the message's boundary is encoded, so that the boundary is not in it."""
    knowing = composed(html="<p>a").octets
    boundary = re.search(rb'boundary="([^"]+)"', knowing)
    assert boundary is not None
    attack = f"--{boundary[1].decode()}\n\nContent-Type: text/html\n\nevil\n"

    message = composed(
        text=attack, html=attack, attachments=(an_attachment(filename="a.eml", content=attack.encode()),)
    )

    types = [
        *("multipart/mixed", "multipart/alternative", "text/plain", "text/html"),
        "application/octet-stream",
    ]
    assert part_types(message) == types


def test_boundaries_are_not_prefixes_of_each_other() -> None:
    """Readers compare the beginning of a line only (RFC 2046 §5.1.1)."""
    octets = composed(html="<p>a", attachments=(PICTURE, FILE)).octets

    boundaries = re.findall(rb'boundary="([^"]+)"', octets)

    assert len(boundaries) == 3
    assert not [(a, b) for a in boundaries for b in boundaries if a != b and a.startswith(b)]


def test_bcc_is_in_the_envelope_only() -> None:
    """The octets do not name those in Bcc."""
    message = composed(bcc=(Mailbox.parse("Secret <secret@contoso.com>"),))

    assert b"ecret" not in message.octets
    assert b"Bcc" not in message.octets


def test_a_message_to_bcc_alone_has_a_destination() -> None:
    """Filters take a message without any destination field for spam."""
    assert (
        read(composed(to=(), bcc=(Mailbox.parse("a@b"),)))["To"].groups[0].display_name
        == "undisclosed-recipients"
    )


def test_cc_and_reply_to_are_written() -> None:
    """Copies and the address for answers are header fields of their own."""
    message = read(composed(cc=(Mailbox.parse("Bo <bo@b>"),), reply_to=(Mailbox.parse("help@b"),)))

    assert (message["Cc"], message["Reply-To"]) == ("Bo <bo@b>", "help@b")


def test_a_message_without_subject_has_no_subject_field() -> None:
    """Nothing is made up; the ledger shows an empty one."""
    message = composed(subject=None)

    assert read(message)["Subject"] is None
    assert message.subject == ""


@pytest.mark.parametrize("field", ["sender", "to", "cc", "bcc", "reply_to"])
def test_one_local_part_beyond_ascii_asks_for_smtputf8(field: str) -> None:
    """The transaction needs SMTPUTF8, wherever that address stands; nothing else of a draft does."""
    mailbox = Mailbox.parse("jörg@contoso.com")

    assert composed(**{field: mailbox if field == "sender" else (mailbox,)}).smtputf8
    assert not composed(subject="é", text="é", to=(Mailbox.parse("Jörg <a@münchen.de>"),)).smtputf8


@pytest.mark.parametrize(
    ("changes", "pointer", "code"),
    [
        ({"text": None}, "/text", "empty"),
        ({"text": "a\0b"}, "/text", "nul"),
        ({"text": "a\ud800b"}, "/text", "surrogate"),
        ({"html": "a\0b"}, "/html", "nul"),
        ({"html": "a\udfffb"}, "/html", "surrogate"),
        ({"subject": "a\r\nBcc: evil@example.com"}, "/subject", "control_character"),
        ({"subject": "a\x85b"}, "/subject", "control_character"),
        ({"subject": "a\u2028b"}, "/subject", "control_character"),
        ({"subject": "a\ud83db"}, "/subject", "surrogate"),
        ({"subject": "a\0b"}, "/subject", "nul"),
        ({"subject": "x" * (LINE_CHARACTERS + 1)}, "/subject", "too_long"),
        ({"headers": {"X-A": "a\nBcc: evil@example.com"}}, "/headers", "control_character"),
        ({"headers": {"X-A": "x" * (LINE_CHARACTERS + 1)}}, "/headers", "too_long"),
        ({"headers": {"X-A": "a", "x-a": "b"}}, "/headers", "duplicate_header"),
        ({"headers": {f"X-{n}": "a" for n in range(CUSTOM_HEADERS + 1)}}, "/headers", "too_many"),
        ({"headers": {"References": "<é@b>"}}, "/headers", "bad_header_value"),
        ({"headers": {"In-Reply-To": "=?utf-8?q?=0D=0ABcc:_a@b?="}}, "/headers", "bad_header_value"),
        ({"attachments": (FILE,) * (ATTACHMENTS + 1)}, "/attachments", "too_many"),
        ({"attachments": (PICTURE, PICTURE)}, "/attachments/1/content_id", "duplicate_content_id"),
    ],
)
def test_what_cannot_be_sent_is_refused(changes: dict[str, object], pointer: str, code: str) -> None:
    """A refusal names the field and the reason."""
    assert (pointer, code) == refusal(**changes)


@pytest.mark.parametrize(
    "name",
    [
        *("From", "sender", "TO", "Cc", "Bcc", "Reply-To", "Subject", "Date", "Message-ID", "MIME-Version"),
        *(
            "Content-Type",
            "content-language",
            "Received",
            "Return-Path",
            "Resent-Bcc",
            "DKIM-Signature",
            "ARC-Seal",
        ),
    ],
)
def test_reserved_headers_are_refused(name: str) -> None:
    """What the service sets, or another hand must have set, is not the caller's to write."""
    assert refusal(headers={name: "a"}) == ("/headers", "forbidden_header")


@pytest.mark.parametrize(
    "name", ["", "X A", "X:A", "X-É", "X\r\nBcc", "X\0", " Bcc", "Bcc ", "x" * 77, "\ud800"]
)
def test_a_header_name_is_a_name(name: str) -> None:
    """A name cannot smuggle a field, hide a reserved one behind a space, or be endless."""
    assert refusal(headers={name: "a"}) == ("/headers", "bad_header_name")


def test_headers_for_machines_are_not_encoded() -> None:
    """Identifiers and links stay as they are, on lines of their own where they are long."""
    references = " ".join(f"<{n}@contoso.com>" for n in range(40))

    message = read(
        composed(headers={"References": references, "List-Unsubscribe": "<https://contoso.com/u>"})
    )

    assert (message["References"], message["List-Unsubscribe"]) == (references, "<https://contoso.com/u>")


def test_a_header_larger_than_exchange_takes_is_refused() -> None:
    """256 kB is where Exchange stops, after the whole message has been sent."""
    crowd = tuple(Mailbox.of(email=f"r{n}@contoso.com", name="名" * 320) for n in range(300))

    assert refusal(to=crowd) == ("", "header_too_large")


def test_the_detail_of_a_refusal_does_not_repeat_the_input() -> None:
    """A refusal can be answered and logged as it is."""
    with pytest.raises(ValueError, match="own") as refused:
        composed(headers={"Resent-Secret": "secret"})

    assert "ecret" not in str(refused.value)


def test_a_message_id_sorts_by_time_and_is_ascii() -> None:
    """Ids are unique, valid, and in A-labels."""
    made = {new_message_id("münchen.de") for _ in range(1000)}

    assert len(made) == 1000
    assert all(is_message_id(each) and each.endswith("@xn--mnchen-3ya.de>") for each in made)


@pytest.mark.parametrize(
    "message_id", ["a@b", "<a>", "<a@b>\r\nBcc: x@y", "<a b@c>", "<é@b>", f"<{'a' * 900}@b>"]
)
def test_a_message_id_that_is_none_is_a_bug(message_id: str) -> None:
    """The Message-ID is ours, so a broken one is an error of the program and not of the caller."""
    with pytest.raises(ValueError, match="msg-id"):
        compose(a_draft(), message_id=message_id, date=DATE)
