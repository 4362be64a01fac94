"""The OpenAPI document: what the repository keeps is what is served, and every operation is told whole."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # it has no types of its own
from openapi_spec_validator import validate

from service.ledger.webhooks import TYPES
from service.submission.contract import codes
from service.submission.contract.document import operations, unconnected
from service.submission.request.validation import _CODES, _DETAILS
from tests.contract.codes_in_source import codes_in, strings_in
from tests.house import ROOT, a_house, smarthost
from tests.peer import ScriptedPeer

KEPT = ROOT / "openapi" / "openapi.json"


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    document: dict[str, Any] = unconnected().openapi()
    return document


async def test_the_kept_document_is_the_served_one(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """What the repository shows is what the service serves, and it is valid OpenAPI 3.1."""
    async with (
        ScriptedPeer() as peer,
        a_house(database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path, workers=0) as house,
    ):
        served = (await house.client.get("/openapi.json")).json()

    assert served == json.loads(KEPT.read_text())
    validate(served)


def test_every_operation_is_introduced(described: dict[str, Any]) -> None:
    """A name of its own, which generated clients call, a summary, a description and a known tag."""
    names = Counter(operation["operationId"] for operation in operations(described))
    tags = {tag["name"] for tag in described["tags"]}

    assert [name for name, times in names.items() if times > 1] == []
    for operation in operations(described):
        name = operation["operationId"]
        assert name.isidentifier(), name
        assert name == name.lower(), name
        assert operation["summary"], name
        assert operation["description"], name
        assert tags >= set(operation["tags"]), name


def test_a_problem_says_which_codes_it_can_have(described: dict[str, Any]) -> None:
    """Each problem of each operation has its media type, at least one code, and an example for each."""
    known = described["components"]["examples"]
    for operation in operations(described):
        for status, answer in operation["responses"].items():
            content = answer.get("content", {})
            if "#/components/schemas/ProblemOut" not in json.dumps(content):
                continue
            where = f"{operation['operationId']} {status}"
            assert list(content) == ["application/problem+json"], where
            assert answer["x-codes"], f"{where}: no code of service/submission/contract/codes.py belongs here"
            for code in answer["x-codes"]:
                example = known[f"{status}.{code}"]["value"]
                assert (example["code"], str(example["status"])) == (code, status), where


def test_an_operation_behind_a_key_says_what_keys_end_in(described: dict[str, Any]) -> None:
    """401 and 503 can always come where a key is looked up."""
    for operation in operations(described):
        if operation.get("security"):
            assert {"401", "503"} <= operation["responses"].keys(), operation["operationId"]


def test_every_example_fits_its_schema(described: dict[str, Any]) -> None:
    """Every request and every answer in JSON has an example, and each is valid."""
    checked = 0
    for where, content in _contents(described):
        examples = [content["example"]] if "example" in content else []
        examples += [_resolved(each, described)["value"] for each in content.get("examples", {}).values()]
        assert examples, f"{where} has no example"
        schema = {**content["schema"], "components": described["components"]}
        for example in examples:
            wrong = [f"{each.json_path}: {each.message}" for each in _validator(schema).iter_errors(example)]
            assert wrong == [], where
            checked += 1
    assert checked > 50


def test_webhooks_are_told(described: dict[str, Any]) -> None:
    """One entry for each type, with the headers of Standard Webhooks and a payload of this type."""
    assert set(TYPES) == described["webhooks"].keys()
    for name, item in described["webhooks"].items():
        operation = item["post"]
        headers = {each["name"] for each in operation["parameters"]}
        assert headers == {"webhook-id", "webhook-timestamp", "webhook-signature"}
        assert operation["requestBody"]["content"]["application/json"]["example"]["type"] == name


# -- the codes --------------------------------------------------------------------------------


def test_every_code_in_the_source_is_registered() -> None:
    """A code that a problem can have stands in `codes`, and so in the document and in docs/errors.md."""
    registered = {each.code for each in codes.CODES} | {codes.REFUSED} | codes.RESEND
    found = codes_in(ROOT) | {
        _CODES.get(kind, kind): "service/submission/request/validation.py" for kind in _DETAILS
    }

    assert {code: place for code, place in found.items() if code not in registered} == {}
    elsewhere = {code: place for code, place in found.items() if "/resend/" not in place}
    assert {code: place for code, place in elsewhere.items() if code in codes.RESEND} == {}


def test_every_registered_code_is_in_the_source() -> None:
    """No code is told that nothing raises, and none is told twice."""
    ours = strings_in(ROOT)
    pydantics = {"float_type", "none_required", "enum"}

    assert [each.code for each in codes.CODES if each.code not in ours | pydantics] == []
    named = Counter((each.status, each.code) for each in codes.CODES)
    assert [name for name, times in named.items() if times > 1] == []


def test_what_is_named_by_a_code_exists(described: dict[str, Any]) -> None:
    """`where` names traits, shapes and operations that there are."""
    known = {"key", "body", "parameters", "query", "page", "nowhere"} | described["components"][
        "schemas"
    ].keys()
    known |= {operation["operationId"] for operation in operations(described)}

    assert {each.code: sorted(each.where - known) for each in codes.CODES if each.where - known} == {}


def test_the_page_of_errors_is_in_step() -> None:
    """docs/errors.md is what `python -m service.submission.contract.codes` writes."""
    assert (ROOT / "docs" / "errors.md").read_text(encoding="utf-8") == codes.page()


def _contents(described: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give every body in JSON, of requests, answers and webhooks."""
    bodies = [*operations(described), *(item["post"] for item in described["webhooks"].values())]
    for operation in bodies:
        parts = {"request": operation.get("requestBody", {}), **operation["responses"]}
        for part, told in parts.items():
            for kind, content in told.get("content", {}).items():
                if kind.endswith("json"):
                    yield f"{operation['operationId']} {part}", content


def _resolved(part: dict[str, Any], described: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in part:
        return part
    found = described
    for step in part["$ref"].removeprefix("#/").split("/"):
        found = found[step]
    return found


def _validator(schema: dict[str, Any]) -> Draft202012Validator:
    return Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
