"""Two applications, each with one of everything: what is one's is not there for the other.

Whatever B asks with an id of A's is answered as with an id that nobody has, to the octet; no list of B's has
anything of A's, whatever it is filtered by; and nothing of A's has changed when B has tried it all.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from service import wiring
from service.ledger.keys import DEFAULT_SCOPES, SCOPES
from tests.hostile.asking import ask
from tests.hostile.surface import OPERATIONS, Operation
from tests.hostile.tenants import Tenant, ghost, rows_of, settle, without_request
from tests.hostile.world import World
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: Names in a path that are no application's.
SHARED = {"name"}

#: For administrators, who work for every application: no application has them.
FOR_ADMINISTRATORS = ("/keys", "/erasures")

OF_SOMEBODY = [each for each in OPERATIONS if set(each.named("path")) - SHARED]
LISTS = [each for each in OPERATIONS if each.method == "GET" and not each.named("path")]
MADE = [each for each in OPERATIONS if each.places and not set(each.named("path")) - SHARED]


async def a_tenant(world: World, application: str, *, mark: str, scopes: Any = DEFAULT_SCOPES) -> Tenant:
    key = await world.house.ledger.create_key(application, scopes=list(scopes), senders=[])
    client = world.client(key.token)
    return Tenant(client=client, application=application, mark=mark, token=key.token, ids={key.key.id})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def both(world: World) -> AsyncIterator[tuple[Tenant, Tenant]]:
    """A and B, who have the same things."""
    a = await a_tenant(world, "alpha", mark="zqsecretofa")
    b = await a_tenant(world, "beta", mark="zqsecretofb", scopes=[*DEFAULT_SCOPES, "keys.rotate"])
    await settle(world, a, b)
    yield a, b
    await a.client.aclose()
    await b.client.aclose()


async def request(
    client: httpx2.AsyncClient, operation: Operation, names: Mapping[str, str], query: str = ""
) -> httpx2.Response:
    body = {} if operation.body is None else {"json": operation.body}
    return await ask(client, operation.method, operation.path.format(**names) + query, **body)


def shows(answer: httpx2.Response, tenant: Tenant, *, but: str = "") -> set[str]:
    """List what of a tenant's stands in an answer, beside what was asked."""
    said = answer.text + str(answer.headers)
    marks = {tenant.mark, tenant.application, *tenant.ids}
    return {each for each in marks if each not in but and re.search(rf"{re.escape(each)}(?![0-9])", said)}


@pytest.mark.parametrize("operation", OF_SOMEBODY, ids=str)
async def test_an_id_of_anothers_is_an_id_of_nobodys(
    operation: Operation, world: World, both: tuple[Tenant, Tenant]
) -> None:
    """With A's ids, all of them or one among B's own, B gets what it gets for ids that do not exist."""
    a, b = both
    of_a, of_b = await a.names(operation), await b.names(operation)
    database = world.house.settings.database_url.get_secret_value()
    before = await rows_of(a, database)

    for tried in [of_a, *({**of_b, name: of_a[name]} for name in of_a)]:
        nobody = {name: ghost(value) if value == of_a[name] else value for name, value in tried.items()}
        if tried == of_b:
            continue  # a version's number is the same for both
        answer, nothing = (
            await request(b.client, operation, tried),
            await request(b.client, operation, nobody),
        )
        assert without_request(answer) == without_request(nothing)
        assert answer.status_code in {403, 404}, answer.text
        assert not shows(answer, a)

    assert await rows_of(a, database) == before


@pytest.mark.parametrize("operation", LISTS, ids=str)
async def test_a_list_has_only_ones_own(operation: Operation, both: tuple[Tenant, Tenant]) -> None:
    """By itself, and asked in every parameter for anything of A's."""
    a, b = both
    plain = await request(b.client, operation, {})
    assert not shows(plain, a)
    if operation.id in KNOWN_LISTS:
        assert shows(plain, b), "its own is there"

    texts = {
        a.mark,
        a.application,
        f"{a.mark}-receipt",
        f"{a.mark}-key",
        f"ana@{a.mark}.example",
        *a.things.values(),
    }
    names = operation.named("query")
    if "metadata" in names:
        names[names.index("metadata")] = f"metadata[{a.mark}]"
    for name in names:
        for text in sorted(texts):
            answer = await ask(b.client, operation.method, operation.path, params={name: text})
            assert answer.status_code in {200, 403, 422}, answer.text
            assert not shows(answer, a, but=text), (name, text, answer.text)
            if "_" in text and text in a.ids | {a.things["event"]}:
                nothing = await ask(b.client, operation.method, operation.path, params={name: ghost(text)})
                assert without_request(answer) == without_request(nothing), (name, text)


