"""Claim what is due in a lane: the transaction before every socket.

In one short transaction, with the lane's row locked:

1. the lane may be paused: nothing, and when to come again;
2. how much its windows leave (`pace`), and the tenant's external budget;
3. what is due: the most urgent first, within a priority each application in its turn, no more
   than the free sessions can carry, without the senders that rest (`stops`);
4. for each of them an attempt with a lease, its recipients set to `sending`;
5. a seat for each session that will have to be opened.

Only after the commit does anybody touch a socket, so whatever crashes, the ledger knows what
may have been in hand. The lane's row makes claims of one lane follow each other, for any
number of workers; PostgreSQL's clock, read after that lock, is the only one that counts.

What is taken is chosen by `choosing`. The statements that every claim needs go straight to the driver.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.ledger import choosing, pace
from service.ledger.engine import Fetch, LedgerUnavailable, as_json, straight_inside
from service.ledger.ids import new_id
from service.ledger.lane_rows import locked
from service.ledger.pace import LaneLimits
from service.ledger.sealing import UNSEALED, CannotOpen, Seal

log = structlog.get_logger()

#: Contents up to this size, in octets, come with the claim.
_SMALL = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a worker could carry on a lane right now."""

    lane: str
    route: str
    worker: str
    seats: Sequence[str]  # of its own that are free, in the order in which it would use them
    more: int  # seats that it could use beside these
    lease: float  # seconds
    suspects: (
        bool  # it may take a delivery that has lost a lease before, and will carry it alone; else see `Claim`
    )
    from_due: datetime | None = None  # look at nothing that was due before; None: at everything
    ahead: int = 0  # deliveries beyond those, for seats that will be free in a moment (decision record 0013)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedRecipient:
    position: int
    email: str
    tries: int  # attempts that failed for its own sake so far
    uncertain: bool  # an earlier attempt may have reached it


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """One delivery in hand: an open attempt, written and leased."""

    attempt_id: str
    number: int
    delivery_id: str
    message_id: str
    application: str
    lane: str
    sender: str  # the reverse-path in its comparison form
    external: int  # recipients that use the tenant's external budget
    reverse_path: str
    recipients: tuple[ClaimedRecipient, ...]
    size: int
    sha256: str
    smtputf8: bool
    eightbit: bool
    on_uncertain: str
    expires_at: datetime
    alone: bool
    seat: str | None  # a new seat, for a session to be opened; None: use one of the free ones
    dsn: Mapping[str, Any] | None = None  # reports to ask the peer for: notify, return, envid (RFC 3461)
    octets: bytes | None = None  # what goes after DATA; None: it is large, and read when it is its turn
    since: datetime | None = None  # when it was accepted, or was to go
    traceparent: str | None = None  # of the span that it was accepted in
    lost: int = 0  # leases, by earlier attempts


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    claimed: tuple[Claimed, ...]
    again_in: float | None  # seconds until a permit, a retry or the end of a pause; None: when rung
    first_due: datetime | None = None  # before it nothing waited; None: nobody knows
    drained: bool = False  # nothing else is due now: the next look is for `again_in` or the bell
    suspects: bool = False  # somebody who lost a lease was due; if one was taken, there may be more
    lost_seats: frozenset[str] = (
        frozenset()
    )  # of `Wish.seats`: their leases have run out, nothing may use them


# All that a claim has to know of its lane before it looks at what is due, in one round trip. The time is
# read by a statement of its own behind the lock: the row may have been waited for.
_STANDING = """
    WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS now)
    SELECT clock.now, seats.*,
           CASE WHEN $3 THEN EXISTS (SELECT 1 FROM attempts WHERE lane = $1 AND ended_at IS NULL)
           END AS running,
           EXISTS (SELECT 1 FROM stops WHERE lane = $1) AS stopped,
           EXISTS (SELECT 1 FROM deliveries WHERE lane = $1 AND lost > 0 AND due_at IS NOT NULL
                      AND due_at <= clock.now AND expires_at > clock.now) AS suspects
      FROM clock CROSS JOIN LATERAL (
           SELECT count(*) AS taken, array_agg(id) FILTER (WHERE id = ANY($2::text[])) AS kept,
                  min(lease_until) AS free_at
             FROM connections WHERE lane = $1 AND lease_until > clock.now) AS seats
"""

