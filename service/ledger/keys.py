"""API keys: made once, shown once, kept as a hash.

A key reads `pr_live_<id>_<secret>` (or `pr_test_…`). The id finds the row, the secret is 256
random bits whose SHA-256 is compared in constant time; so many random bits need no slow
hash, and a dump of the ledger opens no door.
"""

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.ledger.ids import new_id

#: Everything a key may be allowed to do.
SCOPES: tuple[str, ...] = (
    "messages.send",
    "messages.read",
    "content.read",
    "transcripts.read",
    "routes.read",
    "routes.check",
    "templates.read",
    "templates.write",
    "webhooks.read",
    "webhooks.write",
    "suppressions.read",
    "suppressions.write",
    "operate",
    "admin",
)

#: What a new key may do unless told otherwise.
DEFAULT_SCOPES: tuple[str, ...] = tuple(scope for scope in SCOPES if scope not in {"operate", "admin"})

#: What opens the door: a key of the ledger, or an access token of Entra ID.
Kind = Literal["key", "access_token"]

_SHAPE = re.compile(r"pr_(live|test)_([0-9A-HJKMNP-TV-Z]{26})_([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """An application's key, without its secret; or what an access token of Entra ID stands for."""

    id: str  # key_…; of an access token entra:<client id>
    application: str
    test: bool  # its mail goes to the sandbox and never to Microsoft
    scopes: tuple[str, ...]
    senders: tuple[str, ...]  # addresses, or "@domain"; empty: whatever the routes allow
    restrictions: Mapping[str, Any]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    name: str | None = None  # what its owner calls it
    replaces: str | None = None  # the key that it was made for, by rotation
    kind: Kind = "key"

    @property
    def routes(self) -> tuple[str, ...] | None:
        """The routes that its mail may take; None: every one."""
        return self._listed("routes")

    @property
    def recipient_domains(self) -> tuple[str, ...] | None:
        """The domains that it may send to, lower case and in A-labels; None: every one."""
        return self._listed("recipient_domains")

    @property
    def networks(self) -> tuple[str, ...] | None:
        """The networks that it may be used from, as `10.0.0.0/8`; None: every one."""
        return self._listed("networks")

    @property
    def messages_per_minute(self) -> int | None:
        """Its allowance of messages in a minute; None: no limit."""
        return self._number("messages_per_minute")

    @property
    def messages_per_day(self) -> int | None:
        """Its allowance of messages in 24 hours; None: no limit."""
        return self._number("messages_per_day")

    def _listed(self, name: str) -> tuple[str, ...] | None:
        values = self.restrictions.get(name)
        return None if values is None else tuple(values)

    def _number(self, name: str) -> int | None:
        value = self.restrictions.get(name)
        return None if value is None else int(value)

    def usable(self, now: datetime) -> bool:
        """Say whether it opens the door at this moment."""
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > now)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    id: str
    token: str = field(repr=False)  # shown once


_INSERT = text("""
    INSERT INTO keys (id, application, hash, test, scopes, senders, restrictions, expires_at)
    VALUES (:id, :application, :hash, :test, :scopes, :senders, CAST(:restrictions AS jsonb), :expires_at)
""")


async def create(
    db: AsyncConnection,
    application: str,
    *,
    scopes: Sequence[str],
    senders: Sequence[str],
    test: bool,
    restrictions: Mapping[str, Any],
    expires_at: datetime | None,
) -> NewKey:
    """Make a key of `application`; its token is never to be had again."""
    key_id, secret = new_id("key"), secrets.token_urlsafe(32)
    await db.execute(
        _INSERT,
        {
            "id": key_id,
            "application": application,
            "hash": _hash(secret),
            "test": test,
            "scopes": list(scopes),
            "senders": list(senders),
            "restrictions": json.dumps(restrictions),
            "expires_at": expires_at,
        },
    )
    kind = "test" if test else "live"
    return NewKey(id=key_id, token=f"pr_{kind}_{key_id.removeprefix('key_')}_{secret}")


_BY_ID = text("SELECT * FROM keys WHERE id = :id")


async def find(db: AsyncConnection, token: str) -> Key | None:
    """Return the key that this token opens, or None; a revoked or expired one is returned as it is."""
    match = _SHAPE.fullmatch(token)
    if match is None:
        return None
    row = (await db.execute(_BY_ID, {"id": f"key_{match[2]}"})).one_or_none()
    expected = row.hash if row is not None else b"\0" * 32
    same = hmac.compare_digest(bytes(expected), _hash(match[3]))
    if row is None or not same or row.test != (match[1] == "test"):
        return None
    return _key(row)


async def every(db: AsyncConnection) -> list[Key]:
    """List all keys, the oldest first."""
    return [_key(row) for row in await db.execute(text("SELECT * FROM keys ORDER BY id"))]


async def revoke(db: AsyncConnection, key_id: str) -> bool:
    """Close a key for ever; False where there is none of this id."""
    revoked = await db.execute(
        text(
            "UPDATE keys SET revoked_at = coalesce(revoked_at, clock_timestamp()) WHERE id = :id RETURNING id"
        ),
        {"id": key_id},
    )
    return revoked.one_or_none() is not None


async def touch(db: AsyncConnection, key_ids: Sequence[str]) -> None:
    """Note that these keys were used."""
    await db.execute(
        text("UPDATE keys SET last_used_at = clock_timestamp() WHERE id = ANY(:ids)"), {"ids": list(key_ids)}
    )


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _key(row: Any) -> Key:
    return Key(
        id=row.id,
        application=row.application,
        test=row.test,
        scopes=tuple(row.scopes),
        senders=tuple(row.senders),
        restrictions=row.restrictions,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
        name=row.name,
        replaces=row.replaces,
    )
