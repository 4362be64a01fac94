"""Acts on messages in the ledger: what moves, what does not, and what happens beside running attempts."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from service.delivery.worker import rescue_errors
from service.ledger import Ledger
from service.ledger.acting import ACTS, Act, Busy, Moved, NothingMoved, Reschedule, act
from service.ledger.audit import Actor
from service.ledger.engine import open_engine
from service.ledger.ids import new_id
from service.ledger.rerouting import Reroute
from service.ledger.states import MOVES, Status
from tests.builders import a_closing, a_submission, claim, lost_behind_the_dot
from tests.waiting import eventually

SOMEBODY = Actor(application="tests", id="key_somebody", address="192.0.2.7", request_id="req_1")

THREE = ("ana@example.com", "ben@example.com", "eva@example.com")


@pytest.fixture
async def ledger(database_url: str) -> AsyncIterator[Ledger]:
    """A ledger on a database of this test's own."""
    opened = Ledger.open(database_url, name="test", connections=8)
    yield opened
    await opened.dispose()


async def sql(database_url: str, statement: str, **values: Any) -> list[Any]:
    """Run one statement beside the ledger's functions."""
    engine = open_engine(database_url, name="test-sql", size=1)
    try:
        async with engine.begin() as db:
            found = await db.execute(text(statement), values)
            return list(found.all()) if found.returns_rows else []
    finally:
        await engine.dispose()


async def accepted(ledger: Ledger, **changes: Any) -> str:
    submission = a_submission(**changes)
    await ledger.accept(submission)
    return next(iter(submission.messages)).id


def an_act(message_id: str, deed: str, *positions: int, **changes: Any) -> Act:
    values: dict[str, Any] = {
        "message_id": message_id,
        "deed": deed,
        "positions": frozenset(positions) if positions else None,
        "reason": None,
        "expires_after": timedelta(hours=72),
    }
    return Act(**(values | changes))


async def acted(ledger: Ledger, message_id: str, deed: str, *positions: int, **changes: Any) -> Moved:
    """Act, and see that something moved."""
    outcome = await ledger.acting.act(an_act(message_id, deed, *positions, **changes), SOMEBODY)
    assert isinstance(outcome, Moved), outcome
    return outcome


async def refused(ledger: Ledger, message_id: str, deed: str, *positions: int) -> list[str]:
    """Act, see that nothing moved, and return the states that were in the way."""
    outcome = await ledger.acting.act(an_act(message_id, deed, *positions), SOMEBODY)
    assert isinstance(outcome, NothingMoved), outcome
    return [found.status.value for found in outcome.found]


async def states(ledger: Ledger, message_id: str) -> list[str]:
    view = await ledger.message(message_id, application=None)
    assert view is not None
    return [each.status for each in view.recipients]


async def carried(ledger: Ledger) -> list[list[str]]:
    """Claim what is due; return the recipients of each delivery."""
    return [[each.email for each in one.recipients] for one in (await claim(ledger)).claimed]


async def brought_to(ledger: Ledger, message_id: str, status: Status, **changes: Any) -> None:
    """Carry the message once, with this verdict for everybody."""
    (claimed,) = (await claim(ledger)).claimed
    assert claimed.message_id == message_id
    await ledger.close(a_closing(claimed, status, **changes))


def test_every_act_stands_in_the_table_of_moves() -> None:
    """No act can ask for a move that the ledger refuses, and none starts at `sending` or ends there."""
    for rule in ACTS.values():
        for start in rule.starts:
            assert rule.end in MOVES[start], (start, rule.end)
        assert Status.SENDING not in rule.starts | {rule.end}
    assert Status.SCHEDULED in MOVES[Status.HELD]


async def test_what_is_canceled_is_never_claimed(ledger: Ledger) -> None:
    """Cancel before the claim: the recipient is `canceled` for good, and its delivery is over."""
    message_id = await accepted(ledger)

    await acted(ledger, message_id, "cancel", reason="wrong attachment")

    assert await states(ledger, message_id) == ["canceled"]
    assert await carried(ledger) == []
    assert await refused(ledger, message_id, "cancel") == ["canceled"]


async def test_only_the_named_recipients_are_moved(ledger: Ledger) -> None:
    """The others of the same delivery go on."""
    message_id = await accepted(ledger, to=THREE)

    moved = await acted(ledger, message_id, "cancel", 1)

    assert moved.positions == (1,)
    assert await carried(ledger) == [["ana@example.com", "eva@example.com"]]


