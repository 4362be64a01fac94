"""The end of what is kept: kind by kind, and one person; proven by searching everything that PostgreSQL has."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from service.delivery.retention import RetentionKeeper
from service.ledger.engine import open_engine
from service.ledger.retention import Retention
from service.ledger.scrubbing import NOBODY
from tests.house import House, a_house, smarthost
from tests.peer import ScriptedPeer
from tests.waiting import eventually

PERSON = "canary.person@private.example"
#: What names the person, or was said to them: none of it may be left.
CANARIES = (
    "canary.person",
    "private.example",
    "Cornelia Canary",
    "canary subject",
    "canary-tag",
    "canary-value",
    "canary text",
)

AT_ONCE = timedelta(0)


@pytest.fixture
async def house(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[House]:
    """A whole service; its peer refuses `nobody@` and repeats the address."""
    async with ScriptedPeer() as peer:
        peer.on(
            "rcpt",
            reply=f"550 5.1.1 <{PERSON}> canary text",
            when=lambda path: path.startswith("canary.person") and "gone" not in path,
            times=1,
        )
        async with a_house(database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path) as opened:
            yield opened


async def an_admin(house: House) -> dict[str, str]:
    made = await house.ledger.create_key("privacy", scopes=["admin"], senders=[])
    return {"Authorization": f"Bearer {made.token}"}


async def keep(house: House, **kinds: timedelta) -> None:
    """Come by once, as a worker does."""
    await asyncio.sleep(0.01)  # names tell milliseconds
    await RetentionKeeper(house.ledger, Retention(**kinds), interval=600).round()


async def everything(database_url: str) -> str:
    """Read every column of every table as text, octets as what they say."""
    engine = open_engine(database_url, name="test-dump", size=1)
    found = []
    try:
        async with engine.begin() as db:
            columns = await db.execute(
                text(
                    "SELECT table_name, column_name, data_type FROM information_schema.columns"
                    " WHERE table_schema = 'public' ORDER BY 1, 2"
                )
            )
            for table, column, kind in columns.all():
                value = f"encode(\"{column}\", 'escape')" if kind == "bytea" else f'"{column}"::text'
                rows = await db.execute(text(f'SELECT {value} FROM "{table}"'))  # noqa: S608
                found += [f"{table}.{column}: {each}" for each in rows.scalars() if each is not None]
    finally:
        await engine.dispose()
    return "\n".join(found)


async def raw_files(database_url: str) -> bytes:
    """Read the files of the database itself, after PostgreSQL has thrown away what was deleted."""
    engine = open_engine(database_url, name="test-raw", size=1)
    try:
        async with engine.connect() as connection:
            db = await connection.execution_options(isolation_level="AUTOCOMMIT")
            await db.execute(text("VACUUM FULL"))
            await db.execute(text("CHECKPOINT"))
            folder = await db.scalar(
                text(
                    "SELECT current_setting('data_directory') || '/base/' || oid FROM pg_database"
                    " WHERE datname = current_database()"
                )
            )
    finally:
        await engine.dispose()
    return b"".join(each.read_bytes() for each in Path(str(folder)).iterdir() if each.is_file())


async def sent(house: House, *, to: Any = PERSON, **changes: Any) -> str:
    """Send a message that is full of what must not be left, and wait for its end."""
    message_id = await queued(house, to=to, **changes)

    async def over() -> bool:
        found = await house.message(message_id)
        return found["status"] in {"sent", "failed", "partially_sent", "canceled"}

    await eventually(over)
    return message_id


async def queued(house: House, *, to: Any = PERSON, **changes: Any) -> str:
    body = {
        "from": "Contoso <noreply@contoso.com>",
        "to": to,
        "reply_to": f"Cornelia Canary <{PERSON}>",
        "subject": "canary subject",
        "text": "canary text",
        "tags": ["canary-tag"],
        "metadata": {"who": "canary-value"},
        **changes,
    }
    answer = await house.client.post(
        "/messages", json=body, headers={"Idempotency-Key": f"k-{changes.get('priority', 'x')}"}
    )
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def test_an_erased_person_is_nowhere_in_the_database(house: House, database_url: str) -> None:
    """Not in a table, nor in PostgreSQL's files, whatever became of the messages; states and counts stay."""
    failed = await sent(house, to=f"Cornelia Canary <{PERSON}>", priority="high")
    shared = await sent(house, to=[f"Cornelia Canary <{PERSON.upper()}>", "ben@other.example"])
    before = await everything(database_url)
    assert all(canary in before for canary in CANARIES)
    admin = await an_admin(house)

    answer = await house.client.post("/erasures", json={"email": PERSON}, headers=admin)
    assert answer.status_code == 202, answer.text
    await keep(house)

    erasure = (await house.client.get(answer.headers["Location"], headers=admin)).json()
    assert (erasure["status"], erasure["messages"], erasure["waiting"]) == ("finished", 2, 0)
    assert erasure["sha256"] == hashlib.sha256(PERSON.encode()).hexdigest()
    left = await everything(database_url)
    assert [
        line for line in left.splitlines() if any(canary.lower() in line.lower() for canary in CANARIES)
    ] == []
    octets = (await raw_files(database_url)).lower()
    assert [canary for canary in CANARIES if canary.lower().encode() in octets] == []
    found = await house.message(failed)
    assert (found["status"], found["recipients"][0]["email"]) == ("failed", NOBODY)
    assert found["last_error"]["reply"]["enhanced"] == "5.1.1"
    assert found["last_error"]["diagnosis"]["remedy"]
    found = await house.message(shared)
    assert [each["email"] for each in found["recipients"]] == [NOBODY, "ben@other.example"]
    assert [each["status"] for each in found["recipients"]] == ["sent", "sent"]
    (attempt,) = (await house.get(f"/messages/{shared}/attempts"))["data"]
    assert [each["reply"]["code"] for each in attempt["recipients"]] == [250, 250]
    assert (await house.get("/messages?to=ben@other.example"))["data"][0]["id"] == shared
    assert (await house.client.get(f"/messages/{shared}/content")).status_code == 410


