"""Prometheus' own judge of rules and metrics, `promtool`.

It comes with Debian's package `prometheus`, which is downloaded and unpacked and not installed: installing it would
start a server on this machine.
"""

import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from tests.tools.cache import Unobtainable, alone, cache_folder, skip_or_fail

#: Seconds for 19 MB on a slow line.
_DOWNLOAD = 150


@cache
def promtool() -> str:
    """Return its path; where it cannot be had the test is skipped with the reason, and fails in CI."""
    found = shutil.which("promtool")
    if found is not None:
        return found
    try:
        return str(_kept())
    except (Unobtainable, OSError, subprocess.SubprocessError):
        skip_or_fail("needs promtool of Debian's package prometheus: apt-get install prometheus")


def _kept() -> Path:
    if shutil.which("apt-get") is None:
        raise Unobtainable("there is no apt-get")
    kept = cache_folder() / "promtool"
    with alone("promtool"):
        if not kept.exists():
            with tempfile.TemporaryDirectory() as folder:
                for command in (["apt-get", "download", "prometheus"], ["dpkg-deb", "-x", "{deb}", "."]):
                    deb = next(Path(folder).glob("*.deb"), None)
                    subprocess.run(
                        [part.replace("{deb}", str(deb)) for part in command],
                        cwd=folder,
                        capture_output=True,
                        check=True,
                        timeout=_DOWNLOAD,
                    )
                shutil.copy(Path(folder) / "usr/bin/promtool", kept)
    return kept


def run(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        [promtool(), *arguments], input=given, capture_output=True, text=True, check=False, timeout=60
    )