async def test_what_an_attempt_has_in_hand_is_not_moved(ledger: Ledger) -> None:
    """Nobody can take back what may be on the wire: every act says so, and nothing changes."""
    message_id = await accepted(ledger)
    await claim(ledger)

    for deed in ACTS:
        assert await refused(ledger, message_id, deed) == ["sending"]
    assert await states(ledger, message_id) == ["sending"]


async def test_a_retry_takes_only_what_failed(ledger: Ledger) -> None:
    """Who has the message gets no second one; who has not starts anew: tries, error and end are cleared."""
    message_id = await accepted(ledger, to=THREE)
    (claimed,) = (await claim(ledger)).claimed
    closing = a_closing(claimed, Status.FAILED)
    sent = a_closing(claimed).recipients[0]
    await ledger.close(a_closing(claimed, Status.FAILED, recipients=(sent, *closing.recipients[1:])))

    moved = await acted(ledger, message_id, "retry")

    assert moved == Moved(positions=(1, 2), lanes=frozenset({"peer"}))
    (again,) = (await claim(ledger)).claimed
    assert [(each.email, each.tries) for each in again.recipients] == [
        ("ben@example.com", 0),
        ("eva@example.com", 0),
    ]
    await ledger.close(a_closing(again))
    assert await states(ledger, message_id) == ["sent", "sent", "sent"]
    assert await refused(ledger, message_id, "retry") == ["sent", "sent", "sent"]


async def test_a_deferred_recipient_can_be_tried_now(ledger: Ledger) -> None:
    """A retry does not wait for the time that the schedule had chosen."""
    message_id = await accepted(ledger)
    await brought_to(ledger, message_id, Status.DEFERRED, due_in=3600.0)
    assert await carried(ledger) == []

    await acted(ledger, message_id, "retry")

    assert await carried(ledger) == [["ana@example.com"]]


async def test_a_retry_gives_the_message_a_new_life(ledger: Ledger, database_url: str) -> None:
    """What had expired lives as long again as at first, and at least as long as a new message would."""
    short = await accepted(ledger, expires_in=3600.0)
    long = await accepted(ledger, expires_in=200 * 3600.0)
    for message_id in (short, long):
        await acted(ledger, message_id, "cancel")
    await sql(
        database_url,
        "UPDATE messages SET created_at = created_at - interval '40 days', expires_at = expires_at - interval '40 days'",
    )
    await sql(database_url, "UPDATE deliveries SET expires_at = expires_at - interval '40 days'")

    for message_id in (short, long):
        await acted(ledger, message_id, "retry")

    now = datetime.now(UTC)
    lives = dict(await sql(database_url, "SELECT id, expires_at FROM messages"))
    assert 71 < (lives[short] - now) / timedelta(hours=1) < 73
    assert 199 < (lives[long] - now) / timedelta(hours=1) < 201
    assert dict(await sql(database_url, "SELECT message_id, expires_at FROM deliveries")) == lives
    assert len(await carried(ledger)) == 2


async def test_a_second_retry_gives_the_same_life_again(ledger: Ledger, database_url: str) -> None:
    """A message that is retried again and again does not live longer each time."""
    message_id = await accepted(ledger, expires_in=100 * 3600.0)
    for _ in range(2):
        await acted(ledger, message_id, "cancel")
        await sql(
            database_url,
            "UPDATE messages SET created_at = created_at - interval '10 days', expires_at = expires_at - interval '10 days'",
        )
        await sql(database_url, "UPDATE audit SET at = at - interval '10 days'")
        await acted(ledger, message_id, "retry")

    ((expires_at,),) = await sql(database_url, "SELECT expires_at FROM messages")
    assert 99 < (expires_at - datetime.now(UTC)) / timedelta(hours=1) < 101


async def test_a_retry_leaves_a_life_that_is_long_enough(ledger: Ledger, database_url: str) -> None:
    """An application's own `expires_at` is kept while there is time."""
    message_id = await accepted(ledger, expires_in=3600.0)
    await acted(ledger, message_id, "cancel")
    before = await sql(database_url, "SELECT expires_at FROM messages")

    await acted(ledger, message_id, "retry")

    assert await sql(database_url, "SELECT expires_at FROM messages") == before


