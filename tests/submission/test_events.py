"""The feed of events: pages that a poller goes through, and streams that a browser holds open."""

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn

from service.submission.feed import streams
from tests.house import House, a_house, configuration, processes, smarthost
from tests.peer import ScriptedPeer
from tests.waiting import eventually

STREAM = {"Accept": "text/event-stream"}


@pytest.fixture
async def house(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[House]:
    """A door without a worker: each message makes one event, `recipient.queued`."""
    async with (
        ScriptedPeer() as peer,
        a_house(database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path, workers=0) as opened,
    ):
        yield opened


@asynccontextmanager
async def served(house: House) -> AsyncIterator[httpx2.AsyncClient]:
    """Serve the house's door on a socket: only there an answer comes piece by piece."""
    assert house.app is not None
    server = uvicorn.Server(uvicorn.Config(house.app, port=0, log_config=None, lifespan="off"))
    task = asyncio.create_task(server.serve())
    try:
        await eventually(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        async with httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers=house.client.headers, timeout=20.0
        ) as client:
            yield client
    finally:
        house.app.state.door.telling.streams.close()
        server.should_exit = True
        await task


class Stream:
    """A client of a stream; `events` is what it was told so far, `last` the last id."""

    def __init__(self, answer: httpx2.Response) -> None:
        self.status = answer.status_code
        self.headers = answer.headers
        self.blocks: list[dict[str, str]] = []
        self.last: str | None = None
        self.reading = asyncio.create_task(self._read(answer))

    async def _read(self, answer: httpx2.Response) -> None:
        block: dict[str, str] = {}
        async for line in answer.aiter_lines():
            if line:
                name, _, value = line.partition(": ")
                block[name] = value
                self.last = value if name == "id" else self.last
            elif block:
                self.blocks.append(block)
                block = {}

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(block["data"]) for block in self.blocks if "data" in block]

    async def has(self, count: int) -> list[dict[str, Any]]:
        await eventually(lambda: len(self.events) >= count)
        return self.events


@asynccontextmanager
async def a_stream(
    client: httpx2.AsyncClient, path: str = "/events", **headers: str
) -> AsyncIterator[Stream]:
    async with client.stream("GET", path, headers=STREAM | headers) as answer:
        stream = Stream(answer)
        try:
            yield stream
        finally:
            stream.reading.cancel()
            await asyncio.gather(stream.reading, return_exceptions=True)


async def other_key(house: House, application: str, *scopes: str) -> dict[str, str]:
    key = await house.ledger.create_key(application, scopes=scopes or ["messages.read"], senders=[])
    return {"Authorization": f"Bearer {key.token}"}


# --- pages


async def test_a_poller_goes_on_where_it_was(house: House) -> None:
    """Oldest first, page by page; `next` is there at the end too, and brings exactly what came since."""
    messages = [await house.submit() for _ in range(5)]
    first = await house.get("/events?limit=3")
    second = await house.get(f"/events?limit=3&after={first['next']}")
    nothing = await house.get(f"/events?after={second['next']}")
    later = await house.submit()
    more = await house.get(f"/events?after={nothing['next']}")

    assert messages == [event["message"] for event in first["data"] + second["data"]]
    assert (first["has_more"], second["has_more"], nothing["has_more"]) == (True, False, False)
    assert second["next"] == nothing["next"] == second["data"][-1]["id"]
    assert nothing["data"] == []
    assert [later] == [event["message"] for event in more["data"]]
    assert first["data"][0] == (await house.get(f"/messages/{messages[0]}/events"))["data"][0]
    assert first == await house.get("/events?limit=3&after=evt_0")


async def test_types_narrow_the_feed_and_the_place_moves_on(house: House) -> None:
    """`type` repeated or with commas; where nothing fits, `next` still stands behind what was looked at."""
    await house.submit()
    one = await house.get("/events?type=recipient.queued,recipient.sent")
    both = await house.get("/events?type=recipient.queued&type=recipient.sent")
    none = await house.get("/events?type=recipient.bounced")

    assert one == both
    assert len(one["data"]) == 1
    assert ([], False, one["next"]) == (none["data"], none["has_more"], none["next"])


async def test_an_empty_feed_has_no_next(house: House) -> None:
    """Before the first event there is no place to go on from."""
    assert await house.get("/events") == {"object": "list", "data": [], "has_more": False, "next": None}


async def test_each_application_reads_its_own_feed(house: House) -> None:
    """Another application sees nothing, and its position is unknown to it; an operator names whose feed it is."""
    message_id = await house.submit()
    mine = (await house.get("/events"))["next"]
    theirs, operator = (
        await other_key(house, "others"),
        await other_key(house, "ops", "messages.read", "operate"),
    )

    async def asked(path: str, headers: dict[str, str]) -> httpx2.Response:
        return await house.client.get(path, headers=headers)

    empty = await asked("/events", theirs)
    foreign, unknown = (
        await asked(f"/events?after={mine}", theirs),
        await asked("/events?after=evt_99", theirs),
    )
    named = await asked("/events?application=tests", theirs)
    searched = await asked("/messages?application=tests", theirs)
    own, seen = await asked("/events", operator), await asked("/events?application=tests", operator)

    assert empty.json()["data"] == []
    assert (foreign.status_code, foreign.json()["code"]) == (422, "unknown_event")
    assert {**foreign.json(), "request_id": ""} == {**unknown.json(), "request_id": ""}
    for refused in (named, searched):
        assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")
        assert [error["pointer"] for error in refused.json()["errors"]] == ["?application"]
    assert own.json()["data"] == []
    assert [message_id] == [event["message"] for event in seen.json()["data"]]


