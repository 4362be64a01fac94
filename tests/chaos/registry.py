"""What a scenario is, and the rows that it gives to the report.

    @scenario("the ledger is on a full disk")
    async def full_disk(run: Run) -> None:
        'PostgreSQL has no room left: 503 within 2 s, nothing is sent, and it heals by itself.'
        async with a_world(run.folder, routes=[…]) as world:
            …
            run.row("small rows fit, large ones do not", figures="…", promise=5, wrong=[…])

A scenario registers itself where it is defined, in any module of this package. It makes its faults from
`run.chance`, which the campaign's seed and the scenario's name decide. A scenario that raises is a red row; the rows
that it gave before stay.
"""

import importlib
import pkgutil
import random
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import tests.chaos

if TYPE_CHECKING:
    from tests.chaos.world import Servers


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of the report: what was done, what came of it, and whether the promise held."""

    scenario: str
    done: str
    figures: str
    promise: str  # of section 9 of the design: "1, 2, 7"
    wrong: tuple[str, ...] = ()  # what breaks the promise; nothing: it held
    seconds: float = 0.0

    @property
    def held(self) -> bool:
        return not self.wrong


@dataclass(slots=True, kw_only=True)
class Run:
    """One run of one scenario: its seed, its folder, and where its rows go."""

    name: str
    seed: int
    folder: Path
    told: Callable[[Row], None] = lambda _: None
    whispered: Callable[[str], None] = lambda _: None
    servers: "Servers | None" = None  # that a world is to use; None: each starts its own
    rows: list[Row] = field(default_factory=list)
    chance: random.Random = field(init=False)
    _since: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.chance = random.Random(f"{self.seed} {self.name}")

    def step(self, done: str) -> None:
        """Tell whoever watches how far it is; nothing of it stays."""
        self.whispered(f"       {self.name}: {done}")

    def row(self, done: str, *, figures: str, promise: str, wrong: Sequence[str] = ()) -> Row:
        """Add a row; its time is that since the last one. `wrong` says, in a line each, what broke the promise."""
        now = time.monotonic()
        row = Row(
            scenario=self.name,
            done=done,
            figures=figures,
            promise=promise,
            wrong=tuple(wrong),
            seconds=now - self._since,
        )
        self._since = now
        self.rows.append(row)
        self.told(row)
        return row


Story = Callable[[Run], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A story with a name."""

    name: str
    sentence: str  # what it shows: the first line of its docstring
    story: Story

    async def run(self, run: Run) -> list[Row]:
        """Run it to its end, whatever happens, and return its rows."""
        try:
            await self.story(run)
        except Exception as trouble:  # the other scenarios go on; this one is red
            last = traceback.extract_tb(trouble.__traceback__)[-1]
            where = f"{type(trouble).__name__} at {Path(last.filename).name}:{last.lineno}"
            said = " ".join(str(trouble).split())[:400]
            run.row("did not come to its end", figures="", promise="", wrong=[f"{where}: {said}"])
            traceback.print_exception(trouble)
        return run.rows


_SCENARIOS: dict[str, Scenario] = {}


def scenario(name: str) -> Callable[[Story], Story]:
    """Register a scenario under a name that no other one has."""

    def register(story: Story) -> Story:
        assert name not in _SCENARIOS, f"there are two scenarios {name!r}"
        sentence = (story.__doc__ or "").strip().partition("\n")[0]
        assert sentence, f"{name} does not say what it shows"
        _SCENARIOS[name] = Scenario(name=name, sentence=sentence, story=story)
        return story

    return register


def scenarios() -> list[Scenario]:
    """Give every scenario of this package, in the order of their names."""
    for module in pkgutil.iter_modules(tests.chaos.__path__, "tests.chaos."):
        if not module.name.rpartition(".")[2].startswith(("__main__", "test_")):
            importlib.import_module(module.name)
    return [_SCENARIOS[name] for name in sorted(_SCENARIOS)]
