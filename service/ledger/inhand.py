"""Take a message in hand: the locks of an act, while attempts run.

    the message      two acts on one message follow each other
    open attempts    `close` and `rescue` begin with them, and go on to recipients and deliveries: whoever
                     has the attempt does not meet them half-way
    deliveries       in the order of their names; claims, the expiry, and what brings back a stopped
                     sender's mail begin with them
    recipients       all of them: a closing that has not touched its own yet waits here, so that it sets
                     its delivery's time from what the act has left, and forgets nobody who was put back

A late reply locks a recipient before its delivery, and an attempt may begin between two of these
locks: then act and closing wait for each other. So locks are waited for only for moments, less than it
takes PostgreSQL to look for a deadlock: the act lets go, has changed nothing, and begins again
(decision record 0012).
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

#: lock_not_available, deadlock_detected (PostgreSQL, Appendix A): somebody has this message in hand.
_COLLISIONS = frozenset({"55P03", "40P01"})

#: Less than this part of its length of life left is too little to begin again with.
_TOO_LITTLE = 10


class Collision(Exception):
    """Somebody else has the message in hand: nothing was changed, begin again."""


@contextlib.contextmanager
def collisions() -> Iterator[None]:
    """Turn a lock that was not to be had into a Collision."""
    try:
        yield
    except DBAPIError as exc:
        if getattr(exc.orig, "sqlstate", None) in _COLLISIONS:
            raise Collision from exc
        raise


# Another message may be written under this one's key meanwhile: nothing of its key is changed.
_MESSAGE = text("""
    SELECT application, priority, size, created_at, scheduled_at, expires_at, now() AS now,
           (SELECT max(at) FROM audit WHERE target = messages.id AND details ? 'expires_at') AS prolonged_at
      FROM messages WHERE id = :message FOR NO KEY UPDATE
""")

_LOCK_ATTEMPTS = text(
    "SELECT id FROM attempts WHERE message_id = :message AND outcome IS NULL ORDER BY id FOR UPDATE"
)

_LOCK_DELIVERIES = text(
    "SELECT id, lane, sender FROM deliveries WHERE message_id = :message ORDER BY id FOR UPDATE"
)

_LOCK_RECIPIENTS = text("""
    SELECT position, status, reason, delivery_id, attempts FROM recipients
     WHERE message_id = :message ORDER BY position FOR UPDATE
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """A message that nobody else can change until the end of the transaction."""

    message: Any
    deliveries: Mapping[str, Any]
    recipients: Sequence[Any]

    @property
    def scheduled_ahead(self) -> bool:
        """Whether its time is still to come."""
        at = self.message.scheduled_at
        return at is not None and at > self.message.now

    @property
    def life(self) -> timedelta:
        """How long the message had from its start, or from the last act that gave it time."""
        times = (self.message.created_at, self.message.scheduled_at, self.message.prolonged_at)
        life: timedelta = self.message.expires_at - max(at for at in times if at is not None)
        return max(life, timedelta(0))

    def expiry(self, start: datetime, *, at_least: timedelta) -> datetime:
        """Say when the message is given up, when it is to be sent from `start` on."""
        expires_at: datetime = self.message.expires_at
        if expires_at - start >= self.life / _TOO_LITTLE and expires_at > start:
            return expires_at
        return start + max(self.life, at_least)

    def lane_of(self, recipient: Any) -> str | None:
        """Return the lane of one of its recipients; None where it has none."""
        delivery = self.deliveries.get(recipient.delivery_id)
        return None if delivery is None else str(delivery.lane)


async def take_in_hand(db: AsyncConnection, message_id: str) -> Locked:
    """Lock a message that is there with all that belongs to it; raises Collision."""
    here = {"message": message_id}
    await db.execute(text("SET LOCAL lock_timeout = '400ms'"))
    message = (await db.execute(_MESSAGE, here)).one()
    await db.execute(_LOCK_ATTEMPTS, here)
    deliveries = (await db.execute(_LOCK_DELIVERIES, here)).all()
    recipients = (await db.execute(_LOCK_RECIPIENTS, here)).all()
    return Locked(message=message, deliveries={row.id: row for row in deliveries}, recipients=recipients)
