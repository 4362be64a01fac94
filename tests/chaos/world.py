"""Servers, processes and clients for one scenario, and how each of them dies and comes back.

    async with a_world(run.folder, routes=[smarthost(peer)]) as world:
        await world.start_api()
        await world.start_worker()
        await world.clients.submit(letter)
        await world.kill(Victim.POSTGRES)
        await world.raise_again(Victim.POSTGRES)

The peers are the scenario's own, in this process, and survive everything. Servers are without fsync, which deaths of
processes survive (only that of the machine does not). A world ends whatever it has started.
"""

import asyncio
import contextlib
import json
import random
import shutil
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import asyncpg

from service import wiring
from service.ledger.keys import DEFAULT_SCOPES
from service.ledger.migrate import upgrade
from service.local.servers import LocalPostgres, LocalRedis, ServerFailed, free_port
from service.settings import Settings
from tests import children
from tests.chaos.clients import Clients
from tests.house import Processes, configuration, smarthost
from tests.peer import ScriptedPeer
from tests.waiting import eventually

#: Seconds within which whatever is started has to answer, on a machine that has other things to do.
PATIENCE = 90.0


class Victim(StrEnum):
    """What can be killed."""

    API = "API"
    WORKER = "worker"
    REDIS = "Redis"
    POSTGRES = "PostgreSQL"


@dataclass(eq=False, slots=True, kw_only=True)
class Child:
    """A process of Postroom."""

    victim: Victim
    process: children.Child
    log: Path
    port: int | None = None  # of an API

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self, *, within: float = PATIENCE) -> int:
        """Wait for its end; return the exit status."""
        return await asyncio.to_thread(self.process.wait, within)


@dataclass(eq=False, slots=True, kw_only=True)
class World:
    """Running servers, and the processes that are started on them."""

    folder: Path
    postgres: LocalPostgres
    redis: LocalRedis
    database_url: str
    processes: Processes
    clients: Clients
    apis: list[Child] = field(default_factory=list)
    workers: list[Child] = field(default_factory=list)

    # -- starting ----------------------------------------------------------------------------------

    async def start_api(self, *, port: int | None = None, wait: bool = True) -> Child:
        """Start an API, on a port of its own where none is given, and wait until it is ready."""
        chosen = port or free_port()
        log = self.folder / f"api-{len(self.processes.children)}.log"
        process = self.processes.start("api", "--host", "127.0.0.1", "--port", str(chosen))
        child = Child(victim=Victim.API, process=process, log=log, port=chosen)
        self.apis.append(child)
        if chosen not in self.clients.ports:
            self.clients.ports.append(chosen)
        if wait:
            await eventually(lambda: self.clients.ready(chosen), within=PATIENCE)
        return child

    async def start_worker(self, *, wait: bool = True) -> Child:
        """Start a worker, and wait until it says so."""
        log = self.folder / f"worker-{len(self.processes.children)}.log"
        child = Child(victim=Victim.WORKER, process=self.processes.start_worker(), log=log)
        self.workers.append(child)
        if wait:
            await eventually(lambda: log.exists() and b"worker.started" in log.read_bytes(), within=PATIENCE)
        return child

    # -- dying and coming back -----------------------------------------------------------------------

    async def kill(self, victim: Victim, *, chance: random.Random | None = None) -> None:
        """Kill -9: a server, or one of the processes (the first one, or any where there is a `chance`)."""
        match victim:
            case Victim.POSTGRES:
                self.postgres.kill()
            case Victim.REDIS:
                self.redis.kill()
            case Victim.API | Victim.WORKER:
                children = self.apis if victim is Victim.API else self.workers
                child = chance.choice(children) if chance else children[0]
                child.process.kill()
                await child.ended()
                self._fallen.append(child)
                children.remove(child)

    async def raise_again(self, victim: Victim, *, wait: bool = True) -> None:
        """Bring back what was killed: servers on their data, an API on its port."""
        match victim:
            case Victim.POSTGRES:
                await _up_again(self.postgres)
            case Victim.REDIS:
                await _up_again(self.redis)
            case Victim.API:
                await self.start_api(port=self._fallen.pop().port, wait=wait)
            case Victim.WORKER:
                await self.start_worker(wait=wait)

    _fallen: list[Child] = field(default_factory=list)

    async def replace(self, child: Child) -> int:
        """End a process with SIGTERM, as a rolling update does, start the next one, and give the exit status."""
        child.signal(signal.SIGTERM)
        status = await child.ended()
        if child.victim is Victim.API:
            self.apis.remove(child)
            await self.start_api(port=child.port)
        else:
            self.workers.remove(child)
            await self.start_worker()
        return status

    # -- asking the ledger -----------------------------------------------------------------------------

    async def query(self, sql: str, *arguments: object) -> list[Any]:
        """Ask the database, past everything of ours; while it is down, this raises OSError or a PostgresError."""
        connection = await asyncpg.connect(self.database_url, timeout=20)
        try:
            rows: list[Any] = await connection.fetch(sql, *arguments)
        finally:
            await connection.close(timeout=5)
        return rows

    async def settled(self, keys: Collection[str] | None = None, *, within: float = 120.0) -> None:
        """Wait until these messages (of idempotency keys) are at their end: terminal, or uncertain under `hold`.

        Raises AssertionError, which names what is still open.
        """
        which = None if keys is None else list(keys)

        async def over() -> bool:
            rows = await self.query(_OPEN, which)
            open_ = [f"{row['idempotency_key']}: {row['status']} ({row['reason']})" for row in rows]
            assert not open_, f"{len(open_)} are not at their end: {'; '.join(open_[:5])}"
            return True

        await eventually(_while_down(over), within=within)

    def logs(self) -> str:
        """Give the last words of every process, for a scenario that goes wrong."""
        return "\n".join(f"== {path.name}\n{_tail(path)}" for path in sorted(self.folder.glob("*.log")))

    def bugs(self) -> list[str]:
        """List the errors in the logs: a fault that we make is no mistake of Postroom's, and is not logged as one."""
        found = Counter(
            f"{path.name.partition('-')[0]}: {_told(line)}"
            for path in sorted(self.folder.glob("*.log"))
            for line in path.read_text(errors="replace").splitlines()
            if any(word in line for word in _BUGS)
        )
        return [f"{times} × {line}" for line, times in found.items()]


