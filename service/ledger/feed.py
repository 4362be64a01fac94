"""The feed: what happened to one application's messages, in an order in which nothing can be missed.

Numbers of events are drawn before their transactions commit, so a reader that remembers the highest number
it saw would pass over an event with a lower one that commits later. The feed is therefore ordered by
(transaction id, number), and shows only events of transactions older than every one that still runs
(`pg_snapshot_xmin`): whatever commits later sorts behind all that was shown. The price is that one long
transaction that writes holds the feed back until it ends (decision 0010).

Outside, a position is the id of the event that was seen last, `evt_42`; its transaction is looked up.

A follower is a reader inside the service with a position that is kept, one for each application. It reads
with `follow`, writes what it makes of the events, and moves on with `advance`, all in one transaction: what
it does is done once for each event. A new follower starts at the present.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.ledger.engine import transaction
from service.ledger.history import EventView

#: Events that one page looks through for the types that are wanted.
_LOOKED_THROUGH = 1000

#: Behind every event of its transaction.
_LAST = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A part of the feed, the oldest event first."""

    events: Sequence[EventView]
    next: int | None  # the number of the last event that was looked at; None: there is none yet
    more: bool  # there are events behind `next` already


class UnknownEvent(Exception):
    """The application has no event of this number, so there is no place to go on from."""


_OLD_ENOUGH = "(SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint)"

_POSITION = text("""
    SELECT txid::bigint AS txid, id FROM events WHERE id = :id AND application = :application
""")

_WINDOW = text(f"""
    SELECT id, to_status FROM events
     WHERE application = :application AND (txid::bigint, id) > (:txid, :id) AND txid::bigint < {_OLD_ENOUGH}
     ORDER BY txid::bigint, id LIMIT :most
""")  # noqa: S608  # constants of this module

_EVENTS = text("""
    SELECT e.id, e.message_id, r.email, e.from_status, e.to_status, e.reason, e.attempt_id, e.reply, e.diagnosis,
           e.actor, e.created_at
      FROM events e JOIN recipients r ON r.message_id = e.message_id AND r.position = e.position
     WHERE e.id = ANY(:ids) ORDER BY e.txid::bigint, e.id
""")


async def after(
    db: AsyncConnection, application: str, cursor: int | None, *, limit: int, types: Collection[str] | None
) -> Page:
    """Read what follows the event `cursor`, or the feed from its beginning.

    `types` are statuses that are wanted; None wants all. With types a page may be short, or empty, although
    there is more: it looks through a bounded number of events. Raises UnknownEvent.
    """
    start = (-_LAST, 0) if cursor is None else await _position(db, application, cursor)
    most = limit + 1 if types is None else max(_LOOKED_THROUGH, limit + 1)
    window = await _window(db, application, start, most)
    wanted: list[int] = []
    seen = cursor
    for number, (event_id, status) in enumerate(window, start=1):
        if number == most or len(wanted) == limit:
            return Page(events=await _read(db, wanted), next=seen, more=True)
        seen = event_id
        if types is None or status in types:
            wanted.append(event_id)
    return Page(events=await _read(db, wanted), next=seen, more=False)


_BEGUN_BEFORE = timedelta(minutes=1)  # transactions of ours are shorter: `open_engine` has the limits

_LONG_AGO = datetime(1970, 1, 2, tzinfo=UTC)

_SINCE = text(f"""
    SELECT id FROM events
     WHERE application = :application AND (txid::bigint, id) > (:txid, :id) AND txid::bigint < {_OLD_ENOUGH}
       AND created_at > :since
     ORDER BY txid::bigint, id LIMIT :most
""")  # noqa: S608  # constants of this module

_NUMBERS = text("SELECT min(id) AS low, max(id) AS high FROM events")

_FIRST_FROM = text(
    "SELECT id, txid::bigint AS txid, created_at FROM events WHERE id >= :id ORDER BY id LIMIT 1"
)


