"""The support bundle: one file about one message, for a ticket at Microsoft or at a mail provider.

A zip of plain text and JSON: what happened in time, each attempt with its session, TLS, replies and the names that the
peer gave to it (Microsoft asks for host, time and session id), and the dialogues with secrets struck out. What the
message says is nobody's business there: no subject, no names, no tags and metadata, no content. Addresses stay in it,
because the case is about them.
"""

import io
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from service.console.asking import Api
from service.console.pages import HEADERS
from service.console.who import SignedIn

#: What of a message the bundle says.
_MESSAGE = (
    "id", "status", "message_id", "size", "sha256", "route", "lane", "attempts", "created_at", "scheduled_at", "expires_at",
    "next_attempt_at", "last_error", "on_uncertain", "dsn",
)  # fmt: skip
_RECIPIENT = ("email", "type", "status", "reply", "route", "lane", "attempts", "reason", "last_error")

#: Attempts whose dialogues are in it, the newest.
_DIALOGUES = 20

# A fixed time in the archive: the same message makes the same file.
_EPOCH = (1980, 1, 1, 0, 0, 0)


class Bundle:
    """Makes support bundles."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def file(self, request: Request, who: SignedIn) -> Response:
        """Hand out the bundle of a message."""
        at = ("messages", request.path_params["message_id"])
        message = await self._api.get(request, who.key, *at)
        why = await self._api.get(request, who.key, *at, "explain")
        attempts = (await self._api.get(request, who.key, *at, "attempts"))["data"]
        events = (await self._api.get(request, who.key, *at, "events"))["data"]
        files = {
            "summary.txt": summary(message, why, attempts, events),
            "message.json": _json(_told(message)),
            "attempts.json": _json(attempts),
            "events.json": _json(events),
        }
        if who.may("transcripts.read"):
            for attempt in attempts[-_DIALOGUES:]:
                answer = await self._api.ask(request, who.key, "GET", "attempts", attempt["id"], "transcript")
                files[f"dialogues/{attempt['id']}.txt"] = answer.body.decode("utf-8", "replace")
        name = f"{message['id']}-support.zip"
        return Response(
            _packed(message["id"], files),
            media_type="application/zip",
            headers={**HEADERS, "Content-Disposition": f'attachment; filename="{name}"'},
        )


def summary(
    message: Mapping[str, Any],
    why: Mapping[str, Any],
    attempts: Sequence[Mapping[str, Any]],
    events: Sequence[Mapping[str, Any]],
) -> str:
    """Write the page that whoever opens the ticket reads first."""
    return "\n".join([*_head(message, why), *_timeline(events, attempts), *_attempts(attempts)]) + "\n"


def _head(message: Mapping[str, Any], why: Mapping[str, Any]) -> Iterator[str]:
    yield "Postroom: support bundle of one message. All times are UTC."
    yield ""
    yield f"Message      {message['id']}"
    yield f"Message-ID   {message['message_id']}"
    yield f"From         {message['from']['email']}"
    yield f"Accepted     {message['created_at']}"
    yield f"Size         {message['size']} octets, SHA-256 {message['sha256']}"
    yield f"State        {message['status']}"
    yield ""
    for recipient in why["recipients"]:
        yield f"To {recipient['email']}: {recipient['status']}. {recipient['summary']}"
        if recipient["diagnosis"] is not None:
            yield f"    {recipient['diagnosis']['title']} ({recipient['diagnosis']['id']})"
    yield ""


def _timeline(events: Sequence[Mapping[str, Any]], attempts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "Timeline"
    told = [
        (e["created_at"], f"{e['recipient']}: {e['from_status'] or 'accepted'} -> {e['status']}")
        for e in events
    ]
    told += [(a["started_at"], f"attempt {a['id']} begins on {a['lane']}") for a in attempts]
    told += [(a["ended_at"], f"attempt {a['id']} ends: {a['outcome']}") for a in attempts if a["ended_at"]]
    yield from (f"    {at}  {what}" for at, what in sorted(told))
    yield ""


def _attempts(attempts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for attempt in attempts:
        session = attempt["session"] or {}
        yield f"Attempt {attempt['id']}: {attempt['outcome'] or 'running'}, reached the phase {attempt['phase']}"
        yield f"    time      {attempt['started_at']} to {attempt['ended_at'] or '…'}"
        yield f"    session   {json.dumps(session, ensure_ascii=False, sort_keys=True)}"
        yield f"    reply     {_reply(attempt['reply'])}"
        if attempt["peer_trailer"]:
            yield f"    the peer's own names    {json.dumps(attempt['peer_trailer'], ensure_ascii=False)}"
        for recipient in attempt["recipients"]:
            yield f"    to {recipient['email']}: {recipient['status']}, {_reply(recipient['reply'])}"
        yield ""


def _reply(reply: Mapping[str, Any] | None) -> str:
    if reply is None:
        return "none"
    return " ".join(str(reply[name]) for name in ("code", "enhanced", "text") if reply.get(name))


def _told(message: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{name: message[name] for name in _MESSAGE},
        "from": message["from"]["email"],
        "recipients": [{name: each[name] for name in _RECIPIENT} for each in message["recipients"]],
    }


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"


def _packed(folder: str, files: Mapping[str, str]) -> bytes:
    octets = io.BytesIO()
    with zipfile.ZipFile(octets, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(f"{folder}/{name}", _EPOCH), text, zipfile.ZIP_DEFLATED)
    return octets.getvalue()
