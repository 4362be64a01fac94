"""Webhooks at the door: made, changed, rotated, tried out, and what they were told.

An address is judged when it is written down (`service.routes.targets`), as far as the DNS answers within a
moment; before each call it is judged again. The secret is shown when it is made, and never again.

A webhook belongs to the application whose key made it; an operator sees all.
"""

import asyncio
import json
import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from service.ledger.feed import UnknownEvent
from service.ledger.ids import is_id, new_id
from service.ledger.webhook_deliveries import Delivery, Disabled, payload
from service.ledger.webhooks import LONGEST_OVERLAP, MOST, TEST, TYPES, TooMany, Webhook, new_secret
from service.routes.targets import TargetRefused
from service.submission import representation
from service.submission.door import BODY, Budget, Door, guarded, json_body, refusals
from service.submission.feed.webhook_models import (
    NewWebhookOut,
    ReplayIn,
    ReplayOut,
    RotationIn,
    WebhookChangeIn,
    WebhookDeliveryListOut,
    WebhookDeliveryOut,
    WebhookIn,
    WebhookListOut,
    WebhookOut,
)
from service.submission.intake.messages import read_moment
from service.submission.problems import Problem, not_found, unprocessable
from service.submission.representation import moment
from service.submission.request import query
from service.submission.request.durations import read_duration
from service.submission.request.validation import read
from service.submission.who.callers import sees

SHAPES = (WebhookIn, WebhookChangeIn, RotationIn, ReplayIn)

#: Seconds that the DNS gets while an application waits for its answer.
_LOOK_UP = 0.5

#: Events that one call sends again.
_SPAN = 1000

_EVENT = re.compile(r"evt_(0|[1-9][0-9]{0,17})")

_STATUS_PARAMETER = {
    "name": "status",
    "in": "query",
    "required": False,
    "schema": {"type": "string", "enum": ["pending", "delivered", "failed"]},
    "description": "Of the delivery.",
}


def endpoints(door: Door) -> APIRouter:
    """Make the endpoints of webhooks."""
    router = APIRouter(tags=["webhooks"])
    webhooks = _Webhooks(door)
    one, told = "/webhooks/{webhook_id}", "/webhooks/{webhook_id}/deliveries/{delivery_id}"
    listing = guarded(parameters=list(query.PAGE_PARAMETERS))
    deliveries = guarded(parameters=[*query.PAGE_PARAMETERS, _STATUS_PARAMETER])
    many = f"The application has {MOST} webhooks, as many as there may be."
    off = "The webhook is disabled."
    routes: tuple[tuple[str, str, Any, str, int, Any, Any, Any], ...] = (
        ("POST", "/webhooks", webhooks.create, "Make a webhook", 201, NewWebhookOut,
         refusals(409, *BODY, s409=many), json_body(WebhookIn)),
        ("GET", "/webhooks", webhooks.listed, "List webhooks", 200, WebhookListOut, refusals(422), listing),
        ("GET", one, webhooks.one, "See a webhook", 200, WebhookOut, refusals(404), guarded()),
        ("PATCH", one, webhooks.change, "Change, disable or enable a webhook", 200, WebhookOut,
         refusals(404, *BODY), json_body(WebhookChangeIn)),
        ("DELETE", one, webhooks.delete, "Delete a webhook", 204, None, refusals(404), guarded()),
        ("POST", f"{one}/rotate", webhooks.rotate, "Give it a new secret", 200, NewWebhookOut,
         refusals(404, *BODY), json_body(RotationIn, required=False)),
        ("POST", f"{one}/test", webhooks.test, "Send a test", 202, WebhookDeliveryOut,
         refusals(404, 409, s409=off), guarded()),
        ("POST", f"{one}/replay", webhooks.replay_span, "Send a span of events again", 202, ReplayOut,
         refusals(404, 409, *BODY, s409=off), json_body(ReplayIn)),
        ("GET", f"{one}/deliveries", webhooks.deliveries, "List what it was told", 200, WebhookDeliveryListOut,
         refusals(404, 422), deliveries),
        ("GET", told, webhooks.delivery, "See one delivery", 200, WebhookDeliveryOut, refusals(404), guarded()),
        ("POST", f"{told}/replay", webhooks.replay, "Send one delivery again", 202, WebhookDeliveryOut,
         refusals(404, 409, s409=off), guarded()),
    )  # fmt: skip
    names = {
        "create": "create_webhook",
        "listed": "list_webhooks",
        "one": "get_webhook",
        "change": "update_webhook",
        "delete": "delete_webhook",
        "rotate": "rotate_webhook_secret",
        "test": "test_webhook",
        "replay_span": "replay_webhook",
        "deliveries": "list_webhook_deliveries",
        "delivery": "get_webhook_delivery",
        "replay": "replay_webhook_delivery",
    }
    for method, path, endpoint, summary, status, shape, refused, described in routes:
        router.add_api_route(
            path,
            endpoint,
            methods=[method],
            summary=summary,
            status_code=status,
            operation_id=names[endpoint.__name__],
            response_class=Response if shape is None else JSONResponse,
            responses={**({status: {"model": shape}} if shape else {}), **refused},
            **described,
        )
    return router


