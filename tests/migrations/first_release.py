"""The release with revision 0001: a ledger as it wrote it, and its statements, as they were.

    await fill(db, 20_000)                   messages that were sent, and some that wait
    await accept(db, "new")                  the transaction behind its 202
    await carry(db, worker)                  claim, fence and close one delivery; False: nothing was due

What a later release changes, these statements have to go on working beside, because a rolling update runs both.
"""

import json
import secrets

import asyncpg

LANE = "peer"

_FILL = (
    """
    INSERT INTO messages (id, application, key_id, from_email, reverse_path, subject, message_id, size, sha256,
                          tags, metadata, expires_at)
    SELECT 'msg_' || lpad(n::text, 26, '0'), 'shop' || n % 7, 'key_x', 'NoReply@contoso.com', 'noreply@contoso.com',
           'Your order-' || n || ' is on its way', '<' || n || '@contoso.com>', 700, repeat('0', 64),
           '{receipt}', jsonb_build_object('order_id', n), now() + interval '1 day'
      FROM generate_series($1::int, $2::int) AS n
    """,
    """
    INSERT INTO contents (message_id, octets)
    SELECT 'msg_' || lpad(n::text, 26, '0'), convert_to(repeat('x', 700), 'UTF8')
      FROM generate_series($1::int, $2::int) AS n
    """,
    """
    INSERT INTO deliveries (id, message_id, application, route, lane, sender, priority, size, attempts, due_at,
                            expires_at, finished_at)
    SELECT 'dlv_' || lpad(n::text, 26, '0'), 'msg_' || lpad(n::text, 26, '0'), 'shop' || n % 7, 'peer', 'peer',
           'noreply@contoso.com', 1, 700, (NOT waits)::int, CASE WHEN waits THEN now() END,
           now() + interval '1 day', CASE WHEN NOT waits THEN now() END
      FROM (SELECT n, n % 20 = 0 AS waits FROM generate_series($1::int, $2::int) AS n) AS numbers
    """,
    """
    INSERT INTO recipients (message_id, position, type, email, status, delivery_id, attempt_id, due_at, attempts,
                            tries, reply, reason, finished_at)
    SELECT 'msg_' || lpad(n::text, 26, '0'), 0, 'to', 'Ana.' || n || '@Example.com',
           CASE WHEN waits THEN 'queued' ELSE 'sent' END, 'dlv_' || lpad(n::text, 26, '0'),
           CASE WHEN NOT waits THEN 'att_' || lpad(n::text, 26, '0') END, CASE WHEN waits THEN now() END,
           (NOT waits)::int, (NOT waits)::int,
           CASE WHEN NOT waits THEN '{"code": 250, "enhanced": "2.1.5", "text": "ok"}'::jsonb END,
           CASE WHEN NOT waits THEN 'sent' END, CASE WHEN NOT waits THEN now() END
      FROM (SELECT n, n % 20 = 0 AS waits FROM generate_series($1::int, $2::int) AS n) AS numbers
    """,
    """
    INSERT INTO attempts (id, message_id, delivery_id, number, worker, route, lane, started_at, ended_at, phase,
                          outcome, recipients, recipient_count, reply, size, sha256, transcript)
    SELECT 'att_' || lpad(n::text, 26, '0'), 'msg_' || lpad(n::text, 26, '0'), 'dlv_' || lpad(n::text, 26, '0'), 1,
           'wrk_x', 'peer', 'peer', now() - interval '2 days', now() - interval '2 days', 'reply', 'sent',
           jsonb_build_array(jsonb_build_object('position', 0, 'email', 'Ana.' || n || '@Example.com',
                                                'reply', NULL, 'status', 'sent')),
           1, '{"code": 250, "enhanced": "2.1.5", "text": "ok"}', 700, repeat('0', 64),
           jsonb_build_array(jsonb_build_object('who', 'us', 'text', repeat('x', 200)))
      FROM generate_series($1::int, $2::int) AS n WHERE n % 20 <> 0
    """,
    """
    INSERT INTO events (message_id, position, from_status, to_status, reason, attempt_id)
    SELECT 'msg_' || lpad(n::text, 26, '0'), 0, moves.start, moves.ends, moves.ends, NULL
      FROM generate_series($1::int, $2::int) AS n
     CROSS JOIN (VALUES (NULL, 'queued'), ('queued', 'sending'), ('sending', 'sent')) AS moves (start, ends)
     WHERE n % 20 <> 0 OR moves.start IS NULL
    """,
)

_ACCEPT = (
    """
    INSERT INTO messages (id, application, key_id, from_email, reverse_path, subject, message_id, size, sha256,
                          tags, metadata, expires_at)
    VALUES ('msg' || $1, 'shop', 'key_x', 'NoReply@contoso.com', 'noreply@contoso.com', 'Order-42 shipped', '<x@y>',
            1, 'x', '{receipt}', '{"order_id": "42"}', now() + interval '1 day')
    """,
    "INSERT INTO contents (message_id, octets) VALUES ('msg' || $1, 'x')",
    """
    INSERT INTO deliveries (id, message_id, application, route, lane, sender, priority, size, due_at, expires_at)
    VALUES ('dlv' || $1, 'msg' || $1, 'shop', 'peer', 'peer', 'noreply@contoso.com', 1, 1, now(),
            now() + interval '1 day')
    """,
    """
    INSERT INTO recipients (message_id, position, type, email, status, delivery_id, due_at)
    VALUES ('msg' || $1, 0, 'to', 'Ana@Example.com', 'queued', 'dlv' || $1, now())
    """,
)

_LOCK_LANE = "SELECT paused_until, troubles, turn FROM lanes WHERE name = $1 FOR UPDATE"
_ADD_LANE = "INSERT INTO lanes (name, route) VALUES ($1, $1) ON CONFLICT DO NOTHING"

