"""Accept messages: the transaction behind every 202.

One transaction writes, for each submission, its answers under their idempotency keys, what it uses of
its key's quota, and its messages with their octets, deliveries, recipients and facets. It is committed
before the caller hears anything, so a 202 is for ever; Redis has no part in it.

A submission is all or nothing: a batch, or a message with its copies for many, has several messages
and may have a key for each. Of several submissions in one transaction each stands for itself.

The idempotency key is reserved by its primary key and never by looking first. When another
transaction holds the same key uncommitted, PostgreSQL lets us wait for it; after a short
while we answer `Busy` instead, and the caller is told to come back.

There are two ways. `accept_together` writes many submissions with one statement, as long as all their keys
are free, which is nearly always so. `accept` looks at each for itself: its keys, its quota, and why not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.ledger import inserting, quotas
from service.ledger.engine import sqlstate, statement
from service.ledger.quotas import Allowance, Use
from service.ledger.sealing import UNSEALED, Seal

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
    traceparent: str | None = None  # of the span that it is accepted in (W3C Trace Context)

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


#: How long a group's statement may take, in seconds, and how much longer the more it carries.
_PATIENCE, _OCTETS_A_SECOND = 5.0, 2_000_000


class NotTogether(Exception):
    """One of the submissions asks for a key that is not free: each has to be looked at by itself."""


#: A key is taken already; or another transaction has it in hand.
_NOT_FREE = frozenset({"23505", "55P03"})


async def accept_together(
    engine: AsyncEngine, submissions: Sequence[Submission], *, seal: Seal = UNSEALED
) -> None:
    """Write submissions that have no quota in one statement and transaction, all of them or none.

    Raises NotTogether where an idempotency key is not free.
    """
    reservations = [(each.application, key) for each in submissions for key in each.reservations]
    messages = [message for each in submissions for message in each.messages]
    # Its callers have given up long before, and the next group waits for this one: a connection into a black hole
    # is left sooner than the driver would.
    within = _PATIENCE + sum(len(message.octets) for message in messages) / _OCTETS_A_SECOND
    try:
        await statement(
            engine, inserting.INSERT, *inserting.arguments(messages, reservations, seal=seal), within=within
        )
    except Exception as exc:
        if reservations and sqlstate(exc) in _NOT_FREE:
            raise NotTogether from exc
        raise


async def accept(
    db: AsyncConnection, submissions: Sequence[Submission], *, seal: Seal = UNSEALED
) -> list[Answer]:
    """Write the submissions, in order; the caller commits. Answers stand in the same order."""
    answers = [await _entitled(db, submission) for submission in submissions]
    ours = [
        message
        for submission, answer in zip(submissions, answers, strict=True)
        if isinstance(answer, Accepted)
        for message in submission.messages
    ]
    if ours:
        await db.exec_driver_sql(inserting.INSERT, inserting.arguments(ours, seal=seal))
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
