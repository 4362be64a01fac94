"""Whole messages mean to the standard library's reader what the caller asked for.

Each property draws a draft with everything at once, hostile text among it, because mail that is
written by hand goes wrong between its parts: a name that ends a field, a text that ends its part, a
line that is cut where it may not be.
"""

from __future__ import annotations

import base64
import re
from dataclasses import fields
from email import message_from_string
from email.header import decode_header, make_header
from email.utils import getaddresses
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.mail.address import Mailbox
from tests.mail.builders import (
    DATE,
    MESSAGE_ID,
    a_draft,
    an_attachment,
    composed,
    examples,
    hostile,
    is_wire_clean,
    line_characters,
    lines,
    read,
)

if TYPE_CHECKING:
    from service.mail.draft import Composed, Draft

addresses = st.sampled_from(
    ["ana@contoso.com", "o'neil+tag@b.contoso.com", '"a, b"@contoso.com', "zoë@contoso.com", "a@münchen.de"]
)
names = (
    st.none() | st.sampled_from(["Zoë Müller", "Ana Silva", "山田 太郎", "Silva, Dr. A."]) | lines | hostile
)
mailboxes = st.builds(lambda email, name: Mailbox.of(email=email, name=name), email=addresses, name=names)
everybody = st.lists(mailboxes, max_size=4).map(tuple)
words = st.sampled_from(
    [
        *(
            "Größe",
            "ascii ",
            "\n",
            "\r\n",
            "\r",
            ".\n",
            "\nFrom ",
            "名前",
            "=3D",
            "=",
            "\t",
            " \n",
            "\n-- \n",
        ),
        *("--=_", "<p>", "&amp;", "x" * 90, "😀" * 30, "\x0c", "\u2028"),
    ]
)
bodies = st.lists(words, max_size=40).map("".join)
filenames = st.none() | st.text(line_characters, max_size=60).map(
    lambda name: re.sub(r"[/\\]", "-", name) + ".pdf"
)
files = st.builds(
    an_attachment,
    filename=filenames,
    content=st.binary(max_size=300),
    disposition=st.sampled_from([None, "attachment", "inline"]),
)
drafts = st.builds(
    a_draft,
    sender=mailboxes,
    to=everybody,
    cc=everybody,
    bcc=st.just((Mailbox.parse("Secret <secret@contoso.com>"),)),
    reply_to=everybody,
    subject=st.none() | lines | hostile,
    text=bodies,
    html=bodies.map("<p>{}".format),
    headers=st.dictionaries(st.sampled_from(["X-Order", "Comments", f"X-{'y' * 60}"]), lines | hostile),
    attachments=st.lists(files, max_size=3).map(tuple),
)


def written(draft: Draft) -> Composed:
    return composed(**{each.name: getattr(draft, each.name) for each in fields(draft)})


def named_in(message: Composed, field: str) -> list[tuple[str, str]]:
    """Read the names and addresses of a field by the old reader, for the reason that `name_read` has."""
    values = message_from_string(message.octets.decode()).get_all(field, [])
    return [(str(make_header(decode_header(name))), address) for name, address in getaddresses(values)]


def unified(text: str | None) -> str:
    return re.sub(r"\r\n?", "\n", text or "")


@examples
@given(draft=drafts)
def test_a_message_says_what_was_asked_for(draft: Draft) -> None:
    """Subject, headers, text, HTML and files are read back as they were given, and nothing besides."""
    parsed = read(written(draft))
    leaves = [part for part in parsed.walk() if not part.is_multipart()]
    asked = [unified(each) for each in (draft.text, draft.html) if each]
    texts, rest = leaves[: len(asked)], leaves[len(asked) :]
    said = [unified(part.get_content()) for part in texts]
    if not parsed.is_multipart():  # the last line of a message has an end, asked for or not
        asked, said = [[each[0].removesuffix("\n")] for each in (asked, said)]

    assert draft.subject == (None if draft.subject is None else str(parsed["Subject"]))
    assert dict(draft.headers) == {name: str(parsed[name]) for name in draft.headers}
    assert (parsed["Date"].datetime, str(parsed["Message-ID"])) == (DATE, MESSAGE_ID)
    assert asked == said
    assert [(each.filename and each.filename.strip(), each.content) for each in draft.attachments] == [
        (part.get_filename(), part.get_payload(decode=True)) for part in rest
    ]
    assert not [part.defects for part in parsed.walk() if part.defects]


@examples
@given(draft=drafts)
def test_a_message_names_whom_it_was_asked_to_name(draft: Draft) -> None:
    """Names and addresses of each field come back in their order; who is in Bcc is nowhere."""
    message = written(draft)

    asked = {"From": (draft.sender,), "To": draft.to, "Cc": draft.cc, "Reply-To": draft.reply_to}
    for field, given_ones in asked.items():
        if field == "To" and not (draft.to or draft.cc):
            continue  # it has a group with nobody in it, which is a test's own
        assert [(each.name or "", str(each.address)) for each in given_ones] == named_in(message, field)
    assert b"ecret" not in message.octets


@examples
@given(draft=drafts)
def test_the_lines_of_a_message_fit_the_wire(draft: Draft) -> None:
    """CRLF alone, ASCII unless an address needs more, and lines of 78 wherever one can be broken."""
    message = written(draft)

    assert is_wire_clean(message.octets)
    assert message.octets.isascii() or message.smtputf8
    for line in message.octets.split(b"\r\n"):
        # What is quoted is not broken, nor is anything without a space in it.
        unquoted = re.sub(rb'"(?:[^"\\]|\\.)*"', b'""', line)
        assert len(line) <= 78 or re.fullmatch(rb"(?:[!-9;-~]+:)?[ \t]*[^ \t]*", unquoted)


BLOCK = 1024 * 57  # how many octets are encoded at a time


@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("more", [-58, -57, -56, -1, 0, 1, 2, 56, 57, 58])
def test_base64_has_no_seam(blocks: int, more: int) -> None:
    """A file that is encoded in blocks has the lines of one that is encoded at once, wherever it ends."""
    content = bytes(range(251)) * (blocks * BLOCK // 251 + 1)
    content = content[: blocks * BLOCK + more]

    octets = composed(text=None, attachments=(an_attachment(content=content),)).octets

    encoded = base64.b64encode(content)
    in_lines = [encoded[at : at + 76] for at in range(0, len(encoded), 76)]
    _, _, body = octets.rpartition(
        b"Content-Disposition: attachment\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    )
    assert in_lines == body.split(b"\r\n")[:-2]


@examples
@given(text=bodies)
@example(text="é" * 38 + "x" * 57)
def test_a_text_is_in_the_shorter_encoding(text: str) -> None:
    """Of quoted-printable and base64 the one is taken that makes the shorter part."""
    part = read(composed(text=text))
    octets = unified(text).replace("\n", "\r\n").encode()

    length = len(str(part.get_payload()))

    if part["Content-Transfer-Encoding"] != "7bit":
        as_base64 = base64.b64encode(octets)
        assert length <= len(as_base64) + len(as_base64) // 76 * 2 + 2
