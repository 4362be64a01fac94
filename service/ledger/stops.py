"""Senders that rest on a lane.

Exchange Online refuses a mailbox altogether when the same administrator's error is repeated
("Sender throttled due to continuous send as denied errors", 5.2.252). So after a refusal the
sender's mail on the lane goes one by one, and after the third in a row it waits, until one delivery
has tried it again.

What waits is moved to the end of the stop where a claim meets it, and comes back as soon as a
delivery of that sender is taken. Other senders of the lane never notice (decision record 0007).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

#: So many refusals in a row, without a message that was taken between them, let a sender rest.
REFUSALS = 3

#: A probe has this long before the next one may start, in seconds; its end decides earlier.
_PROBE = 5.0

#: Deliveries that one claim moves at the most.
_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    sender: str
    until: datetime
    error: Mapping[str, Any]
    troubles: int


_OF_LANE = text("SELECT sender, until, error, troubles FROM stops WHERE lane = :lane ORDER BY sender")

# Until the refusals are enough the stop ends as it begins: the sender is tried by one delivery at a time.
_STOP = text("""
    INSERT INTO stops AS s (lane, sender, until, error)
    VALUES (:lane, :sender, clock_timestamp(), CAST(:error AS jsonb))
    ON CONFLICT (lane, sender) DO UPDATE
       SET troubles = s.troubles + 1, error = excluded.error, probing = false,
           until = clock_timestamp() + make_interval(secs => CASE
               WHEN s.troubles + 1 < :enough THEN 0
               WHEN s.troubles + 1 = :enough THEN CAST(:first AS float8)
               ELSE least(CAST(:cap AS float8), :first * power(CAST(:factor AS float8), least(s.troubles + 1 - :enough, 30)))
               END)
     WHERE s.probing OR s.until <= clock_timestamp()
""")

_PROBE_NOW = text("""
    UPDATE stops SET probing = true, until = CAST(:now AS timestamptz) + make_interval(secs => :probe)
     WHERE lane = :lane AND sender = :sender RETURNING until
""")

_HOLD_BACK = text("""
    WITH waiting AS (
        SELECT id FROM deliveries
         WHERE lane = :lane AND due_at <= :now AND sender = :sender AND NOT id = ANY(:spared)
         LIMIT :most FOR UPDATE SKIP LOCKED
    ), moved AS (
        UPDATE recipients r SET due_at = :until FROM waiting
         WHERE r.delivery_id = waiting.id AND r.due_at <= :now AND r.finished_at IS NULL
    )
    UPDATE deliveries d SET due_at = :until FROM waiting WHERE d.id = waiting.id
""")

_LIFT = text("DELETE FROM stops WHERE lane = :lane AND sender = :sender RETURNING until")

# now() for both, so that no claim can find the one due and the others not.
_BRING_BACK = text("""
    WITH back AS (
        UPDATE deliveries SET due_at = now()
         WHERE lane = :lane AND sender = :sender AND due_at = :until RETURNING id
    )
    UPDATE recipients r SET due_at = now() FROM back
     WHERE r.delivery_id = back.id AND r.due_at = :until AND r.finished_at IS NULL
""")


async def of_lane(db: AsyncConnection, lane: str) -> dict[str, Stop]:
    """Return the senders that rest on a lane."""
    rows = await db.execute(_OF_LANE, {"lane": lane})
    return {row.sender: Stop(**row) for row in rows.mappings()}


async def stop(
    db: AsyncConnection,
    lane: str,
    sender: str,
    *,
    error: Mapping[str, Any],
    first: float,
    factor: float,
    cap: float,
) -> None:
    """Rest a sender on a lane; refusals that come together are one, a refused probe makes it longer."""
    await db.execute(
        _STOP,
        {
            "lane": lane,
            "sender": sender,
            "error": json.dumps(error),
            "enough": REFUSALS,
            "first": first,
            "factor": factor,
            "cap": cap,
        },
    )


async def lift(db: AsyncConnection, lane: str, sender: str) -> bool:
    """The sender was taken: what was held back is due again. Return whether there was a stop."""
    until = await db.scalar(_LIFT, {"lane": lane, "sender": sender})
    if until is None:
        return False
    await db.execute(_BRING_BACK, {"lane": lane, "sender": sender, "until": until})
    return True


_TRY_NOW = text("""
    WITH ended AS (
        SELECT lane, sender, until FROM stops WHERE lane = :lane AND until > now() FOR UPDATE
    ), back AS (
        UPDATE deliveries d SET due_at = now() FROM ended
         WHERE d.lane = ended.lane AND d.sender = ended.sender AND d.due_at = ended.until
        RETURNING d.id, ended.until
    ), recipients_back AS (
        UPDATE recipients r SET due_at = now() FROM back
         WHERE r.delivery_id = back.id AND r.due_at = back.until AND r.finished_at IS NULL
    )
    UPDATE stops s SET until = now() FROM ended WHERE s.lane = ended.lane AND s.sender = ended.sender
    RETURNING s.sender
""")


async def try_now(db: AsyncConnection, lane: str) -> bool:
    """Let the stopped senders of a lane be tried at once; return whether there were some."""
    return bool((await db.execute(_TRY_NOW, {"lane": lane})).all())


async def probe(db: AsyncConnection, lane: str, sender: str, *, now: datetime) -> datetime:
    """One delivery is about to try a stopped sender: the others wait for it until the answer."""
    until: datetime = (
        await db.execute(_PROBE_NOW, {"lane": lane, "sender": sender, "now": now, "probe": _PROBE})
    ).scalar_one()
    return until


async def hold_back(
    db: AsyncConnection, lane: str, sender: str, *, now: datetime, until: datetime, spared: Sequence[str]
) -> None:
    """Move what is due of this sender to the end of its stop, but for `spared` deliveries."""
    await db.execute(
        _HOLD_BACK,
        {
            "lane": lane,
            "sender": sender,
            "now": now,
            "until": until,
            "spared": list(spared),
            "most": _AT_ONCE,
        },
    )
