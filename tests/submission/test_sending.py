"""Ways of sending: batch, merge, plan, schedule, waiting, quotas, the limit of the queue."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from service import wiring
from service.ledger.engine import open_engine
from tests.house import House, a_house, a_message, copies, smarthost
from tests.peer import ScriptedPeer

SOON = timedelta(seconds=2)


def in_future(delta: timedelta) -> str:
    return (datetime.now(UTC) + delta).isoformat()


@pytest.fixture
async def house(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[House]:
    """A door without a worker: what it accepts stays queued."""
    async with (
        ScriptedPeer() as peer,
        a_house(database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path, workers=0) as opened,
    ):
        yield opened


async def batch(house: House, messages: list[Any], *, mode: str | None = None, **headers: str) -> Any:
    query = f"?validation={mode}" if mode else ""
    return await house.client.post(f"/messages/batch{query}", json=messages, headers=headers)


def pointers(answer: Any) -> list[str]:
    return [error["pointer"] for error in answer.json()["errors"]]


async def count(house: House) -> int:
    return len((await house.get("/messages?limit=100"))["data"])


# -- batches ---------------------------------------------------------------------------------


async def test_a_batch_is_answered_in_its_order(house: House) -> None:
    """Three messages, three resources in the same order, each to be had under its id."""
    answer = await batch(house, [a_message(subject=f"number {n}") for n in range(3)])

    assert answer.status_code == 202
    assert [each["subject"] for each in answer.json()["data"]] == ["number 0", "number 1", "number 2"]
    for each in answer.json()["data"]:
        assert (await house.message(each["id"]))["status"] == "queued"


async def test_a_strict_batch_is_all_or_nothing(house: House) -> None:
    """Two bad messages among four are named by their places, and none is accepted."""
    messages = [a_message(), a_message(to="nobody"), a_message(), a_message(unknown=1)]

    answer = await batch(house, messages)
    unread = await batch(house, [a_message(), a_message(to=["a@b.example", "x"])])

    assert answer.status_code == unread.status_code == 422
    assert pointers(answer) == ["/3"]  # what cannot be read comes before what cannot be sent
    assert pointers(unread) == ["/1/to/1"]
    assert await count(house) == 0


async def test_a_permissive_batch_takes_the_good_ones(house: House) -> None:
    """The problem stands in the place of the message, the others are accepted."""
    messages = [a_message(), a_message(to="nobody"), a_message(unknown=1), a_message(subject="last"), 7]

    answer = await batch(house, messages, mode="permissive")

    data = answer.json()["data"]
    assert answer.status_code == 202
    assert [each["object"] for each in data] == ["message", "problem", "problem", "message", "problem"]
    assert [each["index"] for each in data if each["object"] == "problem"] == [1, 2, 4]
    assert data[1]["errors"][0]["pointer"] == "/1/to"
    assert data[3]["subject"] == "last"
    assert await count(house) == 2


async def test_a_batch_of_nothing_good_is_refused(house: House) -> None:
    """422 for a permissive batch in which every message is wrong, for an empty one and for one of 501."""
    for messages in ([a_message(to="x"), 3], [], [a_message()] * 501, {"from": "x"}):
        answer = await house.client.post("/messages/batch?validation=permissive", json=messages)
        assert 400 <= answer.status_code <= 422, answer.text

    assert (await batch(house, [a_message()], mode="sometimes")).status_code == 422
    assert await count(house) == 0


async def test_five_hundred_messages_are_one_batch(house: House) -> None:
    """The largest batch is accepted whole, each message with an id of its own."""
    answer = await batch(house, [a_message(to=f"a{n}@example.com") for n in range(500)])

    assert answer.status_code == 202
    assert len({each["id"] for each in answer.json()["data"]}) == 500


async def test_a_repeated_batch_is_one_batch(house: House) -> None:
    """The same key gives the same answer, and nothing is accepted twice; another body is refused."""
    messages = [a_message(), a_message(to="x")]
    first = await batch(house, messages, mode="permissive", **{"Idempotency-Key": "k1"})
    again = await batch(house, messages, mode="permissive", **{"Idempotency-Key": "k1"})
    other = await batch(house, [a_message()], mode="permissive", **{"Idempotency-Key": "k1"})

    assert first.json() == again.json()
    assert again.headers["idempotent-replayed"] == "true"
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert await count(house) == 1


async def test_messages_of_a_batch_have_keys_of_their_own(house: House) -> None:
    """A message whose own key was seen is answered as the first time, and the others are new."""
    first = await batch(house, [a_message(idempotency_key="a"), a_message(idempotency_key="b")])
    second = await batch(house, [a_message(idempotency_key="b"), a_message(idempotency_key="c")])
    changed = await batch(house, [a_message(idempotency_key="c", subject="other")])
    twice = await batch(house, [a_message(idempotency_key="z"), a_message(idempotency_key="z")])

    assert second.json()["data"][0]["id"] == first.json()["data"][1]["id"]
    assert await count(house) == 3
    assert (changed.status_code, pointers(changed)) == (422, ["/0/idempotency_key"])
    assert (twice.status_code, pointers(twice)) == (422, ["/1/idempotency_key"])


async def test_parallel_batches_with_the_same_keys_make_each_message_once(house: House) -> None:
    """Twenty batches at once over the same ten keys, in any order: ten messages."""
    keys = [f"k{n}" for n in range(10)]

    async def one(turn: int) -> Any:
        order = keys[turn % 10 :] + keys[: turn % 10]
        messages = [a_message(idempotency_key=key, subject=key) for key in order]
        for _ in range(20):
            answer = await batch(house, messages)
            if answer.status_code != 409:
                return answer
            await asyncio.sleep(0.1)
        raise AssertionError(answer.text)

    answers = await asyncio.gather(*(one(turn) for turn in range(20)))

    ids = {each["id"] for answer in answers for each in answer.json()["data"]}
    assert {answer.status_code for answer in answers} == {202}
    assert len(ids) == await count(house) == 10


async def test_fifty_parallel_posts_with_one_key_are_one_message_and_one_mail(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """At two API processes at once: whoever comes while the first is running gets 409 or the first answer."""
    async with (
        ScriptedPeer() as peer,
        a_house(database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path) as house,
        wiring.api_app(house.settings) as other,
        httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=other),
            base_url="http://postroom",
            headers={"Authorization": house.client.headers["authorization"]},
        ) as client,
    ):
        answers = await asyncio.gather(
            *(
                door.post("/messages", json=a_message(), headers={"Idempotency-Key": "one"})
                for door in (house.client, client) * 25
            )
        )

        assert {answer.status_code for answer in answers} <= {202, 409}
        (message_id,) = {answer.json()["id"] for answer in answers if answer.status_code == 202}
        await house.in_state(message_id, "sent")
        assert await count(house) == 1
        assert copies(peer, "ana@example.com") == 1


async def test_waiting_for_a_key_holds_no_connection(house: House, database_url: str) -> None:
    """While another process has a key in an open transaction, thirty requests under it cost one connection."""
    engine = open_engine(database_url, name="test", size=1)
    async with engine.connect() as elsewhere:
        await elsewhere.execute(
            text(
                "INSERT INTO idempotency (application, path, key, sha256, answer)"
                " VALUES ('tests', '/messages', 'held', 'x', '{}')"
            )
        )
        held = [
            asyncio.create_task(
                house.client.post("/messages", json=a_message(), headers={"Idempotency-Key": "held"})
            )
            for _ in range(30)
        ]
        others = [await house.client.post("/messages", json=a_message()) for _ in range(5)]
        answers = await asyncio.gather(*held)
        await elsewhere.rollback()
    await engine.dispose()

    assert {answer.status_code for answer in others} == {202}
    # On a busy machine one may have waited for as long as a request may: that is a 503.
    assert {409} <= {answer.status_code for answer in answers} <= {409, 503}
    assert {answer.headers["retry-after"] for answer in answers if answer.status_code == 409} == {"1"}


# -- merges ----------------------------------------------------------------------------------


async def test_a_merge_is_a_message_for_each(house: House) -> None:
    """Each entry is a message of its own, alone with its recipients, tags and metadata."""
    message = a_message(to=None, tags=["news"], metadata={"issue": 7})
    del message["to"]
    message["merge"] = [
        {"to": "ana@example.com", "metadata": {"customer": "1"}},
        {"to": ["bea@example.com"], "subject": "For Bea", "tags": ["vip"], "idempotency_key": "bea"},
    ]

    answer = await house.client.post("/messages", json=message)
    again = await house.client.post("/messages", json={**message, "merge": [message["merge"][1]]})

    ana, bea = answer.json()["data"]
    assert answer.status_code == again.status_code == 202
    assert [each["email"] for each in ana["recipients"]] == ["ana@example.com"]
    assert (ana["metadata"], ana["tags"]) == ({"issue": 7, "customer": "1"}, ["news"])
    assert (bea["subject"], bea["tags"]) == ("For Bea", ["news", "vip"])
    assert again.json()["data"][0]["id"] == bea["id"]
    assert await count(house) == 2


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"merge": [{"to": "a@example.com"}, {"to": "b@"}]}, "/merge/1/to"),
        ({"merge": [{"to": "a@example.com"}, {"to": "b@example.com", "x": 1}]}, "/merge/1"),
        ({"merge": [{}]}, "/merge/0/to"),
        ({"merge": []}, "/merge"),
        ({"merge": [{"to": "a@example.com", "subject": "x\r\ny"}]}, "/merge/0/subject"),
        ({"merge": [{"to": "a@example.com"}], "subject": "x\r\ny"}, "/subject"),
        ({"merge": [{"to": "a@example.com"}], "cc": "c@example.com"}, "/cc"),
        ({"merge": [{"to": "a@example.com", "variables": {"a": 1}}]}, "/template"),
        ({"merge": [{"to": "a@example.com", "scheduled_at": "soon"}]}, "/merge/0/scheduled_at"),
        ({"merge": [{"to": "a@example.com"}] * 501}, "/merge"),
    ],
)
async def test_a_wrong_entry_of_a_merge_is_named(house: House, changes: dict[str, Any], pointer: str) -> None:
    """422 with the entry's place, or the common field's; nothing is accepted."""
    message = a_message()
    del message["to"]

    answer = await house.client.post("/messages", json={**message, **changes})

    assert answer.status_code == 422, answer.text
    assert pointers(answer) == [pointer]
    assert await count(house) == 0


# -- plans -----------------------------------------------------------------------------------


async def test_a_plan_says_what_would_happen_and_does_nothing(house: House) -> None:
    """The way, the reasons, the time; the same for `dry_run`; nothing is accepted."""
    planned = await house.client.post("/messages/plan", json=a_message())
    dry = await house.client.post(
        "/messages", json=a_message(dry_run=True), headers={"Idempotency-Key": "dry"}
    )
    real = await house.client.post("/messages", json=a_message(), headers={"Idempotency-Key": "dry"})

    for answer in (planned, dry):
        assert answer.status_code == 200, answer.text
        assert answer.json()["deliveries"][0]["lane"] == "peer"
        assert answer.json()["expected_at"]
        assert answer.json()["message"]["id"] is None
    assert real.status_code == 202
    assert await count(house) == 1


async def test_a_plan_without_a_way_says_why(house: House) -> None:
    """422 `no_route` with each route's reason, as sending would."""
    answer = await house.client.post("/messages/plan", json=a_message(route="nowhere"))

    assert (answer.status_code, answer.json()["code"]) == (422, "no_route")
    assert answer.json()["plan"]["why_not"]


