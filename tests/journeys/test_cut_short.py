"""A worker's grace is over while a peer keeps it waiting: the ledger says how far the dialogue had come."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.house import a_house, smarthost
from tests.peer import ScriptedPeer
from tests.waiting import eventually


@pytest.mark.parametrize(
    ("phase", "outcome", "statuses"),
    [("data", "aborted", ["queued", "queued"]), ("dot", "uncertain", ["uncertain", "failed"])],
)
async def test_what_was_said_until_then_is_kept(
    phase: str, outcome: str, statuses: list[str], database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """The phase, the dialogue, its place on the session and the replies to RCPT; who was refused is not in doubt."""
    async with ScriptedPeer() as peer:
        never = asyncio.Event()
        peer.on("rcpt", reply="550 5.1.1 No such user", when=lambda path: "nobody" in path)
        waits = peer.on(phase, until=never)
        async with a_house(
            database_url,
            redis_url,
            routes=[smarthost(peer)],
            dispatch={"shutdown_grace": "1s", "uncertain_after": "1h"},
            folder=tmp_path,
        ) as house:
            message_id = await house.submit(to=["ana@example.com", "nobody@example.com"])
            await eventually(lambda: waits.acted)
            if phase == "dot":
                await eventually(lambda: peer.transactions[0].dot)
            await house.workers.pop().end()

            (attempt,) = await house.attempts(message_id)
            transcript = await house.client.get(f"/attempts/{attempt['id']}/transcript")
            never.set()

    assert (attempt["outcome"], attempt["phase"], attempt["session"]["message"]) == (outcome, phase, 1)
    assert [each["status"] for each in attempt["recipients"]] == statuses
    assert [_code(each["reply"]) for each in attempt["recipients"]] == [250, 550]
    assert "C: RCPT TO:<nobody@example.com>" in transcript.text
    assert transcript.text.rstrip().endswith("-- stopped here: the worker shuts down")


def _code(reply: Any) -> int | None:
    return None if reply is None else int(reply["code"])
