"""A caller's own message, taken over as it is: checked, completed, never rebuilt.

What is wrong is refused and not repaired, because a repair is a guess, and where two servers
guess differently one of them sees a header, an author or a second message that was never checked.
The exceptions are few: lines that all end with LF get CRLF; Bcc and Return-Path go (RFC 5322
§3.6.3, RFC 5321 §4.4); Message-ID and Date come where they are missing.

Everything here is refused at the pointer "/raw". The body is not looked into: its parts may be
signed, and they are the caller's.
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass
from email.utils import format_datetime, parsedate_to_datetime
from typing import TYPE_CHECKING

from service.mail.address import BadAddress, Mailbox
from service.mail.draft import HEADER_OCTETS, LINE_CHARACTERS, BadDraft, Composed
from service.mail.headers import fold
from service.mail.lines import LINE_OCTETS, has_bare_line_end, has_line_over
from service.mail.message_id import is_message_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from service.mail.address import Address

# RFC 5322 §3.6 and RFC 2045 §3: at most one of each. With two, it is the reader who chooses.
_ONCE = frozenset(
    {
        *{
            "from",
            "sender",
            "reply-to",
            "to",
            "cc",
            "bcc",
            "message-id",
            "in-reply-to",
            "references",
            "subject",
            "date",
        },
        *{"mime-version", "content-type", "content-transfer-encoding", "content-id", "content-disposition"},
    }
)
_DROPPED = frozenset({"bcc", "resent-bcc", "return-path"})

_FIELD_START = re.compile(rb"([!-9;-~]{1,76}):")
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_ENCODED_WORD = re.compile(r"=\?([A-Za-z0-9_.:-]{1,40})(?:\*[A-Za-z0-9-]{0,20})?\?([BbQq])\?([^?]{0,998})\?=")
_BETWEEN_WORDS = re.compile(r"(?<=\?=)[ \t]+(?==\?)")
# Charsets that mail is written in. Python knows more, some of which are no charsets at all.
_CHARSET = re.compile(
    r"utf-?8|us-ascii|iso-8859-[0-9]{1,2}|(?:windows-|cp)125[0-8]|koi8-[ru]|gb2312|gbk|gb18030|big5"
    r"|shift_jis|euc-jp|iso-2022-jp|euc-kr|ks_c_5601-1987",
    re.IGNORECASE,
)
_UNSHOWABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_DATE_CHARACTERS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class _Field:
    name: str  # lower case
    octets: bytes  # whole lines
    value: str  # unfolded, without white space at its ends, not decoded


def adopt(raw: bytes, *, message_id: str, date: datetime) -> Composed:
    """Take over a message (RFC 5322) that the caller built.

    `message_id` and `date` are used where the message has none. Raises `BadDraft`.
    """
    header, body = _halves(raw)
    fields = _kept(header)
    _authors(fields)
    named = {field.name: field.value for field in fields}
    octets = b"".join(field.octets for field in fields)
    octets += _missing_fields(named, message_id=message_id, date=date)
    _check_header_size(octets)
    return Composed(
        octets=octets + b"\r\n" + body,
        message_id=named.get("message-id", message_id),
        subject=_shown(named.get("subject", "")),
        smtputf8=not octets.isascii(),
        eightbit=not body.isascii(),
    )


def authors(octets: bytes) -> tuple[Address, ...]:
    """Give every address in From and Sender of a message, each once.

    Raises `BadDraft` for a message that `adopt` would refuse for its header. The body is not looked at.
    """
    empty_line = b"\r\n\r\n" if b"\r" in octets else b"\n\n"
    end = octets.find(empty_line)
    header, _ = _halves(octets if end < 0 else octets[: end + len(empty_line)])
    return _authors(_kept(header))


def _halves(raw: bytes) -> tuple[bytes, bytes]:
    """Give header and body, without the empty line between them; both end with CRLF or are empty."""
    if b"\0" in raw:
        raise _refusal("nul", "The message has a NUL octet.")
    octets = raw if b"\r" in raw else raw.replace(b"\n", b"\r\n")
    if has_bare_line_end(octets):
        raise _refusal("bare_line_end", "The message mixes line ends: a CR or LF stands alone.")
    if not octets.endswith(b"\r\n"):
        octets += b"\r\n"
    if has_line_over(LINE_OCTETS, octets):
        raise _refusal("line_too_long", f"A line has more than {LINE_OCTETS} octets.")
    header, empty_line, body = octets.partition(b"\r\n\r\n")
    if not empty_line:
        return octets, b""
    return header + b"\r\n", body


def _kept(header: bytes) -> list[_Field]:
    """Give the fields that stay; what goes may have come twice."""
    fields = [field for field in _fields(header) if field.name not in _DROPPED]
    _check_once(fields)
    return fields


def _fields(header: bytes) -> Iterator[_Field]:
    """Cut a header into its fields (RFC 5322 §2.2), without the obsolete forms."""
    _check_header_size(header)
    if _CONTROL.search(header):
        raise _refusal("control_character", "The header has a control character.")
    lines: list[bytes] = []
    for line in header.removesuffix(b"\r\n").split(b"\r\n"):
        if line.startswith((b" ", b"\t")):
            if not lines or not line.strip(b" \t"):
                raise _refusal("bad_folding", "A header line that continues another is blank or comes first.")
            lines.append(line)
            continue
        if not _FIELD_START.match(line):
            raise _refusal("bad_header", "A header line has no name with a colon right behind it.")
        if lines:
            yield _field(lines)
        lines = [line]
    yield _field(lines)


def _field(lines: list[bytes]) -> _Field:
    octets = b"".join(line + b"\r\n" for line in lines)
    name, _, value = b"".join(lines).partition(b":")
    try:
        text = value.decode().strip(" \t")
    except UnicodeDecodeError:
        raise _refusal("header_not_utf8", "The header has octets that are neither ASCII nor UTF-8.") from None
    for match in _ENCODED_WORD.finditer(text):
        # Whoever decodes this before splitting lines gets a header field that is none of ours.
        if re.search(rb"[\x00\r\n]", _word_octets(match)):
            raise _refusal(
                "encoded_line_break", "An encoded word in the header has a line break or NUL in it."
            )
    return _Field(name=name.decode().lower(), octets=octets, value=text)


def _check_header_size(header: bytes) -> None:
    if len(header) > HEADER_OCTETS:
        raise _refusal("header_too_large", f"The header has more than {HEADER_OCTETS // 1024} kB.")


def _check_once(fields: Iterable[_Field]) -> None:
    seen: set[str] = set()
    for field in fields:
        if field.name in seen:
            raise _refusal("duplicate_header", "A header field that may occur once occurs twice.")
        seen |= {field.name} & _ONCE


def _authors(fields: Iterable[_Field]) -> tuple[Address, ...]:
    """Read From and Sender (RFC 5322 §3.6.2), strictly: what is read is what gets checked."""
    values = {field.name: field.value for field in fields if field.name in {"from", "sender"}}
    if "from" not in values:
        raise _refusal("from_missing", "The message has no From.")
    authors = _mailboxes(values["from"], code="bad_from", name="From")
    if "sender" not in values:
        if len(authors) > 1:
            raise _refusal("sender_missing", "A message with more than one author needs a Sender.")
        return authors
    sender = _mailboxes(values["sender"], code="bad_sender", name="Sender")
    if len(sender) > 1:
        raise _refusal("bad_sender", "Sender is one mailbox.")
    return tuple(dict.fromkeys((*authors, *sender)))


def _mailboxes(value: str, *, code: str, name: str) -> tuple[Address, ...]:
    try:
        return tuple(mailbox.address for mailbox in Mailbox.parse_list(value.replace("\t", " ")))
    except BadAddress as exc:
        raise _refusal(code, f"{name} cannot be read: {exc.detail}") from exc


def _missing_fields(named: dict[str, str], *, message_id: str, date: datetime) -> bytes:
    octets = b""
    if "date" not in named:
        octets += fold("Date", [f" {format_datetime(date)}"])
    elif not _is_date(named["date"]):
        raise _refusal("bad_date", "Date is not a date (RFC 5322 §3.3).")
    if "message-id" not in named:
        octets += fold("Message-ID", [f" {message_id}"])
    elif not is_message_id(named["message-id"]):
        raise _refusal("bad_message_id", 'Message-ID is not of the form "<left@right>" in visible ASCII.')
    return octets


def _is_date(text: str) -> bool:
    if len(text) > _DATE_CHARACTERS:
        return False
    try:
        parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return False
    return True


def _shown(value: str) -> str:
    """Decode a field for people: one line, nothing in it that a database or a terminal minds."""
    text = _ENCODED_WORD.sub(_word, _BETWEEN_WORDS.sub("", value))
    return _UNSHOWABLE.sub("\ufffd", text.replace("\t", " "))[:LINE_CHARACTERS]


def _word(match: re.Match[str]) -> str:
    if not _CHARSET.fullmatch(match[1]):
        return match[0]
    try:
        return _word_octets(match).decode(match[1], errors="replace")
    except LookupError:
        return match[0]


def _word_octets(match: re.Match[str]) -> bytes:
    """Give the octets in an encoded word (RFC 2047 §4), none where they cannot be decoded."""
    content = match[3].encode()
    try:
        if match[2] in "Qq":
            return binascii.a2b_qp(content, header=True)
        return binascii.a2b_base64(content)
    except binascii.Error:
        return b""


def _refusal(code: str, detail: str) -> BadDraft:
    return BadDraft("/raw", code, detail)
