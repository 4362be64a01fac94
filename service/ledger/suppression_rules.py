"""Rules that suppress an address by themselves, when mail to it has failed often enough.

A rule names enhanced statuses and diagnoses, and how many such failures of one address within a span make an
entry. There is no rule unless somebody makes one: nobody is suppressed because we think so.

The rules follow the feed of events beside the mail path: a failure is looked at once, in the order of the
feed. A rule counts what failed before it was made, but speaks only when something fails afterwards. It never
looks at test mail, whose failures are rehearsed. A rule of every application counts the failures of all of
them, and its entries stop everybody's mail.

To count, the newest messages to the address are looked through, a thousand of each application at the most.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.ledger import facets, feed, suppressions
from service.ledger.history import EventView
from service.ledger.ids import new_id
from service.ledger.states import Status
from service.ledger.suppressions import EVERYBODY, NewSuppression
from service.mail.address import Address

#: What the rules are called among the followers of the feed.
FOLLOWER = "suppression_rules"

_FAILURES = (Status.FAILED, Status.BOUNCED)

_MESSAGES_COUNTED = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRule:
    """A rule that is to be made."""

    application: str  # '': every application
    enhanced: tuple[str, ...]
    diagnoses: tuple[str, ...]
    failures: int
    within: timedelta
    lasts: timedelta | None  # of an entry that it adds; None: until somebody takes it away
    created_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """When an address is suppressed by itself."""

    id: str
    application: str  # '': every application
    enhanced: Sequence[str]
    diagnoses: Sequence[str]
    failures: int
    within_seconds: int
    lasts_seconds: int | None
    created_by: str
    created_at: datetime

    def speaks_of(self, event: EventView) -> str | None:
        """Return what of the event the rule names: its enhanced status or its diagnosis."""
        status = None if event.reply is None else event.reply.get("enhanced")
        if status in self.enhanced:
            return str(status)
        return event.diagnosis if event.diagnosis in self.diagnoses else None


_COLUMNS = (
    "id, application, enhanced, diagnoses, failures, within_seconds, lasts_seconds, created_by, created_at"
)

_INSERT = text(f"""
    INSERT INTO suppression_rules (id, application, enhanced, diagnoses, failures, within_seconds, lasts_seconds,
                                   created_by)
    VALUES (:id, :application, :enhanced, :diagnoses, :failures, :within, :lasts, :created_by)
    RETURNING {_COLUMNS}
""")  # noqa: S608  (our own words)


async def add(db: AsyncConnection, wanted: NewRule) -> Rule:
    """Make a rule, and let the rules follow the applications that it is for, from now on."""
    for application in await applications(db) if wanted.application == EVERYBODY else [wanted.application]:
        await feed.start(db, FOLLOWER, application)
    made = await db.execute(
        _INSERT,
        {
            "id": new_id("sru"),
            "application": wanted.application,
            "enhanced": list(wanted.enhanced),
            "diagnoses": list(wanted.diagnoses),
            "failures": wanted.failures,
            "within": int(wanted.within.total_seconds()),
            "lasts": None if wanted.lasts is None else int(wanted.lasts.total_seconds()),
            "created_by": wanted.created_by,
        },
    )
    return Rule(**made.mappings().one())


async def listed(
    db: AsyncConnection, *, sees: str | None, after: str | None, before: str | None, most: int
) -> list[Rule]:
    """Read a part of the list: newest first, or oldest first with `before`. `sees` asks; None sees all."""
    query = text(
        f"SELECT {_COLUMNS} FROM suppression_rules "  # noqa: S608
        "WHERE (CAST(:sees AS text) IS NULL OR application IN ('', :sees)) "
        "AND (CAST(:after AS text) IS NULL OR id < :after) AND (CAST(:before AS text) IS NULL OR id > :before) "
        f"ORDER BY id {'ASC' if before is not None else 'DESC'} LIMIT :most"
    )
    rows = await db.execute(query, {"sees": sees, "after": after, "before": before, "most": most})
    return [Rule(**row) for row in rows.mappings()]


_ONE = text(f"""
    SELECT {_COLUMNS} FROM suppression_rules
     WHERE id = :id AND (CAST(:sees AS text) IS NULL OR application IN ('', :sees))
""")  # noqa: S608


async def one(db: AsyncConnection, rule_id: str, *, sees: str | None) -> Rule | None:
    """Return one rule, or None where there is none that this application sees."""
    row = (await db.execute(_ONE, {"id": rule_id, "sees": sees})).mappings().one_or_none()
    return None if row is None else Rule(**row)


_UNRULED = text("""
    SELECT application FROM feeds f
     WHERE follower = :follower
       AND NOT EXISTS (SELECT FROM suppression_rules WHERE application IN ('', f.application))
""")


async def remove(db: AsyncConnection, rule: Rule) -> bool:
    """Take a rule away, and follow nobody who has none left. False where it was gone already."""
    gone = await db.execute(
        text("DELETE FROM suppression_rules WHERE id = :id RETURNING id"), {"id": rule.id}
    )
    if gone.one_or_none() is None:
        return False
    for application in list((await db.execute(_UNRULED, {"follower": FOLLOWER})).scalars()):
        await feed.stop(db, FOLLOWER, application)
    return True


# One descent of the index for each application, however many messages there are.
_APPLICATIONS = """
    WITH RECURSIVE applications AS (
        (SELECT application FROM messages ORDER BY application LIMIT 1)
        UNION ALL
        SELECT (SELECT m.application FROM messages m WHERE m.application > a.application
                 ORDER BY m.application LIMIT 1)
          FROM applications a WHERE a.application IS NOT NULL
    )
    SELECT application FROM applications WHERE application IS NOT NULL
