"""One check of one route, from DNS to QUIT, with the code that delivery uses.

Every mailbox of the route is logged in once, because each has its own permissions and switches. What
belongs to the whole route (the way there, TLS, certificates, SPF) is told once. A token is asked for
anew, so that a permission that was granted a minute ago is seen, and so that delivery has it, too.

Where a certificate is not trusted, the peer is looked at once more without a login and without
judging, only to say what it presents.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Protocol

from service.mail.address import Address
from service.mail.envelope import Envelope
from service.routes import diagnoses
from service.routes.kinds import CLOUDS, HIGH_VOLUME_SCOPE
from service.routes.mx import MxFinder
from service.routes.preflight import claims, dialogue, papers, remedies, senders
from service.routes.preflight.claims import Expected
from service.routes.preflight.dialogue import NETWORK, Opened
from service.routes.preflight.remedies import Place
from service.routes.preflight.spf import Answers
from service.routes.preflight.steps import Preflight, Status, Step, fail, ok, skip
from service.routes.route import BasicLogin, Lane, OAuthLogin, Route, RouteKind
from service.routes.tokens import Entra, TokenRefused, Tokens, TokenUnavailable
from service.smtp.faults import CannotConnect, CannotResolve, SmtpFault
from service.smtp.opening import addresses_of
from service.smtp.peer import Login, Peer, Timeouts, TlsMode
from service.smtp.phase import Phase
from service.smtp.session import Session, open_session

#: Seconds for each phase. Delivery waits for as long as RFC 5321 says; people wait for a check.
PATIENCE = Timeouts(
    connect=10.0, greeting=30.0, ehlo=15.0, starttls=15.0, auth=30.0, mail=30.0, rcpt=30.0, data=5.0, body=5.0
)

#: Seconds that all of one route's steps may take.
LONGEST = 240.0

#: Seconds that the dialogue of one lane may take. Its seat is leased for a little longer.
LANE_LONGEST = 80.0
_LEASE = 90.0

_SESSION = "preflight"

_BUSY = "Not tried: mail is using all connections that this lane may have, which shows that its login works."

#: What the catalogue calls a 535 that gives no reason.
_REFUSED_LOGIN = "exo.authentication_unsuccessful"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What a check knows beside the route."""

    entra: Entra
    accepted_domains: tuple[str, ...]
    static_ips: tuple[IPv4Address | IPv6Address, ...]


class Seats(Protocol):
    """Who counts the connections of a lane: the ledger, for all processes."""

    async def take_seat(self, lane: str, *, route: str, of: int, lease: float) -> str | None: ...
    async def give_back(self, seats: Sequence[str]) -> None: ...


class Preflights:
    """Checks routes. Belongs to one event loop."""

    def __init__(self, *, tokens: Tokens, mx: MxFinder, answers: Answers, ground: Ground) -> None:
        """Take what delivery logs in and finds hosts with, and who answers questions about SPF."""
        self._tokens = tokens
        self._mx = mx
        self._answers = answers
        self._ground = ground

    async def check(
        self,
        route: Route,
        *,
        to: Address | None = None,
        sender: Address | None = None,
        seats: Seats | None = None,
    ) -> Preflight:
        """Go through all steps; whatever the peer does is a step, never an exception.

        `to` and `sender` are named in RCPT and MAIL instead of the usual ones. A lane whose
        connections are limited is logged in to on one of its `seats`, so that together with
        delivery there is never one too many.
        """
        started_at = datetime.now(UTC)
        run = _Run(self, route, to=to, sender=sender, seats=seats)
        try:
            async with asyncio.timeout(LONGEST):
                await run.go()
        except TimeoutError:
            run.done.append(
                _too_long(LONGEST, "Look at the steps above for the slow one, then check the route again.")
            )
        return Preflight(
            route=route.name,
            started_at=started_at,
            ended_at=datetime.now(UTC),
            steps=tuple(run.done),
            well=run.well,
        )

    def expected(self, lane: Lane) -> Expected | None:
        """Say what a lane's token should be like; None for a login without one."""
        if not isinstance(lane.login, OAuthLogin):
            return None
        entra = self._ground.entra
        usual = (
            HIGH_VOLUME_SCOPE
            if lane.route.kind is RouteKind.HIGH_VOLUME_EMAIL
            else CLOUDS[entra.cloud].submission_scope
        )
        return Expected(
            kind=lane.route.kind,
            scope=lane.login.scope or usual,
            tenant_id=entra.tenant_id,
            client_id=lane.login.client_id,
        )


