"""Accept messages: the transaction behind every 202.

One transaction writes, for each submission, its answers under their idempotency keys, what it uses of
its key's quota, and its messages with their octets, deliveries, recipients and facets. It is committed
before the caller hears anything, so a 202 is for ever; Redis has no part in it.

A submission is all or nothing: a batch, or a message with its copies for many, has several messages
and may have a key for each. Of several submissions in one transaction each stands for itself.

The idempotency key is reserved by its primary key and never by looking first. When another
transaction holds the same key uncommitted, PostgreSQL lets us wait for it; after a short
while we answer `Busy` instead, and the caller is told to come back.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from service.ledger import facets, quotas
from service.ledger.quotas import Allowance, Use

RecipientType = Literal["to", "cc", "bcc"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRecipient:
    position: int  # its place in the message's list, from 0
    type: RecipientType
    email: str
    key: str  # the address in its comparison form
    name: str | None
    delivery_id: str | None  # None: it is suppressed and never travels
    external: bool  # it uses the tenant's budget of external recipients
    suppressed: Mapping[str, Any] | None = None  # the error that says so


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
    scheduled_at: datetime | None = None  # not before
    from_key: str = ""  # from_email in its comparison form
    idempotency_key: str | None = None
    template: Mapping[str, Any] | None = None  # id and version
    dsn: Mapping[str, Any] | None = None  # RFC 3461: notify, return, envid

    def status_of(self, recipient: NewRecipient) -> str:
        """Say in which state a recipient begins."""
        if recipient.suppressed is not None:
            return "suppressed"
        return "queued" if self.scheduled_at is None else "scheduled"


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotencyKey:
    """What makes a repeated request one request: see the IETF draft on Idempotency-Key."""

    path: str
    key: str
    sha256: str  # of the request's body, hex


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """A key that is taken together with the messages, and what its repetition is answered with."""

    key: IdempotencyKey
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """Messages that are accepted together or not at all. They are one application's, by one API key."""

    messages: Sequence[NewMessage]
    reservations: Sequence[Reservation] = ()
    quota: Sequence[Allowance] = ()

    @property
    def application(self) -> str:
        return self.messages[0].application

    def octets(self) -> int:
        """What it weighs, roughly."""
        return sum(len(message.octets) + 2_000 for message in self.messages)


@dataclass(frozen=True, slots=True)
class Accepted:
    """Committed: the messages are in the ledger for ever."""

    uses: tuple[Use, ...] = ()  # of the key's quota, where it has one


@dataclass(frozen=True, slots=True)
class Replayed:
    answer: str  # the first answer under this key


@dataclass(frozen=True, slots=True)
class KeyReused:
    """The same key came with another body."""


@dataclass(frozen=True, slots=True)
class Busy:
    """The first request under this key is still running."""


@dataclass(frozen=True, slots=True)
class OverQuota:
    """The key has used up what it may send."""

    uses: tuple[Use, ...]  # `left` is what there is, 0 or more


Answer = Accepted | Replayed | KeyReused | Busy | OverQuota

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
        tags, metadata, created_at, expires_at, scheduled_at, from_key, idempotency_key, template, dsn)
    SELECT id, application, key_id, test, from_email, from_name, reply_to, reverse_path, subject,
        message_id, size, sha256, smtputf8, eightbit, route_requested, plan, stream, priority, on_uncertain,
        ARRAY(SELECT jsonb_array_elements_text(tags)), metadata, created_at, expires_at, scheduled_at, from_key,
        idempotency_key, template, dsn
      FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS row(
        id text, application text, key_id text, test boolean, from_email text, from_name text, reply_to jsonb,
        reverse_path text, subject text, message_id text, size integer, sha256 text, smtputf8 boolean,
        eightbit boolean, route_requested text, plan jsonb, stream text, priority smallint, on_uncertain text,
        tags jsonb, metadata jsonb, created_at timestamptz, expires_at timestamptz, scheduled_at timestamptz,
        from_key text, idempotency_key text, template jsonb, dsn jsonb)
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
    SELECT id, message_id, application, route, lane, sender, priority, external, size,
           coalesce(scheduled_at, now()), expires_at
      FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS row(
        id text, message_id text, application text, route text, lane text, sender text, priority smallint,
        external boolean, size integer, expires_at timestamptz, scheduled_at timestamptz)
