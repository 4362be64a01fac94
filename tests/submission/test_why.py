"""GET /messages/{id}/explain: every state has a sentence that says what happened and what comes next."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from service.delivery.worker import rescue_errors
from service.ledger.closing import Trouble
from service.ledger.engine import open_engine
from service.ledger.states import Status
from service.routes import diagnoses
from service.smtp.reply import Reply
from tests.builders import a_closing, claim
from tests.house import House, a_house, smarthost
from tests.peer import ScriptedPeer
from tests.waiting import eventually


@pytest.fixture
async def house(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[House]:
    """A door without a worker: what it accepts stays queued. Its lane sends five messages a minute."""
    async with ScriptedPeer() as peer:
        route = smarthost(peer, limits={"messages_per_minute": 5})
        async with a_house(database_url, redis_url, routes=[route], folder=tmp_path, workers=0) as opened:
            yield opened


async def sql(database_url: str, statement: str) -> None:
    engine = open_engine(database_url, name="test-sql", size=1)
    try:
        async with engine.begin() as db:
            await db.execute(text(statement))
    finally:
        await engine.dispose()


def an_error(code: str, *, reply: Reply | None = None) -> dict[str, Any]:
    """An error of the catalogue as the ledger keeps it."""
    found = next(each for each in diagnoses.CATALOGUE if each.code == code)
    return dict(diagnoses.error(found, phase="dot", reply=reply, retryable=True, names={}))


def a_reply(code: int, enhanced: str, text: str) -> Reply:
    return Reply(code=code, enhanced=enhanced, text=text, lines=(f"{code} {enhanced} {text}",))


async def explained(house: House, message_id: str) -> dict[str, Any]:
    """Ask for the explanation; see that it holds what every explanation holds."""
    found: dict[str, Any] = await house.get(f"/messages/{message_id}/explain")
    assert found["object"] == "explanation"
    assert found["status"] == (await house.message(message_id))["status"]
    for each in found["recipients"]:
        assert each["remedy"]
        assert each["summary"].endswith(".")
        assert "None" not in each["summary"]
        assert "  " not in each["summary"]
    return found


async def only(house: House, message_id: str) -> dict[str, Any]:
    """Explain a message with one recipient, whose story is the message's."""
    found = await explained(house, message_id)
    (recipient,) = found["recipients"]
    assert found["summary"] == recipient["summary"]
    assert found["actions"] == sorted(recipient["actions"])
    return dict(recipient)


async def ended(house: House, status: Status, *, error: dict[str, Any] | None = None, **changes: Any) -> None:
    """Carry the one message that is due, with this verdict for everybody."""
    (claimed,) = (await claim(house.ledger)).claimed
    due_in = changes.pop("due_in", None)
    closing = a_closing(claimed, status, due_in=due_in)
    reply = (error or {}).get("reply") or (
        {"code": 250, "enhanced": "2.0.0", "text": "OK"} if status is Status.SENT else None
    )
    recipients = tuple(replace(each, error=error, reply=reply) for each in closing.recipients)
    await house.ledger.close(replace(closing, recipients=recipients, **changes))


async def act(house: House, message_id: str, deed: str, **body: Any) -> None:
    answer = await house.client.post(f"/messages/{message_id}/{deed}", json=body or None)
    assert answer.status_code == 200, answer.text


async def test_what_is_next_says_so(house: House) -> None:
    """Alone on its lane it goes as soon as a worker takes it."""
    message_id = await house.submit()

    found = await explained(house, message_id)

    assert found["summary"] == "It is next on the lane peer, and goes as soon as a worker takes it."
    assert found["actions"] == ["cancel", "hold"]
    assert found["recipients"][0]["who"] == "nobody"
    assert found["plan"]["deliveries"][0]["why"]
    assert found["attempts"]["total"] == 0
    assert (found["lane"]["name"], found["lane"]["state"], found["lane"]["ahead"]) == ("peer", "ready", 0)
    assert found["expected_at"] is not None


async def test_what_waits_behind_others_says_how_many_and_why(house: House) -> None:
    """Seven ahead of it, and a limit of five a minute."""
    for _ in range(7):
        await house.submit()
    message_id = await house.submit()

    found = await explained(house, message_id)

    assert found["summary"] == (
        "It waits for its turn on the lane peer: 7 messages ahead in this lane; 5 messages a minute (Microsoft 365)."
    )
    assert found["lane"]["ahead"] == 7
    assert found["lane"]["waiting"] == 8