async def test_what_is_held_waits_for_its_release(ledger: Ledger) -> None:
    """Held is not claimed; released it is due at once."""
    message_id = await accepted(ledger)

    await acted(ledger, message_id, "hold")
    assert await carried(ledger) == []
    moved = await acted(ledger, message_id, "release")

    assert moved.lanes == {"peer"}
    assert await carried(ledger) == [["ana@example.com"]]


async def test_the_rest_of_a_delivery_goes_on_while_one_is_held(ledger: Ledger) -> None:
    """One held recipient does not stop the others of its delivery, and travels by itself afterwards."""
    message_id = await accepted(ledger, to=THREE)
    await acted(ledger, message_id, "hold", 0)

    (others,) = (await claim(ledger)).claimed
    await acted(ledger, message_id, "release")
    assert (await claim(ledger)).claimed == ()  # the delivery is in hand
    await ledger.close(a_closing(others))

    assert [each.email for each in others.recipients] == ["ben@example.com", "eva@example.com"]
    assert await carried(ledger) == [["ana@example.com"]]


async def test_a_poison_message_gets_its_chances_again(ledger: Ledger, database_url: str) -> None:
    """Held after its crashes and released, it may lose as many leases as before."""
    message_id = await accepted(ledger)
    for _ in range(4):
        (claimed,) = (await claim(ledger, lease=0.05)).claimed
        assert claimed.message_id == message_id
        await eventually(lambda: ledger.rescue(uncertain_after=900.0, errors=rescue_errors()))
    assert await states(ledger, message_id) == ["held"]

    await acted(ledger, message_id, "release")

    assert [tuple(row) for row in await sql(database_url, "SELECT lost, lost_alone FROM deliveries")] == [
        (0, 0)
    ]
    assert await carried(ledger) == [["ana@example.com"]]


async def test_a_held_message_whose_time_has_passed_gets_time_with_its_release(
    ledger: Ledger, database_url: str
) -> None:
    """Whoever releases it wants it sent: it is not given up the moment after."""
    message_id = await accepted(ledger)
    await acted(ledger, message_id, "hold")
    for table in ("messages", "deliveries"):
        await sql(database_url, f"UPDATE {table} SET expires_at = now() - interval '1 second'")  # noqa: S608

    await acted(ledger, message_id, "release")

    assert await ledger.expire(errors=rescue_errors()) == 0
    assert await carried(ledger) == [["ana@example.com"]]


@pytest.mark.parametrize(
    ("decision", "state", "claimed"),
    [("sent", "sent", []), ("resend", "queued", [["ana@example.com"]]), ("drop", "canceled", [])],
)
async def test_a_person_settles_what_is_uncertain(
    ledger: Ledger, decision: str, state: str, claimed: list[list[str]]
) -> None:
    """Sent, once more, or not at all; the reply that comes later changes nothing of it."""
    message_id = await accepted(ledger, on_uncertain="hold")
    first = await lost_behind_the_dot(ledger)
    await eventually(lambda: ledger.rescue(uncertain_after=900.0, errors=rescue_errors()))
    assert await states(ledger, message_id) == ["uncertain"]

    await acted(ledger, message_id, f"settle_{decision}")
    await ledger.close(a_closing(first, Status.FAILED))

    assert await states(ledger, message_id) == [state]
    assert await carried(ledger) == claimed


async def test_an_unsettled_late_reply_comes_first(ledger: Ledger) -> None:
    """When the truth came before the person, there is nothing to settle."""
    message_id = await accepted(ledger, on_uncertain="hold")
    first = await lost_behind_the_dot(ledger)
    await eventually(lambda: ledger.rescue(uncertain_after=900.0, errors=rescue_errors()))

    await ledger.close(a_closing(first))

    assert await refused(ledger, message_id, "settle_resend") == ["sent"]


async def test_what_was_dropped_has_to_be_named_to_be_retried(ledger: Ledger) -> None:
    """Saying "not again" of what may have arrived is not undone by a retry of everything that failed."""
    message_id = await accepted(ledger, on_uncertain="hold")
    await brought_to(ledger, message_id, Status.UNCERTAIN)
    await acted(ledger, message_id, "settle_drop")

    assert await refused(ledger, message_id, "retry") == ["canceled"]
    await acted(ledger, message_id, "retry", 0)

    assert await states(ledger, message_id) == ["queued"]


