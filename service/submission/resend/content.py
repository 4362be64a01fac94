"""The texts of a message: what its HTML and its plain text say, read from the octets that were sent.

Looks at headers and boundaries alone and leaves files as they are, so that a message of 30 MB costs little.
What cannot be read is shown as far as it can: replacement characters for octets outside the charset. Texts
that come as attachments are files.
"""

import binascii
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesHeaderParser

#: How deep parts may lie in parts: Postroom's own go to three.
_DEPTH = 10

#: Parts that are looked at.
_PARTS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """What a reader sees; None where the message has no such part."""

    html: str | None = None
    text: str | None = None


def texts_of(octets: bytes) -> Texts:
    """Find the first HTML and the first plain text of a message."""
    found: dict[str, str] = {}
    for number, (headers, body) in enumerate(_leaves(octets, depth=0)):
        kind = headers.get_content_type()
        if kind in {"text/html", "text/plain"} and headers.get_content_disposition() != "attachment":
            found.setdefault(kind, _decoded(headers, body))
        if len(found) == 2 or number > _PARTS:
            break
    return Texts(html=found.get("text/html"), text=found.get("text/plain"))


def _leaves(octets: bytes, *, depth: int) -> Iterator[tuple[Message, bytes]]:
    head, empty_line, body = octets.partition(b"\r\n\r\n")
    if octets.startswith(b"\r\n"):  # a part without fields
        head, body = b"", octets[2:]
    headers = BytesHeaderParser().parsebytes(head + empty_line)
    boundary = headers.get_boundary()
    if headers.get_content_maintype() != "multipart" or not boundary or depth >= _DEPTH:
        yield headers, body
        return
    for part in _parts(body, b"--" + boundary.encode("ascii", "replace")):
        yield from _leaves(part, depth=depth + 1)


def _parts(body: bytes, delimiter: bytes) -> Iterator[bytes]:
    """Cut at the delimiter lines (RFC 2046, section 5.1.1); what stands before the first is for nobody."""
    pieces = (b"\r\n" + body).split(b"\r\n" + delimiter)
    for piece in pieces[1:]:
        if piece.startswith(b"--"):
            return
        _, _, part = piece.partition(b"\r\n")
        yield part


def _decoded(headers: Message, body: bytes) -> str:
    encoding = str(headers.get("Content-Transfer-Encoding", "7bit")).strip().lower()
    try:
        if encoding == "base64":
            body = binascii.a2b_base64(body)
        elif encoding == "quoted-printable":
            body = binascii.a2b_qp(body)
    except binascii.Error:
        pass  # shown as it stands
    try:
        text = body.decode(headers.get_content_charset("utf-8"), "replace")
    except (LookupError, ValueError):
        text = body.decode("utf-8", "replace")
    return text.replace("\r\n", "\n")
