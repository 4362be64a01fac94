"""Every operation, every parameter of its path, query and header, every field of its body: each with injections.

The places come from the served document, so a new endpoint is tried by itself. Nothing gets a 500 or an answer
after more than a second; a refusal is a problem that points at the field and repeats nothing of it.
"""

import asyncio
import json
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest

from tests.hostile.asking import ask, judge, pointers
from tests.hostile.corpora.bodies import MALFORMED, STRANGE_NAMES, WRONG_KINDS, WRONG_TYPES
from tests.hostile.corpora.strings import CANARY, INJECTIONS, SURROGATES
from tests.hostile.corpora.urls import HEADERS, PATHS, QUERIES
from tests.hostile.surface import BY_ID, CHOSEN_NAME, OPERATIONS, Operation, Place
from tests.hostile.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")

WITH_BODY = [each for each in OPERATIONS if each.places]


def _body_of(operation: Operation) -> dict[str, Any]:
    return {} if operation.body is None else {"json": operation.body}


def operations_with(where: str) -> list[Operation]:
    return [each for each in OPERATIONS if each.named(where)]


def values(place: Place) -> dict[str, Any]:
    """What is tried in a field: every injection, and values of every other type."""
    if place.steps[-1] is CHOSEN_NAME:
        return {**INJECTIONS, **{f"name {name}": name for name in STRANGE_NAMES}}
    return {**INJECTIONS, **WRONG_TYPES}


def points_near(found: str, place: Place) -> bool:
    """Whether a pointer and a place are on one way from the root."""
    steps = tuple(found.split("/")[1:])
    return steps[: len(place.pointer)] == place.pointer[: len(steps)] or (
        "variables" in place.pointer and "template" in steps  # what they are for
    )


@pytest.mark.parametrize("operation", WITH_BODY, ids=str)
async def test_a_field_takes_any_value(operation: Operation, world: World) -> None:
    """Whatever stands in a field, it is taken or refused with a pointer to it."""
    async with world.caller(f"field-{operation}") as caller:
        path = await caller.path(operation)
        for place in operation.places:
            for name, value in values(place).items():
                body = json.dumps(place.put(value, operation.body))
                answer = await ask(
                    caller.client, operation.method, path, content=body,
                    headers={"Content-Type": "application/json"},
                )  # fmt: skip
                judge(operation, answer)
                if answer.status_code == 422 and value is not None and not operation.resend:
                    assert any(points_near(each, place) for each in pointers(answer)), (
                        place,
                        name,
                        answer.text,
                    )


@pytest.mark.parametrize("operation", WITH_BODY, ids=str)
async def test_a_body_may_be_no_json(operation: Operation, world: World) -> None:
    """What is broken, doubled, too deep, too large a number, or no character is refused by every endpoint."""
    async with world.caller(f"malformed-{operation}") as caller:
        path = await caller.path(operation)
        for name, body in MALFORMED.items():
            answer = await ask(
                caller.client,
                operation.method,
                path,
                content=body,
                headers={"Content-Type": "application/json"},
            )
            judge(operation, answer)
            assert answer.status_code in {400, 422}, (name, answer.text)
        for place in operation.places:
            half = json.dumps(place.put("HERE", operation.body)).replace('"HERE"', SURROGATES["high"])
            answer = await ask(
                caller.client,
                operation.method,
                path,
                content=half,
                headers={"Content-Type": "application/json"},
            )
            judge(operation, answer)
            assert answer.status_code == 422, (place, answer.text)


@pytest.mark.parametrize("operation", WITH_BODY, ids=str)
async def test_a_body_may_be_announced_as_anything(operation: Operation, world: World) -> None:
    """A body that is not announced as JSON is not read as JSON, whatever it is announced as."""
    async with world.caller(f"kind-{operation}") as caller:
        path = await caller.path(operation)
        for kind in WRONG_KINDS:
            answer = await ask(
                caller.client, operation.method, path, content=json.dumps(operation.body).encode(),
                headers={b"Content-Type": kind.encode("latin-1")},
            )  # fmt: skip
            judge(operation, answer)
            assert answer.status_code in {400, 415}, (kind, answer.text)


@pytest.mark.parametrize("operation", operations_with("path"), ids=str)
async def test_a_path_names_anything(operation: Operation, world: World) -> None:
    """What names nothing is not there: no id is read as anything but an id."""
    async with world.caller(f"path-{operation}") as caller:
        for name in operation.named("path"):
            before, _, after = operation.path.partition(f"{{{name}}}")
            for value in PATHS:
                tried = replace(operation, path=f"{before}\0{after}")
                path = (await caller.path(tried)).replace("\0", value)
                answer = await ask(caller.client, operation.method, path, **_body_of(operation))
                judge(operation, answer)
                assert answer.status_code in {404, 405, 422}, (path, answer.text)


