"""How much was sent and what became of it: by application, by route, by diagnosis.

A span of time is a span of names (`ids`), so each figure is one range of an index that the search has anyway, and
no row of a message is read. What failed is looked up row by row, for its route; where even that is too much for
the patience of a reader, the ledger says so, and a shorter span is the answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.ledger.engine import transaction
from service.ledger.ids import first_id
from service.ledger.states import Status

#: States in which a recipient has not got the message, and will not by itself.
NOT_REACHED = ("failed", "expired", "bounced")

_PATIENCE = text("SET LOCAL statement_timeout = '6s'")


@dataclass(frozen=True, slots=True, kw_only=True)
class ByState:
    application: str
    status: str
    recipients: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ByName:
    """How many messages had this route, or this diagnosis."""

    name: str
    messages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NotReached:
    route: str | None  # None: it never had one
    status: str
    recipients: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """What was accepted in a span of time, and what became of it until now."""

    states: Sequence[ByState]
    routes: Sequence[ByName]
    diagnoses: Sequence[ByName]
    not_reached: Sequence[NotReached]


# One step for each application that there is, however many messages it has.
_APPLICATIONS = """
    WITH RECURSIVE applications AS (
        (SELECT application FROM messages
          WHERE CAST(:application AS text) IS NULL OR application = :application
          ORDER BY application LIMIT 1)
        UNION ALL
        SELECT (SELECT m.application FROM messages m
                 WHERE m.application > applications.application
                   AND (CAST(:application AS text) IS NULL OR m.application = :application)
                 ORDER BY m.application LIMIT 1)
          FROM applications WHERE applications.application IS NOT NULL
    )
"""

_STATES = text(f"""
    {_APPLICATIONS}
    SELECT a.application, s.status, n.recipients
      FROM applications a CROSS JOIN unnest(CAST(:states AS text[])) AS s (status)
     CROSS JOIN LATERAL (SELECT count(*) AS recipients FROM recipients r
                          WHERE r.application = a.application AND r.status = s.status
                            AND r.message_id >= :since) AS n
     WHERE a.application IS NOT NULL AND n.recipients > 0
     ORDER BY a.application, s.status
""")  # noqa: S608  # every word of this SQL is our own

# … and one for each route or diagnosis that an application ever met.
_NAMES = text(f"""
    {_APPLICATIONS}, met AS (
        SELECT a.application, (SELECT f.value FROM facets f WHERE f.application = a.application
                                  AND f.name = :name ORDER BY f.value LIMIT 1) AS value
          FROM applications a WHERE a.application IS NOT NULL
        UNION ALL
        SELECT met.application, (SELECT f.value FROM facets f WHERE f.application = met.application
                                    AND f.name = :name AND f.value > met.value ORDER BY f.value LIMIT 1)
          FROM met WHERE met.value IS NOT NULL
    )
    SELECT met.value AS name, sum(n.messages) AS messages
      FROM met CROSS JOIN LATERAL (SELECT count(*) AS messages FROM facets f
                                    WHERE f.application = met.application AND f.name = :name
                                      AND f.value = met.value AND f.message_id >= :since) AS n
     WHERE met.value IS NOT NULL GROUP BY met.value HAVING sum(n.messages) > 0
     ORDER BY messages DESC, name
""")  # noqa: S608

_NOT_REACHED = text(f"""
    {_APPLICATIONS}
    SELECT d.route, s.status, count(*) AS recipients
      FROM applications a CROSS JOIN unnest(CAST(:states AS text[])) AS s (status)
      JOIN recipients r ON r.application = a.application AND r.status = s.status AND r.message_id >= :since
      LEFT JOIN deliveries d ON d.id = r.delivery_id
     WHERE a.application IS NOT NULL
     GROUP BY d.route, s.status ORDER BY d.route, s.status
""")  # noqa: S608


async def volume(db: AsyncConnection, *, since: datetime, application: str | None) -> Volume:
    """Count what was accepted since then, of one application or of all."""
    await db.execute(_PATIENCE)
    given = {"since": first_id("msg", since), "application": application}
    states = await db.execute(_STATES, {**given, "states": [str(state) for state in Status]})
    routes = await db.execute(_NAMES, {**given, "name": "route"})
    diagnoses = await db.execute(_NAMES, {**given, "name": "diagnosis"})
    not_reached = await db.execute(_NOT_REACHED, {**given, "states": list(NOT_REACHED)})
    return Volume(
        states=[ByState(**row) for row in states.mappings()],
        routes=[ByName(name=row.name, messages=int(row.messages)) for row in routes],
        diagnoses=[ByName(name=row.name, messages=int(row.messages)) for row in diagnoses],
        not_reached=[NotReached(**row) for row in not_reached.mappings()],
    )


class Volumes:
    """Figures for reports, each reading a transaction."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def volume(self, *, since: datetime, application: str | None) -> Volume:
        """Count what was accepted since then; see the function of this name."""
        async with transaction(self._engine) as db:
            return await volume(db, since=since, application=application)
