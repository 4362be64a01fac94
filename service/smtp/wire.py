"""The connection: commands out, replies in, every octet accounted for.

`Wire` is aiosmtplib's protocol (connection, STARTTLS, pausing of writes) with commands and the framing of
replies replaced. The library's own framing loses what the ledger needs: it drops octets that nobody asked for,
returns a reply whose lines disagree as one of its lines, and reads `2_0 ok` as 20.

The rule is a queue. Each command, and the connection itself, makes the peer *owe* one reply, in this order
(RFC 2920 §3.1), whether the commands leave one by one or in one write. The queue holds the phase of each command
and the transcript of its transaction, so that at every octet it is known what it answers. What arrives while
nothing is owed is *unasked*: it is kept, written into the transcript, and looked at before the next octet of
ours leaves. A last reply with something unasked behind it is not trusted (`PeerGarbled`): nobody can know which
of the two was meant. The exception is a 421, which RFC 5321 §3.8 lets a server say at any time: the reply in
front of it counts, and the session ends.

Once framing is broken or the connection is gone, that stays so: every later read raises.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, cast

from aiosmtplib import SMTPResponseException, SMTPServerDisconnected, SMTPTimeoutError
from aiosmtplib.protocol import SMTPProtocol
from aiosmtplib.response import SMTPResponse

from service.smtp.content import PIECE_OCTETS
from service.smtp.faults import PeerGarbled, PeerLost, PeerRefused, PeerSilent, SmtpFault
from service.smtp.framing import BadFraming, Framing
from service.smtp.phase import Phase
from service.smtp.reply import Reply
from service.smtp.transcript import Strikeout, Transcript
from service.smtp.watch import Watch

# A peer that talks without being asked is cut off after so many replies.
UNASKED_REPLIES: Final = 8
# Between the network's buffer and us lies TLS, which does not say when it is empty.
_FLUSH_POLL: Final = 0.01
_LOOK: Final = int(socket.MSG_PEEK | socket.MSG_DONTWAIT)
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f]")

#: A command: its phase, and its text without the line end.
Command = tuple[Phase, str]


class Wire(SMTPProtocol):
    """One connection to one peer.

    `phase` and `transcript` are set by whoever leads the dialogue: `phase` is the one whose reply is awaited, and
    says in a fault where we were; what nobody asked for is written into `transcript`.
    """

    def __init__(self, transcript: Transcript, strikeout: Strikeout, connection: socket.socket) -> None:
        super().__init__(loop=asyncio.get_running_loop())
        self.phase = Phase.CONNECT
        self.transcript = transcript
        self.arrived_at = datetime.now(UTC)  # when the reply came that was read last
        self._framing = Framing(strikeout)
        self._connection = connection  # only to look at
        self._network: asyncio.Transport | None = None  # below TLS
        self._owed: deque[tuple[Phase, Transcript]] = deque([(Phase.GREETING, transcript)])
        self._answered = self._owed[0]  # what the last reply was for
        self._replies: deque[tuple[Reply, datetime]] = deque()  # owed ones, not yet read
        self._unasked: list[Reply] = []
        self._broken: BadFraming | None = None
        self._loss: str | None = None  # how the connection ended
        self._watch = Watch()  # for something to move: octets, room to write, the end
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
        if self._broken is None:
            now = datetime.now(UTC)
            try:
                for line, reply in self._framing.take(data):
                    phase, transcript = self._place()
                    transcript.peer_said(phase, line, at=now)
                    if reply is not None:
                        self._reply_received(reply, now)
            except BadFraming as broken:
                self._broken = broken
                self._framing.clear()
                phase, transcript = self._place()
                transcript.note(phase, f"not a reply: {broken.seen}")
        self._watch.moved()

    def eof_received(self) -> bool:
        """Note that the peer has said its last word; the transport closes."""
        self._lose("the peer closed the connection")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the connection is gone, and wake whoever waits."""
        super().connection_lost(exc)
        self._lose(f"the connection broke: {type(exc).__name__}" if exc else "the connection was closed")
        self._watch.end()
        self._gone.set()

    def resume_writing(self) -> None:
        """Note that the network takes octets again."""
        super().resume_writing()
        self._watch.moved()

    def _place(self) -> tuple[Phase, Transcript]:
        """Say what the octets belong to that come now."""
        if self._owed:
            return self._owed[0]
        # Whoever leads the dialogue has not come to the last reply yet.
        return self._answered if self._replies else (self.phase, self.transcript)

    def _reply_received(self, reply: Reply, at: datetime) -> None:
        if self._owed:
            self._answered = self._owed.popleft()
            self._replies.append((reply, at))
        elif len(self._unasked) < UNASKED_REPLIES:
            self._unasked.append(reply)
        else:
            raise BadFraming("unexpected_octets", "replies that nobody asked for, without an end")

    def _lose(self, how: str) -> None:
        if self._loss is None:
            self._loss = how
            phase, transcript = self._place()
            transcript.note(phase, how)
        self._watch.moved()

    # What the dialogue asks for.

    @property
    def secure(self) -> bool:
        """Whether TLS is on."""
        return self._over_ssl

    async def ask(self, command: str, *, within: float) -> Reply:
        """Send one command and wait at most `within` seconds for its reply.

        Raises what `say` and `read_reply` raise.
        """
        self.say([(self.phase, command)], self.transcript)
        return await self.read_reply(within=within)

    def say(self, commands: Sequence[Command], transcript: Transcript) -> None:
        """Send commands in one write; a reply is owed for each of them.

        Raises a fault when something unasked lies in front of them, and ValueError for a command with a control
        character: then none of them was sent.
        """
        self.raise_unasked()
        self._send_lines(_as_octets(commands), commands, transcript)

    async def upgrade(self, context: ssl.SSLContext, *, name: str, within: float) -> Reply:
        """Ask for STARTTLS and shake hands; a reply other than 220 is given back as it is.

        Octets behind the 220 would be read as if they had come through TLS (RFC 3207 §6):
        they are a fault. Raises `ssl.SSLError` when the handshake fails.
        """
        self.raise_unasked()
        self._now_owed([(self.phase, "STARTTLS")], self.transcript)
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
        unasked stands behind the last reply, which is then in the fault.
        """
        if not self._replies:
            deadline = self._loop.time() + within
            while not (self._replies or self._broken or self._loss):
                if not await self._watch.wait(until=deadline):
                    raise self._silent(within)
            if not self._replies:
                raise self._garbled_by_framing() if self._broken else self._lost()
        reply, self.arrived_at = self._replies.popleft()
        # A 3yz is not an end: something of ours follows, and what is unasked is looked at before it.
        if self._replies or self._owed or reply.intermediate() or self._farewell():
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
        # Writing is no reason not to read what the peer says meanwhile, nor to keep others waiting.
        await (self.listen() if len(piece) < PIECE_OCTETS else asyncio.sleep(0))
        while self._paused and not self._interrupted():
            if not await self._watch.wait(until=self._loop.time() + stall):
                raise self._silent(stall, did="take content")

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

    def send_dot(self, behind: Sequence[Command] = (), transcript: Transcript | None = None) -> None:
        """End the content, with the commands of another transaction behind the dot.

        When this raises, no octet of the dot was sent.
        """
        self.raise_unasked()
        octets = b".\r\n" + _as_octets(behind)
        self._send_lines(octets, [(Phase.DOT, ".")], self.transcript)
        self.phase = Phase.DOT
        if transcript is not None:
            self._now_owed(behind, transcript)

    async def listen(self) -> None:
        """Let the loop hand over what has arrived already.

        The loop hands over all that it reads at once, so what nobody has seen is in the kernel: where that has
        nothing, there is nothing to wait for.
        """
        if not self._readable():
            return
        # The first turn may have polled the sockets before we came; the second has not.
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    def raise_unasked(self) -> None:
        """Raise for anything that came without being asked, the end of the connection included.

        A refusal in the middle of the content is the peer's answer to the message, said early
        (552 too large, 451 …), and is kept as such. A 421 is the peer's farewell.
        """
        if not self._interrupted():
            return
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

    def _readable(self) -> bool:
        """Whether the kernel has octets for us, or the end of the connection."""
        if self.transport is None or self.transport.is_closing():
            return True  # the socket's number may be another's by now
        try:
            self._connection.recv(1, _LOOK)
        except BlockingIOError:
            return False
        except OSError:  # it broke; the loop will say how
            return True
        return True

    def _send_lines(self, octets: bytes, commands: Sequence[Command], transcript: Transcript) -> None:
        try:
            self.write(octets)
        except SMTPServerDisconnected:
            raise self._lost() from None
        self._now_owed(commands, transcript)

    def _now_owed(self, commands: Sequence[Command], transcript: Transcript) -> None:
        now = datetime.now(UTC)
        for phase, text in commands:
            transcript.we_said(phase, text, at=now)
            self._owed.append((phase, transcript))

    def _reply_just_read(self) -> Reply:
        assert self._last is not None
        return self._last

    def _interrupted(self) -> bool:
        return self._loss is not None or self._anything_unasked()

    def _anything_unasked(self) -> bool:
        if self._unasked or self._broken is not None:
            return True
        return not self._owed and self._framing.pending

    def _farewell(self) -> bool:
        """Whether all that came unasked is one whole 421."""
        whole = not (self._framing.pending or self._broken)
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
        return self._garbled(self._broken.code, f"The peer sent what is not a reply: {self._broken.seen}.")


def _as_octets(commands: Sequence[Command]) -> bytes:
    """Write commands as they travel. Raises ValueError for one with a control character."""
    for _, text in commands:
        if not text.isprintable() and _CONTROLS.search(text):
            raise ValueError("a command has a control character")
    return "".join([f"{text}\r\n" for _, text in commands]).encode()


def _as_transport(transport: asyncio.BaseTransport | None) -> asyncio.Transport:
    """Name the type that the library leaves open; uvloop's transports have the methods, not the base class."""
    return cast("asyncio.Transport", transport)
