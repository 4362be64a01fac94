"""Webhooks at the door: what is taken and shown, what is refused, and who sees whose."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from service.ledger.webhooks import MOST, TYPES
from service.local.servers import LocalPostgres
from tests.house import House, a_house, smarthost
from tests.peer import ScriptedPeer
from tests.routes.nameserver import NameServer

URL = "https://hooks.example/postroom?token=canary-7f3a"
UNKNOWN = "whk_01JDB6Z0Q5V8W6K3T1E9F4H2RC"


@pytest.fixture
async def house(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[House]:
    """A door without a worker, with a DNS of its own: nothing is called."""
    async with ScriptedPeer() as peer, NameServer() as dns:
        dns.has("hooks.example", "A", "8.8.8.8")
        dns.has("inside.example", "A", "10.0.0.1")
        async with a_house(
            database_url,
            redis_url,
            routes=[smarthost(peer)],
            folder=tmp_path,
            workers=0,
            settings_changes={"dns": {"nameservers": f"127.0.0.1:{dns.port}"}},
        ) as opened:
            yield opened


async def made(house: House, **changes: Any) -> dict[str, Any]:
    answer = await house.client.post("/webhooks", json={"url": URL, **changes})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def a_key(house: House, application: str, *scopes: str) -> dict[str, str]:
    key = await house.ledger.create_key(application, scopes=scopes, senders=[])
    return {"Authorization": f"Bearer {key.token}"}


async def test_a_webhook_is_made_and_shown_with_its_secret_once(house: House) -> None:
    """201 with Location and the secret; afterwards everything but the secret is shown."""
    answer = await house.client.post(
        "/webhooks", json={"url": URL, "events": ["recipient.sent", "recipient.queued"], "description": "CRM"}
    )

    new = answer.json()
    secret = new.pop("secret")
    shown = await house.client.get(answer.headers["location"])
    listed = await house.get("/webhooks")
    assert answer.status_code == 201
    assert secret.startswith("whsec_")
    assert len(secret) == len("whsec_") + 44
    assert shown.json() == new == listed["data"][0]
    assert secret not in shown.text
    assert (new["object"], new["enabled"], new["url"]) == ("webhook", True, URL)
    assert new["events"] == ["recipient.queued", "recipient.sent"]
    assert [each["expires_at"] for each in new["secrets"]] == [None]


async def test_a_webhook_is_changed_and_deleted(house: House) -> None:
    """PATCH changes what is there alone; disabled by hand it says so; deleted it is gone for every path."""
    webhook = await made(house, description="CRM")
    path = f"/webhooks/{webhook['id']}"

    changed = await house.client.patch(path, json={"events": ["recipient.bounced"]})
    off = await house.client.patch(path, json={"enabled": False})
    test = await house.client.post(f"{path}/test")
    on = await house.client.patch(path, json={"enabled": True, "url": "https://hooks.example/b"})
    gone = await house.client.delete(path)

    assert (changed.json()["events"], changed.json()["description"]) == (["recipient.bounced"], "CRM")
    assert (off.json()["enabled"], off.json()["disabled_reason"]) == (False, "manual")
    assert (test.status_code, test.json()["code"]) == (409, "webhook_disabled")
    assert (on.json()["enabled"], on.json()["disabled_reason"], on.json()["disabled_at"]) == (
        True,
        None,
        None,
    )
    assert on.json()["url"] == "https://hooks.example/b"
    assert (gone.status_code, gone.content) == (204, b"")
    for method, url in _everything(webhook["id"])[:7]:
        assert (await house.client.request(method, url)).status_code == 404, url
    assert (await house.get("/webhooks"))["data"] == []


def _everything(
    webhook_id: str, delivery_id: str = "whd_01JDB6Z0Q5V8W6K3T1E9F4H2RC"
) -> list[tuple[Any, ...]]:
    """Every operation on one webhook, but for its body."""
    one = f"/webhooks/{webhook_id}"
    told = f"{one}/deliveries/{delivery_id}"
    return [
        ("GET", one),
        ("DELETE", one),
        ("POST", f"{one}/rotate"),
        ("POST", f"{one}/test"),
        ("GET", f"{one}/deliveries"),
        ("GET", told),
        ("POST", f"{told}/replay"),
        ("POST", f"{one}/replay"),
        ("PATCH", one),
    ]


async def test_two_applications_see_nothing_of_each_other(house: House) -> None:
    """With another application's key every operation answers as for a webhook that does not exist."""
    webhook = await made(house)
    delivery = (await house.client.post(f"/webhooks/{webhook['id']}/test")).json()["id"]
    theirs = await a_key(house, "others", "webhooks.read", "webhooks.write")
    bodies = {"PATCH": {"enabled": False}, "/replay": {"after": "evt_1"}}

    async def asked(webhook_id: str, delivery_id: str) -> list[tuple[int, dict[str, Any]]]:
        answers = []
        for method, path in _everything(webhook_id, delivery_id):
            body = bodies.get(method) or (
                bodies["/replay"] if path.endswith(f"{webhook_id}/replay") else None
            )
            answer = await house.client.request(method, path, headers=theirs, json=body)
            answers.append((answer.status_code, {**answer.json(), "request_id": ""}))
        return answers

    foreign = await asked(webhook["id"], delivery)
    unknown = await asked(UNKNOWN, "whd_01JDB6Z0Q5V8W6K3T1E9F4H2RC")

    assert foreign == unknown
    assert {status for status, _ in foreign} == {404}
    assert (await house.client.get("/webhooks", headers=theirs)).json()["data"] == []
    assert (await house.get(f"/webhooks/{webhook['id']}"))["enabled"]
    assert (await house.get(f"/webhooks/{webhook['id']}/deliveries"))["data"][0]["id"] == delivery


