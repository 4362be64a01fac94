"""Half-configured starts of the real processes: no crash loop, one line, and they go on when what was missing comes."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import yaml

from service.ledger import migrate
from service.local.servers import LocalPostgres, LocalRedis, free_port
from tests.house import ROOT, Processes, configuration, processes
from tests.waiting import eventually

ROUTE = {"name": "peer", "kind": "smarthost", "host": "mail.contoso.com", "tls": "none"}


def said(house: Processes, name: str) -> list[dict[str, Any]]:
    """What a process has logged so far."""
    lines = (house.folder / f"{name}.log").read_text().splitlines()
    return [json.loads(line) for line in lines]


async def ready(house: Processes) -> tuple[int, dict[str, Any]]:
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{house.port}", timeout=20) as client:
        answer = await client.get("/readyz")
        return answer.status_code, answer.json()["checks"]


async def test_what_is_missing_may_come_later(
    shared_postgres: LocalPostgres, server_folder: Path, tmp_path: Path
) -> None:
    """Without database, then without tables, then without Redis: each is said once, and ends without a restart."""
    name = f"later_{free_port()}"
    late = LocalRedis(server_folder / name, durable=False)
    late.restart()
    late.stop()  # it keeps its port and its password
    with processes(tmp_path, configuration(shared_postgres.url(name), late.url, routes=[ROUTE])) as house:
        api, worker = house.start_api(), house.start_worker()

        async def is_ready(status: int, **checks: str) -> bool:
            try:
                found, body = await ready(house)
            except httpx2.HTTPError:
                return False
            return found == status and body.items() >= checks.items()

        async def both_said(event: str) -> bool:
            return all(
                event in [line["event"] for line in said(house, process)] for process in ("api-0", "worker-1")
            )

        await eventually(lambda: is_ready(503, ledger="unavailable"), within=60)
        await eventually(lambda: both_said("ledger.unavailable"), within=60)
        shared_postgres.create_database(name)
        try:
            await eventually(lambda: both_said("ledger.empty"), within=60)
            await house.run("migrate")
            await eventually(lambda: is_ready(200, ledger="ok", redis="unavailable"), within=60)
            await eventually(lambda: "bell.deaf" in str(said(house, "worker-1")), within=60)
            late.restart()
            await eventually(lambda: is_ready(200, ledger="ok", redis="ok"), within=60)
            await eventually(lambda: "bell.hears" in str(said(house, "worker-1")), within=60)

            assert (api.poll(), worker.poll()) == (None, None)
            for process in ("api-0", "worker-1"):
                warned = [line["event"] for line in said(house, process) if line["level"] == "warning"]
                assert len(set(warned)) == len(warned), warned
                assert all(line["remedy"] for line in said(house, process) if line["level"] == "warning")
            assert "Traceback" not in "".join(path.read_text() for path in tmp_path.glob("*.log"))
            for child in (api, worker):
                child.send_signal(signal.SIGTERM)
            assert [child.wait(60) for child in (api, worker)] == [0, 0]
        finally:
            house.end()
            late.stop()
            shared_postgres.drop_database(name)


async def test_a_ledger_that_goes_is_told_of(
    shared_postgres: LocalPostgres, redis_url: str, tmp_path: Path
) -> None:
    """A database that somebody closes is a 503; both processes say why, and that it is back, and need no restart."""
    name = f"closed_{free_port()}"
    shared_postgres.create_database(name)
    with processes(tmp_path, configuration(shared_postgres.url(name), redis_url, routes=[ROUTE])) as house:
        try:
            await house.run("migrate")
            house.start_api()
            house.start_worker()

            async def is_ready(status: int) -> bool:
                try:
                    return (await ready(house))[0] == status
                except httpx2.HTTPError:
                    return False

            def told(event: str) -> list[str | None]:
                lines = [line for each in ("api-0", "worker-1") for line in said(house, each)]
                return [line.get("remedy") for line in lines if line["event"] == event]

            await eventually(lambda: is_ready(200), within=60)
            await eventually(lambda: "worker.started" in str(said(house, "worker-1")), within=60)
            shared_postgres.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            shared_postgres.execute(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"  # noqa: S608
            )
            await eventually(lambda: is_ready(503), within=60)
            await eventually(lambda: len(told("ledger.unavailable")) == 2, within=60)
            shared_postgres.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
            await eventually(lambda: len(told("ledger.back")) == 2, within=60)
            await eventually(lambda: is_ready(200), within=60)

            assert all("ALLOW_CONNECTIONS true" in str(remedy) for remedy in told("ledger.unavailable"))
            assert "Traceback" not in "".join(path.read_text() for path in tmp_path.glob("*.log"))
        finally:
            house.end()
            shared_postgres.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
            shared_postgres.drop_database(name)


def command(folder: Path, url: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    path = folder / "postroom.yaml"
    path.write_text(yaml.safe_dump(configuration(url, "redis://127.0.0.1:1/0", routes=[ROUTE])))
    return subprocess.run(
        [sys.executable, "-m", "service", *arguments, "--config", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_migrate_is_refused_in_one_line(
    shared_postgres: LocalPostgres, empty_database_url: str, tmp_path: Path
) -> None:
    """A wrong password, and a role that may not make tables: a sentence, its remedy, exit status 1."""
    shared_postgres.execute("CREATE ROLE maker LOGIN PASSWORD 'canary'")
    try:
        database = urlsplit(empty_database_url).path
        here = f"@127.0.0.1:{shared_postgres.port}{database}"
        wrong = command(tmp_path, f"postgresql://maker:wrong-canary{here}", "migrate")
        may_not = command(tmp_path, f"postgresql://maker:canary{here}", "migrate")
    finally:
        shared_postgres.execute("DROP ROLE maker")

    assert (wrong.returncode, may_not.returncode) == (1, 1)
    assert wrong.stderr == (
        "PostgreSQL refuses the user or the password in database_url. "
        "Correct database_url (or the file that database_url_file names).\n"
    )
    (line,) = may_not.stderr.splitlines()
    assert "may not do this" in line
    assert "`postroom migrate` needs a user that may create tables" in line
    assert "canary" not in wrong.stdout + wrong.stderr + may_not.stdout + may_not.stderr


def test_migrate_leaves_a_newer_database_as_it_is(
    shared_postgres: LocalPostgres, database_url: str, tmp_path: Path
) -> None:
    """A release that was taken back runs its migration, finds a newer schema, and lets the roll-back go on."""
    database = urlsplit(database_url).path[1:]
    shared_postgres.execute("UPDATE alembic_version SET version_num = '9999'", database=database)

    done = command(tmp_path, database_url, "migrate")

    (row,) = shared_postgres.execute("SELECT version_num FROM alembic_version", database=database)
    assert (done.returncode, row["version_num"]) == (0, "9999")
    assert done.stderr == (
        f"The database is at revision 9999, which is newer than this version ({migrate.head()}): "
        "nothing was changed.\n"
    )
