"""Act on emails: move a scheduled one to another time, or cancel it.

Both are acts of the core, with its audit. An act that comes too late changes nothing and says so. Resend
cancels what is scheduled; here whatever has not gone can be cancelled.
"""

from datetime import timedelta

from fastapi import Request
from fastapi.responses import JSONResponse, Response

from service.ledger.acting import Act, Busy, Moved, Outcome, Reschedule
from service.submission.desk import Desk
from service.submission.door import Door
from service.submission.problems import Problem, unprocessable
from service.submission.query import parameters
from service.submission.resend import times
from service.submission.resend.shapes import ResendUpdateIn
from service.submission.validation import read


class Acting:
    """The endpoints that act on emails."""

    def __init__(self, door: Door, desk: Desk) -> None:
        self._door = door
        self._desk = desk

    async def update(self, request: Request, email_id: str) -> Response:
        """Move an email that is scheduled to another time."""
        budget = self._door.budget()
        key = await self._door.caller(request, "messages.send", budget)
        parameters(request, ())
        asked = await read(self._door, request, ResendUpdateIn)
        await self._door.message(email_id, key, budget)
        now = self._door.clock()
        at = times.moment(asked.scheduled_at, now=now, pointer="/scheduled_at")
        if at <= now:
            raise unprocessable("/scheduled_at", "in_the_past", "The time has passed already.")
        if at - now > self._door.limits.longest_schedule:
            days = self._door.limits.longest_schedule // timedelta(days=1)
            raise unprocessable("/scheduled_at", "too_far", f"An email may be scheduled {days} days ahead.")
        wanted = Reschedule(message_id=email_id, at=at, expires_at=None, reason=None)
        outcome = await budget.spend(
            self._door.ledger.acting.reschedule(wanted, self._door.actor(request, key))
        )
        return self._answer(email_id, outcome, too_late="It is not scheduled any more.")

    async def cancel(self, request: Request, email_id: str) -> Response:
        """Cancel an email that has not gone."""
        budget = self._door.budget()
        key = await self._door.caller(request, "messages.send", budget)
        parameters(request, ())
        await self._door.message(email_id, key, budget)
        wanted = Act(
            message_id=email_id,
            deed="cancel",
            positions=None,
            reason=None,
            expires_after=self._door.limits.expires_after,
        )
        outcome = await budget.spend(self._door.ledger.acting.act(wanted, self._door.actor(request, key)))
        return self._answer(email_id, outcome, too_late="It is on its way or has come to its end.")

    def _answer(self, email_id: str, outcome: Outcome, *, too_late: str) -> Response:
        if isinstance(outcome, Busy):
            raise Problem(
                status=409, code="message_busy", detail="It is being sent at this moment.", retry_after=1
            )
        if not isinstance(outcome, Moved):
            raise Problem(status=409, code="not_in_this_state", detail=too_late)
        self._desk.ring(outcome.lanes)
        return JSONResponse({"object": "email", "id": email_id})
