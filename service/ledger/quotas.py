"""What a key may send: so many messages a minute and a day, counted in PostgreSQL.

A span begins with the first message after the last one ended, and is counted in the transaction that
accepts the messages: what is refused or rolled back uses nothing, and two processes cannot both take
the last one. The quota bounds an application; what Microsoft allows is counted elsewhere (`pace`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

SECONDS = {"minute": 60, "day": 86_400}


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """One quota of a key."""

    span: str  # minute, day
    most: int  # messages


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """How much of an allowance is left, and when it is whole again."""

    span: str
    most: int
    left: int
    resets_in: float  # seconds


_COUNT = text("""
    INSERT INTO quotas AS q (key_id, span, started_at, used)
    VALUES (:key, :span, clock_timestamp(), :messages)
    ON CONFLICT (key_id, span) DO UPDATE
       SET used = CASE WHEN q.started_at <= clock_timestamp() - make_interval(secs => :seconds)
                       THEN excluded.used ELSE q.used + excluded.used END,
           started_at = CASE WHEN q.started_at <= clock_timestamp() - make_interval(secs => :seconds)
                             THEN clock_timestamp() ELSE q.started_at END
    RETURNING used, extract(epoch FROM q.started_at + make_interval(secs => :seconds) - clock_timestamp())
              AS resets_in
""")


async def count(
    db: AsyncConnection, key_id: str, allowances: Sequence[Allowance], *, messages: int
) -> tuple[Use, ...]:
    """Count messages against every allowance of a key.

    Where one of the uses has `left` below 0 the caller must roll back to where it was before.
    """
    uses = []
    for allowance in sorted(allowances, key=lambda each: each.span):
        row = (
            await db.execute(
                _COUNT,
                {
                    "key": key_id,
                    "span": allowance.span,
                    "seconds": SECONDS[allowance.span],
                    "messages": messages,
                },
            )
        ).one()
        uses.append(
            Use(
                span=allowance.span,
                most=allowance.most,
                left=allowance.most - row.used,
                resets_in=max(float(row.resets_in), 0.0),
            )
        )
    return tuple(uses)
