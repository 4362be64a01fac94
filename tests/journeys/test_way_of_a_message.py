"""The way of a message, from POST to the peer's log and the ledger."""

import asyncio
import base64
import hashlib
from email import message_from_bytes, policy
from pathlib import Path

import pytest

from service.local.servers import LocalRedis
from tests.house import a_house, a_message, copies, smarthost
from tests.peer import ScriptedPeer

PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


async def test_a_message_goes_from_post_to_the_peers_log(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """A mail with text, HTML, a picture and a PDF arrives as it was asked for, and the ledger is the wire."""
    pdf = b"%PDF-1.7\n" + bytes(range(256)) * 20_000
    async with (
        ScriptedPeer() as peer,
        a_house(database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path) as house,
    ):
        message_id = await house.submit(
            to=["Ana Müller <ana@example.com>"],
            bcc=["secret@example.com"],
            subject="Grüße ✉",
            html='<p>Hallo <img src="cid:logo"></p>',
            text=None,
            attachments=[
                {"filename": "logo.png", "content": base64.b64encode(PICTURE).decode(), "content_id": "logo"},
                {"filename": "Übersicht.pdf", "content": base64.b64encode(pdf).decode()},
            ],
        )

        shown = await house.in_state(message_id, "sent")
        (attempt,) = await house.attempts(message_id)
        transcript = (await house.client.get(f"/attempts/{attempt['id']}/transcript")).text

        (taken,) = peer.taken
        mail = message_from_bytes(taken.octets, policy=policy.default)
        assert taken.rcpts == ("ana@example.com", "secret@example.com")
        assert mail["Bcc"] is None
        assert b"secret@example.com" not in taken.octets
        assert mail["Subject"] == "Grüße ✉"
        assert pdf in [part.get_payload(decode=True) for part in mail.walk()]
        assert PICTURE in [part.get_payload(decode=True) for part in mail.walk()]
        assert hashlib.sha256(taken.octets).hexdigest() == attempt["sha256"] == shown["sha256"]
        assert len(taken.octets) == attempt["size"] == shown["size"]
        assert attempt["outcome"] == "sent"
        assert attempt["phase"] == "reply"
        assert [recipient["reply"]["code"] for recipient in attempt["recipients"]] == [250, 250]
        assert attempt["reply"]["code"] == 250
        assert "C: MAIL FROM:<noreply@contoso.com>" in transcript
        assert "C: ." in transcript


async def test_each_recipient_has_its_own_truth(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """One recipient is refused, one deferred and then taken, one taken at once: each shows its own reply."""
    async with (
        ScriptedPeer() as peer,
        a_house(database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path) as house,
    ):
        peer.on("rcpt", reply="550 5.1.1 No such user", when=lambda path: path.startswith("nobody@"))
        peer.on(
            "rcpt", reply="451 4.7.1 Come back later", when=lambda path: path.startswith("later@"), times=1
        )

        message_id = await house.submit(to=["ana@example.com", "nobody@example.com", "later@example.com"])
        shown = await house.in_state(message_id, "partially_sent")

        states = {recipient["email"]: recipient for recipient in shown["recipients"]}
        assert states["ana@example.com"]["status"] == "sent"
        assert states["nobody@example.com"]["status"] == "failed"
        assert states["nobody@example.com"]["last_error"]["diagnosis"]["remedy"]
        assert states["later@example.com"]["status"] == "sent"
        assert states["later@example.com"]["attempts"] == 2
        assert copies(peer, "ana@example.com") == copies(peer, "later@example.com") == 1
        outcomes = [attempt["outcome"] for attempt in await house.attempts(message_id)]
        assert outcomes == ["partial", "sent"]


@pytest.mark.parametrize(
    ("phase", "then"),
    [
        (phase, then)
        for phase in ("connect", "greeting", "ehlo", "mail", "rcpt", "data", "body")
        for then in ("close", "reset")
    ],
)
async def test_an_accident_before_the_dot_is_healed(
    database_url: str, redis_url: str, tmp_path: Path, phase: str, then: str
) -> None:
    """A connection that breaks before the dot costs a try, never a copy."""
    async with (
        ScriptedPeer() as peer,
        a_house(database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path) as house,
    ):
        peer.on(phase, then=then, times=1)  # type: ignore[arg-type]  # one of the two words above

        message_id = await house.submit()
        await house.in_state(message_id, "sent")

        assert copies(peer, "ana@example.com") == 1
        outcomes = [attempt["outcome"] for attempt in await house.attempts(message_id)]
        assert outcomes == ["deferred", "sent"]


async def test_silence_after_the_dot_is_uncertain_and_sent_again(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """A peer that takes the message and hangs up gets the identical octets once more."""
    async with (
        ScriptedPeer() as peer,
        a_house(database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path) as house,
    ):
        peer.on("dot", then="close", times=1)

        message_id = await house.submit()
        await house.in_state(message_id, "uncertain")
        shown = await house.in_state(message_id, "sent")

        first, second = peer.taken
        assert first.octets == second.octets
        assert [attempt["outcome"] for attempt in await house.attempts(message_id)] == ["uncertain", "sent"]
        assert shown["recipients"][0]["attempts"] == 2
        moves = [event["status"] for event in (await house.get(f"/messages/{message_id}/events"))["data"]]
        assert moves == ["queued", "sending", "uncertain", "sending", "sent"]


async def test_hold_waits_for_a_person(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """With `hold` an uncertain message is never sent again by itself."""
    async with (
        ScriptedPeer() as peer,
        a_house(database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path) as house,
    ):
        peer.on("dot", then="close")

        message_id = await house.submit(on_uncertain="hold")
        await house.in_state(message_id, "uncertain")
        other = await house.submit(to="bea@example.com", on_uncertain="hold")
        await house.in_state(other, "uncertain")
        await asyncio.sleep(2.0)  # twice `uncertain_after`: nothing may happen in it

        assert copies(peer, "ana@example.com") == 1
        assert (await house.message(message_id))["next_attempt_at"] is None


async def test_a_glued_reply_is_not_believed(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """`354` and an early `250` in one segment: no dot leaves, and nothing counts as sent."""
    async with (
        ScriptedPeer() as peer,
        a_house(database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path) as house,
    ):
        peer.on("data", reply="354 go", glue=b"250 2.0.0 early\r\n", times=1)

        message_id = await house.submit()
        await house.in_state(message_id, "sent")

        assert copies(peer, "ana@example.com") == 1
        first = (await house.attempts(message_id))[0]
        assert first["outcome"] == "deferred"
        assert first["error"]["code"] == "garbled"


async def test_a_refused_message_fails_with_its_remedy(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """A Send As refusal after the content fails once, names both addresses, and is not repeated."""
    refusal = "554 5.2.252 SendAsDenied; noreply@contoso.com not allowed to send as billing@contoso.com"
    async with (
        ScriptedPeer() as peer,
        a_house(database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path) as house,
    ):
        peer.on("dot", reply=refusal)

        shown = await house.in_state(await house.submit(), "failed")

        error = shown["last_error"]
        assert error["code"] == "send_as_denied"
        assert error["retryable"] is False
        assert error["reply"]["enhanced"] == "5.2.252"
        assert error["phase"] == "reply"
        assert "Add-RecipientPermission" in error["diagnosis"]["remedy"][0]
        assert len(peer.transactions) == 1


async def test_trouble_of_the_route_uses_up_no_try(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """While the peer says 421 the lane rests and is probed; the messages go when it is back, each once."""
    async with (
        ScriptedPeer() as peer,
        a_house(database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path) as house,
    ):
        peer.on("greeting", reply="421 4.3.2 Service not available", then="close", times=3)

        ids = [await house.submit(to=f"user{n}@example.com") for n in range(5)]
        for message_id in ids:
            await house.in_state(message_id, "sent")

        assert all(copies(peer, f"user{n}@example.com") == 1 for n in range(5))


async def test_messages_share_sessions(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """Several messages travel on one session, and each attempt says the how-many-th it was."""
    route_limits = {"connections": 1}
    async with (
        ScriptedPeer() as peer,
        a_house(
            database_url, redis_url, routes=[smarthost(peer, limits=route_limits)], folder=tmp_path
        ) as house,
    ):
        ids = [await house.submit() for _ in range(4)]
        for message_id in ids:
            await house.in_state(message_id, "sent")

        numbers = sorted([(await house.attempts(each))[0]["session"]["message"] for each in ids])
        assert peer.sessions == 1
        assert numbers == [1, 2, 3, 4]


async def test_two_workers_never_hold_more_connections_than_the_lane_allows(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """Three connections for a lane are three for all workers together, and each message goes once."""
    async with (
        ScriptedPeer() as peer,
        a_house(
            database_url,
            redis_url,
            routes=[smarthost(peer, limits={"connections": 3})],
            folder=tmp_path,
            workers=3,
        ) as house,
    ):
        ids = [await house.submit(to=f"user{n}@example.com") for n in range(40)]
        for message_id in ids:
            await house.in_state(message_id, "sent")

        assert peer.max_connections <= 3
        assert [copies(peer, f"user{n}@example.com") for n in range(40)] == [1] * 40


async def test_the_minute_holds_for_all_workers(database_url: str, redis: LocalRedis, tmp_path: Path) -> None:
    """Five a minute are five for two workers and a flushed Redis; the rest waits for the window."""
    limits = {"messages_per_minute": 5, "connections": 3}
    async with (
        ScriptedPeer() as peer,
        a_house(
            database_url, redis.url, routes=[smarthost(peer, limits=limits)], folder=tmp_path, workers=2
        ) as house,
    ):
        ids = [await house.submit(to=f"user{n}@example.com") for n in range(8)]
        for message_id in ids[:5]:
            await house.in_state(message_id, "sent")
        redis.flush()  # whoever counts there begins anew
        await asyncio.sleep(1.5)  # several sweeps: nothing more may leave in them

        assert len(peer.taken) == 5
        assert [(await house.message(each))["status"] for each in ids[5:]] == ["queued"] * 3


async def test_without_redis_a_message_still_goes(database_url: str, tmp_path: Path) -> None:
    """Redis is only the bell: when nobody answers there, the sweep finds what is due."""
    nowhere = "redis://127.0.0.1:1/0"
    async with (
        ScriptedPeer() as peer,
        a_house(database_url, nowhere, routes=[smarthost(peer)], folder=tmp_path) as house,
    ):
        message_id = await house.submit()
        await house.in_state(message_id, "sent")

        ready = await house.client.get("/readyz")
        assert ready.status_code == 200
        assert ready.json()["status"] == "degraded"


async def test_one_key_is_one_message(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """Twenty posts at once with one Idempotency-Key make one message and one mail."""
    async with (
        ScriptedPeer() as peer,
        a_house(database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path) as house,
    ):

        async def post() -> tuple[int, str | None, str | None]:
            while True:
                answer = await house.client.post(
                    "/messages", json=a_message(), headers={"Idempotency-Key": "k-1"}
                )
                if answer.status_code != 409:
                    return answer.status_code, answer.json()["id"], answer.headers.get("idempotent-replayed")

        answers = await asyncio.gather(*(post() for _ in range(20)))
        message_id = str(answers[0][1])
        await house.in_state(message_id, "sent")
        other = await house.client.post(
            "/messages", json=a_message(text="x"), headers={"Idempotency-Key": "k-1"}
        )

        assert {202} == {status for status, _, _ in answers}
        assert {message_id} == {found for _, found, _ in answers}
        assert [replayed for _, _, replayed in answers if replayed != "true"] == [None]
        assert copies(peer, "ana@example.com") == 1
        assert other.status_code == 422
        assert other.json()["code"] == "idempotency_key_reused"


async def test_an_expired_message_is_given_up(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """Retries end at `expires_at`, and the message says why."""
    async with (
        ScriptedPeer() as peer,
        a_house(
            database_url,
            redis_url,
            routes=[smarthost(peer)],
            folder=tmp_path,
            dispatch={"expires_after": "2s"},
        ) as house,
    ):
        peer.on("rcpt", reply="451 4.7.1 never")

        shown = await house.in_state(await house.submit(), "expired")

        assert shown["last_error"]["code"] == "expired"
        assert shown["last_error"]["diagnosis"]["remedy"]


async def test_messages_are_found_by_what_they_were_answered_with(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """A refusal by its code, enhanced status and diagnosis, a deferral also after it has healed, success by its own."""
    async with (
        ScriptedPeer() as peer,
        a_house(database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path) as house,
    ):
        peer.on("rcpt", reply="550 5.1.1 No such user", when=lambda path: path.startswith("nobody@"))
        peer.on(
            "rcpt", reply="451 4.7.1 Come back later", when=lambda path: path.startswith("later@"), times=1
        )
        refused = await house.submit(to="nobody@example.com")
        healed = await house.submit(to="later@example.com")
        taken = await house.submit(to="ana@example.com")
        shown = await house.in_state(refused, "failed")
        for message_id in (healed, taken):
            await house.in_state(message_id, "sent")

        async def found(**filters: str) -> set[str]:
            answer = await house.client.get("/messages", params=filters)
            return {each["id"] for each in answer.json()["data"]}

        assert await found(code="550") == await found(enhanced="5.1.1") == {refused}
        assert await found(diagnosis=shown["last_error"]["diagnosis"]["id"]) == {refused}
        assert await found(code="451") == await found(enhanced="4.7.1") == {healed}
        assert await found(code="250") == await found(status="sent") == {healed, taken}
        assert await found(code="451", status="failed") == set()
