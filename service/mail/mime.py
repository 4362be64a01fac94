"""The tree of MIME parts and how it is written (RFC 2045, RFC 2046).

A `Leaf` has fields and a body, a `Branch` has parts. Neither ends its body with a line
end: the CRLF before a boundary belongs to the boundary (RFC 2046 §5.1.1), and the writer adds it.

Boundaries begin with "=_", which can occur neither in base64 nor in quoted-printable (the hint of
RFC 2045 §6.7), and what goes out unencoded is looked through for the message's own mark. So no
content can close the part that it is in, and the boundary need not be random: the same message
has the same octets.

Files are encoded while the message is written, block by block: of an attachment of many megabytes
there is one copy in the message and none on the way.
"""

from __future__ import annotations

import binascii
import hashlib
import io
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.mail.headers import parameter_field
from service.mail.lines import LINE_OCTETS, has_bare_line_end, has_line_over

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_PLAIN = bytes([*b"\t\r\n", *range(0x20, 0x7F)])
_SHORT_LINE = 78  # RFC 5322 §2.1.1, what a line should have at most
_BASE64_LINE = 76  # RFC 2045 §6.8: the encoding of 57 octets
# Lines of base64 are cut by the block and in C, at a quarter of what a slice for each line costs. A
# block is small enough for the processor's cache, and for the memory of the last one to be used anew.
_BLOCK_LINES = 1024
_BLOCK_OCTETS = _BLOCK_LINES * 57
_BLOCK = struct.Struct(f"{_BASE64_LINE}s" * _BLOCK_LINES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """A part with a body."""

    fields: bytes  # whole header lines, Content-* only
    body: bytes  # without the last line end
    base64: bool  # to be encoded when it is written; otherwise it goes as it is


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
        octets = text.encode().replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
        encoding, encoded = self._text_encoding(octets)
        fields = (
            f"Content-Type: text/{subtype}; charset=utf-8\r\nContent-Transfer-Encoding: {encoding}\r\n"
        ).encode()
        return Leaf(fields=fields, body=encoded, base64=encoding == "base64")

    def file(self, fields: bytes, content: bytes) -> Leaf:
        """Make a part that keeps its octets as they are."""
        return Leaf(fields=fields + b"Content-Transfer-Encoding: base64\r\n", body=content, base64=True)

    def message(self, fields: bytes, content: bytes) -> Leaf | None:
        """Make a part of a type that may not be encoded (RFC 2046 §5.2.1), or None where it would need to be."""
        lines = content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        if not self._fits_unencoded(lines, longest=LINE_OCTETS):
            return None
        return Leaf(fields=fields + b"Content-Transfer-Encoding: 7bit\r\n", body=lines, base64=False)

    def written(self, root: Leaf | Branch, *, header: bytes) -> bytes:
        """Write the header, the root's fields, the empty line and the body; the last line ends with CRLF."""
        wire = io.BytesIO()
        wire.write(header)
        self._write(root, wire)
        wire.seek(-2, io.SEEK_END)
        if wire.read() != b"\r\n":
            wire.write(b"\r\n")
        return wire.getvalue()

    def _write(self, part: Leaf | Branch, wire: io.BytesIO) -> None:
        if isinstance(part, Leaf):
            wire.write(part.fields + b"\r\n")
            if part.base64:
                wire.writelines(_base64(part.body))
            else:
                wire.write(part.body)
            return
        # Each subtype occurs once in a message. None of the boundaries may be the beginning of
        # another: readers look at the beginning of a line only (RFC 2046 §5.1.1).
        boundary = self.mark + b"_" + part.subtype.encode()
        wire.write(_branch_field(part, boundary.decode()) + b"\r\n")
        for number, inner in enumerate(part.parts):
            wire.write((b"\r\n" if number else b"") + b"--" + boundary + b"\r\n")
            self._write(inner, wire)
        wire.write(b"\r\n--" + boundary + b"--")

    def _fits_unencoded(self, octets: bytes, *, longest: int) -> bool:
        return (
            octets.isascii()
            and self.mark not in octets
            and not octets.translate(None, _PLAIN)
            and not has_bare_line_end(octets)
            and not has_line_over(longest, octets)
        )

    def _text_encoding(self, octets: bytes) -> tuple[str, bytes]:
        """Choose the encoding of a text; its octets come encoded, unless it is base64."""
        if self._fits_unencoded(octets, longest=_SHORT_LINE):
            return "7bit", octets
        # The line end makes the encoder break its own lines with CRLF; it is none of the text's.
        quoted_printable = binascii.b2a_qp(octets + b"\r\n", istext=True).removesuffix(b"\r\n")
        if len(quoted_printable) <= _base64_length(octets):
            return "quoted-printable", quoted_printable
        return "base64", octets


def _branch_field(part: Branch, boundary: str) -> bytes:
    parameters = [("boundary", boundary)]
    if part.subtype == "related":  # RFC 2387 §3.1: the type of the part that the others belong to
        root = part.parts[0]
        parameters.insert(
            0, ("type", f"multipart/{root.subtype}" if isinstance(root, Branch) else "text/html")
        )
    return parameter_field("Content-Type", f"multipart/{part.subtype}", parameters)


def _base64_length(octets: bytes) -> int:
    """Tell how long the encoding is, with the line ends in it."""
    encoded = (len(octets) + 2) // 3 * 4
    return encoded + (encoded - 1) // _BASE64_LINE * len(b"\r\n")


def _base64(octets: bytes) -> Iterator[bytes]:
    """Encode in lines of 76, in pieces, without the last line end."""
    view = memoryview(octets)
    for at in range(0, len(octets), _BLOCK_OCTETS):
        if at:
            yield b"\r\n"
        encoded = binascii.b2a_base64(view[at : at + _BLOCK_OCTETS], newline=False)
        yield b"\r\n".join(_base64_lines(encoded))


def _base64_lines(encoded: bytes) -> Sequence[bytes]:
    if len(encoded) == _BLOCK.size:
        return _BLOCK.unpack(encoded)
    return [encoded[at : at + _BASE64_LINE] for at in range(0, len(encoded), _BASE64_LINE)]
