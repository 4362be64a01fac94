"""`postroom send`: one message through the API, followed to its end.

1. The message is posted under an Idempotency-Key of its own, so that a lost answer can be asked for
   again without sending twice.
2. Its events are read until it is in a final state or the patience is used up; each move is printed
   as it is seen, and below them where the message is now (`progress`).
3. At the end its ledger entry is printed as `postroom dev` does it, and one line that says what it means.

A message that is scheduled for later than the patience is not waited for.

Exit status: 0 it was sent; 1 it was refused, failed, expired or was only partly sent; 2 wrong use; 3 it
still waits, and the last line says why and until when.
"""

import base64
import json
import mimetypes
import re
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2

from service.local.progress import Progress
from service.local.report import printable, report, shortened

SENT = frozenset({"sent", "delivered"})
OVER = SENT | {"failed", "expired", "canceled", "bounced", "suppressed", "partially_sent"}
FAILED, WRONG_USE, WAITING = 1, 2, 3

#: Tries of one POST whose answer got lost.
_TRIES = 3
_PAUSES = (0.1, 0.2, 0.5, 1.0)  # between two looks, in seconds; the last one stays

_FROM_NOW = re.compile(r"(\d{1,6})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class NotSent(Exception):
    """The message was not accepted, or nothing more can be learnt of it; the text is for the user."""

    def __init__(self, text: str, *, status: int = FAILED) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """Where Postroom is, and by which key."""

    url: str
    key: str


def send(api: Api, message: Mapping[str, Any], *, timeout: float, as_json: bool, colour: bool) -> int:
    """Send a message and follow it; `timeout` is how long, in seconds. Returns the exit status.

    What is learnt goes to stdout; with `as_json` only the message's last state does, and the rest to stderr.
    """
    with _client(api) as client, Progress(sys.stderr if as_json else sys.stdout) as progress:
        accepted = _post(client, message)
        progress.say(f"Accepted as {accepted['id']}.")
        for recipient in accepted["recipients"]:
            progress.say(f"  {printable(recipient['email'])}  {_way(recipient)}")
        last = accepted
        for move, shown in _moves(client, accepted, timeout=timeout):
            last = shown
            if move is not None:
                progress.say(f"  {move}")
            elif shown["status"] not in OVER:
                progress.show(shown)
        progress.end()
        if as_json:
            print(json.dumps(last), flush=True)
        else:
            progress.say("\n" + report(last, _attempts(client, last["id"]), {}, colour=colour) + "\n")
        progress.say(_meaning(last, timeout))
    return _status(last)


def _way(recipient: Mapping[str, Any]) -> str:
    if recipient["route"] is None:
        return printable(f"{recipient['status']}: {recipient.get('reason') or 'it goes no way'}")
    return f"by {recipient['route']}, lane {recipient['lane']}"


def message_of(
    *,
    sender: str,
    to: Sequence[str],
    cc: Sequence[str],
    bcc: Sequence[str],
    subject: str | None,
    text: str | None,
    html: str | None,
    headers: Sequence[str],
    attach: Sequence[Path],
    route: str | None,
    template: str | None,
    variables: str | None,
    schedule: str | None,
    priority: str | None,
    stream: str | None,
    tags: Sequence[str],
) -> dict[str, Any]:
    """Write the body of the request from what was given on the command line; raises NotSent where it is wrong."""
    if template is None and subject is None:
        raise NotSent("--subject is needed, or --template, which has one.", status=WRONG_USE)
    if variables is not None and template is None:
        raise NotSent("--variables are for a --template.", status=WRONG_USE)
    if text == "-":
        text = sys.stdin.read()
    if text is None and html is None and template is None:
        text = "This message was sent by `postroom send`.\n"
    body = {
        "from": sender,
        "to": list(to),
        "cc": list(cc),
        "bcc": list(bcc),
        "subject": subject,
        "text": text,
        "html": html,
        "headers": dict(_header(line) for line in headers),
        "attachments": [_attachment(path) for path in attach],
        "route": route,
        "template": None if template is None else _template(template, variables),
        "scheduled_at": None if schedule is None else _moment(schedule, now=datetime.now(UTC)),
        "priority": priority,
        "stream": stream,
        "tags": list(tags),
    }
    return {name: value for name, value in body.items() if value not in (None, [], {})}


def find_key(given: str | None, *, state: Path) -> str:
    """Take the key that was given, or the one that `postroom dev` keeps in its state folder."""
    if given:
        return given.strip()
    kept = state / "api-key"
    try:
        return kept.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        raise NotSent(
            f"There is no API key: give --key or POSTROOM_KEY, or run `postroom dev`, which keeps one in {kept}. "
            "`postroom keys create NAME` makes one.",
            status=WRONG_USE,
        ) from None
    except (OSError, UnicodeDecodeError) as exc:
        raise NotSent(f"The API key cannot be read from {kept}: {exc}", status=WRONG_USE) from None


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not name.strip():
        raise NotSent(f"--header takes 'Name: value', not {printable(line)!r}.", status=WRONG_USE)
    return name.strip(), value.strip()


def _template(name: str, variables: str | None) -> dict[str, Any]:
    """Name a template, and what is put into it: a JSON object, or @ and the file that holds one."""
    if variables is None:
        return {"id": name}
    try:
        text = Path(variables[1:]).read_text(encoding="utf-8") if variables.startswith("@") else variables
        given = json.loads(text)
    except OSError as exc:
        raise NotSent(
            f"--variables: {variables[1:]} cannot be read: {exc.strerror}.", status=WRONG_USE
        ) from None
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise NotSent(
            '--variables takes a JSON object, such as \'{"name": "Ana"}\', or @FILE with one.',
            status=WRONG_USE,
        )
    return {"id": name, "variables": given}


def _moment(written: str, *, now: datetime) -> str:
    """Read a time, or a time from now; raises NotSent."""
    if match := _FROM_NOW.fullmatch(written.strip()):
        wait = timedelta(seconds=int(match[1]) * _UNITS[match[2]])
        return (now + wait).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    try:
        at = datetime.fromisoformat(written.strip())
        # A time without an offset is that of this machine's clock on the wall.
        return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        raise NotSent(
            "--schedule takes a time, such as 2026-11-26T19:40 or 2026-11-26T19:40:02Z, or 30s, 10m, 2h, 3d from now.",
            status=WRONG_USE,
        ) from None


def _attachment(path: Path) -> dict[str, str]:
    try:
        content = base64.b64encode(path.read_bytes()).decode("ascii")
    except OSError as exc:
        raise NotSent(f"--attach: {path} cannot be read: {exc.strerror}.", status=WRONG_USE) from None
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return {"filename": path.name, "content_type": kind, "content": content}


def _client(api: Api) -> httpx2.Client:
    if not api.url.startswith(("http://", "https://")):
        raise NotSent("--url begins with http:// or https://.", status=WRONG_USE)
    if not (api.key.isascii() and api.key.isprintable()):
        raise NotSent("The API key has characters that no key has.", status=WRONG_USE)
    try:
        return httpx2.Client(
            base_url=api.url,
            headers={"Authorization": f"Bearer {api.key}"},
            timeout=30.0,
            trust_env=not _is_local(api.url),  # no proxy stands before this machine
        )
    except (httpx2.InvalidURL, ValueError) as exc:
        raise NotSent(f"--url cannot be used: {exc}", status=WRONG_USE) from None


def _is_local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _post(client: httpx2.Client, message: Mapping[str, Any]) -> Any:
    """Post the message; where the answer is lost, ask again under the same Idempotency-Key."""
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    trouble: httpx2.TransportError | None = None
    for _ in range(_TRIES):
        try:
            answer = client.post("/messages", json=message, headers=headers)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as exc:
            raise NotSent(
                f"Postroom does not answer at {client.base_url}: {str(exc).rstrip('.')}. Is it running (`postroom dev`, `postroom api`)? "
                "Another place is --url."
            ) from None
        except httpx2.TransportError as exc:
            trouble = exc
            continue
        if answer.status_code == 202:
            return answer.json()
        raise NotSent(_refusal(answer))
    raise NotSent(
        f"Postroom at {client.base_url} took the request and did not answer ({type(trouble).__name__}). "
        "Whether the message was accepted is not known."
    )


def _refusal(answer: httpx2.Response) -> str:
    """Say what the API said, with each field that is wrong."""
    try:
        problem = answer.json()
        lines = [f"Not accepted ({answer.status_code} {problem['code']}): {problem['detail']}"]
        lines += [f"  {error['pointer'] or '/'}: {error['detail']}" for error in problem.get("errors") or ()]
        for no in (problem.get("plan") or {}).get("why_not", ()):
            lines.append(f"  route {no['route']}: {no['detail']}")
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"Not accepted: {answer.status_code}, and no problem of Postroom's. Is this its URL?"
    if answer.status_code == 401:
        lines.append("  Give a valid key: --key, POSTROOM_KEY, or `postroom keys create NAME`.")
    if wait := answer.headers.get("Retry-After"):
        lines.append(f"  Try again in {wait} s.")
    return "\n".join(printable(line) for line in lines)


def _moves(
    client: httpx2.Client, accepted: Mapping[str, Any], *, timeout: float
) -> Iterator[tuple[str | None, Any]]:
    """Give each move with the message's state at that time, until it is over or time is up."""
    path, seen = f"/messages/{accepted['id']}", 0
    deadline = time.monotonic() + timeout
    look = 0
    while True:
        shown, events = _get(client, path), _get(client, f"{path}/events")
        fresh = [] if events is None else events["data"][seen:]
        seen += len(fresh)
        if shown is not None:
            yield None, shown
            yield from ((_move(event), shown) for event in fresh)
            if shown["status"] in OVER or _is_for_later(shown, timeout):
                return
        left = deadline - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(_PAUSES[min(look, len(_PAUSES) - 1)], left))
        look += 1


