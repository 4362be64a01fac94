"""What processes have in memory, and do, while nobody wants anything of them."""

import asyncio
import re
from pathlib import Path

import asyncpg
import pytest

from tests.house import Processes, configuration, processes
from tests.waiting import eventually

#: A module that was loaded, as `python -v` tells it.
_LOADED = re.compile(r"^import '([\w.]+)' #", re.MULTILINE)

#: In nobody's memory until somebody needs it.
_FOR_NOBODY = {"alembic", "mako", "rich", "pygments", "msal", "requests", "sqlalchemy.orm"}

#: Where a worker talks to a peer without TLS, and tells no webhook.
_NOT_FOR_A_WORKER = {
    *("fastapi", "starlette", "uvicorn", "jinja2", "service.submission.app"),
    *("cryptography.x509", "jwt", "dns", "httpx2"),
}


@pytest.fixture
def given(database_url: str, redis_url: str) -> dict[str, object]:
    """A configuration with production's own times."""
    peer = {"host": "smarthost.contoso.com", "connect_to": "127.0.0.1:9", "tls": "none"}
    route = {"name": "peer", "kind": "smarthost", "ehlo_name": "postroom.contoso.com", **peer}
    quiet = {"lease": "30s", "poll_interval": "5s"}
    return configuration(database_url, redis_url, routes=[route], dispatch=quiet)


async def test_a_worker_has_in_memory_what_it_needs(given: dict[str, object], tmp_path: Path) -> None:
    """No web framework, no migrations, no second OpenSSL: what a library brings for others is left out."""
    with processes(tmp_path, given, environment={"PYTHONVERBOSE": "1"}) as house:
        house.start_worker()
        loaded = await _loaded_when(house, "worker-0.log", said="worker.started")

    assert {"arq.worker", "asyncpg", "uvloop", "service.delivery.drain"} <= loaded
    assert not (_FOR_NOBODY | _NOT_FOR_A_WORKER) & loaded


async def test_the_api_has_in_memory_what_it_needs(given: dict[str, object], tmp_path: Path) -> None:
    """No migrations, no highlighters, no ORM, and no token library before there is a token to ask for."""
    with processes(tmp_path, given, environment={"PYTHONVERBOSE": "1"}) as house:
        house.start_api()
        loaded = await _loaded_when(house, "api-0.log", said="api.starting")

    assert {"fastapi", "uvicorn", "service.submission.app"} <= loaded
    assert not _FOR_NOBODY & loaded


async def test_an_idle_worker_leaves_the_database_alone(
    given: dict[str, object], database_url: str, tmp_path: Path
) -> None:
    """It asks PostgreSQL a few things in a second at the most, however many lanes wait for their bell."""
    mailboxes = [{"address": f"m{n}@contoso.com", "login": _LOGIN} for n in range(40)]
    given["entra"] = {"tenant_id": "22222222-2222-2222-2222-222222222222"}
    given["routes"] = [
        {
            "name": "many",
            "kind": "client_submission",
            "connect_to": "127.0.0.1:9",
            "mailboxes": mailboxes,
        }
    ]
    with processes(tmp_path, given) as house:
        house.start_worker()
        await _told(house, "worker-0.log", "worker.started")
        # What a connection did at the start, PostgreSQL may count when it is used again: later windows say it.
        for _ in range(4):
            before = await _transactions(database_url)
            await asyncio.sleep(6)
            asked = await _transactions(database_url) - before
            if asked <= 40:
                break

    # 13 are usual. A tick for each lane would be 240.
    assert 1 <= asked <= 40


_LOGIN = {
    "method": "oauth",
    "client_id": "11111111-1111-1111-1111-111111111111",
    "client_secret": "never used",
}


async def _loaded_when(house: Processes, name: str, *, said: str) -> set[str]:
    """List what a process has loaded a moment after it said that it runs."""
    await _told(house, name, said)
    await asyncio.sleep(1)
    return set(_LOADED.findall((house.folder / name).read_text(errors="replace")))


async def _told(house: Processes, name: str, said: str) -> None:
    async def there() -> bool:
        return said in (house.folder / name).read_text(errors="replace")

    await eventually(there, within=60.0)


async def _transactions(database_url: str) -> int:
    connection = await asyncpg.connect(database_url)
    try:
        return int(
            await connection.fetchval(
                "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
            )
        )
    finally:
        await connection.close()
