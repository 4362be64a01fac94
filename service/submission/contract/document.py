"""The OpenAPI document, as it is served and as it is kept in the repository.

FastAPI writes what the endpoints declare; here it is finished, by rules that hold for every operation, so
that a new endpoint has them without saying so:

- bodies and queries are read by hand, so their shapes are added, as is that of problems, to which the
  answers refer; and what the framework would have refused by itself (its own 422) is taken out;
- a problem is `application/problem+json` alone, and names every code that this operation can answer with
  under this status (`codes`): in words, as `x-codes`, and as an example each;
- answers name the headers that they have;
- every request and every answer has an example (`examples`);
- the events that are posted to webhooks stand in the section `webhooks`.

`python -m service.submission.contract.document` prints it; a test compares the two.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service.submission.contract.codes import CODES, Code, codes_of
from service.submission.contract.examples import Examples
from service.submission.door import BODY, REFUSALS
from service.submission.feed import announcements
from service.submission.models import ProblemOut
from service.submission.problems import FieldError, Problem

Json = dict[str, Any]

_PROBLEM = ProblemOut.__name__
_REQUEST_ID = "req_01JDB6Z0Q5V8W6K3T1E9F4H2RC"

_RETRY_AFTER = {"description": "Seconds until it is worth another try.", "schema": {"type": "integer"}}
_HEADERS: Mapping[str, Json] = {
    "201": {"Location": {"description": "Where it is.", "schema": {"type": "string"}}},
    "202": {"Location": {"description": "Where it is.", "schema": {"type": "string"}}},
    "401": {
        "WWW-Authenticate": {
            "description": "RFC 6750: what is wrong with the key.",
            "required": True,
            "schema": {"type": "string"},
        }
    },
    "409": {"Retry-After": _RETRY_AFTER},
    "429": {"Retry-After": _RETRY_AFTER},
    "503": {"Retry-After": _RETRY_AFTER},
}

_WHOLE_MESSAGE = "From: Contoso <noreply@contoso.com>\r\nTo: ana@contoso.com\r\nSubject: Your receipt\r\n\r\nThank you.\r\n"

#: Examples of what is not JSON.
_TEXTS = {
    "message/rfc822": _WHOLE_MESSAGE,
    "text/event-stream": 'id: evt_4711\nevent: recipient.sent\ndata: {"object":"event","id":"evt_4711",…}\n\n',
    "text/plain": "S: 220 smtp.office365.com Microsoft ESMTP MAIL Service ready\nC: EHLO postroom.contoso.com\n",
}

#: Codes that a description may list; more of them are read in the examples.
_FEW = 8

#: What follows from what an operation has: from its key, its parameters (the server reads them), its body.
_ALWAYS = {"key": (401, 403, 429, 503), "parameters": (400, 431), "body": BODY}


def document(app: FastAPI) -> Json:
    """Build the document of this application, finished."""
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
        [*((shape, "validation") for shape in shapes_read), (ProblemOut, "serialization")],
        ref_template="#/components/schemas/{model}",
    )
    components = described.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name, shape in shapes["$defs"].items():
        schemas.setdefault(name, shape)
    components["securitySchemes"] = {
        "key": {"type": "http", "scheme": "bearer", "description": "An API key: pr_live_… or pr_test_…"}
    }
    for operation in operations(described):
        _finish(operation, schemas)
    for framework in ("HTTPValidationError", "ValidationError"):
        schemas.pop(framework, None)
    described["webhooks"] = announcements.webhooks(Examples(schemas))
    schemas.update(announcements.SCHEMAS)
    components["examples"] = dict(sorted(_problem_examples(described)))
    return described


def operations(described: Json) -> Iterator[Json]:
    """Give every operation of a document."""
    for item in described["paths"].values():
        yield from (operation for method, operation in item.items() if method in _METHODS)


_METHODS = {"get", "put", "post", "patch", "delete", "head", "options"}


def _finish(operation: Json, schemas: Mapping[str, Json]) -> None:
    """Complete one operation in place."""
    examples, traits = Examples(schemas), _traits(operation, schemas)
    for trait, statuses in _ALWAYS.items():
        for number in statuses if trait in traits else ():
            operation["responses"].setdefault(str(number), _plain_problem(number))
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        if "json" not in kind:
            # Octets, for generators of clients and of tests; OpenAPI 3.0's word, which they all know.
            content["schema"] = {**content["schema"], "format": "binary"}
            content.setdefault("example", _TEXTS.get(kind, ""))
        if "example" not in content and "examples" not in content and content.get("schema"):
            content["example"] = examples.of(content["schema"], whole=False)
    responses: Json = operation["responses"]
    for status in list(responses):
        answer = responses[status]
        shape = _shape(answer)
        if shape == "HTTPValidationError":
            del responses[status]
            continue
        if headers := _HEADERS.get(status):
            answer["headers"] = {**headers, **answer.get("headers", {})}
        if shape == _PROBLEM:
            _finish_problem(answer, codes_of(traits, int(status)))
        else:
            _finish_answer(answer, schemas, examples)


def _plain_problem(status: int) -> Json:
    """Describe a problem as an endpoint would have done it."""
    schema = {"$ref": f"#/components/schemas/{_PROBLEM}"}
    return {"description": REFUSALS[status], "content": {"application/problem+json": {"schema": schema}}}


def _finish_problem(answer: Json, codes: list[Code]) -> None:
    names = [each.code for each in codes]
    answer["content"] = {
        "application/problem+json": {
            "schema": {"$ref": f"#/components/schemas/{_PROBLEM}"},
            "examples": {each.code: {"$ref": f"#/components/examples/{_name(each)}"} for each in codes},
        }
    }
    if len(names) <= _FEW:
        answer["description"] += f" Codes: {', '.join(f'`{name}`' for name in names)}."
    answer["x-codes"] = names


def _finish_answer(answer: Json, schemas: Mapping[str, Json], examples: Examples) -> None:
    if answer["description"] == "Successful Response":
        told = schemas.get(_shape(answer) or "", {}).get("description", "Done.")
        answer["description"] = told.partition("\n")[0]
    for kind, content in answer.get("content", {}).items():
        if "example" in content or "examples" in content:
            continue
        if kind in _TEXTS:
            content["example"] = _TEXTS[kind]
        elif content.get("schema"):
            content["example"] = examples.of(content["schema"], whole=True)


def _shape(answer: Json) -> str | None:
    """Name the shape of an answer, as the framework wrote it."""
    for content in answer.get("content", {}).values():
        if "$ref" in content.get("schema", {}):
            return str(content["schema"]["$ref"]).rpartition("/")[2]
    return None


# -- the codes of an operation ----------------------------------------------------------------


def _traits(operation: Json, schemas: Mapping[str, Json]) -> set[str]:
    """Say what an operation has that decides about its codes; the words are those of `codes`."""
    traits = {operation["operationId"]}
    if operation.get("security"):
        traits.add("key")
    if operation.get("parameters"):
        traits.add("parameters")
    queried = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"}
    if queried:
        traits.add("query")
    if {"after", "limit"} <= queried:
        traits.add("page")
    if "requestBody" in operation:
        traits.add("body")
        traits |= _reached(operation["requestBody"], schemas)
    return traits


def _reached(part: Any, schemas: Mapping[str, Json]) -> set[str]:
    """List the shapes that stand in a part of the document, at whatever depth."""
    found: set[str] = set()
    waiting = [part]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            shape = str(node.get("$ref", "")).rpartition("/")[2]
            if shape in schemas and shape not in found:
                found.add(shape)
                waiting.append(schemas[shape])
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)
    return found


def _problem_examples(described: Json) -> Iterator[tuple[str, Json]]:
    """Give an example for each code that the document names, under its status."""
    named = {
        f"{status}.{code}"
        for operation in operations(described)
        for status, answer in operation["responses"].items()
        for code in answer.get("x-codes", ())
    }
    for each in CODES:
        if _name(each) in named:
            yield _name(each), {"summary": each.means, "value": _problem(each)}


def _name(code: Code) -> str:
    return f"{code.status}.{code.code}"


def _problem(code: Code) -> Any:
    """Write the problem as it is answered."""
    errors = [FieldError(pointer="/to/0", code=code.code, detail=code.means)] if code.status == 422 else []
    problem = Problem(status=code.status, code=code.code, detail=code.means, errors=errors)
    return json.loads(bytes(problem.response(_REQUEST_ID).body))


# -- the document without a service -----------------------------------------------------------


def unconnected() -> FastAPI:
    """Make the application without what stands behind it: enough for its document and its page."""
    from datetime import UTC, datetime, timedelta

    from service.ledger import Ledger
    from service.ledger.sealing import Seal
    from service.routes.advice import Organization
    from service.routes.choice import RouteBook
    from service.routes.mx import Resolver
    from service.routes.targets import TargetRules, Targets
    from service.submission.app import create_app
    from service.submission.feed.telling import Telling
    from service.submission.limits import SubmissionLimits

    class _Nothing:
        revision = ""

        async def redis(self) -> bool:
            return True

    async def no_bell(lanes: object) -> None:
        del lanes

    async def no_check(route: object, asked: object) -> None:
        del route, asked

    ledger = Ledger.open("postgresql://nobody@localhost/nothing", name="document", connections=1)
    return create_app(
        ledger=ledger,
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
        telling=Telling(ledger, targets=Targets(TargetRules(), Resolver()), seal=Seal(None)),
    )


def main() -> None:
    """Print the document."""
    print(json.dumps(unconnected().openapi(), indent=2, ensure_ascii=False, sort_keys=True))


if __name__ == "__main__":
    main()
