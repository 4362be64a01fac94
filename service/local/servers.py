"""A real PostgreSQL and a real Valkey on this machine, with nothing installed but Python packages.

For `postroom dev` and for tests; production brings its own. A server lives in one folder:

    folder/lock        the claim on the folder (`claim`)
    folder/password    of its only user, made once, mode 0600
    folder/data        what it stores
    folder/log         what it says; started anew above 10 MB
    folder/elsewhere   where the rest is, when the server may not enter this folder (`descent`)

It listens on 127.0.0.1 only, on a port outside the kernel's range for outgoing connections, so that a
restart finds its port free. It is a direct child and ends with us (`descent`), also after `kill -9`.

    with LocalPostgres.start(folder) as postgres:
        postgres.create_database("postroom")
        postgres.url("postroom")

`start`, `restart` and `stop` block for 0.1 to 2 s. In a coroutine that must not stand still, call `begin`
and ask `ready()` until it is true.
"""

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import asyncpg

from service.local.claim import Claim
from service.local.descent import Descent, spawn
from service.local.programs import postgres_programs, redis_program

HOST = "127.0.0.1"
START_LIMIT = 60.0  # seconds; recovery after a crash can take a while on a slow disk
STOP_LIMIT = 20.0  # seconds until a polite stop turns into a kill
LOG_LIMIT = 10_000_000  # octets
DURABLE_OFF = {"fsync": "off", "full_page_writes": "off"}


class ServerFailed(RuntimeError):
    """A server did not start; the text ends with the last lines of its log."""


