"""What pydantic has against a setting, said in the words of the one who wrote it.

A line names the setting as it is written in the file, where it was given, what is wrong and
what to do. It never repeats a value.
"""

import difflib
import re
from collections.abc import Collection, Iterator
from datetime import timedelta

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from service.routes.route import RouteKind
from service.settings.sources import SECRETS, Location, Node, Unread, dotted, leaf_at
from service.settings.values import written

_KINDS = frozenset(RouteKind)
_METHODS = frozenset({"oauth", "basic"})


#: What pydantic calls the bound of a duration that may be missing.
_TIMEDELTA = re.compile(r"datetime\.timedelta\((\w+)=(\d+)\)")

_PATTERNS = {
    "username": "has to be a user name, without control characters.",
    "client_id": "has to be the application (client) id.",
    "name": "has to be lower-case letters, digits, - and _, at most 63, beginning and ending with a letter or digit.",
    "tenant_id": "has to be the directory (tenant) id, or a domain of the tenant.",
    "scope": "has to be https://… without spaces, such as https://outlook.office365.com/.default.",
    "authority": "has to be https://host or https://host:port, without the tenant.",
}


def explained(
    invalid: ValidationError, given: Node, *, names: Collection[str], read: str = ""
) -> Iterator[str]:
    """Say each mistake in a line of its own; `names` are all that there are, to guess what was meant.

    `read` stands behind the name of a setting that is missing: where it was looked for.
    """
    for error in invalid.errors(include_url=False, include_input=False):
        location = _as_written(error["loc"])
        if error["type"] in {"union_tag_invalid", "union_tag_not_found"}:
            location = (*location, error["ctx"]["discriminator"].strip("'"))
        leaf = leaf_at(given, location)
        if leaf is not None and isinstance(leaf.value, Unread):
            continue  # told already, by the one who could not read it
        place = (
            f" ({leaf.place})" if leaf else read if error["type"] == "missing" and len(location) == 1 else ""
        )
        yield f"{dotted(location)}{place}: {_what(error, str(location[-1]), names)}"


def _what(error: ErrorDetails, name: str, names: Collection[str]) -> str:
    context = error.get("ctx", {})
    match error["type"]:
        case "missing":
            return f"is missing. Set it, or {name}_file." if name in SECRETS else "is missing. Set it."
        case "extra_forbidden":
            # A name that stands elsewhere is no slip of the pen.
            meant = [] if name in names else difflib.get_close_matches(name, names, n=1, cutoff=0.75)
            return f"there is no such setting here. {f'Is {meant[0]} meant?' if meant else 'Remove it.'}"
        case "value_error":
            return str(context["error"])
        case "literal_error" | "enum":
            return f"has to be {context['expected']}."
        case "union_tag_invalid":
            return f"has to be {' or '.join(sorted(_KINDS if name == 'kind' else _METHODS))}."
        case "union_tag_not_found":
            return f"is missing. Set {' or '.join(sorted(_KINDS if name == 'kind' else _METHODS))}."
        case "string_pattern_mismatch":
            return _PATTERNS[name]
        case "too_short" | "string_too_short":
            return "is empty. Give it a value."
        case "int_parsing" | "int_type" | "int_from_float":
            return "has to be a whole number."
        case kind if kind.startswith("date_"):
            return "has to be a day, such as 2027-05-31."
        case "bool_parsing" | "bool_type":
            return "has to be true or false."
        case _:
            said = error["msg"].replace("Input should", "has to").replace("String should", "has to")
            return f"{_TIMEDELTA.sub(lambda found: written(timedelta(**{found[1]: int(found[2])})), said)}."


def _as_written(location: Location) -> Location:
    """Leave out the steps that pydantic adds to say which kind of route or login it took."""
    steps: list[str | int] = []
    for step in location:
        kind = step in _KINDS and len(steps) == 2 and steps[0] == "routes"
        method = step in _METHODS and steps[-1:] == ["login"]
        if not (kind or method):
            steps.append(step)
    return tuple(steps)
