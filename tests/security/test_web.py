"""What the OWASP API Top 10 asks of every endpoint at once: each is tried by reading the application itself."""

import json
import re
from typing import Any

import pytest
from starlette.routing import Mount

from service.ledger.keys import DEFAULT_SCOPES, SCOPES
from service.submission.request.query import MOST
from tests.hostile.surface import OPERATIONS, Operation
from tests.hostile.world import World
from tests.security.asgi import ask

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: What anybody may see: is it alive, how is it spoken to, where does one sign in.
OPEN = {"/livez", "/readyz", "/metrics", "/openapi.json", "/docs", "/docs/{name}", "/console"}

#: Names that only the service may write, of every thing that it keeps.
OWN = (
    "id", "application", "status", "created_at", "sent_at", "message_id", "attempts", "lane", "key_id", "hash", "secret",
    "revoked_at", "last_used_at", "replaces", "admin", "scopes", "test", "sha256", "size", "from_", "is_admin", "role",
    "__class__", "__proto__", "constructor", "model_config", "synced", "position", "plan",
)  # fmt: skip

MUTATING = [each for each in OPERATIONS if each.body is not None]
LISTS = [each for each in OPERATIONS if each.method == "GET" and "limit" in each.named("query")]


def routes(app: Any) -> list[tuple[str, str]]:
    """Every method and path of the application, whether its document tells of it or not."""
    found: list[tuple[str, str]] = []
    for route in app.routes:
        if hasattr(route, "original_router"):
            prefix = route.include_context.prefix
            found += [(method, f"{prefix}{path}") for method, path in routes(route.original_router)]
        elif isinstance(route, Mount):  # the console, which has guards and tests of its own
            assert route.path == "/console"
        else:
            found += [(method, route.path) for method in sorted(route.methods or {"GET"})]
    return found


async def test_nothing_answers_without_a_key_but_what_is_meant_to(world: World) -> None:
    """By the application's own list of routes, under both prefixes: 401 before anything else, whatever is asked."""
    wanted = [(method, path) for method, path in routes(world.app) if path.removeprefix("/v1") not in OPEN]
    for number, (method, path) in enumerate(wanted):
        for authorization in ("", "Basic eDp4", "Bearer null", "Bearer pr_live_"):
            said = await ask(
                world.app,
                method,
                re.sub(r"\{[^}]*\}", "x", path),
                token="",
                body=b"{}",
                headers={"authorization": authorization},
                address=f"10.1.{number % 250}.{number // 250}",  # nobody is slowed for the one before
            )
            assert said.status in ({401, 403} if "/emails" in path else {401}), (method, path, said)
    assert len(wanted) > 100
    assert {method for method, _ in wanted} >= {"GET", "POST", "PATCH", "DELETE"}


async def test_every_route_is_in_the_document(world: World) -> None:
    """No endpoint is forgotten: what the application serves is what its document tells, under both prefixes."""
    told = {(each.method, each.path) for each in OPERATIONS} | {("GET", path) for path in OPEN}
    served = {(method, path) for method, path in routes(world.app) if method != "HEAD"}

    assert {(method, path.removeprefix("/v1")) for method, path in served} - told == set()
    assert {each for each in told if each not in served} <= {("GET", "/metrics")}


@pytest.mark.parametrize("operation", MUTATING, ids=str)
async def test_nobody_writes_what_is_the_services_own(operation: Operation, world: World) -> None:
    """Each name that only the service writes, beside a good body: refused as unknown, or a field of the contract."""
    async with world.caller(f"own-{operation.id}") as caller:
        path = await caller.path(operation)
        token = caller.client.headers["authorization"].removeprefix("Bearer ")
        example = operation.body[0] if isinstance(operation.body, list) else operation.body
        fields = {place.steps[-1] for place in operation.places}
        for name in set(OWN) - fields:
            body: Any = {**example, name: "x"}
            body = [body] if isinstance(operation.body, list) else body
            said = await ask(world.app, operation.method, path, token=token, body=json.dumps(body).encode())
            assert said.status in {400, 422}, (name, said)
            assert name not in said.body.decode() or name in {
                "id",
                "test",
                "status",
                "size",
                "plan",
                "lane",
                "role",
                "secret",
            }, said


