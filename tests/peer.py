r"""`ScriptedPeer`: an SMTP server for tests whose every accident is scripted.

It is a raw-socket asyncio server of ours on a free port of 127.0.0.1, so a test decides about
every octet. Without a script it behaves: it takes whatever is sent, as Microsoft 365 would.

    async with ScriptedPeer(tls=True, logins={"noreply@contoso.com": "token"}) as peer:
        peer.on("rcpt", reply="550 5.1.1 No such user", when=lambda path: path.startswith("nobody@"))
        peer.on("dot", then="close", times=1)          # takes the message, says nothing, closes
        session = await open_session(peer.as_peer(tls=TlsMode.REQUIRED), login, session_id="ses_1")

`on(phase, …)` adds a rule; the newest rule that matches wins. Phases, given as a `Phase` or its word:

| phase | when the rule acts | argument for `when` |
|---|---|---|
| `connect` | the connection was accepted, instead of the greeting | the number of the session, from 1 |
| `greeting` | the greeting is due | the number of the session |
| `ehlo` `starttls` `mail` `rcpt` `data` `rset` `noop` `quit` | the command was read | its argument; for MAIL and RCPT the bare path |
| `tls` | the first octets of the client's handshake were read, instead of going on with it | "" |
| `auth` | all lines of the login were read | the mechanism |
| `body` | `after_octets` of content were read | the accepted recipients, joined by a space |
| `dot` | the end of data was read | the accepted recipients, joined by a space |

What a rule can do, in this order: wait for `until` (an `asyncio.Event` that the test sets); send `reply`
(text, several lines if need be; line ends are added) or `raw` (octets as they are), with `glue` (octets)
behind it in the same segment and with `pace` seconds between single octets; and `then` "go_on", "close",
"reset" (RST), or "stall" (never say another word; in `body` also stop reading). A rule with neither `reply`
nor `raw` that goes on answers as usual. `times` bounds how often a rule acts.

What it saw, always written down BEFORE the answer leaves:

- `taken`: each message that it is responsible for. A dot is taken when its answer is positive, and also when
  the rule keeps silent or sends garbage; `take=False` or `take=True` in the rule says otherwise.
- `transactions`: each MAIL to its end with every reply that was given.
- `commands`: each command line of all sessions in order; content and the lines of a login are left out.
- `logins_tried`: (mechanism, user name, secret) of each login.
- `connections`, `max_connections`, `sessions`: open now, open at most at a time, ever opened.

`say(octets)` speaks out of turn on all open connections, `hang_up()` ends them.
"""

from __future__ import annotations

import asyncio
import atexit
import base64
import binascii
import contextlib
import datetime as dt
import functools
import shutil
import socket
import ssl
import struct
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import trustme

from service.smtp.peer import Peer, Timeouts, TlsMode
from service.smtp.phase import Phase

MICROSOFT_EXTENSIONS = (
    "SIZE 157286400",
    "PIPELINING",
    "DSN",
    "ENHANCEDSTATUSCODES",
    "8BITMIME",
    "BINARYMIME",
    "CHUNKING",
    "SMTPUTF8",
)

# Long enough for a busy machine, short enough for a test that hangs.
PATIENT = 10.0

Then = Literal["go_on", "close", "reset", "stall"]


