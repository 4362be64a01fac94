"""Acts on messages, from the request to the wire: what is canceled is never sent, and what is sent is said."""

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.house import Door, House, a_house, configuration, copies, processes, smarthost
from tests.peer import ScriptedPeer
from tests.waiting import eventually

THREE = ["ana@example.com", "ben@example.com", "eva@example.com"]

#: Nothing that these tests wait for comes by the sweep: the bell is rung.
BELL_ALONE = {"poll_interval": "60s"}


@pytest.fixture
async def peer() -> AsyncIterator[ScriptedPeer]:
    """The other side."""
    async with ScriptedPeer() as opened:
        yield opened


@pytest.fixture
async def house(
    database_url: str, redis_url: str, tmp_path: Path, peer: ScriptedPeer
) -> AsyncIterator[House]:
    """Everything but a worker; tests start one when it is to be sent."""
    async with a_house(
        database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path, workers=0, dispatch=BELL_ALONE
    ) as opened:
        yield opened


async def act(door: Door, message_id: str, deed: str, **body: Any) -> Any:
    return await door.client.post(f"/messages/{message_id}/{deed}", json=body or None)


async def done(door: Door, message_id: str, deed: str, **body: Any) -> None:
    answer = await act(door, message_id, deed, **body)
    assert answer.status_code == 200, answer.text


async def states(door: Door, message_id: str) -> list[str]:
    return [each["status"] for each in (await door.message(message_id))["recipients"]]


async def another_goes(door: Door) -> None:
    """See that a worker is at work: a message that comes later is sent."""
    marker = await door.submit(to="marker@example.com")
    await door.in_state(marker, "sent")


def soon(**ahead: float) -> str:
    return (datetime.now(UTC) + timedelta(**ahead)).isoformat()


async def test_what_is_canceled_in_time_never_reaches_the_wire(house: House, peer: ScriptedPeer) -> None:
    """The peer hears nothing of it, although the worker comes right after."""
    message_id = await house.submit()

    await done(house, message_id, "cancel")
    await house.start_worker()
    await another_goes(house)

    assert copies(peer, "ana@example.com") == 0
    assert [each.mail for each in peer.transactions] == ["noreply@contoso.com"]
    assert (await house.message(message_id))["status"] == "canceled"


async def test_a_cancel_that_comes_too_late_says_so(house: House, peer: ScriptedPeer) -> None:
    """While the attempt runs 409 with a time to come again, afterwards 409 for good: it was sent, once."""
    answer = asyncio.Event()
    peer.on("dot", until=answer, times=1)
    await house.start_worker()
    message_id = await house.submit()
    await eventually(lambda: [each for each in peer.transactions if each.dot])

    running = await act(house, message_id, "cancel")
    answer.set()
    await house.in_state(message_id, "sent")
    over = await act(house, message_id, "cancel")

    assert (running.status_code, running.json()["code"]) == (409, "attempt_running")
    assert running.headers["retry-after"] == "1"
    assert (over.status_code, over.json()["code"]) == (409, "not_cancelable")
    assert copies(peer, "ana@example.com") == 1


async def test_a_recipient_is_taken_out_while_an_attempt_of_the_others_runs(
    house: House, peer: ScriptedPeer
) -> None:
    """One is held before the attempt, canceled while it runs, and is never named to the peer."""
    answer = asyncio.Event()
    peer.on("dot", until=answer, times=1)
    message_id = await house.submit(to=THREE)
    await done(house, message_id, "hold", recipients=THREE[:1])
    await house.start_worker()
    await eventually(lambda: [each for each in peer.transactions if each.dot])

    await done(house, message_id, "cancel")
    answer.set()
    await house.in_state(message_id, "partially_sent")
    await another_goes(house)

    assert await states(house, message_id) == ["canceled", "sent", "sent"]
    assert [copies(peer, each) for each in THREE] == [0, 1, 1]


