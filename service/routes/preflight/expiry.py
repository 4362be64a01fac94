"""What is announced before it ends: 60, 30, 14, 7 and 1 days before, and when it has ended.

Each announcement is made once. After a gap (no worker ran for ten days) only the nearest threshold
is announced, not those that were missed. What was renewed has another end and begins anew.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

#: Days before the end, the nearest first; 0: it has ended.
THRESHOLDS = (0, 1, 7, 14, 30, 60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """Something that ends some day: a secret, a certificate."""

    subject: str  # a stable name: "client_secret:1111…", the same for everybody who uses it
    route: str  # the first route that uses it
    what: str  # for people: "the client secret of 1111…"
    ends_at: datetime
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One announcement that is due."""

    ending: Ending
    days: int  # the threshold: 60, 30, 14, 7, 1, or 0 for "has ended"

    @property
    def key(self) -> tuple[str, datetime, int]:
        """What makes it one announcement."""
        return (self.ending.subject, self.ending.ends_at, self.days)

    def detail(self, now: datetime) -> str:
        """Say it to people."""
        ending = self.ending
        what = ending.what[0].upper() + ending.what[1:]
        left = ending.ends_at - now
        if left <= timedelta(0):
            return f"{what} ended at {ending.ends_at:%Y-%m-%d %H:%M} UTC. {ending.remedy}"
        days = left.days
        length = f"in {days} day{'s' if days != 1 else ''}" if days else "in less than a day"
        return f"{what} ends {length}, at {ending.ends_at:%Y-%m-%d %H:%M} UTC. {ending.remedy}"


def due_notices(
    endings: Iterable[Ending], now: datetime, already: Collection[tuple[str, datetime, int]]
) -> list[Notice]:
    """Say what is to be announced now, given the keys of what was announced already."""
    due: dict[tuple[str, datetime], Notice] = {}
    for ending in endings:
        days = _threshold(ending.ends_at - now)
        if days is None:
            continue
        nearer = {(ending.subject, ending.ends_at, each) for each in THRESHOLDS if each <= days}
        if nearer.isdisjoint(already):
            due.setdefault((ending.subject, ending.ends_at), Notice(ending=ending, days=days))
    return list(due.values())


def _threshold(left: timedelta) -> int | None:
    """Find the nearest threshold that is reached; None where the end is far."""
    if left <= timedelta(0):
        return 0
    return next((days for days in THRESHOLDS if days and left <= timedelta(days=days)), None)
