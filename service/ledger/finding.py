# ruff: noqa: S608  (every word of this SQL is our own, and every value a parameter)
"""Find messages: by everything that people ask for, newest first, at a cost that does not grow.

Each filter alone is answered by an index. Where several are given, one leads: its index is walked in the
order of the ids from the cursor on, and each row is held against the others. The order of the leaders is
that of how few messages a value usually has: an address before a tag, a tag before a state.

    facets        to, domain, route, lane, tag, metadata, code, enhanced, diagnosis: their primary key
    columns       from, message_id, idempotency_key, stream: indexes of `messages`
    status        the index on the states of recipients, then held against the state of the whole message
    a code of     the same index: nearly all that were taken were answered alike
      success
    subject       the index of words, or the newest messages one by one, as PostgreSQL's statistics say

An application's messages are one range of each of these indexes, so an operator who asks for all of
them has the ranges of all applications merged (`_applications`).

Ids begin with the time in milliseconds, so a span of time is a span of ids.
"""

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.ledger import facets, history
from service.ledger.engine import transaction
from service.ledger.history import MessageView
from service.ledger.ids import first_id

#: What stands in a column of `messages`.
COLUMNS = {
    "message_id": "message_id",
    "idempotency_key": "idempotency_key",
    "from": "from_key",
    "stream": "stream",
}

#: What leads where several filters are given: the one that fewest messages share.
_LEADERS = (
    "message_id", "idempotency_key", "to", facets.METADATA, "tag", "diagnosis", "enhanced", "code", "from",
    "domain", "lane", "status", "route",
)  # fmt: skip

#: States of a message that say something else than the same state of one recipient.
_MIXED = ("failed", "partially_sent")

#: States of recipients of which at least one is in a message of a mixed state.
_IN_MIXED = ("failed", "expired", "canceled", "bounced", "suppressed")

#: States of recipients that were answered with success.
_TAKEN = ("sent", "delivered", "bounced")

#: A message's id is made a little after the time that it shows as its own.
_SLACK = timedelta(minutes=10)

#: The signs that part words, here and in the function `subject_words` of the schema.
_SIGNS = str.maketrans(dict.fromkeys(string.punctuation, " "))


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What is looked for; all of it has to hold."""

    application: str | None = None  # None: every application's
    status: str | None = None  # of the whole message
    subject: str | None = None  # words, each of which begins a word of the subject
    columns: Mapping[str, str] = field(default_factory=dict)  # by the names of `COLUMNS`
    facets: Mapping[str, str] = field(default_factory=dict)  # by their names, `metadata.…` among them
    success: Mapping[str, str] = field(default_factory=dict)  # code, enhanced: of a reply that is a success
    created_after: datetime | None = None  # at or after
    created_before: datetime | None = None  # before


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Which part of what is found, newest first."""

    limit: int
    after: str | None = None  # older than this message
    before: str | None = None  # newer than this message


# Whether the index of words or the newest messages are looked through depends on the word. A plan for any word, which
# PostgreSQL makes when it has seen a statement five times, is wrong for rare ones: it looks through everything.
_BY_ITS_WORDS = text("SET LOCAL plan_cache_mode = force_custom_plan")


async def find(db: AsyncConnection, wanted: Filters, bounds: Bounds) -> list[MessageView]:
    """Find messages: up to `limit + 1` of them, newest first; with `before` oldest first."""
    question = _Question(wanted, bounds)
    if wanted.subject is not None:
        await db.execute(_BY_ITS_WORDS)
    ids = list((await db.execute(text(question.sql()), question.values)).scalars())
    return await history.messages(db, ids, application=wanted.application)


# One step for each application that there is, however many messages it has.
_APPLICATIONS = """
    WITH RECURSIVE applications AS (
        (SELECT application FROM messages ORDER BY application LIMIT 1)
        UNION ALL
        SELECT (SELECT m.application FROM messages m WHERE m.application > applications.application
                 ORDER BY m.application LIMIT 1)
          FROM applications WHERE applications.application IS NOT NULL
    )
"""


