"""What the processes say of a journey to those who watch: one trace, figures on their own ports, logs without people."""

import json
from pathlib import Path
from typing import Any

import httpx2
from sqlalchemy import text

from service.ledger.engine import transaction
from tests.house import Door, a_house, configuration, processes, smarthost
from tests.metrics.collector import Collector, attributes, collecting
from tests.metrics.scrape import Scraped
from tests.peer import ScriptedPeer
from tests.waiting import eventually

CALLERS = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLERS_SPAN = "00f067aa0ba902b7"

#: Words that stand in a message, its addresses and its names, and may stand nowhere else.
CANARIES = ("zilpzalp", "pirol", "wendehals", "kleiber", "girlitz", "rohrsaenger")

LETTER = {
    "from": "Rohrsaenger Versand <noreply@contoso.com>",
    "to": ["Kleiber Girlitz <zilpzalp@example.com>"],
    "subject": "Pirol hat geschrieben",
    "text": "Wendehals.",
    "metadata": {"wer": "girlitz"},
}


async def submitted(door: Door, *, query: str = "", **changes: Any) -> tuple[str, str]:
    """Send a letter in a trace of its caller; return the message's id and the request's."""
    answer = await door.client.post(
        f"/messages{query}",
        json={**LETTER, **changes},
        headers={"traceparent": f"00-{CALLERS}-{CALLERS_SPAN}-01", "tracestate": "vendor=1"},
    )
    assert answer.status_code == 202, answer.text
    return answer.json()["id"], answer.headers["x-request-id"]


