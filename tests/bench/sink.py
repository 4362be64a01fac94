"""An SMTP server that takes everything, cheaply, and knows when.

Announces what Microsoft 365 does as far as it matters for speed. It counts messages, and where it is
asked to it keeps the moment of each recipient's 250 by the clock that all processes share
(CLOCK_MONOTONIC). It refuses recipients whose address begins with `refused`. With `--delay MS` each piece of answers leaves so much later, as if the peer were
that far away: commands that were sent together are answered together after one delay.

With `--certificate FILE` (key and chain in one file) it offers STARTTLS and then AUTH XOAUTH2, and takes any
token: what a login costs the client is the question, not whether it is right.
"""

import argparse
import asyncio
import ssl
import time
from typing import Any, cast

from tests.bench.programs import answer_for_ever, run

_EXTENSIONS = ("SIZE 157286400", "PIPELINING", "DSN", "ENHANCEDSTATUSCODES", "8BITMIME", "SMTPUTF8")
_END = b"\r\n.\r\n"


class Counts:
    """What was taken so far."""

    def __init__(self) -> None:
        self.messages = 0
        self.octets = 0
        self.sessions = 0
        self.open = 0
        self.most_open = 0
        self.first: float | None = None
        self.last: float | None = None
        self.recording = False
        self.times: list[tuple[str, float]] = []


class Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, counts: Counts, *, delay: float, tls: ssl.SSLContext | None) -> None:
        self._counts = counts
        self._delay = delay
        self._tls = tls
        self._secure = False
        self._buffer = bytearray()
        self._out: list[bytes] = []
        self._in_body = False
        self._at_start = False  # of a body: nothing of it has been let go yet
        self._recipients: list[bytes] = []
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # uvloop's own class does not derive from it
        self._transport = transport
        if not self._secure:
            self._counts.sessions += 1
            self._counts.open += 1
            self._counts.most_open = max(self._counts.most_open, self._counts.open)
            self._out.append(b"220 sink.contoso.com ESMTP\r\n")
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        self._counts.open -= 1

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while self._take_body() if self._in_body else self._take_command():
            pass
        self._send()

    def _take_body(self) -> bool:
        buffer = self._buffer
        end = 0 if self._at_start and buffer.startswith(_END[2:]) else buffer.find(_END)
        if end < 0:
            if len(buffer) < len(_END):
                return False
            self._at_start = False
            # Only the end of what is there can still become the end of the message.
            kept = max(len(buffer) - len(_END) + 1, 0)
            self._counts.octets += kept
            del buffer[:kept]
            return False
        del buffer[: buffer.index(b".\r\n", end) + 3]
        self._in_body = False
        counts = self._counts
        counts.messages += 1
        counts.octets += end
        counts.last = time.monotonic() + self._delay
        if counts.first is None:
            counts.first = counts.last
        if counts.recording:
            counts.times += [(each.decode(), counts.last) for each in self._recipients]
        self._out.append(b"250 2.0.0 Ok: queued\r\n")
        return True

    def _take_command(self) -> bool:
        end = self._buffer.find(b"\r\n")
        if end < 0:
            return False
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        match line[:4].upper():
            case b"MAIL":
                self._recipients = []
                self._out.append(b"250 2.1.0 Ok\r\n")
            case b"RCPT":
                self._take_recipient(line[line.find(b"<") + 1 : line.find(b">")])
            case b"DATA":
                if not self._recipients:
                    self._out.append(b"554 5.5.1 No valid recipients\r\n")
                    return True
                self._in_body = self._at_start = True
                self._out.append(b"354 End data with <CR><LF>.<CR><LF>\r\n")
            case b"EHLO" | b"HELO":
                self._out.append(self._greeting())
            case b"STAR" if self._tls is not None:
                self._start_tls(self._tls)
            case b"AUTH":
                self._out.append(b"235 2.7.0 Authentication successful\r\n")
            case b"QUIT":
                self._out.append(b"221 2.0.0 Bye\r\n")
                self._send()
                assert self._transport is not None
                asyncio.get_running_loop().call_later(self._delay, self._transport.close)
            case _:
                self._out.append(b"250 2.0.0 Ok\r\n")
        return True

    def _take_recipient(self, path: bytes) -> None:
        if path.startswith(b"refused"):
            self._out.append(b"550 5.1.1 User unknown\r\n")
            return
        self._recipients.append(path)
        self._out.append(b"250 2.1.5 Ok\r\n")

    def _greeting(self) -> bytes:
        words = ["sink.contoso.com", *_EXTENSIONS]
        if self._tls is not None:
            words.append("AUTH XOAUTH2" if self._secure else "STARTTLS")
        lines = [f"250{' ' if word is words[-1] else '-'}{word}\r\n" for word in words]
        return "".join(lines).encode("ascii")

    def _start_tls(self, context: ssl.SSLContext) -> None:
        self._out.append(b"220 2.0.0 SMTP server ready\r\n")
        self._send()
        transport = self._transport
        assert transport is not None

        async def upgrade() -> None:
            self._secure = True
            secure = await asyncio.get_running_loop().start_tls(transport, self, context, server_side=True)
            assert secure is not None
            self._transport = secure

        self._upgrading = asyncio.create_task(upgrade())

    def _send(self) -> None:
        if not self._out:
            return
        answers, self._out = b"".join(self._out), []
        if self._delay:
            asyncio.get_running_loop().call_later(self._delay, self._write, answers)
        else:
            self._write(answers)

    def _write(self, answers: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(answers)


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--delay", type=float, default=0.0, help="milliseconds")
    parser.add_argument("--certificate", default="")
    return parser.parse_args()


async def main() -> None:
    given = _parsed()
    tls = None
    if given.certificate:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(given.certificate)
    counts = Counts()

    async def answer(question: dict[str, Any]) -> Any:
        match question["op"]:
            case "count":
                return counts.messages
            case "figures":
                return {name: value for name, value in vars(counts).items() if name != "times"}
            case "record":
                counts.recording = True
                counts.times = []
            case "times":
                return counts.times
            case "reset":
                counts.messages = counts.octets = 0
                counts.first = counts.last = None
                counts.most_open = counts.open
                counts.times = []
        return None

    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(counts, delay=given.delay / 1000, tls=tls), "127.0.0.1", 0
    )
    async with server:
        await answer_for_ever({"port": server.sockets[0].getsockname()[1]}, answer)


if __name__ == "__main__":
    run(main())
