"""What Resend's requests and answers look like, as the OpenAPI document shows them.

Everything may be null, as it is for SDKs that write down what was not given.
"""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    WithJsonSchema,
)

from service.submission.models import Line, Shape, Text

Addresses = Line | Annotated[list[Line], Field(max_length=1000)]

#: The SDKs send base64, a list of octets (Python), or a Buffer as Node writes it. Read by `mapping`:
#: a list of millions of numbers is no work for a validator.
FileContent = Annotated[
    Any,
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "description": "The file, in base64."},
                {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 255}},
                {"type": "object", "description": 'Node\'s `{"type": "Buffer", "data": […]}`.'},
                {"type": "null"},
            ]
        }
    ),
]


class ResendAttachmentIn(Shape):
    """A file; with a `content_id` the HTML can show it by `cid:`."""

    filename: Line | None = None
    content: FileContent = None
    path: Text | None = Field(default=None, description="Refused: Postroom fetches nothing from elsewhere.")
    content_type: Line | None = None
    content_id: Line | None = None
    inline_content_id: Line | None = Field(default=None, description="The same as `content_id`.")


class ResendTagIn(Shape):
    name: Annotated[str, Field(strict=True, pattern=r"^[A-Za-z0-9_-]{1,100}$")]
    value: Annotated[str, Field(strict=True, pattern=r"^[A-Za-z0-9_-]{0,256}$")] | None = None


class ResendTemplateIn(Shape):
    id: Line
    variables: dict[str, StrictStr | StrictBool | StrictInt | StrictFloat | None] | None = None


class ResendEmailIn(Shape):
    """An email to be sent, in the shape of Resend's API."""

    model_config = ConfigDict(
        **Shape.model_config,
        json_schema_extra={
            "examples": [
                {
                    "from": "Contoso <noreply@contoso.com>",
                    "to": ["ana@contoso.com"],
                    "subject": "Your receipt",
                    "html": "<p>Thank you for your order.</p>",
                }
            ]
        },
    )

    from_: Line = Field(alias="from", description='`a@b` or `"Name <a@b>"`.')
    to: Addresses
    subject: Text | None = Field(default=None, max_length=998, description="Required without a template.")
    cc: Addresses | None = None
    bcc: Addresses | None = None
    reply_to: Addresses | None = None
    html: Text | None = None
    text: Text | None = Field(default=None, description="Derived from the HTML where missing; `` for none.")
    headers: dict[str, Line] | None = Field(default=None, max_length=100)
    attachments: list[ResendAttachmentIn] | None = Field(default=None, max_length=250)
    tags: list[ResendTagIn] | None = Field(default=None, max_length=50)
    scheduled_at: Line | None = Field(
        default=None, description="ISO 8601, or `in 1 hour`, `tomorrow at 9am`."
    )
    template: ResendTemplateIn | None = None
    topic_id: Text | None = Field(default=None, description="Refused: Postroom has no topics.")


class ResendUpdateIn(Shape):
    """What can be changed of an email that is scheduled."""

    model_config = ConfigDict(
        **Shape.model_config, json_schema_extra={"examples": [{"scheduled_at": "in 1 hour"}]}
    )

    id: Text | None = Field(default=None, description="Sent by an SDK; the path decides.")
    scheduled_at: Line


class ResendErrorOut(BaseModel):
    """A refusal in Resend's form."""

    statusCode: int  # noqa: N815  # their name
    name: str
    message: str


class ResendIdOut(BaseModel):
    id: str


class ResendEmailIdOut(BaseModel):
    object: Literal["email"]
    id: str


class ResendIndexedErrorOut(BaseModel):
    index: int = Field(description="Its place in the request, from 0.")
    message: str


class ResendBatchOut(BaseModel):
    data: list[ResendIdOut]
    errors: list[ResendIndexedErrorOut] | None = Field(
        default=None, description="With `x-batch-validation: permissive` only."
    )


class ResendTagOut(BaseModel):
    name: str
    value: str


class ResendListedEmailOut(BaseModel):
    id: str
    message_id: str
    to: list[str]
    from_: str = Field(alias="from")
    created_at: str
    subject: str
    bcc: list[str]
    cc: list[str]
    reply_to: list[str]
    last_event: Literal[
        "bounced",
        "canceled",
        "delivered",
        "delivery_delayed",
        "failed",
        "queued",
        "scheduled",
        "sent",
        "suppressed",
    ]
    scheduled_at: str | None


class ResendEmailOut(ResendListedEmailOut):
    """An email as Resend shows it."""

    object: Literal["email"]
    html: str | None = Field(description="Null for a key without the scope `content.read`.")
    text: str | None = Field(description="Null for a key without the scope `content.read`.")
    tags: list[ResendTagOut]
    topic_id: None


class ResendListOut(BaseModel):
    object: Literal["list"]
    has_more: bool
    data: list[ResendListedEmailOut]
