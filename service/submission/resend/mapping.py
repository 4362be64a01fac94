"""From Resend's request to the members of `POST /messages`. No I/O.

Tags keep their order in `tags`, by name, and their values in `metadata`, so that `GET /messages` finds them by
`tag=` and by `metadata[name]=`. What Postroom does not do is refused here, with the field that asked for it.
"""

import base64
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from service.submission.problems import Problem, unprocessable
from service.submission.representation import moment
from service.submission.resend import times
from service.submission.resend.shapes import ResendAttachmentIn, ResendEmailIn, ResendTagIn

#: Fields that mean the same in both shapes.
_SAME = ("to", "cc", "bcc", "reply_to", "subject", "html", "text", "headers")


def members_of(asked: ResendEmailIn, *, now: datetime) -> dict[str, Any]:
    """Write an email down as the members of `POST /messages`; raises a 422 problem."""
    if asked.topic_id is not None:
        raise unprocessable("/topic_id", "not_supported_yet", "Postroom has no topics: leave it out.")
    _demand_content(asked)
    members: dict[str, Any] = {"from": asked.from_}
    members |= {name: value for name in _SAME if (value := getattr(asked, name)) is not None}
    if asked.attachments:
        members["attachments"] = [_file(each, number) for number, each in enumerate(asked.attachments)]
    if asked.tags:
        members |= _tags(asked.tags)
    if asked.scheduled_at is not None:
        members["scheduled_at"] = time_of(asked.scheduled_at, now=now)
    if asked.template is not None:
        members["template"] = {"id": asked.template.id, "variables": asked.template.variables or {}}
    return members


def time_of(written: str, *, now: datetime) -> str:
    """Write the time of an email as `POST /messages` takes it; raises a 422 problem."""
    return str(moment(times.moment(written, now=now, pointer="/scheduled_at")))


def _demand_content(asked: ResendEmailIn) -> None:
    if asked.template is not None:
        return
    if asked.subject is None:
        raise unprocessable("/subject", "required", "This field is required.")
    if asked.html is None and asked.text is None:
        raise unprocessable("", "empty", "Missing `html` or `text` field.")


def _tags(given: Sequence[ResendTagIn]) -> dict[str, Any]:
    metadata: dict[str, str] = {}
    for number, tag in enumerate(given):
        if tag.name in metadata:
            raise unprocessable(f"/tags/{number}/name", "duplicate_name", "This tag's name stands twice.")
        metadata[tag.name] = tag.value or ""
    return {"tags": list(metadata), "metadata": metadata}


def _file(given: ResendAttachmentIn, number: int) -> dict[str, Any]:
    pointer = f"/attachments/{number}"
    if given.path is not None:
        raise unprocessable(
            f"{pointer}/path",
            "not_supported_yet",
            "Postroom fetches no files from elsewhere: read the file yourself and send it as `content`.",
        )
    if given.content is None:
        raise unprocessable(f"{pointer}/content", "required", "This field is required.")
    written = {
        "filename": given.filename,
        "content": _base64(given.content, f"{pointer}/content"),
        "content_type": given.content_type,
        "content_id": given.content_id or given.inline_content_id,
    }
    return {name: value for name, value in written.items() if value is not None}


def _base64(given: object, pointer: str) -> str:
    if isinstance(given, dict) and given.get("type") == "Buffer" and given.keys() == {"type", "data"}:
        given = given["data"]
    if isinstance(given, str):
        return given
    if not isinstance(given, list):
        raise _not_a_file(pointer)
    return base64.b64encode(_octets(given, pointer)).decode()


def _octets(given: Iterable[Any], pointer: str) -> bytes:
    try:
        return bytes(given)
    except (TypeError, ValueError):
        raise _not_a_file(pointer) from None


def _not_a_file(pointer: str) -> Problem:
    return unprocessable(pointer, "not_base64", "This has to be base64, or a list of octets from 0 to 255.")
