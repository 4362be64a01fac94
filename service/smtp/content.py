"""Content on its way out: dot stuffing, in pieces.

RFC 5321 §4.5.2: a line of the content that begins with a dot gets one more, because a dot
alone ends the content. A bare CR or LF is a line end to some servers and not to others, and
behind such a disagreement a second message can be hidden in the first ("SMTP smuggling"):
content that has one is not sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

PIECE_OCTETS: Final = 65_536


class NotCanonical(ValueError):
    """The content has a bare CR or LF, or does not end with CRLF."""


def stuffed(octets: bytes, *, piece: int = PIECE_OCTETS) -> Iterator[bytes]:
    """Give the content in pieces of about `piece` octets, each a run of whole lines, dots stuffed.

    The final dot is not among them. Raises `NotCanonical` when it comes to the place; empty
    content is canonical, and is no piece.
    """
    start = 0
    while start < len(octets):
        end = octets.find(b"\n", min(start + piece, len(octets)) - 1) + 1 or len(octets)
        lines = octets[start:end]
        line_ends = lines.count(b"\r\n")
        if not lines.endswith(b"\r\n") or lines.count(b"\r") != line_ends or lines.count(b"\n") != line_ends:
            raise NotCanonical("the content has a line end that is not CRLF")
        first = b"." if lines.startswith(b".") else b""
        yield first + lines.replace(b"\r\n.", b"\r\n..")
        start = end
