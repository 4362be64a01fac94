"""The tree of MIME parts and how it is written (RFC 2045, RFC 2046).

A `Leaf` has fields and an encoded body, a `Branch` has parts. Neither ends its body with a line
end: the CRLF before a boundary belongs to the boundary (RFC 2046 §5.1.1), and the writer adds it.

Boundaries begin with "=_", which can occur neither in base64 nor in quoted-printable (the hint of
RFC 2045 §6.7), and what goes out unencoded is looked through for the message's own mark. So no
content can close the part that it is in, and the boundary need not be random: the same message
has the same octets.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.mail.headers import parameter_field
from service.mail.lines import LINE_OCTETS, has_bare_line_end, has_line_over

if TYPE_CHECKING:
    from collections.abc import Iterator

_LINE_ENDS = re.compile(r"\r\n|\r|\n")
_NOT_PLAIN = re.compile(rb"[^\t\r\n\x20-\x7e]")
_SHORT_LINE = 78  # RFC 5322 §2.1.1, what a line should have at most
_BASE64_LINE = 76


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """A part with a body."""

    fields: bytes  # whole header lines, Content-* only
    body: bytes  # encoded, without the last line end


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """A multipart with at least one part in it."""

    subtype: str
    parts: tuple[Leaf | Branch, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """Writes the parts of one message."""

    mark: bytes  # the beginning of every boundary of this message

    @classmethod
    def of(cls, message_id: str) -> Writer:
        return cls(mark=b"=_" + hashlib.sha256(message_id.encode()).hexdigest()[:24].encode())

    def text(self, subtype: str, text: str) -> Leaf:
        """Make a text part: as it is where it is short lines of ASCII, else in the shorter encoding."""
        octets = _LINE_ENDS.sub("\r\n", text).encode()
        encoding, body = self._text_encoding(octets)
        fields = parameter_field("Content-Type", f"text/{subtype}", [("charset", "utf-8")])
        return Leaf(fields=fields + parameter_field("Content-Transfer-Encoding", encoding, []), body=body)

    def file(self, fields: bytes, content: bytes) -> Leaf:
        """Make a part that keeps its octets as they are."""
        return Leaf(fields=fields + b"Content-Transfer-Encoding: base64\r\n", body=_base64(content))

    def message(self, fields: bytes, content: bytes) -> Leaf | None:
        """Make a part of a type that may not be encoded (RFC 2046 §5.2.1), or None where it would need to be."""
        lines = re.sub(rb"(?<!\r)\n", b"\r\n", content)
        if not self._fits_unencoded(lines, longest=LINE_OCTETS):
            return None
        return Leaf(fields=fields + b"Content-Transfer-Encoding: 7bit\r\n", body=lines)

    def written(self, root: Leaf | Branch) -> bytes:
        """Write the root's fields, the empty line and the body; the last line ends with CRLF."""
        octets = b"".join(self._written(root))
        return octets if octets.endswith(b"\r\n") else octets + b"\r\n"

    def _written(self, part: Leaf | Branch) -> Iterator[bytes]:
        if isinstance(part, Leaf):
            yield from (part.fields, b"\r\n", part.body)
            return
        # Each subtype occurs once in a message. None of the boundaries may be the beginning of
        # another: readers look at the beginning of a line only (RFC 2046 §5.1.1).
        boundary = self.mark + b"_" + part.subtype.encode()
        yield _branch_field(part, boundary.decode()) + b"\r\n"
        for number, inner in enumerate(part.parts):
            yield (b"\r\n" if number else b"") + b"--" + boundary + b"\r\n"
            yield from self._written(inner)
        yield b"\r\n--" + boundary + b"--"

    def _fits_unencoded(self, octets: bytes, *, longest: int) -> bool:
        return not (
            self.mark in octets
            or _NOT_PLAIN.search(octets)
            or has_bare_line_end(octets)
            or has_line_over(longest, octets)
        )

    def _text_encoding(self, octets: bytes) -> tuple[str, bytes]:
        if self._fits_unencoded(octets, longest=_SHORT_LINE):
            return "7bit", octets
        # The line end makes the encoder break its own lines with CRLF; it is none of the text's.
        quoted_printable = binascii.b2a_qp(octets + b"\r\n", istext=True).removesuffix(b"\r\n")
        base64 = _base64(octets)
        if len(quoted_printable) <= len(base64):
            return "quoted-printable", quoted_printable
        return "base64", base64


def _branch_field(part: Branch, boundary: str) -> bytes:
    parameters = [("boundary", boundary)]
    if part.subtype == "related":  # RFC 2387 §3.1: the type of the part that the others belong to
        root = part.parts[0]
        parameters.insert(
            0, ("type", f"multipart/{root.subtype}" if isinstance(root, Branch) else "text/html")
        )
    return parameter_field("Content-Type", f"multipart/{part.subtype}", parameters)


def _base64(octets: bytes) -> bytes:
    encoded = binascii.b2a_base64(octets, newline=False)
    return b"\r\n".join(encoded[at : at + _BASE64_LINE] for at in range(0, len(encoded), _BASE64_LINE))
