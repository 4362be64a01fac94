"""The ledger as the other rooms hold it: acts, each one short transaction.

The functions of this room take a connection and never commit; this class owns the engine,
the transactions and the grouping, so that nobody else has to know SQLAlchemy. Every method
raises `LedgerUnavailable` when PostgreSQL cannot work at the moment.
"""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Self

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.ledger import (
    accepting,
    backlog,
    checks,
    claiming,
    closing,
    finding,
    history,
    keys,
    lanes,
    migrate,
    pace,
    replaying,
    reports,
    sweeping,
    taken,
)
from service.ledger.acting import Acting
from service.ledger.audit import Audit
from service.ledger.circumstances import Explaining
from service.ledger.contents import Contents
from service.ledger.engine import open_engine, straight_transaction, transaction
from service.ledger.erasing import Erasing
from service.ledger.feed import Feed
from service.ledger.figures import Figures
from service.ledger.groups import Grouped
from service.ledger.pausing import Pausing
from service.ledger.resealing import Resealing
from service.ledger.retention import Keeping
from service.ledger.sealing import UNSEALED, Seal
from service.ledger.sign_ins import SignIns
from service.ledger.suppressing import Suppressions
from service.ledger.telling import Telling
from service.ledger.templates import Templates
from service.ledger.trends import Trends
from service.ledger.volumes import Volumes
from service.ledger.webhook_deliveries import WebhookDeliveries
from service.ledger.webhooks import Webhooks

#: Octets that one grouped write carries at the most; a larger message goes alone.
_GROUP_OCTETS = 1_000_000

#: Attempts that one grouped fence or close carries at the most.
_GROUP_ATTEMPTS = 200

#: Sessions that are remembered as written.
_SESSIONS = 10_000