async def since(db: AsyncConnection, application: str, moment: datetime, *, limit: int) -> Page:
    """Read what happened after a moment.

    There is no index by time: numbers grow with it, so the place is found by halves.
    """
    start = await _place_before(db, max(moment, _LONG_AGO) - _BEGUN_BEFORE)
    given = {"application": application, "txid": start[0], "id": start[1], "most": limit + 1, "since": moment}
    ids = [row.id for row in await db.execute(_SINCE, given)]
    events = await _read(db, ids[:limit])
    return Page(events=events, next=events[-1].id if events else None, more=len(ids) > limit)


async def _place_before(db: AsyncConnection, moment: datetime) -> tuple[int, int]:
    """Find a place in the feed behind which lies everything that was written after the moment."""
    low, high = (await db.execute(_NUMBERS)).one()
    place = (-_LAST, 0)
    while low is not None and low <= high:
        middle = (low + high) // 2
        row = (await db.execute(_FIRST_FROM, {"id": middle})).one()
        if row.created_at < moment:
            place, low = (row.txid, row.id), row.id + 1
        else:
            high = middle - 1
    return place


async def _position(db: AsyncConnection, application: str, event_id: int) -> tuple[int, int]:
    found = await db.execute(_POSITION, {"id": event_id, "application": application})
    row = found.one_or_none()
    if row is None:
        raise UnknownEvent
    return row.txid, row.id


async def _window(
    db: AsyncConnection, application: str, start: tuple[int, int], most: int
) -> Sequence[tuple[int, str]]:
    given = {"application": application, "txid": start[0], "id": start[1], "most": most}
    return [(row.id, row.to_status) for row in await db.execute(_WINDOW, given)]


async def _read(db: AsyncConnection, ids: Sequence[int]) -> list[EventView]:
    if not ids:
        return []
    return [EventView(**row) for row in (await db.execute(_EVENTS, {"ids": list(ids)})).mappings()]


_HEADS = text(f"""
    SELECT a.application, head.id
      FROM unnest(CAST(:applications AS text[])) AS a(application)
     CROSS JOIN LATERAL (SELECT id FROM events e
                          WHERE e.application = a.application AND e.txid::bigint < {_OLD_ENOUGH}
                          ORDER BY e.txid::bigint DESC, e.id DESC LIMIT 1) AS head
""")  # noqa: S608  # constants of this module


async def heads(db: AsyncConnection, applications: Collection[str]) -> dict[str, int]:
    """Say which event is the last one of each application's feed now; an application without any is not in it."""
    rows = await db.execute(_HEADS, {"applications": list(applications)})
    return {row.application: row.id for row in rows}


_START = text(f"""
    INSERT INTO feeds (follower, application, txid, event_id)
    VALUES (:follower, :application,
            CASE WHEN :from_the_beginning THEN {-_LAST} ELSE {_OLD_ENOUGH} - 1 END,
            CASE WHEN :from_the_beginning THEN 0 ELSE {_LAST} END)
    ON CONFLICT (follower, application) DO UPDATE SET txid = feeds.txid
""")  # noqa: S608  # constants of this module

_LOCK = text("""
    SELECT txid, event_id FROM feeds WHERE follower = :follower AND application = :application
       FOR UPDATE SKIP LOCKED
""")

_ADVANCE = text("""
    UPDATE feeds SET txid = (SELECT txid::bigint FROM events WHERE id = :event), event_id = :event
     WHERE follower = :follower AND application = :application
""")

_STOP = text("DELETE FROM feeds WHERE follower = :follower AND application = :application")

_BEHIND = text(f"""
    SELECT f.application FROM feeds f
     WHERE f.follower = :follower
       AND EXISTS (SELECT FROM events e
                    WHERE e.application = f.application AND (e.txid::bigint, e.id) > (f.txid, f.event_id)
                      AND e.txid::bigint < {_OLD_ENOUGH})
     ORDER BY f.txid LIMIT :most
""")  # noqa: S608  # constants of this module


async def start(
    db: AsyncConnection, follower: str, application: str, *, from_the_beginning: bool = False
) -> None:
    """Let a follower follow an application from now on; one that does so already keeps its place.

    Until the transaction ends nobody else can `follow` or `stop` there.
    """
    given = {"follower": follower, "application": application, "from_the_beginning": from_the_beginning}
    await db.execute(_START, given)