async def test_a_journey_as_its_watchers_see_it(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """From the caller's span through the request to each attempt it is one trace, over processes; the logs have the ids.

    Nowhere, neither in spans nor in figures nor in logs, is there anybody's address, name or subject.
    """
    async with ScriptedPeer() as peer:
        peer.on("rcpt", reply="451 4.7.1 <zilpzalp@example.com> pirol: later", times=1)
        peer.on(
            "rcpt",
            reply="550 5.1.1 <kleiber@example.com> wendehals: no such user",
            when=lambda path: path.startswith("kleiber"),
        )
        with (
            collecting() as collector,
            processes(
                tmp_path,
                configuration(database_url, redis_url, routes=[smarthost(peer)]),
                environment={
                    "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
                    "OTEL_BSP_SCHEDULE_DELAY": "200",
                },
            ) as house,
        ):
            house.start_api()
            port = house.port + 1
            house._environment["POSTROOM_METRICS__PORT"] = str(port)
            worker = house.start_worker()
            async with (
                house.door() as door,
                httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as beside,
            ):
                sent, request_id = await submitted(door)
                failed, _ = await submitted(door, to=["kleiber@example.com"])
                refused = await door.client.post("/messages", json={**LETTER, "to": ["Zilpzalp <pirol>"]})
                await door.client.get("/messages", params={"to": "zilpzalp@example.com", "subject": "Pirol"})
                await door.client.get("/suppressions/zilpzalp@example.com")
                await door.in_state(sent, "sent")
                await door.in_state(failed, "failed")
                ready = await beside.get("/readyz")
                alive = await beside.get("/livez")
                pages = [(await beside.get("/metrics")).text, (await door.client.get("/metrics")).text]
                worker.terminate()
                assert worker.wait(timeout=30) == 0
                await eventually(lambda: _there(collector, sent, failed), within=30.0)
            logs = "".join(path.read_text() for path in sorted(tmp_path.glob("*.log")))

    assert refused.status_code == 422
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    assert alive.json() == {"status": "alive"}
    _one_trace(collector, sent, failed, request_id)
    _figures(*pages)
    _logs(tmp_path, sent, request_id)
    said = logs.lower() + "".join(pages).lower()
    written = b"".join(collector.octets).lower()
    for canary in CANARIES:
        assert canary not in said
        assert canary.encode() not in written


async def _there(collector: Collector, *messages: str) -> bool:
    found = [attributes(span).get("postroom.message_id") for _, span in collector.spans()]
    return all(message in found for message in messages) and len(_of(collector, messages[0])) == 2


def _of(collector: Collector, message: str) -> list[Any]:
    spans = [span for _, span in collector.spans() if attributes(span).get("postroom.message_id") == message]
    return sorted(spans, key=lambda span: span.start_time_unix_nano)


def _one_trace(collector: Collector, sent: str, failed: str, request_id: str) -> None:
    assert collector.paths == {"/v1/traces"}
    assert {service for service, _ in collector.spans()} == {"postroom-api", "postroom-worker"}
    requests = {
        attributes(span)["postroom.request_id"]: span
        for _, span in collector.spans()
        if span.name == "POST send_message"
    }
    request = requests[request_id]
    assert request.trace_id.hex() == CALLERS
    assert request.parent_span_id.hex() == CALLERS_SPAN
    assert attributes(request)["http.response.status_code"] == 202

    first, second = _of(collector, sent)
    for span in (first, second):
        assert span.name == "send peer"
        assert span.trace_id.hex() == CALLERS
        assert span.parent_span_id == request.span_id
        assert span.start_time_unix_nano <= span.end_time_unix_nano
    assert attributes(first)["postroom.outcome"] == "deferred"
    assert attributes(second)["postroom.outcome"] == "sent"
    assert attributes(second)["smtp.reply_code"] == 250
    assert attributes(second)["postroom.attempt_number"] == 2
    phases = [event.name for event in second.events]
    assert phases[-2:] == ["dot", "reply"]
    assert {"mail", "rcpt", "data"} <= set(phases)
    assert {"connect", "greeting", "ehlo"} <= {event.name for event in first.events}
    times = [event.time_unix_nano for event in second.events]
    assert times == sorted(times)
    (refused,) = _of(collector, failed)
    assert attributes(refused)["postroom.diagnosis"] == "exo.recipient_not_found"
    assert refused.status.code == refused.status.STATUS_CODE_ERROR


def _figures(workers: str, apis: str) -> None:
    worker, api = Scraped.of(workers), Scraped.of(apis)
    assert worker.value("postroom_build_info", process="worker") == 1
    assert worker.value("postroom_attempts_total", outcome="sent", route="peer") == 1
    assert worker.value("postroom_attempts_total", outcome="deferred", route="peer") == 1
    assert worker.value("postroom_messages_accepted_total") is None
    assert worker.value("postroom_queue_depth", state="due") == 0
    assert (worker.value("postroom_sweeps_total", result="done") or 0) > 0
    assert (worker.value("postroom_ledger_connection_wait_seconds_count") or 0) > 0
    assert api.value("postroom_build_info", process="api") == 1
    assert api.value("postroom_messages_accepted_total", priority="normal") == 2
    assert api.value("postroom_queue_depth", state="due") == 0


def _logs(folder: Path, sent: str, request_id: str) -> None:
    lines = [
        json.loads(line)
        for path in folder.glob("*.log")
        for line in path.read_text().splitlines()
        if line.startswith("{")
    ]
    (accepted,) = [line for line in lines if line["event"] == "message.accepted" and line["message"] == sent]
    assert (accepted["request_id"], accepted["trace_id"]) == (request_id, CALLERS)
    closed = [line for line in lines if line["event"] == "attempt.closed" and line["message"] == sent]
    assert [line["outcome"] for line in closed] == ["deferred", "sent"]
    for line in closed:
        assert line["attempt"].startswith("att_")
        assert (line["lane"], line["trace_id"]) == ("peer", CALLERS)


async def test_a_traceparent_is_kept_though_nobody_wants_spans(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """Without a receiver the caller's trace is kept for the logs all the same."""
    async with (
        ScriptedPeer() as peer,
        a_house(database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path, workers=0) as house,
    ):
        sent, _ = await submitted(house)
        plain = await house.submit()
        async with transaction(house.ledger._engine) as db:
            found = (await db.execute(text("SELECT id, traceparent FROM messages"))).all()
        kept = {row.id: row.traceparent for row in found}

    assert kept == {sent: f"00-{CALLERS}-{CALLERS_SPAN}-01", plain: None}
