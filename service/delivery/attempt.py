"""The story of one attempt, from a claimed delivery to its verdict in the ledger.

    claimed ──> octets ──> session (token, login) ──> MAIL … body ──> fence ──> dot ──> verdict

Before the fence everything may fail and nothing was sent. The fence is the last look at the
ledger: the attempt is marked `dot` where its lease is still ours, and only then the dot may
leave. Behind it silence means `uncertain`. Whatever happens, one closing is written; if
even that cannot be, the lease runs out and the sweep judges the attempt by what the ledger
saw of it.
"""

import asyncio
import hashlib
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import structlog

from service.delivery import verdict
from service.delivery.keeper import Keeper
from service.delivery.noting import note
from service.delivery.room import Room
from service.delivery.schedule import Policy
from service.delivery.seats import Seat
from service.delivery.verdict import Case, Judgement
from service.ledger import Ledger, LedgerUnavailable
from service.ledger.claiming import Claimed
from service.ledger.closing import Closing
from service.ledger.ids import new_id
from service.mail.address import Address
from service.mail.envelope import Envelope
from service.routes.mx import MxFinder, first_reached
from service.routes.route import BasicLogin, Lane, OAuthLogin
from service.routes.tokens import TokenRefused, Tokens, TokenUnavailable
from service.smtp.dsn import Dsn
from service.smtp.faults import SmtpFault
from service.smtp.peer import Peer
from service.smtp.phase import Phase
from service.smtp.session import Parcel, Report, Session, SessionFacts, open_session
from service.smtp.transcript import Entry
from service.telemetry import traces

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Kit:
    """What every attempt of a worker needs."""

    worker: str
    ledger: Ledger
    tokens: Tokens
    mx: MxFinder
    keeper: Keeper
    policy: Policy
    room: Room


#: Gives the attempt that may begin behind this one's dot, on the session; None: nothing may, or there is none.
Behind = Callable[[Session], "Attempt | None"]


class DamagedContent(Exception):
    """The octets in the database are others than those that were accepted: they are not sent as if they were."""


