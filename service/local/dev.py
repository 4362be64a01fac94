"""`postroom dev`: the whole service on this machine, until Ctrl-C.

1. Claim the state folder; a second `postroom dev` on it is told who has it, and ends with 1.
2. Start PostgreSQL and Valkey, bring the schema up to date, start the sandbox inside this process.
3. Write the configuration, start API and worker as children, wait until the API is ready.
4. Make two keys once, an application's and the operator's; send a message, show what the ledger says about
   it, print how to send the next.
5. Stay up. What dies is started again on the same port and data, and said; what dies again and again
   ends everything, with the last lines of its log.
6. On SIGINT, SIGTERM or SIGHUP: the API and the worker finish what is in hand, then the servers stop,
   in that order. A second signal does not wait. Ends with 0.

The state folder holds the data of both servers, the logs, the configuration, the keys and the sandbox's
authority. Deleting it starts anew. `kill -9` of this process ends every other one too (`descent`).
"""

import asyncio
import contextlib
import json
import os
import shlex
import signal
import sys
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2

from service.ledger.migrate import upgrade
from service.local.child import Child, CommandFailed, environment_with, run
from service.local.claim import Claim, FolderInUse
from service.local.configuration import configuration
from service.local.example import SENDER, message
from service.local.programs import NotInstalled
from service.local.report import report
from service.local.servers import (
    HOST,
    START_LIMIT,
    LocalPostgres,
    LocalRedis,
    LocalServer,
    ServerFailed,
    free_port,
    port_is_free,
)
from service.sandbox import Sandbox, contoso

DEFAULT_PORT = 8025
DATABASE = "postroom"
KEY_NAME = "dev"
#: Who starts this is the operator of it: what the console's pages need, and what pauses a route.
OPERATOR = "operator"
OPERATES = (
    "messages.read",
    "transcripts.read",
    "content.read",
    "routes.read",
    "routes.check",
    "operate",
    "admin",
)
SENDERS = (SENDER, "billing@contoso.com", "printer@contoso.com", "hve@contoso.com", "donotreply@contoso.com")
READY_LIMIT = 60.0  # seconds until the API answers
SENT_LIMIT = 60.0  # seconds until the first message has come to its end
GRACE_LIMIT = 75.0  # seconds for the worker: `dispatch.shutdown_grace` and a little more
DEATHS = 5  # so many in a minute are too many
OPEN = {"queued", "sending", "scheduled"}


class CannotStart(RuntimeError):
    """The service cannot be brought up or kept up; the text says why and is meant for the user."""


async def dev(state: Path, *, port: int | None = None) -> int:
    """Run everything on `state`; returns the exit status.

    Without a `port` the API takes 8025, or another one where that is taken.
    """
    stop = _Stop()
    try:
        async with _everything(state.absolute(), port=port, stop=stop) as house:
            await house.stay_up()
        return 0
    except _Stopped:
        return 0
    except FolderInUse as busy:
        print(
            f"Postroom is running on this state already: {busy}.\n"
            "Use that one, stop it, or choose another folder with --state.",
            file=sys.stderr,
        )
    except (CannotStart, CommandFailed, NotInstalled, ServerFailed, OSError) as trouble:
        print(f"postroom dev: {trouble}", file=sys.stderr)
    return 1


class _Stopped(Exception):
    """A signal came while something was being started."""


class _Stop:
    """Signals as something to wait for."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.insisted = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._note)

    def _note(self) -> None:
        (self.insisted if self.asked.is_set() else self.asked).set()

    async def pause(self, seconds: float) -> None:
        """Wait, unless a signal comes: then raise `_Stopped`."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.asked.wait(), seconds)
            raise _Stopped


@asynccontextmanager
async def _everything(state: Path, *, port: int | None, stop: _Stop) -> AsyncIterator["_House"]:
    """Build the house from the ground up, and take it down in reverse."""
    state.mkdir(parents=True, exist_ok=True, mode=0o711)
    async with AsyncExitStack() as stack:
        claim = Claim.take(state / "lock", patience=5.0)
        stack.callback(claim.release)
        house = _House(state, port=port, stop=stop)
        stack.push_async_callback(house.close)
        await house.open(stack)
        yield house