"""

_KNOWN = text(_APPLICATIONS)

_NEW_HERE = text(f"""
    {_APPLICATIONS}
       AND EXISTS (SELECT FROM suppression_rules WHERE application = '')
       AND NOT EXISTS (SELECT FROM feeds
                        WHERE follower = :follower AND feeds.application = applications.application)
""")  # noqa: S608


async def applications(db: AsyncConnection) -> list[str]:
    """List the applications that have sent anything."""
    return list((await db.execute(_KNOWN)).scalars())


async def judge(db: AsyncConnection, *, limit: int) -> int | None:
    """Look at what happened since the last look, to one application's messages; `limit` bounds the events.

    Return how many entries were added; None where there is nothing to look at.
    """
    # Whoever came after a rule of every application is followed from its beginning: all of it is new.
    for newcomer in list((await db.execute(_NEW_HERE, {"follower": FOLLOWER})).scalars()):
        await feed.start(db, FOLLOWER, newcomer, from_the_beginning=True)
    for application in await feed.behind(db, FOLLOWER, limit=10):
        events = await feed.follow(db, FOLLOWER, application, limit=limit)
        if events:
            added = await _judge(db, application, events)
            await feed.advance(db, FOLLOWER, application, seen=events[-1].id)
            return added
    return None


_RULES = text(f"SELECT {_COLUMNS} FROM suppression_rules WHERE application IN ('', :application) ORDER BY id")  # noqa: S608

_LIVE = text("SELECT id FROM messages WHERE id = ANY(:ids) AND NOT test")


async def _judge(db: AsyncConnection, application: str, events: Sequence[EventView]) -> int:
    failed = [event for event in events if event.to_status in _FAILURES]
    if not failed:
        return 0
    rules = [Rule(**row) for row in (await db.execute(_RULES, {"application": application})).mappings()]
    live = set((await db.execute(_LIVE, {"ids": sorted({event.message_id for event in failed})})).scalars())
    wanted: dict[tuple[str, str], NewSuppression] = {}
    now: datetime = (await db.execute(text("SELECT clock_timestamp()"))).scalar_one()
    for rule, event, what in _hits(rules, [event for event in failed if event.message_id in live]):
        key = Address.parse(event.email).key
        if (rule.application, key) in wanted or not await _often_enough(db, rule, event, key, application):
            continue
        wanted[rule.application, key] = NewSuppression(
            application=rule.application,
            address=key,
            reason=f"rule: {what}{_often(rule)}",
            source="rule",
            created_by=rule.id,
            expires_at=None if rule.lasts_seconds is None else now + timedelta(seconds=rule.lasts_seconds),
            rule_id=rule.id,
            message_id=event.message_id,
        )
    return len(await suppressions.put(db, list(wanted.values()), replace=False)) if wanted else 0


def _hits(rules: Sequence[Rule], events: Sequence[EventView]) -> Iterator[tuple[Rule, EventView, str]]:
    for event in events:
        for rule in rules:
            what = rule.speaks_of(event)
            if what is not None and event.created_at >= rule.created_at:
                yield rule, event, what


async def _often_enough(
    db: AsyncConnection, rule: Rule, event: EventView, key: str, application: str
) -> bool:
    if rule.failures == 1:
        return True
    whose = await applications(db) if rule.application == EVERYBODY else [application]
    failures = await _failures(db, whose, key, event=event, span=timedelta(seconds=rule.within_seconds))
    return sum(rule.speaks_of(each) is not None for each in failures) >= rule.failures


_FAILED_BEFORE = text("""
    SELECT e.id, e.message_id, r.email, e.from_status, e.to_status, e.reason, e.attempt_id, e.reply, e.diagnosis,
           e.actor, e.created_at
      FROM unnest(CAST(:applications AS text[])) AS whose(application)
     CROSS JOIN LATERAL (SELECT message_id FROM facets f
                          WHERE f.application = whose.application AND f.name = 'to' AND f.value = :address
                          ORDER BY message_id DESC LIMIT :messages) AS named
      JOIN messages m ON m.id = named.message_id AND NOT m.test
      JOIN events e ON e.message_id = named.message_id
      JOIN recipients r ON r.message_id = e.message_id AND r.position = e.position
     WHERE e.to_status = ANY(:failures) AND e.created_at > CAST(:until AS timestamptz) - CAST(:span AS interval)
       AND e.created_at <= :until
""")


async def _failures(
    db: AsyncConnection, whose: Collection[str], key: str, *, event: EventView, span: timedelta
) -> list[EventView]:
    """List the failures of an address up to this one, within the span; this one is among them."""
    rows = await db.execute(
        _FAILED_BEFORE,
        {
            "applications": list(whose),
            "address": facets.value_of(key),
            "messages": _MESSAGES_COUNTED,
            "failures": list(_FAILURES),
            "until": event.created_at,
            "span": span,
        },
    )
    found = (EventView(**row) for row in rows.mappings())
    return [each for each in found if Address.parse(each.email).key == key]


def _often(rule: Rule) -> str:
    """Say how often within which span, where it is more than once."""
    if rule.failures == 1:
        return ""
    count = "twice" if rule.failures == 2 else f"{rule.failures} times"
    return f" {count} within {_in_words(rule.within_seconds)}"


def _in_words(seconds: int) -> str:
    units = ((86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))
    size, unit = next(each for each in units if seconds % each[0] == 0)
    count = seconds // size
    return f"{count} {unit}{'' if count == 1 else 's'}"
