"""Every operation of the served document, asked with generated requests: schemathesis, one test an operation.

Some requests fit the document, some do not, and some are its own example; half name things that exist. Whatever is asked, the answer
is no 5xx, has a status, a media type, headers and a shape that the document tells, holds nothing that it does
not tell, has a code that the operation lists, and comes within a second (two more tries are given, because
the machine of a test has other things to do).

The requests are the same in every run. CONTRACT_EXAMPLES=500 asks more of them.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode, Response
from schemathesis.checks import not_a_server_error
from schemathesis.core.parameters import ParameterLocation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from service.local.servers import LocalPostgres, LocalRedis
from service.submission.contract.document import unconnected
from tests.conftest import TEMPLATE, _database, _make_template
from tests.contract.undescribed import undescribed
from tests.contract.world import World, a_world, example

EXAMPLES = int(os.environ.get("CONTRACT_EXAMPLES", "24"))
SLOW = 1.0  # seconds

#: A check of a route talks to the peer, and a stream is open until its reader goes.
UNHURRIED = {"check_route"}

DOCUMENT = unconnected().openapi()
OPERATIONS: dict[str, Any] = {
    found.ok().definition.raw["operationId"]: found.ok()  # type: ignore[union-attr]  # the document is valid
    for found in schemathesis.openapi.from_dict(DOCUMENT).get_all_operations()
}
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def world(
    shared_postgres: LocalPostgres, shared_redis: LocalRedis, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """One service for all of them; they spoil nothing for each other."""
    _make_template(shared_postgres)
    shared_redis.flush()
    for database_url in _database(shared_postgres, template=TEMPLATE):
        with a_world(database_url, shared_redis.url, tmp_path_factory.mktemp("contract")) as made:
            yield made


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_keeps_the_document(name: str, world: World) -> None:
    """Whatever fits the document or does not, the answer is one that the document tells."""
    operation = OPERATIONS[name]
    known = world.parameters(operation.path)
    session = requests.Session()
    session.trust_env = False

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=requests_of(operation), existing=st.booleans())
    def ask(case: Case[Any], *, existing: bool) -> None:
        if existing:
            case.path_parameters.update(known)
        wrong = is_wrong_body(case)
        # What a request without a good key gets is a test of its own.
        case.headers.pop("Authorization", None)
        response = asked(case, world, session)
        case.validate_response(response, checks=[*CHECKS, *([negative_data_rejection] if wrong else [])])
        tells(operation.definition.raw, response)

    with session:
        ask()


def requests_of(operation: Any) -> st.SearchStrategy[Case[Any]]:
    """Make requests that fit the document, that do not fit it, and with the body of its example."""
    found = [operation.as_strategy(generation_mode=GenerationMode.POSITIVE)]
    if operation.body or operation.query or operation.path_parameters:
        found.append(operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
    content = operation.definition.raw.get("requestBody", {}).get("content", {}).get("application/json")
    if content is not None:
        found.append(operation.as_strategy(body=example(content), media_type="application/json"))
    return st.one_of(found)


def is_wrong_body(case: Case[Any]) -> bool:
    """Say whether the body does not fit the document, so that it may not be taken."""
    body = case.meta.components.get(ParameterLocation.BODY) if case.meta is not None else None
    return body is not None and body.mode is GenerationMode.NEGATIVE


def test_nothing_opens_without_a_key(world: World) -> None:
    """Each operation that the document guards says so: 401, in the form of its other refusals."""
    for name, operation in OPERATIONS.items():
        if operation.definition.raw.get("security"):
            path = operation.path.replace("{", "").replace("}", "")
            answer = world.client.request(operation.method, path, headers={"Authorization": ""})
            assert answer.status_code == 401, name
            assert "401" in operation.definition.raw["responses"], name


def asked(case: Case[Any], world: World, session: requests.Session) -> Response:
    """Send it; where the answer takes over a second, twice more, and then it is too slow."""
    took = []
    for _ in range(3):
        response = case.call(
            base_url=world.url,
            session=session,
            headers={"Authorization": f"Bearer {world.token}"},
            timeout=30,
        )
        took.append(response.elapsed)
        if response.elapsed < SLOW or case.operation.definition.raw["operationId"] in UNHURRIED:
            return response
    raise AssertionError(f"slow: {took} s for {case.as_curl_command()}")


def tells(operation: Mapping[str, Any], response: Response) -> None:
    """Hold an answer against what the document says of codes and of fields."""
    told = operation["responses"].get(str(response.status_code), {})
    kind = response.headers.get("content-type", [""])[0].partition(";")[0]
    if not kind.endswith("json"):
        return
    answer = response.json()
    schema = told["content"][kind]["schema"]
    assert undescribed(answer, schema, DOCUMENT) == []
    if kind == "application/problem+json":
        codes = {answer["code"], *(error["code"] for error in answer["errors"])}
        assert codes <= set(told["x-codes"]), f"{response.status_code} of {operation['operationId']}"
