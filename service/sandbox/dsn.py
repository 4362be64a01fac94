"""Which reports a client asks for: RET and ENVID of MAIL, NOTIFY and ORCPT of RCPT (RFC 3461).

What is malformed is refused as Exchange refuses it. What was asked is kept with the message, so that a test can
read it back; NOTIFY decides whether a non-delivery report is written. Reports of success and of delay are not
simulated.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from service.sandbox import replies
from service.sandbox.grammar import Malformed

_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+")
_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9-]{1,64}")
_CONDITIONS = {"SUCCESS", "FAILURE", "DELAY"}

_ENVID_CHARACTERS = 100
_ORCPT_CHARACTERS = 500


@dataclass(slots=True, kw_only=True)
class Asked:
    """What one transaction asks for, as the client said it, with xtext decoded."""

    ret: str | None = None
    envid: str | None = None
    recipients: dict[str, dict[str, str]] = field(default_factory=dict)

    def for_recipient(self, recipient: str, options: Mapping[str, str]) -> None:
        """Keep what a RCPT asks for. Raises `Malformed`."""
        asked: dict[str, str] = {}
        if "NOTIFY" in options:
            asked["notify"] = _notify(options["NOTIFY"])
        if "ORCPT" in options:
            kind, semicolon, address = options["ORCPT"].partition(";")
            if not semicolon or not _ADDRESS_TYPE.fullmatch(kind):
                raise Malformed(replies.INVALID_ARGUMENTS)
            asked["orcpt"] = f"{kind};{_decoded(address, most=_ORCPT_CHARACTERS)}"
        if asked:
            self.recipients[recipient] = asked

    def wants_failure(self, recipient: str) -> bool:
        """Say whether a recipient's failure is to be reported: yes, unless the client said otherwise."""
        return "FAILURE" in self.recipients.get(recipient, {}).get("notify", "FAILURE").split(",")

    def as_json(self) -> dict[str, Any] | None:
        """Return it for the read-back; None where nothing was asked for."""
        if self.ret is None and self.envid is None and not self.recipients:
            return None
        return {"ret": self.ret, "envid": self.envid, "recipients": self.recipients}


def of_mail(options: Mapping[str, str]) -> Asked:
    """Read RET and ENVID. Raises `Malformed`."""
    ret = options.get("RET")
    if ret is not None and ret.upper() not in {"FULL", "HDRS"}:
        raise Malformed(replies.INVALID_ARGUMENTS)
    envid = _decoded(options["ENVID"], most=_ENVID_CHARACTERS) if "ENVID" in options else None
    return Asked(ret=None if ret is None else ret.upper(), envid=envid)


def _notify(value: str) -> str:
    wanted = value.upper().split(",")
    if wanted != ["NEVER"] and not (_CONDITIONS.issuperset(wanted) and len(set(wanted)) == len(wanted)):
        raise Malformed(replies.INVALID_ARGUMENTS)
    return value.upper()


def _decoded(xtext: str, *, most: int) -> str:
    """Decode xtext (RFC 3461, section 4) of up to so many characters."""
    if not _XTEXT.fullmatch(xtext):
        raise Malformed(replies.INVALID_ARGUMENTS)
    text = re.sub(r"\+([0-9A-F]{2})", lambda found: chr(int(found[1], 16)), xtext)
    if len(text) > most or not (text.isascii() and text.isprintable()):
        raise Malformed(replies.INVALID_ARGUMENTS)
    return text
