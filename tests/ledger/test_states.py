"""The table of moves, in Python and in SQL."""

import itertools

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from service.ledger.engine import open_engine
from service.ledger.states import FINAL, MOVES, OPEN, IllegalMove, Status, advance, message_status


def test_every_status_has_its_row_and_is_open_or_final() -> None:
    """No status is forgotten in the table, and none is both open and final."""
    assert set(Status) == {start for start in MOVES if start is not None}
    assert set(Status) == set(OPEN) | FINAL
    assert not set(OPEN) & FINAL


def test_an_unknown_move_is_refused() -> None:
    """What is sent never goes back to the queue."""
    assert advance(Status.SENDING, Status.SENT) is Status.SENT
    with pytest.raises(IllegalMove):
        advance(Status.SENT, Status.QUEUED)


async def test_the_check_constraint_says_the_same_as_the_table(database_url: str) -> None:
    """PostgreSQL takes exactly the events whose moves stand in `MOVES`."""
    engine = open_engine(database_url, name="test", size=1)
    insert = text(
        "INSERT INTO events (message_id, position, from_status, to_status) VALUES ('msg_x', 0, :start, :end)"
    )
    allowed = set()
    try:
        async with engine.connect() as db:
            await db.execute(text("ALTER TABLE events DROP CONSTRAINT fk_events_message_id"))
            for start, end in itertools.product([None, *Status], Status):
                try:
                    async with db.begin_nested():
                        await db.execute(insert, {"start": start, "end": end})
                    allowed.add((start, end))
                except IntegrityError:
                    continue
            await db.rollback()
    finally:
        await engine.dispose()

    assert {(start, end) for start, ends in MOVES.items() for end in ends} == allowed


@pytest.mark.parametrize(
    ("recipients", "expected"),
    [
        (["sent", "sent"], "sent"),
        (["sent", "delivered"], "sent"),
        (["delivered", "delivered"], "delivered"),
        (["sent", "failed"], "partially_sent"),
        (["failed", "expired"], "failed"),
        (["canceled", "canceled"], "canceled"),
        (["sent", "deferred"], "deferred"),
        (["uncertain", "sending", "queued"], "uncertain"),
        (["held", "scheduled"], "held"),
    ],
)
def test_a_message_shows_its_most_urgent_recipient(recipients: list[str], expected: str) -> None:
    """The most urgent open state, then the common one, then partially_sent or failed."""
    assert expected == message_status(recipients)
