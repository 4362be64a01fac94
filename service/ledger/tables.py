"""The tables of the ledger, as the migrations leave them.

    messages ──< recipients >── deliveries ──< attempts >── sessions
        │            └──────< events
        └── contents (the octets, apart: they are large and rarely read)

    lanes        one row a lane: its lock, its pause
    stops        senders that rest on a lane, because their mail was refused for an administrator's reason
    turns        when each application was last served on a lane
    uses         what lanes used of their daily budgets, by minute, of minutes that are over
    connections  the seats of a lane: who may hold a session open, and until when
    checks       preflights of routes, step by step
    notices      what was announced before it expires
    keys         API keys of applications, as hashes
    sign_ins     who is signed in at the console, and until when
    quotas       what a key has used of its allowance of messages
    idempotency  answers already given, by application, path and key
    facets       what a message can be found by beside its own columns (`finding`)
    templates    named content; its versions are in template_versions and never change
    suppressions addresses and domains that get no mail; suppression_rules add to them
    webhooks     who is told; webhook_deliveries is what was told, try by try
    feeds        how far each follower of the events has come
    audit        acts of people and programs on what is in the ledger: who, when, from where

How the queue works: a delivery with `due_at` is waiting; a claim takes `due_at` away, names
the open attempt in `attempt_id` and writes that attempt with a lease. Whoever closes the
attempt sets `due_at` again, or `finished_at`. Times are PostgreSQL's own everywhere.

Why a statement writes JSON where it could write columns: what a peer said is kept as it
came, and nobody searches inside it.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from service.ledger.states import FINAL, Outcome, Status, moves_in_sql

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_NOW = text("clock_timestamp()")


def _one_of(column: str, values: type[Status] | type[Outcome] | tuple[str, ...]) -> str:
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"


def _id(name: str = "id", **options: object) -> "Column[str]":
    # C collation: names sort by age, bytewise, whatever the database's language is
    return Column(name, Text(collation="C"), **options)  # type: ignore[arg-type]  # passed on as they are


def _time(name: str, **options: object) -> "Column[object]":
    return Column(name, DateTime(timezone=True), **options)  # type: ignore[arg-type]  # passed on as they are


keys = Table(
    "keys",
    metadata,
    _id(primary_key=True),
    Column("application", Text, nullable=False),
    Column("hash", LargeBinary, nullable=False),  # SHA-256 of the secret part; 256 random bits need no salt
    Column("test", Boolean, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("senders", ARRAY(Text), nullable=False, server_default="{}"),  # empty: every sender of the routes
    Column("restrictions", JSONB, nullable=False, server_default="{}"),
    _time("created_at", nullable=False, server_default=_NOW),
    _time("expires_at"),
    _time("revoked_at"),
    _time("last_used_at"),
    Column("name", Text),  # what its owner calls it
    _id("replaces"),  # the key that this one was made for, by rotation
    Index(None, "application"),
)

quotas = Table(
    "quotas",
    metadata,
    _id("key_id", primary_key=True),
    Column("span", Text, primary_key=True),  # minute, day
    _time("started_at", nullable=False),
    Column("used", Integer, nullable=False),
)

messages = Table(
    "messages",
    metadata,
    _id(primary_key=True),
    Column("application", Text, nullable=False),
    _id("key_id", nullable=False),
    Column("test", Boolean, nullable=False, server_default="false"),
    Column("from_email", Text, nullable=False),
    Column("from_name", Text),
    Column("reverse_path", Text, nullable=False),
    Column("subject", Text, nullable=False, server_default=""),
    Column("message_id", Text, nullable=False),
    Column("size", Integer, nullable=False),  # octets, before dot-stuffing
    Column("sha256", Text, nullable=False),
    Column("smtputf8", Boolean, nullable=False, server_default="false"),
    Column("eightbit", Boolean, nullable=False, server_default="false"),
    Column("route_requested", Text, nullable=False, server_default="auto"),
    Column("plan", JSONB, nullable=False, server_default="{}"),
    Column("stream", Text, nullable=False, server_default="transactional"),
    Column("priority", SmallInteger, nullable=False, server_default="1"),  # 0 high, 1 normal, 2 low
    Column("on_uncertain", Text, nullable=False, server_default="resend"),
    Column("tags", ARRAY(Text), nullable=False, server_default="{}"),
    Column("metadata", JSONB, nullable=False, server_default="{}"),
    Column("reply_to", JSONB, nullable=False, server_default="[]"),
    _time("scheduled_at"),
    _time("expires_at", nullable=False),
    _time("created_at", nullable=False, server_default=_NOW),
    Column("from_key", Text),  # from_email in its comparison form
    Column("idempotency_key", Text),
    Column("template", JSONB),  # id and version of what it was rendered from
    Column("dsn", JSONB),  # what was asked of the peer: notify, return, envid (RFC 3461)
    Column("traceparent", Text),  # of the span that it was accepted in (W3C Trace Context)
    CheckConstraint("on_uncertain IN ('resend', 'hold')", "on_uncertain"),
    CheckConstraint("priority BETWEEN 0 AND 2", "priority"),
    CheckConstraint("size >= 0", "size"),
    Index(None, "application", "id"),
    Index(None, "application", "from_key", "id"),
    Index(None, "application", "message_id", "id"),
    Index(None, "application", "stream", "id"),
    Index(
        "ix_messages_idempotency_key",
        "application",
        "idempotency_key",
        "id",
        postgresql_where=text("idempotency_key IS NOT NULL"),
    ),
    Index("ix_messages_subject", text("subject_words(subject)"), postgresql_using="gin"),
)

facets = Table(
    "facets",
    metadata,
    Column("application", Text, primary_key=True),
    Column(
        "name", Text, primary_key=True
    ),  # to, domain, route, lane, tag, metadata.…, code, enhanced, diagnosis
    Column("value", Text, primary_key=True),
    _id("message_id", primary_key=True),
)

contents = Table(
    "contents",
    metadata,
    Column(
        "message_id",
        Text(collation="C"),
        ForeignKey("messages.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("octets", LargeBinary, nullable=False),  # exactly what goes after DATA, not dot-stuffed
)

deliveries = Table(
    "deliveries",
    metadata,
    _id(primary_key=True),
    Column("message_id", Text(collation="C"), ForeignKey("messages.id", ondelete="CASCADE"), nullable=False),
    Column("application", Text, nullable=False),
    Column("route", Text, nullable=False),
    Column("lane", Text, nullable=False),
    Column("sender", Text, nullable=False),  # the reverse-path in its comparison form
    Column("priority", SmallInteger, nullable=False),
    Column("external", Boolean, nullable=False, server_default="false"),  # uses the tenant's external budget
    Column("size", Integer, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("lost", Integer, nullable=False, server_default="0"),  # leases that ran out
    Column(
        "lost_alone", Integer, nullable=False, server_default="0"
    ),  # … with nothing else in the worker's hand
    _id("attempt_id"),  # the open attempt
    _time("due_at"),  # null: nothing to claim
    _time("expires_at", nullable=False),
    _time("finished_at"),
    CheckConstraint("attempt_id IS NULL OR due_at IS NULL", "waiting_or_in_hand"),
    Index(None, "message_id"),
    # The queue. Partial: what is finished or in hand costs nothing here.
    # Its first columns are the groups between which a claim is fair; see choosing.py.
    Index(
        "ix_deliveries_due",
        "lane",
        "external",
        "priority",
        "application",
        "due_at",
        postgresql_where=text("due_at IS NOT NULL"),
    ),
    # Who lost a lease and is due: nearly always empty, so a claim sees at once that there is nobody.
    Index(
        "ix_deliveries_suspects",
        "lane",
        "due_at",
        postgresql_where=text("lost > 0 AND due_at IS NOT NULL"),
    ),
    Index("ix_deliveries_open", "expires_at", postgresql_where=text("finished_at IS NULL")),
    postgresql_with={"fillfactor": "80"},
)

recipients = Table(
    "recipients",
    metadata,
    Column(
        "message_id",
        Text(collation="C"),
        ForeignKey("messages.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("position", SmallInteger, primary_key=True, autoincrement=False),
    Column("type", Text, nullable=False),
    Column("email", Text, nullable=False),
    Column("name", Text),
    Column("external", Boolean, nullable=False, server_default="false"),
    Column("status", Text, nullable=False),
    _id("delivery_id"),
    _id("attempt_id"),  # the last attempt that carried it
    _time("due_at"),
    Column("tries", Integer, nullable=False, server_default="0"),  # attempts that failed for its own sake
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("reply", JSONB),
    Column("reason", Text),  # why it came into its state: a stable code
    Column("error", JSONB),
    _time("updated_at", nullable=False, server_default=_NOW),
    _time("finished_at"),
    Column("application", Text),  # its message's; a trigger fills it in for a release that does not know it
    CheckConstraint("type IN ('to', 'cc', 'bcc')", "type"),
    CheckConstraint(_one_of("status", Status), "status"),
    CheckConstraint(
        f"(finished_at IS NOT NULL) = ({_one_of('status', tuple(sorted(FINAL)))})", "finished_if_final"
    ),
    Index(None, "delivery_id"),
    Index(None, "application", "status", "message_id"),
    postgresql_with={"fillfactor": "80"},
)

sessions = Table(
    "sessions",
    metadata,
    _id(primary_key=True),
    Column("worker", Text, nullable=False),
    Column("route", Text, nullable=False),
    Column("lane", Text, nullable=False),
    Column("facts", JSONB, nullable=False),
    _time("created_at", nullable=False, server_default=_NOW),
    # Who logged in with a password, for the report on their end.
    Index(
        "ix_sessions_password",
        "lane",
        "created_at",
        postgresql_where=text("facts #>> '{login,method}' = 'login'"),
    ),
)

attempts = Table(
    "attempts",
    metadata,
    _id(primary_key=True),
    Column("message_id", Text(collation="C"), ForeignKey("messages.id", ondelete="CASCADE"), nullable=False),
    Column(
        "delivery_id", Text(collation="C"), ForeignKey("deliveries.id", ondelete="CASCADE"), nullable=False
    ),
    Column("number", Integer, nullable=False),
    Column("worker", Text, nullable=False),
    Column("route", Text, nullable=False),
    Column("lane", Text, nullable=False),
    Column("alone", Boolean, nullable=False, server_default="false"),
    _time("started_at", nullable=False),
    _time("ended_at"),
    _time("lease_until"),
    Column("phase", Text, nullable=False),  # how far the dialogue came, as far as the ledger knows
    Column("outcome", Text),
    Column("recipients", JSONB, nullable=False),  # [{position, email, reply, status}]
    Column("recipient_count", Integer, nullable=False),
    Column("external_count", Integer, nullable=False, server_default="0"),  # of the tenant's external budget
    Column("reply", JSONB),
    Column("peer_trailer", JSONB),
    _id("session_id"),
    Column("session_message", Integer),  # how many-th message of its session
    Column("size", Integer, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("transcript", JSONB),
    Column("error", JSONB),
    _time("next_attempt_at"),
    UniqueConstraint("delivery_id", "number"),
    CheckConstraint(f"outcome IS NULL OR {_one_of('outcome', Outcome)}", "outcome"),
    CheckConstraint("(outcome IS NULL) = (ended_at IS NULL)", "ended_if_judged"),
    CheckConstraint("(outcome IS NULL) = (lease_until IS NOT NULL)", "leased_while_open"),
    Index(None, "message_id", "id"),
    # One open attempt a delivery, whatever happens.
    Index("uq_attempts_open", "delivery_id", unique=True, postgresql_where=text("outcome IS NULL")),
    Index("ix_attempts_lease", "lease_until", postgresql_where=text("outcome IS NULL")),
    # What a lane used of its limits, answered from the index alone; and the tenant over all lanes.
    Index("ix_attempts_use", "lane", "ended_at", postgresql_include=["recipient_count"]),
    Index(
        "ix_attempts_external",
        "ended_at",
        postgresql_include=["external_count"],
        postgresql_where=text("external_count > 0"),
    ),
    postgresql_with={"fillfactor": "70"},
)

lanes = Table(
    "lanes",
    metadata,
    Column("name", Text, primary_key=True),
    Column("route", Text, nullable=False),
    _time("paused_until"),
    Column("pause_error", JSONB),
    Column("troubles", Integer, nullable=False, server_default="0"),  # failures of the route in a row
    Column("turn", BigInteger, nullable=False, server_default="0"),  # deliveries claimed so far
    _time("updated_at", nullable=False, server_default=_NOW),
)

stops = Table(
    "stops",
    metadata,
    Column("lane", Text, primary_key=True),
    Column("sender", Text, primary_key=True),
    _time("until", nullable=False),
    Column("error", JSONB, nullable=False),
    Column("troubles", Integer, nullable=False, server_default="1"),  # refusals in a row
    Column("probing", Boolean, nullable=False, server_default="false"),  # one delivery is trying it
    _time("created_at", nullable=False, server_default=_NOW),
)

turns = Table(
    "turns",
    metadata,
    Column("lane", Text, primary_key=True),
    Column("application", Text, primary_key=True),
    Column("served", BigInteger, nullable=False),  # the lane's `turn` when it was last served
)

uses = Table(
    "uses",
    metadata,
    Column("lane", Text, primary_key=True),  # '' is the tenant: external recipients over all lanes
    _time("minute", primary_key=True),
    Column("recipients", Integer, nullable=False),
    Index(None, "minute"),
)

checks = Table(
    "checks",
    metadata,
    _id(primary_key=True),
    Column("route", Text, nullable=False),
    Column("asked_by", Text, nullable=False),  # 'schedule', 'cli' or an application
    _time("started_at", nullable=False),
    _time("ended_at", nullable=False),
    Column("result", Text, nullable=False),
    Column("steps", JSONB, nullable=False),
    CheckConstraint("result IN ('ok', 'warn', 'fail', 'skip')", "result"),
    Index(None, "route", "id"),
)

notices = Table(
    "notices",
    metadata,
    Column("subject", Text, primary_key=True),
    _time("expires_at", primary_key=True),
    Column("days", Integer, primary_key=True, autoincrement=False),
    Column("route", Text, nullable=False),
    Column("detail", Text, nullable=False),
    _time("created_at", nullable=False, server_default=_NOW),
)

connections = Table(
    "connections",
    metadata,
    _id(primary_key=True),  # a seat: the right to hold one session open
    Column("lane", Text, nullable=False),
    Column("worker", Text, nullable=False),
    _time("lease_until", nullable=False),
    Index(None, "lane", "lease_until"),
)

events = Table(
    "events",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("message_id", Text(collation="C"), ForeignKey("messages.id", ondelete="CASCADE"), nullable=False),
    Column("position", SmallInteger, nullable=False),
    Column("from_status", Text),
    Column("to_status", Text, nullable=False),
    Column("reason", Text),
    _id("attempt_id"),
    Column("reply", JSONB),
    Column("diagnosis", Text),  # its id in the catalogue
    Column("actor", Text),  # who moved it, where a person did
    _time("created_at", nullable=False, server_default=_NOW),
    # A reader that follows the feed waits for older transactions to end before it moves on.
    Column("txid", Text, nullable=False, server_default=text("pg_current_xact_id()::text")),
    Column("application", Text),  # its message's
    CheckConstraint(moves_in_sql(), "move"),
    Index(None, "message_id", "id"),
    Index("ix_events_feed", "application", text("(txid::bigint)"), "id"),
)

feeds = Table(
    "feeds",
    metadata,
    Column("follower", Text, primary_key=True),
    Column("application", Text, primary_key=True),
    Column("txid", BigInteger, nullable=False),
    Column("event_id", BigInteger, nullable=False),
)

templates = Table(
    "templates",
    metadata,
    _id(primary_key=True),
    Column("application", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text, nullable=False, server_default=""),
    Column("published", Integer),  # the version that is used where none is named
    _time("created_at", nullable=False, server_default=_NOW),
    _time("updated_at", nullable=False, server_default=_NOW),
    UniqueConstraint("application", "name"),
)

template_versions = Table(
    "template_versions",
    metadata,
    Column(
        "template_id", Text(collation="C"), ForeignKey("templates.id", ondelete="CASCADE"), primary_key=True
    ),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("subject", Text, nullable=False),
    Column("text", Text),
    Column("html", Text),
    Column("variables", ARRAY(Text), nullable=False, server_default="{}"),  # that it uses
    Column("created_by", Text, nullable=False),
    _time("created_at", nullable=False, server_default=_NOW),
)

suppressions = Table(
    "suppressions",
    metadata,
    _id(primary_key=True),
    Column("application", Text, nullable=False, server_default=""),  # '' is every application
    Column("address", Text, nullable=False),  # in its comparison form, or "@domain"
    Column("domain", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("source", Text, nullable=False),  # manual, rule
    _id("rule_id"),
    _id("message_id"),  # what made a rule speak
    Column("created_by", Text, nullable=False),
    _time("created_at", nullable=False, server_default=_NOW),
    _time("updated_at", nullable=False, server_default=_NOW),
    _time("expires_at"),
    _time("sweep_at", server_default=_NOW),  # when to look again for what waits for it; null: nothing can
    CheckConstraint("source IN ('manual', 'rule')", "source"),
    UniqueConstraint("application", "address"),
    Index(None, "address"),
    Index(None, "application", "id"),
    Index(None, "application", "source", "id"),
    Index(None, "domain", "id"),
    Index("ix_suppressions_sweep", "sweep_at", postgresql_where=text("sweep_at IS NOT NULL")),
)

suppression_rules = Table(
    "suppression_rules",
    metadata,
    _id(primary_key=True),
    Column("application", Text, nullable=False, server_default=""),  # '' is every application
    Column("diagnoses", ARRAY(Text), nullable=False, server_default="{}"),
    Column("enhanced", ARRAY(Text), nullable=False, server_default="{}"),
    Column("failures", Integer, nullable=False, server_default="1"),
    Column("within_seconds", BigInteger, nullable=False),
    Column("lasts_seconds", BigInteger),  # null: until somebody takes it away
    Column("created_by", Text, nullable=False),
    _time("created_at", nullable=False, server_default=_NOW),
    Index(None, "application"),
)

webhooks = Table(
    "webhooks",
    metadata,
    _id(primary_key=True),
    Column("application", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("description", Text, nullable=False, server_default=""),
    Column("events", ARRAY(Text), nullable=False, server_default="{}"),  # types; empty: all
    Column("secrets", JSONB, nullable=False),  # [{secret, created_at, expires_at}], the newest first
    Column("enabled", Boolean, nullable=False, server_default="true"),
    Column("disabled_reason", Text),
    _time("disabled_at"),
    _time("failing_since"),
    Column("last_error", Text),
    _time("deleted_at"),  # hidden from then on; the sweep removes it with its deliveries, piece by piece
    _time("created_at", nullable=False, server_default=_NOW),
    _time("updated_at", nullable=False, server_default=_NOW),
    Index(None, "application"),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    _id(primary_key=True),
    Column("webhook_id", Text(collation="C"), ForeignKey("webhooks.id", ondelete="CASCADE"), nullable=False),
    Column("event_id", BigInteger),  # null: a test
    Column("type", Text, nullable=False),
    Column("payload", Text, nullable=False),  # the octets that are signed, the same in every try
    Column("status", Text, nullable=False),  # pending, delivered, failed
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("tries", JSONB, nullable=False, server_default="[]"),  # [{at, status, error, seconds}]
    _time("due_at"),  # in hand: the end of the lease, so that it is due again by itself
    _time("lease_until"),
    _time("created_at", nullable=False, server_default=_NOW),
    _time("ended_at"),
    CheckConstraint("status IN ('pending', 'delivered', 'failed')", "status"),
    CheckConstraint("(status = 'pending') = (due_at IS NOT NULL)", "due_while_pending"),
    CheckConstraint("(status = 'pending') = (ended_at IS NULL)", "ended_if_not_pending"),
    Index(None, "webhook_id", "id"),
    Index(
        "uq_webhook_deliveries_event",
        "webhook_id",
        "event_id",
        unique=True,
        postgresql_where=text("event_id IS NOT NULL"),
    ),
    Index("ix_webhook_deliveries_due", "webhook_id", "due_at", postgresql_where=text("due_at IS NOT NULL")),
    Index("ix_webhook_deliveries_ended", "ended_at", postgresql_where=text("ended_at IS NOT NULL")),
)

audit = Table(
    "audit",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    _time("at", nullable=False, server_default=_NOW),
    Column("application", Text, nullable=False),  # of whoever acted
    Column("actor", Text, nullable=False),  # a key, or an application of Entra ID
    Column("address", Text),  # from where: the address of the peer of HTTP
    Column("request_id", Text),
    Column("action", Text, nullable=False),  # message.cancel, content.read, key.create …
    Column("target", Text, nullable=False),  # the id of what was acted on
    Column("details", JSONB, nullable=False, server_default="{}"),
    Index(None, "target", "id"),
    Index(None, "application", "id"),
)

sign_ins = Table(
    "sign_ins",
    metadata,
    _id(primary_key=True),
    Column("hash", LargeBinary, nullable=False),  # SHA-256 of what the browser keeps
    _id("key_id"),  # the key that was shown …
    Column("person", JSONB),  # … or who came from the directory: subject, name, scopes
    _time("created_at", nullable=False, server_default=_NOW),
    _time("expires_at", nullable=False),
    CheckConstraint("(key_id IS NULL) <> (person IS NULL)", "one_of_both"),
    UniqueConstraint("hash"),
    Index(None, "expires_at"),
)

retention = Table(
    "retention",
    metadata,
    Column("kind", Text, primary_key=True),
    _id("through", nullable=False),  # the last name that was dealt with
    _time("updated_at", nullable=False, server_default=_NOW),
)

retention_open = Table(
    "retention_open",
    metadata,
    _id("message_id", primary_key=True),  # was not over when its time came
)

erasures = Table(
    "erasures",
    metadata,
    _id(primary_key=True),
    Column("address", Text),  # in its comparison form; only as long as it is needed
    Column("sha256", Text, nullable=False),  # of the address
    Column("created_by", Text, nullable=False),
    _time("created_at", nullable=False, server_default=_NOW),
    _time("finished_at"),
    Column("messages", Integer, nullable=False, server_default="0"),
    Column("waiting", Integer, nullable=False, server_default="0"),  # still under way, at the last look
    CheckConstraint("(address IS NULL) = (finished_at IS NOT NULL)", "address_while_needed"),
    Index("ix_erasures_unfinished", "id", postgresql_where=text("finished_at IS NULL")),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("application", Text, primary_key=True),
    Column("path", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("sha256", Text, nullable=False),
    Column("answer", Text, nullable=False),  # the body of the first answer, as it was sent
    _time("created_at", nullable=False, server_default=_NOW),
    Index(None, "created_at"),
)
