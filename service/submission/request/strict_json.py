"""Read JSON as strictly as mail needs it (RFC 8259, and I-JSON, RFC 7493).

The standard library's reader takes the last of two equal names, NaN, and lone surrogates, and
later rooms would fail over each of them: PostgreSQL over NUL, an encoder over surrogates. So
everything that cannot be written down again exactly is refused here, with its place.
"""

import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from typing import Any

from service.submission.problems import Problem, unprocessable

DEPTH = 32

#: Values of one body, names among them, and so what its reading may cost: each is a thing of its own in memory.
VALUES = 1_200_000

#: A larger body is not read once more to find the place of what cannot be read; its refusal has no pointer then.
_READ_AGAIN = 256 * 1024

#: What an object costs beside its members, in values: it is made by a function of ours.
_OBJECT = 3

# A string that is not closed goes to the end, and nothing is tried twice.
_PIECES = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[,:\[{]', re.DOTALL)

#: Without one of these escapes no string can hold NUL or half of a surrogate pair: UTF-8 has none.
_SUSPICIOUS = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")

_LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")

#: Names whose own members the caller chooses.
_CHOSEN_BELOW = frozenset({"headers", "metadata", "variables"})


def pointer_to(path: Sequence[object], names: Collection[str]) -> str:
    """Write a path as JSON pointer, up to the last name that the contract defines."""
    kept: list[str] = []
    for step in path:
        if isinstance(step, int):
            kept.append(str(step))
        elif step in names:
            kept.append(str(step))
            if step in _CHOSEN_BELOW:
                break
        else:
            break
    return "".join(f"/{step}" for step in kept)


def parse_object(octets: bytes, *, names: Collection[str]) -> dict[str, Any]:
    """Read one JSON object; raises Problem with what is wrong and where. `names` are those a pointer may name."""
    value = parse(octets, names=names)
    if not isinstance(value, dict):
        raise _broken("not_an_object", "The body has to be one JSON object.")
    return value


def parse_list(octets: bytes, *, names: Collection[str]) -> list[Any]:
    """Read one JSON array; raises Problem."""
    value = parse(octets, names=names)
    if not isinstance(value, list):
        raise _broken("not_an_array", "The body has to be one JSON array.")
    return value


def parse(octets: bytes, *, names: Collection[str]) -> Any:
    """Read JSON; raises Problem with what is wrong and where."""
    _bounded(octets)
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError:
        raise _broken("not_utf8", "The body is not UTF-8.") from None
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_int=_integer,
            parse_float=_number,
        )
    except RecursionError:
        raise _broken("too_deep", f"The body is nested deeper than {DEPTH} levels.") from None
    except json.JSONDecodeError as exc:
        detail = f"The body is not JSON: line {exc.lineno}, column {exc.colno}."
        raise _broken("not_json", detail) from None
    except Problem as unread:
        raise (_placed(text, names) if len(octets) <= _READ_AGAIN else None) or unread from None
    _check(value, names, texts=_SUSPICIOUS.search(octets) is not None)
    return value


def _bounded(octets: bytes) -> None:
    """Refuse a body of very many values before they are made."""
    if sum(map(octets.count, (b",", b":", b"["))) + _OBJECT * octets.count(b"{") < VALUES:
        return
    found = 0
    for piece in _PIECES.finditer(octets):
        sign = octets[piece.start()]
        found += _OBJECT if sign == ord("{") else sign != ord('"')
        if found >= VALUES:
            raise Problem(
                status=413,
                code="too_many_values",
                detail=f"A body may have {VALUES:,} values and names; a file goes as base64.",
            )


def _broken(code: str, detail: str) -> Problem:
    return Problem(status=400, code=code, detail=detail)


_TWICE = "A name stands twice in one object."


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise unprocessable("", "duplicate_name", _TWICE)
    return members


def _constant(name: str) -> float:
    raise unprocessable("", "not_a_number", "NaN and Infinity are no JSON numbers.")


def _integer(digits: str) -> int:
    if len(digits) > 20 or abs(value := int(digits)) > 2**53:
        raise unprocessable(
            "", "number_too_large", "An integer is larger than 2^53, which JSON cannot carry."
        )
    return value


def _number(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise unprocessable("", "number_too_large", "A number is larger than a double can hold.")
    return value


class _Members(list[tuple[str, Any]]):
    """An object with all its members, also those of one name."""


def _left(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """Leave a problem where the value would stand."""

    def value_or_problem(written: str) -> Any:
        try:
            return read(written)
        except Problem as problem:
            return problem

    return value_or_problem


def _placed(text: str, names: Collection[str]) -> Problem | None:
    """Read what was refused once more, and say where it is wrong."""
    with suppress(json.JSONDecodeError, RecursionError):  # what is behind the mistake may be none of JSON
        value = json.loads(
            text,
            object_pairs_hook=_Members,
            parse_constant=_left(_constant),
            parse_int=_left(_integer),
            parse_float=_left(_number),
        )
        return _first_wrong(value, (), names)
    return None


def _first_wrong(value: Any, path: tuple[object, ...], names: Collection[str]) -> Problem | None:
    """Find the first problem, or name that stands twice, as deep as a body may be."""
    if isinstance(value, Problem):
        return unprocessable(pointer_to(path, names), value.code, value.detail)
    if len(path) > DEPTH:
        return None
    seen: set[str] = set()
    for step, each in value if isinstance(value, _Members) else enumerate(value):
        here = (*path, step)
        if step in seen:
            return unprocessable(pointer_to(here, names), "duplicate_name", _TWICE)
        if isinstance(step, str):
            seen.add(step)
        if isinstance(each, list | Problem) and (found := _first_wrong(each, here, names)) is not None:
            return found
    return None


def _check(root: Any, names: Collection[str], *, texts: bool) -> None:
    """Find what cannot be stored: depth, and where there may be any, lone surrogates and NUL in `texts`."""
    of_interest = str | dict | list if texts else dict | list
    waiting: list[tuple[int, Any]] = [(0, root)]
    while waiting:
        depth, value = waiting.pop()
        if depth > DEPTH:
            raise _broken("too_deep", f"The body is nested deeper than {DEPTH} levels.")
        if isinstance(value, str):
            if _unstorable(value):
                raise _unstorable_at(root, names)
            continue
        members: Iterable[Any] = value if isinstance(value, list) else ()
        if isinstance(value, dict):
            members = value.values()
            if texts and any(map(_unstorable, value)):
                raise _unstorable_at(root, names)
        waiting.extend((depth + 1, each) for each in members if isinstance(each, of_interest))


def _unstorable(text: str) -> bool:
    return "\0" in text or (not text.isascii() and _LONE_SURROGATE.search(text) is not None)


def _unstorable_at(root: Any, names: Collection[str]) -> Problem:
    """Say where the text is that cannot be stored; it is there."""
    waiting: list[tuple[tuple[object, ...], Any]] = [((), root)]
    while waiting:
        path, value = waiting.pop()
        members: Iterable[tuple[object, Any]] = enumerate(value) if isinstance(value, list) else ()
        texts: Iterable[Any] = (value,)
        if isinstance(value, dict):
            members, texts = value.items(), value
        for text in texts:
            if isinstance(text, str) and _unstorable(text):
                return _unstorable_text(text, pointer_to(path, names))
        waiting.extend(((*path, step), each) for step, each in members)
    raise AssertionError("the text was there a moment ago")


def _unstorable_text(text: str, pointer: str) -> Problem:
    if "\0" in text:
        return unprocessable(pointer, "nul", "A string holds the character NUL.")
    return unprocessable(pointer, "lone_surrogate", "A string holds half of a surrogate pair.")
