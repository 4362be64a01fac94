"""The states of a recipient, the moves between them, and what a message shows.

The recipient is the thing that has a state (RFC 3464 reports by recipient too). All moves
stand in `MOVES`; the same pairs stand in a CHECK constraint on the table `events`, and a
test compares the two. A move that is not in the table cannot be written: a trigger writes
one event for each change of `recipients.status`, in the same transaction, and the CHECK
refuses it.

    scheduled ─┐                       ┌─> sent ──> delivered | bounced
    held <────>├─> queued ─> sending ──┼─> failed
    deferred <─┘      ^         │      └─> uncertain ─> sent | failed | deferred | sending
                      └─────────┘
    anything open may become canceled or expired; what failed, expired or was canceled may
    be queued again by a person.

`sent` means that the other side answered 2yz to the end of data, nothing more.
`uncertain` means that the final dot was sent and no usable reply came (RFC 1047).
"""

from collections.abc import Collection
from enum import StrEnum


class Status(StrEnum):
    """Where one recipient of one message stands."""

    SCHEDULED = "scheduled"  # accepted, to be sent later at the application's wish
    QUEUED = "queued"  # waits for its lane
    HELD = "held"  # stopped by a person, or by us after repeated crashes; waits for a release
    SENDING = "sending"  # an attempt is open
    DEFERRED = "deferred"  # an attempt failed in a way that can heal; another one is due
    UNCERTAIN = "uncertain"  # the peer may have it or not
    SENT = "sent"
    DELIVERED = "delivered"
    BOUNCED = "bounced"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELED = "canceled"
    SUPPRESSED = "suppressed"


class Outcome(StrEnum):
    """What came of one attempt."""

    SENT = "sent"  # every recipient of the attempt was taken
    PARTIAL = "partial"  # some were taken
    DEFERRED = "deferred"  # none was taken, at least one may be tried again
    FAILED = "failed"  # none was taken, none may be tried again
    UNCERTAIN = "uncertain"  # the dot was sent, no usable reply came
    ABORTED = "aborted"  # we stopped before the dot of our own will (a planned restart)


_S = Status

FINAL: frozenset[Status] = frozenset({
    _S.SENT, _S.DELIVERED, _S.BOUNCED, _S.FAILED, _S.EXPIRED, _S.CANCELED, _S.SUPPRESSED,
})  # fmt: skip

#: Open states, the most urgent first: the order in which a message shows them.
OPEN: tuple[Status, ...] = (
    _S.UNCERTAIN, _S.SENDING, _S.DEFERRED, _S.QUEUED, _S.HELD, _S.SCHEDULED,
)  # fmt: skip

#: Every move there is; None is "did not exist". The key is where it starts.
MOVES: dict[Status | None, frozenset[Status]] = {
    None: frozenset({_S.SCHEDULED, _S.QUEUED, _S.HELD, _S.SUPPRESSED}),
    _S.SCHEDULED: frozenset({_S.QUEUED, _S.SENDING, _S.HELD, _S.CANCELED, _S.EXPIRED, _S.SUPPRESSED}),
    _S.QUEUED: frozenset({_S.SCHEDULED, _S.SENDING, _S.HELD, _S.CANCELED, _S.EXPIRED, _S.SUPPRESSED}),
    _S.HELD: frozenset({_S.QUEUED, _S.SCHEDULED, _S.CANCELED, _S.EXPIRED, _S.SUPPRESSED}),
    # back to queued: the attempt was stopped by us before the dot and counts as no try
    _S.SENDING: frozenset({_S.SENT, _S.DEFERRED, _S.FAILED, _S.UNCERTAIN, _S.QUEUED, _S.HELD}),
    _S.DEFERRED: frozenset({_S.SENDING, _S.QUEUED, _S.HELD, _S.CANCELED, _S.EXPIRED, _S.SUPPRESSED}),
    # sent, failed, deferred: a late reply, or a person's settlement; sending: the resend
    _S.UNCERTAIN: frozenset(
        {_S.SENDING, _S.SENT, _S.FAILED, _S.DEFERRED, _S.QUEUED, _S.CANCELED, _S.EXPIRED}
    ),
    _S.SENT: frozenset({_S.DELIVERED, _S.BOUNCED}),
    _S.DELIVERED: frozenset({_S.BOUNCED}),
    _S.BOUNCED: frozenset(),
    _S.FAILED: frozenset({_S.QUEUED}),
    _S.EXPIRED: frozenset({_S.QUEUED}),
    _S.CANCELED: frozenset({_S.QUEUED}),
    _S.SUPPRESSED: frozenset(),
}


class IllegalMove(Exception):
    """The table of moves does not know this one: a bug of ours, never a caller's mistake."""

    def __init__(self, start: Status | None, end: Status) -> None:
        super().__init__(f"{start or 'nothing'} -> {end}")
        self.start = start
        self.end = end


def advance(start: Status | None, end: Status) -> Status:
    """Return `end` where the move is allowed, and raise IllegalMove where it is not."""
    if end not in MOVES[start]:
        raise IllegalMove(start, end)
    return end


def moves_in_sql() -> str:
    """Write `MOVES` as the SQL condition of the CHECK constraint on `events`."""
    lines = []
    for start, ends in MOVES.items():
        if not ends:
            continue
        options = ", ".join(f"'{end}'" for end in sorted(ends))
        origin = "from_status IS NULL" if start is None else f"from_status = '{start}'"
        lines.append(f"({origin} AND to_status IN ({options}))")
    # IS TRUE: a comparison with a missing status is NULL, which a CHECK would let pass
    return f"({' OR '.join(lines)}) IS TRUE"


def message_status(recipients: Collection[str]) -> str:
    """Derive a message's status from its recipients' (at least one).

    While any is open, the most urgent open one; then the common one; `partially_sent` where
    some are sent and others not; otherwise `failed`. `delivered` counts as sent here.
    """
    states = {Status(each) for each in recipients}
    for status in OPEN:
        if status in states:
            return status.value
    if len(states) == 1:
        return states.pop().value
    taken = states & {_S.SENT, _S.DELIVERED}
    if taken == states:
        return _S.SENT.value
    return "partially_sent" if taken else _S.FAILED.value
