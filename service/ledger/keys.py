"""API keys: made once, shown once, kept as a hash.

A key reads `pr_live_<id>_<secret>` (or `pr_test_…`). The id finds the row, the secret is 256
random bits whose SHA-256 is compared in constant time; so many random bits need no slow
hash, and a dump of the ledger opens no door.

A key is rotated by making another one with the same rights, which names it in `replaces`; the old
one lives on for an overlap, so that both open the door while the application changes over. A key
that was replaced by one that still lives is not rotated again: there are two of them, never three.

What a right looks like is read in `rights`; here it is stored as it comes.
"""

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.ledger import audit
from service.ledger.engine import transaction
from service.ledger.ids import new_id
from service.ledger.rights import DEFAULT_SCOPES, SCOPES, restrictions_of

__all__ = ["CALLER", "DEFAULT_SCOPES", "SCOPES", "Key", "Keys", "NewKey", "Rotated", "WantedKey", "is_token"]

#: What opens the door: a key of the ledger, or an access token of Entra ID.
Kind = Literal["key", "access_token"]

#: The longest time for which a key that was replaced lives on.
LONGEST_OVERLAP = timedelta(days=30)

#: Where a door of this process that has found out who calls says so to another one, in the scope of ASGI, which
#: nobody outside of the process can write (decision record 0016).
CALLER = "postroom.caller"

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
    last_used_at: datetime | None  # to the minute
    name: str | None = None  # what its owner calls it
    replaces: str | None = None  # the key that it was made for, by rotation
    kind: Kind = "key"

    @property
    def sees_everything(self) -> bool:
        """Whether it works for all applications: an operator's or an administrator's."""
        return not {"operate", "admin"}.isdisjoint(self.scopes)

    @property
    def sees(self) -> str | None:
        """The application whose things it sees; None: everybody's."""
        return None if self.sees_everything else self.application

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
    key: Key


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedKey:
    """A key that is to be made; its rights have been read by `rights`."""

    application: str
    name: str | None = None
    scopes: Sequence[str] = DEFAULT_SCOPES
    senders: Sequence[str] = ()
    restrictions: Mapping[str, Any] = field(default_factory=dict)
    test: bool = False
    expires_at: datetime | None = None
    replaces: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotated:
    """The new key, and the one it replaces, which ends with the overlap."""

    new: NewKey
    old: Key


_INSERT = text("""
    INSERT INTO keys (id, application, name, hash, test, scopes, senders, restrictions, expires_at, replaces)
    VALUES (:id, :application, :name, :hash, :test, :scopes, :senders, CAST(:restrictions AS jsonb),
            :expires_at, :replaces)
    RETURNING *
""")


async def create(db: AsyncConnection, wanted: WantedKey) -> NewKey:
    """Make a key; its token is never to be had again."""
    key_id, secret = new_id("key"), secrets.token_urlsafe(32)
    inserted = await db.execute(
        _INSERT,
        {
            "id": key_id,
            "application": wanted.application,
            "name": wanted.name,
            "hash": _hash(secret),
            "test": wanted.test,
            "scopes": list(wanted.scopes),
            "senders": list(wanted.senders),
            "restrictions": json.dumps(wanted.restrictions),
            "expires_at": wanted.expires_at,
            "replaces": wanted.replaces,
        },
    )
    kind = "test" if wanted.test else "live"
    token = f"pr_{kind}_{key_id.removeprefix('key_')}_{secret}"
    return NewKey(id=key_id, token=token, key=_key(inserted.one()))


_BY_ID = text("SELECT * FROM keys WHERE id = :id")


def is_token(text: str) -> bool:
    """Say whether this has the form of a key; nothing else needs to be looked up."""
    return _SHAPE.fullmatch(text) is not None


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


_PAGE = """
    SELECT * FROM keys
     WHERE (CAST(:application AS text) IS NULL OR application = :application)
       AND id {sign} :cursor COLLATE "C"
     ORDER BY id {order} LIMIT :most
"""
_OLDER = text(_PAGE.format(sign="<", order="DESC"))
_NEWER = text(_PAGE.format(sign=">", order="ASC"))


async def page(
    db: AsyncConnection, *, application: str | None, after: str | None, before: str | None, most: int
) -> list[Key]:
    """List keys, the newest first; with `before` those that are newer than it, the oldest of them first."""
    given = {"application": application, "most": most}
    if before is not None:
        rows = await db.execute(_NEWER, {**given, "cursor": before})
    else:
        rows = await db.execute(_OLDER, {**given, "cursor": after or "key_~"})
    return [_key(row) for row in rows]


async def get(db: AsyncConnection, key_id: str, *, lock: bool = False) -> Key | None:
    """Return a key by its id; with `lock` nobody else changes it until the transaction ends."""
    query = text("SELECT * FROM keys WHERE id = :id FOR UPDATE") if lock else _BY_ID
    row = (await db.execute(query, {"id": key_id})).one_or_none()
    return None if row is None else _key(row)


_CHANGE = text("""
    UPDATE keys SET name = :name, scopes = :scopes, senders = :senders,
                    restrictions = CAST(:restrictions AS jsonb), expires_at = :expires_at
     WHERE id = :id RETURNING *
""")