class _Run:
    """One check under way."""

    def __init__(
        self,
        owner: Preflights,
        route: Route,
        *,
        to: Address | None,
        sender: Address | None,
        seats: Seats | None,
    ) -> None:
        self.done: list[Step] = []
        self.well: dict[str, Phase] = {}
        self._owner = owner
        self._ground = owner._ground  # noqa: SLF001  # one class in two parts
        self._route = route
        self._to = to
        self._sender = sender
        self._seats = seats
        self._told = False  # whether the steps of the way there were told

    async def go(self) -> None:
        """Go through all steps, each told when it is known."""
        now = datetime.now(UTC)
        self.done += papers.steps(self._route, accepted_domains=self._ground.accepted_domains, now=now)
        peers, name = await self._peers()
        self.done.append(name)
        if not peers:
            self.done += self._unreached()
        for lane in self._route.lanes() if peers else ():
            await self._lane(lane, peers)
        self.done += await self._spf()

    async def _peers(self) -> tuple[tuple[Peer, ...], Step]:
        """Find out whom to dial."""
        route = self._route
        try:
            if route.mx_of is not None:
                peers = await self._owner._mx.peers(route)  # noqa: SLF001
                hosts = [peer.host for peer in peers]
                found = [address for peer in peers for address in peer.addresses]
                detail = f"The MX of {route.mx_of} is {', '.join(hosts)}{_shown(found)}{_instead(route)}."
                return peers, ok("name", detail, mx_of=route.mx_of, hosts=hosts, addresses=found)
            if route.peer.connect_to is not None:
                detail = f"{route.peer.host} is not looked up{_instead(route)}."
                return (route.peer,), skip("name", detail)
            found = await _addresses(route.peer)
            detail = f"{route.peer.host}{_shown(found)}."
            return (route.peer,), ok("name", detail, hosts=[route.peer.host], addresses=found)
        except CannotResolve as fault:
            place = self._place(route.peer)
            return (), dialogue.fault_step("name", fault, Opened(facts=None, fault=fault, place=place))

    def _unreached(self) -> Iterator[Step]:
        for name in NETWORK:
            yield skip(name, "Not tried: name failed.")
        for lane in self._route.lanes():
            yield from (
                skip(name, "Not tried: name failed.", lane=lane.name) for name in ("auth", "mail", "rcpt")
            )

    async def _lane(self, lane: Lane, peers: tuple[Peer, ...]) -> None:
        """Log in for a lane, on a seat of its own where its connections are limited."""
        limit, seat = lane.limits.connections, None
        if self._seats is not None and limit is not None:
            seat = await self._seats.take_seat(lane.name, route=self._route.name, of=limit, lease=_LEASE)
        busy = self._seats is not None and limit is not None and seat is None
        try:
            async with asyncio.timeout(LANE_LONGEST):
                await self._dialogue(lane, peers, busy=busy)
        except TimeoutError:
            remedy = "The peer answers very slowly: try again, and look at what is in between."
            self.done.append(_too_long(LANE_LONGEST, remedy, lane=lane.name))
        finally:
            if self._seats is not None and seat is not None:
                await self._seats.give_back([seat])

    async def _dialogue(self, lane: Lane, peers: tuple[Peer, ...], *, busy: bool) -> None:
        login, token = await self._login(lane)
        if token is not None:
            self.done.append(token)
        if busy:
            # The limit counts logins: without one, the way there may be looked at all the same.
            login = None
            if self._told or lane.login is None:
                self._not_tried(lane, _BUSY, "auth", "mail", "rcpt", "rset", "quit")
                return
        opened, session = await self._open(peers, login)
        try:
            self._way_there(opened, lane)
            refused = token is not None and token.status is Status.FAIL
            if busy or refused:
                reason = _BUSY if busy else "Not tried: token failed."
                self._not_tried(lane, reason, "auth", "mail", "rcpt", "rset", "quit")
                return
            self.done.append(self._with_cause(dialogue.auth_step(opened, lane), token, lane))
            if session is None:
                self._not_tried(lane, f"Not tried: {opened.broke_at} failed.", "mail", "rcpt", "rset", "quit")
            else:
                await self._rehearse(session, lane, opened.place)
        except asyncio.CancelledError:
            if session is not None:
                session.abort()
            raise
        finally:
            if session is not None:
                await session.close()

    def _way_there(self, opened: Opened, lane: Lane) -> None:
        """Tell the steps of the connection: once, and again where another lane's breaks."""
        if self._told and opened.broke_at in {None, "auth"}:
            return
        for step in dialogue.network_steps(opened, now=datetime.now(UTC)):
            self.done.append(replace(step, lane=lane.name) if self._told else step)
        egress = dialogue.egress_step(
            opened.facts, tuple(map(str, self._ground.static_ips)), relay_by_ip=self._route.relay_by == "ip"
        )
        if egress is not None and not self._told:
            self.done.append(egress)
        self._told = True

    def _not_tried(self, lane: Lane, reason: str, *names: str) -> None:
        self.done += (skip(name, reason, lane=lane.name) for name in names)

    async def _login(self, lane: Lane) -> tuple[Login | None, Step | None]:
        """Ask for what to log in with, and read the token where it is one."""
        expected = self._owner.expected(lane)
        try:
            login = await self._owner._tokens.login_for(lane, refresh=True)  # noqa: SLF001
        except (TokenRefused, TokenUnavailable) as trouble:
            return None, self._no_token(trouble, lane, expected)
        if login is None or expected is None:
            return login, None
        return login, claims.judge(login.secret, expected, lane=lane.name, now=datetime.now(UTC))

    def _no_token(
        self, trouble: TokenRefused | TokenUnavailable, lane: Lane, expected: Expected | None
    ) -> Step:
        refused = isinstance(trouble, TokenRefused)
        diagnosis = diagnoses.of_code("token_refused" if refused else "token_unavailable")
        mailbox = str(lane.account.address) if lane.account else lane.name
        authority = self._ground.entra.authority
        written = diagnosis.as_json({"mailbox": mailbox, "host": authority})
        listed = written["remedy"]
        assert isinstance(listed, list)
        code = trouble.code if isinstance(trouble, TokenRefused) else None
        own = remedies.for_token(
            code, client_id=expected.client_id if expected else "", entra=self._ground.entra
        )
        return Step(
            name="token",
            status=Status.FAIL,
            detail=f"{diagnosis.as_json({'mailbox': mailbox, 'host': authority})['title']}: {trouble}",
            remedy=own or tuple(map(str, listed)),
            lane=lane.name,
            facts={"code": code},
            diagnosis=diagnosis.id,
        )

    def _with_cause(self, step: Step, token: Step | None, lane: Lane) -> Step:
        """Put the likeliest cause of a refused login first: a role that is not in the token. A password has no roles."""
        if step.status is not Status.FAIL or "reply" not in step.facts:
            return step
        expected = self._owner.expected(lane)
        if expected is not None and token is not None and claims.lacks_role(token, expected):
            return replace(step, remedy=(claims.role_remedy(expected), *step.remedy))
        if isinstance(lane.login, BasicLogin) and step.diagnosis == _REFUSED_LOGIN:
            return replace(step, remedy=remedies.password(lane.login.username))
        return step

    async def _open(self, peers: tuple[Peer, ...], login: Login | None) -> tuple[Opened, Session | None]:
        """Open a session with the first peer that takes the connection."""
        opened: Opened | None = None
        for peer in peers:
            place = self._place(peer)
            try:
                session = await open_session(
                    replace(peer, timeouts=_shorter(peer.timeouts)), login, session_id=_SESSION
                )
            except (CannotConnect, CannotResolve) as fault:
                opened = Opened(facts=fault.facts, fault=fault, place=place)
            except SmtpFault as fault:
                presented = await _presented(peer) if fault.code == "certificate_invalid" else None
                if fault.facts is not None:
                    place = self._place(peer, dialogue.our_address(fault.facts))
                return Opened(facts=fault.facts, fault=fault, place=place, presented=presented), None
            else:
                place = self._place(peer, dialogue.our_address(session.facts))
                return Opened(facts=session.facts, fault=None, place=place), session
        assert opened is not None, "a route has a peer"
        return opened, None

    async def _rehearse(self, session: Session, lane: Lane, place: Place) -> None:
        """Name sender and recipient, take it back, say good-bye."""
        sender = self._sender or sender_of(lane, self._ground.accepted_domains)
        if sender is None:
            reason = (
                "No sender is known for this route: say one (--from), or set organization.accepted_domains."
            )
            self._not_tried(lane, reason, "mail", "rcpt", "rset")
            return
        recipient = self._to or self._usual_recipient(sender)
        report = await session.rehearse(Envelope(reverse_path=sender, forward_paths=(recipient,)))
        steps = list(
            dialogue.rehearsal_steps(
                report, place, lane=lane, sender=sender, recipient=recipient, usable=session.usable
            )
        )
        self.done += steps
        taken = all(step.status is Status.OK for step in steps[:2])
        self.well[lane.name] = Phase.RCPT if taken else Phase.AUTH
        usable = session.usable
        await session.close()
        if usable:
            self.done.append(ok("quit", "QUIT: nothing was sent.", lane=lane.name))
        else:
            self._not_tried(lane, "The session had ended; nothing was sent.", "quit")

    def _usual_recipient(self, sender: Address) -> Address:
        """An address that the route leads to: the sender itself, or the domain's postmaster (RFC 5321 §4.5.1)."""
        if self._route.mx_of is not None:
            return Address.parse(f"postmaster@{self._route.mx_of}")
        domains = self._route.recipient_domains
        if domains and sender.domain not in domains:
            return Address.parse(f"postmaster@{domains[0]}")
        return sender

    async def _spf(self) -> list[Step]:
        route, ground = self._route, self._ground
        needed = senders.needed_for(route, cloud=ground.entra.cloud, static_ips=ground.static_ips)
        domains = senders.domains_of(route, ground.accepted_domains)
        steps = await senders.spf_steps(domains, needed, self._owner._answers)  # noqa: SLF001
        return [_eased(step) for step in steps] if _dials_inside(route) else steps

    def _place(self, peer: Peer, address: str | None = None) -> Place:
        host, port = peer.connect_to or (peer.host, peer.port)
        return Place(
            route=self._route,
            host=peer.host,
            dialled=f"{host}:{port}",
            tenant_id=self._ground.entra.tenant_id,
            address=address,
        )