async def test_a_repeated_request_stays_one_message_when_its_answer_was_scrubbed(house: House) -> None:
    """Its answer names nobody any more."""
    first = await sent(house, to="anybody@example.com")
    await keep(house, personal=AT_ONCE)

    again = await queued(house, to="anybody@example.com")

    assert again == first


async def test_what_webhooks_were_told_is_erased_too(house: House, database_url: str) -> None:
    """What was posted is kept to be looked at; what it says of the person goes."""
    message_id = await sent(house)
    engine = open_engine(database_url, name="test-webhook", size=1)
    async with engine.begin() as db:
        await db.execute(
            text(
                "INSERT INTO webhooks (id, application, url, secrets) VALUES ('whk_1', 'tests', 'https://x.example/', '[]')"
            )
        )
        await db.execute(
            text(
                "INSERT INTO webhook_deliveries (id, webhook_id, event_id, type, payload, status, ended_at)"
                " SELECT 'whd_' || id, 'whk_1', id, 'message.sent', :payload, 'delivered', now() FROM events"
                " WHERE message_id = :message"
            ),
            {"payload": json.dumps({"email": PERSON}), "message": message_id},
        )
    await engine.dispose()
    assert "webhook_deliveries.payload: {" in await everything(database_url)

    await keep(house, personal=AT_ONCE)

    assert PERSON not in await everything(database_url)


async def test_what_is_under_way_is_erased_when_it_is_over(house: House, database_url: str) -> None:
    """Until then it goes on, and the erasure says that it waits."""
    waiting = await queued(house, to=PERSON, scheduled_at="2026-12-24T00:00:00Z")
    admin = await an_admin(house)
    answer = await house.client.post("/erasures", json={"email": PERSON}, headers=admin)
    await keep(house, personal=AT_ONCE)
    erasure = (await house.client.get(answer.headers["Location"], headers=admin)).json()
    assert (erasure["status"], erasure["messages"], erasure["waiting"]) == ("running", 0, 1)
    assert (await house.message(waiting))["subject"] == "canary subject"

    await house.client.post(f"/messages/{waiting}/cancel")
    await keep(house, personal=AT_ONCE)

    assert PERSON not in await everything(database_url)
    erasure = (await house.client.get(answer.headers["Location"], headers=admin)).json()
    assert (erasure["status"], erasure["waiting"]) == ("finished", 0)


