"""A clock that a test moves, for PostgreSQL and whoever else shall live by it.

    with a_clock() as clock:                        # skips, and in CI fails, without libfaketime
        postgres = ClockedPostgres.by(clock, folder)
        clock.go_on(hours=12)                       # time passes, for everybody
        clock.step(minutes=-10)                     # only our clocks are set, as NTP does
        clock.true(moment)                          # a moment of this process, as an honest clock tells it

libfaketime (Debian's package) is loaded before the C library and adds an offset to what the kernel says
the time is. The offset stands in a file that is read at each look at the clock, so that all processes move
together and at once. Monotonic clocks are left alone: they time sockets and sleeps.

The test itself stays on the machine's clock. What a peer in this process saw is put on the honest
clock by `true`: the machine's time and all that has passed by `go_on`, without any `step`.
"""

import bisect
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from service.local.servers import LocalPostgres
from tests.tools.debian import program

_ENV = "/usr/bin/env"


class Clock:
    """The time by a file."""

    def __init__(self, folder: Path, library: Path) -> None:
        """Start with the machine's time; `folder` is one that a server which is not root may enter."""
        self._file = folder / "clock"
        self._library = library
        self._stepped = timedelta(0)
        self._since = [datetime.min.replace(tzinfo=UTC)]  # when each sum in `_passed` began to hold
        self._passed = [timedelta(0)]
        self._write()

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to live by this clock."""
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            # The second name is the one of older versions.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
            # Processes share nothing but the file: one that is killed must leave no lock behind.
            "FAKETIME_DISABLE_SHM": "1",
            "NO_FAKE_STAT": "1",
        }

    def go_on(self, **by: float) -> None:
        """Let time pass, at once; `by` as in `timedelta`."""
        passed = self._passed[-1] + timedelta(**by)
        # Nothing of this process runs between the two, so each moment has one meaning.
        self._write(passed)
        self._since.append(datetime.now(UTC))
        self._passed.append(passed)

    def step(self, **by: float) -> None:
        """Set the clocks of all who live by this one; no time passes."""
        self._stepped += timedelta(**by)
        self._write()

    def now(self) -> datetime:
        """Return what those who live by this clock take for the time."""
        return datetime.now(UTC) + self._passed[-1] + self._stepped

    def true(self, moment: datetime) -> datetime:
        """Put a moment of this process, at which it looked at the machine's clock, on the honest clock."""
        return moment + self._passed[bisect.bisect_right(self._since, moment) - 1]

    def _write(self, passed: timedelta | None = None) -> None:
        offset = (self._passed[-1] if passed is None else passed) + self._stepped
        draft = self._file.with_suffix(".new")
        draft.write_text(f"{offset.total_seconds():+.3f}\n", encoding="ascii")
        draft.chmod(0o644)
        draft.replace(self._file)  # nobody ever reads half of it


@contextmanager
def a_clock() -> Iterator[Clock]:
    """Make a clock, with libfaketime installed where it is missing and that is allowed."""
    # The package of the program brings the library, which no PATH shows.
    program("faketime", package="faketime")
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    # Not in the test's own folder, which nobody else may enter: a server is not root.
    folder = Path(tempfile.mkdtemp(prefix="postroom-clock-", dir="/var/tmp"))
    folder.chmod(0o755)
    try:
        yield Clock(folder, library)
    finally:
        shutil.rmtree(folder)


class ClockedPostgres(LocalPostgres):
    """A PostgreSQL that lives by a test's clock."""

    clock: Clock

    @classmethod
    def by(cls, clock: Clock, folder: Path) -> Self:
        """Start one on `folder`."""
        server = cls(folder, durable=False)
        server.clock = clock
        server.restart()
        return server

    def _command(self) -> Sequence[str | Path]:
        settings = [f"{name}={value}" for name, value in self.clock.environment.items()]
        return [_ENV, *settings, *super()._command()]
