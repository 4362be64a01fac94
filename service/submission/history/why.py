"""GET /messages/{id}/explain: why a message is where it is, for a person and for a program.

Each recipient has its own story (`reasons`); the message's is that of the recipient that needs somebody
most. Beside it stand what can be done now, the plan that was kept when the message was accepted, its
attempts in figures, and its lane.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from service.ledger.circumstances import Circumstances
from service.ledger.forecast import Forecast, ahead, latest
from service.ledger.history import MessageView, RecipientView
from service.ledger.lanes import LaneState, Place
from service.ledger.states import OPEN, Outcome, Status
from service.submission.door import Budget, Door, guarded, refusals
from service.submission.history import reasons
from service.submission.history.expectations import Expectations
from service.submission.history.reasons import Lane, Situation, Story
from service.submission.models import DiagnosisOut
from service.submission.representation import moment

#: Which recipient's story is the message's, the first that there is.
_FIRST: tuple[Status, ...] = (
    *OPEN,
    Status.FAILED, Status.BOUNCED, Status.EXPIRED, Status.SUPPRESSED, Status.CANCELED,
    Status.SENT, Status.DELIVERED,
)  # fmt: skip


class ExplainedRecipientOut(BaseModel):
    """Why one recipient is where it is."""

    email: str
    status: str
    summary: str = Field(examples=["The other side took it at 2026-11-23T19:40:03Z with “250 2.0.0 OK”."])
    since: datetime
    next_attempt_at: datetime | None
    waits_for: list[str] = Field(examples=[["3 messages ahead in this lane"]])
    diagnosis: DiagnosisOut | None = Field(description="What stands in its way, or stood there.")
    who: str = Field(description="Who must act; `nobody` where it goes by itself.", examples=["nobody"])
    remedy: list[str] = Field(
        description="What they do, or what happens by itself.", examples=[["Nobody has to act."]]
    )
    actions: list[str] = Field(description="Which acts its state allows now.", examples=[["cancel", "hold"]])


class ExplainedLaneOut(BaseModel):
    """The lane of the recipient whose story is the message's."""

    name: str = Field(examples=["noreply/noreply@contoso.com"])
    state: Literal["ready", "resting", "disabled", "gone"]
    resting_until: datetime | None
    because: str | None = Field(description="Why it rests.", examples=[None])
    ahead: int | None = Field(
        description="Messages that go before this one; null where it does not wait.", examples=[3]
    )
    waiting: int | None = Field(description="Messages that wait in the lane and are due.", examples=[12])


class WhyOut(BaseModel):
    """Why a message is where it is."""

    object: Literal["explanation"]
    message: str
    status: str
    summary: str = Field(examples=["It is next on the lane noreply/noreply@contoso.com."])
    expected_at: datetime | None
    recipients: list[ExplainedRecipientOut]
    actions: list[str] = Field(description="Which acts move at least one recipient now.")
    plan: dict[str, Any] = Field(
        description="Why this way was chosen when the message was accepted, and why not another one."
    )
    attempts: dict[str, int] = Field(
        description="How many attempts there were, in all and by outcome.",
        examples=[{"total": 1, "sent": 1}],
    )
    lane: ExplainedLaneOut | None


def endpoints(door: Door) -> APIRouter:
    """Make the endpoint that explains a message."""
    router = APIRouter(tags=["messages"])
    router.add_api_route(
        "/messages/{message_id}/explain",
        _Why(door).explain,
        methods=["GET"],
        summary="Why is it where it is?",
        operation_id="explain_message",
        responses={200: {"model": WhyOut}, **refusals(404)},
        **guarded(),
    )
    return router


Forecasts = Mapping[str, tuple[LaneState, Forecast, Place]]