def _is_for_later(message: Mapping[str, Any], timeout: float) -> bool:
    """Say whether it is scheduled for a time that nobody here waits for."""
    if message["status"] != "scheduled" or not message.get("scheduled_at"):
        return False
    wait = datetime.fromisoformat(message["scheduled_at"]) - datetime.now(UTC)
    return wait.total_seconds() > timeout


def _get(client: httpx2.Client, path: str) -> Any:
    """Read something; None where Postroom cannot answer at the moment."""
    try:
        answer = client.get(path)
    except httpx2.TransportError:
        return None
    if answer.status_code >= 500 or answer.status_code == 429:
        return None
    if answer.status_code != 200:
        raise NotSent(
            f"{_refusal(answer).replace('Not accepted', 'Accepted, but it cannot be followed', 1)}\n"
            "  The key needs the scope messages.read to follow a message."
        )
    return answer.json()


def _attempts(client: httpx2.Client, message_id: str) -> list[Any]:
    found = _get(client, f"/messages/{message_id}/attempts")
    return [] if found is None else list(found["data"])


def _move(event: Mapping[str, Any]) -> str:
    before = f"{event['from_status']} → " if event.get("from_status") else ""
    reply = event.get("reply") or {}
    said = " ".join(
        str(part) for part in (reply.get("code"), reply.get("enhanced"), reply.get("text")) if part
    )
    why = shortened(said) or str(event.get("reason") or "")
    return printable(
        f"{str(event['created_at'])[11:23]}  {event['recipient']}  {before}{event['status']}  {why}".rstrip()
    )


