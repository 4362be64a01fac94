"""The desk: what every way of sending has in common, from what was asked to what was committed.

    asked ──> addressed ──> rendered ──> composed and planned ──> answered ──> one transaction ──> rung

`POST /messages`, a batch, a merge, the plan, and the shape of another API over it differ in how they read
a request and write an answer; what happens between stands here, once.

All the messages of a request are accepted in one transaction, or none is. A message that cannot be
accepted is a `Problem` in its place; whoever calls decides whether the others go (`strict`). Messages
with idempotency keys of their own that were seen before are answered as they were the first time.

The answer is written before the transaction and stored with it, so a repeated request gets it again.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import structlog

from service.ledger.accepting import (
    Accepted,
    Busy,
    IdempotencyKey,
    KeyReused,
    NewMessage,
    OverQuota,
    Replayed,
    Reservation,
    Submission,
)
from service.ledger.keys import Key
from service.ledger.quotas import SECONDS, Allowance, Use
from service.routes.choice import Rest
from service.submission import representation
from service.submission.door import SMALL, Budget, Door
from service.submission.history import expectations
from service.submission.intake.contents import Contents
from service.submission.intake.in_hand import InHand, in_progress
from service.submission.intake.messages import Addressed, Asked, Intake, recipients_named
from service.submission.problems import FieldError, Problem, invalid, rate_limit, unprocessable
from service.submission.sharing import Readings
from service.submission.suppressing.suppressions import Suppressed, error_of
from service.telemetry import figures, logs

log = structlog.get_logger()

Result = TypeVar("Result")

#: The path of keys that messages of a batch or a merge have of their own.
_OF_ITEMS = "/messages[]"

#: How often a request is judged again because one of its messages' keys was taken meanwhile.
_ROUNDS = 3

#: A full queue still takes an application's messages while it has less than this share of it waiting.
_FAIR_SHARE = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What became of a request's messages, in their order."""

    results: Sequence[dict[str, Any] | Problem]
    uses: tuple[Use, ...] = ()
    text: str | None = None  # the answer as it is stored, where the request has a key

    def headers(self) -> dict[str, str]:
        """Say what is left of the key's quota."""
        return quota_headers(self.uses)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeated:
    """The whole request was seen before."""

    answer: str


@dataclass(slots=True)
class _Traffic:
    waiting: Mapping[str, int]  # deliveries, by application
    resting: Mapping[str, Rest]  # by lane
    since: Counter[str] = field(default_factory=Counter)  # accepted here since then, by application

    def of(self, application: str) -> int:
        return self.waiting.get(application, 0) + self.since[application]

    def total(self) -> int:
        return sum(self.waiting.values()) + self.since.total()


