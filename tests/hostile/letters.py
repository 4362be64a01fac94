r"""What a request asks for and what went over the wire, in one form, so that the two can be compared.

`asked_for` reads the request as its author means it; `seen` reads the octets as a reader of mail does, with the
standard library's parser, which shares no code with what wrote them. Text is compared with its lines ended by
`\n`: mail has no other line end (RFC 5322 §2.3), and which one was given is not kept.
"""

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import getaddresses
from typing import Any

from service.mail.html_text import text_of

#: What Postroom writes by itself.
_OWN = ("Date", "From", "MIME-Version", "Message-ID", "Content-Type")

#: By the end of a file's name, as far as these tests have them.
_KINDS = {"txt": "text/plain", "html": "text/html", "pdf": "application/pdf", "png": "image/png"}

#: What is wrong with `name` of a content type, on purpose: old readers know encoded words only.
_KNOWN = {"encoded word inside quoted string", "missing trailing whitespace after encoded-word"}

_LINE_END = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of the body without parts in it."""

    kind: str
    content: str | bytes
    filename: str | None = None
    content_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A message, as far as its author decides about it."""

    names: tuple[str, ...]  # of the header fields, sorted
    sender: tuple[str | None, str]
    to: tuple[tuple[str | None, str], ...]
    cc: tuple[tuple[str | None, str], ...]
    reply_to: tuple[tuple[str | None, str], ...]
    subject: str | None
    headers: Mapping[str, str]  # the author's own
    parts: tuple[Part, ...]


def asked_for(body: Mapping[str, Any]) -> Letter:
    """Read a request; addresses are objects, or bare."""
    headers = dict(body.get("headers") or {})
    parts = tuple(_parts(body))
    names = [*_OWN, *headers, "To"]
    names += [name for name in ("Cc", "Reply-To") if body.get(name.lower().replace("-", "_"))]
    names += ["Subject"] if body.get("subject") is not None else []
    names += ["Content-Transfer-Encoding"] if len(parts) == 1 and not body.get("attachments") else []
    return Letter(
        names=tuple(sorted(name.lower() for name in names)),
        sender=_mailboxes(body["from"])[0],
        to=_mailboxes(body.get("to")),
        cc=_mailboxes(body.get("cc")),
        reply_to=_mailboxes(body.get("reply_to")),
        subject=body.get("subject"),
        headers=headers,
        parts=parts,
    )


def _mailboxes(given: Any) -> tuple[tuple[str | None, str], ...]:
    found = []
    for each in [] if given is None else given if isinstance(given, list) else [given]:
        name, email = (each.get("name"), each["email"]) if isinstance(each, dict) else (None, each)
        found.append(((name or "").strip(" ") or None, email))
    return tuple(found)


def _parts(body: Mapping[str, Any]) -> Iterator[Part]:
    text, html = body.get("text"), body.get("html")
    if text is None and html is not None:
        text = text_of(html) or None
    if text is not None and (text or html is None):
        yield Part(kind="text/plain", content=_lines(text))
    if html is not None:
        yield Part(kind="text/html", content=_lines(html))
    for each in body.get("attachments") or ():
        yield Part(
            kind=_kind(each),
            content=base64.b64decode(each["content"]),
            filename=None if each.get("filename") is None else each["filename"].strip(),
            content_id=each.get("content_id") and f"<{each['content_id'].strip('<>')}>",
        )


def _kind(attachment: Mapping[str, Any]) -> str:
    if attachment.get("content_type"):
        return str(attachment["content_type"]).partition(";")[0].lower()
    ending = (attachment.get("filename") or "").rpartition(".")[2].lower()
    return _KINDS.get(ending, "application/octet-stream")


def _lines(text: str) -> str:
    return _LINE_END.sub("\n", text).removesuffix("\n")


def seen(octets: bytes, *, own: Mapping[str, str]) -> Letter:
    """Read a message; `own` has the names of the author's headers."""
    mail = message_from_bytes(octets, policy=policy.default)
    assert isinstance(mail, EmailMessage)
    assert not list(_defects(mail)), list(_defects(mail))
    return Letter(
        names=tuple(sorted(name.lower() for name in mail.keys())),  # noqa: SIM118  # one for each field
        sender=_addresses(mail, "From")[0],
        to=_addresses(mail, "To"),
        cc=_addresses(mail, "Cc"),
        reply_to=_addresses(mail, "Reply-To"),
        subject=None if mail["Subject"] is None else str(mail["Subject"]),
        headers={name: str(mail[name]) for name in own},
        parts=tuple(_read(part) for part in mail.walk() if not part.is_multipart()),
    )


def _addresses(mail: EmailMessage, name: str) -> tuple[tuple[str | None, str], ...]:
    """Read addresses twice: the structure as it stands, then each name decoded.

    Python's newer parser puts a space between encoded words of a name, which RFC 2047 §6.2 does not have.
    """
    if mail[name] is None:
        return ()
    (written,) = (value for key, value in mail.raw_items() if key.lower() == name.lower())
    pairs = getaddresses([re.sub(r"\r\n", "", written)])
    assert [email for _, email in pairs] == [each.addr_spec for each in mail[name].addresses]
    return tuple((str(make_header(decode_header(words))) or None, email) for words, email in pairs)


def _read(part: Any) -> Part:
    octets = part.get_payload(decode=True)
    file = part.get_content_disposition() is not None
    filename = part["Content-Disposition"].params.get("filename") if file else None
    return Part(
        kind=part.get_content_type(),
        content=octets if file else _lines(octets.decode(part.get_content_charset())),
        filename=filename,
        content_id=part["Content-ID"] and str(part["Content-ID"]),
    )


def _defects(mail: Any) -> Iterator[Any]:
    """Give what the parser thinks is wrong anywhere in a message."""
    for part in mail.walk():
        yield from part.defects
        for value in part.values():
            yield from (each for each in value.defects if str(each) not in _KNOWN)
