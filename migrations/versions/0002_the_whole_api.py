"""Templates, suppressions, webhooks, quotas, the audit, and what messages are found by.

Made so that a worker of the release before may go on meanwhile: new columns may be missing in what it
writes, and triggers fill in what must not be. What takes time on a large ledger follows in 0003.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"

MOVES = """
    ((from_status IS NULL AND to_status IN ('held', 'queued', 'scheduled', 'suppressed'))
    OR (from_status = 'scheduled' AND to_status IN ('canceled', 'expired', 'held', 'queued', 'sending', 'suppressed'))
    OR (from_status = 'queued' AND to_status IN ('canceled', 'expired', 'held', 'scheduled', 'sending', 'suppressed'))
    OR (from_status = 'held' AND to_status IN ('canceled', 'expired', 'queued', 'scheduled', 'suppressed'))
    OR (from_status = 'sending' AND to_status IN ('deferred', 'failed', 'held', 'queued', 'sent', 'uncertain'))
    OR (from_status = 'deferred' AND to_status IN ('canceled', 'expired', 'held', 'queued', 'sending', 'suppressed'))
    OR (from_status = 'uncertain' AND to_status IN ('canceled', 'deferred', 'expired', 'failed', 'queued', 'sending', 'sent'))
    OR (from_status = 'sent' AND to_status IN ('bounced', 'delivered'))
    OR (from_status = 'delivered' AND to_status IN ('bounced'))
    OR (from_status = 'failed' AND to_status IN ('queued'))
    OR (from_status = 'expired' AND to_status IN ('queued'))
    OR (from_status = 'canceled' AND to_status IN ('queued'))) IS TRUE
"""

NOTE_MOVES = """
CREATE OR REPLACE FUNCTION recipients_note_moves() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO events (message_id, position, from_status, to_status, reason, attempt_id, reply, diagnosis,
                            actor, application)
        SELECT message_id, position, NULL, status, reason, attempt_id, reply, error #>> '{diagnosis,id}',
               nullif(current_setting('postroom.actor', true), ''), application
        FROM new_rows ORDER BY message_id, position;
    ELSE
        INSERT INTO events (message_id, position, from_status, to_status, reason, attempt_id, reply, diagnosis,
                            actor, application)
        SELECT n.message_id, n.position, o.status, n.status, n.reason, n.attempt_id, n.reply,
               CASE WHEN n.status <> 'sending' THEN n.error #>> '{diagnosis,id}' END,
               nullif(current_setting('postroom.actor', true), ''), n.application
        FROM new_rows n JOIN old_rows o USING (message_id, position)
        WHERE o.status IS DISTINCT FROM n.status
        ORDER BY n.message_id, n.position;
    END IF;
    RETURN NULL;
END $$
"""

# What the release before accepts until its last pod is gone is found as everything else is.
KNOW_APPLICATION = """
CREATE FUNCTION recipients_know_application() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    message messages%ROWTYPE;
BEGIN
    SELECT * INTO message FROM messages WHERE id = NEW.message_id;
    NEW.application := message.application;
    UPDATE messages SET from_key = lower(from_email) WHERE id = message.id AND from_key IS NULL;
    INSERT INTO facets (application, name, value, message_id)
    SELECT message.application, found.name, found.value, message.id
      FROM (SELECT 'to' AS name, lower(NEW.email) AS value
            UNION ALL SELECT 'domain', substring(lower(NEW.email) FROM '[^@]*$')
            UNION ALL SELECT 'route', route FROM deliveries WHERE id = NEW.delivery_id
            UNION ALL SELECT 'lane', lane FROM deliveries WHERE id = NEW.delivery_id
            UNION ALL SELECT 'tag', tag FROM unnest(message.tags) AS tag
            UNION ALL SELECT 'metadata.' || pair.key, left(coalesce(pair.value, 'null'), 500)
                        FROM jsonb_each_text(message.metadata) AS pair) AS found
        ON CONFLICT DO NOTHING;
    RETURN NEW;
END $$
"""

ON_OLD_INSERT = """
CREATE TRIGGER know_application BEFORE INSERT ON recipients
FOR EACH ROW WHEN (NEW.application IS NULL) EXECUTE FUNCTION recipients_know_application()
"""

MESSAGE_STATUS = """
CREATE FUNCTION message_status(message text) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT CASE
           WHEN bool_or(status = 'uncertain') THEN 'uncertain'
           WHEN bool_or(status = 'sending') THEN 'sending'
           WHEN bool_or(status = 'deferred') THEN 'deferred'
           WHEN bool_or(status = 'queued') THEN 'queued'
           WHEN bool_or(status = 'held') THEN 'held'
           WHEN bool_or(status = 'scheduled') THEN 'scheduled'
           WHEN min(status) = max(status) THEN min(status)
           WHEN bool_and(status IN ('sent', 'delivered')) THEN 'sent'
           WHEN bool_or(status IN ('sent', 'delivered')) THEN 'partially_sent'
           ELSE 'failed' END
      FROM recipients WHERE message_id = message
