"""One SMTP session: opened once, carrying one message after another, honest about each.

`open_session` raises when there is no session. `Session.transmit` never raises for what the
peer or the network does: everything that happened to one message is in its `Report`, and
the report does not judge.

The dot is the border. Before it, whatever breaks, the peer has no message. The dot leaves
only when the peer said 354 and nothing else since, when the kernel has all of the content,
and when `before_dot` said yes. After it only a usable reply tells anything; without one,
`dot_sent` is true and `final` is None, and the peer may have the message or not (RFC 1047).

Behind the dot, in the same write, the commands of the next message may leave (RFC 2920 §3.1
allows it in words): over a long way that saves a round trip for each message. `transmit`
asks `behind` for that message when its own dot is about to leave, returns with the reply to
its own dot, and `transmit` of the other one goes on from there. Its dot has its own fence.

    report = await session.transmit(this, before_dot=…, behind=lambda: other)
    if session.begun is other:
        report = await session.transmit(other, before_dot=…)   # or session.disown(other)

A session that broke, lost step or heard a 421 is not used again. A session that ended while
it was idle says so (`untouched`) before anything is sent: that is not the message's fault.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime

from service.mail.envelope import Envelope
from service.smtp.faults import ExtensionMissing, PeerLost, SmtpFault
from service.smtp.opening import Opening, SessionFacts
from service.smtp.parcel import Parcel
from service.smtp.peer import Login, Peer, Timeouts, TlsMode
from service.smtp.phase import Phase
from service.smtp.reply import Reply
from service.smtp.report import Report
from service.smtp.transaction import Transaction
from service.smtp.transcript import Transcript

__all__ = [
    "Login",
    "Parcel",
    "Peer",
    "Report",
    "Session",
    "SessionFacts",
    "Timeouts",
    "TlsMode",
    "open_session",
]


class Session:
    """An open SMTP session. One transaction at a time, and the beginning of the next one."""

    def __init__(self, opening: Opening) -> None:
        self.facts: SessionFacts = opening.facts()
        self.messages = 0  # transactions begun so far
        self.idle_since = datetime.now(UTC)
        self._wire = opening.wire
        self._limits = opening.peer.timeouts
        self._extensions = opening.extensions
        self._conversing = False
        self._begun: Transaction | None = None  # its commands have left behind a dot
        self._over = False  # nothing more is said, by our own will
        self._cut_short: tuple[Parcel, Report] | None = None
        self._wire.transcript = Transcript()

    def __repr__(self) -> str:
        state = "usable" if self.usable else "not usable"
        return f"<Session {self.facts.id} {self.facts.host}:{self.facts.port}, {self.messages} messages, {state}>"

    @property
    def usable(self) -> bool:
        """Whether another transaction may be tried: nothing broke, and the peer is still there.

        While a parcel is begun, that one is the other transaction; it is transmitted or disowned in any case.
        """
        return not self._over and self._wire.quiet

    @property
    def begun(self) -> Parcel | None:
        """The parcel whose commands have left behind the dot of the one before, and that nobody has taken up yet."""
        return None if self._begun is None else self._begun.parcel

    @property
    def pipelines(self) -> bool:
        """Whether the peer takes several commands at once (RFC 2920)."""
        return "PIPELINING" in self._extensions

    async def transmit(
        self,
        parcel: Parcel,
        *,
        before_dot: Callable[[], Awaitable[bool]],
        behind: Callable[[], Parcel | None] | None = None,
    ) -> Report:
        """Carry one message to the peer, and report what happened.

        `before_dot` is awaited when all of the content has left and only the dot is missing: False means that
        the message must not be sent now. What `before_dot` raises is passed on; no dot is sent.

        `behind` is asked for the next message where the session pipelines, when nothing can hold the dot back
        any more. The parcel that it gives is begun, and then `begun` is that parcel until it is transmitted or
        disowned; or it is not begun, because this peer does not offer what it needs, and nothing of it was sent.
        A parcel that is begun is carried on by the next call, and no other one is taken before: RuntimeError,
        as for a call while another one runs.
        """
        transaction = self._taken_up(parcel)
        return await self._reported(
            transaction, self._converse(transaction, before_dot=before_dot, behind=behind)
        )

    def disown(self, parcel: Parcel) -> Report:
        """Give up a parcel that is begun: its report is made now, and the session ends.

        The message before it, where it still waits for the reply to its dot, hears that reply first. Raises
        RuntimeError for a parcel that is not begun.
        """
        if self._begun is None or self._begun.parcel is not parcel:
            raise RuntimeError("this parcel is not begun")
        transaction, self._begun = self._begun, None
        transaction.fault = transaction.end_behind()
        self._over = True
        if not self._conversing:
            self.abort()
        return transaction.report(Phase.MAIL)

    async def rehearse(self, envelope: Envelope) -> Report:
        """Name sender and recipients as for a message, then take it back: MAIL, RCPT …, RSET.

        Nothing is sent. Where the peer does not take the RSET, the session is not usable any more.
        """
        parcel = Parcel(envelope=envelope, octets=b"", smtputf8=False, eightbit=False)
        transaction = self._taken_up(parcel)
        return await self._reported(transaction, self._rehearse(transaction))

    async def probe(self) -> Reply:
        """Ask NOOP, to see whether the peer is still there. Raises an `SmtpFault`."""
        self._refuse_to_interrupt()
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
        """Say QUIT and hang up, in no more than twice the limit of `quit`. Never raises.

        No QUIT while a parcel is begun: the peer may take it for content.
        """
        if self._begun is not None:
            self.abort()
        if self.usable:
            self._wire.phase = Phase.QUIT
            with contextlib.suppress(SmtpFault):  # we are leaving anyway
                await self._wire.ask("QUIT", within=self._limits.quit)
        await self._wire.close(within=self._limits.quit)

    def cut_short(self, parcel: Parcel | None) -> Report | None:
        """Return how far this parcel had come, where its transmission was cancelled or ended by a bug."""
        if self._cut_short is None or self._cut_short[0] is not parcel:
            return None
        return self._cut_short[1]

    def abort(self) -> None:
        """Hang up now, without a word."""
        self._over = True
        self._wire.abort()

    def _taken_up(self, parcel: Parcel) -> Transaction:
        """Take up the parcel that is begun, or start with a new one."""
        begun = self._begun
        if begun is None or begun.parcel is not parcel or self._conversing:
            self._refuse_to_interrupt()
        if begun is None:
            return Transaction(parcel, wire=self._wire, limits=self._limits, transcript=self._wire.transcript)
        self._begun = None
        return begun

    def _refuse_to_interrupt(self) -> None:
        if self._conversing or self._begun is not None:
            raise RuntimeError("another message is under way on this session")

    async def _reported(self, transaction: Transaction, dialogue: Coroutine[None, None, None]) -> Report:
        """Lead a dialogue to its end, and report how it went."""
        self._conversing = True
        try:
            await dialogue
        except ExtensionMissing as fault:
            transaction.fault = fault
        except SmtpFault as fault:
            transaction.fault = fault
            self.abort()
        except BaseException:  # also cancellation: a session in mid-dialogue serves nobody
            self._cut_short = transaction.parcel, transaction.report(self._wire.phase)
            self.abort()
            raise
        finally:
            self._conversing = False
            self._wire.transcript = Transcript() if self._begun is None else self._begun.transcript
        if self._over:  # the next message was disowned meanwhile
            self.abort()
        self.idle_since = datetime.now(UTC)
        return transaction.report(self._wire.phase)

    async def _converse(
        self,
        transaction: Transaction,
        *,
        before_dot: Callable[[], Awaitable[bool]],
        behind: Callable[[], Parcel | None] | None,
    ) -> None:
        """Lead one dialogue: MAIL, RCPT …, DATA, content, dot. Returns early on a refusal."""
        if transaction.behind:
            self._wire.phase = Phase.MAIL
            if self._over:
                raise transaction.end_behind()
        else:
            await self._look(transaction)
            transaction.prepare(self._extensions)
            self._count(transaction)
        if not await transaction.begin():
            return
        await transaction.send_content()
        if not await before_dot():
            transaction.fenced = True
            transaction.transcript.note(Phase.BODY, "told not to finish: closed without the dot")
            self.abort()
            return
        # `before_dot` took its time: the peer may have spoken, or left.
        await self._wire.listen()
        self._wire.raise_unasked()
        following = self._following(behind)
        transaction.send_dot(following)
        if following is not None:
            self._begun = following
            self._count(following)
        await transaction.hear_out()
        if transaction.final is not None and transaction.final.code == 421:
            self.abort()

    def _following(self, behind: Callable[[], Parcel | None] | None) -> Transaction | None:
        """Prepare the message that begins behind this one's dot. What it lacks must not hurt this one."""
        parcel = behind() if behind is not None and self.pipelines else None
        if parcel is None:
            return None
        following = Transaction(parcel, wire=self._wire, limits=self._limits, transcript=Transcript())
        try:
            following.prepare(self._extensions)
        except ExtensionMissing:
            return None
        return following

    async def _rehearse(self, transaction: Transaction) -> None:
        """Lead a dialogue that stops before DATA."""
        await self._look(transaction)
        transaction.prepare(self._extensions)
        self._count(transaction)
        await transaction.rehearse()

    async def _look(self, transaction: Transaction) -> None:
        """See whether the session survived its rest."""
        self._wire.phase = Phase.CONNECT
        await self._wire.listen()
        if self.usable:
            self._wire.phase = Phase.MAIL
            return
        transaction.untouched = True
        try:
            self._wire.raise_unasked()
            reply = None
        except SmtpFault as fault:
            reply = fault.reply
        detail = "The session had ended while it was idle."
        raise PeerLost("session_expired", phase=Phase.CONNECT, detail=detail, reply=reply)

    def _count(self, transaction: Transaction) -> None:
        self.messages += 1
        transaction.number = self.messages


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