# -- time ------------------------------------------------------------------------------------


async def test_a_scheduled_message_waits_for_its_time(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """It is `scheduled` until then, says when it is expected, and goes by itself."""
    async with (
        ScriptedPeer() as peer,
        a_house(database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path) as house,
    ):
        at = datetime.now(UTC) + SOON
        message_id = await house.submit(scheduled_at=at.isoformat())
        other = await house.submit(to="bea@example.com")
        shown = await house.message(message_id)
        await house.in_state(other, "sent")
        before = len(peer.taken)
        sent = await house.in_state(message_id, "sent")
        (attempt,) = await house.attempts(message_id)

        assert (shown["status"], before) == ("scheduled", 1)
        assert abs(datetime.fromisoformat(shown["expected_at"]) - at) < timedelta(seconds=3)
        assert datetime.fromisoformat(attempt["started_at"]) >= at
        assert sent["scheduled_at"] is not None
        life = datetime.fromisoformat(sent["expires_at"]) - datetime.fromisoformat(sent["scheduled_at"])
        assert life == timedelta(hours=72)


async def test_a_resting_lane_hears_of_a_scheduled_message(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """It goes at its time, not when something else wakes the lane: the sweep comes once a minute here."""
    async with (
        ScriptedPeer() as peer,
        a_house(
            database_url,
            redis_url,
            routes=[smarthost(peer)],
            folder=tmp_path,
            dispatch={"poll_interval": "60s"},
        ) as house,
    ):
        await house.in_state(await house.submit(), "sent", within=45.0)
        await asyncio.sleep(2.0)  # arq's job of the first message has rung, too: now the lane rests

        message_id = await house.submit(scheduled_at=in_future(SOON))
        shown = await house.in_state(message_id, "sent", within=90.0)
        (attempt,) = await house.attempts(message_id)

        # Without the bell it goes when the idle session is closed, a dozen seconds later.
        late = datetime.fromisoformat(attempt["started_at"]) - datetime.fromisoformat(shown["scheduled_at"])
        assert timedelta(0) <= late < timedelta(seconds=8)


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"scheduled_at": "2026-13-01T00:00:00Z"}, "/scheduled_at"),
        ({"scheduled_at": "2026-11-26"}, "/scheduled_at"),
        ({"scheduled_at": in_future(timedelta(days=31))}, "/scheduled_at"),
        (
            {
                "scheduled_at": in_future(timedelta(hours=2)),
                "expires_at": in_future(timedelta(hours=1)),
            },
            "/expires_at",
        ),
        ({"expires_at": in_future(timedelta(days=31))}, "/expires_at"),
    ],
)
async def test_times_that_cannot_be_are_refused(house: House, changes: dict[str, Any], pointer: str) -> None:
    """422 for what is no time, too far, or ends before it begins."""
    answer = await house.client.post("/messages", json=a_message(**changes))

    assert (answer.status_code, pointers(answer)) == (422, [pointer])


