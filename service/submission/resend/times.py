"""When an email is to be sent, as Resend lets it be written: ISO 8601, or a few words of English.

    2026-11-26T19:40:02.858Z      in 90 min      in 1 hour      in 3 days
    today at 17:30      tomorrow at 9am      friday at 3pm

A time without an offset is UTC, and so is the clock of the words. A day of the week is the next one whose
hour has not passed. What is not understood is refused: mail at a guessed time cannot be called back.
"""

import re
from datetime import UTC, datetime, time, timedelta

from service.submission.problems import Problem, unprocessable

_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

_SPAN = re.compile(
    r"in (?P<count>\d{1,6}|an?) ?(?P<unit>s|m|h|d|w|secs?|mins?|hrs?|seconds?|minutes?|hours?|days?|weeks?)",
    re.ASCII,
)
_UNITS = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
_DAY = re.compile(
    rf"(?:on )?(?P<day>today|tomorrow|{'|'.join(_DAYS)}),? at "
    r"(?P<hour>\d{1,2})(?::(?P<minute>\d{2}))?(?: ?(?P<half>am|pm))?(?: ?(?:utc|gmt|z))?",
    re.ASCII,
)


def moment(written: str, *, now: datetime, pointer: str) -> datetime:
    """Read a time; raises a 422 problem. `now` is an aware time in UTC."""
    words = " ".join(written.lower().split())
    try:
        found = _iso(written.strip()) or _span(words, now) or _day(words, now)
    except (ValueError, OverflowError):
        found = None
    if found is None:
        raise _not_understood(pointer)
    return found


def _iso(written: str) -> datetime | None:
    try:
        at = datetime.fromisoformat(written)
    except ValueError:
        return None
    return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)


def _span(words: str, now: datetime) -> datetime | None:
    match = _SPAN.fullmatch(words)
    if match is None:
        return None
    count = 1 if match["count"].startswith("a") else int(match["count"])
    return now + count * _UNITS[match["unit"][0]]


def _day(words: str, now: datetime) -> datetime | None:
    match = _DAY.fullmatch(words)
    if match is None:
        return None
    hour, half = int(match["hour"]), match["half"]
    if half is not None:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if half == "pm" else 0)
    at = datetime.combine(now.date(), time(hour, int(match["minute"] or 0)), UTC)
    day = match["day"]
    if day == "today":
        return at
    if day == "tomorrow":
        return at + timedelta(days=1)
    at += timedelta(days=(_DAYS.index(day) - at.weekday()) % 7)
    return at if at > now else at + timedelta(days=7)


def _not_understood(pointer: str) -> Problem:
    return unprocessable(
        pointer,
        "not_a_time",
        "Write the time as ISO 8601 (2026-11-26T19:40:02.858Z), or like `in 2 hours`, `tomorrow at 9am` or "
        "`friday at 15:00`, which are in UTC.",
    )
