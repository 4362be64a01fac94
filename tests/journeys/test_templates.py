"""Messages made from templates, from the template to the wire."""

from collections.abc import AsyncIterator
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest

from tests.house import House, a_house, a_message, smarthost
from tests.peer import ScriptedPeer


@pytest.fixture
async def peer() -> AsyncIterator[ScriptedPeer]:
    async with ScriptedPeer() as peer:
        yield peer


@pytest.fixture
async def house(
    database_url: str, redis_url: str, tmp_path: Path, peer: ScriptedPeer
) -> AsyncIterator[House]:
    async with a_house(database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path) as opened:
        yield opened


async def a_template(house: House, **changes: Any) -> dict[str, Any]:
    """Make a published template."""
    given = {
        "name": "receipt",
        "subject": "Order {{ order }}",
        "text": "Dear {{ name }}, {{ total }}",
        "html": "<p>Dear {{ name }}</p>",
        "publish": True,
        **changes,
    }
    made = await house.client.post("/templates", json=given)
    assert made.status_code == 201, made.text
    return dict(made.json())


def without_content(**changes: Any) -> dict[str, Any]:
    message = a_message(**changes)
    del message["subject"], message["text"]
    return message


async def test_a_template_becomes_a_message(house: House, peer: ScriptedPeer) -> None:
    """By name or id the published version is rendered, kept with the message, and sent as it was rendered."""
    made = await a_template(house)
    variables = {"order": 42, "name": "<Ana & Bea>", "total": "€ 7"}

    for name in (made["name"], made["id"]):
        answer = await house.client.post(
            "/messages", json=without_content(template={"id": name, "variables": variables})
        )
        assert answer.status_code == 202, answer.text
        shown = await house.in_state(answer.json()["id"], "sent")
        assert shown["subject"] == "Order 42"
        assert shown["template"] == {"id": made["id"], "version": 1}

    mail = message_from_bytes(peer.taken[0].octets, policy=policy.default)
    assert mail["Subject"] == "Order 42"
    text, html = (part.get_content() for part in mail.walk() if not part.is_multipart())
    assert text.strip() == "Dear <Ana & Bea>, € 7"
    assert html.strip() == "<p>Dear &lt;Ana &amp; Bea&gt;</p>"


async def test_a_merge_renders_each_copy(house: House, peer: ScriptedPeer) -> None:
    """Every entry has its own variables before the common ones; a missing one is named by its entry."""
    await a_template(house)
    message = without_content(template={"id": "receipt", "variables": {"total": "€ 1", "order": 0}})
    del message["to"]
    entries = [
        {"to": f"a{n}@example.com", "variables": {"name": f"Number {n}", "order": n}} for n in range(5)
    ]

    answer = await house.client.post("/messages", json={**message, "merge": entries})
    missing = await house.client.post(
        "/messages", json={**message, "merge": [*entries, {"to": "x@example.com"}]}
    )

    assert answer.status_code == 202, answer.text
    for each in answer.json()["data"]:
        await house.in_state(each["id"], "sent")
    got = {
        taken.rcpts: message_from_bytes(taken.octets, policy=policy.default)["Subject"]
        for taken in peer.taken
    }
    assert got == {(f"a{n}@example.com",): f"Order {n}" for n in range(5)}
    assert missing.status_code == 422
    (error,) = missing.json()["errors"]
    assert (error["pointer"], error["variable"]) == ("/merge/5/variables", "name")


async def test_what_cannot_be_rendered_is_a_422(house: House) -> None:
    """Unknown templates and versions, a subject of two lines, content beside the template."""
    await a_template(house)
    unpublished = await house.client.post("/templates", json={"name": "draft", "subject": "x", "text": "x"})
    good = {"order": 1, "name": "x", "total": 1}
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"template": {"id": "nothing"}}, "/template/id"),
        ({"template": {"id": "receipt", "version": 9}}, "/template/version"),
        ({"template": {"id": "draft"}}, "/template/id"),
        ({"template": {"id": "receipt", "variables": {**good, "order": "1\r\nBcc: x@y.z"}}}, "/template"),
        ({"template": {"id": "receipt", "variables": good}, "text": "x"}, "/text"),
        ({"template": {"id": "receipt", "variables": {"order": 1}}}, "/template/variables"),
    ]

    assert unpublished.status_code == 201
    for changes, pointer in wrong:
        answer = await house.client.post("/messages", json={**without_content(), **changes})
        assert answer.status_code == 422, answer.text
        assert answer.json()["errors"][0]["pointer"] == pointer, answer.text


async def test_another_applications_template_is_unknown(house: House) -> None:
    """A template belongs to one application, by name and by id."""
    made = await a_template(house)
    other = await house.ledger.create_key("other", scopes=["messages.send"], senders=[])

    for name in (made["name"], made["id"]):
        answer = await house.client.post(
            "/messages",
            json=without_content(template={"id": name, "variables": {}}),
            headers={"Authorization": f"Bearer {other.token}"},
        )
        assert (answer.status_code, answer.json()["code"]) == (422, "template_not_found")
