"""The same dialogue on both event loops: asyncio's in development, uvloop in production."""

import asyncio
from collections.abc import Callable

import pytest
import uvloop

from service.smtp.faults import PeerGarbled, PeerLost, PeerRefused
from tests.peer import ScriptedPeer
from tests.smtp.builders import CONTENT, SHORT, TOKEN, XOAUTH2, a_session, send

BIG = (b"x" * 76 + b"\r\n") * 200_000


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def loop_factory(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    factory: Callable[[], asyncio.AbstractEventLoop] = request.param
    return factory


def test_a_session_on_either_loop(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Login over TLS, a small message, a large one, and an orderly end."""

    async def story() -> None:
        async with ScriptedPeer(tls=True, logins={XOAUTH2.username: TOKEN}) as peer:
            async with a_session(peer, XOAUTH2) as session:
                small = await send(session)
                large = await send(session, octets=BIG)
            assert small.final is not None
            assert large.final is not None
            assert [entry.octets for entry in peer.taken] == [CONTENT, BIG]

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(story())


@pytest.mark.parametrize("tls", [False, True])
def test_accidents_on_either_loop(
    loop_factory: Callable[[], asyncio.AbstractEventLoop], *, tls: bool
) -> None:
    """The accidents around the dot are told the same way on both loops."""

    async def story() -> None:
        async with ScriptedPeer(tls=tls) as peer:
            async with a_session(peer) as session:
                peer.on("body", reply="552 5.3.4 Too big", then="stall", after_octets=100_000, times=1)
                early = await send(session, octets=BIG)
            async with a_session(peer) as session:
                peer.on("data", reply="354 go", glue=b"250 early\r\n", times=1)
                smuggled = await send(session)
            async with a_session(peer, dot=SHORT) as session:
                peer.on("dot", then="close", times=1)
                lost = await send(session)
            async with a_session(peer) as session:
                await peer.hang_up(reset=True)
                idle = await send(session)

        assert isinstance(early.fault, PeerRefused)
        assert isinstance(smuggled.fault, PeerGarbled)
        assert isinstance(lost.fault, PeerLost)
        assert [report.dot_sent for report in (early, smuggled, lost, idle)] == [False, False, True, False]
        assert idle.untouched

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(story())
