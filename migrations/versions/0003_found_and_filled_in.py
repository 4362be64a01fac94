"""Indexes of tables that exist, and what their rows have to say in the new columns.

Nothing here is one transaction, so that nobody waits for it: rows are filled in a thousand messages at a time, by
keys, and indexes are built concurrently. So it may end in the middle, and is then begun again from the start: each
step finds what is done already.

The filling-in waits at most for `lock_timeout` (`service.ledger.migrate`) for a row that a worker has in hand, then
lets go of its own and tries these messages again: of the two it is never the worker that has to give way. The
building of an index and the look at a constraint stop nobody, and wait for as long as the oldest transaction lasts.
"""

import time

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

#: Messages that are filled in at a time: a moment's work, for whose end a worker may have to wait.
PIECE = 1_000

NEXT = """
    SELECT array_agg(id ORDER BY id) FROM (SELECT id FROM messages WHERE id > :last ORDER BY id LIMIT :piece) AS piece
"""

#: What is said of the messages `:ids`.
FILL_IN = (
    """
    UPDATE recipients r SET application = m.application FROM messages m
     WHERE m.id = r.message_id AND r.message_id = ANY(:ids) AND r.application IS NULL
    """,
    """
    UPDATE events e SET application = m.application FROM messages m
     WHERE m.id = e.message_id AND e.message_id = ANY(:ids) AND e.application IS NULL
    """,
    """
    UPDATE messages SET from_key = lower(from_email) WHERE id = ANY(:ids) AND from_key IS NULL
    """,
    """
    INSERT INTO facets (application, name, value, message_id)
    SELECT r.application, f.name, f.value, r.message_id
      FROM recipients r LEFT JOIN deliveries d ON d.id = r.delivery_id
     CROSS JOIN LATERAL (VALUES ('to', lower(r.email)), ('domain', substring(lower(r.email) FROM '[^@]*$')),
                                ('route', d.route), ('lane', d.lane),
                                ('code', r.reply ->> 'code'), ('enhanced', r.reply ->> 'enhanced'),
                                ('diagnosis', r.error #>> '{diagnosis,id}')) AS f (name, value)
     WHERE r.message_id = ANY(:ids)
       AND f.value IS NOT NULL AND NOT (f.name IN ('code', 'enhanced') AND f.value LIKE '2%')
        ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO facets (application, name, value, message_id)
    SELECT m.application, 'tag', tag, m.id FROM messages m CROSS JOIN LATERAL unnest(m.tags) AS tag
     WHERE m.id = ANY(:ids)
        ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO facets (application, name, value, message_id)
    SELECT m.application, 'metadata.' || key, left(coalesce(value, 'null'), 500), m.id
      FROM messages m CROSS JOIN LATERAL jsonb_each_text(m.metadata)
     WHERE m.id = ANY(:ids)
        ON CONFLICT DO NOTHING
    """,
)

#: On tables that exist: built while they are in use.
INDEXES: tuple[tuple[str, str, list[object], dict[str, object]], ...] = (
    (
        "ix_recipients_application_status_message_id",
        "recipients",
        ["application", "status", "message_id"],
        {},
    ),
    ("ix_messages_application_from_key_id", "messages", ["application", "from_key", "id"], {}),
    ("ix_messages_application_message_id_id", "messages", ["application", "message_id", "id"], {}),
    ("ix_messages_application_stream_id", "messages", ["application", "stream", "id"], {}),
    (
        "ix_messages_idempotency_key",
        "messages",
        ["application", "idempotency_key", "id"],
        {"postgresql_where": sa.text("idempotency_key IS NOT NULL")},
    ),
    (
        "ix_messages_subject",
        "messages",
        [sa.text("subject_words(subject)")],
        {"postgresql_using": "gin"},
    ),
    ("ix_events_feed", "events", ["application", sa.text("(txid::bigint)"), "id"], {}),
)

#: Somebody has a row in hand: lock_not_available, deadlock_detected.
_IN_HAND = frozenset({"55P03", "40P01"})

# What a build that was interrupted has left: it is kept up to date and never used.
_INVALID = sa.text("SELECT 1 FROM pg_index WHERE indexrelid = to_regclass(:name) AND NOT indisvalid")


def upgrade() -> None:
    with op.get_context().autocommit_block():
        if not op.get_context().as_sql:
            _fill_in()
        op.execute("SET lock_timeout = 0")
        op.execute("ALTER TABLE events VALIDATE CONSTRAINT ck_events_move")
        for name, table, columns, options in INDEXES:
            if not op.get_context().as_sql and op.get_bind().scalar(_INVALID, {"name": name}):
                op.drop_index(name, table, postgresql_concurrently=True)
            op.create_index(
                name,
                table,
                columns,
                unique=False,
                postgresql_concurrently=True,
                if_not_exists=True,
                **options,
            )
        op.execute("RESET lock_timeout")


def _fill_in() -> None:
    last = ""
    while ids := op.get_bind().scalar(sa.text(NEXT), {"last": last, "piece": PIECE}):
        for statement in FILL_IN:
            _until_done(sa.text(statement), {"ids": ids})
        last = ids[-1]


def _until_done(statement: sa.TextClause, values: dict[str, object]) -> None:
    while True:
        try:
            op.get_bind().execute(statement, values)
        except sa.exc.DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in _IN_HAND:
                raise
            time.sleep(0.2)
        else:
            return


def downgrade() -> None:
    raise NotImplementedError("Restore the backup from before the upgrade: newer states have no older form.")
