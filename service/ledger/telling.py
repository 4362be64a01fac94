"""Telling: from the feed to deliveries of webhooks, and from deliveries to receivers.

    fan_out   one transaction for an application: new events of its feed become deliveries for its webhooks
    claim     what is due is in hand: `due_at` becomes the end of the lease, so that what a dead worker had
              in hand is due again by itself
    close     what came of a call, for the delivery and for the health of its webhook

Told at least once, in no promised order. No claim takes more for one webhook, or for the webhooks of one
application, than the caller allows, and applications take turns: a receiver that stalls holds up its own
deliveries. Times are PostgreSQL's.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.ledger import feed
from service.ledger.engine import statement, transaction
from service.ledger.webhook_deliveries import Show, add
from service.ledger.webhooks import FOLLOWER, Secret, secrets_of

#: How long a delivery is kept after its end.
KEPT = timedelta(days=30)

#: Rows that one round of forgetting removes.
_FORGOTTEN_AT_ONCE = 5000

#: Tries that a delivery remembers.
_TRIES = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Whether there is anything to do."""

    webhooks: bool  # at least one is enabled
    due_in: float | None  # seconds until a delivery is due, 0 or less where one is; None: nothing waits
    behind: Sequence[str]  # applications with new events


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """How much a claim may take."""

    most: int
    for_a_webhook: int  # while it does not fail; one that fails gets one call at a time
    for_an_application: int
    in_hand: Mapping[str, int]  # of this worker, by webhook
    in_hand_of: Mapping[str, int]  # … by application


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """One delivery in hand, with all that its call needs."""

    id: str
    webhook_id: str
    application: str
    event_id: int | None
    url: str = field(repr=False)
    payload: str = field(repr=False)
    secrets: Sequence[Secret]  # that sign now, the newest first
    attempt: int  # 1 at the first try


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What came of one call."""

    ended: Literal["delivered", "failed"] | None  # None: it is tried again
    wait: timedelta  # before the next try, where there is one
    gone: bool  # the receiver wants nothing any more
    status: int | None  # of HTTP
    error: str | None  # None: it was taken
    seconds: float


_LOOK = """
    SELECT EXISTS (SELECT FROM webhooks WHERE enabled) AS webhooks,
           (SELECT CAST(extract(epoch FROM min(next.due_at) - clock_timestamp()) AS float8)
              FROM webhooks w CROSS JOIN LATERAL (
                   SELECT due_at FROM webhook_deliveries d
                    WHERE d.webhook_id = w.id AND d.due_at IS NOT NULL ORDER BY d.due_at LIMIT 1) AS next
             WHERE w.enabled) AS due_in
