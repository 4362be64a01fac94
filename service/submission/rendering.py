"""Render templates in processes of their own, with limits of time and memory.

The interface; the presses behind it follow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from service.submission.problems import FieldError

Part = Literal["subject", "text", "html"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a version of a template says; jobs of one call that share a source have it compiled once."""

    subject: str
    text: str | None
    html: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderJob:
    """One message to be rendered."""

    source: Source
    variables: Mapping[str, Any]  # as JSON has them


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """A message's content; the rules of mail have not looked at it yet, but the subject is one line."""

    subject: str
    text: str | None
    html: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BadTemplate:
    """Why a template cannot be rendered; nothing in it comes out of the variables."""

    code: str  # template_syntax, template_forbidden, template_variable_missing, template_failed, template_limit_exceeded
    detail: str
    part: Part | None
    line: int | None
    variable: str | None  # by the name that the template's author gave it

    def field_error(self, pointer: str) -> FieldError:
        """Say it to a caller, about the field at `pointer`."""
        return FieldError(
            pointer=pointer, code=self.code, detail=self.detail, line=self.line, variable=self.variable
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """What became of a new version's source."""

    variables: tuple[str, ...]  # that it uses, in the order of the alphabet
    faults: tuple[BadTemplate, ...]  # none: it compiles


class Renderer:
    """Renders for everybody in this process; no press runs before the first template is used."""

    async def render(self, wanted: Sequence[RenderJob], *, application: str) -> list[Rendered | BadTemplate]:
        """Render each job, in the same order; one that is bad does not stop the others.

        The answer is there within a second. Raises a 503 problem `rendering_busy` where every press is
        taken for too long, so nothing was found out about the template.
        """
        raise NotImplementedError

    async def examine(self, source: Source, *, application: str) -> Examined:
        """Compile a source and run nothing of it; raises a 503 problem `rendering_busy`."""
        raise NotImplementedError

    async def close(self) -> None:
        """End every press."""
