"""From nothing to a session: resolve, connect, greeting, EHLO, STARTTLS, EHLO again, login.

Each step has its limit and its phase. What has been learnt is kept as it is learnt, so that
a session that could not be opened still says how far it came and what the peer said.

A login is given out only over TLS that was required, came about and was verified. This is
checked before the first octet and again before AUTH: a peer, or somebody between, that
leaves STARTTLS out of its list gets no secret (STARTTLS stripping, RFC 3207 §6).
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final, cast

from service.smtp.aside import aside
from service.smtp.faults import CannotConnect, CannotResolve, PeerGarbled, PeerRefused, TlsRefused
from service.smtp.login import log_in
from service.smtp.peer import Login, Peer, TlsMode
from service.smtp.phase import Phase
from service.smtp.reply import Reply
from service.smtp.tls import context_for, refusal, tls_facts
from service.smtp.transcript import Strikeout, Transcript
from service.smtp.wire import Wire

# A name with more addresses than this is tried at its first ones.
_ADDRESSES: Final = 8
_NO_SUCH_NAME: Final = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}

SocketAddress = tuple[str, int] | tuple[str, int, int, int]  # as the socket module has them


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFacts:
    """What there is to know about a session, or about how far its opening came."""

    id: str
    opened_at: datetime  # when the opening began
    host: str
    port: int
    peer_address: str | None  # where we are connected: "192.0.2.1:587"
    local_address: str | None
    greeting: str | None
    ehlo: tuple[str, ...]  # the last answer to EHLO, a line each, without codes
    tls: Mapping[str, object] | None  # version, cipher, verified, certificate, own_certificate
    login: Mapping[str, str] | None  # method, identity; None until the login succeeded
    transcript: tuple[Mapping[str, str], ...]  # of the opening

    def as_json(self) -> dict[str, object]:
        """Give the facts in the form that the ledger keeps."""
        return {
            "id": self.id,
            "opened_at": self.opened_at.isoformat(timespec="microseconds"),
            "host": self.host,
            "port": self.port,
            "peer_address": self.peer_address,
            "local_address": self.local_address,
            "greeting": self.greeting,
            "ehlo": list(self.ehlo),
            "tls": dict(self.tls) if self.tls is not None else None,
            "login": dict(self.login) if self.login is not None else None,
            "transcript": [dict(entry) for entry in self.transcript],
        }


class Opening:
    """A session while it is being opened."""

    def __init__(self, peer: Peer, login: Login | None, *, session_id: str) -> None:
        self.peer = peer
        self.extensions: dict[str, str] = {}  # keyword to parameters, RFC 5321 §4.1.1.1
        self._login = login
        self._strikeout = Strikeout()
        self._transcript = Transcript()
        self._wire: Wire | None = None
        self._session_id = session_id
        self._opened_at = datetime.now(UTC)
        self._peer_address: str | None = None
        self._local_address: str | None = None
        self._greeting: str | None = None
        self._ehlo: tuple[str, ...] = ()
        self._tls: dict[str, object] | None = None
        self._identity: dict[str, str] | None = None

    @property
    def wire(self) -> Wire:
        """The connection. There is one once the peer was reached."""
        assert self._wire is not None
        return self._wire

    async def run(self) -> None:
        """Go through all steps. Raises an `SmtpFault` at the first one that fails."""
        self._refuse_login_without_tls()
        context = None if self.peer.tls is TlsMode.NONE else context_for(self.peer)
        await self._connect()
        await self._greet()
        await self._say_hello()
        if context is not None:
            await self._secure(context)
        if self._login is not None:
            await self._log_in(self._login)

    def abort(self) -> None:
        """Cut the connection, where there is one."""
        if self._wire is not None:
            self._wire.abort()

    def facts(self) -> SessionFacts:
        """Say what is known so far."""
        return SessionFacts(
            id=self._session_id,
            opened_at=self._opened_at,
            host=self.peer.host,
            port=self.peer.port,
            peer_address=self._peer_address,
            local_address=self._local_address,
            greeting=self._greeting,
            ehlo=self._ehlo,
            tls=self._tls,
            login=self._identity,
            transcript=tuple(self._transcript.as_json()),
        )

    def _refuse_login_without_tls(self) -> None:
        if self._login is not None and self.peer.tls is not TlsMode.REQUIRED:
            detail = "A login is given out over required and verified TLS only."
            raise TlsRefused("tls_required_for_login", phase=Phase.CONNECT, detail=detail)

    async def _connect(self) -> None:
        connection = await _connected(self.peer, self._transcript)
        loop = asyncio.get_running_loop()
        try:
            _, self._wire = await loop.create_connection(
                lambda: Wire(self._transcript, self._strikeout, connection), sock=connection
            )
        except BaseException:
            connection.close()
            raise
        self._peer_address = _shown(connection.getpeername)
        self._local_address = _shown(connection.getsockname)
        self._transcript.note(Phase.CONNECT, f"connected to {self._peer_address} from {self._local_address}")

    async def _greet(self) -> None:
        self.wire.phase = Phase.GREETING
        reply = await self.wire.read_reply(within=self.peer.timeouts.greeting)
        self._greeting = reply.text
        self._expect_positive(reply, refused="greeting_refused")

    async def _say_hello(self) -> None:
        """EHLO; HELO for a server of old that knows no EHLO, where nothing needs an extension."""
        self.wire.phase = Phase.EHLO
        within = self.peer.timeouts.ehlo
        reply = await self.wire.ask(f"EHLO {self.peer.ehlo_name}", within=within)
        if reply.code in {500, 502} and self.peer.tls is not TlsMode.REQUIRED:
            reply = await self.wire.ask(f"HELO {self.peer.ehlo_name}", within=within)
            self._expect_positive(reply, refused="ehlo_refused")
            self._ehlo, self.extensions = (reply.text,), {}
            return
        self._expect_positive(reply, refused="ehlo_refused")
        self._ehlo = tuple(line[4:] for line in reply.lines)
        self.extensions = extensions_of(self._ehlo[1:])

    async def _secure(self, context: ssl.SSLContext) -> None:
        self.wire.phase = Phase.STARTTLS
        required = self.peer.tls is TlsMode.REQUIRED
        if "STARTTLS" not in self.extensions:
            if required:
                detail = "TLS is required, and the peer does not offer STARTTLS."
                raise TlsRefused("starttls_not_offered", phase=Phase.STARTTLS, detail=detail)
            self._transcript.note(Phase.STARTTLS, "STARTTLS is not offered; going on without TLS")
            return
        reply = await self._shake_hands(context)
        if self.wire.secure:
            self._describe_tls(verified=required)
            await self._say_hello()
        elif required or reply.code == 421:
            detail = "TLS is required, and the peer refused STARTTLS."
            raise TlsRefused("starttls_refused", phase=Phase.STARTTLS, detail=detail, reply=reply)

    async def _shake_hands(self, context: ssl.SSLContext) -> Reply:
        try:
            return await self.wire.upgrade(context, name=self.peer.host, within=self.peer.timeouts.starttls)
        except ssl.SSLError as trouble:
            refused = refusal(trouble)
            self._transcript.note(Phase.STARTTLS, refused.detail)
            raise refused from trouble

    def _describe_tls(self, *, verified: bool) -> None:
        assert self.wire.transport is not None
        connection = cast("ssl.SSLObject", self.wire.transport.get_extra_info("ssl_object"))
        self._tls = tls_facts(connection, self.peer, verified=verified)
        judged = "verified" if verified else "not verified"
        note = f"{self._tls['version']} {self._tls['cipher']}, certificate {judged}"
        self._transcript.note(Phase.STARTTLS, note)

    async def _log_in(self, login: Login) -> None:
        assert self.wire.secure, "no secret leaves without TLS"
        self.wire.phase = Phase.AUTH
        offered = self.extensions.get("AUTH", "").split()
        within = self.peer.timeouts.auth
        await log_in(self.wire, login, offered=offered, strikeout=self._strikeout, within=within)
        self._identity = {"method": login.method, "identity": login.username}

    def _expect_positive(self, reply: Reply, *, refused: str) -> None:
        phase = self.wire.phase
        if reply.code == 421:
            raise PeerRefused("closing", phase=phase, detail="The peer ends the session.", reply=reply)
        if reply.intermediate():
            detail = f"A {reply.code} is no answer in phase {phase.word}."
            raise PeerGarbled("unexpected_code", phase=phase, detail=detail, reply=reply)
        if not reply.positive():
            detail = "The peer does not want to talk to us."
            raise PeerRefused(refused, phase=phase, detail=detail, reply=reply)


def extensions_of(lines: tuple[str, ...]) -> dict[str, str]:
    """Read the extensions out of an EHLO answer without its first line: keyword to parameters.

    `AUTH=LOGIN`, an old form, counts as `AUTH LOGIN`; several AUTH lines add up.
    """
    extensions: dict[str, str] = {}
    for line in lines:
        keyword, _, parameters = line.strip().partition(" ")
        if keyword.upper().startswith("AUTH="):
            keyword, parameters = "AUTH", f"{keyword[5:]} {parameters}"
        keyword = keyword.upper()
        known = extensions.get(keyword, "") if keyword == "AUTH" else ""
        extensions[keyword] = f"{known} {parameters}".strip()
    return extensions


async def _connected(peer: Peer, transcript: Transcript) -> socket.socket:
    """Connect to the first address that takes us; each gets its share of the time that is left."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + peer.timeouts.connect
    addresses = await _addresses(peer)
    trouble: OSError = TimeoutError()
    for number, (family, address) in enumerate(addresses):
        share = (deadline - loop.time()) / (len(addresses) - number)
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            # The dot is a packet of its own. With Nagle's algorithm it would wait for the peer's
            # delayed acknowledgement of the content: 40 ms a message. asyncio does this only for
            # sockets that it made itself.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout(share):
                await loop.sock_connect(connection, address)
        except OSError as failed:
            connection.close()
            trouble = failed
            transcript.note(Phase.CONNECT, f"{_endpoint(address)}: {_connect_trouble(failed)[1]}")
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    code, reason = _connect_trouble(trouble)
    tried = ", ".join(_endpoint(address) for _, address in addresses)
    detail = f"No connection to {peer.host}: {reason} (tried {tried})."
    raise CannotConnect(code, phase=Phase.CONNECT, detail=detail) from trouble


