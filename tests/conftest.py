"""What every test can ask for: a database, a Redis, servers to break.

    database_url    a fresh, migrated database of this test's own, on the shared server
    empty_database_url   the same without any table
    redis_url       an empty Valkey, the worker's own
    postgres        a PostgreSQL that the test may kill, stop and restart
    postgres_url    a fresh, migrated database on it
    redis           a Valkey that the test may kill, stop and restart

The servers are real ones from wheels (`service.local.servers`), started when the first test asks, one set
for each xdist worker. The schema is migrated once into a template, of which each test gets a copy (0.05 s).
They are without fsync, which kills of processes survive, and lie in memory where there is enough: a database
is a thousand files, and a file system takes more time to make and remove them than PostgreSQL. Everything
else is as in production.
"""

import gc
import os
import shutil
import sys
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from service.ledger import migrate
from service.local.servers import LocalPostgres, LocalRedis

# A developer's own configuration must not reach a test; where the server programs are may.
PROGRAM_VARIABLES = {"POSTROOM_POSTGRES_BIN", "POSTROOM_REDIS_SERVER"}
for name in [name for name in os.environ if name.startswith("POSTROOM_") and name not in PROGRAM_VARIABLES]:
    del os.environ[name]

# Tests start some hundred processes, and each would compile Postroom and its libraries anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# The HTTP client looks for this module, which comes with trio alone, in each folder at each request.
if find_spec("sniffio") is None:
    sys.modules["sniffio"] = None  # type: ignore[assignment]  # what the import system itself means by None

TEMPLATE = "migrated"
MEMORY, OURS = Path("/dev/shm"), "postroom-tests-"
ENOUGH = 768 << 20  # octets for the servers of one worker, which take half of it
TOGETHER = {"tests/contract/test_schemathesis.py", "tests/journeys/test_resend_sdks.py"}  # before one service
_number = count(1)
_migrated: set[Path] = set()  # the folders of servers that have the template


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that the others run beside it and nobody waits for it alone."""
    items.sort(key=_patience, reverse=True)


def _patience(item: pytest.Item) -> float:
    """Return how long a test may take, in seconds, where it says so itself."""
    marker = item.get_closest_marker("timeout")
    return float(marker.args[0]) if marker else 0.0


def pytest_collection_finish() -> None:
    """Take thousands of tests, which stay, out of the garbage collector's rounds: a tenth of their time was that."""
    gc.collect()
    gc.freeze()


class OneByOne(LoadScopeScheduling):  # type: ignore[misc]  # the library has no types
    """Give each test to whoever is free next; tests that share what takes long to make to one worker, which makes it once."""

    def _split_scope(self, nodeid: str) -> str:
        if "::TestBuiltImage::" in nodeid:
            return "image"
        module = nodeid.partition("::")[0]
        return module if module in TOGETHER else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneByOne:
    """Say how tests are shared out among the workers."""
    return OneByOne(config, log)


@pytest.fixture(scope="session")
def server_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where this worker's servers live; removed at the end, because pytest keeps what tests leave."""
    for left in MEMORY.glob(f"{OURS}*"):  # by test processes that were killed
        if not Path(f"/proc/{left.name.removeprefix(OURS)}").exists():
            shutil.rmtree(left, ignore_errors=True)
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > workers * ENOUGH:
        folder = MEMORY / f"{OURS}{os.getpid()}"
        folder.mkdir(mode=0o711)  # a server is not root, where we are
    else:
        folder = tmp_path_factory.mktemp("servers")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def _postgres(folder: Path) -> LocalPostgres:
    server = LocalPostgres.start(folder, durable=False)
    server.execute("ALTER SYSTEM SET max_wal_size = '128MB'")  # what lies in memory should be small
    server.execute("SELECT pg_reload_conf()")
    return server


@pytest.fixture(scope="session")
def shared_postgres(server_folder: Path) -> Iterator[LocalPostgres]:
    """The server behind `database_url`. Nobody may stop it; ask for `postgres` to do so."""
    with _postgres(server_folder / "shared-postgres") as server:
        yield server


@pytest.fixture(scope="session")
def shared_redis(server_folder: Path) -> Iterator[LocalRedis]:
    """The server behind `redis_url`. Nobody may stop it; ask for `redis` to do so."""
    with LocalRedis.start(server_folder / "shared-redis", durable=False) as server:
        yield server


@pytest.fixture
def empty_database_url(shared_postgres: LocalPostgres) -> Iterator[str]:
    """A database without any table, dropped after the test."""
    yield from _database(shared_postgres, template="template1")


@pytest.fixture
def database_url(shared_postgres: LocalPostgres) -> Iterator[str]:
    """A migrated database of this test's own, dropped after it."""
    _make_template(shared_postgres)
    yield from _database(shared_postgres, template=TEMPLATE)


@pytest.fixture
def redis_url(shared_redis: LocalRedis) -> str:
    """A Redis without any key."""
    shared_redis.flush()
    return shared_redis.url


@pytest.fixture(scope="session")
def _breakable_postgres(server_folder: Path) -> Iterator[LocalPostgres]:
    with _postgres(server_folder / "postgres") as server:
        yield server


@pytest.fixture
def postgres(_breakable_postgres: LocalPostgres) -> Iterator[LocalPostgres]:
    """A PostgreSQL that this test may kill, stop and restart; it is up at the start of each test."""
    yield from _mended(_breakable_postgres)


@pytest.fixture
def postgres_url(postgres: LocalPostgres) -> Iterator[str]:
    """A migrated database on the PostgreSQL that may be broken."""
    _make_template(postgres)
    yield from _database(postgres, template=TEMPLATE)


@pytest.fixture
def redis(server_folder: Path) -> Iterator[LocalRedis]:
    """A Valkey that this test may kill, stop and restart; it is new and empty."""
    folder = server_folder / f"redis-{next(_number)}"
    with LocalRedis.start(folder) as server:
        yield server
    shutil.rmtree(folder)


def _mended(server: LocalPostgres) -> Iterator[LocalPostgres]:
    if server.pid is None:
        server.restart()
    yield server
    if server.pid is None or not server.ready():
        server.restart()


def _database(server: LocalPostgres, *, template: str) -> Iterator[str]:
    name = f"test_{next(_number)}"
    server.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    yield server.url(name)
    if server.pid is None or not server.ready():
        server.restart()
    server.drop_database(name)


def _make_template(server: LocalPostgres) -> None:
    """Migrate the template where this server has none yet, in a thread: migrations run a loop of their own."""
    if server.folder in _migrated:
        return
    server.drop_database(f"{TEMPLATE}_draft")  # left where an earlier try failed
    draft = server.create_database(f"{TEMPLATE}_draft")
    with ThreadPoolExecutor(1) as thread:
        thread.submit(migrate.upgrade, draft).result()
    server.execute(f"ALTER DATABASE {TEMPLATE}_draft RENAME TO {TEMPLATE}")
    _migrated.add(server.folder)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In continuous integration (CI=true) nothing is skipped: what a test misses there is a failure."""
    report = yield
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI=true forbids: {call.excinfo and call.excinfo.value}"
    return report
