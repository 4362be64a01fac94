"""The shapes of requests and answers, as the OpenAPI document shows them."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr

Text = Annotated[str, Field(strict=True)]
Line = Annotated[str, Field(strict=True, max_length=998)]


class Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True, hide_input_in_errors=True)


class AddressIn(Shape):
    """An address with its display name."""

    email: Annotated[str, Field(strict=True, max_length=998)]
    name: Annotated[str, Field(strict=True, max_length=998)] | None = None


AddressLike = Line | AddressIn
AddressList = AddressLike | Annotated[list[AddressLike], Field(max_length=1000)]


class AttachmentIn(Shape):
    """A file that travels with the message; with a `content_id` the HTML can show it by `cid:`."""

    filename: Line | None = None
    content: Annotated[str, Field(strict=True, description="The file, in base64.")]
    content_type: Line | None = Field(default=None, description="Told by the file name unless given.")
    content_id: Line | None = None
    disposition: Literal["attachment", "inline"] | None = None


Moment = Annotated[str, Field(strict=True, max_length=64, json_schema_extra={"format": "date-time"})]
Metadata = Annotated[
    dict[
        Annotated[str, Field(max_length=100)],
        Annotated[StrictStr, Field(max_length=1000)] | StrictBool | StrictInt | StrictFloat | None,
    ],
    Field(max_length=50),
]
Tags = Annotated[list[Annotated[str, Field(strict=True, max_length=256)]], Field(max_length=50)]
Headers = Annotated[dict[str, Line], Field(max_length=100)]
Variables = Annotated[dict[Annotated[str, Field(max_length=100)], Any], Field(max_length=500)]


class TemplateUseIn(Shape):
    """A template, and what is put into it."""

    id: Annotated[str, Field(strict=True, min_length=1, max_length=200, description="Its id, or its name.")]
    version: Annotated[StrictInt, Field(ge=1, le=1_000_000)] | None = Field(
        default=None, description="The published one unless said."
    )
    variables: Variables | None = None


class DsnIn(Shape):
    """Which reports the other side is asked for (RFC 3461); they go to the sender's mailbox."""

    notify: list[Literal["success", "failure", "delay", "never"]] | None = Field(
        default=None, min_length=1, max_length=3, description="`never` stands alone."
    )
    return_: Literal["headers", "full"] | None = Field(default=None, alias="return")
    envid: (
        Annotated[str, Field(strict=True, min_length=1, max_length=100, pattern=r"^[\x21-\x7e]+$")] | None
    ) = None


