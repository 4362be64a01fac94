"""Finding messages: what the filters find, how pages stay, and that each filter has its index."""

import itertools
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from service.ledger import Ledger
from service.ledger.engine import open_engine
from service.ledger.finding import Bounds, Filters, _Question
from service.ledger.ids import first_id, new_id
from service.ledger.states import Status, message_status

NOW = datetime.now(UTC)

#: A ledger of 20,000 messages of two applications, as the service would have written it.
SEED = """
    INSERT INTO messages (id, application, key_id, from_email, from_key, reverse_path, subject, message_id, size,
                          sha256, stream, idempotency_key, created_at, expires_at)
    SELECT 'msg_' || lpad(n::text, 26, '0'), CASE WHEN n % 10 = 0 THEN 'small' ELSE 'large' END, 'key_x',
           'a@contoso.com', CASE WHEN n % 100 = 1 THEN 'rare@contoso.com' ELSE 'a@contoso.com' END, 'a@contoso.com',
           CASE WHEN n % 500 = 1 THEN 'A peculiar subject ' ELSE 'Your receipt ' END || n, '<' || n || '@contoso.com>',
           1, 'x', CASE WHEN n % 700 = 1 THEN 'bulk' ELSE 'transactional' END,
           CASE WHEN n % 3 = 0 THEN 'key-' || n END, now(), now()
      FROM generate_series(1, 20000) AS n;
    INSERT INTO deliveries (id, message_id, application, route, lane, sender, priority, size, expires_at, finished_at)
    SELECT 'dlv_' || id, id, application, 'peer', 'peer', 'a@contoso.com', 1, 1, now(), now() FROM messages;
    INSERT INTO recipients (message_id, position, type, email, status, delivery_id, application, finished_at, reply)
    SELECT id, 0, 'to', 'ana' || right(id, 3) || '@example.com', 'suppressed', 'dlv_' || id, application, now(),
           '{"code": 250, "enhanced": "2.0.0"}'
      FROM messages;
    ALTER TABLE recipients DISABLE TRIGGER USER;
    UPDATE recipients SET status = 'sent' WHERE right(message_id, 2) <> '77';
    UPDATE recipients SET status = 'failed' WHERE right(message_id, 3) = '177';
    ALTER TABLE recipients ENABLE TRIGGER USER;
    INSERT INTO facets SELECT application, 'to', email, message_id FROM recipients;
    INSERT INTO facets SELECT application, 'domain', 'example.com', message_id FROM recipients;
    INSERT INTO facets SELECT application, f.name, f.value, id FROM messages
     CROSS JOIN (VALUES ('route', 'peer'), ('lane', 'peer'), ('tag', 'receipt'), ('metadata.customer', '7')) AS f (name, value);
    INSERT INTO facets SELECT application, f.name, f.value, message_id FROM recipients
     CROSS JOIN (VALUES ('code', '550'), ('enhanced', '5.1.1'), ('diagnosis', 'exo.x')) AS f (name, value)
     WHERE status = 'failed'
"""


@pytest.fixture
async def seeded(database_url: str) -> AsyncIterator[Ledger]:
    engine = open_engine(database_url, name="test", size=1)
    async with engine.begin() as db:
        for statement in SEED.split(";"):
            await db.execute(text(statement.replace(": 250", r"\: 250").replace(': "2.0.0"', r'\: "2.0.0"')))
    async with engine.connect() as db:
        await db.execution_options(isolation_level="AUTOCOMMIT")
        await db.execute(text("VACUUM ANALYZE"))
    await engine.dispose()
    ledger = Ledger.open(database_url, name="test", connections=2)
    yield ledger
    await ledger.dispose()


QUESTIONS: dict[str, tuple[dict[str, Any], int]] = {
    "nothing": ({}, 18000),
    "status": ({"status": "failed"}, 20),
    "status of most": ({"status": "sent"}, 17800),
    "partially_sent": ({"status": "partially_sent"}, 0),
    "to": ({"facets": {"to": "ana123@example.com"}}, 20),
    "domain": ({"facets": {"domain": "example.com"}}, 18000),
    "from": ({"columns": {"from": "rare@contoso.com"}}, 200),
    "subject": ({"subject": "peculiar"}, 40),
    "words of the subject": ({"subject": "Your rec 11"}, -1),
    "tag": ({"facets": {"tag": "receipt"}}, 18000),
    "metadata": ({"facets": {"metadata.customer": "7"}}, 18000),
    "route": ({"facets": {"route": "peer"}}, 18000),
    "lane": ({"facets": {"lane": "peer"}}, 18000),
    "stream": ({"columns": {"stream": "bulk"}}, -1),
    "code": ({"facets": {"code": "550"}}, 20),
    "code of success": ({"success": {"code": "250"}}, 17800),
    "enhanced": ({"facets": {"enhanced": "5.1.1"}}, 20),
    "diagnosis": ({"facets": {"diagnosis": "exo.x"}}, 20),
    "message_id": ({"columns": {"message_id": "<11@contoso.com>"}}, 1),
    "idempotency_key": ({"columns": {"idempotency_key": "key-3"}}, 1),
}


