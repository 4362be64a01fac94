"""Where a message is at this moment: one line that is written over on a terminal, plain lines elsewhere.

    queued · 36 messages ahead in this lane; 30 messages a minute (Microsoft 365) · expected 19:41:14 (in 52 s)

On a terminal the line stands below everything else and goes when the work is done: whatever is said
meanwhile is written in its place, and the line again below it. In a pipe or a log there is no writing over:
a line is added when the state or the time of the next attempt changes, and now and then while only the
forecast moves.

Text of the API is shown as `report` shows it, without a character that a terminal would act upon.
"""

import os
import shutil
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self, TextIO

from service.local.report import printable, shortened

#: Seconds between two plain lines that differ in their forecast alone.
_NOW_AND_THEN = 15.0

_SENT = frozenset({"sent", "delivered"})


class Progress:
    """Shows where a message is; `with` clears the line at the end, whatever that is."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._shown = ""
        self._told: tuple[object, object] = (None, None)
        self._told_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def say(self, line: str) -> None:
        """Write a line that stays."""
        shown = self._shown
        self.end()
        print(line, file=self._stream, flush=True)
        if shown:
            self._draw(shown)

    def show(self, message: Mapping[str, Any]) -> None:
        """Show where the message is now."""
        text = where(message, now=datetime.now(UTC))
        if self._live:
            self._draw(text)
            return
        state = (message["status"], message.get("next_attempt_at"))
        if state == self._told and time.monotonic() < self._told_at + _NOW_AND_THEN:
            return
        self._told, self._told_at = state, time.monotonic()
        print(f"  {text}", file=self._stream, flush=True)

    def _draw(self, text: str) -> None:
        columns = shutil.get_terminal_size().columns
        self._shown = text
        # Back to the first column, the text, and the rest of the line away.
        self._stream.write(f"\r{text[: columns - 1]}\033[K")
        self._stream.flush()

    def end(self) -> None:
        """Take the line away."""
        if self._shown:
            self._stream.write("\r\033[K")
            self._stream.flush()
            self._shown = ""


def where(message: Mapping[str, Any], *, now: datetime) -> str:
    """Say in one line where a message is, why, and what comes next."""
    return " · ".join(part for part in (_state(message), _reasons(message), _next(message, now)) if part)


def _state(message: Mapping[str, Any]) -> str:
    recipients = message["recipients"]
    sent = sum(each["status"] in _SENT for each in recipients)
    status = printable(str(message["status"]))
    return f"{status}, {sent} of {len(recipients)} sent" if sent and sent < len(recipients) else status


def _reasons(message: Mapping[str, Any]) -> str:
    reasons = [str(each).rstrip(".") for each in message.get("expected_because") or ()]
    return shortened(printable("; ".join(reasons)))


def _next(message: Mapping[str, Any], now: datetime) -> str:
    match message["status"]:
        case "scheduled":
            return _at("goes", message.get("scheduled_at"), now)
        case "deferred":
            return _at("next attempt", message.get("next_attempt_at"), now)
        case "queued" | "uncertain":
            return _at("expected", message.get("expected_at") or message.get("next_attempt_at"), now)
        case "held":
            return _at("expires", message.get("expires_at"), now)
        case _:
            return ""


def _at(word: str, written: str | None, now: datetime) -> str:
    """Write a time as people look at clocks: the day only where it is another one."""
    if not written:
        return ""
    at = datetime.fromisoformat(written)
    left = (at - now).total_seconds()
    if left < 1:
        return f"{word} now"
    here = at.astimezone()
    clock = f"{here:%H:%M:%S}" if here.date() == now.astimezone().date() else f"{here:%Y-%m-%d %H:%M}"
    return f"{word} {clock} (in {_span(left)})"


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"
