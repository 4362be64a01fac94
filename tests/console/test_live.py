"""Streams that keep an open page up to date: what they say, how many there are, and when they end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from service.console import live
from service.ledger.keys import SCOPES
from tests.console.visitor import Visitor
from tests.house import House, Processes, a_house, configuration, processes, smarthost
from tests.peer import ScriptedPeer
from tests.submission.test_events import served
from tests.waiting import eventually


@pytest.fixture
async def house(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[House]:
    """A house in which nothing is sent."""
    async with (
        ScriptedPeer() as peer,
        a_house(database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path, workers=0) as opened,
    ):
        yield opened


@asynccontextmanager
async def visiting(house: House) -> AsyncIterator[Visitor]:
    """Sign in over a socket: only there an answer comes piece by piece."""
    key = await house.ledger.create_key("operators", scopes=SCOPES, senders=[])
    async with served(house) as client, httpx2.AsyncClient(base_url=client.base_url, timeout=30.0) as own:
        visitor = Visitor(own)
        assert (await visitor.sign_in(key.token)).status_code == 303
        yield visitor


async def test_a_page_is_told_that_its_message_has_moved(house: House) -> None:
    """A stream says nothing while nothing happens, and `changed` when the message moves."""
    message_id = await house.submit()
    async with visiting(house) as visitor:
        async with visitor.client.stream("GET", f"/console/messages/{message_id}/live") as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            lines = stream.aiter_lines()
            assert await anext(lines) == "retry: 3000"
            assert await anext(lines) == ""
            quiet = asyncio.ensure_future(anext(lines))
            await asyncio.wait({quiet}, timeout=2.5)
            assert not quiet.done()

            await house.client.post(f"/messages/{message_id}/cancel")
            assert await asyncio.wait_for(quiet, 20) == "event: changed"


async def test_nothing_is_missed_between_page_and_stream(house: House) -> None:
    """What happens after the page was made and before its stream begins is told at once."""
    message_id = await house.submit()
    async with visiting(house) as visitor:
        page = await visitor.open(f"/console/messages/{message_id}")
        (address,) = [str(given["data-live"]) for tag, given in page.tags if tag == "body"]
        await house.client.post(f"/messages/{message_id}/cancel")

        async with visitor.client.stream("GET", address) as stream:
            lines = stream.aiter_lines()
            told = [await asyncio.wait_for(anext(lines), 20) for _ in range(3)]

        assert told == ["retry: 3000", "", "event: changed"]


async def test_lanes_are_followed_too(house: House) -> None:
    """The stream of the lanes says `changed` when something begins to wait."""
    async with visiting(house) as visitor, visitor.client.stream("GET", "/console/lanes/live") as stream:
        lines = stream.aiter_lines()
        await anext(lines)
        await anext(lines)
        told = asyncio.ensure_future(anext(lines))

        async def more() -> bool:
            await house.submit()
            await asyncio.wait({told}, timeout=1)
            return told.done()

        await eventually(more, within=30)
        assert told.result() == "event: changed"


async def test_streams_are_bounded(house: House) -> None:
    """Beyond so many streams of a sign-in there is none; those that end make room."""
    message_id = await house.submit()
    address = f"/console/messages/{message_id}/live"
    async with visiting(house) as visitor:
        streams = [visitor.client.stream("GET", address) for _ in range(live._MOST_OF_ONE)]
        opened = [await stream.__aenter__() for stream in streams]
        assert {200} == {each.status_code for each in opened}
        told = [each.aiter_lines() for each in opened]
        assert [await anext(lines) for lines in told] == ["retry: 3000"] * len(opened)

        async with visitor.client.stream("GET", address) as refused:
            assert refused.status_code == 204
        for stream in streams:
            await stream.__aexit__(None, None, None)

        async def room() -> bool:
            async with visitor.client.stream("GET", address) as again:
                return again.status_code == 200

        await eventually(room)


async def test_a_stop_ends_streams_at_once(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """SIGTERM ends an API with an open stream within moments and with 0, however long requests may take to end."""
    async with ScriptedPeer() as peer:
        given = configuration(
            database_url, redis_url, routes=[smarthost(peer)], dispatch={"shutdown_grace": "60s"}
        )
        with processes(tmp_path, given) as running:
            await _stopped_with_a_stream(running)


async def _stopped_with_a_stream(running: Processes) -> None:
    api = running.start_api()
    made = await running.run("keys", "create", "operators", "--scopes", ",".join(SCOPES))
    key = next(word for word in made.split() if word.startswith("pr_live_"))
    async with running.door() as door:
        visitor = Visitor(httpx2.AsyncClient(base_url=door.client.base_url, timeout=30.0))
        assert (await visitor.sign_in(key)).status_code == 303
        async with visitor.client.stream("GET", "/console/lanes/live") as stream:
            lines = stream.aiter_lines()
            assert await anext(lines) == "retry: 3000"

            api.terminate()
            ended = [line async for line in lines]

        assert not [line for line in ended if line.startswith("event") and line != "event: changed"]
        await eventually(lambda: api.poll() is not None, within=20)
        assert api.poll() == 0
        await visitor.client.aclose()
