"""Acts on messages over HTTP: what is answered, whose messages they are, and what the audit keeps."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from service.ledger import Ledger
from service.ledger.engine import open_engine
from service.ledger.states import Status
from tests.builders import a_closing, claim
from tests.house import House, a_house, smarthost
from tests.peer import ScriptedPeer

THREE = ["ana@example.com", "ben@example.com", "eva@example.com"]

DEEDS = ("cancel", "retry", "hold", "release")


@pytest.fixture
async def house(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[House]:
    """A door without a worker: what it accepts stays queued."""
    async with (
        ScriptedPeer() as peer,
        a_house(database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path, workers=0) as opened,
    ):
        yield opened


async def sql(database_url: str, statement: str, **values: Any) -> list[Any]:
    engine = open_engine(database_url, name="test-sql", size=1)
    try:
        async with engine.begin() as db:
            found = await db.execute(text(statement), values)
            return list(found.all()) if found.returns_rows else []
    finally:
        await engine.dispose()


async def act(house: House, message_id: str, deed: str, **body: Any) -> Any:
    return await house.client.post(f"/messages/{message_id}/{deed}", json=body or None)


async def statuses(house: House, message_id: str) -> list[str]:
    return [each["status"] for each in (await house.message(message_id))["recipients"]]


async def ended(ledger: Ledger, status: Status, **changes: Any) -> None:
    """Carry the one message that is due, with this verdict for everybody."""
    (claimed,) = (await claim(ledger)).claimed
    await ledger.close(a_closing(claimed, status, **changes))


def soon(**ahead: float) -> str:
    return (datetime.now(UTC) + timedelta(**ahead)).isoformat()


async def test_an_act_is_answered_with_the_message(house: House) -> None:
    """200 with the resource as `GET` shows it, with or without a body, on both paths."""
    message_id = await house.submit(to=THREE)

    held = await act(house, message_id, "hold")
    released = await house.client.post(f"/v1/messages/{message_id}/release", json={})
    canceled = await act(house, message_id, "cancel", recipients=["BEN@Example.com"], reason="left us")

    assert [each.status_code for each in (held, released, canceled)] == [200, 200, 200]
    assert held.json()["status"] == "held"
    assert released.json()["status"] == "queued"
    shown = await house.message(message_id)
    assert {**canceled.json(), "expected_at": None} == {**shown, "expected_at": None}
    assert await statuses(house, message_id) == ["queued", "canceled", "queued"]


async def test_every_state_has_its_answer(house: House) -> None:
    """What an act cannot move is a 409 with a code and a sentence, and nothing changes."""
    message_id = await house.submit()
    codes = {
        "retry": "not_retryable",
        "release": "not_held",
        "settle": "not_uncertain",
    }
    for deed, code in codes.items():
        body = {"decision": "drop"} if deed == "settle" else {}
        answer = await act(house, message_id, deed, **body)
        assert (answer.status_code, answer.json()["code"]) == (409, code)
        assert "The recipient is queued." in answer.json()["detail"]
        assert answer.json()["retryable"] is False
    await act(house, message_id, "cancel")
    for deed, code in {"cancel": "not_cancelable", "hold": "not_holdable"}.items():
        answer = await act(house, message_id, deed)
        assert (answer.status_code, answer.json()["code"]) == (409, code)
        assert "canceled already" in answer.json()["detail"]
    patched = await house.client.patch(f"/messages/{message_id}", json={"scheduled_at": soon(days=1)})
    assert (patched.status_code, patched.json()["code"]) == (409, "not_scheduled")


async def test_a_running_attempt_is_said_with_a_time_to_come_again(house: House) -> None:
    """409 `attempt_running` with Retry-After, for every act that its end may change."""
    message_id = await house.submit()
    await claim(house.ledger)

    for deed in ("cancel", "retry", "hold", "settle"):
        answer = await act(house, message_id, deed, **({"decision": "sent"} if deed == "settle" else {}))
        assert (answer.status_code, answer.json()["code"]) == (409, "attempt_running")
        assert answer.headers["retry-after"] == "1"
        assert answer.json()["retryable"] is True
    assert await statuses(house, message_id) == ["sending"]


async def test_several_states_are_counted_in_the_refusal(house: House) -> None:
    """The sentence says how many recipients are in which state."""
    message_id = await house.submit(to=THREE)
    await act(house, message_id, "cancel", recipients=THREE[:1])
    await ended(house.ledger, Status.SENT)

    answer = await act(house, message_id, "hold")

    assert answer.json()["detail"] == (
        "Nothing was held. 2 recipients are sent, since the other side has taken the message; "
        "1 recipient is canceled already."
    )


async def test_a_retry_sends_to_those_alone_who_do_not_have_it(house: House) -> None:
    """Sent recipients stay sent; the failed one is queued, and its lane is rung."""
    message_id = await house.submit(to=THREE)
    (claimed,) = (await claim(house.ledger)).claimed
    verdicts = a_closing(claimed, Status.FAILED).recipients[:1] + a_closing(claimed).recipients[1:]
    await house.ledger.close(a_closing(claimed, recipients=verdicts))

    answer = await act(house, message_id, "retry")

    assert answer.status_code == 200, answer.text
    assert await statuses(house, message_id) == ["queued", "sent", "sent"]
    assert answer.json()["recipients"][0]["last_error"] is None


@pytest.mark.parametrize(
    ("decision", "status"), [("sent", "sent"), ("resend", "queued"), ("drop", "canceled")]
)
async def test_uncertain_recipients_are_settled(house: House, decision: str, status: str) -> None:
    """Each decision ends in its state, with its reason."""
    message_id = await house.submit(on_uncertain="hold")
    await ended(house.ledger, Status.UNCERTAIN)

    answer = await act(house, message_id, "settle", decision=decision, reason="I asked Ana")

    (recipient,) = answer.json()["recipients"]
    assert (recipient["status"], recipient["reason"]) == (status, f"settled_{decision}")


async def test_a_scheduled_message_is_moved_and_canceled(house: House) -> None:
    """PATCH moves it later and to now; it keeps its length of life unless told otherwise."""
    message_id = await house.submit(scheduled_at=soon(days=1))
    later = soon(days=2)

    moved = await house.client.patch(f"/messages/{message_id}", json={"scheduled_at": later})
    bounded = await house.client.patch(
        f"/messages/{message_id}", json={"scheduled_at": later, "expires_at": soon(days=3)}
    )
    now = await house.client.patch(f"/messages/{message_id}", json={"scheduled_at": None})

    assert [each.status_code for each in (moved, bounded, now)] == [200, 200, 200]
    assert moved.json()["status"] == "scheduled"
    assert datetime.fromisoformat(moved.json()["scheduled_at"]) - datetime.fromisoformat(later) < timedelta(
        seconds=1
    )
    life = datetime.fromisoformat(moved.json()["expires_at"]) - datetime.fromisoformat(
        moved.json()["scheduled_at"]
    )
    assert life == timedelta(hours=72)
    assert (now.json()["status"], now.json()["scheduled_at"]) == ("queued", None)
    another = await house.submit(scheduled_at=soon(days=1))
    assert (await act(house, another, "cancel")).json()["status"] == "canceled"


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({}, "/scheduled_at", "required"),
        ({"scheduled_at": "tomorrow"}, "/scheduled_at", "not_a_time"),
        ({"scheduled_at": "2020-01-01T00:00:00Z"}, "/scheduled_at", "in_the_past"),
        ({"scheduled_at": "2999-01-01T00:00:00Z"}, "/scheduled_at", "too_far"),
        ({"scheduled_at": None, "expires_at": "2020-01-01T00:00:00Z"}, "/expires_at", "in_the_past"),
        ({"scheduled_at": None, "expires_at": "2999-01-01T00:00:00Z"}, "/expires_at", "too_far"),
        ({"scheduled_at": 7}, "/scheduled_at", "string_type"),
        ({"scheduled_at": None, "status": "sent"}, "", "unknown_field"),
    ],
)
async def test_a_wrong_time_is_named(house: House, body: dict[str, Any], pointer: str, code: str) -> None:
    """422 with the pointer of the field."""
    message_id = await house.submit(scheduled_at=soon(days=1))

    answer = await house.client.patch(f"/messages/{message_id}", json=body)

    assert answer.status_code == 422, answer.text
    assert {(each["pointer"], each["code"]) for each in answer.json()["errors"]} == {(pointer, code)}


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({"recipients": ["ana@example.com", "somebody@example.com"]}, ["/recipients/1"]),
        ({"recipients": ["Ana <ana@example.com>"]}, ["/recipients/0"]),
        ({"recipients": ["no address", "zoe@example.com"]}, ["/recipients/0", "/recipients/1"]),
        ({"recipients": []}, ["/recipients"]),
        ({"recipients": "ana@example.com"}, ["/recipients"]),
        ({"recipients": [7]}, ["/recipients/0"]),
        ({"reason": "x" * 501}, ["/reason"]),
        ({"reason": ""}, ["/reason"]),
        ({"why": "because"}, [""]),
    ],
)
async def test_a_wrong_field_is_named(house: House, body: dict[str, Any], pointers: list[str]) -> None:
    """422 with the pointer of each field, nothing of the input repeated, and nothing done."""
    message_id = await house.submit(to=THREE)

    answer = await house.client.post(f"/messages/{message_id}/cancel", json=body)

    assert answer.status_code == 422, answer.text
    assert [each["pointer"] for each in answer.json()["errors"]] == pointers
    assert "zoe" not in answer.text
    assert await statuses(house, message_id) == ["queued"] * 3


@pytest.mark.parametrize("body", [{}, {"decision": "perhaps"}, {"decision": None}])
async def test_a_settlement_needs_its_decision(house: House, body: dict[str, Any]) -> None:
    """422 that points at `decision`."""
    message_id = await house.submit()

    answer = await house.client.post(f"/messages/{message_id}/settle", json=body)

    assert answer.status_code == 422
    assert [each["pointer"] for each in answer.json()["errors"]] == ["/decision"]


async def test_another_applications_message_is_not_there(house: House) -> None:
    """404 like an unknown one for each act, and nothing is done; an operator acts on everybody's."""
    message_id = await house.submit()
    stranger = await house.ledger.create_key("other", scopes=["messages.send"], senders=[])
    operator = await house.ledger.create_key("operations", scopes=["operate"], senders=[])
    reader = await house.ledger.create_key("tests", scopes=["messages.read"], senders=[])

    def auth(token: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {token}"}

    for deed in (*DEEDS, "settle"):
        path, body = f"/messages/{message_id}/{deed}", {"decision": "drop"} if deed == "settle" else {}
        foreign = await house.client.post(path, json=body, headers=auth(stranger.token))
        unknown = await house.client.post(
            f"/messages/msg_01JDB6Z0Q5V8W6K3T1E9F4H2RC/{deed}", json=body, headers=auth(stranger.token)
        )
        scope = await house.client.post(path, json=body, headers=auth(reader.token))
        assert {**foreign.json(), "request_id": ""} == {**unknown.json(), "request_id": ""}
        assert (foreign.status_code, scope.status_code) == (404, 403)
    patched = await house.client.patch(
        f"/messages/{message_id}", json={"scheduled_at": None}, headers=auth(stranger.token)
    )
    assert patched.status_code == 404
    assert await statuses(house, message_id) == ["queued"]
    done = await house.client.post(f"/messages/{message_id}/cancel", headers=auth(operator.token))
    assert done.status_code == 200
    assert done.json()["status"] == "canceled"


async def test_a_test_key_does_not_act_on_live_mail(house: House) -> None:
    """What a test key puts back would go to Microsoft."""
    message_id = await house.submit()
    key = await house.ledger.create_key("tests", scopes=["messages.send"], senders=[], test=True)

    answer = await house.client.post(
        f"/messages/{message_id}/hold", headers={"Authorization": f"Bearer {key.token}"}
    )

    assert (answer.status_code, answer.json()["code"]) == (403, "test_key")


async def test_the_audit_says_who_when_from_where_and_why(house: House, database_url: str) -> None:
    """One entry for each act that did something, in the transaction that did it."""
    message_id = await house.submit(to=THREE)

    await act(house, message_id, "hold", recipients=THREE[:2], reason="wait for the lawyers")
    await act(house, message_id, "release")
    await act(house, message_id, "release")

    rows = await sql(
        database_url,
        "SELECT application, actor, address, request_id, action, target, details FROM audit ORDER BY id",
    )
    (actor,) = {row.actor for row in rows}
    assert [(row.application, row.action, row.target, row.details) for row in rows] == [
        ("tests", "message.hold", message_id, {"recipients": 2, "reason": "wait for the lawyers"}),
        ("tests", "message.release", message_id, {"recipients": 2}),
    ]
    assert all(row.address and row.request_id.startswith("req_") for row in rows)
    events = await house.get(f"/messages/{message_id}/events")
    assert {each["actor"] for each in events["data"] if each["status"] == "held"} == {actor}


async def test_suppressed_addresses_are_not_sent_to_again(house: House) -> None:
    """A retry leaves them out; where nobody else is left it is a 409 that says so."""
    message_id = await house.submit(to=THREE[:2])
    await ended(house.ledger, Status.FAILED)
    added = await house.client.post("/suppressions", json={"address": "ana@example.com"})
    assert added.status_code == 201, added.text

    alone = await act(house, message_id, "retry", recipients=THREE[:1])
    both = await act(house, message_id, "retry")

    assert (alone.status_code, alone.json()["code"]) == (409, "suppressed")
    assert both.status_code == 200
    assert await statuses(house, message_id) == ["failed", "queued"]


async def gone(house: House, database_url: str, lane: str = "gone") -> str:
    """A message that failed on a lane that the configuration does not have."""
    message_id = await house.submit(to=THREE[:2])
    await ended(house.ledger, Status.FAILED)
    await sql(database_url, "UPDATE deliveries SET lane = :lane, route = :lane", lane=lane)
    return message_id


async def test_a_retry_finds_another_way_where_the_lane_is_gone(house: House, database_url: str) -> None:
    """The recipients are planned anew, and go by the route that there is."""
    message_id = await gone(house, database_url)

    answer = await act(house, message_id, "retry")

    assert answer.status_code == 200, answer.text
    assert [(each["status"], each["lane"]) for each in answer.json()["recipients"]] == [
        ("queued", "peer")
    ] * 2
    (claimed,) = (await claim(house.ledger)).claimed
    assert [each.email for each in claimed.recipients] == THREE[:2]


async def test_where_no_route_is_left_the_refusal_says_why(house: House, database_url: str) -> None:
    """409 `lane_gone` with the plan's reasons; nothing changes."""
    message_id = await gone(house, database_url)
    await sql(database_url, "UPDATE messages SET route_requested = 'gone'")

    answer = await act(house, message_id, "retry")

    assert (answer.status_code, answer.json()["code"]) == (409, "lane_gone")
    assert answer.json()["plan"]["why_not"]
    assert await statuses(house, message_id) == ["failed", "failed"]


async def test_what_waits_for_a_lane_that_is_gone_is_freed_by_a_retry(
    house: House, database_url: str
) -> None:
    """It has not failed, and would wait until its time runs out."""
    message_id = await house.submit()
    await sql(database_url, "UPDATE deliveries SET lane = 'gone', route = 'gone'")

    answer = await act(house, message_id, "retry")

    assert answer.status_code == 200
    assert answer.json()["lane"] == "peer"
    assert len((await claim(house.ledger)).claimed) == 1


@pytest.mark.parametrize("message_id", ["msg_x", "..", "%00", "msg_" + "Z" * 300])
async def test_no_id_gets_a_500(house: House, message_id: str) -> None:
    """Whatever stands in the path, there is nothing of that name."""
    for deed in DEEDS:
        answer = await house.client.post(f"/messages/{message_id}/{deed}")
        assert answer.status_code in {404, 405}
