"""Claim, fence, close, rescue: the transactions on which the promises rest."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import text

from service.delivery.worker import rescue_errors
from service.ledger import Ledger, LedgerUnavailable
from service.ledger.accepting import Accepted, Busy, IdempotencyKey, KeyReused, Replayed
from service.ledger.pace import LaneLimits
from service.ledger.states import Status
from tests.builders import a_closing, a_submission, claim, lost_behind_the_dot
from tests.waiting import eventually

GONE = 0.05  # a lease that has run out when the next statement looks


@pytest.fixture
async def ledger(database_url: str) -> AsyncIterator[Ledger]:
    """A ledger on a database of this test's own."""
    opened = Ledger.open(database_url, name="test", connections=5)
    yield opened
    await opened.dispose()


async def accepted(ledger: Ledger, **changes: Any) -> str:
    submission = a_submission(**changes)
    assert await ledger.accept(submission) == Accepted()
    return submission.messages[0].id


async def status(ledger: Ledger, message_id: str) -> str:
    view = await ledger.message(message_id, application=None)
    assert view is not None
    return view.status


async def rescued(ledger: Ledger, *, uncertain_after: float = 900.0) -> list[str]:
    """Sweep until the lease that ran out is found; return the outcomes."""

    async def sweep() -> list[str]:
        found = await ledger.rescue(uncertain_after=uncertain_after, errors=rescue_errors())
        return [each.outcome for each in found]

    return await eventually(sweep)


async def test_two_claims_never_take_the_same_delivery(ledger: Ledger) -> None:
    """What one worker has in hand is not there for another one."""
    await accepted(ledger)

    first = await claim(ledger, worker="w1")
    second = await claim(ledger, worker="w2")

    assert len(first.claimed) == 1
    assert second.claimed == ()


async def test_a_claim_that_is_given_up_in_the_middle_takes_nothing_and_keeps_nobody_waiting(
    ledger: Ledger,
) -> None:
    """Its transaction is gone, and so is its connection: the next one finds everything as it was."""
    message_id = await accepted(ledger)
    async with ledger._engine.connect() as other:
        await other.execute(
            text("SELECT 1 FROM recipients WHERE message_id = :id FOR UPDATE"), {"id": message_id}
        )
        for _ in range(6):  # more than there are connections
            with pytest.raises((TimeoutError, LedgerUnavailable)):
                async with asyncio.timeout(0.2):
                    await claim(ledger)

    taken = await claim(ledger)

    assert [each.message_id for each in taken.claimed] == [message_id]
    assert taken.claimed[0].number == 1


async def test_the_fence_lets_the_holder_of_the_lease_through(ledger: Ledger) -> None:
    """With a living lease the dot may leave, and the ledger knows of it."""
    message_id = await accepted(ledger)
    (claimed,) = (await claim(ledger)).claimed

    assert await ledger.fence(claimed.attempt_id) is True
    (attempt,) = await ledger.attempts(message_id)
    assert attempt.phase == "dot"


async def test_a_lost_lease_does_not_pass_the_fence(ledger: Ledger) -> None:
    """After its lease a worker gets no dot, whether the sweep has come or not."""
    message_id = await accepted(ledger)
    (claimed,) = (await claim(ledger, lease=GONE)).claimed

    outcomes = await rescued(ledger)

    assert outcomes == ["deferred"]
    assert await ledger.fence(claimed.attempt_id) is False
    assert await status(ledger, message_id) == "deferred"


async def test_a_lease_that_is_over_does_not_pass_the_fence_before_the_sweep(ledger: Ledger) -> None:
    """The attempt is still open and nobody has judged it: PostgreSQL's clock alone says no."""
    message_id = await accepted(ledger)
    (claimed,) = (await claim(ledger, lease=GONE)).claimed

    await asyncio.sleep(4 * GONE)

    assert await ledger.fence(claimed.attempt_id) is False
    (attempt,) = await ledger.attempts(message_id)
    assert (attempt.outcome, attempt.phase) == (None, "connect")


