"""The table of a day: every row of the campaign, the red ones named first.

Rows of a scenario replace those of the same scenario in that day's table, so one of them may be run again alone.
What was red in a first run, and what became of it, is told in `results/red-rows.md`, by hand.
"""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.chaos.registry import Row

RESULTS = Path(__file__).parent / "results"
_NO = "**no**: "
_REASONS = 6  # of a red row that are told
_HEAD = ("scenario", "what was done", "what came of it", "promise", "held?", "seconds")


def progress(row: Row) -> str:
    """Write one row for whoever watches."""
    lines = [
        f"{'  ok ' if row.held else ' RED '} {row.scenario}: {row.done} [{row.seconds:.0f} s] {row.figures}"
    ]
    return "\n".join([*lines, *(f"        {line}" for line in row.wrong[:12])])


def write(rows: Sequence[Row], *, seed: int, folder: Path = RESULTS) -> Path:
    """Put the rows into the table of today; return its path."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{datetime.now(UTC):%Y-%m-%d}.md"
    ran = {row.scenario for row in rows}
    kept = [row for row in _read(path) if row.scenario not in ran]
    everything = sorted([*kept, *rows], key=lambda row: row.scenario)
    path.write_text(_page(everything, seed=seed), encoding="utf-8")
    return path


def _page(rows: Sequence[Row], *, seed: int) -> str:
    red = [row for row in rows if not row.held]
    verdict = (
        f"**{len(red)} of {len(rows)} rows are red.**" if red else f"All {len(rows)} rows held their promise."
    )
    named = "".join(f"- **{row.scenario}**: {_cell(row.done)}\n" for row in red)
    table = "".join(
        "| " + " | ".join(_cell(cell) for cell in cells) + " |\n"
        for cells in (_HEAD, ["---"] * len(_HEAD), *(_cells(row) for row in rows))
    )
    return (
        f"# The fault campaign of {datetime.now(UTC):%Y-%m-%d}\n\n"
        f'`make chaos` with seed {seed} (`make chaos ARGS="--seed {seed} --only SCENARIO"` repeats one scenario) on'
        f" {os.cpu_count()} cores ({_processor()}), PostgreSQL, Valkey, peers and clients on the same machine. The"
        " promises are those of section 9 of the design. Counted from three records: what HTTP answered, what the"
        " peers wrote down before they answered, and what the ledger says.\n\n"
        f"{verdict}\n\n{named}{chr(10) if named else ''}{table}"
    )


def _cells(row: Row) -> tuple[str, ...]:
    held = "yes" if row.held else f"{_NO}{'; '.join(row.wrong[:_REASONS])}"
    return (row.scenario, row.done, row.figures, row.promise, held, f"{row.seconds:.0f}")


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())


def _read(path: Path) -> list[Row]:
    """Read the rows of a table; what they say is as it was written."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    table = [
        line.removeprefix("| ").removesuffix(" |").split(" | ") for line in lines if line.startswith("| ")
    ]
    return [
        Row(
            scenario=scenario,
            done=_plain(done),
            figures=_plain(figures),
            promise=promise,
            wrong=() if held == "yes" else (_plain(held.removeprefix(_NO)),),
            seconds=float(seconds),
        )
        for scenario, done, figures, promise, held, seconds in table[2:]
    ]


def _plain(cell: str) -> str:
    return cell.replace("\\|", "|").replace("&lt;", "<")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown processor"
