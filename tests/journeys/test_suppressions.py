"""Suppressions on the way of a message: by hand, by rule from a peer's refusal, for one application and for all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2

from service.delivery.suppressing import SuppressionKeeper
from service.delivery.tasks import end as end_tasks
from service.ledger.keys import DEFAULT_SCOPES
from tests.house import Door, House, a_house, a_message, configuration, copies, processes, smarthost
from tests.peer import ScriptedPeer
from tests.waiting import eventually

UNKNOWN = "550 5.1.1 The email account that you tried to reach does not exist"


@asynccontextmanager
async def a_keeping_house(
    database_url: str, redis_url: str, folder: Path, peer: ScriptedPeer, **changes: Any
) -> AsyncIterator[House]:
    """A house whose worker looks after suppressions too, before a peer that does not know `nobody`."""
    peer.on("rcpt", reply=UNKNOWN, when=lambda path: path.lower().startswith("nobody@"))
    async with a_house(database_url, redis_url, routes=[smarthost(peer)], folder=folder, **changes) as house:
        keeper = asyncio.create_task(SuppressionKeeper(house.ledger, interval=0.1).run())
        try:
            yield house
        finally:
            await end_tasks([keeper])


@asynccontextmanager
async def another_door(house: House, application: str, *scopes: str) -> AsyncIterator[Door]:
    """The API as another application sees it."""
    key = await house.ledger.create_key(application, scopes=[*DEFAULT_SCOPES, *scopes], senders=[])
    transport = house.client._transport
    headers = {"Authorization": f"Bearer {key.token}"}
    async with httpx2.AsyncClient(transport=transport, base_url="http://postroom", headers=headers) as client:
        yield Door(client)


async def entries(door: Door) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await door.get("/suppressions"))["data"]
    return found


async def until_suppressed(door: Door, address: str) -> None:
    """Send until the door itself knows of the entry: what another process added it knows after a second.

    Until then the worker may stop a message that the door let in, so only the 202 says what the door knows.
    """

    async def suppressed() -> bool:
        answer = (await door.client.post("/messages", json=a_message(to=[address]))).json()
        await door.in_state(answer["id"], "failed", "suppressed")
        return bool(answer["status"] == "suppressed")

    await eventually(suppressed)


async def test_a_refused_recipient_gets_no_second_message(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """A rule for 5.1.1: the first message fails at the peer, the second one never goes there, and says why."""
    async with (
        ScriptedPeer() as peer,
        a_keeping_house(database_url, redis_url, tmp_path, peer) as house,
    ):
        made = await house.client.post("/suppressions/rules", json={"enhanced": ["5.1.1"], "lasts": "90d"})
        first = await house.submit(to=["Nobody@example.com", "ana@example.com"])
        await house.in_state(first, "partially_sent")
        (entry,) = await eventually(lambda: entries(house))

        await until_suppressed(house, "nobody@example.com")
        told = sum(len(each.rcpts) for each in peer.transactions)

        second = await house.submit(to=["nobody@example.com", "ana@example.com"])
        shown = await house.in_state(second, "partially_sent")

    nobody, ana = shown["recipients"]
    assert (entry["address"], entry["source"], entry["reason"]) == (
        "nobody@example.com",
        "rule",
        "rule: 5.1.1",
    )
    assert (entry["rule"], entry["message"]) == (made.json()["id"], first)
    assert (nobody["status"], nobody["reason"], nobody["attempts"]) == ("suppressed", "suppressed_rule", 0)
    assert (ana["status"], copies(peer, "ana@example.com")) == ("sent", 2)
    assert sum(len(each.rcpts) for each in peer.transactions) == told + 1


async def test_rules_of_one_application_and_of_all(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """An application's rule suppresses for it alone; an operator's rule for everybody suppresses for everybody."""
    async with (
        ScriptedPeer() as peer,
        a_keeping_house(database_url, redis_url, tmp_path, peer) as house,
        another_door(house, "others") as others,
        another_door(house, "postmasters", "operate") as operator,
    ):
        await house.client.post("/suppressions/rules", json={"enhanced": ["5.1.1"]})
        await house.in_state(await house.submit(to=["nobody@example.com"]), "failed")
        await eventually(lambda: entries(house))
        theirs = await others.in_state(await others.submit(to=["nobody@example.com"]))
        assert (theirs["status"], await entries(others)) == ("failed", [])

        await operator.client.post("/suppressions/rules", json={"enhanced": ["5.1.1"], "application": "*"})
        await others.in_state(await others.submit(to=["nobody@example.org"]), "failed")
        (everybodys,) = await eventually(lambda: entries(others))
        await until_suppressed(house, "nobody@example.org")

    assert (everybodys["application"], everybodys["message"]) == ("*", None)


async def test_a_domain_and_an_end(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """A whole domain gets nothing, and gets its mail again when the entry is over."""
    async with (
        ScriptedPeer() as peer,
        a_keeping_house(database_url, redis_url, tmp_path, peer) as house,
    ):
        until = datetime.now(UTC) + timedelta(seconds=2)
        await house.client.post(
            "/suppressions", json={"address": "@example.com", "expires_at": until.isoformat()}
        )
        during = await house.in_state(
            await house.submit(to=["ana@example.com", "bo@example.org"]), "partially_sent"
        )

        async def taken_again() -> bool:
            shown = await house.in_state(await house.submit(to=["ana@example.com"]), "sent", "suppressed")
            return bool(shown["status"] == "sent")

        await eventually(taken_again)

    states = {each["email"]: each["status"] for each in during["recipients"]}
    assert states == {"ana@example.com": "suppressed", "bo@example.org": "sent"}


async def test_who_wants_no_more_mail_gets_none_of_what_waits(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """A deferred, a queued and a scheduled message to the address are stopped; nothing of them reaches the peer."""
    async with ScriptedPeer() as peer:
        peer.on("rcpt", reply="451 4.7.1 Come back later", when=lambda path: path.startswith("ana@"))
        async with a_keeping_house(
            database_url,
            redis_url,
            tmp_path,
            peer,
            dispatch={"retry": {"first": "30s", "factor": 2, "cap": "60s"}},
        ) as house:
            deferred = await house.submit(to=["ana@example.com"])
            await house.in_state(deferred, "deferred")
            for worker in house.workers:
                await worker.end()
            house.workers.clear()
            tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
            waiting = [
                await house.submit(to=["ana@example.com"]),
                await house.submit(to=["ana@example.com"], scheduled_at=tomorrow),
            ]

            answer = await house.client.post("/suppressions", json={"address": "ana@example.com"})
            for message_id in (deferred, *waiting):
                await house.in_state(message_id, "suppressed")
            timeline = await house.get(f"/messages/{deferred}/events")

    assert answer.json()["stopped"] == 3
    assert [each["status"] for each in timeline["data"]] == ["queued", "sending", "deferred", "suppressed"]
    assert timeline["data"][-1]["diagnosis"] == "postroom.suppressed_manual"
    assert copies(peer, "ana@example.com") == 0


async def test_the_worker_of_production_judges(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """`postroom worker` follows the failures beside the mail: the rule's entry is there a moment later."""
    async with ScriptedPeer() as peer:
        peer.on("rcpt", reply=UNKNOWN)
        given = configuration(database_url, redis_url, routes=[smarthost(peer)])
        with processes(tmp_path, given) as house:
            house.start_api()
            house.start_worker()
            async with house.door() as door:
                await door.client.post("/suppressions/rules", json={"enhanced": ["5.1.1"], "failures": 2})
                for _ in range(2):
                    await door.in_state(await door.submit(to=["nobody@example.com"]), "failed")

                (entry,) = await eventually(lambda: entries(door))

    assert (entry["address"], entry["reason"]) == (
        "nobody@example.com",
        "rule: 5.1.1 twice within 30 days",
    )
