"""A drain: one lane in one worker, from the bell to the last verdict.

    bell rung, permit or retry due, seat freed
        └─> claim what the free seats can carry, and a little `ahead` of them
              ├─> a ride on each seat: one `Attempt` after another, as long as there is one
              └─> nothing more to claim: wait for the next of these

A drain lingers on its lane, so a message that is accepted while the lane is open is on its
way within milliseconds. Several workers may drain one lane: the ledger serialises their
claims and counts for all of them. A ledger that cannot work is asked again in a moment and
nothing is sent meanwhile.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import datetime

import structlog

from service.delivery.ahead import PATIENCE, Ahead
from service.delivery.attempt import Attempt, Kit
from service.delivery.seats import Seat, Seats, close_all
from service.delivery.suspects import Suspects
from service.delivery.verdict import Judgement
from service.ledger import LedgerUnavailable
from service.ledger.claiming import Claim, Claimed, Wish
from service.ledger.pace import LaneLimits
from service.ledger.states import Outcome
from service.routes.route import Lane
from service.smtp.session import Session
from service.telemetry import figures

log = structlog.get_logger()

#: How often a drain that has much to do looks at everything that is due, in seconds.
_AT_EVERYTHING = 2.0

#: Waits longer than this are also given to arq's clock, so that any worker can take over.
_WORTH_A_JOB = 1.0

Defer = Callable[[str, float], Awaitable[None]]


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
        limit_of_its_own = (limits.messages_per_minute, limits.messages_per_hour, limits.recipients_per_day)
        counted = any(limit is not None for limit in limit_of_its_own)
        self._ahead = Ahead(allowed=not counted)
        self._rides: dict[asyncio.Task[None], Ride] = {}
        self._records: set[asyncio.Task[None]] = set()
        self._troubles = 0  # of attempts that are not written down yet
        self._limits = limits
        self._first_due: datetime | None = None  # before it nothing waited, at the last look
        self._look_at_everything = 0.0
        self._suspects_wait = False  # one was due at the last look, and not taken
        self._drained = False  # nothing was due beside what is in hand; what comes rings

    @property
    def in_hand(self) -> int:
        """The attempts that are under way, or wait for a seat."""
        return len(self._rides) + len(self._ahead)

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
            await self._close_superfluous()
            try:
                again_in = await self._fill()
            except (LedgerUnavailable, TimeoutError):
                again_in = 1.0
            except Exception:
                figures.BUGS.add("drain")
                log.exception("drain.bug", lane=self.lane.route.name)
                again_in = self._kit.policy.poll_interval
            await self._rest(again_in)
        await self._close_superfluous()

    async def stop(self, *, grace: float) -> None:
        """Take nothing new, finish what is in hand, abort what is left after `grace` seconds."""
        self._stopping = True
        self.ring()
        # A claim may be under way: what it brings is in hand too.
        await self._ended.wait()
        if self._rides:
            await asyncio.wait(self._rides, timeout=grace)
        self._give_back_ahead()
        for ride in self._rides.values():
            ride.abort()
        if self._rides:
            await asyncio.wait(self._rides, timeout=5.0)
        if self._records:
            # An aborted attempt still writes its closing; the ledger may be away.
            await asyncio.wait(self._records, timeout=5.0)
        seats = self._seats.everything()
        await close_all(seats)
        await self._give_back(seats)

    async def _fill(self) -> float | None:
        """Claim as long as there is something to claim; say when to look again."""
        if self._ahead.patience() == 0.0:
            self._give_back_ahead()
        while not (self._stopping or self._troubles):
            free = self._seats.free()
            room = self._seats.most - len(self._seats)
            ahead = self._ahead.wanted(seats=len(self._seats))
            turn = self._suspects_wait and self._suspects.ask(self.ring)
            if not free and room <= 0 and not ahead:
                return None  # the end of an attempt rings
            wish = Wish(
                lane=self.lane.name,
                route=self.lane.route.name,
                worker=self._kit.worker,
                seats=[seat.id for seat in free],
                more=max(room, 0),
                lease=self._kit.policy.lease,
                suspects=turn and bool(free or room > 0),
                ahead=ahead,
                from_due=None if turn else self._from_due(),
            )
            asked_at = time.monotonic()
            claim = await self._claim(wish)
            free = self._without_lost(free, claim.lost_seats)
            again = claim.suspects and not self._suspects_wait
            self._suspects_wait = claim.suspects
            self._first_due = None if claim.drained else claim.first_due
            if not claim.claimed:
                self._first_due = None
                if wish.from_due is not None or again:
                    continue  # nothing behind the bound, or nobody but suspects: look at everything
                self._drained = False
                await self._defer_to_the_clock(claim)
                return claim.again_in
            for claimed in claim.claimed:
                self._start(claimed, free, asked_at=asked_at)
            self._seat_who_waits()
            if self._troubles:
                self._give_back_ahead()  # it came while the claim was under way
            self._drained = claim.drained
            if claim.drained:
                await self._defer_to_the_clock(claim)
                return claim.again_in
        return None  # the end of what is in hand rings, and so does the record of a trouble

    async def _claim(self, wish: Wish) -> Claim:
        """Claim; a turn to take a suspect is over where it brings none."""
        if wish.suspects:
            self._suspects.hold(self.ring)
        try:
            async with asyncio.timeout(self._kit.policy.lease / 2):
                claim = await self._kit.ledger.claim(wish, self._limits)
        except BaseException:
            self._suspects.pass_on(self.ring)
            raise
        if wish.suspects and not any(claimed.alone for claimed in claim.claimed):
            self._suspects.pass_on(self.ring)
        return claim

    def _from_due(self) -> datetime | None:
        """Say from when on to look; now and then at everything.

        Before the first delivery of the last look nothing waited. But a transaction that began before it may
        have ended since, and its deliveries were due when it began.
        """
        now = time.monotonic()
        if self._first_due is None or now >= self._look_at_everything:
            self._look_at_everything = now + _AT_EVERYTHING
            return None
        return self._first_due

    def _without_lost(self, seats: list[Seat], lost: Collection[str]) -> list[Seat]:
        """Leave out the seats that are no longer ours: nothing travels on them again, they are closed."""
        for seat in seats:
            if seat.id in lost:
                seat.lost = True
                self.ring()
        return [seat for seat in seats if seat.id not in lost]

    def _start(self, claimed: Claimed, free: list[Seat], *, asked_at: float) -> None:
        self._kit.keeper.hold(claimed.attempt_id, asked_at=asked_at)
        if claimed.alone:
            self._suspects.begin(claimed)
        if claimed.seat is not None:
            seat = self._sit(claimed.seat)
        elif free:
            seat = free.pop(0)
        else:
            self._ahead.put(claimed)
            return
        self._ride(seat, self._attempt(claimed, seat))

    def _seat_who_waits(self) -> None:
        """Use seats that came free while the claim was under way."""
        for seat in self._seats.free():
            attempt = self.following(seat) if len(self._ahead) else None
            if attempt is not None:
                self._ride(seat, attempt)

    def _ride(self, seat: Seat, first: Attempt) -> None:
        seat.busy = True
        ride = Ride(seat, first, drain=self)
        task = asyncio.create_task(ride.run())
        self._rides[task] = ride
        task.add_done_callback(self._rides.pop)

    def _attempt(self, claimed: Claimed, seat: Seat) -> Attempt:
        return Attempt(claimed, lane=self.lane, seat=seat, kit=self._kit)

    def _sit(self, seat_id: str) -> Seat:
        seat = self._seats.add(seat_id)

        def lose() -> None:
            seat.lost = True
            self.ring()

        self._kit.keeper.sit(seat_id, lose)
        return seat

    # -- what rides ask for ------------------------------------------------------------------

    def following(self, seat: Seat) -> Attempt | None:
        """Give the next attempt for a seat that has come free; a suspect whose turn it is needs the seat itself."""
        if seat.lost or self._suspects.is_turn_of(self.ring):
            return None
        claimed = self._still_ours(self._ahead.take())
        self._ring_when_low()
        return None if claimed is None else self._attempt(claimed, seat)

    def behind(self, seat: Seat, session: Session) -> Attempt | None:
        """Give the attempt that may begin behind the dot that is about to leave on this seat."""
        most = self.lane.limits.messages_per_connection
        if seat.lost or (most is not None and session.messages >= most):
            return None
        if self._suspects.is_turn_of(self.ring):
            return None
        claimed = self._still_ours(self._ahead.take_for_behind())
        return None if claimed is None else self._attempt(claimed, seat)

    def _still_ours(self, claimed: Claimed | None) -> Claimed | None:
        """Begin nothing whose lease may be over: it goes back, and so does what was claimed with it."""
        if claimed is None or self._kit.keeper.holds(claimed.attempt_id):
            return claimed
        self._give_back_waiting([claimed, *self._ahead.everything()])
        return None

    def ended(self, attempt: Attempt, judgement: Judgement) -> None:
        """Take a judged attempt: learn from it, and have it written down beside what goes on."""
        if attempt.begun_behind:
            self._ahead.ended_behind()
        else:
            self._ahead.carried(well=judgement.lane_well, dot_seconds=attempt.dot_seconds)
        if judgement.trouble is not None or attempt.without_ledger:
            self._give_back_ahead()
        self._record(attempt)

    def freed(self, seat: Seat) -> None:
        """Take a seat back whose ride is over."""
        self._seats.release(seat)
        if seat.lost:
            self._give_back_ahead()  # there may be no other seat to carry it
        if seat.lost or not self._drained:
            self.ring()

    def _ring_when_low(self) -> None:
        if self._ahead.wanted(seats=len(self._seats)):
            self.ring()

    def _give_back_ahead(self) -> None:
        """Let everything go back that waits for a seat: its turn does not come now."""
        self._give_back_waiting(self._ahead.everything())

    def _give_back_waiting(self, waiting: Sequence[Claimed]) -> None:
        for claimed in waiting:
            attempt = self._attempt(claimed, Seat(id=""))
            attempt.give_back()
            self._record(attempt)

    def _record(self, attempt: Attempt) -> None:
        # What has to rest is known to no claim before it is written.
        self._troubles += attempt.judgement.trouble is not None
        task = asyncio.create_task(self._recorded(attempt))
        self._records.add(task)
        task.add_done_callback(self._records.discard)

    async def _recorded(self, attempt: Attempt) -> None:
        claimed = attempt.claimed
        try:
            await attempt.record()
        except Exception:
            log.exception("attempt.bug", attempt=claimed.attempt_id)
        finally:
            self._troubles -= attempt.judgement.trouble is not None
            self._kit.keeper.let_go(claimed.attempt_id)
            if claimed.alone:
                self._suspects.over(claimed)
            if attempt.judgement.outcome is Outcome.ABORTED:
                self._first_due = None  # it is due where it was, which may be before
            if not self._drained or attempt.judgement.outcome is not Outcome.SENT:
                self.ring()  # what it has put back may be due, and a pause may have come or gone

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
        waits = [wait for wait in (again_in, idle, self._ahead.patience()) if wait is not None]
        try:
            async with asyncio.timeout(max(min(waits), 0.001) if waits else None):
                await self._bell.wait()
        except TimeoutError:
            pass


class Ride:
    """One attempt after another on one seat, until there is none for it."""

    def __init__(self, seat: Seat, first: Attempt, *, drain: Drain) -> None:
        self._seat = seat
        self._attempt: Attempt | None = first
        self._drain = drain
        self._behind: Attempt | None = None  # what may have begun behind the dot of the attempt
        self._patience: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Ride until nothing follows. Never raises."""
        try:
            while (attempt := self._attempt) is not None:
                judgement = await attempt.converse(behind=self._begin_behind)
                following = self._take_behind()
                self._drain.ended(attempt, judgement)
                self._attempt = following or self._drain.following(self._seat)
        finally:
            self._drain.freed(self._seat)

    def abort(self) -> None:
        """Stop talking now, and with it what has begun behind."""
        if self._attempt is not None:
            self._attempt.abort()

    def _begin_behind(self, session: Session) -> Attempt | None:
        self._behind = self._drain.behind(self._seat, session)
        if self._behind is not None:
            self._patience = asyncio.get_running_loop().call_later(PATIENCE, self._wait_no_longer)
        return self._behind

    def _take_behind(self) -> Attempt | None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        behind, self._behind = self._behind, None
        return behind

    def _wait_no_longer(self) -> None:
        """Let the message behind go another way: the peer takes long over the one before."""
        behind, self._behind = self._behind, None
        if behind is None:
            return
        if not behind.disown():
            behind.give_back()  # it had not begun: the peer does not offer what it needs
        self._drain.ended(behind, behind.judgement)