class _House:
    """Everything that runs, and what keeps it running."""

    def __init__(self, state: Path, *, port: int | None, stop: _Stop) -> None:
        self.state = state
        self.stop = stop
        self.port = _api_port(port)
        self.config = state / "postroom.yaml"
        self.key_file = state / "api-key"
        self.operator_file = state / "operator-key"
        self.tenant = contoso(state / "sandbox")
        self.environment = environment_with(self.config)
        self.postgres = LocalPostgres(state / "postgres")
        self.redis = LocalRedis(state / "redis")
        self.api = self._child("api", "--host", HOST, "--port", str(self.port))
        self.worker = self._child("worker")
        self._deaths: deque[float] = deque(maxlen=DEATHS)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    async def open(self, stack: AsyncExitStack) -> None:
        """Start everything, and show that it works."""
        (self.state / ".gitignore").write_text("*\n", encoding="ascii")
        async with _step("PostgreSQL"):
            await self._up(self.postgres)
        async with _step("Valkey"):
            await self._up(self.redis)
        async with _step("schema"):
            if DATABASE not in self.postgres.databases():
                self.postgres.create_database(DATABASE)
            await asyncio.to_thread(upgrade, self.postgres.url(DATABASE))
        async with _step("sandbox (a simulated Microsoft 365)"):
            self.sandbox = await stack.enter_async_context(Sandbox(self.tenant))
            # The children must stop before the sandbox does: the worker may be talking to it.
            stack.push_async_callback(self.finish)
            _write_secret(
                self.config,
                configuration(
                    self.tenant,
                    self.sandbox,
                    database_url=self.postgres.url(DATABASE),
                    redis_url=self.redis.url,
                ),
            )
        async with _step("API and worker"):
            self.api.begin()
            self.worker.begin()
            await self._until_ready()
        async with self._client() as client:
            senders = [part for sender in SENDERS for part in ("--senders", sender)]
            operates = ["--scopes", ",".join(OPERATES)]
            key, _ = await asyncio.gather(
                self._key(client, self.key_file, KEY_NAME, *senders),
                self._key(client, self.operator_file, OPERATOR, *operates),
            )
            client.headers["Authorization"] = f"Bearer {key}"
            await self._first_message(client)
        _say(_welcome(self, key))

    async def stay_up(self) -> None:
        """Watch everything until a signal comes; start again what has died."""
        with contextlib.suppress(_Stopped):
            while True:
                await self.stop.pause(0.25)
                for server in (self.postgres, self.redis):
                    if server.pid is None:
                        self._count_death(f"{server!r} has died")
                        await self._up(server)
                for child in (self.api, self.worker):
                    if child.pid is None:
                        self._count_death(child.obituary())
                        child.begin()

    async def finish(self) -> None:
        """Let API and worker finish what is in hand; kill them where that takes too long."""
        children = [child for child in (self.api, self.worker) if child.pid is not None]
        if children:
            _say("\nStopping: the worker finishes what is in hand (Ctrl-C again: at once).")
        for child in children:
            child.send(signal.SIGTERM)
        deadline = time.monotonic() + GRACE_LIMIT
        while any(child.pid for child in children):
            if self.stop.insisted.is_set() or time.monotonic() > deadline:
                for child in children:
                    child.send(signal.SIGKILL)
            await asyncio.sleep(0.02)

    async def close(self) -> None:
        """Stop the servers; everything is on disk then."""
        self.redis.stop()
        self.postgres.stop()

    def _child(self, name: str, *arguments: str) -> Child:
        return Child(name, name, *arguments, log=self.state / f"{name}.log", environment=self.environment)

    def _client(self) -> httpx2.AsyncClient:
        # Not by way of a proxy that the environment names: it is this machine.
        return httpx2.AsyncClient(base_url=self.url, timeout=15.0, trust_env=False)

    async def _up(self, server: LocalServer) -> None:
        server.begin()
        deadline = time.monotonic() + START_LIMIT
        while not server.ready():
            if time.monotonic() > deadline:
                raise CannotStart(f"{server!r} does not answer")
            await self.stop.pause(0.02)

    async def _until_ready(self) -> None:
        deadline = time.monotonic() + READY_LIMIT
        async with self._client() as client:
            while not await _answers(client, "/readyz"):
                for child in (self.api, self.worker):
                    if child.pid is None:
                        raise CannotStart(child.obituary())
                if time.monotonic() > deadline:
                    raise CannotStart(f"the API is not ready after {READY_LIMIT:.0f} s; see {self.api.log}")
                await self.stop.pause(0.05)

    async def _key(self, client: httpx2.AsyncClient, file: Path, name: str, *rights: str) -> str:
        """The key of earlier runs, or a new one where it is missing or not valid any more."""
        if file.exists():
            key = file.read_text(encoding="ascii").strip()
            if await _answers(client, "/me", key=key):
                return key
        made = await run("keys", "create", name, *rights, "--json", environment=self.environment, within=30.0)
        key = str(json.loads(made)["key"])
        _write_secret(file, f"{key}\n")
        return key

    async def _first_message(self, client: httpx2.AsyncClient) -> None:
        """Send a message and print its ledger entry."""
        accepted = await client.post("/messages", json=message())
        if accepted.status_code != 202:
            raise CannotStart(f"the first message was not accepted: {accepted.text}")
        path = f"/messages/{accepted.json()['id']}"
        shown: dict[str, Any] = accepted.json()
        deadline = time.monotonic() + SENT_LIMIT
        while shown["status"] in OPEN and time.monotonic() < deadline:
            await self.stop.pause(0.05)
            shown = (await client.get(path)).json()
        attempts = (await client.get(f"{path}/attempts")).json()["data"]
        dialogues = {
            attempt["id"]: (await client.get(f"/attempts/{attempt['id']}/transcript")).text
            for attempt in attempts
        }
        _say("\n" + report(shown, attempts, dialogues, colour=_colourful()))

    def _count_death(self, what: str) -> None:
        _say(f"\n{what}\nStarting it again.", file=sys.stderr)
        self._deaths.append(time.monotonic())
        if len(self._deaths) == DEATHS and self._deaths[-1] - self._deaths[0] < 60:
            raise CannotStart(f"{DEATHS} deaths within a minute; giving up")


