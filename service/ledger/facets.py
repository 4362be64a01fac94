"""What a message can be found by, beside its own columns and the states of its recipients.

One row says that a message has a facet of a value: whom it is for, which way it goes, a tag, an entry of
its metadata; and later, which code, enhanced status or diagnosis an attempt was answered with. A search
walks the primary key, so it costs the same however many messages there are (decision record 0011).

Replies of success are not written down: they are found by the states of recipients.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

#: Longer values are found by what identifies them: an index entry of PostgreSQL has room for 2,700 octets.
_LONGEST = 300

#: The value of a facet of metadata goes by this name and the caller's own.
METADATA = "metadata."


def value_of(given: object) -> str:
    """Write a value as the facets have it; `true`, numbers and `null` as JSON does."""
    text = given if isinstance(given, str) else json.dumps(given)
    if len(text) <= _LONGEST:
        return text
    return f"{text[:_LONGEST]}…{hashlib.sha256(text.encode()).hexdigest()}"


def of_message(
    *,
    recipients: Iterable[str],
    ways: Iterable[tuple[str, str]],
    tags: Iterable[str],
    metadata: Mapping[str, Any],
    errors: Iterable[Mapping[str, Any]] = (),
) -> set[tuple[str, str]]:
    """List a new message's facets; `recipients` are addresses in their comparison form, `ways` routes and lanes.

    `errors` are those of recipients that get no mail.
    """
    facets = {("tag", value_of(tag)) for tag in tags}
    facets |= {(METADATA + name, value_of(value)) for name, value in metadata.items()}
    for address in recipients:
        facets |= {("to", value_of(address)), ("domain", value_of(address.rpartition("@")[2]))}
    for route, lane in ways:
        facets |= {("route", route), ("lane", lane)}
    for error in errors:
        facets |= {(name, value) for name, value in _of_answer({"error": error}) if value}
    return facets


_ADD_TO = text("""
    INSERT INTO facets (application, name, value, message_id)
    SELECT m.application, row.name, row.value, m.id
      FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS row(message_id text, name text, value text)
      JOIN messages m ON m.id = row.message_id
     ORDER BY m.application, row.name, row.value, m.id
        ON CONFLICT DO NOTHING
""")


async def add_replies(db: AsyncConnection, rows: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    """Write what messages were answered with: (message, its recipient's reply and error)."""
    found = {
        (message, name, value) for message, answer in rows for name, value in _of_answer(answer) if value
    }
    if found:
        names = ("message_id", "name", "value")
        await db.execute(
            _ADD_TO, {"rows": json.dumps([dict(zip(names, row, strict=True)) for row in sorted(found)])}
        )


def _of_answer(answer: Mapping[str, Any]) -> Iterable[tuple[str, str | None]]:
    reply, error = answer.get("reply") or {}, answer.get("error") or {}
    if reply and not 200 <= int(reply["code"]) < 300:
        yield "code", str(reply["code"])
        yield "enhanced", reply.get("enhanced")
    yield "diagnosis", (error.get("diagnosis") or {}).get("id")