def _meaning(message: Mapping[str, Any], timeout: float) -> str:
    """Say in one line what became of it."""
    status = message["status"]
    if status in SENT:
        return (
            "Sent: the other side has taken it for every recipient. That is not yet its arrival in a mailbox."
        )
    title = ((message.get("last_error") or {}).get("diagnosis") or {}).get("title")
    if status == "partially_sent":
        sent = sum(each["status"] in SENT for each in message["recipients"])
        return f"Partly sent: {sent} of {len(message['recipients'])} recipients; the others: {title or 'see above'}."
    if status in OVER:
        return f"Not sent ({status}): {title or 'see above'}."
    if _is_for_later(message, timeout):
        return f"Scheduled: it goes at {message['scheduled_at']}. See GET /messages/{message['id']}."
    because = "; ".join(str(reason).rstrip(".") for reason in message.get("expected_because") or ())
    expected = message.get("expected_at")
    when = f" It is expected at {expected}." if expected else ""
    return (
        f"Still {status} after {timeout:g} s: {because or 'it waits for its turn'}.{when} "
        f"Postroom goes on by itself; see GET /messages/{message['id']}."
    )


def _status(message: Mapping[str, Any]) -> int:
    if message["status"] in SENT:
        return 0
    return FAILED if message["status"] in OVER else WAITING
