"""The ledger: messages, recipients, deliveries, attempts, events, lanes, keys.

Two triggers write the history: no change of a recipient's status can be forgotten, and the
CHECK on `events` refuses a move that the table of moves does not know.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

NOTE_MOVES = """
CREATE FUNCTION recipients_note_moves() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO events (message_id, position, from_status, to_status, reason, attempt_id, reply, diagnosis,
                            actor)
        SELECT message_id, position, NULL, status, reason, attempt_id, reply, error #>> '{diagnosis,id}',
               nullif(current_setting('postroom.actor', true), '')
        FROM new_rows ORDER BY message_id, position;
    ELSE
        INSERT INTO events (message_id, position, from_status, to_status, reason, attempt_id, reply, diagnosis,
                            actor)
        SELECT n.message_id, n.position, o.status, n.status, n.reason, n.attempt_id, n.reply,
               CASE WHEN n.status <> 'sending' THEN n.error #>> '{diagnosis,id}' END,
               nullif(current_setting('postroom.actor', true), '')
        FROM new_rows n JOIN old_rows o USING (message_id, position)
        WHERE o.status IS DISTINCT FROM n.status
        ORDER BY n.message_id, n.position;
    END IF;
    RETURN NULL;
END $$
"""

ON_INSERT = """
CREATE TRIGGER note_first_state AFTER INSERT ON recipients
REFERENCING NEW TABLE AS new_rows
FOR EACH STATEMENT EXECUTE FUNCTION recipients_note_moves()
"""

ON_UPDATE = """
CREATE TRIGGER note_moves AFTER UPDATE ON recipients
REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
FOR EACH STATEMENT EXECUTE FUNCTION recipients_note_moves()
"""


def upgrade() -> None:
    op.create_table(
        "checks",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("asked_by", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("result", sa.Text(), nullable=False),
        sa.Column("steps", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.CheckConstraint("result IN ('ok', 'warn', 'fail', 'skip')", name=op.f("ck_checks_result")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_checks")),
    )
    op.create_index(op.f("ix_checks_route_id"), "checks", ["route", "id"], unique=False)
    op.create_table(
        "connections",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("lane", sa.Text(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_connections")),
    )
    op.create_index(
        op.f("ix_connections_lane_lease_until"), "connections", ["lane", "lease_until"], unique=False
    )
    op.create_table(
        "idempotency",
        sa.Column("application", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("application", "path", "key", name=op.f("pk_idempotency")),
    )
    op.create_index(op.f("ix_idempotency_created_at"), "idempotency", ["created_at"], unique=False)
    op.create_table(
        "keys",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("application", sa.Text(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("test", sa.Boolean(), nullable=False),
        sa.Column("scopes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("senders", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column(
            "restrictions", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_keys")),
    )
    op.create_index(op.f("ix_keys_application"), "keys", ["application"], unique=False)
    op.create_table(
        "lanes",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("paused_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("pause_error", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("troubles", sa.Integer(), server_default="0", nullable=False),
        sa.Column("turn", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_lanes")),
    )
    op.create_table(
        "messages",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("application", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(collation="C"), nullable=False),
        sa.Column("test", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("from_email", sa.Text(), nullable=False),
        sa.Column("from_name", sa.Text(), nullable=True),
        sa.Column("reverse_path", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), server_default="", nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("smtputf8", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("eightbit", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("route_requested", sa.Text(), server_default="auto", nullable=False),
        sa.Column("plan", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.Column("stream", sa.Text(), server_default="transactional", nullable=False),
        sa.Column("priority", sa.SmallInteger(), server_default="1", nullable=False),
        sa.Column("on_uncertain", sa.Text(), server_default="resend", nullable=False),
        sa.Column("tags", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("metadata", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.Column("reply_to", postgresql.JSONB(astext_type=sa.Text()), server_default="[]", nullable=False),
        sa.Column("scheduled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint("on_uncertain IN ('resend', 'hold')", name=op.f("ck_messages_on_uncertain")),
        sa.CheckConstraint("priority BETWEEN 0 AND 2", name=op.f("ck_messages_priority")),
        sa.CheckConstraint("size >= 0", name=op.f("ck_messages_size")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_messages")),
    )
    op.create_index(op.f("ix_messages_application_id"), "messages", ["application", "id"], unique=False)
    op.create_table(
        "notices",
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("days", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("subject", "expires_at", "days", name=op.f("pk_notices")),
    )
    op.create_table(
        "stops",
        sa.Column("lane", sa.Text(), nullable=False),
        sa.Column("sender", sa.Text(), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("error", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("troubles", sa.Integer(), server_default="1", nullable=False),
        sa.Column("probing", sa.Boolean(), server_default="false", nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("lane", "sender", name=op.f("pk_stops")),
    )
    op.create_table(
        "turns",
        sa.Column("lane", sa.Text(), nullable=False),
        sa.Column("application", sa.Text(), nullable=False),
        sa.Column("served", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("lane", "application", name=op.f("pk_turns")),
    )
    op.create_table(
        "uses",
        sa.Column("lane", sa.Text(), nullable=False),
        sa.Column("minute", sa.DateTime(timezone=True), nullable=False),
        sa.Column("recipients", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("lane", "minute", name=op.f("pk_uses")),
    )
    op.create_index(op.f("ix_uses_minute"), "uses", ["minute"], unique=False)
    op.create_table(
        "sessions",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("lane", sa.Text(), nullable=False),
        sa.Column("facts", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sessions")),
    )
    op.create_index(
        "ix_sessions_password",
        "sessions",
        ["lane", "created_at"],
        unique=False,
        postgresql_where=sa.text("facts #>> '{login,method}' = 'login'"),
    )
    op.create_table(
        "contents",
        sa.Column("message_id", sa.Text(collation="C"), nullable=False),
        sa.Column("octets", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["message_id"], ["messages.id"], name=op.f("fk_contents_message_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("message_id", name=op.f("pk_contents")),
    )
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("message_id", sa.Text(collation="C"), nullable=False),
        sa.Column("application", sa.Text(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("lane", sa.Text(), nullable=False),
        sa.Column("sender", sa.Text(), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("external", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("lost", sa.Integer(), server_default="0", nullable=False),
        sa.Column("lost_alone", sa.Integer(), server_default="0", nullable=False),
        sa.Column("attempt_id", sa.Text(collation="C"), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "attempt_id IS NULL OR due_at IS NULL", name=op.f("ck_deliveries_waiting_or_in_hand")
        ),
        sa.ForeignKeyConstraint(
            ["message_id"], ["messages.id"], name=op.f("fk_deliveries_message_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
        postgresql_with={"fillfactor": "80"},
    )
    op.create_index(
        "ix_deliveries_due",
        "deliveries",
        ["lane", "external", "priority", "application", "due_at"],
        unique=False,
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_index(op.f("ix_deliveries_message_id"), "deliveries", ["message_id"], unique=False)
    op.create_index(
        "ix_deliveries_open",
        "deliveries",
        ["expires_at"],
        unique=False,
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("message_id", sa.Text(collation="C"), nullable=False),
        sa.Column("position", sa.SmallInteger(), nullable=False),
        sa.Column("from_status", sa.Text(), nullable=True),
        sa.Column("to_status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("attempt_id", sa.Text(collation="C"), nullable=True),
        sa.Column("reply", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("diagnosis", sa.Text(), nullable=True),
        sa.Column("actor", sa.Text(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("txid", sa.Text(), server_default=sa.text("pg_current_xact_id()::text"), nullable=False),
        sa.CheckConstraint(
            "((from_status IS NULL AND to_status IN ('held', 'queued', 'scheduled', 'suppressed')) OR (from_status = 'scheduled' AND to_status IN ('canceled', 'expired', 'held', 'queued', 'sending', 'suppressed')) OR (from_status = 'queued' AND to_status IN ('canceled', 'expired', 'held', 'scheduled', 'sending', 'suppressed')) OR (from_status = 'held' AND to_status IN ('canceled', 'expired', 'queued', 'suppressed')) OR (from_status = 'sending' AND to_status IN ('deferred', 'failed', 'held', 'queued', 'sent', 'uncertain')) OR (from_status = 'deferred' AND to_status IN ('canceled', 'expired', 'held', 'queued', 'sending', 'suppressed')) OR (from_status = 'uncertain' AND to_status IN ('canceled', 'deferred', 'expired', 'failed', 'queued', 'sending', 'sent')) OR (from_status = 'sent' AND to_status IN ('bounced', 'delivered')) OR (from_status = 'delivered' AND to_status IN ('bounced')) OR (from_status = 'failed' AND to_status IN ('queued')) OR (from_status = 'expired' AND to_status IN ('queued')) OR (from_status = 'canceled' AND to_status IN ('queued'))) IS TRUE",
            name=op.f("ck_events_move"),
        ),
        sa.ForeignKeyConstraint(
            ["message_id"], ["messages.id"], name=op.f("fk_events_message_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )
    op.create_index(op.f("ix_events_message_id_id"), "events", ["message_id", "id"], unique=False)
    op.create_table(
        "recipients",
        sa.Column("message_id", sa.Text(collation="C"), nullable=False),
        sa.Column("position", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("external", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("delivery_id", sa.Text(collation="C"), nullable=True),
        sa.Column("attempt_id", sa.Text(collation="C"), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("reply", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("error", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(finished_at IS NOT NULL) = (status IN ('bounced', 'canceled', 'delivered', 'expired', 'failed', 'sent', 'suppressed'))",
            name=op.f("ck_recipients_finished_if_final"),
        ),
        sa.CheckConstraint(
            "status IN ('scheduled', 'queued', 'held', 'sending', 'deferred', 'uncertain', 'sent', 'delivered', 'bounced', 'failed', 'expired', 'canceled', 'suppressed')",
            name=op.f("ck_recipients_status"),
        ),
        sa.CheckConstraint("type IN ('to', 'cc', 'bcc')", name=op.f("ck_recipients_type")),
        sa.ForeignKeyConstraint(
            ["message_id"], ["messages.id"], name=op.f("fk_recipients_message_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("message_id", "position", name=op.f("pk_recipients")),
        postgresql_with={"fillfactor": "80"},
    )
    op.create_index(op.f("ix_recipients_delivery_id"), "recipients", ["delivery_id"], unique=False)
    op.create_table(
        "attempts",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("message_id", sa.Text(collation="C"), nullable=False),
        sa.Column("delivery_id", sa.Text(collation="C"), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("lane", sa.Text(), nullable=False),
        sa.Column("alone", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("recipients", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("recipient_count", sa.Integer(), nullable=False),
        sa.Column("external_count", sa.Integer(), server_default="0", nullable=False),
        sa.Column("reply", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("peer_trailer", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("session_id", sa.Text(collation="C"), nullable=True),
        sa.Column("session_message", sa.Integer(), nullable=True),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("transcript", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("error", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "outcome IS NULL OR outcome IN ('sent', 'partial', 'deferred', 'failed', 'uncertain', 'aborted')",
            name=op.f("ck_attempts_outcome"),
        ),
        sa.CheckConstraint(
            "(outcome IS NULL) = (ended_at IS NULL)", name=op.f("ck_attempts_ended_if_judged")
        ),
        sa.CheckConstraint(
            "(outcome IS NULL) = (lease_until IS NOT NULL)", name=op.f("ck_attempts_leased_while_open")
        ),
        sa.ForeignKeyConstraint(
            ["delivery_id"], ["deliveries.id"], name=op.f("fk_attempts_delivery_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["message_id"], ["messages.id"], name=op.f("fk_attempts_message_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attempts")),
        sa.UniqueConstraint("delivery_id", "number", name=op.f("uq_attempts_delivery_id_number")),
        postgresql_with={"fillfactor": "70"},
    )
    op.create_index(
        "ix_attempts_external",
        "attempts",
        ["ended_at"],
        unique=False,
        postgresql_include=["external_count"],
        postgresql_where=sa.text("external_count > 0"),
    )
    op.create_index(
        "ix_attempts_lease",
        "attempts",
        ["lease_until"],
        unique=False,
        postgresql_where=sa.text("outcome IS NULL"),
    )
    op.create_index(op.f("ix_attempts_message_id_id"), "attempts", ["message_id", "id"], unique=False)
    op.create_index(
        "ix_attempts_use",
        "attempts",
        ["lane", "ended_at"],
        unique=False,
        postgresql_include=["recipient_count"],
    )
    op.create_index(
        "uq_attempts_open",
        "attempts",
        ["delivery_id"],
        unique=True,
        postgresql_where=sa.text("outcome IS NULL"),
    )
    for statement in (NOTE_MOVES, ON_INSERT, ON_UPDATE):
        op.execute(statement)


def downgrade() -> None:
    op.drop_index("uq_attempts_open", table_name="attempts", postgresql_where=sa.text("outcome IS NULL"))
    op.drop_index("ix_attempts_use", table_name="attempts", postgresql_include=["recipient_count"])
    op.drop_index(op.f("ix_attempts_message_id_id"), table_name="attempts")
    op.drop_index(
        "ix_attempts_external",
        table_name="attempts",
        postgresql_include=["external_count"],
        postgresql_where=sa.text("external_count > 0"),
    )
    op.drop_index("ix_attempts_lease", table_name="attempts", postgresql_where=sa.text("outcome IS NULL"))
    op.drop_table("attempts")
    op.drop_index(op.f("ix_recipients_delivery_id"), table_name="recipients")
    op.drop_table("recipients")
    op.drop_index(op.f("ix_events_message_id_id"), table_name="events")
    op.drop_table("events")
    op.drop_index(
        "ix_deliveries_open", table_name="deliveries", postgresql_where=sa.text("finished_at IS NULL")
    )
    op.drop_index(op.f("ix_deliveries_message_id"), table_name="deliveries")
    op.drop_index(
        "ix_deliveries_due", table_name="deliveries", postgresql_where=sa.text("due_at IS NOT NULL")
    )
    op.drop_table("deliveries")
    op.drop_table("contents")
    op.drop_index(
        "ix_sessions_password",
        table_name="sessions",
        postgresql_where=sa.text("facts #>> '{login,method}' = 'login'"),
    )
    op.drop_table("sessions")
    op.drop_index(op.f("ix_messages_application_id"), table_name="messages")
    op.drop_table("messages")
    op.drop_index(op.f("ix_uses_minute"), table_name="uses")
    op.drop_table("uses")
    op.drop_table("turns")
    op.drop_table("stops")
    op.drop_table("notices")
    op.drop_table("lanes")
    op.drop_index(op.f("ix_keys_application"), table_name="keys")
    op.drop_table("keys")
    op.drop_index(op.f("ix_idempotency_created_at"), table_name="idempotency")
    op.drop_table("idempotency")
    op.drop_index(op.f("ix_connections_lane_lease_until"), table_name="connections")
    op.drop_table("connections")
    op.drop_index(op.f("ix_checks_route_id"), table_name="checks")
    op.drop_table("checks")
    op.execute("DROP FUNCTION recipients_note_moves()")