""")

_RECIPIENTS = text("""
    INSERT INTO recipients (message_id, position, type, email, name, external, status, delivery_id, due_at,
        application, reason, error, finished_at)
    SELECT message_id, position, type, email, name, external, status, delivery_id,
           CASE WHEN delivery_id IS NOT NULL THEN coalesce(scheduled_at, now()) END,
           application, error ->> 'code', error, CASE WHEN delivery_id IS NULL THEN now() END
      FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS row(
        message_id text, position smallint, type text, email text, name text, external boolean, status text,
        delivery_id text, scheduled_at timestamptz, application text, error jsonb)
     ORDER BY message_id, position
""")


class _Refused(Exception):
    """Rolls a submission's savepoint back."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


async def _reserve(db: AsyncConnection, application: str, wanted: Reservation) -> None:
    """Take an idempotency key; raises _Refused where it is not free.

    Waits at most a second for another transaction that holds the same key.
    """
    where = {"application": application, "path": wanted.key.path, "key": wanted.key.key}
    try:
        async with db.begin_nested():
            await db.execute(text("SET LOCAL lock_timeout = '1s'"))
            taken = await db.scalar(_RESERVE, {**where, "sha256": wanted.key.sha256, "answer": wanted.answer})
    except DBAPIError as exc:
        if getattr(exc.orig, "sqlstate", None) == "55P03":  # lock_not_available
            raise _Refused(Busy()) from None
        raise
    if taken:
        return
    first = (await db.execute(_FIRST_ANSWER, where)).one_or_none()
    if first is None:
        raise _Refused(Busy())  # the holder rolled back between our two statements: the next try decides
    raise _Refused(Replayed(first.answer) if first.sha256 == wanted.key.sha256 else KeyReused())


async def accept(db: AsyncConnection, submissions: Sequence[Submission]) -> list[Answer]:
    """Write the submissions, in order; the caller commits. Answers stand in the same order."""
    answers = [await _entitled(db, submission) for submission in submissions]
    ours = [
        message
        for submission, answer in zip(submissions, answers, strict=True)
        if isinstance(answer, Accepted)
        for message in submission.messages
    ]
    if ours:
        await _write(db, ours)
    return answers


async def _entitled(db: AsyncConnection, submission: Submission) -> Answer:
    """Take what the submission needs, its keys and its part of the quota, or nothing."""
    if not submission.reservations and not submission.quota:
        return Accepted()
    try:
        async with db.begin_nested():
            # In the order of the keys: two batches with the same keys must not wait for each other.
            for reservation in sorted(
                submission.reservations, key=lambda each: (each.key.path, each.key.key)
            ):
                await _reserve(db, submission.application, reservation)
            return Accepted(await _within_quota(db, submission))
    except _Refused as refused:
        return refused.answer


async def _within_quota(db: AsyncConnection, submission: Submission) -> tuple[Use, ...]:
    """Count the submission's messages; raises _Refused where the key has used up what it may send."""
    count = len(submission.messages)
    uses = await quotas.count(db, submission.messages[0].key_id, submission.quota, messages=count)
    if any(use.left < 0 for use in uses):
        raise _Refused(OverQuota(tuple(replace(use, left=use.left + count) for use in uses)))
    return uses


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
                        "scheduled_at": _written(message.scheduled_at),
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
                        "status": message.status_of(recipient),
                        "delivery_id": recipient.delivery_id,
                        "scheduled_at": _written(message.scheduled_at),
                        "application": message.application,
                        "error": recipient.suppressed,
                    }
                    for message in messages
                    for recipient in message.recipients
                ]
            )
        },
    )
    await facets.add(
        db,
        (
            (message.application, name, value, message.id)
            for message in messages
            for name, value in facets.of_message(
                recipients=(recipient.key for recipient in message.recipients),
                ways=((delivery.route, delivery.lane) for delivery in message.deliveries),
                tags=message.tags,
                metadata=message.metadata,
                errors=(recipient.suppressed for recipient in message.recipients if recipient.suppressed),
            )
        ),
    )


def _written(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


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
        "scheduled_at": _written(message.scheduled_at),
        "from_key": message.from_key,
        "idempotency_key": message.idempotency_key,
        "template": message.template,
        "dsn": message.dsn,
    }
