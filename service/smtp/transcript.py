"""The dialogue as it went, with secrets struck out where it is written.

Every line that crosses the wire passes through here before anything else can see it, so
nothing downstream (ledger, log, answer) can leak what was never written down:

- what we send behind `AUTH <mechanism>` and in answer to a 334 becomes `********`;
- a secret that the peer sends back to us, in clear, in base64 or as in a URL, whole or in
  part, is struck out of its line before the line becomes a reply (`Strikeout`);
- content is one note with its size.

A transcript is append-only and bounded: it keeps its beginning and its end, and says in
between how much was left out. The end matters most, it holds the final reply.
"""

from __future__ import annotations

import base64
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, Literal, NamedTuple
from urllib.parse import quote, quote_plus

from service.smtp.phase import Phase
from service.smtp.reply import readable

STARS: Final = "********"

# 500 recipients make a thousand lines. Beyond that only the last lines are of interest.
HEAD_LINES: Final = 1_500
HEAD_OCTETS: Final = 262_144
TAIL_LINES: Final = 60
LINE_CHARACTERS: Final = 4_096
LONGEST_PROMPT: Final = 28

# Shorter secrets would strike out half of the dialogue, and are no secrets.
_SHORTEST_SECRET: Final = 4
# Two texts that share so many octets do not share them by chance. Pieces of a secret are kept
# at every eighth place, so a shared run of 23 octets always holds a whole piece.
_PIECE: Final = 16
_STRIDE: Final = 8
_WORD: Final = re.compile(r"\S{6,}")
_BASE64_RUN: Final = re.compile(r"[A-Za-z0-9+/_-]{6,}={0,2}")
_URL_SAFE: Final = str.maketrans("-_", "+/")

Who = Literal["us", "peer", "note"]


class Entry(NamedTuple):
    """One line of a dialogue."""

    at: datetime
    who: Who
    phase: Phase
    text: str

    def as_json(self) -> dict[str, str]:
        """Give the line in the form that the ledger keeps."""
        at = self.at.isoformat(timespec="microseconds")
        return {"at": at, "who": self.who, "phase": self.phase.word, "text": self.text}


class Strikeout:
    """Knows the secrets of one session and strikes them out of what the peer says."""

    def __init__(self) -> None:
        self._forms: list[str] = []
        self._secrets: list[bytes] = []
        self._pieces: set[bytes] = set()
        self._shortest = _PIECE  # octets of the shortest thing that would be found

    @property
    def secrets(self) -> int:
        """How many forms of secrets are known; a change means that what was clean may not be any more."""
        return len(self._forms)

    def add(self, secret: str) -> None:
        """Strike out this text from now on: in clear, in base64, as in a URL, and long pieces of these."""
        if len(secret) < _SHORTEST_SECRET:
            return
        coded = base64.b64encode(secret.encode()).decode().rstrip("=")
        forms = dict.fromkeys([secret, coded, quote(secret, safe=""), quote_plus(secret)])
        self._forms += forms
        self._forms.sort(key=len, reverse=True)
        for form in map(str.encode, forms):
            self._secrets.append(form)
            self._shortest = min(self._shortest, len(form))
            self._pieces |= {form[at : at + _PIECE] for at in range(0, len(form) - _PIECE + 1, _STRIDE)}

    def __call__(self, text: str) -> str:
        """Give the text without the secrets."""
        if not self._forms:
            return text
        for form in self._forms:
            text = text.replace(form, STARS)
        return _WORD.sub(self._without_traces, text)

    def _without_traces(self, found: re.Match[str]) -> str:
        # A server that complains about a command may repeat a part of it, or code it once more.
        word = found[0]
        traced = self._holds_piece(word.encode()) or any(
            self._holds_secret(inside)
            for run in _BASE64_RUN.findall(word)
            if len(run) * 3 // 4 >= self._shortest  # no more octets are in it
            for inside in _decodings(run.translate(_URL_SAFE))
        )
        return STARS if traced else word

    def _holds_secret(self, octets: bytes) -> bool:
        return self._holds_piece(octets) or any(secret in octets for secret in self._secrets)

    def _holds_piece(self, octets: bytes) -> bool:
        return any(octets[at : at + _PIECE] in self._pieces for at in range(len(octets) - _PIECE + 1))


