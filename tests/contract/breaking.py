"""Which changes of an OpenAPI document break a client that was written for the one before. Pure.

    breaks(before, after) -> [Break(operation="GET /messages", rule="property_removed", detail=…), …]

What a client sends must still be taken: nothing that it may send is refused now, nothing is demanded that it
does not know (requests may widen). What it reads must still be there in its type: answers may not lose
anything, nor bring a type or a value of an enumeration that a generated client has no place for. New
operations, statuses and properties of answers break nothing: clients pass over them.

The payloads of webhooks are read by the client, so they are answers. A code of problems that is gone is a
break too, because clients decide by it.

Of the schemas it understands what our document uses: $ref, type, enum, const, anyOf and oneOf, objects,
arrays, limits, formats and patterns. Branches of a union belong together by type, then by their order; the
names of shapes do not matter.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Json = Mapping[str, Any]
Way = Literal["request", "answer"]

_METHODS = ("get", "put", "post", "patch", "delete", "head", "options")
_FLOORS = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_CEILINGS = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """One thing that a client of the document before can fall over."""

    operation: str  # "GET /messages", "webhook recipient.sent", "code not_found"
    rule: str
    detail: str

    def __str__(self) -> str:
        return f"{self.operation}: {self.detail} ({self.rule})"


def breaks(before: Json, after: Json) -> list[Break]:
    """List what breaks, in the order of the document before."""
    return [*_operations(before, after), *_webhooks(before, after), *_codes(before, after)]


def _operations(before: Json, after: Json) -> Iterator[Break]:
    then, now = _by_name(before), _by_name(after)
    for name, old in then.items():
        if name not in now:
            yield Break(operation=name, rule="operation_removed", detail="it is gone")
            continue
        for rule, detail in _Comparison(before, after).operation(old, now[name]):
            yield Break(operation=name, rule=rule, detail=detail)


def _by_name(document: Json) -> dict[str, Json]:
    return {
        f"{method.upper()} {path}": item[method]
        for path, item in document.get("paths", {}).items()
        for method in _METHODS
        if method in item
    }


def _webhooks(before: Json, after: Json) -> Iterator[Break]:
    for event, item in before.get("webhooks", {}).items():
        name = f"webhook {event}"
        if event not in after.get("webhooks", {}):
            yield Break(operation=name, rule="webhook_removed", detail="it is gone")
            continue
        bodies = [each["post"].get("requestBody", {}) for each in (item, after["webhooks"][event])]
        for rule, detail in _Comparison(before, after).contents(*bodies, at="payload", way="answer"):
            yield Break(operation=name, rule=rule, detail=detail)


def _codes(before: Json, after: Json) -> Iterator[Break]:
    then, now = (each.get("components", {}).get("examples", {}) for each in (before, after))
    for code in then:
        if code not in now:
            yield Break(operation=f"code {code}", rule="code_removed", detail="no operation answers with it")


Finding = tuple[str, str]  # the rule, and where and what


class _Comparison:
    """Compares the parts of one operation; keeps the pairs of shapes that are open, because shapes recur."""

    def __init__(self, before: Json, after: Json) -> None:
        self._documents = (before, after)
        self._open: set[tuple[str, str, Way]] = set()

    def operation(self, old: Json, new: Json) -> Iterator[Finding]:
        if old.get("operationId") != new.get("operationId"):
            yield "operation_id_changed", f"{old.get('operationId')} is {new.get('operationId')} now"
        yield from self._security(old, new)
        yield from self._parameters(old, new)
        yield from self._body(old.get("requestBody"), new.get("requestBody"))
        for status, answer in old.get("responses", {}).items():
            if status not in new.get("responses", {}):
                yield "status_removed", f"it does not answer {status} any more"
                continue
            other = new["responses"][status]
            yield from self.contents(answer, other, at=status, way="answer")
            for name, header in answer.get("headers", {}).items():
                if header.get("required") and not other.get("headers", {}).get(name, {}).get("required"):
                    yield "header_removed", f"{status} does not always have {name} any more"

    def _security(self, old: Json, new: Json) -> Iterator[Finding]:
        """One of several requirements suffices; none at all is the same as an empty one."""
        now = new.get("security") or [{}]
        for way in old.get("security") or [{}]:
            if not any(way.keys() >= other.keys() for other in now):
                yield "security_tightened", f"{', '.join(way) or 'no key'} does not suffice any more"

    def _parameters(self, old: Json, new: Json) -> Iterator[Finding]:
        then, now = (
            {(each["in"], each["name"]): each for each in operation.get("parameters", ())}
            for operation in (old, new)
        )
        for (place, name), parameter in then.items():
            if (place, name) not in now:
                yield "parameter_removed", f"{name} ({place}) is gone"
                continue
            other = now[place, name]
            if other.get("required") and not parameter.get("required"):
                yield "parameter_required", f"{name} ({place}) is required now"
            yield from self._schemas(
                parameter.get("schema", {}), other.get("schema", {}), at=f"?{name}", way="request"
            )
        for (place, name), parameter in now.items():
            if (place, name) not in then and parameter.get("required"):
                yield "parameter_required", f"{name} ({place}) is new and required"

    def _body(self, old: Json | None, new: Json | None) -> Iterator[Finding]:
        if old is None:
            if new is not None and new.get("required"):
                yield "body_required", "a body is required now"
            return
        if new is None:
            yield "body_removed", "it takes no body any more"
            return
        if new.get("required") and not old.get("required"):
            yield "body_required", "a body is required now"
        yield from self.contents(old, new, at="body", way="request")

    def contents(self, old: Json, new: Json, *, at: str, way: Way) -> Iterator[Finding]:
        """Compare the media types of a body or an answer."""
        for kind, content in old.get("content", {}).items():
            if kind not in new.get("content", {}):
                yield "media_type_removed", f"{at}: {kind} is gone"
                continue
            yield from self._schemas(
                content.get("schema", {}), new["content"][kind].get("schema", {}), at=at, way=way
            )

    # -- schemas ------------------------------------------------------------------------------

    def _schemas(self, old: Json, new: Json, *, at: str, way: Way) -> Iterator[Finding]:
        pair = (str(old.get("$ref", "")), str(new.get("$ref", "")), way)
        if all(pair):
            if pair in self._open:
                return
            self._open.add(pair)
        then, now = (
            _branches(each, document) for each, document in zip((old, new), self._documents, strict=True)
        )
        if way == "request":
            yield from self._unmatched(then, now, "type_narrowed", f"{at}: %s is not taken any more")
            if old.get("default") != new.get("default"):
                yield "default_changed", f"{at}: what is not given was {old.get('default')!r}"
        else:
            yield from self._unmatched(now, then, "type_widened", f"{at}: it can be %s now")
        for key, branch in then.items():
            if key in now:
                yield from self._values(branch, now[key], at=at, way=way)
                yield from self._inside(branch, now[key], at=at, way=way)

    def _unmatched(
        self, these: Mapping[str, Json], those: Mapping[str, Json], rule: str, text: str
    ) -> Iterator[Finding]:
        if "anything" in those:
            return
        for key in these:
            if key not in those and not (key == "integer" and "number" in those):
                yield rule, text % key

    def _values(self, old: Json, new: Json, *, at: str, way: Way) -> Iterator[Finding]:
        then, now = _enumeration(old), _enumeration(new)
        if then is not None and now is not None:
            for value in sorted(then - now):
                yield "value_removed", f"{at}: {value} is gone"
            for value in sorted(now - then) if way == "answer" else ():
                yield "value_added", f"{at}: {value} is new, and a generated client does not know it"
        elif now is not None and way == "request":
            yield "type_narrowed", f"{at}: only {', '.join(sorted(now))} are taken now"
        elif then is not None and way == "answer":
            yield "type_widened", f"{at}: it can be more than {', '.join(sorted(then))} now"
        if old.get("format") != new.get("format") and (new.get("format") or way == "answer"):
            yield "format_changed", f"{at}: the format is {new.get('format')} and not {old.get('format')}"
        if way == "request":
            yield from _limits(old, new, at=at)

    def _inside(self, old: Json, new: Json, *, at: str, way: Way) -> Iterator[Finding]:
        if "items" in old or "items" in new:
            yield from self._schemas(old.get("items", {}), new.get("items", {}), at=f"{at}[]", way=way)
        then, now = old.get("properties", {}), new.get("properties", {})
        must, musts = set(old.get("required", ())), set(new.get("required", ()))
        for name, schema in then.items():
            where = f"{at}.{name}"
            if name not in now:
                yield "property_removed", f"{where} is gone"
                continue
            yield from self._schemas(schema, now[name], at=where, way=way)
        if way == "request":
            for name in sorted(musts - must):
                yield "property_required", f"{at}.{name} is required now"
        else:
            for name in sorted((must - musts) & now.keys()):
                yield "property_optional", f"{at}.{name} is not always there any more"
        yield from self._additional(old, new, at=at, way=way)

    def _additional(self, old: Json, new: Json, *, at: str, way: Way) -> Iterator[Finding]:
        then, now = old.get("additionalProperties", True), new.get("additionalProperties", True)
        if now is False and then is not False and way == "request":
            yield "type_narrowed", f"{at}: other names are refused now"
        if isinstance(then, dict) and isinstance(now, dict):
            yield from self._schemas(then, now, at=f"{at}.*", way=way)


def _branches(schema: Json, document: Json) -> dict[str, Json]:
    """Take a schema apart: what it can be, by type; unions are flattened."""
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        return _branches(document["components"]["schemas"][name], document)
    found: dict[str, Json] = {}
    for union in ("anyOf", "oneOf"):
        for branch in schema.get(union, ()):
            for key, each in _branches(branch, document).items():
                found[_free(key, found)] = each
    if found:
        return found
    kinds = schema.get("type")
    if kinds is None:
        return {"anything": schema} if "enum" not in schema and "const" not in schema else {"string": schema}
    return dict.fromkeys([kinds] if isinstance(kinds, str) else kinds, schema)


def _free(key: str, taken: Mapping[str, Json]) -> str:
    """Name a second branch of the same type "object 2"."""
    number = sum(each.partition(" ")[0] == key.partition(" ")[0] for each in taken)
    return key if number == 0 else f"{key.partition(' ')[0]} {number + 1}"


def _enumeration(schema: Json) -> set[str] | None:
    if "const" in schema:
        return {str(schema["const"])}
    return {str(value) for value in schema["enum"]} if "enum" in schema else None


def _limits(old: Json, new: Json, *, at: str) -> Iterator[Finding]:
    """Say which limits of a request became narrower."""
    for name in _FLOORS:
        if name in new and (name not in old or new[name] > old[name]) and new[name] != 0:
            yield "limit_narrowed", f"{at}: {name} is {new[name]} and was {old.get(name, 'none')}"
    for name in _CEILINGS:
        if name in new and (name not in old or new[name] < old[name]):
            yield "limit_narrowed", f"{at}: {name} is {new[name]} and was {old.get(name, 'none')}"
    for name in ("pattern", "multipleOf", "uniqueItems"):
        if new.get(name) and new.get(name) != old.get(name):
            yield "limit_narrowed", f"{at}: {name} is {new[name]} and was {old.get(name, 'none')}"
