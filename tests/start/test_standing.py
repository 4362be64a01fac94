"""A database that cannot be used, in each way that an operator can bring about: what is said, and what is answered.

In one process: the door of the API over a ledger that is wrong in this way. What the commands print is what
`standing` says; `test_processes` sees some of them as they run in production.
"""

import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
import yaml

from service import wiring
from service.ledger import Ledger, migrate
from service.ledger.standing import standing
from service.local.check import Wanted, check
from service.local.servers import HOST, LocalPostgres, free_port
from service.settings import Settings
from tests.conftest import TEMPLATE, _database, _make_template
from tests.house import a_message, configuration

CANARY = "canary-4711"


def _instead(url: str, **parts: str | int) -> str:
    """Write the address with another user, password, port or database."""
    old = urlsplit(url)
    now = {
        "user": old.username,
        "password": old.password,
        "port": old.port,
        "database": old.path[1:],
        **parts,
    }
    return f"postgresql://{now['user']}:{now['password']}@{HOST}:{now['port']}/{now['database']}"


@pytest.fixture(scope="module")
def there(shared_postgres: LocalPostgres) -> Iterator[str]:
    """A migrated database for all of these tests: each leaves it as it was."""
    _make_template(shared_postgres)
    yield from _database(shared_postgres, template=TEMPLATE)


@pytest.fixture
def stranger(shared_postgres: LocalPostgres, there: str) -> Iterator[str]:
    """An address for a role that may log in and do nothing else."""
    shared_postgres.execute(f"CREATE ROLE stranger LOGIN PASSWORD '{CANARY}'")
    yield _instead(there, user="stranger", password=CANARY)
    shared_postgres.execute("DROP ROLE stranger")