async def change(db: AsyncConnection, found: Key, changes: Mapping[str, Any]) -> Key:
    """Write the members that `changes` names over those of a key that was locked before."""
    kept = {name: getattr(found, name) for name in ("name", "scopes", "senders", "expires_at")}
    own = {name: value for name, value in changes.items() if name in kept}
    rights = {**found.restrictions, **{name: changes[name] for name in changes if name not in kept}}
    changed = await db.execute(
        _CHANGE,
        {
            "id": found.id,
            **kept,
            **own,
            "scopes": list(own.get("scopes", found.scopes)),
            "senders": list(own.get("senders", found.senders)),
            "restrictions": json.dumps(restrictions_of(rights)),
        },
    )
    return _key(changed.one())


_REVOKE = text("""
    UPDATE keys SET revoked_at = coalesce(revoked_at, clock_timestamp()) WHERE id = :id RETURNING *
""")


async def revoke(db: AsyncConnection, key_id: str) -> Key | None:
    """Close a key for ever; None where there is none of this id."""
    row = (await db.execute(_REVOKE, {"id": key_id})).one_or_none()
    return None if row is None else _key(row)


_REPLACED = text(
    "SELECT 1 FROM keys WHERE application = :application AND replaces = :id AND revoked_at IS NULL"
)

_END = text("""
    UPDATE keys
       SET expires_at = least(coalesce(expires_at, 'infinity'), clock_timestamp() + CAST(:overlap AS interval))
     WHERE id = :id RETURNING *
""")


async def rotate(
    db: AsyncConnection, key_id: str, *, overlap: timedelta
) -> Rotated | Literal["unknown", "closed", "replaced"]:
    """Make a key with the same rights and the same end, and let the old one live for the overlap.

    "closed": it is revoked or has expired. "replaced": another key has taken its place already.
    """
    old = await get(db, key_id, lock=True)
    if old is None:
        return "unknown"
    now: datetime = (await db.execute(text("SELECT clock_timestamp()"))).scalar_one()
    if not old.usable(now):
        return "closed"
    given = {"application": old.application, "id": old.id}
    if (await db.execute(_REPLACED, given)).first() is not None:
        return "replaced"
    new = await create(
        db,
        WantedKey(
            application=old.application,
            name=old.name,
            scopes=old.scopes,
            senders=old.senders,
            restrictions=old.restrictions,
            test=old.test,
            expires_at=old.expires_at,
            replaces=old.id,
        ),
    )
    ended = await db.execute(_END, {"id": old.id, "overlap": overlap})
    return Rotated(new=new, old=_key(ended.one()))


async def touch(db: AsyncConnection, key_ids: Sequence[str]) -> None:
    """Note that these keys were used."""
    await db.execute(
        text("UPDATE keys SET last_used_at = clock_timestamp() WHERE id = ANY(:ids)"), {"ids": list(key_ids)}
    )


class Keys:
    """The keys as the doors hold them: every act on them is one transaction, with its audit."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def create(self, wanted: WantedKey, *, actor: audit.Actor) -> NewKey:
        """Make a key."""
        async with transaction(self._engine) as db:
            made = await create(db, wanted)
            details = {"application": wanted.application, "test": wanted.test, "scopes": list(wanted.scopes)}
            await audit.write(db, actor, action="key.create", target=made.id, details=details)
            return made

    async def get(self, key_id: str) -> Key | None:
        async with transaction(self._engine) as db:
            return await get(db, key_id)

    async def page(
        self, *, application: str | None, after: str | None, before: str | None, most: int
    ) -> list[Key]:
        """List keys, of every application where none is named."""
        async with transaction(self._engine) as db:
            return await page(db, application=application, after=after, before=before, most=most)

    async def change(
        self, key_id: str, changes: Mapping[str, Any], *, actor: audit.Actor
    ) -> Key | Literal["unknown", "closed"]:
        """Change what a key is called and may do; "closed": it is revoked, and stays so."""
        async with transaction(self._engine) as db:
            found = await get(db, key_id, lock=True)
            if found is None:
                return "unknown"
            if found.revoked_at is not None:
                return "closed"
            changed = await change(db, found, changes)
            details = {"changed": sorted(changes), **_as_json(changes)}
            await audit.write(db, actor, action="key.change", target=key_id, details=details)
            return changed

    async def revoke(self, key_id: str, *, actor: audit.Actor) -> Key | None:
        """Close a key for ever; None where there is none of this id."""
        async with transaction(self._engine) as db:
            revoked = await revoke(db, key_id)
            if revoked is not None:
                await audit.write(db, actor, action="key.revoke", target=key_id)
            return revoked

    async def rotate(
        self, key_id: str, *, overlap: timedelta, actor: audit.Actor
    ) -> Rotated | Literal["unknown", "closed", "replaced"]:
        """Make a key in the place of another one; see `rotate`."""
        async with transaction(self._engine) as db:
            rotated = await rotate(db, key_id, overlap=overlap)
            if isinstance(rotated, Rotated):
                details = {"made": rotated.new.id, "overlap_seconds": int(overlap.total_seconds())}
                await audit.write(db, actor, action="key.rotate", target=key_id, details=details)
            return rotated


def _as_json(changes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value.isoformat() if isinstance(value, datetime) else value for name, value in changes.items()
    }


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
