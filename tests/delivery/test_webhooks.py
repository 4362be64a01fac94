"""Webhooks as receivers see them: signed, retried, pinned, and never in the way of mail."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import standardwebhooks
import trustme

from service import wiring
from service.delivery.calling import retry_after
from service.delivery.retention import RetentionKeeper
from service.delivery.webhooks import Schedule, next_wait
from service.ledger.retention import Retention
from service.ledger.scrubbing import NOBODY
from service.settings import Settings
from tests.delivery.receiver import Receiver
from tests.house import House, a_house, configuration, processes, smarthost
from tests.peer import ScriptedPeer
from tests.routes.nameserver import NameServer
from tests.waiting import eventually

#: Seconds become fractions of them.
QUICK: dict[str, Any] = {
    "allow_http": True,
    "allow_private": True,
    "timeout": "2s",
    "retries": ["50ms", "50ms", "100ms"],
    "disable_after": "1h",
}


@asynccontextmanager
async def telling(house: House) -> AsyncIterator[None]:
    """Tell webhooks beside the house's workers, as `postroom worker` does."""
    stop = asyncio.Event()
    async with wiring.webhook_dispatcher(house.settings) as dispatcher:
        task = asyncio.create_task(dispatcher.run(stop))
        try:
            yield
        finally:
            stop.set()
            await task


@asynccontextmanager
async def a_telling_house(
    database_url: str,
    redis_url: str,
    folder: Path,
    *,
    workers: int = 0,
    webhooks: dict[str, Any] | None = None,
    **changes: Any,
) -> AsyncIterator[House]:
    """A house that tells webhooks; without workers messages stay queued, which is one event each."""
    given = {"webhooks": {**QUICK, **(webhooks or {})}, **changes}
    async with (
        ScriptedPeer() as peer,
        a_house(
            database_url,
            redis_url,
            routes=[smarthost(peer)],
            folder=folder,
            workers=workers,
            settings_changes=given,
        ) as house,
        telling(house),
    ):
        yield house


