"""What requests about templates look like, and their answers."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt

from service.ledger.templates import Template, TemplateVersion
from service.submission.models import Shape, Variables
from service.submission.representation import moment
from service.submission.templating.rendering import Rendered

Subject = Annotated[str, Field(strict=True, min_length=1, max_length=2_000)]
Content = Annotated[str, Field(strict=True, max_length=500_000)]
Name = Annotated[str, Field(strict=True, min_length=1, max_length=100)]
Description = Annotated[str, Field(strict=True, max_length=1_000)]
Number = Annotated[StrictInt, Field(ge=1, le=1_000_000)]

_CONTENT: dict[str, Any] = {
    "subject": "Your order {{ order.number }}",
    "text": "Hello {{ name }},\n{% for item in order.items %}- {{ item }}\n{% endfor %}",
    "html": "<p>Hello {{ name }},</p>\n<ul>{% for item in order.items %}<li>{{ item }}</li>{% endfor %}</ul>",
}


class TemplateIn(Shape):
    """A new template; with a subject it gets its first version at once."""

    model_config = ConfigDict(
        **Shape.model_config,
        json_schema_extra={"examples": [{"name": "receipt", **_CONTENT, "publish": True}]},
    )

    name: Name = Field(description="Unique within the application; a message may name the template by it.")
    description: Description = ""
    subject: Subject | None = Field(default=None, description="Jinja, as text and html.")
    text: Content | None = None
    html: Content | None = Field(default=None, description="Variables are escaped.")
    publish: StrictBool = Field(default=False, description="Publish the first version.")


class TemplateChangeIn(Shape):
    """What is said about a template; its content changes by a new version."""

    model_config = ConfigDict(
        **Shape.model_config, json_schema_extra={"examples": [{"description": "After a purchase"}]}
    )

    name: Name | None = None
    description: Description | None = None


class TemplateVersionIn(Shape):
    """The next version of a template: text, html or both."""

    model_config = ConfigDict(**Shape.model_config, json_schema_extra={"examples": [_CONTENT]})

    subject: Subject = Field(description="Jinja, as text and html.")
    text: Content | None = None
    html: Content | None = Field(default=None, description="Variables are escaped.")
    publish: StrictBool = Field(default=False, description="Publish it at once.")


class PublishIn(Shape):
    """Which version is used where a message names none; an older one rolls back."""

    model_config = ConfigDict(**Shape.model_config, json_schema_extra={"examples": [{"version": 2}]})

    version: Number


class RenderIn(Shape):
    """What is put into a template to see what comes out."""

    model_config = ConfigDict(
        **Shape.model_config,
        json_schema_extra={
            "examples": [{"variables": {"name": "Ana", "order": {"number": 42, "items": ["Tea"]}}}]
        },
    )

    variables: Variables | None = None
    version: Number | None = Field(default=None, description="The published one unless said.")


class TemplateOut(BaseModel):
    """A template, without its content."""

    object: Literal["template"]
    id: str
    application: str
    name: str
    description: str
    published: int | None = Field(description="The version that is used where a message names none.")
    latest: int | None = Field(description="The highest version.")
    created_at: datetime
    updated_at: datetime


class TemplateVersionHeadOut(BaseModel):
    """A version as lists show it, without text and html."""

    object: Literal["template_version"]
    template: str
    version: int
    published: bool
    subject: str
    variables: list[str] = Field(description="That it uses, by their first names.")
    created_by: str
    created_at: datetime


class TemplateVersionOut(TemplateVersionHeadOut):
    """A version: it never changes."""

    text: str | None
    html: str | None


class RenderingOut(BaseModel):
    """What came out; nothing was sent."""

    object: Literal["rendering"]
    template: str
    version: int
    subject: str
    text: str | None
    html: str | None
    variables: list[str] = Field(description="That the version uses, by their first names.")


class TemplateListOut(BaseModel):
    object: Literal["list"]
    data: list[TemplateOut]
    has_more: bool
    next: str | None


class TemplateVersionListOut(BaseModel):
    object: Literal["list"]
    data: list[TemplateVersionHeadOut]
    has_more: bool
    next: int | None = Field(description="The last version of this page, for `after`.")


def template(found: Template) -> dict[str, Any]:
    """Show a template."""
    return {
        "object": "template",
        "id": found.id,
        "application": found.application,
        "name": found.name,
        "description": found.description,
        "published": found.published,
        "latest": found.latest,
        "created_at": moment(found.created_at),
        "updated_at": moment(found.updated_at),
    }


def version_head(found: TemplateVersion) -> dict[str, Any]:
    """Show a version without what may be large."""
    return {
        "object": "template_version",
        "template": found.template_id,
        "version": found.version,
        "published": found.published,
        "subject": found.subject,
        "variables": list(found.variables),
        "created_by": found.created_by,
        "created_at": moment(found.created_at),
    }


def version(found: TemplateVersion) -> dict[str, Any]:
    """Show a version."""
    return {**version_head(found), "text": found.text, "html": found.html}


def rendering(found: TemplateVersion, rendered: Rendered) -> dict[str, Any]:
    """Show what a version becomes."""
    return {
        "object": "rendering",
        "template": found.template_id,
        "version": found.version,
        "subject": rendered.subject,
        "text": rendered.text,
        "html": rendered.html,
        "variables": list(found.variables),
    }