def _api_port(chosen: int | None) -> int:
    if chosen is None:
        return DEFAULT_PORT if port_is_free(DEFAULT_PORT) else free_port()
    if not port_is_free(chosen):
        raise CannotStart(f"port {chosen} is taken; choose another one with --port")
    return chosen


async def _answers(client: httpx2.AsyncClient, path: str, *, key: str | None = None) -> bool:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        return (await client.get(path, headers=headers)).status_code == 200
    except httpx2.TransportError:
        return False


def _welcome(house: _House, key: str) -> str:
    command = [
        "curl", "-sS", f"{house.url}/messages",
        "-H", f"Authorization: Bearer {key}",
        "-H", "Content-Type: application/json",
        "-d", json.dumps(message(), ensure_ascii=True, separators=(",", ":")),
    ]  # fmt: skip
    return f"""
Postroom is up.

  API      {house.url}    {house.url}/docs
  console  {house.url}/console    where is my mail? sign in with the operator's key, in {house.operator_file}
  key      {key}    an application's (kept in {house.key_file})
  sandbox  http://{HOST}:{house.sandbox.http_port}/messages    what it took; /help: the addresses that misbehave
  state    {house.state}    data, logs, postroom.yaml

  try      postroom check --config {house.config}; postroom send --help; GET /routes, /routes/compare, /lanes

Send a mail with text, HTML, an inline picture and a PDF:

{shlex.join(command)}

Ctrl-C ends everything; the data stay.
"""


def _write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(
        os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
    ) as file:
        file.write(text)
    draft.rename(path)


@asynccontextmanager
async def _step(what: str) -> AsyncIterator[None]:
    began = time.monotonic()
    print(f"  {what} …", end="", flush=True)
    try:
        yield
    except BaseException:
        print(flush=True)
        raise
    print(f" {time.monotonic() - began:.1f} s", flush=True)


def _say(text: str, *, file: Any = None) -> None:
    print(text, file=file, flush=True)


def _colourful() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ
