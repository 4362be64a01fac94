"""What a process counts, and what the ledger knows, on the page for Prometheus."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme
from sqlalchemy import text

from service.exposition.page import Page
from service.ledger.engine import transaction
from service.local.servers import LocalPostgres
from service.wiring import lane_limits
from tests.builders import lost_behind_the_dot
from tests.house import House, a_house, smarthost
from tests.metrics.scrape import Scraped
from tests.peer import ScriptedPeer
from tests.waiting import eventually


async def scraped(house: House) -> Scraped:
    answer = await house.client.get("/metrics", headers={"Authorization": ""})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return Scraped.of(answer.text)


async def read(house: House) -> Scraped:
    """Read the ledger anew, however fresh the last reading is."""
    book = house.settings.route_book()
    page = Page(
        house.ledger,
        lanes=book.lanes(),
        limits=lane_limits(house.settings),
        routes=list(book.routes.values()),
    )
    return Scraped.of((await page.write())[0].decode())


async def test_a_message_is_counted_on_its_way(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """Acceptance, attempts with their diagnosis, and the time to the 250 are counted; nobody needs a key to see it."""
    async with (
        ScriptedPeer() as peer,
        a_house(database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path) as house,
    ):
        peer.on("rcpt", reply="550 5.1.1 No such user", when=lambda path: path.startswith("nobody@"))
        before = await scraped(house)

        await house.in_state(await house.submit(), "sent")
        await house.in_state(await house.submit(to="nobody@example.com"), "failed")
        await house.client.post("/messages", json={"from": "noreply@contoso.com"})
        await house.client.get("/v1/messages/msg_01JDB6Z0Q5V8W6K3T1E9F4H2RC")
        await house.client.get("/ana@example.com")
        after = await scraped(house)

    def more(name: str, **labels: str) -> float:
        return (after.value(name, **labels) or 0) - (before.value(name, **labels) or 0)

    assert more("postroom_messages_accepted_total", priority="normal") == 2
    assert more("postroom_messages_accepted_bytes_total", priority="normal") > 500
    assert more("postroom_acceptance_seconds_count", operation="send_message") == 2
    assert more("postroom_http_requests_total", operation="send_message", status="422") == 1
    assert more("postroom_http_requests_total", operation="get_message", status="404") == 1
    assert more("postroom_http_requests_total", operation="", status="404") == 1
    assert more("postroom_http_refusals_total", status="422", code="required") == 1
    assert more("postroom_http_refusals_total", status="404", code="not_found") == 2
    assert more("postroom_attempts_total", route="peer", lane="peer", outcome="sent", diagnosis="") == 1
    assert more("postroom_attempts_total", outcome="failed", diagnosis="exo.recipient_not_found") == 1
    assert more("postroom_delivery_seconds_count", route="peer") == 1
    assert more("postroom_reply_seconds_count", route="peer") == 1
    assert more("postroom_sessions_opened_total", route="peer") == 1
    assert more("postroom_bell_rings_total", result="rung") > 0
    assert after.value("postroom_bell_listening") == 1
    assert after.value("postroom_build_info", process="api") == 1
    assert after.value("postroom_ledger_up") == 1


async def test_queues_rests_and_budgets_are_the_ledgers(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """Depth, age, rests with their diagnosis, stopped senders and budgets are read from the ledger by lane."""
    async with (
        ScriptedPeer() as peer,
        a_house(
            database_url,
            redis_url,
            routes=[smarthost(peer, limits={"messages_per_minute": 30, "recipients_per_day": 100})],
            folder=tmp_path,
            workers=0,
        ) as house,
    ):
        later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        await house.submit()
        await house.submit(to=["a@example.com", "b@example.com"])
        await house.submit(scheduled_at=later)
        async with transaction(house.ledger._engine) as db:
            await db.execute(
                text("UPDATE deliveries SET due_at = due_at - interval '100 s' WHERE due_at < now()")
            )
        waiting = await read(house)

        worker = await house.start_worker()

        async def two_are_gone() -> bool:
            return len(peer.taken) == 2

        await eventually(two_are_gone)
        await worker.end()
        house.workers.remove(worker)
        async with transaction(house.ledger._engine) as db:
            await db.execute(
                text("""
                UPDATE lanes SET paused_until = now() + interval '1 hour', troubles = 3,
                       pause_error = '{"diagnosis": {"id": "exo.smtp_auth_disabled"}}'
                """)
            )
            await db.execute(
                text("""
                INSERT INTO stops (lane, sender, until, error)
                VALUES ('peer', 'noreply@contoso.com', now() + interval '1 hour', '{}'),
                       ('peer', 'over@contoso.com', now(), '{}')
                """)
            )
            await db.execute(
                text("UPDATE recipients SET status = 'held', due_at = NULL WHERE status = 'scheduled'")
            )
        resting = await read(house)

    lane = {"route": "peer", "lane": "peer"}
    assert waiting.value("postroom_queue_depth", state="due", **lane) == 2
    assert waiting.value("postroom_queue_depth", state="later", **lane) == 1
    assert 100 <= (waiting.value("postroom_queue_oldest_due_seconds", **lane) or 0) < 200
    assert waiting.value("postroom_lane_budget_left", window="messages_per_minute", **lane) == 30
    assert waiting.value("postroom_lane_paused", **lane) == 0
    assert resting.value("postroom_queue_depth", state="due", **lane) == 0
    assert resting.value("postroom_queue_oldest_due_seconds", **lane) == 0
    assert resting.value("postroom_lane_budget_limit", window="messages_per_minute", **lane) == 30
    assert resting.value("postroom_lane_budget_left", window="messages_per_minute", **lane) == 28
    assert resting.value("postroom_lane_budget_left", window="recipients_per_day", **lane) == 97
    assert resting.value("postroom_lane_paused", diagnosis="exo.smtp_auth_disabled", **lane) == 1
    assert (resting.value("postroom_lane_paused_until_timestamp_seconds", **lane) or 0) > time.time() + 3000
    assert resting.value("postroom_lane_troubles", **lane) == 3
    assert resting.value("postroom_lane_senders_stopped", **lane) == 1
    assert resting.value("postroom_recipients_unsettled", status="held") == 1
    assert resting.value("postroom_recipients_unsettled", status="uncertain") == 0


async def test_what_a_dead_worker_left_is_counted(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """Leases that lapsed, as they were judged, and recipients that were given up, are counted by who sweeps."""
    async with (
        ScriptedPeer() as peer,
        a_house(database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path, workers=0) as house,
    ):
        await house.submit()
        await lost_behind_the_dot(house.ledger)
        given_up = await house.submit(to="bea@example.com")
        async with transaction(house.ledger._engine) as db:
            await db.execute(
                text("UPDATE deliveries SET expires_at = now() WHERE message_id = :id"), {"id": given_up}
            )
        before = await read(house)
        await house.start_worker()
        await house.in_state(given_up, "expired")

        async def both() -> bool:
            found = await read(house)
            return (found.value(rescued, outcome="uncertain") or 0) > (
                before.value(rescued, outcome="uncertain") or 0
            )

        rescued = "postroom_attempts_rescued_total"
        await eventually(both)
        after = await read(house)

    expired = "postroom_recipients_expired_total"
    assert (after.value(expired) or 0) == (before.value(expired) or 0) + 1
    assert abs((after.value("postroom_sweep_last_timestamp_seconds") or 0) - time.time()) < 30
    assert (after.value("postroom_sweeps_total", result="done") or 0) > 0


async def test_webhooks_that_wait_are_counted(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """How many deliveries of webhooks wait, and for how long the oldest has been due; a disabled one waits for nobody."""
    async with (
        ScriptedPeer() as peer,
        a_house(database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path, workers=0) as house,
    ):
        nothing = await read(house)
        async with transaction(house.ledger._engine) as db:
            await db.execute(
                text("""
                INSERT INTO webhooks (id, application, url, secrets, enabled)
                VALUES ('whk_1', 'tests', 'https://a.example', '[]', true),
                       ('whk_2', 'tests', 'https://b.example', '[]', false)
                """)
            )
            await db.execute(
                text("""
                INSERT INTO webhook_deliveries (id, webhook_id, type, payload, status, due_at)
                SELECT 'whd_' || n, 'whk_' || CASE WHEN n < 3 THEN 1 ELSE 2 END, 'recipient.sent', '{}', 'pending',
                       now() - interval '50 s' * n FROM generate_series(1, 5) AS n
                """)
            )
        found = await read(house)

    assert nothing.value("postroom_webhook_lag_seconds") == 0
    assert found.value("postroom_webhook_deliveries_waiting") == 2
    assert 100 <= (found.value("postroom_webhook_lag_seconds") or 0) < 150


async def test_what_ends_and_what_was_checked_is_shown(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """Certificates and secrets have the time of their end, a route the result of its last check."""
    ends = datetime.now(UTC).replace(microsecond=0) + timedelta(days=20)
    authority = trustme.CA()
    ours = authority.issue_cert("mail.contoso.com", not_after=ends)
    certificate, ca_file = tmp_path / "ours.pem", tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    for blob in (ours.private_key_pem, *ours.cert_chain_pems):
        blob.write_to_path(certificate, append=True)
    async with (
        ScriptedPeer() as peer,
        a_house(
            database_url,
            redis_url,
            routes=[
                smarthost(
                    peer,
                    tls="required",
                    ca_file=str(ca_file),
                    client_certificate={"certificate_file": str(certificate)},
                ),
                {
                    "name": "azure",
                    "kind": "azure_communication_services",
                    "login": {
                        "method": "basic",
                        "username": "resource.app.tenant",
                        "password": "canary-secret",
                        "client_secret_expires": "2099-05-31",
                    },
                },
            ],
            folder=tmp_path,
            workers=0,
        ) as house,
    ):
        now = datetime.now(UTC)
        await house.ledger.write_check(
            route="azure", asked_by="schedule", started_at=now, ended_at=now, result="fail", steps=[]
        )
        found = await read(house)

    credentials = "postroom_credential_expiry_timestamp_seconds"
    assert found.value(credentials, kind="client_certificate", name="peer", route="peer") == ends.timestamp()
    secret = datetime(2099, 5, 31, tzinfo=UTC).timestamp()
    assert found.value(credentials, kind="client_secret", name="azure", route="azure") == secret
    assert found.value("postroom_route_check_result", route="azure") == 2
    assert found.value("postroom_route_check_result", route="peer") is None
    assert (
        abs((found.value("postroom_route_check_timestamp_seconds", route="azure") or 0) - now.timestamp()) < 1
    )
    assert "canary" not in found.text


async def test_without_the_ledger_the_page_says_so(
    postgres: LocalPostgres, postgres_url: str, redis_url: str, tmp_path: Path
) -> None:
    """PostgreSQL dead: the page comes within its patience, without the ledger's figures; back: with them again."""
    async with (
        ScriptedPeer() as peer,
        a_house(postgres_url, redis_url, routes=[smarthost(peer)], folder=tmp_path, workers=0) as house,
    ):
        assert (await read(house)).value("postroom_queue_depth", state="due") == 0
        postgres.kill()

        began = time.monotonic()
        without = await read(house)
        took = time.monotonic() - began

        postgres.restart()
        again = await read(house)

    assert without.value("postroom_ledger_up") == 0
    assert without.value("postroom_queue_depth") is None
    assert (without.value("postroom_ledger_unavailable_total") or 0) > 0
    assert took < 10
    assert again.value("postroom_ledger_up") == 1
    assert again.value("postroom_queue_depth", state="due") == 0


async def test_a_reading_serves_all_who_ask(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """However often and by however many the page is asked for, the ledger is read once in a while."""
    async with (
        ScriptedPeer() as peer,
        a_house(database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path, workers=0) as house,
    ):
        pages = await asyncio.gather(*(scraped(house) for _ in range(10)))
        read_at = {found.value("postroom_ledger_read_timestamp_seconds") for found in pages}

    assert len(read_at) == 1


async def test_figures_can_be_elsewhere_or_nowhere(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """Switched off, or on a port of their own, they are not on the API's port."""
    async with (
        ScriptedPeer() as peer,
        a_house(
            database_url,
            redis_url,
            routes=[smarthost(peer)],
            folder=tmp_path,
            workers=0,
            settings_changes={"metrics": {"enabled": False}},
        ) as house,
    ):
        answer = await house.client.get("/metrics")

    assert answer.status_code == 404
    assert answer.json()["code"] == "no_metrics"