async def test_a_scheduled_message_names_its_time(house: House) -> None:
    """Nothing is tried before; it can be moved."""
    at = datetime.now(UTC) + timedelta(days=1)
    message_id = await house.submit(scheduled_at=at.isoformat())

    found = await only(house, message_id)

    assert found["summary"] == (
        f"It is to be sent at {at:%Y-%m-%dT%H:%M:%SZ}, as scheduled; nothing is tried before."
    )
    assert found["actions"] == ["cancel", "hold", "reschedule"]


async def test_a_resting_lane_says_until_when_and_what_to_do(house: House) -> None:
    """The diagnosis and the remedy are those of the lane's trouble."""
    first = await house.submit()
    error = an_error("login_refused")
    trouble = Trouble(scope="lane", error=error, first=600.0, factor=2.0, cap=600.0)
    await ended(house, Status.DEFERRED, error=error, due_in=0.0, trouble=trouble)
    second = await house.submit()

    waiting, tried = await only(house, second), await only(house, first)
    whole = await explained(house, second)

    assert "because the lane peer rests until " in waiting["summary"]
    assert error["diagnosis"]["title"].rstrip(".") in waiting["summary"]
    assert waiting["summary"].endswith("Then one message tries whether it works again.")
    assert waiting["remedy"] == list(error["diagnosis"]["remedy"])
    assert waiting["who"] == error["diagnosis"]["who"]
    assert waiting["diagnosis"]["id"] == error["diagnosis"]["id"]
    assert tried["summary"].startswith("The last attempt failed in a way that can pass: ")
    assert whole["lane"]["state"] == "resting"
    assert whole["lane"]["resting_until"] is not None


async def test_a_resting_sender_is_named(house: House) -> None:
    """The lane is ready, and mail of this sender waits all the same."""
    error = an_error("send_as_denied")
    trouble = Trouble(scope="sender", error=error, first=600.0, factor=2.0, cap=600.0)
    for _ in range(3):
        await house.submit()
        await ended(house, Status.FAILED, error=error, trouble=trouble)
    message_id = await house.submit()

    found = await only(house, message_id)

    assert "because mail from noreply@contoso.com rests on the lane peer until " in found["summary"]
    assert found["who"] == error["diagnosis"]["who"]


async def test_a_deferred_recipient_names_its_next_attempt(house: House) -> None:
    """With the answer that it got, when it goes again, and when it is given up."""
    message_id = await house.submit()
    reply = a_reply(451, "4.7.500", "Server busy")
    await ended(house, Status.DEFERRED, error=an_error("server_busy", reply=reply), due_in=600.0)

    found = await only(house, message_id)

    assert "The answer was “451 4.7.500 Server busy”." in found["summary"]
    assert "The next one is due at " in found["summary"]
    assert found["actions"] == ["cancel", "hold", "retry"]
    assert found["next_attempt_at"] is not None


async def test_uncertainty_says_whether_it_is_sent_again(house: House) -> None:
    """With `resend` the time of it; with `hold` that a person decides."""
    resent = await house.submit(on_uncertain="resend")
    await ended(house, Status.UNCERTAIN, error=an_error("uncertain"), due_in=900.0)
    held = await house.submit(on_uncertain="hold")
    await ended(house, Status.UNCERTAIN, error=an_error("uncertain"))

    again, waits = await only(house, resent), await only(house, held)

    assert "The same octets are sent again at " in again["summary"]
    assert waits["summary"].endswith("It waits for a person's decision, and is not sent again without one.")
    assert waits["waits_for"] == ["a settlement"]
    shown = await house.message(held)
    assert (shown["expected_at"], shown["expected_because"][-1]) == (
        None,
        "It waits for a person's decision.",
    )
    assert again["actions"] == waits["actions"] == ["settle"]


async def test_a_running_attempt_says_how_far_it_is(house: House) -> None:
    """Before the dot nothing is handed over; behind it the answer is waited for."""
    message_id = await house.submit()
    (claimed,) = (await claim(house.ledger)).claimed

    before = await explained(house, message_id)
    await house.ledger.fence(claimed.attempt_id)
    behind = await only(house, message_id)

    assert before["summary"].endswith("The message has not been handed over yet.")
    assert behind["summary"].endswith("The message is handed over, and the answer is waited for.")
    assert before["attempts"]["running"] == 1
    assert behind["actions"] == []


