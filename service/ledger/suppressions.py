"""Suppressions: addresses and domains that get no mail, of one application or of all.

An entry is an address in its comparison form, or "@domain" for all addresses of exactly this domain. Its
application is '' where it counts for everybody. A rule or a person adds it, and it may end by itself. A
recipient that an entry names when its message is accepted is `suppressed` from the beginning; what waits
already when the entry comes is stopped too (`suppressing`).

Where several entries name one recipient the nearest one speaks: the address before the domain, the
application's own before everybody's.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.ledger.ids import new_id

Source = Literal["manual", "rule"]

#: The application of what counts for every application.
EVERYBODY = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppression:
    """An address or a domain that gets no mail."""

    id: str
    application: str  # '': every application
    address: str  # in its comparison form, or "@domain"
    reason: str  # for people
    source: Source
    rule_id: str | None
    message_id: str | None  # what made the rule speak
    created_by: str
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None

    @property
    def code(self) -> str:
        """Why a recipient of it is suppressed: the reason of its state."""
        return f"suppressed_{self.source}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSuppression:
    """What is to be suppressed."""

    application: str
    address: str
    reason: str
    source: Source
    created_by: str
    expires_at: datetime | None
    rule_id: str | None = None
    message_id: str | None = None


#: Writes the error that a suppressed recipient shows.
ErrorOf = Callable[[Suppression], Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """What became of an addition."""

    suppression: Suppression
    new: bool  # False: there was an entry already, which has changed


COLUMNS = (
    "s.id, s.application, s.address, s.reason, s.source, s.rule_id, s.message_id, s.created_by, s.created_at, "
    "s.updated_at, s.expires_at"
)

_IN_FORCE = "(s.expires_at IS NULL OR s.expires_at > clock_timestamp())"

_ANY = text("SELECT EXISTS (SELECT 1 FROM suppressions WHERE application IN ('', :application))")

_AMONG = text(f"""
    SELECT {COLUMNS} FROM suppressions s
     WHERE s.application IN ('', :application) AND s.address = ANY(:entries) AND {_IN_FORCE}
""")  # noqa: S608  (our own words)


async def any_for(db: AsyncConnection, application: str) -> bool:
    """Say whether the application has any entry, of its own or of everybody's."""
    return bool(await db.scalar(_ANY, {"application": application}))


async def among(db: AsyncConnection, application: str, keys: Collection[str]) -> dict[str, Suppression]:
    """Find those of these addresses that get no mail of the application; `keys` are comparison forms."""
    entries = sorted({entry for key in keys for entry in entries_of(key)})
    rows = await db.execute(_AMONG, {"application": application, "entries": entries})
    found = {(row["address"], row["application"]): Suppression(**row) for row in rows.mappings()}
    if not found:
        return {}
    nearest = {}
    for key in keys:
        ranked = [(entry, whose) for entry in entries_of(key) for whose in (application, EVERYBODY)]
        hit = next((found[each] for each in ranked if each in found), None)
        if hit is not None:
            nearest[key] = hit
    return nearest


def entries_of(key: str) -> tuple[str, str]:
    """Say which entries name an address: itself, and its domain."""
    return key, "@" + domain_of(key)


def domain_of(entry: str) -> str:
    """Return the domain of an address or of an entry for a whole domain."""
    return entry.rpartition("@")[2]


_PUT = text(f"""
    INSERT INTO suppressions AS s (id, application, address, domain, reason, source, rule_id, message_id, created_by,
                                   expires_at)
    SELECT id, application, address, domain, reason, source, rule_id, message_id, created_by, expires_at
      FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS row(
        id text, application text, address text, domain text, reason text, source text, rule_id text, message_id text,
        created_by text, expires_at timestamptz)
     ORDER BY application, address
    ON CONFLICT (application, address) DO UPDATE
       SET reason = excluded.reason, source = excluded.source, rule_id = excluded.rule_id,
           message_id = excluded.message_id, expires_at = excluded.expires_at,
           updated_at = clock_timestamp(), sweep_at = clock_timestamp()
     WHERE :replace OR NOT {_IN_FORCE}
    RETURNING {COLUMNS}, s.xmax = 0 AS new
""")  # noqa: S608


async def put(db: AsyncConnection, wanted: Sequence[NewSuppression], *, replace: bool) -> list[Added]:
    """Add entries, each address once; one that is there already changes where it is over, or with `replace`.

    Returned are those that were written, in the order in which they were given.
    """
    rows = [
        {
            "id": new_id("sup"),
            "application": each.application,
            "address": each.address,
            "domain": domain_of(each.address),
            "reason": each.reason,
            "source": each.source,
            "rule_id": each.rule_id,
            "message_id": each.message_id,
            "created_by": each.created_by,
            "expires_at": None if each.expires_at is None else each.expires_at.isoformat(),
        }
        for each in wanted
    ]
    written = {}
    for row in (await db.execute(_PUT, {"rows": json.dumps(rows), "replace": replace})).mappings():
        columns = {name: value for name, value in row.items() if name != "new"}
        entry = Suppression(**columns)
        written[entry.application, entry.address] = Added(suppression=entry, new=row["new"])
    wanted_order = ((each.application, each.address) for each in wanted)
    return [written[each] for each in wanted_order if each in written]


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which entries are wanted; None wants all."""

    sees: str | None  # the application that asks: it sees its own and everybody's; None sees all
    application: str | None = None
    address: str | None = None
    domain: str | None = None
    source: str | None = None


_CONDITIONS = {
    "sees": "s.application IN ('', :sees)",
    "application": "s.application = :application",
    "address": "s.address = :address",
    "domain": "s.domain = :domain",
    "source": "s.source = :source",
}


async def listed(
    db: AsyncConnection, wanted: Filters, *, after: str | None, before: str | None, most: int
) -> list[Suppression]:
    """Read a part of the list: newest first, or oldest first with `before`."""
    given = {name: getattr(wanted, name) for name in _CONDITIONS if getattr(wanted, name) is not None}
    conditions = [_CONDITIONS[name] for name in given]
    if after is not None:
        conditions.append("s.id < :after")
    if before is not None:
        conditions.append("s.id > :before")
    query = text(
        f"SELECT {COLUMNS} FROM suppressions s WHERE {' AND '.join(['true', *conditions])} "  # noqa: S608
        f"ORDER BY s.id {'ASC' if before is not None else 'DESC'} LIMIT :most"
    )
    bounds = {name: value for name, value in (("after", after), ("before", before)) if value is not None}
    rows = await db.execute(query, {**given, **bounds, "most": most})
    return [Suppression(**row) for row in rows.mappings()]


_ONE = text(f"""
    SELECT {COLUMNS} FROM suppressions s
     WHERE s.id = :id AND (CAST(:sees AS text) IS NULL OR s.application IN ('', :sees))
""")  # noqa: S608


async def one(db: AsyncConnection, suppression_id: str, *, sees: str | None) -> Suppression | None:
    """Return one entry, or None where there is none that this application sees."""
    row = (await db.execute(_ONE, {"id": suppression_id, "sees": sees})).mappings().one_or_none()
    return None if row is None else Suppression(**row)


async def remove(db: AsyncConnection, suppression_id: str) -> bool:
    """Lift a suppression; what it stopped stays stopped. False where it was gone already."""
    gone = await db.execute(
        text("DELETE FROM suppressions WHERE id = :id RETURNING id"), {"id": suppression_id}
    )
    return gone.one_or_none() is not None
