"""What composing starts from, what it ends in, and the one refusal in between.

A `Draft` is what a caller asked for, a `Composed` is what goes over the wire and is the same in
every attempt. The limits here hold before anything is built, because the cost of encoding grows
with the length of what is encoded.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.mail.address import Mailbox

LINE_CHARACTERS = 998  # subject and header values: RFC 5322 §2.1.1 gives a line as many octets
FILENAME_CHARACTERS = 255  # what file systems take
CONTENT_ID_CHARACTERS = 255
CONTENT_TYPE_CHARACTERS = 255
CUSTOM_HEADERS = 100
ATTACHMENTS = 250
HEADER_OCTETS = 256 * 1024  # Exchange's limit of a header ("Header size exceeds fixed maximum size")

_LINE_BREAKING = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")


class BadDraft(ValueError):
    """A message cannot be sent as it was asked for.

    `pointer` is a JSON pointer (RFC 6901) from the message's root that ends at the last name of
    our contract: names of headers are the caller's own and do not appear. `code` is a stable
    name. `detail` is a sentence for the caller; it repeats nothing of the input.
    """

    def __init__(self, pointer: str, code: str, detail: str) -> None:
        super().__init__(pointer, code, detail)
        self.pointer = pointer
        self.code = code
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.pointer}: {self.detail}" if self.pointer else self.detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """One file that travels with a message."""

    filename: str | None  # the name alone, without a path
    content: bytes
    content_type: str | None  # None: told by the end of the file name
    content_id: str | None  # what the HTML calls it: "logo" for `cid:logo`, with or without <>
    disposition: str | None  # 'attachment' or 'inline'; None: inline where there is a content_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A message as a caller asks for it: who, what, and with which files."""

    sender: Mailbox
    to: tuple[Mailbox, ...]
    cc: tuple[Mailbox, ...]
    bcc: tuple[Mailbox, ...]  # in the envelope only, never in the octets
    reply_to: tuple[Mailbox, ...]
    subject: str | None
    text: str | None  # None: derived from the HTML, where there is one; "" is a text, an empty one
    html: str | None
    headers: Mapping[str, str]  # further headers, in their order
    attachments: tuple[Attachment, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Composed:
    """A message as it goes over the wire, the same in every attempt."""

    octets: bytes  # lines end with CRLF, the last one too; not dot-stuffed
    message_id: str  # with its angle brackets
    subject: str  # decoded, one line, for people and for the ledger
    smtputf8: bool  # the transaction needs SMTPUTF8 (RFC 6531)
    eightbit: bool  # the body has octets above 127 and needs 8BITMIME (RFC 6152)

    @property
    def sha256(self) -> str:
        """The digest of the octets, in hexadecimal. Each use of it costs a pass over them."""
        return hashlib.sha256(self.octets).hexdigest()


def check_line(text: str, *, pointer: str, limit: int) -> None:
    """Refuse what does not fit one line: control characters but the tab, line ends, excess length."""
    if len(text) > limit:
        raise BadDraft(pointer, "too_long", f"At most {limit} characters are accepted here.")
    if text.isprintable():  # none of what is refused below; nearly all texts end here
        return
    check_unicode(text, pointer=pointer)
    if _LINE_BREAKING.search(text):
        raise BadDraft(
            pointer, "control_character", "Control characters and line breaks are not accepted here."
        )


def check_unicode(text: str, *, pointer: str) -> None:
    """Refuse text that cannot be encoded, and the NUL that no mail may carry (RFC 5322 §2.2)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadDraft(
            pointer, "surrogate", "The text has half of a surrogate pair, which is no character."
        ) from None
    if "\0" in text:
        raise BadDraft(pointer, "nul", "The text has a NUL character.")
