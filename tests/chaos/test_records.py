"""The count itself: it sees what it is there to see."""

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.records import by_time, differences, same
from tests.chaos.registry import Row
from tests.chaos.report import write
from tests.chaos.storm import fullest
from tests.peer import Transaction

CONTENT = b"Subject: Hello\r\n\r\nIt works.\r\n"
TAKEN = "250 2.0.0 OK <id@contoso.com>"


def an_attempt(**changes: Any) -> dict[str, Any]:
    """An attempt that is sent, as the ledger has it."""
    rcpt = {"code": 250, "enhanced": "2.1.5", "text": "Recipient OK"}
    return {
        "outcome": "sent",
        "phase": "reply",
        "fault": None,
        "recipients": json.dumps([{"email": "ana@example.com", "reply": rcpt, "status": "sent"}]),
        "reply": json.dumps({"code": 250, "enhanced": "2.0.0", "text": "OK <id@contoso.com>"}),
        "size": len(CONTENT),
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
        **changes,
    }


def a_transaction(**changes: Any) -> Transaction:
    """The transaction of that attempt, as the peer wrote it down."""
    given: dict[str, Any] = {
        "rcpts": [("ana@example.com", "250 2.1.5 Recipient OK")],
        "data_reply": "354 go on",
        "octets": CONTENT,
        "dot": True,
        "final_reply": TAKEN,
        "ended": "dot",
        **changes,
    }
    return Transaction(session=1, mail="noreply@contoso.com", parameters="", **given)


def test_an_attempt_that_is_its_transaction() -> None:
    """Where ledger and wire agree, nothing is said."""
    assert differences(an_attempt(), a_transaction()) == []


@pytest.mark.parametrize(
    ("attempt", "transaction", "word"),
    [
        ({}, {"octets": CONTENT.replace(b"It", b"is")}, "octets"),
        ({}, {"octets": CONTENT + b".\r\n"}, "octets"),
        (
            {},
            {"rcpts": [("ana@example.com", "250 2.1.5 Recipient OK"), ("eve@example.com", "250 OK")]},
            "eve",
        ),
        ({}, {"rcpts": [("ana@example.com", "550 5.1.1 No")]}, "ana"),
        ({}, {"final_reply": None}, "None"),
        ({}, {"final_reply": "554 5.6.0 No"}, "554"),
        ({"outcome": "deferred", "phase": "data", "reply": None}, {}, "a dot"),
        ({"outcome": "sent", "phase": "dot"}, {}, "phase dot"),
        ({"reply": json.dumps({"code": 250, "enhanced": "2.0.0", "text": "Something else"})}, {}, "wire"),
    ],
)
def test_what_differs_is_named(attempt: dict[str, Any], transaction: dict[str, Any], word: str) -> None:
    """Other octets, recipients, replies, an acceptance that nobody gave, a dot without a fence: all are seen."""
    found = differences(an_attempt(**attempt), a_transaction(**transaction))

    assert word in "; ".join(found)


def test_a_lost_attempt_has_the_transaction_that_began_after_it() -> None:
    """Of two attempts whose worker was killed, one that never came to a peer is not taken for the one that did."""
    began = datetime(2026, 11, 26, 7, 0, tzinfo=UTC)
    never, there, other = (
        an_attempt(number=number, started_at=began + timedelta(seconds=after), **more)
        for number, after, more in (
            (1, 0, {}),
            (2, 10, {}),
            (3, 11, {"recipients": json.dumps([{"email": "bea@example.com"}])}),
        )
    )
    seen = a_transaction(begun_at=began + timedelta(seconds=12))
    nobodys = a_transaction(begun_at=began - timedelta(seconds=1))

    pairs, left = by_time([never, there, other], [nobodys, seen])

    assert pairs == [(there, seen)]
    assert left == [nobodys]


def test_sent_without_a_transaction() -> None:
    """An attempt that is sent, of which no peer knows, is seen; one that came to nothing is not held against it."""
    assert differences(an_attempt(), None)
    assert differences(an_attempt(outcome="deferred", phase="connect", reply=None), None) == []


def test_a_reply_of_several_lines_is_compared_by_its_words() -> None:
    """Codes of further lines, and what is no text, do not make two replies different."""
    said = "250-2.0.0 first\r\n250 2.0.0 second\x00"

    assert same({"code": 250, "text": "first\nsecond\N{REPLACEMENT CHARACTER}"}, said)
    assert not same({"code": 250, "text": "third"}, said)
    assert not same(None, said)


def test_rows_of_other_scenarios_stay_in_the_table(tmp_path: Path) -> None:
    """A scenario that runs again replaces its own rows; the others stay word by word, the red ones named."""
    red = Row(scenario="b", done="a | b <c>", figures="", promise="1", wrong=("lost: m1", "more"), seconds=2)
    write([Row(scenario="a", done="old", figures="1 of 2", promise="2"), red], seed=1, folder=tmp_path)
    path = write([Row(scenario="a", done="new", figures="", promise="2")], seed=1, folder=tmp_path)
    again = path.read_text()
    write([Row(scenario="a", done="new", figures="", promise="2")], seed=1, folder=tmp_path)

    assert path.read_text() == again
    assert "old" not in again
    assert "| b | a \\| b &lt;c> |  | 1 | **no**: lost: m1; more | 2 |" in again
    assert "1 of 2 rows are red" in again


def test_the_fullest_window() -> None:
    """The fullest minute is found wherever it begins, and its end is not part of it."""
    noon = datetime(2026, 11, 26, 12, tzinfo=UTC)
    times = [noon + timedelta(seconds=seconds) for seconds in (0, 50, 59, 60, 70, 110, 200)]

    assert fullest(times, span=timedelta(minutes=1)) == 4
