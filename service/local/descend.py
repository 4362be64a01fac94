"""Turn this process into a server that is nobody special and does not outlive its parent.

Run as a script between our process and a server: `descend.py PARENT SIGNAL DESCENT UID GID PROGRAM …`.
It changes itself and then becomes PROGRAM (execv), so that the server is a direct child of ours.

1. PostgreSQL refuses to run as root. `namespace` makes root appear as UID inside a user namespace of
   its own: files stay root's outside, and folders that only root may enter stay usable. `nobody` truly
   becomes UID, which works where namespaces are forbidden (a container's default seccomp profile), but
   needs programs and data that UID can reach. `none` changes nothing.
2. The kernel is asked to send SIGNAL when the parent ends, however it ends (prctl PR_SET_PDEATHSIG).
   A change of user id clears that wish, so it comes second. Where prctl is missing (macOS) the
   server still ends with a parent that stops in order, but not with one that is killed.

A script of its own instead of subprocess' `preexec_fn`, which may deadlock in a process with threads.
It runs with `-I -S`, so it uses the standard library only.
"""

import ctypes
import os
import sys
from pathlib import Path

CLONE_NEWUSER = 0x10000000
PR_SET_PDEATHSIG = 1


def enter_namespace(uid: int, gid: int) -> None:
    """Become `uid` and `gid` inside a new user namespace; outside nothing changes. Raises OSError."""
    outer_uid, outer_gid = os.geteuid(), os.getegid()
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWUSER):
        raise OSError(ctypes.get_errno(), "user namespaces are not available here")
    # The group map may be written only after setgroups is denied (user_namespaces(7)).
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"{uid} {outer_uid} 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"{gid} {outer_gid} 1", encoding="ascii")


def become(uid: int, gid: int) -> None:
    """Give up root for good."""
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def end_with(parent: int, signal_number: int) -> None:
    """Ask for `signal_number` at the end of `parent`; end at once where it is gone already."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(PR_SET_PDEATHSIG, signal_number)
    if os.getppid() != parent:
        os._exit(1)


def main() -> None:
    parent, signal_number, descent, uid, gid, *program = sys.argv[1:]
    if descent == "namespace":
        enter_namespace(int(uid), int(gid))
    elif descent == "nobody":
        become(int(uid), int(gid))
    end_with(int(parent), int(signal_number))
    os.execv(program[0], program)  # noqa: S606 - becoming the server is the point; there is no shell


if __name__ == "__main__":
    main()
