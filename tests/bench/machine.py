"""What the machine did meanwhile, by /proc: CPU and memory of processes, other load and steal.

    before = cpu_seconds(pid)                # the process, its children and those that it has waited for
    with watching() as noise: …              # noise.other, noise.steal: shares of the whole machine
    memory(pid).rss

CPU time is counted in ticks of 10 ms, so figures per message want a second of CPU or more. What the
benchmark itself started counts as ours and not as other load; what the host stole is told apart.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat behind the command's name: state, ppid, …"""
    return (_PROC / str(pid) / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()


def tree(*roots: int) -> list[int]:
    """Return these processes and all that descend from them, as far as they are alive."""
    children: dict[int, list[int]] = {}
    for folder in _PROC.iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                children.setdefault(int(_stat(int(folder.name))[1]), []).append(int(folder.name))
    found = list(roots)
    for pid in found:
        found.extend(children.get(pid, []))
    return found


def cpu_seconds(*roots: int) -> float:
    """Return user and system time of these processes and their children, those that have ended included."""
    ticks = 0
    for pid in tree(*roots):
        with suppress(OSError):
            # utime, stime, and those of children that were waited for (proc(5)).
            ticks += sum(int(field) for field in _stat(pid)[11:15])
    return ticks / _TICK


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """In megabytes of 1024 × 1024 octets."""

    rss: float
    peak: float  # the highest RSS so far
    private: float  # USS: what would be free if it ended


def memory(pid: int) -> Memory:
    """Look at the memory of one process, children not included."""
    status, rollup = (
        dict(
            line.split(":", 1)
            for line in (_PROC / str(pid) / name).read_text(encoding="utf-8").splitlines()
            if line.endswith("kB")
        )
        for name in ("status", "smaps_rollup")
    )

    def megabytes(field: str) -> float:
        return int(field.split(maxsplit=1)[0]) / 1024

    return Memory(
        rss=megabytes(status["VmRSS"]),
        peak=megabytes(status["VmHWM"]),
        private=megabytes(rollup["Private_Clean"]) + megabytes(rollup["Private_Dirty"]),
    )


@dataclass(slots=True)
class Noise:
    """What others took of the machine while somebody watched, as shares of all cores."""

    other: float = 0.0
    steal: float = 0.0

    def __str__(self) -> str:
        return f"other {self.other:.0%}, steal {self.steal:.0%}"


def _machine() -> tuple[float, float, float]:
    """Busy, stolen and all seconds of all cores since boot."""
    line = (_PROC / "stat").read_text(encoding="utf-8").splitlines()[0]
    user, nice, system, idle, iowait, irq, softirq, steal, *_ = (
        int(word) / _TICK for word in line.split()[1:]
    )
    busy = user + nice + system + irq + softirq
    return busy, steal, busy + steal + idle + iowait


@contextmanager
def watching() -> Iterator[Noise]:
    """Fill in the noise of the time that this lasts."""
    noise = Noise()
    busy, stolen, whole = _machine()
    ours = cpu_seconds(os.getpid())
    yield noise
    busy_after, stolen_after, whole_after = _machine()
    ours = cpu_seconds(os.getpid()) - ours
    span = max(whole_after - whole, 0.001)
    noise.other = max(busy_after - busy - ours, 0.0) / span
    noise.steal = (stolen_after - stolen) / span
