"""One SMTP dialogue: the grammar and the order of the commands (RFC 5321), and the staged accidents.

What the service allows is the door's business (door.py), what a recipient's local part asks for
stands in behaviours.py; here the two are put together:

1. greet, unless the service is down or full;
2. read a command, answer it, and so on; too many blunders or failed logins end the session;
3. at each step first the reply that the switches stage, then the door's rules, then the behaviour;
4. a message is written down before it is answered.

A session ends by `_Over` (we close, with or without a last word) or by `Gone` (the client left).
"""

import asyncio
import base64
import contextlib
import hashlib
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from email.utils import format_datetime

import structlog

from service.sandbox import dsn, grammar, replies
from service.sandbox.behaviours import Act, Behaviour, When, behaviour_of
from service.sandbox.config import Moment
from service.sandbox.content import Intake, read_head
from service.sandbox.door import Door, Login, Session, Transaction
from service.sandbox.mailroom import Taken
from service.sandbox.replies import Reply
from service.sandbox.tenant import Tenant
from service.sandbox.tls import Maker
from service.sandbox.wire import Gone, TooLong, Wire

_AUTH_LIMIT = 12_288  # octets (RFC 4954 §4)
_PIECE = 256 * 1024  # octets read at once
_FAREWELL_SECONDS = 5.0  # how long a client has to read our last word

_MAIL_OPTIONS = {"SIZE", "BODY", "SMTPUTF8", "RET", "ENVID", "AUTH"}
_RCPT_OPTIONS = {"NOTIFY", "ORCPT"}

_log = structlog.get_logger()


class _Over(Exception):
    """We end the session; `reply` is the last word, None is none at all."""

    def __init__(self, reply: Reply | None) -> None:
        super().__init__()
        self.reply = reply


