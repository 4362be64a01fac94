"""What suppressions do to mail that waits already, and suppressions as the other rooms hold them.

An entry stops what waits for it: recipients that are scheduled, queued, held or deferred become
`suppressed` in the transaction that writes the entry, as far as a moment goes. The rest is the worker's: each
new entry is swept until nothing is open for it. So a domain with a hundred thousand waiting messages delays
nobody's request, and a message that was accepted in the same instant, by a process that did not know of the
entry yet, is found as well. What is in a peer's hands (`sending`, `uncertain`) takes its course, and is
stopped when it comes back to wait.

Deliveries are locked before their recipients and passed over where somebody has them, as in a claim.
"""

import json
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.ledger import audit, facets, suppression_rules, suppressions
from service.ledger.audit import Actor
from service.ledger.closing import settle_deliveries
from service.ledger.engine import transaction
from service.ledger.states import MOVES, OPEN, Status
from service.ledger.suppression_rules import NewRule, Rule
from service.ledger.suppressions import (
    COLUMNS,
    EVERYBODY,
    Added,
    ErrorOf,
    Filters,
    NewSuppression,
    Suppression,
)
from service.mail.address import Address

#: From where an entry can stop a recipient.
_WAITING = tuple(status for status in OPEN if Status.SUPPRESSED in MOVES[status])

#: Messages that one step looks at.
_PAGE = 200

#: Entries of one application that are swept together.
_SWEPT_TOGETHER = 200

#: Seconds that stopping may take of the request that adds an entry.
_MOMENT = 0.4

_OLDEST_OPEN = text("""
    SELECT min(first.message_id) FROM unnest(CAST(:open AS text[])) AS status
     CROSS JOIN LATERAL (SELECT message_id FROM recipients
                          WHERE application = :application AND recipients.status = status.status
                          ORDER BY message_id LIMIT 1) AS first
""")

# One walk along the index for each entry, which ends after a page: a domain may have a million messages.
_FOR_THEM = text("""
    SELECT DISTINCT found.message_id
      FROM unnest(CAST(:names AS text[]), CAST(:values AS text[])) AS entry(name, value)
     CROSS JOIN LATERAL (
           SELECT f.message_id FROM facets f
            WHERE f.application = :application AND f.name = entry.name AND f.value = entry.value
              AND f.message_id >= :start
              AND EXISTS (SELECT FROM recipients r WHERE r.message_id = f.message_id AND r.status = ANY(:open))
            ORDER BY f.message_id LIMIT :most) AS found
     ORDER BY found.message_id LIMIT :most
""")

_FREE = text("""
    SELECT id FROM deliveries WHERE message_id = ANY(:messages) AND finished_at IS NULL AND attempt_id IS NULL
     ORDER BY id FOR UPDATE SKIP LOCKED
""")

_OPEN = text("""
    SELECT message_id, position, email, status, delivery_id FROM recipients
     WHERE message_id = ANY(:messages) AND status = ANY(:open)
""")