async def scheduled(ledger: Ledger, *, ahead: timedelta, **changes: Any) -> str:
    """A message that waits for its time, and lives for an hour from then on."""
    at = datetime.now(UTC) + ahead
    submission = a_submission(**changes)
    (message,) = submission.messages
    later = replace(message, scheduled_at=at, expires_at=at + timedelta(hours=1))
    await ledger.accept(replace(submission, messages=[later]))
    return message.id


async def rescheduled(ledger: Ledger, message_id: str, at: datetime | None, **changes: Any) -> Any:
    values = {"message_id": message_id, "at": at, "expires_at": None, "reason": None}
    return await ledger.acting.reschedule(Reschedule(**(values | changes)), SOMEBODY)


async def test_a_time_is_moved_and_the_length_of_life_is_kept(ledger: Ledger, database_url: str) -> None:
    """Later and earlier: the message goes at its new time, and is given up as long after it."""
    message_id = await scheduled(ledger, ahead=timedelta(days=1))
    later = datetime.now(UTC) + timedelta(days=3)

    await rescheduled(ledger, message_id, later)

    view = await ledger.message(message_id, application=None)
    assert view is not None
    assert (view.status, view.scheduled_at, view.recipients[0].next_attempt_at) == ("scheduled", later, later)
    assert view.expires_at == later + timedelta(hours=1)
    assert await carried(ledger) == []

    await rescheduled(ledger, message_id, None)

    view = await ledger.message(message_id, application=None)
    assert view is not None
    assert (view.status, view.scheduled_at) == ("queued", None)
    assert timedelta(minutes=59) < view.expires_at - datetime.now(UTC) < timedelta(minutes=61)
    assert await carried(ledger) == [["ana@example.com"]]


async def test_a_held_message_keeps_its_hold_and_goes_at_the_new_time(
    ledger: Ledger, database_url: str
) -> None:
    """A new time is no release, and a release is no "now" while the time lies ahead."""
    message_id = await scheduled(ledger, ahead=timedelta(days=1))
    await acted(ledger, message_id, "hold")
    later = datetime.now(UTC) + timedelta(days=2)

    await rescheduled(ledger, message_id, later)
    assert await states(ledger, message_id) == ["held"]
    await acted(ledger, message_id, "release")

    view = await ledger.message(message_id, application=None)
    assert view is not None
    assert (view.status, view.recipients[0].next_attempt_at) == ("scheduled", later)


async def test_what_was_tried_has_no_time_to_be_moved(ledger: Ledger) -> None:
    """Without a time ahead there is nothing to move."""
    message_id = await accepted(ledger)
    await brought_to(ledger, message_id, Status.DEFERRED, due_in=60.0)

    outcome = await rescheduled(ledger, message_id, datetime.now(UTC) + timedelta(days=1))

    assert isinstance(outcome, NothingMoved)


async def test_a_scheduled_message_is_canceled_and_one_that_was_canceled_goes_by_a_retry(
    ledger: Ledger, database_url: str
) -> None:
    """Canceled before its time it never goes; a retry means now."""
    message_id = await scheduled(ledger, ahead=timedelta(days=1))

    await acted(ledger, message_id, "cancel")
    assert await states(ledger, message_id) == ["canceled"]
    await acted(ledger, message_id, "retry")

    assert await carried(ledger) == [["ana@example.com"]]


async def test_an_act_is_in_the_audit_and_its_moves_name_the_actor(ledger: Ledger, database_url: str) -> None:
    """Who, when, from where and why stand beside what was done; what came to nothing is not written."""
    message_id = await accepted(ledger, to=THREE)

    await acted(ledger, message_id, "cancel", 0, 2, reason="wrong attachment")
    await refused(ledger, message_id, "cancel", 0)

    rows = await sql(database_url, "SELECT actor, address, request_id, action, target, details FROM audit")
    assert [tuple(row) for row in rows] == [
        (
            "key_somebody",
            "192.0.2.7",
            "req_1",
            "message.cancel",
            message_id,
            {"recipients": 2, "reason": "wrong attachment"},
        )
    ]
    events = [each for each in await ledger.events(message_id) if each.to_status == "canceled"]
    assert [(each.email, each.actor, each.reason) for each in events] == [
        ("ana@example.com", "key_somebody", "canceled"),
        ("eva@example.com", "key_somebody", "canceled"),
    ]