$$
"""

# Signs part words: PostgreSQL's own parser takes "order-42" for a word and a negative number.
SUBJECT_WORDS = r"""
CREATE FUNCTION subject_words(subject text) RETURNS tsvector LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT to_tsvector('simple'::regconfig,
                       translate(subject, '!"#$%&''()*+,-./:;<=>?@[\]^_`{|}~', repeat(' ', 32)))
$$
"""

_NOW = sa.text("clock_timestamp()")


def _id(name: str = "id", *, nullable: bool = False) -> "sa.Column[str]":
    return sa.Column(name, sa.Text(collation="C"), nullable=nullable)


def _time(name: str, *, nullable: bool = True, now: bool = False) -> "sa.Column[object]":
    return sa.Column(
        name, sa.DateTime(timezone=True), nullable=nullable, server_default=_NOW if now else None
    )


def upgrade() -> None:
    # What is in use comes last: from there to the commit everybody else waits.
    _new_tables()
    op.execute(MESSAGE_STATUS)
    op.execute(SUBJECT_WORDS)
    op.execute(KNOW_APPLICATION)
    _new_columns()
    op.execute(NOTE_MOVES)
    op.execute(ON_OLD_INSERT)
    op.execute("ALTER TABLE events DROP CONSTRAINT ck_events_move")
    op.execute(f"ALTER TABLE events ADD CONSTRAINT ck_events_move CHECK ({MOVES}) NOT VALID")


def _new_columns() -> None:
    for name, kind in (
        ("from_key", sa.Text()),
        ("idempotency_key", sa.Text()),
        ("template", postgresql.JSONB()),
        ("dsn", postgresql.JSONB()),
    ):
        op.add_column("messages", sa.Column(name, kind, nullable=True))
    op.add_column("recipients", sa.Column("application", sa.Text(), nullable=True))
    op.add_column("events", sa.Column("application", sa.Text(), nullable=True))
    op.add_column("keys", sa.Column("name", sa.Text(), nullable=True))
    op.add_column("keys", _id("replaces", nullable=True))


def _new_tables() -> None:
    op.create_table(
        "quotas",
        _id("key_id"),
        sa.Column("span", sa.Text(), nullable=False),
        _time("started_at", nullable=False),
        sa.Column("used", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("key_id", "span", name=op.f("pk_quotas")),
    )
    op.create_table(
        "facets",
        sa.Column("application", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        _id("message_id"),
        sa.PrimaryKeyConstraint("application", "name", "value", "message_id", name=op.f("pk_facets")),
    )
    op.create_table(
        "feeds",
        sa.Column("follower", sa.Text(), nullable=False),
        sa.Column("application", sa.Text(), nullable=False),
        sa.Column("txid", sa.BigInteger(), nullable=False),
        sa.Column("event_id", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("follower", "application", name=op.f("pk_feeds")),
    )
    _templates()
    _suppressions()
    _webhooks()
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        _time("at", nullable=False, now=True),
        sa.Column("application", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("details", postgresql.JSONB(), server_default="{}", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_index(op.f("ix_audit_target_id"), "audit", ["target", "id"], unique=False)
    op.create_index(op.f("ix_audit_application_id"), "audit", ["application", "id"], unique=False)


def _templates() -> None:
    op.create_table(
        "templates",
        _id(),
        sa.Column("application", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.Column("published", sa.Integer(), nullable=True),
        _time("created_at", nullable=False, now=True),
        _time("updated_at", nullable=False, now=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_templates")),
        sa.UniqueConstraint("application", "name", name=op.f("uq_templates_application_name")),
    )
    op.create_table(
        "template_versions",
        _id("template_id"),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column("html", sa.Text(), nullable=True),
        sa.Column("variables", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        _time("created_at", nullable=False, now=True),
        sa.ForeignKeyConstraint(
            ["template_id"],
            ["templates.id"],
            name=op.f("fk_template_versions_template_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("template_id", "version", name=op.f("pk_template_versions")),
    )


def _suppressions() -> None:
    op.create_table(
        "suppressions",
        _id(),
        sa.Column("application", sa.Text(), server_default="", nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        _id("rule_id", nullable=True),
        _id("message_id", nullable=True),
        sa.Column("created_by", sa.Text(), nullable=False),
        _time("created_at", nullable=False, now=True),
        _time("updated_at", nullable=False, now=True),
        _time("expires_at"),
        _time("sweep_at", now=True),
        sa.CheckConstraint("source IN ('manual', 'rule')", name=op.f("ck_suppressions_source")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_suppressions")),
        sa.UniqueConstraint("application", "address", name=op.f("uq_suppressions_application_address")),
    )
    op.create_index(op.f("ix_suppressions_address"), "suppressions", ["address"], unique=False)
    op.create_index(
        op.f("ix_suppressions_application_id"), "suppressions", ["application", "id"], unique=False
    )
    op.create_index(
        op.f("ix_suppressions_application_source_id"),
        "suppressions",
        ["application", "source", "id"],
        unique=False,
    )
    op.create_index(op.f("ix_suppressions_domain_id"), "suppressions", ["domain", "id"], unique=False)
    op.create_index(
        "ix_suppressions_sweep",
        "suppressions",
        ["sweep_at"],
        unique=False,
        postgresql_where=sa.text("sweep_at IS NOT NULL"),
    )
    op.create_table(
        "suppression_rules",
        _id(),
        sa.Column("application", sa.Text(), server_default="", nullable=False),
        sa.Column("diagnoses", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("enhanced", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("failures", sa.Integer(), server_default="1", nullable=False),
        sa.Column("within_seconds", sa.BigInteger(), nullable=False),
        sa.Column("lasts_seconds", sa.BigInteger(), nullable=True),
        sa.Column("created_by", sa.Text(), nullable=False),
        _time("created_at", nullable=False, now=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_suppression_rules")),
    )
    op.create_index(
        op.f("ix_suppression_rules_application"), "suppression_rules", ["application"], unique=False
    )


def _webhooks() -> None:
    op.create_table(
        "webhooks",
        _id(),
        sa.Column("application", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.Column("events", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("secrets", postgresql.JSONB(), nullable=False),
        sa.Column("enabled", sa.Boolean(), server_default="true", nullable=False),
        sa.Column("disabled_reason", sa.Text(), nullable=True),
        _time("disabled_at"),
        _time("failing_since"),
        sa.Column("last_error", sa.Text(), nullable=True),
        _time("deleted_at"),
        _time("created_at", nullable=False, now=True),
        _time("updated_at", nullable=False, now=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhooks")),
    )
    op.create_index(op.f("ix_webhooks_application"), "webhooks", ["application"], unique=False)
    op.create_table(
        "webhook_deliveries",
        _id(),
        _id("webhook_id"),
        sa.Column("event_id", sa.BigInteger(), nullable=True),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("tries", postgresql.JSONB(), server_default="[]", nullable=False),
        _time("due_at"),
        _time("lease_until"),
        _time("created_at", nullable=False, now=True),
        _time("ended_at"),
        sa.CheckConstraint(
            "status IN ('pending', 'delivered', 'failed')", name=op.f("ck_webhook_deliveries_status")
        ),
        sa.CheckConstraint(
            "(status = 'pending') = (due_at IS NOT NULL)",
            name=op.f("ck_webhook_deliveries_due_while_pending"),
        ),
        sa.CheckConstraint(
            "(status = 'pending') = (ended_at IS NULL)",
            name=op.f("ck_webhook_deliveries_ended_if_not_pending"),
        ),
        sa.ForeignKeyConstraint(
            ["webhook_id"], ["webhooks.id"], name=op.f("fk_webhook_deliveries_webhook_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_deliveries")),
    )
    op.create_index(
        op.f("ix_webhook_deliveries_webhook_id_id"), "webhook_deliveries", ["webhook_id", "id"], unique=False
    )
    op.create_index(
        "ix_webhook_deliveries_due",
        "webhook_deliveries",
        ["webhook_id", "due_at"],
        unique=False,
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_index(
        "uq_webhook_deliveries_event",
        "webhook_deliveries",
        ["webhook_id", "event_id"],
        unique=True,
        postgresql_where=sa.text("event_id IS NOT NULL"),
    )
    op.create_index(
        "ix_webhook_deliveries_ended",
        "webhook_deliveries",
        ["ended_at"],
        unique=False,
        postgresql_where=sa.text("ended_at IS NOT NULL"),
    )


def downgrade() -> None:
    raise NotImplementedError("Restore the backup from before the upgrade: newer states have no older form.")