class Dialogue:
    """One session with one client."""

    def __init__(self, wire: Wire, *, tenant: Tenant, door: Door, tls: Maker) -> None:
        """`door` has the service's rules, `tls` makes a connection with its certificate."""
        self._wire = wire
        self._tenant = tenant
        self._door = door
        self._tls = tls
        self._session = Session(client=door.address_of(wire.client), zone=door.zone, inside=door.inside)
        self._transaction: Transaction | None = None
        self._blunders = 0
        self._failed_logins = 0
        self._mute = False
        self._commands: dict[str, Callable[[str], Awaitable[Reply | None]]] = {
            "EHLO": self._ehlo, "HELO": self._helo, "STARTTLS": self._starttls, "AUTH": self._auth,
            "MAIL": self._mail, "RCPT": self._rcpt, "DATA": self._data, "BDAT": self._bdat,
            "RSET": self._rset, "NOOP": self._noop, "VRFY": self._vrfy, "EXPN": self._expn, "HELP": self._help,
            "QUIT": self._quit,
        }  # fmt: skip

    async def run(self) -> None:
        """Talk until one of the two leaves."""
        self._tenant.sessions += 1
        try:
            async with asyncio.timeout(self._tenant.switches.session_seconds):
                await self._greet()
                while True:
                    await self._obey(await self._line(limit=_AUTH_LIMIT))
        except TimeoutError:
            await self._part(None if self._mute else replies.SESSION_TOO_LONG)
        except _Over as over:
            await self._part(over.reply)
        except Gone:
            pass
        except Exception:  # a bug of ours must not look like a peer's silence
            _log.exception("sandbox.dialogue_failed", session=self._session.id)
        finally:
            self._tenant.sessions -= 1
            self._door.leave(self._session)
            self._close_transaction(final=None)
            self._wire.hang_up()

    async def _greet(self) -> None:
        if not self._tenant.switches.available:
            raise _Over(replies.NOT_AVAILABLE)
        if self._tenant.sessions > self._tenant.config.max_sessions:
            raise _Over(replies.TOO_MANY_SESSIONS)
        if staged := self._staged("connect"):
            raise _Over(staged)
        words = (
            f"220 {self._session.front_end} Microsoft ESMTP MAIL Service ready at {format_datetime(_now())}"
        )
        new = self._tenant.switches.wording == "new"
        await self._send(f"{words} [{self._session.id}]" if new else words)

    async def _obey(self, line: bytes) -> None:
        """Carry out one command and answer it."""
        try:
            verb, argument = grammar.read_command(line)
            reply = await self._commands.get(verb, self._unknown)(argument)
        except grammar.Malformed as exc:
            reply = exc.reply
        if reply is not None:
            await self._answer(reply)

    # Hello and TLS

    async def _ehlo(self, argument: str) -> Reply | None:
        if staged := self._staged("ehlo"):
            return staged
        self._meet(argument)
        first = f"{self._session.front_end} Hello [{self._session.client}]"
        lines = (first, *self._door.extensions(self._session))
        await self._send("\r\n".join([*(f"250-{line}" for line in lines[:-1]), f"250 {lines[-1]}"]))
        return None

    async def _helo(self, argument: str) -> Reply | None:
        self._meet(argument)
        await self._send(f"250 {self._session.front_end} Hello [{self._session.client}]")
        return None

    def _meet(self, argument: str) -> None:
        self._session.hello = grammar.read_hello(argument)
        self._close_transaction(final=None)  # RFC 5321 §4.1.4: as if RSET had been said

    async def _starttls(self, argument: str) -> Reply | None:
        if argument:
            return replies.INVALID_ARGUMENTS
        if self._session.tls:
            return replies.ONE_STARTTLS
        if self._tenant.switches.starttls == "absent":
            return replies.UNRECOGNIZED
        if self._tenant.switches.starttls == "refused":
            return replies.TLS_RATE
        if staged := self._staged("starttls"):
            return staged
        await self._answer(replies.READY_FOR_TLS)
        tls = self._tls()
        await self._wire.upgrade(tls)
        self._session.tls, self._session.shown = tls.version, tls.shown
        self._session.hello = None  # RFC 3207 §4.2: both forget what they knew
        self._door.secured(self._session)
        self._close_transaction(final=None)
        return None

    # Login

    async def _auth(self, argument: str) -> Reply | None:
        if self._session.hello is None:
            return replies.HELLO_FIRST
        if not self._door.takes_logins:
            return replies.UNRECOGNIZED
        if not self._session.tls:
            return replies.STARTTLS_FIRST
        if self._session.login or self._transaction:
            return replies.BAD_SEQUENCE
        if staged := self._staged("auth"):
            return await self._login_failed(staged)
        mechanism, _, initial = argument.partition(" ")
        if mechanism.upper() not in self._door.mechanisms(self._session):
            return replies.UNKNOWN_MECHANISM
        if self._tenant.switches.login_busy:
            return replies.LOGIN_BUSY
        by_token = mechanism.upper() == "XOAUTH2"
        outcome = await (self._with_token(initial) if by_token else self._with_password(initial))
        if isinstance(outcome, Reply):
            return await self._login_failed(outcome)
        self._session.login = outcome
        self._door.arrive(self._session)
        return replies.LOGGED_IN

    async def _login_failed(self, refusal: Reply) -> Reply:
        self._session.login_refusal = self._worded(refusal)
        self._failed_logins += 1
        if self._failed_logins >= self._tenant.switches.failed_logins > 0:
            raise _Over(replies.TOO_MANY_ERRORS)
        return refusal

    async def _with_password(self, initial: str) -> Login | Reply:
        username = grammar.decode_base64(initial) if initial else await self._ask("Username:")
        password = await self._ask("Password:") if username is not None else None
        if username is None or password is None:
            # RFC 4954 §4 has 501 for a cancelled login; Exchange Online says 535.
            return replies.LOGIN_FAILED
        return self._door.login_with_password(username, password)

    async def _with_token(self, initial: str) -> Login | Reply:
        blob = grammar.decode_base64(initial) if initial else await self._ask("")
        parts = grammar.read_xoauth2(blob) if blob is not None else None
        outcome = self._door.login_with_token(*parts) if parts else self._door.malformed_token(blob)
        if isinstance(outcome, Reply) and self._tenant.switches.gmail_mode:
            # Gmail tells the error as JSON and waits for an empty line before it says 535.
            error = {"status": "400", "schemes": "Bearer", "scope": "https://outlook.office365.com/.default"}
            await self._ask(json.dumps(error))
        return outcome

    async def _ask(self, challenge: str) -> str | None:
        """Send a challenge and return the answer; None where it was cancelled or is no base64."""
        await self._send(f"334 {base64.b64encode(challenge.encode()).decode()}")
        answer = (await self._line(limit=_AUTH_LIMIT)).strip()
        return grammar.decode_base64(answer.decode("ascii", "replace"))

    # Envelope

    async def _mail(self, argument: str) -> Reply | None:
        if self._session.hello is None:
            return replies.HELLO_FIRST
        if self._transaction is not None:
            return replies.SENDER_ALREADY
        if staged := self._staged("mail"):
            return staged
        path = grammar.read_path(argument, keyword="FROM", known=_MAIL_OPTIONS)
        grammar.check_mail_options(path.options, size_limit=self._door.size)
        if path.text and not path.is_address:
            return replies.BAD_SENDER
        if not path.text.isascii() and "SMTPUTF8" not in path.options:
            return replies.SENDER_NEEDS_UTF8
        if refusal := self._door.refuse_sender(self._session, path.text):
            return refusal
        self._transaction = Transaction(
            reverse_path=path.text,
            smtputf8="SMTPUTF8" in path.options,
            binary=path.options.get("BODY", "").upper() == "BINARYMIME",
            asked=dsn.of_mail(path.options),
        )
        return replies.SENDER_OK

    async def _rcpt(self, argument: str) -> Reply | None:
        transaction = self._transaction
        if transaction is None:
            return replies.HELLO_FIRST if self._session.hello is None else replies.MAIL_FIRST
        if transaction.chunks is not None:
            return replies.BAD_SEQUENCE
        path = grammar.read_path(argument, keyword="TO", known=_RCPT_OPTIONS)
        transaction.asked.for_recipient(path.text, path.options)
        answer: dict[str, str | None] = {"email": path.text, "reply": None}
        transaction.answers.append(answer)  # stays without a reply where the session ends here
        reply = await self._decide_recipient(transaction, path)
        answer["reply"] = self._worded(reply, recipient=path.text)
        if reply.positive:
            transaction.recipients.append(path.text)
        await self._answer(reply, recipient=path.text)
        return None

    async def _decide_recipient(self, transaction: Transaction, path: grammar.Path) -> Reply:
        staged = self._staged("rcpt")
        if staged is not None and not staged.positive:
            return staged
        recipient = path.text if path.is_address else None
        if recipient is not None and not recipient.isascii() and not transaction.smtputf8:
            return replies.RECIPIENT_NEEDS_UTF8
        if refusal := self._door.refuse_recipient(self._session, transaction, recipient=recipient):
            return refusal
        behaviour = behaviour_of(path.text)
        if behaviour is not None and behaviour.when is When.RCPT:
            thing = (transaction.reverse_path.lower(), path.text.lower())
            if self._tenant.tries.happens(behaviour, thing):
                return await self._stage(behaviour) or staged or replies.RECIPIENT_OK
        return staged or replies.RECIPIENT_OK

    async def _rset(self, argument: str) -> Reply | None:
        self._close_transaction(final=None)
        return replies.RESETTING

    # Content

    async def _data(self, argument: str) -> Reply | None:
        transaction = self._transaction
        if refusal := self._not_ready_for_content(transaction):
            return refusal
        assert transaction is not None, "that was one of the refusals"
        if argument:
            return replies.INVALID_ARGUMENTS
        if transaction.binary or transaction.chunks is not None:
            return replies.BAD_SEQUENCE
        if staged := self._staged("data"):
            self._close_transaction(final=staged)
            return staged
        if behaviour := self._due(When.DATA, transaction):
            refusal = await self._stage(behaviour)
            if refusal is not None:
                self._close_transaction(final=refusal)
                return refusal
        await self._answer(replies.START_INPUT)
        intake = Intake(limit=self._door.content_limit(self._session))
        in_the_middle = self._due(When.BODY, transaction)
        rest = None
        while rest is None:
            rest = intake.feed(await self._piece(most=_PIECE))
            if in_the_middle is not None:
                await self._stage(in_the_middle)
        self._wire.unread(rest)
        octets = intake.octets()
        await self._finish(transaction, octets, size=len(octets) if intake.whole else intake.size)
        return None

    async def _bdat(self, argument: str) -> Reply | None:
        """Read one chunk (RFC 3030 §2), refused or not: its octets are on their way."""
        octets, last = grammar.read_chunk(argument)
        transaction = self._transaction
        refusal = self._not_ready_for_content(transaction)
        left = octets
        in_the_middle = self._due(When.BODY, transaction) if transaction and not refusal and left else None
        limit = 0 if refusal else self._door.content_limit(self._session)
        while left > 0:
            piece = await self._piece(most=min(left, _PIECE))
            left -= len(piece)
            if in_the_middle is not None:
                await self._stage(in_the_middle)
            if transaction is not None and not refusal:
                transaction.chunked += len(piece)
                if transaction.chunks is None:
                    transaction.chunks = bytearray()
                if transaction.chunked <= limit:
                    transaction.chunks += piece
        if refusal or transaction is None:
            return refusal
        if not last:
            await self._answer(replies.CHUNK_OK, octets=str(octets))
            return None
        await self._finish(transaction, bytes(transaction.chunks or b""), size=transaction.chunked)
        return None

    def _not_ready_for_content(self, transaction: Transaction | None) -> Reply | None:
        if transaction is None:
            return replies.HELLO_FIRST if self._session.hello is None else replies.MAIL_FIRST
        return None if transaction.recipients else replies.RCPT_FIRST

    async def _finish(self, transaction: Transaction, octets: bytes, *, size: int) -> None:
        """Decide on a message whose last octet has come, and answer."""
        head = read_head(octets)
        staged = self._staged("dot")
        refusal = staged if staged is not None and not staged.positive else None
        if refusal is None:
            refusal = self._door.refuse_message(self._session, transaction, head=head, size=size)
        thing = head.message_id or hashlib.sha256(octets).hexdigest()
        behaviour = self._due(When.DOT, transaction, thing=thing) if refusal is None else None
        if behaviour is not None and behaviour.refuses:
            refusal = await self._stage(behaviour, size=size)
        if refusal is None:
            refusal = self._door.refuse_by_limit(self._session, transaction)
        if refusal is not None:
            names = self._door.names_in_refusal(self._session, transaction, head=head)
            self._close_transaction(final=refusal, size=size, names=names)
            await self._answer(refusal, **names)
            return
        taken = self._door.take(self._session, transaction, head=head, octets=octets)
        await self._acknowledge(taken, behaviour, staged=staged)

    async def _acknowledge(self, taken: Taken, behaviour: Behaviour | None, *, staged: Reply | None) -> None:
        """Answer for a message that is written down, or do with the answer what was asked for."""
        reply = staged or self._door.accepted(self._session, taken)
        names = {
            "message_id": taken.message_id or f"<{taken.id}@{self._session.back_end}>",
            "internal_id": str(int(taken.sha256[:11], 16)),
            "size": str(taken.size),
            "rate": f"{taken.size / 1024 / 0.125:.3f}",  # of the eighth of a second that the reply names
        }
        if behaviour is not None and behaviour.takes:
            self._close_transaction(final=None, size=taken.size, taken=taken)
            await self._stage(behaviour)
            return
        self._close_transaction(final=reply, size=taken.size, taken=taken, names=names)
        if behaviour is not None and behaviour.act is Act.WAIT:
            await self._stage(behaviour)
        await self._answer(reply, **names)
        if behaviour is not None and behaviour.act is Act.FAREWELL:
            raise _Over(replies.NOT_AVAILABLE)

    # Staged replies and behaviours

    def _staged(self, at: Moment) -> Reply | None:
        return self._tenant.staged(at, self._door.name)

    def _due(self, when: When, transaction: Transaction, *, thing: str | None = None) -> Behaviour | None:
        """Return what happens to the message now: the first recipient that asks for something decides."""
        for recipient in transaction.recipients:
            behaviour = behaviour_of(recipient)
            if behaviour is not None and behaviour.when is when:
                key = thing or (transaction.reverse_path.lower(), recipient.lower())
                return behaviour if self._tenant.tries.happens(behaviour, key) else None
        return None

    async def _stage(self, behaviour: Behaviour, *, size: int | None = None) -> Reply | None:
        """Do it; return the reply that is due, if any. Raises _Over or Gone where the session ends."""
        match behaviour.act:
            case Act.REPLY:
                return behaviour.reply
            case Act.WAIT:
                if await self._wire.client_leaves(within=self._tenant.switches.slow_seconds):
                    raise Gone
            case Act.BABBLE:
                await self._wire.send(behaviour.babble)
            case Act.HANG_UP:
                self._close_transaction(final=behaviour.reply, size=size)
                raise _Over(behaviour.reply)
            case Act.RESET:
                self._wire.reset()
                raise Gone
            case Act.SILENCE:
                self._mute = True
                await self._wire.client_leaves(within=self._tenant.switches.session_seconds)
                raise Gone
            case Act.FAREWELL:
                pass  # comes after the answer
        return None

    # The rest of the commands

    async def _unknown(self, argument: str) -> Reply | None:
        return replies.UNRECOGNIZED

    async def _noop(self, argument: str) -> Reply | None:
        return replies.NOTHING_DONE

    async def _vrfy(self, argument: str) -> Reply | None:
        return replies.CANNOT_VERIFY

    async def _expn(self, argument: str) -> Reply | None:
        return replies.NOT_IMPLEMENTED

    async def _help(self, argument: str) -> Reply | None:
        return replies.COMMANDS

    async def _quit(self, argument: str) -> Reply | None:
        # The place among the mailbox's sessions is free before the client can know it.
        self._door.leave(self._session)
        raise _Over(replies.GOODBYE)

    # Reading and writing

    async def _line(self, *, limit: int) -> bytes:
        try:
            async with asyncio.timeout(self._tenant.switches.idle_seconds) as idle:
                return await self._wire.line(limit=limit)
        except TooLong:
            return b""
        except TimeoutError:
            raise self._too_idle(idle) from None

    async def _piece(self, *, most: int) -> bytes:
        try:
            async with asyncio.timeout(self._tenant.switches.idle_seconds) as idle:
                return await self._wire.piece(most=most)
        except TimeoutError:
            raise self._too_idle(idle) from None

    def _too_idle(self, idle: asyncio.Timeout) -> _Over:
        goodbye = {"451": replies.IDLE_TOO_LONG, "421": replies.SESSION_TOO_LONG, "none": None}
        return _Over(goodbye[self._tenant.switches.idle_goodbye])

    async def _answer(self, reply: Reply, **names: str) -> None:
        """Say a reply; a blunder is counted, and 421 is always the last word (RFC 5321 §3.8)."""
        if reply.blunder:
            self._blunders += 1
            if self._blunders >= self._tenant.switches.protocol_errors > 0:
                raise _Over(replies.TOO_MANY_ERRORS)
        if reply.code == 421:
            raise _Over(reply)
        if not reply.positive and self._tenant.switches.tarpit_seconds:
            await self._wire.client_leaves(within=self._tenant.switches.tarpit_seconds)
        await self._send(self._worded(reply, **names))

    async def _part(self, reply: Reply | None) -> None:
        """Say the last word and wait for the client to close; without one, just hang up."""
        self._door.leave(self._session)
        if reply is None:
            return
        with contextlib.suppress(Gone, TimeoutError):
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await self._send(self._worded(reply))
        self._wire.close()
        await self._wire.client_leaves(within=_FAREWELL_SECONDS)

    async def _send(self, lines: str) -> None:
        await self._wire.send(lines.encode("utf-8", "replace") + b"\r\n")

    def _worded(self, reply: Reply, **names: str) -> str:
        """Return the reply as it is said in this session, with Microsoft's trailer where it refuses."""
        switches, session = self._tenant.switches, self._session
        known = {
            "client": session.client, "backend": session.back_end, "because": session.login_refusal or "",
            "login": session.login.account if session.login else "",
            "billing": switches.hve_billing, "recipient": "", "sender": "", "domain": "", "message_id": "",
            "octets": "",
        }  # fmt: skip
        line = reply.worded(switches.wording, **(known | names))
        if reply.positive or reply.verbatim or not switches.trailer:
            return line
        if switches.wording == "old":
            return f"{line} [{session.front_end_inside}]"
        moment = _now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return f"{line} [{session.front_end_inside} {moment} {session.id}]"

    def _close_transaction(
        self,
        *,
        final: Reply | None,
        size: int | None = None,
        taken: Taken | None = None,
        names: dict[str, str] | None = None,
    ) -> None:
        """Forget the transaction, after writing it down for `GET /transactions`."""
        transaction, self._transaction = self._transaction, None
        if transaction is None:
            return
        login, certificate = self._session.login, self._session.certificate
        self._tenant.transactions.note(
            object="transaction",
            door=self._door.name,
            session=self._session.id,
            mailbox=login.account if login else None,
            client_certificate=certificate.subject if certificate else None,
            reverse_path=transaction.reverse_path,
            recipients=transaction.answers,
            final=self._worded(final, **(names or {})) if final else None,
            size=size,
            taken=taken.id if taken else None,
        )


def _now() -> datetime:
    return datetime.now(UTC)