async def test_what_comes_from_a_lane_that_is_gone_travels_by_a_new_one(
    ledger: Ledger, database_url: str
) -> None:
    """The recipients leave their delivery for a new one on the new lane; the message is found by it."""
    message_id = await accepted(ledger, lane="gone", to=THREE)
    ways = {
        position: Reroute(
            gone="gone", delivery_id=delivery, route="peer", lane="peer", external=position == 2
        )
        for delivery, positions in ((new_id("dlv"), (0,)), (new_id("dlv"), (2,)))
        for position in positions
    }

    moved = await acted(ledger, message_id, "retry", 0, 2, reroutes=ways)

    assert moved == Moved(positions=(0, 2), lanes=frozenset({"peer"}))
    assert await carried(ledger) == [["ana@example.com"], ["eva@example.com"]]
    facets = await sql(database_url, "SELECT name, value FROM facets WHERE value = 'peer' ORDER BY name")
    assert [tuple(row) for row in facets] == [("lane", "peer"), ("route", "peer")]
    rows = await sql(database_url, "SELECT lane, external, finished_at FROM deliveries ORDER BY id")
    assert [tuple(row) for row in rows] == [
        ("gone", False, None),
        ("peer", False, None),
        ("peer", True, None),
    ]


async def test_a_split_leaves_what_is_held_alone(ledger: Ledger) -> None:
    """A delivery that is halved while one of its recipients is held makes no half that is due for nothing."""
    message_id = await accepted(ledger, to=THREE)
    await acted(ledger, message_id, "hold", 2)
    (claimed,) = (await claim(ledger)).claimed

    await ledger.close(a_closing(claimed, Status.DEFERRED, due_in=0.0, split=True))

    assert sorted(await carried(ledger)) == [["ana@example.com"], ["ben@example.com"]]
    after = await claim(ledger)
    assert (after.claimed, after.again_in) == ((), None)


async def test_an_act_that_gets_no_lock_says_busy_and_changes_nothing(
    ledger: Ledger, database_url: str
) -> None:
    """While somebody else holds the message's delivery, the act gives up within its patience."""
    message_id = await accepted(ledger)
    engine = open_engine(database_url, name="test-holder", size=1)
    try:
        async with engine.begin() as db:
            await db.execute(text("SELECT 1 FROM deliveries FOR UPDATE"))

            outcome = await ledger.acting.act(an_act(message_id, "cancel"), SOMEBODY)
    finally:
        await engine.dispose()

    assert outcome == Busy()
    assert await states(ledger, message_id) == ["queued"]


async def test_a_closing_that_waits_for_an_act_does_not_forget_what_it_put_back(
    ledger: Ledger, database_url: str
) -> None:
    """The delivery stays due for the recipient that was retried while the attempt of another one ended.

    The act holds its locks when the closing begins; the closing has to see what the act did.
    """
    message_id = await accepted(ledger, to=THREE)
    await acted(ledger, message_id, "cancel", 2)
    (claimed,) = (await claim(ledger)).claimed
    engine = open_engine(database_url, name="test-act", size=1)
    try:
        async with engine.begin() as db:
            await act(db, an_act(message_id, "retry", 2), SOMEBODY)
            closing = asyncio.create_task(ledger.close(a_closing(claimed)))
            await eventually(lambda: sql(database_url, "SELECT 1 FROM pg_locks WHERE NOT granted"))
    finally:
        await engine.dispose()
    await closing

    assert await states(ledger, message_id) == ["sent", "sent", "queued"]
    assert await carried(ledger) == [["eva@example.com"]]


async def test_a_late_reply_that_waits_for_a_settlement_does_not_undo_it(
    ledger: Ledger, database_url: str
) -> None:
    """The person was first: the recipient goes once more, and the delivery stays due for it."""
    message_id = await accepted(ledger, on_uncertain="hold")
    first = await lost_behind_the_dot(ledger)
    await eventually(lambda: ledger.rescue(uncertain_after=900.0, errors=rescue_errors()))
    engine = open_engine(database_url, name="test-act", size=1)
    try:
        async with engine.begin() as db:
            await act(db, an_act(message_id, "settle_resend"), SOMEBODY)
            closing = asyncio.create_task(ledger.close(a_closing(first)))
            await eventually(lambda: sql(database_url, "SELECT 1 FROM pg_locks WHERE NOT granted"))
    finally:
        await engine.dispose()
    await closing

    assert await states(ledger, message_id) == ["queued"]
    assert await carried(ledger) == [["ana@example.com"]]


