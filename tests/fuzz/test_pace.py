"""The limiter on the real ledger against a peer that counts: any claims, replies, crashes and waits.

The clock is PostgreSQL's and cannot be set here, so what was written is moved back instead: all times of the ledger
by as much as the clock is to go on. The peer has a clock of its own that goes on by the same, and counts a message
at the moment of its dot, which lies somewhere between the claim and the close; or there is no close, because the
worker died. Whatever happens, no window of the peer's may ever hold more than the limit.

    the minute      any number of workers, sessions, crashes and late replies; messages a minute and an hour
    the day         recipients a day, in steps of minutes to hours, with the sums that the sweep makes
"""

import asyncio
from dataclasses import dataclass, replace
from typing import Any, cast

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import text

from service.delivery.worker import rescue_errors
from service.ledger import Ledger
from service.ledger.claiming import Claim, Claimed
from service.ledger.engine import transaction
from service.ledger.ids import new_id
from service.ledger.pace import LaneLimits
from service.ledger.states import Status
from tests.builders import a_closing, a_submission, claim
from tests.fuzz import examples

LEASE = 30.0

#: The clock goes on: everything that was written becomes older.
GO_ON = """
    WITH a AS (UPDATE attempts SET started_at = started_at - CAST(:by AS interval),
                                   ended_at = ended_at - CAST(:by AS interval),
                                   lease_until = lease_until - CAST(:by AS interval)),
         c AS (UPDATE connections SET lease_until = lease_until - CAST(:by AS interval)),
         u AS (UPDATE uses SET minute = minute - CAST(:by AS interval)),
         l AS (UPDATE lanes SET paused_until = paused_until - CAST(:by AS interval)),
         d AS (UPDATE deliveries SET due_at = due_at - CAST(:by AS interval))
    UPDATE recipients SET due_at = due_at - CAST(:by AS interval) WHERE due_at IS NOT NULL
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A message at the peer."""

    at: float  # of its clock
    recipients: int


class Peer:
    """Counts what it took; `in_window` is the most that any window of so many seconds has held."""

    def __init__(self) -> None:
        self.taken: list[Taken] = []

    def in_window(self, seconds: float, *, recipients: bool = False) -> int:
        most = 0
        for last in self.taken:
            held = [each for each in self.taken if last.at - seconds < each.at <= last.at]
            most = max(most, sum(each.recipients for each in held) if recipients else len(held))
        return most


class Clocked:
    """A ledger with a lane of its own, whose clock goes on as told, and the peer behind the lane."""

    def __init__(self, url: str, limits: LaneLimits) -> None:
        self.ledger = Ledger.open(url, name="fuzz", connections=2)
        self.lane = f"lane-{new_id('key')}"
        self.limits = limits
        self.peer = Peer()
        self.moved = 0.0
        self._zero: float | None = None

    async def now(self) -> float:
        """Read the peer's clock: PostgreSQL's, and what was moved."""
        async with transaction(self.ledger._engine) as db:
            real = float(
                await db.scalar(text("SELECT CAST(extract(epoch FROM clock_timestamp()) AS float8)")) or 0
            )
        self._zero = self._zero or real
        return real - self._zero + self.moved

    async def begin(self, count: int) -> None:
        """Forget the examples before, whose clocks stand elsewhere, and let so many messages wait."""
        async with transaction(self.ledger._engine) as db:
            await db.execute(text("TRUNCATE messages, connections, uses, lanes CASCADE"))
        await self.accept(count)

    async def go_on(self, seconds: float) -> None:
        async with transaction(self.ledger._engine) as db:
            await db.execute(text(GO_ON.replace(":by", f"'{seconds} seconds'")))
        self.moved += seconds

    async def accept(self, count: int) -> None:
        """Let so many wait, to one recipient, two and three in turn."""
        everybody = [f"user{number}@example.com" for number in range(3)]
        each = [
            a_submission(lane=self.lane, to=tuple(everybody[: number % 3 + 1]), expires_in=30 * 86_400.0)
            for number in range(count)
        ]
        await self.ledger.accept(replace(each[0], messages=[one.messages[0] for one in each]))

    async def claim(self, *, more: int, worker: str) -> Claim:
        return await claim(
            self.ledger, lane=self.lane, worker=worker, more=more, lease=LEASE, limits=self.limits
        )

    async def dot(self, claimed: Claimed) -> None:
        """Send the dot, where the fence lets it; the peer counts it now."""
        if await self.ledger.fence(claimed.attempt_id):
            self.peer.taken.append(Taken(at=await self.now(), recipients=len(claimed.recipients)))

    async def close(self, claimed: Claimed, status: Status) -> None:
        await self.ledger.close(a_closing(claimed, status, due_in=0.0 if status is Status.DEFERRED else None))
        await self.give_back(claimed)

    async def give_back(self, claimed: Claimed) -> None:
        if claimed.seat is not None:
            await self.ledger.give_back([claimed.seat])

    async def sweep(self) -> None:
        await self.ledger.rescue(uncertain_after=1.0, errors=rescue_errors())
        await self.ledger.sum_up()