class Desk:
    """Takes messages."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._ledger = door.ledger
        self._intake = Intake(book=door.book, limits=door.limits, clock=door.clock)
        self._expectations = expectations.Expectations(door.ledger, door.lane_limits)
        self._contents = Contents(door)
        self._suppressed = Suppressed(door.ledger)
        self._in_hand = InHand()
        self.waiters = 0  # requests that wait for their messages' end
        self._traffic: Readings[_Traffic] = Readings(most=1)

    # -- taking ----------------------------------------------------------------------------

    async def once(
        self,
        key: Key,
        wanted: IdempotencyKey | None,
        budget: Budget,
        serve: Callable[[], Awaitable[Result]],
    ) -> Result | Repeated:
        """Serve a request that may have been seen before; `wanted` is its key.

        A repeated request gets its first answer, whatever would be said to it now: a refusal of what is asked
        for does not count before the answer has been looked for. Most requests are new, so those whose key
        is not known here are served first, and the ledger itself says where one is not new.
        """
        if wanted is None:
            return await serve()
        looked = self._in_hand.used(key.application, wanted)
        if looked and (repeated := await self._seen(key, wanted, budget)) is not None:
            return repeated
        try:
            return await serve()
        except Problem:
            repeated = None if looked else await self._seen(key, wanted, budget)
            if repeated is None:
                raise
            return repeated

    async def _seen(self, key: Key, wanted: IdempotencyKey, budget: Budget) -> Repeated | None:
        """Find the first answer to a request that is repeated; raises a 422 problem where it is another one."""
        found = (await budget.spend(self._ledger.replay(key.application, [wanted]))).get(wanted)
        if found is None:
            return None
        self._in_hand.use(key.application, wanted)
        if isinstance(found, KeyReused):
            raise reused()
        return Repeated(answer=found.answer)

    async def take(
        self,
        asked: Sequence[Asked],
        key: Key,
        budget: Budget,
        *,
        request: IdempotencyKey | None = None,
        one: bool = False,
        strict: bool = True,
        request_id: str = "",
        weight: int = 0,
        refused: Mapping[int, Problem] | None = None,
    ) -> Taken | Repeated:
        """Accept messages, all in one transaction.

        `request` is the key of the request as a whole; its answer is the one message (`one`) or the list
        of all. `strict` raises a problem where one message has one; otherwise it stands in its place.
        `weight` is the request's size in octets. `refused` has what could not even be read, by its place
        in the list. Raises Problem.
        """
        _distinct(asked)
        keys = [_item_key(each) for each in asked if each.idempotency_key is not None]
        keys += [] if request is None else [request]
        waited = await self._in_hand.free(key.application, keys)
        with self._in_hand.holding(key.application, keys):
            if waited and request is not None:
                repeated = await self._seen(key, request, budget)
                if repeated is not None:
                    return repeated
            return await self._take(
                asked, key, budget, request=request, one=one, strict=strict, request_id=request_id,
                weight=weight, refused=refused or {},
            )  # fmt: skip

    async def _take(
        self,
        asked: Sequence[Asked],
        key: Key,
        budget: Budget,
        *,
        request: IdempotencyKey | None,
        one: bool,
        strict: bool,
        request_id: str,
        weight: int,
        refused: Mapping[int, Problem],
    ) -> Taken | Repeated:
        for _ in range(_ROUNDS):
            traffic = await self._look(budget)
            known = await self._known(asked, key, budget)
            fresh = [each for each in asked if each not in known]
            composed = await self._composed(
                fresh, key, budget, request=request, resting=traffic.resting, weight=weight
            )
            results: dict[Asked, NewMessage | dict[str, Any] | Problem] = {**known, **composed}
            wrong = {each: found for each, found in results.items() if isinstance(found, Problem)}
            if wrong and strict:
                raise _all_of(wrong)
            messages = {each: found for each, found in results.items() if isinstance(found, NewMessage)}
            self._room_in_queue(traffic, key.application)
            shown = {each: await self._shown(message, budget) for each, message in messages.items()}
            ordered = _placed([_plain(shown.get(each) or results[each]) for each in asked], refused)
            if not messages:
                return Taken(results=ordered)
            whole = _whole(request, ordered, one=one, request_id=request_id)
            submission = Submission(
                messages=list(messages.values()),
                reservations=[*_reservations(messages, shown), *whole],
                quota=allowances(key),
            )
            budget.extend(submission.octets() / 5_000_000)
            with self._made(submission, weight):
                outcome = await budget.spend(self._ledger.accept(submission))
            if isinstance(outcome, Accepted):
                self._accepted(messages.values(), traffic)
                if request is not None:
                    self._in_hand.use(key.application, request)
                return Taken(results=ordered, uses=outcome.uses, text=whole[0].answer if whole else None)
            if isinstance(outcome, OverQuota):
                raise over_quota(outcome, asked=list(messages))
            if isinstance(outcome, Busy):
                break
            # A key was taken meanwhile, by another process.
            if request is not None and (repeated := await self._seen(key, request, budget)) is not None:
                return repeated
        raise in_progress()

    def _made(self, submission: Submission, weight: int) -> AbstractContextManager[None]:
        """Count what a request for many messages has become: a merge has its attachments in each copy."""
        if len(submission.messages) == 1:
            return nullcontext()
        made = sum(len(message.octets) for message in submission.messages)
        return self._door.bodies.composed(submission.application, made, of=weight)

    async def plan(self, asked: Sequence[Asked], key: Key, budget: Budget) -> list[dict[str, Any]]:
        """Say what would happen to these messages; nothing is accepted. Raises Problem."""
        traffic = await self._look(budget)
        composed = await self._composed(asked, key, budget, resting=traffic.resting, weight=SMALL + 1)
        refused = {each: found for each, found in composed.items() if isinstance(found, Problem)}
        if refused:
            raise _all_of(refused)
        plans = []
        for message in composed.values():
            assert isinstance(message, NewMessage), "the problems were raised"
            shown = await self._shown(message, budget)
            plans.append({
                "object": "plan",
                **dict(message.plan),
                "route": shown["route"],
                "lane": shown["lane"],
                "expected_at": shown["expected_at"],
                "expected_because": shown["expected_because"],
                "message": {**shown, "id": None},
            })  # fmt: skip
        return plans

    async def _known(
        self, asked: Sequence[Asked], key: Key, budget: Budget
    ) -> dict[Asked, dict[str, Any] | Problem]:
        """Find the messages whose own keys were seen before."""
        keys = {each: _item_key(each) for each in asked if each.idempotency_key is not None}
        if not keys:
            return {}
        seen = await budget.spend(self._ledger.replay(key.application, list(keys.values())))
        found: dict[Asked, dict[str, Any] | Problem] = {}
        for each, wanted in keys.items():
            answer = seen.get(wanted)
            if isinstance(answer, Replayed):
                found[each] = json.loads(answer.answer)
            elif isinstance(answer, KeyReused):
                error = FieldError(pointer="/idempotency_key", code="idempotency_key_reused", detail=_REUSED)
                found[each] = each.misplaced(replace(reused(), errors=[error]))
        return found

    async def _composed(
        self,
        asked: Sequence[Asked],
        key: Key,
        budget: Budget,
        *,
        resting: Mapping[str, Rest],
        weight: int,
        request: IdempotencyKey | None = None,
    ) -> dict[Asked, NewMessage | Problem]:
        """Read, render and compose each message; what is wrong with one is in its place."""
        found: dict[Asked, NewMessage | Problem] = {}
        addressed: list[Addressed] = []
        limits = self._door.limits
        if len(asked) > 1 and sum(map(recipients_named, asked)) > limits.recipients_together:
            detail = (
                f"The messages of one request may have {limits.recipients_together:,} recipients together."
            )
            raise unprocessable(_list_of(asked), "too_many_recipients", detail)

        def read() -> None:
            for each in asked:
                try:
                    addressed.append(self._intake.address(each, key))
                except Problem as problem:
                    found[each] = each.misplaced(problem)

        await self._door.off_loop(weight, read)
        contents = await self._contents.of(addressed, key, budget)
        keys = {recipient.mailbox.address.key for each in addressed for recipient in each.recipients}
        entries = await self._suppressed.among(key.application, keys, budget)
        suppressed = {address: error_of(entry) for address, entry in entries.items()}

        traceparent = logs.traceparent()  # a thread has not its own

        def work() -> None:
            octets = 0
            for each in addressed:
                content = contents.get(each)
                try:
                    if isinstance(content, Problem):
                        raise content  # placed as the others are
                    message = found[each.asked] = self._intake.compose(
                        each,
                        key,
                        content=content,
                        resting=resting,
                        suppressed=suppressed,
                        request_key=None if request is None else request.key,
                        traceparent=traceparent,
                    )
                except Problem as problem:
                    found[each.asked] = each.asked.misplaced(problem)
                    continue
                octets += len(message.octets)
                if octets > limits.together_octets:  # a merge has its attachments in each copy
                    raise _too_large(limits.together_octets)

        await self._door.off_loop(max(weight, len(addressed) * SMALL), work)
        return {each: found[each] for each in asked}

    async def _shown(self, message: NewMessage, budget: Budget) -> dict[str, Any]:
        expectation = await self._expectations.of_new(message, budget)
        return representation.new_message(message, expectation)

    # -- the queue --------------------------------------------------------------------------

    async def _look(self, budget: Budget) -> _Traffic:
        """Look at how much waits and which lanes rest; once a second is enough."""
        found = self._traffic.now("traffic", self._read_traffic)
        return (
            found
            if found is not None
            else await budget.spend(self._traffic.read("traffic", self._read_traffic))
        )

    async def _read_traffic(self) -> _Traffic:
        waiting = await self._ledger.waiting(most=2 * self._door.limits.queue_limit)
        resting = await self._ledger.resting()
        return _Traffic(
            waiting=waiting,
            resting={
                lane: Rest(until=rest.until, because=expectations.reason(rest.error))
                for lane, rest in resting.items()
            },
        )

    def _room_in_queue(self, traffic: _Traffic, application: str) -> None:
        """Close the door while too much waits; who has little waiting is let in for longer."""
        limit = self._door.limits.queue_limit
        own, total = traffic.of(application), traffic.total()
        share = max(limit // _FAIR_SHARE, 1)
        if own < share and total < 2 * limit:
            return
        if total >= limit:
            raise Problem(
                status=503,
                code="queue_full",
                detail="Too many messages wait to be sent; nothing more is taken until some have gone.",
                retry_after=30,
                headers=rate_limit([("queue", limit, limit - total, 30, 30)]),
            )

    def _accepted(self, messages: Collection[NewMessage], traffic: _Traffic) -> None:
        lanes: set[str] = set()
        for message in messages:
            # A drain that rests has to hear of a message that is due later than it meant to look again, too.
            lanes.update(delivery.lane for delivery in message.deliveries)
            traffic.since[message.application] += len(message.deliveries)
            figures.ACCEPTED.add(representation.PRIORITIES[message.priority])
            figures.ACCEPTED_BYTES.add(representation.PRIORITIES[message.priority], by=len(message.octets))
            log.info(
                "message.accepted",
                message=message.id,
                application=message.application,
                size=len(message.octets),
            )
        self._door.ring(lanes)


# -- keys ------------------------------------------------------------------------------------

_REUSED = "This idempotency key was used with another request; a new request needs a new key."


def reused() -> Problem:
    """Refuse a key that came with another body before."""
    return Problem(status=422, code="idempotency_key_reused", detail=_REUSED)


def _too_large(most: int) -> Problem:
    detail = f"The messages of one request may have {most:,} octets together: send fewer at a time."
    return Problem(status=413, code="request_too_large", detail=detail)


def _item_key(asked: Asked) -> IdempotencyKey:
    """Name a message's own key, with what it stands for."""
    assert asked.idempotency_key is not None
    members = asked.shape.model_dump(mode="json", exclude={"idempotency_key"}, exclude_unset=True)
    written = json.dumps([members, dict(asked.variables)], sort_keys=True, ensure_ascii=True)
    return IdempotencyKey(
        path=_OF_ITEMS, key=asked.idempotency_key, sha256=hashlib.sha256(written.encode()).hexdigest()
    )