@pytest.mark.parametrize("on_uncertain", ["resend", "hold"])
async def test_a_worker_lost_after_the_dot_leaves_uncertainty(ledger: Ledger, on_uncertain: str) -> None:
    """Behind the fence a lost lease is `uncertain`; only `resend` is due again by itself."""
    message_id = await accepted(ledger, on_uncertain=on_uncertain)
    await lost_behind_the_dot(ledger)

    outcomes = await rescued(ledger, uncertain_after=60.0)
    view = await ledger.message(message_id, application=None)

    assert outcomes == ["uncertain"]
    assert view is not None
    assert view.status == "uncertain"
    assert (view.recipients[0].next_attempt_at is not None) == (on_uncertain == "resend")


async def test_a_late_reply_moves_uncertain_to_its_verdict(ledger: Ledger) -> None:
    """The worker was slow, not dead: its reply still counts, and the attempt says `sent`."""
    message_id = await accepted(ledger)
    claimed = await lost_behind_the_dot(ledger)
    await rescued(ledger)

    await ledger.close(a_closing(claimed))

    (attempt,) = await ledger.attempts(message_id)
    assert await status(ledger, message_id) == "sent"
    assert attempt.outcome == "sent"
    assert (await claim(ledger)).claimed == ()


async def test_a_late_reply_does_not_hide_a_resend(ledger: Ledger) -> None:
    """When the resend has begun, the first attempt stays `uncertain`: it explains the second copy."""
    message_id = await accepted(ledger)
    first = await lost_behind_the_dot(ledger)
    await rescued(ledger, uncertain_after=0.0)
    (second,) = (await claim(ledger)).claimed

    await ledger.close(a_closing(first))
    await ledger.close(a_closing(second))

    outcomes = [attempt.outcome for attempt in await ledger.attempts(message_id)]
    assert outcomes == ["uncertain", "sent"]
    assert await status(ledger, message_id) == "sent"


async def test_a_delivery_that_kills_its_workers_is_held(ledger: Ledger) -> None:
    """After a lost lease it is carried alone, and after three lost alone a person has to look."""
    poison = await accepted(ledger)
    (first,) = (await claim(ledger, lease=GONE)).claimed
    await rescued(ledger)
    assert first.alone is False

    for _ in range(3):
        (suspect,) = (await claim(ledger, lease=GONE)).claimed
        assert suspect.message_id == poison
        assert suspect.alone is True
        await rescued(ledger)

    view = await ledger.message(poison, application=None)
    assert view is not None
    assert view.status == "held"
    assert view.recipients[0].reason == "crashed_repeatedly"
    innocent = await accepted(ledger, to=("bea@example.com",))
    (other,) = (await claim(ledger)).claimed
    assert other.message_id == innocent


async def test_who_was_acquitted_is_not_blamed(ledger: Ledger) -> None:
    """A suspect beside which others were claimed is no longer alone: losing its lease brings it no nearer to `held`."""
    suspect = await accepted(ledger)
    for _ in range(5):
        (taken,) = (await claim(ledger, lease=GONE)).claimed
        await ledger.acquit(taken.attempt_id)
        await rescued(ledger)

    assert await status(ledger, suspect) == "deferred"
    (again,) = (await claim(ledger)).claimed
    assert (again.alone, again.lost) == (True, 5)
    await ledger.close(a_closing(again, Status.SENT))
    assert not await ledger.acquit(again.attempt_id)


async def test_a_worker_with_a_suspect_in_hand_takes_the_innocent_only(ledger: Ledger) -> None:
    """One suspect a process: the others go past it."""
    await accepted(ledger)
    await claim(ledger, lease=GONE)
    await rescued(ledger)
    innocent = await accepted(ledger, to=("bea@example.com",))

    taken = await claim(ledger, suspects=False)

    assert [each.message_id for each in taken.claimed] == [innocent]
    assert (await claim(ledger, suspects=False)).claimed == ()


async def test_limits_count_what_runs_and_what_ended(ledger: Ledger) -> None:
    """Two a minute: a running and an ended message use them up, and the claim says when to come again."""
    limits = LaneLimits(
        connections=10, messages_per_minute=2, messages_per_hour=None, recipients_per_day=None
    )
    for n in range(3):
        await accepted(ledger, to=(f"user{n}@example.com",))

    first = (await claim(ledger, more=1, limits=limits)).claimed[0]
    await ledger.close(a_closing(first))
    second = await claim(ledger, limits=limits)
    third = await claim(ledger, limits=limits)

    assert len(second.claimed) == 1
    assert third.claimed == ()
    assert third.again_in is not None
    assert 50 < third.again_in <= 60


