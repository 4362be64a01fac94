"""One route is down with a thousand waiting, a peer stalls until the queue is full, a message kills its workers.

Each time the question is about the others: another lane, another application, the other messages.
"""

import asyncio
import json
import time
from collections import Counter

import httpx2

from tests.chaos.clients import Clients, Letter
from tests.chaos.infrastructure import (
    all_sent,
    delays,
    knock,
    letters,
    moved,
    states,
    submit,
    unveil,
)
from tests.chaos.proxy import HOST, Proxy
from tests.chaos.records import count
from tests.chaos.registry import Run, scenario
from tests.chaos.world import Victim, World, a_world
from tests.house import smarthost
from tests.peer import ScriptedPeer
from tests.waiting import eventually

#: Messages that wait for the route that is down, and for how long it is, in each way.
THOUSAND, DOWN_SECONDS = 1000, 25.0

#: A letter of the other lane every so often, in seconds.
EVERY = 0.2


@scenario("routes: one is down, a thousand wait")
async def down(run: Run) -> None:
    """A route refuses, then swallows everything, while a thousand messages wait for it: another lane stays as quick."""
    async with ScriptedPeer() as sick, ScriptedPeer() as well, Proxy(HOST, sick.port) as proxy:
        slow_limits = {"connect": "5s", "greeting": "5s"}
        routes = [
            smarthost(sick, name="down", connect_to=f"{HOST}:{proxy.port}", timeouts=slow_limits),
            smarthost(well, name="well", limits={"connections": 4}),
        ]
        async with a_world(run.folder, routes=routes, workers=2) as world:

            async def beside(prefix: str, seconds: float) -> list[float]:
                sent, answers = await knock(world, prefix, seconds=seconds, every=EVERY, route="well")
                await asyncio.gather(*answers)
                await all_sent(world, [each.key for each in sent], within=60.0)
                return delays(world, well, [each.key for each in sent])

            before = await beside("before", 10.0)
            await proxy.refuse()
            waiting = [each.key for each in await submit(world, letters("down", THOUSAND, route="down"))]

            async def judge(done: str, prefix: str) -> None:
                during = await beside(prefix, DOWN_SECONDS)
                figures, wrong = moved(before, during, expected=len(during))
                found = await states(world, waiting)
                if set(found) - {"queued", "deferred", "sending"}:
                    wrong.append(f"{found}, and there was no way")
                run.row(done, figures=f"{figures}; waiting: {dict(found)}", promise="1, 11", wrong=wrong)

            await judge(f"refused for {DOWN_SECONDS:.0f} s", "refused")
            proxy.black_hole()
            await proxy.behave()
            proxy.black_hole()
            await judge(f"a black hole for {DOWN_SECONDS:.0f} s", "swallowed")
            await proxy.behave()
            mended = time.monotonic()
            await all_sent(world, waiting, within=240.0)
            took = time.monotonic() - mended
            unveil(sick, proxy)
            account = await count(world, [sick, well])
            run.row(
                "the route is back",
                figures=f"a thousand sent {took:.0f} s later. {account.figures()}",
                promise="1, 2, 7",
                wrong=account.wrong + [f"a bug in a log: {each}" for each in world.bugs()],
            )


# -- the queue is full -------------------------------------------------------------------------------------

QUEUE_LIMIT = 60


@scenario("routes: one stalls until the queue is full")
async def full(run: Run) -> None:
    """A peer takes no dot until the queue is full: its application gets 503, another one is let in, another lane goes on."""
    async with ScriptedPeer() as sick, ScriptedPeer() as well:
        going_on = asyncio.Event()
        sick.on("dot", until=going_on)
        routes = [
            smarthost(sick, name="stalled", limits={"connections": 3}),
            smarthost(well, name="well", limits={"connections": 4}),
        ]
        async with a_world(run.folder, routes=routes, dispatch={"queue_limit": QUEUE_LIMIT}) as world:
            made = json.loads(await world.processes.run("keys", "create", "quiet", "--json"))
            async with Clients(token=made["key"]) as quiet:
                quiet.ports = world.clients.ports
                loud = letters("loud", 3 * QUEUE_LIMIT, route="stalled")
                answers = []
                for letter in loud:
                    answers.append(await world.clients.post(letter))
                    await asyncio.sleep(0.02)
                first = [Letter(key=f"well-{n}", route="well") for n in range(20)]
                # What is refused to the loud application is refused on every lane.
                others = [await world.clients.post(each) for each in first]
                let_in = [await quiet.post(Letter(key=f"quiet-{n}", route="well")) for n in range(3)]
                await eventually(
                    lambda: sum(each.mail.startswith("quiet-") for each in well.taken) == len(let_in),
                    within=30.0,
                )
            wrong = []
            statuses = Counter(each.status for each in answers)
            codes = {each.code for each in answers if each.status == 503}
            if codes != {"queue_full"} or not QUEUE_LIMIT <= statuses[202] <= 2 * QUEUE_LIMIT:
                wrong.append(f"the loud application heard {dict(statuses)}, {codes}")
            if any(each.status != 202 for each in let_in):
                wrong.append(f"another application was not let in: {[each.code for each in let_in]}")
            slowest = max(each.seconds for each in [*answers, *others, *let_in])
            if slowest > 2.0:
                wrong.append(f"an answer took {slowest:.1f} s")
            going_on.set()
            everything = await submit(world, [*loud, *first])
            await world.settled([each.key for each in everything])
            account = await count(world, [sick, well], keys=[each.key for each in everything])
            run.row(
                f"queue_limit {QUEUE_LIMIT}, a peer that never answers the dot, one application posts"
                f" {3 * QUEUE_LIMIT}",
                figures=f"it heard {dict(statuses)}; another application: {len(let_in)} of 3 taken and sent by another"
                f" lane; answers within {slowest:.2f} s. {account.figures()}",
                promise="1, 2, 11",
                wrong=wrong + account.wrong,
            )


