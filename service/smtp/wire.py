"""The connection: commands out, replies in, every octet accounted for.

`Wire` is aiosmtplib's protocol (connection, STARTTLS, pausing of writes, the guard against
control characters in commands) with the framing of replies replaced. The library's own
framing loses what the ledger needs: it drops octets that nobody asked for, returns a reply
whose lines disagree as one of its lines, and reads `2_0 ok` as 20.

The rule is a count. Each command, and the connection itself, makes the peer *owe* one reply.
What arrives while something is owed is that reply; what arrives while nothing is owed is
*unasked*: it is kept, written into the transcript, and looked at before the next octet of
ours leaves. A reply with something unasked behind it is not trusted (`PeerGarbled`): nobody
can know which of the two was meant. The exception is a 421, which RFC 5321 §3.8 lets a
server say at any time: the reply in front of it counts, and the session ends.

Because replies wait in a queue, several commands may be sent before the first reply is read
(RFC 2920); the count needs no change for that.

Once framing is broken or the connection is gone, that stays so: every later read raises.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from datetime import UTC, datetime
from typing import Final, cast

from aiosmtplib import SMTPResponseException, SMTPServerDisconnected, SMTPTimeoutError
from aiosmtplib.protocol import SMTPProtocol
from aiosmtplib.response import SMTPResponse

from service.smtp.faults import PeerGarbled, PeerLost, PeerRefused, PeerSilent, SmtpFault
from service.smtp.phase import Phase
from service.smtp.reply import BadReply, Reply, ReplyLine
from service.smtp.transcript import Strikeout, Transcript

# Microsoft sends replies of 2 kB on one line, RFC 5321 §4.5.3.1.5 expects 512 octets.
LINE_OCTETS: Final = 8_192
REPLY_OCTETS: Final = 32_768
# A peer that talks without being asked is cut off after so many replies.
UNASKED_REPLIES: Final = 8
# Between the network's buffer and us lies TLS, which does not say when it is empty.
_FLUSH_POLL: Final = 0.01


class _BadFraming(Exception):
    """The octets are no replies. The arguments are the fault's code and what was seen."""