class Attempt:
    """One try at one delivery, on one seat of a lane.

    `converse` leads it to a judgement, and then the seat is free for another one; `record` writes it down.
    """

    def __init__(self, claimed: Claimed, *, lane: Lane, seat: Seat, kit: Kit) -> None:
        self.claimed = claimed
        self.dot_seconds: float | None = None  # how long the reply to the dot took
        self.begun_behind = False  # the session ended with the message before
        self.without_ledger = False  # the ledger was away, or would not let the dot leave
        self._lane = lane
        self._seat = seat
        self._kit = kit
        self._fenced = False  # the ledger knows that the dot may leave
        self._facts: dict[str, Any] | None = None
        self._number: int | None = None  # how many-th message of its session
        self._transcript: list[dict[str, Any]] = []
        self._conversation: asyncio.Task[Any] | None = None
        self._parcel: Parcel | None = None
        self._began_on: Session | None = None  # where its commands may have left behind another one's dot
        self._dot_at: float | None = None
        self._began_at = datetime.now(UTC)
        self._judgement: Judgement | None = None
        self._case = Case(
            claimed=claimed,
            kind=lane.route.kind,
            policy=kit.policy,
            names=_names(claimed, lane, tenant_id=kit.tokens.tenant_id),
            jitter=random.uniform(-1, 1),  # noqa: S311  # spreads retries, guards nothing
        )

    @property
    def judged(self) -> bool:
        """Whether it has come to its end."""
        return self._judgement is not None

    @property
    def judgement(self) -> Judgement:
        """What it has come to."""
        assert self._judgement is not None, "it has not come to its end"
        return self._judgement

    async def converse(self, *, behind: Behind) -> Judgement:
        """Send, and judge, whatever happens on the way."""
        if self._judgement is None:
            self._judgement = await self._judged(behind)
        return self._judgement

    async def record(self) -> None:
        """Write down what came of it."""
        judgement = self.judgement
        closing = Closing(
            attempt_id=self.claimed.attempt_id,
            message_id=self.claimed.message_id,
            delivery_id=self.claimed.delivery_id,
            lane=self._lane.name,
            route=self._lane.route.name,
            worker=self._kit.worker,
            phase=judgement.phase.word,
            outcome=judgement.outcome,
            recipients=judgement.recipients,
            reply=judgement.reply,
            error=judgement.error,
            transcript=self._transcript,
            session_id=None if self._facts is None else str(self._facts["id"]),
            session_message=self._number,
            session_facts=self._facts,
            trouble=judgement.trouble,
            lane_well=judgement.lane_well,
            split=judgement.split,
            peer_trailer=judgement.peer_trailer,
            sender=self.claimed.sender,
            external=self.claimed.external,
        )
        await self._write(closing)
        log.info(
            "attempt.closed",
            attempt=self.claimed.attempt_id,
            message=self.claimed.message_id,
            lane=self._lane.route.name,
            outcome=judgement.outcome.value,
            phase=judgement.phase.word,
            **_trace(self.claimed),
        )
        note(
            self.claimed,
            judgement,
            lane=self._lane,
            began=self._began_at,
            dot_seconds=self.dot_seconds,
            number=self._number,
            opening=() if self._facts is None else self._facts["transcript"],
            transcript=self._transcript,
        )

    def abort(self) -> None:
        """Stop talking now; what came of it is still judged and written down."""
        if self._conversation is not None and not self.judged:
            self._conversation.cancel()

    def give_back(self) -> None:
        """Let the delivery go before its turn: nothing of it was sent."""
        self._judgement = verdict.judge_abort(
            self._case, code="given_back", phase=Phase.CONNECT, dot_sent=False
        )

    def begin_behind(self, session: Session) -> Parcel:
        """Give what may begin behind another message's dot on this session."""
        assert self.claimed.octets is not None, "only what is at hand may begin behind another one"
        self._began_on = session
        return self._parcel_of(self.claimed.octets)

    def disown(self) -> bool:
        """Wait no longer for the message before it, where this one has begun behind that; say whether it had."""
        session, parcel = self._began_on, self._parcel
        if session is None or parcel is None or session.begun is not parcel:
            return False
        self._know(session.facts)
        self._judgement = self._judge(session.disown(parcel))
        return True

    async def _judged(self, behind: Behind) -> Judgement:
        """Come to a judgement, whatever happens on the way."""
        self._conversation = asyncio.current_task()
        try:
            return await self._converse(behind)
        except asyncio.CancelledError:
            # `abort`: the end of our grace. Nobody else cancels an attempt.
            if self._conversation is not None:
                self._conversation.uncancel()
            report = self._cut_short()
            self._note("stopped here: the worker shuts down", report)
            return verdict.judge_abort(
                self._case, phase=self._reached(report), dot_sent=self._fenced, report=report
            )
        except SmtpFault as fault:
            self._learn_from(fault)
            return verdict.judge_opening(self._case, fault)
        except TokenRefused as exc:
            return verdict.judge_token(self._case, refused=True, detail=exc.detail, retry_after=None)
        except TokenUnavailable as exc:
            return verdict.judge_token(
                self._case, refused=False, detail=exc.detail, retry_after=exc.retry_after
            )
        except LedgerUnavailable:  # before the first octet: the content could not be read
            self.without_ledger = True
            return verdict.judge_without_ledger(self._case)
        except Exception as exc:
            # A bug of ours must not cost the other messages their worker. Its type is enough for
            # the ledger; the log has the rest.
            log.exception("attempt.bug", attempt=self.claimed.attempt_id, message=self.claimed.message_id)
            report = self._cut_short()
            if self._fenced:
                return verdict.judge_abort(self._case, phase=Phase.DOT, dot_sent=True, report=report)
            return verdict.judge_bug(self._case, type(exc).__name__)

    async def _converse(self, behind: Behind) -> Judgement:
        session = self._began_on
        if session is not None and session.begun is self._parcel and self._parcel is not None:
            self._know(session.facts)
            return self._judge(_behind(await self._transmit(session, self._parcel, behind)))
        octets = self.claimed.octets
        if octets is not None:
            return await self._carry(octets, behind)
        async with self._kit.room.of(self._lane.name, self.claimed.size):
            return await self._carry(await self._kit.ledger.octets(self.claimed.message_id), behind)

    async def _carry(self, octets: bytes, behind: Behind) -> Judgement:
        parcel = self._parcel_of(octets)
        report = await self._transmit(await self._session(), parcel, behind)
        if report.untouched:
            # The kept session had ended meanwhile: that is nobody's fault, and a new one decides.
            self._drop_session()
            report = await self._transmit(await self._session(), parcel, behind)
        return self._judge(report)

    async def _transmit(self, session: Session, parcel: Parcel, behind: Behind) -> Report:
        def following() -> Parcel | None:
            found = behind(session)
            try:
                return None if found is None else found.begin_behind(session)
            except Exception:  # a bug, and that one's own: it shows again when its turn comes
                log.exception("attempt.not_begun_behind", attempt=self.claimed.attempt_id)
                return None

        report = await session.transmit(parcel, before_dot=self._fence, behind=following)
        if self._dot_at is not None and report.final is not None:
            self.dot_seconds = time.monotonic() - self._dot_at
        return report

    def _judge(self, report: Report) -> Judgement:
        self._transcript = list(report.transcript)
        self._number = report.number or None
        self.begun_behind = report.begun_behind
        self.without_ledger = report.fenced
        return verdict.judge(self._case, report)

    def _parcel_of(self, octets: bytes) -> Parcel:
        if self._parcel is None:
            if hashlib.sha256(octets).hexdigest() != self.claimed.sha256:
                raise DamagedContent("the content is not what was accepted")
            asked = self.claimed.dsn
            self._parcel = Parcel(
                envelope=Envelope(
                    reverse_path=Address.parse(self.claimed.reverse_path),
                    forward_paths=tuple(
                        Address.parse(recipient.email) for recipient in self.claimed.recipients
                    ),
                ),
                octets=octets,
                smtputf8=self.claimed.smtputf8,
                eightbit=self.claimed.eightbit,
                dsn=None if asked is None else Dsn.of(asked),
            )
        return self._parcel

    async def _session(self) -> Session:
        """Return the seat's session, or open one: with a fresh token where the login has one."""
        kept = self._seat.usable_session(most_messages=self._lane.limits.messages_per_connection)
        if kept is None:
            await self._seat.empty()
            kept = await self._open()
            self._seat.session = kept
        self._know(kept.facts)
        return kept

    async def _open(self) -> Session:
        """Open a session with the first of the route's hosts that can be reached (RFC 5321 §5.1)."""
        return await first_reached(await self._kit.mx.peers(self._lane.route), self._open_at)

    async def _open_at(self, peer: Peer) -> Session:
        tokens = self._kit.tokens
        login = await tokens.login_for(self._lane)
        try:
            return await open_session(peer, login, session_id=new_id("ses"))
        except SmtpFault as fault:
            refused_token = (
                login is not None
                and login.method == "xoauth2"
                and fault.phase is Phase.AUTH
                and fault.reply is not None
                and fault.reply.permanent()
            )
            if not refused_token:
                raise
            self._learn_from(fault)
        # A token that is refused may have been revoked before its time: one fresh one, once.
        login = await tokens.login_for(self._lane, refresh=True)
        return await open_session(peer, login, session_id=new_id("ses"))

    async def _fence(self) -> bool:
        """Ask the ledger for the dot. A "no", or no answer, means that it must not leave."""
        try:
            async with asyncio.timeout(self._kit.policy.lease):
                marked = await self._kit.ledger.fence(self.claimed.attempt_id)
        except (LedgerUnavailable, TimeoutError):
            return False
        # The answer may have been slow, or we were stopped in between: our own clock has a word too.
        self._fenced = marked and self._kit.keeper.holds(self.claimed.attempt_id)
        self._dot_at = time.monotonic()
        return self._fenced

    async def _write(self, closing: Closing) -> None:
        """Write the closing until the ledger has it; the lease is renewed meanwhile."""
        wait = 0.1
        while True:
            try:
                await self._kit.ledger.close(closing)
            except LedgerUnavailable:
                await asyncio.sleep(wait)
                wait = min(wait * 2, 2.0)
            except Exception:
                # The ledger refuses this record: a bug. The sweep will judge the attempt.
                log.exception("attempt.not_written", attempt=closing.attempt_id)
                return
            else:
                return

    def _learn_from(self, fault: SmtpFault) -> None:
        """Keep what was learnt of a session that never came to be."""
        if fault.facts is not None:
            facts = self._know(fault.facts)
            opening = facts.get("transcript")
            self._transcript = list(opening) if isinstance(opening, list | tuple) else []
            facts["transcript"] = []

    def _know(self, facts: SessionFacts) -> dict[str, Any]:
        """Keep the facts of the session, and call things by the names that it taught us."""
        self._facts = facts.as_json()
        learnt = {"host": facts.host, "address": _our_address(facts)}
        known = {name: value for name, value in learnt.items() if value}
        self._case = replace(self._case, names={**self._case.names, **known})
        return self._facts

    def _drop_session(self) -> None:
        session, self._seat.session = self._seat.session, None
        if session is not None:
            session.abort()

    def _cut_short(self) -> Report | None:
        """End the session in the middle of the dialogue; return how far that had come, and keep what was said."""
        session = self._seat.session
        self._drop_session()
        report = None if session is None else session.cut_short(self._parcel)
        if report is not None:
            self._transcript = list(report.transcript)
            self._number = report.number or None
        return report

    def _reached(self, report: Report | None) -> Phase:
        """Say how far the attempt came. Behind the fence the ledger has said `dot` already."""
        if self._fenced:
            return Phase.DOT
        return Phase.CONNECT if report is None else report.phase

    def _note(self, text: str, report: Report | None) -> None:
        entry = Entry(at=datetime.now(UTC), who="note", phase=self._reached(report), text=text)
        self._transcript.append(entry.as_json())


