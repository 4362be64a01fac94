"""What must hold in every ledger at every moment, whatever happened: looked up in SQL, over all of it.

Each question lists what breaks its rule; one statement sees one moment, so it may be asked while others write.
"""

import asyncpg

_BROKEN = {
    "a delivery is open, is in nobody's hand and is due at no time, although a recipient waits to be sent": """
        SELECT d.id FROM deliveries d
         WHERE d.finished_at IS NULL AND d.due_at IS NULL AND d.attempt_id IS NULL AND EXISTS (
               SELECT 1 FROM recipients r WHERE r.delivery_id = d.id
                  AND (r.status IN ('scheduled', 'queued', 'deferred') OR r.due_at IS NOT NULL))""",
    "a delivery is open and none of its recipients is": """
        SELECT d.id FROM deliveries d WHERE d.finished_at IS NULL AND NOT EXISTS (
               SELECT 1 FROM recipients r WHERE r.delivery_id = d.id AND r.finished_at IS NULL)""",
    "a delivery is over or in hand no more, and a recipient of it is open or in hand": """
        SELECT r.message_id, r.position FROM recipients r JOIN deliveries d ON d.id = r.delivery_id
         WHERE r.finished_at IS NULL AND d.finished_at IS NOT NULL
            OR r.status = 'sending' AND d.attempt_id IS DISTINCT FROM r.attempt_id""",
    "a recipient waits without a time": """
        SELECT message_id, position FROM recipients
         WHERE status IN ('scheduled', 'queued', 'deferred') AND due_at IS NULL""",
    "a delivery is due before, or long after, the first of its recipients": """
        SELECT d.id FROM deliveries d
         WHERE d.due_at IS NOT NULL AND NOT EXISTS (SELECT 1 FROM stops s WHERE s.lane = d.lane)
           AND d.due_at IS DISTINCT FROM (SELECT min(r.due_at) FROM recipients r
                                           WHERE r.delivery_id = d.id AND r.finished_at IS NULL)""",
    "an attempt is open, and its delivery does not know of it": """
        SELECT a.id FROM attempts a JOIN deliveries d ON d.id = a.delivery_id
         WHERE a.outcome IS NULL AND d.attempt_id IS DISTINCT FROM a.id""",
    "a delivery is in the hand of an attempt that is over": """
        SELECT d.id FROM deliveries d LEFT JOIN attempts a ON a.id = d.attempt_id
         WHERE d.attempt_id IS NOT NULL AND (a.id IS NULL OR a.outcome IS NOT NULL)""",
    "an attempt is over, and says of a recipient that it is being sent": """
        SELECT a.id FROM attempts a WHERE a.outcome IS NOT NULL AND EXISTS (
               SELECT 1 FROM jsonb_array_elements(a.recipients) AS r WHERE r ->> 'status' = 'sending')""",
    "a message has no recipients, no content or a number of deliveries that its recipients do not know": """
        SELECT m.id FROM messages m
         WHERE NOT EXISTS (SELECT 1 FROM recipients r WHERE r.message_id = m.id)
            OR NOT EXISTS (SELECT 1 FROM contents c WHERE c.message_id = m.id)
            OR EXISTS (SELECT 1 FROM deliveries d WHERE d.message_id = m.id AND NOT EXISTS (
                       SELECT 1 FROM recipients r WHERE r.delivery_id = d.id))""",
}


async def broken(database_url: str) -> dict[str, list[tuple[object, ...]]]:
    """Return what breaks a rule, by the rule that it breaks; nothing where the ledger is sound."""
    connection = await asyncpg.connect(database_url)
    try:
        found = {rule: await connection.fetch(question) for rule, question in _BROKEN.items()}
    finally:
        await connection.close()
    return {rule: [tuple(row) for row in rows] for rule, rows in found.items() if rows}


async def assert_sound(database_url: str) -> None:
    """See that no rule is broken."""
    assert await broken(database_url) == {}
