"""One message's dialogue with the peer: MAIL, RCPT …, DATA, content, dot.

Where the peer offers PIPELINING (RFC 2920), MAIL, all RCPT and DATA leave in one write, and their replies are read
in order, each within the limit of its own command. Elsewhere each command waits for the reply to the one before.
Both ways make the same report of the same replies:

- MAIL refused: what is said to RCPT and DATA behind it are consequences. They stand in the transcript only.
- Some recipients refused: the others get the message.
- All recipients refused: so is DATA, and that is a consequence too; RSET, and the session goes on.
- A 354 though there is nobody to send to: RFC 2920 §3.1 has the client send a lone dot. We close the connection:
  no octet that could end a message ever leaves without the fence.
- DATA refused though recipients were accepted: `data_refused`, RSET.
- A 421: the session is over, whatever is said behind it.

A peer that says one reply too many or too few, or one that is no answer (a 2yz to DATA), has lost step with us.
When several commands were out, nobody knows then which reply was for which, and none of them is reported.

The commands may also have left behind the dot of the message before. When the session ends before the first of
their replies, the fault is `session_ended_behind`: the peer has no message, and that is nobody's fault.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from service.mail.address import Address
from service.smtp.content import NotCanonical, stuffed
from service.smtp.faults import ContentUnfit, PeerGarbled, PeerLost, PeerRefused, PeerSilent, SmtpFault
from service.smtp.parcel import Parcel, mail_command, rcpt_commands
from service.smtp.peer import Timeouts
from service.smtp.phase import Phase
from service.smtp.reply import Reply
from service.smtp.report import Report
from service.smtp.transcript import Transcript
from service.smtp.wire import Command, Wire

_LOST_STEP = frozenset({"unexpected_code", "unexpected_octets", "early_reply"})


class Transaction:
    """A transaction, and its report while it is being written."""

    def __init__(self, parcel: Parcel, *, wire: Wire, limits: Timeouts, transcript: Transcript) -> None:
        self.parcel = parcel
        self.transcript = transcript
        self.commands: list[Command] = []
        self.number = 0
        self.mail: Reply | None = None
        self.recipients: dict[Address, Reply] = {}
        self.data: Reply | None = None
        self.final: Reply | None = None
        self.fault: SmtpFault | None = None
        self.dot_sent = False
        self.fenced = False
        self.untouched = False
        self.behind = False  # the commands left behind the dot of the message before
        self.ended_behind = False  # and the session ended with that one
        self.replied_at: datetime | None = None
        self._wire = wire
        self._limits = limits
        self._together = False  # the commands leave in one write
        self._answers = 0  # read so far

    def prepare(self, extensions: Mapping[str, str]) -> None:
        """Write the commands. Raises `ExtensionMissing` where the peer does not offer what the message needs."""
        self.commands.append((Phase.MAIL, mail_command(self.parcel, extensions)))
        self.commands += [(Phase.RCPT, rcpt) for rcpt in rcpt_commands(self.parcel, extensions)]
        self.commands.append((Phase.DATA, "DATA"))
        self._together = "PIPELINING" in extensions
        if self.parcel.dsn is not None and "DSN" not in extensions:
            note = "the peer does not offer DSN: no reports are asked for"
            self.transcript.note(Phase.MAIL, note)

    async def begin(self) -> bool:
        """Name sender and recipients and ask for DATA. False when there is nothing to send content for."""
        self._wire.phase = Phase.MAIL
        if self._together and not self.behind:
            self._wire.say(self.commands, self.transcript)
        try:
            return await self._mail() and await self._rcpts() and await self._data()
        except PeerGarbled as fault:
            if self._together and fault.code in _LOST_STEP:
                self._forget_replies()
            raise

    async def rehearse(self) -> None:
        """Name sender and recipients, one by one, and take it back."""
        self._wire.phase = Phase.MAIL
        self._together = False
        # Where no recipient was accepted, the reset is done already.
        if await self._mail() and await self._rcpts():
            await self._reset()

    async def send_content(self) -> None:
        """Send all of the content, and see that nothing came in the meantime."""
        self._wire.phase = Phase.BODY
        self._wire.raise_unasked()
        try:
            for piece in stuffed(self.parcel.octets):
                await self._wire.send(piece, stall=self._limits.body)
                self._wire.raise_unasked()
        except NotCanonical as unfit:
            detail = "The content has a line end that is not CRLF."
            raise ContentUnfit("content_not_canonical", phase=Phase.BODY, detail=detail) from unfit
        await self._wire.flush(stall=self._limits.body)
        self._wire.raise_unasked()
        self.transcript.note(Phase.BODY, f"{len(self.parcel.octets):,} octets of content")

    def send_dot(self, following: Transaction | None) -> None:
        """End the content, with the commands of the next transaction behind the dot."""
        if following is None:
            self._wire.send_dot()
        else:
            self._wire.send_dot(following.commands, following.transcript)
            following.behind = True
        # The dot is out. From here a lost connection does not mean a lost message
        # (RFC 1047), so nothing below may turn silence into a refusal.
        self.dot_sent = True

    async def hear_out(self) -> None:
        """Wait for what becomes of the message."""
        reply = await self._wire.read_reply(within=self._limits.dot)
        if reply.intermediate():
            raise _unexpected(reply, Phase.DOT)
        self.final = reply
        self.replied_at = self._wire.arrived_at
        self._wire.phase = Phase.REPLY

    def end_behind(self) -> PeerLost:
        """Give the fault of a transaction whose session ended with the message before it."""
        self.ended_behind = True
        self.transcript.note(Phase.MAIL, "the session ended with the message before this one")
        detail = "The session ended with the message before; of this one the peer has seen commands at most."
        return PeerLost("session_ended_behind", phase=Phase.MAIL, detail=detail)

    def report(self, phase: Phase) -> Report:
        """Say what came of it."""
        return Report(
            phase=phase,
            mail=self.mail,
            recipients=self.recipients,
            data=self.data,
            final=self.final,
            fault=self.fault,
            dot_sent=self.dot_sent,
            fenced=self.fenced,
            untouched=self.untouched,
            transcript=self.transcript.as_json(),
            replied_at=self.replied_at,
            octets=len(self.parcel.octets),
            number=self.number,
            begun_behind=self.ended_behind,
        )

    async def _mail(self) -> bool:
        try:
            reply = await self._refusable()
        except PeerLost as lost:
            if self.behind:
                raise self.end_behind() from lost
            raise
        self.mail = reply
        _unless_closing(reply, Phase.MAIL)
        if not reply.positive():
            detail = "The peer refused the sender."
            self.fault = PeerRefused("mail_refused", phase=Phase.MAIL, detail=detail, reply=reply)
            await self._consequences()
        return reply.positive()

    async def _rcpts(self) -> bool:
        """Name each recipient; False when the peer accepted none."""
        for path in self.parcel.envelope.forward_paths:
            self.recipients[path] = reply = await self._refusable()
            _unless_closing(reply, Phase.RCPT)
        accepted = any(reply.positive() for reply in self.recipients.values())
        if not accepted:
            await self._consequences()
            await self._reset()
        return accepted

    async def _data(self) -> bool:
        """Ask to send content. Only a 354 is a yes; a 2yz means that we and the peer lost step."""
        reply = await self._answer()
        if reply.code == 354:
            self.data = reply
            return True
        if reply.positive() or reply.intermediate():
            raise _unexpected(reply, Phase.DATA)
        self.data = reply
        _unless_closing(reply, Phase.DATA)
        detail = "The peer refused DATA."
        self.fault = PeerRefused("data_refused", phase=Phase.DATA, detail=detail, reply=reply)
        await self._reset()
        return False

    async def _consequences(self) -> None:
        """Keep step behind a refusal: read the replies to what had been sent already.

        They say nothing new. Where the connection ends before them, or the peer waits for content, the session
        is over, and what is known of the message stands. Where they do not come, a reply is missing, and
        it may as well be the one to the command that seems to have been refused.
        """
        if not self._together:
            return
        refused_in, in_doubt = self._wire.phase, False
        try:
            while self._answers < len(self.commands):
                reply = await self._answer()
                phase = self._wire.phase
                _unless_closing(reply, phase)
                yes = reply.code == 354 if phase is Phase.DATA else reply.positive()
                if not yes and not (reply.transient() or reply.permanent()):
                    raise _unexpected(reply, phase)
                in_doubt = in_doubt or yes
            if in_doubt:
                self.transcript.note(self._wire.phase, "accepted behind a refusal: closed without content")
                self._wire.abort()
        except (PeerLost, PeerRefused):
            self._wire.abort()
        except PeerSilent:
            self._forget_replies()
            raise
        self._wire.phase = refused_in

    def _forget_replies(self) -> None:
        """Report none of the replies: nobody knows which was for which command. The transcript has them."""
        self.mail, self.recipients, self.data = None, {}, None

    async def _reset(self) -> None:
        """Clear the peer's buffers. Where that fails, the session ends; the report is complete.

        A peer that has lost step shows it here at the latest.
        """
        try:
            self._wire.say([(self._wire.phase, "RSET")], self.transcript)
            reply = await self._wire.read_reply(within=self._limits.rset)
            if reply.intermediate():
                raise _unexpected(reply, self._wire.phase)
        except SmtpFault as fault:
            if self._together and fault.code in _LOST_STEP:
                raise
            self._wire.abort()
        else:
            if not reply.positive():
                self._wire.abort()

    async def _refusable(self) -> Reply:
        """Hear the answer to the next command, a yes or a no."""
        reply = await self._answer()
        if reply.intermediate():
            raise _unexpected(reply, self._wire.phase)
        return reply

    async def _answer(self) -> Reply:
        """Hear the answer to the next command; it is said here where it has not been said."""
        phase, _ = command = self.commands[self._answers]
        self._wire.phase = phase
        if not self._together:
            self._wire.say([command], self.transcript)
        self._answers += 1
        return await self._wire.read_reply(within=getattr(self._limits, phase.word))


def _unless_closing(reply: Reply, phase: Phase) -> None:
    if reply.code == 421:
        raise PeerRefused("closing", phase=phase, detail="The peer ends the session.", reply=reply)


def _unexpected(reply: Reply, phase: Phase) -> SmtpFault:
    detail = f"A {reply.code} is no answer in phase {phase.word}."
    return PeerGarbled("unexpected_code", phase=phase, detail=detail, reply=reply)