class MergeItemIn(Shape):
    """One copy of a message that goes to many, each of them alone."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True, hide_input_in_errors=True)

    to: AddressList
    cc: AddressList | None = None
    bcc: AddressList | None = None
    subject: Text | None = Field(default=None, max_length=998)
    headers: Headers | None = None
    variables: Variables | None = Field(default=None, description="They go before the template's own.")
    tags: Tags | None = Field(default=None, description="Beside the message's own.")
    metadata: Metadata | None = Field(default=None, description="Beside the message's own.")
    scheduled_at: Moment | None = None
    idempotency_key: Annotated[str, Field(strict=True, pattern=r"^[\x21-\x7e]{1,256}$")] | None = None


class MessageIn(Shape):
    """A message to be sent: content fields, or a `template`, or `raw`."""

    model_config = ConfigDict(
        extra="forbid",
        populate_by_name=True,
        hide_input_in_errors=True,
        json_schema_extra={
            "examples": [
                {
                    "from": "Contoso <noreply@contoso.com>",
                    "to": ["Ana <ana@contoso.com>"],
                    "subject": "Your receipt",
                    "text": "Thank you for your order.",
                    "html": "<p>Thank you for your order.</p>",
                    "tags": ["receipt"],
                    "metadata": {"order_id": "42"},
                }
            ]
        },
    )

    from_: AddressLike = Field(alias="from", description='`a@b` or `"Name <a@b>"` or `{email, name}`.')
    to: AddressList | None = None
    cc: AddressList | None = None
    bcc: AddressList | None = Field(default=None, description="In the envelope only, never in a header.")
    reply_to: AddressList | None = None
    subject: Text | None = Field(default=None, max_length=998)
    text: Text | None = Field(default=None, description="Derived from the HTML where missing.")
    html: Text | None = None
    headers: Headers | None = Field(
        default=None, description="Further headers; none that Postroom writes itself."
    )
    attachments: list[AttachmentIn] | None = Field(default=None, max_length=250)
    raw: Text | None = Field(
        default=None, description="A whole RFC 5322 message in base64, instead of content."
    )
    template: TemplateUseIn | None = Field(default=None, description="Instead of subject, text and html.")
    merge: list[MergeItemIn] | None = Field(
        default=None,
        min_length=1,
        max_length=500,
        description="A message of its own for each entry; the answer is a list.",
    )
    route: Annotated[str, Field(strict=True, max_length=100)] = Field(
        default="auto", description="A route's name, or `auto`."
    )
    tags: Tags | None = None
    metadata: Metadata | None = None
    scheduled_at: Moment | None = Field(default=None, description="Not before; at most 30 days ahead.")
    expires_at: Moment | None = Field(
        default=None, description="When to give up; 72 hours from now, or from `scheduled_at`, unless said."
    )
    on_uncertain: Literal["resend", "hold"] = Field(
        default="resend",
        description="When the peer may have the message or not: send the same octets again, or ask a person.",
    )
    priority: Literal["high", "normal", "low"] = "normal"
    stream: Annotated[str, Field(strict=True, pattern=r"^[a-z0-9_-]{1,50}$")] = Field(
        default="transactional", description="`bulk` never takes client submission."
    )
    dsn: DsnIn | None = None
    dry_run: StrictBool = Field(
        default=False, description="Say what would happen, as `POST /messages/plan` does."
    )


class BatchItemIn(MessageIn):
    """A message of a batch, which may have an idempotency key of its own."""

    idempotency_key: Annotated[str, Field(strict=True, pattern=r"^[\x21-\x7e]{1,256}$")] | None = None


class AddressOut(BaseModel):
    email: str
    name: str | None = None


class ReplyOut(BaseModel):
    code: int
    enhanced: str | None
    text: str


class DiagnosisOut(BaseModel):
    id: str
    title: str
    explanation: str
    who: str
    remedy: list[str]
    source: str


class ErrorOut(BaseModel):
    code: str
    phase: str | None
    reply: ReplyOut | None
    retryable: bool
    detail: str | None = None
    diagnosis: DiagnosisOut


class RecipientOut(BaseModel):
    email: str
    name: str | None = None
    type: Literal["to", "cc", "bcc"]
    status: str
    reply: ReplyOut | None = Field(description="The reply that decided its state.")
    route: str | None
    lane: str | None
    attempts: int
    reason: str | None
    last_error: ErrorOut | None
    next_attempt_at: datetime | None


class MessageOut(BaseModel):
    """A message: its status is derived from its recipients'."""

    object: Literal["message"]
    id: str
    status: str
    message_id: str
    from_: AddressOut = Field(alias="from")
    reply_to: list[AddressOut]
    subject: str
    size: int = Field(description="Octets of the message as it is sent.")
    sha256: str
    recipients: list[RecipientOut]
    route: str | None = Field(description="The first recipient's.")
    lane: str | None
    attempts: int = Field(description="The sum of its recipients' attempts.")
    expected_at: datetime | None
    expected_because: list[str]
    next_attempt_at: datetime | None
    expires_at: datetime
    last_error: ErrorOut | None
    plan: dict[str, Any] = Field(
        description="Which way was chosen when it was accepted, and why not another one."
    )
    on_uncertain: str
    priority: str
    stream: str
    tags: list[str]
    metadata: dict[str, Any]
    test: bool
    scheduled_at: datetime | None
    template: dict[str, Any] | None = Field(description="Id and version of what it was rendered from.")
    dsn: dict[str, Any] | None
    created_at: datetime


class MessageListOut(BaseModel):
    object: Literal["list"]
    data: list[MessageOut]
    has_more: bool
    next: str | None


class PlannedMessageOut(MessageOut):
    """The message as it would be accepted; it has no id."""

    id: None  # type: ignore[assignment]  # there is none yet


class PlannedDeliveryOut(BaseModel):
    route: str
    lane: str
    recipients: list[str]
    external_recipients: int
    why: str