async def test_a_retry_goes_at_once_and_only_to_whom_it_failed_for(house: House, peer: ScriptedPeer) -> None:
    """Those who have the message get no second copy, and nobody waits for the sweep."""
    peer.on("rcpt", reply="550 5.1.1 No such user", when=lambda path: path.startswith("ben@"), times=1)
    await house.start_worker()
    message_id = await house.submit(to=THREE)
    await house.in_state(message_id, "partially_sent")

    await done(house, message_id, "retry", reason="Ben has his mailbox now")
    await house.in_state(message_id, "sent")

    assert [copies(peer, each) for each in THREE] == [1, 1, 1]
    assert peer.transactions[-1].accepted == ("ben@example.com",)
    assert peer.taken[0].octets == peer.taken[-1].octets
    assert (await act(house, message_id, "retry")).status_code == 409


async def test_a_deferred_message_is_tried_now(
    database_url: str, redis_url: str, tmp_path: Path, peer: ScriptedPeer
) -> None:
    """A person knows that it works again, and does not wait for the schedule."""
    slow = {**BELL_ALONE, "retry": {"first": "1h", "factor": 2, "cap": "1h"}}
    peer.on("rcpt", reply="451 4.2.1 Mailbox is being moved", times=1)
    async with a_house(
        database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path, dispatch=slow
    ) as house:
        message_id = await house.submit()
        await house.in_state(message_id, "deferred")

        await done(house, message_id, "retry")

        await house.in_state(message_id, "sent")


async def test_what_is_held_goes_when_it_is_released(house: House, peer: ScriptedPeer) -> None:
    """Not while others go, and at once with its release."""
    message_id = await house.submit()
    await done(house, message_id, "hold")
    await house.start_worker()
    await another_goes(house)
    assert copies(peer, "ana@example.com") == 0

    await done(house, message_id, "release")

    await house.in_state(message_id, "sent")
    assert copies(peer, "ana@example.com") == 1


@pytest.mark.parametrize(
    ("decision", "status", "taken"), [("sent", "sent", 1), ("resend", "sent", 2), ("drop", "canceled", 1)]
)
async def test_a_person_decides_about_silence_after_the_dot(
    house: House, peer: ScriptedPeer, decision: str, status: str, taken: int
) -> None:
    """With `hold` nothing is sent again until somebody says so; a second copy is explained by the first attempt."""
    peer.on("dot", then="close", times=1)
    await house.start_worker()
    message_id = await house.submit(on_uncertain="hold")
    await house.in_state(message_id, "uncertain")
    await another_goes(house)
    assert copies(peer, "ana@example.com") == 1

    await done(house, message_id, "settle", decision=decision)
    await house.in_state(message_id, status)
    await another_goes(house)

    outcomes = [each["outcome"] for each in await house.attempts(message_id)]
    assert outcomes == ["uncertain", "sent"][:taken]
    assert copies(peer, "ana@example.com") == taken
    assert (await act(house, message_id, "settle", decision="drop")).json()["code"] == "not_uncertain"


async def test_a_scheduled_message_is_moved_both_ways_and_canceled(house: House, peer: ScriptedPeer) -> None:
    """Earlier it goes at its new time, later it does not go at the old one, canceled it never goes."""
    await house.start_worker()
    earlier = await house.submit(to="earlier@example.com", scheduled_at=soon(hours=1))
    later = await house.submit(to="later@example.com", scheduled_at=soon(seconds=2))
    canceled = await house.submit(to="canceled@example.com", scheduled_at=soon(seconds=2))

    for message_id, at in ((later, soon(hours=1)), (earlier, soon(seconds=3))):
        moved = await house.client.patch(f"/messages/{message_id}", json={"scheduled_at": at})
        assert moved.status_code == 200, moved.text
    await done(house, canceled, "cancel")
    await house.in_state(earlier, "sent")

    assert copies(peer, "earlier@example.com") == 1
    assert copies(peer, "later@example.com") == copies(peer, "canceled@example.com") == 0
    assert (await house.message(later))["status"] == "scheduled"
    now = await house.client.patch(f"/messages/{later}", json={"scheduled_at": None})
    assert now.json()["status"] == "queued"
    await house.in_state(later, "sent")


