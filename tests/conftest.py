"""What every test can ask for: a database, a Redis, servers to break.

    database_url    a fresh, migrated database of this test's own, on the shared server
    empty_database_url   the same without any table
    redis_url       an empty Valkey, the worker's own
    postgres        a PostgreSQL that the test may kill, stop and restart
    postgres_url    a fresh, migrated database on it
    redis           a Valkey that the test may kill, stop and restart

The servers are real ones from wheels (`service.local.servers`), started when the first test asks, one set
for each xdist worker. The schema is migrated once into a template, of which each test gets a copy (0.1 s).
They are without fsync, which kills of processes survive; everything else is as in production.
"""

import os
import shutil
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from service.local.servers import LocalPostgres, LocalRedis

# A developer's own configuration must not reach a test; where the server programs are may.
PROGRAM_VARIABLES = {"POSTROOM_POSTGRES_BIN", "POSTROOM_REDIS_SERVER"}
for name in [name for name in os.environ if name.startswith("POSTROOM_") and name not in PROGRAM_VARIABLES]:
    del os.environ[name]

TEMPLATE = "migrated"
_number = count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what waits for real minutes, so that the others run beside it and nobody waits for it alone."""
    items.sort(key=lambda item: item.get_closest_marker("timeout") is None)


class OneByOne(LoadScopeScheduling):  # type: ignore[misc]  # the library has no types
    """Give each test to whoever is free next; the tests of the built image to one worker, which builds it once."""

    def _split_scope(self, nodeid: str) -> str:
        return "image" if "::TestBuiltImage::" in nodeid else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneByOne:
    """Say how tests are shared out among the workers."""
    return OneByOne(config, log)


@pytest.fixture(scope="session")
def server_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where this worker's servers live; removed at the end, because pytest keeps what tests leave."""
    folder = tmp_path_factory.mktemp("servers")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def shared_postgres(server_folder: Path) -> Iterator[LocalPostgres]:
    """The server behind `database_url`. Nobody may stop it; ask for `postgres` to do so."""
    with LocalPostgres.start(server_folder / "shared-postgres", durable=False) as server:
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
    with LocalPostgres.start(server_folder / "postgres", durable=False) as server:
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
    yield server.create_database(name, template=template)
    if server.pid is None or not server.ready():
        server.restart()
    server.drop_database(name)


def _make_template(server: LocalPostgres) -> None:
    """Migrate the template where this server has none yet, in a thread: migrations run a loop of their own."""
    if TEMPLATE in server.databases():
        return
    if find_spec("service.ledger.migrate") is None:
        pytest.skip("there are no migrations yet (service.ledger.migrate)")
    upgrade: Callable[[str], None] = import_module("service.ledger.migrate").upgrade
    server.drop_database(f"{TEMPLATE}_draft")  # left where an earlier try failed
    draft = server.create_database(f"{TEMPLATE}_draft")
    with ThreadPoolExecutor(1) as thread:
        thread.submit(upgrade, draft).result()
    server.execute(f"ALTER DATABASE {TEMPLATE}_draft RENAME TO {TEMPLATE}")


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
