"""From a caller's draft to the octets that follow DATA.

A message is composed once, when it is accepted, and never again: every attempt sends the same
octets, with the same Message-ID and Date, so that a second copy is known as one (Exchange's store
drops it by these two).

1. Refuse what cannot be sent or is too costly to build (`check_draft`, `BadDraft`).
2. Write the header: ours first, then the caller's. Bcc is not written.
3. Write the body as the smallest tree that holds it:
   mixed( related( alternative( text, html ), pictures… ), files… ).

Everything that a caller gave is plain text to us. The result is ASCII with lines of at most 998
octets and CRLF alone (RFC 5322 §2.3), unless a local part needs UTF-8 (RFC 6532).

A message that the caller built is taken over by `adopt`.
"""

from __future__ import annotations

import re
from email.utils import format_datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from service.mail.adopt import adopt, authors
from service.mail.attachment import check_attachment, content_id, is_inline, part_of
from service.mail.draft import (
    ATTACHMENTS,
    CUSTOM_HEADERS,
    HEADER_OCTETS,
    LINE_CHARACTERS,
    Attachment,
    BadDraft,
    Composed,
    Draft,
    check_line,
    check_unicode,
)
from service.mail.headers import fold, mailbox_field, text_field
from service.mail.html_text import text_of
from service.mail.lines import LINE_OCTETS
from service.mail.message_id import is_message_id, new_message_id
from service.mail.mime import Branch, Leaf, Writer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

__all__ = [
    "Attachment",
    "BadDraft",
    "Composed",
    "Draft",
    "adopt",
    "authors",
    "compose",
    "new_message_id",
    "text_of",
]

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,76}")
# Ours to write, or the mark of another hand: a caller who sets one of these could make a message
# that says something else than what was checked.
_RESERVED = re.compile(
    r"from|sender|to|cc|bcc|reply-to|subject|date|message-id|mime-version|received|return-path"
    r"|dkim-signature|content-.*|resent-.*|arc-.*",
    re.IGNORECASE,
)
# Read by machines: encoded words have no place in them (RFC 2047 §5), so they are ASCII or refused.
_STRUCTURED = re.compile(
    r"in-reply-to|references|list-.*|auto-submitted|precedence|importance|priority|x-priority|sensitivity"
    r"|disposition-notification-to|require-recipient-valid-since|expires|supersedes|feedback-id",
    re.IGNORECASE,
)


def compose(draft: Draft, *, message_id: str, date: datetime) -> Composed:
    """Write a message. `message_id` has its brackets, `date` is aware.

    Raises `BadDraft`. Costs time in proportion to the size: keep large ones off the event loop.
    """
    if not is_message_id(message_id):
        raise ValueError("message_id is no msg-id in angle brackets")
    check_draft(draft)
    header = _header(draft, message_id=message_id, date=date)
    if len(header) > HEADER_OCTETS:
        raise BadDraft("", "header_too_large", f"The header would have more than {HEADER_OCTETS // 1024} kB.")
    writer = Writer.of(message_id)
    return Composed(
        octets=writer.written(_body(draft, writer), header=header + b"MIME-Version: 1.0\r\n"),
        message_id=message_id,
        subject=draft.subject or "",
        smtputf8=_needs_smtputf8(draft),
        eightbit=False,
    )


def check_draft(draft: Draft) -> None:
    """Refuse a draft that cannot be composed, at the first thing that is wrong. Raises `BadDraft`."""
    if draft.text is None and draft.html is None and not draft.attachments:
        raise BadDraft("/text", "empty", "Give a text, HTML or an attachment.")
    if draft.subject is not None:
        check_line(draft.subject, pointer="/subject", limit=LINE_CHARACTERS)
    check_unicode(draft.text or "", pointer="/text")
    check_unicode(draft.html or "", pointer="/html")
    _check_headers(draft.headers)
    if len(draft.attachments) > ATTACHMENTS:
        raise BadDraft("/attachments", "too_many", f"At most {ATTACHMENTS} attachments are accepted.")
    _check_attachments(draft.attachments)


