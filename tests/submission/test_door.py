"""What the HTTP door refuses, and how: a 4xx that names the field and repeats nothing."""

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.ledger.rights import SCOPES
from service.local.servers import LocalPostgres
from tests.house import House, a_house, a_message, smarthost
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


async def post(house: House, body: bytes, kind: str = "application/json") -> Any:
    return await house.client.post("/messages", content=body, headers={"Content-Type": kind})


def pointers(answer: Any) -> list[str]:
    return [error["pointer"] for error in answer.json()["errors"]]


async def test_an_accepted_message_is_shown_at_once(house: House) -> None:
    """202 with a Location; the resource is there under it, queued, with every recipient."""
    answer = await house.client.post("/messages", json=a_message(tags=["a"], metadata={"order_id": "42"}))

    shown = (await house.client.get(answer.headers["location"])).json()
    assert answer.status_code == 202
    assert answer.json()["status"] == shown["status"] == "queued"
    assert shown["recipients"][0]["email"] == "ana@example.com"
    assert shown["metadata"] == {"order_id": "42"}
    assert answer.json().keys() == shown.keys()


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "not_json"),
        (b"{", 400, "not_json"),
        (b"[]", 400, "not_an_object"),
        (b'"x"', 400, "not_an_object"),
        (b"\xff\xfe", 400, "not_utf8"),
        (b'{"from":' + b"[" * 100_000, 400, "too_deep"),
        (b'{"from":' + b"[" * 40 + b"]" * 40 + b"}", 400, "too_deep"),
        (b'{"subject":"a","subject":"b"}', 422, "duplicate_name"),
        (b'{"metadata":{"a":NaN}}', 422, "not_a_number"),
        (b'{"metadata":{"a":Infinity}}', 422, "not_a_number"),
        (b'{"metadata":{"a":1e400}}', 422, "number_too_large"),
        (b'{"metadata":{"a":123456789012345678901234}}', 422, "number_too_large"),
        (b'{"subject":"\\ud800"}', 422, "lone_surrogate"),
        (b'{"\\udfff":"x"}', 422, "lone_surrogate"),
        (b'{"text":"a\\u0000b"}', 422, "nul"),
    ],
)
async def test_broken_json_is_named(house: House, body: bytes, status: int, code: str) -> None:
    """JSON that is broken, deep, doubled, or that cannot be written down again gets its own code."""
    answer = await post(house, body)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"] == answer.json()["request_id"]


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"from": "Evil"}, "/from"),
        ({"from": {"email": "a@b.c", "name": "x\r\nBcc: evil@example.com"}}, "/from"),
        ({"to": ["ana@example.com", "a@b, c@d"]}, "/to/1"),
        ({"to": []}, "/to"),
        ({"to": "group: a@b.example;"}, "/to"),
        ({"cc": [7]}, "/cc/0"),
        ({"subject": "x\r\nBcc: evil@example.com"}, "/subject"),
        ({"headers": {"Bcc": "evil@example.com"}}, "/headers"),
        ({"headers": {"X-A: b\r\nBcc": "x"}}, "/headers"),
        ({"attachments": [{"content": "%%%"}]}, "/attachments/0/content"),
        ({"attachments": [{"content": "", "filename": "../../etc/passwd"}]}, "/attachments/0/filename"),
        ({"raw": "AAAA"}, "/text"),
        ({"expires_at": "tomorrow"}, "/expires_at"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "/expires_at"),
        ({"expires_at": "2999-01-01T00:00:00Z"}, "/expires_at"),
        ({"on_uncertain": "guess"}, "/on_uncertain"),
        ({"route": "nowhere"}, "/route"),
        ({"template": {"id": "x"}}, "/subject"),
        ({"template": {"name": "x"}}, "/template/id"),
        ({"scheduled_at": "2020-01-01T00:00:00Z"}, "/scheduled_at"),
        ({"scheduled_at": "2999-01-01T00:00:00Z"}, "/scheduled_at"),
        ({"dsn": {"notify": ["never", "delay"]}}, "/dsn/notify"),
        ({"merge": [{"to": "a@b.example"}]}, "/to"),
        ({CANARY: 1}, ""),
        ({"metadata": {CANARY: [1]}}, "/metadata"),
        ({"tags": ["x" * 300]}, "/tags/0"),
        ({"text": None}, "/text"),
    ],
)
async def test_a_wrong_field_is_named(house: House, changes: dict[str, Any], pointer: str) -> None:
    """422 with a pointer to the field, ending at a name of the contract, and nothing of the input."""
    answer = await house.client.post("/messages", json=a_message(**changes))

    assert answer.status_code == 422, answer.text
    assert any(found.startswith(pointer) for found in pointers(answer)), answer.text
    assert CANARY not in answer.text
    assert "evil@example.com" not in answer.text


