"""A million messages in the ledger against a thousand, in turns on the same server.

Two databases: both have the same thousand messages of the last day, of four applications, a few of them
refused; and the same thousand that wait on a lane. The large one has a million more from the month before
(`filler`). Each has an API of its own. Timed, in turns, are the ledger's own methods as the door and the worker call
them, and the door's answers where there are some:

    status        one message by its id                  list       pages of 50: all, by state, tag, recipient, time
    lane use      budgets, backlog and pauses of a lane  sweep      what the worker does every few seconds
    claim         of ten                                 accept     one message: the ledger's method, and POST

A figure is the median of the ratios; each part takes its turn several times.
"""

import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.delivery.worker import rescue_errors
from service.ledger import Ledger
from service.ledger.accepting import Accepted, IdempotencyKey
from service.ledger.finding import Bounds, Filters
from service.ledger.ids import new_id
from service.ledger.pace import LaneLimits
from tests.bench import filler, letters
from tests.bench.bench_drain import backlog, claim_seconds
from tests.bench.figures import ROUNDS, Figure, Table, median, ms, scaled
from tests.bench.machine import watching
from tests.bench.programs import Program, program
from tests.bench.stack import Stack, a_stack, way_out
from tests.builders import a_submission

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

_APPLICATIONS = 4
_RECENT = 1000
_WAITING = 1000
#: What is asked about: a lane with the limits of a mailbox, on which the month's mail went.
_LANE = "limited"
_QUEUE = "queue"
_LIMITS = LaneLimits(connections=3, messages_per_minute=30, messages_per_hour=None, recipients_per_day=10_000)
_ROOMY = replace(_LIMITS, connections=100)  # so that it may claim ten


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """One of the two ledgers."""

    stack: Stack
    ledger: Ledger
    tokens: list[str]
    ids: list[str]  # some messages of app-1
    addresses: list[str]  # their recipients

    def some(self) -> str:
        return random.choice(self.ids)


async def _originals(stack: Stack, loader: Program, tokens: list[str]) -> list[str]:
    """Send one message of each application, and one that the peer refuses; return their ids."""
    worker = await stack.start_worker()
    for run, token in [
        *((f"original{number}", token) for number, token in enumerate(tokens)),
        ("refused", tokens[0]),
    ]:
        await loader.ask(op="prepare", token=token, run=run, count=1, routes=[_LANE])
        await loader.ask(op="load", port=stack.port, clients=1)
        await stack.settled()
    await stack.stop(worker)
    async with stack.database() as db:
        rows = await db.fetch("SELECT message_id, status FROM recipients ORDER BY message_id")
    assert [row["status"] for row in rows] == ["sent"] * len(tokens) + ["failed"]
    return [row["message_id"] for row in rows]


