"""The endpoints of Resend's shape: what they take, what they answer, and how they refuse."""

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from service.ledger.keys import DEFAULT_SCOPES
from service.submission.envelope import Envelope
from service.submission.resend.errors import ErrorsInTheirForm
from tests.house import House, a_house, smarthost
from tests.peer import ScriptedPeer

CANARY = "canary-7f3a"


@pytest.fixture
async def house(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[House]:
    """A door without a worker: what it accepts stays queued."""
    async with (
        ScriptedPeer() as peer,
        a_house(database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path, workers=0) as opened,
    ):
        yield opened


def an_email(**changes: Any) -> dict[str, Any]:
    return {
        "from": "Contoso <noreply@contoso.com>",
        "to": ["ana@example.com"],
        "subject": "Your receipt",
        "html": "<p>Thank you.</p>",
        **changes,
    }


async def send(house: House, **changes: Any) -> str:
    answer = await house.client.post("/emails", json=an_email(**changes))
    assert answer.status_code == 200, answer.text
    assert answer.json().keys() == {"id"}
    return str(answer.json()["id"])


async def batch(house: House, emails: list[Any], *, mode: str | None = None, key: str | None = None) -> Any:
    headers = {"x-batch-validation": mode, "Idempotency-Key": key}
    return await house.client.post(
        "/emails/batch",
        json=emails,
        headers={name: value for name, value in headers.items() if value is not None},
    )


@asynccontextmanager
async def another(house: House, application: str = "tests", **key: Any) -> AsyncIterator[House]:
    """The same house through the door of another key."""
    made = await house.ledger.create_key(
        application, scopes=key.pop("scopes", DEFAULT_SCOPES), senders=key.pop("senders", []), **key
    )
    headers = {"Authorization": f"Bearer {made.token}"}
    transport = house.client._transport  # the one way into the application that runs here
    async with httpx2.AsyncClient(transport=transport, base_url="http://postroom", headers=headers) as client:
        yield House(client=client, ledger=house.ledger, settings=house.settings, rung=[])


async def audited(house: House, target: str) -> list[str]:
    """List the acts on a message, as the audit has them."""
    connection = await asyncpg.connect(house.settings.database_url.get_secret_value())
    try:
        rows = await connection.fetch("SELECT action FROM audit WHERE target = $1 ORDER BY id", target)
    finally:
        await connection.close()
    return [row["action"] for row in rows]


def refusal(answer: Any) -> tuple[int, str]:
    """Read an error in Resend's form, which has to be one through and through."""
    assert answer.headers["content-type"] == "application/json", answer.text
    assert answer.json().keys() == {"statusCode", "name", "message"}
    assert answer.json()["statusCode"] == answer.status_code
    assert answer.headers["x-request-id"]
    return answer.status_code, answer.json()["name"]


# -- sending ---------------------------------------------------------------------------------


async def test_an_email_is_a_message_and_is_shown_as_an_email(house: House) -> None:
    """What was sent in Resend's shape is there in ours too, and comes back in theirs as it was given."""
    at = (datetime.now(UTC) + timedelta(days=2)).replace(microsecond=0)
    email_id = await send(
        house,
        to="Ana <ana@example.com>",
        cc=["c@example.com"],
        bcc=["b@example.com"],
        reply_to="help@contoso.com",
        text="Thank you.\n",
        headers={"X-Entity-Ref-ID": "42"},
        attachments=[{"filename": "a.pdf", "content": list(b"%PDF"), "content_type": "application/pdf"}],
        tags=[{"name": "order", "value": "42"}, {"name": "category", "value": "receipt"}],
        scheduled_at=at.isoformat(),
    )

    email = (await house.client.get(f"/emails/{email_id}")).json()
    message = await house.message(email_id)
    octets = await house.ledger.octets(email_id)

    assert email == {
        "object": "email",
        "id": email_id,
        "message_id": message["message_id"],
        "from": "Contoso <noreply@contoso.com>",
        "to": ["Ana <ana@example.com>"],
        "cc": ["c@example.com"],
        "bcc": ["b@example.com"],
        "reply_to": ["help@contoso.com"],
        "subject": "Your receipt",
        "html": "<p>Thank you.</p>",
        "text": "Thank you.\n",
        "created_at": message["created_at"],
        "scheduled_at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "last_event": "scheduled",
        "tags": [{"name": "order", "value": "42"}, {"name": "category", "value": "receipt"}],
        "topic_id": None,
    }
    assert message["tags"] == ["order", "category"]
    assert message["metadata"] == {"order": "42", "category": "receipt"}
    mail = message_from_bytes(octets, policy=policy.default)
    assert mail["X-Entity-Ref-ID"] == "42"
    assert b"%PDF" in [part.get_payload(decode=True) for part in mail.walk()]


async def test_a_batch_is_all_or_none(house: House) -> None:
    """Without a word, one email that is wrong refuses all of them, and the message says which."""
    good = await batch(house, [an_email(), an_email(subject="Two")])
    bad = await batch(house, [an_email(), an_email(to="nobody")])

    assert good.status_code == 200
    assert good.json().keys() == {"data"}
    assert [(await house.message(each["id"]))["subject"] for each in good.json()["data"]] == [
        "Your receipt",
        "Two",
    ]
    assert refusal(bad) == (422, "validation_error")
    assert bad.json()["message"].startswith("Email 1: Invalid `to` field.")
    assert len((await house.get("/emails"))["data"]) == 2


async def test_a_permissive_batch_lists_what_it_refused(house: House) -> None:
    """The good ones are sent; the others stand in `errors`, by their index, whatever is wrong with them."""
    emails = [
        an_email(to="nobody"),
        an_email(),
        {"from": "a@contoso.com"},
        7,
        an_email(attachments=[{"path": "x"}]),
    ]

    answer = await batch(house, emails, mode="permissive")

    assert answer.status_code == 200
    assert len(answer.json()["data"]) == 1
    assert [each["index"] for each in answer.json()["errors"]] == [0, 2, 3, 4]
    messages = {each["index"]: each["message"] for each in answer.json()["errors"]}
    assert messages[0].startswith("Invalid `to` field.")
    assert messages[2] == "Missing `to` field."
    assert messages[4].startswith("Invalid `attachments[0].path` field.")


async def test_a_permissive_batch_may_be_refused_as_a_whole(house: House) -> None:
    """Where nothing is good, the answer is the list of errors and no id."""
    answer = await batch(house, [an_email(to="nobody"), an_email(to="")], mode="permissive")

    assert answer.status_code == 200
    assert answer.json()["data"] == []
    assert [each["index"] for each in answer.json()["errors"]] == [0, 1]


@pytest.mark.parametrize(
    "emails", [[], [an_email()] * 501, {}, "x"], ids=["none", "501", "an object", "a string"]
)
async def test_a_batch_has_its_size(house: House, emails: Any) -> None:
    """An empty batch, one that is too long, and what is no list are refused."""
    answer = await house.client.post("/emails/batch", json=emails)

    assert refusal(answer) in {(422, "validation_error"), (400, "validation_error")}


# -- once ------------------------------------------------------------------------------------


async def test_a_repeated_request_gets_the_first_answer(house: House) -> None:
    """The same key and email are one message, also where its time was said in words; another email is refused."""
    headers = {"Idempotency-Key": "order-42"}
    email = an_email(scheduled_at="in 1 hour")

    first = await house.client.post("/emails", json=email, headers=headers)
    again = await house.client.post("/emails", json=email, headers=headers)
    other = await house.client.post("/emails", json=an_email(subject="Other"), headers=headers)

    assert first.json() == again.json()
    assert again.headers["idempotent-replayed"] == "true"
    assert refusal(other) == (409, "invalid_idempotent_request")
    assert len((await house.get("/emails"))["data"]) == 1


async def test_a_repeated_batch_gets_the_first_answer(house: House) -> None:
    """Ids and errors come back as they were; the other way of validation is another request."""
    emails = [an_email(), an_email(to="nobody")]

    first = await batch(house, emails, mode="permissive", key="b-1")
    again = await batch(house, emails, mode="permissive", key="b-1")
    strict = await batch(house, emails, key="b-1")

    assert first.json() == again.json()
    assert len(again.json()["errors"]) == 1
    assert refusal(strict) == (409, "invalid_idempotent_request")


async def test_a_key_of_messages_is_not_one_of_emails(house: House) -> None:
    """The same idempotency key on another path is another one."""
    await house.submit(idempotency_key="order-42")

    answer = await house.client.post("/emails", json=an_email(), headers={"Idempotency-Key": "order-42"})

    assert answer.status_code == 200


# -- finding ---------------------------------------------------------------------------------


async def test_emails_are_listed_in_pages(house: House) -> None:
    """The newest first; `after` goes on, `before` goes back; messages of the other shape are there too."""
    ids = [await send(house, subject=str(number)) for number in range(4)]
    ids = [await house.submit(), *reversed(ids)]

    first = await house.get("/emails?limit=2")
    second = await house.get(f"/emails?limit=2&after={first['data'][-1]['id']}")
    back = await house.get(f"/emails?limit=2&before={second['data'][0]['id']}")
    everything = await house.get("/emails")

    assert first.keys() == {"object", "has_more", "data"}
    assert [each["id"] for each in first["data"] + second["data"]] == ids[:4]
    assert (first["has_more"], second["has_more"], everything["has_more"]) == (True, True, False)
    assert [each["id"] for each in back["data"]] == ids[:2]
    assert [each["id"] for each in everything["data"]] == ids
    assert "html" not in everything["data"][0]


async def test_another_application_sees_nothing(house: House) -> None:
    """Another key's email is a 404 to read, move and cancel, as one that is not there; it is in no list."""
    email_id = await send(house, scheduled_at="in 1 hour")

    async with another(house, "others") as others:
        answers = [
            await others.client.get(f"/emails/{email_id}"),
            await others.client.patch(f"/emails/{email_id}", json={"scheduled_at": "in 2 hours"}),
            await others.client.post(f"/emails/{email_id}/cancel"),
            await others.client.get("/emails/4ef9a417-02e9-4d39-ad75-9611e0fcc33c"),
            await others.client.get("/emails/metrics"),
        ]
        listed = await others.get("/emails")

    assert {refusal(answer) for answer in answers} == {(404, "not_found")}
    assert listed["data"] == []
    assert (await house.message(email_id))["status"] == "scheduled"


async def test_content_is_for_keys_that_may_read_it(house: House) -> None:
    """Without `content.read` HTML and text are null, and everything else is there."""
    email_id = await send(house)

    async with another(house, scopes=["messages.read"]) as reader:
        email = await reader.get(f"/emails/{email_id}")

    assert (email["html"], email["text"]) == (None, None)
    assert email["subject"] == "Your receipt"
    assert await audited(house, email_id) == []


async def test_content_that_is_read_is_in_the_audit(house: House) -> None:
    """Each reading of an email with its HTML and text is written down."""
    email_id = await send(house)

    email = await house.get(f"/emails/{email_id}")

    assert email["html"] == "<p>Thank you.</p>"
    assert await audited(house, email_id) == ["content.read"]


# -- acting ----------------------------------------------------------------------------------


async def test_a_scheduled_email_is_moved_and_cancelled(house: House) -> None:
    """PATCH gives another time, cancel ends it; the path decides, whatever id the body has."""
    email_id = await send(house, scheduled_at="in 1 hour")
    at = (datetime.now(UTC) + timedelta(hours=5)).replace(microsecond=0)

    moved = await house.client.patch(f"/emails/{email_id}", json={"id": "x", "scheduled_at": at.isoformat()})
    after = await house.get(f"/emails/{email_id}")
    cancelled = await house.client.post(f"/emails/{email_id}/cancel")

    assert (moved.status_code, moved.json()) == (200, {"object": "email", "id": email_id})
    assert datetime.fromisoformat(after["scheduled_at"]) == at
    assert (cancelled.status_code, cancelled.json()) == (200, {"object": "email", "id": email_id})
    assert (await house.get(f"/emails/{email_id}"))["last_event"] == "canceled"
    assert {"message.reschedule", "message.cancel"} <= set(await audited(house, email_id))


async def test_an_act_that_comes_too_late_changes_nothing(house: House) -> None:
    """What was cancelled cannot be moved or cancelled again: 422 with the reason."""
    email_id = await send(house, scheduled_at="in 1 hour")
    await house.client.post(f"/emails/{email_id}/cancel")

    moved = await house.client.patch(f"/emails/{email_id}", json={"scheduled_at": "in 2 hours"})
    cancelled = await house.client.post(f"/emails/{email_id}/cancel")

    assert refusal(moved) == refusal(cancelled) == (422, "validation_error")


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({}, "missing_required_field"),
        ({"scheduled_at": "yesterday"}, "validation_error"),
        ({"scheduled_at": "2020-01-01T00:00:00Z"}, "validation_error"),
        ({"scheduled_at": "in 31 days"}, "validation_error"),
        ({"scheduled_at": "in 1 hour", "subject": "x"}, "validation_error"),
    ],
)
async def test_a_time_that_cannot_be_is_refused(house: House, body: Any, name: str) -> None:
    """A missing, past, unreadable or far time, and every other field, are refused."""
    email_id = await send(house, scheduled_at="in 1 hour")

    assert refusal(await house.client.patch(f"/emails/{email_id}", json=body)) == (422, name)


