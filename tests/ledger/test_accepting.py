"""Acceptance in groups: each submission gets its own right answer, whatever its neighbours ask for."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from urllib.parse import urlsplit

import asyncpg
import pytest

from service.ledger import Ledger, LedgerUnavailable
from service.ledger.accepting import (
    Accepted,
    Answer,
    Busy,
    IdempotencyKey,
    KeyReused,
    Replayed,
    Submission,
)
from tests.builders import a_submission
from tests.chaos.proxy import PostgresProxy
from tests.invariants import assert_sound


@pytest.fixture
async def ledger(database_url: str) -> AsyncIterator[Ledger]:
    """A ledger on a database of this test's own."""
    opened = Ledger.open(database_url, name="test", connections=10)
    yield opened
    await opened.dispose()


def a_key(name: str, body: str = "a") -> IdempotencyKey:
    return IdempotencyKey(path="/messages", key=name, sha256=body * 64)


async def together(ledger: Ledger, submissions: Sequence[Submission]) -> list[Answer]:
    """Accept in one group: the first one is under way while the others gather."""
    return list(await asyncio.gather(*(ledger.accept(each) for each in submissions)))


async def written(database_url: str) -> Counter[str]:
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch("SELECT id FROM messages")
    finally:
        await connection.close()
    return Counter(str(row["id"]) for row in rows)


def ids(submission: Submission) -> list[str]:
    return [message.id for message in submission.messages]


async def test_each_of_a_group_gets_its_own_answer(ledger: Ledger, database_url: str) -> None:
    """Keys that are free, taken, taken with another body, over, and none at all, in one group, twice."""
    first = a_submission(idempotency=a_key("taken"))
    old = a_submission(idempotency=a_key("old"))
    assert await together(ledger, [first, old]) == [Accepted(), Accepted()]
    connection = await asyncpg.connect(database_url)
    await connection.execute(
        "UPDATE idempotency SET created_at = clock_timestamp() - interval '73 hours' WHERE key = 'old'"
    )
    await connection.close()

    group = {
        "opens the group": a_submission(),
        "free": a_submission(idempotency=a_key("free")),
        "taken": a_submission(idempotency=a_key("taken")),
        "other body": a_submission(idempotency=a_key("taken", "b")),
        "over": a_submission(idempotency=a_key("old", "c")),
        "none": a_submission(),
        "other application": a_submission(idempotency=a_key("taken"), application="others"),
        "other path": a_submission(idempotency=replace(a_key("taken"), path="/messages/batch")),
    }
    answers = dict(zip(group, await together(ledger, list(group.values())), strict=True))

    replayed = Replayed(first.reservations[0].answer)
    refused = {"taken": replayed, "other body": KeyReused()}
    assert answers == dict.fromkeys(group, Accepted()) | refused
    kept = [each for name, each in group.items() if name not in refused]
    assert await written(database_url) == Counter(i for each in (first, old, *kept) for i in ids(each))
    again = await together(ledger, [a_submission(idempotency=a_key("old", "c"))])
    assert again == [Replayed(group["over"].reservations[0].answer)]
    await assert_sound(database_url)


async def test_the_same_key_several_times_in_one_group(ledger: Ledger, database_url: str) -> None:
    """One of them is accepted, the others are told what it was; the neighbours are not touched."""
    for round_ in range(10):
        same = [a_submission(idempotency=a_key(f"same{round_}")) for _ in range(6)]
        others = [a_submission() for _ in range(6)]
        group = [*same, *others]
        random.shuffle(group)
        answers = dict(zip(map(id, group), await together(ledger, group), strict=True))

        (winner,) = [each for each in same if answers[id(each)] == Accepted()]
        expected = Replayed(winner.reservations[0].answer)
        assert {answers[id(each)] for each in same if each is not winner} == {expected}
        assert {answers[id(each)] for each in others} == {Accepted()}
        there = await written(database_url)
        assert sum(there[i] for each in same for i in ids(each)) == 1
    await assert_sound(database_url)


async def test_a_key_in_an_open_transaction_holds_up_only_its_own(ledger: Ledger, database_url: str) -> None:
    """Another process has the key in hand: that one is told to come again, all others are accepted meanwhile."""
    connection = await asyncpg.connect(database_url)
    held = connection.transaction()
    await held.start()
    await connection.execute(
        "INSERT INTO idempotency (application, path, key, sha256, answer) VALUES ('tests', '/messages', 'held', $1, '{}')",
        "a" * 64,
    )
    busy = a_submission(idempotency=a_key("held"))
    others = [a_submission(idempotency=a_key(f"k{n}") if n % 2 else None) for n in range(8)]
    waiting = asyncio.create_task(together(ledger, [a_submission(), busy, *others]))
    answers = await waiting
    await held.rollback()
    await connection.close()

    assert answers == [Accepted(), Busy(), *[Accepted()] * 8]
    assert await ledger.accept(busy) == Accepted()
    assert (await written(database_url)).total() == 10
    await assert_sound(database_url)


