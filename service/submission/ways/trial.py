"""A real test mail through one named route, followed to its end: the guide's last step.

It is an ordinary message of the application "postroom": accepted into the ledger, sent by a worker
at the lane's pace, judged as any other. What becomes of it is a step of the check. It expires soon,
so that a route that is mended tomorrow does not send it then.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import structlog

from service.ledger import Ledger
from service.ledger.accepting import Submission
from service.ledger.history import MessageView
from service.ledger.keys import Key
from service.mail.address import Address
from service.routes.preflight.check import sender_of
from service.routes.preflight.steps import Status, Step, fail, ok
from service.routes.route import Route
from service.submission.door import Clock
from service.submission.intake.messages import Asked, Intake
from service.submission.models import MessageIn
from service.submission.problems import Problem
from service.submission.request.validation import validated
from service.submission.ringing import Nudge

log = structlog.get_logger()

APPLICATION = "postroom"

#: Seconds that a test mail is followed.
FOLLOWED = 60.0

#: How long it is tried at all.
_LIFE = timedelta(minutes=15)

_LOOK_AGAIN = 0.2  # seconds
_OPEN = frozenset({"queued", "sending", "deferred", "uncertain", "held", "scheduled"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What became of a test mail."""

    step: Step
    message_id: str | None  # None: it was not accepted

    def as_json(self) -> dict[str, Any] | None:
        """Show which message it was, where there is one."""
        if self.message_id is None:
            return None
        return {"id": self.message_id, "status": self.step.facts.get("message_status")}


class Trials:
    """Sends test mails."""

    def __init__(
        self, *, ledger: Ledger, intake: Intake, nudge: Nudge, clock: Clock, accepted_domains: tuple[str, ...]
    ) -> None:
        """Take the same intake as `POST /messages`."""
        self._ledger = ledger
        self._intake = intake
        self._nudge = nudge
        self._clock = clock
        self._accepted_domains = accepted_domains

    async def send(
        self, route: Route, *, to: Address, sender: Address | None, key: Key, follow: float = FOLLOWED
    ) -> Trial:
        """Send one message and follow it for `follow` seconds; raises Problem where it is not accepted."""
        chosen = sender or sender_of(route.lanes()[0], self._accepted_domains)
        if chosen is None:
            detail = "No sender is known for this route."
            remedy = "Say one (--from, or `from` in the request), or set organization.accepted_domains."
            return Trial(step=fail("test_message", detail, remedy), message_id=None)
        ours = replace(key, application=APPLICATION)
        asked = Asked(shape=validated(MessageIn, self._letter(route, to, chosen)))
        message = self._intake.compose(self._intake.address(asked, ours), ours)
        await self._ledger.accept(Submission(messages=[message]))
        log.info("message.accepted", message=message.id, application=APPLICATION, size=len(message.octets))
        await self._nudge({delivery.lane for delivery in message.deliveries})
        view = await self._followed(message.id, follow)
        return Trial(step=_step(view, chosen, to, follow), message_id=message.id)

    def _letter(self, route: Route, to: Address, sender: Address) -> Mapping[str, Any]:
        now = self._clock()
        return {
            "from": str(sender),
            "to": [str(to)],
            "subject": f"Postroom: a test of the route {route.name}",
            "text": f"This message was sent by `postroom check` at {now:%Y-%m-%d %H:%M:%S} UTC\n"
            f"through the route {route.name} ({route.kind}, {route.peer.host}).\n\n"
            "Nobody has to answer it.\n",
            "route": route.name,
            "priority": "high",
            "expires_at": (now + _LIFE).isoformat(),
        }

    async def _followed(self, message_id: str, seconds: float) -> MessageView:
        """Look until the message has ended, or will not move before our patience ends."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while True:
            view = await self._ledger.message(message_id, application=None)
            assert view is not None, "what was accepted is there"
            left = deadline - loop.time()
            if view.status not in _OPEN or left <= 0 or self._waits_longer(view, left):
                return view
            await asyncio.sleep(_LOOK_AGAIN)

    def _waits_longer(self, view: MessageView, seconds: float) -> bool:
        """Say whether the next try comes too late for us, after one that failed."""
        (recipient,) = view.recipients
        at = max(filter(None, (recipient.next_attempt_at, recipient.lane_paused_until)), default=None)
        if view.status != "deferred" or at is None:
            return False
        return (at - self._clock()).total_seconds() > seconds


def _step(view: MessageView, sender: Address, to: Address, followed: float) -> Step:
    (recipient,) = view.recipients
    facts = {"message_id": view.id, "message_status": view.status, "from": str(sender), "to": str(to)}
    shown = f"{view.id} from {sender} to {to}"
    if view.status == "sent":
        reply = recipient.reply or {}
        said = " ".join(str(reply[part]) for part in ("code", "enhanced", "text") if reply.get(part))
        detail = f"{shown} was taken: {said}. Look into the mailbox: taken is not yet delivered."
        return ok("test_message", detail, **facts)
    error = recipient.error or recipient.lane_pause_error
    if error is not None:
        return _explained(f"{shown} is {view.status}", error, facts)
    if not recipient.attempts and view.status in {"queued", "scheduled"}:
        detail = f"{shown} did not move within {followed:.0f} s."
        remedy = "Start a worker (`postroom worker`): the API and this command only accept mail. If one runs, see its log."
        return fail("test_message", detail, remedy, **facts)
    detail = f"{shown} is {view.status} after {followed:.0f} s."
    return fail("test_message", detail, f"Follow it: GET /messages/{view.id}, as an operator.", **facts)


def _explained(said: str, error: Mapping[str, Any], facts: dict[str, Any]) -> Step:
    diagnosis: Mapping[str, Any] = error.get("diagnosis") or {}
    reply: Mapping[str, Any] = error.get("reply") or {}
    words = " ".join(str(reply[part]) for part in ("code", "enhanced", "text") if reply.get(part))
    heard = words or error.get("detail") or error.get("code")
    return Step(
        name="test_message",
        status=Status.FAIL,
        detail=f"{said}: {heard}\n{diagnosis.get('title')}: {diagnosis.get('explanation')}",
        remedy=tuple(diagnosis.get("remedy") or ("Look at its attempts.",)),
        facts={**facts, "error": dict(error)},
        diagnosis=diagnosis.get("id"),
    )


def refused(problem: Problem) -> Trial:
    """Tell that a test mail was not even accepted, and why."""
    plan = problem.members.get("plan") or {}
    why = [
        f"{no['route']}: {no['detail']}" for no in plan.get("why_not", ()) if no["code"] != "not_asked_for"
    ]
    remedy = tuple(why) or tuple(error.detail for error in problem.errors) or ("Correct the addresses.",)
    return Trial(step=fail("test_message", f"Not accepted: {problem.detail}", *remedy), message_id=None)