# -- poison ------------------------------------------------------------------------------------------------

POISON = Letter(key="poison")


@scenario("a poison message")
async def poison(run: Run) -> None:
    """A message that kills whoever carries it is held after three crashes alone, and the others go; released, it goes."""
    async with ScriptedPeer() as peer:
        never = asyncio.Event()
        peer.on("data", until=never, when=lambda recipients: POISON.to[0] in recipients)
        async with a_world(run.folder, routes=[smarthost(peer, limits={"connections": 4})]) as world:
            others = await submit(world, letters("before", 10))
            await submit(world, [POISON])
            others += await submit(world, letters("after", 30))
            killed = asyncio.create_task(_kill_who_carries_it(world, peer))

            async def held() -> bool:
                return await states(world, [POISON.key]) == {"held": 1}

            await eventually(held, within=120.0)
            keys = [each.key for each in others]
            await all_sent(world, keys, within=60.0)
            killed.cancel()
            await asyncio.gather(killed, return_exceptions=True)
            rows = await world.query(
                "SELECT r.reason, d.lost, d.lost_alone, a.alone, a.outcome, m.id FROM messages m"
                " JOIN recipients r ON r.message_id = m.id JOIN deliveries d ON d.message_id = m.id"
                " JOIN attempts a ON a.message_id = m.id WHERE m.idempotency_key = $1 ORDER BY a.number",
                POISON.key,
            )
            wrong = []
            alone = [row["alone"] for row in rows]
            if rows[-1]["reason"] != "crashed_repeatedly" or rows[-1]["lost_alone"] != 3:
                wrong.append(f"held for {rows[-1]['reason']}, after {rows[-1]['lost_alone']} crashes alone")
            if sum(alone) < 3:
                wrong.append(f"it was not carried alone: {alone}")
            account = await count(world, [peer], keys=keys)
            run.row(
                f"its worker dies whenever it is carried: {len(rows)} times",
                figures=f"held for {rows[-1]['reason']} after {len(rows)} attempts, {sum(alone)} of them alone. The"
                f" others: {account.figures()}",
                promise="1, 2, 10",
                wrong=wrong + account.wrong,
            )
            never.set()
            peer.behave()
            released = await _release(world, rows[-1]["id"])
            await all_sent(world, [POISON.key], within=60.0)
            account = await count(world, [peer])
            run.row(
                "an operator releases it, and the peer is well",
                figures=f"{released}; {account.figures()}",
                promise="1, 2, 7",
                wrong=account.wrong,
            )


#: What may be damaged of a message that waits: a word for it, and the statement.
DAMAGES = {
    "its content is gone": "DELETE FROM contents WHERE message_id = $1",
    "its content is no message": "UPDATE contents SET octets = octets || 'more'::bytea WHERE message_id = $1",
    "its sender is no address": "UPDATE messages SET reverse_path = 'nobody' WHERE id = $1",
    "its recipient is no address": "UPDATE recipients SET email = '<>' WHERE message_id = $1",
}


@scenario("a message that is damaged in the ledger")
async def damaged(run: Run) -> None:
    """Somebody has damaged messages that wait, in the database: they do not go, and the others do."""
    async with ScriptedPeer() as peer:
        async with a_world(
            run.folder, routes=[smarthost(peer, limits={"connections": 4})], workers=0
        ) as world:
            broken = await submit(world, letters("damaged", len(DAMAGES)))
            others = await submit(world, letters("whole", 40))
            ids = {
                row["key"]: row["id"]
                for row in await world.query("SELECT idempotency_key AS key, id FROM messages")
            }
            for letter, damage in zip(broken, DAMAGES.values(), strict=True):
                await world.query(damage, ids[letter.key])
            await world.start_worker()
            keys = [each.key for each in others]
            await all_sent(world, keys, within=60.0)
            for letter, word in zip(broken, DAMAGES, strict=True):
                found = await states(world, [letter.key])
                taken = sum(each.mail == letter.sender or letter.to[0] in each.rcpts for each in peer.taken)
                run.row(
                    word,
                    figures=f"{dict(found)}, {taken} copies",
                    promise="7, 10",
                    wrong=["it was sent"] if taken else [],
                )
            account = await count(world, [peer], keys=keys)
            # The rules of the ledger are asked of all of it, and this one we have broken ourselves.
            wrong = [each for each in account.wrong if ids[broken[0].key] not in each]
            run.row("the others", figures=account.figures(), promise="1, 2, 7, 10", wrong=wrong)


async def _kill_who_carries_it(world: World, peer: ScriptedPeer) -> None:
    """Kill -9 of the one worker as soon as it names the poison's recipient, and start another, as Kubernetes does."""
    seen = 0
    while True:
        begun = sum(POISON.sender == each.mail and bool(each.rcpts) for each in peer.transactions)
        if begun > seen:
            seen = begun
            await world.kill(Victim.WORKER)
            await world.raise_again(Victim.WORKER)
        await asyncio.sleep(0.02)


async def _release(world: World, message_id: str) -> str:
    made = json.loads(
        await world.processes.run("keys", "create", "operators", "--scopes", "operate", "--json")
    )
    url = f"http://{HOST}:{world.clients.ports[0]}/messages/{message_id}/release"
    async with httpx2.AsyncClient(trust_env=False) as client:
        answer = await client.post(url, headers={"Authorization": f"Bearer {made['key']}"})
    return f"release: {answer.status_code}"
