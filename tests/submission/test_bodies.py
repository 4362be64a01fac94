"""What requests hold of memory together: bodies, and what was made of them."""

from pathlib import Path

import pytest

from service.submission.problems import Problem
from service.submission.request.bodies import Bodies
from tests.house import a_house, smarthost
from tests.peer import ScriptedPeer


def test_what_was_made_of_a_body_counts_as_long_as_it_is_held() -> None:
    """Beside others there has to be room for it; a request that is alone has it whatever it is."""
    bodies = Bodies(each=100, together=1000, seconds=1)

    with bodies.composed("a", 5_000, of=0):
        assert bodies.in_flight == 5_000
        with pytest.raises(Problem) as refused, bodies.composed("b", 1, of=0):
            pass
        assert (refused.value.status, refused.value.code, refused.value.retryable) == (503, "busy", True)
    assert bodies.in_flight == 0
    with bodies.composed("a", 400, of=0):
        with pytest.raises(Problem), bodies.composed("a", 101, of=0):
            pass  # half of the room is one application's
        with bodies.composed("b", 500, of=0):
            assert bodies.in_flight == 900
    assert bodies.in_flight == 0


async def test_copies_of_a_merge_are_counted_until_they_are_committed(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """A request for many copies of something large waits for nobody when it is alone, and is counted meanwhile."""
    async with (
        ScriptedPeer() as peer,
        a_house(
            database_url,
            redis_url,
            routes=[smarthost(peer)],
            folder=tmp_path,
            workers=0,
            settings_changes={"api": {"bodies_in_flight": "1MB", "max_body": "1MB"}},
        ) as house,
    ):
        body = {
            "from": "noreply@contoso.com",
            "subject": "x",
            "text": "x" * 900 * 1024,
            "merge": [{"to": f"u{n}@example.com"} for n in range(5)],
        }
        held = house.app.state.door.bodies if house.app is not None else None
        assert held is not None
        assert (await house.client.post("/messages", json=body)).status_code == 202
        with held.composed("other", 10, of=0):
            refused = await house.client.post("/messages", json=body)
        assert (refused.status_code, refused.json()["code"]) == (503, "busy")
        assert (await house.client.post("/messages", json=body)).status_code == 202
        assert held.in_flight == 0
