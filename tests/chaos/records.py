"""The count: three records that know nothing of each other are laid side by side, message by message.

    account = await count(world, peers)                    # of all that was submitted, or of some `keys`
    run.row("…", figures=account.figures(), promise="1, 2, 7, 8", wrong=account.wrong)

The records are what HTTP answered (`Clients.answers`), what the peers wrote down before they answered, and what the
ledger says. What must hold between them:

- *nothing lost*: each 202 names a message that can be read and is at its end; `sent` only where the peer took it;
- *no unexplained copy*: of each recipient the peer took at most one more than its `uncertain` attempts, and with
  `hold` never more than one; the octets of all copies are the same;
- *the ledger is the wire*: each transaction that a peer saw has exactly one attempt, with the same recipients,
  replies and octets; an attempt that claims a reply has heard it; no dot without a fence;
- *one key, one message*: whatever was answered, and how often;
- every rule of `tests.invariants`.

A transaction finds its attempt by the address and port that the session came from and its place in that session; a
worker that was killed could not write these down, and then the order decides.
"""

import asyncio
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from service.smtp.phase import Phase
from service.smtp.reply import readable
from tests.chaos.clients import Answer, Letter
from tests.chaos.world import World
from tests.invariants import broken
from tests.peer import ScriptedPeer, Taken, Transaction

_TERMINAL = frozenset({"sent", "delivered", "bounced", "failed", "expired", "canceled", "suppressed"})

_MESSAGES = """
    SELECT m.id, m.idempotency_key AS key, m.on_uncertain, m.sha256, m.size, r.email, r.status, r.reason, r.tries
      FROM messages m JOIN recipients r ON r.message_id = m.id
     WHERE $1::text[] IS NULL OR m.idempotency_key = ANY($1) ORDER BY m.id, r.position
"""

_ATTEMPTS = """
    SELECT a.id, a.number, a.delivery_id, a.phase, a.outcome, a.recipients, a.reply, a.error ->> 'code' AS fault,
           a.session_id, a.session_message, a.size, a.sha256, a.started_at, m.idempotency_key AS key,
           s.facts ->> 'local_address' AS client
      FROM attempts a JOIN messages m ON m.id = a.message_id LEFT JOIN sessions s ON s.id = a.session_id
     WHERE $1::text[] IS NULL OR m.idempotency_key = ANY($1) ORDER BY a.id
"""


@dataclass(slots=True, kw_only=True)
class Account:
    """What the three records say together; `wrong` is empty where they agree and every promise held."""

    answers: int = 0  # of HTTP
    messages: int = 0
    transactions: int = 0  # that the peers saw
    copies: int = 0  # that they took, by recipient
    outcomes: Counter[str] = field(default_factory=Counter)  # of attempts
    faults: Counter[str] = field(default_factory=Counter)  # of attempts: their error's code
    statuses: Counter[str] = field(default_factory=Counter)  # of recipients
    most_tries: int = 0  # of a recipient
    wrong: list[str] = field(default_factory=list)

    def figures(self) -> str:
        """Write the figures in a line."""
        attempts = ", ".join(f"{count} {name}" for name, count in sorted(self.outcomes.items()))
        ends = ", ".join(f"{count} {name}" for name, count in sorted(self.statuses.items()))
        return (
            f"{self.messages} messages, {self.answers} answers; {self.transactions} transactions, {self.copies}"
            f" copies; attempts: {attempts or 'none'}; recipients: {ends or 'none'}"
        )


async def count(
    world: World, peers: Sequence[ScriptedPeer], *, keys: Collection[str] | None = None
) -> Account:
    """Lay the records side by side: of all that was submitted, or of these keys."""
    chosen = None if keys is None else list(keys)
    letters = [world.clients.letters[key] for key in (chosen or world.clients.letters)]
    messages = _by_key(await world.query(_MESSAGES, chosen))
    attempts = _by_key(await world.query(_ATTEMPTS, chosen))
    answers = defaultdict(list)
    for answer in world.clients.answers:
        answers[answer.key].append(answer)
    readable = await _readable(world, [each.key for each in letters], answers)
    wire = _Wire(peers)
    account = Account()
    for letter in letters:
        story = _Story(
            account=account,
            letter=letter,
            answers=answers[letter.key],
            recipients=messages.get(letter.key, []),
            attempts=attempts.get(letter.key, []),
            wire=wire,
        )
        story.judge(readable.get(letter.key))
    account.wrong += [f"{rule}: {found[:3]}" for rule, found in (await broken(world.database_url)).items()]
    return account


