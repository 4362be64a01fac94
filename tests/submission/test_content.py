"""GET /messages/{id}/content: what was sent, for readers with the right to it."""

import base64
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from service.ledger.engine import open_engine
from tests.house import House, a_house, smarthost
from tests.peer import ScriptedPeer

RAW = b"From: noreply@contoso.com\r\nSubject: x\r\nMessage-ID: <own@contoso.com>\r\nDate: Mon, 23 Nov 2026 19:40:02 +0000\r\n"


@pytest.fixture
async def house(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[House]:
    """A door without a worker: what it accepts stays queued."""
    async with (
        ScriptedPeer() as peer,
        a_house(database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path, workers=0) as opened,
    ):
        yield opened


async def sql(database_url: str, statement: str) -> list[Any]:
    engine = open_engine(database_url, name="test-sql", size=1)
    try:
        async with engine.begin() as db:
            found = await db.execute(text(statement))
            return list(found.all()) if found.returns_rows else []
    finally:
        await engine.dispose()


async def submitted_raw(house: House, body: bytes) -> str:
    """Send a whole message, for one recipient."""
    answer = await house.client.post(
        "/messages?envelope_from=noreply@contoso.com&envelope_to=ana@example.com",
        content=RAW + body,
        headers={"Content-Type": "message/rfc822"},
    )
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def test_content_is_shown_apart(house: House) -> None:
    """Headers, text, HTML and attachments, with the size and hash of the message; nothing of Bcc."""
    message_id = await house.submit(
        subject="Grüße",
        text="hällo",
        html="<p>hällo</p>",
        bcc=["hidden@example.com"],
        attachments=[{"filename": "März.pdf", "content": base64.b64encode(b"PDF").decode()}],
    )

    answer = await house.client.get(f"/messages/{message_id}/content")

    shown = answer.json()
    message = await house.message(message_id)
    assert answer.status_code == 200
    assert (shown["object"], shown["message"]) == ("content", message_id)
    assert (shown["size"], shown["sha256"]) == (message["size"], message["sha256"])
    assert {"name": "Subject", "value": "Grüße"} in shown["headers"]
    assert (shown["text"].strip(), shown["html"].strip()) == ("hällo", "<p>hällo</p>")
    assert shown["attachments"] == [
        {
            "filename": "März.pdf",
            "content_type": "application/pdf",
            "size": 3,
            "content_id": None,
            "disposition": "attachment",
        }
    ]
    assert shown["unread"] == []
    assert "hidden" not in answer.text


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("message/rfc822", "message/rfc822"),
        ("application/json;q=0.5, message/rfc822", "message/rfc822"),
        ("message/rfc822;q=0.5, application/json", "application/json"),
        ("message/rfc822;q=0", "application/json"),
        ("*/*", "application/json"),
        ("text/html", "application/json"),
        (";;;,,q=x", "application/json"),
    ],
)
async def test_the_octets_are_given_to_who_asks_for_them(house: House, accept: str, kind: str) -> None:
    """message/rfc822 is exactly what goes over the wire, to be saved and not shown."""
    message_id = await house.submit()

    answer = await house.client.get(f"/messages/{message_id}/content", headers={"Accept": accept})

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(kind)
    assert answer.headers["x-content-type-options"] == "nosniff"
    if kind == "message/rfc822":
        message = await house.message(message_id)
        assert hashlib.sha256(answer.content).hexdigest() == message["sha256"]
        assert answer.headers["content-disposition"].startswith("attachment")


async def test_an_attachment_is_handed_out_as_octets(house: House) -> None:
    """Whatever it says it is, it is application/octet-stream to be saved under a harmless name."""
    part = b'--b\r\nContent-Type: text/html\r\nContent-Disposition: attachment; filename="../..\\evil\xe2\x80\xae.html"\r\n\r\n<script>\r\n'
    message_id = await submitted_raw(
        house, b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhello\r\n" + part + b"--b--\r\n"
    )

    answer = await house.client.get(f"/messages/{message_id}/content?attachment=0")
    beyond = await house.client.get(f"/messages/{message_id}/content?attachment=1")

    assert (answer.status_code, answer.content) == (200, b"<script>")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == (
        "attachment; filename=\"evil_.html\"; filename*=UTF-8''evil_.html"
    )
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert (beyond.status_code, beyond.json()["code"]) == (404, "attachment_not_found")


@pytest.mark.parametrize(
    "query", ["attachment=-1", "attachment=x", "attachment=", "attachment=00000", "part=1"]
)
async def test_a_wrong_parameter_is_named(house: House, query: str) -> None:
    """422, and nothing was read."""
    message_id = await house.submit()

    answer = await house.client.get(f"/messages/{message_id}/content?{query}")

    assert answer.status_code == 422


async def test_each_reading_is_in_the_audit(house: House, database_url: str) -> None:
    """Who, what, when and from where, also where it is an operator of another application."""
    message_id = await house.submit()
    operator = await house.ledger.create_key("operations", scopes=["content.read", "operate"], senders=[])

    await house.client.get(f"/messages/{message_id}/content")
    await house.client.get(f"/messages/{message_id}/content", headers={"Accept": "message/rfc822"})
    await house.client.get(
        f"/messages/{message_id}/content?attachment=3",
        headers={"Authorization": f"Bearer {operator.token}"},
    )

    rows = await sql(database_url, "SELECT application, action, target, details FROM audit ORDER BY id")
    assert [tuple(row) for row in rows] == [
        ("tests", "content.read", message_id, {"form": "parts"}),
        ("tests", "content.read", message_id, {"form": "octets"}),
        ("operations", "content.read", message_id, {"form": "attachment", "attachment": 3}),
    ]


async def test_content_is_for_those_who_may_read_it(house: House, database_url: str) -> None:
    """403 without the scope, 404 for another application; neither is a reading."""
    message_id = await house.submit()
    reader = await house.ledger.create_key("tests", scopes=["messages.read"], senders=[])
    stranger = await house.ledger.create_key("other", scopes=["content.read"], senders=[])

    answers = [
        await house.client.get(
            f"/messages/{message_id}/content", headers={"Authorization": f"Bearer {key.token}"}
        )
        for key in (reader, stranger)
    ]

    assert [answer.status_code for answer in answers] == [403, 404]
    assert await sql(database_url, "SELECT 1 FROM audit WHERE action = 'content.read'") == []


async def test_content_that_is_no_longer_kept_is_gone(house: House, database_url: str) -> None:
    """410, and the message is there still."""
    message_id = await house.submit()
    await sql(database_url, "DELETE FROM contents")

    answer = await house.client.get(f"/messages/{message_id}/content")

    assert (answer.status_code, answer.json()["code"]) == (410, "content_gone")
    assert (await house.message(message_id))["status"] == "queued"


HOSTILE = {
    "nested": b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(20_000)
    ),
    "many parts": b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * 500_000,
    "strange charset": b"Content-Type: text/plain; charset=unicode_escape\r\n\r\n\\ud800",
    "half of a pair": b"Content-Type: text/plain; charset=utf-7\r\n\r\n+2AA-",
    "broken base64": b"Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\nA",
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
async def test_hostile_content_is_shown_as_far_as_it_goes(house: House, body: bytes) -> None:
    """Never a 500: what could not be read is said."""
    message_id = await submitted_raw(house, body)

    answer = await house.client.get(f"/messages/{message_id}/content")

    assert answer.status_code == 200
    assert answer.json()["unread"]
