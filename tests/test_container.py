"""The image: its Dockerfile read and linted at each run, and built and run for real on request."""

import os
import re
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx2
import pytest
import yaml

from tests.tools.cache import REPOSITORY, Unobtainable, skip_or_fail
from tests.tools.image import OPT_IN, Failed, Image, Process, built

DOCKERFILE = REPOSITORY / "Dockerfile"

_WHY_NOT = f"building the image with buildah takes minutes and root: {OPT_IN}=1 asks for it"
# A plain `skip`, not a `skipif`: pytest then reports all of them in one line.
on_request = (
    pytest.mark.skip(reason=_WHY_NOT) if os.environ.get(OPT_IN) != "1" else pytest.mark.usefixtures("image")
)


def _instructions() -> list[str]:
    """Return the Dockerfile's instructions, comments gone and continued lines joined."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if line and not line.startswith("#")]
    return "\n".join(lines).replace("\\\n", " ").splitlines()


def test_hadolint_finds_nothing() -> None:
    """The Dockerfile is clean by all of hadolint's rules, without an exception."""
    done = subprocess.run(
        [Path(sys.prefix) / "bin" / "hadolint", "--failure-threshold", "info", DOCKERFILE],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout + done.stderr == ""
    assert done.returncode == 0
    assert "hadolint ignore" not in DOCKERFILE.read_text()


def test_everything_installed_is_locked() -> None:
    """Each command of the build that can reach an index demands hashes."""
    reaching = [
        command
        for line in _instructions()
        for command in line.split("&&")
        if re.search(r"\b(pip install|uv build)\b", command) and "--no-index" not in command
    ]

    assert len(reaching) == 3
    assert all("--require-hashes" in command for command in reaching)


def test_the_last_stage_builds_nothing() -> None:
    """The image itself only takes over the finished environment, and runs it as a numbered ordinary user."""
    instructions = _instructions()
    starts = [number for number, line in enumerate(instructions) if line.startswith("FROM ")]
    final = instructions[starts[-1] :]

    assert [line for line in final if line.startswith(("COPY", "ADD"))] == [
        "COPY --from=build /opt/postroom /opt/postroom"
    ]
    assert not [line for line in final if re.search(r"\b(apt-get|uv|pip install|curl)\b", line)]
    assert "USER 10001:10001" in final
    assert final[-2:] == ['ENTRYPOINT ["postroom"]', 'CMD ["--help"]']


def test_engines_know_how_it_is_and_how_to_stop_it() -> None:
    """The image says by itself how its health is asked for and which signal ends it."""
    told = {line.split()[0]: line for line in _instructions()}

    assert "/livez" in told["HEALTHCHECK"]
    assert told["STOPSIGNAL"] == "STOPSIGNAL SIGTERM"
    # As lists, without a shell: a shell would be the first process and keep signals to itself.
    assert all('["' in told[name] for name in ("ENTRYPOINT", "CMD", "HEALTHCHECK"))


def test_only_the_product_goes_into_the_build() -> None:
    """The build's context is a list of what may enter; a checkout's state, keys and history may not."""
    rules = (REPOSITORY / ".dockerignore").read_text().splitlines()
    entering = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}

    assert "*" in rules
    assert entering == {
        *("service", "migrations", "pyproject.toml", "README.md", "LICENSE"),
        *("requirements.txt", "requirements-uv.txt", "requirements-dev.txt"),
    }


def test_the_wheel_is_whole(tmp_path: Path) -> None:
    """The wheel that the image installs holds every module, every migration and the command."""
    sources = {
        *REPOSITORY.glob("service/**/*.py"),
        *REPOSITORY.glob("migrations/*.py"),
        *REPOSITORY.glob("migrations/versions/*.py"),
    }
    expected = {
        str(path.relative_to(REPOSITORY)).replace("migrations/", "service/ledger/migrations/", 1)
        if path.is_relative_to(REPOSITORY / "migrations")
        else str(path.relative_to(REPOSITORY))
        for path in sources
    }

    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=REPOSITORY, check=True, capture_output=True)

    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
        commands = archive.read(entry_points).decode()
    assert expected <= names
    assert not [name for name in names if name.startswith("tests/")]
    assert "postroom = service.__main__:main" in commands


