"""The pace of a lane: what its windows have used, what they leave, and when they free more.

A message counts from its claim until a whole window after the end of its attempt. The other
side counts it somewhere in between, so no window of its own can ever hold more than the
limit, whatever crashed. A lost attempt goes on counting from the moment at which its lease
was found to have run out.

Minutes and hours are counted from the attempts themselves. A day may hold very many, so
minutes that are over are summed up once (`sum_up`, by the sweep), and a day is these sums, the
attempts behind the last sum, and what is running. A minute's sum counts until the whole
minute is a day old: never too early, and too late by a minute at most. A sum that is missing
costs time and no truth (decision record 0006).

The tenant's external recipients ("Tenant External Recipient Rate Limit") are counted in the
same way over all lanes whose deliveries are marked external.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

#: The rolling windows, in seconds.
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0

#: The tenant's name among the lanes that `uses` speaks of.
_TENANT = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneLimits:
    """What the other side allows on a lane; None is "no limit known"."""

    connections: int
    messages_per_minute: int | None
    messages_per_hour: int | None
    recipients_per_day: int | None
    counts_external: bool = False  # its external recipients use the tenant's budget
    external_per_day: int | None = None  # that budget, where it is known


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One limit over one rolling window: how much of it is in use now."""

    name: str  # as in the configuration's `limits`
    limit: int
    seconds: float
    used: int

    @property
    def left(self) -> int:
        return max(self.limit - self.used, 0)


_MESSAGES_USED = """
    SELECT (SELECT count(*) FROM attempts WHERE lane = :lane AND ended_at IS NULL)
         + (SELECT count(*) FROM attempts
             WHERE lane = :lane AND ended_at > CAST(:now AS timestamptz) - make_interval(secs => :window))
"""

_MESSAGES = text(_MESSAGES_USED)

_MESSAGES_FREE = text("""
    SELECT ended_at + make_interval(secs => :window) AS at, 1 AS amount FROM attempts
     WHERE lane = :lane AND ended_at > CAST(:now AS timestamptz) - make_interval(secs => :window)
     ORDER BY ended_at
""")

#: An attempt's end is its transaction's clock, which may be this much older than its commit.
_SETTLED_AFTER = "interval '3 minutes'"

# When each part of a day's use falls out of it. The last sum marks where the attempts themselves begin;
# without any sum they begin a day ago. A sum of a minute that is not over and settled was made before the
# clock was set back: that minute comes a second time, so it is counted from the attempts.
_SUMS = f"""
    SELECT lane, minute, recipients FROM uses
     WHERE minute < date_trunc('minute', CAST(:now AS timestamptz) - {_SETTLED_AFTER})
"""  # noqa: S608  (our own words)

_SUMMED = f"""
    SELECT minute + interval '1 minute' + make_interval(secs => :window) AS at, recipients AS amount
      FROM ({_SUMS}) AS sums
     WHERE lane = :lane AND minute > CAST(:now AS timestamptz) - make_interval(secs => :window + 60)
"""  # noqa: S608

_BEHIND_THE_SUMS = f"""
    ended_at >= greatest(CAST(:now AS timestamptz) - make_interval(secs => :window),
                         (SELECT max(minute) + interval '1 minute' FROM ({_SUMS}) AS sums))
"""  # noqa: S608

_DAY_OF_LANE = f"""
    {_SUMMED}
    UNION ALL
    SELECT ended_at + make_interval(secs => :window), recipient_count FROM attempts
     WHERE lane = :lane AND {_BEHIND_THE_SUMS}
    UNION ALL
    SELECT NULL, recipient_count FROM attempts WHERE lane = :lane AND ended_at IS NULL
"""  # noqa: S608

_DAY_OF_TENANT = f"""
    {_SUMMED}
    UNION ALL
    SELECT ended_at + make_interval(secs => :window), external_count FROM attempts
     WHERE external_count > 0 AND {_BEHIND_THE_SUMS}
    UNION ALL
    SELECT NULL, external_count FROM attempts WHERE external_count > 0 AND ended_at IS NULL
"""  # noqa: S608

_USED = {
    name: text(f"SELECT coalesce(sum(amount), 0) FROM ({rows}) AS day")  # noqa: S608  (our own words)
    for name, rows in {"lane": _DAY_OF_LANE, "tenant": _DAY_OF_TENANT}.items()
}
_FREE = {
    name: text(f"SELECT at, amount FROM ({rows}) AS day WHERE at IS NOT NULL ORDER BY at")  # noqa: S608
    for name, rows in {"lane": _DAY_OF_LANE, "tenant": _DAY_OF_TENANT}.items()
}


async def message_windows(
    db: AsyncConnection, lane: str, limits: LaneLimits, now: datetime
) -> tuple[Window, ...]:
    """Read the windows that count messages."""
    wanted = [
        ("messages_per_minute", limits.messages_per_minute, MINUTE),
        ("messages_per_hour", limits.messages_per_hour, HOUR),
    ]
    return tuple(
        [
            Window(
                name=name,
                limit=limit,
                seconds=seconds,
                used=int(await db.scalar(_MESSAGES, {"lane": lane, "now": now, "window": seconds}) or 0),
            )
            for name, limit, seconds in wanted
            if limit is not None
        ]
    )


