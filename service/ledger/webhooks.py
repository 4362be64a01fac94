"""Webhooks: where an application wants to be told.

A webhook belongs to one application and has one to five secrets: the newest, and those before it that still
sign until the overlap of a rotation is over. What is stored of a secret is whatever `Seal` made of it.

It is disabled by hand (`manual`), by a receiver that answers 410 (`gone`), or because nothing got through for
days (`failing`). Enabled again it starts anew, at the present. One that was deleted is hidden at once, without
its secrets; its deliveries go piece by piece. What it was told: `webhook_deliveries`.
"""

import base64
import secrets as randomness
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.ledger import audit, feed
from service.ledger.engine import transaction
from service.ledger.states import Status

#: The follower of the feed that makes deliveries out of events.
FOLLOWER = "webhooks"

TEST = "webhook.test"

#: What a webhook can ask for; nothing asks for everything.
TYPES: tuple[str, ...] = (*(f"recipient.{status}" for status in Status), TEST)

#: Webhooks that one application may have.
MOST = 20

LONGEST_OVERLAP = timedelta(days=7)

#: Secrets that sign at the same time; a rotation beyond drops the oldest.
_SECRETS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """What signs, as it is stored."""

    stored: str = field(repr=False)
    created_at: datetime
    expires_at: datetime | None  # None: until it is rotated


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """Where an application wants to be told."""

    id: str
    application: str
    url: str = field(repr=False)  # may have a token in it
    description: str
    events: Sequence[str]  # types; empty: all
    enabled: bool
    disabled_reason: str | None  # manual, gone, failing
    disabled_at: datetime | None
    failing_since: datetime | None  # the first failure after the last success
    last_error: str | None
    secrets: Sequence[Secret]
    created_at: datetime
    updated_at: datetime


class TooMany(Exception):
    """The application has as many webhooks as it may have."""


def new_secret() -> str:
    """Make a secret as Standard Webhooks writes them."""
    return f"whsec_{base64.b64encode(randomness.token_bytes(32)).decode()}"


_COLUMNS = """
    id, application, url, description, events, enabled, disabled_reason, disabled_at, failing_since, last_error,
    secrets, created_at, updated_at
"""

_FRESH = """
    jsonb_build_object('secret', CAST(:secret AS text), 'created_at', clock_timestamp(), 'expires_at', NULL)
"""

_COUNT = text("SELECT count(*) FROM webhooks WHERE application = :application AND deleted_at IS NULL")

_CREATE = text(f"""
    INSERT INTO webhooks (id, application, url, description, events, secrets)
    VALUES (:id, :application, :url, :description, :events, jsonb_build_array({_FRESH}))
    RETURNING {_COLUMNS}
""")  # noqa: S608  # constants of this module

_MINE = "deleted_at IS NULL AND (CAST(:application AS text) IS NULL OR application = :application)"

_ONE = f"SELECT {_COLUMNS} FROM webhooks WHERE id = :id AND {_MINE}"  # noqa: S608  # constants of this module

_LIST = text(f"""
    SELECT {_COLUMNS} FROM webhooks
     WHERE {_MINE} AND (CAST(:after AS text) IS NULL OR id < :after)
     ORDER BY id DESC LIMIT :most
""")  # noqa: S608  # constants of this module

_LIST_BEFORE = text(f"""
    SELECT {_COLUMNS} FROM webhooks WHERE {_MINE} AND id > :before ORDER BY id LIMIT :most
""")  # noqa: S608  # constants of this module

_CHANGE = text(f"""
    UPDATE webhooks
       SET url = :url, description = :description, events = :events, enabled = :enabled,
           disabled_reason = CASE WHEN NOT :enabled THEN coalesce(disabled_reason, 'manual') END,
           disabled_at = CASE WHEN NOT :enabled THEN coalesce(disabled_at, clock_timestamp()) END,
           failing_since = CASE WHEN NOT :anew THEN failing_since END,
           last_error = CASE WHEN NOT :anew THEN last_error END,
           updated_at = clock_timestamp()
     WHERE id = :id RETURNING {_COLUMNS}
""")  # noqa: S608  # constants of this module

_OTHERS = text("""
    SELECT 1 FROM webhooks WHERE application = :application AND enabled AND id <> :id LIMIT 1
""")

_ROTATE = text(f"""
    UPDATE webhooks
       SET updated_at = clock_timestamp(), secrets = jsonb_build_array({_FRESH}) || coalesce((
           SELECT jsonb_agg(old.value || jsonb_build_object('expires_at', least(
                      coalesce((old.value ->> 'expires_at')::timestamptz, 'infinity'),
                      clock_timestamp() + CAST(:overlap AS interval))) ORDER BY old.number)
             FROM jsonb_array_elements(secrets) WITH ORDINALITY AS old(value, number)
            WHERE old.number < {_SECRETS}
              AND coalesce((old.value ->> 'expires_at')::timestamptz, 'infinity') > clock_timestamp()), '[]')
     WHERE id = :id RETURNING {_COLUMNS}
""")  # noqa: S608  # constants of this module

_REMOVE = text("""
    UPDATE webhooks SET deleted_at = clock_timestamp(), enabled = false, secrets = '[]', url = ''
     WHERE id = :id
""")


def _webhook(row: RowMapping) -> Webhook:
    return Webhook(**{**row, "secrets": secrets_of(row["secrets"])})


def secrets_of(rows: Sequence[Mapping[str, Any]]) -> tuple[Secret, ...]:
    """Read the column `secrets`, the newest first."""
    return tuple(
        Secret(
            stored=row["secret"],
            created_at=datetime.fromisoformat(row["created_at"]),
            expires_at=datetime.fromisoformat(row["expires_at"]) if row["expires_at"] else None,
        )
        for row in rows
    )