"""


_WISHES = text("SELECT id, events FROM webhooks WHERE application = :application AND enabled")


async def fan_out(db: AsyncConnection, application: str, *, limit: int, show: Show) -> int:
    """Make deliveries of an application's new events; return how many events were seen.

    Where no webhook is enabled any more the feed is followed no longer: the next one starts at the present.
    """
    events = await feed.follow(db, FOLLOWER, application, limit=limit)
    if not events:
        return 0
    wishes = {row.id: row.events for row in await db.execute(_WISHES, {"application": application})}
    if not wishes:
        await feed.stop(db, FOLLOWER, application)
        return 0
    await add(db, wishes, events, show=show, again=False)
    await feed.advance(db, FOLLOWER, application, seen=events[-1].id)
    return len(events)


_CLAIM = text("""
    WITH held AS (
        SELECT * FROM unnest(CAST(:webhooks AS text[]), CAST(:counts AS int[])) AS held(webhook, count)
    ), held_of AS (
        SELECT * FROM unnest(CAST(:applications AS text[]), CAST(:counts_of AS int[])) AS held(application, count)
    ), ready AS (
        SELECT w.id AS webhook, w.application,
               CASE WHEN w.failing_since IS NULL THEN :for_a_webhook ELSE 1 END - coalesce(held.count, 0) AS free
          FROM webhooks w LEFT JOIN held ON held.webhook = w.id
         WHERE w.enabled
    ), found AS (
        SELECT due.id, ready.application,
               row_number() OVER (PARTITION BY ready.application ORDER BY due.turn, random()) AS turn
          FROM ready CROSS JOIN LATERAL (
               SELECT id, row_number() OVER () AS turn FROM (
                   SELECT id FROM webhook_deliveries d
                    WHERE d.webhook_id = ready.webhook AND d.due_at <= clock_timestamp()
                    ORDER BY d.due_at LIMIT greatest(ready.free, 0)
                      FOR UPDATE SKIP LOCKED) AS first) AS due
    ), taken AS (
        SELECT found.id FROM found LEFT JOIN held_of USING (application)
         WHERE found.turn + coalesce(held_of.count, 0) <= :for_an_application
         ORDER BY found.turn, random() LIMIT :most
    )
    UPDATE webhook_deliveries d
       SET attempts = attempts + 1, lease_until = clock_timestamp() + CAST(:lease AS interval),
           due_at = clock_timestamp() + CAST(:lease AS interval)
      FROM taken, webhooks w
     WHERE d.id = taken.id AND w.id = d.webhook_id
    RETURNING d.id, d.webhook_id, w.application, d.event_id, w.url, d.payload, w.secrets, d.attempts AS attempt,
              clock_timestamp() AS now
""")


async def claim(db: AsyncConnection, room: Room, *, lease: timedelta) -> list[Claimed]:
    """Take what is due; it is in hand until the lease ends."""
    given = {
        "most": room.most,
        "for_a_webhook": room.for_a_webhook,
        "for_an_application": room.for_an_application,
        "webhooks": list(room.in_hand),
        "counts": list(room.in_hand.values()),
        "applications": list(room.in_hand_of),
        "counts_of": list(room.in_hand_of.values()),
        "lease": lease,
    }
    claimed = []
    for row in (await db.execute(_CLAIM, given)).mappings():
        values = dict(row)
        now: datetime = values.pop("now")
        secrets = [
            each
            for each in secrets_of(values.pop("secrets"))
            if each.expires_at is None or each.expires_at > now
        ]
        claimed.append(Claimed(**values, secrets=secrets))
    return claimed


# The count of attempts is the fence: a worker whose lease ran out changes nothing any more.
_CLOSE = text(f"""
    UPDATE webhook_deliveries
       SET status = coalesce(:ended, 'pending'), lease_until = NULL,
           due_at = CASE WHEN CAST(:ended AS text) IS NULL
                         THEN clock_timestamp() + CAST(:wait AS interval) END,
           ended_at = CASE WHEN CAST(:ended AS text) IS NOT NULL THEN clock_timestamp() END,
           tries = CASE WHEN jsonb_array_length(tries) < {_TRIES} THEN tries ELSE tries - 0 END || jsonb_build_array(
               CAST(:told AS jsonb) || jsonb_build_object('at', clock_timestamp()))
     WHERE id = :id AND attempts = :attempt AND lease_until IS NOT NULL
    RETURNING id
""")  # noqa: S608  # constants of this module

_WELL = text("""
    UPDATE webhooks SET failing_since = NULL, last_error = NULL
     WHERE id = :id AND (failing_since IS NOT NULL OR last_error IS NOT NULL)
""")

_ILL = text("""
    UPDATE webhooks
       SET failing_since = coalesce(failing_since, clock_timestamp()), last_error = :error,
           enabled = enabled AND CAST(:reason AS text) IS NULL,
           disabled_reason = coalesce(disabled_reason, :reason),
           disabled_at = CASE WHEN :reason IS NOT NULL THEN coalesce(disabled_at, clock_timestamp()) END
     WHERE id = :id
    RETURNING clock_timestamp() - failing_since AS failing_for, enabled
""")

_FAILING = text("""
    UPDATE webhooks SET enabled = false, disabled_reason = 'failing', disabled_at = clock_timestamp()
     WHERE id = :id AND enabled
