r"""The grammar of what a client says: commands, paths, parameters, SASL blobs (RFC 5321 §4.1).

Pure functions. What is malformed raises `Malformed`, which carries the reply.
"""

import base64
import binascii
import re
from dataclasses import dataclass

from service.sandbox import replies
from service.sandbox.replies import Reply

_COMMAND_LIMIT = 2048  # octets; RFC 5321 §4.5.3.1.4 asks for 512, SMTPUTF8 and DSN for more

_PATH = re.compile(r'<((?:"(?:[^"\\]|\\.)*"|[^"<>\s])*)>(?:\s+(.*))?', re.DOTALL)
_ATOM = r"""[^\s@"(),:;<>\[\]\\.]+"""
_LOCAL = re.compile(rf"""{_ATOM}(?:\.{_ATOM})*|"(?:[^"\\]|\\.)*\"""")
_LETTER = r"A-Za-z0-9\u0080-\U0010ffff"
_LABEL = rf"[{_LETTER}](?:[{_LETTER}-]{{0,61}}[{_LETTER}])?"
_LITERAL = r"\[[0-9A-Fa-f.:IPv]+\]"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*|{_LITERAL}")
_HELLO = re.compile(rf"[A-Za-z0-9.-]{{1,255}}|{_LITERAL}")
_XOAUTH2 = re.compile(r"user=([^\x01]+)\x01auth=Bearer ([^\x01]+)\x01\x01")


class Malformed(Exception):
    """The client said something that is not SMTP."""

    def __init__(self, reply: Reply) -> None:
        """`reply` says so."""
        super().__init__(reply.line)
        self.reply = reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """The argument of MAIL or RCPT."""

    text: str  # what stands between the angle brackets
    options: dict[str, str]  # the parameters behind it, by their names in capitals

    @property
    def is_address(self) -> bool:
        """Whether it is one mailbox of RFC 5321's lengths."""
        local, at, domain = self.text.rpartition("@")
        fits = len(local.encode()) <= 64 and len(self.text.encode()) <= 254
        return bool(at and fits and _LOCAL.fullmatch(local) and _DOMAIN.fullmatch(domain))


def read_command(line: bytes) -> tuple[str, str]:
    """Split a line into its verb and the rest."""
    if not line or (len(line) > _COMMAND_LIMIT and line[:5].upper() != b"AUTH "):
        raise Malformed(replies.COMMAND_TOO_LONG)
    if not line.endswith(b"\r\n"):
        raise Malformed(replies.UNRECOGNIZED)
    try:
        text = line[:-2].decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed(replies.INVALID_ARGUMENTS) from None
    if not text.isprintable():
        raise Malformed(replies.INVALID_ARGUMENTS)
    verb, _, argument = text.partition(" ")
    return verb.upper(), argument.strip()


def read_hello(argument: str) -> str:
    """Return the name that the client gives itself."""
    if not argument:
        raise Malformed(replies.DOMAIN_MISSING)
    if not _HELLO.fullmatch(argument):
        raise Malformed(replies.INVALID_DOMAIN)
    return argument


def read_path(argument: str, *, keyword: str, known: set[str]) -> Path:
    """Read `FROM:<…> NAME=value …`; parameters that are not `known` are refused."""
    start, colon, rest = argument.partition(":")
    match = _PATH.fullmatch(rest.strip())
    if not colon or start.strip().upper() != keyword or match is None:
        raise Malformed(replies.INVALID_ARGUMENTS)
    options: dict[str, str] = {}
    for option in (match[2] or "").split():
        name, _, value = option.partition("=")
        if name.upper() not in known:
            raise Malformed(replies.UNKNOWN_PARAMETER)
        options[name.upper()] = value
    return Path(text=match[1], options=options)


def check_mail_options(options: dict[str, str], *, size_limit: int) -> None:
    """Look at SIZE (RFC 1870) and BODY (RFC 6152, RFC 3030)."""
    size = options.get("SIZE", "0")
    if not re.fullmatch(r"[0-9]{1,20}", size):
        raise Malformed(replies.INVALID_ARGUMENTS)
    if int(size) > size_limit:
        raise Malformed(replies.TOO_LARGE)
    if options.get("BODY", "7BIT").upper() not in {"7BIT", "8BITMIME", "BINARYMIME"}:
        raise Malformed(replies.UNKNOWN_BODY)


def read_chunk(argument: str) -> tuple[int, bool]:
    """Return the octets of a BDAT chunk, and whether it is the last one (RFC 3030 §2)."""
    match = re.fullmatch(r"([0-9]{1,12})( +LAST)?", argument, re.IGNORECASE)
    if match is None:
        raise Malformed(replies.INVALID_ARGUMENTS)
    return int(match[1]), match[2] is not None


def decode_base64(text: str) -> str | None:
    """Return the text behind base64, or None where it is none."""
    try:
        return base64.b64decode(text, validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return None


def read_xoauth2(blob: str) -> tuple[str, str] | None:
    """Return user and token out of `user=… ^A auth=Bearer … ^A ^A`, as Microsoft's page has it."""
    match = _XOAUTH2.fullmatch(blob)
    return (match[1], match[2]) if match else None
