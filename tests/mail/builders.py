"""Drafts, mailboxes and the reader's view of a message, for the tests of the mail room."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from service.mail.address import Mailbox
from service.mail.compose import Attachment, BadDraft, Composed, Draft, adopt, compose

DATE = datetime(2026, 11, 23, 19, 40, 2, tzinfo=UTC)
MESSAGE_ID = "<01JDB6Z0Q5V8W6K3T1E9F4H2RC@contoso.com>"

examples = settings(deadline=None, max_examples=60, database=None)

# Text that fits one line: what a subject, a name or a header's value may hold.
line_characters = st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\u2028\u2029")
lines = st.text(line_characters, max_size=200)
hostile = st.sampled_from(
    [
        "=?utf-8?q?x=0D=0ABcc:_evil@example.com?=",
        "=?utf-8?b?DQpCY2M6IGV2aWxAZXhhbXBsZS5jb20=?=",
        '"; filename="evil.exe',
        "a, evil@example.com",
        "Evil <evil@example.com>",
        "(comment) [brackets] \\ backslash",
        "  outer  and   inner  ",
        "=?",
        "?=",
        '"',
        "x" * 200,
        "😀" * 100,
        "é " * 100,
    ]
)


def a_draft(**changes: Any) -> Draft:
    """Build a plain draft of one line of text to one recipient, with changes."""
    draft = Draft(
        sender=Mailbox.parse("Contoso <noreply@contoso.com>"),
        to=(Mailbox.parse("Ana <ana@contoso.com>"),),
        cc=(),
        bcc=(),
        reply_to=(),
        subject="Your receipt",
        text="Thank you.\n",
        html=None,
        headers={},
        attachments=(),
    )
    return replace(draft, **changes)


def an_attachment(**changes: Any) -> Attachment:
    """Build an attachment of a few octets without any name, with changes."""
    nothing = Attachment(
        filename=None, content=b"\x00\x01\xff", content_type=None, content_id=None, disposition=None
    )
    return replace(nothing, **changes)


def composed(**changes: Any) -> Composed:
    """Compose a draft with changes."""
    return compose(a_draft(**changes), message_id=MESSAGE_ID, date=DATE)


def adopted(raw: bytes) -> Composed:
    """Adopt a caller's own message."""
    return adopt(raw, message_id=MESSAGE_ID, date=DATE)


def read(message: Composed) -> EmailMessage:
    """Read a message as a mail reader does: with a parser that is not ours."""
    parsed = BytesParser(policy=policy.default).parsebytes(message.octets)
    assert isinstance(parsed, EmailMessage)
    return parsed


def part_types(message: Composed) -> list[str]:
    """List the types of all parts, outermost first."""
    return [part.get_content_type() for part in read(message).walk()]


def refusal(**changes: Any) -> tuple[str, str]:
    """Compose what must be refused; give pointer and code."""
    try:
        composed(**changes)
    except BadDraft as exc:
        return exc.pointer, exc.code
    raise AssertionError("the draft was accepted")


def is_wire_clean(octets: bytes) -> bool:
    """Whether octets are fit for DATA: CRLF only, the last line ended, no line over 998 octets, no NUL."""
    return (
        octets.endswith(b"\r\n")
        and b"\0" not in octets
        and not re.search(rb"\r(?!\n)|(?<!\r)\n", octets)
        and max(map(len, octets.split(b"\r\n"))) <= 998
    )