# -- refusing --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "expected"),
    [
        ("POST", "/emails", {"Authorization": ""}, b"{}", (401, "missing_api_key")),
        ("POST", "/emails", {"Authorization": "Bearer re_123"}, b"{}", (403, "invalid_api_key")),
        ("POST", "/emails", {"Idempotency-Key": "x" * 257}, b"{}", (400, "invalid_idempotency_key")),
        ("POST", "/emails", {"Idempotency-Key": "a b"}, b"{}", (400, "invalid_idempotency_key")),
        ("POST", "/emails", {}, b"{", (400, "validation_error")),
        ("POST", "/emails", {}, b"{}", (422, "missing_required_field")),
        ("POST", "/emails?x=1", {}, b"{}", (422, "validation_error")),
        ("POST", "/emails", {"Content-Type": "text/plain"}, b"{}", (415, "validation_error")),
        ("POST", "/emails/batch", {"x-batch-validation": "maybe"}, b"[]", (422, "validation_error")),
        ("GET", "/emails?after=x", {}, b"", (422, "invalid_parameter")),
        ("GET", "/emails?limit=101", {}, b"", (422, "invalid_parameter")),
        ("GET", "/emails/x/y", {}, b"", (404, "not_found")),
        ("GET", "/v1/emails/x", {}, b"", (404, "not_found")),
        ("PUT", "/emails", {}, b"", (405, "method_not_allowed")),
        ("DELETE", "/emails/x", {}, b"", (405, "method_not_allowed")),
    ],
)  # fmt: skip
async def test_every_refusal_has_resends_form(
    house: House, method: str, path: str, headers: dict[str, str], body: bytes, expected: tuple[int, str]
) -> None:
    """What is refused by the endpoint, before it and around it has the status, name and form of Resend."""
    answer = await house.client.request(
        method, path, content=body, headers={"Content-Type": "application/json", **headers}
    )

    assert refusal(answer) == expected
    assert ("www-authenticate" in answer.headers) or answer.status_code != 401


