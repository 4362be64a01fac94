"""One client's connection: octets in, octets out, and the change to TLS in between.

An asyncio protocol of our own instead of streams, because the accidents that the sandbox stages
need the transport itself: a reset, a close without a word, a silence that notices when the client
leaves. TLS is put over the octets here (tls.py) and not by asyncio, because the MX looks into the
handshake. It works on asyncio's loop and on uvloop.

What the client sent in clear text behind STARTTLS is thrown away (RFC 3207 §4.2). Reading stops
while a quarter of a megabyte waits to be looked at; writing waits for the client to read.
"""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from typing import cast

from service.sandbox.tls import Tls

_READ_AHEAD = 256 * 1024  # octets that may wait unread
_HANDSHAKE_SECONDS = 30.0


class Gone(Exception):
    """The client left, or the line broke; nothing more can be said."""


class TooLong(Exception):
    """The line was longer than allowed; it was read to its end and thrown away."""


class Wire(asyncio.Protocol):
    """What a dialogue sees of its connection."""

    def __init__(self, serve: Callable[["Wire"], Awaitable[None]]) -> None:
        """`serve` is called with the wire once the connection stands."""
        self._serve = serve
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._changed = asyncio.Event()  # octets came, or the client left
        self._writable = asyncio.Event()
        self._writable.set()
        self._task: asyncio.Future[None] | None = None
        self.left = False  # the client is gone; what it sent before can still be read
        self.tls: Tls | None = None

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the dialogue."""
        self._transport = cast("asyncio.Transport", transport)  # create_server makes no other kind
        self._task = asyncio.ensure_future(self._serve(self))

    def data_received(self, data: bytes) -> None:
        """Keep what came, and stop reading while too much of it waits."""
        self._buffer += data if self.tls is None else self._opened(data, self.tls)
        if len(self._buffer) > _READ_AHEAD and self._transport is not None:
            self._transport.pause_reading()
        self._changed.set()

    def eof_received(self) -> bool:
        """Close when the client closes: half-open sessions are of no use to a mail client."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake whoever waits."""
        self.left = True
        self._changed.set()
        self._writable.set()

    def pause_writing(self) -> None:
        """The client does not read."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._writable.set()

    # What the dialogue calls

    @property
    def client(self) -> str:
        """The client's IP address."""
        peer = self._open_transport.get_extra_info("peername")
        return str(peer[0]) if peer else "unknown"

    async def line(self, *, limit: int) -> bytes:
        """Return the next line with its line feed. Raises TooLong beyond `limit` octets, and Gone."""
        too_long = False
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            if len(self._buffer) > limit:
                self._buffer.clear()
                too_long = True
            searched = len(self._buffer)
            await self._more()
        if too_long or end >= limit:
            del self._buffer[: end + 1]
            raise TooLong
        return self._take(end + 1)

    async def piece(self, *, most: int) -> bytes:
        """Return what is there, at least one octet and at most `most`. Raises Gone."""
        while not self._buffer:
            await self._more()
        return self._take(most)

    def unread(self, octets: bytes) -> None:
        """Put back what was read too far."""
        self._buffer[:0] = octets

    async def send(self, octets: bytes) -> None:
        """Write, and wait while the client is slow to read. Raises Gone."""
        if self.left or self._open_transport.is_closing():
            raise Gone
        self._open_transport.write(octets if self.tls is None else self.tls.seal(octets))
        await self._writable.wait()

    async def upgrade(self, tls: Tls) -> None:
        """Change to TLS. Raises Gone where the handshake fails."""
        self._buffer.clear()
        self.tls = tls
        try:
            async with asyncio.timeout(_HANDSHAKE_SECONDS):
                while not tls.ready:
                    if self.left:
                        raise Gone
                    self._changed.clear()
                    self._open_transport.resume_reading()
                    await self._changed.wait()
        except TimeoutError:
            raise Gone from None

    async def client_leaves(self, *, within: float) -> bool:
        """Wait until the client closes, `within` seconds at most; say whether it did."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while not self.left:
                    self._changed.clear()
                    await self._changed.wait()
        return self.left

    def close(self) -> None:
        """Close after what was written has gone out."""
        if self._transport is None:
            return
        if self.tls is not None and self.tls.ready and not self._transport.is_closing():
            self._transport.write(self.tls.goodbye())
        self._transport.close()

    def hang_up(self) -> None:
        """Close at once and without a word, not even TLS's."""
        if self._transport is not None:
            self._transport.abort()

    def reset(self) -> None:
        """Close with a TCP reset."""
        line = self._open_transport.get_extra_info("socket")
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._open_transport.abort()

    async def ended(self) -> None:
        """Wait until the dialogue has come to its end."""
        if self._task is not None:
            await asyncio.wait([self._task])

    @property
    def _open_transport(self) -> asyncio.Transport:
        if self._transport is None:
            raise Gone
        return self._transport

    def _opened(self, data: bytes, tls: Tls) -> bytes:
        """Return what TLS octets say; a handshake goes on, and what breaks TLS ends the connection."""
        transport = self._open_transport
        try:
            said = tls.receive(data)
        except ssl.SSLError:
            transport.write(tls.pending())  # the alert
            transport.close()
            return b""
        if answer := tls.pending():
            transport.write(answer)
        if tls.closed:
            transport.close()
        return said

    def _take(self, octets: int) -> bytes:
        taken = bytes(self._buffer[:octets])
        del self._buffer[:octets]
        return taken

    async def _more(self) -> None:
        if self.left:
            raise Gone
        self._changed.clear()
        self._open_transport.resume_reading()
        await self._changed.wait()