async def stop(db: AsyncConnection, follower: str, application: str) -> None:
    """Let a follower follow an application no longer; its place is forgotten."""
    await db.execute(_STOP, {"follower": follower, "application": application})


async def behind(db: AsyncConnection, follower: str, *, limit: int) -> list[str]:
    """List applications that have something new for a follower; those that waited longest first."""
    rows = await db.execute(_BEHIND, {"follower": follower, "most": limit})
    return [row.application for row in rows]


async def follow(db: AsyncConnection, follower: str, application: str, *, limit: int) -> list[EventView]:
    """Read what a follower has not seen yet, and keep others from reading it until the transaction ends.

    Empty where there is nothing, where another worker is at it, and where the follower was not started.
    """
    row = (await db.execute(_LOCK, {"follower": follower, "application": application})).one_or_none()
    if row is None:
        return []
    window = await _window(db, application, (row.txid, row.event_id), limit)
    return await _read(db, [event_id for event_id, _ in window])


async def advance(db: AsyncConnection, follower: str, application: str, *, seen: int) -> None:
    """Keep that a follower has seen everything up to the event `seen`, the last one that `follow` gave."""
    await db.execute(_ADVANCE, {"follower": follower, "application": application, "event": seen})


_AHEAD = text("""
    WITH RECURSIVE applications AS (
        (SELECT application FROM events ORDER BY application LIMIT 1)
        UNION ALL
        SELECT (SELECT e.application FROM events e WHERE e.application > a.application
                 ORDER BY e.application LIMIT 1)
          FROM applications a WHERE a.application IS NOT NULL
    )
    SELECT max(newest.txid) FROM (
        SELECT (SELECT e.txid::bigint FROM events e WHERE e.application = a.application
                 ORDER BY e.txid::bigint DESC LIMIT 1) AS txid FROM applications a
        UNION ALL
        SELECT max(txid) FROM feeds
    ) AS newest
""")

_NEW_HERE = text("SELECT pg_current_xact_id()::text::bigint")

#: Events with numbers above these were written in this cluster, whatever their transactions are called.
_LAST_OF_OLD = text("SELECT coalesce(max(id), 0) FROM events WHERE txid::bigint > :now")

_SHIFT_EVENTS = text("UPDATE events SET txid = (txid::bigint - :shift)::text WHERE id <= :last")

_SHIFT_FOLLOWERS = text("UPDATE feeds SET txid = txid - :shift WHERE txid > :now OR event_id <= :last")


async def move_to_this_cluster(db: AsyncConnection) -> bool:
    """Mend the order after a dump was restored into a new cluster; return whether there was need to.

    Transaction ids start anew there: what came with the dump would lie in the future and stay hidden, and
    followers would wait there and miss everything new. All of it is moved below zero, by the same amount,
    so that old events keep their order and every position its place, and new ones come behind them.
    Costs two descents of an index for each application where there is nothing to do.
    """
    highest = (await db.execute(_AHEAD)).scalar_one()
    now = (await db.execute(_NEW_HERE)).scalar_one()
    if highest is None or highest <= now:
        return False
    last = (await db.execute(_LAST_OF_OLD, {"now": now})).scalar_one()
    await db.execute(_SHIFT_FOLLOWERS, {"shift": highest + 1, "now": now, "last": last})
    await db.execute(_SHIFT_EVENTS, {"shift": highest + 1, "last": last})
    return True


class Feed:
    """The feed as the doors hold it: each method is one short transaction."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def after(
        self, application: str, cursor: int | None, *, limit: int, types: Collection[str] | None = None
    ) -> Page:
        """Read a page; raises UnknownEvent."""
        async with transaction(self._engine) as db:
            return await after(db, application, cursor, limit=limit, types=types)

    async def heads(self, applications: Collection[str]) -> dict[str, int]:
        """Say which event is the last one of each application's feed now."""
        async with transaction(self._engine) as db:
            return await heads(db, applications)
