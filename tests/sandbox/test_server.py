"""The sandbox as a whole: start, stop, and how many it serves."""

import asyncio
import contextlib
import os
import signal
import smtplib
import socket
import ssl
import threading
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import uvloop

from service.sandbox import Sandbox, SandboxBusy, contoso, run_sandbox
from tests.sandbox.client import MAILBOX, PASSWORD, connected, logged_in, message
from tests.sandbox.entra import readback
from tests.waiting import eventually


async def test_smtplib_sends_through_it(sandbox: Sandbox) -> None:
    """The standard library's client, which is nobody's double, gets its mail through."""

    def send() -> dict[str, tuple[int, bytes]]:
        with smtplib.SMTP("localhost", sandbox.submission_port, timeout=15) as client:
            client.starttls(context=ssl.create_default_context(cafile=sandbox.ca_file))
            client.login(MAILBOX, PASSWORD)
            return client.sendmail(MAILBOX, ["ana@fabrikam.com", "bounced@fabrikam.com"], message())

    refused = await asyncio.to_thread(send)

    assert refused["bounced@fabrikam.com"][0] == 550
    assert sandbox.taken[0].recipients == ("ana@fabrikam.com",)


async def test_a_state_folder_has_one_user(state: Path) -> None:
    """A second sandbox on the same folder is refused, and may have it once the first is done."""
    async with Sandbox(contoso(state)):
        with pytest.raises(SandboxBusy, match="another sandbox"):
            async with Sandbox(contoso(state)):
                pass

    async with Sandbox(contoso(state)) as sandbox:
        assert sandbox.taken == ()


@pytest.mark.parametrize("port", ["submission_port", "http_port", "https_port"])
async def test_a_port_that_is_taken_stops_the_start_and_leaves_nothing(state: Path, port: str) -> None:
    """The error is the system's, and the folder and the other ports are free again."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(OSError, match="in use"):
            async with Sandbox(contoso(state, **{port: taken.getsockname()[1]})):
                pass

    async with Sandbox(contoso(state)):
        pass


async def test_ports_stay_over_a_restart(state: Path) -> None:
    """Configured ports can be had again at once, as can the authority."""
    async with Sandbox(contoso(state)) as first:
        ports = {"submission_port": first.submission_port, "http_port": first.http_port,
                 "https_port": first.https_port}  # fmt: skip
        authority = first.ca_file.read_bytes()
        async with logged_in(first) as client:
            await client.send("ana@fabrikam.com")

    async with Sandbox(contoso(state, **ports)) as second, logged_in(second) as client:
        assert (await client.send("ana@fabrikam.com")).code == 250
        assert second.ca_file.read_bytes() == authority


async def test_stopping_ends_every_session(state: Path) -> None:
    """Idle, silent and half-way sessions all end with the sandbox."""
    async with AsyncExitStack() as clients:
        async with Sandbox(contoso(state)) as sandbox:
            idle = await clients.enter_async_context(connected(sandbox))
            half = await clients.enter_async_context(logged_in(sandbox))
            await half.envelope("ana@fabrikam.com")
            silent = await clients.enter_async_context(logged_in(sandbox))
            await silent.envelope("silent-after-dot@fabrikam.com")
            await silent.raw(message() + b".\r\n")
            await eventually(lambda: sandbox.taken)

        assert [await client.closed() for client in (idle, half, silent)] == [True] * 3


async def test_run_sandbox_runs_until_it_is_cancelled(state: Path) -> None:
    """It is up while its task lives, and its folder is free afterwards."""
    task = asyncio.create_task(run_sandbox(contoso(state)))
    await eventually((state / "server.pem").exists)

    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task

    async with Sandbox(contoso(state)):
        pass


async def test_run_sandbox_ends_when_it_is_told_to(state: Path) -> None:
    """SIGTERM ends it in order: as a container's first process it would not hear the signal otherwise."""
    task = asyncio.create_task(run_sandbox(contoso(state)))
    await eventually((state / "server.pem").exists)

    os.kill(os.getpid(), signal.SIGTERM)

    await asyncio.wait_for(task, 30)


async def test_too_many_sessions_are_turned_away(state: Path) -> None:
    """Beyond the limit a new client hears 421 4.3.2; the place of one that left is free."""
    async with Sandbox(contoso(state, max_sessions=1)) as sandbox:
        async with connected(sandbox), connected(sandbox) as second:
            assert str(second.greeting).startswith(
                "421 4.3.2 The maximum number of concurrent server connections"
            )

        async def welcome() -> bool:
            async with connected(sandbox) as client:
                return client.greeting is not None and client.greeting.code == 220

        assert await eventually(welcome)


async def test_many_messages_at_once(sandbox: Sandbox) -> None:
    """Sessions side by side do not mix their transactions."""
    sandbox.switch(connections=50, messages_per_minute=1000)

    async def send(number: int) -> int:
        async with logged_in(sandbox) as client:
            return (await client.send(f"r{number}@fabrikam.com", octets=message(number))).code

    codes = await asyncio.gather(*(send(number) for number in range(30)))

    assert codes == [250] * 30
    assert {(taken.recipients[0], taken.message_id) for taken in sandbox.taken} == {
        (f"r{number}@fabrikam.com", f"<{number}@contoso.com>") for number in range(30)
    }


def test_it_runs_on_uvloop(state: Path) -> None:
    """STARTTLS, a reset and the read-back work on the faster loop as well."""

    async def story() -> int:
        async with Sandbox(contoso(state)) as sandbox:
            async with logged_in(sandbox) as client:
                await client.envelope("reset-after-dot@fabrikam.com")
                await client.raw(message() + b".\r\n")
                assert await client.closed()
            async with readback(sandbox) as http:
                return len((await http.get("/messages")).json()["data"])

    found: list[int] = []
    # In a thread of its own, so that no loop of pytest's is in the way.
    thread = threading.Thread(target=lambda: found.append(uvloop.run(story())))
    thread.start()
    thread.join()

    assert found == [1]
