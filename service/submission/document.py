"""The OpenAPI document, as it is served and as it is kept in the repository.

`python -m service.submission.document` prints it; a test compares the two.
"""

import json
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema


def document(app: FastAPI) -> dict[str, Any]:
    """Build the document of this application, complete with the request's own shapes."""
    described = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        routes=app.routes,
        tags=app.openapi_tags,
        servers=[{"url": "/"}],
    )
    shapes_read: tuple[type[BaseModel], ...] = app.state.shapes
    _, shapes = models_json_schema(
        [(shape, "validation") for shape in shapes_read],
        ref_template="#/components/schemas/{model}",
    )
    components = described.setdefault("components", {})
    components.setdefault("schemas", {}).update(shapes["$defs"])
    components["securitySchemes"] = {
        "key": {"type": "http", "scheme": "bearer", "description": "An API key: pr_live_… or pr_test_…"}
    }
    return described


def main() -> None:
    """Print the document; needs no database, because nothing is connected."""
    from datetime import UTC, datetime, timedelta

    from service.ledger import Ledger
    from service.routes.advice import Organization
    from service.routes.choice import RouteBook
    from service.submission.app import create_app
    from service.submission.limits import SubmissionLimits

    class _Nothing:
        revision = ""

        async def redis(self) -> bool:
            return True

    async def no_bell(lanes: object) -> None:
        del lanes

    async def no_check(route: object, asked: object) -> None:
        del route, asked

    app = create_app(
        ledger=Ledger.open("postgresql://nobody@localhost/nothing", name="document", connections=1),
        book=RouteBook((), order=()),
        lane_limits={},
        organization=Organization(),
        limits=SubmissionLimits(
            body_octets=50 * 1024 * 1024, body_seconds=30.0, expires_after=timedelta(hours=72), queue_limit=1
        ),
        nudge=no_bell,
        clock=lambda: datetime.now(UTC),
        health=_Nothing(),
        check=no_check,
    )
    print(json.dumps(app.openapi(), indent=2, ensure_ascii=False, sort_keys=True))


if __name__ == "__main__":
    main()
