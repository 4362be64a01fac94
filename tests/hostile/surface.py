"""Everything that a caller can put something into: operations, parameters, and the fields of every request.

It is read from the document that the application serves, so a new endpoint is tried without anybody adding it.
A place in a body is a path through the shapes of its schema: through objects, the first entry of lists, each
branch of a union, the names that a caller chooses and what stands under them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from service.submission.contract.document import unconnected
from service.submission.contract.examples import Examples

Schema = Mapping[str, Any]


class _ChosenName:
    """The step to a name that the caller chooses: what is put there becomes the name."""

    def __repr__(self) -> str:
        return "*"


CHOSEN_NAME: Final = _ChosenName()
Step = str | int | _ChosenName

#: Fields of a message that stand instead of others: where one is tried, these are left out.
_INSTEAD_OF: Mapping[str, frozenset[str]] = {
    "raw": frozenset({"subject", "text", "html"}),
    "template": frozenset({"subject", "text", "html"}),
    "merge": frozenset({"to", "cc", "bcc"}),
}

#: Good values of required fields, where an example made of the schema alone would be refused.
_GOOD: Mapping[str, Any] = {"to": "ana@contoso.com", "content": "eA==", "id": "receipt"}

_DEEPEST = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A field of a request's body."""

    steps: tuple[Step, ...]
    within: tuple[Any, ...] = field(repr=False)  # an example of each container on the way

    def __str__(self) -> str:
        return "".join(f"/{step}" for step in self.steps) or "/"

    @property
    def pointer(self) -> tuple[str, ...]:
        """The steps that the contract defines, as a pointer has them."""
        kept: list[str] = []
        for step in self.steps:
            if step is CHOSEN_NAME:
                break
            kept.append(str(step))
        return tuple(kept)

    def put(self, value: Any, body: Any) -> Any:
        """Give the body with this value here; what is on the way and missing is made from examples."""
        return _put(body, self.steps, self.within, value)


def _put(current: Any, steps: tuple[Step, ...], within: tuple[Any, ...], value: Any) -> Any:
    if not steps:
        return value
    step, example = steps[0], within[0]
    if isinstance(step, int):
        entries = current if isinstance(current, list) and current else [None]
        return [_put(entries[0], steps[1:], within[1:], value), *entries[1:]]
    if isinstance(step, _ChosenName):
        return {value: "x"}
    members = dict(current) if isinstance(current, dict) else dict(example)
    for other in _INSTEAD_OF.get(step, ()):
        members.pop(other, None)
    members[step] = _put(members.get(step), steps[1:], within[1:], value)
    return members


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation of the document."""

    id: str
    method: str
    path: str
    parameters: tuple[tuple[str, str], ...]  # where it stands, and its name
    statuses: frozenset[int]
    body: Any = None  # an example
    places: tuple[Place, ...] = ()  # of a body in JSON

    def __str__(self) -> str:
        return self.id

    def named(self, where: str) -> list[str]:
        """List the parameters of the path, the query or the header."""
        return [name for place, name in self.parameters if place == where]

    @property
    def resend(self) -> bool:
        """Whether its errors have Resend's form."""
        return self.path.startswith("/emails")


DOCUMENT: Mapping[str, Any] = unconnected().openapi()
_SCHEMAS: Mapping[str, Schema] = DOCUMENT["components"]["schemas"]
_EXAMPLES = Examples(_SCHEMAS)

#: Every name that the contract defines, for the pointers of problems.
NAMES: frozenset[str] = frozenset(
    name for schema in _SCHEMAS.values() for name in schema.get("properties", ())
)


def places(schema: Schema, *, steps: tuple[Step, ...] = (), within: tuple[Any, ...] = ()) -> Iterator[Place]:
    """Give every field of a shape, itself first, at whatever depth."""
    if "$ref" in schema:
        schema = _SCHEMAS[str(schema["$ref"]).rpartition("/")[2]]
    if len(steps) > _DEEPEST:
        return
    if steps:
        yield Place(steps=steps, within=within)
    for branch in [schema, *schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())]:
        found = _SCHEMAS[str(branch["$ref"]).rpartition("/")[2]] if "$ref" in branch else branch
        yield from _inside(found, steps, within)


def _inside(schema: Schema, steps: tuple[Step, ...], within: tuple[Any, ...]) -> Iterator[Place]:
    if isinstance(items := schema.get("items"), dict):
        yield from places(items, steps=(*steps, 0), within=(*within, []))
    fields: Mapping[str, Schema] = schema.get("properties", {})
    if fields:
        example = {
            name: _GOOD.get(name) or _EXAMPLES.of(fields[name], whole=False)
            for name in schema.get("required", ())
        }
        for name, each in fields.items():
            yield from places(each, steps=(*steps, name), within=(*within, example))
    elif schema.get("type") == "object":
        yield Place(steps=(*steps, CHOSEN_NAME), within=(*within, {}))
        more = schema.get("additionalProperties")
        inner = more if isinstance(more, dict) else {}
        yield from places(inner, steps=(*steps, "name"), within=(*within, {}))


def _operation(method: str, path: str, described: Mapping[str, Any]) -> Operation:
    content = described.get("requestBody", {}).get("content", {}).get("application/json")
    found = {} if content is None else {str(each): each for each in places(content["schema"])}
    return Operation(
        id=described["operationId"],
        method=method.upper(),
        path=path,
        parameters=tuple((each["in"], each["name"]) for each in described.get("parameters", ())),
        statuses=frozenset(int(status) for status in described["responses"]),
        body=None if content is None else _example(content),
        places=tuple(found.values()),
    )


def _example(content: Mapping[str, Any]) -> Any:
    """Give the document's example, with times that are still to come."""
    if "example" in content:
        return _ahead(content["example"])
    named: list[dict[str, Any]] = list(content.get("examples", {}).values())
    return _ahead(named[0]["value"] if named else {})


def _ahead(example: Any) -> Any:
    if not isinstance(example, dict):
        return example
    now = datetime.now(UTC)
    times = {"scheduled_at": now + timedelta(hours=1), "expires_at": now + timedelta(days=2)}
    return example | {name: str(at.isoformat()) for name, at in times.items() if name in example}


OPERATIONS: tuple[Operation, ...] = tuple(
    _operation(method, path, described)
    for path, item in DOCUMENT["paths"].items()
    for method, described in item.items()
    if "operationId" in described
)
BY_ID: Mapping[str, Operation] = {each.id: each for each in OPERATIONS}
