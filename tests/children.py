"""Postroom's commands as processes of their own, started in a moment: forked from one that has loaded Postroom.

    child = Forked("worker", "--config", path, environment=os.environ, log=folder / "worker.log")
    child.kill()
    child.wait(20)  # -9

Loading takes a second and a half of a core, the rest of a start a tenth of that, and tests start hundreds of these
processes. Such a child is a process like another in all that can happen to it: signals, a death of its own,
a full disk. What it has loaded, and its memory, are the loader's: who asks for them, as benchmarks do, or
lets it begin in another environment, starts the program itself (`Processes` that are not `forked`).
"""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

#: What the two services load when they start; the loader has it, and nothing of it starts a thread.
LOADED = ["service.__main__", "service.wiring", "service.submission.app", "uvicorn", "uvloop", __name__]


class Child(Protocol):
    """What tests want of a process; `subprocess.Popen` has it too."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int) -> None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


class Forked:
    """A command of Postroom's, forked from the loader of this test process."""

    def __init__(self, *arguments: str, environment: Mapping[str, str], log: Path) -> None:
        """Start it; what it prints goes into `log`, which is there at once."""
        log.write_bytes(b"")
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(LOADED)
        # A daemon, so that nobody waits for it should a test leave it behind.
        self._process = context.Process(target=_run, args=(arguments, dict(environment), log), daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def poll(self) -> int | None:
        """Return its exit status, negative for a signal; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait so many seconds for its end. Raises TimeoutExpired, as `subprocess.Popen` does."""
        self._process.join(timeout)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired(str(self._process), timeout or 0.0)
        return code

    def send_signal(self, sig: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, sig)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _run(arguments: tuple[str, ...], environment: dict[str, str], log: Path) -> None:
    """Be the command, in the child."""
    from service.__main__ import main

    with log.open("wb") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["postroom", *arguments]
    main()