class _Webhooks:
    def __init__(self, door: Door) -> None:
        self._door = door
        self._webhooks = door.ledger.webhooks
        self._deliveries = door.ledger.webhook_deliveries

    async def create(self, request: Request) -> Response:
        """Have events posted to an address from now on, signed as Standard Webhooks 1.0 has it.

        The answer shows the secret, once. Nothing that happened before is sent; `replay` does that.
        """
        budget = self._door.budget()
        key = await self._door.caller(request, "webhooks.write", budget)
        asked = await read(self._door, request, WebhookIn)
        events = _types(asked.events)
        await self._judge(asked.url)
        webhook_id, secret = new_id("whk"), new_secret()
        try:
            made = await budget.spend(
                self._webhooks.create(
                    webhook_id,
                    application=key.application,
                    url=asked.url,
                    description=asked.description,
                    events=events,
                    stored_secret=self._door.telling.seal.close(secret, purpose=webhook_id),
                    actor=self._door.actor(request, key),
                )
            )
        except TooMany:
            detail = f"An application has at most {MOST} webhooks; delete one first."
            raise Problem(status=409, code="too_many_webhooks", detail=detail) from None
        headers = {"Location": f"/webhooks/{made.id}"}
        return JSONResponse({**_webhook(made), "secret": secret}, status_code=201, headers=headers)

    async def listed(self, request: Request) -> Response:
        """List the application's webhooks, the newest first."""
        budget = self._door.budget()
        key = await self._door.caller(request, "webhooks.read", budget)
        wanted = query.page(query.parameters(request, {"limit", "after", "before"}), "whk")
        found = await budget.spend(self._webhooks.listed(application=sees(key), **wanted.bounds()))
        return JSONResponse(query.listed([_webhook(each) for each in found], wanted))

    async def one(self, request: Request, webhook_id: str) -> Response:
        """See whether it is enabled, whether it fails and why, and which secrets sign."""
        return JSONResponse(_webhook((await self._found(request, webhook_id, "webhooks.read"))[0]))

    async def change(self, request: Request, webhook_id: str) -> Response:
        """Change where and what it is told, or whether it is told at all.

        One that is enabled again starts anew, at the present: what happened meanwhile is sent by `replay`.
        """
        budget = self._door.budget()
        key = await self._door.caller(request, "webhooks.write", budget)
        asked = await read(self._door, request, WebhookChangeIn)
        changes = {name: getattr(asked, name) for name in asked.model_fields_set}
        for name, value in changes.items():
            if value is None:
                raise unprocessable(f"/{name}", "null", "This field has no null; leave it out to keep it.")
        if asked.events is not None:
            changes["events"] = _types(asked.events)
        if asked.url is not None:
            await self._judge(asked.url)
        changed = None
        if is_id(webhook_id, "whk"):
            changed = await budget.spend(
                self._webhooks.change(
                    webhook_id, changes, application=sees(key), actor=self._door.actor(request, key)
                )
            )
        if changed is None:
            raise not_found()
        return JSONResponse(_webhook(changed))

    async def delete(self, request: Request, webhook_id: str) -> Response:
        """Delete it, with its secrets and what it was told; nothing more is sent."""
        budget = self._door.budget()
        key = await self._door.caller(request, "webhooks.write", budget)
        gone = is_id(webhook_id, "whk") and await budget.spend(
            self._webhooks.remove(webhook_id, application=sees(key), actor=self._door.actor(request, key))
        )
        if not gone:
            raise not_found()
        return Response(status_code=204)

    async def rotate(self, request: Request, webhook_id: str) -> Response:
        """Make a new secret; those before it go on signing beside it until the overlap is over.

        Each request then carries a signature of each. The answer shows the new secret, once.
        """
        budget = self._door.budget()
        key = await self._door.caller(request, "webhooks.write", budget)
        asked = await read(self._door, request, RotationIn, optional=True)
        overlap = read_duration(asked.overlap, "/overlap", most=LONGEST_OVERLAP)
        secret, rotated = new_secret(), None
        if is_id(webhook_id, "whk"):
            rotated = await budget.spend(
                self._webhooks.rotate(
                    webhook_id,
                    stored_secret=self._door.telling.seal.close(secret, purpose=webhook_id),
                    overlap=overlap,
                    application=sees(key),
                    actor=self._door.actor(request, key),
                )
            )
        if rotated is None:
            raise not_found()
        return JSONResponse({**_webhook(rotated), "secret": secret})

    async def test(self, request: Request, webhook_id: str) -> Response:
        """Send an event of the type `webhook.test` now, whatever types are wanted; see its delivery for the result."""
        webhook, budget, actor = await self._found(request, webhook_id, "webhooks.write")
        delivery_id = new_id("whd")
        event = {
            "object": "event",
            "id": delivery_id,
            "type": TEST,
            "webhook": webhook.id,
            "created_at": moment(datetime.now(UTC)),
        }
        try:
            made = await budget.spend(
                self._deliveries.test(webhook, payload=payload(event), delivery_id=delivery_id, actor=actor)
            )
        except Disabled:
            raise _disabled() from None
        return _accepted(made)

    async def replay(self, request: Request, webhook_id: str, delivery_id: str) -> Response:
        """Send one delivery again, now, with the same payload and the same `webhook-id`."""
        webhook, budget, actor = await self._found(request, webhook_id, "webhooks.write")
        if not is_id(delivery_id, "whd"):
            raise not_found()
        try:
            again = await budget.spend(self._deliveries.replay(webhook, delivery_id, actor=actor))
        except Disabled:
            raise _disabled() from None
        if again is None:
            raise not_found()
        return _accepted(again)

    async def replay_span(self, request: Request, webhook_id: str) -> Response:
        """Send what happened behind an event, or since a time, again: up to a thousand events in one call.

        What the webhook never got, because it was disabled or not there yet, is sent too. Where `has_more` is
        true, call again with `next` as `after`.
        """
        webhook, budget, actor = await self._found(request, webhook_id, "webhooks.write")
        asked = await read(self._door, request, ReplayIn)
        found = _EVENT.fullmatch(asked.after)
        after = int(found[1]) if found else read_moment(asked.after, "/after")
        try:
            replayed = await budget.spend(
                self._deliveries.replay_span(
                    webhook, after=after or None, limit=_SPAN, show=representation.event, actor=actor
                )
            )
        except Disabled:
            raise _disabled() from None
        except UnknownEvent:
            raise unprocessable("/after", "unknown_event", "The feed has no such event.") from None
        return JSONResponse(
            {
                "object": "replay",
                "webhook": webhook.id,
                "count": replayed.count,
                "has_more": replayed.more,
                "next": None if replayed.next is None else f"evt_{replayed.next}",
            },
            status_code=202,
        )

    async def deliveries(self, request: Request, webhook_id: str) -> Response:
        """List what it was told, the newest first; kept for 30 days."""
        webhook, budget, _ = await self._found(request, webhook_id, "webhooks.read")
        given = query.parameters(request, {"limit", "after", "before", "status"})
        if (status := given.get("status")) not in {None, "pending", "delivered", "failed"}:
            raise query.wrong("status", "literal_error", "status is pending, delivered or failed.")
        wanted = query.page(given, "whd")
        found = await budget.spend(self._deliveries.listed(webhook.id, status=status, **wanted.bounds()))
        return JSONResponse(query.listed([_delivery(each) for each in found], wanted))

    async def delivery(self, request: Request, webhook_id: str, delivery_id: str) -> Response:
        """See what was sent, and what came of every try."""
        webhook, budget, _ = await self._found(request, webhook_id, "webhooks.read")
        found = None
        if is_id(delivery_id, "whd"):
            found = await budget.spend(self._deliveries.find(webhook.id, delivery_id))
        if found is None:
            raise not_found()
        return JSONResponse(_delivery(found))

    async def _found(self, request: Request, webhook_id: str, scope: str) -> tuple[Webhook, Budget, Any]:
        """Find the caller's webhook; raises a 404 problem."""
        budget = self._door.budget()
        key = await self._door.caller(request, scope, budget)
        found = None
        if is_id(webhook_id, "whk"):
            found = await budget.spend(self._webhooks.find(webhook_id, application=sees(key)))
        if found is None:
            raise not_found()
        return found, budget, self._door.actor(request, key)

    async def _judge(self, url: str) -> None:
        """Refuse an address that may not be called; a name that the DNS does not know yet is taken."""
        try:
            async with asyncio.timeout(_LOOK_UP):
                await self._door.telling.targets.addresses(url)
        except TimeoutError:
            return
        except TargetRefused as refused:
            if not refused.passing:
                raise unprocessable("/url", refused.code, refused.detail) from None


