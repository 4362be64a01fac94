"""Claiming ahead and beginning behind the dot: nothing lost, doubled, leaked or stalled by it (decision record 0013).

The witness is the other side: what the peer saw is laid beside the ledger, transaction by transaction.
"""

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from service.delivery.bell import CHANNEL, open_redis
from service.local.servers import LocalPostgres
from tests.house import (
    Door,
    Processes,
    a_house,
    a_message,
    configuration,
    copies,
    processes,
    smarthost,
)
from tests.invariants import assert_sound
from tests.peer import ScriptedPeer, Transaction
from tests.waiting import eventually


async def submit_many(door: Door, count: int, *, first: int = 0, **changes: Any) -> dict[str, str]:
    """Send messages to as many recipients, in batches; return id by recipient."""
    sent: dict[str, str] = {}
    for start in range(first, first + count, 500):
        recipients = [f"user{n}@example.com" for n in range(start, min(start + 500, first + count))]
        batch = [a_message(to=[recipient], **changes) for recipient in recipients]
        answer = await door.client.post("/messages/batch", json=batch)
        assert answer.status_code == 202, answer.text
        sent |= zip(recipients, (each["id"] for each in answer.json()["data"]), strict=True)
    return sent


async def query(database_url: str, sql: str, *arguments: object) -> list[Any]:
    connection = await asyncpg.connect(database_url)
    try:
        rows: list[Any] = await connection.fetch(sql, *arguments)
    finally:
        await connection.close()
    return rows


async def all_sent(database_url: str, count: int, *, within: float = 40.0) -> None:
    """Wait until so many recipients are sent, and see that no other is left."""

    async def states() -> bool:
        rows = await query(database_url, "SELECT status, count(*) FROM recipients GROUP BY status")
        assert {row[0]: row[1] for row in rows} == {"sent": count}
        return True

    await eventually(states, within=within)


async def assert_the_ledger_is_the_wire(
    database_url: str, peer: ScriptedPeer, sent: Mapping[str, str]
) -> list[Any]:
    """Every transaction that the peer saw has one attempt with its replies; what it did not see says why.

    Every message has one recipient of its own. Returns the attempts.
    """
    rows = await _attempts(database_url)
    seen: dict[str, list[Transaction]] = {}
    for transaction in peer.transactions:
        for path, _ in transaction.rcpts:
            seen.setdefault(path, []).append(transaction)
    for recipient in sent:
        attempts = [row for row in rows if row["email"] == recipient]
        on_the_wire = [row for row in attempts if row["session_message"] is not None]
        transactions = seen.get(recipient, [])
        # A peer that has closed reads nothing more, and one that refused MAIL writes no recipients down.
        unseen = len(on_the_wire) - len(transactions)
        assert 0 <= unseen <= sum(row["phase"] == "mail" for row in on_the_wire), recipient
        finals = [each.final_reply for each in transactions if each.final_reply]
        heard = [row["reply"] for row in on_the_wire if row["phase"] == "reply"]
        assert len(heard) == len(finals), recipient
    return rows


def outcomes(rows: Sequence[Any]) -> Counter[tuple[str, str | None]]:
    return Counter((row["outcome"], row["fault"]) for row in rows)


async def paused_lanes(database_url: str) -> int:
    (row,) = await query(
        database_url, "SELECT count(*) FROM lanes WHERE troubles > 0 OR paused_until IS NOT NULL"
    )
    return int(row[0])


async def tries(database_url: str) -> Counter[int]:
    return Counter(row[0] for row in await query(database_url, "SELECT tries FROM recipients"))


# -- a peer that does not like to be hurried -----------------------------------------------------


CLOSES: dict[str, dict[str, Any]] = {
    "each time": {"reply": "250 2.0.0 OK", "then": "close"},
    "with a farewell": {"reply": "250 2.0.0 OK", "glue": b"421 4.4.2 too many messages\r\n", "then": "close"},
}