class Ledger:
    """Everything that is written and read; one for each process."""

    def __init__(self, engine: AsyncEngine, seal: Seal = UNSEALED) -> None:
        """`seal` closes the contents of messages on their way in, and opens them on their way out."""
        self._engine = engine
        self._seal = seal
        self.keys = keys.Keys(engine)
        self.finding = finding.Finding(engine)
        self._accepts: Grouped[accepting.Submission, accepting.Answer | None] = Grouped(
            self._accept_together, most=_GROUP_OCTETS, weigh=lambda item: item.octets()
        )
        self._counted: Grouped[accepting.Submission, accepting.Answer] = Grouped(
            self._accept_each, most=_GROUP_OCTETS, weigh=lambda item: item.octets()
        )
        self._fences: Grouped[str, bool] = Grouped(self._fence_group, most=_GROUP_ATTEMPTS, weigh=lambda _: 1)
        self._closes: Grouped[closing.Closing, None] = Grouped(
            self._close_group, most=_GROUP_OCTETS, weigh=lambda item: item.weight()
        )
        self._sessions: set[str] = set()
        self.acting = Acting(engine)
        self.contents = Contents(engine, seal)
        self.explaining = Explaining(engine)
        self.feed = Feed(engine)
        self.figures = Figures(engine)
        self.webhooks = Webhooks(engine)
        self.webhook_deliveries = WebhookDeliveries(engine)
        self.telling = Telling(engine)
        self.suppressions = Suppressions(engine)
        self.templates = Templates(engine)
        self.sign_ins = SignIns(engine)
        self.trends = Trends(engine)
        self.volumes = Volumes(engine)
        self.audit = Audit(engine)
        self.pausing = Pausing(engine)
        self.keeping = Keeping(engine)
        self.resealing = Resealing(engine, seal)
        self.erasing = Erasing(engine)

    @classmethod
    def open(cls, url: str, *, name: str, connections: int, seal: Seal = UNSEALED) -> Self:
        """Make a ledger on the database at `url`; nothing is connected yet."""
        return cls(open_engine(url, name=name, size=connections), seal)

    async def dispose(self) -> None:
        """Close every connection."""
        await self._engine.dispose()

    # -- the door ------------------------------------------------------------------------

    async def accept(self, submission: accepting.Submission) -> accepting.Answer:
        """Commit the submission's messages, or say why its idempotency keys or its quota forbid it."""
        if submission.quota:
            if submission.reservations:
                # Alone: it may have to wait for another transaction, and nobody should wait with it.
                return await self._accept_alone(submission)
            return await self._counted.put(submission)
        if submission.octets() > _GROUP_OCTETS:
            (answer,) = await self._accept_together([submission])  # nobody waits behind its octets
        else:
            answer = await self._accepts.put(submission)
        return answer or await self._accept_alone(submission)

    async def _accept_together(self, items: Sequence[accepting.Submission]) -> list[accepting.Answer | None]:
        """Accept all, or none: then each has to be looked at by itself, and nobody waits for the others."""
        try:
            await accepting.accept_together(self._engine, items, seal=self._seal)
        except accepting.NotTogether:
            return [None] * len(items)
        return [accepting.Accepted()] * len(items)

    async def _accept_alone(self, submission: accepting.Submission) -> accepting.Answer:
        (answer,) = await self._accept_each([submission])
        return answer

    async def _accept_each(self, items: Sequence[accepting.Submission]) -> list[accepting.Answer]:
        async with transaction(self._engine) as db:
            return await accepting.accept(db, items, seal=self._seal)

    async def replay(
        self, application: str, wanted: Sequence[accepting.IdempotencyKey]
    ) -> dict[accepting.IdempotencyKey, accepting.Replayed | accepting.KeyReused]:
        """Say how requests under these idempotency keys were answered; free keys are left out."""
        async with transaction(self._engine) as db:
            return await replaying.replay(db, application=application, wanted=wanted)

    async def waiting(self, *, most: int) -> dict[str, int]:
        """Count each application's deliveries that wait, up to `most` in all."""
        async with transaction(self._engine) as db:
            return await backlog.waiting(db, most=most)

    async def find_key(self, token: str) -> keys.Key | None:
        async with transaction(self._engine) as db:
            return await keys.find(db, token)

    async def touch_keys(self, key_ids: Sequence[str]) -> None:
        async with transaction(self._engine) as db:
            await keys.touch(db, key_ids)

    async def create_key(
        self,
        application: str,
        *,
        scopes: Sequence[str],
        senders: Sequence[str],
        test: bool = False,
        restrictions: Mapping[str, Any] | None = None,
        expires_at: datetime | None = None,
    ) -> keys.NewKey:
        async with transaction(self._engine) as db:
            return await keys.create(
                db,
                keys.WantedKey(
                    application=application,
                    scopes=scopes,
                    senders=senders,
                    test=test,
                    restrictions=restrictions or {},
                    expires_at=expires_at,
                ),
            )

    async def list_keys(self) -> list[keys.Key]:
        async with transaction(self._engine) as db:
            return await keys.every(db)

    async def revoke_key(self, key_id: str) -> bool:
        async with transaction(self._engine) as db:
            return await keys.revoke(db, key_id) is not None

    # -- reading -------------------------------------------------------------------------

    async def message(self, message_id: str, *, application: str | None) -> history.MessageView | None:
        async with transaction(self._engine) as db:
            return await history.message(db, message_id, application=application)

    async def messages(
        self, message_ids: Sequence[str], *, application: str | None
    ) -> list[history.MessageView]:
        """Return several messages, in the order of their ids."""
        async with transaction(self._engine) as db:
            return await history.messages(db, message_ids, application=application)

    async def attempts(self, message_id: str) -> list[history.AttemptView]:
        async with transaction(self._engine) as db:
            return await history.attempts(db, message_id)

    async def attempt(self, attempt_id: str, *, application: str | None) -> history.AttemptView | None:
        async with transaction(self._engine) as db:
            return await history.attempt(db, attempt_id, application=application)

    async def transcript(self, attempt_id: str, *, application: str | None) -> history.TranscriptView | None:
        async with transaction(self._engine) as db:
            return await history.transcript(db, attempt_id, application=application)

    async def events(self, message_id: str) -> list[history.EventView]:
        async with transaction(self._engine) as db:
            return await history.events(db, message_id)

    async def lane_state(self, lane: str, limits: pace.LaneLimits) -> lanes.LaneState:
        """Read a lane: its budgets, backlog and pauses."""
        async with transaction(self._engine) as db:
            return await lanes.state(db, lane, limits)

    async def resting(self) -> dict[str, lanes.Resting]:
        """Return the lanes that rest now."""
        async with transaction(self._engine) as db:
            return await lanes.resting(db)

    async def places(self, message_id: str) -> list[lanes.Place]:
        """Say where a message's waiting deliveries stand in their lanes."""
        async with transaction(self._engine) as db:
            return await lanes.places(db, message_id)

    async def password_logins(self, *, since: datetime) -> list[reports.PasswordUse]:
        """List who logged in with a password; volumes count from `since`."""
        async with transaction(self._engine) as db:
            return await reports.password_logins(db, since=since)

    async def notices(self, *, route: str | None = None) -> list[reports.Notice]:
        """List what was announced to expire."""
        async with transaction(self._engine) as db:
            return await reports.notices(db, route=route)

    # -- dispatch ------------------------------------------------------------------------

    async def claim(self, wish: claiming.Wish, limits: pace.LaneLimits) -> claiming.Claim:
        """Take what is due in a lane; what is taken is in hand and leased."""
        async with transaction(self._engine) as db:
            return await claiming.claim(db, wish, limits, seal=self._seal)

    async def octets(self, message_id: str) -> bytes:
        async with transaction(self._engine) as db:
            return await claiming.octets(db, message_id, seal=self._seal)

    async def fence(self, attempt_id: str) -> bool:
        """Say whether the dot may leave: the lease is ours, and the ledger knows of the dot."""
        return await self._fences.put(attempt_id)

    async def _fence_group(self, items: Sequence[str]) -> list[bool]:
        ours = await closing.fence(self._engine, items)
        return [item in ours for item in items]

    async def close(self, result: closing.Closing) -> None:
        """Write what came of an attempt."""
        await self._closes.put(result)

    async def _close_group(self, items: Sequence[closing.Closing]) -> list[None]:
        plain = [item for item in items if taken.is_plain(item)]
        others = [item for item in items if not taken.is_plain(item)]
        if plain:
            async with straight_transaction(self._engine) as fetch:
                left = await taken.close(fetch, plain, known=self._sessions)
            self._remember_sessions(plain)
            others += [item for item in plain if item.attempt_id in left.late]
            if left.resting:
                async with transaction(self._engine) as db:
                    await closing.teach(db, [item for item in plain if item.attempt_id not in left.late])
        if others:
            async with transaction(self._engine) as db:
                await closing.close(db, others)
        return [None] * len(items)

    def _remember_sessions(self, closings: Sequence[closing.Closing]) -> None:
        """Remember which sessions the ledger has: the facts of each are written once."""
        if len(self._sessions) > _SESSIONS:
            self._sessions.clear()
        self._sessions.update(each.session_id for each in closings if each.session_id and each.session_facts)

    async def lift_lane(self, lane: str) -> bool:
        """End the rest of a lane, because it was seen to work; return whether it rested."""
        async with transaction(self._engine) as db:
            return await closing.lift_lane(db, lane)

    async def acquit(self, attempt_id: str) -> bool:
        """Note that a suspect is no longer carried alone: what ends the worker from now on is not laid at its door."""
        async with transaction(self._engine) as db:
            return await sweeping.acquit(db, attempt_id)

    async def renew(self, attempts: Sequence[str], *, seats: Sequence[str], lease: float) -> sweeping.Kept:
        async with transaction(self._engine) as db:
            return await sweeping.renew(db, attempts, seats=seats, lease=lease)

    async def give_back(self, seats: Sequence[str]) -> None:
        async with transaction(self._engine) as db:
            await sweeping.give_back(db, seats)

    async def rescue(
        self, *, uncertain_after: float, errors: sweeping.RescueErrors
    ) -> list[sweeping.Rescued]:
        async with transaction(self._engine) as db:
            return await sweeping.rescue(db, uncertain_after=uncertain_after, errors=errors)

    async def expire(self, *, errors: sweeping.RescueErrors) -> int:
        async with transaction(self._engine) as db:
            return await sweeping.expire(db, errors=errors)

    async def lanes_with_due(self, lanes: Sequence[str]) -> list[str]:
        async with transaction(self._engine) as db:
            return await sweeping.lanes_with_due(db, lanes)

    async def sum_up(self) -> None:
        """Sum up the minutes that are over, for the windows of a day."""
        async with transaction(self._engine) as db:
            await pace.sum_up(db)

    async def forget_old(self) -> None:
        async with transaction(self._engine) as db:
            await sweeping.forget_old(db)

    # -- checks --------------------------------------------------------------------------

    @asynccontextmanager
    async def checking(self, route: str) -> AsyncIterator[bool]:
        """Take the right to check a route for as long as this lasts; False: somebody else has it."""
        async with transaction(self._engine) as db:
            yield await checks.try_lock(db, route)

    async def write_check(
        self,
        *,
        route: str,
        asked_by: str,
        started_at: datetime,
        ended_at: datetime,
        result: str,
        steps: Sequence[Mapping[str, Any]],
    ) -> checks.Check:
        """Keep a check of a route."""
        check = checks.NewCheck(
            route=route,
            asked_by=asked_by,
            started_at=started_at,
            ended_at=ended_at,
            result=result,
            steps=steps,
        )
        async with transaction(self._engine) as db:
            return await checks.write(db, check)

    async def latest_check(self, route: str) -> checks.Check | None:
        async with transaction(self._engine) as db:
            return await checks.latest(db, route)

    async def checks_of(self, route: str, *, most: int = checks.KEPT) -> list[checks.Check]:
        """List the checks of a route that are kept, the newest first."""
        async with transaction(self._engine) as db:
            return await checks.history(db, route, most=most)

    async def take_seat(self, lane: str, *, route: str, of: int, lease: float) -> str | None:
        """Take one of the lane's `of` seats for a check; None where mail is using them all."""
        async with transaction(self._engine) as db:
            return await checks.take_seat(db, lane, route=route, of=of, lease=lease)

    async def announced(self, subjects: Collection[str]) -> set[tuple[str, datetime, int]]:
        """Say which announcements about these subjects were made: subject, its end, days."""
        async with transaction(self._engine) as db:
            return await checks.announced(db, subjects)

    async def announce(self, notice: checks.NewNotice) -> bool:
        """Write an announcement down; False where another worker made it already."""
        async with transaction(self._engine) as db:
            return await checks.announce(db, notice)

    # -- health --------------------------------------------------------------------------

    async def revision(self) -> str | None:
        """Return the revision at which the database stands."""
        async with transaction(self._engine) as db:
            return await migrate.revision(db)

    async def writable(self) -> bool:
        """Say whether the ledger can write: not read-only, not in recovery."""
        async with transaction(self._engine) as db:
            state = await db.execute(
                text("SELECT pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on'")
            )
            return not state.scalar_one()
