"""Claims on a folder: who uses this state, and whether all of them have gone.

Two PostgreSQL servers on one data folder destroy it, so whoever works on a folder holds an
exclusive flock(2) on a file in it. The kernel ties the lock to the open file, not to the
process: a server that is started with the claim's descriptor keeps the claim until its last
process has ended, also when we were killed and could not wait for it. Nothing has to be
cleaned up after a crash, and a stale file means nothing.

The file holds the id of the process that took the claim, for the message to the second one.
Where that process is gone but its servers are still shutting down, taking the claim waits.
"""

import fcntl
import os
import time
from pathlib import Path
from typing import Self


class FolderInUse(RuntimeError):
    """Another process works on the folder. `holder` is its id, or None when only its servers are left."""

    def __init__(self, path: Path, *, holder: int | None) -> None:
        super().__init__(path, holder)
        self.path = path
        self.holder = holder

    def __str__(self) -> str:
        folder = self.path.parent
        if self.holder is None:
            return f"{folder} is still held by a server of an earlier run that does not end"
        return f"{folder} is in use by the process {self.holder}"


class Claim:
    """An exclusive claim, held until `release` and until every process that inherited it has ended."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor

    @classmethod
    def take(cls, path: Path, *, patience: float) -> Self:
        """Claim `path`, waiting up to `patience` seconds for the leftovers of a dead or of this process.

        Raises `FolderInUse`, within a second when another live process holds it.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        began = time.monotonic()
        while not _locked(descriptor):
            holder = _other_live_process(descriptor)
            # A process that was killed just now looks alive for a moment more.
            if time.monotonic() > began + (patience if holder is None else min(patience, 0.5)):
                os.close(descriptor)
                raise FolderInUse(path, holder=holder)
            time.sleep(0.02)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode("ascii"), 0)
        return cls(path, descriptor)

    def release(self) -> None:
        """Give the claim up; processes that inherited it keep it."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _other_live_process(descriptor: int) -> int | None:
    text = os.pread(descriptor, 20, 0).strip()
    if not text.isdigit() or int(text) == os.getpid():
        return None
    holder = int(text)
    return None if _has_ended(holder) else holder


def _has_ended(pid: int) -> bool:
    """Whether `pid` is gone, or a zombie that its parent has not asked after yet."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] in "ZX"
    except ProcessLookupError:
        return True
    except OSError:
        return False  # it lives and belongs to somebody else, or there is no /proc (macOS)
