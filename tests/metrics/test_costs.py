"""What the figures cost the ledger: the same however long it is."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy import TextClause, text

from service.ledger import Ledger, figures, pace
from service.ledger.engine import transaction
from tests.bench.filler import copies
from tests.house import a_house, smarthost
from tests.peer import ScriptedPeer

#: What grows with the ledger.
LARGE = {
    "attempts", "contents", "deliveries", "events", "facets", "messages", "recipients", "sessions", "uses",
    "webhook_deliveries",
}  # fmt: skip

NOW = datetime.now(UTC)
STATEMENTS: dict[str, tuple[TextClause, dict[str, object]]] = {
    "lanes": (figures._LANES, {"lanes": ["peer"], "most": figures.COUNTED}),
    "unsettled": (figures._UNSETTLED, {"most": figures.COUNTED}),
    "webhooks": (figures._WEBHOOKS, {"most": figures.COUNTED}),
    "checks": (figures._CHECKS, {"routes": ["peer"]}),
    "messages": (pace._MESSAGES_OF_EACH, {"lanes": ["peer"], "now": NOW, "window": pace.MINUTE}),
    "day": (pace._DAY_OF_EACH, {"lanes": ["peer"], "now": NOW, "window": pace.DAY}),
}


async def plans(ledger: Ledger) -> dict[str, Any]:
    """Run each statement under EXPLAIN."""
    found = {}
    async with transaction(ledger._engine) as db:
        await db.execute(text("ANALYZE"))
        for name, (statement, given) in STATEMENTS.items():
            explain = text("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + statement.text)
            found[name] = (await db.execute(explain, given)).scalar_one()[0]["Plan"]
    return found


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def blocks(plan: dict[str, Any]) -> int:
    return int(plan["Shared Hit Blocks"]) + int(plan["Shared Read Blocks"])


async def test_figures_cost_the_same_however_long_the_ledger_is(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """No statement reads a large table from one end to the other, and twenty times the messages are no more blocks."""
    async with (
        ScriptedPeer() as peer,
        a_house(database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path) as house,
    ):
        sent = await house.submit()
        await house.in_state(sent, "sent")
        raw = await asyncpg.connect(database_url.replace("+asyncpg", ""))
        long_ago = NOW - timedelta(days=30)
        await copies(raw, sent, 250, oldest=long_ago, newest=NOW - timedelta(days=2), run="a")
        short = await plans(house.ledger)
        await copies(raw, sent, 5000, oldest=long_ago, newest=NOW - timedelta(days=2), run="b")
        await raw.close()
        long = await plans(house.ledger)

    for name, plan in long.items():
        scanned = {node.get("Relation Name") for node in nodes(plan) if node["Node Type"] == "Seq Scan"}
        assert not scanned & LARGE, name
        assert blocks(plan) <= blocks(short[name]) * 1.5 + 20, name
