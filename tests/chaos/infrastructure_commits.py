"""COMMITs that happen and whose answers never come: of acceptances, claims, fences and closings, and of any of them.

The proxy before PostgreSQL lets the commit happen, swallows its answer and ends the connection with RST, so
neither the API nor a worker can know. Only what the ledger says is true then:

- an application hears a 503, asks again with its key, and gets the one message there is (promise 8);
- a claim that its worker does not know of is an attempt that nobody leads: its lease runs out, unsent;
- a fence that was marked and not confirmed must not be followed by a dot;
- a closing that is written twice is written once.
"""

import random
from collections.abc import Sequence

from tests.chaos.infrastructure import a_world_behind_proxies, letters, submit
from tests.chaos.proxy import Meant
from tests.chaos.records import count
from tests.chaos.registry import Run, scenario
from tests.house import smarthost
from tests.peer import ScriptedPeer

#: A word of the one statement that belongs to no other transaction.
TRANSACTIONS = {
    "acceptances": "INSERT INTO messages",
    "claims": "INSERT INTO attempts",
    "fences": "SET phase = 'dot'",
    "closings": "INSERT INTO sessions",
}

SENT, SWALLOWED = 60, 8


def holds(word: str) -> Meant:
    """Mean transactions in one of whose statements this word stands."""
    return lambda statements: any(word in each for each in statements)


class Some:
    """Means any transaction that writes, now and then."""

    def __init__(self, chance: random.Random, *, share: float) -> None:
        self._chance = chance
        self._share = share

    def __call__(self, statements: Sequence[str]) -> bool:
        writes = any(word in each for each in statements for word in ("INSERT", "UPDATE", "DELETE"))
        return writes and self._chance.random() < self._share


@scenario("ledger: COMMIT without an answer")
async def unanswered(run: Run) -> None:
    """Commits happen and their answers are swallowed: one message a key, one attempt a transaction, no copy too many."""
    async with ScriptedPeer() as peer:
        route = smarthost(peer, limits={"connections": 4})
        async with a_world_behind_proxies(run, routes=[route], workers=2) as (world, ledger, _):
            for what, word in TRANSACTIONS.items():
                ledger.swallow_commits(SWALLOWED, of=holds(word))
                before, prefix = ledger.swallowed, what.removesuffix("s")
                keys = [each.key for each in await submit(world, letters(prefix, SENT))]
                await world.settled(keys)
                account = await count(world, [peer], keys=keys)
                swallowed = ledger.swallowed - before
                ledger.swallow_commits(0)
                replayed = sum(each.replayed for each in world.clients.answers if each.key in set(keys))
                wrong = list(account.wrong)
                if swallowed < min(SWALLOWED, 3):
                    wrong.append(f"only {swallowed} answers were swallowed: the scenario shows nothing")
                if what == "acceptances" and not replayed:
                    wrong.append("no application was told of the message that it did not know of")
                run.row(
                    f"of {swallowed} {what}",
                    figures=f"{replayed} answers replayed. {account.figures()}",
                    promise="1, 2, 7, 8",
                    wrong=wrong,
                )

            ledger.swallow_commits(10**9, of=Some(run.chance, share=0.05))
            before = ledger.swallowed
            keys = [each.key for each in await submit(world, letters("any", 300))]
            await world.settled(keys, within=240.0)
            ledger.swallow_commits(0)
            account = await count(world, [peer], keys=keys)
            run.row(
                f"of {ledger.swallowed - before} transactions of any kind, one in twenty",
                figures=account.figures(),
                promise="1, 2, 7, 8",
                wrong=account.wrong + [f"a bug in a log: {each}" for each in world.bugs()],
            )
