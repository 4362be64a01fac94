"""Act on messages: cancel, retry, hold, release, settle, and give them another time.

An act moves those of the recipients that it can, and answers with the message as it is then. Where it
can move none the answer is 409, and nothing was changed: the code says which state was in the way, and
`attempt_running` that an attempt has them in hand at this moment.

What is to be sent again has to have a way. Recipients whose lane the configuration no longer has are
planned anew; suppressed addresses are left out.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from service.ledger.acting import ACTS, Act, Busy, Found, Moved, NothingLeft, Outcome, Reschedule
from service.ledger.history import MessageView
from service.ledger.keys import Key
from service.ledger.states import Status
from service.mail.address import Address, BadAddress
from service.submission import models, representation
from service.submission.acts.act_models import ActIn, RescheduleIn, SettleIn
from service.submission.acts.replanning import Replanning, Ways
from service.submission.door import BODY, Budget, Door, json_body, refusals
from service.submission.history.expectations import Expectations
from service.submission.intake.messages import check_expiry, check_schedule, read_moment
from service.submission.problems import FieldError, Problem, invalid
from service.submission.request.validation import read
from service.submission.who.callers import demand_scope, sees_everything

SHAPES = (ActIn, SettleIn, RescheduleIn)

_SUMMARIES = {
    "cancel": "Cancel a message",
    "retry": "Retry what failed",
    "hold": "Hold a message",
    "release": "Release what is held",
}

#: What the answer says when an act could move nobody.
_REFUSED = {
    "cancel": ("not_cancelable", "Nothing was canceled."),
    "retry": ("not_retryable", "Nothing was put back to be sent."),
    "hold": ("not_holdable", "Nothing was held."),
    "release": ("not_held", "Nothing was released."),
    "settle": ("not_uncertain", "Nothing was settled."),
    "reschedule": ("not_scheduled", "Its time was not moved."),
}

#: Acts for which the end of a running attempt can change the answer.
_MAY_HELP = frozenset({"cancel", "retry", "hold", "settle"})

_STATES = {
    Status.SCHEDULED: "waiting for the scheduled time",
    Status.QUEUED: "queued",
    Status.HELD: "held",
    Status.SENDING: "in the hands of an attempt that is running",
    Status.DEFERRED: "waiting for the next attempt",
    Status.UNCERTAIN: "uncertain, since the other side may have the message: settle it",
    Status.SENT: "sent, since the other side has taken the message",
    Status.DELIVERED: "delivered",
    Status.BOUNCED: "bounced",
    Status.FAILED: "failed",
    Status.EXPIRED: "expired",
    Status.CANCELED: "canceled already",
    Status.SUPPRESSED: "suppressed",
}


def endpoints(door: Door) -> APIRouter:
    """Make the endpoints that act on messages."""
    router = APIRouter(tags=["messages"])
    acting = Acting(door)
    for deed, summary in _SUMMARIES.items():
        router.add_api_route(
            f"/messages/{{message_id}}/{deed}",
            getattr(acting, deed),
            methods=["POST"],
            summary=summary,
            operation_id=f"{deed}_message",
            responses=_answers(),
            **json_body(ActIn, required=False),
        )
    router.add_api_route(
        "/messages/{message_id}/settle",
        acting.settle,
        methods=["POST"],
        summary="Settle what is uncertain",
        operation_id="settle_message",
        responses=_answers(),
        **json_body(SettleIn),
    )
    router.add_api_route(
        "/messages/{message_id}",
        acting.reschedule,
        methods=["PATCH"],
        summary="Move a message to another time",
        operation_id="reschedule_message",
        responses=_answers(),
        **json_body(RescheduleIn),
    )
    return router


def _answers() -> dict[int | str, dict[str, Any]]:
    return {
        200: {"model": models.MessageOut, "description": "Done: the message as it is now."},
        **refusals(404, 409, *BODY),
    }


class Acting:
    """The acts, as endpoints do them."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._expectations = Expectations(door.ledger, door.lane_limits)
        self._replanning = Replanning(door)

    async def cancel(self, request: Request, message_id: str) -> Response:
        """Take back what has not gone: scheduled, queued, held and deferred recipients.

        What an attempt has in hand, or the other side has, cannot be called back.
        """
        return await self._simple(request, message_id, "cancel")

    async def retry(self, request: Request, message_id: str) -> Response:
        """Send again what failed, expired or was canceled, and at once what is deferred.

        Who has the message, or may have it, gets no second one. What was dropped by a settlement is
        retried only where `recipients` names it.
        """
        return await self._simple(request, message_id, "retry")

    async def hold(self, request: Request, message_id: str) -> Response:
        """Stop what waits, until somebody releases it; it still expires at `expires_at`."""
        return await self._simple(request, message_id, "hold")

    async def release(self, request: Request, message_id: str) -> Response:
        """Let go what is held: at once, or at its scheduled time where that lies ahead."""
        return await self._simple(request, message_id, "release")

    async def settle(self, request: Request, message_id: str) -> Response:
        """Decide what became of uncertain recipients: `sent`, `resend` the same octets, or `drop`."""
        budget, key, view = await self.opened(request, message_id)
        asked = await read(self._door, request, SettleIn)
        return await self._act(request, key, view, budget, deed=f"settle_{asked.decision}", asked=asked)

    async def reschedule(self, request: Request, message_id: str) -> Response:
        """Move a message that was not tried yet to another time; null is now.

        It keeps its length of life unless `expires_at` is given.
        """
        budget, key, view = await self.opened(request, message_id)
        asked = await read(self._door, request, RescheduleIn)
        wanted = Reschedule(
            message_id=view.id, reason=asked.reason, **_times(asked, self._door, now=self._door.clock())
        )
        actor = self._door.actor(request, key)
        outcome = await budget.spend(self._door.ledger.acting.reschedule(wanted, actor))
        if not isinstance(outcome, Moved):
            raise refusal("reschedule", outcome)
        return await self._answer(key, view, outcome, budget)

    async def _simple(self, request: Request, message_id: str, deed: str) -> Response:
        budget, key, view = await self.opened(request, message_id)
        asked = await read(self._door, request, ActIn, optional=True)
        return await self._act(request, key, view, budget, deed=deed, asked=asked)

    async def opened(self, request: Request, message_id: str) -> tuple[Budget, Key, MessageView]:
        """Find the message, and see that the caller may act on it; raises 401, 403 and 404 problems."""
        budget = self._door.budget()
        key = await self._door.callers_key(request, budget)
        if not sees_everything(key):
            demand_scope(key, "messages.send")
        view: MessageView = await self._door.message(message_id, key, budget)
        if key.test and not view.test:
            detail = "A test key acts on messages of test keys only."
            raise Problem(status=403, code="test_key", detail=detail)
        return budget, key, view

    async def _act(
        self, request: Request, key: Key, view: MessageView, budget: Budget, *, deed: str, asked: ActIn
    ) -> Response:
        positions = _positions(asked.recipients, view)
        ways = Ways()
        if ACTS[deed].goes:
            ways = await self._replanning.ways(view, key, budget, deed=deed, positions=positions)
        wanted = Act(
            message_id=view.id,
            deed=deed,
            positions=positions,
            reason=asked.reason,
            expires_after=self._door.limits.expires_after,
            reroutes=ways.reroutes,
            spared=ways.spared,
        )
        outcome = await budget.spend(self._door.ledger.acting.act(wanted, self._door.actor(request, key)))
        if not isinstance(outcome, Moved):
            raise ways.refusal or refusal(deed.partition("_")[0], outcome)
        return await self._answer(key, view, outcome, budget)

    async def _answer(self, key: Key, view: MessageView, outcome: Moved, budget: Budget) -> Response:
        self._door.ring(outcome.lanes)
        after = await self._door.message(view.id, key, budget)
        expectation = await self._expectations.of_message(after, budget)
        return JSONResponse(representation.message(after, expectation))


