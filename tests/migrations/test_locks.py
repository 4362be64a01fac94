"""What each migration locks, and for how long that can be: a question of rows, asked with few of them.

A migration may stop everybody at a table that is in use (ALTER TABLE does) for the moment in which the catalogue
is changed. It may not do so and then read or rewrite rows, because that takes as long as there are many: an index
is built CONCURRENTLY, a constraint is added NOT VALID, a column without a default that is computed. So each
statement is looked at right behind it, on its own connection: the locks that its transaction holds, the rows that
the transaction has read, the files of the tables.
"""

import asyncio
import re
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Connection, event, text

from service.ledger import migrate
from tests.migrations import first_release as old
from tests.migrations.steps import to_revision

TABLES = """
    SELECT relname, pg_relation_filenode(oid) AS file FROM pg_class
     WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace
"""

#: Locks of this transaction on tables that make others wait who read or write them.
HELD = """
    SELECT c.relname FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
     WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND c.relkind = 'r'
       AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
"""

READ = """
    SELECT relname, seq_tup_read + coalesce(idx_tup_fetch, 0) AS rows FROM pg_stat_xact_user_tables
"""

INDEX = re.compile(r"^\s*CREATE (UNIQUE )?INDEX (?!CONCURRENTLY).* ON (ONLY )?(\w+)", re.DOTALL)


class Watch:
    """Looks behind each statement of one migration, and keeps what it finds wrong."""

    def __init__(self) -> None:
        self.mistakes: list[str] = []
        self._files: dict[str, int] = {}
        self._looking = False

    def __call__(self, connection: Connection) -> None:
        rows = connection.execute(text(TABLES))
        self._files = {row.relname: row.file for row in rows if row.relname != "alembic_version"}
        connection.commit()
        event.listen(connection.engine, "after_cursor_execute", self._behind)

    def _behind(self, connection: Connection, _cursor: Any, statement: str, *_more: Any) -> None:
        if self._looking:
            return
        self._looking = True
        try:
            self._look(connection, " ".join(statement.split())[:100], statement)
        finally:
            self._looking = False

    def _look(self, connection: Connection, shown: str, statement: str) -> None:
        in_use = self._files.keys()
        held = {row.relname for row in connection.execute(text(HELD))} & in_use
        read = {row.relname for row in connection.execute(text(READ)) if row.rows} & in_use
        files = {row.relname: row.file for row in connection.execute(text(TABLES))}
        if held and read:
            self.mistakes.append(f"{shown}: reads {sorted(read)} while it holds {sorted(held)}")
        rewritten = sorted(name for name in in_use if files.get(name) != self._files[name])
        if rewritten:
            self.mistakes.append(f"{shown}: rewrites {rewritten}")
            self._files |= {name: files[name] for name in rewritten if name in files}
        built = INDEX.match(statement)
        if built and built[3] in in_use:
            self.mistakes.append(f"{shown}: builds an index while everybody waits")


@pytest.fixture
async def ledger_of_before(empty_database_url: str) -> str:
    await asyncio.to_thread(to_revision, empty_database_url, "0001")
    db = await asyncpg.connect(empty_database_url)
    await old.fill(db, 40)
    await db.close()
    return empty_database_url


async def test_no_migration_makes_others_wait_for_the_length_of_a_table(ledger_of_before: str) -> None:
    """One by one, from the first to the last."""
    mistakes = {}
    for revision in sorted(migrate.revisions() - {"0001"}):
        watch = Watch()
        await asyncio.to_thread(to_revision, ledger_of_before, revision, watch=watch)
        if watch.mistakes:
            mistakes[revision] = watch.mistakes

    assert mistakes == {}


#: Mistakes that migrations are known for, and two changes that cost a moment only.
PLANTED: tuple[tuple[tuple[str, ...], str | None], ...] = (
    (("CREATE INDEX x ON messages (subject)",), "while it holds ['messages']"),
    (("ALTER TABLE messages ADD COLUMN x integer NOT NULL DEFAULT (random() * 9)::integer",), "rewrites"),
    (("ALTER TABLE messages ALTER size TYPE bigint",), "rewrites ['messages']"),
    (("ALTER TABLE messages ADD CONSTRAINT x CHECK (size >= 0)",), "reads ['messages']"),
    (("ALTER TABLE messages ALTER reverse_path DROP NOT NULL",), None),
    (("ALTER TABLE messages ADD COLUMN x text", "UPDATE recipients SET name = 'x'"), "reads ['recipients']"),
    (("ALTER TABLE messages ADD COLUMN x text", "CREATE TABLE y (z text)"), None),
)


async def test_what_would_make_them_wait_is_seen(ledger_of_before: str) -> None:
    """Each mistake that is planted in a transaction is found, and no other thing is taken for one."""
    for statements, said in PLANTED:
        watch = Watch()

        def planted(
            connection: Connection, statements: tuple[str, ...] = statements, watch: Watch = watch
        ) -> None:
            watch(connection)
            for statement in statements:
                connection.execute(text(statement))
            connection.rollback()

        await asyncio.to_thread(to_revision, ledger_of_before, "0001", watch=planted)

        if said is None:
            assert watch.mistakes == []
        else:
            assert said in str(watch.mistakes), statements
