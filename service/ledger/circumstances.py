"""What has to be known beside a message itself to explain why it is where it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.ledger import audit
from service.ledger.engine import transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """An attempt that is open."""

    attempt_id: str
    phase: str  # as far as the ledger knows
    started_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """The last move of a recipient."""

    at: datetime
    from_status: str | None
    reason: str | None
    actor: str | None  # where a person made it
    act: audit.Entry | None  # which act it was


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What happened to a message so far, in short."""

    now: datetime
    attempts: Mapping[str, int]  # by outcome; `running` for open ones
    running: Mapping[int, Running]  # by the position of the recipients that it carries
    moves: Mapping[int, Move]  # by position
    copies: Mapping[
        int, str
    ]  # by position: a copy without an answer in time, `uncertain` or by a late one `sent`


_NOW = text("SELECT clock_timestamp()")

_COUNTS = text("""
    SELECT coalesce(outcome, 'running') AS outcome, count(*) AS attempts FROM attempts
     WHERE message_id = :message GROUP BY 1
""")

_RUNNING = text("""
    SELECT r.position, a.id, a.phase, a.started_at
      FROM attempts a JOIN recipients r ON r.message_id = a.message_id AND r.attempt_id = a.id
     WHERE a.message_id = :message AND a.outcome IS NULL AND r.status = 'sending'
""")

# Where any copy is known to be taken, the others are of no interest: `sent` comes before `uncertain`.
_COPIES = text("""
    SELECT CAST(each ->> 'position' AS integer) AS position, min(each ->> 'status') AS copy
      FROM attempts, jsonb_array_elements(recipients) AS each
     WHERE message_id = :message AND outcome = 'uncertain' AND each ->> 'status' IN ('sent', 'uncertain')
     GROUP BY 1
""")

_LAST_MOVES = text("""
    SELECT DISTINCT ON (position) position, created_at, from_status, reason, actor FROM events
     WHERE message_id = :message ORDER BY position, id DESC
""")

_PULSE = text("""
    SELECT concat_ws(' ', (SELECT max(id) FROM events WHERE message_id = :message),
                          (SELECT concat_ws(' ', id, phase, outcome) FROM attempts
                            WHERE message_id = :message ORDER BY id DESC LIMIT 1))
""")


async def read(db: AsyncConnection, message_id: str) -> Circumstances:
    """Read what happened to a message."""
    here = {"message": message_id}
    now: datetime = (await db.execute(_NOW)).scalar_one()
    counts = {row.outcome: row.attempts for row in await db.execute(_COUNTS, here)}
    running = {
        row.position: Running(attempt_id=row.id, phase=row.phase, started_at=row.started_at)
        for row in await db.execute(_RUNNING, here)
    }
    acts = [each for each in await audit.of_target(db, message_id) if each.action.startswith("message.")]
    moves = {
        row.position: Move(
            at=row.created_at,
            from_status=row.from_status,
            reason=row.reason,
            actor=row.actor,
            act=_act_behind(row, acts),
        )
        for row in await db.execute(_LAST_MOVES, here)
    }
    copies = {row.position: row.copy for row in await db.execute(_COPIES, here)}
    return Circumstances(now=now, attempts=counts, running=running, moves=moves, copies=copies)


def _act_behind(row: Any, acts: list[audit.Entry]) -> audit.Entry | None:
    """Find the act that made a move: its audit is written last in the same transaction."""
    if row.actor is None:
        return None
    return next((act for act in acts if act.actor == row.actor and act.at >= row.created_at), None)


class Explaining:
    """What explains a message, as the other rooms hold it."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def of(self, message_id: str) -> Circumstances:
        """Read what happened to a message that is there."""
        async with transaction(self._engine) as db:
            return await read(db, message_id)

    async def pulse(self, message_id: str) -> str:
        """Say in a word how far a message has come: another word means that something has happened."""
        async with transaction(self._engine) as db:
            return str(await db.scalar(_PULSE, {"message": message_id}))
