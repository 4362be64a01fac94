"""Compare openapi/openapi.json with the one that clients know; exit 1 where a break is not announced.

    python -m tests.contract [--against COMMIT]

What clients know is the document of the last release: the newest tag v* behind HEAD. Before the first
release it is the document before the last change of it, so that every change is looked at once, in the
working tree and in the commit that makes it.

A checkout without git, or cut off by --depth, has nothing to compare with: that is said, and passes, but
with CI=true it fails. A break passes where the changelog announces it (`tests.contract.changelog`).
"""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.contract.breaking import breaks
from tests.contract.changelog import announces, broken

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = "openapi/openapi.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """The document that clients know."""

    name: str
    document: Any


class Unknown(Exception):
    """There is nothing to compare with; the text says why."""


def known(root: Path, now: Any, *, against: str | None = None) -> Known | None:
    """Find the document that clients know; None where this is the first one. Raises Unknown."""
    if _git(root, "rev-parse", "--git-dir") is None:
        raise Unknown("this is no checkout of git")
    tag = against or _git(root, "describe", "--tags", "--abbrev=0", "--match", "v*")
    if tag:
        found = _at(root, tag.strip())
        if found is None:
            raise Unknown(f"{tag.strip()} has no {DOCUMENT}")
        return Known(name=tag.strip(), document=found)
    for commit in (_git(root, "log", "--format=%H", "--", DOCUMENT) or "").split():
        found = _at(root, commit)
        if found is not None and found != now:
            return Known(name=commit[:10], document=found)
    if (_git(root, "rev-parse", "--is-shallow-repository") or "").strip() == "true":
        raise Unknown("the history is cut off (git fetch --unshallow)")
    return None


def _at(root: Path, commit: str) -> Any:
    text = _git(root, "show", f"{commit}:{DOCUMENT}")
    return None if text is None else json.loads(text)


def _git(root: Path, *arguments: str) -> str | None:
    """Ask git; None where it has no answer, or is not there."""
    # The checkout may belong to another user, as in a container.
    command = ["git", "-c", "safe.directory=*", "-C", str(root), *arguments]
    try:
        ran = subprocess.run(command, capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return ran.stdout.decode() if ran.returncode == 0 else None


def compare(root: Path, *, against: str | None, ci: bool) -> int:
    """Say what breaks; returns the exit status."""
    now = json.loads((root / DOCUMENT).read_text(encoding="utf-8"))
    try:
        base = known(root, now, against=against)
    except Unknown as why:
        print(f"The API was not compared with an earlier one: {why}.", file=sys.stderr)
        return 1 if ci else 0
    if base is None:
        print("The API was not compared: this is its first document.")
        return 0
    announced = broken((root / "CHANGELOG.md").read_text(encoding="utf-8"))
    found = breaks(base.document, now)
    silent = [each for each in found if not announces(announced, each.operation)]
    print(
        f"The API against {base.name}: {len(found)} breaks, {len(found) - len(silent)} of them in the changelog."
    )
    for each in silent:
        print(f"  {each}", file=sys.stderr)
    if silent:
        print(
            "A client may fall over these. Take them back, or announce each operation in CHANGELOG.md under "
            "Unreleased, in Changed or Removed: `- breaking: GET /messages …`.",
            file=sys.stderr,
        )
    return 1 if silent else 0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.contract")
    parser.add_argument("--against", metavar="COMMIT", help="compare with the document of this commit or tag")
    given = parser.parse_args()
    sys.exit(compare(ROOT, against=given.against, ci=os.environ.get("CI") == "true"))


if __name__ == "__main__":
    main()