async def test_each_filter_alone_is_answered_by_an_index(seeded: Ledger, database_url: str) -> None:
    """No filter reads a table from end to end, within one application and for all of them."""
    engine = open_engine(database_url, name="test", size=1)
    read: list[str] = []
    async with engine.connect() as db:
        for (name, (values, _)), application in itertools.product(QUESTIONS.items(), ("large", None)):
            question = _Question(Filters(application=application, **values), Bounds(limit=20))
            plan = (
                await db.execute(text(f"EXPLAIN (ANALYZE, FORMAT JSON) {question.sql()}"), question.values)
            ).scalar_one()
            touched = sum(node["Actual Rows"] * node["Actual Loops"] for node in _nodes(plan[0]["Plan"]))
            if "Seq Scan" in json.dumps(plan) or touched > 6_000:
                read.append(f"{name} ({application}): {touched} rows\n{json.dumps(plan, indent=1)[:3000]}")
    await engine.dispose()

    assert not read, "\n".join(read)


async def test_a_rare_word_is_looked_up_however_often_common_ones_were_asked_for(seeded: Ledger) -> None:
    """Each search has a plan of its own word: one for any word would look through all messages for a rare one."""
    for subject in [*["receipt"] * 8, "peculiar"]:
        found = await seeded.finding.find(Filters(application="large", subject=subject), Bounds(limit=20))
        assert found

    plans = 0
    for _ in range(2):  # one of the pool's connections has run them
        async with seeded._engine.connect() as db:
            rows = await db.execute(
                text(
                    "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE statement LIKE :this"
                ),
                {"this": "%subject_words(m.subject) @@%"},
            )
            for generic, custom in rows:
                assert generic == 0
                plans += custom
    assert plans >= 9


def _nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for child in plan.get("Plans", ()) for node in _nodes(child))]


async def test_what_is_found_is_all_there_is(seeded: Ledger) -> None:
    """Page by page, every message that fits is found once, newest first, and again backwards."""
    for name, (values, expected) in QUESTIONS.items():
        wanted = Filters(application="large", **values)
        limit = 9_000 if expected > 100 else 7
        forwards = await _all(seeded, wanted, limit=limit)
        back = (
            await seeded.finding.find(wanted, Bounds(limit=5, before=forwards[6]))
            if len(forwards) > 6
            else []
        )

        assert expected in {len(forwards), -1}, name
        assert forwards or not expected, name
        assert forwards == sorted(set(forwards), reverse=True), name
        assert [each.id for each in back] == [*reversed(forwards[:6])][: len(back)], name


async def _all(ledger: Ledger, wanted: Filters, *, limit: int) -> list[str]:
    found: list[str] = []
    while True:
        page = await ledger.finding.find(wanted, Bounds(limit=limit, after=found[-1] if found else None))
        found += [each.id for each in page[:limit]]
        if len(page) <= limit:
            return found


async def test_the_schema_derives_a_messages_status_as_we_do(database_url: str) -> None:
    """`message_status` in SQL and in Python say the same of every mixture of up to three states."""
    engine = open_engine(database_url, name="test", size=1)
    mixtures = [
        mixture
        for size in (1, 2, 3)
        for mixture in itertools.combinations_with_replacement([str(each) for each in Status], size)
    ]
    async with engine.begin() as db:
        await db.execute(text("ALTER TABLE recipients DISABLE TRIGGER ALL"))
        await db.execute(
            text("""
                INSERT INTO recipients (message_id, position, type, email, status, application, finished_at)
                SELECT row.id, row.position, 'to', 'x', row.status, 'a',
                       CASE WHEN row.status IN ('sent', 'delivered', 'bounced', 'failed', 'expired', 'canceled',
                                                'suppressed') THEN now() END
                  FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS row(id text, position smallint, status text)
            """),
            {
                "rows": json.dumps(
                    [
                        {"id": f"msg_{number}", "position": position, "status": status}
                        for number, mixture in enumerate(mixtures)
                        for position, status in enumerate(mixture)
                    ]
                )
            },
        )
        in_sql = [
            (await db.execute(text("SELECT message_status(:id)"), {"id": f"msg_{number}"})).scalar_one()
            for number in range(len(mixtures))
        ]
        await db.rollback()
    await engine.dispose()

    assert in_sql == [message_status(mixture) for mixture in mixtures]


def test_a_time_has_the_first_id_of_its_own() -> None:
    """Ids that are made later sort behind it, earlier ones before it."""
    made = new_id("msg")

    assert first_id("msg", NOW - timedelta(seconds=1)) < made < first_id("msg", NOW + timedelta(hours=1))
