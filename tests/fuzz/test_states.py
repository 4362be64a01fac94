"""The state machine on the real ledger: any sequence of acceptances, claims, fences, replies, losses and acts.

The model is only what nobody may forget: the history that PostgreSQL's triggers write has to be a chain of moves of
the table for each recipient, ending in the state that the recipient has, and what is in hand, due or over has to fit
that state. It is looked at behind each step.
"""

import asyncio
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import text

from service.delivery.worker import rescue_errors
from service.ledger import Ledger
from service.ledger.acting import ACTS, Act, Moved, Reschedule
from service.ledger.audit import Actor
from service.ledger.claiming import Claimed
from service.ledger.closing import RecipientVerdict
from service.ledger.engine import transaction
from service.ledger.ids import new_id
from service.ledger.states import FINAL, MOVES, Outcome, Status, message_status
from tests.builders import a_closing, a_submission, claim
from tests.fuzz import examples

ACTOR = Actor(application="tests", id="key_x", address=None, request_id=None)

#: What a reply can say of a recipient, and whether it is due again.
VERDICTS = st.sampled_from([Status.SENT, Status.DEFERRED, Status.FAILED, Status.UNCERTAIN])


class Histories(RuleBasedStateMachine):
    """One lane of its own in the database, with all that happens there."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._url = url
        self.lane = f"lane-{new_id('key')}"
        self.open: list[Claimed] = []  # in a worker's hand
        self.lost: list[Claimed] = []  # the sweep has judged them; the worker may still come
        self.messages: list[str] = []

    @initialize()
    def begin(self) -> None:
        self.ledger = Ledger.open(self._url, name="fuzz", connections=2)

    def teardown(self) -> None:
        self._run(self.ledger.dispose())
        self._runner.close()

    def _run(self, work: Any) -> Any:
        return self._runner.run(work)

    def _sql(self, statement: str, **values: Any) -> Any:
        async def work() -> Any:
            async with transaction(self.ledger._engine) as db:
                found = await db.execute(text(statement), values)
                return found.all() if found.returns_rows else None

        return self._run(work())

    # -- what happens --------------------------------------------------------------------------

    @rule(
        recipients=st.integers(1, 3),
        hold=st.booleans(),
        later=st.booleans(),
    )
    def accept(self, recipients: int, hold: bool, later: bool) -> None:
        to = tuple(f"user{number}@example.com" for number in range(recipients))
        submission = a_submission(lane=self.lane, to=to, on_uncertain="hold" if hold else "resend")
        (message,) = submission.messages
        if later:
            message = replace(message, scheduled_at=datetime.now(UTC) + timedelta(hours=1))
        self._run(self.ledger.accept(replace(submission, messages=[message])))
        self.messages.append(message.id)

    @rule(more=st.integers(1, 4), suspects=st.booleans())
    def claim(self, more: int, suspects: bool) -> None:
        taken = self._run(claim(self.ledger, lane=self.lane, more=more, suspects=suspects, worker=self.lane))
        self.open += taken.claimed

    @rule()
    def time_passes(self) -> None:
        """Make whatever waits for a time due: retries, schedules, what is uncertain; and let seats run out."""
        due = """
            WITH waiting AS (
                UPDATE deliveries SET due_at = now() WHERE lane = :lane AND due_at IS NOT NULL)
            UPDATE recipients SET due_at = now() WHERE due_at IS NOT NULL
               AND delivery_id IN (SELECT id FROM deliveries WHERE lane = :lane)
        """
        for statement in (due, "DELETE FROM connections WHERE lane = :lane"):
            self._sql(statement, lane=self.lane)

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 9))
    def fence(self, which: int) -> None:
        assert self._run(self.ledger.fence(self._one(self.open, which).attempt_id))

    @precondition(lambda self: self.lost)
    @rule(which=st.integers(0, 9))
    def fence_too_late(self, which: int) -> None:
        """A worker that was paused past its lease may not send the dot."""
        assert not self._run(self.ledger.fence(self._one(self.lost, which).attempt_id))

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 9), verdicts=st.lists(VERDICTS, min_size=3, max_size=3), split=st.booleans())
    def close(self, which: int, verdicts: list[Status], split: bool) -> None:
        claimed = self._one(self.open, which)
        self.open.remove(claimed)
        self._close(claimed, verdicts, split=split and set(verdicts) == {Status.DEFERRED})

    @precondition(lambda self: self.lost)
    @rule(which=st.integers(0, 9), verdicts=st.lists(VERDICTS, min_size=3, max_size=3))
    def close_too_late(self, which: int, verdicts: list[Status]) -> None:
        claimed = self._one(self.lost, which)
        self.lost.remove(claimed)
        self._close(claimed, verdicts, split=False)

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 9))
    def lose_the_lease(self, which: int) -> None:
        claimed = self._one(self.open, which)
        self.open.remove(claimed)
        self.lost.append(claimed)
        self._sql(
            "UPDATE attempts SET lease_until = clock_timestamp() - interval '1 second' WHERE id = :id",
            id=claimed.attempt_id,
        )
        self._run(self.ledger.rescue(uncertain_after=60.0, errors=rescue_errors()))

    @precondition(lambda self: self.messages)
    @rule(
        which=st.integers(0, 99),
        deed=st.sampled_from(sorted(ACTS)),
        positions=st.none() | st.frozensets(st.integers(0, 2)),
    )
    def act(self, which: int, deed: str, positions: frozenset[int] | None) -> None:
        wanted = Act(
            message_id=self.messages[which % len(self.messages)],
            deed=deed,
            positions=positions,
            reason=None,
            expires_after=timedelta(hours=1),
        )
        before = self._states(wanted.message_id)
        outcome = self._run(self.ledger.acting.act(wanted, ACTOR))
        moved = set(outcome.positions) if isinstance(outcome, Moved) else set()
        after = self._states(wanted.message_id)
        allowed = {position for position, status in before.items() if status in ACTS[deed].starts}
        assert moved <= allowed
        assert {each for each in before if before[each] != after[each]} == moved

    @precondition(lambda self: self.messages)
    @rule(which=st.integers(0, 99), later=st.booleans())
    def reschedule(self, which: int, later: bool) -> None:
        at = datetime.now(UTC) + timedelta(hours=1) if later else None
        wanted = Reschedule(
            message_id=self.messages[which % len(self.messages)], at=at, expires_at=None, reason=None
        )
        self._run(self.ledger.acting.reschedule(wanted, ACTOR))

    @precondition(lambda self: self.messages)
    @rule(which=st.integers(0, 99))
    def expire(self, which: int) -> None:
        message = self.messages[which % len(self.messages)]
        self._sql(
            "UPDATE deliveries SET expires_at = clock_timestamp() - interval '1 second' WHERE message_id = :id",
            id=message,
        )
        self._run(self.ledger.expire(errors=rescue_errors()))
        left = set(self._states(message).values()) - FINAL - {Status.UNCERTAIN}
        assert not left or Status.SENDING in left, left  # what is in hand keeps the others of its delivery

    def _one(self, attempts: list[Claimed], which: int) -> Claimed:
        return attempts[which % len(attempts)]

    def _close(self, claimed: Claimed, verdicts: list[Status], *, split: bool) -> None:
        """Close with a verdict for each recipient; what can heal is due at once."""
        pairs = list(zip(claimed.recipients, verdicts, strict=False))
        wait = 60.0 if claimed.on_uncertain == "resend" else None
        recipients = tuple(
            RecipientVerdict(
                position=each.position,
                email=each.email,
                status=status,
                reason=status.value,
                reply=None,
                rcpt_reply=None,
                error=None if status is Status.SENT else {"code": "x"},
                due_in=0.0 if status is Status.DEFERRED else wait if status is Status.UNCERTAIN else None,
                counts=True,
            )
            for each, status in pairs
        )
        said = {status for _, status in pairs}
        outcome = Outcome(said.pop()) if len(said) == 1 else Outcome.PARTIAL
        closing = a_closing(
            claimed, Status.SENT, recipients=recipients, outcome=outcome, split=split, worker=self.lane
        )
        self._run(self.ledger.close(closing))

    # -- what has to hold ----------------------------------------------------------------------

    def _states(self, message: str) -> dict[int, Status]:
        rows = self._sql("SELECT position, status FROM recipients WHERE message_id = :id", id=message)
        return {row.position: Status(row.status) for row in rows}

    def _all_states(self) -> dict[tuple[str, int], Status]:
        rows = self._sql(
            "SELECT message_id, position, status FROM recipients WHERE message_id = ANY(:ids)",
            ids=self.messages,
        )
        return {(row.message_id, row.position): Status(row.status) for row in rows}

    @invariant()
    def the_history_is_a_chain_of_moves(self) -> None:
        """One event a move: each begins where the one before ended, is in the table, and the last is the state."""
        rows = self._sql(
            "SELECT message_id, position, from_status, to_status FROM events"
            " WHERE message_id = ANY(:ids) ORDER BY id",
            ids=self.messages,
        )
        states: dict[tuple[str, int], Status | None] = defaultdict(lambda: None)
        for row in rows:
            place = (row.message_id, row.position)
            start = None if row.from_status is None else Status(row.from_status)
            assert states[place] == start, (place, row)
            assert Status(row.to_status) in MOVES[start], row
            states[place] = Status(row.to_status)
        assert states == self._all_states()

    @invariant()
    def a_message_shows_what_its_recipients_say(self) -> None:
        """As PostgreSQL derives it, as Python does, and as everybody reads it."""
        states: dict[str, list[Status]] = defaultdict(list)
        for (message, _), status in self._all_states().items():
            states[message].append(status)
        expected = {message: message_status(each) for message, each in states.items()}
        rows = self._sql(
            "SELECT id, message_status(id) AS status FROM messages WHERE id = ANY(:ids)", ids=self.messages
        )
        views = self._run(self.ledger.messages(self.messages, application=None))
        assert {row.id: row.status for row in rows} == expected
        assert {view.id: view.status for view in views} == expected

    @invariant()
    def what_is_in_hand_is_being_sent(self) -> None:
        """Open attempts are those in a worker's hand, each has its delivery, and only their recipients are `sending`."""
        rows = self._sql(
            "SELECT d.id, d.attempt_id, d.due_at, d.finished_at,"
            "       (SELECT a.id FROM attempts a WHERE a.delivery_id = d.id AND a.outcome IS NULL) AS open,"
            "       array_agg(r.status) AS states, array_agg(r.attempt_id) AS attempts,"
            "       min(r.due_at) FILTER (WHERE r.finished_at IS NULL) AS first_due"
            "  FROM deliveries d JOIN recipients r ON r.delivery_id = d.id WHERE d.lane = :lane GROUP BY d.id",
            lane=self.lane,
        )
        assert {row.open for row in rows} - {None} == {each.attempt_id for each in self.open}
        for row in rows:
            states = [Status(each) for each in row.states]
            assert row.attempt_id == row.open, row
            assert (row.open is not None) == (Status.SENDING in states), row
            for status, attempt in zip(states, row.attempts, strict=True):
                assert status is not Status.SENDING or attempt == row.open
            assert (row.finished_at is not None) == (set(states) <= FINAL), row
            if row.open is None:
                assert row.due_at == row.first_due, row


def test_any_history_is_a_history(database_url: str) -> None:
    """Whatever happens in whatever order, each recipient moves as the table says, and nothing is left behind."""
    machine = cast("Any", lambda: Histories(database_url))
    usual = examples(12)
    run_state_machine_as_test(machine, settings=type(usual)(usual, stateful_step_count=25))
