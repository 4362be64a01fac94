"""A route rests by hand and goes on: nothing is sent meanwhile, nothing is lost, and everybody is told why."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.ledger.audit import Wanted
from service.ledger.keys import SCOPES
from tests.house import House, a_house, smarthost
from tests.peer import ScriptedPeer


@pytest.fixture
async def peer() -> AsyncIterator[ScriptedPeer]:
    async with ScriptedPeer() as running:
        yield running


@pytest.fixture
async def house(
    database_url: str, redis_url: str, tmp_path: Path, peer: ScriptedPeer
) -> AsyncIterator[House]:
    """A house that an operator looks after."""
    async with a_house(database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path) as running:
        key = await running.ledger.create_key("operators", scopes=SCOPES, senders=[])
        running.client.headers["authorization"] = f"Bearer {key.token}"
        yield running


async def test_a_paused_route_sends_nothing_until_it_goes_on(house: House, peer: ScriptedPeer) -> None:
    """What comes during a pause is taken and waits, says why, and goes when an operator resumes the route."""
    paused = await house.client.post("/routes/peer/pause", json={"for": "2h", "reason": "work on the relay"})
    waiting = await house.submit()
    why = await house.get(f"/messages/{waiting}/explain")

    assert paused.status_code == 200
    assert paused.json()["state"] == "resting"
    assert paused.json()["resting"]["error"]["diagnosis"]["id"] == "postroom.paused_by_hand"
    assert "work on the relay" in paused.json()["resting"]["error"]["diagnosis"]["explanation"]
    assert (why["lane"]["state"], why["lane"]["because"]) == ("resting", "Paused by an operator")
    assert (await house.message(waiting))["attempts"] == 0
    assert peer.taken == []
    # A check that gets through ends the rest after trouble, and not what somebody has decided.
    assert (await house.client.post("/routes/peer/check")).status_code == 200
    assert (await house.get("/routes/peer"))["state"] == "resting"

    resumed = await house.client.post("/routes/peer/resume", json={"reason": "done"})

    assert resumed.json()["state"] == "ready"
    await house.in_state(waiting, "sent")
    entries = await house.ledger.audit.page(Wanted(target="peer"), most=10)
    assert [(each.action, each.details.get("reason")) for each in entries] == [
        ("route.resume", "done"),
        ("route.check", None),
        ("route.pause", "work on the relay"),
    ]


async def test_a_pause_ends_by_itself(house: House) -> None:
    """When the time of a pause is over, what waited goes without anybody's help and without a probe."""
    await house.client.post("/routes/peer/pause", json={"for": "2s"})
    waiting = [await house.submit() for _ in range(3)]

    for message_id in waiting:
        await house.in_state(message_id, "sent")
    assert (await house.get("/routes/peer"))["state"] == "ready"


async def test_a_lane_in_trouble_is_tried_at_once_when_it_is_resumed(
    house: House, peer: ScriptedPeer
) -> None:
    """A route that rests after trouble is probed when somebody resumes it, and goes on when the probe is taken."""
    peer.on("connect", reply="421 4.3.2 Service not available", then="close")
    message_id = await house.submit()
    await house.in_state(message_id, "deferred")
    paused = await house.client.post("/routes/peer/pause", json={})
    assert paused.json()["resting"]["error"]["code"] == "paused_by_hand"
    peer.behave()

    await house.client.post("/routes/peer/resume")

    await house.in_state(message_id, "sent")


async def test_only_operators_pause(house: House) -> None:
    """A key without `operate` pauses nothing; wrong times, fields and names are refused by name."""
    plain = await house.ledger.create_key("shop", scopes=["routes.read", "routes.check"], senders=[])
    headers = {"authorization": f"Bearer {plain.token}"}

    refused = await house.client.post("/routes/peer/pause", json={}, headers=headers)
    too_long = await house.client.post("/routes/peer/pause", json={"for": "31d"})
    unknown = await house.client.post("/routes/nothing/pause", json={})
    strange = await house.client.post("/routes/peer/resume", json={"for": "1h"})

    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")
    assert (too_long.status_code, too_long.json()["errors"][0]["pointer"]) == (422, "/for")
    assert unknown.status_code == 404
    assert (strange.status_code, strange.json()["code"]) == (422, "unknown_field")
    assert (await house.get("/routes/peer"))["state"] == "ready"
