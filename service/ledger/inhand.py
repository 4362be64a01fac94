"""Take a message in hand: the locks of an act, while attempts run.

An act locks what attempts lock, in this order:

    the message         two acts on one message follow each other
    its attempts        open ones, and uncertain ones, whose late reply may still come: `close`
                        and `rescue` begin with them, so none of them is half done from here on
    its deliveries      in the order of their names: a claim, the expiry and what brings back a
                        stopped sender's mail begin with them
    its recipients

and begins again when an attempt has come between the second and the third. Without the second, a
closing that waits for the delivery would set its time from recipients as they were before the act,
and forget the one that was just put back. Locks are waited for only for moments, less than it takes
PostgreSQL to look for deadlocks: an act that does not get them has changed nothing, and lets go.
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

_ATTEMPTS = """
    SELECT id FROM attempts
     WHERE message_id = :message AND (outcome IS NULL OR outcome = 'uncertain') ORDER BY id
"""
_LOCK_ATTEMPTS = text(f"{_ATTEMPTS} FOR UPDATE")
_LOOK_AGAIN = text(_ATTEMPTS)

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
    attempts = (await db.execute(_LOCK_ATTEMPTS, here)).scalars().all()
    deliveries = (await db.execute(_LOCK_DELIVERIES, here)).all()
    if set((await db.execute(_LOOK_AGAIN, here)).scalars()) - set(attempts):
        raise Collision
    recipients = (await db.execute(_LOCK_RECIPIENTS, here)).all()
    return Locked(message=message, deliveries={row.id: row for row in deliveries}, recipients=recipients)