class LocalServer(ABC):
    """What both servers have in common: a folder, a port, a password, one process."""

    def __init__(
        self, folder: Path, *, port: int = 0, durable: bool = True, descent: Descent | None = None
    ) -> None:
        self.folder = folder.absolute()
        self.port = port
        self.durable = durable
        self.descent = descent or Descent.here()
        self._chosen_port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._claim: Claim | None = None

    @classmethod
    def start(
        cls, folder: Path, *, port: int = 0, durable: bool = True, descent: Descent | None = None
    ) -> Self:
        """Start a server on `folder`, made where missing, and wait until it answers.

        Port 0 takes a free one, and keeps it through restarts. `durable=False` survives the death of
        processes, but not of the machine: for tests. Raises `FolderInUse` and `ServerFailed`.
        """
        server = cls(folder, port=port, durable=durable, descent=descent)
        server.restart()
        return server

    @property
    def pid(self) -> int | None:
        """The process id, or None when it does not run."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def begin(self) -> None:
        """Start the process without waiting until it answers; `ready` tells."""
        if self.pid is not None:
            return
        self._make_folder()
        self._claim = Claim.take(self.folder / "lock", patience=STOP_LIMIT)
        try:
            self._prepare()
            self.port = self._chosen_port or self.port or free_port()
            self._process = self._spawn(self._command(), self._stop_signal())
        except BaseException:
            self._forget()
            raise

    @abstractmethod
    def ready(self) -> bool:
        """Whether the server answers. Raises `ServerFailed` where it has ended."""

    def restart(self) -> None:
        """Start again on the same data and port, after a stop or a kill, or stopping it first."""
        if self.pid is not None:
            self.stop()
        deadline = time.monotonic() + START_LIMIT
        self.begin()
        while not self.ready():
            if time.monotonic() > deadline:
                self.kill()
                raise ServerFailed(
                    f"{self._name} did not answer within {START_LIMIT:.0f} s{self._last_words()}"
                )
            time.sleep(0.01)

    def stop(self) -> None:
        """End the server in order, with everything written; kill it where that takes too long."""
        if self._process is not None and self.pid is not None:
            self._process.send_signal(self._stop_signal())
            try:
                self._process.wait(STOP_LIMIT)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._forget()

    def kill(self) -> None:
        """Kill the server as an accident would (SIGKILL)."""
        if self._process is not None:
            self._process.kill()
        self._forget()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = f"pid {self.pid}" if self.pid else "down"
        return f"<{type(self).__name__} {HOST}:{self.port} {state} {self.folder}>"

    @abstractmethod
    def _prepare(self) -> None:
        """Make what the first start needs."""

    @abstractmethod
    def _command(self) -> Sequence[str | Path]:
        """The program and its arguments."""

    @abstractmethod
    def _stop_signal(self) -> signal.Signals:
        """What ends it in order."""

    @property
    def password(self) -> str:
        return (self.home / "password").read_text(encoding="ascii")

    @property
    def home(self) -> Path:
        """Where data, log and password lie."""
        pointer = self.folder / "elsewhere"
        return Path(pointer.read_text(encoding="utf-8")) if pointer.exists() else self.folder

    @property
    def _name(self) -> str:
        return type(self).__name__.removeprefix("Local")

    def _make_folder(self) -> None:
        # The group and others may pass through, not look: that is enough for a server that is `nobody`.
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o711)
        if not self.descent.reaches(self.home):
            # /var/tmp, because /tmp may be small, in memory, or swept. The name is fresh and ours.
            elsewhere = Path(tempfile.mkdtemp(prefix="postroom-", dir="/var/tmp"))
            elsewhere.chmod(0o711)
            (self.folder / "elsewhere").write_text(str(elsewhere), encoding="utf-8")
        if not (self.home / "password").exists():
            self._write_secret("password", secrets.token_urlsafe(24))

    def _write_secret(self, name: str, text: str) -> Path:
        """Write a file for this server's eyes only, whole or not at all."""
        draft, path = self.home / f"{name}.new", self.home / name
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        self.descent.give(draft)
        draft.rename(path)
        return path

    def _spawn(self, command: Sequence[str | Path], end_signal: signal.Signals) -> subprocess.Popen[bytes]:
        assert self._claim is not None
        path = self.home / "log"
        if path.exists() and path.stat().st_size > LOG_LIMIT:
            path.unlink()
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as log:
            return spawn(command, end_signal, descent=self.descent, log=log, keeps=[self._claim.descriptor])

    def _within_reach(self, program_tree: Path, *beside: Path) -> Path:
        """The tree itself, or a copy of it (and of what must lie beside it) that the server may use."""
        if self.descent.reaches(program_tree):
            return program_tree
        copy = self.home / "programs" / program_tree.name
        if not copy.exists():
            shutil.rmtree(copy.parent, ignore_errors=True)
            draft = self.home / "programs.new"
            shutil.rmtree(draft, ignore_errors=True)
            for tree in (program_tree, *beside):
                shutil.copytree(tree, draft / tree.name, symlinks=True)
            draft.chmod(0o711)
            draft.rename(copy.parent)
        return copy

    def _require_life(self) -> None:
        if self.pid is None:
            status = self._process.returncode if self._process else None
            words = self._last_words()
            self._forget()
            raise ServerFailed(f"{self._name} ended with status {status}{words}")

    def _last_words(self) -> str:
        path = self.home / "log"
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-12:] if path.exists() else []
        return "".join(f"\n  {line}" for line in [f"the end of {path}:", *lines])

    def _forget(self) -> None:
        if self._process is not None:
            self._process.wait()
            self._process = None
        if self._claim is not None:
            self._claim.release()
            self._claim = None


