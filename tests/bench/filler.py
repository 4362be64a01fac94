"""A ledger of any size within minutes: copies of messages that went through the product.

A message that the API accepted, and perhaps a worker sent, is copied with everything that belongs to it, so the
rows have the shape that the product writes, whatever the schema is. Copies have names, times, recipients,
subjects, keys and order numbers of their own; they share the session of the original.

    await copies(db, message_id, 100_000, oldest=now - timedelta(days=30), newest=now)

Triggers and foreign keys are off meanwhile, so events are copied too and not written a second time.
"""

from collections.abc import Mapping
from datetime import datetime

import asyncpg

#: So many at a time: a statement holds its rows in memory.
_PIECE = 50_000

#: What of a copy is not the original's. `c` is the copy, `s` the original's row.
_OWN = {
    "messages": {
        "id": "c.msg",
        "subject": "'O seu recibo n.º ' || lpad(c.n::text, 6, '0')",
        "message_id": "'<' || substr(c.msg, 5) || '@contoso.com>'",
        "idempotency_key": "'copy-' || c.run || '-' || c.n",
        "metadata": "jsonb_build_object('order_id', c.n::text)",
    },
    "contents": {"message_id": "c.msg"},
    "deliveries": {"id": "c.dlv", "message_id": "c.msg", "attempt_id": "s.attempt_id"},
    "recipients": {
        "message_id": "c.msg",
        "delivery_id": "c.dlv",
        "attempt_id": "CASE WHEN s.attempt_id IS NOT NULL THEN c.att END",
        "email": "c.email",
    },
    "attempts": {"id": "c.att", "message_id": "c.msg", "delivery_id": "c.dlv"},
    "events": {
        "message_id": "c.msg",
        "attempt_id": "CASE WHEN s.attempt_id IS NOT NULL THEN c.att END",
    },
    "facets": {
        "message_id": "c.msg",
        "value": "CASE WHEN s.name = 'to' THEN c.email WHEN s.name LIKE 'metadata.%' THEN c.n::text ELSE s.value END",
    },
}

#: Given by PostgreSQL itself.
_GIVEN = {("events", "id"), ("events", "txid")}

_BASE32 = """
    CREATE OR REPLACE FUNCTION pg_temp.base32(number bigint) RETURNS text LANGUAGE sql IMMUTABLE AS $$
        SELECT %s $$
""" % " || ".join(  # noqa: UP031  (braces would be many)
    f"substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', ((number >> {shift}) & 31)::integer + 1, 1)"
    for shift in range(45, -1, -5)
)

_COPIES = """
    CREATE TEMP TABLE copies ON COMMIT DROP AS
    SELECT n, $5::text AS run, at - $4::timestamptz AS shift, 'copy.' || $5 || '.' || n || '@example.com' AS email,
           'msg_' || time || upper(substr(md5('msg' || $5 || n), 1, 16)) AS msg,
           'dlv_' || time || upper(substr(md5('dlv' || $5 || n), 1, 16)) AS dlv,
           'att_' || time || upper(substr(md5('att' || $5 || n), 1, 16)) AS att
      FROM (SELECT n, at, pg_temp.base32((extract(epoch FROM at) * 1000)::bigint) AS time
              FROM (SELECT n, $3::timestamptz + n * $6::interval AS at FROM generate_series($1::int, $2::int) AS n) AS moments
           ) AS named
"""


async def copies(
    db: asyncpg.Connection, message_id: str, count: int, *, oldest: datetime, newest: datetime, run: str
) -> None:
    """Write `count` copies of a message, the oldest first; their times lie evenly between the two."""
    await db.execute(_BASE32)
    created = await db.fetchval("SELECT created_at FROM messages WHERE id = $1", message_id)
    assert await db.fetchval("SELECT count(*) FROM deliveries WHERE message_id = $1", message_id) == 1
    assert await db.fetchval("SELECT count(*) FROM attempts WHERE message_id = $1", message_id) <= 1
    columns = {table: await _columns(db, table) for table in _OWN}
    step = (newest - oldest) / count
    for begin in range(0, count, _PIECE):
        end = min(begin + _PIECE, count) - 1
        async with db.transaction():
            await db.execute("SET LOCAL session_replication_role = replica")
            await db.execute("SET LOCAL synchronous_commit = off")
            await db.execute(_COPIES, begin, end, oldest, created, run, step)
            for table, kinds in columns.items():
                await db.execute(_insert(table, kinds), message_id, timeout=600)


async def _columns(db: asyncpg.Connection, table: str) -> dict[str, str]:
    rows = await db.fetch(
        "SELECT column_name, data_type FROM information_schema.columns"
        " WHERE table_schema = current_schema() AND table_name = $1 ORDER BY ordinal_position",
        table,
    )
    return {row["column_name"]: row["data_type"] for row in rows if (table, row["column_name"]) not in _GIVEN}


def _insert(table: str, columns: Mapping[str, str]) -> str:
    """Write the copies' rows of one table: of each column its own, or the original's at another time."""
    values = [
        _OWN[table].get(name)
        or (f"s.{name} + c.shift" if kind == "timestamp with time zone" else f"s.{name}")
        for name, kind in columns.items()
    ]
    key = "id" if table == "messages" else "message_id"
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(values)}"  # noqa: S608
        f" FROM copies c CROSS JOIN {table} s WHERE s.{key} = $1 ORDER BY c.n"
    )


async def settle(db: asyncpg.Connection) -> None:
    """Let PostgreSQL do at once what it would do by itself within a few minutes."""
    await db.execute("VACUUM (ANALYZE)", timeout=1200)
    await db.execute("CHECKPOINT", timeout=600)