class Wire(SMTPProtocol):
    """One connection to one peer.

    `phase` and `transcript` are set by whoever leads the dialogue: they say where we are when
    octets arrive or something breaks.
    """

    def __init__(self, transcript: Transcript, strikeout: Strikeout) -> None:
        super().__init__(loop=asyncio.get_running_loop())
        self.phase = Phase.CONNECT
        self.transcript = transcript
        self.arrived_at = datetime.now(UTC)  # when the last octets came
        self._strikeout = strikeout
        self._network: asyncio.Transport | None = None  # below TLS
        self._octets = bytearray()  # received, not yet a whole line
        self._lines: list[str] = []  # of the reply that is being received
        self._lines_octets = 0
        self._owed = 1  # the greeting
        self._replies: deque[Reply] = deque()  # owed ones, not yet read
        self._unasked: list[Reply] = []
        self._broken: _BadFraming | None = None
        self._loss: str | None = None  # how the connection ended
        self._moved = asyncio.Event()  # octets came, there is room to write, or it is over
        self._gone = asyncio.Event()  # the transport is closed
        self._last: Reply | None = None

    # What the loop tells us.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start on a fresh connection.

        With a limit of nothing, writing pauses until the kernel has all of it: the dot is
        not sent while content still waits in this process.
        """
        super().connection_made(transport)
        self._network = _as_transport(transport)
        self._network.set_write_buffer_limits(high=0)

    def data_received(self, data: bytes) -> None:
        """Take octets apart into lines and replies, in the order in which they came."""
        self.arrived_at = datetime.now(UTC)
        self._moved.set()
        if self._broken:
            return
        self._octets += data
        try:
            while (end := self._octets.find(b"\n")) >= 0:
                line = bytes(self._octets[: end + 1])
                del self._octets[: end + 1]
                self._line_received(line)
            self._check_length(self._octets)
        except _BadFraming as broken:
            self._broken = broken
            self._octets.clear()
            self.transcript.note(self.phase, f"not a reply: {broken.args[1]}")

    def eof_received(self) -> bool:
        """Note that the peer has said its last word; the transport closes."""
        self._lose("the peer closed the connection")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the connection is gone, and wake whoever waits."""
        super().connection_lost(exc)
        self._lose(f"the connection broke: {type(exc).__name__}" if exc else "the connection was closed")
        self._gone.set()

    def resume_writing(self) -> None:
        """Note that the network takes octets again."""
        super().resume_writing()
        self._moved.set()

    def _line_received(self, line: bytes) -> None:
        self._check_length(line)
        text = line.rstrip(b"\r\n").decode("utf-8", "replace")
        text = text[:4] + self._strikeout(text[4:])
        self.transcript.peer_said(self.phase, text)
        try:
            last = ReplyLine.parse(text).last
        except BadReply as bad:
            raise _BadFraming("bad_digits", bad.reason) from bad
        self._lines.append(text)
        self._lines_octets += len(line)
        if self._lines_octets > REPLY_OCTETS:
            raise _BadFraming("reply_too_long", f"a reply of more than {REPLY_OCTETS:,} octets")
        if last:
            self._reply_received()

    def _check_length(self, line: bytes | bytearray) -> None:
        if len(line) > LINE_OCTETS:
            raise _BadFraming("line_too_long", f"a line of more than {LINE_OCTETS:,} octets")

    def _reply_received(self) -> None:
        try:
            reply = Reply.of_lines(self._lines)
        except BadReply as bad:
            raise _BadFraming("mixed_codes", bad.reason) from bad
        self._lines, self._lines_octets = [], 0
        if self._owed:
            self._owed -= 1
            self._replies.append(reply)
        elif len(self._unasked) < UNASKED_REPLIES:
            self._unasked.append(reply)
        else:
            raise _BadFraming("unexpected_octets", "replies that nobody asked for, without an end")

    def _lose(self, how: str) -> None:
        if self._loss is None:
            self._loss = how
            self.transcript.note(self.phase, how)
        self._moved.set()

    # What the dialogue asks for.

    @property
    def secure(self) -> bool:
        """Whether TLS is on."""
        return self._over_ssl

    async def ask(self, command: str, *, within: float) -> Reply:
        """Send one command and wait at most `within` seconds for its reply.

        Raises a fault when something unasked lies in front of the command, or none or no
        usable reply comes. A command with a control character is a ValueError of the library.
        """
        self.raise_unasked()
        self.transcript.we_said(self.phase, command)
        self._owed += 1
        try:
            await self.execute_command(command.encode(), timeout=within)
        except SMTPServerDisconnected:
            raise self._lost() from None
        return self._reply_just_read()

    async def upgrade(self, context: ssl.SSLContext, *, name: str, within: float) -> Reply:
        """Ask for STARTTLS and shake hands; a reply other than 220 is given back as it is.

        Octets behind the 220 would be read as if they had come through TLS (RFC 3207 §6):
        they are a fault. Raises `ssl.SSLError` when the handshake fails.
        """
        self.raise_unasked()
        self.transcript.we_said(self.phase, "STARTTLS")
        self._owed += 1
        try:
            await self.start_tls(context, name, within)
        except SMTPResponseException:
            return self._reply_just_read()
        except SMTPTimeoutError:
            raise self._silent(within) from None
        except SMTPServerDisconnected as lost:
            self._lose("the connection ended in the TLS handshake")
            raise self._lost() from lost
        if self.transport is None or self.transport.get_extra_info("ssl_object") is None:
            # asyncio calls a handshake done when the connection ends quietly in the middle of it.
            self._lose("the connection ended in the TLS handshake")
            raise self._lost()
        # One, not nothing: asyncio's TLS calls a buffer full that holds as much as its limit.
        _as_transport(self.transport).set_write_buffer_limits(high=1, low=0)
        return self._reply_just_read()

    async def read_response(self, timeout: float | None = None) -> SMTPResponse:
        """Read a reply for the library's own procedures."""
        assert timeout is not None
        reply = await self.read_reply(within=timeout)
        if self.phase is Phase.STARTTLS:
            self.raise_unasked()  # before the handshake: not even a farewell may cross into TLS
        self._last = reply
        return SMTPResponse(reply.code, reply.text)

    async def read_reply(self, *, within: float) -> Reply:
        """Wait at most `within` seconds for the next reply that is owed.

        Raises `PeerSilent`, `PeerLost` or `PeerGarbled`; the last one also when something
        unasked stands behind the reply, which is then in the fault.
        """
        try:
            async with asyncio.timeout(within):
                while not (self._replies or self._broken or self._loss):
                    await self._movement()
        except TimeoutError:
            raise self._silent(within) from None
        if not self._replies:
            raise self._garbled_by_framing() if self._broken else self._lost()
        reply = self._replies.popleft()
        # A 3yz is not an end: something of ours follows, and what is unasked is looked at before it.
        if reply.intermediate() or self._owed or self._farewell():
            return reply
        if self._anything_unasked():
            raise self._garbled(
                "unexpected_octets", "Octets that nobody asked for stand behind a reply.", reply
            )
        return reply

    async def send(self, piece: bytes, *, stall: float) -> None:
        """Send a piece of content; returns early when something unasked came.

        `stall` is how long the network may take nothing, in seconds.
        """
        try:
            self.write(piece)
        except SMTPServerDisconnected:
            self.raise_unasked()
            raise self._lost() from None
        await asyncio.sleep(0)  # writing is no reason not to read what the peer says meanwhile
        while self._paused and not self._interrupted():
            try:
                async with asyncio.timeout(stall):
                    await self._movement()
            except TimeoutError:
                raise self._silent(stall, did="take content") from None

    async def flush(self, *, stall: float) -> None:
        """Wait until the kernel has all that was sent; returns early when something unasked came."""
        assert self._network is not None
        if not self._network.get_write_buffer_size():
            return
        try:
            async with asyncio.timeout(stall):
                # Nobody sets an event when the buffer below TLS is empty.
                while self._network.get_write_buffer_size() and not self._interrupted():  # noqa: ASYNC110
                    await asyncio.sleep(_FLUSH_POLL)
        except TimeoutError:
            raise self._silent(stall, did="take content") from None

    def send_dot(self) -> None:
        """End the content. When this raises, no octet of the dot was sent."""
        self.raise_unasked()
        try:
            self.write(b".\r\n")
        except SMTPServerDisconnected:
            raise self._lost() from None
        self._owed += 1
        self.phase = Phase.DOT
        self.transcript.we_said(self.phase, ".")

    async def listen(self) -> None:
        """Let the loop hand over what has arrived already."""
        # The first turn may have polled the sockets before we came; the second has not.
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    def raise_unasked(self) -> None:
        """Raise for anything that came without being asked, the end of the connection included.

        A refusal in the middle of the content is the peer's answer to the message, said early
        (552 too large, 451 …), and is kept as such. A 421 is the peer's farewell.
        """
        first = self._unasked[0] if self._unasked else None
        if first is not None and first.code == 421:
            raise PeerRefused("closing", phase=self.phase, detail="The peer ends the session.", reply=first)
        if first is not None and self.phase is Phase.BODY and (first.transient() or first.permanent()):
            detail = "The peer refused the message before its end."
            raise PeerRefused("refused_in_content", phase=self.phase, detail=detail, reply=first)
        if first is not None:
            raise self._garbled("early_reply", "The peer answered before it was asked.", first)
        if self._broken:
            raise self._garbled_by_framing()
        if self._anything_unasked():
            raise self._garbled("unexpected_octets", "The peer sent octets before it was asked.")
        if self._loss:
            raise self._lost()

    @property
    def quiet(self) -> bool:
        """Whether the connection stands and nothing unasked has come."""
        return not self._interrupted()

    async def close(self, *, within: float) -> None:
        """Close in good order, TLS included; cut off after `within` seconds."""
        if self.transport is not None:
            self.transport.close()
        try:
            async with asyncio.timeout(within):
                await self._gone.wait()
        except TimeoutError:
            self.abort()

    def abort(self) -> None:
        """Cut the connection now. What the kernel has, it may still deliver."""
        if self._loss is None:
            self._loss = "we closed the connection"
        if self.transport is not None:
            _as_transport(self.transport).abort()

    async def _movement(self) -> None:
        self._moved.clear()
        await self._moved.wait()

    def _reply_just_read(self) -> Reply:
        assert self._last is not None
        return self._last

    def _interrupted(self) -> bool:
        return self._loss is not None or self._anything_unasked()

    def _anything_unasked(self) -> bool:
        return bool(self._unasked or self._broken or (not self._owed and (self._octets or self._lines)))

    def _farewell(self) -> bool:
        """Whether all that came unasked is one whole 421."""
        whole = not (self._octets or self._lines or self._broken)
        return whole and len(self._unasked) == 1 and self._unasked[0].code == 421

    def _lost(self) -> SmtpFault:
        how = self._loss or "the connection is closed"
        return PeerLost("connection_lost", phase=self.phase, detail=f"{how[0].upper()}{how[1:]}.")

    def _silent(self, seconds: float, *, did: str = "answer") -> SmtpFault:
        detail = f"The peer did not {did} within {seconds:g} s."
        self.transcript.note(self.phase, detail.rstrip("."))
        return PeerSilent("timeout", phase=self.phase, detail=detail)

    def _garbled(self, code: str, detail: str, reply: Reply | None = None) -> SmtpFault:
        return PeerGarbled(code, phase=self.phase, detail=detail, reply=reply)

    def _garbled_by_framing(self) -> SmtpFault:
        assert self._broken is not None
        code, seen = self._broken.args
        return self._garbled(code, f"The peer sent what is not a reply: {seen}.")


def _as_transport(transport: asyncio.BaseTransport | None) -> asyncio.Transport:
    """Name the type that the library leaves open; uvloop's transports have the methods, not the base class."""
    return cast("asyncio.Transport", transport)