async def test_an_operator_sees_all(house: House) -> None:
    """A key with `operate` sees and mends every application's webhooks; a delivery of another webhook is a 404."""
    webhook, other = await made(house), await made(house)
    delivery = (await house.client.post(f"/webhooks/{webhook['id']}/test")).json()["id"]
    operator = await a_key(house, "ops", "webhooks.read", "webhooks.write", "operate")

    listed = await house.client.get("/webhooks", headers=operator)
    off = await house.client.patch(f"/webhooks/{webhook['id']}", headers=operator, json={"enabled": False})
    crossed = await house.client.get(f"/webhooks/{other['id']}/deliveries/{delivery}")

    assert {each["id"] for each in listed.json()["data"]} == {webhook["id"], other["id"]}
    assert (off.status_code, off.json()["enabled"]) == (200, False)
    assert crossed.status_code == 404


async def test_scopes_are_demanded(house: House) -> None:
    """Reading needs webhooks.read, everything else webhooks.write."""
    webhook = await made(house)
    reader = await a_key(house, "tests", "webhooks.read")
    sender = await a_key(house, "tests", "messages.send", "messages.read")

    for method, path in (*_everything(webhook["id"]), ("POST", "/webhooks"), ("GET", "/webhooks")):
        read = await house.client.request(method, path, headers=reader)
        none = await house.client.request(method, path, headers=sender)
        assert (read.status_code == 403) == (method != "GET"), path
        assert (none.status_code, none.json()["code"]) == (403, "insufficient_scope"), path


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_a_wrong_field_is_named(house: House, method: str) -> None:
    """422 with a pointer and a code, and nothing of what was given, when it is made and when it is changed."""
    path = "/webhooks" if method == "POST" else f"/webhooks/{(await made(house))['id']}"
    table: list[tuple[dict[str, Any], str, str]] = [
        ({"url": "http://hooks.example/canary"}, "/url", "http_not_allowed"),
        ({"url": "https://inside.example/canary"}, "/url", "address_not_allowed"),
        ({"url": "https://canary:x@hooks.example/"}, "/url", "login_in_address"),
        ({"url": "https://hooks.example/#canary"}, "/url", "fragment"),
        ({"url": "https://127.0.0.1/canary"}, "/url", "address_not_allowed"),
        ({"url": "https://169.254.169.254/canary"}, "/url", "address_not_allowed"),
        ({"url": "https://[::1]/canary"}, "/url", "address_not_allowed"),
        ({"url": "canary"}, "/url", "not_an_address"),
        ({"url": f"https://hooks.example/{'canary' * 400}"}, "/url", "string_too_long"),
        ({"url": 7}, "/url", "string_type"),
        ({"url": None}, "/url", "string_type" if method == "POST" else "null"),
        ({"url": URL, "events": ["recipient.sent", "recipient.canary"]}, "/events/1", "unknown_type"),
        ({"url": URL, "events": ["canary"] * 100}, "/events", "too_long"),
        ({"url": URL, "events": "canary"}, "/events", "list_type"),
        ({"url": URL, "description": "canary" * 100}, "/description", "string_too_long"),
        ({"url": URL, "canary": 1}, "", "unknown_field"),
    ]
    for body, pointer, code in table:
        answer = await house.client.request(method, path, json=body)

        assert answer.status_code == 422, (body, answer.text)
        assert [(each["pointer"], each["code"]) for each in answer.json()["errors"]] == [(pointer, code)]
        assert "canary" not in answer.text


async def test_a_name_that_the_dns_does_not_know_is_taken(house: House) -> None:
    """A receiver whose name comes later can be written down; each call looks again."""
    assert (await made(house, url="https://later.example/"))["enabled"]