async def day_window(db: AsyncConnection, lane: str, limits: LaneLimits, now: datetime) -> Window | None:
    """Read the lane's window of recipients a day; None where it has no such limit."""
    if limits.recipients_per_day is None:
        return None
    used = await db.scalar(_USED["lane"], {"lane": lane, "now": now, "window": DAY})
    return Window(
        name="recipients_per_day", limit=limits.recipients_per_day, seconds=DAY, used=int(used or 0)
    )


async def external_window(db: AsyncConnection, limits: LaneLimits, now: datetime) -> Window | None:
    """Read the tenant's window of external recipients; None where it is not known, or the lane does not count."""
    if limits.external_per_day is None or not limits.counts_external:
        return None
    used = await db.scalar(_USED["tenant"], {"lane": _TENANT, "now": now, "window": DAY})
    return Window(
        name="external_recipients_per_day", limit=limits.external_per_day, seconds=DAY, used=int(used or 0)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Freed:
    """At this time so much falls out of a window."""

    at: datetime
    amount: int


async def frees(db: AsyncConnection, window: Window, lane: str, now: datetime) -> list[Freed]:
    """List what falls out of a window, and when, the first first. What is running is not in it."""
    if window.name.startswith("messages"):
        found = await db.execute(_MESSAGES_FREE, {"lane": lane, "now": now, "window": window.seconds})
    elif window.name == "external_recipients_per_day":
        found = await db.execute(_FREE["tenant"], {"lane": _TENANT, "now": now, "window": window.seconds})
    else:
        found = await db.execute(_FREE["lane"], {"lane": lane, "now": now, "window": window.seconds})
    return [Freed(at=row.at, amount=row.amount) for row in found]


async def free_at(
    db: AsyncConnection, window: Window, lane: str, now: datetime, *, wanted: int = 1
) -> datetime | None:
    """Say when the window will leave room for `wanted`; None while what fills it is still running."""
    surplus = window.used + wanted - window.limit
    if surplus <= 0:
        return now
    for freed in await frees(db, window, lane, now):
        surplus -= freed.amount
        if surplus <= 0:
            return freed.at
    return None


def _of_each(used: str) -> TextClause:
    """Make a statement about several lanes of one about `:lane`."""
    each = used.replace(":lane", "name")
    return text(f"SELECT name, ({each}) AS used FROM unnest(CAST(:lanes AS text[])) AS name")  # noqa: S608


_MESSAGES_OF_EACH = _of_each(_MESSAGES_USED)
_DAY_OF_EACH = _of_each(f"SELECT coalesce(sum(amount), 0) FROM ({_DAY_OF_LANE}) AS day")  # noqa: S608


async def windows_of_lanes(db: AsyncConnection, limits: Mapping[str, LaneLimits]) -> list[tuple[str, Window]]:
    """Read the windows of several lanes at once, each with its lane; the tenant's stands there once, with none."""
    now: datetime = (await db.execute(text("SELECT clock_timestamp()"))).scalar_one()
    found: list[tuple[str, Window]] = []
    for name, seconds, statement in (
        ("messages_per_minute", MINUTE, _MESSAGES_OF_EACH),
        ("messages_per_hour", HOUR, _MESSAGES_OF_EACH),
        ("recipients_per_day", DAY, _DAY_OF_EACH),
    ):
        limited = {lane: limit for lane, each in limits.items() if (limit := getattr(each, name)) is not None}
        if not limited:
            continue
        used = await db.execute(statement, {"lanes": list(limited), "now": now, "window": seconds})
        found += [
            (row.name, Window(name=name, limit=limited[row.name], seconds=seconds, used=int(row.used)))
            for row in used
        ]
    counts = next((each for each in limits.values() if each.counts_external and each.external_per_day), None)
    tenant = None if counts is None else await external_window(db, counts, now)
    return [*found, *([] if tenant is None else [(_TENANT, tenant)])]


# What was summed up before the clock was set back is summed up again when its minutes have come again.
_TAKE_BACK = text(f"""
    DELETE FROM uses WHERE minute >= date_trunc('minute', clock_timestamp() - {_SETTLED_AFTER})
""")  # noqa: S608

_SUM_UP = text(f"""
    WITH span AS (
        SELECT coalesce((SELECT max(minute) + interval '1 minute' FROM uses),
                        date_trunc('minute', clock_timestamp() - interval '25 hours')) AS since,
               date_trunc('minute', clock_timestamp() - {_SETTLED_AFTER}) AS until
    ), ended AS (
        SELECT lane, date_trunc('minute', ended_at) AS minute, recipient_count, external_count
          FROM attempts, span WHERE ended_at >= span.since AND ended_at < span.until
    )
    INSERT INTO uses (lane, minute, recipients)
    SELECT lane, minute, sum(recipient_count) FROM ended GROUP BY lane, minute
    UNION ALL
    SELECT '', minute, sum(external_count) FROM ended GROUP BY minute
    ON CONFLICT DO NOTHING
""")  # noqa: S608

_DROP_OLD = text("DELETE FROM uses WHERE minute < clock_timestamp() - interval '25 hours'")


async def sum_up(db: AsyncConnection) -> None:
    """Sum up the minutes that are over, once for all workers, and drop sums that no window needs."""
    if not await db.scalar(text("SELECT pg_try_advisory_xact_lock(hashtext('postroom.uses'))")):
        return  # somebody else is at it
    for statement in (_TAKE_BACK, _SUM_UP, _DROP_OLD):
        await db.execute(statement)