def _trace(claimed: Claimed) -> dict[str, str]:
    return {} if claimed.traceparent is None else {"trace_id": traces.trace_id(claimed.traceparent)}


def _behind(report: Report) -> Report:
    """Read the report of a message that was begun behind another one's dot.

    A 421 where the reply to its MAIL stands is the farewell behind the message before: it may come at any time
    (RFC 5321 §3.8). Where it means more than this session, the next one hears it too.
    """
    farewell = report.mail is not None and report.mail.code == 421
    return replace(report, begun_behind=True) if farewell else report


def _names(claimed: Claimed, lane: Lane, *, tenant_id: str) -> dict[str, str]:
    """Say what the remedies call by name; what is not known is left out, and shows as `<name>`."""
    route, login = lane.route, lane.login
    mailbox = route.name
    if lane.account is not None:
        mailbox = str(lane.account.address)
    elif isinstance(login, BasicLogin):
        mailbox = login.username
    names = {
        "mailbox": mailbox,
        "sender": claimed.reverse_path,
        "domain": claimed.reverse_path.rpartition("@")[2],
        "host": route.peer.host,
        "route": route.name,
        "tenant_id": tenant_id,
    }
    if isinstance(login, OAuthLogin):
        names["application_id"] = login.client_id
    elif isinstance(login, BasicLogin):
        names["login"] = "password"
    return names


#: Exchange's greeting to our EHLO names the address that it sees: `Hello [203.0.113.10]`.
_HELLO = re.compile(r"\bHello\b[^\[]{0,255}\[(?:IPv6:)?([0-9A-Fa-f.:]{2,45})\]", re.IGNORECASE)


def _our_address(facts: SessionFacts) -> str | None:
    """Our address as the peer sees it; None where it does not say so."""
    found = _HELLO.search(facts.ehlo[0]) if facts.ehlo else None
    return None if found is None else found[1]