async def _drain(ledger: Ledger, taken: list[tuple[str, str]], over: asyncio.Event, seed: int) -> None:
    """A worker whose verdicts are diced."""
    dice = random.Random(seed)
    while not over.is_set():
        for claimed in (await claim(ledger, worker=f"w{seed}", more=3, lease=30.0)).claimed:
            await asyncio.sleep(dice.random() * 0.01)
            status = dice.choice([Status.SENT, Status.SENT, Status.DEFERRED, Status.FAILED, Status.UNCERTAIN])
            assert await ledger.fence(claimed.attempt_id)
            if status is Status.SENT:
                taken += [(claimed.message_id, each.email) for each in claimed.recipients]
            due_in = 0.0 if status in {Status.DEFERRED, Status.UNCERTAIN} else None
            await ledger.close(a_closing(claimed, status, due_in=due_in))
            await ledger.give_back([claimed.seat] if claimed.seat else [])
        await asyncio.sleep(0.005)


async def _act_at_random(ledger: Ledger, messages: Iterable[str], seed: int) -> None:
    dice = random.Random(seed)
    names = list(messages)
    for _ in range(100):
        deed = dice.choice([*ACTS, "reschedule"])
        message_id = dice.choice(names)
        if deed == "reschedule":
            at = datetime.now(UTC) + timedelta(seconds=dice.random())
            await rescheduled(ledger, message_id, dice.choice([None, at]))
            continue
        positions = frozenset(dice.sample(range(3), dice.randint(1, 3)))
        outcome = await ledger.acting.act(
            an_act(message_id, deed, positions=dice.choice([None, positions])), SOMEBODY
        )
        assert isinstance(outcome, Moved | NothingMoved | Busy)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_wild_acts_beside_wild_workers_lose_and_double_nothing(
    ledger: Ledger, database_url: str, seed: int
) -> None:
    """Nobody is stuck, no move is illegal, nobody who has a copy gets another one without an `uncertain` attempt.

    When acts have ended, everything that is open can be brought to its end: what is due is claimed, and
    nothing is left behind that no claim and no sweep would find.
    """
    messages = [await accepted(ledger, to=THREE, expires_in=600.0) for _ in range(8)]
    messages += [await scheduled(ledger, ahead=timedelta(seconds=1), to=THREE) for _ in range(4)]
    taken: list[tuple[str, str]] = []
    over = asyncio.Event()
    workers = [asyncio.create_task(_drain(ledger, taken, over, seed * 10 + n)) for n in range(2)]

    await asyncio.gather(*(_act_at_random(ledger, messages, seed * 100 + n) for n in range(4)))
    for message_id in messages:
        for deed in ("release", "settle_resend"):
            await ledger.acting.act(an_act(message_id, deed), SOMEBODY)
        await rescheduled(ledger, message_id, None)

    async def ended() -> bool:
        found = [state for message_id in messages for state in await states(ledger, message_id)]
        return not {"queued", "scheduled", "sending", "deferred", "uncertain"} & set(found)

    try:
        await eventually(ended, within=30.0)
    finally:
        over.set()
        await asyncio.gather(*workers)
    rows = await sql(
        database_url,
        """
        SELECT r.message_id, r.email, r.status,
               (SELECT count(*) FROM attempts a WHERE a.message_id = r.message_id AND a.outcome = 'uncertain'
                   AND a.recipients @> jsonb_build_array(jsonb_build_object('position', r.position))) AS uncertain
          FROM recipients r
        """,
    )
    for row in rows:
        copies = taken.count((row.message_id, row.email))
        assert copies <= 1 + row.uncertain, row
        assert row.status != "sent" or copies or await _was_settled(database_url, row.message_id), row
    left = await sql(
        database_url,
        """
        SELECT d.id FROM deliveries d
         WHERE (d.finished_at IS NULL) <> EXISTS (
               SELECT 1 FROM recipients r WHERE r.delivery_id = d.id AND r.finished_at IS NULL)
            OR d.due_at IS DISTINCT FROM (
               SELECT min(r.due_at) FROM recipients r WHERE r.delivery_id = d.id AND r.finished_at IS NULL)
        """,
    )
    assert left == []


async def _was_settled(database_url: str, message_id: str) -> bool:
    rows = await sql(
        database_url,
        "SELECT 1 FROM events WHERE message_id = :message AND reason = 'settled_sent'",
        message=message_id,
    )
    return bool(rows)
