"""Act on emails: move a scheduled one to another time, or cancel it.

Both are acts of the core, with its rules and its audit. An act that comes too late changes nothing and says so.
Resend cancels what is scheduled; here whatever has not gone can be cancelled.
"""

from fastapi import Request
from fastapi.responses import JSONResponse, Response

from service.ledger.acting import Act, Moved, Reschedule
from service.submission.acts.acting import Acting, refusal
from service.submission.door import Door
from service.submission.intake.messages import check_schedule
from service.submission.request.query import parameters
from service.submission.request.validation import read
from service.submission.resend import times
from service.submission.resend.shapes import ResendUpdateIn


class Changing:
    """The endpoints that act on emails."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._acting = Acting(door)

    async def update(self, request: Request, email_id: str) -> Response:
        """Move an email that is scheduled to another time."""
        parameters(request, ())
        budget, key, _ = await self._acting.opened(request, email_id)
        asked = await read(self._door, request, ResendUpdateIn)
        now = self._door.clock()
        at = times.moment(asked.scheduled_at, now=now, pointer="/scheduled_at")
        wanted = Reschedule(
            message_id=email_id,
            at=check_schedule(at, self._door.limits, now=now),
            expires_at=None,
            reason=None,
        )
        actor = self._door.actor(request, key)
        outcome = await budget.spend(self._door.ledger.acting.reschedule(wanted, actor))
        if not isinstance(outcome, Moved):
            raise refusal("reschedule", outcome)
        self._door.ring(outcome.lanes)
        return _changed(email_id)

    async def cancel(self, request: Request, email_id: str) -> Response:
        """Cancel an email that has not gone; a body is not read."""
        parameters(request, ())
        budget, key, _ = await self._acting.opened(request, email_id)
        wanted = Act(
            message_id=email_id,
            deed="cancel",
            positions=None,
            reason=None,
            expires_after=self._door.limits.expires_after,
        )
        outcome = await budget.spend(self._door.ledger.acting.act(wanted, self._door.actor(request, key)))
        if not isinstance(outcome, Moved):
            raise refusal("cancel", outcome)
        return _changed(email_id)


def _changed(email_id: str) -> Response:
    return JSONResponse({"object": "email", "id": email_id})