class _Question:
    """One search, as SQL: our own words, and every value a parameter."""

    def __init__(self, wanted: Filters, bounds: Bounds) -> None:
        self.values: dict[str, Any] = {"most": bounds.limit + 1}
        self._wanted = wanted
        self._bounds = bounds
        self._newest_first = bounds.before is None

    def sql(self) -> str:
        order = "DESC" if self._newest_first else "ASC"
        found = f"{self._leader()} ORDER BY id {order} LIMIT :most"
        if self._wanted.application is not None:
            self.values["application"] = self._wanted.application
            return f"SELECT id FROM ({found.replace('$application', ':application')}) AS found ORDER BY id {order}"
        inner = found.replace("$application", "applications.application")
        return (
            f"{_APPLICATIONS} SELECT found.id FROM applications CROSS JOIN LATERAL ({inner}) AS found"
            f" WHERE applications.application IS NOT NULL ORDER BY found.id {order} LIMIT :most"
        )

    def _leader(self) -> str:
        """Choose what is walked, and hold the rest against it."""
        for name in _LEADERS:
            if name in self._wanted.columns:
                return self._from_messages()
            if name == "status" and self._wanted.status is not None:
                status = self._wanted.status
                return self._from_states(_IN_MIXED if status in _MIXED else (status,))
            if name in self._wanted.success:
                return self._from_states(_TAKEN)
            for facet in self._wanted.facets:
                if facet == name or (name == facets.METADATA and facet.startswith(name)):
                    return self._from_facet(facet)
        return self._from_messages()

    def _from_messages(self) -> str:
        return self._select("SELECT m.id FROM messages m WHERE m.application = $application", "m.id")

    def _from_facet(self, name: str) -> str:
        self.values["lead_name"], self.values["lead_value"] = name, self._wanted.facets[name]
        return self._select(
            "SELECT f.message_id AS id FROM facets f JOIN messages m ON m.id = f.message_id"
            " WHERE f.application = $application AND f.name = :lead_name AND f.value = :lead_value",
            "f.message_id",
            lead=name,
        )

    def _from_states(self, states: Sequence[str]) -> str:
        """Walk the states of recipients; a message with several recipients is met several times in a row."""
        parts = []
        order = "DESC" if self._newest_first else "ASC"
        for number, state in enumerate(states):
            self.values[f"state_{number}"] = state
            part = self._select(
                "SELECT DISTINCT r.message_id AS id FROM recipients r JOIN messages m ON m.id = r.message_id"
                f" WHERE r.application = $application AND r.status = :state_{number}",
                "r.message_id",
            )
            parts.append(f"(SELECT id FROM ({part} ORDER BY id {order} LIMIT :most) AS part_{number})")
        return f"SELECT DISTINCT id FROM ({' UNION ALL '.join(parts)}) AS parts"

    def _select(self, head: str, cursor: str, *, lead: str | None = None) -> str:
        return " AND ".join([head, *self._span(cursor), *self._rest(lead)])

    def _span(self, cursor: str) -> list[str]:
        conditions = []
        since, until = self._wanted.created_after, self._wanted.created_before
        spans = (
            ("after", "<", self._bounds.after),
            ("before", ">", self._bounds.before),
            ("since_id", ">=", since and first_id("msg", since - _SLACK)),
            ("until_id", "<", until and first_id("msg", until + _SLACK)),
        )
        for name, comparison, value in spans:
            if value is not None:
                self.values[name] = value
                conditions.append(f"{cursor} {comparison} :{name}")
        return conditions

    def _rest(self, lead: str | None) -> list[str]:
        """What every row is held against."""
        conditions = []
        for number, (name, value) in enumerate(self._wanted.facets.items()):
            if name != lead:
                self.values |= {f"name_{number}": name, f"value_{number}": value}
                conditions.append(
                    "EXISTS (SELECT 1 FROM facets x WHERE x.application = m.application"
                    f" AND x.name = :name_{number} AND x.value = :value_{number} AND x.message_id = m.id)"
                )
        for name, value in self._wanted.columns.items():
            self.values[name] = value
            conditions.append(f"m.{COLUMNS[name]} = :{name}")
        for name, value in self._wanted.success.items():
            self.values[name] = value
            # A value of its own and no EXISTS, for which PostgreSQL would expect few and sort them all.
            conditions.append(
                f"(SELECT bool_or(t.reply ->> '{name}' = :{name}) FROM recipients t WHERE t.message_id = m.id)"
            )
        for name, comparison, at in (
            ("since", ">=", self._wanted.created_after),
            ("until", "<", self._wanted.created_before),
        ):
            if at is not None:
                self.values[name] = at
                conditions.append(f"m.created_at {comparison} :{name}")
        if self._wanted.status is not None:
            self.values["status"] = self._wanted.status
            conditions.append("message_status(m.id) = :status")
        if self._wanted.subject is not None:
            conditions.append(self._about(self._wanted.subject))
        return conditions

    def _about(self, subject: str) -> str:
        words = subject.translate(_SIGNS).split()
        if not words:  # signs only: they are no words, so the subject is compared as it is
            self.values["subject"] = subject
            return "m.subject = :subject"
        self.values["words"] = " & ".join(f"'{word}':*" for word in words)
        return "subject_words(m.subject) @@ to_tsquery('simple', :words)"


class Finding:
    """Searches, each in a transaction of its own."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def find(self, wanted: Filters, bounds: Bounds) -> Sequence[MessageView]:
        """Find messages; see the function of this name."""
        async with transaction(self._engine) as db:
            return await find(db, wanted, bounds)
