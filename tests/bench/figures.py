"""The table of a day: what was measured, what was wanted, what else the machine did.

Each bench adds rows; at the end they are printed, and at full scale (BENCH_SCALE=1, the default) also written
to `results/YYYY-MM-DD.md`. Rows of the same figure replace those of an earlier run of that day, so one
bench may be repeated alone.

    BENCH_SCALE=0.1     a tenth of the messages, for a quick look; nothing is written
    BENCH_ROUNDS=1      rounds whose median is taken; 3 unless said
"""

import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

SCALE = float(os.environ.get("BENCH_SCALE", "1"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
_RESULTS = Path(__file__).parent / "results"
_HEAD = ("figure", "goal", "reached", "met?", "beside it in the same run", "noise", "at (UTC)")


def scaled(count: int, *, least: int = 1) -> int:
    """Return a number of messages at the scale of this run."""
    return max(int(count * SCALE), least)


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which this share of the values lies."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def ms(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms" if seconds < 0.01 else f"{seconds * 1000:.1f} ms"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One row."""

    name: str
    goal: str
    reached: str
    met: bool | None  # None: there is no goal, it is told for information
    beside: str  # what the peers did in the same run, and whatever explains the figure
    noise: str

    def cells(self) -> tuple[str, ...]:
        met = {True: "yes", False: "**no**", None: "–"}[self.met]
        at = f"{datetime.now(UTC):%H:%M}"
        return (self.name, self.goal, self.reached, met, self.beside, self.noise, at)


@dataclass(slots=True)
class Table:
    """All rows of this run."""

    figures: list[Figure] = field(default_factory=list)

    def add(self, figure: Figure) -> None:
        self.figures.append(figure)
        print(f"\n  {figure.name}: {figure.reached} (goal {figure.goal}; {figure.beside}; {figure.noise})")

    def end(self) -> None:
        """Print the table; at full scale, write it."""
        rows = {cells[0]: cells for cells in (figure.cells() for figure in self.figures)}
        print("\n" + _written(list(rows.values())))
        if SCALE >= 1 and rows:
            _RESULTS.mkdir(exist_ok=True)
            path = _RESULTS / f"{datetime.now(UTC):%Y-%m-%d}.md"
            before = _read(path) if path.exists() else {}
            path.write_text(_page(list((before | rows).values())), encoding="utf-8")
            print(f"written to {path}")


def _written(rows: Sequence[Sequence[str]]) -> str:
    lines = [_HEAD, ["---"] * len(_HEAD), *rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)


def _read(path: Path) -> dict[str, tuple[str, ...]]:
    rows = [
        tuple(cell.strip() for cell in line.strip("|\n").split(" | "))
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith("| ")
    ]
    return {cells[0]: cells for cells in rows[2:]}


def _page(rows: Sequence[Sequence[str]]) -> str:
    processor = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        "unknown processor",
    )
    return (
        f"# Benchmarks of {datetime.now(UTC):%Y-%m-%d}\n\n"
        f"`make bench` on {os.cpu_count()} cores ({processor}). Each figure is the median of several rounds, and"
        " what it is compared with ran in turns with it. Load generator, peer and PostgreSQL share these cores."
        " Noise is what others took of the whole machine meanwhile, and what its host stole.\n\n"
        + _written(rows)
    )
