"""The whole service for a test: the door, the ledger and workers, before a scripted peer.

`a_house` runs everything in this process (the HTTP door by ASGI, the worker as a task), which
is quick and shows every mistake. `Processes` runs `postroom api` and `postroom worker` as they
run in production, for what only a process can suffer: kill -9, SIGSTOP, SIGTERM.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import yaml
from fastapi import FastAPI

from service import wiring
from service.delivery.attempt import Kit
from service.delivery.bell import open_redis
from service.delivery.keeper import Keeper
from service.delivery.room import Room
from service.delivery.worker import Worker
from service.ledger import Ledger
from service.ledger.ids import new_id
from service.ledger.keys import DEFAULT_SCOPES
from service.routes.mx import MxFinder
from service.routes.tokens import Tokens
from service.settings import Settings
from tests.children import Child, Forked
from tests.peer import ScriptedPeer
from tests.waiting import eventually

ROOT = Path(__file__).resolve().parents[1]

#: Seconds become fractions: what takes minutes in production takes moments here.
QUICK = {
    "lease": "2s",
    "poll_interval": "300ms",
    "retry": {"first": "200ms", "factor": 2, "cap": "1s"},
    "uncertain_after": "1s",
    "shutdown_grace": "5s",
}

FINAL = {"sent", "failed", "expired", "canceled", "partially_sent"}


def smarthost(peer: ScriptedPeer, **changes: Any) -> dict[str, Any]:
    """A route to the scripted peer, without TLS."""
    host, port = peer.as_peer().connect_to or ("127.0.0.1", 0)
    return {
        "name": "peer",
        "kind": "smarthost",
        "host": "smarthost.contoso.com",
        "connect_to": f"{host}:{port}",
        "tls": "none",
        "ehlo_name": "postroom.contoso.com",
        **changes,
    }


def configuration(
    database_url: str, redis_url: str, *, routes: list[dict[str, Any]], dispatch: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {
        "database_url": database_url,
        "redis_url": redis_url,
        "organization": {"accepted_domains": ["contoso.com"]},
        "routes": routes,
        "dispatch": {**QUICK, **(dispatch or {})},
        # What a peer saw is compared with the ledger: only mail may talk to it.
        "checks": {"enabled": False},
        "log_level": "info",
    }


def a_message(**changes: Any) -> dict[str, Any]:
    """A small message that every route takes."""
    return {
        "from": "Contoso <noreply@contoso.com>",
        "to": ["ana@example.com"],
        "subject": "Your receipt",
        "text": "Thank you.",
        **changes,
    }


class Door:
    """The API as an application sees it."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self.client = client

    async def submit(self, **changes: Any) -> str:
        """Send a message; return its id."""
        headers = {"Idempotency-Key": key} if (key := changes.pop("idempotency_key", None)) else {}
        answer = await self.client.post("/messages", json=a_message(**changes), headers=headers)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    async def get(self, path: str) -> Any:
        answer = await self.client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def message(self, message_id: str) -> dict[str, Any]:
        found: dict[str, Any] = await self.get(f"/messages/{message_id}")
        return found

    async def attempts(self, message_id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.get(f"/messages/{message_id}/attempts"))["data"]
        return found

    async def in_state(self, message_id: str, *states: str, within: float = 30.0) -> dict[str, Any]:
        """Wait until the message is in one of these states."""

        async def there() -> dict[str, Any] | None:
            found = await self.message(message_id)
            return found if found["status"] in (states or FINAL) else None

        try:
            return await eventually(there, within=within)
        except AssertionError:
            found = await self.message(message_id)
            raise AssertionError(
                f"{found['status']}, not {states}: {json.dumps(found['last_error'])}"
            ) from None


@dataclass(slots=True)
class RunningWorker:
    worker: Worker
    kit: Kit
    stop: asyncio.Event
    task: asyncio.Task[None]
    closers: contextlib.AsyncExitStack

    async def end(self) -> None:
        """Stop it as SIGTERM does."""
        self.stop.set()
        await self.task
        await self.closers.aclose()


@dataclass(slots=True)
class House(Door):
    """Everything in this process."""

    client: httpx2.AsyncClient
    ledger: Ledger
    settings: Settings
    rung: list[str]
    workers: list[RunningWorker] = field(default_factory=list)
    app: FastAPI | None = None

    async def start_worker(self) -> RunningWorker:
        closers = contextlib.AsyncExitStack()
        ledger = wiring.open_ledger(self.settings, name="test-worker", connections=5)
        closers.push_async_callback(ledger.dispose)
        redis = open_redis(self.settings.redis_url.get_secret_value())
        closers.push_async_callback(redis.aclose, close_connection_pool=True)
        rules = wiring.policy(self.settings)
        kit = Kit(
            worker=new_id("wrk"),
            ledger=ledger,
            tokens=Tokens(self.settings.entra()),
            mx=MxFinder(self.settings.resolver()),
            keeper=Keeper(ledger, lease=rules.lease),
            policy=rules,
            room=Room(self.settings.dispatch.contents_in_flight),
        )
        worker = Worker(
            self.settings.route_book().lanes(),
            limits=wiring.lane_limits(self.settings),
            kit=kit,
            redis=redis,
        )
        stop = asyncio.Event()
        running = RunningWorker(worker, kit, stop, asyncio.create_task(worker.run(stop)), closers)
        self.workers.append(running)
        return running