async def test_a_late_reply_does_not_undo_a_settlement(
    database_url: str, redis_url: str, tmp_path: Path, peer: ScriptedPeer
) -> None:
    """A worker sleeps over the answer, a person settles, and the worker wakes: the decision stands, the answer is kept."""
    answer = asyncio.Event()
    peer.on("dot", until=answer, times=1)
    given = configuration(database_url, redis_url, routes=[smarthost(peer)])
    with processes(tmp_path, given) as house:
        house.start_api()
        sleeper = house.start_worker()
        async with house.door() as door:
            message_id = await door.submit(on_uncertain="hold")
            await eventually(lambda: [each for each in peer.transactions if each.dot])
            sleeper.send_signal(signal.SIGSTOP)
            house.start_worker()
            await door.in_state(message_id, "uncertain")

            await done(door, message_id, "settle", decision="drop")
            answer.set()
            sleeper.send_signal(signal.SIGCONT)

            async def told() -> bool:
                (attempt,) = await door.attempts(message_id)
                return attempt["reply"] is not None and attempt["reply"]["code"] == 250

            await eventually(told, within=30.0)
            await another_goes(door)
            assert (await door.message(message_id))["status"] == "canceled"
            (attempt,) = await door.attempts(message_id)
            assert attempt["outcome"] == "uncertain"
            assert copies(peer, "ana@example.com") == 1


async def wild(door: Door, messages: list[tuple[str, list[str]]], seed: int) -> None:
    """Act on messages at random, as several people and programs would."""
    dice = random.Random(seed)
    for _ in range(25):
        message_id, recipients = dice.choice(messages)
        deed = dice.choice(["cancel", "retry", "hold", "release", "settle", "reschedule"])
        if deed == "reschedule":
            at = dice.choice([None, soon(seconds=1 + dice.random())])
            answer = await door.client.patch(f"/messages/{message_id}", json={"scheduled_at": at})
        else:
            named = dice.sample(recipients, dice.randint(1, 3))
            body: dict[str, Any] = {"recipients": named} if dice.random() < 0.5 else {}
            body |= {"decision": dice.choice(["sent", "resend", "drop"])} if deed == "settle" else {}
            answer = await act(door, message_id, deed, **body)
        assert answer.status_code in {200, 409}, answer.text


async def test_wild_acts_beside_a_worker_lose_and_double_nothing(
    database_url: str, redis_url: str, tmp_path: Path, peer: ScriptedPeer
) -> None:
    """No 5xx, no stuck message, nobody gets more copies than their uncertain attempts explain, and `sent` is true."""
    dice = random.Random(7)
    peer.on("rcpt", reply="451 4.2.1 Later", when=lambda _: dice.random() < 0.15)
    peer.on("rcpt", reply="550 5.1.1 No", when=lambda _: dice.random() < 0.15)
    peer.on("dot", then="close", when=lambda _: dice.random() < 0.15)
    async with a_house(
        database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path, workers=2
    ) as house:
        messages = []
        for number in range(12):
            recipients = [f"{name}{number}@example.com" for name in ("ana", "ben", "eva")]
            later = {"scheduled_at": soon(seconds=1.5)} if number % 3 == 0 else {}
            held = "hold" if number % 2 else "resend"
            message_id = await house.submit(to=recipients, on_uncertain=held, **later)
            messages.append((message_id, recipients))

        await asyncio.gather(*(wild(house, messages, seed) for seed in range(4)))
        peer.behave()
        for message_id, _ in messages:

            async def settled(message_id: str = message_id) -> bool:
                await act(house, message_id, "release")
                await act(house, message_id, "settle", decision="resend")
                await act(house, message_id, "retry")
                return set(await states(house, message_id)) <= {"sent", "canceled"}

            await eventually(settled, within=40.0)

        for message_id, recipients in messages:
            attempts = await house.attempts(message_id)
            events = (await house.get(f"/messages/{message_id}/events"))["data"]
            decided = {each["recipient"] for each in events if each["reason"] == "settled_sent"}
            assert all(each["outcome"] is not None for each in attempts)
            for email, status in zip(recipients, await states(house, message_id), strict=True):
                doubts = sum(
                    each["outcome"] == "uncertain" and email in {one["email"] for one in each["recipients"]}
                    for each in attempts
                )
                assert copies(peer, email) <= 1 + doubts, (email, [each["outcome"] for each in attempts])
                assert status != "sent" or copies(peer, email) or email in decided, email
