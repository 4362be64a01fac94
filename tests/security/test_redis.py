"""Redis is not trusted: whoever can write to it cannot run code, stop the mail, or make it go twice."""

import asyncio
import json
import pickle
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from arq.connections import ArqRedis
from arq.constants import job_key_prefix

from service.delivery.bell import CHANNEL, QUEUE, Bell, listen, open_redis
from service.delivery.tasks import end
from tests.house import a_house, copies, smarthost
from tests.peer import ScriptedPeer
from tests.waiting import eventually


@asynccontextmanager
async def a_client(url: str) -> AsyncIterator[ArqRedis]:
    """A client of the attacker's, closed with all its connections."""
    client = open_redis(url)
    try:
        yield client
    finally:
        await client.aclose(close_connection_pool=True)


class Exploit:
    """What a pickled job does where it is read: it makes a file."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> Any:
        return (Path.touch, (self.proof,))


def jobs(proof: Path) -> list[bytes]:
    """Jobs that nobody of ours wrote: arq's own form as a pickle, and forms of JSON that are none."""
    arqs = {"t": 1, "f": "drain", "a": ("peer",), "k": {}, "et": 0}
    return [
        pickle.dumps(Exploit(proof)),
        pickle.dumps({**arqs, "a": (Exploit(proof),)}),
        b"cos\nsystem\n(S'touch " + str(proof).encode() + b"'\ntR.",
        b"",
        b"\0" * 100_000,
        b"[" * 100_000,
        b"null",
        b"[]",
        json.dumps({"f": "drain"}).encode(),
        json.dumps({**arqs, "f": "os.system", "a": [f"touch {proof}"]}).encode(),
        json.dumps({**arqs, "f": "__init__"}).encode(),
        json.dumps({**arqs, "a": [["peer"], {"x": 1}]}).encode(),
        json.dumps({**arqs, "a": ["no such lane"]}).encode(),
        json.dumps({**arqs, "a": "peer", "t": "x", "et": []}).encode(),
        json.dumps({**arqs, "k": {"lane": "peer", "ctx": 1}}).encode(),
    ]


def test_the_exploit_works_where_pickles_are_read(tmp_path: Path) -> None:
    """The other test would otherwise prove nothing."""
    pickle.loads(jobs(tmp_path / "proof")[0])  # noqa: S301  # our own

    assert (tmp_path / "proof").exists()


async def test_foreign_jobs_run_nothing_and_stop_nothing(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """Pickles and jobs of any form in the queue, and anything on the channel: each is refused, and mail goes on."""
    proof = tmp_path / "proof"
    async with (
        ScriptedPeer() as peer,
        a_house(database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path) as house,
        a_client(redis_url) as attacker,
    ):
        for number, job in enumerate(jobs(proof)):
            await attacker.set(f"{job_key_prefix}foreign:{number}", job)
            await attacker.zadd(QUEUE, {f"foreign:{number}": 1})
            await attacker.publish(CHANNEL, job)
        await attacker.zadd(QUEUE, {b"\xff\xfe not utf-8": 1})
        await attacker.zadd(QUEUE, {"drain:peer:without a job": 1})

        async def eaten() -> bool:
            return not await attacker.zrange(QUEUE, 0, -1)

        await eventually(eaten, within=60)
        message = await house.submit()
        await house.in_state(message, "sent")

    assert not proof.exists()
    assert copies(peer, "ana@example.com") == 1


async def test_the_bell_is_heard_after_any_noise(redis_url: str, tmp_path: Path) -> None:
    """Whatever is said on its channel, who listens hears the lanes of the next ring, and nothing that is none."""
    heard: list[str] = []
    noise = [*jobs(tmp_path / "proof"), b"[1, null, {}]", b'{"a": 1}', b"9" * 5000, b'["peer"]' * 2, b"\xff"]

    async with a_client(redis_url) as client:

        async def rung() -> bool:
            await Bell(client).ring(["peer"])
            return "peer" in heard

        listening = asyncio.create_task(listen(client, heard.extend))
        try:
            await eventually(rung)
            for each in noise:
                await client.publish(CHANNEL, each)
            heard.clear()
            await eventually(rung)
        finally:
            await end([listening])

    assert set(heard) == {"peer"}
    assert not (tmp_path / "proof").exists()


async def test_a_queue_that_is_no_queue_stops_nothing(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """A value of another type in its place: mail is accepted and sent all the same, and the queue comes back."""
    async with (
        ScriptedPeer() as peer,
        a_client(redis_url) as attacker,
    ):
        await attacker.set(QUEUE, "no queue")
        async with a_house(database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path) as house:
            message = await house.submit()
            await house.in_state(message, "sent")

            async def mended() -> bool:
                return bool(await attacker.type(QUEUE) != b"string")

            await eventually(mended, within=60)
