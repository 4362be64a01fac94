"""Names of things in the ledger: `msg_01JDB6Z0Q5V8W6K3T1E9F4H2RC`.

A prefix that says what it is, and 128 bits written in Crockford's base 32 like a ULID: the
first 48 are the time in milliseconds, so names sort by age and new rows lie side by side in
an index (RFC 9562, section 5.7, explains why that matters).
"""

import re
from datetime import datetime
from typing import Literal

import uuid_utils

Kind = Literal[
    "msg",
    "dlv",
    "att",
    "ses",
    "sea",
    "key",
    "wrk",
    "req",
    "chk",
    "tpl",
    "sup",
    "sru",
    "whk",
    "whd",
    "sgn",
    "era",
]

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_SHAPE = re.compile(r"([a-z]{3})_([0-9A-HJKMNP-TV-Z]{26})")


def new_id(kind: Kind) -> str:
    """Make a name that nobody had before."""
    return f"{kind}_{_written(uuid_utils.uuid7().int)}"


def first_id(kind: Kind, at: datetime) -> str:
    """Make the name that sorts before all names of this kind that were made at this time or later."""
    number = max(int(at.timestamp() * 1000), 0) << 80
    return f"{kind}_{_written(number)}"


def _written(number: int) -> str:
    # Two digits of the alphabet, thirteen times: a name is made often.
    return "".join([_PAIRS[number >> shift & 1023] for shift in range(120, -1, -10)])


def is_id(text: str, kind: Kind) -> bool:
    """Say whether `text` has the form of a name of this kind; nothing else reaches a query."""
    match = _SHAPE.fullmatch(text)
    return match is not None and match[1] == kind
