"""One check of a route at a time, and none too often: for the API, the schedule and the command line.

A check that repeats an administrator's error brings the mailbox closer to being blocked by
Microsoft, so who asks while another check runs is given that one, and the schedule is content with a
recent one (`Asked.fresh`). The right to check is a lock in the ledger: it holds over all processes,
and ends with the one that died.

A check ends the rest of a lane whose trouble it got beyond (a login that is accepted again, a
recipient that is not refused any more): whoever has mended the tenant need not wait for the next probe, and the lane's stopped senders are tried again. What was refused after the content, a throttle or a quota, no check can see.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import structlog

from service.mail.address import Address
from service.routes.preflight.check import LONGEST, Preflights, Seats
from service.routes.preflight.steps import Preflight
from service.routes.route import Route
from service.smtp.phase import Phase

#: Within so long after a check has ended, its result is given instead of a new one.
APART = timedelta(seconds=30)

#: Checks of different routes that one process makes at once: each holds a connection of the ledger.
AT_ONCE = 2

_LOOK_AGAIN = 0.5  # seconds between two looks for the check that somebody else runs

_log = structlog.get_logger(__name__)

Nudge = Callable[[Collection[str]], Awaitable[None]]


class Kept(Protocol):
    """A check as the records keep it."""

    @property
    def id(self) -> str: ...
    @property
    def route(self) -> str: ...
    @property
    def asked_by(self) -> str: ...
    @property
    def started_at(self) -> datetime: ...
    @property
    def ended_at(self) -> datetime: ...
    @property
    def result(self) -> str: ...
    @property
    def steps(self) -> Sequence[Mapping[str, Any]]: ...


class Rest(Protocol):
    """Why a lane rests."""

    @property
    def error(self) -> Mapping[str, Any] | None: ...


class Records(Seats, Protocol):
    """Where checks are kept. It is the ledger, which this room must not know."""

    def checking(self, route: str) -> AbstractAsyncContextManager[bool]: ...
    async def write_check(
        self,
        *,
        route: str,
        asked_by: str,
        started_at: datetime,
        ended_at: datetime,
        result: str,
        steps: Sequence[Mapping[str, Any]],
    ) -> Kept: ...
    async def latest_check(self, route: str) -> Kept | None: ...
    async def resting(self) -> Mapping[str, Rest]: ...
    async def lift_lane(self, lane: str) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Who wants a check, and what it should name."""

    by: str  # 'schedule', 'cli', or an application
    fresh: timedelta = APART  # a check that ended so recently will do; zero: none will
    to: Address | None = None  # RCPT instead of the usual recipient
    sender: Address | None = None  # MAIL instead of the usual sender


@dataclass(frozen=True, slots=True, kw_only=True)
class Conducted:
    """A check, and whether it was made for the one who asked."""

    kept: Kept
    shared: bool  # somebody else's: it ran, or had just ended
    preflight: Preflight | None = None  # None where it is shared


class Conductor:
    """Makes checks, keeps them, and lifts what they found to be well."""

    def __init__(self, preflights: Preflights, records: Records, *, nudge: Nudge | None = None) -> None:
        """Take who checks, where it is kept, and how a lane is woken that may go on."""
        self._preflights = preflights
        self._records = records
        self._nudge = nudge
        self._places = asyncio.Semaphore(AT_ONCE)

    async def check(self, route: Route, asked: Asked) -> Conducted | None:
        """Check a route, or give the check that runs or has just ended.

        None where another process has the right to check and shows no result for as long as a
        check may take. Raises what the records raise.
        """
        since = datetime.now(UTC)
        recent = await self._recent(route, ended_after=since - asked.fresh)
        if recent is not None:
            return Conducted(kept=recent, shared=True)
        deadline = asyncio.get_running_loop().time() + LONGEST
        while asyncio.get_running_loop().time() < deadline:
            if not self._places.locked():
                async with self._places, self._records.checking(route.name) as ours:
                    if ours:
                        return await self._in_turn(route, asked, since=since)
            await asyncio.sleep(_LOOK_AGAIN)
            recent = await self._recent(route, ended_after=since)
            if recent is not None:
                return Conducted(kept=recent, shared=True)
        return None

    async def _in_turn(self, route: Route, asked: Asked, *, since: datetime) -> Conducted:
        # Somebody else's may have ended between our look and our turn.
        recent = await self._recent(route, ended_after=since - asked.fresh)
        return Conducted(kept=recent, shared=True) if recent else await self._made(route, asked)

    async def _recent(self, route: Route, *, ended_after: datetime) -> Kept | None:
        latest = await self._records.latest_check(route.name)
        return latest if latest is not None and latest.ended_at > ended_after else None

    async def _made(self, route: Route, asked: Asked) -> Conducted:
        preflight = await self._preflights.check(route, to=asked.to, sender=asked.sender, seats=self._records)
        kept = await self._records.write_check(
            route=route.name,
            asked_by=asked.by,
            started_at=preflight.started_at,
            ended_at=preflight.ended_at,
            result=preflight.result.value,
            steps=[step.as_json() for step in preflight.steps],
        )
        _log.info("route.checked", route=route.name, result=preflight.result.value, asked_by=asked.by)
        await self._lift(preflight)
        return Conducted(kept=kept, shared=False, preflight=preflight)

    async def _lift(self, preflight: Preflight) -> None:
        if not preflight.well:
            return
        resting = await self._records.resting()
        lifted = [
            lane
            for lane, reached in preflight.well.items()
            if (lane not in resting or _phase_of(resting[lane]) <= reached)
            and await self._records.lift_lane(lane)
        ]
        if lifted:
            _log.info("lanes.lifted", lanes=lifted)
        if lifted and self._nudge is not None:
            await self._nudge(lifted)


def _phase_of(rest: Rest) -> Phase:
    """Say how far the trouble came; without a phase it came before the connection, at the token."""
    word = (rest.error or {}).get("phase")
    return Phase.named(str(word)) if word else Phase.CONNECT
