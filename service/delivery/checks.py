"""The routes looked after without being asked: checked every so often, and what expires announced.

Every worker comes by each interval, a little out of step with the others, and the first one checks:
the ledger's lock keeps the others off, and a check that is fresh enough is nobody's work. Checks run
one after the other beside the drains and use a session of their own, so no mail waits for them. A
failing check logs one warning with its remedies; what was found is kept.

Secrets and certificates are announced 60, 30, 14, 7 and 1 days before their end and when they have
ended, each once, by whichever worker writes it down first.
"""

import asyncio
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import structlog

from service.ledger import Ledger, LedgerUnavailable
from service.ledger.checks import NewNotice
from service.routes.preflight import papers
from service.routes.preflight.conduct import Asked, Conducted, Conductor
from service.routes.preflight.expiry import Ending, due_notices
from service.routes.preflight.steps import Status
from service.routes.route import Route

log = structlog.get_logger()

#: The first round begins within so many seconds: pods that start together do not come together.
_FIRST_WITHIN = 10.0

#: Seconds after which a round that met no ledger is begun again.
_AGAIN = 30.0

BY = "schedule"


class RouteKeeper:
    """Checks all enabled routes, again and again."""

    def __init__(
        self, routes: Sequence[Route], *, conductor: Conductor, ledger: Ledger, interval: timedelta
    ) -> None:
        """Take the routes to look after, and how often; disabled routes are left alone."""
        self._routes = tuple(route for route in routes if route.enabled)
        self._conductor = conductor
        self._ledger = ledger
        self._interval = interval

    async def run(self) -> None:
        """Come by until cancelled. What goes wrong is logged, and never ends the worker."""
        first = min(_FIRST_WITHIN, self._interval.total_seconds())
        await asyncio.sleep(random.uniform(0, first))  # noqa: S311  # spreads load
        # What a worker before us checked a moment ago needs no second look because we start.
        fresh = self._interval / 10
        while True:
            wait = self._interval.total_seconds()
            try:
                await self.round(fresh=fresh)
            except LedgerUnavailable:
                log.info("checks.no_ledger")
                wait = min(wait, _AGAIN)
            except Exception:
                log.exception("checks.bug")
            else:
                fresh = self._interval * 0.7
            await asyncio.sleep(wait * random.uniform(0.9, 1.1))  # noqa: S311  # spreads load

    async def round(self, *, fresh: timedelta) -> None:
        """Check every route whose last check is older than `fresh`, and announce what expires."""
        endings: list[Ending] = []
        for route in self._routes:
            endings += papers.endings(route)
            conducted = await self._conductor.check(route, Asked(by=BY, fresh=fresh))
            if conducted is None:
                continue
            if not conducted.shared:
                _tell(conducted)
            if conducted.preflight is not None:
                endings += papers.of_peer(route, conducted.preflight.steps)
        await self._announce(endings)

    async def _announce(self, endings: Sequence[Ending]) -> None:
        now = datetime.now(UTC)
        already = await self._ledger.announced({ending.subject for ending in endings})
        for notice in due_notices(endings, now, already):
            ending, detail = notice.ending, notice.detail(now)
            ours = await self._ledger.announce(
                NewNotice(
                    subject=ending.subject,
                    expires_at=ending.ends_at,
                    days=notice.days,
                    route=ending.route,
                    detail=detail,
                )
            )
            if ours:
                log.warning(
                    "expiry.announced",
                    subject=ending.subject,
                    route=ending.route,
                    expires_at=ending.ends_at.isoformat(),
                    days=notice.days,
                    detail=detail,
                    remedy=ending.remedy,
                )


def _tell(conducted: Conducted) -> None:
    """Log a failing check: one warning, with all that is to be mended."""
    failed = [step for step in conducted.kept.steps if step["status"] == Status.FAIL]
    if failed:
        log.warning(
            "route.check_failed",
            route=conducted.kept.route,
            check=conducted.kept.id,
            steps=[step["name"] for step in failed],
            details=[step["detail"] for step in failed],
            remedy=[remedy for step in failed for remedy in step["remedy"]],
        )