_STOP = text("""
    UPDATE recipients r
       SET status = 'suppressed', reason = row.reason, error = row.error, due_at = NULL,
           updated_at = clock_timestamp(), finished_at = clock_timestamp()
      FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS row(
           message_id text, position smallint, reason text, error jsonb)
     WHERE r.message_id = row.message_id AND r.position = row.position AND r.status = ANY(:waiting)
    RETURNING r.delivery_id
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """One step through an application's open messages."""

    stopped: int = 0
    left: frozenset[str] = frozenset()  # ids of entries with open recipients that could not be stopped now
    last: str | None = None  # the message behind which the next step begins; None: this was all


async def _step(
    db: AsyncConnection, application: str, entries: Sequence[Suppression], error_of: ErrorOf, *, after: str
) -> _Step:
    """Stop what waits for these entries in some messages of one application, the oldest first."""
    oldest = await db.scalar(_OLDEST_OPEN, {"application": application, "open": list(OPEN)})
    if oldest is None:
        return _Step()
    by_address = {entry.address: entry for entry in entries}
    named = {
        "names": ["domain" if each.startswith("@") else "to" for each in by_address],
        "values": [facets.value_of(each.removeprefix("@")) for each in by_address],
    }
    # Behind `after`: an id never ends before a longer text that begins with it.
    start = max(oldest, f"{after} ")
    given = {"application": application, "start": start, "open": list(OPEN), "most": _PAGE, **named}
    messages = list((await db.execute(_FOR_THEM, given)).scalars())
    if not messages:
        return _Step()
    free = set((await db.execute(_FREE, {"messages": messages})).scalars())
    rows, left = [], set()
    for row in await db.execute(_OPEN, {"messages": messages, "open": list(OPEN)}):
        entry = _nearest(by_address, row.email)
        if entry is None:
            continue
        if row.status in _WAITING and row.delivery_id in free:
            rows.append({**row._mapping, "reason": entry.code, "error": error_of(entry)})  # noqa: SLF001  (public by documentation)
        else:
            left.add(entry.id)
    await _stop(db, rows)
    return _Step(
        stopped=len(rows), left=frozenset(left), last=messages[-1] if len(messages) == _PAGE else None
    )


def _nearest(by_address: Mapping[str, Suppression], email: str) -> Suppression | None:
    names = suppressions.entries_of(Address.parse(email).key)
    return next((by_address[name] for name in names if name in by_address), None)


async def _stop(db: AsyncConnection, rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        return
    given = {"rows": json.dumps(rows), "waiting": list(_WAITING)}
    deliveries = list((await db.execute(_STOP, given)).scalars())
    await facets.add_replies(db, ((row["message_id"], {"error": row["error"]}) for row in rows))
    await settle_deliveries(db, deliveries, [])


async def _applications(db: AsyncConnection, entries: Iterable[Suppression]) -> list[str]:
    """List the applications whose mail these entries stop."""
    named = {entry.application for entry in entries}
    if EVERYBODY in named:
        return await suppression_rules.applications(db)
    return sorted(named)


async def stop_for_a_moment(
    db: AsyncConnection, entries: Sequence[Suppression], error_of: ErrorOf, *, seconds: float
) -> int:
    """Stop what waits for new entries, as far as the time goes; return how many recipients. The sweep does the rest."""
    until = time.monotonic() + seconds
    stopped = 0
    for application in await _applications(db, entries):
        after: str | None = ""
        while after is not None and time.monotonic() < until:
            try:
                async with db.begin_nested():
                    await db.execute(text(f"SET LOCAL statement_timeout = {int(seconds * 1000)}"))
                    step = await _step(db, application, entries, error_of, after=after)
                    await db.execute(text("SET LOCAL statement_timeout TO DEFAULT"))
            except DBAPIError as exc:
                if getattr(exc.orig, "sqlstate", None) != "57014":  # query_canceled: it took too long
                    raise
                return stopped
            stopped, after = stopped + step.stopped, step.last
    return stopped


# A worker that dies over a sweep leaves it to another one.
_TAKE = text(f"""
    WITH first AS (
        SELECT application FROM suppressions WHERE sweep_at <= clock_timestamp()
         ORDER BY sweep_at LIMIT 1 FOR UPDATE SKIP LOCKED
    ), due AS (
        SELECT id FROM suppressions
         WHERE sweep_at <= clock_timestamp() AND application = (SELECT application FROM first)
         ORDER BY sweep_at LIMIT :most FOR UPDATE SKIP LOCKED
    )
    UPDATE suppressions s SET sweep_at = now() + interval '60 seconds' FROM due WHERE s.id = due.id
    RETURNING {COLUMNS}, s.sweep_at AS lease
""")  # noqa: S608  (our own words)

# A process that does not know of the entry yet knows after a second. What is open after a week stays so.
_SWEPT = text("""
    UPDATE suppressions
       SET sweep_at = CASE
               WHEN expires_at <= clock_timestamp() OR updated_at < clock_timestamp() - interval '7 days' THEN NULL
               WHEN id = ANY(:left) THEN clock_timestamp() + interval '15 seconds'
               WHEN updated_at > clock_timestamp() - interval '3 seconds' THEN clock_timestamp() + interval '3 seconds'
           END
     WHERE id = ANY(:ids) AND sweep_at = :lease
""")


class Suppressions:
    """Suppressions as the other rooms hold them: each method is one short transaction, but for `sweep`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self.changes = (
            0  # of the entries, by this process: what somebody remembers of them is old when it moves
        )

    # -- entries -------------------------------------------------------------------------

    async def any_for(self, application: str) -> bool:
        """Say whether the application has any entry, of its own or of everybody's."""
        async with transaction(self._engine) as db:
            return await suppressions.any_for(db, application)

    async def among(self, application: str, keys: Collection[str]) -> dict[str, Suppression]:
        """Find those of these addresses, in their comparison form, that get no mail of the application."""
        async with transaction(self._engine) as db:
            return await suppressions.among(db, application, keys)

    async def listed(
        self, wanted: Filters, *, after: str | None, before: str | None, most: int
    ) -> list[Suppression]:
        """Read a part of the list: newest first, or oldest first with `before`."""
        async with transaction(self._engine) as db:
            return await suppressions.listed(db, wanted, after=after, before=before, most=most)

    async def one(self, suppression_id: str, *, sees: str | None) -> Suppression | None:
        """Return one entry, or None where there is none that this application sees."""
        async with transaction(self._engine) as db:
            return await suppressions.one(db, suppression_id, sees=sees)

    async def add(
        self, wanted: Sequence[NewSuppression], actor: Actor, error_of: ErrorOf
    ) -> tuple[list[Added], int]:
        """Add entries by hand, or change them, and stop what waits for them.

        Return the entries in their order, and how many recipients were stopped at once.
        """
        async with transaction(self._engine) as db:
            await audit.speak_as(db, actor)
            added = await suppressions.put(db, wanted, replace=True)
            entries = [each.suppression for each in added]
            stopped = await stop_for_a_moment(db, entries, error_of, seconds=_MOMENT)
            for each in added:
                await audit.write(
                    db,
                    actor,
                    action="suppression.create" if each.new else "suppression.update",
                    target=each.suppression.id,
                    details={
                        "application": each.suppression.application,
                        "address": each.suppression.address,
                    },
                )
        self.changes += 1
        return added, stopped

    async def remove(self, entry: Suppression, actor: Actor) -> bool:
        """Lift a suppression; what it stopped stays stopped. False where it was gone already."""
        async with transaction(self._engine) as db:
            gone = await suppressions.remove(db, entry.id)
            if gone:
                await audit.write(
                    db,
                    actor,
                    action="suppression.delete",
                    target=entry.id,
                    details={"application": entry.application, "address": entry.address},
                )
        self.changes += 1
        return gone

    async def sweep(self, error_of: ErrorOf) -> int | None:
        """Stop what waits for entries of one application whose time has come.

        Return how many recipients; None where there is no such entry.
        """
        async with transaction(self._engine) as db:
            taken = (await db.execute(_TAKE, {"most": _SWEPT_TOGETHER})).mappings().all()
            if not taken:
                return None
            entries = [
                Suppression(**{name: value for name, value in row.items() if name != "lease"})
                for row in taken
            ]
            applications = await _applications(db, entries)
        stopped, left = 0, set[str]()
        for application in applications:
            after: str | None = ""
            while after is not None:
                async with transaction(self._engine) as db:
                    step = await _step(db, application, entries, error_of, after=after)
                stopped, left, after = stopped + step.stopped, left | step.left, step.last
        async with transaction(self._engine) as db:
            ids = [entry.id for entry in entries]
            await db.execute(_SWEPT, {"ids": ids, "lease": taken[0]["lease"], "left": sorted(left)})
        return stopped

    # -- rules ---------------------------------------------------------------------------

    async def rules(
        self, *, sees: str | None, after: str | None, before: str | None, most: int
    ) -> list[Rule]:
        """Read a part of the list of rules: newest first, or oldest first with `before`."""
        async with transaction(self._engine) as db:
            return await suppression_rules.listed(db, sees=sees, after=after, before=before, most=most)

    async def rule(self, rule_id: str, *, sees: str | None) -> Rule | None:
        """Return one rule, or None where there is none that this application sees."""
        async with transaction(self._engine) as db:
            return await suppression_rules.one(db, rule_id, sees=sees)

    async def add_rule(self, wanted: NewRule, actor: Actor) -> Rule:
        """Add a rule; it looks at what fails from now on."""
        async with transaction(self._engine) as db:
            rule = await suppression_rules.add(db, wanted)
            await audit.write(
                db,
                actor,
                action="suppression_rule.create",
                target=rule.id,
                details={
                    "application": rule.application,
                    "enhanced": rule.enhanced,
                    "diagnoses": rule.diagnoses,
                },
            )
            return rule

    async def remove_rule(self, rule: Rule, actor: Actor) -> bool:
        """Take a rule away; the entries that it added stay. False where it was gone already."""
        async with transaction(self._engine) as db:
            gone = await suppression_rules.remove(db, rule)
            if gone:
                details = {"application": rule.application}
                await audit.write(
                    db, actor, action="suppression_rule.delete", target=rule.id, details=details
                )
            return gone

    async def judge(self, *, limit: int) -> int | None:
        """Let the rules look at what happened to one application's messages; None where there is nothing new.

        Return how many entries they added.
        """
        async with transaction(self._engine) as db:
            added = await suppression_rules.judge(db, limit=limit)
        if added:
            self.changes += 1
        return added
