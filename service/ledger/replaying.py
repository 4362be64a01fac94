"""Look up the first answer under an idempotency key, without taking the key.

The door looks before it judges a request, because its judgement depends on the time of day
(`expires_at` has passed, a limit was lowered) and a repeated request gets its first answer
whatever has changed since. What decides between two requests at once is still the reservation
in `accepting`.
"""

from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.ledger.accepting import IdempotencyKey, KeyReused, Replayed

# A key that is older is free again: `accepting` takes it over, and the sweep removes it.
_FIRST_ANSWERS = text("""
    SELECT path, key, sha256, answer FROM idempotency
     WHERE application = :application
       AND (path, key) IN (SELECT * FROM unnest(CAST(:paths AS text[]), CAST(:keys AS text[])))
       AND created_at >= clock_timestamp() - interval '72 hours'
""")


async def replay(
    db: AsyncConnection, *, application: str, wanted: Sequence[IdempotencyKey]
) -> dict[IdempotencyKey, Replayed | KeyReused]:
    """Return what requests under these keys are answered with; free keys are left out."""
    rows = await db.execute(
        _FIRST_ANSWERS,
        {
            "application": application,
            "paths": [each.path for each in wanted],
            "keys": [each.key for each in wanted],
        },
    )
    first = {(row.path, row.key): row for row in rows}
    return {
        each: Replayed(found.answer) if found.sha256 == each.sha256 else KeyReused()
        for each in wanted
        if (found := first.get((each.path, each.key))) is not None
    }
