"""How the console writes times, sizes and states. Times are UTC everywhere; the script adds the local one."""

import json
import re
from datetime import UTC, datetime, timedelta

from service.ledger.states import FINAL, Status

#: How a state looks: `good`, `bad`, `care` (somebody should look), `busy`, `calm`.
_TONES = {
    "sent": "good", "delivered": "good", "ok": "good", "ready": "good",
    "failed": "bad", "bounced": "bad", "expired": "bad", "fail": "bad",
    "uncertain": "care", "held": "care", "deferred": "care", "partially_sent": "care", "partial": "care",
    "warn": "care", "resting": "care", "aborted": "care",
    "sending": "busy", "queued": "busy", "scheduled": "busy",
}  # fmt: skip

_UNITS = (("kB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000))

_WRITTEN = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:\.\d+)?Z")

#: States in which nothing more happens by itself, written as the API writes them.
ENDED = frozenset({*map(str, FINAL), "partially_sent"})

STATES = (*map(str, Status), "partially_sent")


def tone(state: str | None) -> str:
    """Say how a state looks; what is not known is calm."""
    return _TONES.get(str(state), "calm")


def moment(at: datetime | str) -> datetime:
    """Read a time as the API writes it."""
    return datetime.fromisoformat(at).astimezone(UTC) if isinstance(at, str) else at.astimezone(UTC)


def time(at: datetime | str | None) -> str:
    """Write day and time, to the second."""
    return "—" if at is None else f"{moment(at):%Y-%m-%d %H:%M:%S}"


def clock(at: datetime | str | None) -> str:
    """Write the time of day."""
    return "—" if at is None else f"{moment(at):%H:%M:%S}"


def size(octets: int) -> str:
    """Write a size for people: `18.2 kB`."""
    for unit, factor in reversed(_UNITS):
        if octets >= factor:
            return f"{octets / factor:.1f} {unit}"
    return f"{octets} octets"


def number(count: float | None) -> str:
    """Write a count with its thousands apart."""
    return "—" if count is None else f"{count:,}"


def plural(count: int, word: str) -> str:
    """Write a count and what is counted: `1 message`, `2 messages`."""
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def span(seconds: float | timedelta) -> str:
    """Write a length of time in its two largest units: `3 h 5 min`."""
    left = int(seconds.total_seconds() if isinstance(seconds, timedelta) else seconds)
    parts = []
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"


def sentence(text: str) -> str:
    """Let a text begin large and end with a full stop."""
    told = text.strip()
    if not told:
        return told
    return told[0].upper() + told[1:] + ("" if told[-1] in ".!?:”" else ".")


def told(value: object) -> str:
    """Write a detail of the audit."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def plain(text: str) -> str:
    """Write the times in a sentence of the API as the pages write them."""
    return _WRITTEN.sub(r"\1 \2", text)