@asynccontextmanager
async def a_house(
    database_url: str,
    redis_url: str,
    *,
    routes: list[dict[str, Any]],
    dispatch: dict[str, Any] | None = None,
    folder: Path,
    workers: int = 1,
    settings_changes: dict[str, Any] | None = None,
) -> AsyncIterator[House]:
    """Open a house with so many workers; they are stopped at the end."""
    path = folder / "postroom.yaml"
    given = configuration(database_url, redis_url, routes=routes, dispatch=dispatch) | (
        settings_changes or {}
    )
    path.write_text(yaml.safe_dump(given))
    settings = Settings.load(path, env={})
    async with wiring.api_app(settings) as app:
        ledger = wiring.open_ledger(settings, name="test", connections=5)
        key = await ledger.create_key("tests", scopes=DEFAULT_SCOPES, senders=[])
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=True)
        headers = {"Authorization": f"Bearer {key.token}"}
        async with httpx2.AsyncClient(
            transport=transport, base_url="http://postroom", headers=headers
        ) as client:
            house = House(client=client, ledger=ledger, settings=settings, app=app, rung=[])
            try:
                for _ in range(workers):
                    await house.start_worker()
                yield house
            finally:
                for worker in house.workers:
                    await worker.end()
                await ledger.dispose()


class Processes:
    """`postroom api` and `postroom worker` as child processes, on one configuration.

    `environment` is added to theirs: a clock of the test's own, for example. Without one they are forked from a
    process that has loaded Postroom (`tests.children`).
    """

    def __init__(
        self,
        folder: Path,
        given: dict[str, Any],
        *,
        environment: Mapping[str, str] | None = None,
        forked: bool = False,
    ) -> None:
        self.folder = folder
        self._forked = forked
        self._environment = {
            name: value for name, value in os.environ.items() if not name.startswith("POSTROOM_")
        } | dict(environment or {})
        self.config = folder / "postroom.yaml"
        self.config.write_text(yaml.safe_dump(given))
        self.port = _free_port()
        self.database_url = str(given["database_url"])
        self.children: list[Child] = []

    def start(self, *arguments: str) -> Child:
        log = self.folder / f"{arguments[0]}-{len(self.children)}.log"
        child = self._start([*arguments, "--config", str(self.config)], log)
        self.children.append(child)
        return child

    def _start(self, arguments: list[str], log: Path) -> Child:
        if self._forked:
            return Forked(*arguments, environment=self._environment, log=log)
        with log.open("wb") as out:
            return subprocess.Popen(
                [sys.executable, "-m", "service", *arguments],
                cwd=ROOT,
                env=self._environment,
                stdout=out,
                stderr=out,
            )

    def start_api(self) -> Child:
        return self.start("api", "--host", "127.0.0.1", "--port", str(self.port))

    def start_worker(self) -> Child:
        return self.start("worker")

    async def run(self, *arguments: str) -> str:
        """Run a command to its end; return what it printed to stdout."""
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "service",
            *arguments,
            "--config",
            str(self.config),
            cwd=ROOT,
            env=self._environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await child.communicate()
        assert child.returncode == 0, err.decode()
        return out.decode()

    @asynccontextmanager
    async def door(self, application: str = "tests") -> AsyncIterator[Door]:
        """Make a key for an application, wait for the API, and give the door."""
        ledger = Ledger.open(self.database_url, name="test", connections=1)
        try:
            key = await ledger.create_key(application, scopes=DEFAULT_SCOPES, senders=[])
        finally:
            await ledger.dispose()
        async with httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}",
            headers={"Authorization": f"Bearer {key.token}"},
            timeout=20.0,
        ) as client:
            await eventually(lambda: _answers(client), within=40.0)
            yield Door(client)

    def end(self) -> None:
        for child in self.children:
            if child.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    child.send_signal(signal.SIGCONT)
                child.kill()
            child.wait(timeout=20)


@contextlib.contextmanager
def processes(
    folder: Path, given: dict[str, Any], *, environment: Mapping[str, str] | None = None
) -> Iterator[Processes]:
    """Give `Processes`, forked where they need no environment of their own, and leave none behind."""
    house = Processes(folder, given, environment=environment, forked=environment is None)
    try:
        yield house
    finally:
        house.end()


async def _answers(client: httpx2.AsyncClient) -> bool:
    try:
        return (await client.get("/readyz")).status_code == 200
    except httpx2.HTTPError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def copies(peer: ScriptedPeer, recipient: str) -> int:
    """Count the messages that the peer took for this recipient."""
    return sum(recipient in taken.rcpts for taken in peer.taken)


def lanes_of(settings: Settings) -> Collection[str]:
    return [lane.name for lane in settings.route_book().lanes()]