def _reservations(messages: Collection[Asked], shown: Mapping[Asked, Mapping[str, Any]]) -> list[Reservation]:
    return [
        Reservation(key=_item_key(each), answer=representation.written(shown[each]))
        for each in messages
        if each.idempotency_key is not None
    ]


def _whole(
    request: IdempotencyKey | None,
    results: Sequence[dict[str, Any] | Problem],
    *,
    one: bool,
    request_id: str,
) -> list[Reservation]:
    if request is None:
        return []
    shown = results[0] if one else answer(results, request_id=request_id)
    assert not isinstance(shown, Problem), "a single message's problem is raised"
    return [Reservation(key=request, answer=representation.written(shown))]


def answer(results: Sequence[dict[str, Any] | Problem], *, request_id: str) -> dict[str, Any]:
    """Write the list of what became of each message."""
    data = [
        {"object": "problem", "index": index, **each.body(request_id)} if isinstance(each, Problem) else each
        for index, each in enumerate(results)
    ]
    return {"object": "list", "data": data, "has_more": False, "next": None}


def _plain(found: NewMessage | dict[str, Any] | Problem) -> dict[str, Any] | Problem:
    assert not isinstance(found, NewMessage), "every new message is shown"
    return found


def _placed(
    results: Sequence[dict[str, Any] | Problem], refused: Mapping[int, Problem]
) -> list[dict[str, Any] | Problem]:
    """Put what could not be read in its places among the others."""
    placed = list(results)
    for index in sorted(refused):
        placed.insert(index, refused[index])
    return placed


