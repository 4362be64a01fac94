"""A served Postroom with something of everything in it, for tests that ask every operation.

Its key has every scope. What there is to ask about is made as a client makes it: a resource of a collection
by posting the collection's own example from the document, so a new endpoint finds its things here without
anybody adding them. One message has been sent before the worker ends; what comes after stays queued.
"""

import asyncio
import re
import threading
import time
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx2

from service.ledger.keys import SCOPES
from tests.house import FINAL, configuration, processes, smarthost
from tests.peer import ScriptedPeer

Result = TypeVar("Result")

#: What a name in a path stands for where no collection can be asked.
_FIXED = {"name": "peer", "version": 1}


@dataclass(slots=True)
class World:
    """The service, by its address and a key for everything."""

    url: str
    token: str
    document: Any
    client: httpx2.Client
    sent: str = ""  # the message that has been sent, with an attempt
    _known: dict[str, Any] = field(default_factory=dict)

    def parameters(self, path: str) -> dict[str, Any]:
        """Give a value for each name in a path: of things that exist, made anew where they can be."""
        found: dict[str, Any] = {}
        for before, name in re.findall(r"([^{]*)\{(\w+)\}", path):
            collection = (found.get("path", "") + before).rstrip("/")
            found[name] = self._one_of(collection, name)
            found["path"] = f"{collection}/{found[name]}"
        found.pop("path", None)
        return found

    def _one_of(self, collection: str, name: str) -> Any:
        if name in _FIXED:
            return _FIXED[name]
        if name == "attempt_id":
            return self.client.get(f"/messages/{self.sent}/attempts").json()["data"][0]["id"]
        if name == "delivery_id":
            return self.client.post(f"{collection.removesuffix('/deliveries')}/test").json()["id"]
        made = self.make(collection)
        if made is not None and made.status_code < 300 and "id" in made.json():
            return made.json()["id"]
        answer = self.client.get(collection)
        listed = answer.json().get("data", []) if answer.status_code == 200 else []
        return listed[0]["id"] if listed else f"{name}_of_nothing"

    def make(self, path: str) -> httpx2.Response | None:
        """Post the example of a path without names to it; None where it takes no JSON."""
        operation = self.document["paths"].get(path, {}).get("post", {})
        kinds = operation["requestBody"]["content"] if "requestBody" in operation else {}
        content = kinds.get("application/json")
        return None if content is None else self.client.post(path, json=example(content))


def example(content: Mapping[str, Any]) -> Any:
    """Give the first example of a media type."""
    if "example" in content:
        return content["example"]
    return next(iter(content["examples"].values()))["value"]


@contextmanager
def a_world(database_url: str, redis_url: str, folder: Path) -> Iterator[World]:
    """Serve it; everything ends with the block."""
    with _peer() as peer:
        given = configuration(database_url, redis_url, routes=[smarthost(peer)])
        with processes(folder, given) as house:
            house.start_api()
            worker = house.start_worker()
            command = ("keys", "create", "contract", "--scopes", ",".join(SCOPES))
            token = asyncio.run(house.run(*command)).strip()
            url = f"http://127.0.0.1:{house.port}"
            headers = {"Authorization": f"Bearer {token}"}
            with httpx2.Client(base_url=url, headers=headers, timeout=20.0, trust_env=False) as client:
                _until(lambda: _ready(client))
                world = World(
                    url=url, token=token, document=client.get("/openapi.json").json(), client=client
                )
                made = world.make("/messages")
                assert made is not None
                world.sent = str(made.json()["id"])
                _until(lambda: client.get(f"/messages/{world.sent}").json()["status"] in FINAL)
                worker.terminate()
                worker.wait(timeout=30)
                yield world


@contextmanager
def _peer() -> Iterator[ScriptedPeer]:
    """Run a scripted peer in a thread of its own, because these tests have no loop."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def run(work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, loop).result(timeout=30)

    peer = ScriptedPeer()
    run(peer.__aenter__())
    try:
        yield peer
    finally:
        run(peer.__aexit__(None, None, None))
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=30)
        loop.close()


def _ready(client: httpx2.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx2.HTTPError:
        return False


def _until(fact: Any, *, within: float = 60.0) -> None:
    deadline = time.monotonic() + within
    while not fact():
        assert time.monotonic() < deadline, "the world does not come up"
        time.sleep(0.05)
