"""The HTTP server on a real socket: what two servers in a row could read differently is refused, and ends the connection.

Behind a proxy that reads it otherwise, a second request could hide in the body of the first (request smuggling,
RFC 9112 §11.2), and be taken for the next client's.
"""

import asyncio
import re
from pathlib import Path

from tests.submission.test_slow_clients import a_door

HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"


def request(*fields: bytes, body: bytes = b"", line: bytes = b"POST /livez HTTP/1.1") -> bytes:
    return b"\r\n".join([line, b"Host: postroom", *fields, b"", b""]) + body


CHUNKED = b"Transfer-Encoding: chunked"
LENGTH = b"Content-Length: %d" % len(HIDDEN)

#: A request, and how many answers it may have: one, and the connection ends, because the rest is nobody's request.
AMBIGUOUS: dict[str, bytes] = {
    "length and chunks": request(b"Content-Length: 5", CHUNKED, body=b"0\r\n\r\n" + HIDDEN),
    "chunks and length": request(CHUNKED, b"Content-Length: 5", body=b"0\r\n\r\n" + HIDDEN),
    "two lengths": request(b"Content-Length: 0", LENGTH, body=HIDDEN),
    "a list of lengths": request(b"Content-Length: 0, %d" % len(HIDDEN), body=HIDDEN),
    "a length with a sign": request(b"Content-Length: +0", body=HIDDEN),
    "a length below nothing": request(b"Content-Length: -1", body=HIDDEN),
    "a length in another base": request(b"Content-Length: 0x5", body=HIDDEN),
    "a length with a space": request(b"Content-Length: 1 0", body=HIDDEN),
    "a length beyond all numbers": request(b"Content-Length: " + b"9" * 30, body=HIDDEN),
    "a space before the colon": request(b"Content-Length : 0", LENGTH, body=HIDDEN),
    "chunked twice": request(CHUNKED, CHUNKED, body=b"0\r\n\r\n" + HIDDEN),
    "chunked in the middle": request(b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n" + HIDDEN),
    "another encoding": request(b"Transfer-Encoding: xchunked", LENGTH, body=HIDDEN),
    "chunked behind a tab": request(b"Transfer-Encoding:\x0bchunked", LENGTH, body=HIDDEN),
    "chunks of a signed size": request(CHUNKED, body=b"+0\r\n\r\n" + HIDDEN),
    "chunks of a size with a prefix": request(CHUNKED, body=b"0x0\r\n\r\n" + HIDDEN),
    "chunks of a size beyond all numbers": request(CHUNKED, body=b"f" * 20 + b"\r\n" + HIDDEN),
    "chunks that end in LF": request(CHUNKED, body=b"0\n\n" + HIDDEN),
    "chunks longer than they say": request(CHUNKED, body=b"1\r\nxy\r\n0\r\n\r\n" + HIDDEN),
    "a folded field": request(b"X: y\r\n Content-Length: 5", b"Content-Length: 0", b"\tz: 1", body=HIDDEN),
    "a folded name": request(b" Content-Length: 5", body=HIDDEN),
    "a bare CR in a field": request(b"X: y\rContent-Length: 5", body=HIDDEN),
    "a NUL in a field": request(b"X: \0", body=HIDDEN),
    "a field without a name": request(b": y", body=HIDDEN),
    "a field without a colon": request(b"nothing", body=HIDDEN),
    "a name with a bracket": request(b"X(: y", body=HIDDEN),
    "a method that is none": request(line=b"GE\tT / HTTP/1.1"),
    "a version that is none": request(line=b"GET / HTTP/9.9"),
    "no version": request(line=b"GET /"),
    "a space in the target": request(line=b"GET /li vez HTTP/1.1"),
    "another protocol's beginning": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a handshake of TLS": bytes.fromhex("16030100b8010000b4030320") + b"\0" * 180,
}


#: What would make the connection another protocol's: it stays HTTP, or ends.
SWITCHES = (
    (
        b"POST /livez HTTP/1.1",
        (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: x"),
    ),
    (b"POST /livez HTTP/1.1", (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13")),
    (b"CONNECT 127.0.0.1:22 HTTP/1.1", ()),
    (b"TRACE / HTTP/1.1", ()),
    (b"POST http://169.254.169.254/latest HTTP/1.1", ()),
)
ANSWER = re.compile(rb"HTTP/1\.1 (\d{3}) ")


async def test_a_request_that_could_be_two_is_none(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """Each is refused or answered once, nothing behind it is read as a request, and the connection is closed."""
    async with a_door(tmp_path, database_url, redis_url, head_timeout="2s") as door:

        async def came(octets: bytes) -> bytes:
            line = await door.line()
            await line.say(octets)
            await line.ended()
            return bytes(line._came)

        switches = [request(*fields, body=HIDDEN, line=line) for line, fields in SWITCHES]
        two = request(b"Content-Length: 0", body=HIDDEN)
        plain, *said = await asyncio.gather(*map(came, [two, *switches, *AMBIGUOUS.values()]))
        switched, both = said[: len(switches)], dict(zip(AMBIGUOUS, said[len(switches) :], strict=True))

    for name, answer in both.items():
        assert len(ANSWER.findall(answer)) == 1, name
        assert name == "no version" or answer.startswith(b"HTTP/1.1 400 "), (name, answer)
        assert b"hidden" not in answer, name
    assert ANSWER.findall(plain) == [b"405", b"404"], "what hides nothing is two requests"
    for answer in switched:
        assert not {b"101", b"200"} & set(ANSWER.findall(answer)), answer
