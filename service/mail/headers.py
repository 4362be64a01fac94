"""Header fields as octets: encoding, quoting, parameters, folding.

We write the lines ourselves. The standard library's writer is quadratic in the length of a
subject or a name, and what it takes for an encoded word (RFC 2047) in a caller's text it decodes
and writes again: line ends inside become header fields (CVE-2024-6923). Here a caller's text is
plain text and nothing else: what looks like an encoded word is itself encoded, and readers see
exactly what the caller gave.

The rules: lines of 78 characters where there is a place to break (RFC 5322 §2.1.1), encoded words
of 75 in lines of 76 (RFC 2047 §2), a character never split over two words (§5).

Every function expects text without control characters and surrogates; `draft.check_line` and
`address` see to that.
"""

from __future__ import annotations

import binascii
import re
from typing import TYPE_CHECKING

from service.mail.address import quoted
from service.mail.lines import LINE_OCTETS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from service.mail.address import Mailbox

_LINE_WISH = 78
_WORD_LINE = 76
_WORD_ROOM = 63  # what RFC 2047 leaves of 75 for the content, with "=?utf-8?q?" and "?="
_LEAST_ROOM = 24  # enough for one character of four octets in Q, even behind a long name
_SEGMENT_ROOM = 54  # of a parameter's segment: with its name, number and marks the line stays under 78

_PIECE = re.compile(r"[ \t]+[^ \t]+")
_PHRASE = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`{|}~-]+")
# What may stand for itself in a Q word of a phrase, the strictest place (RFC 2047 §5 (3)), and in
# an extended parameter (RFC 2231 §7).
_Q_SAFE = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/"
_ATTR_SAFE = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$&+-.^_`{|}~"
_Q = {char: char for char in _Q_SAFE} | {" ": "_"}
_ATTR = {char: char for char in _ATTR_SAFE}


def text_field(name: str, value: str) -> bytes:
    """Write an unstructured field (RFC 5322 §2.2.1) from plain text."""
    if value.isascii() and "=?" not in value and value == value.strip(" \t"):
        pieces = _PIECE.findall(f" {value}")
        if max(map(len, pieces), default=0) + len(name) + 1 <= LINE_OCTETS:
            return fold(name, pieces)
    return fold(name, [f" {word}" for word in encoded_words(value, used=len(name) + 2)])


def mailbox_field(name: str, mailboxes: Iterable[Mailbox]) -> bytes:
    """Write a list of mailboxes (RFC 5322 §3.6.2 and §3.6.3)."""
    pieces: list[str] = []
    for mailbox in mailboxes:
        if pieces:
            pieces[-1] += ","
        pieces += _mailbox_pieces(mailbox, used=2 if pieces else len(name) + 2)
    return fold(name, pieces)


def parameter_field(name: str, value: str, parameters: Iterable[tuple[str, str]]) -> bytes:
    """Write a MIME field with its parameters (RFC 2045 §5.1, RFC 2231 §3 and §4)."""
    pieces = [f" {value}"]
    for attribute, content in parameters:
        for piece in _parameter_pieces(attribute, content):
            pieces[-1] += ";"
            pieces.append(f" {piece}")
    return fold(name, pieces)


def fold(name: str, pieces: Sequence[str]) -> bytes:
    """Join pieces, each with its leading white space, into lines that are not broken inside a piece.

    The first piece stays on the line of the name: a first line without content is what some
    readers take for an empty field.
    """
    whole = f"{name}:{''.join(pieces)}".encode()
    if len(whole) <= _LINE_WISH:
        return whole + b"\r\n"
    lines = [f"{name}:".encode()]
    for number, piece in enumerate(pieces):
        octets = piece.encode()
        if number and len(lines[-1]) + len(octets) > _LINE_WISH:
            lines.append(octets)
        else:
            lines[-1] += octets
    return b"\r\n".join(lines) + b"\r\n"


def encoded_words(text: str, *, used: int) -> list[str]:
    """Encode a text as encoded words (RFC 2047) in UTF-8, with Q or B, whichever is shorter.

    `used` is what stands before the first word on its line.
    """
    columns = max(min(_WORD_LINE - used - 12, _WORD_ROOM), _LEAST_ROOM)
    written = [_Q.get(char) or _hexadecimal(char, mark="=") for char in text]
    costs = [len(each) for each in written]
    if sum(costs) <= (len(text.encode()) + 2) // 3 * 4:
        cuts = _cuts(costs, first=columns, room=_WORD_ROOM)
        return [f"=?utf-8?q?{''.join(written[cut])}?=" for cut in cuts]
    # In B, four columns hold three octets.
    octets = [len(char.encode()) for char in text]
    cuts = _cuts(octets, first=columns // 4 * 3, room=_WORD_ROOM // 4 * 3)
    return [_b_word(text[cut]) for cut in cuts]


def _mailbox_pieces(mailbox: Mailbox, *, used: int) -> list[str]:
    if mailbox.name is None:
        return [f" {mailbox.address}"]
    address = f" <{mailbox.address}>"
    if not mailbox.name.isascii() or "=?" in mailbox.name:
        return [*(f" {word}" for word in encoded_words(mailbox.name, used=used)), address]
    if _PHRASE.fullmatch(mailbox.name):
        return [*_PIECE.findall(f" {mailbox.name}"), address]
    return [f" {quoted(mailbox.name)}", address]


def _parameter_pieces(attribute: str, content: str) -> list[str]:
    if _TOKEN.fullmatch(content) and attribute not in {"filename", "name"}:
        return [f"{attribute}={content}"]
    if content.isascii() and "=?" not in content:
        return [f"{attribute}={quoted(content)}"]
    if attribute == "name":
        # Older readers of Microsoft's look here and know encoded words only. RFC 2047 §5 has no
        # place for them in a parameter, so `filename` is the one that counts.
        words = encoded_words(content, used=len(' name=""'))
        return [f'name="{words[0]}"'] if len(words) == 1 else []
    written = [_ATTR.get(char) or _hexadecimal(char, mark="%") for char in content]
    cuts = _cuts([len(each) for each in written], first=_SEGMENT_ROOM - len("utf-8''"), room=_SEGMENT_ROOM)
    segments = ["".join(written[cut]) for cut in cuts]
    segments[0] = f"utf-8''{segments[0]}"
    if len(segments) == 1:
        return [f"{attribute}*={segments[0]}"]
    return [f"{attribute}*{number}*={segment}" for number, segment in enumerate(segments)]


def _cuts(costs: Sequence[int], *, first: int, room: int) -> Iterator[slice]:
    """Cut a text between characters so that the first part costs at most `first`, the others `room`.

    `costs` has what each character costs.
    """
    start, spent = 0, 0
    for at, cost in enumerate(costs):
        spent += cost
        if spent > first and at > start:
            yield slice(start, at)
            start, spent, first = at, cost, room
    yield slice(start, None)


def _hexadecimal(char: str, *, mark: str) -> str:
    return mark + char.encode().hex(mark).upper()


def _b_word(text: str) -> str:
    return f"=?utf-8?b?{binascii.b2a_base64(text.encode(), newline=False).decode()}?="