async def test_a_key_without_the_scope_is_restricted(house: House) -> None:
    """A key that may send only is told so when it reads, as Resend's sending keys are."""
    async with another(house, scopes=["messages.send"]) as sender:
        answer = await sender.client.get("/emails")

    assert refusal(answer) == (401, "restricted_api_key")
    assert "www-authenticate" in answer.headers


async def test_the_restrictions_of_a_key_hold(house: House) -> None:
    """A sender or a recipient that the key may not use is refused, by name of the field."""
    restrictions = {"recipient_domains": ["example.com"]}
    async with another(house, senders=["a@contoso.com"], restrictions=restrictions) as limited:
        sender = await limited.client.post("/emails", json=an_email())
        recipient = await limited.client.post(
            "/emails", json=an_email(**{"from": "a@contoso.com", "to": "b@example.net"})
        )
        good = await limited.client.post("/emails", json=an_email(**{"from": "a@contoso.com"}))

    assert refusal(sender) == refusal(recipient) == (403, "validation_error")
    assert sender.json()["message"].startswith("Invalid `from` field.")
    assert recipient.json()["message"].startswith("Invalid `to` field.")
    assert good.status_code == 200


@pytest.mark.parametrize(
    ("restriction", "name"),
    [("messages_per_minute", "rate_limit_exceeded"), ("messages_per_day", "daily_quota_exceeded")],
)
async def test_a_quota_that_is_used_up_has_its_name(house: House, restriction: str, name: str) -> None:
    """429 with Retry-After; what is back within a minute is a rate, what takes longer a daily quota."""
    async with another(house, restrictions={restriction: 1}) as limited:
        await send(limited)
        answer = await limited.client.post("/emails", json=an_email())

    assert refusal(answer) == (429, name)
    assert int(answer.headers["retry-after"]) > 0
    assert answer.headers["ratelimit"]


