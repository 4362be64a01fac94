"""Contents at rest: sealed where there is a key, sent and read as they were, and through a change of keys."""

import base64
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from service.delivery.retention import RetentionKeeper
from service.ledger.engine import open_engine
from service.ledger.retention import Retention
from tests.house import House, a_house, smarthost
from tests.peer import ScriptedPeer

SECRET = "what nobody but the reader is told"
OLD, NEW = (base64.b64encode(os.urandom(32)).decode() for _ in range(2))


@asynccontextmanager
async def sealed(
    database_url: str, redis_url: str, folder: Path, peer: ScriptedPeer, *, workers: int = 1, **keys: str
) -> AsyncIterator[House]:
    """A whole service with these keys."""
    async with a_house(
        database_url,
        redis_url,
        routes=[smarthost(peer)],
        folder=folder,
        workers=workers,
        settings_changes=keys,
    ) as opened:
        yield opened


async def stored(database_url: str) -> list[bytes]:
    """The contents as PostgreSQL has them."""
    engine = open_engine(database_url, name="test-stored", size=1)
    async with engine.begin() as db:
        rows = (await db.execute(text("SELECT octets FROM contents ORDER BY message_id"))).scalars().all()
    await engine.dispose()
    return [bytes(row) for row in rows]


async def come_by(house: House) -> None:
    await RetentionKeeper(house.ledger, Retention(), interval=600).round()


@pytest.mark.parametrize("size", [10, 100_000])
async def test_what_is_sealed_is_sent_and_read_as_it_was(
    database_url: str, redis_url: str, tmp_path: Path, size: int
) -> None:
    """PostgreSQL never has it in clear; the peer and the reader get the same octets. Small contents come with the claim."""
    async with (
        ScriptedPeer() as peer,
        sealed(database_url, redis_url, tmp_path, peer, encryption_key=OLD) as house,
    ):
        message_id = await house.submit(text=f"{SECRET} {'x' * size}")
        found = await house.in_state(message_id, "sent")

        (octets,) = await stored(database_url)
        assert SECRET.encode() not in octets
        read = await house.client.get(f"/messages/{message_id}/content", headers={"Accept": "message/rfc822"})
        assert SECRET.encode() in read.content
        assert peer.taken[0].octets == read.content
        assert len(read.content) == found["size"]


async def test_a_change_of_keys_loses_nothing(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """What was written in clear and by the old key is sealed anew, and goes out meanwhile and afterwards."""
    texts: dict[str, str] = {}

    async def write(name: str, **keys: str) -> None:
        async with (
            ScriptedPeer() as peer,
            sealed(database_url, redis_url, tmp_path, peer, workers=0, **keys) as house,
        ):
            texts[await house.submit(text=f"{SECRET} {name}")] = name

    await write("in clear")
    await write("by the old key", encryption_key=OLD)
    both = {"encryption_key": NEW, "previous_encryption_key": OLD}
    await write("by the new key", **both)
    async with (
        ScriptedPeer() as peer,
        sealed(database_url, redis_url, tmp_path, peer, workers=0, **both) as house,
    ):
        assert sum(SECRET.encode() in octets for octets in await stored(database_url)) == 1
        await come_by(house)
        assert sum(SECRET.encode() in octets for octets in await stored(database_url)) == 0
    async with (
        ScriptedPeer() as peer,
        sealed(database_url, redis_url, tmp_path, peer, encryption_key=NEW) as house,
    ):
        for message_id, name in texts.items():
            await house.in_state(message_id, "sent")
            read = await house.client.get(f"/messages/{message_id}/content")
            assert read.json()["text"].strip() == f"{SECRET} {name}"


async def test_with_the_wrong_key_nothing_is_sent_and_nothing_is_lost(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """It says what is wrong, the others go, and with the right key it goes too."""
    async with (
        ScriptedPeer() as peer,
        sealed(database_url, redis_url, tmp_path, peer, workers=0, encryption_key=OLD) as house,
    ):
        message_id = await house.submit(text=SECRET)
    async with (
        ScriptedPeer() as peer,
        sealed(database_url, redis_url, tmp_path, peer, encryption_key=NEW) as house,
    ):
        other = await house.submit(to=["ben@example.com"])
        await house.in_state(other, "sent")
        refused = await house.client.get(f"/messages/{message_id}/content")
        assert (refused.status_code, refused.json()["code"]) == (503, "content_sealed")
        await come_by(house)
        assert [taken.rcpts for taken in peer.taken] == [("ben@example.com",)]
        assert (await house.message(message_id))["status"] in {"queued", "sending", "deferred"}
    async with (
        ScriptedPeer() as peer,
        sealed(
            database_url, redis_url, tmp_path, peer, encryption_key=NEW, previous_encryption_key=OLD
        ) as house,
    ):
        await house.in_state(message_id, "sent")
        assert SECRET.encode() in peer.taken[0].octets


async def test_content_that_is_removed_while_it_is_sealed_anew_stays_removed(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """Retention and the change of keys come by in the same round."""
    async with (
        ScriptedPeer() as peer,
        sealed(database_url, redis_url, tmp_path, peer, encryption_key=OLD) as house,
    ):
        await house.in_state(await house.submit(text=SECRET), "sent")
        keeper = RetentionKeeper(house.ledger, Retention(content=timedelta(0)), interval=600)
        await keeper.round()

        assert await stored(database_url) == []


async def test_what_was_changed_in_the_database_is_not_sent(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """The ledger vouches for the octets by their SHA-256: others do not leave in their name."""
    async with ScriptedPeer() as peer, sealed(database_url, redis_url, tmp_path, peer, workers=0) as house:
        message_id = await house.submit(text=SECRET)
        engine = open_engine(database_url, name="test-damage", size=1)
        async with engine.begin() as db:
            await db.execute(text("UPDATE contents SET octets = 'Subject: another'::bytea"))
        await engine.dispose()
        await house.start_worker()
        other = await house.submit(to=["ben@example.com"])
        await house.in_state(other, "sent")

        found = await house.in_state(message_id, "deferred", "held", "failed")
        assert "DamagedContent" in str(found["last_error"])
        assert [taken.rcpts for taken in peer.taken] == [("ben@example.com",)]
        await house.workers.pop().end()
