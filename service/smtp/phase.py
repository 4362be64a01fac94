"""How far a dialogue came.

The phases are ordered as RFC 5321 §3 orders the commands, and a dialogue never goes back
within one transaction: what has been reached stays reached. Three neighbours at the end
are kept apart because they mean different things for the people who wait for the mail:

- `BODY`: content travels. Whatever breaks here, the peer has no message.
- `DOT`: the final dot was handed to the network, no usable reply has come. The peer may
  have the message or not (RFC 1047).
- `REPLY`: the peer said what became of the message.
"""

from __future__ import annotations

from enum import IntEnum


class Phase(IntEnum):
    """A step of one SMTP dialogue; later steps compare greater."""

    CONNECT = 1
    GREETING = 2
    EHLO = 3
    STARTTLS = 4
    AUTH = 5
    MAIL = 6
    RCPT = 7
    DATA = 8
    BODY = 9
    DOT = 10
    REPLY = 11
    QUIT = 12

    def __init__(self, number: int) -> None:
        #: The phase as the API, the ledger and the logs write it: `connect`, `greeting` …
        self.word: str = self._name_.lower()

    @classmethod
    def named(cls, word: str) -> Phase:
        """Find a phase by its word. Raises ValueError for any other word."""
        try:
            return cls[word.upper()]
        except KeyError:
            raise ValueError(f"{word!r} is not a phase of an SMTP dialogue") from None