async def test_recipients_of_a_day_are_counted_one_by_one(ledger: Ledger) -> None:
    """A delivery of three recipients waits when the day leaves room for two."""
    limits = LaneLimits(
        connections=10, messages_per_minute=None, messages_per_hour=None, recipients_per_day=5
    )
    three = ("a@example.com", "b@example.com", "c@example.com")
    await accepted(ledger, to=three)
    await accepted(ledger, to=three)

    taken = await claim(ledger, limits=limits)

    assert len(taken.claimed) == 1
    assert (await claim(ledger, limits=limits)).claimed == ()


async def test_seats_are_shared_by_all_workers(ledger: Ledger) -> None:
    """A seat that one worker holds is missing to the other, until it is given back."""
    limits = LaneLimits(
        connections=1, messages_per_minute=None, messages_per_hour=None, recipients_per_day=None
    )
    await accepted(ledger)
    await accepted(ledger)
    (held,) = (await claim(ledger, worker="w1", limits=limits)).claimed
    assert held.seat is not None

    without = await claim(ledger, worker="w2", limits=limits)
    await ledger.give_back([held.seat])
    granted = await claim(ledger, worker="w2", limits=limits)

    assert without.claimed == ()
    assert len(granted.claimed) == 1


async def test_an_expired_message_is_given_up_and_uncertain_hold_is_not(ledger: Ledger) -> None:
    """`expires_at` ends what waits; what waits for a person stays."""
    waiting = await accepted(ledger, expires_in=0.2)
    asked = await accepted(ledger, expires_in=1.0, on_uncertain="hold", lane="other")
    (claimed,) = (await claim(ledger, lane="other")).claimed
    await ledger.close(a_closing(claimed, Status.UNCERTAIN))

    async def both_over() -> bool:
        await ledger.expire(errors=rescue_errors())
        return await status(ledger, waiting) == "expired"

    await eventually(both_over)
    assert await status(ledger, asked) == "uncertain"


async def test_a_group_that_fails_spares_the_others(ledger: Ledger) -> None:
    """One message that PostgreSQL refuses does not cost its neighbours in the same group."""
    good, bad = a_submission(), a_submission(on_uncertain="nonsense")

    answers = await asyncio.gather(
        ledger.accept(a_submission()), ledger.accept(bad), ledger.accept(good), return_exceptions=True
    )

    assert answers[0] == answers[2] == Accepted()
    assert isinstance(answers[1], Exception)


async def test_an_idempotency_key_is_reserved_with_the_message(ledger: Ledger) -> None:
    """The same request is replayed, another body is refused, another application is free."""
    key = IdempotencyKey(path="/messages", key="k", sha256="1" * 64)
    first = a_submission(idempotency=key)

    answers = [
        await ledger.accept(first),
        await ledger.accept(a_submission(idempotency=key)),
        await ledger.accept(
            a_submission(idempotency=IdempotencyKey(path="/messages", key="k", sha256="2" * 64))
        ),
    ]

    assert answers == [Accepted(), Replayed(first.reservations[0].answer), KeyReused()]
    assert not isinstance(answers[1], Busy)


@pytest.mark.parametrize("how", ["its worker died", "a planned restart"])
async def test_what_was_in_hand_keeps_its_place(ledger: Ledger, how: str) -> None:
    """A delivery that its worker could not finish goes before what has waited behind it, not after all of it."""
    first = await accepted(ledger)
    (taken,) = (await claim(ledger, lease=GONE if how == "its worker died" else 30.0)).claimed
    behind = [await accepted(ledger, to=(f"{n}@example.com",)) for n in range(3)]
    if how == "its worker died":
        await rescued(ledger)
    else:
        await ledger.close(
            a_closing(
                taken,
                Status.QUEUED,
                due_in=0.0,
                error={"code": "aborted"},
                reply=None,
            )
        )

    (again,) = (await claim(ledger, more=1)).claimed

    assert again.message_id == first
    assert [each.message_id for each in (await claim(ledger)).claimed] == behind