@pytest.mark.parametrize("operation", operations_with("query"), ids=str)
async def test_a_query_asks_anything(operation: Operation, world: World) -> None:
    """A parameter that is wrong, doubled or unknown is refused and named; none is a piece of a query of SQL."""
    async with world.caller(f"query-{operation}") as caller:
        path = await caller.path(operation)
        queries = [
            *(f"{quote(name)}={value}" for name in operation.named("query") for value in QUERIES),
            *(f"{quote(name)}=a&{quote(name)}=b" for name in operation.named("query")),
            *(f"{quote(name)}[{value}]={value}" for name in operation.named("query") for value in QUERIES[:4]),
            *(f"{value}={value}" for value in QUERIES),
            "&" * 1000, "=", "%", "?", "a" * 20_000,
        ]  # fmt: skip
        for query in queries:
            answer = await ask(caller.client, operation.method, f"{path}?{query}", **_body_of(operation))
            judge(operation, answer)
            if answer.status_code == 422 and not operation.resend:
                assert pointers(answer), answer.text


@pytest.mark.parametrize("operation", operations_with("header"), ids=str)
async def test_a_header_says_anything(operation: Operation, world: World) -> None:
    """A header that the endpoint reads is taken or refused, and never put anywhere as it is."""
    async with world.caller(f"header-{operation}") as caller:
        path = await caller.path(operation)
        for name in operation.named("header"):
            # Of a stream the header is read before it begins; a stream that began would not end.
            stream = {b"Accept": b"text/event-stream"} if name == "Last-Event-ID" else {}
            for value in HEADERS:
                async with asyncio.timeout(20):
                    answer = await ask(
                        caller.client, operation.method, path, **_body_of(operation),
                        headers={**stream, name.encode(): value},
                    )  # fmt: skip
                judge(operation, answer)


async def test_every_operation_is_tried() -> None:
    """The places are there: a document that is read wrongly would prove nothing."""
    found = {str(each): {str(place) for place in each.places} for each in OPERATIONS}

    assert len(OPERATIONS) > 60
    assert {"/from/email", "/headers/*", "/attachments/0/filename", "/merge/0/bcc/0/name"} <= found[
        "send_message"
    ]
    assert {"/0/raw", "/0/dsn/envid", "/0/template/variables/name"} <= found["send_batch"]
    assert {"/attachments/0/content", "/tags/0/value"} <= found["resend_send_email"]
    assert {each.id for each in OPERATIONS if each.named("path")} >= {"get_message", "get_attempt"}


async def test_a_body_may_be_of_nothing_but_names(world: World) -> None:
    """Names by the hundred thousand that nobody knows are refused as one is, and a million as too many."""
    kind = {"Content-Type": "application/json"}
    strange = {f"{CANARY}{number}": 1 for number in range(200_000)}
    file = {"attachments": [{"content": "eA==", **strange}]}
    entries = {"merge": [{"to": "a@b.c"}] * 400_000}
    async with world.caller("names") as caller:
        for name, more, status in (
            ("send_message", strange, 422),
            ("send_message", file, 422),
            ("send_message", entries, 413),
            ("recommend_route", strange, 422),
            ("create_webhook", strange, 422),
            ("resend_send_email", strange, 422),
        ):
            operation = BY_ID[name]
            body = json.dumps({**operation.body, **more}).encode()
            answer = await ask(caller.client, "POST", operation.path, content=body, headers=kind)
            judge(operation, answer)
            assert answer.status_code == status, answer.text
            assert more is not file or pointers(answer) == ["/attachments/0"]


@pytest.mark.parametrize("name", ["send_message", "resend_send_email", "create_template", "create_key"])
async def test_a_body_may_be_enormous(name: str, world: World) -> None:
    """Hundreds of thousands of entries, names or letters where a few are meant: refused as quickly as a few."""
    operation = BY_ID[name]
    async with world.caller(f"enormous-{operation}") as caller:
        for place in operation.places:
            if len(place.steps) > 1 or place.pointer[-1] not in ENORMOUS:
                continue
            enormous: tuple[Any, ...] = (
                [0] * 300_000,
                [CANARY] * 100_000,
                [{}] * 30_000,
                {f"{CANARY}{number}": number for number in range(50_000)},
                CANARY * 100_000,
            )
            for value in enormous:
                answer = await ask(
                    caller.client, "POST", operation.path, json=place.put(value, operation.body)
                )
                judge(operation, answer)
                assert answer.status_code in {202, 201, 200, 403, 422}, answer.text


#: One field of each sort.
ENORMOUS = {
    "to",
    "from",
    "tags",
    "metadata",
    "headers",
    "attachments",
    "variables",
    "text",
    "name",
    "scopes",
    "0",
}