@pytest.mark.parametrize("how", CLOSES)
@pytest.mark.parametrize("every", [1, 2])
async def test_a_peer_that_ends_the_session_behind_a_message(
    database_url: str, redis_url: str, tmp_path: Path, how: str, every: int
) -> None:
    """A 250 and the end of the session: one copy each, no rest, no try of its own, and nobody hurries it again."""
    async with ScriptedPeer() as peer:
        count = 0

        def due(_: str) -> bool:
            nonlocal count
            count += 1
            return count > 10 and count % every == 0

        peer.on("dot", when=due, **CLOSES[how])
        route = smarthost(peer, limits={"connections": 3})
        async with a_house(database_url, redis_url, routes=[route], folder=tmp_path) as house:
            sent = await submit_many(house, 120)
            await all_sent(database_url, 120)
            await eventually(lambda: _none_open(database_url))
            rows = await assert_the_ledger_is_the_wire(database_url, peer, sent)

    assert {recipient: copies(peer, recipient) for recipient in sent} == dict.fromkeys(sent, 1)
    behind = [row for row in rows if row["fault"] == "session_ended_behind"]
    assert set(outcomes(rows)) <= {("sent", None), ("deferred", "session_ended_behind")}
    assert 1 <= len(behind) <= 3  # at most once on each connection, and never again
    assert await paused_lanes(database_url) == 0
    assert await tries(database_url) == {1: 120}
    await assert_sound(database_url)


async def _none_open(database_url: str) -> bool:
    return not await query(database_url, "SELECT 1 FROM attempts WHERE outcome IS NULL")