async def addresses_of(peer: Peer) -> list[str]:
    """List the addresses that a session with this peer would try, in this order. Raises `CannotResolve`."""
    return [address[0] for _, address in await _addresses(peer)]


async def _addresses(peer: Peer) -> list[tuple[int, SocketAddress]]:
    """Resolve the peer's name, IPv6 and IPv4 in turn (RFC 8305 §4)."""
    if peer.addresses and peer.connect_to is None:
        return _given(peer)
    host, port = peer.connect_to or (peer.host, peer.port)
    family = socket.AF_INET if peer.address_family == "ipv4" else socket.AF_UNSPEC
    lookup = partial(socket.getaddrinfo, host, port, family=family, type=socket.SOCK_STREAM)
    try:
        async with asyncio.timeout(peer.timeouts.connect):
            found = await aside(lookup, name="resolver")
    except TimeoutError as slow:
        detail = f"The name {host} was not resolved within {peer.timeouts.connect:g} s."
        raise CannotResolve("resolve_timeout", phase=Phase.CONNECT, detail=detail) from slow
    except (socket.gaierror, UnicodeError) as unknown:
        nobody = isinstance(unknown, UnicodeError) or unknown.errno in _NO_SUCH_NAME
        code = "name_not_found" if nobody else "resolver_failed"
        reason = "has no address" if nobody else "could not be resolved for now"
        detail = f"The name {host} {reason}."
        raise CannotResolve(code, phase=Phase.CONNECT, detail=detail) from unknown
    unique = list(dict.fromkeys((entry[0], entry[4]) for entry in found))
    return _in_turn(cast("list[tuple[int, SocketAddress]]", unique))[:_ADDRESSES]