#: What only a mistake of ours writes into a log.
_BUGS = ('"level": "error"', '"level":"error"', "Traceback (most recent", ".bug", "Unclosed", "never awaited")

_OPEN = """
    SELECT m.idempotency_key, r.status, r.reason FROM recipients r JOIN messages m ON m.id = r.message_id
     WHERE ($1::text[] IS NULL OR m.idempotency_key = ANY($1))
       AND (r.finished_at IS NULL AND NOT (r.status = 'uncertain' AND m.on_uncertain = 'hold')
            OR EXISTS (SELECT 1 FROM attempts a WHERE a.message_id = m.id AND a.outcome IS NULL))
"""


def _while_down(probe: Callable[[], Any]) -> Callable[[], Any]:
    """Take a database that is away for "not yet"."""

    async def asked() -> Any:
        try:
            return await probe()
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as away:
            raise AssertionError(f"the database does not answer: {away}") from away

    return asked


async def _up_again(server: LocalPostgres | LocalRedis) -> None:
    """Start a server that was killed, and wait until it answers.

    Not in a thread, because a server ends with the thread that has started it. The children of a killed postmaster
    take a moment to notice, and hold its shared memory until then: it is started again where it says so.
    """

    def answers() -> bool:
        server.begin()
        try:
            return server.ready()
        except ServerFailed as early:
            raise AssertionError(str(early)) from early

    await eventually(answers, within=PATIENCE)


def _told(line: str) -> str:
    """Shorten a line of a log to its event and the end of its traceback."""
    try:
        entry = json.loads(line)
    except ValueError:
        return line[:300]
    last = str(entry.get("exception", "")).strip().rpartition("\n")[2]
    return f"{entry.get('event')} {last}"[:300]


def _tail(path: Path) -> str:
    return path.read_text(errors="replace")[-3000:]


def secured(peer: ScriptedPeer, **changes: Any) -> dict[str, Any]:
    """Give a route to a peer with STARTTLS that wants the login `LOGIN`."""
    username, password = LOGIN
    login = {"method": "basic", "username": username, "password": password}
    given = {"host": "localhost", "tls": "required", "ca_file": str(peer.ca_file), "login": login}
    return smarthost(peer, **{**given, **changes})


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """Servers that run already, and a migrated database that nobody else uses; all may be killed."""

    postgres: LocalPostgres
    redis: LocalRedis
    database_url: str


def _servers(folder: Path, closing: contextlib.ExitStack) -> Servers:
    postgres = LocalPostgres(folder / "postgres", durable=False)
    redis = LocalRedis(folder / "redis")
    for server in (postgres, redis):
        server.restart()
        closing.callback(server.stop)
    return Servers(postgres=postgres, redis=redis, database_url=postgres.create_database("postroom"))


#: User name and password of `secured`, for the peer's `logins`.
LOGIN = ("postroom@contoso.com", "correct horse battery staple")


@asynccontextmanager
async def a_world(
    folder: Path,
    *,
    routes: Sequence[dict[str, Any]],
    dispatch: dict[str, Any] | None = None,
    apis: int = 1,
    workers: int = 1,
    servers: Servers | None = None,
    **changes: Any,
) -> AsyncIterator[World]:
    """Start servers where none are given, and so many APIs and workers; `changes` are to the configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o711)
    with contextlib.ExitStack() as closing:
        closing.callback(shutil.rmtree, folder, ignore_errors=True)
        if servers is None:
            servers = _servers(folder, closing)
            await asyncio.to_thread(upgrade, servers.database_url)
        url = servers.database_url
        given = configuration(url, servers.redis.url, routes=list(routes), dispatch=dispatch) | changes
        processes = Processes(folder, given)
        closing.callback(processes.end)
        async with Clients(token=await _key(processes.config)) as clients:
            world = World(
                folder=folder,
                postgres=servers.postgres,
                redis=servers.redis,
                database_url=url,
                processes=processes,
                clients=clients,
            )
            await asyncio.gather(
                *(world.start_api() for _ in range(apis)), *(world.start_worker() for _ in range(workers))
            )
            yield world


async def _key(config: Path) -> str:
    settings = Settings.load(config, env={})
    ledger = wiring.open_ledger(settings, name="chaos", connections=1)
    try:
        made = await ledger.create_key("chaos", scopes=DEFAULT_SCOPES, senders=[])
    finally:
        await ledger.dispose()
    return str(made.token)
