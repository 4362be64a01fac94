"""The messages of the benchmark: bodies of requests, and octets for those who send without us.

About 2 kB each, text and HTML, in a language with accents, as a receipt is. The same octets serve the bare
SMTP loop and Postfix's client, so that nobody carries more than the other.
"""

import json
from datetime import UTC, datetime
from typing import Any

from service.mail.address import Mailbox
from service.mail.compose import Draft, compose, new_message_id

_LINE = "Obrigado pela sua encomenda; os artigos seguem amanhã para a morada indicada. "
_TEXT = "\n".join([_LINE] * 6)
_HTML = "<!doctype html><html><body>" + "".join(f"<p>{_LINE}</p>" for _ in range(9)) + "</body></html>"


def letter(number: int, *, run: str, domain: str = "example.com", **changes: Any) -> dict[str, Any]:
    """Return the JSON of one message; `run` and `number` make its recipient unique."""
    return {
        "from": "Contoso <noreply@contoso.com>",
        "to": [f"{run}.{number}@{domain}"],
        "subject": f"O seu recibo n.º {number:06d}",
        "text": _TEXT,
        "html": _HTML,
        "tags": ["receipt"],
        "metadata": {"order_id": f"{number:06d}"},
        **changes,
    }


def body(number: int, *, run: str, batch: int, **changes: Any) -> bytes:
    """Return the body of a request: one message, or an array of `batch`."""
    if batch == 1:
        return json.dumps(letter(number, run=run, **changes)).encode()
    return json.dumps([letter(number * batch + each, run=run, **changes) for each in range(batch)]).encode()


def request(
    path: str, token: str, number: int, *, run: str, batch: int = 1, key: bool = True, **changes: Any
) -> bytes:
    """Return a whole POST as it goes over the wire."""
    content = body(number, run=run, batch=batch, **changes)
    head = [
        f"POST {path} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Authorization: Bearer {token}",
        "Content-Type: application/json",
        f"Content-Length: {len(content)}",
        *([f"Idempotency-Key: {run}-{number}"] if key else []),
    ]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + content


def read(path: str, token: str) -> bytes:
    """Return a whole GET."""
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\r\n".encode()


def octets() -> bytes:
    """Return such a message as it follows DATA, composed once."""
    given = letter(1, run="bare")
    draft = Draft(
        sender=Mailbox.parse(given["from"]),
        to=(Mailbox.parse(given["to"][0]),),
        cc=(),
        bcc=(),
        reply_to=(),
        subject=given["subject"],
        text=given["text"],
        html=given["html"],
        headers={},
        attachments=(),
    )
    return compose(draft, message_id=new_message_id("contoso.com"), date=datetime.now(UTC)).octets
