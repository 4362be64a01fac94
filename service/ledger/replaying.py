"""Look up the first answer under an idempotency key, without taking the key.

The door looks before it judges a request, because its judgement depends on the time of day
(`expires_at` has passed, a limit was lowered) and a repeated request gets its first answer
whatever has changed since. What decides between two requests at once is still the reservation
in `accepting`.
"""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.ledger.accepting import IdempotencyKey, KeyReused, Replayed

# A key that is older is free again: `accepting` takes it over, and the sweep removes it.
_FIRST_ANSWER = text("""
    SELECT sha256, answer FROM idempotency
     WHERE application = :application AND path = :path AND key = :key
       AND created_at >= clock_timestamp() - interval '72 hours'
""")


async def replay(
    db: AsyncConnection, *, application: str, wanted: IdempotencyKey
) -> Replayed | KeyReused | None:
    """Return what a request under this key is answered with, or None where the key is free."""
    found = await db.execute(
        _FIRST_ANSWER, {"application": application, "path": wanted.path, "key": wanted.key}
    )
    first = found.one_or_none()
    if first is None:
        return None
    return Replayed(first.answer) if first.sha256 == wanted.sha256 else KeyReused()