async def test_what_was_held_says_by_whom_and_why(house: House) -> None:
    """The application, the key and the words of whoever held it."""
    message_id = await house.submit()
    await act(house, message_id, "hold", reason="wait for the lawyers")

    found = await only(house, message_id)

    assert found["summary"].startswith("It was held by the application tests (key_")
    assert "with the reason “wait for the lawyers”, and waits to be released." in found["summary"]
    assert found["actions"] == ["cancel", "release"]


async def test_what_was_held_after_crashes_says_so(house: House) -> None:
    """Postroom stopped it; a person has to look."""
    message_id = await house.submit()
    for _ in range(4):
        await claim(house.ledger, lease=0.05)
        await eventually(lambda: house.ledger.rescue(uncertain_after=900.0, errors=rescue_errors()))

    found = await only(house, message_id)

    assert found["summary"].startswith(
        "Postroom stopped it: Workers died over this message again and again. It waits until"
    )
    assert found["diagnosis"]["id"] == "postroom.crashed_repeatedly"


async def test_what_was_put_back_says_so_first(house: House) -> None:
    """A retry is told before what it waits for now."""
    message_id = await house.submit()
    await act(house, message_id, "cancel")
    await act(house, message_id, "retry", reason="it was needed after all")

    found = await only(house, message_id)

    assert found["summary"].startswith("It was put back by the application tests (key_")
    assert "“it was needed after all”. It is next on the lane peer" in found["summary"]


async def test_what_is_sent_quotes_the_answer(house: House) -> None:
    """Who took it, when, and in which words."""
    message_id = await house.submit()
    await ended(house, Status.SENT)

    found = await explained(house, message_id)

    assert found["summary"].startswith("The other side took it at ")
    assert found["summary"].endswith(" with “250 2.0.0 OK”.")
    assert found["attempts"] == {
        "total": 1, "running": 0, "sent": 1, "partial": 0, "deferred": 0, "failed": 0, "uncertain": 0, "aborted": 0,
    }  # fmt: skip
    assert found["expected_at"] is None
    assert found["actions"] == []


async def test_what_failed_says_what_must_be_mended(house: House) -> None:
    """The diagnosis, who must act, the remedy and the answer."""
    message_id = await house.submit()
    reply = a_reply(550, "5.1.1", "No such user")
    await ended(house, Status.FAILED, error=an_error("send_as_denied", reply=reply))

    found = await only(house, message_id)

    assert found["summary"].startswith("It failed for good at ")
    assert found["summary"].endswith("The answer was “550 5.1.1 No such user”.")
    assert found["diagnosis"]["id"] == "exo.send_as_denied"
    assert (found["who"], found["actions"]) == (found["diagnosis"]["who"], ["retry"])


async def test_what_expired_says_what_was_in_the_way(house: House, database_url: str) -> None:
    """The code of the trouble before."""
    message_id = await house.submit()
    await ended(house, Status.DEFERRED, error=an_error("server_busy"), due_in=600.0)
    await sql(database_url, "UPDATE deliveries SET expires_at = now() - interval '1 second'")
    await house.ledger.expire(errors=rescue_errors())

    found = await only(house, message_id)

    assert found["summary"].startswith("Its time ran out at ")
    assert found["summary"].endswith("The trouble before was `server_busy`.")


async def test_what_expired_in_doubt_is_not_called_unsent(house: House, database_url: str) -> None:
    """The other side may have it: neither the explanation nor the diagnosis says the contrary."""
    message_id = await house.submit(on_uncertain="resend")
    await ended(house, Status.UNCERTAIN, error=an_error("uncertain"), due_in=600.0)
    await sql(database_url, "UPDATE deliveries SET expires_at = now() - interval '1 second'")
    await house.ledger.expire(errors=rescue_errors())

    found = await only(house, message_id)
    error = (await house.message(message_id))["last_error"]

    assert "before it could be sent" not in found["summary"] + str(error)
    assert found["summary"].endswith("so the other side may have it all the same.")
    assert found["remedy"][0].startswith("Before a retry, look for the Message-ID")
    assert found["actions"] == ["retry"]