WRONG = [
    ("after=evt_", "?after"),
    ("after=evt_-1", "?after"),
    ("after=evt_9999999999999999999", "?after"),
    ("after=msg_01JDB6Z0Q5V8W6K3T1E9F4H2RC", "?after"),
    ("after=evt_1&after=evt_2", "?after"),
    ("type=recipient.gone", "?type"),
    ("type=", "?type"),
    ("type=webhook.test", "?type"),
    ("limit=0", "?limit"),
    ("limit=101", "?limit"),
    ("before=evt_1", ""),
    ("application=a%00b", "?application"),
]


async def test_a_wrong_parameter_is_named(house: House) -> None:
    """422 that names the parameter, as a page and as a stream alike."""
    for asked, pointer in WRONG:
        for headers in ({}, STREAM):
            answer = await house.client.get(f"/events?{asked}", headers=headers)

            assert answer.status_code == 422, answer.text
            assert answer.json()["errors"][0]["pointer"] == pointer, asked
    answer = await house.client.get("/events", headers=STREAM | {"Last-Event-ID": "x"})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "Last-Event-ID")


# --- streams


async def test_a_stream_tells_what_happens(house: House) -> None:
    """From the present on: id, type and the event as the feed has it; the headers are those of a stream."""
    await house.submit()
    async with served(house) as client, a_stream(client) as stream:
        await eventually(lambda: stream.blocks)
        later = await house.submit()
        (event,) = await stream.has(1)
        feed = (await house.get("/events"))["data"]

    assert (stream.status, stream.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert stream.headers["cache-control"] == "no-store"
    assert stream.blocks[0] == {"retry": "3000"}
    assert later == event["message"]
    assert feed[-1] == event
    assert (event["id"], "recipient.queued") == (stream.blocks[1]["id"], stream.blocks[1]["event"])


async def test_a_stream_resumes(house: House) -> None:
    """`Last-Event-ID` goes over `after`; each brings exactly what came behind it, many at once."""
    messages = [await house.submit() for _ in range(4)]
    ids = [event["id"] for event in (await house.get("/events"))["data"]]
    async with (
        served(house) as client,
        a_stream(client, f"/events?after={ids[0]}") as after,
        a_stream(client, f"/events?after={ids[0]}", **{"Last-Event-ID": ids[2]}) as resumed,
        a_stream(client, "/events?after=evt_0") as whole,
    ):
        seen = [
            [event["message"] for event in await each.has(n)]
            for each, n in ((after, 3), (resumed, 1), (whole, 4))
        ]

    assert [messages[1:], messages[3:], messages] == seen


async def test_a_stream_of_types_remembers_what_it_passed_over(house: House) -> None:
    """Where no event is wanted the client is told the id alone, so that it does not look again."""
    async with served(house) as client, a_stream(client, "/events?after=evt_0&type=recipient.sent") as stream:
        await house.submit()
        last = (await house.get("/events"))["next"]
        await eventually(lambda: stream.last == last)

    assert stream.events == []


async def test_streams_are_bounded(house: House) -> None:
    """An application has twenty streams in a process; the next one is a 429, and a place comes free again."""
    most = streams._MOST_OF_AN_APPLICATION
    async with served(house) as client:
        async with asyncio.timeout(30), a_stream(client) as first:
            others = [a_stream(client) for _ in range(most - 1)]
            opened = [await each.__aenter__() for each in others]
            await eventually(lambda: first.blocks and all(each.blocks for each in opened))
            refused = await client.get("/events", headers=STREAM)
            await others[0].__aexit__(None, None, None)

            async def free() -> bool:
                async with client.stream("GET", "/events", headers=STREAM) as answer:
                    return answer.status_code == 200

            await eventually(free)
            for each in others[1:]:
                await each.__aexit__(None, None, None)

    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_streams")
    assert refused.headers["retry-after"]


async def test_many_streams_are_one_question(house: House) -> None:
    """Streams that wait share one look at the ledger; all of them are told."""
    assert house.app is not None
    async with served(house) as client:
        async with a_stream(client) as one, a_stream(client) as two, a_stream(client) as three:
            await eventually(lambda: one.blocks and two.blocks and three.blocks)
            held = house.app.state.door.telling.streams
            assert len(held._listeners) == 3
            await house.submit()
            told = [await each.has(1) for each in (one, two, three)]
        await eventually(lambda: not held._listeners)
        await eventually(lambda: held._looking.done())

    assert told[0] == told[1] == told[2]


async def test_a_revoked_key_ends_its_stream(house: House) -> None:
    """Once the key is revoked the stream tells nothing more, and ends."""
    key = await house.ledger.create_key("tests", scopes=["messages.read"], senders=[])
    async with (
        served(house) as client,
        a_stream(client, Authorization=f"Bearer {key.token}") as stream,
    ):
        await eventually(lambda: stream.blocks)
        await house.ledger.revoke_key(key.id)
        await asyncio.sleep(3.1)  # for so long a key is remembered
        await house.submit()
        await asyncio.wait_for(stream.reading, 20)

    assert stream.events == []


async def test_sigterm_ends_a_process_with_an_open_stream(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """`postroom api` ends at once, with 0, although a client holds a stream open; the stream ends in order."""
    async with ScriptedPeer() as peer:
        with processes(tmp_path, configuration(database_url, redis_url, routes=[smarthost(peer)])) as running:
            api = running.start_api()
            async with running.door() as door, a_stream(door.client) as stream:
                await eventually(lambda: stream.blocks)
                api.send_signal(signal.SIGTERM)
                asked = time.monotonic()
                await asyncio.wait_for(stream.reading, 20)
                code = await asyncio.to_thread(api.wait, 20)
                took = time.monotonic() - asked

    assert code == 0
    assert took < 10  # of the 5 s of its grace and the 15 s between two heartbeats nothing was waited for
