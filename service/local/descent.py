"""Start a server as a child that ends with us, as somebody who is not root.

The change itself happens in `descend`; here it is chosen. As an ordinary user nothing has to change. As
root a user namespace is tried first, because it leaves every file where and whose it was. Where
namespaces are forbidden the server becomes `nobody`, and what it needs must lie where `nobody` can go.

The kernel ties the "end with the parent" wish to the thread that started the child, not to the process
(prctl(2), PR_SET_PDEATHSIG), so children are started from the main thread only.
"""

import os
import pwd
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Literal, Self

DESCEND = Path(__file__).with_name("descend.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Descent:
    """How a child stops being root."""

    kind: Literal["none", "namespace", "nobody"]
    uid: int = 0
    gid: int = 0

    @classmethod
    def none(cls) -> Self:
        return cls(kind="none")

    @classmethod
    def here(cls) -> "Descent":
        """What this process needs and this machine allows."""
        return _descent_for_root() if os.geteuid() == 0 else Descent(kind="none")

    def reaches(self, folder: Path) -> bool:
        """Whether the child will be able to enter `folder` and each folder above it."""
        if self.kind != "nobody":
            return True
        return all(place.stat().st_mode & 0o001 for place in (folder, *folder.parents))

    def give(self, path: Path) -> None:
        """Make `path` the child's own."""
        if self.kind == "nobody":
            os.chown(path, self.uid, self.gid)


@cache
def _descent_for_root() -> Descent:
    """Try a namespace with a throw-away child."""
    try:
        nobody = pwd.getpwnam("nobody")
        uid, gid = nobody.pw_uid, nobody.pw_gid
    except KeyError:
        uid, gid = 65534, 65534
    namespace = Descent(kind="namespace", uid=uid, gid=gid)
    trial = spawn([sys.executable, "-I", "-S", "-c", ""], signal.SIGKILL, descent=namespace)
    return namespace if trial.wait(timeout=30) == 0 else Descent(kind="nobody", uid=uid, gid=gid)


def spawn(
    program: Sequence[str | Path],
    end_signal: signal.Signals,
    *,
    descent: Descent,
    log: IO[bytes] | int = subprocess.DEVNULL,
    keeps: Sequence[int] = (),
    environment: Mapping[str, str] | None = None,
    cwd: Path = Path("/"),
) -> subprocess.Popen[bytes]:
    """Start `program` (an absolute path and arguments) as a direct child in a session of its own.

    It gets `end_signal` when this process ends, however it ends. A session of its own keeps a terminal's
    Ctrl-C away from it: the one who started it stops it, in the right order. `keeps` are descriptors that
    it inherits, such as a claim's. Raises RuntimeError outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("a server started by another thread would end with that thread")
    descend = [sys.executable, "-I", "-S", DESCEND, os.getpid(), int(end_signal)]
    return subprocess.Popen(  # noqa: S603 - a list, no shell
        [str(part) for part in (*descend, descent.kind, descent.uid, descent.gid, *program)],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        pass_fds=keeps,
        env=environment,
        cwd=cwd,
        start_new_session=True,
    )
