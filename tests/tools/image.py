"""The real image, built from the Dockerfile and run without a container engine.

buildah, with chroots instead of namespaces, needs no daemon. The official base image cannot be
had on a machine without a registry, so Debian's own Python stands in for it: debootstrap makes
a Debian 12, which is kept in the cache folder, and it gets the name of the Dockerfile's `ARG
BASE`. Chroots share the machine's network, so a server in the image and a test meet on
127.0.0.1.

A pod is more than a chroot: `Image.started` gives a command what Kubernetes gives it, made with
`unshare`. It is the first process of its own process namespace, runs as the image's user
without capabilities, and sees a read-only root with a /tmp to write to.

The first time takes two to three minutes, later ones half a minute, and needs root for
debootstrap: hence only where `CONTAINER_TESTS=1` asks for it.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.tools.cache import REPOSITORY, Unobtainable, alone, cache_folder

OPT_IN = "CONTAINER_TESTS"
NAME = "localhost/postroom-under-test"

_PROGRAMS = ("buildah", "debootstrap")
_PYTHON = "python3,python3-venv,ca-certificates"
#: What one step may take, in seconds: a download of a whole small Debian on a slow line.
_STEP_LIMIT = 900.0


class Failed(Exception):
    """A program of the build, or one in the image, ended with an error; the text is what it said."""


#: Mounts are seen by nobody else, and gone with the process.
_AS_IN_A_POD = """
root=$1 given=$2
shift 2
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --bind /dev "$root/dev"
mount -t tmpfs -o size=64m,mode=1777,nosuid,nodev tmpfs "$root/tmp"
mkdir "$root/tmp/given"
mount --bind "$given" "$root/tmp/given"
mount -o remount,bind,ro "$root"
cd "$root"
exec chroot "$root" "$@"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A command of the image that runs as in a pod."""

    process: "subprocess.Popen[bytes]"
    output: Path

    def status(self) -> dict[str, str]:
        """Return what the kernel says of the command itself: /proc/PID/status."""
        lines = Path(f"/proc/{self._first()}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def mounts(self) -> str:
        return Path(f"/proc/{self._first()}/mounts").read_text()

    def stop(self) -> int:
        """Send SIGTERM to the command, as a kubelet does, and return its exit status; raises Failed."""
        os.kill(self._first(), signal.SIGTERM)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            raise Failed(f"SIGTERM did not end it: {self.said()}") from None

    def said(self) -> str:
        return self.output.read_text(errors="replace")

    def _first(self) -> int:
        """Return the command's process id as it is out here; within it is 1."""
        outer = self.process.pid
        children = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()
        if not children:
            raise Failed(f"it has ended: {self.said()}")
        return int(children[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """The image, and one container made from it."""

    buildah: tuple[str, ...]
    container: str

    def settings(self) -> dict[str, Any]:
        """Return what the image says about itself: User, Entrypoint, Cmd, Env, ExposedPorts, Healthcheck …."""
        told = json.loads(_call(*self.buildah, "inspect", "--type", "image", NAME))
        settings = told["Docker"]["config"]
        assert isinstance(settings, dict)
        return settings

    @contextmanager
    def started(self, *arguments: str, variables: Mapping[str, str], folder: Path) -> Iterator["Process"]:
        """Run the image's command as a pod does, with `folder` under /tmp/given, until the end of the block."""
        settings = self.settings()
        root = _call(*self.buildah, "mount", self.container).strip()
        user, _, group = settings["User"].partition(":")
        as_user = (f"--reuid={user}", f"--regid={group}", "--clear-groups", "--no-new-privs")
        given = [f"{name}={value}" for name, value in variables.items()]
        command = ["env", "-i", *settings["Env"], *given, *settings["Entrypoint"], *arguments]
        own = ("unshare", "--pid", "--mount", "--ipc", "--fork", "--kill-child=KILL")
        prepared = (*own, "sh", "-euc", _AS_IN_A_POD, "sh", root, str(folder))
        dropped = ("setpriv", *as_user, "--bounding-set=-all", "--inh-caps=-all")
        with (
            (folder / "output").open("w+b") as output,
            subprocess.Popen(
                [*prepared, *dropped, *command], stdout=output, stderr=subprocess.STDOUT
            ) as process,
        ):
            try:
                yield Process(process=process, output=folder / "output")
            finally:
                process.kill()

    def run(self, *arguments: str) -> str:
        """Run a program in the container as the image's user; return what it printed."""
        return _call(*self.buildah, "run", "--isolation", "chroot", self.container, "--", *arguments)


@contextmanager
def built() -> Iterator[Image]:
    """Build the image and make a container, in a storage that is removed afterwards; raises Unobtainable."""
    _have_programs()
    with alone("image"), tempfile.TemporaryDirectory(prefix="postroom-image-") as folder:
        places = ("--root", f"{folder}/storage", "--runroot", f"{folder}/run")
        buildah = ("buildah", *places, "--storage-driver", "vfs")
        _name_base(buildah)
        # As Docker does it: the OCI's own form has no health check.
        how = ("--format", "docker", "--isolation", "chroot", "--pull-never")
        _call(*buildah, "bud", *how, *_network(), "-t", NAME, REPOSITORY)
        container = _call(*buildah, "from", "--pull-never", NAME).strip()
        yield Image(buildah=buildah, container=container)


def _have_programs() -> None:
    """See that both programs are there, or install them where that is ours to do."""
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if os.geteuid() != 0:
        raise Unobtainable("building the image needs root, for debootstrap")
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise Unobtainable(f"building the image needs {' and '.join(missing)}, and there is no apt-get")
    try:
        _call("apt-get", "update", "-q")
        _call("apt-get", "install", "-y", "-q", "--no-install-recommends", *missing)
    except Failed as exc:
        raise Unobtainable(f"apt-get cannot install {' and '.join(missing)}") from exc


def _name_base(buildah: tuple[str, ...]) -> None:
    """Give our Debian with Python the name that the Dockerfile begins with."""
    named = re.search(r"^ARG BASE=(\S+)$", (REPOSITORY / "Dockerfile").read_text(), re.MULTILINE)
    assert named is not None
    container = _call(*buildah, "from", "scratch").strip()
    _call(*buildah, "add", "--quiet", container, _debian(), "/")
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    _call(*buildah, "config", "--env", f"PATH={path}", container)
    _call(*buildah, "commit", "--quiet", "--rm", container, f"localhost/{named[1]}")


def _debian() -> Path:
    """Return an archive of a minimal Debian 12 with Python, made at the first use."""
    archive = cache_folder() / "debian-12-python.tar"
    if archive.is_file():
        return archive
    with tempfile.TemporaryDirectory(prefix="postroom-debian-") as root:
        try:
            _call("debootstrap", "--variant=minbase", f"--include={_PYTHON}", "bookworm", root)
        except Failed as exc:
            raise Unobtainable("debootstrap cannot make a Debian 12 here") from exc
        unfinished = archive.with_suffix(".new")
        _call("tar", "-C", root, "-cf", unfinished, ".")
        unfinished.replace(archive)
    return archive


def _network() -> list[str]:
    """Give the build the machine's network, and the authority that this network trusts, if it has its own."""
    authority = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE")
    host = ["--network", "host"]
    if not authority:
        return host
    return [
        *host,
        "--volume",
        f"{Path(authority).resolve()}:/run/ca.crt:ro",
        "--build-arg",
        "PIP_CERT=/run/ca.crt",
    ]


def _call(*arguments: str | Path) -> str:
    """Run a program to its end and return what it printed; raises Failed."""
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=_STEP_LIMIT, check=False)
    if done.returncode != 0:
        raise Failed(f"{arguments[0]} ended with {done.returncode}: {(done.stdout + done.stderr)[-4000:]}")
    return done.stdout
