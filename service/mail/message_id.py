"""The name of a message, for ever (RFC 5322 §3.6.4).

Exchange echoes it in its reply and in message traces, and its store drops a second copy by it;
so it is ours, made once, and the same in every attempt.
"""

from __future__ import annotations

import re
import secrets
import time

from service.mail.address import domain_name

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32: no I, L, O, U
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_MESSAGE_ID = re.compile(r"<[!-;=?A-~]+@[!-;=?A-~]+>")
_CHARACTERS = 900  # with the header's name it fits a line of 998 octets


def new_message_id(domain: str) -> str:
    """Make a Message-ID that sorts by time: 48 bits of milliseconds and 80 random ones (a ULID).

    Raises `BadAddress` for a domain that is none.
    """
    number = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    digits = "".join([_PAIRS[number >> shift & 1023] for shift in range(120, -1, -10)])
    return f"<{digits}@{domain_name(domain)}>"


def is_message_id(text: str) -> bool:
    """Whether a text is one msg-id in printable ASCII, brackets included."""
    return len(text) <= _CHARACTERS and _MESSAGE_ID.fullmatch(text) is not None
