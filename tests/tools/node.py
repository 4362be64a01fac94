"""Node, with the published Resend SDK beside it, for the test that it works with us unchanged.

npm fetches exactly what `resend_node/package-lock.json` names and checks the hash of each package; no script
of any package is run. What it made is kept in the cache folder under the hash of the lock, and a second run
asks no registry.
"""

import hashlib
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.tools.cache import Unobtainable, alone, cache_folder

_PACKAGES = Path(__file__).with_name("resend_node")

#: What npm may take, in seconds: five small packages.
_INSTALL_LIMIT = 120.0

#: The SDK asks for this version, for the `fetch` that Node brings.
_OLDEST = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A Node and a folder with `node_modules`; scripts that lie in the folder can import the packages."""

    program: str
    folder: Path


def obtain() -> Node:
    """Return Node with the SDK, fetched at the first use; raises Unobtainable."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise Unobtainable("there is no node, or no npm")
    version = subprocess.run(
        [node, "--version"], capture_output=True, text=True, timeout=30, check=True
    ).stdout
    if int(version.removeprefix("v").partition(".")[0]) < _OLDEST:
        raise Unobtainable(f"the Resend SDK needs Node {_OLDEST}, and this is {version.strip()}")
    lock = hashlib.sha256((_PACKAGES / "package-lock.json").read_bytes()).hexdigest()[:16]
    folder = cache_folder() / f"resend-node-{lock}"
    with alone(folder.name):
        if not folder.is_dir():
            _install(npm, folder)
    return Node(program=node, folder=folder)


def _install(npm: str, folder: Path) -> None:
    draft = folder.with_suffix(".new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    for name in ("package.json", "package-lock.json"):
        shutil.copy(_PACKAGES / name, draft)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]
    try:
        done = subprocess.run(
            command, cwd=draft, capture_output=True, text=True, timeout=_INSTALL_LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        raise Unobtainable("npm took too long to fetch the Resend SDK") from None
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[0]
        raise Unobtainable(f"npm cannot fetch the Resend SDK: {reason}")
    draft.rename(folder)
