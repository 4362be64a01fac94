"""The octets of a message: how they end, and the few header fields that the sandbox looks at.

DATA ends with CRLF "." CRLF, exactly; any other spelling of it is content, so that nothing can be
smuggled past (RFC 5321 §4.1.1.4, §4.5.2). Content is kept as it came, less the stuffed dots.
"""

import re
from dataclasses import dataclass
from email.utils import getaddresses

_END = b"\r\n.\r\n"
_MESSAGE_ID = re.compile(r"<[!-;=?-~]{1,990}>")
_FOLD = re.compile(rb"\r\n(?=[ \t])")
_FIELD = re.compile(rb"(?mi)^(from|sender|message-id|date|subject)[ \t]*:(.*)$")

HEADER_LIMIT = 256 * 1024  # octets; the default of an Exchange receive connector


class Intake:
    """Collects the content of DATA up to its dot, no more than `limit` octets of it."""

    def __init__(self, *, limit: int) -> None:
        """Begin in front of the first line; `limit` is in octets."""
        self._limit = limit
        self._stuffed = bytearray(b"\r\n")  # as if a line had ended: the first one may be the dot
        self._dropped = 0

    @property
    def whole(self) -> bool:
        """Whether everything was kept."""
        return self._dropped == 0

    @property
    def size(self) -> int:
        """Octets so far, stuffed dots included."""
        return self._dropped + len(self._stuffed) - 2

    def feed(self, piece: bytes) -> bytes | None:
        """Take a piece; return what lies behind the dot once it has come, None before."""
        start = max(0, len(self._stuffed) - len(_END) + 1)
        self._stuffed += piece
        end = self._stuffed.find(_END, start)
        if end >= 0:
            rest = bytes(self._stuffed[end + len(_END) :])
            del self._stuffed[end + 2 :]
            return rest
        if len(self._stuffed) > self._limit + len(_END):
            # Too large to be taken: it is still read to its end, but no longer kept.
            self._dropped += len(self._stuffed) - len(_END)
            del self._stuffed[: -len(_END)]
        return None

    def octets(self) -> bytes:
        """Return the content without the stuffed dots (RFC 5321 §4.5.2)."""
        return bytes(self._stuffed).replace(b"\r\n.", b"\r\n")[2:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What the sandbox reads of a header."""

    authors: tuple[str, ...]  # addresses of From
    from_fields: int
    sender: str | None
    message_id: str | None  # with its angle brackets
    date: str | None
    subject: str | None
    size: int  # octets
    bare_line_feeds: bool  # a line feed or a carriage return alone, anywhere in the message


def read_head(octets: bytes) -> Head:
    """Read the header of a message, however broken it is."""
    head = octets[: octets.find(b"\r\n\r\n") + 2] if b"\r\n\r\n" in octets else octets
    fields: dict[str, list[str]] = {}
    for match in _FIELD.finditer(_FOLD.sub(b"", head[:HEADER_LIMIT])):
        value = " ".join(match[2].decode("utf-8", "replace").split())
        fields.setdefault(match[1].decode().lower(), []).append(value)
    message_id = _MESSAGE_ID.search(fields.get("message-id", [""])[0])
    sender = _addresses(fields.get("sender", [])[:1])
    return Head(
        authors=_addresses(fields.get("from", [])),
        from_fields=len(fields.get("from", [])),
        sender=sender[0] if sender else None,
        message_id=message_id[0] if message_id else None,
        date=fields.get("date", [None])[0],
        subject=fields.get("subject", [None])[0],
        size=len(head),
        bare_line_feeds=not octets.count(b"\r\n") == octets.count(b"\n") == octets.count(b"\r"),
    )


def _addresses(values: list[str]) -> tuple[str, ...]:
    # The standard library's parser descends into nested comments and is slow on long lists;
    # nothing that people write is as long.
    short = [value for value in values if len(value) <= 8192]
    try:
        found = getaddresses(short)
    except (RecursionError, ValueError, IndexError):
        return ()
    return tuple(address for _, address in found if "@" in address)
