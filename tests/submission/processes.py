"""What the kernel says about the presses of a process."""

import os
from pathlib import Path


def children_of(pid: int) -> list[int]:
    """The processes whose parent is this one."""
    folders = (folder for folder in Path("/proc").iterdir() if folder.name.isdigit())
    return [int(folder.name) for folder in folders if _parent(folder) == pid]


def presses_of(pid: int) -> list[int]:
    """The presses that a process started, and that run."""
    return [
        child for child in children_of(pid) if b"render_child.py" in _read(child, "cmdline") and runs(child)
    ]


def presses() -> list[int]:
    """Our own."""
    return presses_of(os.getpid())


def runs(pid: int) -> bool:
    """Whether it is there and no zombie."""
    status = _read(pid, "stat")
    return bool(status) and status.rpartition(b")")[2].split()[0] not in {b"Z", b"X"}


def environment(pid: int) -> bytes:
    return _read(pid, "environ")


def descriptors(pid: int) -> dict[int, str]:
    """What each descriptor of a process leads to."""
    folder = Path(f"/proc/{pid}/fd")
    return {int(entry.name): str(entry.readlink()) for entry in folder.iterdir()}


def _parent(folder: Path) -> int:
    status = _read(int(folder.name), "stat")
    return int(status.rpartition(b")")[2].split()[1]) if status else 0


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""
