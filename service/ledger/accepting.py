"""Accept messages: the transaction behind every 202.

One transaction writes, for each submission, the answer under its idempotency key (where it
has one), the message, its octets, its deliveries and its recipients. It is committed before
the caller hears anything, so a 202 is for ever; Redis has no part in it.

The idempotency key is reserved by its primary key and never by looking first. When another
transaction holds the same key uncommitted, PostgreSQL lets us wait for it; after a short
while we answer `Busy` instead, and the caller is told to come back.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

RecipientType = Literal["to", "cc", "bcc"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRecipient:
    position: int  # its place in the message's list, from 0
    type: RecipientType
    email: str
    name: str | None
    delivery_id: str
    external: bool  # it uses the tenant's budget of external recipients


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDelivery:
    """Recipients that travel in one transaction on one lane."""

    id: str
    route: str
    lane: str
    external: bool  # one of its recipients uses the tenant's budget


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMessage:
    """A message as the door hands it over: composed, checked, planned."""

    id: str
    application: str
    key_id: str
    test: bool
    from_email: str
    from_name: str | None
    reply_to: Sequence[Mapping[str, str | None]]
    reverse_path: str
    sender: str  # the reverse-path in its comparison form
    subject: str
    message_id: str
    octets: bytes
    sha256: str
    smtputf8: bool
    eightbit: bool
    route_requested: str
    plan: Mapping[str, Any]
    stream: str
    priority: int
    on_uncertain: Literal["resend", "hold"]
    tags: Sequence[str]
    metadata: Mapping[str, Any]
    created_at: datetime
    expires_at: datetime
    deliveries: Sequence[NewDelivery]
    recipients: Sequence[NewRecipient]


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotencyKey:
    """What makes a repeated request one request: see the IETF draft on Idempotency-Key."""

    path: str
    key: str
    sha256: str  # of the request's body, hex


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    message: NewMessage
    idempotency: IdempotencyKey | None
    answer: str  # the body of the 202, given again to whoever repeats the request


@dataclass(frozen=True, slots=True)
class Accepted:
    """Committed: the message is in the ledger for ever."""


@dataclass(frozen=True, slots=True)
class Replayed:
    answer: str  # the first answer under this key


@dataclass(frozen=True, slots=True)
class KeyReused:
    """The same key came with another body."""


@dataclass(frozen=True, slots=True)
class Busy:
    """The first request under this key is still running."""


Answer = Accepted | Replayed | KeyReused | Busy

_RESERVE = text("""
    INSERT INTO idempotency (application, path, key, sha256, answer)
    VALUES (:application, :path, :key, :sha256, :answer)
    ON CONFLICT (application, path, key) DO UPDATE
       SET sha256 = excluded.sha256, answer = excluded.answer, created_at = clock_timestamp()
     WHERE idempotency.created_at < clock_timestamp() - interval '72 hours'
    RETURNING 1
""")

_FIRST_ANSWER = text("""
    SELECT sha256, answer FROM idempotency
     WHERE application = :application AND path = :path AND key = :key
""")

_MESSAGES = text("""
    INSERT INTO messages (id, application, key_id, test, from_email, from_name, reply_to, reverse_path, subject,
        message_id, size, sha256, smtputf8, eightbit, route_requested, plan, stream, priority, on_uncertain,
        tags, metadata, created_at, expires_at)
    SELECT id, application, key_id, test, from_email, from_name, reply_to, reverse_path, subject,
        message_id, size, sha256, smtputf8, eightbit, route_requested, plan, stream, priority, on_uncertain,
        ARRAY(SELECT jsonb_array_elements_text(tags)), metadata, created_at, expires_at
      FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS row(
        id text, application text, key_id text, test boolean, from_email text, from_name text, reply_to jsonb,
        reverse_path text, subject text, message_id text, size integer, sha256 text, smtputf8 boolean,
        eightbit boolean, route_requested text, plan jsonb, stream text, priority smallint, on_uncertain text,
        tags jsonb, metadata jsonb, created_at timestamptz, expires_at timestamptz)
""")

_CONTENTS = text("""
    INSERT INTO contents (message_id, octets)
    SELECT * FROM unnest(CAST(:ids AS text[]), CAST(:octets AS bytea[]))
