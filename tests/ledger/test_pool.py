"""The end of a ledger's connections."""

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from service.ledger import Ledger
from service.local.servers import LocalPostgres

CONNECTIONS = 5


def tell(pid: int, what: signal.Signals) -> None:
    """Tell the server and its children: each session is a process of its own."""
    children = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, check=False).stdout.split()
    for each in [pid, *map(int, children)]:
        os.kill(each, what)


@contextlib.contextmanager
def standing_still(server: LocalPostgres) -> Iterator[None]:
    assert server.pid is not None
    tell(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        tell(server.pid, signal.SIGCONT)


async def test_a_server_that_stands_still_does_not_keep_a_process_from_its_end(
    postgres: LocalPostgres, postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """All connections are closed within seconds, not half a minute for each; nobody is troubled with it."""
    ledger = Ledger.open(postgres_url, name="test-end", connections=CONNECTIONS)
    await asyncio.gather(*(ledger.explaining.pulse("msg_none") for _ in range(CONNECTIONS)))

    with standing_still(postgres):
        began = time.monotonic()
        await ledger.dispose()
        took = time.monotonic() - began
        await asyncio.sleep(0)

    assert took < 20
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]