class _Why:
    def __init__(self, door: Door) -> None:
        self._door = door
        self._expectations = Expectations(door.ledger, door.lane_limits)

    async def explain(self, request: Request, message_id: str) -> Response:
        """Say why the message is where it is, what comes next and when, and who can do what about it."""
        budget = self._door.budget()
        key = await self._door.caller(request, "messages.read", budget)
        view: MessageView = await self._door.message(message_id, key, budget)
        known = await budget.spend(self._door.ledger.explaining.of(view.id))
        forecasts = await self._expectations.by_lane(view, budget)
        lanes = {
            name: await self._lane(name, forecasts, budget)
            for name in {each.lane for each in view.recipients if each.lane is not None}
        }
        situations = [self._situation(view, each, known, lanes) for each in view.recipients]
        stories = [reasons.tell(each) for each in situations]
        first = min(range(len(stories)), key=lambda n: _FIRST.index(Status(view.recipients[n].status)))
        waits = [situation.lane.forecast for situation in situations if situation.lane.forecast is not None]
        expected = latest(waits) if any(each.next_attempt_at for each in view.recipients) else None
        shown = [_recipient(*each) for each in zip(situations, stories, strict=True)]
        return JSONResponse(
            {
                "object": "explanation",
                "message": view.id,
                "status": view.status,
                "summary": _summary(view, stories[first], view.recipients[first]),
                "expected_at": moment(expected.at) if expected is not None else None,
                "recipients": shown,
                "actions": sorted({action for each in shown for action in each["actions"]}),
                "plan": dict(view.plan),
                "attempts": _attempts(known.attempts),
                "lane": self._shown_lane(situations[first], forecasts),
            }
        )

    async def _lane(self, name: str, forecasts: Forecasts, budget: Budget) -> Lane:
        found = self._door.book.lane(name)
        if found is None:
            return Lane(name=name, known=False)
        if name in forecasts:
            state, forecast, _ = forecasts[name]
            return Lane(name=name, enabled=found.route.enabled, state=state, forecast=forecast)
        state_now = await self._expectations.lane(name, budget)
        return Lane(name=name, enabled=found.route.enabled, state=state_now)

    def _situation(
        self, view: MessageView, recipient: RecipientView, known: Circumstances, lanes: Mapping[str, Lane]
    ) -> Situation:
        return Situation(
            message=view,
            recipient=recipient,
            now=known.now,
            move=known.moves.get(recipient.position),
            running=known.running.get(recipient.position),
            copy=known.copies.get(recipient.position),
            lane=lanes.get(recipient.lane or "", Lane(name=None)),
        )

    def _shown_lane(self, here: Situation, forecasts: Forecasts) -> dict[str, Any] | None:
        lane = here.lane
        if lane.name is None:
            return None
        state: LaneState | None = lane.state
        resting = None if state is None else state.resting
        before = None
        if lane.name in forecasts and here.recipient.next_attempt_at is not None:
            state_then, _, place = forecasts[lane.name]
            # Who is ahead of it when its time has come, nobody can know.
            later = place.scheduled and place.due_at > state_then.now
            before = None if later else ahead(state_then, place)
        word = "ready" if resting is None else "resting"
        if not lane.enabled:
            word = "disabled"
        return {
            "name": lane.name,
            "state": word if lane.known else "gone",
            "resting_until": moment(resting.until) if resting is not None else None,
            "because": reasons.title(resting.error) if resting is not None else None,
            "ahead": before,
            "waiting": None if state is None else state.due,
        }


def _recipient(here: Situation, story: Story) -> dict[str, Any]:
    error = story.error or {}
    return {
        "email": here.recipient.email,
        "status": here.recipient.status,
        "summary": story.summary,
        "since": moment(here.move.at if here.move is not None else here.recipient.updated_at),
        "next_attempt_at": moment(here.recipient.next_attempt_at),
        "waits_for": list(story.waits_for),
        "diagnosis": error.get("diagnosis"),
        "who": story.who,
        "remedy": list(story.remedy),
        "actions": reasons.actions(here),
    }


def _summary(view: MessageView, story: Story, recipient: RecipientView) -> str:
    """Tell the message's story: how its recipients stand, and that of the one that needs somebody most."""
    if len(view.recipients) == 1:
        return story.summary
    counts = Counter(each.status for each in view.recipients)
    if len(counts) == 1:
        return f"All {len(view.recipients):,} recipients are {recipient.status}. {recipient.email}: {story.summary}"
    parts = [f"{count:,} {'is' if count == 1 else 'are'} {status}" for status, count in counts.most_common()]
    return f"Of {len(view.recipients):,} recipients, {_and(parts)}. {recipient.email}: {story.summary}"


def _and(parts: Sequence[str]) -> str:
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def _attempts(counts: Mapping[str, int]) -> dict[str, int]:
    return {
        "total": sum(counts.values()),
        "running": counts.get("running", 0),
        **{outcome.value: counts.get(outcome.value, 0) for outcome in Outcome},
    }