async def test_content_goes_and_the_rest_stays(house: House) -> None:
    """What was sent is no longer kept: reading says 410, and it cannot be sent again."""
    failed = await sent(house)
    open_one = await queued(house, priority="low", scheduled_at="2026-12-24T00:00:00Z")

    await keep(house, content=AT_ONCE)

    assert (await house.client.get(f"/messages/{failed}/content")).status_code == 410
    refused = await house.client.post(f"/messages/{failed}/retry")
    assert (refused.status_code, refused.json()["code"]) == (409, "content_not_kept")
    assert (await house.message(failed))["subject"] == "canary subject"
    assert (await house.client.get(f"/messages/{open_one}/content")).status_code == 200


async def test_transcripts_attempts_events_and_audit_go_each_by_itself(
    house: House, database_url: str
) -> None:
    """Each kind has a time of its own, and takes nothing else with it."""
    message_id = await sent(house)
    (attempt,) = (await house.get(f"/messages/{message_id}/attempts"))["data"]
    dialogue = f"/attempts/{attempt['id']}/transcript"
    assert "RCPT TO" in (await house.client.get(dialogue)).text

    await keep(house, transcripts=AT_ONCE)
    assert "RCPT TO" not in (await house.client.get(dialogue)).text
    assert (await house.get(f"/messages/{message_id}/events"))["data"]
    await keep(house, events=AT_ONCE)
    assert (await house.get(f"/messages/{message_id}/events"))["data"] == []
    assert len((await house.get(f"/messages/{message_id}/attempts"))["data"]) == 1
    await keep(house, attempts=AT_ONCE)
    assert (await house.get(f"/messages/{message_id}/attempts"))["data"] == []
    await house.client.get(f"/messages/{message_id}/content")  # it is in the audit
    assert "audit.action: content.read" in await everything(database_url)
    await keep(house, audit=AT_ONCE)
    assert "audit.action:" not in await everything(database_url)
    assert (await house.message(message_id))["status"] == "failed"


def kept_of(dump: str) -> list[str]:
    """Leave out what goes on by itself: seats, and how far retention has come."""
    return sorted(line for line in dump.splitlines() if not line.startswith(("retention.", "connections.")))


async def test_what_has_not_had_its_time_stays(house: House, database_url: str) -> None:
    """A time is a time."""
    await sent(house)
    before = await everything(database_url)
    day = timedelta(days=3)

    await keep(house, content=day, transcripts=day, personal=day, attempts=day, events=day, audit=day)

    after = await everything(database_url)
    assert kept_of(after) == kept_of(before)


async def test_what_somebody_has_in_hand_is_passed_over(house: House, database_url: str) -> None:
    """Retention waits for nobody, and comes again."""
    message_id = await sent(house)
    engine = open_engine(database_url, name="test-lock", size=1)
    async with engine.begin() as db:
        await db.execute(text("SELECT 1 FROM messages WHERE id = :id FOR UPDATE"), {"id": message_id})
        async with asyncio.timeout(20):
            await keep(house, content=AT_ONCE, personal=AT_ONCE, attempts=AT_ONCE)
        assert (await house.message(message_id))["subject"] == "canary subject"
    await engine.dispose()

    await keep(house, content=AT_ONCE, personal=AT_ONCE, attempts=AT_ONCE)

    assert (await house.message(message_id))["subject"] == ""
    assert PERSON not in await everything(database_url)


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        ({}, 422, "/email"),
        ({"email": "nobody"}, 422, "/email"),
        ({"email": "a@b.example", "x": 1}, 422, ""),
        ([], 400, None),
    ],
)
async def test_an_erasure_asked_for_wrongly(
    house: House, body: Any, status: int, pointer: str | None
) -> None:
    """Each mistake is named; and the scope has to be admin."""
    admin = await an_admin(house)
    answer = await house.client.post(
        "/erasures", content=json.dumps(body), headers={**admin, "Content-Type": "application/json"}
    )
    assert answer.status_code == status
    if pointer is not None:
        assert answer.json()["errors"][0]["pointer"] == pointer
    assert (await house.client.post("/erasures", json={"email": PERSON})).status_code == 403
    assert (
        await house.client.get("/erasures/era_00000000000000000000000000", headers=admin)
    ).status_code == 404
