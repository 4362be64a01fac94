"""What was sent: the octets themselves, or taken apart for a reader, or one attachment of it.

Reading content is an act like others, and in the audit. Bcc stands in the recipients of the message, never
in its content. The message may be anybody's, so it is taken apart in threads of our own, within limits
(`service.mail.parts`), and an attachment is handed out as octets to be saved, never as what it says it is.
"""

import asyncio
import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from service.ledger.history import MessageView
from service.ledger.sealing import CannotOpen
from service.mail.parts import Attachment, Parts, take_apart
from service.submission.door import Door, guarded, refusals
from service.submission.problems import Problem
from service.submission.request.query import parameters, wrong

_OCTET_STREAM, _MESSAGE = "application/octet-stream", "message/rfc822"

#: Messages that are read at the same time in one process: each may have 50 MB, several times over.
_AT_ONCE = 4

_QUALITY = re.compile(r";\s*q\s*=\s*(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\s*$")
_UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f"\\/:*?<>|\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]')


class ContentHeaderOut(BaseModel):
    """A field of the header, in its place; encoded words are shown as what they say."""

    name: str = Field(examples=["Subject"])
    value: str = Field(examples=["Your receipt"])


class AttachmentOut(BaseModel):
    """A part that is not the text; its octets are had by its number, counted from 0: `?attachment=0`."""

    filename: str | None = Field(description="As the message gives it.", examples=["receipt.pdf"])
    content_type: str = Field(examples=["application/pdf"])
    size: int = Field(description="Octets, decoded.")
    content_id: str | None = Field(examples=[None])
    disposition: Literal["attachment", "inline"] | None


class ContentOut(BaseModel):
    """What was sent, taken apart."""

    object: Literal["content"]
    message: str
    size: int = Field(description="Octets of the message as it is sent.")
    sha256: str
    headers: list[ContentHeaderOut]
    text: str | None
    html: str | None = Field(description="As it was sent: not made safe to be shown in a page.")
    attachments: list[AttachmentOut]
    unread: Annotated[
        list[str], Field(description="What could not be read, or is not shown, in sentences.", examples=[[]])
    ]


def endpoints(door: Door) -> APIRouter:
    """Make the endpoint that shows what was sent."""
    router = APIRouter(tags=["messages"])
    octets = {"schema": {"type": "string", "format": "binary"}}
    router.add_api_route(
        "/messages/{message_id}/content",
        _Content(door).content,
        methods=["GET"],
        summary="Read what was sent",
        operation_id="get_content",
        responses={
            200: {
                "model": ContentOut,
                "content": {_MESSAGE: octets, _OCTET_STREAM: octets},
                "description": "What was sent: as JSON, or the exact octets where `Accept` says message/rfc822, "
                "or one attachment.",
            },
            **refusals(404, 410, 422),
        },
        **guarded(
            parameters=[
                {
                    "name": "attachment",
                    "in": "query",
                    "required": False,
                    "schema": {"type": "integer", "minimum": 0, "maximum": 9999},
                    "description": "The number of an attachment, counted from 0: its octets, to be saved.",
                }
            ]
        ),
    )
    return router


class _Content:
    def __init__(self, door: Door) -> None:
        self._door = door
        self._threads = ThreadPoolExecutor(max_workers=_AT_ONCE, thread_name_prefix="content")
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def content(self, request: Request, message_id: str) -> Response:
        """Show what was sent; the reading is in the audit.

        `Accept: message/rfc822` gives the exact octets. Bcc is in the message's recipients, not here.
        """
        budget = self._door.budget()
        key = await self._door.caller(request, "content.read", budget)
        number = _number(parameters(request, ("attachment",)).get("attachment"))
        view = await self._door.message(message_id, key, budget)
        form = "parts"
        if number is not None:
            form = "attachment"
        elif _wants_octets(request):
            form = "octets"
        details = {"form": form, **({} if number is None else {"attachment": number})}
        budget.extend(view.size / 5_000_000)
        async with self._places:
            try:
                octets = await budget.spend(
                    self._door.ledger.contents.read(view.id, self._door.actor(request, key), details=details)
                )
            except CannotOpen:
                raise _sealed() from None
            if octets is None:
                raise _gone()
            if form == "octets":
                return _file(octets, f"{view.id}.eml", kind=_MESSAGE)
            return await asyncio.get_running_loop().run_in_executor(
                self._threads, _shown, view, octets, number
            )


def _shown(view: MessageView, octets: bytes, number: int | None) -> Response:
    parts = take_apart(octets)
    if number is None:
        return Response(_written(view, parts), media_type="application/json")
    if number >= len(parts.attachments):
        raise Problem(
            status=404,
            code="attachment_not_found",
            detail=f"The message has {len(parts.attachments)} attachments; they are counted from 0.",
        )
    attachment = parts.attachments[number]
    return _file(attachment.octets, _safe_name(attachment, number), kind=_OCTET_STREAM)


def _written(view: MessageView, parts: Parts) -> bytes:
    shown = {
        "object": "content",
        "message": view.id,
        "size": view.size,
        "sha256": view.sha256,
        "headers": [{"name": name, "value": value} for name, value in parts.headers],
        "text": parts.text,
        "html": parts.html,
        "attachments": [
            {
                "filename": each.filename,
                "content_type": each.content_type,
                "size": len(each.octets),
                "content_id": each.content_id,
                "disposition": each.disposition,
            }
            for each in parts.attachments
        ],
        "unread": list(parts.unread),
    }
    return json.dumps(shown, ensure_ascii=False).encode()


def _file(octets: bytes, name: str, *, kind: str) -> Response:
    """Hand out octets to be saved (RFC 6266)."""
    plain = name.encode("ascii", "replace").decode().replace("?", "_")
    disposition = f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
    return Response(octets, headers={"Content-Disposition": disposition, "Content-Type": kind})


def _safe_name(attachment: Attachment, number: int) -> str:
    """Make a name out of what the message gives: no path, nothing that is not seen, not hidden."""
    name = re.split(r"[/\\]", attachment.filename or "")[-1]
    return _UNSAFE.sub("_", name).strip(". ")[:100] or f"attachment-{number}"


def _number(written: str | None) -> int | None:
    if written is None:
        return None
    if not re.fullmatch(r"[0-9]{1,4}", written):
        raise wrong("attachment", "out_of_range", "attachment is a number, counted from 0.")
    return int(written)


def _wants_octets(request: Request) -> bool:
    """Say whether the caller prefers message/rfc822 to JSON (RFC 9110 §12.5.1)."""
    wanted = {"application/json": 0.0, _MESSAGE: 0.0}
    for entry in ",".join(request.headers.getlist("accept"))[:2000].split(","):
        kind = entry.partition(";")[0].strip().lower()
        quality = _QUALITY.search(entry)
        if kind in wanted:
            wanted[kind] = float(quality[1]) if quality else 1.0
    return wanted[_MESSAGE] > wanted["application/json"]


def _sealed() -> Problem:
    return Problem(
        status=503,
        code="content_sealed",
        detail="The content is sealed with a key that the configuration does not have.",
        retry_after=60,
    )


def _gone() -> Problem:
    return Problem(
        status=410,
        code="content_gone",
        detail="The content is no longer kept; the message, its attempts and events are.",
    )