""")


async def close(db: AsyncConnection, claimed: Claimed, told: Told, *, disable_after: timedelta) -> str | None:
    """Write what came of a call; return why its webhook was disabled by it, where it was."""
    written: dict[str, Any] = {
        "status": told.status,
        "error": told.error,
        "seconds": round(told.seconds, 3),
    }
    given = {
        "id": claimed.id,
        "attempt": claimed.attempt,
        "ended": told.ended,
        "wait": told.wait,
        "told": json.dumps(written),
    }
    if (await db.execute(_CLOSE, given)).one_or_none() is None:
        return None
    if told.ended == "delivered":
        await db.execute(_WELL, {"id": claimed.webhook_id})
        return None
    reason = "gone" if told.gone else None
    ill = {"id": claimed.webhook_id, "error": told.error, "reason": reason}
    row = (await db.execute(_ILL, ill)).one_or_none()
    if row is not None and row.enabled and row.failing_for >= disable_after:
        await db.execute(_FAILING, {"id": claimed.webhook_id})
        return "failing"
    return reason


_FORGET = text("""
    DELETE FROM webhook_deliveries WHERE id IN (
        SELECT id FROM webhook_deliveries WHERE ended_at < clock_timestamp() - CAST(:kept AS interval)
         ORDER BY ended_at LIMIT :most)
""")

_FORGET_DELETED = text("""
    DELETE FROM webhook_deliveries WHERE id IN (
        SELECT d.id FROM webhooks w JOIN webhook_deliveries d ON d.webhook_id = w.id
         WHERE w.deleted_at IS NOT NULL LIMIT :most)
""")

_FORGET_WEBHOOKS = text("""
    DELETE FROM webhooks w WHERE w.deleted_at < clock_timestamp() - interval '1 minute'
       AND NOT EXISTS (SELECT FROM webhook_deliveries d WHERE d.webhook_id = w.id)
""")


async def forget_old(db: AsyncConnection, *, kept: timedelta = KEPT) -> bool:
    """Remove deliveries that ended long ago, and those of deleted webhooks; return whether there are more."""
    most = {"most": _FORGOTTEN_AT_ONCE}
    old = (await db.execute(_FORGET, {"kept": kept, **most})).rowcount
    deleted = (await db.execute(_FORGET_DELETED, most)).rowcount
    await db.execute(_FORGET_WEBHOOKS)
    return max(old, deleted) >= _FORGOTTEN_AT_ONCE


class Telling:
    """What the dispatcher does in the ledger: each method is one short transaction."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def look(self, *, most: int) -> Look:
        """Say what there is to do; `most` applications that are behind are named at once.

        Every worker asks once a second, whatever happens: where there is no webhook it is one round trip.
        """
        [row] = await statement(self._engine, _LOOK)
        behind: Sequence[str] = ()
        if row["webhooks"]:
            async with transaction(self._engine) as db:
                behind = await feed.behind(db, FOLLOWER, limit=most)
        return Look(webhooks=row["webhooks"], due_in=row["due_in"], behind=behind)

    async def fan_out(self, application: str, *, limit: int, show: Show) -> int:
        """Make deliveries of an application's new events; return how many events were seen."""
        async with transaction(self._engine) as db:
            return await fan_out(db, application, limit=limit, show=show)

    async def claim(self, room: Room, *, lease: timedelta) -> list[Claimed]:
        """Take what is due."""
        async with transaction(self._engine) as db:
            return await claim(db, room, lease=lease)

    async def close(self, claimed: Claimed, told: Told, *, disable_after: timedelta) -> str | None:
        """Write what came of a call; return why its webhook was disabled by it, where it was."""
        async with transaction(self._engine) as db:
            return await close(db, claimed, told, disable_after=disable_after)

    async def forget_old(self) -> bool:
        """Remove what is kept no longer; return whether there is more of it."""
        async with transaction(self._engine) as db:
            return await forget_old(db)
