"""A client that `openapi-python-client` writes from the served document, at work."""

import asyncio
import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.house import FINAL, ROOT, configuration, processes, smarthost
from tests.peer import ScriptedPeer
from tests.waiting import eventually

PACKAGE = "postroom_client"
TOOLS = Path(sys.executable).parent


async def generated(document: Path, folder: Path) -> str:
    """Write the client; return what the generator said. It calls ruff, by its name."""
    child = await asyncio.create_subprocess_exec(
        str(TOOLS / "openapi-python-client"), "generate", "--path", str(document),
        "--config", str(ROOT / "openapi" / "client.yaml"), "--meta", "none", "--output-path", str(folder / PACKAGE),
        env={**os.environ, "PATH": f"{TOOLS}{os.pathsep}{os.environ.get('PATH', '')}"},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(120):
        out, _ = await child.communicate()
    assert child.returncode == 0, out.decode()
    return out.decode()


@pytest.fixture
def importable(tmp_path: Path) -> Iterator[Path]:
    """A folder from which the client can be imported, for this test alone."""
    sys.path.insert(0, str(tmp_path))
    yield tmp_path
    sys.path.remove(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


def the(name: str) -> Any:
    """Import a part of the client."""
    return importlib.import_module(f"{PACKAGE}.{name}")


async def test_a_generated_client_works(database_url: str, redis_url: str, importable: Path) -> None:
    """Without a warning it is written; it sends, reads, lists attempts, and gets problems as typed objects."""
    async with ScriptedPeer() as peer:
        given = configuration(database_url, redis_url, routes=[smarthost(peer)])
        with processes(importable, given) as house:
            house.start_api()
            house.start_worker()
            async with house.door() as door:
                document = importable / "openapi.json"
                document.write_bytes((await door.client.get("/openapi.json")).content)
                said = await generated(document, importable)
                token = door.client.headers["Authorization"].removeprefix("Bearer ")
                client = the("client").AuthenticatedClient(
                    base_url=str(door.client.base_url), token=token, raise_on_unexpected_status=True
                )

                assert "warning" not in said.lower(), said
                async with client:
                    await _at_work(client)
                assert {taken.rcpts for taken in peer.taken} == {("ana@example.com",)}


async def _at_work(client: Any) -> None:
    models, messages, attempts = the("models"), "api.messages", "api.attempts"
    body = models.MessageIn.from_dict(
        {
            "from": "Contoso <noreply@contoso.com>",
            "to": ["ana@example.com"],
            "subject": "Grüße",
            "text": "Hello",
        }
    )
    sent = await the(f"{messages}.send_message").asyncio(client=client, body=body, idempotency_key="once")
    again = await the(f"{messages}.send_message").asyncio(client=client, body=body, idempotency_key="once")

    async def over() -> Any:
        found = await the(f"{messages}.get_message").asyncio(sent.id, client=client)
        return found if found.status in FINAL else None

    shown = await eventually(over, within=30.0)
    listed = await the(f"{attempts}.get_attempts").asyncio(sent.id, client=client)
    dialogue = await the(f"{attempts}.get_transcript").asyncio(listed.data[0].id, client=client)
    refused = await the(f"{messages}.send_message").asyncio(
        client=client, body=models.MessageIn.from_dict({"from": "noreply@contoso.com", "to": "nobody"})
    )
    unknown = await the(f"{messages}.get_message").asyncio("msg_01JDB6Z0Q5V8W6K3T1E9F4H2RC", client=client)
    raw = the("types").File(payload=b"From: noreply@contoso.com\r\nTo: ana@example.com\r\n\r\nHello\r\n")
    whole = await the(f"{messages}.send_message").asyncio(
        client=client, body=raw, envelope_from="noreply@contoso.com", envelope_to=["ana@example.com"]
    )

    assert isinstance(sent, models.MessageOut)
    assert again.id == sent.id
    assert (shown.status, shown.subject, shown.from_.name) == ("sent", "Grüße", "Contoso")
    assert shown.recipients[0].email == "ana@example.com"
    assert (listed.data[0].outcome, listed.data[0].reply.code) == ("sent", 250)
    assert "MAIL FROM" in dialogue
    assert isinstance(refused, models.ProblemOut)
    assert (refused.status, refused.code, refused.errors[0].pointer) == (422, "no_at", "/to")
    assert (unknown.status, unknown.code, unknown.retryable) == (404, "not_found", False)
    assert isinstance(whole, models.MessageOut)