async def _fill(
    stack: Stack, originals: list[str], count: int, *, oldest: datetime, newest: datetime, run: str
) -> None:
    """Copy the originals: every fiftieth message was refused."""
    *sent, refused = originals
    shares = {refused: count // 50, **{each: (count - count // 50) // len(sent) for each in sent}}
    async with stack.database() as db:
        for number, (original, share) in enumerate(shares.items()):
            await filler.copies(db, original, share, oldest=oldest, newest=newest, run=f"{run}{number}")
        await filler.settle(db)


async def _house(stack: Stack, tokens: list[str], closing: AsyncExitStack) -> House:
    await stack.start_api()
    ledger = Ledger.open(stack.database_url, name="bench", connections=2)
    closing.push_async_callback(ledger.dispose)
    async with stack.database() as db:
        rows = await db.fetch(
            "SELECT m.id, r.email FROM messages m JOIN recipients r ON r.message_id = m.id"
            " WHERE m.application = 'app-1' ORDER BY md5(m.id) LIMIT 500"
        )
    return House(
        stack=stack,
        ledger=ledger,
        tokens=tokens,
        ids=[row["id"] for row in rows],
        addresses=[row["email"] for row in rows],
    )


async def _houses(closing: AsyncExitStack, sink: Program, loader: Program) -> tuple[House, House]:
    """Make the small ledger and the large one."""
    port = sink.ready["port"]
    limits = {"messages_per_minute": 30, "recipients_per_day": 10_000, "connections": 3}
    small = await closing.enter_async_context(
        a_stack(routes=[way_out(port, name=_LANE, limits=limits), way_out(port, name=_QUEUE)])
    )
    await small.start_api()
    tokens = [await small.key(f"app-{number}") for number in range(_APPLICATIONS)]
    originals = await _originals(small, loader, tokens)
    now = datetime.now(UTC)
    day, month = now - timedelta(days=1), now - timedelta(days=31)
    await _fill(small, originals, _RECENT, oldest=day, newest=now - timedelta(minutes=1), run="recent")
    await backlog(small, _WAITING, run="wait", routes=[_QUEUE, _LANE], token=tokens[0])
    assert small.api is not None
    await small.stop(small.api)
    large = closing.enter_context(small.twin("million"))
    began = time.monotonic()
    await _fill(
        large, originals, scaled(1_000_000), oldest=month, newest=day - timedelta(hours=1), run="month"
    )
    print(f"\n  {scaled(1_000_000):,} messages written in {time.monotonic() - began:.0f} s")
    return await _house(small, tokens, closing), await _house(large, tokens, closing)


Part = Callable[[House], Awaitable[float]]  # times something in a ledger; seconds


def _each(act: Callable[[House], Awaitable[object]], *, times: int = 60) -> Part:
    """Time an act by its median."""

    async def part(house: House) -> float:
        taken = []
        for _ in range(times):
            began = time.perf_counter()
            await act(house)
            taken.append(time.perf_counter() - began)
        return median(taken)

    return part


def _read(loader: Program, path: Callable[[House], str], *, times: int = 100) -> Part:
    """Time a GET."""

    async def part(house: House) -> float:
        paths = [path(house) for _ in range(times)]
        await loader.ask(op="prepare_reads", token=house.tokens[1], paths=paths)
        load = await loader.ask(op="load", port=house.stack.port, clients=1)
        assert load["by_status"] == {"200": times}, load["by_status"]
        return median(load["latencies"])

    return part


def _page(**wanted: Any) -> Part:
    """Time a page of 20 of one application's messages."""
    return _each(
        lambda house: house.ledger.finding.find(
            Filters(**{"application": "app-1", **wanted}), Bounds(limit=20)
        )
    )


async def _sweep(house: House) -> None:
    """What a worker does every few seconds."""
    errors = rescue_errors()
    await house.ledger.rescue(uncertain_after=900, errors=errors)
    await house.ledger.expire(errors=errors)
    await house.ledger.lanes_with_due([_LANE, _QUEUE])
    await house.ledger.sum_up()


async def _accept(house: House) -> None:
    key = IdempotencyKey(path="/messages", key=new_id("req"), sha256="0" * 64)
    answer = await house.ledger.accept(
        a_submission(lane=_QUEUE, application="app-0", octets=letters.octets(), idempotency=key)
    )
    assert isinstance(answer, Accepted)


def _post(loader: Program) -> Part:
    async def part(house: House) -> float:
        run = new_id("req")[-12:].lower()
        await loader.ask(op="prepare", token=house.tokens[0], run=run, count=150, routes=[_QUEUE])
        load = await loader.ask(op="load", port=house.stack.port, clients=1)
        assert load["by_status"] == {"202": 150}, load["by_status"]
        return median(load["latencies"])

    return part


def _parts(loader: Program) -> list[tuple[str, float, Part]]:
    """What is timed, and how much slower the large ledger may be."""
    yesterday = datetime.now(UTC) - timedelta(hours=12)
    return [
        ("status", 1.2, _each(lambda house: house.ledger.message(house.some(), application="app-1"))),
        ("status, GET", 1.2, _read(loader, lambda house: f"/messages/{house.some()}")),
        ("attempts, GET", 1.2, _read(loader, lambda house: f"/messages/{house.some()}/attempts")),
        ("list page", 1.2, _page()),
        ("list page, GET", 1.2, _read(loader, lambda _: "/messages?limit=20")),
        ("list page, all applications", 1.2, _page(application=None)),
        ("list page, status=sent", 1.2, _page(status="sent")),
        ("list page, status=failed", 1.2, _page(application="app-0", status="failed")),
        ("list page, tag", 1.2, _page(facets={"tag": "receipt"})),
        ("list page, tag, GET", 1.2, _read(loader, lambda _: "/messages?limit=20&tag=receipt")),
        ("list page, domain", 1.2, _page(facets={"domain": "example.com"})),
        ("list page, a span of time", 1.2, _page(created_before=yesterday)),
        ("list page, a word of every subject", 1.2, _page(subject="recibo")),
        ("list page, a word of few subjects", 1.2, _page(subject="000123")),
        (
            "list page, recipient, GET",
            1.2,
            _read(loader, lambda house: f"/messages?limit=20&to={random.choice(house.addresses)}"),
        ),
        ("lane use", 1.2, _each(lambda house: house.ledger.lane_state(_LANE, _LIMITS))),
        ("sweep", 1.2, _each(_sweep)),
        ("claim of ten", 1.3, lambda house: claim_seconds(house.stack, lane=_QUEUE)),
        (
            "claim of ten, a mailbox's lane",
            1.3,
            lambda house: claim_seconds(house.stack, lane=_LANE, limits=_ROOMY),
        ),
        ("accept", 1.5, _each(_accept)),
        ("accept, POST", 1.5, _post(loader)),
    ]


async def test_million(table: Table) -> None:
    """A million against a thousand."""
    async with AsyncExitStack() as closing:
        sink = await closing.enter_async_context(program("sink"))
        loader = await closing.enter_async_context(program("loader"))
        small, large = await _houses(closing, sink, loader)
        await _sweep(small)
        await _sweep(large)  # the last day's use is summed up, as it is in a house that works
        for name, most, part in _parts(loader):
            with watching() as noise:
                pairs = [(await part(small), await part(large)) for _ in range(ROUNDS + 2)]
            ratio = median([each[1] / each[0] for each in pairs])
            table.add(
                Figure(
                    name=f"{scaled(1_000_000):,} messages against {_RECENT:,}: {name}",
                    goal=f"≤ {most:g} ×",
                    reached=f"{ratio:.2f} ×",
                    met=ratio <= most,
                    beside=f"{ms(median([each[0] for each in pairs]))} → {ms(median([each[1] for each in pairs]))}",
                    noise=str(noise),
                )
            )