def _types(given: Collection[str]) -> list[str]:
    """Check types, and bring them in their order; raises a 422 problem with the place of one that is not known."""
    for index, each in enumerate(given):
        if each not in TYPES:
            detail = "There is no such type of event: `recipient.` and a state, or `webhook.test`."
            raise unprocessable(f"/events/{index}", "unknown_type", detail)
    return [each for each in TYPES if each in given]


def _disabled() -> Problem:
    return Problem(
        status=409,
        code="webhook_disabled",
        detail="The webhook is disabled. Enable it with PATCH first; `disabled_reason` and `last_error` say why.",
    )


def _accepted(made: Delivery) -> Response:
    headers = {"Location": f"/webhooks/{made.webhook_id}/deliveries/{made.id}"}
    return JSONResponse(_delivery(made), status_code=202, headers=headers)


def _webhook(found: Webhook) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        "object": "webhook",
        "id": found.id,
        "application": found.application,
        "url": found.url,
        "events": list(found.events),
        "description": found.description,
        "enabled": found.enabled,
        "disabled_reason": found.disabled_reason,
        "disabled_at": moment(found.disabled_at),
        "failing_since": moment(found.failing_since),
        "last_error": found.last_error,
        "secrets": [
            {"created_at": moment(each.created_at), "expires_at": moment(each.expires_at)}
            for each in found.secrets
            if each.expires_at is None or each.expires_at > now
        ],
        "created_at": moment(found.created_at),
        "updated_at": moment(found.updated_at),
    }


def _delivery(found: Delivery) -> dict[str, Any]:
    return {
        "object": "webhook_delivery",
        "id": found.id,
        "webhook": found.webhook_id,
        "event": None if found.event_id is None else f"evt_{found.event_id}",
        "type": found.type,
        "status": found.status,
        "attempts": found.attempts,
        "tries": [_try(each) for each in found.tries],
        "next_attempt_at": None if found.in_hand else moment(found.due_at),
        "payload": json.loads(found.payload),
        "created_at": moment(found.created_at),
        "ended_at": moment(found.ended_at),
    }


def _try(told: Mapping[str, Any]) -> dict[str, Any]:
    return {**told, "at": moment(datetime.fromisoformat(told["at"]))}
