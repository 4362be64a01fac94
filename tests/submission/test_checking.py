"""`POST /routes/{name}/check`: the steps, one check at a time, what it lifts, and a test message."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from service.ledger.audit import Wanted
from tests.house import House, a_house, smarthost
from tests.peer import ScriptedPeer
from tests.waiting import eventually


@pytest.fixture
async def peer() -> AsyncIterator[ScriptedPeer]:
    async with ScriptedPeer() as peer:
        yield peer


@pytest.fixture
async def house(
    database_url: str, redis_url: str, tmp_path: Path, peer: ScriptedPeer
) -> AsyncIterator[House]:
    dns = {"dns": {"nameservers": ["127.0.0.1:1"], "timeout": "200ms"}}
    async with a_house(
        database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path, settings_changes=dns
    ) as house:
        yield house


async def ask(house: House, name: str = "peer", **body: Any) -> httpx2.Response:
    return await house.client.post(f"/routes/{name}/check", json=body, timeout=60)


def steps(answer: httpx2.Response) -> dict[str, dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    return {step["name"]: step for step in answer.json()["steps"]}


async def test_the_steps_are_told(house: House, peer: ScriptedPeer) -> None:
    """A check without a body: from the connection to QUIT, nothing sent, kept in the ledger."""
    answer = await house.client.post("/routes/peer/check", timeout=60)

    found = steps(answer)
    body = answer.json()
    assert body["object"] == "route_check"
    assert body["asked_by"] == "tests"
    assert [found[name]["status"] for name in ("connect", "greeting", "ehlo", "mail", "rcpt", "quit")] == [
        "ok"
    ] * 6
    assert peer.taken == []
    kept = await house.ledger.latest_check("peer")
    assert kept is not None
    assert kept.id == body["id"]
    assert (await house.get("/routes/peer"))["last_check"]["id"] == body["id"]
    (entry,) = await house.ledger.audit.page(Wanted(action="route.check"), most=10)
    assert (entry.target, entry.application, entry.details) == ("peer", "tests", {"test_message": False})


async def test_who_asks_meanwhile_is_given_the_one_that_runs(house: House, peer: ScriptedPeer) -> None:
    """Ten callers while the peer takes its time: one session, one check for all of them."""
    answered = asyncio.Event()
    peer.on("greeting", until=answered)
    asked = [asyncio.create_task(ask(house)) for _ in range(10)]
    await eventually(lambda: peer.sessions == 1)
    await asyncio.sleep(0.5)  # all of them are waiting now
    answered.set()

    answers = await asyncio.gather(*asked)

    assert {answer.json()["id"] for answer in answers} == {answers[0].json()["id"]}
    assert [answer.json()["shared"] for answer in answers].count(False) == 1
    assert any("somebody else" in (answer.json()["note"] or "") for answer in answers)
    assert peer.sessions == 1


async def test_who_asks_afterwards_gets_their_own(house: House, peer: ScriptedPeer) -> None:
    """They may just have mended something: a result of a moment ago is no answer."""
    first = await ask(house)
    second = await ask(house)

    assert second.json()["id"] != first.json()["id"]
    assert second.json()["shared"] is False
    assert peer.sessions == 2


@pytest.mark.parametrize(
    ("name", "body", "status", "code", "pointer"),
    [
        ("nothing", b"", 404, "not_found", None),
        ("peer", b"[]", 400, "not_an_object", None),
        ("peer", b"{", 400, None, None),
        ("peer", b'{"send_to": 7}', 422, "string_type", "/send_to"),
        ("peer", b'{"send_to": "nobody"}', 422, None, "/send_to"),
        ("peer", b'{"from_": "a@contoso.com"}', 422, "unknown_field", ""),
        ("peer", b'{"evil": "a@contoso.com"}', 422, "unknown_field", ""),
        ("peer", b'{"to": "a@contoso.com\\r\\nRCPT TO:<b@contoso.com>"}', 422, None, "/to"),
    ],
)
async def test_bad_requests(
    house: House,
    peer: ScriptedPeer,
    name: str,
    body: bytes,
    status: int,
    code: str | None,
    pointer: str | None,
) -> None:
    """What is wrong is named, and nobody is dialled for it."""
    answer = await house.client.post(
        f"/routes/{name}/check", content=body, headers={"Content-Type": "application/json"}
    )

    assert answer.status_code == status, answer.text
    assert code in {None, answer.json()["code"]}
    if pointer is not None:
        assert answer.json()["errors"][0]["pointer"] == pointer
    assert peer.sessions == 0


async def test_a_key_needs_the_scope(house: House) -> None:
    """Without routes.check there is no check; a test message needs messages.send as well."""
    reader = await house.ledger.create_key("reader", scopes=["routes.read"], senders=[])
    checker = await house.ledger.create_key("checker", scopes=["routes.check"], senders=[])

    refused = await house.client.post("/routes/peer/check", headers=_bearer(reader.token))
    no_mail = await house.client.post(
        "/routes/peer/check", json={"send_to": "ana@contoso.com"}, headers=_bearer(checker.token)
    )

    assert [refused.status_code, no_mail.status_code] == [403, 403]


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_a_test_message(house: House, peer: ScriptedPeer) -> None:
    """`send_to`: one message of the application postroom, sent and followed; the next one has to wait."""
    answer = await ask(house, send_to="ana@example.com", **{"from": "noreply@contoso.com"})

    assert steps(answer)["test_message"]["status"] == "ok"
    shown = answer.json()["test_message"]
    assert shown["status"] == "sent"
    (taken,) = peer.taken
    assert (taken.mail, taken.rcpts) == ("noreply@contoso.com", ("ana@example.com",))
    kept = await house.ledger.message(shown["id"], application=None)
    assert kept is not None
    assert kept.application == "postroom"
    again = await ask(house, send_to="ana@example.com")
    assert again.status_code == 429
    assert int(again.headers["Retry-After"]) <= 30


async def test_a_test_message_obeys_the_key(house: House, peer: ScriptedPeer) -> None:
    """A key for some senders sends no test message as another."""
    key = await house.ledger.create_key(
        "shop", scopes=["routes.check", "messages.send"], senders=["shop@contoso.com"]
    )

    answer = await house.client.post(
        "/routes/peer/check",
        json={"send_to": "ana@example.com", "from": "boss@contoso.com"},
        headers=_bearer(key.token),
    )

    assert answer.status_code == 403
    assert peer.taken == []


async def test_a_refused_test_message_is_explained(house: House, peer: ScriptedPeer) -> None:
    """What the peer says after the dot stands in the last step, with its diagnosis."""
    peer.on(
        "dot",
        reply="554 5.2.252 SendAsDenied; a not allowed to send as b; STOREDRV.Submission.Exception:SendAsDenied",
    )

    answer = await ask(house, send_to="ana@example.com", **{"from": "noreply@contoso.com"})

    last = steps(answer)["test_message"]
    assert answer.json()["result"] == "fail"
    assert last["status"] == "fail"
    assert "5.2.252" in last["detail"]
    assert last["remedy"]


@pytest.fixture
async def patient_house(
    database_url: str, redis_url: str, tmp_path: Path, peer: ScriptedPeer
) -> AsyncIterator[House]:
    """A house in which a lane that rests does so for long."""
    dns = {"dns": {"nameservers": ["127.0.0.1:1"], "timeout": "200ms"}}
    async with a_house(
        database_url,
        redis_url,
        routes=[smarthost(peer)],
        folder=tmp_path,
        settings_changes=dns,
        dispatch={"retry": {"first": "1h", "factor": 1, "cap": "1h"}},
    ) as house:
        yield house


async def test_a_mended_route_need_not_wait(patient_house: House, peer: ScriptedPeer) -> None:
    """A lane rests for an hour because the greeting was refused; a check that gets further ends the rest."""
    peer.on("greeting", reply="554 5.7.1 Go away")
    message = await patient_house.submit()

    async def rests() -> bool:
        return "peer" in await patient_house.ledger.resting()

    await eventually(rests)
    failing = await ask(patient_house)
    assert steps(failing)["greeting"]["status"] == "fail"
    assert await rests()
    peer.behave()

    well = await ask(patient_house)

    assert well.json()["result"] in {"ok", "warn"}
    assert "peer" not in await patient_house.ledger.resting()
    await patient_house.in_state(message, "sent")


async def test_a_lane_that_a_check_cannot_judge_rests_on(patient_house: House, peer: ScriptedPeer) -> None:
    """What was refused after the content is no matter of a check: the lane goes on resting."""
    peer.on(
        "dot",
        reply="432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending",
    )
    await patient_house.submit()

    async def rests() -> bool:
        return "peer" in await patient_house.ledger.resting()

    await eventually(rests)

    await ask(patient_house)

    assert await rests()
