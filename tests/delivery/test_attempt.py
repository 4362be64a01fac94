"""One attempt by itself: a mistake of ours before and behind the dot, and what our own clock says at the fence."""

import hashlib
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal

import pytest

from service.delivery.attempt import Attempt, Kit
from service.delivery.keeper import Keeper
from service.delivery.room import Room
from service.delivery.seats import Seat
from service.ledger import Ledger
from service.ledger.accepting import Accepted
from service.ledger.states import Outcome
from service.routes.kinds import Cloud
from service.routes.mx import MxFinder
from service.routes.route import Lane, Limits, Route, RouteKind
from service.routes.tokens import Entra, Tokens
from service.smtp.opening import Opening
from service.smtp.session import Report, Session
from tests.builders import a_submission, claim
from tests.delivery.cases import POLICY
from tests.house import copies
from tests.peer import ScriptedPeer

Where = Literal["nowhere", "before the dot", "behind it"]

OCTETS = b"Subject: x\r\n\r\nx\r\n"

#: A directory that nobody asks: the peer wants no login.
NOBODY = Entra(
    cloud=Cloud.WORLDWIDE,
    tenant_id="22222222-2222-2222-2222-222222222222",
    authority="https://127.0.0.1:9",
    own_authority=True,
    ca_file=None,
    timeout=timedelta(seconds=1),
)


@pytest.fixture
async def ledger(database_url: str) -> AsyncIterator[Ledger]:
    """A ledger on a database of this test's own."""
    opened = Ledger.open(database_url, name="test", connections=5)
    yield opened
    await opened.dispose()


class Mistaken(Session):
    """A session that carries messages, and may have a mistake of ours in it."""

    def __init__(self, opening: Opening, *, where: Where) -> None:
        super().__init__(opening)
        self._where = where

    async def transmit(self, *args: Any, **more: Any) -> Report:
        if self._where == "before the dot":
            raise ZeroDivisionError("a mistake of ours")
        report = await super().transmit(*args, **more)
        if self._where == "behind it":
            raise ZeroDivisionError("a mistake of ours")
        return report


async def attempted(
    ledger: Ledger, peer: ScriptedPeer, *, mistake: Where = "nowhere", held_for: float = 0.0
) -> str:
    """Lead one attempt to its end; return the message's id. By our own clock it was claimed `held_for` seconds ago."""
    submission = a_submission(octets=OCTETS, on_uncertain="hold")
    assert await ledger.accept(submission) == Accepted()
    asked_at = time.monotonic() - held_for
    (claimed,) = (await claim(ledger)).claimed
    claimed = replace(claimed, sha256=hashlib.sha256(OCTETS).hexdigest())
    keeper = Keeper(ledger, lease=POLICY.lease)
    keeper.hold(claimed.attempt_id, asked_at=asked_at)
    kit = Kit(
        worker="w1",
        ledger=ledger,
        tokens=Tokens(NOBODY),
        mx=MxFinder(),
        keeper=keeper,
        policy=POLICY,
        room=Room(1 << 20),
    )
    limits = Limits(connections=1)
    route = Route(name="peer", kind=RouteKind.SMARTHOST, peer=peer.as_peer(), limits=limits)
    lane = Lane(name="peer", route=route, account=None, limits=limits)
    opening = Opening(route.peer, None, session_id="ses_1")
    await opening.run()
    seat = Seat(id="sea_1", session=Mistaken(opening, where=mistake))
    attempt = Attempt(claimed, lane=lane, seat=seat, kit=kit)
    await attempt.converse(behind=lambda _: None)
    await attempt.record()
    await seat.empty()
    return claimed.message_id


async def test_a_mistake_behind_the_dot_is_uncertain(ledger: Ledger) -> None:
    """Nobody knows what became of the message, so with `hold` nothing sends it again."""
    async with ScriptedPeer() as peer:
        message_id = await attempted(ledger, peer, mistake="behind it")

        assert copies(peer, "ana@example.com") == 1
        (attempt,) = await ledger.attempts(message_id)
        assert attempt.outcome == Outcome.UNCERTAIN
        view = await ledger.message(message_id, application=None)
        assert view is not None
        assert [(each.status, each.next_attempt_at) for each in view.recipients] == [("uncertain", None)]


async def test_a_mistake_before_the_dot_is_tried_again(ledger: Ledger) -> None:
    """Nothing was sent: another try may have more luck, at its time."""
    async with ScriptedPeer() as peer:
        message_id = await attempted(ledger, peer, mistake="before the dot")

        assert copies(peer, "ana@example.com") == 0
        (attempt,) = await ledger.attempts(message_id)
        assert attempt.outcome == Outcome.DEFERRED
        view = await ledger.message(message_id, application=None)
        assert view is not None
        (recipient,) = view.recipients
        assert recipient.status == "deferred"
        assert recipient.next_attempt_at is not None


async def test_a_lease_that_our_own_clock_is_not_sure_of_lets_no_dot_leave(ledger: Ledger) -> None:
    """PostgreSQL says yes, but by our clock the lease was over when the answer came: somebody else may have it."""
    async with ScriptedPeer() as peer:
        message_id = await attempted(ledger, peer, held_for=POLICY.lease)

        (transaction,) = peer.transactions
        assert transaction.dot is False
        (attempt,) = await ledger.attempts(message_id)
        assert (attempt.outcome, attempt.error and attempt.error["code"]) == (Outcome.DEFERRED, "lease_lost")


async def test_an_attempt_without_any_of_it_sends(ledger: Ledger) -> None:
    """The other tests would otherwise prove nothing."""
    async with ScriptedPeer() as peer:
        message_id = await attempted(ledger, peer)

        assert copies(peer, "ana@example.com") == 1
        (attempt,) = await ledger.attempts(message_id)
        assert attempt.outcome == Outcome.SENT