#: Lists that are known to have something of everybody who has one of everything.
KNOWN_LISTS = {
    "list_messages",
    "list_templates",
    "list_suppressions",
    "list_suppression_rules",
    "list_webhooks",
    "list_events",
    "resend_list_emails",
    "get_me",
}


@pytest.mark.parametrize("operation", MADE, ids=str)
async def test_nothing_is_made_of_what_is_anothers(
    operation: Operation, world: World, both: tuple[Tenant, Tenant]
) -> None:
    """Whatever of A's stands in a field of a request of B's, the answer shows no more of A's, and A has no more."""
    a, _ = both
    c = await a_tenant(world, "delta", mark="zqsecretofd")
    database = world.house.settings.database_url.get_secret_value()
    before = await rows_of(a, database)
    texts = [*sorted(a.things.values()), f"{a.mark}-receipt", a.application]

    for place in operation.places:
        if place.pointer and place.pointer[-1] in REFERENCES:
            for text in texts:
                body = place.put(text, operation.body)
                answer = await ask(c.client, operation.method, operation.path.format(name="peer"), json=body)
                assert answer.status_code < 500, answer.text
                assert not shows(answer, a, but=text), (str(place), text, answer.text)

    assert await rows_of(a, database) == before
    await c.client.aclose()


#: Names of fields that name something else.
REFERENCES = {
    "id", "after", "before", "application", "template", "message", "message_id", "webhook", "rule", "key",
    "idempotency_key", "replaces", "route", "name", "path", "address", "0",
}  # fmt: skip


async def test_anothers_template_is_no_template(both: tuple[Tenant, Tenant]) -> None:
    """By id and by name, in a message, a batch, a merge and an email; the same name is one's own template."""
    a, b = both
    for name in (a.things["/templates"], f"{a.mark}-receipt"):
        answers = []
        for tried in (name, ghost(name)):
            use: dict[str, Any] = {"template": {"id": tried, "variables": {"x": "y"}}}
            plain = {"from": "noreply@contoso.com", **use}
            email = {**plain, "to": "ana@example.com", "subject": "x"}
            answers.append([
                without_request(await b.client.post(path, json=body))
                for path, body in (
                    ("/messages", {**plain, "to": "ana@example.com"}),
                    ("/messages/plan", {**plain, "to": "ana@example.com"}),
                    ("/messages/batch", [{**plain, "to": "ana@example.com"}]),
                    ("/messages", {**plain, "merge": [{"to": "ana@example.com"}]}),
                    ("/emails", email),
                    ("/emails/batch", [email]),
                )
            ])  # fmt: skip
        assert answers[0] == answers[1]
        assert {status for status, _, _ in answers[0]} == {422}

    await b.make(
        "POST", "/templates",
        {"name": f"{a.mark}-receipt", "subject": "mine", "text": "{{ x }}", "publish": True},
    )  # fmt: skip
    own = {"id": f"{a.mark}-receipt", "variables": {"x": "y"}}
    made = await b.make("POST", "/messages", b.message(template=own, subject=None, text=None))
    assert made["subject"] == "mine"
    b.ids |= {f"{a.mark}-receipt"}


async def test_one_key_of_two_applications_is_two_keys(both: tuple[Tenant, Tenant]) -> None:
    """The same idempotency key, for the request or for a message in it, and the same or another body."""
    a, b = both
    for path, body in (
        ("/messages", a.message()),
        ("/messages/batch", [b.message(idempotency_key="item")]),
        ("/emails", {"from": "noreply@contoso.com", "to": "x@example.com", "subject": "x", "text": "x"}),
    ):
        first, second = [
            await each.client.post(path, json=body, headers={"Idempotency-Key": f"same{path}"})
            for each in both
        ]
        assert first.status_code == second.status_code, second.text
        assert first.status_code < 300
        assert "idempotent-replayed" not in second.headers
        assert _ids(first).isdisjoint(_ids(second))
        a.ids |= _ids(first)
        b.ids |= _ids(second)
    again = await b.client.post("/messages", json=b.message(), headers={"Idempotency-Key": f"{a.mark}-key"})
    assert again.status_code == 202


def _ids(answer: httpx2.Response) -> set[str]:
    made = answer.json()
    return {each["id"] for each in [made, *made.get("data", ())] if "id" in each}


async def test_anothers_suppression_stops_nobody_elses_mail(both: tuple[Tenant, Tenant]) -> None:
    """An address that A stopped gets B's mail."""
    a, b = both

    made = await b.make("POST", "/messages", b.message(to=[f"stopped@{a.mark}.example"]))

    assert made["recipients"][0]["status"] == "queued"