async def test_a_reply_that_does_not_come_holds_nobody_else_up(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """No reply to one dot: that message is uncertain at its time; the one begun behind goes another way before."""
    async with ScriptedPeer() as peer:
        route = smarthost(peer, limits={"connections": 2}, timeouts={"dot": "8s"})
        async with a_house(database_url, redis_url, routes=[route], folder=tmp_path) as house:
            sent = await submit_many(house, 20)
            await all_sent(database_url, 20)
            gate = asyncio.Event()
            peer.on("data", until=gate)
            sent |= await submit_many(house, 40, first=20)
            await more_in_hand_than(database_url, 2)
            waited = peer.on("dot", then="stall", times=1)
            gate.set()
            await all_sent(database_url, 60)
            rows = await assert_the_ledger_is_the_wire(database_url, peer, sent)

    assert waited.acted == 1
    (uncertain,) = [row for row in rows if row["outcome"] == "uncertain"]
    (behind,) = [row for row in rows if row["fault"] == "session_ended_behind"]
    (again,) = [row for row in rows if row["email"] == behind["email"] and row["outcome"] == "sent"]
    assert again["ended_at"] < uncertain["ended_at"]
    expected = {recipient: 1 + (recipient == uncertain["email"]) for recipient in sent}
    assert {recipient: copies(peer, recipient) for recipient in sent} == expected
    assert await tries(database_url) == {1: 59, 2: 1}
    assert await paused_lanes(database_url) == 0
    await assert_sound(database_url)


REFUSALS: dict[str, tuple[str, dict[str, Any]]] = {
    "message now": ("dot", {"reply": "451 4.6.0 Later"}),
    "message for ever": ("dot", {"reply": "554 5.6.0 Corrupt message content"}),
    "recipient": ("rcpt", {"reply": "550 5.1.1 No such user"}),
    "sender": ("mail", {"reply": "501 5.1.7 Invalid address"}),
    "data": ("data", {"reply": "554 5.6.0 Not this one"}),
}


@pytest.mark.parametrize("what", REFUSALS)
async def test_a_refusal_is_for_its_own_message_only(
    database_url: str, redis_url: str, tmp_path: Path, what: str
) -> None:
    """Of messages that begin behind each other, those that are refused fail, and all the others are untouched."""
    phase, does = REFUSALS[what]
    async with ScriptedPeer() as peer:
        refused = {f"user{n}@example.com" for n in range(20, 60, 4)}
        if phase == "mail":
            peer.on("mail", when=lambda path: path == "other@contoso.com", **does)
        else:
            peer.on(phase, when=lambda path: path in refused, **does)
        route = smarthost(peer, limits={"connections": 1})
        dispatch = {"retry": {"first": "30s", "factor": 1, "cap": "30s"}}
        async with a_house(
            database_url, redis_url, routes=[route], folder=tmp_path, dispatch=dispatch
        ) as house:
            batch = [
                a_message(
                    to=[f"user{n}@example.com"],
                    **{"from": "other@contoso.com"} if f"user{n}@example.com" in refused else {},
                )
                for n in range(60)
            ]
            answer = await house.client.post("/messages/batch", json=batch)
            assert answer.status_code == 202
            sent = {each["recipients"][0]["email"]: each["id"] for each in answer.json()["data"]}

            async def over() -> bool:
                found = await query(
                    database_url, "SELECT status, count(*) AS n FROM recipients GROUP BY status"
                )
                count = {row["status"]: row["n"] for row in found}
                assert count.pop("sent", 0) == 50
                return count in ({"failed": 10}, {"deferred": 10})

            await eventually(over)
            await eventually(lambda: _none_open(database_url))
            rows = await assert_the_ledger_is_the_wire(database_url, peer, sent)

    for recipient in sent:
        mine = [row for row in rows if row["email"] == recipient and row["fault"] != "given_back"]
        assert len(mine) == 1
        assert (mine[0]["outcome"] == "sent") == (recipient not in refused)
    assert await paused_lanes(database_url) == 0
    await assert_sound(database_url)


async def begun_behind(database_url: str) -> set[str]:
    """List the recipients whose commands left before the reply to the dot of the message before on the session."""
    rows = await query(
        database_url,
        """SELECT a.recipients #>> '{0,email}' FROM attempts a
             JOIN attempts b ON b.session_id = a.session_id AND b.session_message = a.session_message - 1
            WHERE (a.transcript #>> '{0,at}')::timestamptz < (b.transcript #>> '{-1,at}')::timestamptz""",
    )
    return {str(row[0]) for row in rows}


# -- trouble -------------------------------------------------------------------------------------

#: Rests of seconds: long enough to see that nothing is begun in them.
RESTING = {"retry": {"first": "2s", "factor": 1, "cap": "900s"}}


async def more_in_hand_than(database_url: str, seats: int) -> None:
    """Wait until more is claimed than there are seats: something waits for one."""

    async def waits() -> bool:
        (row,) = await query(database_url, "SELECT count(*) FROM attempts WHERE outcome IS NULL")
        return int(row[0]) > seats

    await eventually(waits)


async def resting_and_quiet(database_url: str) -> bool:
    """Say whether the lane rests and nothing is in hand."""
    rests = "SELECT 1 FROM lanes WHERE paused_until > clock_timestamp()"
    return bool(await query(database_url, rests)) and await _none_open(database_url)


@pytest.mark.parametrize("trouble", ["server busy", "no connection"])
async def test_trouble_of_the_lane_sends_back_what_waits(
    database_url: str, redis_url: str, tmp_path: Path, trouble: str
) -> None:
    """The first refusals of each connection are all; what waited goes back untried, and all of it in the end."""
    seats = 8
    async with ScriptedPeer() as peer:
        route = smarthost(peer, limits={"connections": seats})
        async with a_house(
            database_url, redis_url, routes=[route], folder=tmp_path, dispatch=RESTING
        ) as house:
            sent = await submit_many(house, 60)
            await all_sent(database_url, 60)
            gate = asyncio.Event()
            rule = peer.on("dot", until=gate, reply="451 4.3.2 Server busy")
            sent |= await submit_many(house, 240, first=60)
            await more_in_hand_than(database_url, 2 * seats)  # on a seat, begun behind that, and waiting
            if trouble == "no connection":
                rule = peer.on("connect", then="close")
                await peer.hang_up()
            gate.set()
            await eventually(lambda: resting_and_quiet(database_url))
            refused = rule.acted
            peer.behave()
            await all_sent(database_url, 300)
            await eventually(lambda: _none_open(database_url))
            rows = await assert_the_ledger_is_the_wire(database_url, peer, sent)

    # Each connection's own, and what had begun behind that.
    assert 1 <= refused <= 2 * seats
    explained = Counter(row["email"] for row in rows if row["outcome"] == "uncertain")
    for recipient in sent:
        assert 1 <= copies(peer, recipient) <= 1 + explained[recipient]
    if trouble == "server busy":  # without a connection, each seat has taken one more
        assert any(row["fault"] == "given_back" for row in rows)
    assert all(row["session_message"] is None for row in rows if row["fault"] == "given_back")
    assert await paused_lanes(database_url) == 0
    await assert_sound(database_url)


async def test_a_sender_that_may_not_send_holds_up_only_itself(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """A few refusals rest the sender; what others have in between goes on, and the rest of the sender's later."""
    seats = 4
    async with ScriptedPeer() as peer:
        denied = "554 5.2.252 SendAsDenied; noreply@contoso.com not allowed to send as other@contoso.com"
        rule = peer.on("dot", reply=denied, when=lambda path: path.startswith("other"))
        route = smarthost(peer, limits={"connections": seats})
        dispatch = {"retry": {"first": "1s", "factor": 1, "cap": "1s"}}
        async with a_house(
            database_url, redis_url, routes=[route], folder=tmp_path, dispatch=dispatch
        ) as house:
            batch = [
                a_message(to=[f"{who}{n}@example.com"], **{"from": f"{who}@contoso.com"})
                for n in range(120)
                for who in ("noreply", "other")
            ]
            answer = await house.client.post("/messages/batch", json=batch)
            assert answer.status_code == 202
            others = sum(("other" in each["recipients"][0]["email"]) for each in answer.json()["data"])
            await eventually(lambda: sum(each.mail.startswith("noreply") for each in peer.taken) == 120)
            await eventually(lambda: _none_open(database_url))
            refused = rule.acted
            peer.behave()

            async def over() -> bool:
                found = await query(
                    database_url, "SELECT status, count(*) AS n FROM recipients GROUP BY status"
                )
                states = {row["status"]: row["n"] for row in found}
                return set(states) == {"sent", "failed"} and sum(states.values()) == 240

            await eventually(over)
            failed = await query(database_url, "SELECT message_id FROM recipients WHERE status = 'failed'")

    assert others == 120
    assert 1 <= refused <= 2 * seats
    assert len(failed) <= refused + 2  # probes
    assert await paused_lanes(database_url) == 0
    await assert_sound(database_url)


# -- the ledger, the seats and the worker itself ---------------------------------------------------


async def test_a_dead_ledger_lets_nothing_of_what_waits_begin(
    postgres: LocalPostgres, postgres_url: str, redis_url: str, tmp_path: Path
) -> None:
    """PostgreSQL dies with deliveries at hand: no connection begins more than it had begun; then all go once."""
    seats = 3
    async with ScriptedPeer() as peer:
        route = smarthost(peer, limits={"connections": seats})
        async with a_house(postgres_url, redis_url, routes=[route], folder=tmp_path) as house:
            sent = await submit_many(house, 30)
            await all_sent(postgres_url, 30)
            gate = asyncio.Event()
            peer.on("data", until=gate)
            sent |= await submit_many(house, 30, first=30)
            await more_in_hand_than(postgres_url, seats)
            await eventually(lambda: sum(each.ended is None for each in peer.transactions) == seats)
            postgres.kill()
            gate.set()
            await eventually(lambda: peer.connections == 0)
            await asyncio.sleep(0.3)  # in which nothing begins
            postgres.restart()
            await all_sent(postgres_url, 60)
            rows = await assert_the_ledger_is_the_wire(postgres_url, peer, sent)

    assert sum(not each.dot for each in peer.transactions) == seats
    assert {recipient: copies(peer, recipient) for recipient in sent} == dict.fromkeys(sent, 1)
    assert {row["outcome"] for row in rows} <= {"sent", "aborted", "deferred"}
    await assert_sound(postgres_url)


async def test_what_waits_goes_back_when_every_seat_is_lost(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """The right to the connections runs out, the leases of what waits do not: nothing is kept for ever."""
    seats = 2
    async with ScriptedPeer() as peer:
        route = smarthost(peer, limits={"connections": seats})
        dispatch = {"lease": "1s", "poll_interval": "60s"}
        async with a_house(
            database_url, redis_url, routes=[route], folder=tmp_path, dispatch=dispatch
        ) as house:
            sent = await submit_many(house, 20)
            await all_sent(database_url, 20)
            gate = asyncio.Event()
            peer.on("dot", until=gate)
            sent |= await submit_many(house, 20, first=20)
            await more_in_hand_than(database_url, seats)
            await query(database_url, "DELETE FROM connections")
            keeper = house.workers[0].kit.keeper
            await keeper.renew()  # which finds out
            peer.behave()
            gate.set()
            await all_sent(database_url, 40, within=20.0)
            await eventually(lambda: _none_open(database_url))
            await assert_the_ledger_is_the_wire(database_url, peer, sent)

    assert {recipient: copies(peer, recipient) for recipient in sent} == dict.fromkeys(sent, 1)
    assert peer.max_connections <= seats
    await assert_sound(database_url)


async def test_what_waits_behind_stalled_seats_goes_back(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """Every connection stalls with deliveries at hand: after some seconds anybody may carry them."""
    async with ScriptedPeer() as peer:
        route = smarthost(peer, limits={"connections": 2})
        async with a_house(database_url, redis_url, routes=[route], folder=tmp_path) as house:
            sent = await submit_many(house, 20)
            await all_sent(database_url, 20)
            gate = asyncio.Event()
            peer.on("data", until=gate)
            sent |= await submit_many(house, 12, first=20)
            await more_in_hand_than(database_url, 2)

            async def two_in_hand() -> bool:
                rows = await query(database_url, "SELECT 1 FROM attempts WHERE outcome IS NULL")
                return len(rows) == 2

            await eventually(two_in_hand)
            peer.behave()
            gate.set()
            await all_sent(database_url, 32)
            rows = await assert_the_ledger_is_the_wire(database_url, peer, sent)

    assert {recipient: copies(peer, recipient) for recipient in sent} == dict.fromkeys(sent, 1)
    assert {row["fault"] for row in rows} == {None, "given_back"}
    assert await tries(database_url) == {1: 32}
    await assert_sound(database_url)


async def test_what_has_lost_its_lease_while_it_waited_is_not_begun(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """Leases of what waits are over, that of the message in hand is not: nothing is begun in vain, and all goes once."""
    async with ScriptedPeer() as peer:
        route = smarthost(peer, limits={"connections": 1})
        dispatch = {"lease": "30s", "poll_interval": "60s"}
        async with a_house(
            database_url, redis_url, routes=[route], folder=tmp_path, dispatch=dispatch
        ) as house:
            sent = await submit_many(house, 20)
            await all_sent(database_url, 20)
            gate = asyncio.Event()
            peer.on("data", until=gate)
            sent |= await submit_many(house, 12, first=20)
            await more_in_hand_than(database_url, 1)
            await eventually(lambda: peer.transactions[-1].rcpts and peer.transactions[-1].ended is None)
            ((in_hand, _),) = peer.transactions[-1].rcpts
            await query(
                database_url,
                """UPDATE attempts SET lease_until = clock_timestamp() - interval '1 s'
                    WHERE outcome IS NULL AND recipients #>> '{0,email}' <> $1""",
                in_hand,
            )
            await house.workers[0].kit.keeper.renew()  # which finds out
            peer.behave()
            gate.set()
            await all_sent(database_url, 32)
            rows = await assert_the_ledger_is_the_wire(database_url, peer, sent)

    assert all(each.dot for each in peer.transactions)
    assert {recipient: copies(peer, recipient) for recipient in sent} == dict.fromkeys(sent, 1)
    assert {row["fault"] for row in rows} == {None, "given_back"}
    await assert_sound(database_url)


@pytest.mark.parametrize("per_connection", [None, 5])
async def test_seats_hold_over_two_workers(
    database_url: str, redis_url: str, tmp_path: Path, per_connection: int | None
) -> None:
    """Two workers with deliveries at hand never hold more connections than the lane has, nor send more over one."""
    async with ScriptedPeer() as peer:
        limits: dict[str, Any] = {"connections": 3}
        if per_connection:
            limits["messages_per_connection"] = per_connection
        route = smarthost(peer, limits=limits)
        async with a_house(database_url, redis_url, routes=[route], folder=tmp_path, workers=2) as house:
            sent = await submit_many(house, 300)
            await all_sent(database_url, 300)
            await eventually(lambda: _none_open(database_url))
            rows = await assert_the_ledger_is_the_wire(database_url, peer, sent)

    assert peer.max_connections <= 3
    assert {recipient: copies(peer, recipient) for recipient in sent} == dict.fromkeys(sent, 1)
    assert outcomes(rows) == {("sent", None): 300}
    assert await begun_behind(database_url)
    if per_connection:
        assert max(Counter(each.session for each in peer.transactions).values()) == per_connection
    await assert_sound(database_url)


# -- ends ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["SIGTERM", "SIGTERM, stalled", "SIGKILL", "SIGSTOP"])
async def test_a_worker_that_ends_with_deliveries_at_hand(
    database_url: str, redis_url: str, tmp_path: Path, how: str
) -> None:
    """In whichever way a worker ends, what it had claimed ahead is sent once, and soon."""
    seats, stalled = 4, "stalled" in how
    async with ScriptedPeer() as peer:
        given = configuration(
            database_url,
            redis_url,
            routes=[smarthost(peer, limits={"connections": seats})],
            dispatch={"shutdown_grace": "3s" if stalled else "20s"},
        )
        with processes(tmp_path, given) as house:
            house.start_api()
            worker = house.start_worker()
            async with house.door() as door:
                sent = await submit_many(door, 40)
                await all_sent(database_url, 40)
                gate = asyncio.Event()
                peer.on("data" if stalled or how == "SIGSTOP" else "dot", until=gate)
                sent |= await submit_many(door, 60, first=40)
                await more_in_hand_than(database_url, seats)
                begun = 0
                worker.send_signal(getattr(signal, how.partition(",")[0]))
                if how == "SIGSTOP":
                    await _without_leases(database_url, house)
                    while begun != len(peer.transactions):  # what the sweeper had under way comes to the gate
                        begun = len(peer.transactions)
                        await asyncio.sleep(0.5)
                elif stalled:
                    assert await asyncio.to_thread(worker.wait, 30) == 0
                peer.behave()
                gate.set()
                if how == "SIGTERM":
                    assert await asyncio.to_thread(worker.wait, 30) == 0
                elif how == "SIGSTOP":
                    worker.send_signal(signal.SIGCONT)
                    await eventually(lambda: peer.connections <= seats)
                house.start_worker()
                await all_sent(database_url, 100)
                await eventually(lambda: _none_open(database_url))
                rows = await _attempts(database_url)

    explained = Counter(row["email"] for row in rows if row["outcome"] == "uncertain")
    for recipient in sent:
        assert 1 <= copies(peer, recipient) <= 1 + explained[recipient]
    found = outcomes(rows)
    if how == "SIGTERM":
        assert found == {("sent", None): 100}
    elif stalled:
        assert not explained
        assert found["aborted", "given_back"] >= 1
    elif how == "SIGSTOP":
        assert not explained
        # What the peer saw without a dot are the dialogues of that moment; nothing of what waited was begun.
        assert sum(not each.dot for each in peer.transactions) <= begun - 40
    await assert_sound(database_url)


async def _without_leases(database_url: str, house: Processes) -> None:
    """Wait until a sweep has taken everything from the worker that is stopped."""
    lost = {str(row["id"]) for row in await _attempts(database_url) if row["outcome"] is None}
    sweeper = house.start_worker()

    async def swept() -> bool:
        return not lost & {str(row["id"]) for row in await _attempts(database_url) if row["outcome"] is None}

    await eventually(swept, within=30.0)
    sweeper.kill()
    await asyncio.to_thread(sweeper.wait)


async def _attempts(database_url: str) -> list[Any]:
    return await query(
        database_url,
        """SELECT a.*, a.recipients #>> '{0,email}' AS email, a.recipients #> '{0,reply}' AS rcpt,
                  a.error ->> 'code' AS fault FROM attempts a ORDER BY a.id""",
    )


# -- nobody is forgotten ---------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
async def test_no_ring_is_missed(database_url: str, redis_url: str, tmp_path: Path, seed: int) -> None:
    """Trickles, retries and acts over two lanes and two workers, and no sweep: nothing is left lying."""
    chance, deferred, held = random.Random(seed), set[str](), list[str]()

    def first_time(path: str) -> bool:
        new = path.startswith("later") and path not in deferred
        deferred.add(path)
        return new

    async with ScriptedPeer() as peer:
        peer.on("rcpt", reply="451 4.6.0 Later", when=first_time)
        counted = smarthost(peer, name="counted", limits={"connections": 2, "messages_per_minute": 10_000})
        free = smarthost(peer, name="free", limits={"connections": 2})
        async with a_house(
            database_url,
            redis_url,
            routes=[counted, free],
            folder=tmp_path,
            workers=2,
            dispatch={"poll_interval": "60s", "lease": "30s"},
        ) as house:
            await eventually(lambda: _heard(redis_url, 2))
            sent: list[str] = []

            async def act(message_id: str, deed: str) -> bool:
                answer = await house.client.post(f"/messages/{message_id}/{deed}", json={})
                again = answer.status_code == 503  # a busy machine; it may have been done all the same
                while answer.status_code == 503:
                    await asyncio.sleep(0.5)
                    answer = await house.client.post(f"/messages/{message_id}/{deed}", json={})
                assert answer.status_code in {200, 202, 409}, answer.text
                return again or answer.status_code < 300

            async def step(number: int) -> None:
                who = chance.choice(["later", "user"])
                to = f"{who}{number}@example.com"
                message_id = await house.submit(to=to, route=chance.choice(["counted", "free"]))
                sent.append(message_id)
                deed = chance.choice(["hold", "cancel", "retry", None, None, None])
                await asyncio.sleep(chance.choice([0, 0, 0.01, 0.05]))
                if deed and await act(message_id, deed) and deed == "hold":
                    held.append(message_id)
                if held and chance.random() < 0.5:
                    assert await act(held.pop(), "release")

            for start in range(0, 120, 6):
                await asyncio.gather(*(step(number) for number in range(start, start + 6)))
                await asyncio.sleep(chance.choice([0, 0.02, 0.3]))
            for message_id in held:
                assert await act(message_id, "release")

            async def over() -> bool:
                rows = await query(database_url, "SELECT 1 FROM recipients WHERE finished_at IS NULL")
                return not rows

            await eventually(over, within=25.0)  # long before a sweep
            await eventually(lambda: _none_open(database_url))

    taken = Counter(path for each in peer.taken for path in each.rcpts)
    gone = await query(database_url, "SELECT email FROM recipients WHERE status = 'sent'")
    assert taken == Counter(str(row["email"]) for row in gone)
    assert await paused_lanes(database_url) == 0
    await assert_sound(database_url)


async def test_a_retry_is_not_forgotten_where_nothing_else_rings(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """One message, deferred by the peer, on a lane that nobody else rings: it goes when it is due."""
    async with ScriptedPeer() as peer:
        peer.on("rcpt", reply="451 4.6.0 Later", times=1)
        route = smarthost(peer, limits={"connections": 2, "messages_per_minute": 1000})
        dispatch = {"poll_interval": "60s", "lease": "30s"}
        async with a_house(
            database_url, redis_url, routes=[route], folder=tmp_path, dispatch=dispatch
        ) as house:
            message_id = await house.submit()
            await house.in_state(message_id, "sent", within=20.0)


async def test_a_seat_that_comes_free_during_a_claim_takes_what_it_brings(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """The only connection is busy when a claim asks for something to come, and free when it has come: it goes at once."""
    async with ScriptedPeer() as peer:
        route = smarthost(peer, limits={"connections": 1})
        async with a_house(database_url, redis_url, routes=[route], folder=tmp_path) as house:
            await submit_many(house, 20)
            await all_sent(database_url, 20)
            gate = asyncio.Event()
            peer.on("dot", until=gate)
            await house.submit(to="first@example.com")
            await eventually(lambda: peer.transactions[-1].dot)
            connection = await asyncpg.connect(database_url)
            holding = connection.transaction()
            await holding.start()
            await connection.execute("SELECT 1 FROM lanes FOR UPDATE")
            last = await house.submit(to="last@example.com")
            waits = (
                "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%FROM lanes%'"
            )
            await eventually(lambda: query(database_url, waits))
            peer.behave()
            gate.set()
            await eventually(lambda: len(peer.taken) == 21)
            await asyncio.sleep(0.1)  # the seat is free by now
            await holding.rollback()
            await connection.close()
            await house.in_state(last, "sent")
            assert [each["outcome"] for each in await house.attempts(last)] == ["sent"]


async def _heard(redis_url: str, workers: int) -> bool:
    """Say whether so many workers listen to the bell."""
    redis = open_redis(redis_url)
    try:
        ((_, listeners),) = await redis.pubsub_numsub(CHANNEL)
    finally:
        await redis.aclose(close_connection_pool=True)
    return int(listeners) == workers


async def test_what_is_urgent_overtakes_all_but_what_is_at_hand(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """A high priority waits for what was claimed before it, and for nothing else."""
    seats = 2
    async with ScriptedPeer() as peer:
        route = smarthost(peer, limits={"connections": seats})
        async with a_house(database_url, redis_url, routes=[route], folder=tmp_path) as house:
            await submit_many(house, 20)
            await all_sent(database_url, 20)
            gate = asyncio.Event()
            peer.on("dot", until=gate)
            await submit_many(house, 200, first=20)
            await more_in_hand_than(database_url, 2 * seats)
            before = len(peer.taken)
            await house.submit(to="urgent@example.com", priority="high")
            at_hand = await query(database_url, "SELECT 1 FROM attempts WHERE outcome IS NULL")
            peer.behave()
            gate.set()
            await all_sent(database_url, 221)

    order = [path for each in peer.taken[before:] for path in each.rcpts]
    assert len(at_hand) < 200
    assert order.index("urgent@example.com") <= len(at_hand)
