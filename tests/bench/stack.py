"""The service as in production, for a benchmark: servers, one API, workers, keys.

    async with a_stack(routes=[way_out(sink_port)]) as stack:
        await stack.start_api()
        await stack.start_worker()
        cpu = stack.cpu()                    # by process group
        await stack.count("status = 'sent'") # recipients in the ledger

PostgreSQL is the one of `postroom dev`, with fsync and synchronous_commit on and its settings as they come;
Valkey keeps an append-only file. Logs are written at the default level, to files. Routes are
not checked (`checks.enabled`), because only mail may talk to the peers; the queue has room for everything.
"""

import asyncio
import contextlib
import json
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import yaml

from service.ledger.migrate import upgrade
from service.local.servers import LocalPostgres, LocalRedis
from tests.bench.machine import cpu_seconds
from tests.children import Child
from tests.house import Processes
from tests.waiting import eventually


def way_out(port: int, **changes: Any) -> dict[str, Any]:
    """A smarthost without limits: what is measured is ours alone."""
    return {
        "name": "smarthost",
        "kind": "smarthost",
        "host": "smarthost.contoso.com",
        "connect_to": f"127.0.0.1:{port}",
        "tls": "none",
        "ehlo_name": "postroom.contoso.com",
        **changes,
    }


@dataclass(slots=True, kw_only=True)
class Stack:
    """Running servers, and the processes that are started on them."""

    folder: Path
    postgres: LocalPostgres
    redis: LocalRedis
    processes: Processes
    database_url: str
    api: Child | None = None
    workers: list[Child] = field(default_factory=list)

    @property
    def port(self) -> int:
        return self.processes.port

    async def start_api(self) -> None:
        """Start the API and wait until it answers."""
        self.api = self.processes.start_api()
        await eventually(self._answers, within=60.0)

    async def _answers(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
        return answer.startswith(b"HTTP/1.1 200")

    async def start_worker(self) -> Child:
        """Start a worker and wait until it says so."""
        log = self.folder / f"worker-{len(self.processes.children)}.log"
        worker = self.processes.start_worker()
        await eventually(lambda: b"worker.started" in log.read_bytes(), within=60.0)
        self.workers.append(worker)
        return worker

    async def stop(self, child: Child) -> None:
        """End it as Kubernetes does."""
        child.send_signal(signal.SIGTERM)
        await asyncio.to_thread(child.wait, 60)
        if child in self.workers:
            self.workers.remove(child)
        if child is self.api:
            self.api = None

    async def key(self, application: str = "bench") -> str:
        """Make an API key that may send and read."""
        made = await self.processes.run("keys", "create", application, "--json")
        return str(json.loads(made)["key"])

    @contextlib.contextmanager
    def twin(self, database: str) -> Iterator["Stack"]:
        """Copy the database, to which nobody may be connected, and give a stack on the copy and the same servers."""
        folder = self.folder / database
        folder.mkdir()
        url = self.postgres.create_database(database, template="postroom")
        given = yaml.safe_load(self.processes.config.read_text())
        processes = Processes(folder, given | {"database_url": url})
        try:
            yield Stack(
                folder=folder,
                postgres=self.postgres,
                redis=self.redis,
                processes=processes,
                database_url=url,
            )
        finally:
            processes.end()

    def cpu(self) -> dict[str, float]:
        """Return the CPU seconds of each group of processes so far."""
        groups = {
            "api": [self.api.pid] if self.api else [],
            "worker": [worker.pid for worker in self.workers],
            "postgres": [self.postgres.pid or 0],
            "redis": [self.redis.pid or 0],
        }
        return {name: cpu_seconds(*pids) for name, pids in groups.items()}

    @asynccontextmanager
    async def database(self) -> AsyncIterator[asyncpg.Connection]:
        """Give a connection of our own to the ledger's database."""
        connection = await asyncpg.connect(self.database_url)
        try:
            yield connection
        finally:
            await connection.close()

    async def count(self, condition: str = "true") -> int:
        """Count recipients; `condition` is SQL."""
        async with self.database() as db:
            return int(await db.fetchval(f"SELECT count(*) FROM recipients WHERE {condition}"))  # noqa: S608

    async def settled(self, *, within: float = 120.0) -> None:
        """Wait until nothing is under way any more."""

        async def none_open() -> bool:
            async with self.database() as db:
                return not await db.fetchval(
                    "SELECT EXISTS (SELECT 1 FROM deliveries WHERE finished_at IS NULL)"
                )

        await eventually(none_open, within=within)

    def logs(self) -> str:
        """What the processes said, for a bench that goes wrong."""
        return "\n".join(path.read_text()[-3000:] for path in self.folder.glob("*.log"))


def used(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """Subtract what `Stack.cpu` returned; the sum of it is under `all`."""
    difference = {name: after[name] - before[name] for name in after}
    return {**difference, "all": sum(difference.values())}


def per_thousand(cpu: dict[str, float], count: int) -> str:
    """Write CPU seconds for 1,000 messages, by group."""
    parts = ", ".join(
        f"{name} {seconds / count * 1000:.2f}" for name, seconds in cpu.items() if name != "all"
    )
    return f"{cpu['all'] / count * 1000:.2f} CPU-s per 1,000 ({parts})"


@asynccontextmanager
async def a_stack(
    *, routes: list[dict[str, Any]], dispatch: dict[str, Any] | None = None, **changes: Any
) -> AsyncIterator[Stack]:
    """Start both servers and migrate; the processes are started by whoever needs them."""
    # Not pytest's own folder: the disk of /var/tmp is a disk, and PostgreSQL, which is not root, may enter.
    folder = Path(tempfile.mkdtemp(prefix="postroom-bench-", dir="/var/tmp"))
    folder.chmod(0o711)
    with contextlib.ExitStack() as closing:
        closing.callback(shutil.rmtree, folder, ignore_errors=True)
        postgres = closing.enter_context(LocalPostgres.start(folder / "postgres"))
        redis = closing.enter_context(LocalRedis.start(folder / "redis"))
        url = postgres.create_database("postroom")
        await asyncio.to_thread(upgrade, url)
        given = {
            "database_url": url,
            "redis_url": redis.url,
            "organization": {"accepted_domains": ["contoso.com"]},
            "routes": routes,
            "dispatch": {"queue_limit": 10_000_000, **(dispatch or {})},
            "checks": {"enabled": False},
            **changes,
        }
        processes = Processes(folder, given)
        closing.callback(processes.end)
        yield Stack(folder=folder, postgres=postgres, redis=redis, processes=processes, database_url=url)