# `coalesce`: recipients are found by their delivery, and not by the index of states (see `taken`). Deliveries are
# named twice, as rows and as $7: by rows alone, a plan that is made while tables are small reads a whole index.
_TAKE = """
    WITH taken AS (
        SELECT * FROM jsonb_to_recordset($1::jsonb) AS row(
            delivery_id text, attempt_id text, seat text, alone boolean)
    ), before AS (
        SELECT r.delivery_id, r.message_id, r.position, r.status FROM recipients r
         WHERE r.delivery_id = ANY($7::text[])
           AND coalesce(r.status) IN ('scheduled', 'queued', 'deferred', 'uncertain') AND r.due_at <= $2
           FOR UPDATE OF r
    ), claimed AS (
        UPDATE deliveries d SET due_at = NULL, attempt_id = taken.attempt_id, attempts = d.attempts + 1
          FROM taken
         WHERE d.id = ANY($7::text[]) AND d.id = taken.delivery_id AND d.id IN (SELECT delivery_id FROM before)
        RETURNING d.id, d.message_id, d.application, d.sender, d.route, d.attempts AS number,
                  d.size, d.expires_at, d.lost,
                  taken.attempt_id, taken.seat, taken.alone
    ), moved AS (
        UPDATE recipients r
           SET status = 'sending', attempt_id = claimed.attempt_id, attempts = r.attempts + 1, due_at = NULL,
               reason = CASE WHEN before.status = 'uncertain' THEN 'resend' ELSE 'claimed' END,
               updated_at = $2
          FROM claimed, before
         WHERE r.delivery_id = claimed.id AND before.message_id = r.message_id AND before.position = r.position
        RETURNING r.delivery_id, r.position, r.email, r.tries, r.external,
                  before.status = 'uncertain' AS uncertain
    ), carried AS (
        SELECT delivery_id, count(*) AS recipient_count, count(*) FILTER (WHERE external) AS external_count,
               jsonb_agg(jsonb_build_object('position', position, 'email', email, 'tries', tries,
                                            'uncertain', uncertain) ORDER BY position) AS recipients
          FROM moved GROUP BY delivery_id
    ), written AS (
        INSERT INTO attempts (id, message_id, delivery_id, number, worker, route, lane, alone, started_at,
                              lease_until, phase, recipients, recipient_count, external_count,
                              size, sha256)
        SELECT claimed.attempt_id, claimed.message_id, claimed.id, claimed.number, $4, claimed.route, $3,
               claimed.alone, $2, $2 + make_interval(secs => $5), 'connect',
               (SELECT jsonb_agg(jsonb_build_object('position', r -> 'position', 'email', r -> 'email',
                                                    'reply', NULL, 'status', 'sending'))
                  FROM jsonb_array_elements(carried.recipients) AS r),
               carried.recipient_count, carried.external_count, claimed.size, m.sha256
          FROM claimed JOIN carried ON carried.delivery_id = claimed.id
          JOIN messages m ON m.id = claimed.message_id
        RETURNING id
    ), seated AS (
        INSERT INTO connections (id, lane, worker, lease_until)
        SELECT seat, $3, $4, $2 + make_interval(secs => $5)
          FROM claimed WHERE seat IS NOT NULL
        RETURNING id
    )
    SELECT claimed.*, carried.recipients, carried.external_count, m.reverse_path, m.sha256, m.smtputf8, m.eightbit, m.on_uncertain,
           m.dsn, m.traceparent, coalesce(m.scheduled_at, m.created_at) AS since,
           CASE WHEN m.size <= $6 THEN (SELECT octets FROM contents WHERE message_id = m.id) END AS octets
      FROM claimed JOIN carried ON carried.delivery_id = claimed.id
      JOIN messages m ON m.id = claimed.message_id
     ORDER BY claimed.attempt_id
"""


async def claim(db: AsyncConnection, wish: Wish, limits: LaneLimits, *, seal: Seal = UNSEALED) -> Claim:
    """Take what is due in `wish.lane`, as far as pause, limits, seats and sessions allow.

    The caller commits, and must not touch a socket before.
    """
    row = await locked(db, wish.lane, wish.route)
    fetch = await straight_inside(db)
    lane = await _lane(fetch, row, wish, limits)
    if lane.paused_until is not None and lane.paused_until > lane.now:
        return Claim(claimed=(), again_in=choosing.earliest(lane.now, lane.paused_until))
    if lane.troubles and lane.running:
        return Claim(claimed=(), again_in=None)  # a probe is under way; its end rings
    windows = await pace.message_windows(db, wish.lane, limits, lane.now)
    seats = lane.seats
    lost = frozenset(wish.seats) - seats.kept
    wish = replace(
        wish,
        seats=[seat for seat in wish.seats if seat not in lost],
        more=min(wish.more, seats.left),
        # What waits for a seat would use up a window that is counted from the claim.
        ahead=0 if windows or lane.troubles else wish.ahead,
    )
    # Nor does a suspect wait for one: the worker's end in the meantime would be laid at its door.
    wish = replace(wish, suspects=wish.suspects and bool(wish.seats or wish.more))
    most = min([len(wish.seats) + wish.more + wish.ahead, *(window.left for window in windows)])
    if lane.troubles:
        most = min(most, 1)
    if most <= 0:
        full = [window for window in windows if not window.left]
        return Claim(
            claimed=(),
            again_in=choosing.earliest(
                lane.now, await choosing.free_at(db, wish.lane, full, lane.now), seats.free_at
            ),
            lost_seats=lost,
        )
    return replace(await _claim_up_to(db, fetch, wish, limits, lane, most, seal), lost_seats=lost)


