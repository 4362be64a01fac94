"""One message as it is handed to a session, and the commands that name it to a peer.

    MAIL FROM:<noreply@contoso.com> SIZE=18234 SMTPUTF8
    RCPT TO:<ana@example.com>

What a message needs of the peer (SIZE, RFC 1870; 8BITMIME, RFC 6152; SMTPUTF8, RFC 6531) is looked up in the
peer's list before anything is said: where it is missing, `ExtensionMissing` says so and nothing was sent.
Reports (DSN, RFC 3461) are a wish: a peer that does not offer them gets the message without.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from service.mail.envelope import Envelope
from service.smtp.dsn import Dsn
from service.smtp.faults import ExtensionMissing
from service.smtp.phase import Phase


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Parcel:
    """One message for one transaction. A parcel equals itself only, whatever is in it."""

    envelope: Envelope
    octets: bytes  # the content with CRLF line ends, not dot-stuffed
    smtputf8: bool  # what the content needs of the peer (RFC 6531)
    eightbit: bool  # the same for 8-bit content (RFC 6152)
    dsn: Dsn | None = None  # the reports to ask for


def mail_command(parcel: Parcel, extensions: Mapping[str, str]) -> str:
    """Write MAIL with its parameters. Raises `ExtensionMissing` where the peer lacks what the message needs."""
    size, parameters = len(parcel.octets), ""
    if "SIZE" in extensions:
        parameters += f" SIZE={size}"
        if 0 < _number(extensions["SIZE"]) < size:
            detail = f"The message has {size:,} octets; the peer takes {_number(extensions['SIZE']):,}."
            raise ExtensionMissing("size_exceeded", phase=Phase.MAIL, detail=detail)
    if parcel.eightbit:
        if "8BITMIME" not in extensions:
            detail = "The message has 8-bit content; the peer does not offer 8BITMIME."
            raise ExtensionMissing("eightbitmime_not_offered", phase=Phase.MAIL, detail=detail)
        parameters += " BODY=8BITMIME"
    if parcel.smtputf8 or parcel.envelope.smtputf8:
        if "SMTPUTF8" not in extensions:
            detail = "The message needs SMTPUTF8; the peer does not offer it."
            raise ExtensionMissing("smtputf8_not_offered", phase=Phase.MAIL, detail=detail)
        parameters += " SMTPUTF8"
    if parcel.dsn is not None and "DSN" in extensions:
        parameters += parcel.dsn.of_mail()
    path = parcel.envelope.reverse_path
    return f"MAIL FROM:<{path if path is not None else ''}>{parameters}"


def rcpt_commands(parcel: Parcel, extensions: Mapping[str, str]) -> list[str]:
    """Write RCPT for each recipient, in the order of the envelope."""
    paths = parcel.envelope.forward_paths
    if parcel.dsn is None or "DSN" not in extensions:
        return [f"RCPT TO:<{path}>" for path in paths]
    return [f"RCPT TO:<{path}>{parcel.dsn.of_rcpt(path)}" for path in paths]


def _number(text: str) -> int:
    """Read the parameter of SIZE (RFC 1870 §4: up to 20 digits); 0, no limit, for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else 0