WORKERS = st.sampled_from(["w1", "w2", "w3"])
ENDS = st.sampled_from([Status.SENT, Status.DEFERRED, Status.FAILED])


class Pace(RuleBasedStateMachine):
    """Workers on one lane, and time."""

    limits: LaneLimits
    steps: tuple[float, ...]

    def __init__(self, url: str) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._url = url
        self.open: list[Claimed] = []
        self.said: list[Claimed] = []  # whose dot is out

    @initialize()
    def begin(self) -> None:
        self.world = Clocked(self._url, self.limits)
        self._run(self.world.begin(40))

    def teardown(self) -> None:
        self._run(self.world.ledger.dispose())
        self._runner.close()

    def _run(self, work: Any) -> Any:
        return self._runner.run(work)

    @rule(more=st.integers(1, 6), worker=WORKERS)
    def claim(self, more: int, worker: str) -> None:
        self.open += self._run(self.world.claim(more=more, worker=worker)).claimed

    @precondition(lambda self: self.open)
    @rule(most=st.integers(1, 9))
    def send(self, most: int) -> None:
        """The dots of some that are in hand, where the fence still lets them out."""
        going, self.open = self.open[:most], self.open[most:]
        for claimed in going:
            self._run(self.world.dot(claimed))
        self.said += going

    @precondition(lambda self: self.said)
    @rule(most=st.integers(1, 9), status=ENDS)
    def close(self, most: int, status: Status) -> None:
        ended, self.said = self.said[:most], self.said[most:]
        for claimed in ended:
            self._run(self.world.close(claimed, status))

    @precondition(lambda self: self.open)
    @rule()
    def stop(self) -> None:
        """A planned restart: closed without the dot."""
        for claimed in self.open:
            self._run(self.world.close(claimed, Status.DEFERRED))
        self.open = []

    @precondition(lambda self: self.open or self.said)
    @rule()
    def crash(self) -> None:
        """Whatever is in hand is forgotten, sent or not; the leases run out when their time comes."""
        self.open, self.said = [], []

    @rule(more=st.integers(1, 9), worker=WORKERS, status=ENDS)
    def work(self, more: int, worker: str, status: Status) -> None:
        """All the way at once, as most messages go."""
        for claimed in self._run(self.world.claim(more=more, worker=worker)).claimed:
            self._run(self.world.dot(claimed))
            self._run(self.world.close(claimed, status))

    @rule(data=st.data())
    def wait(self, data: st.DataObject) -> None:
        self._run(self.world.go_on(data.draw(st.sampled_from(self.steps))))

    @rule()
    def sweep(self) -> None:
        self._run(self.world.sweep())

    @invariant()
    def no_window_is_over(self) -> None:
        peer, limits = self.world.peer, self.limits
        if limits.messages_per_minute is not None:
            assert peer.in_window(60.0) <= limits.messages_per_minute
        if limits.messages_per_hour is not None:
            assert peer.in_window(3600.0) <= limits.messages_per_hour
        if limits.recipients_per_day is not None:
            assert peer.in_window(86_400.0, recipients=True) <= limits.recipients_per_day


class MinutePace(Pace):
    limits = LaneLimits(connections=50, messages_per_minute=3, messages_per_hour=8, recipients_per_day=None)
    steps = (0.5, 28.0, 31.0, 57.0, 1500.0)


class DayPace(Pace):
    # Whole minutes: a sum belongs to a minute of the clock, and has to go on belonging to one.
    limits = LaneLimits(
        connections=50, messages_per_minute=None, messages_per_hour=None, recipients_per_day=7
    )
    steps = (60.0, 240.0, 3600.0, 82_800.0, 86_340.0)


def test_no_window_of_minute_and_hour_is_ever_over(database_url: str) -> None:
    """Bursts, crashes behind the dot, late replies, three workers: the peer never counts one too many."""
    usual = examples(15)
    run_state_machine_as_test(
        cast("Any", lambda: MinutePace(database_url)), settings=type(usual)(usual, stateful_step_count=20)
    )


