"""PostgreSQL dies, stands still, is behind a black hole, is slow, refuses to write or lets nobody in."""

import asyncio
import contextlib
import signal
from contextlib import AsyncExitStack
from functools import partial
from os import kill

import asyncpg

from tests.chaos.infrastructure import (
    Outages,
    a_world_behind_proxies,
    at_once,
    unhurried,
)
from tests.chaos.proxy import PostgresProxy
from tests.chaos.registry import Run, scenario
from tests.chaos.world import Victim, World, a_world
from tests.house import smarthost
from tests.peer import ScriptedPeer

#: Of Postroom's lease: an answer that takes two seconds has to fit into it several times.
LEASE = "10s"


@scenario("ledger: dead")
async def dead(run: Run) -> None:
    """PostgreSQL is killed, stopped for 20 seconds, and frozen: 503, nothing is sent, and all heals by itself."""
    async with ScriptedPeer() as peer:
        unhurried(peer)
        route = smarthost(peer, limits={"connections": 4})
        async with a_world(run.folder, routes=[route], dispatch={"lease": LEASE}) as world:
            outages = Outages(run=run, world=world, peer=peer)
            raise_again = partial(world.raise_again, Victim.POSTGRES)
            await outages.happen(
                "kill -9", harm=partial(world.kill, Victim.POSTGRES), mend=raise_again, seconds=5.0
            )
            await outages.happen(
                "stopped in order, for 20 s",
                harm=partial(asyncio.to_thread, world.postgres.stop),
                mend=raise_again,
                seconds=20.0,
            )
            await outages.happen(
                "all its processes are frozen (SIGSTOP)",
                harm=partial(_tell_all, world, signal.SIGSTOP),
                mend=partial(_tell_all, world, signal.SIGCONT),
                seconds=12.0,
            )


async def _tell_all(world: World, number: signal.Signals) -> None:
    """Tell the server and its children: each session is a process of its own."""
    pid = world.postgres.pid
    assert pid is not None
    children = await asyncio.create_subprocess_exec("pgrep", "-P", str(pid), stdout=asyncio.subprocess.PIPE)
    out, _ = await children.communicate()
    for each in (pid, *map(int, out.split())):
        kill(each, number)


@scenario("ledger: the way to it")
async def unreachable(run: Run) -> None:
    """The network to PostgreSQL refuses, resets, swallows or delays: what may be taken is right, and the rest is a 503."""
    async with ScriptedPeer() as peer:
        unhurried(peer)
        route = smarthost(peer, limits={"connections": 4})
        async with a_world_behind_proxies(run, routes=[route], dispatch={"lease": LEASE}) as (
            world,
            ledger,
            _,
        ):
            outages = Outages(run=run, world=world, peer=peer)
            await outages.happen(
                "connections are refused", harm=ledger.refuse, mend=ledger.behave, seconds=5.0
            )
            await outages.happen(
                "connections are reset", harm=at_once(ledger.reset), mend=ledger.behave, seconds=5.0
            )
            await outages.happen(
                "a black hole without FIN", harm=at_once(ledger.black_hole), mend=ledger.behave, seconds=15.0
            )
            await outages.happen(
                "each answer comes two seconds late",
                harm=at_once(partial(ledger.slow, 2.0)),
                mend=ledger.behave,
                seconds=15.0,
                refuses=False,
            )


@scenario("ledger: it refuses")
async def refusing(run: Run) -> None:
    """PostgreSQL is read-only, or all its connections are others': 503, nothing is sent, and all heals by itself."""
    async with ScriptedPeer() as peer:
        unhurried(peer)
        route = smarthost(peer, limits={"connections": 4})
        async with a_world_behind_proxies(run, routes=[route], dispatch={"lease": LEASE}) as (
            world,
            ledger,
            _,
        ):
            outages = Outages(run=run, world=world, peer=peer)
            await outages.happen(
                "read-only, as after a fail-over",
                harm=partial(_read_only, world, on=True),
                mend=partial(_read_only, world, on=False),
                seconds=8.0,
            )
            async with AsyncExitStack() as others:
                await outages.happen(
                    "others have all connections",
                    harm=partial(_use_up, world, ledger, others),
                    mend=others.aclose,
                    seconds=8.0,
                )


async def _read_only(world: World, *, on: bool) -> None:
    """Let new transactions only read; sessions hear of it at their next one."""
    await world.query(f"ALTER SYSTEM SET default_transaction_read_only = {'on' if on else 'off'}")
    await world.query("SELECT pg_reload_conf()")


async def _use_up(world: World, ledger: PostgresProxy, others: AsyncExitStack) -> None:
    """Hold every connection that the server gives away, Postroom's own included."""
    await ledger.refuse()  # or it would be quicker than we are
    with contextlib.suppress(asyncpg.TooManyConnectionsError):
        while True:
            connection = await asyncpg.connect(world.database_url, timeout=20)
            others.push_async_callback(connection.close)
    await ledger.behave()
