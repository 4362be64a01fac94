"""The real image, built from the Dockerfile and run without a container engine.

buildah, with chroots instead of namespaces, needs no daemon. The official base image cannot be
had on a machine without a registry, so Debian's own Python stands in for it: debootstrap makes
a Debian 12, which is kept in the cache folder, and it gets the name of the Dockerfile's `ARG
BASE`. Chroots share the machine's network, so a server in the image and a test meet on
127.0.0.1; they cannot make the root file system read-only, which the tests therefore look at
by asking what the image's user may write.

The first time takes two to three minutes, later ones half a minute, and needs root for
debootstrap: hence only where `CONTAINER_TESTS=1` asks for it.
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """The image, and one container made from it."""

    buildah: tuple[str, ...]
    container: str

    def settings(self) -> dict[str, Any]:
        """Return what the image says about itself: User, Entrypoint, Cmd, Env, ExposedPorts …."""
        told = json.loads(_call(*self.buildah, "inspect", "--type", "image", NAME))
        settings = told["OCIv1"]["config"]
        assert isinstance(settings, dict)
        return settings

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
        _call(*buildah, "bud", "--isolation", "chroot", "--pull-never", *_network(), "-t", NAME, REPOSITORY)
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