def _by_key(rows: Iterable[Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        found[row["key"]].append(row)
    return found


async def _readable(
    world: World, keys: Sequence[str], answers: Mapping[str, Sequence[Answer]]
) -> dict[str, Mapping[str, Any]]:
    """Read by HTTP what was answered with a 202, by key."""
    found: dict[str, Mapping[str, Any]] = {}
    several = asyncio.Semaphore(8)

    async def read(key: str, message_id: str) -> None:
        async with several:
            status, content = await world.clients.get(f"/messages/{message_id}")
        if status == 200:
            found[key] = content

    ids = {key: next((each.id for each in answers[key] if each.id), None) for key in keys}
    await asyncio.gather(*(read(key, message_id) for key, message_id in ids.items() if message_id))
    return found


class _Wire:
    """What all peers wrote down, found by what is nobody else's."""

    def __init__(self, peers: Sequence[ScriptedPeer]) -> None:
        self.transactions: dict[str, list[Transaction]] = defaultdict(list)  # by sender, in their order
        self.places: dict[int, int] = {}  # of a transaction in its session, from 1
        self.taken: dict[str, list[Taken]] = defaultdict(list)  # by recipient
        for peer in peers:
            sessions: Counter[int] = Counter()
            for transaction in peer.transactions:
                sessions[transaction.session] += 1
                self.places[id(transaction)] = sessions[transaction.session]
                self.transactions[transaction.mail].append(transaction)
            for taken in peer.taken:
                for recipient in taken.rcpts:
                    self.taken[recipient].append(taken)
        for each in self.transactions.values():
            each.sort(key=lambda transaction: transaction.begun_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Story:
    """All that is known of one message."""

    account: Account
    letter: Letter
    answers: Sequence[Answer]
    recipients: Sequence[Any]
    attempts: Sequence[Any]
    wire: _Wire

    def judge(self, read: Mapping[str, Any] | None) -> None:
        """Add what this message shows to the account; `read` is what HTTP says of it now."""
        account = self.account
        account.answers += len(self.answers)
        account.messages += len({row["id"] for row in self.recipients})
        account.outcomes.update(str(row["outcome"]) for row in self.attempts)
        account.faults.update(row["fault"] for row in self.attempts if row["fault"])
        account.statuses.update(row["status"] for row in self.recipients)
        account.transactions += len(self._seen)
        account.most_tries = max([account.most_tries, *(row["tries"] for row in self.recipients)])
        self._one_key_one_message()
        self._nothing_lost(read)
        self._copies()
        self._the_ledger_is_the_wire()

    def _wrong(self, what: str) -> None:
        self.account.wrong.append(f"{self.letter.key}: {what}")

    @property
    def _seen(self) -> Sequence[Transaction]:
        return self.wire.transactions.get(self.letter.sender, [])

    def _one_key_one_message(self) -> None:
        answered = {each.id for each in self.answers if each.id}
        stored = {row["id"] for row in self.recipients}
        if len(answered) > 1 or len(stored) > 1:
            self._wrong(f"several messages under one key: {answered | stored}")
        if answered and stored != answered:
            self._wrong(f"answered with {answered}, and the ledger has {stored or 'none'}")
        for each in self.answers:
            if each.status not in {None, 202, 409, 429, 503}:
                self._wrong(f"answered {each.status} {each.code}")

    def _nothing_lost(self, read: Mapping[str, Any] | None) -> None:
        if any(each.id for each in self.answers) and read is None:
            self._wrong("lost: answered 202, and not to be read")
        shown = {each["email"]: each["status"] for each in read["recipients"]} if read else {}
        for row in self.recipients:
            status = row["status"]
            waits = status == "uncertain" and row["on_uncertain"] == "hold"
            if status not in _TERMINAL and not waits:
                self._wrong(f"lost: {status} for ever ({row['reason']})")
            if read and shown.get(row["email"]) != status:
                self._wrong(f"HTTP says {shown.get(row['email'])}, the ledger {status}")
            if status == "sent" and not self.wire.taken.get(row["email"]):
                self._wrong(f"lost: {row['email']} is sent, and the peer has never taken it")

    def _copies(self) -> None:
        for row in self.recipients:
            taken = self.wire.taken.get(row["email"], [])
            self.account.copies += len(taken)
            doubts = sum(
                each["outcome"] == "uncertain" and row["email"] in _addresses(each) for each in self.attempts
            )
            allowed = 1 if row["on_uncertain"] == "hold" else 1 + doubts
            if len(taken) > allowed:
                self._wrong(f"{len(taken)} copies, {doubts} uncertain attempts, {row['on_uncertain']}")
            if taken and row["status"] != "sent" and not doubts:
                self._wrong(f"taken by the peer, and {row['status']} without a doubt")
            if any(hashlib.sha256(each.octets).hexdigest() != row["sha256"] for each in taken):
                self._wrong("the peer took other octets than were accepted")

    def _the_ledger_is_the_wire(self) -> None:
        left = list(self._seen)
        pairs: list[tuple[Any, Transaction | None]] = []
        unnamed = []
        for attempt in self.attempts:
            if attempt["session_message"] is None:
                unnamed.append(attempt)
                continue
            found = [
                each
                for each in left
                if each.client == attempt["client"]
                and self.wire.places[id(each)] == attempt["session_message"]
            ]
            pairs.append((attempt, found[0] if found else None))
            left = [each for each in left if each not in found]
        named, left = by_time([each for each in unnamed if each["fault"] in _LOST], left)
        pairs += named
        for each in left:
            self._wrong(
                f"a transaction of session {each.session} has no attempt ({len(self.attempts)} attempts)"
            )
        for attempt, transaction in pairs:
            self._compare(attempt, transaction)
        for attempt in unnamed:
            if attempt["outcome"] == "sent":
                self._wrong(f"attempt {attempt['number']} is sent, and was on no session")

    def _compare(self, attempt: Any, seen: Transaction | None) -> None:
        """Compare an attempt with its transaction; None: the peer has seen nothing of it."""
        for difference in differences(attempt, seen):
            self._wrong(f"attempt {attempt['number']} ({attempt['outcome']}): {difference}")


#: What an attempt of a worker says that could not write its own closing.
_LOST = frozenset({"lease_lost", "lease_lost_after_dot", "crashed_repeatedly"})


def by_time(
    attempts: Sequence[Any], transactions: Sequence[Transaction]
) -> tuple[list[tuple[Any, Transaction]], list[Transaction]]:
    """Find the transactions of attempts whose worker was killed, and could not say on which session they were.

    A transaction is that of the last attempt for its recipients that had begun before it: an attempt may have been
    lost before it came to a peer, and the next one behind its dot. What belongs to none is given, too.
    """
    free, pairs, left = sorted(attempts, key=lambda each: each["started_at"]), [], []
    for transaction in sorted(transactions, key=lambda each: each.begun_at):
        named = {path for path, _ in transaction.rcpts}
        mine = [
            each
            for each in free
            if each["started_at"] <= transaction.begun_at
            and named <= {recipient["email"] for recipient in json.loads(each["recipients"])}
        ]
        if mine:
            free.remove(mine[-1])
            pairs.append((mine[-1], transaction))
        else:
            left.append(transaction)
    return pairs, left


def differences(attempt: Any, seen: Transaction | None) -> list[str]:
    """Say in what an attempt of the ledger is not what the peer wrote down, field by field."""
    reply = json.loads(attempt["reply"]) if attempt["reply"] else None
    phase = Phase.named(attempt["phase"])
    rcpts = {each["email"]: each["reply"] for each in json.loads(attempt["recipients"])}
    if seen is None:
        heard = reply is not None and phase >= Phase.MAIL and attempt["fault"] not in _OUTSIDE
        return ["it heard a reply, and no peer has seen it"] if heard or attempt["outcome"] == "sent" else []
    found = []
    if unknown := [path for path, _ in seen.rcpts if path not in rcpts]:
        found.append(f"the peer saw {unknown}, who are not in it")
    for path, said in seen.rcpts:
        if (own := rcpts.get(path)) is not None and not same(own, said):
            found.append(f"{path}: the ledger has {own}, the wire {said!r}")
    if seen.dot and phase < Phase.DOT:
        found.append(f"the peer saw a dot, the ledger knows of phase {phase.word}")
    if phase >= Phase.REPLY and not same(reply, seen.final_reply):
        found.append(f"the reply is {reply}, the wire's {seen.final_reply!r}")
    if attempt["outcome"] in {"sent", "partial"}:
        if phase < Phase.REPLY or not (seen.final_reply or "").startswith("2"):
            found.append(f"sent in phase {phase.word}, with {seen.final_reply!r} on the wire")
        found += [f"{path} was not named" for path in rcpts if path not in dict(seen.rcpts)]
        found += [f"{path} has no reply" for path, own in rcpts.items() if own is None]
    if seen.octets is not None:
        if len(seen.octets) != attempt["size"]:
            found.append(f"{attempt['size']} octets, {len(seen.octets)} on the wire")
        if hashlib.sha256(seen.octets).hexdigest() != attempt["sha256"]:
            found.append("the octets are others than those on the wire")
    return found


#: Faults whose reply was no answer to anything of the message: a farewell that came out of turn.
_OUTSIDE = frozenset({"session_expired", "session_ended_behind", "closing"})


def same(reply: Mapping[str, Any] | None, said: str | None) -> bool:
    """Say whether a reply as the ledger keeps it is what the peer said."""
    if reply is None or said is None:
        return reply is None and said is None
    # The ledger keeps replies readable: what is no text is written as U+FFFD there.
    text = readable(said.replace("\n", " "))
    return str(reply["code"]) == said[:3] and all(word in text for word in str(reply["text"]).split())


def _addresses(attempt: Any) -> set[str]:
    return {each["email"] for each in json.loads(attempt["recipients"])}