@pytest.fixture
async def house(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[House]:
    async with a_telling_house(database_url, redis_url, tmp_path) as opened:
        yield opened


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as opened:
        yield opened


async def a_webhook(house: House, receiver: Receiver, **changes: Any) -> dict[str, Any]:
    answer = await house.client.post("/webhooks", json={"url": receiver.url, **changes})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def only_delivery(house: House, webhook: dict[str, Any]) -> dict[str, Any]:
    found = (await house.get(f"/webhooks/{webhook['id']}/deliveries"))["data"]
    assert len(found) == 1
    return dict(found[0])


async def ended(house: House, webhook: dict[str, Any]) -> dict[str, Any]:
    """Wait until the webhook's only delivery has ended."""

    async def there() -> dict[str, Any] | None:
        found = await only_delivery(house, webhook)
        return found if found["ended_at"] else None

    return await eventually(there)


async def disabled(house: House, webhook: dict[str, Any]) -> dict[str, Any]:
    async def there() -> dict[str, Any] | None:
        found: dict[str, Any] = await house.get(f"/webhooks/{webhook['id']}")
        return None if found["enabled"] else found

    return await eventually(there)


# --- what is told


async def test_every_move_is_told_and_verifies(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """A sent message is told as queued, sending, sent; each verifies, and equals the event of the feed."""
    async with (
        Receiver() as receiver,
        a_telling_house(database_url, redis_url, tmp_path, workers=1) as house,
    ):
        webhook = await a_webhook(house, receiver)
        message_id = await house.submit()
        calls = await receiver.has(3)
        feed = (await house.get("/events"))["data"]

    payloads = [call.verified(webhook["secret"]) for call in calls]
    assert {"recipient.queued", "recipient.sending", "recipient.sent"} == {each["type"] for each in payloads}
    assert sorted((event["id"], json.dumps(event)) for event in feed) == sorted(
        (each["data"]["id"], json.dumps(each["data"])) for each in payloads
    )
    assert {message_id} == {each["data"]["message"] for each in payloads}
    for call, payload in zip(calls, payloads, strict=True):
        assert call.headers["webhook-id"] == payload["data"]["id"]
        assert payload["timestamp"] == payload["data"]["created_at"]
        assert call.line == "POST /hook?token=t HTTP/1.1"
        assert call.headers["content-type"] == "application/json"
        assert call.headers["host"] == f"127.0.0.1:{receiver.port}"


async def test_only_wanted_types_are_told(house: House, receiver: Receiver) -> None:
    """A webhook gets the types that it asked for, and none from before it was there."""
    await house.submit()
    async with Receiver() as other:
        bounces = await a_webhook(house, receiver, events=["recipient.bounced", "recipient.sent"])
        await a_webhook(house, other, events=["recipient.queued"])
        message_id = await house.submit()
        await other.has(1)

        assert [message_id] == [json.loads(call.body)["data"]["message"] for call in other.calls]
        assert (await house.get(f"/webhooks/{bounces['id']}/deliveries"))["data"] == []
        assert receiver.calls == []


async def test_a_test_is_sent_at_once(house: House, receiver: Receiver) -> None:
    """`test` answers 202 with a delivery, and sends `webhook.test` whatever types are wanted."""
    webhook = await a_webhook(house, receiver, events=["recipient.bounced"])

    answer = await house.client.post(f"/webhooks/{webhook['id']}/test")
    (call,) = await receiver.has(1)
    delivery = await ended(house, webhook)

    assert answer.status_code == 202
    assert answer.json()["status"] == "pending"
    assert delivery["id"] == answer.json()["id"] == call.headers["webhook-id"]
    assert delivery["status"] == "delivered"
    assert [each["status"] for each in delivery["tries"]] == [200]
    assert call.verified(webhook["secret"])["type"] == "webhook.test"
    assert delivery["payload"] == json.loads(call.body)


async def test_old_and_new_secret_verify_while_rotating(house: House, receiver: Receiver) -> None:
    """During the overlap both secrets verify one call; after it the new one alone does."""
    webhook = await a_webhook(house, receiver)
    path = f"/webhooks/{webhook['id']}"

    rotated = (await house.client.post(f"{path}/rotate", json={"overlap": "1h"})).json()
    await house.client.post(f"{path}/test")
    (both,) = await receiver.has(1)
    last = (await house.client.post(f"{path}/rotate", json={"overlap": "1s"})).json()
    await eventually(lambda: _one_secret(house, path))
    await house.client.post(f"{path}/test")
    *_, after = await receiver.has(2)

    assert both.verified(webhook["secret"]) == both.verified(rotated["secret"])
    assert after.verified(last["secret"])
    for old in (webhook, rotated):
        with pytest.raises(standardwebhooks.WebhookVerificationError):
            after.verified(old["secret"])
    assert len({webhook["secret"], rotated["secret"], last["secret"]}) == 3


async def _one_secret(house: House, path: str) -> bool:
    return len((await house.get(path))["secrets"]) == 1


# --- what goes wrong


async def test_a_failure_is_tried_again_with_the_same_octets(house: House, receiver: Receiver) -> None:
    """After 500s it is sent again: same id, same body, a new timestamp and signature; each try is kept."""
    receiver.answers(500, 503)
    webhook = await a_webhook(house, receiver)
    await house.submit()

    calls = await receiver.has(3)
    delivery = await ended(house, webhook)

    assert len({(call.body, call.headers["webhook-id"]) for call in calls}) == 1
    assert [each["status"] for each in delivery["tries"]] == [500, 503, 200]
    assert delivery["status"] == "delivered"
    assert delivery["attempts"] == 3
    shown = await house.get(f"/webhooks/{webhook['id']}")
    assert (shown["failing_since"], shown["last_error"]) == (None, None)
    for call in calls:
        call.verified(webhook["secret"])


async def test_the_schedule_ends_and_the_webhook_says_that_it_fails(house: House, receiver: Receiver) -> None:
    """After the last wait the delivery has failed; the webhook shows since when, and why; replay sends it again."""
    receiver.answers(then=500)
    webhook = await a_webhook(house, receiver)
    await house.submit()
    delivery = await ended(house, webhook)
    failing = await house.get(f"/webhooks/{webhook['id']}")

    receiver.answers(then=204)
    path = f"/webhooks/{webhook['id']}/deliveries/{delivery['id']}"
    again = await house.client.post(f"{path}/replay")
    calls = await receiver.has(5)
    replayed = await ended(house, webhook)

    assert delivery["status"] == "failed"
    assert len(delivery["tries"]) == 4
    assert (failing["enabled"], failing["last_error"]) == (True, "It answered 500.")
    assert failing["failing_since"] is not None
    assert again.status_code == 202
    assert replayed["status"] == "delivered"
    assert [each["status"] for each in replayed["tries"]] == [500, 500, 500, 500, 204]
    assert len({call.headers["webhook-id"] for call in calls}) == 1


async def test_410_disables(house: House, receiver: Receiver) -> None:
    """A receiver that is gone is called once: the webhook is disabled, and says why."""
    receiver.answers(then=410)
    webhook = await a_webhook(house, receiver)
    await house.submit()

    shown = await disabled(house, webhook)
    test = await house.client.post(f"/webhooks/{webhook['id']}/test")

    assert (shown["disabled_reason"], shown["last_error"]) == ("gone", "It answered 410.")
    assert (await only_delivery(house, webhook))["status"] == "failed"
    assert len(receiver.calls) == 1
    assert (test.status_code, test.json()["code"]) == (409, "webhook_disabled")


async def test_failing_for_long_disables_and_enabling_starts_anew(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """Without a success for `disable_after` it is disabled as failing; enabled again, what is pending goes."""
    changes = {"disable_after": "300ms", "retries": ["100ms"] * 20}
    async with (
        Receiver() as receiver,
        a_telling_house(database_url, redis_url, tmp_path, webhooks=changes) as house,
    ):
        receiver.answers(then=500)
        webhook = await a_webhook(house, receiver)
        await house.submit()
        failing = await disabled(house, webhook)
        # What happens while it is disabled is not for it; what is pending waits.
        await house.submit()
        pending = await only_delivery(house, webhook)
        receiver.answers(then=200)
        enabled = await house.client.patch(f"/webhooks/{webhook['id']}", json={"enabled": True})
        delivered = await ended(house, webhook)
        span = await house.client.post(f"/webhooks/{webhook['id']}/replay", json={"after": "evt_0"})
        calls = await receiver.has(len(receiver.calls) + 2)

    assert failing["disabled_reason"] == "failing"
    assert pending["status"] == "pending"
    assert tuple(enabled.json()[each] for each in ("enabled", "disabled_reason", "failing_since")) == (
        True,
        None,
        None,
    )
    assert delivered["status"] == "delivered"
    assert span.json()["count"] == 2, span.text
    assert len({call.headers["webhook-id"] for call in calls}) == 2


async def test_retry_after_is_obeyed(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """A receiver that asks for an hour is not called before."""
    async with Receiver() as receiver, a_telling_house(database_url, redis_url, tmp_path) as house:
        receiver.answers(then=503, Retry_After="3600")
        webhook = await a_webhook(house, receiver)
        await house.submit()
        await receiver.has(1)

        async def tried() -> dict[str, Any] | None:
            found = await only_delivery(house, webhook)
            return found if found["tries"] else None

        delivery = await eventually(tried)

    wait = datetime.fromisoformat(delivery["next_attempt_at"]) - datetime.now(UTC)
    assert timedelta(minutes=59) < wait <= timedelta(hours=1)
    assert len(receiver.calls) == 1


async def test_a_receiver_that_never_answers_holds_nobody_up(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """Beside a stalled receiver with a backlog another one is told at once, and mail leaves as ever.

    The stalled one holds four calls at a time, however much waits for it.
    """
    async with (
        Receiver() as stalled,
        Receiver() as quick,
        a_telling_house(database_url, redis_url, tmp_path, workers=1, webhooks={"timeout": "30s"}) as house,
    ):
        stalled.stalls = True
        slow = await a_webhook(house, stalled)
        await a_webhook(house, quick, events=["recipient.sent"])
        before = [await house.submit() for _ in range(10)]
        for message_id in before:
            await house.in_state(message_id, "sent")
        await stalled.has(4)
        await quick.has(10, within=10)
        message_id = await house.submit()
        await house.in_state(message_id, "sent", within=10)
        await quick.has(11, within=10)
        waiting = await house.get(f"/webhooks/{slow['id']}/deliveries?status=pending&limit=100")

        assert len(waiting["data"]) == 33
        assert stalled.most_open == 4
        stalled.hangs_up()


async def test_a_worker_that_dies_in_a_call_leaves_it_to_the_next(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """After kill -9 in the middle of a call the lease runs out, and another worker sends it again."""
    async with ScriptedPeer() as peer, Receiver() as receiver:
        given = configuration(database_url, redis_url, routes=[smarthost(peer)])
        given["webhooks"] = QUICK
        receiver.stalls = True
        with processes(tmp_path, given) as running:
            running.start_api()
            async with running.door() as door:
                worker = running.start_worker()
                made = (await door.client.post("/webhooks", json={"url": receiver.url})).json()
                await door.client.post(f"/webhooks/{made['id']}/test")
                (first,) = await receiver.has(1)
                worker.kill()
                worker.wait()
                receiver.stalls = False
                running.start_worker()
                _, second = await receiver.has(2)

    assert first.body == second.body
    assert first.headers["webhook-id"] == second.headers["webhook-id"]


# --- where it may lead


async def error_of(house: House, url: str) -> str:
    """Make a webhook, send a test, and say what its only try came to."""
    made = await house.client.post("/webhooks", json={"url": url})
    assert made.status_code == 201, made.text
    await house.client.post(f"/webhooks/{made.json()['id']}/test")
    delivery = await ended(house, made.json())
    return str(delivery["tries"][0]["error"])


async def test_a_name_that_turns_to_a_private_address_is_not_called(
    database_url: str, redis_url: str, tmp_path: Path, receiver: Receiver
) -> None:
    """A name that led to the internet when the webhook was made, and inside later, is refused before the call."""
    async with NameServer() as dns:
        dns.has("hooks.example", "A", "8.8.8.8", ttl=0)
        rules = {"allow_private": False, "retries": []}
        servers: dict[str, Any] = {"dns": {"nameservers": f"127.0.0.1:{dns.port}"}}
        async with a_telling_house(database_url, redis_url, tmp_path, webhooks=rules, **servers) as house:
            made = await house.client.post(
                "/webhooks", json={"url": f"http://hooks.example:{receiver.port}/"}
            )
            dns.has("hooks.example", "A", "127.0.0.1", ttl=0)
            await house.client.post(f"/webhooks/{made.json()['id']}/test")
            delivery = await ended(house, made.json())

    assert delivery["status"] == "failed"
    assert "private or reserved" in delivery["tries"][0]["error"]
    assert receiver.calls == []


async def test_a_redirect_inside_is_not_followed(
    database_url: str, redis_url: str, tmp_path: Path, receiver: Receiver
) -> None:
    """A receiver that redirects to another address fails, and the other one is never called."""
    async with Receiver() as inside:
        receiver.answers(then=307, Location=inside.url)
        async with a_telling_house(database_url, redis_url, tmp_path, webhooks={"retries": []}) as house:
            error = await error_of(house, receiver.url)

    assert error == "It answered 307; redirects are not followed."
    assert inside.calls == []


async def test_tls_is_verified_against_the_name(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """Over the address that was resolved, SNI and certificate are the name's: another name's is refused."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("hooks.example").configure_cert(context)
    names: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    rules = {"allow_http": False, "retries": [], "ca_file": str(tmp_path / "ca.pem")}
    async with NameServer() as dns, Receiver(tls=context) as receiver:
        dns.has("hooks.example", "A", "127.0.0.1")
        dns.has("other.example", "A", "127.0.0.1")
        servers: dict[str, Any] = {"dns": {"nameservers": f"127.0.0.1:{dns.port}"}}
        async with a_telling_house(database_url, redis_url, tmp_path, webhooks=rules, **servers) as house:
            good = await error_of(house, f"https://hooks.example:{receiver.port}/")
            bad = await error_of(house, f"https://other.example:{receiver.port}/")

    assert good == "None"
    assert "certificate is not the host's" in bad
    assert [f"hooks.example:{receiver.port}"] == [call.headers["host"] for call in receiver.calls]
    assert names == ["hooks.example", "other.example"]


async def test_trouble_is_told_in_a_sentence(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """Nobody there, and no answer in time: each failure says which, without the address."""
    rules = {"retries": [], "timeout": "500ms"}
    async with a_telling_house(database_url, redis_url, tmp_path, webhooks=rules) as house:
        async with Receiver() as closed:
            url = closed.url
        refused = await error_of(house, url)
        async with Receiver() as silent:
            silent.stalls = True
            slow = await error_of(house, silent.url)

    assert refused == "The connection was refused."
    assert slow == "There was no answer within 0.5 s."


# --- secrets at rest


async def test_secrets_are_sealed_where_there_is_a_key(
    database_url: str, redis_url: str, tmp_path: Path, receiver: Receiver
) -> None:
    """With an encryption key no secret is in the table in clear, and calls still verify."""
    key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
    async with a_telling_house(database_url, redis_url, tmp_path, encryption_key=key) as house:
        webhook = await a_webhook(house, receiver)
        await house.client.post(f"/webhooks/{webhook['id']}/test")
        (call,) = await receiver.has(1)
        stored = await house.ledger.webhooks.find(webhook["id"], application=None)

    assert stored is not None
    assert stored.secrets[0].stored.startswith("sealed:v1:")
    assert webhook["secret"].removeprefix("whsec_") not in stored.secrets[0].stored
    assert call.verified(webhook["secret"])


# --- what is erased


async def test_an_erased_person_is_told_of_no_more(
    database_url: str, redis_url: str, tmp_path: Path, receiver: Receiver
) -> None:
    """What is still to be posted, and what is posted again, tells the rest of the event and leaves out the person."""
    receiver.answers(500)
    async with a_telling_house(
        database_url, redis_url, tmp_path, workers=1, webhooks={"retries": ["1h"]}
    ) as house:
        webhook = await a_webhook(house, receiver, events=["recipient.sent"])
        message_id = await house.submit(to="canary@private.example")
        (first,) = await receiver.has(1)
        (pending,) = (await house.get(f"/webhooks/{webhook['id']}/deliveries"))["data"]
        admin = await house.ledger.create_key("privacy", scopes=["admin"], senders=[])
        headers = {"Authorization": f"Bearer {admin.token}"}
        asked = await house.client.post(
            "/erasures", json={"email": "canary@private.example"}, headers=headers
        )
        await RetentionKeeper(house.ledger, Retention(), interval=600).round()

        erasure = (await house.client.get(asked.headers["Location"], headers=headers)).json()
        shown = (await house.client.get(f"/webhooks/{webhook['id']}/deliveries")).text
        again = await house.client.post(f"/webhooks/{webhook['id']}/deliveries/{pending['id']}/replay")
        calls = await receiver.has(2)

    assert "canary@private.example" in first.body
    assert (erasure["status"], erasure["messages"]) == ("finished", 1)
    assert "canary" not in shown
    assert again.status_code == 202, again.text
    told = calls[1].verified(webhook["secret"])
    assert (told["type"], told["data"]["message"], told["data"]["recipient"]) == (
        "recipient.sent",
        message_id,
        NOBODY,
    )
    assert (told["data"]["reply"]["code"], told["data"]["reply"]["text"]) == (250, "")


async def test_what_is_told_is_kept_as_long_as_its_event(
    database_url: str, redis_url: str, tmp_path: Path, receiver: Receiver
) -> None:
    """With an event goes what webhooks were told of it, and what they were still to be told."""
    receiver.answers(500)
    async with a_telling_house(database_url, redis_url, tmp_path, webhooks={"retries": ["1h"]}) as house:
        webhook = await a_webhook(house, receiver)
        await house.submit()
        await house.submit()
        await receiver.has(2)

        async def is_one_told() -> bool:
            found = await house.get(f"/webhooks/{webhook['id']}/deliveries")
            return sorted(each["status"] for each in found["data"]) == ["delivered", "pending"]

        await eventually(is_one_told)
        await RetentionKeeper(house.ledger, Retention(events=timedelta(0)), interval=600).round()

        left = await house.get(f"/webhooks/{webhook['id']}/deliveries")
    assert left["data"] == []


# --- pure


def test_the_schedule_is_that_of_standard_webhooks() -> None:
    """5 s, 5 min, 30 min, 2, 5, 10, 14, 20, 24 h; jitter only lengthens; Retry-After is never cut short."""
    settings = Settings.load(
        None, env={"POSTROOM_DATABASE_URL": "postgresql://x", "POSTROOM_REDIS_URL": "redis://x"}
    )
    given = settings.webhooks
    schedule = Schedule(retries=given.retries, disable_after=given.disable_after, timeout=given.timeout)

    waits = [next_wait(schedule, attempt=n, jitter=0) for n in range(1, 11)]
    longest = next_wait(schedule, attempt=2, jitter=1)
    asked = next_wait(schedule, attempt=1, jitter=0, asked_for=timedelta(hours=24))

    hours = [timedelta(hours=n) for n in (2, 5, 10, 14, 20, 24)]
    assert [timedelta(seconds=5), timedelta(minutes=5), timedelta(minutes=30), *hours, None] == waits
    assert timedelta(minutes=5.5) == longest
    assert timedelta(hours=24) == asked


def test_retry_after_is_read_in_both_forms() -> None:
    """Seconds and dates are read, up to a day; nonsense and the past are no wait."""
    now = datetime(2026, 11, 23, 12, tzinfo=UTC)
    table = {
        "120": timedelta(seconds=120),
        "99999999999999999999": timedelta(hours=24),
        format_datetime(now + timedelta(minutes=5), usegmt=True): timedelta(minutes=5),
        format_datetime(now + timedelta(days=5), usegmt=True): timedelta(hours=24),
        format_datetime(now - timedelta(days=5), usegmt=True): timedelta(0),
        "soon": None,
        "-5": None,
        "٣": None,
        "": None,
    }

    assert table == {field: retry_after(field, now=now) for field in table}
    assert retry_after(None, now=now) is None
