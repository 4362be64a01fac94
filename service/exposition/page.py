"""The page for Prometheus: what this process counted, and what the ledger knows.

The ledger is read when somebody asks, and not more often than every `FRESH` seconds (budgets, which are sums over
a day, every `BUDGETS_FRESH`), however often it is asked. Every process gives the ledger's figures, each read by
itself: they are the same wherever they are asked for, so queries take `max()` over processes.

A page is always answered, and soon: where the ledger does not answer within `PATIENCE`, its figures are left out
and `postroom_ledger_up` is 0.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog

from service.ledger import Ledger, LedgerUnavailable
from service.ledger.figures import Budget, LaneFigures, Reading
from service.ledger.pace import LaneLimits
from service.routes.preflight import papers
from service.routes.route import Lane, Route
from service.telemetry import figures
from service.telemetry.families import Gauge, Labels, page

log = structlog.get_logger()

#: Seconds for which a reading of the ledger is good enough.
FRESH, BUDGETS_FRESH = 5.0, 30.0

#: Seconds that Prometheus waits for the ledger.
PATIENCE = 2.5

#: Seconds after which a ledger that could not be read is asked again.
_AGAIN = 1.0

#: How often certificates are looked at: they are files, and read in a thread.
_PAPERS_FRESH = 600.0

_RESULTS = {"ok": 0, "warn": 1, "fail": 2, "skip": -1}

#: The lane that stands for the tenant's external recipients.
TENANT = "tenant"


class Page:
    """Writes the page; one for each process."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        lanes: Sequence[Lane],
        limits: Mapping[str, LaneLimits],
        routes: Sequence[Route],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the configured lanes and routes: figures are about these and no others."""
        self._ledger = ledger
        self._routes_of = {lane.name: lane.route.name for lane in lanes}
        self._limits = {lane.name: limits[lane.name] for lane in lanes}
        self._routes = tuple(route for route in routes if route.enabled)
        self._clock = clock
        self._before: list[Callable[[], None]] = []
        self._readings = [
            _Reading(self._read_moment, figures.OF_THE_MOMENT, every=FRESH, clock=clock),
            _Reading(self._read_budgets, figures.OF_BUDGETS, every=BUDGETS_FRESH, clock=clock),
        ]
        self._papers = _Reading(self._read_papers, (), every=_PAPERS_FRESH, clock=clock)

    def before(self, look: Callable[[], None]) -> None:
        """Let `look` set gauges of this process before each page."""
        self._before.append(look)

    async def write(self, accept: str = "") -> tuple[bytes, str]:
        """Write the page in the form that the header `accept` asks for: its octets, and their content type."""
        for look in self._before:
            look()
        until = self._clock() + PATIENCE
        read = [await each.now(within=until - self._clock()) for each in self._readings]
        figures.LEDGER_UP.set(all(read))
        await self._papers.now(within=PATIENCE)
        return await asyncio.to_thread(page, accept)

    async def _read_moment(self) -> None:
        found = await self._ledger.figures.reading(
            lanes=list(self._routes_of), routes=[route.name for route in self._routes]
        )
        _show_lanes(found, self._routes_of)
        figures.UNSETTLED.set_all(
            {(status,): found.unsettled.get(status, 0) for status in ("uncertain", "held")}
        )
        figures.WEBHOOKS_WAITING.set(found.webhooks_waiting)
        figures.WEBHOOK_LAG.set(found.webhook_lag)
        figures.OLDEST_TRANSACTION.set(found.oldest_transaction)
        figures.CHECKED.set_all({(each.route,): _RESULTS[each.result] for each in found.checks})
        figures.CHECKED_AT.set_all({(each.route,): each.ended_at.timestamp() for each in found.checks})
        figures.LEDGER_READ_AT.set(time.time())

    async def _read_budgets(self) -> None:
        found = await self._ledger.figures.budgets(self._limits)
        figures.BUDGET_LIMIT.set_all({self._window(each): each.limit for each in found})
        figures.BUDGET_LEFT.set_all({self._window(each): each.left for each in found})

    def _window(self, budget: Budget) -> tuple[str, str, str]:
        if not budget.lane:
            return (TENANT, TENANT, budget.window)
        return (self._routes_of[budget.lane], budget.lane, budget.window)

    async def _read_papers(self) -> None:
        figures.CREDENTIAL_ENDS.set_all(await asyncio.to_thread(_endings, self._routes))


class _Reading:
    """Something that is read when it is asked for, but not too often, and once for all who ask meanwhile."""

    def __init__(
        self,
        read: Callable[[], Awaitable[None]],
        gauges: Sequence[Gauge],
        *,
        every: float,
        clock: Callable[[], float],
    ) -> None:
        """`read` sets the gauges; what they say is taken back where it cannot."""
        self._read = read
        self._gauges = gauges
        self._every = every
        self._clock = clock
        self._again_at: float | None = None
        self._good = False
        self._under_way: asyncio.Task[None] | None = None

    async def now(self, *, within: float) -> bool:
        """Read where it is time to, and say whether there is a good reading.

        Who loses patience leaves the reading to those who ask next: a connection into a black hole takes its own
        time to die.
        """
        if self._again_at is not None and self._clock() < self._again_at:
            return self._good
        if self._under_way is None:
            self._under_way = asyncio.create_task(self._run())
        done, _ = await asyncio.wait({self._under_way}, timeout=max(within, 0.05))
        if done and self._good:
            return True
        for gauge in self._gauges:
            gauge.set_all({})
        return False

    async def _run(self) -> None:
        try:
            await self._read()
            self._good, self._again_at = True, self._clock() + self._every
        except LedgerUnavailable:
            self._good, self._again_at = False, self._clock() + _AGAIN
        except Exception:
            log.exception("figures.bug")
            self._good, self._again_at = False, self._clock() + self._every
        finally:
            self._under_way = None


def _show_lanes(found: Reading, routes: Mapping[str, str]) -> None:
    """Set the gauges that have a lane."""
    lanes = {(routes[each.lane], each.lane): each for each in found.lanes}
    figures.QUEUE.set_all({
        (*lane, state): getattr(each, state) for lane, each in lanes.items() for state in ("due", "later")
    })  # fmt: skip
    figures.QUEUE_AGE.set_all({lane: each.oldest_due for lane, each in lanes.items()})
    figures.RUNNING.set_all({lane: each.running for lane, each in lanes.items()})
    figures.SESSIONS.set_all({lane: each.sessions for lane, each in lanes.items()})
    figures.TROUBLES.set_all({lane: each.troubles for lane, each in lanes.items()})
    figures.STOPPED.set_all({lane: each.stopped for lane, each in lanes.items()})
    resting = {lane: each.paused_until for lane, each in lanes.items() if each.paused_until is not None}
    tenant = found.external_paused_until
    figures.PAUSED.set_all({
        **{(*lane, _why(each)): int(lane in resting) for lane, each in lanes.items()},
        (TENANT, TENANT, ""): int(tenant is not None),
    })  # fmt: skip
    until = {**resting, **({} if tenant is None else {(TENANT, TENANT): tenant})}
    figures.PAUSED_UNTIL.set_all({lane: at.timestamp() for lane, at in until.items()})


def _why(lane: LaneFigures) -> str:
    return (lane.diagnosis or "") if lane.paused_until is not None else ""


def _endings(routes: Sequence[Route]) -> dict[Labels, float]:
    """Look at what of these routes ends some day; reads their files."""
    return {
        (*ending.subject.partition(":")[::2], ending.route): ending.ends_at.timestamp()
        for route in routes
        for ending in papers.endings(route)
    }
