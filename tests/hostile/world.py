"""A service with something of everything in it, for tests that ask every operation."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from service.ledger.keys import SCOPES
from tests.hostile.surface import OPERATIONS, Operation
from tests.house import House, a_house, smarthost
from tests.peer import ScriptedPeer

#: What a name in a path stands for where no collection has it.
_FIXED: Mapping[str, str] = {"name": "peer", "version": "1"}


#: Every caller has it; the places of requests name it.
TEMPLATE = {
    "name": "receipt",
    "subject": "For {{ name }}",
    "text": "Hello {{ name }}",
    "html": "<p title='{{ name }}'>Hello {{ name }}</p>",
    "publish": True,
}


@dataclass(slots=True)
class Caller:
    """An application with a key, and what it has made so far."""

    client: httpx2.AsyncClient
    things: dict[str, str] = field(default_factory=dict)  # an id of each collection

    async def path(self, operation: Operation) -> str:
        """Fill an operation's path with things of this caller's, made by posting the document's examples."""
        return operation.path.format(**await self.names(operation))

    async def names(self, operation: Operation) -> dict[str, str]:
        """Give what each name in an operation's path stands for."""
        found: dict[str, str] = {}
        for match in re.finditer(r"\{(\w+)\}", operation.path):
            collection = operation.path[: match.start()].format(**found).rstrip("/")
            found[match[1]] = await self._one_of(collection, match[1])
        return found

    async def _one_of(self, collection: str, name: str) -> str:
        if name in _FIXED:
            return _FIXED[name]
        if collection not in self.things:
            self.things[collection] = await self._make(collection) or f"{name}_of_nothing"
        return self.things[collection]

    async def _make(self, collection: str) -> str | None:
        wanted = [each for each in OPERATIONS if (each.method, each.path) == ("POST", collection)]
        if not wanted or wanted[0].body is None:
            return None
        body = wanted[0].body
        if collection == "/templates":
            body = {**body, "name": "another"}
        made = await _posted(self.client, collection, body)
        assert made.status_code < 300, f"the example of {wanted[0]} is refused: {made.text}"
        return str(made.json()["id"])


async def _posted(client: httpx2.AsyncClient, path: str, body: Any) -> httpx2.Response:
    """Post; once more and again where the service says that it is busy, as it asks for."""
    for _ in range(5):
        made = await client.post(path, json=body)
        if made.status_code != 503:
            break
        await asyncio.sleep(1.0)
    return made


@dataclass(slots=True)
class World:
    """The service; callers are made as they are needed."""

    house: House
    peer: ScriptedPeer

    @property
    def app(self) -> Any:
        """The HTTP door itself, as a server calls it."""
        transport = self.house.client._transport
        assert isinstance(transport, httpx2.ASGITransport)
        return transport.app

    def client(self, token: str, *, address: str = "127.0.0.1") -> httpx2.AsyncClient:
        """Give a client with this key, at this address."""
        return httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=self.app, client=(address, 1)),
            base_url="http://postroom",
            headers={"Authorization": f"Bearer {token}"},
        )

    @asynccontextmanager
    async def caller(self, application: str) -> AsyncIterator[Caller]:
        """Give a caller with every scope and a key of its own, so that nobody spoils another's."""
        key = await self.house.ledger.create_key(application, scopes=SCOPES, senders=[])
        async with self.client(key.token) as client:
            made = await _posted(client, "/templates", TEMPLATE)
            assert made.status_code == 201, made.text
            yield Caller(client)


@asynccontextmanager
async def a_world(database_url: str, redis_url: str, folder: Path, *, workers: int) -> AsyncIterator[World]:
    """Open a house before a scripted peer."""
    async with (
        ScriptedPeer() as peer,
        a_house(database_url, redis_url, routes=[smarthost(peer)], folder=folder, workers=workers) as house,
    ):
        yield World(house=house, peer=peer)
