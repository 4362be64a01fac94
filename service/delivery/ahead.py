"""What a worker has claimed for a lane before a seat is free for it (decision record 0013).

On a lane without a limit of its own, a claim takes some deliveries more than there are free seats, so that
a seat that comes free goes on at once, and so that the next message's commands can leave behind the dot of
the one before (RFC 2920). They are as many as the lane carries in a twentieth of a second, and at least one for
each seat: none of them waits long, and a worker that dies leaves little behind.

Trouble ends it: as soon as a route, a sender or a budget has to rest, the ledger is away, or nothing moves for
some seconds, everything that waits here goes back to the ledger, and nothing is claimed ahead until a message was
taken again.
"""

import time
from collections import deque

from service.ledger.claiming import Claimed

#: Seconds of the lane's work that may wait here, and deliveries at the most.
_SECONDS, _MOST = 0.05, 100

#: Seconds over which the lane's rate is measured.
_MEASURED = 0.1

#: Where a reply to the dot takes longer than this, in seconds, nothing waits behind it, and nothing for a seat: a
#: claim costs little beside it, and what a dead worker had at hand is carried one after another.
QUICK = 0.3

#: How long a delivery waits here, or behind the dot of another one, before it goes another way, in seconds.
PATIENCE = 5.0

#: How long nothing is sent behind a dot where a peer has ended a session there, in seconds.
_WARY = 600.0


class Ahead:
    """The deliveries that wait for a seat, and how many may."""

    def __init__(self, *, allowed: bool) -> None:
        """`allowed` is False for a lane that counts its messages or recipients: what waits here would use its limit up."""
        self._allowed = allowed
        self._waiting: deque[Claimed] = deque()
        self._came_at: deque[float] = deque()  # when each of them did
        self._well = False  # the last attempt was taken
        self._quick = False  # the last reply to a dot came soon
        self._wary_until = 0.0
        self._since, self._carried, self._rate = time.monotonic(), 0, 0.0

    def __len__(self) -> int:
        return len(self._waiting)

    def wanted(self, *, seats: int) -> int:
        """Say how many more to claim beyond the free seats; 0 while enough wait here."""
        if not (self._allowed and self._well and self._quick):
            return 0
        most = min(max(int(self._rate * _SECONDS), seats), _MOST)
        return most - len(self._waiting) if len(self._waiting) <= most // 2 else 0

    def put(self, claimed: Claimed) -> None:
        """Let it wait."""
        self._waiting.append(claimed)
        self._came_at.append(time.monotonic())

    def take(self) -> Claimed | None:
        """Take the one that has waited longest."""
        if not self._waiting:
            return None
        self._came_at.popleft()
        return self._waiting.popleft()

    def take_for_behind(self) -> Claimed | None:
        """Take one that may begin behind another one's dot; None where that would not be safe."""
        if not (self._waiting and self._well and self._quick) or time.monotonic() < self._wary_until:
            return None
        first = self._waiting[0]
        return None if first.alone or first.octets is None else self.take()

    def patience(self) -> float | None:
        """Say for how many seconds the first may still wait here; None where nothing does."""
        return max(self._came_at[0] + PATIENCE - time.monotonic(), 0.0) if self._came_at else None

    def everything(self) -> list[Claimed]:
        """Take all of them; no more are wanted until a message was taken."""
        waiting = list(self._waiting)
        self._waiting.clear()
        self._came_at.clear()
        self._well = False
        return waiting

    def carried(self, *, well: bool, dot_seconds: float | None) -> None:
        """Learn from an attempt: whether it was taken, and how long the reply to its dot took."""
        self._well = well
        if dot_seconds is not None:
            self._quick = dot_seconds < QUICK
        self._carried += 1
        now = time.monotonic()
        if now - self._since >= _MEASURED:
            self._rate = self._carried / (now - self._since)
            self._since, self._carried = now, 0

    def ended_behind(self) -> None:
        """Learn that a peer ended a session behind a message: this one does not like to be hurried."""
        self._wary_until = time.monotonic() + _WARY
