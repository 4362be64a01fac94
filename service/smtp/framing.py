"""Octets in, lines and replies out: where a reply ends, and what is none.

A line ends with LF, CR before it or not; a reply ends with a line that has no hyphen behind its code. What a peer
may say at once is bounded. What is not a reply is not repaired: `BadFraming` says what was seen.

Servers say the same short lines all day (`250 2.1.5 Recipient OK`), so a line that was taken apart once is known.
A line in which a secret was struck out is never among these.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from service.smtp.reply import BadReply, Reply, ReplyLine
from service.smtp.transcript import Strikeout

# Microsoft sends replies of 2 kB on one line, RFC 5321 §4.5.3.1.5 expects 512 octets.
LINE_OCTETS: Final = 8_192
REPLY_OCTETS: Final = 32_768
# Each command has its usual reply; each message has a line of its own, which comes once.
_KNOWN_LINES: Final = 64
_KNOWN_OCTETS: Final = 256


class BadFraming(Exception):
    """The octets are no replies. `code` is the fault's, `seen` says what was seen."""

    def __init__(self, code: str, seen: str) -> None:
        super().__init__(code, seen)
        self.code = code
        self.seen = seen


class Framing:
    """The octets of one connection on their way to replies."""

    def __init__(self, strikeout: Strikeout) -> None:
        self._strikeout = strikeout
        self._octets = b""  # not yet a whole line
        self._lines: list[str] = []  # not yet a whole reply
        self._parts: list[ReplyLine] = []  # the same, taken apart
        self._lines_octets = 0
        self._known: dict[bytes, Reply] = {}  # whole replies of one line
        self._known_beside = 0  # so many secrets

    @property
    def pending(self) -> bool:
        """Whether a reply has begun and not ended."""
        return bool(self._octets or self._lines)

    def take(self, octets: bytes) -> Iterator[tuple[str, Reply | None]]:
        """Give each whole line, secrets struck out, and the reply with its last line.

        Raises `BadFraming`; the line that is the reason, where there is one, has been given before.
        """
        *lines, self._octets = (self._octets + octets).split(b"\n")
        if self._known_beside != self._strikeout.secrets:
            self._known_beside = self._strikeout.secrets
            self._known.clear()
        for line in lines:
            known = None if self._lines else self._known.get(line)
            if known is not None:
                yield known.lines[0], known
                continue
            _check_length(line)
            plain = line.rstrip(b"\r").decode("utf-8", "replace")
            text = plain[:4] + self._strikeout(plain[4:])
            try:
                reply = self._line_taken(text, len(line))
            except BadFraming:
                yield text, None
                raise
            if reply is not None and reply.lines == (plain,) and len(line) <= _KNOWN_OCTETS:
                self._remember(line, reply)
            yield text, reply
        _check_length(self._octets)

    def clear(self) -> None:
        """Forget what has begun and not ended."""
        self._octets = b""

    def _line_taken(self, text: str, octets: int) -> Reply | None:
        """Add a line; give the reply when this was its last line."""
        try:
            part = ReplyLine.parse(text)
        except BadReply as bad:
            raise BadFraming("bad_digits", bad.reason) from bad
        self._lines.append(text)
        self._parts.append(part)
        self._lines_octets += octets
        if self._lines_octets > REPLY_OCTETS:
            raise BadFraming("reply_too_long", f"a reply of more than {REPLY_OCTETS:,} octets")
        if not part.last:
            return None
        try:
            reply = Reply.of_parts(self._parts, self._lines)
        except BadReply as bad:
            raise BadFraming("mixed_codes", bad.reason) from bad
        self._lines, self._parts, self._lines_octets = [], [], 0
        return reply

    def _remember(self, line: bytes, reply: Reply) -> None:
        if len(self._known) >= _KNOWN_LINES:
            self._known.clear()
        self._known[line] = reply


def _check_length(line: bytes) -> None:
    if len(line) > LINE_OCTETS:
        raise BadFraming("line_too_long", f"a line of more than {LINE_OCTETS:,} octets")
