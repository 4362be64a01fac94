"""Durations as the API writes them: `30s`, `10m`, `24h`, `30d`."""

import re
from datetime import timedelta
from typing import Annotated

from pydantic import Field

from service.submission.problems import unprocessable

_WRITTEN = r"^[0-9]{1,6}[smhd]$"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

#: A duration in the shape of a request or an answer.
DurationText = Annotated[str, Field(strict=True, pattern=_WRITTEN, examples=["30d"])]


def read_duration(written: str, pointer: str, *, most: timedelta) -> timedelta:
    """Read a duration of a second or more; raises a 422 problem where it is longer than `most`."""
    if not re.fullmatch(_WRITTEN, written):
        raise unprocessable(pointer, "string_pattern_mismatch", "Write a duration as 30s, 10m, 24h or 30d.")
    found = timedelta(seconds=int(written[:-1]) * _UNITS[written[-1]])
    if not timedelta(seconds=1) <= found <= most:
        longest = f"{most // timedelta(days=1)} days"
        raise unprocessable(pointer, "out_of_range", f"This lasts from a second to {longest}.")
    return found


def duration(seconds: int) -> str:
    """Write a duration in the largest unit that leaves no fraction."""
    unit, size = next(each for each in reversed(_UNITS.items()) if seconds % each[1] == 0)
    return f"{seconds // size}{unit}"
