"""`python -m tests.chaos`: run the fault campaign, print how it goes, write the table, fail where a row is red."""

import argparse
import asyncio
import shutil
import sys
import tempfile
from fnmatch import fnmatch
from pathlib import Path

from tests.chaos.registry import Run, Scenario, scenarios
from tests.chaos.report import progress, write

#: The seed of a run that names none: the same faults each time, as far as a machine with two cores repeats itself.
SEED = 9


def main() -> int:
    """Run what was asked for; return the exit status."""
    asked = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    asked.add_argument("--seed", type=int, default=SEED)
    asked.add_argument("--only", metavar="PATTERN", action="append", help="names of scenarios, with * and ?")
    asked.add_argument("--list", action="store_true", help="say what there is, and run nothing")
    asked.add_argument("--dry", action="store_true", help="write no table")
    given = asked.parse_args()
    chosen = [each for each in scenarios() if _wanted(each, given.only)]
    if given.list:
        for each in chosen:
            print(f"{each.name}\n    {each.sentence}")
        return 0
    if not chosen:
        print(f"no scenario is called {given.only}", file=sys.stderr)
        return 2
    return _run(chosen, seed=given.seed, dry=given.dry)


def _wanted(each: Scenario, patterns: list[str] | None) -> bool:
    return not patterns or any(fnmatch(each.name, pattern) for pattern in patterns)


def _run(chosen: list[Scenario], *, seed: int, dry: bool) -> int:
    # A disk, and not what may be memory; PostgreSQL, which is not root, must be able to enter.
    folder = Path(tempfile.mkdtemp(prefix="postroom-chaos-", dir="/var/tmp"))
    folder.chmod(0o711)
    rows = []
    try:
        for number, each in enumerate(chosen, start=1):
            print(f"[{number}/{len(chosen)}] {each.name}: {each.sentence}", flush=True)
            run = Run(
                name=each.name,
                seed=seed,
                folder=folder / f"scenario-{number}",
                told=lambda row: print(progress(row), flush=True),
                whispered=lambda step: print(step, end="\r" if sys.stdout.isatty() else "\n", flush=True),
            )
            rows += asyncio.run(each.run(run))
            if not dry:
                write(rows, seed=seed)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    red = [row for row in rows if not row.held]
    print(f"\n{len(rows)} rows, {len(red)} red")
    for row in red:
        print(progress(row))
    return 1 if red else 0


if __name__ == "__main__":
    sys.exit(main())
