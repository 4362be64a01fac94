"""Replies of an SMTP server, and what their digits say.

A reply is a three-digit code (RFC 5321 §4.2), in most cases an enhanced status (RFC 3463,
sent first in the text since RFC 2034), and text over one or more lines. Code and enhanced
status are kept as they came; `status` is the repaired form: where the enhanced status is
missing, or its class contradicts the code (`550 4.4.4`), it becomes x.0.0 of the code's
class. Decisions look at code, enhanced status and text together, because the peer's
digits contradict each other at times. What Microsoft means by its own numbers is not said
here but in the diagnosis catalogue.

The text is for people and for the database: octets that are not UTF-8 and control
characters become U+FFFD, and at most `TEXT_LIMIT` characters are kept.

Framing is strict. A line whose first octets are not a code followed by a space, a hyphen
or the end (`2_0 ok`), and a reply whose lines disagree about the code (`550-` then
`250 `), are not repaired: which of the two the peer meant is not ours to guess.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

TEXT_LIMIT = 8192

_LINE = re.compile(r"([2-5][0-9][0-9])(?:([ -])(.*))?", re.ASCII | re.DOTALL)
_ENHANCED = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?:[ \t]+|$)", re.ASCII)
# Everything that PostgreSQL refuses (NUL) or a terminal would obey (C0, DEL, C1), but for the tab.
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")
_STARTS_WITH_CODE = re.compile(r"\s*[2-5][0-9][0-9](?:[ -]|$)", re.ASCII)


class BadReply(ValueError):
    """These characters are not one SMTP reply. `reason` says why, without repeating them."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ReplyLine(NamedTuple):
    """One line of a reply, taken apart."""

    code: int
    last: bool  # no hyphen behind the code
    text: str  # what follows the code

    @classmethod
    def parse(cls, line: str) -> ReplyLine:
        """Take one line apart, given without its line end. Raises BadReply."""
        found = _LINE.fullmatch(line)
        if found is None:
            raise BadReply("a line does not begin with a reply code")
        return cls(int(found[1]), found[2] != "-", found[3] or "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the peer answered to one command."""

    code: int  # as it came
    enhanced: str | None  # as it came, "5.7.139"; None where there was none
    text: str  # all lines joined by "\n", without codes and enhanced status
    lines: tuple[str, ...]  # the lines as they came, codes included, line ends not

    def positive(self) -> bool:
        """Say whether the command was carried out: any 2yz (RFC 5321 §4.2.1, §4.3.2)."""
        return self.code // 100 == 2

    def intermediate(self) -> bool:
        """Say whether the peer waits for more: any 3yz."""
        return self.code // 100 == 3

    def transient(self) -> bool:
        """Say whether the peer calls its refusal temporary: any 4yz."""
        return self.code // 100 == 4

    def permanent(self) -> bool:
        """Say whether the peer calls its refusal final: any 5yz."""
        return self.code // 100 == 5

    @property
    def status(self) -> str:
        """The enhanced status, repaired: x.0.0 where it is missing or contradicts the code."""
        kind = str(self.code // 100)
        if self.enhanced is not None and self.enhanced.startswith(kind + "."):
            return self.enhanced
        return f"{kind}.0.0"

    def as_json(self) -> dict[str, object]:
        """Give the reply in the form that the ledger and the API keep."""
        return {"code": self.code, "enhanced": self.enhanced, "text": self.text}

    def __str__(self) -> str:
        first = self.text if self.enhanced is None else f"{self.enhanced} {self.text}"
        return f"{self.code} {first}".rstrip()

    @classmethod
    def of_lines(cls, lines: Sequence[str]) -> Reply:
        """Build a reply from its complete lines, without line ends. Raises BadReply."""
        return cls.of_parts([ReplyLine.parse(line) for line in lines], lines)

    @classmethod
    def of_parts(cls, parts: Sequence[ReplyLine], lines: Sequence[str]) -> Reply:
        """Build a reply from its lines where they have been taken apart already. Raises BadReply."""
        if not parts:
            raise BadReply("there is no line")
        if any(part.code != parts[0].code for part in parts):
            raise BadReply("the lines carry different codes")
        if not parts[-1].last or any(part.last for part in parts[:-1]):
            raise BadReply("the lines are not one reply")
        found = _ENHANCED.match(parts[0].text)
        enhanced = found[1] if found else None
        text = "\n".join([_without_status(part.text, enhanced) for part in parts])
        return cls(
            code=parts[0].code,
            enhanced=enhanced,
            text=readable(text.strip(), keep="\n")[:TEXT_LIMIT],
            lines=tuple([readable(line)[:TEXT_LIMIT] for line in lines]),
        )

    @classmethod
    def from_text(cls, text: str) -> Reply:
        r"""Read a reply that a person pasted: `535 5.7.139 …`, or several lines with codes.

        A line that does not begin with a code continues the line before it, as terminals
        and mail clients wrap long replies. Raises BadReply.
        """
        lines: list[str] = []
        for line in text[: 8 * TEXT_LIMIT].splitlines():
            if _STARTS_WITH_CODE.match(line) or not lines:
                if line.strip():
                    lines.append(line.strip())
            else:
                lines[-1] = f"{lines[-1]} {line.strip()}".rstrip()
        return cls.of_lines(lines)


def readable(text: str, *, keep: str = "") -> str:
    """Replace control characters, but for tabs and those in `keep`, and lone surrogates by U+FFFD."""
    if text.isascii() and text.isprintable():
        return text
    clean = _CONTROLS.sub(lambda found: found[0] if found[0] in keep else "\N{REPLACEMENT CHARACTER}", text)
    return clean.encode("utf-8", "replace").decode() if not clean.isascii() else clean


def _without_status(text: str, enhanced: str | None) -> str:
    if enhanced is None:
        return text
    found = _ENHANCED.match(text)
    return text[found.end() :] if found and found[1] == enhanced else text
