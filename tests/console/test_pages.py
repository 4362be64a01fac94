"""The pages over HTTP: what they show, what they let through, and what they keep to themselves."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.console.visitor import a_stranger, signed_in
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
    async with a_house(database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path) as running:
        yield running


async def test_nobody_sees_a_page_without_signing_in(house: House) -> None:
    """Whoever is not signed in is sent to the page for it, and comes back to the page that was wanted."""
    visitor = a_stranger(house)

    answer = await visitor.client.get("/console/lanes?x=1")

    assert answer.status_code == 303
    assert answer.headers["location"] == "/console/sign-in?next=%2Fconsole%2Flanes%3Fx%3D1"


async def test_a_message_is_found_and_its_story_told(house: House) -> None:
    """The search answers in words how a message stands, and its page shows the way from acceptance to the 250."""
    message_id = await house.submit(subject="Invoice 4711", to=["ana@example.com"])
    await house.in_state(message_id, "sent")
    visitor = await signed_in(house)

    found = await visitor.open("/console?q=ana@example.com")
    message = await visitor.open(f"/console/messages/{message_id}")

    assert "1 message to ana@example.com: sent." in found.words
    assert "The other side took it" in found.words
    assert f"/console/messages/{message_id}" in found.links
    for word in ("Invoice 4711", "accepted", "Attempt 1", "250", "tests"):
        assert word in message.words
    assert "C: DATA" in message.words or "S: 250" in message.words