async def test_two_processes_with_the_same_keys_in_opposite_orders(database_url: str) -> None:
    """Groups of two processes ask for the same keys the other way round: each key has one message, nobody fails."""
    ours, theirs = (Ledger.open(database_url, name="test", connections=12) for _ in range(2))
    try:
        for round_ in range(8):
            keys = [a_key(f"r{round_}-{n}") for n in range(10)]
            mine = [a_submission(idempotency=key) for key in keys]
            other = [a_submission(idempotency=key) for key in reversed(keys)]
            answers = await asyncio.gather(together(ours, mine), together(theirs, other))
            for key, left in zip(keys, answers[0], strict=True):
                right = answers[1][len(keys) - 1 - keys.index(key)]
                found = {type(left), type(right)}
                assert found <= {Accepted, Replayed, Busy}
                assert [left, right].count(Accepted()) == 1, (key, left, right)
        assert max((await written(database_url)).values()) == 1
        assert (await written(database_url)).total() == 80
    finally:
        await ours.dispose()
        await theirs.dispose()
    await assert_sound(database_url)


async def test_a_batch_is_written_whole_or_not_at_all(ledger: Ledger, database_url: str) -> None:
    """One key of a batch is taken: none of its messages is written, and its other keys stay free."""
    await ledger.accept(a_submission(idempotency=a_key("b")))
    before = await written(database_url)
    parts = [a_submission(idempotency=a_key(name)) for name in "abc"]
    batch = Submission(
        messages=[message for part in parts for message in part.messages],
        reservations=[reservation for part in parts for reservation in part.reservations],
    )

    answers = await together(ledger, [a_submission(), batch, a_submission()])

    assert isinstance(answers[1], Replayed)
    assert [answers[0], answers[2]] == [Accepted(), Accepted()]
    assert (await written(database_url)).total() == before.total() + 2
    assert await ledger.replay("tests", [a_key("a"), a_key("c")]) == {}
    assert await ledger.accept(a_submission(idempotency=a_key("a"))) == Accepted()


async def test_a_connection_that_is_killed_meanwhile(ledger: Ledger, database_url: str) -> None:
    """The server ends our connections all the time: accepted is what is there, and a key tells the truth afterwards."""
    killer = await asyncpg.connect(database_url)
    over = False

    async def kill() -> None:
        while not over:
            await killer.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            await asyncio.sleep(random.uniform(0, 0.02))

    killing = asyncio.create_task(kill())
    promised: list[tuple[Submission, IdempotencyKey]] = []
    unknown: list[tuple[Submission, IdempotencyKey]] = []
    try:
        for round_ in range(25):
            keys = [a_key(f"{round_}-{n}") for n in range(6)]
            group = [a_submission(idempotency=key) for key in keys]
            for each, key, answer in zip(
                group,
                keys,
                await asyncio.gather(*(ledger.accept(each) for each in group), return_exceptions=True),
                strict=True,
            ):
                if isinstance(answer, LedgerUnavailable):
                    unknown.append((each, key))
                elif isinstance(answer, BaseException):
                    raise answer
                else:
                    assert answer == Accepted()
                    promised.append((each, key))
    finally:
        over = True
        await killing
        await killer.close()

    assert unknown
    there = await written(database_url)
    for each, key in promised:
        assert [there[i] for i in ids(each)] == [1]
        assert await ledger.replay("tests", [key]) == {key: Replayed(each.reservations[0].answer)}
    for each, key in unknown:
        again = a_submission(idempotency=key)
        answer = await ledger.accept(again)
        if isinstance(answer, Replayed):  # it was committed, and only its answer was lost
            assert answer == Replayed(each.reservations[0].answer)
            assert [there[i] for i in ids(each)] == [1]
        else:
            assert answer == Accepted()
            assert [there[i] for i in ids(each)] == [0]
    await assert_sound(database_url)


async def test_what_hangs_in_a_black_hole_is_left_before_the_driver_would(database_url: str) -> None:
    """Half a minute is the driver's patience; whoever comes next does not wait for it."""
    parts = urlsplit(database_url)
    async with PostgresProxy(str(parts.hostname), int(parts.port or 0)) as way:
        ledger = Ledger.open(way.through(database_url), name="test", connections=2)
        try:
            assert await ledger.accept(a_submission()) == Accepted()
            way.black_hole()
            began = time.monotonic()
            with pytest.raises(LedgerUnavailable):
                await ledger.accept(a_submission())
            assert 4.0 < time.monotonic() - began < 20.0
            await way.behave()
            assert await ledger.accept(a_submission()) == Accepted()
        finally:
            await way.behave()
            await ledger.dispose()