def test_no_window_of_a_day_is_ever_over(database_url: str) -> None:
    """The same of recipients a day, which are counted from the sweep's sums and from what is behind them."""
    usual = examples(12)
    run_state_machine_as_test(
        cast("Any", lambda: DayPace(database_url)), settings=type(usual)(usual, stateful_step_count=20)
    )


#: Where a limiter is easily wrong, which a random walk does not come by in every run: steps of `Pace`, with seconds.
EASILY_OVER: dict[str, tuple[type[Pace], tuple[str | float, ...]]] = {
    "two workers at once": (MinutePace, ("claim", "claim", "send")),
    "three seconds too soon": (MinutePace, ("claim", "send", "close", 57.0, "claim", "send")),
    "two workers at once, by the day": (DayPace, ("claim", "claim", "send")),
    "a dot long behind its claim": (MinutePace, ("claim", 28.0, "send", "close", 32.5, "claim", "send")),
    "a reply long behind its dot": (MinutePace, ("claim", "send", 28.0, "close", 31.0, "claim", "send")),
    "a death behind the dot": (MinutePace, ("claim", "send", "crash", 31.0, "sweep", 28.0, "claim", "send")),
    "a death that nobody has seen": (MinutePace, ("claim", "send", "crash", 57.0, "claim", "send")),
    "a day of sums": (DayPace, ("claim", "send", "close", 240.0, "sweep", 82_800.0, "claim", "send")),
    "a day of sums and what is behind them": (
        DayPace,
        ("claim", "send", "close", 240.0, "sweep", 60.0, "claim", "send", "close", 3600.0, "claim", "send"),
    ),
    "a day with a death": (DayPace, ("claim", "send", "crash", 240.0, "sweep", 82_800.0, "claim", "send")),
}


async def test_windows_that_are_easily_over(database_url: str) -> None:
    """Each of these sends as much as it may, and no window of the peer's holds more."""
    over = {}
    for name, (kind, steps) in EASILY_OVER.items():
        world = Clocked(database_url, kind.limits)
        await world.begin(20)
        in_hand: list[Claimed] = []
        for step in steps:
            match step:
                case "claim":
                    in_hand += (await world.claim(more=9, worker=new_id("wrk"))).claimed
                case "send":
                    for claimed in in_hand:
                        await world.dot(claimed)
                case "close":
                    for claimed in in_hand:
                        await world.close(claimed, Status.SENT)
                    in_hand = []
                case "crash":
                    in_hand = []
                case "sweep":
                    await world.sweep()
                case _:
                    await world.go_on(float(step))
        await world.ledger.dispose()
        per_minute, per_day = kind.limits.messages_per_minute, kind.limits.recipients_per_day
        held, limit = (
            (world.peer.in_window(60.0), per_minute)
            if per_minute is not None
            else (world.peer.in_window(86_400.0, recipients=True), per_day)
        )
        assert held > 0, name
        if held > (limit or 0):
            over[name] = held

    assert over == {}


async def test_a_limit_is_used_while_there_is_a_backlog(database_url: str) -> None:
    """At a peer that answers within a second, at least nine tenths of what it allows are sent."""
    limits = LaneLimits(
        connections=50, messages_per_minute=20, messages_per_hour=None, recipients_per_day=None
    )
    world = Clocked(database_url, limits)
    await world.begin(110)

    # As drains do: claim what may go, send it, and come again when the claim said so.
    while await world.now() < 5 * 60.0:
        found = await world.claim(more=30, worker="w1")
        for claimed in found.claimed:
            await world.dot(claimed)
        await world.go_on(0.9)
        for claimed in found.claimed:
            await world.close(claimed, Status.SENT)
        if not found.claimed:
            await world.go_on(min(found.again_in or 1.0, 5.0))
    sent = len([each for each in world.peer.taken if each.at <= 5 * 60.0])
    most = world.peer.in_window(60.0)
    await world.ledger.dispose()

    assert most <= 20
    assert sent >= 0.9 * 5 * 20


def test_the_peer_counts_what_is_too_many() -> None:
    """The peer itself is right about its windows: twenty-one within a minute are seen, wherever they lie."""
    peer = Peer()
    peer.taken = [Taken(at=100.0 + number * 2.9, recipients=2) for number in range(21)]

    assert (peer.in_window(60.0), peer.in_window(58.0), peer.in_window(60.0, recipients=True)) == (21, 20, 42)