def _distinct(asked: Sequence[Asked]) -> None:
    """Refuse two messages of one request under one key."""
    first: dict[str, Asked] = {}
    for each in asked:
        if each.idempotency_key is None:
            continue
        if first.setdefault(each.idempotency_key, each) is not each:
            detail = "Another message of this request has the same idempotency key."
            error = FieldError(pointer="/idempotency_key", code="duplicate_idempotency_key", detail=detail)
            raise each.misplaced(invalid([error]))


def _all_of(refused: Mapping[Asked, Problem]) -> Problem:
    """Say in one problem what is wrong with several messages."""
    problems = list(refused.values())
    errors = list(dict.fromkeys(error for problem in problems for error in problem.errors))
    if len(problems) == 1 or len(errors) == 1 or any(problem.status != 422 for problem in problems):
        return next((problem for problem in problems if problem.status != 422), problems[0])
    return invalid(errors[:100])


def _list_of(asked: Sequence[Asked]) -> str:
    """Point at the list in which the messages of a request stand."""
    return "/merge" if asked[0].at[:1] == ("merge",) else ""


# -- quotas ----------------------------------------------------------------------------------


def allowances(key: Key) -> tuple[Allowance, ...]:
    """List what the key may send."""
    given = (("minute", key.messages_per_minute), ("day", key.messages_per_day))
    return tuple(Allowance(span=span, most=most) for span, most in given if most is not None)


def quota_headers(uses: Sequence[Use]) -> dict[str, str]:
    """Say what is left of a key's quota; nothing where it has none."""
    if not uses:
        return {}
    return rate_limit([
        (use.span, use.most, use.left, SECONDS[use.span], math.ceil(use.resets_in)) for use in uses
    ])  # fmt: skip


def over_quota(found: OverQuota, *, asked: Sequence[Asked]) -> Problem:
    """Refuse what would go beyond the key's quota: now, or whenever it is asked for."""
    for use in found.uses:
        if use.most < len(asked):
            detail = (
                f"This key may send {use.most:,} messages a {use.span}; these are {len(asked):,} at once."
            )
            return unprocessable(_list_of(asked), "more_than_quota", detail)
    tightest = max((use for use in found.uses if use.left <= 0), key=lambda use: use.resets_in, default=None)
    if tightest is None:
        tightest = min(found.uses, key=lambda use: use.left)
    return Problem(
        status=429,
        code="quota_exceeded",
        detail=f"This key may send {tightest.most:,} messages a {tightest.span}, and {tightest.left:,} are left.",
        retry_after=max(math.ceil(tightest.resets_in), 1),
        headers=quota_headers(found.uses),
    )
