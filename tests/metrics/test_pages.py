"""What a process counts, and what the ledger knows, on the page for Prometheus."""

from pathlib import Path

from tests.house import House, a_house, smarthost
from tests.metrics.scrape import Scraped
from tests.peer import ScriptedPeer


async def scraped(house: House) -> Scraped:
    answer = await house.client.get("/metrics", headers={"Authorization": ""})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return Scraped.of(answer.text)


async def test_a_message_is_counted_on_its_way(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """Acceptance, attempts with their diagnosis, and the time to the 250 are counted; nobody needs a key for it."""
    async with (
        ScriptedPeer() as peer,
        a_house(database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path) as house,
    ):
        peer.on("rcpt", reply="550 5.1.1 No such user", when=lambda path: path.startswith("nobody@"))
        before = await scraped(house)

        await house.in_state(await house.submit(), "sent")
        await house.in_state(await house.submit(to="nobody@example.com"), "failed")
        await house.client.post("/messages", json={"from": "noreply@contoso.com"})
        after = await scraped(house)

    def more(name: str, **labels: str) -> float:
        return (after.value(name, **labels) or 0) - (before.value(name, **labels) or 0)

    assert more("postroom_messages_accepted_total", application="tests") == 2
    assert more("postroom_acceptance_seconds_count", operation="send_message") == 2
    assert more("postroom_http_requests_total", operation="send_message", status="422") == 1
    assert more("postroom_attempts_total", route="peer", lane="peer", outcome="sent") == 1
    assert more("postroom_attempts_total", outcome="failed", diagnosis="exo.recipient_not_found") == 1
    assert more("postroom_delivery_seconds_count", route="peer") == 1