class LocalPostgres(LocalServer):
    """PostgreSQL with one superuser `postgres`, UTF-8, times in UTC."""

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres:{self.password}@{HOST}:{self.port}/{database}"

    def ready(self) -> bool:
        self._require_life()
        # The eighth line of postmaster.pid is the server's own word for it; pg_ctl waits for it too.
        with contextlib.suppress(FileNotFoundError):
            lines = (self.home / "data" / "postmaster.pid").read_text(encoding="utf-8").splitlines()
            return len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() == "ready"
        return False

    def create_database(self, name: str, *, template: str = "template1") -> str:
        """Make a database as a copy of `template`, to which nobody may be connected; returns its URL."""
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Drop a database with all connections to it; it may be missing."""
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def databases(self) -> set[str]:
        return {str(row["datname"]) for row in self.execute("SELECT datname FROM pg_database")}

    def execute(self, statement: str, *, database: str = "postgres") -> list[asyncpg.Record]:
        """Run one statement in a connection of its own and return its rows.

        In a thread, so that it may be called with and without a running event loop.
        """

        async def run() -> list[asyncpg.Record]:
            connection = await asyncpg.connect(self.url(database), timeout=30, command_timeout=60)
            try:
                rows: list[asyncpg.Record] = await connection.fetch(statement)
                return rows
            finally:
                await connection.close(timeout=5)

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, run()).result()

    def _prepare(self) -> None:
        data = self.home / "data"
        if data.exists():
            return
        # Made beside its place and moved there, so that a cluster cut short is never taken for one.
        draft = self.home / "data.new"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        self.descent.give(draft)
        options = [
            "--username=postgres",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ]
        made = self._spawn(
            [self._programs / "initdb", "-D", draft, f"--pwfile={self.home / 'password'}", *options],
            signal.SIGKILL,
        )
        if made.wait(START_LIMIT) != 0:
            raise ServerFailed(f"initdb failed{self._last_words()}")
        draft.rename(data)

    def _command(self) -> Sequence[str | Path]:
        settings = {
            "listen_addresses": HOST,
            "unix_socket_directories": "",
            "max_connections": "200",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "logging_collector": "off",
            **({} if self.durable else DURABLE_OFF),
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [self._programs / "postgres", "-D", self.home / "data", "-p", str(self.port), *options]

    def _stop_signal(self) -> signal.Signals:
        return signal.SIGINT  # a fast shutdown: sessions are ended, everything is written

    @property
    def _programs(self) -> Path:
        folder = postgres_programs()
        package = folder.parents[1]
        libraries = package.with_name(f"{package.name}.libs")
        if self.descent.reaches(folder) or not libraries.exists():
            return folder
        return self._within_reach(package, libraries) / folder.relative_to(package)


class LocalRedis(LocalServer):
    """Valkey (or Redis) with a password; what it is told is kept in an append-only file."""

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@{HOST}:{self.port}/0"

    def ready(self) -> bool:
        self._require_life()
        try:
            return b"+PONG" in self._ask("PING", within=1.0)
        except OSError:
            return False

    def flush(self) -> None:
        """Forget every key of every database."""
        self._ask("FLUSHALL", within=30.0)

    def _ask(self, command: str, *, within: float) -> bytes:
        with socket.create_connection((HOST, self.port), timeout=within) as connection:
            connection.sendall(f"AUTH {self.password}\r\n{command}\r\nQUIT\r\n".encode("ascii"))
            return b"".join(iter(lambda: connection.recv(4096), b""))

    def _prepare(self) -> None:
        data = self.home / "data"
        if not data.exists():
            data.mkdir(mode=0o700)
            self.descent.give(data)

    def _command(self) -> Sequence[str | Path]:
        # A file instead of arguments: arguments are for everybody to see.
        settings = self._write_secret(
            "settings",
            f'bind {HOST}\nport {self.port}\ndir "{self.home / "data"}"\nrequirepass {self.password}\n'
            f'save ""\nappendonly {"yes" if self.durable else "no"}\n',
        )
        program = redis_program()
        return [self._within_reach(program.parent) / program.name, settings]

    def _stop_signal(self) -> signal.Signals:
        return signal.SIGTERM


def free_port() -> int:
    """A port that nobody listens on now, below the kernel's range for outgoing connections (32768 and up)."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        if port_is_free(port):
            return port


def port_is_free(port: int) -> bool:
    """Whether a server could listen on `port` of this machine now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True
