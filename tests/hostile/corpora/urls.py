"""What stands in a path, a query or a header instead of what belongs there."""

from tests.hostile.corpora.strings import CANARY

#: Written as they stand in a path, so that nothing tidies them up.
PATHS = (
    f"{CANARY}%0d%0aSet-Cookie:%20x",
    f"{CANARY}%00",
    f"..%2f..%2f{CANARY}",
    "..%5c..%5c",
    "%2e%2e",
    ".%2f",
    "%ff%fe",
    "%ed%a0%80",
    "%c0%ae",
    "%",
    "%zz",
    f"'%20OR%201=1--{CANARY}",
    "%7b%7b7*7%7d%7d",
    "msg_01JDB6Z0Q5V8W6K3T1E9F4H2RC%0a",
    "MSG_01JDB6Z0Q5V8W6K3T1E9F4H2RC",
    "%e2%80%ae",
    "%d9%a1",
    "-1",
    "99999999999999999999",
    f"{CANARY}{'x' * 4000}",
    "%20",
    "*",
)

#: Values of a query, percent-encoded as far as they have to be.
QUERIES = (
    f"{CANARY}%00",
    f"{CANARY}%0d%0aSet-Cookie:x",
    f"{CANARY}'%20OR%201=1;--",
    f"{CANARY}%25_%5c",
    "",
    "%ff%fe",
    "%ed%a0%80",
    "%zz",
    "-1",
    "0",
    "1e3",
    "%d9%a1",
    "99999999999999999999999",
    "9999-12-31T23:59:59-23:59",
    "0001-01-01T00:00:00%2b23:59",
    "a%26b%20|%20!c%20%3C-%3E%20(d:*",
    "%e2%80%ae%f0%9f%98%80%ef%bb%bf",
    "evt_99999999999999999999",
    "evt_999999999999999999",
    f"{CANARY}{'y' * 5000}",
    "%F0%9F%98%80" * 300,
)

#: Of the headers that an endpoint reads.
HEADERS = (
    b"", b" ", b"\x00", b"\xff\xfe", b"\xed\xa0\x80", "é".encode(), b"'; DROP TABLE idempotency; --", b"\x7f",
    CANARY.encode() * 500, b"wait=", b"wait=-1", b"wait=\xd9\xa1",
    b"wait=0, wait=0", b"evt_99999999999999999999", b"evt_999999999999999999", b"evt_-1", b"{{7*7}}",
)  # fmt: skip
