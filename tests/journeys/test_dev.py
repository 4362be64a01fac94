"""`postroom dev` as a newcomer meets it, and what it leaves behind: nothing."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.house import ROOT, a_message
from tests.waiting import eventually


@contextmanager
def dev(state: Path, port: int) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Run `postroom dev`; give the process and what it prints."""
    printed = state.with_suffix(".out")
    with printed.open("wb") as out:
        child = subprocess.Popen(
            [sys.executable, "-m", "service", "dev", "--state", str(state), "--port", str(port)],
            cwd=ROOT,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        yield child, printed
    finally:
        if child.poll() is None:
            child.kill()
        child.wait(timeout=20)


def processes_of(state: Path) -> list[int]:
    """Find the processes whose arguments or environment name this state folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            known = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        if str(state).encode() in known and int(process.name) != os.getpid():
            found.append(int(process.name))
    return found


async def up(printed: Path, child: subprocess.Popen[bytes]) -> str:
    def ready() -> str | None:
        text = printed.read_text()
        assert child.poll() is None, text
        return text if "Postroom is up" in text else None

    return await eventually(ready, within=90.0)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_dev_shows_a_ledger_entry_and_leaves_nothing(
    tmp_path: Path, unused_tcp_port: int, end: signal.Signals
) -> None:
    """It sends a first message, prints its entry and a curl line that works, has a key that may operate the routes and one
    that may not, and ends with all its children.
    """
    state = tmp_path / "state"
    with dev(state, unused_tcp_port) as (child, printed):
        text = await up(printed, child)
        key = (state / "api-key").read_text().strip()
        operator = {"Authorization": f"Bearer {(state / 'operator-key').read_text().strip()}"}
        base = f"http://127.0.0.1:{unused_tcp_port}"
        async with httpx2.AsyncClient(
            base_url=base, headers={"Authorization": f"Bearer {key}"}, trust_env=False
        ) as client:
            answer = await client.post("/messages", json=a_message())
            refused = await client.post("/routes/azure/pause", json={"reason": "to try"})
            paused = await client.post("/routes/azure/pause", json={"reason": "to try"}, headers=operator)
        child.send_signal(end)
        await asyncio.to_thread(child.wait, 60)

        assert answer.status_code == 202
        assert "250 2.0.0 OK" in text
        assert re.search(r"TLSv1\.[23]", text)
        assert "curl " in text
        assert (refused.status_code, paused.status_code) == (403, 200)
        assert operator["Authorization"].split()[1] not in text
        for file in ("api-key", "operator-key"):
            assert (state / file).stat().st_mode & 0o077 == 0
        await eventually(lambda: processes_of(state) == [], within=30.0)


async def test_a_test_key_sends_to_the_sandbox_of_dev(tmp_path: Path, unused_tcp_port: int) -> None:
    """`keys create --test` beside `postroom dev` makes a key whose mail arrives in the sandbox."""
    state = tmp_path / "state"
    with dev(state, unused_tcp_port) as (child, printed):
        await up(printed, child)
        made = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "service", "keys", "create", "newcomer", "--test", "--config",
            str(state / "postroom.yaml"), cwd=ROOT, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        key, _ = await made.communicate()
        headers = {"Authorization": f"Bearer {key.decode().strip()}", "Prefer": "wait=60"}
        async with httpx2.AsyncClient(headers=headers, timeout=90) as client:
            answer = await client.post(
                f"http://127.0.0.1:{unused_tcp_port}/messages", json=a_message(to="ana@contoso.com")
            )

        assert answer.status_code == 202, answer.text
        assert (answer.json()["status"], answer.json()["route"]) == ("sent", "sandbox")
        child.send_signal(signal.SIGINT)
        await asyncio.to_thread(child.wait, 60)


async def test_a_second_dev_is_told_who_has_the_state(tmp_path: Path, unused_tcp_port: int) -> None:
    """A second `postroom dev` on the same state ends with 1 and a clear line; the first one goes on."""
    state = tmp_path / "state"
    with dev(state, unused_tcp_port) as (child, printed):
        await up(printed, child)
        second = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "service", "dev", "--state", str(state), cwd=ROOT,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said, _ = await second.communicate()

        assert second.returncode == 1
        assert b"running on this state already" in said
        assert child.poll() is None
        child.send_signal(signal.SIGINT)
        await asyncio.to_thread(child.wait, 60)
