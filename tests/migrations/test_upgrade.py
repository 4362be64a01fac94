"""From the first release's schema to today's, with what it had written and while it goes on writing."""

from collections.abc import AsyncIterator

import pytest
from alembic import command
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.ledger import Ledger
from service.ledger.engine import open_engine
from service.ledger.finding import Bounds, Filters
from service.ledger.migrate import configuration

#: A message as the release with revision 0001 writes it.
OLD = """
    INSERT INTO messages (id, application, key_id, from_email, reverse_path, subject, message_id, size, sha256,
                          tags, metadata, expires_at)
    VALUES (:id, 'shop', 'key_x', 'NoReply@contoso.com', 'NoReply@contoso.com', 'Order-42 shipped', '<x@y>', 1, 'x',
            '{receipt}', CAST('{"order_id"\\: "42"}' AS jsonb), now() + interval '1 day');
    INSERT INTO deliveries (id, message_id, application, route, lane, sender, priority, size, due_at, expires_at)
    VALUES ('dlv' || :id, :id, 'shop', 'peer', 'peer', 'noreply@contoso.com', 1, 1, now(), now() + interval '1 day');
    INSERT INTO recipients (message_id, position, type, email, status, delivery_id, due_at)
    VALUES (:id, 0, 'to', 'Ana@Example.com', 'queued', 'dlv' || :id, now())
"""


@pytest.fixture
async def engine(empty_database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = open_engine(empty_database_url, name="test", size=2)
    yield engine
    await engine.dispose()


async def migrate(engine: AsyncEngine, revision: str) -> None:
    def run(connection: Connection) -> None:
        config = configuration()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)

    async with engine.connect() as db:
        await db.run_sync(run)
        await db.commit()


async def write_old(db: AsyncConnection, message_id: str) -> None:
    for statement in OLD.split(";\n"):
        wanted = {"id": message_id} if ":id" in statement else {}
        await db.execute(text(statement), wanted)


async def test_what_was_there_is_found_by_everything(engine: AsyncEngine, empty_database_url: str) -> None:
    """A message of the release before has its facets, its application and its place in the feed."""
    await migrate(engine, "0001")
    async with engine.begin() as db:
        await write_old(db, "msg_01JDB6Z0Q5V8W6K3T1E9F4H2RC")
    await migrate(engine, "head")
    ledger = Ledger.open(empty_database_url, name="test", connections=2)

    for filters in (
        Filters(application="shop", status="queued"),
        Filters(application="shop", columns={"from": "noreply@contoso.com"}),
        Filters(application="shop", subject="order 42"),
        Filters(application="shop", facets={"to": "ana@example.com"}),
        Filters(application="shop", facets={"domain": "example.com", "lane": "peer", "route": "peer"}),
        Filters(application="shop", facets={"tag": "receipt", "metadata.order_id": "42"}),
        Filters(),
    ):
        found = await ledger.finding.find(filters, Bounds(limit=5))
        assert [each.id for each in found] == ["msg_01JDB6Z0Q5V8W6K3T1E9F4H2RC"], filters
    (event,) = await ledger.events("msg_01JDB6Z0Q5V8W6K3T1E9F4H2RC")
    async with engine.connect() as db:
        owner = await db.scalar(text("SELECT application FROM events WHERE id = :id"), {"id": event.id})
    await ledger.dispose()

    assert owner == "shop"


async def test_the_release_before_goes_on_writing(engine: AsyncEngine) -> None:
    """Statements that do not know the new columns work, and what they write has its application."""
    await migrate(engine, "head")

    async with engine.begin() as db:
        await write_old(db, "msg_01JDB6Z0Q5V8W6K3T1E9F4H2RC")
        await db.execute(text("UPDATE recipients SET status = 'held', due_at = NULL"))
    async with engine.connect() as db:
        owners = (await db.execute(text("SELECT application FROM recipients"))).scalars().all()
        events = (await db.execute(text("SELECT application FROM events"))).scalars().all()

    assert owners == ["shop"]
    assert events == ["shop", "shop"]


async def test_an_upgrade_that_was_interrupted_is_begun_again(engine: AsyncEngine) -> None:
    """The part without a transaction finds what is done, and builds an index anew that was left half-built."""
    await migrate(engine, "0001")
    async with engine.begin() as db:
        await write_old(db, "msg_01JDB6Z0Q5V8W6K3T1E9F4H2RC")
    await migrate(engine, "head")
    async with engine.begin() as db:
        await db.execute(text("UPDATE alembic_version SET version_num = '0002'"))
        await db.execute(text("DROP INDEX ix_events_feed"))
        await db.execute(text("DELETE FROM facets WHERE name = 'tag'"))
        await db.execute(text("UPDATE messages SET from_key = NULL"))
        await db.execute(
            text("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_messages_subject'::regclass")
        )

    await migrate(engine, "head")

    async with engine.connect() as db:
        unusable = await db.scalar(text("SELECT count(*) FROM pg_index WHERE NOT indisvalid"))
        feed = await db.scalar(text("SELECT to_regclass('ix_events_feed')::text"))
        tags = await db.scalar(text("SELECT count(*) FROM facets WHERE name = 'tag'"))
        senders = (await db.execute(text("SELECT from_key FROM messages"))).scalars().all()
    assert (unusable, feed, tags, senders) == (0, "ix_events_feed", 1, ["noreply@contoso.com"])