def _too_long(seconds: float, remedy: str, *, lane: str | None = None) -> Step:
    return fail("time", f"This took longer than {seconds:g} seconds and was ended here.", remedy, lane=lane)


def sender_of(lane: Lane, accepted_domains: tuple[str, ...]) -> Address | None:
    """Choose a sender for a trial: the mailbox itself, otherwise an address that the route sends for."""
    if lane.account is not None:
        return lane.account.address
    domains = lane.route.sender_domains or accepted_domains
    local = "donotreply" if lane.route.kind is RouteKind.AZURE_COMMUNICATION_SERVICES else "postmaster"
    return Address.parse(f"{local}@{domains[0]}") if domains else None


def _dials_inside(route: Route) -> bool:
    """Say whether the route is dialled on this machine: a sandbox, to which SPF means nothing."""
    if route.peer.connect_to is None:
        return False
    host = route.peer.connect_to[0]
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _eased(step: Step) -> Step:
    if step.status is not Status.FAIL:
        return step
    note = " The route is dialled on this machine (connect_to), so it does no harm yet."
    return replace(step, status=Status.WARN, detail=step.detail + note)


def _shorter(given: Timeouts) -> Timeouts:
    """Take a route's own limits where they are shorter than a check's."""
    names = Timeouts.__dataclass_fields__
    return Timeouts(**{name: min(getattr(given, name), getattr(PATIENCE, name)) for name in names})


def _instead(route: Route) -> str:
    if route.peer.connect_to is None:
        return ""
    host, port = route.peer.connect_to
    return f"; connect_to dials {host}:{port} instead"


def _shown(addresses: list[str]) -> str:
    if not addresses:
        return ""
    more = f" and {len(addresses) - 6} more" if len(addresses) > 6 else ""
    return f" has {', '.join(addresses[:6])}{more}"


async def _addresses(peer: Peer) -> list[str]:
    """Look a host up as delivery does. Raises `CannotResolve`."""
    return await addresses_of(replace(peer, timeouts=_shorter(peer.timeouts)))


async def _presented(peer: Peer) -> dict[str, Any] | None:
    """See which certificate a peer shows that was not trusted: without a login, judging nothing."""
    looking = replace(
        peer,
        tls=TlsMode.OPPORTUNISTIC,
        timeouts=_shorter(peer.timeouts),
        client_certificate=None,
        client_key=None,
    )
    try:
        session = await open_session(looking, None, session_id=_SESSION)
    except SmtpFault:
        return None
    facts = session.facts.tls
    await session.close()
    certificate = facts.get("certificate") if facts else None
    return dict(certificate) if isinstance(certificate, dict) else None