class WhyNotOut(BaseModel):
    route: str
    code: str
    detail: str


class PlanOut(BaseModel):
    """What would happen to a message: its ways, why not the others, and when it would go."""

    object: Literal["plan"]
    deliveries: list[PlannedDeliveryOut]
    why_not: list[WhyNotOut]
    route: str | None
    lane: str | None
    expected_at: datetime | None
    expected_because: list[str]
    message: PlannedMessageOut


class PlanListOut(BaseModel):
    object: Literal["list"]
    data: list[PlanOut]
    has_more: bool
    next: str | None


class AttemptRecipientOut(BaseModel):
    email: str
    reply: ReplyOut | None = Field(description="The reply to its RCPT.")
    status: str


class AttemptOut(BaseModel):
    """One try at one delivery: one entry of the ledger."""

    object: Literal["attempt"]
    id: str
    message: str
    number: int
    outcome: str | None = Field(description="Null while it runs.")
    phase: str
    route: str
    lane: str
    worker: str
    started_at: datetime
    ended_at: datetime | None
    recipients: list[AttemptRecipientOut]
    reply: ReplyOut | None
    session: dict[str, Any] | None = Field(
        description="The session: its id, the peer's host and addresses, greeting and EHLO answer; `tls` with version, "
        "cipher, whether the certificate was verified, that certificate, and the `own_certificate` of a relay that "
        "has one; `login` with method and identity. Null where there was none."
    )
    peer_trailer: dict[str, Any] | None = Field(
        description="The machine, time and session that the peer named in the reply that decided."
    )
    size: int
    sha256: str
    error: ErrorOut | None
    next_attempt_at: datetime | None


class EventOut(BaseModel):
    """One move of one recipient."""

    object: Literal["event"]
    id: str
    type: str
    message: str
    recipient: str
    from_status: str | None
    status: str
    reason: str | None
    attempt: str | None
    reply: ReplyOut | None
    diagnosis: str | None = Field(description="The id of what it means in the catalogue of diagnoses.")
    actor: str | None
    created_at: datetime


class AttemptListOut(BaseModel):
    object: Literal["list"]
    data: list[AttemptOut]
    has_more: bool
    next: str | None


class EventListOut(BaseModel):
    object: Literal["list"]
    data: list[EventOut]
    has_more: bool
    next: str | None


class KeyOut(BaseModel):
    """A key without its secret; at `GET /me` also what an access token of Entra ID stands for."""

    object: Literal["key", "access_token"]
    id: str = Field(description="`key_…`; of an access token `entra:` and the client id.")
    application: str
    name: str | None = Field(description="What its owner calls it.")
    test: bool = Field(description="Its mail goes to the sandbox, never to Microsoft.")
    scopes: list[str]
    senders: list[str] = Field(description="Addresses and @domains; empty: any of the routes'.")
    routes: list[str] | None = Field(description="Null: every one.")
    recipient_domains: list[str] | None = Field(description="Null: every one.")
    networks: list[str] | None = Field(description="Null: every one.")
    messages_per_minute: int | None = Field(description="Null: no limit.")
    messages_per_day: int | None = Field(description="Null: no limit.")
    replaces: str | None = Field(description="The key in whose place it was put.")
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute.")


class FieldErrorOut(BaseModel):
    pointer: str
    code: str
    detail: str
    line: int | None = Field(default=None, description="Of a template's part.")
    variable: str | None = Field(
        default=None, description="Of a template, by the name that its author gave it."
    )


class ProblemOut(BaseModel):
    """A refusal, as problem details (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    retryable: bool
    errors: list[FieldErrorOut]


class LivenessOut(BaseModel):
    status: Literal["alive"]


class BatchProblemOut(ProblemOut):
    """Why one message of a permissive batch was not accepted."""

    object: Literal["problem"]
    index: int = Field(description="Its place in the batch.")


class BatchOut(BaseModel):
    """What became of each message of a batch, in the order of the request."""

    object: Literal["list"]
    data: list[MessageOut | BatchProblemOut]
    has_more: bool
    next: str | None


class ReadinessOut(BaseModel):
    status: Literal["ready", "degraded", "unavailable"]
    checks: dict[str, str]