# --- built and run -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """The image, built once for all tests of this file that look into it."""
    try:
        with built() as image:
            yield image
    except Unobtainable as why:
        skip_or_fail(str(why))


@pytest.mark.debian
@on_request
@pytest.mark.timeout(1800)  # The first of them waits until the image is built.
class TestBuiltImage:
    """What is in the image, and whether it works there."""

    def test_command(self, image: Image) -> None:
        """Started without arguments the image says what it can do."""
        settings = image.settings()

        told = image.run(*settings["Entrypoint"], *settings["Cmd"])

        assert "postroom" in told

    def test_ordinary_user(self, image: Image) -> None:
        """Everything runs as user and group 10001, which have a name and no home."""
        assert image.settings()["User"] == "10001:10001"
        assert image.run("id").strip() == "uid=10001(postroom) gid=10001(postroom) groups=10001(postroom)"
        assert image.run("sh", "-c", "echo $HOME").strip() == "/nonexistent"

    def test_nothing_to_write(self, image: Image) -> None:
        """Its user can write nothing but the folders for temporary files, so a read-only root changes nothing."""
        search = r"find / -xdev -writable \( -type f -o -type d \) -not -path '/proc/*' 2>/dev/null || true"

        writable = set(image.run("sh", "-c", search).split())

        assert writable <= {"/tmp", "/var/tmp", "/run/lock"}

    def test_no_build_tools(self, image: Image) -> None:
        """There is no compiler, no package installer and no Git, and nothing of the build is left."""
        tools = "cc gcc c++ ld make git pip pip3 uv wheel debootstrap curl wget"

        assert not image.run("sh", "-c", f"for it in {tools}; do command -v $it; done; true").strip()
        assert image.run("ls", "/opt").split() == ["postroom"]
        assert not {"src", "wheel"} & set(image.run("ls", "/").split())

    def test_it_is_small(self, image: Image) -> None:
        """What comes to the base image is bounded, so that something large is not taken in unawares."""
        mebibytes = int(image.run("du", "-sm", "/opt/postroom").split()[0])

        assert mebibytes < 200

    def test_packages_are_the_locked_ones(self, image: Image) -> None:
        """The installed packages are those of requirements.txt and Postroom itself: no servers, no test tools."""
        locked = re.findall(
            r"^([-a-z0-9]+)==(\S+)", (REPOSITORY / "requirements.txt").read_text(), re.MULTILINE
        )
        script = (
            "from importlib.metadata import distributions as all\n"
            "for it in all(path=[__import__('sysconfig').get_path('purelib')]):\n"
            "    print(it.name.lower().replace('_', '-').replace('.', '-'), it.version)"
        )

        installed = dict(line.split() for line in image.run("python", "-c", script).splitlines())

        assert installed.pop("postroom")
        assert set(installed.items()) <= set(locked)
        assert {"fastapi", "asyncpg", "arq", "aiosmtplib", "msal", "uvloop"} <= set(installed)

    def test_sandbox_is_part_of_it(self, image: Image) -> None:
        """The simulated Microsoft 365 ships with the image, so that test keys work in production too."""
        assert (
            image.run("python", "-c", "import service.sandbox as it; print(it.__name__)")
            == "service.sandbox\n"
        )

    def test_migrates_a_real_database(self, image: Image, empty_database_url: str) -> None:
        """The image's own migrations bring an empty PostgreSQL to the version that its code needs."""
        script = (
            "import sys; from service.ledger import migrate as it; it.upgrade(sys.argv[1]); print(it.head())"
        )

        head = image.run("python", "-c", script, empty_database_url)

        assert head.strip() == image.run("python", "-c", script, empty_database_url).strip() != ""

    def test_api_as_in_a_pod(
        self, image: Image, empty_database_url: str, redis_url: str, tmp_path: Path
    ) -> None:
        """On a read-only root, without a right, the API serves, is found healthy, and SIGTERM ends it with 0."""
        api_port, metrics_port = _free_port(), _free_port()
        place = _Place(tmp_path, empty_database_url, redis_url, metrics_port=metrics_port)
        with place.run(image, "migrate") as migration:
            assert migration.process.wait(120) == 0, migration.said()

        with place.run(image, "api", "--host", "127.0.0.1", "--port", str(api_port)) as api:
            assert _answer(api, f"http://127.0.0.1:{api_port}/livez") == 200
            assert _answer(api, f"http://127.0.0.1:{api_port}/readyz") == 200
            assert _answer(api, f"http://127.0.0.1:{metrics_port}/metrics") == 200
            _is_a_pod(api)
            asked = image.settings()["Healthcheck"]["Test"]
            image.run("env", f"POSTROOM_API__PORT={api_port}", *asked[1:])
            # What it says then is not looked for: buildah may lose the output of what fails at once.
            with pytest.raises(Failed):
                image.run("env", f"POSTROOM_API__PORT={_free_port()}", *asked[1:])

            assert api.stop() == 0, api.said()

    def test_worker_as_in_a_pod(
        self, image: Image, database_url: str, redis_url: str, tmp_path: Path
    ) -> None:
        """On a read-only root, without a right, the worker answers its probes, and SIGTERM ends it with 0."""
        port = _free_port()
        place = _Place(tmp_path, database_url, redis_url, metrics_port=port)

        with place.run(image, "worker") as worker:
            assert _answer(worker, f"http://127.0.0.1:{port}/livez") == 200
            assert _answer(worker, f"http://127.0.0.1:{port}/readyz") == 200
            _is_a_pod(worker)

            assert worker.stop() == 0, worker.said()

    def test_sandbox_as_in_a_pod(self, image: Image, tmp_path: Path) -> None:
        """The sandbox needs no more than a folder for its state, and SIGTERM ends it with 0."""
        ports = {name: _free_port() for name in ("submission", "mx", "hve", "acs", "http", "https")}
        options = [part for name, port in ports.items() for part in (f"--{name}-port", str(port))]

        with image.started(
            "sandbox", "--state", "/tmp/state", *options, variables={}, folder=tmp_path
        ) as sandbox:
            assert _answer(sandbox, f"http://127.0.0.1:{ports['http']}/doors") == 200
            _is_a_pod(sandbox)

            assert sandbox.stop() == 0, sandbox.said()


