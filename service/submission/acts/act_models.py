"""The shapes of acts on messages."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from service.submission.models import Moment, Shape

Reason = Annotated[str, Field(strict=True, min_length=1, max_length=500)]


class ActIn(Shape):
    """Whom an act is for, and why."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"recipients": ["ana@contoso.com"], "reason": "wrong attachment"}]}
    )

    recipients: (
        Annotated[
            list[Annotated[str, Field(strict=True, max_length=998)]], Field(min_length=1, max_length=1000)
        ]
        | None
    ) = Field(default=None, description="Addresses of the message; all of them unless said.")
    reason: Reason | None = Field(default=None, description="For people; it is kept in the audit.")


class SettleIn(ActIn):
    """What became of recipients that may have the message or not."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"decision": "sent", "reason": "Ana has it in her inbox"}]}
    )

    decision: Literal["sent", "resend", "drop"] = Field(
        description="`sent`: they have it. `resend`: send the same octets again. `drop`: leave it at that."
    )


class RescheduleIn(Shape):
    """Another time for a message that was not tried yet."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"scheduled_at": "2026-11-24T08:00:00Z"}]})

    scheduled_at: Moment | None = Field(description="Not before; null is now.")
    expires_at: Moment | None = Field(
        default=None, description="When to give up; it keeps its length of life unless said."
    )
    reason: Reason | None = Field(default=None, description="For people; it is kept in the audit.")