_DUE = """
    SELECT id FROM deliveries WHERE lane = $1 AND due_at IS NOT NULL AND due_at <= now() AND expires_at > now()
     ORDER BY due_at LIMIT 5 FOR UPDATE SKIP LOCKED
"""

_TAKE = """
    WITH taken AS (
        SELECT * FROM jsonb_to_recordset($1::jsonb) AS row(delivery_id text, attempt_id text)
    ), before AS (
        SELECT r.delivery_id, r.message_id, r.position, r.status FROM recipients r
          JOIN taken ON taken.delivery_id = r.delivery_id
         WHERE r.status IN ('scheduled', 'queued', 'deferred', 'uncertain') AND r.due_at <= now()
           FOR UPDATE OF r
    ), claimed AS (
        UPDATE deliveries d SET due_at = NULL, attempt_id = taken.attempt_id, attempts = d.attempts + 1
          FROM taken WHERE d.id = taken.delivery_id AND d.id IN (SELECT delivery_id FROM before)
        RETURNING d.id, d.message_id, d.route, d.attempts AS number, d.size, taken.attempt_id
    ), moved AS (
        UPDATE recipients r
           SET status = 'sending', attempt_id = claimed.attempt_id, attempts = r.attempts + 1, due_at = NULL,
               reason = 'claimed', updated_at = now()
          FROM claimed, before
         WHERE r.delivery_id = claimed.id AND before.message_id = r.message_id AND before.position = r.position
        RETURNING r.delivery_id, r.position, r.email
    ), carried AS (
        SELECT delivery_id, count(*) AS recipient_count,
               jsonb_agg(jsonb_build_object('position', position, 'email', email) ORDER BY position) AS recipients
          FROM moved GROUP BY delivery_id
    )
    INSERT INTO attempts (id, message_id, delivery_id, number, worker, route, lane, started_at, lease_until, phase,
                          recipients, recipient_count, size, sha256)
    SELECT claimed.attempt_id, claimed.message_id, claimed.id, claimed.number, $2, claimed.route, $3, now(),
           now() + interval '30 seconds', 'connect', carried.recipients, carried.recipient_count, claimed.size,
           m.sha256
      FROM claimed JOIN carried ON carried.delivery_id = claimed.id JOIN messages m ON m.id = claimed.message_id
    RETURNING id, message_id, delivery_id
"""

_FENCE = """
    UPDATE attempts SET phase = 'dot'
     WHERE id = ANY($1::text[]) AND outcome IS NULL AND lease_until > clock_timestamp() RETURNING id
"""

_JUDGE = """
    UPDATE attempts SET outcome = 'sent', ended_at = clock_timestamp(), lease_until = NULL, phase = 'reply',
           reply = '{"code": 250}', transcript = '[]'
     WHERE id = ANY($1::text[]) AND outcome IS NULL RETURNING id
"""

_MOVE = """
    UPDATE recipients SET status = 'sent', reason = 'sent', reply = '{"code": 250}', error = NULL, due_at = NULL,
           tries = tries + 1, updated_at = clock_timestamp(), finished_at = clock_timestamp()
     WHERE attempt_id = ANY($1::text[]) AND delivery_id = ANY($2::text[]) AND status = 'sending'
"""

_SETTLE = """
    UPDATE deliveries d
       SET attempt_id = NULL, due_at = open.due_at,
           finished_at = CASE WHEN open.recipients IS NULL THEN clock_timestamp() END
      FROM unnest($1::text[]) AS wanted (id)
      LEFT JOIN LATERAL (
           SELECT min(due_at) AS due_at, nullif(count(*), 0) AS recipients FROM recipients
            WHERE delivery_id = wanted.id AND finished_at IS NULL) AS open ON true
     WHERE d.id = wanted.id AND (d.attempt_id IS NULL OR d.attempt_id = ANY($2::text[]))
"""


async def fill(db: asyncpg.Connection, count: int, *, first: int = 1, piece: int = 50_000) -> None:
    """Write `count` messages; every twentieth waits, the others were sent two days ago."""
    for begin in range(first, first + count, piece):
        async with db.transaction():
            await db.execute("SET LOCAL session_replication_role = replica")  # events are written here
            for statement in _FILL:
                await db.execute(statement, begin, min(begin + piece, first + count) - 1, timeout=600)
    await db.execute("ANALYZE", timeout=600)


async def accept(db: asyncpg.Connection, name: str) -> str:
    """Accept a message; return its id."""
    async with db.transaction():
        for statement in _ACCEPT:
            await db.execute(statement, name)
    return f"msg{name}"


async def carry(db: asyncpg.Connection, worker: str) -> list[str]:
    """Claim what is due, up to five, pass the fence and close it as sent; return the messages."""
    async with db.transaction():
        if await db.fetchrow(_LOCK_LANE, LANE) is None:
            await db.execute(_ADD_LANE, LANE)
            await db.fetchrow(_LOCK_LANE, LANE)
        due = [row["id"] for row in await db.fetch(_DUE, LANE)]
        rows = [{"delivery_id": each, "attempt_id": f"att_{secrets.token_hex(13)}"} for each in due]
        taken = await db.fetch(_TAKE, json.dumps(rows), worker, LANE)
    attempts = [row["id"] for row in taken]
    assert len(await db.fetch(_FENCE, attempts)) == len(attempts)
    async with db.transaction():
        assert len(await db.fetch(_JUDGE, attempts)) == len(attempts)
        deliveries = [row["delivery_id"] for row in taken]
        await db.execute(_MOVE, attempts, deliveries)
        await db.execute(_SETTLE, deliveries, attempts)
    return [row["message_id"] for row in taken]