class _Place:
    """A folder with a configuration, for commands that run as in a pod."""

    def __init__(self, folder: Path, database_url: str, redis_url: str, *, metrics_port: int) -> None:
        self._folder = folder
        folder.chmod(0o755)
        settings = {
            "database_url": database_url,
            "redis_url": redis_url,
            "metrics": {"host": "127.0.0.1", "port": metrics_port},
        }
        (folder / "postroom.yaml").write_text(yaml.safe_dump(settings))

    def run(self, image: Image, *arguments: str) -> AbstractContextManager[Process]:
        variables = {"POSTROOM_CONFIG": "/tmp/given/postroom.yaml"}
        return image.started(*arguments, variables=variables, folder=self._folder)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _answer(process: Process, url: str) -> int:
    """Ask until there is an answer, and return its status."""
    end = time.monotonic() + 120
    while True:
        try:
            return httpx2.get(url, timeout=10, trust_env=False).status_code
        except httpx2.TransportError:
            assert process.process.poll() is None, process.said()
            assert time.monotonic() < end, process.said()
            time.sleep(0.2)


def _is_a_pod(process: Process) -> None:
    """The command is the first process there, an ordinary user without capabilities, on a root that is read-only."""
    status = process.status()
    assert status["NSpid"].split()[-1] == "1"
    assert status["Uid"].split() == ["10001"] * 4
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    (root,) = (line for line in process.mounts().splitlines() if line.split()[1] == "/")
    assert "ro" in root.split()[3].split(",")