@dataclass(slots=True, kw_only=True)
class Rule:
    """One scripted behaviour; see the module's page."""

    reply: str | None = None
    raw: bytes | None = None
    glue: bytes = b""
    pace: float = 0.0
    until: asyncio.Event | None = None
    then: Then = "go_on"
    take: bool | None = None
    times: int | None = None
    when: Callable[[str], bool] | None = None
    after_octets: int = 0
    acted: int = 0  # how often it acted so far

    def matches(self, argument: str) -> bool:
        spent = self.times is not None and self.acted >= self.times
        return not spent and (self.when is None or self.when(argument))

    def speaks(self) -> bool:
        return self.reply is not None or self.raw is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A message that the peer is responsible for."""

    mail: str  # the bare reverse-path
    rcpts: tuple[str, ...]  # the accepted forward-paths
    octets: bytes  # without dot stuffing and the final dot
    at: dt.datetime
    session: int
    replied: str | None  # what is said to the dot; None for silence


@dataclass(slots=True, kw_only=True)
class Transaction:
    """From one MAIL to its end, with the replies that were given (first lines)."""

    session: int
    mail: str
    parameters: str  # what followed the path: "SIZE=123 BODY=8BITMIME"
    mail_reply: str | None = None
    rcpts: list[tuple[str, str | None]] = field(default_factory=list)
    rcpt_parameters: list[str] = field(default_factory=list)  # what followed each path: "NOTIFY=NEVER"
    data_reply: str | None = None
    octets: bytes | None = None  # the content, once the dot was read
    content_octets: int = 0  # read so far, as they came over the wire
    dot: bool = False  # the end of data was read
    final_reply: str | None = None
    ended: Literal["dot", "rset", "lost", "refused"] | None = None  # None while it runs
    client: str = ""  # where it came from: "127.0.0.1:54321"
    begun_at: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC))  # when MAIL was read

    @property
    def accepted(self) -> tuple[str, ...]:
        return tuple(path for path, reply in self.rcpts if (reply or "").startswith("2"))


class ScriptedPeer:
    """An SMTP server on 127.0.0.1 that does what the script says. Use with `async with`."""

    def __init__(
        self,
        *,
        tls: bool = False,
        logins: Mapping[str, str] | None = None,  # user name to password or access token
        mechanisms: str = "LOGIN XOAUTH2",
        extensions: Iterable[str] = MICROSOFT_EXTENSIONS,
        login_without_tls: bool = False,
        challenge_on_failure: bool = False,  # a refused XOAUTH2 gets a 334 with JSON first, as Gmail does
        certificate_names: Iterable[str] = ("localhost", "127.0.0.1"),
        certificate_expired: bool = False,
        certificate_untrusted: bool = False,
        certificate_self_signed: bool = False,
        maximum_tls: ssl.TLSVersion | None = None,
        ask_client_certificate: bool = False,
        data_for_nobody: str = "503 5.5.2 Need rcpt command",  # to DATA without an accepted recipient
    ) -> None:
        self.logins = logins
        self.data_for_nobody = data_for_nobody
        self.mechanisms = mechanisms
        self.extensions = tuple(extensions)
        self.login_without_tls = login_without_tls
        self.challenge_on_failure = challenge_on_failure
        self.ca_file = authority().file
        self.tls_context: ssl.SSLContext | None = None
        if tls:
            elsewhere = certificate_untrusted or certificate_self_signed
            issuer = authority("somebody else") if elsewhere else authority()
            self.tls_context = (
                issuer.self_signed_context()
                if certificate_self_signed
                else issuer.server_context(tuple(certificate_names), expired=certificate_expired)
            )
            if maximum_tls is not None:
                _allow_old_tls(self.tls_context, maximum_tls)
            if ask_client_certificate:
                self.tls_context.verify_mode = ssl.CERT_REQUIRED
                self.tls_context.load_verify_locations(authority().file)

        self.host = "127.0.0.1"
        self.port = 0
        self.taken: list[Taken] = []
        self.transactions: list[Transaction] = []
        self.commands: list[str] = []
        self.logins_tried: list[tuple[str, str, str]] = []
        self.client_certificates: list[bytes] = []  # DER, one for each handshake that brought one
        self.sessions = 0
        self.max_connections = 0
        self._rules: list[tuple[str, Rule]] = []
        self._open: dict[asyncio.Task[None], _Dialogue] = {}
        self._server: asyncio.Server | None = None

    def on(
        self,
        phase: Phase | str,
        *,
        reply: str | None = None,
        raw: bytes | None = None,
        glue: bytes = b"",
        pace: float = 0.0,
        until: asyncio.Event | None = None,
        then: Then = "go_on",
        take: bool | None = None,
        times: int | None = None,
        when: Callable[[str], bool] | None = None,
        after_octets: int = 0,
    ) -> Rule:
        """Script what happens in a phase; see the module's page. The newest matching rule wins."""
        word = phase.word if isinstance(phase, Phase) else phase
        if word not in _PHASES:
            raise ValueError(f"nothing can be scripted in phase {word!r}")
        rule = Rule(
            reply=reply,
            raw=raw,
            glue=glue,
            pace=pace,
            until=until,
            then=then,
            take=take,
            times=times,
            when=when,
            after_octets=after_octets,
        )
        self._rules.insert(0, (word, rule))
        return rule

    def behave(self) -> None:
        """Forget all rules: from the next command on everything is taken."""
        self._rules.clear()

    def rule_for(self, phase: str, argument: str) -> Rule | None:
        """Find the rule that acts now, and count it."""
        for word, rule in self._rules:
            if word == phase and rule.matches(argument):
                rule.acted += 1
                return rule
        return None

    @property
    def connections(self) -> int:
        return len(self._open)

    def as_peer(self, *, tls: TlsMode | None = None, **changes: Any) -> Peer:
        """Give the `Peer` that reaches this server as `localhost`, with limits of some seconds.

        TLS is required where the server offers it, unless `tls` says otherwise.
        """
        default = TlsMode.REQUIRED if self.tls_context else TlsMode.NONE
        peer = Peer(
            host="localhost",
            port=587,
            connect_to=(self.host, self.port),
            ehlo_name="client.contoso.com",
            tls=default if tls is None else tls,
            ca_file=self.ca_file,
            timeouts=patient_timeouts(),
        )
        return replace(peer, **changes)

    def say(self, octets: bytes) -> None:
        """Speak out of turn on all open connections."""
        for dialogue in self._open.values():
            dialogue.write(octets)

    async def hang_up(self, *, reset: bool = False) -> None:
        """End all open connections, by FIN or by RST, and wait until the server is done with them."""
        tasks = list(self._open)
        for task, dialogue in self._open.items():
            dialogue.end(reset=reset)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._converse, self.host, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Stop listening and end all connections; new ones are refused from now on."""
        if self._server is not None:
            self._server.close()
            await self.hang_up()
            await self._server.wait_closed()
            self._server = None

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.sessions += 1
        dialogue = _Dialogue(self, reader, writer, self.sessions)
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = dialogue
        self.max_connections = max(self.max_connections, len(self._open))
        try:
            await dialogue.run()
        except (_Over, asyncio.CancelledError):
            pass
        except OSError:  # the client is gone, or its handshake failed: nobody to say good-bye to
            writer.transport.abort()
        finally:
            dialogue.lost()
            del self._open[task]
        if not writer.transport.is_closing():
            writer.close()
            with contextlib.suppress(OSError, TimeoutError, asyncio.CancelledError):
                async with asyncio.timeout(1.0):
                    await writer.wait_closed()
        writer.transport.abort()


class _Over(Exception):
    """The dialogue has ended, by us or by the client."""


class _Dialogue:
    """One connection."""

    def __init__(
        self, peer: ScriptedPeer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> None:
        self._peer = peer
        self._reader = reader
        self._writer = writer
        self._number = number
        self._client = "{}:{}".format(*writer.get_extra_info("peername", ("", 0))[:2])
        self._buffer = bytearray()
        self._secure = False
        self._user: str | None = None
        self._transaction: Transaction | None = None

    async def run(self) -> None:
        if rule := self._peer.rule_for("connect", str(self._number)):
            await self._act(rule)
        await self._answer(
            "greeting", str(self._number), "220 peer.contoso.com Microsoft ESMTP MAIL Service ready"
        )
        while True:
            line = await self._line()
            self._peer.commands.append(
                line if not line.upper().startswith("AUTH") else " ".join(line.split(" ")[:2])
            )
            verb, _, argument = line.partition(" ")
            await self._command(verb.upper(), argument)

    async def _command(self, verb: str, argument: str) -> None:
        match verb:
            case "EHLO" | "HELO":
                await self._answer("ehlo", argument, self._hello(extended=verb == "EHLO"))
            case "STARTTLS":
                await self._starttls()
            case "AUTH":
                await self._auth(argument)
            case "MAIL":
                await self._mail(argument)
            case "RCPT":
                await self._rcpt(argument)
            case "DATA":
                await self._data()
            case "RSET":
                self._end("rset")
                await self._answer("rset", argument, "250 2.0.0 Resetting")
            case "NOOP":
                await self._answer("noop", argument, "250 2.0.0 OK")
            case "QUIT":
                self._end("lost")
                await self._answer("quit", argument, "221 2.0.0 Service closing transmission channel")
                raise _Over
            case _:
                await self._send("500 5.3.3 Unrecognized command")

    def _hello(self, *, extended: bool) -> str:
        lines = ["peer.contoso.com Hello [127.0.0.1]"]
        if extended:
            lines += self._peer.extensions
            if self._peer.tls_context and not self._secure:
                lines.append("STARTTLS")
            if self._peer.logins is not None and (self._secure or self._peer.login_without_tls):
                lines.append(f"AUTH {self._peer.mechanisms}")
        return "\n".join(f"250{'-' if line is not lines[-1] else ' '}{line}" for line in lines)

    async def _starttls(self) -> None:
        context = self._peer.tls_context
        if context is None:
            await self._send("502 5.3.3 Command not implemented")
            return
        said = await self._answer("starttls", "", "220 2.0.0 SMTP server ready")
        if not (said or "").startswith("220"):
            return
        if rule := self._peer.rule_for("tls", ""):
            await self._fill()
            await self._act(rule)
        self._buffer.clear()
        await self._writer.start_tls(context)
        self._secure = True
        certificate = self._writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        if certificate:
            self._peer.client_certificates.append(certificate)

    async def _auth(self, argument: str) -> None:
        mechanism, _, initial = argument.partition(" ")
        mechanism = mechanism.upper()
        if mechanism not in self._peer.mechanisms.split():
            await self._send("504 5.7.4 Unrecognized authentication type")
            return
        try:
            username, secret = await (
                self._login(initial) if mechanism == "LOGIN" else self._xoauth2(initial)
            )
        except (binascii.Error, ValueError):
            await self._send("501 5.5.4 Invalid arguments")
            return
        self._peer.logins_tried.append((mechanism, username, secret))
        good = (self._peer.logins or {}).get(username) == secret
        if not good and mechanism == "XOAUTH2" and self._peer.challenge_on_failure:
            status = b'{"status":"400","schemes":"Bearer","scope":"https://mail.google.com/"}'
            await self._send(f"334 {base64.b64encode(status).decode()}")
            if await self._line():
                await self._send("501 5.5.2 An empty line was due")
                return
        usual = (
            "235 2.7.0 Authentication successful"
            if good
            else "535 5.7.3 Authentication unsuccessful [PEER.PROD.OUTLOOK.COM 2026-11-23T20:36:23.875Z 08DF254F56560914]"
        )
        said = await self._answer("auth", mechanism, usual)
        if (said or "").startswith("2"):
            self._user = username

    async def _login(self, initial: str) -> tuple[str, str]:
        if not initial:
            await self._send("334 VXNlcm5hbWU6")
            initial = await self._line()
        await self._send("334 UGFzc3dvcmQ6")
        password = await self._line()
        return _decoded(initial), _decoded(password)

    async def _xoauth2(self, initial: str) -> tuple[str, str]:
        if not initial:
            await self._send("334 ")
            initial = await self._line()
        user, bearer, *rest = _decoded(initial).split("\x01")
        if not user.startswith("user=") or not bearer.startswith("auth=Bearer ") or rest != ["", ""]:
            raise ValueError("not an XOAUTH2 response")
        return user.removeprefix("user="), bearer.removeprefix("auth=Bearer ")

    async def _mail(self, argument: str) -> None:
        path, parameters = _path(argument, "FROM:")
        if self._peer.logins is not None and self._user is None:
            await self._send("530 5.7.57 Client not authenticated to send mail.")
            return
        if self._transaction is not None:
            await self._send("503 5.5.2 Sender already specified")
            return
        transaction = Transaction(session=self._number, mail=path, parameters=parameters, client=self._client)
        self._transaction = transaction
        self._peer.transactions.append(transaction)

        def note(said: str | None) -> None:
            transaction.mail_reply = said
            if said is not None and not said.startswith("2"):
                self._end("refused")

        await self._answer("mail", path, "250 2.1.0 Sender OK", note=note)

    async def _rcpt(self, argument: str) -> None:
        path, parameters = _path(argument, "TO:")
        transaction = self._transaction
        if transaction is None:
            await self._send("503 5.5.2 Need mail command")
            return
        transaction.rcpt_parameters.append(parameters)

        def note(said: str | None) -> None:
            transaction.rcpts.append((path, said))

        await self._answer("rcpt", path, "250 2.1.5 Recipient OK", note=note)

    async def _data(self) -> None:
        transaction = self._transaction
        if transaction is None or not transaction.accepted:
            await self._send(self._peer.data_for_nobody)
            if self._peer.data_for_nobody.startswith("354"):
                await self._content_for_nobody(transaction)
            return
        recipients = " ".join(transaction.accepted)

        def note(said: str | None) -> None:
            transaction.data_reply = said

        usual = "354 Start mail input; end with <CRLF>.<CRLF>"
        said = await self._answer("data", recipients, usual, note=note)
        if (said or "").startswith("354"):
            transaction.octets = await self._content(transaction, recipients)
            transaction.dot = True
            await self._dot(transaction, recipients)

    async def _content_for_nobody(self, transaction: Transaction | None) -> None:
        if transaction is None:
            transaction = Transaction(session=self._number, mail="", parameters="")
            self._transaction = transaction
            self._peer.transactions.append(transaction)
        transaction.data_reply = self._peer.data_for_nobody
        transaction.octets = await self._content(transaction, "")
        transaction.dot = True
        self._end("dot")
        await self._send("250 2.0.0 Taken for nobody")

    async def _content(self, transaction: Transaction, recipients: str) -> bytes:
        rule = self._peer.rule_for("body", recipients)
        # The CRLF that ended the DATA line counts: a dot may come at once (RFC 5321 §4.1.1.4).
        content = bytearray(b"\r\n")
        while True:
            start = max(0, len(content) - 4)
            content += self._buffer
            transaction.content_octets += len(self._buffer)
            self._buffer.clear()
            if rule and transaction.content_octets >= rule.after_octets:
                spoken, rule = rule, None
                await self._act(spoken, reading=False)
            end = content.find(b"\r\n.\r\n", start)
            if end >= 0:
                self._buffer += content[end + 5 :]
                return bytes(content[: end + 2]).replace(b"\r\n..", b"\r\n.")[2:]
            await self._fill()

    async def _dot(self, transaction: Transaction, recipients: str) -> None:
        rule = self._peer.rule_for("dot", recipients)

        def note(said: str | None) -> None:
            transaction.final_reply = said
            take = (
                rule.take
                if rule is not None and rule.take is not None
                else not (said or "").startswith(("4", "5"))
            )
            if take:
                self._peer.taken.append(
                    Taken(
                        mail=transaction.mail,
                        rcpts=transaction.accepted,
                        octets=transaction.octets or b"",
                        at=dt.datetime.now(dt.UTC),
                        session=self._number,
                        replied=said,
                    )
                )
            self._end("dot")

        usual = "250 2.0.0 OK <id@contoso.com> [Hostname=PEER.PROD.OUTLOOK.COM]"
        await self._answer_by(rule, usual, note=note)

    def _end(self, how: Literal["dot", "rset", "lost", "refused"]) -> None:
        if self._transaction is not None:
            self._transaction.ended = how
            self._transaction = None

    def lost(self) -> None:
        self._end("lost")

    async def _answer(
        self, phase: str, argument: str, usual: str, *, note: Callable[[str | None], None] | None = None
    ) -> str | None:
        return await self._answer_by(self._peer.rule_for(phase, argument), usual, note=note)

    async def _answer_by(
        self, rule: Rule | None, usual: str, *, note: Callable[[str | None], None] | None
    ) -> str | None:
        """Answer as the rule says, or as usual; `note` writes down what is said before it is said."""
        said: str | None = usual
        if rule is not None:
            if rule.until is not None:
                await rule.until.wait()
            if rule.reply is not None:
                said = rule.reply
            elif rule.raw is not None:
                said = rule.raw.decode("utf-8", "replace")
            elif rule.then != "go_on":
                said = None
        if note is not None:
            note(said)
        if rule is None:
            await self._send(usual)
        else:
            await self._act(rule, usual=usual if said == usual else None)
        return said

    async def _act(self, rule: Rule, *, usual: str | None = None, reading: bool = True) -> None:
        if rule.until is not None:
            await rule.until.wait()
        octets = b""
        if rule.raw is not None:
            octets = rule.raw
        elif (text := rule.reply if rule.reply is not None else usual) is not None:
            octets = _wire_form(text)
        await self._write_slowly(octets + rule.glue, pace=rule.pace)
        match rule.then:
            case "go_on":
                return
            case "stall":
                await self._stall(reading=reading)
            case "close":
                raise _Over
            case "reset":
                self.end(reset=True)
                raise _Over

    async def _stall(self, *, reading: bool) -> None:
        if not reading:
            await asyncio.Event().wait()
        while True:
            self._buffer.clear()
            await self._fill()

    async def _write_slowly(self, octets: bytes, *, pace: float) -> None:
        if not pace:
            self.write(octets)
        else:
            for octet in octets:
                self.write(bytes([octet]))
                await asyncio.sleep(pace)
        await self._writer.drain()

    async def _send(self, text: str) -> None:
        self.write(_wire_form(text))
        await self._writer.drain()

    def write(self, octets: bytes) -> None:
        if octets and not self._writer.is_closing():
            self._writer.write(octets)

    def end(self, *, reset: bool) -> None:
        if reset:
            sock = self._writer.get_extra_info("socket")
            if sock is None:  # uvloop's way to say that the connection has ended
                return
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._writer.transport.abort()
        else:
            self._writer.close()

    async def _line(self) -> str:
        while (end := self._buffer.find(b"\n")) < 0:
            await self._fill()
        line = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        return line.rstrip(b"\r\n").decode("utf-8", "surrogateescape")

    async def _fill(self) -> None:
        octets = await self._reader.read(262_144)
        if not octets:
            raise _Over
        self._buffer += octets


_PHASES = frozenset(
    [
        "connect",
        "greeting",
        "ehlo",
        "starttls",
        "tls",
        "auth",
        "mail",
        "rcpt",
        "data",
        "body",
        "dot",
        "rset",
        "noop",
        "quit",
    ],
)


def patient_timeouts(**changes: float) -> Timeouts:
    """Give limits for tests: `PATIENT` seconds for each phase, but for those that are named."""
    names = (
        "connect",
        "greeting",
        "ehlo",
        "starttls",
        "auth",
        "mail",
        "rcpt",
        "data",
        "body",
        "dot",
        "rset",
        "quit",
    )
    return Timeouts(**{name: changes.pop(name, PATIENT) for name in names}, **changes)


def _wire_form(text: str) -> bytes:
    return "".join(f"{line}\r\n" for line in text.split("\n")).encode("utf-8", "surrogateescape")


def _decoded(blob: str) -> str:
    return base64.b64decode(blob, validate=True).decode()


def _path(argument: str, keyword: str) -> tuple[str, str]:
    """Take `FROM:<a@b> SIZE=1` apart: the bare path and the parameters."""
    rest = argument[len(keyword) :].strip() if argument.upper().startswith(keyword) else argument
    path, _, parameters = rest.removeprefix("<").rpartition(">")
    return path, parameters.strip()


def _allow_old_tls(context: ssl.SSLContext, maximum: ssl.TLSVersion) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that these versions are old is the point
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = maximum
    context.set_ciphers("DEFAULT:@SECLEVEL=0")


class Authority:
    """A certificate authority of the test run, with its certificate in a file."""

    def __init__(self, folder: Path, name: str) -> None:
        self._ca = trustme.CA(organization_name=name)
        self.file = folder / f"{name.replace(' ', '-')}.pem"
        self._ca.cert_pem.write_to_path(str(self.file))
        self._folder = folder

    def server_context(self, names: tuple[str, ...], *, expired: bool = False) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        yesterday = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
        issued = self._ca.issue_cert(*names, not_after=yesterday if expired else None)
        issued.configure_cert(context)
        return context

    def self_signed_context(self) -> ssl.SSLContext:
        """Give a context whose certificate nobody but its owner has signed: the authority's own."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        both = self._ca.private_key_pem.bytes() + self._ca.cert_pem.bytes()
        with trustme.Blob(both).tempfile(str(self._folder)) as file:
            context.load_cert_chain(file)
        return context

    def client_files(self, name: str) -> tuple[Path, Path]:
        """Issue a certificate for a client and give the files of its chain and of its key."""
        issued = self._ca.issue_cert(name)
        certificate, key = self._folder / f"{name}-chain.pem", self._folder / f"{name}-key.pem"
        certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(str(key))
        key.chmod(0o600)
        return certificate, key


@functools.cache
def authority(name: str = "Postroom tests") -> Authority:
    """Give the authority of this name, made once in a process."""
    return Authority(_folder(), name)


@functools.cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="postroom-ca-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