async def _claim_up_to(
    db: AsyncConnection,
    fetch: Fetch,
    wish: Wish,
    limits: LaneLimits,
    lane: "_Lane",
    most: int,
    seal: Seal,
) -> Claim:
    """Choose and take up to `most` deliveries."""
    now = lane.now
    room = await choosing.room_of(db, wish.lane, limits, now)
    choice = choosing.Choice()
    for external in (True, False):
        if external and room.external_closed_until is not None:
            continue
        choice = await choosing.choose(
            db, fetch, wish, room, now=now, stopped=lane.stopped, most=most, external=external
        )
        if choice.rows or not room.external_wanted:
            break
    if not choice.rows:
        again_in = await choosing.again_in(db, fetch, wish.lane, room, now, held_back=choice.held_back)
        return Claim(claimed=(), again_in=again_in, suspects=lane.suspects)
    claimed = await _take(
        fetch, wish, [row["id"] for row in choice.rows], now=now, alone=choice.alone, seal=seal
    )
    await choosing.count_turns(db, wish.lane, choice.rows, turn=lane.turn)
    everything = (
        choice.everything and not lane.suspects and wish.from_due is None and len(claimed) == len(choice.rows)
    )
    drained = bool(claimed) and everything and not lane.troubles and len(choice.rows) < most
    # Nothing taken although something is due: its recipients are not, for an instant.
    again_in = 0.0 if claimed else 0.5
    if drained:
        again_in = choosing.earliest(now, choice.rows[0]["next_due"])
    return Claim(
        claimed=claimed,
        again_in=again_in,
        drained=drained,
        first_due=choice.rows[0]["first_due"],
        suspects=lane.suspects,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seats:
    left: int  # that nobody has
    kept: frozenset[str]  # free ones of this worker, which may believe in more
    free_at: datetime | None  # when one comes free, where this is what the worker waits for


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lane:
    """A lane whose row is ours until the end of the transaction."""

    paused_until: datetime | None
    troubles: int
    turn: int
    now: datetime
    running: bool  # an attempt is under way; asked only where the lane has troubles
    stopped: bool  # senders rest
    suspects: bool  # somebody who lost a lease is due
    seats: _Seats


async def _lane(fetch: Fetch, row: Any, wish: Wish, limits: LaneLimits) -> _Lane:
    """See how the lane stands, whose row is locked."""
    (now,) = await fetch(_STANDING, wish.lane, list(wish.seats), row.troubles > 0)
    left, kept = max(limits.connections - now["taken"], 0), frozenset(now["kept"] or ())
    waits = not left and wish.more and not kept
    return _Lane(
        paused_until=row.paused_until,
        troubles=row.troubles,
        turn=row.turn,
        now=now["now"],
        running=bool(now["running"]),
        stopped=now["stopped"],
        suspects=now["suspects"],
        seats=_Seats(left=left, kept=kept, free_at=now["free_at"] if waits else None),
    )


async def _take(
    fetch: Fetch, wish: Wish, deliveries: Sequence[str], *, now: datetime, alone: bool, seal: Seal
) -> tuple[Claimed, ...]:
    rows = [
        {
            "delivery_id": delivery,
            "attempt_id": new_id("att"),
            "seat": new_id("sea") if 0 <= index - len(wish.seats) < wish.more else None,
            "alone": alone,
        }
        for index, delivery in enumerate(deliveries)
    ]
    taken = await fetch(
        _TAKE, as_json(rows), now, wish.lane, wish.worker, wish.lease, _SMALL, list(deliveries)
    )
    return tuple(
        Claimed(
            attempt_id=row["attempt_id"],
            number=row["number"],
            delivery_id=row["id"],
            message_id=row["message_id"],
            application=row["application"],
            lane=wish.lane,
            sender=row["sender"],
            external=row["external_count"],
            reverse_path=row["reverse_path"],
            recipients=tuple(ClaimedRecipient(**recipient) for recipient in row["recipients"]),
            size=row["size"],
            sha256=row["sha256"],
            smtputf8=row["smtputf8"],
            eightbit=row["eightbit"],
            on_uncertain=row["on_uncertain"],
            expires_at=row["expires_at"],
            alone=row["alone"],
            seat=row["seat"],
            dsn=row["dsn"],
            octets=_opened(seal, row["octets"], row["message_id"]),
            since=row["since"],
            traceparent=row["traceparent"],
            lost=row["lost"],
        )
        for row in taken
    )


_OCTETS = text("SELECT octets FROM contents WHERE message_id = :message")


async def octets(db: AsyncConnection, message_id: str, *, seal: Seal = UNSEALED) -> bytes:
    """Return what goes after DATA, not dot-stuffed. Raises LedgerUnavailable where no key opens it."""
    stored = bytes((await db.execute(_OCTETS, {"message": message_id})).scalar_one())
    try:
        return seal.open_octets(stored, purpose=message_id)
    except CannotOpen:
        log.warning(
            "content.sealed",
            message=message_id,
            remedy="configure the encryption_key that it was sealed with, as previous_encryption_key",
        )
        raise LedgerUnavailable("a content is sealed with another key") from None


def _opened(seal: Seal, stored: bytes | None, message_id: str) -> bytes | None:
    """Open a small content; None where it has to be read when it is its turn."""
    if stored is None:
        return None
    try:
        return seal.open_octets(stored, purpose=message_id)
    except CannotOpen:
        return None  # `octets` says what is wrong
