"""Read what a request asks in its query, as strictly as its body; and the pages of lists.

An unknown parameter is refused: a filter with a slip of the pen would otherwise show everything.

Lists are read newest first. `after` goes on behind an entry (older ones), `before` goes back before it
(newer ones); both name the entry itself, so pages stay where they are while new entries arrive.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fastapi import Request

from service.ledger.ids import Kind, is_id
from service.submission.problems import FieldError, Problem, invalid

LIMIT, MOST = 20, 100

#: The parameters of every list, for the OpenAPI document.
PAGE_PARAMETERS: tuple[dict[str, Any], ...] = (
    {
        "name": "limit",
        "in": "query",
        "required": False,
        "schema": {"type": "integer", "minimum": 1, "maximum": MOST, "default": LIMIT},
        "description": "Entries of one page.",
    },
    {
        "name": "after",
        "in": "query",
        "required": False,
        "schema": {"type": "string"},
        "description": "The id of an entry: the page goes on behind it.",
    },
    {
        "name": "before",
        "in": "query",
        "required": False,
        "schema": {"type": "string"},
        "description": "The id of an entry: the page ends before it.",
    },
)

#: Parameters of one request whose names the caller chooses: each makes a query longer, and its plan.
_OPEN = 20

_UNPRINTABLE = re.compile(r"[\x00\ud800-\udfff]")


def wrong(name: str, code: str, detail: str) -> Problem:
    """Refuse one parameter of the query; its pointer is `?name`."""
    return invalid([FieldError(pointer=f"?{name}", code=code, detail=detail)])


def parameters(
    request: Request,
    known: Collection[str],
    *,
    open_names: str | None = None,
    repeatable: Collection[str] = (),
) -> dict[str, str]:
    """Read the query: each parameter once, and none that is not known.

    `open_names` is a parameter with a name of the caller's choice in brackets, `metadata` for
    `metadata[order_id]`. What is `repeatable` may stand more than once; of these the last one is given.
    Raises a 422 problem.
    """
    found: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        contract = name if name in known else None
        if open_names is not None and name.startswith(f"{open_names}[") and name.endswith("]"):
            contract = open_names
        if contract is None:
            names = ", ".join([*sorted(known), *([f"{open_names}[…]"] if open_names else [])]) or "none"
            detail = f"There is a parameter here that this endpoint does not know. It knows {names}."
            raise invalid([FieldError(pointer="", code="unknown_parameter", detail=detail)])
        if name in found and name not in repeatable:
            raise wrong(contract, "repeated", "This parameter stands twice.")
        if _UNPRINTABLE.search(name) or _UNPRINTABLE.search(value):
            raise wrong(contract, "not_text", "This parameter holds NUL, or half of a surrogate pair.")
        if len(value) > 1000 or len(name) > 200:
            raise wrong(contract, "string_too_long", "This parameter is too long.")
        found[name] = value
        if len(found) > len(known) + _OPEN:
            raise wrong(contract, "too_long", f"There may be {_OPEN} of this parameter.")
    return found


def moment(given: Mapping[str, str], name: str) -> datetime | None:
    """Read a time of the query (RFC 3339, with its offset)."""
    written = given.get(name)
    if written is None:
        return None
    try:
        # A + that was not encoded arrives as a space.
        at = datetime.fromisoformat(written.replace(" ", "+"))
        if at.tzinfo is None or "T" not in written.upper():
            raise ValueError  # noqa: TRY301  # one refusal for all of them
        return at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise wrong(
            name, "not_a_time", "Write the time as RFC 3339, with its offset: 2026-11-26T19:40:02Z."
        ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Which part of a list is wanted."""

    limit: int = LIMIT
    after: str | None = None  # an id: the page goes on behind it
    before: str | None = None  # an id: the page ends before it

    def bounds(self) -> dict[str, Any]:
        """What a query over ids needs: read `limit + 1` rows, to know whether there are more."""
        return {"after": self.after, "before": self.before, "most": self.limit + 1}


def page(given: Mapping[str, str], kind: Kind) -> Page:
    """Read `limit`, `after` and `before`; raises a 422 problem."""
    limit = LIMIT
    if (written := given.get("limit")) is not None:
        if not re.fullmatch(r"[0-9]{1,4}", written) or not 1 <= int(written) <= MOST:
            raise wrong("limit", "out_of_range", f"limit is a number from 1 to {MOST}.")
        limit = int(written)
    for name in ("after", "before"):
        if (cursor := given.get(name)) is not None and not is_id(cursor, kind):
            raise wrong(name, "not_an_id", f"This is the id of an entry: {kind}_….")
    if "after" in given and "before" in given:
        raise wrong("before", "exclusive", "Give after or before, not both.")
    return Page(limit=limit, after=given.get("after"), before=given.get("before"))


def listed(rows: Sequence[Mapping[str, Any]], wanted: Page) -> dict[str, Any]:
    """Show a page, newest first; `rows` are up to `limit + 1` in the order in which they were read.

    With `before` they were read oldest first.
    """
    more = len(rows) > wanted.limit
    data = list(rows[: wanted.limit])
    if wanted.before is not None:
        data.reverse()
    last = (data[0] if wanted.before is not None else data[-1])["id"] if data and more else None
    return {"object": "list", "data": data, "has_more": more, "next": last}
