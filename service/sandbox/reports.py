"""Non-delivery reports: mail that tells the sender what came back after it had been taken (RFC 3464).

They look like Exchange Online's: `multipart/report`, a human part that quotes the refusal, a
`Diagnostic-Code` folded over lines, and the header of the original, in which its Message-ID is to be
found. A report goes to the reverse-path and is kept here instead of being sent; for the null
reverse-path there is none (RFC 5321 §4.5.5).
"""

import textwrap
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import uuid_utils

from service.sandbox.mailroom import Taken

_KEEP = 1000
_HEADER = 64 * 1024  # octets of the original's header that a report repeats


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One report."""

    id: str
    at: datetime
    to: str  # the reverse-path of the message that came back
    about: str  # the id of that message
    message_id: str | None  # its Message-ID
    recipients: tuple[str, ...]  # whom it did not reach
    size: int  # octets

    def as_json(self) -> dict[str, Any]:
        """Return it for people and tests, times in RFC 3339."""
        at = self.at.isoformat().replace("+00:00", "Z")
        return {"object": "report"} | asdict(self) | {"at": at}


class Reports:
    """The newest reports, the oldest first."""

    def __init__(self) -> None:
        """Start with none."""
        self._reports: deque[tuple[Report, bytes]] = deque(maxlen=_KEEP)

    def __iter__(self) -> Iterator[Report]:
        """Go through them, the oldest first."""
        return (report for report, _ in self._reports)

    def content(self, name: str) -> bytes | None:
        """Return the octets of one."""
        return next((octets for report, octets in self._reports if report.id == name), None)

    def clear(self) -> None:
        """Forget them all."""
        self._reports.clear()

    def write(
        self, taken: Taken, octets: bytes, *, reasons: Mapping[str, str], reporter: str, domain: str
    ) -> None:
        """Report on a message.

        `reasons` are recipients with what was said about them, `reporter` the host that says so,
        `domain` the tenant's.
        """
        if not taken.reverse_path:
            return
        name = f"ndr_{uuid_utils.uuid7().hex}"
        now = datetime.now(UTC)
        mail = _mail(taken, octets, name=name, now=now, reasons=reasons, reporter=reporter, domain=domain)
        report = Report(
            id=name,
            at=now,
            to=taken.reverse_path,
            about=taken.id,
            message_id=taken.message_id,
            recipients=tuple(reasons),
            size=len(mail),
        )
        self._reports.append((report, mail))


def _mail(
    taken: Taken,
    octets: bytes,
    *,
    name: str,
    now: datetime,
    reasons: Mapping[str, str],
    reporter: str,
    domain: str,
) -> bytes:
    boundary = f"{name}_{reporter}"
    subject = taken.subject or ""
    head = (
        f"From: Microsoft Outlook <postmaster@{domain}>\r\n"
        f"To: <{taken.reverse_path}>\r\n"
        f"Date: {format_datetime(now)}\r\n"
        f"Message-ID: <{name}@{reporter}>\r\n"
        f"{_field('Subject', f'Undeliverable: {subject}')}"
        f"In-Reply-To: {taken.message_id or ''}\r\n"
        "Auto-Submitted: auto-replied\r\n"
        "MIME-Version: 1.0\r\n"
        f'Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary="{boundary}"\r\n\r\n'
    )
    words = "".join(
        f"{recipient}\r\nRemote server returned '{reason}'\r\n\r\n" for recipient, reason in reasons.items()
    )
    envid = (taken.dsn or {}).get("envid")
    status = (
        f"{_field('Original-Envelope-Id', envid) if envid else ''}"
        f"Reporting-MTA: dns;{reporter}\r\n"
        f"Received-From-MTA: dns;{taken.hello}\r\n"
        f"Arrival-Date: {format_datetime(taken.at)}\r\n\r\n"
    )
    status += "\r\n".join(_recipient_fields(recipient, reason) for recipient, reason in reasons.items())
    whole, _, _ = octets.partition(b"\r\n\r\n")
    original = whole[:_HEADER].removesuffix(b"\r\n") + b"\r\n"
    return b"".join((
        head.encode("utf-8", "replace"),
        _part(boundary, "text/plain; charset=utf-8", f"Delivery has failed.\r\n\r\n{words}".encode("utf-8", "replace")),
        _part(boundary, "message/delivery-status", status.encode("utf-8", "replace")),
        _part(boundary, "text/rfc822-headers", original),
        f"--{boundary}--\r\n".encode(),
    ))  # fmt: skip


def _recipient_fields(recipient: str, reason: str) -> str:
    status = reason.split()[1] if len(reason.split()) > 1 else "5.0.0"
    return (
        f"Final-Recipient: rfc822;{recipient}\r\n"
        "Action: failed\r\n"
        f"Status: {status}\r\n"
        f"{_field('Diagnostic-Code', f'smtp;{reason}')}"
    )


def _field(name: str, value: str) -> str:
    """Fold a header field as Exchange does, at spaces."""
    printable = "".join(char if char.isprintable() else "?" for char in value)
    lines = textwrap.wrap(f"{name}: {printable}", width=76, break_long_words=False, break_on_hyphens=False)
    return "\r\n\t".join(lines) + "\r\n"


def _part(boundary: str, kind: str, octets: bytes) -> bytes:
    return f"--{boundary}\r\nContent-Type: {kind}\r\n\r\n".encode() + octets + b"\r\n"
