"""What webhooks are told: one delivery for an event and a webhook.

Its payload is fixed when it is written. It is `pending` until it is `delivered` or `failed`; either can be made
pending again, with the same payload and the same event, so that receivers can tell that they know it. One event
makes one delivery for a webhook, however often it is sent. How pending ones are sent: `telling`.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.ledger import audit, feed
from service.ledger.engine import transaction
from service.ledger.history import EventView
from service.ledger.ids import new_id
from service.ledger.webhooks import TEST, Webhook

#: Makes the object of an event, the same one that the feed shows.
Show = Callable[[EventView], Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One event for one webhook, and every try to tell it."""

    id: str
    webhook_id: str
    event_id: int | None  # None: a test
    type: str
    payload: str
    status: str
    attempts: int  # since it was made, or made pending again
    tries: Sequence[Mapping[str, Any]]  # the last fifty, the oldest first
    due_at: datetime | None
    in_hand: bool  # a worker is at it
    created_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What a span of events came to."""

    count: int
    next: int | None  # the event to go on behind
    more: bool


class Disabled(Exception):
    """The webhook is disabled, so nothing would be sent."""


def payload(event: Mapping[str, Any]) -> str:
    """Write what is signed and sent for an event; its octets never change again."""
    body = {"type": event["type"], "timestamp": event["created_at"], "data": event}
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


_DELIVERY_COLUMNS = """
    id, webhook_id, event_id, type, payload, status, attempts, tries, due_at,
    coalesce(lease_until > clock_timestamp(), false) AS in_hand, created_at, ended_at
"""

_DELIVERIES = text(f"""
    SELECT {_DELIVERY_COLUMNS} FROM webhook_deliveries
     WHERE webhook_id = :webhook AND (CAST(:status AS text) IS NULL OR status = :status)
       AND (CAST(:after AS text) IS NULL OR id < :after)
     ORDER BY id DESC LIMIT :most
""")  # noqa: S608  # constants of this module

_DELIVERIES_BEFORE = text(f"""
    SELECT {_DELIVERY_COLUMNS} FROM webhook_deliveries
     WHERE webhook_id = :webhook AND (CAST(:status AS text) IS NULL OR status = :status) AND id > :before
     ORDER BY id LIMIT :most
""")  # noqa: S608  # constants of this module

_DELIVERY = text(f"""
    SELECT {_DELIVERY_COLUMNS} FROM webhook_deliveries WHERE webhook_id = :webhook AND id = :id
""")  # noqa: S608  # constants of this module

_TEST = text(f"""
    INSERT INTO webhook_deliveries (id, webhook_id, event_id, type, payload, status, due_at)
    VALUES (:id, :webhook, NULL, '{TEST}', :payload, 'pending', clock_timestamp())
    RETURNING {_DELIVERY_COLUMNS}
""")  # noqa: S608  # constants of this module

_PENDING_AGAIN = """
    status = 'pending', due_at = clock_timestamp(), lease_until = NULL, attempts = 0, ended_at = NULL
"""

_REPLAY = text(f"""
    UPDATE webhook_deliveries SET {_PENDING_AGAIN} WHERE webhook_id = :webhook AND id = :id
    RETURNING {_DELIVERY_COLUMNS}
""")  # noqa: S608  # constants of this module

_ADD = """
    INSERT INTO webhook_deliveries (id, webhook_id, event_id, type, payload, status, due_at)
    SELECT id, webhook, event, type, payload, 'pending', clock_timestamp()
      FROM unnest(CAST(:ids AS text[]), CAST(:webhooks AS text[]), CAST(:events AS bigint[]),
                  CAST(:types AS text[]), CAST(:payloads AS text[])) AS new(id, webhook, event, type, payload)
    ON CONFLICT (webhook_id, event_id) WHERE event_id IS NOT NULL