async def test_a_scheduled_message_is_expected_at_its_time(house: House) -> None:
    """Accepted and read, it says the hour that was asked for, and that this is why."""
    at = datetime.now(UTC) + timedelta(hours=5)
    accepted = await house.client.post("/messages", json=a_message(scheduled_at=at.isoformat()))
    shown = await house.message(accepted.json()["id"])

    for each in (accepted.json(), shown):
        assert abs(datetime.fromisoformat(each["expected_at"]) - at) < timedelta(seconds=3)
        assert each["expected_because"][0].startswith("it is scheduled for")


async def test_prefer_wait_answers_with_the_end(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """With `Prefer: wait` the 202 has the final state; a peer that takes too long leaves it open."""
    async with (
        ScriptedPeer() as peer,
        a_house(database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path) as house,
    ):
        quick = await house.client.post("/messages", json=a_message(), headers={"Prefer": "wait=20"})
        answered = asyncio.Event()
        peer.on("dot", until=answered)
        slow = await house.client.post(
            "/messages", json=a_message(), headers={"Prefer": "respond-async, wait=1"}
        )

        assert (quick.status_code, quick.json()["status"]) == (202, "sent")
        assert quick.headers["preference-applied"] == "wait=20"
        answered.set()
        assert (slow.status_code, slow.json()["status"]) == (202, "sending")


# -- quotas and the queue ----------------------------------------------------------------------


async def _limited(house: House, **restrictions: Any) -> dict[str, str]:
    key = await house.ledger.create_key(
        "limited", scopes=["messages.send", "messages.read"], senders=[], restrictions=restrictions
    )
    return {"Authorization": f"Bearer {key.token}"}


async def test_a_quota_is_counted_and_said(house: House) -> None:
    """Three a minute: the fourth gets 429 with the time; a batch that does not fit uses nothing."""
    auth = await _limited(house, messages_per_minute=3, messages_per_day=100)

    async def post(path: str, body: Any) -> Any:
        return await house.client.post(path, json=body, headers=auth)

    first = await post("/messages", a_message())
    too_many = await post("/messages/batch", [a_message()] * 3)
    second = await post("/messages/batch", [a_message()] * 2)
    refused = await post("/messages", a_message())
    wrong = await post("/messages", a_message(to="x"))

    assert first.headers["ratelimit"].startswith('"day";r=99;t=')
    assert '"minute";r=2;t=' in first.headers["ratelimit"]
    assert '"minute";q=3;w=60' in first.headers["ratelimit-policy"]
    assert (too_many.status_code, second.status_code, refused.status_code) == (429, 202, 429)
    assert refused.json()["code"] == "quota_exceeded"
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert '"minute";r=0;t=' in refused.headers["ratelimit"]
    assert wrong.status_code == 422


async def test_more_than_a_whole_quota_is_not_to_be_tried_again(house: House) -> None:
    """Two a minute: a batch or a merge of three can never be sent, so it is a 422 that points at the list."""
    auth = await _limited(house, messages_per_minute=2)
    merged = {name: value for name, value in a_message().items() if name != "to"}
    merge = {**merged, "merge": [{"to": f"{each}@example.com"} for each in "abc"]}

    batch = await house.client.post("/messages/batch", json=[a_message()] * 3, headers=auth)
    copies = await house.client.post("/messages", json=merge, headers=auth)
    fits = await house.client.post("/messages/batch", json=[a_message()] * 2, headers=auth)

    assert [(each.status_code, each.json()["code"]) for each in (batch, copies)] == [
        (422, "more_than_quota")
    ] * 2
    assert [each.json()["errors"][0]["pointer"] for each in (batch, copies)] == ["", "/merge"]
    assert not batch.json()["retryable"]
    assert fits.status_code == 202


async def test_a_refused_request_uses_no_quota_and_no_key(house: House) -> None:
    """After a 429 the same idempotency key is free, and a replay is not counted."""
    auth = await _limited(house, messages_per_minute=1)
    headers = {**auth, "Idempotency-Key": "k"}

    first = await house.client.post("/messages", json=a_message(), headers=headers)
    again = await house.client.post("/messages", json=a_message(), headers=headers)
    refused = await house.client.post(
        "/messages", json=a_message(), headers={**auth, "Idempotency-Key": "other"}
    )

    assert (first.status_code, again.status_code, refused.status_code) == (202, 202, 429)
    assert again.headers["idempotent-replayed"] == "true"


async def test_a_key_sends_only_where_it_may(house: House) -> None:
    """Recipient domains and routes of the key hold, and the problem names the field."""
    domains = await _limited(house, recipient_domains=["example.com"])
    routes = await _limited(house, routes=["elsewhere"])

    good = await house.client.post("/messages", json=a_message(), headers=domains)
    bad = await house.client.post("/messages", json=a_message(cc="x@example.org"), headers=domains)
    no_way = await house.client.post("/messages", json=a_message(), headers=routes)

    assert good.status_code == 202
    assert (bad.status_code, bad.json()["code"], pointers(bad)) == (403, "recipient_not_allowed", ["/cc"])
    assert (no_way.status_code, no_way.json()["code"]) == (422, "no_route")
    assert no_way.json()["plan"]["why_not"][0]["code"] == "not_allowed_for_key"


async def test_a_full_queue_closes_for_the_loud_one_first(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """Ten wait: the application that has them gets 503, another one is still let in."""
    async with (
        ScriptedPeer() as peer,
        a_house(
            database_url,
            redis_url,
            routes=[smarthost(peer)],
            folder=tmp_path,
            workers=0,
            dispatch={"queue_limit": 10},
        ) as house,
    ):
        answers = [await house.client.post("/messages", json=a_message()) for _ in range(12)]
        quiet = await house.ledger.create_key("quiet", scopes=["messages.send"], senders=[])
        other = await house.client.post(
            "/messages", json=a_message(), headers={"Authorization": f"Bearer {quiet.token}"}
        )

        assert [answer.status_code for answer in answers] == [202] * 10 + [503] * 2
        assert answers[-1].json()["code"] == "queue_full"
        assert answers[-1].headers["ratelimit"].startswith('"queue";r=0')
        assert int(answers[-1].headers["retry-after"]) > 0
        assert other.status_code == 202


async def test_everything_about_sending_is_found_again(house: House) -> None:
    """A message is found by each of its properties, and by none that it has not."""
    message_id = await house.submit(
        to=["Ana <Ana@Example.com>"],
        subject="Order no. 42",
        tags=["receipt"],
        metadata={"order_id": "42", "paid": True},
        stream="news",
        idempotency_key="find-me",
    )
    shown = await house.message(message_id)
    await house.submit(to="bea@example.org", subject="Something else")
    hits = {
        "status": "queued", "to": "ana@example.com", "from": "noreply@contoso.com", "domain": "example.com",
        "subject": "order 42", "tag": "receipt", "metadata[order_id]": "42", "metadata[paid]": "true",
        "route": "peer", "lane": "peer", "stream": "news", "message_id": shown["message_id"],
        "idempotency_key": "find-me", "created_after": shown["created_at"],
    }  # fmt: skip
    misses = {
        "status": "failed", "to": "cleo@example.com", "from": "other@contoso.com", "domain": "example.net",
        "subject": "invoice", "tag": "rec", "metadata[order_id]": "43", "metadata[x]": "42", "route": "p",
        "lane": "p", "stream": "bulk", "code": "550", "enhanced": "5.1.1", "diagnosis": "exo.x",
        "message_id": "<x@y>", "idempotency_key": "find", "created_before": shown["created_at"],
    }  # fmt: skip

    for name, value in hits.items():
        found = await house.client.get("/messages", params={name: value})
        assert message_id in [each["id"] for each in found.json()["data"]], f"{name}: {found.text}"
    for name, value in misses.items():
        found = await house.client.get("/messages", params={name: value})
        assert found.status_code == 200, f"{name}: {found.text}"
        assert message_id not in [each["id"] for each in found.json()["data"]], name
    together = await house.client.get("/messages", params=hits)
    assert [each["id"] for each in together.json()["data"]] == [message_id]


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("stauts=sent", ""),
        ("status=done", "?status"),
        ("to=nobody", "?to"),
        ("limit=0", "?limit"),
        ("limit=101", "?limit"),
        ("limit=x", "?limit"),
        ("after=evt_1", "?after"),
        ("after=msg_01JDB6Z0Q5V8W6K3T1E9F4H2RC&before=msg_01JDB6Z0Q5V8W6K3T1E9F4H2RC", "?before"),
        ("created_after=yesterday", "?created_after"),
        ("code=55", "?code"),
        ("enhanced=5", "?enhanced"),
        ("tag=a&tag=b", "?tag"),
        ("subject=%00", "?subject"),
        ("metadata[%00]=x", "?metadata"),
        ("domain=..", "?domain"),
    ],
)
async def test_a_wrong_filter_is_refused(house: House, query: str, pointer: str) -> None:
    """A filter that is not known or cannot be read is a 422, never a list of everything."""
    answer = await house.client.get(f"/messages?{query}")

    assert (answer.status_code, pointers(answer)) == (422, [pointer])


async def test_pages_stay_while_messages_arrive(house: House) -> None:
    """Walking by `next` sees each message of the beginning once, whatever arrives meanwhile; and back again."""
    first = [await house.submit(subject=f"{n}") for n in range(7)]
    seen: list[str] = []
    query = "limit=3"
    while True:
        found = await house.get(f"/messages?{query}")
        seen += [each["id"] for each in found["data"]]
        await house.submit(subject="later")
        if not found["has_more"]:
            break
        query = f"limit=3&after={found['next']}"
    back = await house.get(f"/messages?limit=3&before={first[0]}")

    assert seen == first[::-1]
    assert [each["id"] for each in back["data"]] == first[1:4][::-1]
    assert back["has_more"]
    assert back["next"] == first[3]


async def test_answers_hold_no_body_and_no_secret(house: House) -> None:
    """Neither lists nor resources show the content of a message."""
    await house.submit(text="canary-4711", html="<b>canary-4711</b>")

    found = await house.get("/messages")

    assert "canary-4711" not in json.dumps(found)
