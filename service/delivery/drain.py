"""A drain: one lane in one worker, from the bell to the last verdict.

    bell rung, permit or retry due, seat freed
        └─> claim what the free seats can carry ──> one `Attempt` for each, side by side
              └─> nothing more to claim: wait for the next of these

A drain lingers on its lane, so a message that is accepted while the lane is open is on its
way within milliseconds. Several workers may drain one lane: the ledger serialises their
claims and counts for all of them. A ledger that cannot work is asked again in a moment and
nothing is sent meanwhile.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection

import structlog

from service.delivery.attempt import Attempt, Kit
from service.delivery.seats import Seat, Seats, close_all
from service.ledger import LedgerUnavailable
from service.ledger.claiming import Claim, Claimed, Wish
from service.ledger.pace import LaneLimits
from service.routes.route import Lane

log = structlog.get_logger()

#: Waits longer than this are also given to arq's clock, so that any worker can take over.
_WORTH_A_JOB = 1.0

Defer = Callable[[str, float], Awaitable[None]]


class Suspects:
    """A delivery that lost a lease may kill its worker: one at a time in a process."""

    def __init__(self) -> None:
        self.in_hand = False
        self._waiting: set[Drain] = set()

    def wait(self, drain: "Drain") -> None:
        self._waiting.add(drain)

    def over(self) -> None:
        self.in_hand = False
        waiting, self._waiting = self._waiting, set()
        for drain in waiting:
            drain.ring()


class Drain:
    """One lane in one worker."""

    def __init__(self, lane: Lane, *, limits: LaneLimits, kit: Kit, suspects: Suspects, defer: Defer) -> None:
        self.lane = lane
        self._kit = kit
        self._suspects = suspects
        self._defer = defer
        self._bell = asyncio.Event()
        self._stopping = False
        self._ended = asyncio.Event()
        self._seats = Seats(most=limits.connections)
        self._in_hand: dict[asyncio.Task[None], Attempt] = {}
        self._limits = limits

    def ring(self) -> None:
        """Look again: something may be due."""
        self._bell.set()

    async def run(self) -> None:
        """Drain the lane until `stop`."""
        try:
            await self._drain()
        finally:
            self._ended.set()

    async def _drain(self) -> None:
        while not self._stopping:
            self._bell.clear()
            try:
                again_in = await self._fill()
            except (LedgerUnavailable, TimeoutError):
                again_in = 1.0
            except Exception:
                log.exception("drain.bug", lane=self.lane.route.name)
                again_in = self._kit.policy.poll_interval
            await self._close_superfluous()
            await self._rest(again_in)

    async def stop(self, *, grace: float) -> None:
        """Take nothing new, finish what is in hand, abort what is left after `grace` seconds."""
        self._stopping = True
        self.ring()
        # A claim may be under way: what it brings is in hand too.
        await self._ended.wait()
        if self._in_hand:
            await asyncio.wait(self._in_hand, timeout=grace)
        for attempt in self._in_hand.values():
            attempt.abort()
        if self._in_hand:
            # An aborted attempt still writes its closing; the ledger may be away.
            await asyncio.wait(self._in_hand, timeout=5.0)
        seats = self._seats.everything()
        await close_all(seats)
        await self._give_back(seats)

    async def _fill(self) -> float | None:
        """Claim as long as there is something to claim; say when to look again."""
        while not self._stopping:
            free = self._seats.free()
            room = self._seats.most - len(self._seats)
            if not free and room <= 0:
                return None  # the end of an attempt rings
            wish = Wish(
                lane=self.lane.name,
                route=self.lane.route.name,
                worker=self._kit.worker,
                seats=[seat.id for seat in free],
                more=max(room, 0),
                lease=self._kit.policy.lease,
                suspects=not self._suspects.in_hand,
            )
            asked_at = time.monotonic()
            async with asyncio.timeout(self._kit.policy.lease / 2):
                claim = await self._kit.ledger.claim(wish, self._limits)
            free = self._without_lost(free, claim.lost_seats)
            if claim.suspects_waiting:
                self._suspects.wait(self)
            if not claim.claimed:
                await self._defer_to_the_clock(claim)
                return claim.again_in
            for claimed in claim.claimed:
                self._start(claimed, free, asked_at=asked_at)
        return None

    def _without_lost(self, seats: list[Seat], lost: Collection[str]) -> list[Seat]:
        """Leave out the seats that are no longer ours: nothing travels on them again, they are closed."""
        for seat in seats:
            if seat.id in lost:
                seat.lost = True
                self.ring()
        return [seat for seat in seats if seat.id not in lost]

    def _start(self, claimed: Claimed, free: list[Seat], *, asked_at: float) -> None:
        self._kit.keeper.hold(claimed.attempt_id, asked_at=asked_at)
        seat = self._sit(claimed.seat) if claimed.seat is not None else free.pop(0)
        seat.busy = True
        if claimed.alone:
            self._suspects.in_hand = True
        attempt = Attempt(claimed, lane=self.lane, seat=seat, kit=self._kit)
        task = asyncio.create_task(self._carry(attempt, seat))
        self._in_hand[task] = attempt
        task.add_done_callback(self._in_hand.pop)

    def _sit(self, seat_id: str) -> Seat:
        seat = self._seats.add(seat_id)

        def lose() -> None:
            seat.lost = True
            self.ring()

        self._kit.keeper.sit(seat_id, lose)
        return seat

    async def _carry(self, attempt: Attempt, seat: Seat) -> None:
        claimed = attempt.claimed

        freed = False

        def free_seat() -> None:
            # Once only: behind it the seat may be carrying the next message already.
            nonlocal freed
            if not freed:
                freed = True
                self._seats.release(seat)
                self.ring()

        try:
            await attempt.carry(free_seat=free_seat)
        except Exception:
            log.exception("attempt.bug", attempt=claimed.attempt_id)
        finally:
            self._kit.keeper.let_go(claimed.attempt_id)
            if claimed.alone:
                self._suspects.over()
            free_seat()
            self.ring()

    async def _defer_to_the_clock(self, claim: Claim) -> None:
        if claim.again_in is not None and claim.again_in > _WORTH_A_JOB:
            await self._defer(self.lane.name, claim.again_in)

    async def _close_superfluous(self) -> None:
        idle = self._kit.policy.idle_session
        seats = self._seats.superfluous(idle=0.0 if self._stopping else idle)
        if seats:
            await close_all(seats)
            await self._give_back(seats)

    async def _give_back(self, seats: list[Seat]) -> None:
        for seat in seats:
            self._kit.keeper.stand_up(seat.id)
        try:
            async with asyncio.timeout(5.0):
                await self._kit.ledger.give_back([seat.id for seat in seats])
        except (LedgerUnavailable, TimeoutError):
            log.info("seats.not_given_back", lane=self.lane.route.name)  # their lease runs out

    async def _rest(self, again_in: float | None) -> None:
        """Wait for the bell, or until something is due, or until a seat has been idle for too long."""
        idle = self._seats.next_superfluous(idle=self._kit.policy.idle_session)
        waits = [wait for wait in (again_in, idle) if wait is not None]
        try:
            async with asyncio.timeout(max(min(waits), 0.001) if waits else None):
                await self._bell.wait()
        except TimeoutError:
            pass
