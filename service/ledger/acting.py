"""Act on a message that is in the ledger: cancel, hold, release, retry, settle, reschedule.

`ACTS` says which states each act takes and where it leads; every move of it stands in
`states.MOVES`. An act moves those of the recipients that it can, writes its audit, and touches
nobody else: a recipient that an attempt has in hand (`sending`) is never moved, because nobody
can know what the wire has seen already. So an act that comes too late changes nothing and says
so, and one that comes in time is kept: a claim finds only what is due when it has the delivery.

Attempts run meanwhile: `inhand` has the locks. An act that does not get them says `Busy`, and has
changed nothing.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.ledger import audit
from service.ledger.audit import Actor
from service.ledger.closing import settle_deliveries
from service.ledger.engine import transaction
from service.ledger.inhand import Collision, Locked, collisions, take_in_hand
from service.ledger.rerouting import Reroute, reroute
from service.ledger.states import FINAL, Status, advance

#: How often an act begins again before it says `Busy`.
_ROUNDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What an act does to each recipient that it can move."""

    starts: frozenset[Status]
    end: Status
    reason: str
    goes: bool = False  # it is to be sent: due at once, with a life before it and a clean slate of crashes
    anew: bool = False  # as if it had never been tried
    keeps_error: bool = True


_S = Status

