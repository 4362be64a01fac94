"""Lines as the wire has them: CRLF at the end, nowhere else, and 998 octets at most (RFC 5322 §2.1.1).

A server that takes a bare LF for a line end sees other lines than one that does not, and with
them another header, or a dot that ends the message and commands behind it (SMTP smuggling). Both
questions are asked of messages of many megabytes, so they are asked without cutting them up.
"""

from __future__ import annotations

LINE_OCTETS = 998  # RFC 5322 §2.1.1, without the CRLF


def has_bare_line_end(octets: bytes) -> bool:
    """Whether a CR or a LF stands alone."""
    pairs = octets.count(b"\r\n")
    return not pairs == octets.count(b"\r") == octets.count(b"\n")


def has_line_over(limit: int, octets: bytes) -> bool:
    """Whether a line has more than `limit` octets. Expects CRLF as the only line ends."""
    # From line end to line end, each time to the last one in reach: two steps are always more than
    # a whole line, however short the lines are.
    start = 0
    while len(octets) - start > limit:
        start = octets.rfind(b"\n", start, start + limit + 2) + 1
        if not start:
            return True
    return False