async def test_a_stream_tells_only_ones_own(world: World, both: tuple[Tenant, Tenant]) -> None:
    """B's stream has B's events from the beginning; an event of A's is no place to begin at."""
    a, b = both
    own = {each["id"] for each in (await b.client.get("/events", params={"limit": 100})).json()["data"]}

    told = await stream(world, b.token, after="evt_0", until=len(own))
    anothers = await b.client.get(
        "/events", headers={"Accept": "text/event-stream", "Last-Event-ID": a.things["event"]}
    )
    nobodys = await b.client.get(
        "/events", headers={"Accept": "text/event-stream", "Last-Event-ID": ghost(a.things["event"])}
    )

    assert {json.loads(each)["id"] for each in told} == own
    assert anothers.status_code == 422
    assert without_request(anothers) == without_request(nobodys)


async def stream(world: World, token: str, *, after: str, until: int) -> list[str]:
    """Read so many events of a stream, as a client does that then goes away."""
    said = bytearray()
    enough = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await enough.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        said.extend(message.get("body", b""))
        if said.count(b"\ndata: ") >= until:
            enough.set()

    scope = {
        "type": "http", "method": "GET", "path": "/events", "raw_path": b"/events", "http_version": "1.1",
        "query_string": f"after={after}".encode(), "client": ("127.0.0.1", 1), "server": ("postroom", 80),
        "scheme": "http", "root_path": "", "asgi": {"version": "3.0"},
        "headers": [(b"authorization", f"Bearer {token}".encode()), (b"accept", b"text/event-stream")],
    }  # fmt: skip
    async with asyncio.timeout(20):
        await world.app(scope, receive, send)
    return [line.removeprefix("data: ") for line in said.decode().split("\n") if line.startswith("data: ")]


async def test_a_webhook_is_told_only_ones_own(world: World, both: tuple[Tenant, Tenant]) -> None:
    """What is made for A's webhook has nothing of B's, and the other way round."""
    made = [await each.make("POST", "/messages", each.message()) for each in both]
    stop = asyncio.Event()

    async def told(tenant: Tenant) -> str:
        path = f"/webhooks/{tenant.things['/webhooks']}/deliveries"
        return (await tenant.client.get(path, params={"limit": 100})).text

    async def came(tenant: Tenant, message: str) -> bool:
        return message in await told(tenant)

    async with wiring.webhook_dispatcher(world.house.settings) as dispatcher:
        running = asyncio.create_task(dispatcher.run(stop))
        for tenant, message in zip(both, made, strict=True):
            await eventually(partial(came, tenant, message["id"]), within=60)
        stop.set()
        await running
    for tenant, other in (both, both[::-1]):
        shown = await told(tenant)
        assert not [each for each in other.ids if each.startswith("msg_") and each in shown]


async def test_an_operator_sees_both(world: World, both: tuple[Tenant, Tenant]) -> None:
    """With `operate` the lists have what is A's and what is B's, and every id opens."""
    operator = await a_tenant(world, "gamma", mark="zqsecretofc", scopes=[*DEFAULT_SCOPES, "operate"])
    for name in ("list_messages", "list_templates", "list_suppressions", "list_webhooks"):
        (operation,) = [each for each in LISTS if each.id == name]
        answer = await ask(operator.client, "GET", operation.path, params={"limit": 100})
        assert all(shows(answer, each) for each in both), name
    for operation in OF_SOMEBODY:
        if operation.method == "GET" and not operation.path.startswith(FOR_ADMINISTRATORS):
            for each in both:
                answer = await request(operator.client, operation, await each.names(operation))
                assert answer.status_code == 200, (operation.id, answer.text)
    await operator.client.aclose()


async def test_a_revoked_key_sees_nothing(world: World, both: tuple[Tenant, Tenant]) -> None:
    """Every operation is a 401 for a key of A's own that was revoked, with A's ids as with no ids."""
    a, _ = both
    gone = await world.house.ledger.create_key(a.application, scopes=SCOPES, senders=[])
    assert await world.house.ledger.revoke_key(gone.key.id)
    for number, operation in enumerate(OPERATIONS):
        if operation.statuses & {401, 403}:
            async with world.client(gone.token, address=f"192.0.2.{number}") as client:
                answer = await request(client, operation, await a.names(operation))
            assert answer.status_code == (403 if operation.resend else 401), (operation.id, answer.text)
            assert not shows(answer, a)


async def test_the_ids_are_good_for_their_owner(both: tuple[Tenant, Tenant]) -> None:
    """A does with its own ids what B could not: the tests before would otherwise prove nothing."""
    a, _ = both
    order = {"GET": 0, "POST": 1, "PATCH": 2, "DELETE": 3}
    for operation in sorted(OF_SOMEBODY, key=lambda each: (order[each.method], -len(each.path))):
        answer = await request(a.client, operation, await a.names(operation))
        if operation.path.startswith(FOR_ADMINISTRATORS):
            assert answer.status_code == 403
        else:
            assert answer.status_code not in {401, 403, 404, 415}, (operation.id, answer.text)
