"""One SMTP session: opened once, carrying one message after another, honest about each.

`open_session` raises when there is no session. `Session.transmit` never raises for what the
peer or the network does: everything that happened to one message is in its `Report`, and
the report does not judge. Refusals are replies and stand in `mail`, `recipients`, `data` and
`final`. `fault` says why a transaction ended before its time; refused recipients and a
refusal after the dot are no faults, a refused MAIL or DATA is one, with the reply in it.

The dot is the border. Before it, whatever breaks, the peer has no message. The dot leaves
only when the peer said 354 and nothing else since, when the kernel has all of the content,
and when `before_dot` said yes. After it only a usable reply tells anything; without one,
`dot_sent` is true and `final` is None, and the peer may have the message or not (RFC 1047).

A session that broke, lost step or heard a 421 is not used again. A session that ended while
it was idle says so (`untouched`) before anything is sent: that is not the message's fault.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from service.mail.address import Address
from service.mail.envelope import Envelope
from service.smtp.content import NotCanonical, stuffed
from service.smtp.dsn import Dsn
from service.smtp.faults import (
    ContentUnfit,
    ExtensionMissing,
    PeerGarbled,
    PeerLost,
    PeerRefused,
    SmtpFault,
)
from service.smtp.opening import Opening, SessionFacts
from service.smtp.peer import Login, Peer, Timeouts, TlsMode
from service.smtp.phase import Phase
from service.smtp.reply import Reply
from service.smtp.transcript import Transcript

__all__ = ["Login", "Peer", "Report", "Session", "SessionFacts", "Timeouts", "TlsMode", "open_session"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came of one transaction. Nothing here is a judgement."""

    phase: Phase  # the furthest one reached
    mail: Reply | None
    recipients: Mapping[Address, Reply]  # those that were answered
    data: Reply | None
    final: Reply | None  # the reply to the dot
    fault: SmtpFault | None  # why the transaction ended before its time
    dot_sent: bool
    fenced: bool  # `before_dot` said no
    untouched: bool  # the session had ended before: nothing was sent, another one will do
    transcript: list[dict[str, str]]  # of this transaction, as the ledger keeps it
    replied_at: datetime | None  # when `final` came
    octets: int  # the size of the content, without stuffing

    @property
    def uncertain(self) -> bool:
        """Whether the dot was sent and no usable reply came (RFC 1047)."""
        return self.dot_sent and self.final is None

    @property
    def accepted(self) -> tuple[Address, ...]:
        """The recipients that the peer accepted at RCPT."""
        return tuple(path for path, reply in self.recipients.items() if reply.positive())


@dataclass(slots=True, kw_only=True)
class _Transaction:
    """A report while it is being written."""

    envelope: Envelope
    octets: bytes
    dsn: Dsn | None = None  # reports to ask for; None where the peer does not offer them
    parameters: str = ""  # of MAIL
    mail: Reply | None = None
    recipients: dict[Address, Reply] = field(default_factory=dict)
    data: Reply | None = None
    final: Reply | None = None
    fault: SmtpFault | None = None
    dot_sent: bool = False
    fenced: bool = False
    untouched: bool = False
    replied_at: datetime | None = None

    def report(self, phase: Phase, transcript: Transcript) -> Report:
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
            transcript=transcript.as_json(),
            replied_at=self.replied_at,
            octets=len(self.octets),
        )


