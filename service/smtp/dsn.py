"""Ask the peer for reports on what becomes of a message: parameters of MAIL and RCPT (RFC 3461).

    MAIL FROM:<noreply@contoso.com> RET=HDRS ENVID=order-42
    RCPT TO:<ana@example.com> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;ana@example.com

They are said only to a peer that announces DSN, and ask for no more than it wants to do: a server on the way
that does not know them drops them. The reports go to the reverse-path, as mail.

What a caller chose travels as xtext (RFC 3461 §4): no octet of it can end a parameter or a command.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.mail.address import Address

#: Characters of an envelope's name (RFC 3461 §4.4).
ENVID_CHARACTERS = 100

_NOTIFY = frozenset({"success", "failure", "delay"})
_RET = {"headers": "HDRS", "full": "FULL"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Dsn:
    """Which reports are asked for. Raises `ValueError` for what RFC 3461 does not know."""

    notify: tuple[str, ...]  # success, failure, delay; or never alone; empty: what the peer usually does
    ret: str | None  # headers or full: what a report of failure returns; None: what the peer usually does
    envid: str | None  # printable ASCII, repeated in the reports

    def __post_init__(self) -> None:
        if not (self.notify == ("never",) or _NOTIFY.issuperset(self.notify)):
            raise ValueError("notify is success, failure and delay, or never alone")
        if self.ret is not None and self.ret not in _RET:
            raise ValueError("ret is headers or full")
        if self.envid is not None and not (
            0 < len(self.envid) <= ENVID_CHARACTERS and self.envid.isascii() and self.envid.isprintable()
        ):
            raise ValueError(f"envid is 1 to {ENVID_CHARACTERS} printable ASCII characters")

    @classmethod
    def of(cls, asked: Mapping[str, Any]) -> "Dsn":
        """Read what a message asks for: `notify`, `return`, `envid`, each of which may be missing or null."""
        notify: Sequence[str] = asked.get("notify") or ()
        return cls(notify=tuple(dict.fromkeys(notify)), ret=asked.get("return"), envid=asked.get("envid"))

    def of_mail(self) -> str:
        """Write the parameters of MAIL, each with a space before it."""
        ret = "" if self.ret is None else f" RET={_RET[self.ret]}"
        return ret + ("" if self.envid is None else f" ENVID={xtext(self.envid)}")

    def of_rcpt(self, path: Address) -> str:
        """Write the parameters of one RCPT, each with a space before it."""
        notify = f" NOTIFY={','.join(self.notify).upper()}" if self.notify else ""
        # An address beyond ASCII is of another type (RFC 6533 §3), which few servers know; it may be left out.
        return notify + (f" ORCPT=rfc822;{xtext(str(path))}" if str(path).isascii() else "")


def xtext(text: str) -> str:
    """Encode ASCII as xtext: what is not a plain visible character becomes `+` and two hexadecimal digits.

    So do angle brackets, which need not: servers exist that look for the end of the path at the last ">".
    """
    return "".join(
        char if "!" <= char <= "~" and char not in "+=<>" else f"+{ord(char):02X}" for char in text
    )
