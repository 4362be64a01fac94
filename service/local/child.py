"""The service's own processes, as `postroom dev` runs them: `python -m service api`, `worker`, …

They are children like the servers: they end with us, write to a log of their own, and get a SIGTERM when
they shall finish what is in hand. After a kill of ours they are killed at once, as by any crash.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from service.local.descent import Descent, spawn

# The folder that `service` is imported from, so that a child finds the same one wherever it starts.
ROOT = Path(__file__).resolve().parents[2]
LOG_LIMIT = 10_000_000  # octets

# What a child gets from us and from nobody else; the rest is for this command itself.
OURS = {
    f"POSTROOM_{name}"
    for name in (
        "DATABASE_URL", "DATABASE_URL_FILE", "REDIS_URL", "REDIS_URL_FILE", "CONFIG", "STATE",
        "POSTGRES_BIN", "REDIS_SERVER",
    )
}  # fmt: skip


class CommandFailed(RuntimeError):
    """A command of ours ended badly; the text is what it said."""


class Child:
    """One long-running command of this service."""

    def __init__(self, name: str, *arguments: str, log: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.log = log
        self._arguments = arguments
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id, or None when it does not run."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def begin(self) -> None:
        """Start it; its output is appended to the log."""
        if self.log.exists() and self.log.stat().st_size > LOG_LIMIT:
            self.log.unlink()
        with os.fdopen(os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as log:
            self._process = spawn(
                [sys.executable, "-m", "service", *self._arguments],
                signal.SIGKILL,
                descent=Descent.none(),
                log=log,
                environment=self._environment,
                cwd=Path.cwd(),
            )

    def send(self, number: signal.Signals) -> None:
        """Send a signal, where it still runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def obituary(self) -> str:
        """How it ended, with the last lines of its log."""
        status = self._process.poll() if self._process else None
        how = (
            f"was ended by {signal.Signals(-status).name}"
            if status and status < 0
            else f"ended with {status}"
        )
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-12:]
        return "\n".join([f"{self.name} {how}; the end of {self.log}:", *(f"  {line}" for line in lines)])


async def run(*arguments: str, environment: Mapping[str, str], within: float) -> str:
    """Run a short command of this service and return its standard output. Raises `CommandFailed`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "service", *arguments,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
    )  # fmt: skip
    try:
        output, complaint = await asyncio.wait_for(process.communicate(), within)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise CommandFailed(f"postroom {arguments[0]} did not end within {within:.0f} s") from None
    if process.returncode != 0:
        raise CommandFailed(f"postroom {arguments[0]}: {complaint.decode(errors='replace').strip()}")
    return output.decode()


def environment_with(config: Path) -> dict[str, str]:
    """Our environment for a child, with this configuration.

    Everything else that is set stays, `POSTROOM_DISPATCH__LEASE` as well as `TZ`; only what would lead
    the child to another database or Redis than ours is left out.
    """
    kept = {name: value for name, value in os.environ.items() if name not in OURS}
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    # PYTHONSAFEPATH: a folder called `service` where the user stands is not taken for ours.
    return kept | {"POSTROOM_CONFIG": str(config), "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