class Session:
    """An open SMTP session. One transaction at a time."""

    def __init__(self, opening: Opening) -> None:
        self.facts: SessionFacts = opening.facts()
        self.messages = 0  # transactions begun so far
        self.idle_since = datetime.now(UTC)
        self._wire = opening.wire
        self._limits = opening.peer.timeouts
        self._extensions = opening.extensions
        self._wire.transcript = Transcript()

    def __repr__(self) -> str:
        state = "usable" if self.usable else "not usable"
        return f"<Session {self.facts.id} {self.facts.host}:{self.facts.port}, {self.messages} messages, {state}>"

    @property
    def usable(self) -> bool:
        """Whether another transaction may be tried: nothing broke, and the peer is still there.

        Whatever breaks also ends the connection, so there is nothing else to remember.
        """
        return self._wire.quiet

    async def transmit(
        self,
        envelope: Envelope,
        octets: bytes,
        *,
        smtputf8: bool,
        eightbit: bool,
        before_dot: Callable[[], Awaitable[bool]],
        dsn: Dsn | None = None,
    ) -> Report:
        """Carry one message to the peer, and report what happened.

        `octets` is the content with CRLF line ends, not dot-stuffed. `smtputf8` and
        `eightbit` say what it needs of the peer (RFC 6531, RFC 6152). `before_dot` is awaited
        when all of the content has left and only the dot is missing: False means that the
        message must not be sent now. What `before_dot` raises is passed on; no dot is sent.
        `dsn` asks for reports (RFC 3461); a peer that does not offer them gets the message
        without, and the transcript says so.
        """
        transaction = _Transaction(envelope=envelope, octets=octets, dsn=dsn)
        return await self._reported(
            transaction,
            self._converse(transaction, smtputf8=smtputf8, eightbit=eightbit, before_dot=before_dot),
        )

    async def rehearse(self, envelope: Envelope) -> Report:
        """Name sender and recipients as for a message, then take it back: MAIL, RCPT …, RSET.

        Nothing is sent. Where the peer does not take the RSET, the session is not usable any more.
        """
        transaction = _Transaction(envelope=envelope, octets=b"")
        return await self._reported(transaction, self._rehearse(transaction))

    async def _reported(self, transaction: _Transaction, dialogue: Coroutine[None, None, None]) -> Report:
        """Lead a dialogue to its end, and report how it went."""
        try:
            await dialogue
        except SmtpFault as fault:
            transaction.fault = fault
            self.abort()
        except BaseException:  # also cancellation: a session in mid-dialogue serves nobody
            self.abort()
            raise
        transcript, self._wire.transcript = self._wire.transcript, Transcript()
        self.idle_since = datetime.now(UTC)
        return transaction.report(self._wire.phase, transcript)

    async def probe(self) -> Reply:
        """Ask NOOP, to see whether the peer is still there. Raises an `SmtpFault`."""
        self._wire.phase = Phase.CONNECT
        try:
            reply = await self._wire.ask("NOOP", within=self._limits.rset)
        except BaseException:
            self.abort()
            raise
        self._wire.transcript = Transcript()
        self.idle_since = datetime.now(UTC)
        if reply.code == 421:
            self.abort()
        return reply

    async def close(self) -> None:
        """Say QUIT and hang up, in no more than twice the limit of `quit`. Never raises."""
        if self.usable:
            self._wire.phase = Phase.QUIT
            with contextlib.suppress(SmtpFault):  # we are leaving anyway
                await self._wire.ask("QUIT", within=self._limits.quit)
        await self._wire.close(within=self._limits.quit)

    def abort(self) -> None:
        """Hang up now, without a word."""
        self._wire.abort()

    async def _converse(
        self,
        transaction: _Transaction,
        *,
        smtputf8: bool,
        eightbit: bool,
        before_dot: Callable[[], Awaitable[bool]],
    ) -> None:
        """Lead one dialogue: MAIL, RCPT …, DATA, content, dot. Returns early on a refusal."""
        await self._begin(transaction)
        self._wire.phase = Phase.MAIL
        fault = self._unsuited(transaction, smtputf8=smtputf8, eightbit=eightbit)
        if fault is not None:
            transaction.fault = fault
            return
        self.messages += 1
        if not await self._mail(transaction) or not await self._rcpts(transaction):
            return
        if not await self._data(transaction):
            return
        await self._content(transaction)
        if not await before_dot():
            transaction.fenced = True
            self._wire.transcript.note(Phase.BODY, "told not to finish: closed without the dot")
            self.abort()
            return
        await self._dot(transaction)

    async def _rehearse(self, transaction: _Transaction) -> None:
        """Lead a dialogue that stops before DATA."""
        await self._begin(transaction)
        self._wire.phase = Phase.MAIL
        transaction.fault = self._unsuited(transaction, smtputf8=False, eightbit=False)
        if transaction.fault is not None:
            return
        self.messages += 1
        # Where no recipient was accepted, the reset is done already.
        if await self._mail(transaction) and await self._rcpts(transaction):
            await self._reset()

    async def _begin(self, transaction: _Transaction) -> None:
        """See whether the session survived its rest."""
        self._wire.phase = Phase.CONNECT
        await self._wire.listen()
        if self.usable:
            return
        transaction.untouched = True
        try:
            self._wire.raise_unasked()
            reply = None
        except SmtpFault as fault:
            reply = fault.reply
        detail = "The session had ended while it was idle."
        raise PeerLost("session_expired", phase=Phase.CONNECT, detail=detail, reply=reply)

    def _unsuited(self, transaction: _Transaction, *, smtputf8: bool, eightbit: bool) -> SmtpFault | None:
        """Choose the parameters of MAIL; say which extension is missing, before anything is sent."""
        extensions, size = self._extensions, len(transaction.octets)
        parameters = ""
        if "SIZE" in extensions:
            parameters += f" SIZE={size}"
            if 0 < _number(extensions["SIZE"]) < size:
                detail = f"The message has {size:,} octets; the peer takes {_number(extensions['SIZE']):,}."
                return ExtensionMissing("size_exceeded", phase=Phase.MAIL, detail=detail)
        if eightbit:
            if "8BITMIME" not in extensions:
                detail = "The message has 8-bit content; the peer does not offer 8BITMIME."
                return ExtensionMissing("eightbitmime_not_offered", phase=Phase.MAIL, detail=detail)
            parameters += " BODY=8BITMIME"
        if smtputf8 or transaction.envelope.smtputf8:
            if "SMTPUTF8" not in extensions:
                detail = "The message needs SMTPUTF8; the peer does not offer it."
                return ExtensionMissing("smtputf8_not_offered", phase=Phase.MAIL, detail=detail)
            parameters += " SMTPUTF8"
        transaction.parameters = parameters + self._reports(transaction)
        return None

    def _reports(self, transaction: _Transaction) -> str:
        """Write what MAIL says of reports; nothing where the peer does not offer them."""
        if transaction.dsn is None:
            return ""
        if "DSN" in self._extensions:
            return transaction.dsn.of_mail()
        transaction.dsn = None
        self._wire.transcript.note(Phase.MAIL, "the peer does not offer DSN: no reports are asked for")
        return ""

    async def _mail(self, transaction: _Transaction) -> bool:
        path = transaction.envelope.reverse_path
        command = f"MAIL FROM:<{path if path is not None else ''}>{transaction.parameters}"
        transaction.mail = reply = await self._ask(command, within=self._limits.mail)
        _unless_closing(reply, Phase.MAIL)
        if not reply.positive():
            detail = "The peer refused the sender."
            transaction.fault = PeerRefused("mail_refused", phase=Phase.MAIL, detail=detail, reply=reply)
        return reply.positive()

    async def _rcpts(self, transaction: _Transaction) -> bool:
        """Name each recipient; False when the peer accepted none."""
        self._wire.phase = Phase.RCPT
        for path in transaction.envelope.forward_paths:
            reports = "" if transaction.dsn is None else transaction.dsn.of_rcpt(path)
            reply = await self._ask(f"RCPT TO:<{path}>{reports}", within=self._limits.rcpt)
            transaction.recipients[path] = reply
            _unless_closing(reply, Phase.RCPT)
        accepted = any(reply.positive() for reply in transaction.recipients.values())
        if not accepted:
            await self._reset()
        return accepted

    async def _data(self, transaction: _Transaction) -> bool:
        """Ask to send content. Only a 354 is a yes; a 2yz means that we and the peer lost step."""
        self._wire.phase = Phase.DATA
        reply = await self._wire.ask("DATA", within=self._limits.data)
        if reply.code == 354:
            transaction.data = reply
            return True
        if reply.positive() or reply.intermediate():
            raise _unexpected(reply, Phase.DATA)
        transaction.data = reply
        _unless_closing(reply, Phase.DATA)
        detail = "The peer refused DATA."
        transaction.fault = PeerRefused("data_refused", phase=Phase.DATA, detail=detail, reply=reply)
        await self._reset()
        return False

    async def _content(self, transaction: _Transaction) -> None:
        """Send all of the content, and see that nothing came in the meantime."""
        self._wire.phase = Phase.BODY
        self._wire.raise_unasked()
        try:
            for piece in stuffed(transaction.octets):
                await self._wire.send(piece, stall=self._limits.body)
                self._wire.raise_unasked()
        except NotCanonical as unfit:
            detail = "The content has a line end that is not CRLF."
            raise ContentUnfit("content_not_canonical", phase=Phase.BODY, detail=detail) from unfit
        await self._wire.flush(stall=self._limits.body)
        self._wire.raise_unasked()
        self._wire.transcript.note(Phase.BODY, f"{len(transaction.octets):,} octets of content")

    async def _dot(self, transaction: _Transaction) -> None:
        """End the content, and wait for what becomes of the message."""
        # `before_dot` took its time: the peer may have spoken, or left.
        await self._wire.listen()
        self._wire.send_dot()
        # The dot is out. From here a lost connection does not mean a lost message
        # (RFC 1047), so nothing below may turn silence into a refusal.
        transaction.dot_sent = True
        reply = await self._wire.read_reply(within=self._limits.dot)
        if reply.intermediate():
            raise _unexpected(reply, Phase.DOT)
        transaction.final = reply
        transaction.replied_at = self._wire.arrived_at
        self._wire.phase = Phase.REPLY
        if reply.code == 421:
            self.abort()

    async def _reset(self) -> None:
        """Clear the peer's buffers. Where that fails, the session ends; the report is complete."""
        try:
            reply = await self._wire.ask("RSET", within=self._limits.rset)
        except SmtpFault:
            self.abort()
        else:
            if not reply.positive():
                self.abort()

    async def _ask(self, command: str, *, within: float) -> Reply:
        reply = await self._wire.ask(command, within=within)
        if reply.intermediate():
            raise _unexpected(reply, self._wire.phase)
        return reply


async def open_session(peer: Peer, login: Login | None, *, session_id: str) -> Session:
    """Open a session, logged in where a login is given.

    `session_id` names it in the ledger. Raises an `SmtpFault` whose `facts` tell how far it
    came. A login needs `TlsMode.REQUIRED`.
    """
    opening = Opening(peer, login, session_id=session_id)
    try:
        await opening.run()
    except SmtpFault as fault:
        fault.facts = opening.facts()
        opening.abort()
        raise
    except BaseException:  # also cancellation: nobody else knows of the connection
        opening.abort()
        raise
    return Session(opening)


def _unless_closing(reply: Reply, phase: Phase) -> None:
    if reply.code == 421:
        raise PeerRefused("closing", phase=phase, detail="The peer ends the session.", reply=reply)


def _unexpected(reply: Reply, phase: Phase) -> SmtpFault:
    detail = f"A {reply.code} is no answer in phase {phase.word}."
    return PeerGarbled("unexpected_code", phase=phase, detail=detail, reply=reply)


def _number(text: str) -> int:
    """Read the parameter of SIZE (RFC 1870 §4: up to 20 digits); 0, no limit, for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else 0