async def test_a_whole_message_can_be_given(house: House) -> None:
    """`raw` in base64 and `message/rfc822` keep the caller's own octets and Message-ID."""
    raw = b"From: noreply@contoso.com\r\nTo: ana@example.com\r\nMessage-ID: <own@contoso.com>\r\nSubject: x\r\n\r\nhello\r\n"
    in_json = await house.client.post(
        "/messages",
        json={
            "from": "noreply@contoso.com",
            "to": "ana@example.com",
            "raw": base64.b64encode(raw).decode(),
        },
    )
    as_body = await house.client.post(
        "/messages?envelope_from=noreply@contoso.com&envelope_to=ana@example.com",
        content=raw,
        headers={"Content-Type": "message/rfc822"},
    )

    assert in_json.status_code == as_body.status_code == 202
    assert in_json.json()["message_id"] == as_body.json()["message_id"] == "<own@contoso.com>"


@pytest.mark.parametrize(
    ("query", "code", "pointer"),
    [
        ("envelope_to=ana@example.com", "envelope_missing", "?envelope_from"),
        ("envelope_from=noreply@contoso.com", "envelope_missing", "?envelope_to"),
        ("envelope_from=evil&envelope_to=ana@example.com", "no_at", "?envelope_from"),
        ("envelope_from=noreply@contoso.com&envelope_to=ana@example.com&envelope_to=evil", "no_at", "?envelope_to"),
        ("envelope_from=evil@fabrikam.com&envelope_to=ana@example.com", "sender_not_allowed", "?envelope_from"),
        ("envelope_from=a@b.c&envelope_from=noreply@contoso.com&envelope_to=ana@example.com", "repeated", "?envelope_from"),
        ("envelope_from=noreply@contoso.com&envelope_to=ana@example.com&cc=x", "unknown_parameter", ""),
    ],
)  # fmt: skip
async def test_a_wrong_envelope_is_named_where_it_stands(
    house: House, query: str, code: str, pointer: str
) -> None:
    """The envelope of a message/rfc822 is in the query, so problems point there; nothing is taken for another."""
    key = await house.ledger.create_key("one", scopes=["messages.send"], senders=["noreply@contoso.com"])

    answer = await house.client.post(
        f"/messages?{query}",
        content=b"From: noreply@contoso.com\r\n\r\nx\r\n",
        headers={"Content-Type": "message/rfc822", "Authorization": f"Bearer {key.token}"},
    )

    assert answer.json()["code"] == code, answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


@pytest.mark.parametrize(
    ("changes", "code", "pointer"),
    [
        ({"to": ["ana@example.com"] * 1001}, "too_long", "/to"),
        ({"to": [{"email": "ana@example.com", "x": 1}]}, "unknown_field", "/to/0"),
        ({"from": {"name": "Ana"}}, "required", "/from/email"),
        ({"cc": [{"email": 7}]}, "string_type", "/cc/0/email"),
    ],
)
async def test_a_value_of_two_kinds_is_judged_as_what_it_is(
    house: House, changes: dict[str, Any], code: str, pointer: str
) -> None:
    """A list with a mistake is told the mistake, and not that it is no string, although a string would do, too."""
    answer = await post(house, json.dumps(a_message(**changes)).encode())

    assert [(error["pointer"], error["code"]) for error in answer.json()["errors"]] == [(pointer, code)]
    assert answer.json()["code"] == code


async def test_keys_open_only_what_they_may(house: House) -> None:
    """401 without a key, 403 for a missing scope or a foreign sender, 404 for another application's message."""
    message_id = await house.submit()
    reader = await house.ledger.create_key("other", scopes=["messages.read"], senders=[])
    narrow = await house.ledger.create_key("tests", scopes=["messages.send"], senders=["@fabrikam.com"])

    def auth(token: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {token}"}

    nobody = await house.client.get("/me", headers={"Authorization": ""})
    wrong = await house.client.get("/me", headers=auth(reader.token[:-1] + "x"))
    foreign = await house.client.get(f"/messages/{message_id}", headers=auth(reader.token))
    unknown = await house.client.get("/messages/msg_01JDB6Z0Q5V8W6K3T1E9F4H2RC", headers=auth(reader.token))
    no_scope = await house.client.post("/messages", json=a_message(), headers=auth(reader.token))
    no_sender = await house.client.post("/messages", json=a_message(), headers=auth(narrow.token))

    assert nobody.status_code == wrong.status_code == 401
    assert nobody.headers["www-authenticate"].startswith("Bearer")
    assert foreign.status_code == unknown.status_code == 404
    assert {**foreign.json(), "request_id": ""} == {**unknown.json(), "request_id": ""}
    assert (no_scope.status_code, no_scope.json()["code"]) == (403, "insufficient_scope")
    assert (no_sender.status_code, no_sender.json()["code"]) == (403, "sender_not_allowed")


async def test_a_key_is_nowhere_in_clear(
    house: House, shared_postgres: LocalPostgres, database_url: str
) -> None:
    """The ledger keeps a hash: the secret of a key is not to be found in the table."""
    key = await house.ledger.create_key("secretive", scopes=["messages.send"], senders=[])
    secret = key.token.split("_", 3)[3]  # which may have more of these

    rows = shared_postgres.execute(
        "SELECT keys::text AS row FROM keys", database=database_url.rsplit("/", 1)[1]
    )

    assert rows
    assert all(secret not in row["row"] and secret.encode().hex() not in row["row"] for row in rows)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("DELETE", "/messages", 405),
        ("GET", "/messages/msg_x", 404),
        ("GET", "/attempts/..%2f..", 404),
        ("GET", "/v1/me", 200),
        ("GET", "/livez", 200),
    ],
)
async def test_every_refusal_is_a_problem(house: House, method: str, path: str, status: int) -> None:
    """Unknown paths, methods and ids are problems too, with the headers of safety."""
    answer = await house.client.request(method, path)

    assert answer.status_code == status
    assert answer.headers["x-content-type-options"] == "nosniff"
    if status >= 400:
        assert answer.json()["code"]