def _check_headers(headers: Mapping[str, str]) -> None:
    if len(headers) > CUSTOM_HEADERS:
        raise BadDraft("/headers", "too_many", f"At most {CUSTOM_HEADERS} headers are accepted.")
    if len({name.lower() for name in headers}) != len(headers):
        raise BadDraft("/headers", "duplicate_header", "A header is given twice.")
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise BadDraft(
                "/headers", "bad_header_name", "A header's name is 1 to 76 letters, digits or hyphens."
            )
        if _RESERVED.fullmatch(name):
            raise BadDraft(
                "/headers",
                "forbidden_header",
                "A header is set that is the service's own; use the message's own fields for it.",
            )
        check_line(value, pointer="/headers", limit=LINE_CHARACTERS)
        if _STRUCTURED.fullmatch(name) and not _fits_structured(name, value):
            raise BadDraft(
                "/headers",
                "bad_header_value",
                "A header that machines read has a value that is not plain ASCII.",
            )


def _fits_structured(name: str, value: str) -> bool:
    pieces = value.split()
    return (
        value.isascii()
        and "=?" not in value
        and all(len(name) + len(piece) < LINE_OCTETS - 2 for piece in pieces)
    )


def _check_attachments(attachments: Sequence[Attachment]) -> None:
    seen: set[str] = set()
    for number, attachment in enumerate(attachments):
        pointer = f"/attachments/{number}"
        check_attachment(attachment, pointer=pointer)
        identity = content_id(attachment)
        if identity in seen:
            raise BadDraft(
                f"{pointer}/content_id", "duplicate_content_id", "The content id is already in use."
            )
        if identity is not None:
            seen.add(identity)


def _header(draft: Draft, *, message_id: str, date: datetime) -> bytes:
    fields = [mailbox_field("From", [draft.sender])]
    fields += [
        mailbox_field(name, mailboxes)
        for name, mailboxes in (("To", draft.to), ("Cc", draft.cc), ("Reply-To", draft.reply_to))
        if mailboxes
    ]
    if not draft.to and not draft.cc:
        # All are in Bcc. Filters take a message without a destination for spam (RFC 5322 §3.4).
        fields.append(fold("To", [" undisclosed-recipients:;"]))
    if draft.subject is not None:
        fields.append(text_field("Subject", draft.subject))
    fields.append(_date_field(date.replace(microsecond=0)))
    fields.append(fold("Message-ID", [f" {message_id}"]))
    fields += [_custom_field(name, value) for name, value in draft.headers.items()]
    return b"".join(fields)


@lru_cache(maxsize=8)
def _date_field(date: datetime) -> bytes:
    """Write the date: the same one for all messages of a second."""
    return fold("Date", [f" {format_datetime(date)}"])


def _custom_field(name: str, value: str) -> bytes:
    if _STRUCTURED.fullmatch(name):
        return fold(name, [f" {piece}" for piece in value.split()])
    return text_field(name, value)


def _needs_smtputf8(draft: Draft) -> bool:
    everybody = (draft.sender, *draft.to, *draft.cc, *draft.bcc, *draft.reply_to)
    return any(mailbox.address.smtputf8 for mailbox in everybody)


def _body(draft: Draft, writer: Writer) -> Leaf | Branch:
    """Build the tree of parts.

    Only what the HTML can refer to goes beside it: readers do not list the parts of a related
    body among the files, so anything else would be out of sight there.
    """
    pictures = [each for each in draft.attachments if _is_picture(each, draft)]
    files = [each for each in draft.attachments if not _is_picture(each, draft)]
    body = _words(draft, writer)
    if body is not None and pictures:
        body = Branch(subtype="related", parts=(body, *(part_of(each, writer=writer) for each in pictures)))
    if not files and body is not None:
        return body
    parts = (*((body,) if body else ()), *(part_of(each, writer=writer) for each in files))
    return Branch(subtype="mixed", parts=parts)


def _is_picture(attachment: Attachment, draft: Draft) -> bool:
    return draft.html is not None and is_inline(attachment) and content_id(attachment) is not None


def _words(draft: Draft, writer: Writer) -> Leaf | Branch | None:
    if draft.html is None:
        return None if draft.text is None else writer.text("plain", draft.text)
    html = writer.text("html", draft.html)
    text = text_of(draft.html) if draft.text is None else draft.text
    if not text:
        return html
    return Branch(subtype="alternative", parts=(writer.text("plain", text), html))
