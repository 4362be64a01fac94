"""The system's resolver hangs over the name of one route's host: the threads in which it hangs are nobody else's.

A worker asks the C library for addresses, which blocks a thread for as long as no name server answers. To let that
happen for one name only, the worker lives in a mount namespace with a resolv.conf and a hosts file of its own: its
name server never says a word, and the other route's host stands in the hosts file. That takes root.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

from service.local.servers import HOST
from tests.chaos.infrastructure import at_once
from tests.chaos.infrastructure_tokens import Lanes
from tests.chaos.registry import Run, scenario
from tests.chaos.world import PATIENCE, Child, Victim, World, a_world
from tests.house import ROOT, smarthost
from tests.peer import ScriptedPeer
from tests.waiting import eventually

#: A name server that is on no machine: in 127.0.0.0/8, so nothing has to be set up.
SILENT = "127.0.0.99"

NAME = "relay.contoso.test"

#: Runs what follows with the files of a folder in the place of the system's.
_WITHIN = 'mount --bind "$1/hosts" /etc/hosts && mount --bind "$1/resolv.conf" /etc/resolv.conf && shift && exec "$@"'


@scenario("DNS: hangs for one route's host")
async def hangs(run: Run) -> None:
    """Ten sessions wait for a resolver that never answers: another lane, which resolves too, does not notice."""
    run.folder.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        try:
            silent.bind((SILENT, 53))
            _unshare()
        except (OSError, subprocess.CalledProcessError):
            run.row("skipped: this needs root", figures="not run", promise="11")
            return
        hosts = run.folder / "hosts"
        hosts.write_text(f"{HOST} localhost\n", encoding="ascii")
        (run.folder / "resolv.conf").write_text(f"nameserver {SILENT}\n", encoding="ascii")
        async with ScriptedPeer() as sick, ScriptedPeer() as well:
            nowhere = {"host": NAME, "connect_to": f"{NAME}:{sick.port}", "timeouts": {"connect": "5s"}}
            routes = [
                smarthost(sick, name="hangs", **nowhere, limits={"connections": 10}),
                # A session for each message, so that each one resolves.
                smarthost(
                    well,
                    name="well",
                    connect_to=f"localhost:{well.port}",
                    limits={"connections": 4, "messages_per_connection": 1},
                ),
            ]
            async with a_world(run.folder, routes=routes, workers=0) as world:
                worker = _started_within(world, run.folder)
                await eventually(lambda: b"worker.started" in worker.log.read_bytes(), within=PATIENCE)
                lanes = Lanes(run, world, sick=sick, well=well, route="hangs")
                await lanes.measure()

                async def found() -> None:
                    with hosts.open("a", encoding="ascii") as file:
                        file.write(f"{HOST} {NAME}\n")

                await lanes.during(
                    "the name server is silent, until the name is known",
                    harm=at_once(lambda: None),
                    mend=found,
                    says=["unreachable"],
                )


def _unshare() -> None:
    subprocess.run(["unshare", "--mount", "true"], check=True, capture_output=True)


def _started_within(world: World, folder: Path) -> Child:
    """Start a worker that lives with the files of this folder."""
    command = [sys.executable, "-m", "service", "worker", "--config", str(world.processes.config)]
    log = folder / "worker-within.log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", _WITHIN, "sh", str(folder), *command],
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if not name.startswith("POSTROOM_")},
            stdout=said,
            stderr=said,
        )
    world.processes.children.append(process)
    return Child(victim=Victim.WORKER, process=process, log=log)