async def test_a_wrong_method_is_told_the_right_ones(house: House) -> None:
    """`Allow` lists every method of the path, with and without /v1."""
    paths = ("/messages", "/v1/messages", "/messages/msg_x", "/templates/tpl_x", "/messages/msg_x/cancel")

    allowed = {path: (await house.client.put(path)).headers["allow"] for path in paths}

    assert allowed == {
        "/messages": "GET, POST",
        "/v1/messages": "GET, POST",
        "/messages/msg_x": "GET, PATCH",
        "/templates/tpl_x": "GET, PATCH, DELETE",
        "/messages/msg_x/cancel": "POST",
    }


async def test_other_content_types_and_large_bodies_are_refused(house: House) -> None:
    """415 for a form, 413 for a body over the limit."""
    form = await post(house, b"a=b", "application/x-www-form-urlencoded")
    large = await post(house, b"x" * (51 * 1024 * 1024))

    assert (form.status_code, large.status_code) == (415, 413)


async def test_a_test_key_never_reaches_a_live_route(house: House) -> None:
    """Without a sandbox a test key's message is refused, whatever route it names."""
    key = await house.ledger.create_key("tests", scopes=["messages.send"], senders=[], test=True)

    answer = await house.client.post(
        "/messages", json=a_message(route="peer"), headers={"Authorization": f"Bearer {key.token}"}
    )

    assert (answer.status_code, answer.json()["code"]) == (422, "no_route")


async def test_bad_idempotency_keys_are_refused(house: House) -> None:
    """A key is 1 to 256 visible ASCII characters, once."""
    for bad in ("", "a b", "x" * 257):
        answer = await house.client.post("/messages", json=a_message(), headers={"Idempotency-Key": bad})
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_invalid")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from([*list(a_message()), "cc", "bcc", "reply_to", "html", "headers", "attachments", "raw", "tags", "metadata", "expires_at", "priority", "stream"])  # fmt: skip


@given(changes=st.dictionaries(FIELDS, JSON, min_size=1, max_size=4))
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
async def test_no_value_gets_a_500(house: House, changes: dict[str, Any]) -> None:
    """Whatever stands in a field, the answer is 202 or a 4xx problem."""
    answer = await post(house, json.dumps(a_message(**changes)).encode())

    assert answer.status_code == 202 or 400 <= answer.status_code < 500, answer.text


async def test_a_query_is_refused_where_none_is_known(house: House) -> None:
    """Every operation that describes no parameter of the query says so, instead of answering as if there were none."""
    document = (await house.client.get("/openapi.json")).json()
    made = (await house.client.post("/messages", json=a_message())).json()["id"]
    everything = await house.ledger.create_key("tests", scopes=list(SCOPES), senders=["noreply@contoso.com"])
    house.client.headers["Authorization"] = f"Bearer {everything.token}"
    asked = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            described = [*operation.get("parameters", ()), *operations.get("parameters", ())]
            if not operation.get("security") or any(each.get("in") == "query" for each in described):
                continue
            url = path.replace("{message_id}", made)
            answer = await house.client.request(method, f"{url}?{CANARY}=1", json={})
            asked[f"{method} {path}"] = answer

    wrong = {
        name: (answer.status_code, answer.text[-120:])
        for name, answer in asked.items()
        if answer.status_code != 422 or "does not know" not in answer.text or CANARY in answer.text
    }
    assert wrong == {}
    assert {"get /me", "get /lanes", "post /messages/{message_id}/cancel"} <= asked.keys()
    assert (await house.client.get(f"/messages/{made}")).json()["status"] == "queued"
