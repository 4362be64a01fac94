"""What a message costs does not depend on how many others there are: counted in rows read, not in time."""

import asyncio

import asyncpg
import pytest

from service.ledger import Ledger
from service.ledger.states import Status
from tests.builders import a_closing, a_submission, claim
from tests.waiting import eventually

#: Messages that wait in ledgers that are still small: there PostgreSQL may find it cheap to read a whole index.
OLD = [500, 2_000]

ROUNDS, AT_ONCE = 8, 8

_READ = """
    SELECT (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes) + (SELECT sum(seq_tup_read) FROM pg_stat_user_tables)
"""


@pytest.mark.parametrize("old", OLD)
@pytest.mark.parametrize("plans", ["auto", "force_generic_plan", "force_custom_plan"])
async def test_sending_reads_no_others(database_url: str, plans: str, old: int) -> None:
    """From acceptance to the verdict a message reads its own rows, with fresh statistics and whatever plan is kept."""
    before = Ledger.open(database_url, name="before", connections=2)
    for _ in range(old // 500):
        await asyncio.gather(*(before.accept(a_submission(lane="old")) for _ in range(500)))
    await before.dispose()
    connection = await asyncpg.connect(database_url)
    await connection.execute("ANALYZE")
    await connection.execute(
        f"ALTER ROLE CURRENT_USER IN DATABASE {await name(connection)} SET plan_cache_mode = {plans}"
    )
    start = await counted(connection)
    ledger = Ledger.open(database_url, name="test", connections=2)
    for _ in range(ROUNDS):
        await asyncio.gather(*(ledger.accept(a_submission()) for _ in range(AT_ONCE)))
        taken = (await claim(ledger, more=AT_ONCE)).claimed
        assert len(taken) == AT_ONCE
        assert all(await asyncio.gather(*(ledger.fence(each.attempt_id) for each in taken)))
        await asyncio.gather(*(ledger.close(a_closing(each, Status.SENT)) for each in taken))
        await ledger.give_back([each.seat for each in taken if each.seat])
    await ledger.dispose()

    read = await counted(connection) - start
    await connection.close()

    assert 0 < read < 60 * ROUNDS * AT_ONCE


async def name(connection: "asyncpg.Connection") -> str:
    return str(await connection.fetchval("SELECT quote_ident(current_database())"))


async def counted(connection: "asyncpg.Connection") -> int:
    """Return how many rows were read so far; sessions have to be over to be counted."""
    others = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )

    async def alone() -> bool:
        return bool(await connection.fetchval(others) == 0)

    await eventually(alone)
    await connection.execute("SELECT pg_stat_clear_snapshot(), pg_stat_force_next_flush()")
    return int(await connection.fetchval(_READ))