""")

# now() is the transaction's: a delivery and its recipients are due at the same instant, so no claim
# can find the one due and the others not.
_DELIVERIES = text("""
    INSERT INTO deliveries (id, message_id, application, route, lane, sender, priority, external, size, due_at,
        expires_at)
    SELECT id, message_id, application, route, lane, sender, priority, external, size, now(), expires_at
      FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS row(
        id text, message_id text, application text, route text, lane text, sender text, priority smallint,
        external boolean, size integer, expires_at timestamptz)
""")

_RECIPIENTS = text("""
    INSERT INTO recipients (message_id, position, type, email, name, external, status, delivery_id, due_at)
    SELECT message_id, position, type, email, name, external, 'queued', delivery_id, now()
      FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS row(
        message_id text, position smallint, type text, email text, name text, external boolean, delivery_id text)
     ORDER BY message_id, position
""")


async def reserve(db: AsyncConnection, submission: Submission) -> Answer | None:
    """Take the submission's idempotency key; None means that it is ours now (or there is none).

    Waits at most two seconds for another transaction that holds the same key.
    """
    wanted = submission.idempotency
    if wanted is None:
        return None
    where = {"application": submission.message.application, "path": wanted.path, "key": wanted.key}
    try:
        async with db.begin_nested():
            await db.execute(text("SET LOCAL lock_timeout = '1s'"))
            taken = await db.scalar(_RESERVE, {**where, "sha256": wanted.sha256, "answer": submission.answer})
    except DBAPIError as exc:
        if getattr(exc.orig, "sqlstate", None) == "55P03":  # lock_not_available
            return Busy()
        raise
    if taken:
        return None
    first = (await db.execute(_FIRST_ANSWER, where)).one_or_none()
    if first is None:
        return Busy()  # the holder rolled back between our two statements: the next try decides
    return Replayed(first.answer) if first.sha256 == wanted.sha256 else KeyReused()


async def accept(db: AsyncConnection, submissions: Sequence[Submission]) -> list[Answer]:
    """Write the submissions, in order; the caller commits. Answers stand in the same order."""
    answers: list[Answer] = []
    ours: list[NewMessage] = []
    for submission in submissions:
        refused = await reserve(db, submission)
        answers.append(refused or Accepted())
        if refused is None:
            ours.append(submission.message)
    if ours:
        await _write(db, ours)
    return answers


async def _write(db: AsyncConnection, messages: Sequence[NewMessage]) -> None:
    await db.execute(_MESSAGES, {"rows": json.dumps([_message_row(message) for message in messages])})
    await db.execute(
        _CONTENTS,
        {"ids": [message.id for message in messages], "octets": [message.octets for message in messages]},
    )
    await db.execute(
        _DELIVERIES,
        {
            "rows": json.dumps(
                [
                    {
                        "id": delivery.id,
                        "message_id": message.id,
                        "application": message.application,
                        "route": delivery.route,
                        "lane": delivery.lane,
                        "sender": message.sender,
                        "external": delivery.external,
                        "priority": message.priority,
                        "size": len(message.octets),
                        "expires_at": message.expires_at.isoformat(),
                    }
                    for message in messages
                    for delivery in message.deliveries
                ]
            )
        },
    )
    await db.execute(
        _RECIPIENTS,
        {
            "rows": json.dumps(
                [
                    {
                        "message_id": message.id,
                        "position": recipient.position,
                        "type": recipient.type,
                        "email": recipient.email,
                        "name": recipient.name,
                        "external": recipient.external,
                        "delivery_id": recipient.delivery_id,
                    }
                    for message in messages
                    for recipient in message.recipients
                ]
            )
        },
    )


def _message_row(message: NewMessage) -> dict[str, object]:
    return {
        "id": message.id,
        "application": message.application,
        "key_id": message.key_id,
        "test": message.test,
        "from_email": message.from_email,
        "from_name": message.from_name,
        "reply_to": list(message.reply_to),
        "reverse_path": message.reverse_path,
        "subject": message.subject,
        "message_id": message.message_id,
        "size": len(message.octets),
        "sha256": message.sha256,
        "smtputf8": message.smtputf8,
        "eightbit": message.eightbit,
        "route_requested": message.route_requested,
        "plan": message.plan,
        "stream": message.stream,
        "priority": message.priority,
        "on_uncertain": message.on_uncertain,
        "tags": list(message.tags),
        "metadata": message.metadata,
        "created_at": message.created_at.isoformat(),
        "expires_at": message.expires_at.isoformat(),
    }