def _times(asked: RescheduleIn, door: Door, *, now: datetime) -> dict[str, datetime | None]:
    at = expires_at = None
    if asked.scheduled_at is not None:
        at = check_schedule(read_moment(asked.scheduled_at, "/scheduled_at"), door.limits, now=now)
    if asked.expires_at is not None:
        written = read_moment(asked.expires_at, "/expires_at")
        expires_at = check_expiry(written, door.limits, now=now, start=at or now)
    return {"at": at, "expires_at": expires_at}


def _positions(recipients: Sequence[str] | None, view: MessageView) -> frozenset[int] | None:
    """Find the recipients that are named; raises a 422 problem for each that the message does not have."""
    if recipients is None:
        return None
    known = {Address.parse(each.email).key: each.position for each in view.recipients}
    positions, errors = set(), []
    for index, written in enumerate(recipients):
        pointer = f"/recipients/{index}"
        try:
            position = known.get(Address.parse(written).key)
        except BadAddress as exc:
            errors.append(FieldError(pointer=pointer, code=exc.code, detail=exc.detail))
            continue
        if position is None:
            detail = "The message has no such recipient."
            errors.append(FieldError(pointer=pointer, code="not_a_recipient", detail=detail))
        else:
            positions.add(position)
    if errors:
        raise invalid(errors[:50])
    return frozenset(positions)


def refusal(deed: str, outcome: Outcome) -> Problem:
    """Say why nothing was changed."""
    code, nothing = _REFUSED[deed]
    if isinstance(outcome, Busy):
        detail = f"{nothing} An attempt of this message is ending at this moment."
        return Problem(status=409, code="attempt_running", detail=detail, retry_after=1)
    if isinstance(outcome, NothingLeft):
        detail = f"{nothing} The content is no longer kept, or was erased."
        return Problem(status=409, code="content_not_kept", detail=detail)
    assert not isinstance(outcome, Moved)
    detail = f"{nothing} {_in_the_way(outcome.found)}"
    if deed in _MAY_HELP and any(found.status is Status.SENDING for found in outcome.found):
        return Problem(status=409, code="attempt_running", detail=detail, retry_after=1)
    return Problem(status=409, code=code, detail=detail)


def _in_the_way(found: Sequence[Found]) -> str:
    """Say in which states the recipients are."""
    if len(found) == 1:
        return f"The recipient is {_STATES[found[0].status]}."
    counts = Counter(each.status for each in found)
    parts = [
        f"{'1 recipient is' if count == 1 else f'{count:,} recipients are'} {_STATES[status]}"
        for status, count in counts.most_common()
    ]
    return f"{'; '.join(parts)}."