@pytest.mark.parametrize("operation", LISTS, ids=str)
async def test_a_page_has_its_size(operation: Operation, world: World) -> None:
    """100 entries at the most, whatever is asked for."""
    async with world.caller(f"pages-{operation.id}") as caller:
        path = await caller.path(operation)
        for limit in (MOST + 1, 0, -1, 10**9, "1e9", "0x10", "٣", "1;2", ""):
            answer = await caller.client.get(path, params={"limit": limit})
            assert answer.status_code == 422, (limit, answer.text)
            assert "limit" in answer.text
        assert (await caller.client.get(path, params={"limit": MOST})).status_code == 200


async def test_another_sites_page_gets_nothing_out_of_a_browser(world: World) -> None:
    """No cookie opens the door, no answer lets another origin read it, and no form can be posted to it."""
    key = await world.house.ledger.create_key("browser", scopes=SCOPES, senders=[])
    foreign = {
        "origin": "https://evil.example",
        "cookie": f"authorization=Bearer {key.token}; key={key.token}",
    }
    async with world.client("none") as client:
        del client.headers["authorization"]
        for method, path in (
            ("GET", "/messages"),
            ("POST", "/messages"),
            ("OPTIONS", "/messages"),
            ("DELETE", "/webhooks/x"),
        ):
            preflight = {
                "access-control-request-method": "POST",
                "access-control-request-headers": "authorization",
            }
            answer = await client.request(
                method,
                path,
                headers={**foreign, **preflight},
                params={"key": key.token, "access_token": key.token},
            )
            assert answer.status_code in {401, 405}, answer.text
            assert not [name for name in answer.headers if name.startswith("access-control-")]
            assert "set-cookie" not in answer.headers
        client.headers["authorization"] = f"Bearer {key.token}"
        for kind in (
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "text/plain;application/json",
        ):
            answer = await client.post(
                "/messages", content=b'{"from":"noreply@contoso.com"}', headers={"content-type": kind}
            )
            assert answer.status_code == 415, (kind, answer.text)


async def test_a_method_is_not_another_one_in_disguise(world: World) -> None:
    """No header and no parameter turns a GET into an act."""
    key = await world.house.ledger.create_key("methods", scopes=DEFAULT_SCOPES, senders=[])
    async with world.client(key.token) as client:
        made = await client.post("/suppressions", json={"address": "a@example.com"})
        path = f"/suppressions/{made.json()['id']}"
        for name in ("x-http-method-override", "x-http-method", "x-method-override"):
            await client.get(path, headers={name: "DELETE"})
            await client.post(path, headers={name: "DELETE"}, data={"_method": "DELETE"})
        assert (await client.get(path)).status_code == 200


async def test_no_answer_is_anything_to_a_browser_but_data(world: World) -> None:
    """Script in a subject, in a name, in HTML comes back as JSON that no browser takes for a page."""
    key = await world.house.ledger.create_key("scripts", scopes=SCOPES, senders=[])
    script = "<script>alert(1)</script>"
    async with world.client(key.token) as client:
        body = {
            "from": {"email": "noreply@contoso.com", "name": script},
            "to": "a@example.com",
            "subject": script,
            "html": script,
        }
        sent = await client.post("/messages", json=body)
        for path in ("", "/content", "/events", "/explain", "/attempts"):
            answer = await client.get(f"/messages/{sent.json()['id']}{path}", headers={"accept": "text/html"})
            assert answer.status_code == 200, answer.text
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        for path in (f"/{script}", f"/messages/{script}", f"/messages?{script}={script}"):
            answer = await client.get(path)
            assert script not in answer.text
            assert "json" in answer.headers["content-type"]
