"""Header lines, and what a reader that is not ours makes of them."""

from __future__ import annotations

import re
from email import message_from_bytes
from email.header import decode_header, make_header
from email.utils import getaddresses

import pytest
from hypothesis import given

from service.mail.address import NAME_CHARACTERS, Mailbox
from service.mail.draft import LINE_CHARACTERS, Composed
from service.mail.headers import encoded_words, fold, mailbox_field, parameter_field, text_field
from tests.mail.builders import composed, examples, hostile, is_wire_clean, lines, read

OUR_FIELDS = ["From", "To", "Subject", "Date", "Message-ID", "MIME-Version", "Content-Type"]


def lines_of(field: bytes) -> list[str]:
    return field.decode("ascii").removesuffix("\r\n").split("\r\n")


def name_read(message: Composed) -> str:
    """Read the first name in To by the standard library's old reader.

    The new one of Python 3.11 keeps the space between two encoded words of a name, which RFC 2047
    §6.2 has readers drop.
    """
    field = message_from_bytes(message.octets)["To"]
    (name, _), *_ = getaddresses([field])
    return str(make_header(decode_header(name)))


@examples
@given(subject=lines | hostile)
def test_any_subject_arrives_as_it_was_given(subject: str) -> None:
    """A subject is read back as it was given, and it is one field whatever is in it."""
    message = composed(subject=subject)

    parsed = read(message)

    assert str(parsed["Subject"]) == subject
    assert [name for name in parsed if not name.startswith("Content-Transfer")] == OUR_FIELDS
    assert is_wire_clean(message.octets)


@examples
@given(name=lines | hostile)
def test_any_display_name_arrives_as_it_was_given(name: str) -> None:
    """A name is read back as it was given, and adds no recipient whatever is in it."""
    mailbox = Mailbox.of(email="ana@contoso.com", name=name)

    message = composed(to=(mailbox, Mailbox.parse("bo@contoso.com")))

    assert [each.addr_spec for each in read(message)["To"].addresses] == ["ana@contoso.com", "bo@contoso.com"]
    assert name_read(message) == (mailbox.name or "")
    assert is_wire_clean(message.octets)


@examples
@given(value=lines | hostile)
def test_any_header_value_arrives_as_it_was_given(value: str) -> None:
    """A caller's header is one field whose value is read back as it was given."""
    message = composed(headers={"X-Order": value})

    parsed = read(message)

    assert str(parsed["X-Order"]) == value
    assert sorted(set(parsed) - set(OUR_FIELDS)) == ["Content-Transfer-Encoding", "X-Order"]


@pytest.mark.parametrize(
    "subject",
    [
        "=?utf-8?q?x=0D=0ABcc:_evil@example.com?=",
        "=?utf-8?b?eA0KQmNjOiBldmlsQGV4YW1wbGUuY29t?=",
        "Re: =?us-ascii?q?=0ABcc:_evil@example.com?= x",
    ],
)
def test_an_encoded_word_in_a_subject_is_only_text(subject: str) -> None:
    """What looks like an encoded word is encoded itself and never decoded (CVE-2024-6923)."""
    message = composed(subject=subject)

    assert b"Bcc" not in message.octets
    assert subject.encode() not in message.octets
    assert read(message)["Bcc"] is None


@pytest.mark.parametrize(
    "text", ["é" * LINE_CHARACTERS, "😀" * LINE_CHARACTERS, "e é " * 240, "é" + "x" * 900]
)
def test_encoded_words_stay_in_their_limits(text: str) -> None:
    """A word has at most 75 characters, its line at most 76, and each decodes by itself (RFC 2047 §2, §5)."""
    field = lines_of(text_field("Subject", text))

    assert max(map(len, field)) <= 76
    for line in field:
        word = line.removeprefix("Subject:").strip()
        assert len(word) <= 75
        assert re.fullmatch(r"=\?utf-8\?[qb]\?[!->@-~]+\?=", word)


@pytest.mark.parametrize("character", ["é", "名", "😀"])
def test_the_number_of_words_grows_with_the_text_alone(character: str) -> None:
    """The work for the longest subject and name is bounded: so many words and no more."""
    octets = len(character.encode())

    words = encoded_words(character * LINE_CHARACTERS, used=len("Subject: "))
    names = encoded_words(character * NAME_CHARACTERS, used=len("From: "))

    assert len(words) <= LINE_CHARACTERS * octets // 42 + 2
    assert len(names) <= NAME_CHARACTERS * octets // 42 + 2


def test_a_mostly_ascii_text_stays_readable() -> None:
    """Q is taken where it is the shorter one."""
    assert text_field("Subject", "Receipt from Café Central") == (
        b"Subject: =?utf-8?q?Receipt_from_Caf=C3=A9_Central?=\r\n"
    )


def test_plain_text_is_folded_at_its_spaces() -> None:
    """Lines have 78 characters where there is a space to break at, and unfolding changes nothing."""
    value = "word " * 60 + "end"

    field = lines_of(text_field("X-Words", value))

    assert max(map(len, field)) <= 78
    assert "".join(field) == f"X-Words: {value}"


def test_a_fold_is_never_a_blank_line() -> None:
    """Runs of spaces make no line of white space only, which some readers take for the header's end."""
    field = lines_of(text_field("X-Spaces", "a" + " " * 300 + "b" + "\t" * 90 + "c"))

    assert all(line.strip() for line in field)


def test_a_word_too_long_for_a_line_is_encoded() -> None:
    """No line has more than 998 octets, though there is no space to break at."""
    field = lines_of(text_field("X-Long", "x" * LINE_CHARACTERS))

    assert max(map(len, field)) <= 76


def test_many_recipients_are_folded() -> None:
    """A thousand recipients stay in lines of 78 characters."""
    field = lines_of(mailbox_field("To", [Mailbox.parse(f"r{n}@contoso.com") for n in range(1000)]))

    assert max(map(len, field)) <= 78


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("Ana Silva", "From: Ana Silva <a@b>"),
        ("Silva, Ana", 'From: "Silva, Ana" <a@b>'),
        ('Ana "A"', r'From: "Ana \"A\"" <a@b>'),
        ("Dr. Ana", 'From: "Dr. Ana" <a@b>'),
        ("Zoë", "From: =?utf-8?q?Zo=C3=AB?= <a@b>"),
        (None, "From: a@b"),
    ],
)
def test_a_name_is_quoted_or_encoded_where_it_must(name: str | None, printed: str) -> None:
    """A phrase stands bare, specials are quoted, the rest is encoded (RFC 5322 §3.4, RFC 2047 §5)."""
    assert lines_of(mailbox_field("From", [Mailbox.of(email="a@b", name=name)])) == [printed]


def test_a_local_part_beyond_ascii_is_written_in_utf8() -> None:
    """RFC 6532: there is no other way to write such an address."""
    assert mailbox_field("From", [Mailbox.parse("jörg@b")]) == "From: jörg@b\r\n".encode()


def test_a_long_parameter_is_cut_between_characters() -> None:
    """Each segment of an extended parameter decodes by itself (RFC 2231 §3 and §4)."""
    field = lines_of(parameter_field("Content-Disposition", "attachment", [("filename", "名" * 100)]))

    assert max(map(len, field)) <= 78
    assert all(re.search(r"\*=(?:utf-8'')?(?:%E5%90%8D)+;?$", line) for line in field[1:])


def test_the_first_piece_stays_with_the_name() -> None:
    """A field whose first line is empty is taken for an empty field by some readers."""
    assert lines_of(fold("X-Long-Name", [" " + "x" * 100, " y"]))[0] == "X-Long-Name: " + "x" * 100