async def test_a_bug_has_resends_form_too() -> None:
    """The last resort around everything answers under `/emails` in Resend's form, and elsewhere in ours."""

    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError(CANARY)

    transport = httpx2.ASGITransport(app=ErrorsInTheirForm(Envelope(broken)))
    async with httpx2.AsyncClient(transport=transport, base_url="http://postroom") as client:
        theirs, ours = await client.get("/emails"), await client.get("/messages")

    assert refusal(theirs) == (500, "internal_server_error")
    assert CANARY not in theirs.text
    assert ours.headers["content-type"] == "application/problem+json"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=30)
    | st.sampled_from(
        ["in 1 hour", "a@b.example", "\x00", "\ud800", "=?utf-8?q?x?=", "a\r\nBcc: b@c.example"]
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=8,
)
FIELDS = st.sampled_from(["from", "to", "cc", "reply_to", "subject", "html", "text", "headers", "attachments", "tags",
                          "scheduled_at", "template", "topic_id"])  # fmt: skip
FILES = st.dictionaries(
    st.sampled_from(["filename", "content", "path", "content_type", "content_id"]), JSON, min_size=1
)


@given(changes=st.dictionaries(FIELDS, JSON | st.lists(FILES, max_size=2), min_size=1, max_size=4))
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
async def test_no_value_gets_a_500(house: House, changes: dict[str, Any]) -> None:
    """Whatever stands in a field, the answer is 200 or an error in Resend's form, alone and in a batch."""
    email = json.dumps(an_email(**changes)).encode()
    headers = {"Content-Type": "application/json"}

    alone = await house.client.post("/emails", content=email, headers=headers)
    among = await house.client.post("/emails/batch", content=b"[" + email + b"]", headers=headers)

    for answer in (alone, among):
        assert answer.status_code == 200 or 400 <= refusal(answer)[0] < 500, answer.text