@pytest.fixture
def nobody_answers() -> Iterator[int]:
    """A port at which somebody listens and never says a word."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen(64)
        yield listener.getsockname()[1]


@pytest.fixture
def trouble(
    request: pytest.FixtureRequest, shared_postgres: LocalPostgres, there: str
) -> Iterator[tuple[str, str]]:
    """Bring one trouble about; give its name, and the address with it."""
    name: str = request.param
    makers: dict[str, Callable[[], str]] = {
        "wrong password": lambda: _instead(there, password=CANARY),
        "no such user": lambda: _instead(there, user="nobody", password=CANARY),
        "no such database": lambda: _instead(there, database=CANARY),
        "nobody listens": lambda: _instead(there, port=free_port(), password=CANARY),
        "nobody answers": lambda: _instead(there, port=request.getfixturevalue("nobody_answers")),
        "no such host": lambda: f"postgresql://u:{CANARY}@postgres.invalid/postroom",
        "no TLS": lambda: f"{there}?sslmode=require",
        "no right": lambda: str(request.getfixturevalue("stranger")),
        "no connection left": lambda: str(request.getfixturevalue("stranger")),
        "empty": lambda: str(request.getfixturevalue("empty_database_url")),
    }
    database = urlsplit(there).path[1:]

    def at(revision: str) -> None:
        shared_postgres.execute(
            f"UPDATE alembic_version SET version_num = '{revision}'",  # noqa: S608
            database=database,
        )

    match name:
        case "no connection left":
            url = makers[name]()
            shared_postgres.execute("ALTER ROLE stranger CONNECTION LIMIT 0")
        case "read-only":
            url = there
            shared_postgres.execute(f'ALTER DATABASE "{database}" SET default_transaction_read_only = on')
        case "older" | "newer":
            url = there
            at("0001" if name == "older" else "9999")
        case _:
            url = makers[name]()
    yield name, url
    if name == "read-only":
        shared_postgres.execute(f'ALTER DATABASE "{database}" RESET default_transaction_read_only')
    if name in {"older", "newer"}:
        at(migrate.head())


SAID = {
    "wrong password": ("unavailable", "refuses the user or the password", "Correct database_url"),
    "no such user": ("unavailable", "refuses the user or the password", "Correct database_url"),
    "no such database": ("unavailable", "no database of the name", "CREATE DATABASE"),
    "nobody listens": ("unavailable", "Nobody listens", "Start PostgreSQL"),
    "nobody answers": ("unavailable", "does not answer in time", "Start PostgreSQL"),
    "no such host": ("unavailable", "not known to DNS", "Correct database_url"),
    "no TLS": ("unavailable", "does not come about", "Start PostgreSQL, or correct database_url"),
    "no right": ("unavailable", "may not do this", "owner"),
    "no connection left": ("unavailable", "no connection left", "max_connections"),
    "read-only": ("read_only", "takes no writes", "primary"),
    "empty": ("empty", "no tables yet", "`postroom migrate`"),
    "older": ("older", "at revision 0001, and this version needs", "`postroom migrate`"),
    "newer": ("newer", "at revision 9999, which is newer", "rolling update"),
}


@pytest.mark.parametrize("trouble", SAID, indirect=True)
async def test_what_is_said(trouble: tuple[str, str]) -> None:
    """What is wrong and what to do, in a sentence each, and nothing of the address."""
    name, url = trouble
    ledger = Ledger.open(url, name="test", connections=1)

    found = await standing(ledger)
    await ledger.dispose()

    state, detail, remedy = SAID[name]
    assert (state, True, True) == (found.state, detail in found.detail, remedy in (found.remedy or "")), found
    assert CANARY not in str(found)
    assert found.usable == (name == "newer")


@asynccontextmanager
async def a_door(url: str, redis_url: str, folder: Path) -> AsyncIterator[httpx2.AsyncClient]:
    async with wiring.api_app(_settings(url, redis_url, folder)) as app:
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=True)
        async with httpx2.AsyncClient(transport=transport, base_url="http://postroom") as client:
            yield client


def _settings(url: str, redis_url: str, folder: Path) -> Settings:
    route = {"name": "peer", "kind": "smarthost", "host": "mail.contoso.com", "tls": "none"}
    path = folder / "postroom.yaml"
    path.write_text(yaml.safe_dump(configuration(url, redis_url, routes=[route])))
    return Settings.load(path, env={})


@pytest.mark.parametrize("trouble", SAID, indirect=True)
async def test_the_door_says_whether_it_is_ready(
    trouble: tuple[str, str], redis_url: str, tmp_path: Path
) -> None:
    """/readyz and a message get 503, and never 500; between a migration and the last new pod old ones stay ready."""
    name, url = trouble
    key = {"Authorization": f"Bearer pr_live_{'0' * 26}_{'x' * 43}"}
    async with a_door(url, redis_url, tmp_path) as client:
        alive = await client.get("/livez")
        ready = await client.get("/readyz")
        refused = await client.post("/messages", json=a_message(), headers=key)

    works = name == "newer"
    assert (alive.status_code, ready.status_code) == (200, 200 if works else 503)
    assert ready.json()["status"] == ("ready" if works else "unavailable")
    if works:
        assert ready.json()["checks"]["schema"] == f"at 9999, newer than {migrate.head()}"
    # Whose ledger can be read, knows keys: this one it does not.
    assert refused.status_code == (401 if name in {"newer", "older", "read-only"} else 503)
    assert CANARY not in ready.text + refused.text


@pytest.mark.parametrize("trouble", ["wrong password", "newer"], indirect=True)
async def test_check_says_the_same(trouble: tuple[str, str], redis_url: str, tmp_path: Path) -> None:
    """`postroom check` has a step for it, with the remedy behind the arrow."""
    name, url = trouble

    findings = await check(_settings(url, redis_url, tmp_path), Wanted(route="peer"), tell=lambda _: None)

    step = next(step for step in findings.steps if step.name == "database")
    assert step.status == ("warn" if name == "newer" else "fail")
    assert SAID[name][2] in " ".join(step.remedy)


async def test_a_password_that_changes_is_no_reason_to_start_anew(
    shared_postgres: LocalPostgres, redis_url: str, tmp_path: Path, stranger: str
) -> None:
    """Not ready while the server refuses the password, ready as soon as it takes it again."""
    shared_postgres.execute("ALTER ROLE stranger SUPERUSER PASSWORD 'another'")
    async with a_door(stranger, redis_url, tmp_path) as client:
        refused = await client.get("/readyz")
        shared_postgres.execute(f"ALTER ROLE stranger PASSWORD '{CANARY}'")
        taken = await client.get("/readyz")

    assert (refused.status_code, taken.status_code) == (503, 200)
