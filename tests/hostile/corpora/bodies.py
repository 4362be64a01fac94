r"""Bodies that are no good JSON, and values of the wrong type (RFC 8259 §4 and §9, RFC 7493).

Two readers of one such text may read two things: the last of two equal names or the first, a number or infinity,
a character or half of one. `MALFORMED` is refused by every endpoint that reads JSON, whatever its shape.
"""

from typing import Any

from tests.hostile.corpora.strings import CANARY, SURROGATES

_NESTED = 5_000

MALFORMED: dict[str, bytes] = {
    "nothing": b" ",
    "no end": b'{"' + CANARY.encode(),
    "one brace": b"{",
    "two values": b"{} {}",
    "rubbish behind": b"{}x",
    "trailing comma": b'{"' + CANARY.encode() + b'": 1,}',
    "trailing comma in a list": b"[1,]",
    "single quotes": b"{'" + CANARY.encode() + b"': 1}",
    "no quotes": b"{" + CANARY.encode() + b": 1}",
    "comment": b"{} // x",
    "line break in a string": b'{"x": "a\nb"}',
    "tab in a string": b'{"x": "a\tb"}',
    "bad escape": b'{"x": "\\x41"}',
    "leading zero": b'{"x": 01}',
    "plus": b'{"x": +1}',
    "no digits": b'{"x": .5}',
    "nan": b'{"x": NaN}',
    "infinity": b'{"x": -Infinity}',
    "beyond a double": b'{"x": 1e400}',
    "beyond 2^53": b'{"x": 9007199254740993}',
    "digits": b'{"x": ' + b"9" * 100_000 + b"}",
    "digits behind the point": b'{"x": 1.' + b"9" * 5_000 + b"e" + b"9" * 5_000 + b"}",
    "doubled": b'{"x": 1, "x": 2}',
    "doubled by an escape": b'{"x": 1, "\\u0078": 2}',
    "doubled inside": b'{"x": {"y": [{"' + CANARY.encode() + b'": 1, "' + CANARY.encode() + b'": 2}]}}',
    "deep lists": b"[" * _NESTED + b"]" * _NESTED,
    "deep objects": b'{"x":' * _NESTED + b"1" + b"}" * _NESTED,
    "deep and open": b"[" * 100_000,
    "deep in a member": b'{"x": ' + b"[" * 40 + b"]" * 40 + b"}",
    "nul in a name": b'{"' + CANARY.encode() + b'\\u0000": 1}',
    "nul": b"\0",
    "not utf-8": b'{"x": "\xff\xfe\x80"}',
    "overlong": b'{"x": "\xc0\xae\xc0\xae"}',
    "surrogate in octets": b'{"x": "\xed\xa0\x80"}',
    "utf-16": '{"x": 1}'.encode("utf-16"),
    "utf-32": '{"x": 1}'.encode("utf-32-be"),
    "byte order mark": b"\xef\xbb\xbf{}",
    "byte order mark and more": b'\xef\xbb\xbf{"x": 1}',
    "form": b"from=a&to=b",
    "xml": b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY y SYSTEM "file:///etc/passwd">]><x>&y;</x>',
    "pickle": b"cos\nsystem\n(S'id'\ntR.",
    "string": b'"' + CANARY.encode() + b'"',
    "number": b"1",
    "null": b"null",
    "true": b"true",
    **{f"surrogate, {name}": b'{"x": ' + text.encode() + b"}" for name, text in SURROGATES.items()},
    **{f"surrogate in a name, {name}": b"{" + text.encode() + b": 1}" for name, text in SURROGATES.items()},
}

#: Names that mean something to a language, in an object where they mean nothing.
STRANGE_NAMES = (
    "__proto__",
    "constructor",
    "__class__",
    "model_config",
    "from_",
    "return_",
    "$ref",
    "",
    " ",
    ".",
    "0",
)

#: What stands where something else is asked for. Many fields take one or the other; none fails over any.
WRONG_TYPES: dict[str, Any] = {
    "null": None,
    "true": True,
    "zero": 0,
    "minus": -1,
    "large": 2**53,
    "fraction": 1e300,
    "list": [],
    "list of lists": [[[[]]]],
    "object": {},
    "unknown name": {CANARY: {CANARY: [CANARY]}},
    "many": [CANARY] * 2_000,
    "many names": {f"{CANARY}{number}": "x" for number in range(2_000)},
}

#: Content types that a body of JSON is not announced with.
WRONG_KINDS = (
    "",
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/xml",
    "application/jsonx",
    f"{CANARY}/{CANARY}",
    "application/json, text/plain",
    ";",
    "\xff",
)