ACTS: Mapping[str, Rule] = {
    "cancel": Rule(
        starts=frozenset({_S.SCHEDULED, _S.QUEUED, _S.HELD, _S.DEFERRED}), end=_S.CANCELED, reason="canceled"
    ),
    "hold": Rule(starts=frozenset({_S.SCHEDULED, _S.QUEUED, _S.DEFERRED}), end=_S.HELD, reason="held"),
    # to `scheduled` where the message's time lies ahead
    "release": Rule(
        starts=frozenset({_S.HELD}), end=_S.QUEUED, reason="released", goes=True, keeps_error=False
    ),
    "retry": Rule(
        starts=frozenset({_S.FAILED, _S.EXPIRED, _S.CANCELED, _S.DEFERRED}),
        end=_S.QUEUED,
        reason="retried",
        goes=True,
        anew=True,
        keeps_error=False,
    ),
    "settle_sent": Rule(
        starts=frozenset({_S.UNCERTAIN}), end=_S.SENT, reason="settled_sent", keeps_error=False
    ),
    "settle_resend": Rule(
        starts=frozenset({_S.UNCERTAIN}),
        end=_S.QUEUED,
        reason="settled_resend",
        goes=True,
        keeps_error=False,
    ),
    "settle_drop": Rule(starts=frozenset({_S.UNCERTAIN}), end=_S.CANCELED, reason="settled_drop"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """What is to be done."""

    message_id: str
    deed: str  # of ACTS
    positions: frozenset[int] | None  # None: every recipient of the message
    reason: str | None  # in the words of whoever acts
    expires_after: timedelta  # the least life of what is to be sent again
    reroutes: Mapping[int, Reroute] = field(default_factory=dict)  # by position
    spared: frozenset[int] = frozenset()  # positions that stay as they are


@dataclass(frozen=True, slots=True, kw_only=True)
class Reschedule:
    """A new time for a message that was not tried yet."""

    message_id: str
    at: datetime | None  # None: now
    expires_at: datetime | None  # None: it keeps its length of life
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A recipient that the act meant, as it was found."""

    position: int
    status: Status
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """Done, and in the audit."""

    positions: tuple[int, ...]
    lanes: frozenset[str]  # that have something to send now


@dataclass(frozen=True, slots=True, kw_only=True)
class NothingMoved:
    """Nothing was changed: none of these is in a state that the act takes."""

    found: tuple[Found, ...]


@dataclass(frozen=True, slots=True)
class NothingLeft:
    """Nothing was changed: what would be sent again is no longer kept."""


@dataclass(frozen=True, slots=True)
class Busy:
    """Nothing was changed: attempts that end at this moment have the message in hand."""


Outcome = Moved | NothingMoved | NothingLeft | Busy


_MOVE = text("""
    UPDATE recipients
       SET status = :status, reason = :reason, updated_at = clock_timestamp(), due_at = :due_at,
           finished_at = CASE WHEN :final THEN clock_timestamp() END,
           tries = CASE WHEN :anew THEN 0 ELSE tries END,
           error = CASE WHEN :keeps_error THEN error END, reply = CASE WHEN :keeps_error THEN reply END
     WHERE message_id = :message AND position = ANY(:positions)
""")

_GIVE_TIME = text("""
    UPDATE deliveries SET expires_at = greatest(expires_at, :expires_at), lost = 0, lost_alone = 0
     WHERE id = ANY(:deliveries)
""")

_IS_KEPT = text("SELECT EXISTS (SELECT 1 FROM contents WHERE message_id = :message)")

_MESSAGE_EXPIRES = text("UPDATE messages SET expires_at = :expires_at WHERE id = :message")


async def act(db: AsyncConnection, wanted: Act, actor: Actor) -> Moved | NothingMoved | NothingLeft:
    """Carry out an act; the caller commits, and rings the lanes afterwards."""
    rule = ACTS[wanted.deed]
    locked = await take_in_hand(db, wanted.message_id)
    meant = [row for row in locked.recipients if wanted.positions is None or row.position in wanted.positions]
    movable = [
        row for row in meant if row.position not in wanted.spared and _moves(row, rule, wanted, locked)
    ]
    if not movable:
        return NothingMoved(found=tuple(_found(row) for row in meant))
    if rule.goes and not await db.scalar(_IS_KEPT, {"message": wanted.message_id}):
        return NothingLeft()
    await audit.speak_as(db, actor)
    await _move(db, rule, wanted, locked, movable)
    touched = {str(row.delivery_id) for row in movable}
    details: dict[str, Any] = {"recipients": len(movable)}
    if rule.goes:
        expires_at = _expiry(rule, wanted, locked)
        if expires_at != locked.message.expires_at:
            details["expires_at"] = expires_at.isoformat()
            await db.execute(_MESSAGE_EXPIRES, {"message": wanted.message_id, "expires_at": expires_at})
        new = {row.position: way for row in movable if (way := _way(row, wanted, locked)) is not None}
        touched |= await reroute(db, wanted.message_id, locked, new, expires_at=expires_at)
        await db.execute(_GIVE_TIME, {"deliveries": sorted(touched), "expires_at": expires_at})
    await settle_deliveries(db, sorted(touched), [])
    action, _, decision = wanted.deed.partition("_")
    details |= {name: said for name, said in (("decision", decision), ("reason", wanted.reason)) if said}
    await audit.write(db, actor, action=f"message.{action}", target=wanted.message_id, details=details)
    lanes = {lane for row in movable if (lane := _lane(row, wanted, locked)) is not None}
    return Moved(
        positions=tuple(row.position for row in movable),
        lanes=frozenset(lanes) if rule.goes else frozenset(),
    )


def _moves(row: Any, rule: Rule, wanted: Act, locked: Locked) -> bool:
    status = Status(row.status)
    if status in rule.starts:
        # Somebody said "not again" of what may have arrived: it has to be named to be sent all the same.
        return rule.reason != "retried" or row.reason != "settled_drop" or wanted.positions is not None
    # What waits for a lane that is gone waits in vain: a retry finds it another way.
    waits = status in {Status.QUEUED, Status.SCHEDULED}
    return rule.anew and waits and _way(row, wanted, locked) is not None


def _way(row: Any, wanted: Act, locked: Locked) -> Reroute | None:
    """Return the recipient's new way, where it is still on the lane that is gone."""
    way = wanted.reroutes.get(row.position)
    return way if way is not None and locked.lane_of(row) == way.gone else None


def _lane(row: Any, wanted: Act, locked: Locked) -> str | None:
    way = _way(row, wanted, locked)
    return locked.lane_of(row) if way is None else way.lane


def _waits(rule: Rule, locked: Locked) -> bool:
    """Say whether what is released waits for the message's own time."""
    return rule.reason == "released" and locked.scheduled_ahead


def _expiry(rule: Rule, wanted: Act, locked: Locked) -> datetime:
    start: datetime = locked.message.scheduled_at if _waits(rule, locked) else locked.message.now
    return locked.expiry(start, at_least=wanted.expires_after)


async def _move(db: AsyncConnection, rule: Rule, wanted: Act, locked: Locked, rows: Sequence[Any]) -> None:
    later = _waits(rule, locked)
    end = Status.SCHEDULED if later else rule.end
    moving = [row for row in rows if Status(row.status) in rule.starts]
    for row in moving:
        advance(Status(row.status), end)
    due_at = locked.message.scheduled_at if later else locked.message.now
    await db.execute(
        _MOVE,
        {
            "message": wanted.message_id,
            "positions": [row.position for row in moving],
            "status": end,
            "reason": rule.reason,
            "due_at": due_at if rule.goes else None,
            "final": end in FINAL,
            "anew": rule.anew,
            "keeps_error": rule.keeps_error,
        },
    )


_NEW_TIME = text("UPDATE messages SET scheduled_at = :at, expires_at = :expires_at WHERE id = :message")

_WAIT_UNTIL = text("""
    UPDATE recipients
       SET status = :status, reason = 'rescheduled', due_at = :due_at, updated_at = clock_timestamp()
     WHERE message_id = :message AND position = ANY(:positions)
""")

_EXPIRE_AT = text("UPDATE deliveries SET expires_at = :expires_at WHERE id = ANY(:deliveries)")


async def reschedule(db: AsyncConnection, wanted: Reschedule, actor: Actor) -> Moved | NothingMoved:
    """Give a message another time; the caller commits, and rings the lanes afterwards.

    What is held stays held, and waits for the new time once it is released.
    """
    locked = await take_in_hand(db, wanted.message_id)
    movable = [row for row in locked.recipients if _waits_for_its_time(row, locked)]
    if not movable:
        return NothingMoved(found=tuple(_found(row) for row in locked.recipients))
    await audit.speak_as(db, actor)
    now: datetime = locked.message.now
    expires_at = wanted.expires_at or (wanted.at or now) + locked.life
    await db.execute(_NEW_TIME, {"message": wanted.message_id, "at": wanted.at, "expires_at": expires_at})
    end = Status.QUEUED if wanted.at is None else Status.SCHEDULED
    waiting = [row.position for row in movable if row.status != Status.HELD]
    await db.execute(
        _WAIT_UNTIL,
        {
            "message": wanted.message_id,
            "positions": waiting,
            "status": end,
            "due_at": wanted.at or now,
        },
    )
    touched = sorted({str(row.delivery_id) for row in movable})
    await db.execute(_EXPIRE_AT, {"deliveries": touched, "expires_at": expires_at})
    await settle_deliveries(db, touched, [])
    details = {
        "recipients": len(movable),
        "scheduled_at": None if wanted.at is None else wanted.at.isoformat(),
        "expires_at": expires_at.isoformat(),
        **({"reason": wanted.reason} if wanted.reason else {}),
    }
    await audit.write(db, actor, action="message.reschedule", target=wanted.message_id, details=details)
    return Moved(
        positions=tuple(row.position for row in movable),
        lanes=frozenset(locked.deliveries[delivery].lane for delivery in touched),
    )


def _waits_for_its_time(row: Any, locked: Locked) -> bool:
    if row.status == Status.SCHEDULED:
        return True
    untried = row.status in {Status.QUEUED, Status.HELD} and not row.attempts
    return untried and locked.scheduled_ahead


def _found(row: Any) -> Found:
    return Found(position=row.position, status=Status(row.status), reason=row.reason)


class Acting:
    """Acts on messages, each one transaction that is begun again where it meets an attempt."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def act(self, wanted: Act, actor: Actor) -> Outcome:
        """Carry out an act on a message that is there."""
        for _ in range(_ROUNDS):
            with contextlib.suppress(Collision):
                async with transaction(self._engine) as db:
                    with collisions():
                        return await act(db, wanted, actor)
        return Busy()

    async def reschedule(self, wanted: Reschedule, actor: Actor) -> Outcome:
        """Give a message that is there another time."""
        for _ in range(_ROUNDS):
            with contextlib.suppress(Collision):
                async with transaction(self._engine) as db:
                    with collisions():
                        return await reschedule(db, wanted, actor)
        return Busy()