"""

_ADD_NEW = text(f"{_ADD} DO NOTHING")

_ADD_AGAIN = text(f"{_ADD} DO UPDATE SET {_PENDING_AGAIN}")


async def listed(
    db: AsyncConnection,
    webhook_id: str,
    *,
    status: str | None,
    after: str | None,
    before: str | None,
    most: int,
) -> list[Delivery]:
    """List what a webhook was told, the newest first; with `before` the oldest first."""
    given = {"webhook": webhook_id, "status": status, "after": after, "before": before, "most": most}
    query = _DELIVERIES if before is None else _DELIVERIES_BEFORE
    return [Delivery(**row) for row in (await db.execute(query, given)).mappings()]


async def find(db: AsyncConnection, webhook_id: str, delivery_id: str) -> Delivery | None:
    """Return one delivery of a webhook."""
    found = await db.execute(_DELIVERY, {"webhook": webhook_id, "id": delivery_id})
    row = found.mappings().one_or_none()
    return None if row is None else Delivery(**row)


async def test(db: AsyncConnection, webhook: Webhook, *, payload: str, delivery_id: str) -> Delivery:
    """Send an event that did not happen; raises Disabled."""
    if not webhook.enabled:
        raise Disabled
    given = {"id": delivery_id, "webhook": webhook.id, "payload": payload}
    return Delivery(**(await db.execute(_TEST, given)).mappings().one())


async def replay(db: AsyncConnection, webhook: Webhook, delivery_id: str) -> Delivery | None:
    """Send one delivery again, now, with all its tries; None: there is none. Raises Disabled."""
    if not webhook.enabled:
        raise Disabled
    found = await db.execute(_REPLAY, {"webhook": webhook.id, "id": delivery_id})
    row = found.mappings().one_or_none()
    return None if row is None else Delivery(**row)


async def replay_span(
    db: AsyncConnection, webhook: Webhook, *, after: int | datetime | None, limit: int, show: Show
) -> Replayed:
    """Send the events behind an event, since a time, or all (None) again; those that it never got, too.

    Goes through `limit` events of the feed at the most; go on behind `next`. Raises Disabled, UnknownEvent.
    """
    if not webhook.enabled:
        raise Disabled
    if isinstance(after, datetime):
        page = await feed.since(db, webhook.application, after, limit=limit)
    else:
        page = await feed.after(db, webhook.application, after, limit=limit, types=None)
    count = await add(db, {webhook.id: webhook.events}, page.events, show=show, again=True)
    return Replayed(count=count, next=page.next, more=page.more)


async def add(
    db: AsyncConnection,
    wishes: Mapping[str, Collection[str]],
    events: Sequence[EventView],
    *,
    show: Show,
    again: bool,
) -> int:
    """Make deliveries of events for webhooks (`wishes`: the types of each); return how many.

    One that is there already is left alone, or made pending `again`.
    """
    rows: list[tuple[str, str, int, str, str]] = []
    for event in events:
        kind = f"recipient.{event.to_status}"
        wanted = [webhook for webhook, types in wishes.items() if not types or kind in types]
        if wanted:
            body = payload(show(event))
            rows += [(new_id("whd"), webhook, event.id, kind, body) for webhook in wanted]
    if rows:
        columns = [list(column) for column in zip(*rows, strict=True)]
        given = dict(zip(("ids", "webhooks", "events", "types", "payloads"), columns, strict=True))
        await db.execute(_ADD_AGAIN if again else _ADD_NEW, given)
    return len(rows)


class WebhookDeliveries:
    """Deliveries as the door holds them: each method is one short transaction, acts with their audit."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def listed(
        self, webhook_id: str, *, status: str | None, after: str | None, before: str | None, most: int
    ) -> list[Delivery]:
        async with transaction(self._engine) as db:
            return await listed(db, webhook_id, status=status, after=after, before=before, most=most)

    async def find(self, webhook_id: str, delivery_id: str) -> Delivery | None:
        async with transaction(self._engine) as db:
            return await find(db, webhook_id, delivery_id)

    async def test(self, webhook: Webhook, *, payload: str, delivery_id: str, actor: audit.Actor) -> Delivery:
        """Send an event that did not happen; raises Disabled."""
        async with transaction(self._engine) as db:
            await audit.write(
                db, actor, action="webhook.test", target=webhook.id, details={"delivery": delivery_id}
            )
            return await test(db, webhook, payload=payload, delivery_id=delivery_id)

    async def replay(self, webhook: Webhook, delivery_id: str, *, actor: audit.Actor) -> Delivery | None:
        """Send one delivery again; None: there is none. Raises Disabled."""
        async with transaction(self._engine) as db:
            again = await replay(db, webhook, delivery_id)
            if again is not None:
                await audit.write(
                    db, actor, action="webhook.replay", target=webhook.id, details={"delivery": delivery_id}
                )
            return again

    async def replay_span(
        self, webhook: Webhook, *, after: int | datetime | None, limit: int, show: Show, actor: audit.Actor
    ) -> Replayed:
        """Send a span of events again; raises Disabled, UnknownEvent."""
        async with transaction(self._engine) as db:
            replayed = await replay_span(db, webhook, after=after, limit=limit, show=show)
            details = {"after": str(after), "count": replayed.count}
            await audit.write(db, actor, action="webhook.replay", target=webhook.id, details=details)
            return replayed