async def create(
    db: AsyncConnection,
    webhook_id: str,
    *,
    application: str,
    url: str,
    description: str,
    events: Sequence[str],
    stored_secret: str,
) -> Webhook:
    """Make a webhook that is told from now on; raises TooMany."""
    if (await db.execute(_COUNT, {"application": application})).scalar_one() >= MOST:
        raise TooMany
    given = {
        "id": webhook_id,
        "application": application,
        "url": url,
        "description": description,
        "events": list(events),
        "secret": stored_secret,
    }
    made = _webhook((await db.execute(_CREATE, given)).mappings().one())
    await _follow(db, made)
    return made


async def find(
    db: AsyncConnection, webhook_id: str, *, application: str | None, locked: bool = False
) -> Webhook | None:
    """Return a webhook; `locked` keeps others from changing it until the transaction ends."""
    query = text(f"{_ONE} FOR NO KEY UPDATE" if locked else _ONE)
    row = (await db.execute(query, {"id": webhook_id, "application": application})).mappings().one_or_none()
    return None if row is None else _webhook(row)


async def listed(
    db: AsyncConnection, *, application: str | None, after: str | None, before: str | None, most: int
) -> list[Webhook]:
    """List webhooks, the newest first; with `before` those that are newer than it, the oldest of them first."""
    given = {"application": application, "after": after, "before": before, "most": most}
    query = _LIST if before is None else _LIST_BEFORE
    return [_webhook(row) for row in (await db.execute(query, given)).mappings()]


async def change(db: AsyncConnection, webhook: Webhook, changes: Mapping[str, Any]) -> Webhook:
    """Change url, description, events or enabled; one that is enabled again starts anew, at the present.

    `webhook` was found with `locked`.
    """
    wanted = {name: changes.get(name, getattr(webhook, name)) for name in ("url", "description", "enabled")}
    anew = wanted["enabled"] and (not webhook.enabled or wanted["url"] != webhook.url)
    events = list(changes.get("events", webhook.events))
    given = {**wanted, "events": events, "id": webhook.id, "anew": anew}
    changed = _webhook((await db.execute(_CHANGE, given)).mappings().one())
    if changed.enabled and not webhook.enabled:
        await _follow(db, changed)
    return changed


async def _follow(db: AsyncConnection, webhook: Webhook) -> None:
    """Follow the feed for a webhook from now on: what happened while none was enabled is nobody's."""
    others = await db.execute(_OTHERS, {"application": webhook.application, "id": webhook.id})
    if others.first() is None:
        await feed.stop(db, FOLLOWER, webhook.application)
    await feed.start(db, FOLLOWER, webhook.application)


async def rotate(db: AsyncConnection, webhook_id: str, *, stored_secret: str, overlap: timedelta) -> Webhook:
    """Let a new secret sign, and those before it only until the overlap is over."""
    given = {"id": webhook_id, "secret": stored_secret, "overlap": overlap}
    return _webhook((await db.execute(_ROTATE, given)).mappings().one())


async def remove(db: AsyncConnection, webhook_id: str) -> None:
    """Delete a webhook: nothing is sent any more, and its secrets are gone."""
    await db.execute(_REMOVE, {"id": webhook_id})


class Webhooks:
    """Webhooks as the door holds them: each method is one short transaction, acts with their audit."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def create(
        self,
        webhook_id: str,
        *,
        application: str,
        url: str,
        description: str,
        events: Sequence[str],
        stored_secret: str,
        actor: audit.Actor,
    ) -> Webhook:
        """Make a webhook; raises TooMany."""
        async with transaction(self._engine) as db:
            made = await create(
                db,
                webhook_id,
                application=application,
                url=url,
                description=description,
                events=events,
                stored_secret=stored_secret,
            )
            await audit.write(db, actor, action="webhook.create", target=made.id)
            return made

    async def find(self, webhook_id: str, *, application: str | None) -> Webhook | None:
        async with transaction(self._engine) as db:
            return await find(db, webhook_id, application=application)

    async def listed(
        self, *, application: str | None, after: str | None, before: str | None, most: int
    ) -> list[Webhook]:
        async with transaction(self._engine) as db:
            return await listed(db, application=application, after=after, before=before, most=most)

    async def change(
        self, webhook_id: str, changes: Mapping[str, Any], *, application: str | None, actor: audit.Actor
    ) -> Webhook | None:
        """Change a webhook; None: there is none."""
        async with transaction(self._engine) as db:
            found = await find(db, webhook_id, application=application, locked=True)
            if found is None:
                return None
            changed = await change(db, found, changes)
            # Which fields, not what is in them: an address may hold a token.
            details = {"changed": sorted(changes), "enabled": changed.enabled}
            await audit.write(db, actor, action="webhook.update", target=webhook_id, details=details)
            return changed

    async def rotate(
        self,
        webhook_id: str,
        *,
        stored_secret: str,
        overlap: timedelta,
        application: str | None,
        actor: audit.Actor,
    ) -> Webhook | None:
        """Let a new secret sign; None: there is no such webhook."""
        async with transaction(self._engine) as db:
            if await find(db, webhook_id, application=application, locked=True) is None:
                return None
            details = {"overlap_seconds": int(overlap.total_seconds())}
            await audit.write(db, actor, action="webhook.rotate", target=webhook_id, details=details)
            return await rotate(db, webhook_id, stored_secret=stored_secret, overlap=overlap)

    async def remove(self, webhook_id: str, *, application: str | None, actor: audit.Actor) -> bool:
        """Delete a webhook; False: there is none."""
        async with transaction(self._engine) as db:
            if await find(db, webhook_id, application=application, locked=True) is None:
                return False
            await audit.write(db, actor, action="webhook.delete", target=webhook_id)
            await remove(db, webhook_id)
            return True