def _decodings(run: str) -> Iterator[bytes]:
    """Decode base64 that may have been cut anywhere: from each of its first four places."""
    for start in range(4):
        cut = run[start:].rstrip("=")
        whole = cut[: len(cut) - (len(cut) % 4 == 1)]  # one character of four is no octet
        yield base64.b64decode(whole + "=" * (-len(whole) % 4))


class Transcript:
    """What was said in one transaction, or while a session was opened."""

    def __init__(self) -> None:
        self._head: list[Entry] = []
        self._head_octets = 0
        self._tail: deque[Entry] = deque(maxlen=TAIL_LINES)
        self._beyond = 0

    def we_said(self, phase: Phase, line: str, *, at: datetime | None = None) -> None:
        """Write down a command of ours, given without its line end."""
        self._append("us", phase, line if phase is not Phase.AUTH else without_credentials(phase, line), at)

    def peer_said(self, phase: Phase, line: str, *, at: datetime | None = None) -> None:
        """Write down one line of the peer's, secrets already struck out.

        A 334 is a prompt when it is short. A long one is a challenge made by the server, and may
        hold what we sent in a coding that nobody recognises.
        """
        if phase is Phase.AUTH and line.startswith("334") and len(line) > LONGEST_PROMPT:
            line = f"334 {STARS}"
        self._append("peer", phase, line, at)

    def note(self, phase: Phase, text: str) -> None:
        """Write down what is neither command nor reply: `(18,234 octets of content)`."""
        self._append("note", phase, f"({text})")

    def entries(self) -> list[Entry]:
        """Give the lines in order, with a note where some were left out."""
        lost = self._beyond - len(self._tail)
        if lost <= 0:
            return [*self._head, *self._tail]
        first = self._tail[0]
        gap = Entry(first.at, "note", first.phase, f"({lost:,} lines left out)")
        return [*self._head, gap, *self._tail]

    def as_json(self) -> list[dict[str, str]]:
        """Give the lines in the form that the ledger keeps."""
        lines: list[dict[str, str]] = []
        last: datetime | None = None
        written = ""
        for at, who, phase, text in self.entries():
            if at is not last:  # lines that travelled together have one time
                last, written = at, at.isoformat(timespec="microseconds")
            lines.append({"at": written, "who": who, "phase": phase.word, "text": text})
        return lines

    def _append(self, who: Who, phase: Phase, text: str, at: datetime | None = None) -> None:
        if not (text.isascii() and text.isprintable()):
            text = readable(text)
        length = len(text)
        if length > LINE_CHARACTERS:
            text = f"{text[:LINE_CHARACTERS]} … ({length:,} characters)"
        entry = Entry(at or datetime.now(UTC), who, phase, text)
        if self._head_octets < HEAD_OCTETS and len(self._head) < HEAD_LINES:
            self._head.append(entry)
            self._head_octets += length
        else:
            self._tail.append(entry)
            self._beyond += 1


def without_credentials(phase: Phase, line: str) -> str:
    """Give a command of ours as it may be shown: what proves who we are becomes stars.

    In the AUTH phase everything but the verb and the mechanism is a credential
    (RFC 4954 §4), also the answer to a 334; the empty answer and `*` are none.
    """
    if phase is not Phase.AUTH or line in {"", "*"}:
        return line
    words = line.split(" ")
    if words[0].upper() != "AUTH":
        return STARS
    return " ".join(words[:2]) + (f" {STARS}" if len(words) > 2 else "")


_MARKS: Final = {"us": "C:", "peer": "S:", "note": "--"}


def render(entries: Sequence[Mapping[str, object]]) -> str:
    """Write a kept dialogue (`Transcript.as_json`) for people, each line with its time.

    The first line carries the date; offsets are seconds since that line. `C:` is us, the
    client; `S:` is the peer, the server.
    """
    if not entries:
        return ""
    start = datetime.fromisoformat(str(entries[0]["at"]))
    lines = [f"{start.isoformat(timespec='milliseconds')}  (times are seconds since then)"]
    for entry in entries:
        offset = (datetime.fromisoformat(str(entry["at"])) - start).total_seconds()
        mark = _MARKS.get(str(entry["who"]), "??")
        lines.append(f"{offset:9.3f}  {mark} {entry['text']}".rstrip())
    return "\n".join(lines) + "\n"
