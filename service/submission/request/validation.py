"""Read a JSON body into a shape; what is wrong is said in our words, with a pointer, and without the input.

A pointer ends at the last name that the contract defines: names and values that the caller chose are
not repeated. The names are those of the shape itself.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache, partial
from itertools import islice
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from service.submission.door import Door
from service.submission.problems import FieldError, Problem, invalid
from service.submission.request.headers import content_type
from service.submission.request.strict_json import parse_object, pointer_to

ShapeT = TypeVar("ShapeT", bound=BaseModel)

#: What pydantic says, in our words; its own words may repeat the input.
_DETAILS = {
    "missing": "This field is required.",
    "extra_forbidden": "There is a field here that this endpoint does not know.",
    "string_type": "This has to be a string.",
    "list_type": "This has to be a list.",
    "dict_type": "This has to be an object.",
    "bool_type": "This has to be true or false.",
    "int_type": "This has to be an integer.",
    "string_too_long": "This string is too long.",
    "string_too_short": "This string is too short.",
    "too_long": "There are too many entries here.",
    "too_short": "There are too few entries here.",
    "greater_than_equal": "This number is too small.",
    "less_than_equal": "This number is too large.",
    "literal_error": "This is not one of the values that are possible here.",
    "string_pattern_mismatch": "This string does not have the form that is needed here.",
    "model_type": "This has to be a string or an object.",
    "model_attributes_type": "This has to be a string or an object.",
}

#: The value is of another kind altogether.
_KINDS = frozenset({
    "string_type", "list_type", "dict_type", "bool_type", "int_type", "float_type", "model_type", "model_attributes_type",
})  # fmt: skip

#: Mistakes that pydantic may list, and unknown names of one object that are kept where there are more.
_MANY, _STRANGE = 5_000, 10

_CODES = {"missing": "required", "extra_forbidden": "unknown_field"}


@cache
def names_of(shape: type[BaseModel]) -> frozenset[str]:
    """List every name that a request of this shape can have, at whatever depth."""
    schema = shape.model_json_schema()
    groups = (schema, *schema.get("$defs", {}).values())
    return frozenset(name for group in groups for name in group.get("properties", {}))


async def read(door: Door, request: Request, shape: type[ShapeT], *, optional: bool = False) -> ShapeT:
    """Read the request's body as this shape; an empty body is `{}` where it is `optional`.

    Raises 400, 413, 415 and 422 problems.
    """
    octets = await door.body(request)
    if optional and not octets:
        return validated(shape, {})
    demand_json(request)
    names = names_of(shape)
    return await door.off_loop(len(octets), lambda: validated(shape, parse_object(octets, names=names)))


def demand_json(request: Request) -> None:
    """Raise a 415 problem where the body is not announced as JSON."""
    if content_type(request) != "application/json":
        raise Problem(status=415, code="unsupported_media_type", detail="Send application/json.")


def validated(shape: type[ShapeT], members: Mapping[str, Any], *, at: Sequence[object] = ()) -> ShapeT:
    """Make the shape from an object; `at` is where it stands in the body. Raises a 422 problem."""
    try:
        # By the names of the contract alone: `from`, never `from_`.
        return shape.model_validate(members, by_alias=True, by_name=False)
    except ValidationError as exc:
        names = names_of(shape)
        few = fewer(
            exc, members, names=names, again=partial(shape.model_validate, by_alias=True, by_name=False)
        )
        raise invalid(field_errors(few, names=names, at=at)) from None


def fewer(
    exc: ValidationError, members: Any, *, names: Collection[str], again: Callable[[Any], object]
) -> ValidationError:
    """Give a part of the mistakes where there are very many: to list a million takes pydantic seconds.

    Only names can be so many, because lists have their limits: each that is unknown is a mistake of its own.
    `again` validates the members, without most of the names that are nobody's.
    """
    if exc.error_count() <= _MANY:
        return exc
    try:
        again(_cut(members, names))
    except ValidationError as found:
        return found
    return exc


def _cut(value: Any, names: Collection[str]) -> Any:
    """Leave out the most of the names that the contract does not have; the nesting was bounded before."""
    if isinstance(value, list):
        return [_cut(each, names) for each in value]
    if not isinstance(value, dict):
        return value
    strange = islice((name for name in value if name not in names), _STRANGE)
    return {name: _cut(value[name], names) for name in [*(each for each in names if each in value), *strange]}


def field_errors(
    exc: ValidationError, *, names: frozenset[str], at: Sequence[object] = ()
) -> list[FieldError]:
    """Say what is wrong, field by field, up to fifty of them."""
    found: dict[tuple[str, str], FieldError] = {}
    prefix = "".join(f"/{step}" for step in at)
    for error in _of_the_branch(
        exc.errors(include_url=False, include_context=False, include_input=False)[:50]
    ):
        kind = error["type"]
        # A union names its branches in the path; they are no names of the contract.
        pointer = prefix + pointer_to([step for step in error["loc"] if not _is_branch(step)], names)
        code = _CODES.get(kind, kind)
        detail = _DETAILS.get(kind, "This value does not have the form that is needed here.")
        found.setdefault((pointer, code), FieldError(pointer=pointer, code=code, detail=detail))
    return list(found.values())


def _of_the_branch(errors: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """Leave out what the other branches of a union say of a value that is of one of its kinds.

    A list with a wrong entry is no string either, but nobody asked for one.
    """
    entered = {
        error["loc"][:place]
        for error in errors
        for place, step in enumerate(error["loc"])
        if _is_branch(step) and not _is_miss(error, place)
    }
    return [
        error
        for error in errors
        if not (_is_miss(error, len(error["loc"]) - 1) and error["loc"][:-1] in entered)
    ]


def _is_miss(error: ErrorDetails, place: int) -> bool:
    """Say whether a value is not of the kind that the branch in this place of its path wants."""
    last = 0 <= place == len(error["loc"]) - 1
    return last and error["type"] in _KINDS and _is_branch(error["loc"][place])


def _is_branch(step: object) -> bool:
    return isinstance(step, str) and (
        "[" in step or "-" in step or step in {"str", "AddressIn", "bool", "int", "float"}
    )
