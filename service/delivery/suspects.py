"""Suspects: deliveries that lost a lease may have killed their worker, so they are carried one at a time.

    a claim says that one is due ──> `ask` ──> its lane's turn ──> a claim that may take it ──> `begin` ──> `over`
                                       └─ another lane's turn: rung when it is this one's

What kills a worker does so soon, as a rule: when its content is read, composed into a session or cut into lines. So
a suspect is alone of its kind in a process for a while, and not until its end: a peer that takes long, or for ever,
over one of them does not keep the others of all lanes (decision record 0018). Whoever has been carried for that
long is acquitted for this attempt: the ledger no longer lays the worker's end at its door, and it is the next
lane's turn. The while is longer for who lost more leases, so that what kills slowly is found too.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from service.ledger import LedgerUnavailable
from service.ledger.claiming import Claimed

log = structlog.get_logger()

#: Seconds alone of a delivery that lost its first lease, how much longer with each further one, and at the most.
_FIRST, _FACTOR, _LONGEST = 0.4, 8.0, 60.0

#: How long a lane has its turn without making use of it, in seconds: all of its sessions may be busy.
_TURN = 0.4

#: Tells the ledger that an attempt is no longer carried alone; False where the ledger knows of no such attempt.
Acquit = Callable[[str], Awaitable[bool]]

#: Wakes a lane's drain, and stands for the lane.
Ring = Callable[[], None]


def seconds_alone(lost: int) -> float:
    """Say for how long a delivery that lost so many leases is alone."""
    return min(_FIRST * _FACTOR ** min(lost - 1, 10), _LONGEST)


class Suspects:
    """Whose turn it is in a process to carry a suspect, and who waits for a turn."""

    def __init__(self, acquit: Acquit) -> None:
        """Take what tells the ledger."""
        self._acquit = acquit
        self._turn: Ring | None = None  # the lane whose turn it is
        self._alone: Claimed | None = None  # what it carries
        self._timer: asyncio.TimerHandle | None = None  # of the turn, then of what is carried
        self._acquittal: asyncio.Task[None] | None = None
        self._waiting: dict[Ring, None] = {}  # in their order

    def is_turn_of(self, ring: Ring) -> bool:
        """Say whether this lane may claim a suspect now."""
        return self._turn == ring and self._alone is None

    def ask(self, ring: Ring) -> bool:
        """Say whether it is this lane's turn; if it is not, it is rung when it is."""
        if self._turn is None:
            self._give(ring)
        elif not self.is_turn_of(ring):
            self._waiting[ring] = None
        return self.is_turn_of(ring)

    def hold(self, ring: Ring) -> None:
        """Leave this lane its turn until `begin` or `pass_on`: its claim is under way."""
        if self.is_turn_of(ring):
            self._stop_timer()

    def pass_on(self, ring: Ring) -> None:
        """End this lane's turn, where it has it and carries none."""
        if self.is_turn_of(ring):
            self._next()

    def begin(self, claimed: Claimed) -> None:
        """Take the one that was claimed by the lane whose turn it is."""
        self._stop_timer()
        self._alone = claimed
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(seconds_alone(claimed.lost), self._been_long, claimed)

    def over(self, claimed: Claimed) -> None:
        """Take the end of one, which may have been acquitted long ago."""
        if self._alone is claimed:
            self._alone = None
            self._next()

    def _give(self, ring: Ring) -> None:
        self._turn = ring
        self._waiting.pop(ring, None)
        self._timer = asyncio.get_running_loop().call_later(_TURN, self.pass_on, ring)

    def _next(self) -> None:
        self._stop_timer()
        self._turn = None
        if self._waiting:
            ring = next(iter(self._waiting))
            self._give(ring)
            ring()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _been_long(self, claimed: Claimed) -> None:
        # Kept, so that it is not collected while it runs; it ends by itself.
        self._acquittal = asyncio.create_task(self._acquitted(claimed))

    async def _acquitted(self, claimed: Claimed) -> None:
        """Let go of one that has been carried for long, as soon as the ledger knows."""
        try:
            async with asyncio.timeout(5.0):
                await self._acquit(claimed.attempt_id)
        except (LedgerUnavailable, TimeoutError):
            if self._alone is claimed:
                self._timer = asyncio.get_running_loop().call_later(1.0, self._been_long, claimed)
            return
        log.info("suspect.acquitted", attempt=claimed.attempt_id, message=claimed.message_id)
        self.over(claimed)
