"""PostgreSQL with the least rights: one role owns the tables, another one serves, and neither is a superuser.

The grants are those of docs/security.md, read from there: what a reader copies is what is tried.
"""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from service import wiring
from service.ledger import migrate
from service.local.servers import LocalPostgres
from tests.house import ROOT, a_house, smarthost
from tests.peer import ScriptedPeer
from tests.waiting import eventually

OWNER, SERVICE = "postroom_owner", "postroom"


def grants() -> list[str]:
    """Read the SQL of the section on the database out of the page."""
    page = (ROOT / "docs" / "security.md").read_text()
    blocks = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    return [statement.strip() for statement in ";".join(blocks).split(";") if statement.strip()]


@dataclass(frozen=True, slots=True)
class Database:
    owner: str  # its URL as the role that owns the tables
    service: str  # and as the one that serves


@pytest.fixture
def database(shared_postgres: LocalPostgres) -> Iterator[Database]:
    """A database with the roles and grants of the page, migrated by its owner."""
    name = "least_rights"
    statements = [each.replace("DATABASE postroom", f"DATABASE {name}") for each in grants()]
    for role in (SERVICE, OWNER):
        shared_postgres.execute(f"DROP ROLE IF EXISTS {role}")
    try:
        for statement in statements:
            made = any(
                each["datname"] == name for each in shared_postgres.execute("SELECT datname FROM pg_database")
            )
            shared_postgres.execute(statement, database=name if made else "postgres")
        found = Database(
            *(shared_postgres.url(name).replace("//postgres:", f"//{role}:") for role in (OWNER, SERVICE))
        )
        for role in (OWNER, SERVICE):
            shared_postgres.execute(f"ALTER ROLE {role} PASSWORD '{shared_postgres.password}'")
        with ThreadPoolExecutor(1) as thread:
            thread.submit(migrate.upgrade, found.owner).result()
        yield found
    finally:
        shared_postgres.drop_database(name)
        for role in (SERVICE, OWNER):
            shared_postgres.execute(f"DROP ROLE IF EXISTS {role}")


async def test_the_service_needs_no_rights_but_those_of_the_page(
    database: Database, redis_url: str, tmp_path: Path
) -> None:
    """Accept, send, retry, settle by the sweep, templates, suppressions, webhooks, keys: all of it without a superuser."""
    async with (
        ScriptedPeer() as peer,
        a_house(database.service, redis_url, routes=[smarthost(peer)], folder=tmp_path) as house,
    ):
        peer.on("rcpt", reply="451 4.3.0 come back", times=1)
        sent = await house.submit(idempotency_key="one")
        await house.in_state(sent, "sent")
        for path, body in (
            ("/templates", {"name": "x", "subject": "x", "text": "{{ a }}", "publish": True}),
            ("/suppressions", {"address": "stopped@example.com"}),
            ("/webhooks", {"url": "https://example.com/hook"}),
        ):

            async def made(path: str = path, body: Any = body) -> bool:
                return (await house.client.post(path, json=body)).status_code == 201

            await eventually(made)  # a press may be busy starting
        await house.workers[0].worker.sweep()
        await house.ledger.forget_old()
        async with wiring.webhook_dispatcher(house.settings) as dispatcher:
            await dispatcher.round()
        ready = (await house.client.get("/readyz")).json()

    assert ready == {"status": "ready", "checks": {"ledger": "ok", "schema": "ok", "redis": "ok"}}


async def test_neither_role_is_more_than_it_has_to_be(database: Database) -> None:
    """No superuser, no right to make roles or databases; who serves owns nothing and can change no table's form."""
    connection = await asyncpg.connect(database.service)
    try:
        rights = await connection.fetch(
            "SELECT rolname, rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls AS mighty"
            " FROM pg_roles WHERE rolname = ANY($1)",
            [OWNER, SERVICE],
        )
        owned = await connection.fetchval(
            "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
            " WHERE nspname = 'public' AND pg_get_userbyid(relowner) <> $1",
            OWNER,
        )
        for forbidden in (
            "DROP TABLE messages",
            "ALTER TABLE messages ADD x int",
            "TRUNCATE events",
            "CREATE TABLE x (y int)",
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "COPY messages TO PROGRAM 'id'",
            "COPY messages TO '/tmp/x'",
            "SELECT pg_read_file('/etc/passwd')",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(forbidden)
    finally:
        await connection.close()

    assert {(row["rolname"], row["mighty"]) for row in rights} == {(OWNER, False), (SERVICE, False)}
    assert owned == 0