async def test_bodies_of_acts_are_checked(house: House) -> None:
    """Overlaps, places to replay from and pages that are wrong get a 422 with their name."""
    path = f"/webhooks/{(await made(house))['id']}"
    table: list[tuple[str, str, Any, str]] = [
        ("POST", "rotate", {"overlap": "8d"}, "/overlap"),
        ("POST", "rotate", {"overlap": "0s"}, "/overlap"),
        ("POST", "rotate", {"overlap": "soon"}, "/overlap"),
        ("POST", "rotate", {"overlap": 5}, "/overlap"),
        ("POST", "replay", {}, "/after"),
        ("POST", "replay", {"after": "yesterday"}, "/after"),
        ("POST", "replay", {"after": "2026-11-23"}, "/after"),
        ("POST", "replay", {"after": "evt_999"}, "/after"),
        ("POST", "replay", {"after": "evt_9999999999999999999"}, "/after"),
        ("GET", "deliveries?status=gone", None, "?status"),
        ("GET", "deliveries?after=whk_x", None, "?after"),
        ("GET", "deliveries?event=1", None, ""),
    ]
    for method, rest, body, pointer in table:
        answer = await house.client.request(method, f"{path}/{rest}", json=body)
        assert answer.status_code == 422, (rest, body, answer.text)
        assert answer.json()["errors"][0]["pointer"] == pointer, (rest, body)


async def test_a_span_can_be_sent_again_from_any_time(house: House) -> None:
    """From the beginning of time, from now, or behind an event; what was never told is told, and nothing twice."""
    for _ in range(3):
        await house.submit()
    events = [event["id"] for event in (await house.get("/events"))["data"]]
    webhook = await made(house, events=["recipient.queued"])
    path = f"/webhooks/{webhook['id']}"

    async def replayed(after: str) -> dict[str, Any]:
        answer = await house.client.post(f"{path}/replay", json={"after": after})
        assert answer.status_code == 202, answer.text
        found: dict[str, Any] = answer.json()
        return found

    future, past = await replayed("2999-01-01T00:00:00Z"), await replayed("0001-01-01T00:00:00Z")
    behind = await replayed(events[1])
    deliveries = (await house.get(f"{path}/deliveries"))["data"]

    assert (future["count"], past["count"], behind["count"]) == (0, 3, 1)
    assert (past["next"], past["has_more"], past["webhook"]) == (events[2], False, webhook["id"])
    assert sorted(each["event"] for each in deliveries) == sorted(events)
    assert {each["status"] for each in deliveries} == {"pending"}


async def test_deliveries_are_listed_in_pages(house: House) -> None:
    """Newest first, `after` and `before` walk through them, `status` narrows them."""
    webhook = await made(house)
    path = f"/webhooks/{webhook['id']}"
    ids = [(await house.client.post(f"{path}/test")).json()["id"] for _ in range(3)][::-1]

    first = await house.get(f"{path}/deliveries?limit=2")
    second = await house.get(f"{path}/deliveries?limit=2&after={first['next']}")
    back = await house.get(f"{path}/deliveries?limit=2&before={ids[2]}&status=pending")
    none = await house.get(f"{path}/deliveries?status=delivered")
    one = await house.get(f"{path}/deliveries/{ids[0]}")

    assert [each["id"] for each in first["data"] + second["data"]] == ids
    assert (first["has_more"], second["has_more"], second["next"]) == (True, False, None)
    assert [each["id"] for each in back["data"]] == ids[:2]
    assert none["data"] == []
    assert one == first["data"][0]
    assert (one["event"], one["type"], one["attempts"], one["tries"]) == (None, "webhook.test", 0, [])
    assert one["payload"]["data"]["webhook"] == webhook["id"]


async def test_an_application_has_so_many_webhooks(house: House) -> None:
    """One more than there may be is a 409; a deleted one makes room."""
    webhooks = [await made(house) for _ in range(MOST)]

    refused = await house.client.post("/webhooks", json={"url": URL})
    await house.client.delete(f"/webhooks/{webhooks[0]['id']}")
    taken = await house.client.post("/webhooks", json={"url": URL, "events": list(TYPES)})

    assert (refused.status_code, refused.json()["code"]) == (409, "too_many_webhooks")
    assert taken.status_code == 201


async def test_every_act_is_audited_without_a_secret(
    house: House, shared_postgres: LocalPostgres, database_url: str
) -> None:
    """Who did what is kept for each act; neither the secret nor the address with its token is in it."""
    webhook = await made(house)
    path = f"/webhooks/{webhook['id']}"
    await house.client.patch(path, json={"url": f"{URL}2", "description": "x"})
    rotated = (await house.client.post(f"{path}/rotate")).json()
    delivery = (await house.client.post(f"{path}/test")).json()
    await house.client.post(f"{path}/deliveries/{delivery['id']}/replay")
    await house.client.post(f"{path}/replay", json={"after": "evt_0"})
    await house.client.delete(path)

    rows = shared_postgres.execute(
        "SELECT action, audit::text AS row FROM audit WHERE action LIKE 'webhook.%' ORDER BY id",
        database=database_url.rsplit("/", 1)[1],
    )
    acts = ["create", "update", "rotate", "test", "replay", "replay", "delete"]
    assert [f"webhook.{act}" for act in acts] == [row["action"] for row in rows]
    for row in rows:
        for secret in ("canary-7f3a", webhook["secret"][6:], rotated["secret"][6:]):
            assert secret not in row["row"]
