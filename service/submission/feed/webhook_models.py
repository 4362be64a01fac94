"""The shapes of webhooks and of what they were told, as the OpenAPI document shows them."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from service.ledger.webhooks import TYPES
from service.routes.targets import LONGEST
from service.submission.models import Shape
from service.submission.request.durations import DurationText

Url = Annotated[
    str,
    Field(
        strict=True,
        min_length=1,
        max_length=LONGEST,
        description="https, without a login and without a fragment. Private addresses only where the "
        "configuration allows them.",
        examples=["https://billing.contoso.com/hooks/postroom"],
    ),
]
Events = Annotated[
    list[Annotated[str, Field(strict=True, max_length=100)]],
    Field(
        max_length=len(TYPES),
        description="Types of events that are wanted: `recipient.` and a state. Empty: all of them.",
        examples=[["recipient.sent", "recipient.failed"]],
    ),
]
Description = Annotated[str, Field(strict=True, max_length=500)]


class WebhookIn(Shape):
    """Where to tell what happens, and what of it."""

    url: Url
    events: Events = Field(default_factory=list)
    description: Description = ""


class WebhookChangeIn(Shape):
    """What is to be another one; what is not there stays."""

    url: Url | None = None
    events: Events | None = None
    description: Description | None = None
    enabled: Annotated[bool, Field(strict=True)] | None = Field(
        default=None, description="False: nothing is sent. True: it starts anew, at the present."
    )


class RotationIn(Shape):
    """How long the secrets before the new one go on signing."""

    overlap: DurationText = Field(default="24h", description="`1s` to `7d`.")


class ReplayIn(Shape):
    """From where events are sent again."""

    after: Annotated[str, Field(strict=True, min_length=1, max_length=64)] = Field(
        description="The id of an event, whose followers are sent, or a time (RFC 3339).",
        examples=["2026-11-23T00:00:00Z", "evt_4711"],
    )


class WebhookSecretOut(BaseModel):
    """A secret that signs; what it is was shown when it was made."""

    created_at: datetime
    expires_at: datetime | None = Field(description="When it stops to sign; null: when it is rotated.")


class WebhookOut(BaseModel):
    """Where an application is told what happens."""

    object: Literal["webhook"]
    id: str
    application: str
    url: str = Field(examples=["https://billing.contoso.com/hooks/postroom"])
    events: list[str] = Field(description="Empty: all.")
    description: str
    enabled: bool
    disabled_reason: Literal["manual", "gone", "failing"] | None = Field(
        description="`gone`: it answered 410. `failing`: nothing got through for days.", examples=[None]
    )
    disabled_at: datetime | None = Field(examples=[None])
    failing_since: datetime | None = Field(
        description="The first failure after the last success.", examples=[None]
    )
    last_error: str | None = Field(description="Of the last failure, while it fails.", examples=[None])
    secrets: list[WebhookSecretOut] = Field(description="The newest first; each signs.")
    created_at: datetime
    updated_at: datetime


class NewWebhookOut(WebhookOut):
    """A webhook with its new secret, which is shown this once."""

    secret: str = Field(
        description="With it receivers verify what they get (Standard Webhooks 1.0).",
        examples=["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"],
    )


class WebhookTryOut(BaseModel):
    """One call of the receiver."""

    at: datetime = Field(description="When it ended.")
    status: int | None = Field(description="Of HTTP; null: there was no answer.", examples=[200])
    error: str | None = Field(description="Null: it was taken.", examples=[None])
    seconds: float = Field(examples=[0.084])


class WebhookDeliveryOut(BaseModel):
    """One event for one webhook, with every try to tell it."""

    object: Literal["webhook_delivery"]
    id: str
    webhook: str = Field(examples=["whk_01JDB6Z0Q5V8W6K3T1E9F4H2RC"])
    event: str | None = Field(description="Null: a test.", examples=["evt_4711"])
    type: str = Field(examples=["recipient.sent"])
    status: Literal["pending", "delivered", "failed"]
    attempts: int = Field(description="Since it was made, or sent again.", examples=[1])
    tries: list[WebhookTryOut] = Field(description="The last fifty, the oldest first.")
    next_attempt_at: datetime | None = Field(description="Null: it is under way, or ended.", examples=[None])
    payload: dict[str, Any] = Field(description="What is sent, in the same octets each time.")
    created_at: datetime
    ended_at: datetime | None


class ReplayOut(BaseModel):
    """What a span of events came to."""

    object: Literal["replay"]
    webhook: str = Field(examples=["whk_01JDB6Z0Q5V8W6K3T1E9F4H2RC"])
    count: int = Field(description="Deliveries that are sent again.")
    has_more: bool = Field(description="There are more events: call again, with `next` as `after`.")
    next: str | None = Field(description="The last event that was looked at.", examples=["evt_4711"])


class WebhookListOut(BaseModel):
    object: Literal["list"]
    data: list[WebhookOut]
    has_more: bool
    next: str | None


class WebhookDeliveryListOut(BaseModel):
    object: Literal["list"]
    data: list[WebhookDeliveryOut]
    has_more: bool
    next: str | None
