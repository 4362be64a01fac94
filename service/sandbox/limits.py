"""What Microsoft counts, over rolling windows: for a mailbox, a stranger's address, a resource.

30 messages a minute, 10,000 recipients in 24 hours, 3 connections, and the errors that, when they
go on, close a mailbox for good mail too (Microsoft's pages "Improvements in the SMTP AUTH Client
Submission protocol" and "Sender throttled due to continuous errors"). A message counts when the
server takes it; a refused one does not count.

Times are seconds of one monotonic clock, handed in by the caller.
"""

from collections import deque

MINUTE = 60.0
DAY = 24 * 3600.0
HOUR = 3600.0


class Window:
    """Adds up what happened in the last `span` seconds."""

    def __init__(self, *, span: float) -> None:
        """Start with nothing counted."""
        self._span = span
        self._entries: deque[tuple[float, int]] = deque()
        self._total = 0

    def used(self, now: float) -> int:
        """Return the sum of the window that ends now."""
        while self._entries and self._entries[0][0] <= now - self._span:
            self._total -= self._entries.popleft()[1]
        return self._total

    def add(self, amount: int, *, now: float) -> None:
        """Count `amount` at this moment."""
        self._entries.append((now, amount))
        self._total += amount


class Pace:
    """Says when the next message may go, so that no window of a minute holds more than the limit."""

    def __init__(self) -> None:
        """Start with nothing sent."""
        self._times: deque[float] = deque(maxlen=100_000)

    def next_at(self, now: float, *, limit: int) -> float:
        """Return the moment for one more message: now, or when the window has room again."""
        if limit <= 0:
            return now + MINUTE
        if len(self._times) < limit:
            return now
        return max(now, self._times[-limit] + MINUTE)

    def add(self, at: float) -> None:
        """Count one message at its moment, which may lie ahead."""
        self._times.append(at)


class Meter:
    """Everything that is counted for one mailbox."""

    def __init__(self) -> None:
        """Start a mailbox that did nothing yet."""
        self.pace = Pace()
        self.recipients = Window(span=DAY)
        self.sent_items_octets = 0
        self.sessions: list[object] = []  # logged in, the oldest first
        self._errors: dict[str, Window] = {}
        self._closed_until: dict[str, float] = {}

    def error(self, kind: str, *, now: float, limit: int, closed_for: float) -> None:
        """Count an error; at the limit the mailbox closes for `closed_for` seconds."""
        window = self._errors.setdefault(kind, Window(span=HOUR))
        window.add(1, now=now)
        if window.used(now) >= limit > 0:
            self._closed_until[kind] = now + closed_for

    def closed_for(self, now: float) -> str | None:
        """Return the kind of error that closed the mailbox, or None while it is open."""
        return next((kind for kind, until in self._closed_until.items() if now < until), None)

    def crowded(self, session: object, *, limit: int) -> bool:
        """Say whether as many sessions as allowed logged in before this one and are still there."""
        return session in self.sessions and self.sessions.index(session) >= limit


class Stranger:
    """What is counted for an address that no connector knows."""

    def __init__(self) -> None:
        """Start an address that sent nothing yet."""
        self._messages = Window(span=HOUR)
        self._refused_until = 0.0

    def refused(self, now: float) -> bool:
        """Whether it sent too much."""
        return now < self._refused_until

    def count(self, *, now: float, limit: int | None, refused_for: float) -> None:
        """Count a message; at the limit the address is refused for so many seconds."""
        self._messages.add(1, now=now)
        if limit is not None and self._messages.used(now) >= limit:
            self._refused_until = now + refused_for


class AcsMeter:
    """What is counted for one resource of Azure Communication Services."""

    def __init__(self) -> None:
        """Start a resource that sent nothing yet."""
        self._minute, self._hour = Window(span=MINUTE), Window(span=HOUR)

    def full(self, now: float, *, per_minute: int, per_hour: int) -> bool:
        """Whether one more message would be one too many."""
        return self._minute.used(now) >= per_minute or self._hour.used(now) >= per_hour

    def count(self, now: float) -> None:
        """Count a message."""
        self._minute.add(1, now=now)
        self._hour.add(1, now=now)
