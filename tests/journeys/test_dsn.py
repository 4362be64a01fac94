"""Reports that a message asks for, from POST to what the other side was told (RFC 3461)."""

from pathlib import Path
from typing import Any

from service.sandbox import Sandbox, contoso
from tests import tenant
from tests.house import a_house, smarthost
from tests.peer import MICROSOFT_EXTENSIONS, ScriptedPeer

ASKED = {"notify": ["failure", "delay"], "return": "headers", "envid": "order=42"}

WITHOUT = tuple(name for name in MICROSOFT_EXTENSIONS if name != "DSN")


async def test_every_attempt_asks_again(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """After a deferral the second attempt says the same; the message shows what it asks for."""
    async with (
        ScriptedPeer() as peer,
        a_house(database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path) as house,
    ):
        peer.on("rcpt", reply="451 4.7.1 Come back later", times=1)
        shown = await house.in_state(await house.submit(dsn=ASKED), "sent")
        plain = await house.in_state(await house.submit(), "sent")

    first, second, third = peer.transactions
    for transaction in (first, second):
        assert transaction.parameters.endswith(" RET=HDRS ENVID=order+3D42")
        assert transaction.rcpt_parameters == ["NOTIFY=FAILURE,DELAY ORCPT=rfc822;ana@example.com"]
    assert (third.rcpt_parameters, "RET" in third.parameters) == ([""], False)
    assert (shown["dsn"], plain["dsn"]) == (ASKED, None)


async def test_a_peer_without_dsn_still_gets_the_message(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """Nothing is added, and the dialogue says why no report will come."""
    async with (
        ScriptedPeer(extensions=WITHOUT) as peer,
        a_house(database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path) as house,
    ):
        message_id = await house.submit(dsn=ASKED)
        await house.in_state(message_id, "sent")
        (attempt,) = await house.attempts(message_id)
        transcript = (await house.client.get(f"/attempts/{attempt['id']}/transcript")).text

    (transaction,) = peer.transactions
    assert (transaction.rcpt_parameters, "ENVID" in transaction.parameters) == ([""], False)
    assert "the peer does not offer DSN: no reports are asked for" in transcript


async def test_microsoft_365_is_asked(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """Client submission with OAuth: the tenant has taken what was asked, decoded."""
    async with Sandbox(contoso(tmp_path / "sandbox")) as sandbox:
        async with a_house(
            database_url,
            redis_url,
            routes=[tenant.submission(sandbox)],
            folder=tmp_path,
            settings_changes=tenant.settings(sandbox),
        ) as house:
            asked: dict[str, Any] = {"notify": ["never"], "envid": "a+b=c"}
            await house.in_state(await house.submit(dsn=asked), "sent")
        (taken,) = sandbox.taken

    assert taken.dsn == {
        "ret": None,
        "envid": "a+b=c",
        "recipients": {"ana@example.com": {"notify": "NEVER", "orcpt": "rfc822;ana@example.com"}},
    }


async def test_no_wish_injects_a_command(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """What is no word of RFC 3461 is a 422 that names the field, and nothing reaches the peer."""
    async with (
        ScriptedPeer() as peer,
        a_house(database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path, workers=0) as house,
    ):
        for dsn, pointer in (
            ({"envid": "a\r\nRCPT TO:<eve@example.com>"}, "/dsn/envid"),
            ({"envid": "x" * 101}, "/dsn/envid"),
            ({"notify": ["success\r\nRSET"]}, "/dsn/notify/0"),
            ({"notify": ["never", "failure"]}, "/dsn/notify"),
            ({"return": "body"}, "/dsn/return"),
        ):
            body = {"from": "noreply@contoso.com", "to": ["ana@example.com"], "text": "x", "dsn": dsn}
            answer = await house.client.post("/messages", json=body)
            assert answer.status_code == 422, dsn
            assert answer.json()["errors"][0]["pointer"] == pointer
