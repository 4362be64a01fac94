"""The OpenAPI document."""

import json
from pathlib import Path

from openapi_spec_validator import validate

from tests.house import a_house, smarthost
from tests.peer import ScriptedPeer

KEPT = Path(__file__).resolve().parents[2] / "openapi" / "openapi.json"


async def test_the_kept_document_is_the_served_one(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """What the repository shows is what the service serves, and it is valid OpenAPI 3.1."""
    async with (
        ScriptedPeer() as peer,
        a_house(database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path, workers=0) as house,
    ):
        served = (await house.client.get("/openapi.json")).json()

    assert served == json.loads(KEPT.read_text())
    validate(served)