def _given(peer: Peer) -> list[tuple[int, SocketAddress]]:
    """Take the addresses that were found before, those of the right family."""
    families = {address: socket.AF_INET6 if ":" in address else socket.AF_INET for address in peer.addresses}
    fitting = [
        address
        for address, family in families.items()
        if family is socket.AF_INET or peer.address_family == "any"
    ]
    if not fitting:
        detail = f"The name {peer.host} has no IPv4 address, and this route needs one."
        raise CannotResolve("name_not_found", phase=Phase.CONNECT, detail=detail)
    return _in_turn([(families[address], (address, peer.port)) for address in fitting])[:_ADDRESSES]


def _in_turn(addresses: list[tuple[int, SocketAddress]]) -> list[tuple[int, SocketAddress]]:
    first = [entry for entry in addresses if entry[0] == addresses[0][0]]
    others = [entry for entry in addresses if entry[0] != addresses[0][0]]
    turns: list[tuple[int, SocketAddress]] = []
    for place in range(max(len(first), len(others))):
        turns += first[place : place + 1] + others[place : place + 1]
    return turns


def _connect_trouble(trouble: OSError) -> tuple[str, str]:
    match trouble:
        case TimeoutError():
            return "connect_timeout", "no answer in time"
        case ConnectionRefusedError():
            return "connection_refused", "connection refused"
        case OSError(strerror=str(reason)) if "unreachable" in reason.lower():
            return "network_unreachable", reason.lower()
        case _:
            return "connect_failed", (trouble.strerror or type(trouble).__name__).lower()


def _endpoint(address: SocketAddress) -> str:
    host, port = address[0], address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _shown(name_of: Callable[[], SocketAddress]) -> str | None:
    try:
        return _endpoint(name_of())
    except OSError:  # the connection may have ended already
        return None
