"""Postfix as it comes, on folders of its own, and its two test programs.

    with postfix(folder, relay_to=port) as mta:        # skips without Debian's package
        mta.port, mta.pid
    with smtp_sink(folder) as sink:
        sink.port, sink.count()
    await smtp_source(port, count=5000, sessions=32)

The defaults of the package stand, fsync among them; only what makes it a relay of this test's own on
loopback is set: its folders, its port, `relayhost`, no chroot. Where there is no syslog, and that is usual in a
container, it logs nothing, which is in its favour.
"""

import asyncio
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from service.local.servers import free_port, port_is_free
from tests.tools.debian import program

_MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = bench.contoso.com
mydestination =
mynetworks = 127.0.0.0/8
relayhost = [127.0.0.1]:{relay}
smtpd_relay_restrictions = permit_mynetworks, reject
alias_maps =
alias_database =
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Postfix:
    """A running Postfix; `pid` is the master's, from which all others descend."""

    port: int
    pid: int


@contextmanager
def postfix(*, relay_to: int) -> Iterator[Postfix]:
    """Run Postfix until the end of the block."""
    command = program("postfix", package="postfix")
    port = free_port()
    folder = Path(tempfile.mkdtemp(prefix="postroom-bench-postfix-", dir="/var/tmp"))
    folder.chmod(0o755)
    config = folder / "etc"
    config.mkdir()
    (config / "main.cf").write_text(_MAIN.format(folder=folder, relay=relay_to))
    (config / "master.cf").write_text(_master(Path("/etc/postfix/master.cf").read_text(), port))
    (folder / "queue").mkdir()
    (folder / "data").mkdir()
    shutil.chown(folder / "data", "postfix")
    process = subprocess.Popen(
        [command, "-c", str(config), "start-fg"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        pid_file = folder / "queue" / "pid" / "master.pid"
        _wait(lambda: not port_is_free(port) and pid_file.exists(), what="Postfix")
        yield Postfix(port=port, pid=int(pid_file.read_text()))
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _master(text: str, port: int) -> str:
    """Return Debian's master.cf with smtpd on `port`, without chroot and without what needs other users."""
    lines = []
    for line in text.splitlines():
        if not line or line[0] in "# \t":
            continue  # comments, and the options of services that are left out
        words = line.split()
        if words[7] == "pipe":
            continue
        if words[0] == "smtp" and words[1] == "inet":
            words[0] = f"127.0.0.1:{port}"
        words[4] = "n"
        lines.append(" ".join(words))
        if words[0] == "relay":
            lines.append("    -o syslog_name=postfix/$service_name")
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class SmtpSink:
    """A running smtp-sink."""

    port: int
    pid: int
    counter: Path

    def count(self) -> int:
        """Return how many messages it has taken."""
        with self.counter.open("rb") as file:
            file.seek(max(self.counter.stat().st_size - 100, 0))
            # Each record ends with a CR; the last one may be half written.
            words = file.read().decode("ascii").rpartition("\r")[0].rpartition("\r")[2].split()
        return next((int(word.removeprefix("mesg=")) for word in words if word.startswith("mesg=")), 0)


@contextmanager
def smtp_sink(folder: Path) -> Iterator[SmtpSink]:
    """Run Postfix's own sink until the end of the block; it writes its count into a file."""
    command = program("smtp-sink", package="postfix")
    port = free_port()
    counter = folder / f"sink-{port}.count"
    with counter.open("wb") as out:
        # As the user `postfix`: as root it refuses to run.
        process = subprocess.Popen(
            [command, "-4", "-c", "-u", "postfix", f"127.0.0.1:{port}", "1000"], stdout=out
        )
    try:
        _wait(lambda: not port_is_free(port), what="smtp-sink")
        yield SmtpSink(port=port, pid=process.pid, counter=counter)
    finally:
        process.kill()
        process.wait()


async def smtp_source(port: int, *, count: int, sessions: int, octets: int = 2000) -> None:
    """Send messages on kept sessions, and wait until the last is accepted."""
    command = program("smtp-source", package="postfix")
    process = await asyncio.create_subprocess_exec(
        command, "-4", "-d", "-s", str(sessions), "-m", str(count), "-l", str(octets),
        "-f", "noreply@contoso.com", "-t", "ana@example.com", f"127.0.0.1:{port}",
    )  # fmt: skip
    assert await process.wait() == 0


def _wait(there: Callable[[], bool], *, what: str) -> None:
    deadline = time.monotonic() + 30
    while not there():
        assert time.monotonic() < deadline, f"{what} did not start within 30 s"
        time.sleep(0.02)
