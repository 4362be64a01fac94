"""Sign-ins of people at the console: who, until when, found by the hash of what their browser keeps.

A browser gets 256 random bits in a cookie, the ledger keeps their SHA-256: a dump of it opens no page. A
sign-in stands for an API key, or for a person of Entra ID with the roles that the directory named. The key is
read anew each time, so that a key that is revoked, or loses a scope, ends or narrows what was signed in with it; a
person's roles are those of the moment of the sign-in, and end with it (`console.session`).

Why rows and no sealed cookie: whoever signs out is out everywhere, at once, and no secret has to be shared by
the processes of the API. Rows that have ended go when the next person signs in.
"""

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.ledger import audit, keys
from service.ledger.engine import transaction
from service.ledger.ids import new_id
from service.ledger.keys import Key

#: The application that persons of the directory belong to, in the audit.
CONSOLE = "console"


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody whom Entra ID has signed in."""

    subject: str  # the object id in the directory, which never changes
    name: str  # as the directory shows it, for people
    scopes: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class SignIn:
    """Somebody who is signed in."""

    id: str
    key: Key  # what they may do
    name: str  # whom the page greets
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSignIn:
    id: str
    token: str = field(repr=False)  # for the browser alone
    expires_at: datetime


_ENDED = text("DELETE FROM sign_ins WHERE expires_at < clock_timestamp()")

_INSERT = text("""
    INSERT INTO sign_ins (id, hash, key_id, person, expires_at)
    VALUES (:id, :hash, :key_id, CAST(:person AS jsonb), clock_timestamp() + CAST(:lasts AS interval))
    RETURNING expires_at
""")

_FIND = text("""
    SELECT id, key_id, person, created_at, expires_at FROM sign_ins
     WHERE hash = :hash AND expires_at > clock_timestamp()
""")


async def begin(db: AsyncConnection, who: str | Person, *, lasts: timedelta, actor: audit.Actor) -> NewSignIn:
    """Sign somebody in: who shows a key, by its id, or a person; it is in the audit."""
    await db.execute(_ENDED)
    sign_in_id, token = new_id("sgn"), secrets.token_urlsafe(32)
    person = None
    details: dict[str, Any] = {"with": "key"}
    if isinstance(who, Person):
        person = {"subject": who.subject, "name": who.name, "scopes": list(who.scopes)}
        details = {"with": "entra", "name": who.name, "scopes": list(who.scopes)}
    inserted = await db.execute(
        _INSERT,
        {
            "id": sign_in_id,
            "hash": _hash(token),
            "key_id": None if isinstance(who, Person) else who,
            "person": None if person is None else json.dumps(person),
            "lasts": lasts,
        },
    )
    await audit.write(db, actor, action="console.sign_in", target=sign_in_id, details=details)
    return NewSignIn(id=sign_in_id, token=token, expires_at=inserted.scalar_one())


async def find(db: AsyncConnection, token: str) -> SignIn | None:
    """Return who is signed in with this token; None where nobody is, or the key no longer opens the door."""
    row = (await db.execute(_FIND, {"hash": _hash(token)})).one_or_none()
    if row is None:
        return None
    if row.person is not None:
        key = _key_of(row.person, row.created_at, row.expires_at)
        return SignIn(id=row.id, key=key, name=str(row.person["name"]), expires_at=row.expires_at)
    found = await keys.get(db, row.key_id)
    now: datetime = (await db.execute(text("SELECT clock_timestamp()"))).scalar_one()
    if found is None or not found.usable(now):
        return None
    name = f"{found.application} · {found.name}" if found.name else found.application
    return SignIn(id=row.id, key=found, name=name, expires_at=row.expires_at)


async def end(db: AsyncConnection, sign_in_id: str, *, actor: audit.Actor) -> None:
    """Sign out."""
    await db.execute(text("DELETE FROM sign_ins WHERE id = :id"), {"id": sign_in_id})
    await audit.write(db, actor, action="console.sign_out", target=sign_in_id)


def person_id(subject: str) -> str:
    """Name a person as the audit does."""
    return f"entra:{subject}"


def _key_of(person: Mapping[str, Any], since: datetime, until: datetime) -> Key:
    return Key(
        kind="access_token",
        id=person_id(str(person["subject"])),
        application=CONSOLE,
        test=False,
        scopes=tuple(person["scopes"]),
        senders=(),
        restrictions={},
        created_at=since,
        expires_at=until,
        revoked_at=None,
        last_used_at=None,
        name=str(person["name"]),
    )


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


class SignIns:
    """Sign-ins as the console holds them, each act a transaction."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def begin(self, who: str | Person, *, lasts: timedelta, actor: audit.Actor) -> NewSignIn:
        """Sign somebody in; see the function of this name."""
        async with transaction(self._engine) as db:
            return await begin(db, who, lasts=lasts, actor=actor)

    async def find(self, token: str) -> SignIn | None:
        """Return who is signed in with this token, or None."""
        async with transaction(self._engine) as db:
            return await find(db, token)

    async def end(self, sign_in_id: str, *, actor: audit.Actor) -> None:
        """Sign out."""
        async with transaction(self._engine) as db:
            await end(db, sign_in_id, actor=actor)
