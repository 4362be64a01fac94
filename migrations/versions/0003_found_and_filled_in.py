"""Indexes of tables that exist, and what their rows have to say in the new columns.

Nothing here is one transaction, so that nobody waits for it: indexes are built concurrently, rows are
filled in by small transactions. So it may end in the middle, and is then begun again from the start:
each step finds what is done already.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

#: Each is run again until it changes nothing.
FILL_IN = (
    """
    UPDATE recipients r SET application = m.application FROM messages m
     WHERE m.id = r.message_id AND (r.message_id, r.position) IN (
           SELECT message_id, position FROM recipients WHERE application IS NULL LIMIT 5000)
    """,
    """
    UPDATE events e SET application = m.application FROM messages m
     WHERE m.id = e.message_id AND e.id IN (SELECT id FROM events WHERE application IS NULL LIMIT 5000)
    """,
    """
    UPDATE messages SET from_key = lower(from_email)
     WHERE id IN (SELECT id FROM messages WHERE from_key IS NULL LIMIT 5000)
    """,
)

FACETS = (
    """
    INSERT INTO facets (application, name, value, message_id)
    SELECT r.application, f.name, f.value, r.message_id
      FROM recipients r LEFT JOIN deliveries d ON d.id = r.delivery_id
     CROSS JOIN LATERAL (VALUES ('to', lower(r.email)), ('domain', substring(lower(r.email) FROM '[^@]*$')),
                                ('route', d.route), ('lane', d.lane),
                                ('code', r.reply ->> 'code'), ('enhanced', r.reply ->> 'enhanced'),
                                ('diagnosis', r.error #>> '{diagnosis,id}')) AS f (name, value)
     WHERE f.value IS NOT NULL AND NOT (f.name IN ('code', 'enhanced') AND f.value LIKE '2%')
        ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO facets (application, name, value, message_id)
    SELECT m.application, 'tag', tag, m.id FROM messages m CROSS JOIN LATERAL unnest(m.tags) AS tag
        ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO facets (application, name, value, message_id)
    SELECT m.application, 'metadata.' || key, left(coalesce(value, 'null'), 500), m.id
      FROM messages m CROSS JOIN LATERAL jsonb_each_text(m.metadata)
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

# What a build that was interrupted has left: it is kept up to date and never used.
_INVALID = sa.text("SELECT 1 FROM pg_index WHERE indexrelid = to_regclass(:name) AND NOT indisvalid")


def upgrade() -> None:
    with op.get_context().autocommit_block():
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
        _fill_in()


def _fill_in() -> None:
    for statement in FILL_IN:
        while not op.get_context().as_sql and op.get_bind().execute(sa.text(statement)).rowcount:
            pass
    for statement in FACETS:
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("Restore the backup from before the upgrade: newer states have no older form.")
