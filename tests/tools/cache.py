"""Where tools that the tests fetch once are kept, and what happens when one cannot be had.

A tool is kept outside the repository, in the user's cache folder, so that a fresh checkout
finds it again; where there is no such folder, in `.venv/tools`, which Git ignores. Each entry
is made under a lock, since several test processes may want it at the same time.
"""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


class Unobtainable(Exception):
    """A tool cannot be had here; the text says why, in one line."""


def cache_folder() -> Path:
    """Return a folder that outlives this run and can be written."""
    for folder in (*_users_cache(), REPOSITORY / ".venv" / "tools"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError:
            continue
    raise Unobtainable("neither the user's cache folder nor .venv/tools can be written")


def _users_cache() -> Iterator[Path]:
    """Find our part of the user's cache folder, as the XDG base directory specification says."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if given.is_absolute():
        yield given / "postroom"
    # An empty HOME is no home: it would become the root of the file system.
    elif os.environ.get("HOME"):
        yield Path.home() / ".cache" / "postroom"


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Hold the lock `name` of the cache folder against all other processes."""
    with (cache_folder() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def skip_or_fail(reason: str) -> NoReturn:
    """End the test: skipped with this reason, but failed in CI, where nothing may be left out silently."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