async def test_a_refusal_repeats_nothing_of_the_request(house: House) -> None:
    """No value and no chosen name comes back in an error."""
    wrong: list[dict[str, Any]] = [
        {"from": CANARY}, {"to": [CANARY]}, {"subject": f"{CANARY}\n"}, {"headers": {CANARY: "a\nb"}},
        {"tags": [{"name": f"{CANARY} x"}]}, {"scheduled_at": CANARY}, {"topic_id": CANARY}, {CANARY: 1},
        {"attachments": [{"filename": f"{CANARY}\0", "content": "*"}]}, {"attachments": [{"path": CANARY}]},
        {"template": {"id": CANARY}, "html": None, "subject": None}, {"template": {CANARY: CANARY}},
    ]  # fmt: skip

    for changes in wrong:
        answer = await house.client.post("/emails", json=an_email(**changes))
        refusal(answer)
        assert CANARY not in answer.text, changes


async def test_a_large_file_as_a_list_of_numbers_is_taken(house: House) -> None:
    """A file of a megabyte, written number by number as Python's SDK does, arrives octet for octet."""
    content = bytes(range(256)) * 4096
    email_id = await send(house, attachments=[{"filename": "a.bin", "content": list(content)}])

    octets = await house.ledger.octets(email_id)

    mail = message_from_bytes(octets, policy=policy.default)
    assert content in [part.get_payload(decode=True) for part in mail.walk()]
    assert base64.b64encode(content)[:57] in octets
