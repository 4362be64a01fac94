"""A service with something of everything in it, for tests that ask every operation."""

import re
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

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
    _made: dict[str, str] = field(default_factory=dict)

    async def path(self, operation: Operation) -> str:
        """Fill an operation's path with things of this caller's, made by posting the document's examples."""
        path = operation.path
        while match := re.search(r"\{(\w+)\}", path):
            path = (
                path[: match.start()]
                + await self._one_of(path[: match.start()], match[1])
                + path[match.end() :]
            )
        return path

    async def _one_of(self, before: str, name: str) -> str:
        collection = before.rstrip("/")
        if name in _FIXED:
            return _FIXED[name]
        if collection not in self._made:
            self._made[collection] = await self._make(collection) or f"{name}_of_nothing"
        return self._made[collection]

    async def _make(self, collection: str) -> str | None:
        wanted = [each for each in OPERATIONS if (each.method, each.path) == ("POST", collection)]
        if not wanted or wanted[0].body is None:
            return None
        body = wanted[0].body
        if collection == "/templates":
            body = {**body, "name": "another"}
        made = await self.client.post(collection, json=body)
        assert made.status_code < 300, f"the example of {wanted[0]} is refused: {made.text}"
        return str(made.json()["id"])


@dataclass(slots=True)
class World:
    """The service; callers are made as they are needed."""

    house: House
    peer: ScriptedPeer

    @asynccontextmanager
    async def caller(
        self, application: str = "hostile", *, scopes: Collection[str] = SCOPES
    ) -> AsyncIterator[Caller]:
        """Give a caller with a key of its own, so that nobody spoils another's."""
        key = await self.house.ledger.create_key(application, scopes=list(scopes), senders=[])
        async with httpx2.AsyncClient(
            transport=self.house.client._transport,  # the same application
            base_url="http://postroom",
            headers={"Authorization": f"Bearer {key.token}"},
        ) as client:
            made = await client.post("/templates", json=TEMPLATE)
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
