"""Programs of Debian's that some tests need: used where they are, installed where that is allowed."""

import os
import shutil
import subprocess

import pytest

#: Debian keeps them where an ordinary PATH does not look.
_PATHS = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin", "/usr/local/sbin"])


def program(name: str, *, package: str) -> str:
    """Return the path of a program, after installing its package as root where it is missing.

    Where that cannot be, the test is skipped with a line that says so; with CI=true it fails.
    """
    found = shutil.which(name, path=_PATHS)
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", package]):
            subprocess.run(
                ["apt-get", *command], env=environment, capture_output=True, timeout=300, check=False
            )
        found = shutil.which(name, path=_PATHS)
    if found is None:
        pytest.skip(f"needs {name} of Debian's package {package}: apt-get install {package}")
    return found