async def test_doubt_outlives_the_attempt_that_failed_after_it(house: House) -> None:
    """A resend that was refused says nothing about the copy before it."""
    message_id = await house.submit(on_uncertain="resend")
    await ended(house, Status.UNCERTAIN, error=an_error("uncertain"), due_in=0.0)
    await ended(house, Status.FAILED, error=an_error("send_as_denied"))

    found = await only(house, message_id)

    assert found["summary"].startswith("It failed for good at ")
    assert found["summary"].endswith("so the other side may have it all the same.")


async def test_a_late_answer_is_told_where_it_can_move_nothing(house: House) -> None:
    """The other side took it and said so too late: a resend has been refused meanwhile."""
    message_id = await house.submit(on_uncertain="resend")
    (first,) = (await claim(house.ledger, lease=0.05)).claimed
    await house.ledger.fence(first.attempt_id)
    await eventually(lambda: house.ledger.rescue(uncertain_after=0.0, errors=rescue_errors()))
    await ended(house, Status.FAILED, error=an_error("send_as_denied"))
    await house.ledger.close(a_closing(first, Status.SENT))

    found = await only(house, message_id)

    assert found["summary"].endswith(
        "But the other side has taken it: an earlier attempt was answered so, too late."
    )


@pytest.mark.parametrize(
    ("decision", "words"),
    [
        ("sent", "It counts as sent, because that was decided by the application tests"),
        ("drop", "It was decided by the application tests"),
        ("resend", "It is to be sent once more, as was decided by the application tests"),
    ],
)
async def test_a_settlement_is_told(house: House, decision: str, words: str) -> None:
    """Who decided, and what follows."""
    message_id = await house.submit(on_uncertain="hold")
    await ended(house, Status.UNCERTAIN, error=an_error("uncertain"))
    await act(house, message_id, "settle", decision=decision)

    found = await only(house, message_id)

    assert found["summary"].startswith(words)


async def test_a_canceled_message_says_who_canceled_it(house: House) -> None:
    """By an operator of another application: its name and key stand there."""
    message_id = await house.submit()
    operator = await house.ledger.create_key("operations", scopes=["operate"], senders=[])
    await house.client.post(
        f"/messages/{message_id}/cancel", headers={"Authorization": f"Bearer {operator.token}"}
    )

    found = await only(house, message_id)

    assert found["summary"].startswith(f"It was canceled by the application operations ({operator.id}) at ")


async def test_a_suppressed_recipient_says_so(house: House) -> None:
    """Nothing is sent to it, and the entry can be lifted."""
    await house.client.post("/suppressions", json={"address": "ana@example.com"})
    message_id = await house.submit()

    found = await explained(house, message_id)

    assert found["summary"].startswith("Nothing was sent: ")
    assert found["lane"] is None
    assert found["actions"] == []


async def test_a_lane_that_is_gone_is_said_with_the_way_out(house: House, database_url: str) -> None:
    """Nothing will send it; a retry plans it anew."""
    message_id = await house.submit()
    await sql(database_url, "UPDATE deliveries SET lane = 'gone'")

    found = await explained(house, message_id)

    assert "which the configuration no longer has" in found["summary"]
    assert found["lane"]["state"] == "gone"
    assert "retry" in found["actions"]


async def test_a_message_of_many_tells_of_the_one_that_needs_somebody(house: House) -> None:
    """How many are in which state, and the story of the most urgent one."""
    message_id = await house.submit(to=["ana@example.com", "ben@example.com", "eva@example.com"])
    (claimed,) = (await claim(house.ledger)).claimed
    sent, failed = a_closing(claimed), a_closing(claimed, Status.FAILED)
    verdicts = (*sent.recipients[:2], replace(failed.recipients[2], error=an_error("send_as_denied")))
    await house.ledger.close(replace(sent, recipients=verdicts))

    found = await explained(house, message_id)

    assert found["summary"].startswith(
        "Of 3 recipients, 2 are sent and 1 is failed. eva@example.com: It failed for good at "
    )
    assert found["actions"] == ["retry"]


async def test_explanations_are_for_the_application_alone(house: House) -> None:
    """404 for another one, 403 without the scope."""
    message_id = await house.submit()
    stranger = await house.ledger.create_key("other", scopes=["messages.read"], senders=[])
    sender = await house.ledger.create_key("tests", scopes=["messages.send"], senders=[])

    answers = [
        await house.client.get(
            f"/messages/{message_id}/explain", headers={"Authorization": f"Bearer {key.token}"}
        )
        for key in (stranger, sender)
    ]

    assert [answer.status_code for answer in answers] == [404, 403]
