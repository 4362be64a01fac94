"""Render templates, as the endpoints ask for it: jobs go in, content or a reason comes out.

The work is done by the presses (`presses`, `render_child`), outside this process. A call may hold many jobs:
a source that they share is compiled once, and each is rendered with its own variables. One job has half a
second, each further one two milliseconds, up to `_MOST_SECONDS`; when the time is over, jobs that were done
are kept and the others are refused, each with `template_limit_exceeded`.

What is said about a template names its part, its line and its own name of a variable, and never a value.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any, Literal

from service.submission.problems import FieldError, Problem
from service.submission.templating.presses import Busy, Presses, Printed

Part = Literal["subject", "text", "html"]

VARIABLES_OCTETS = 10_000_000  # of all variables of one call, as JSON in ASCII
_FIRST_SECONDS, _FURTHER_SECONDS, _MOST_SECONDS = 0.5, 0.002, 0.65

#: A version may take less time to compile than a message to be rendered, which compiles it too: what is
#: stored on a quiet machine has to work on a busy one.
_EXAMINE_SECONDS = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a version of a template says; jobs of one call that share a source have it compiled once."""

    subject: str
    text: str | None
    html: str | None

    def parts(self) -> dict[Part, str]:
        """Name the parts that there are, in the order in which they are rendered."""
        parts: dict[Part, str | None] = {"subject": self.subject, "text": self.text, "html": self.html}
        return {part: written for part, written in parts.items() if written is not None}


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

    code: str  # template_syntax, _forbidden, _variable_missing, _failed, _not_text, _limit_exceeded …
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

    def __init__(self) -> None:
        self._presses = Presses()

    async def render(self, wanted: Sequence[RenderJob], *, application: str) -> list[Rendered | BadTemplate]:
        """Render each job, in the same order; one that is bad does not stop the others.

        The answer is there within a second. Raises a 503 problem `rendering_busy` where every press is
        taken for too long, so nothing was found out about the template.
        """
        if not wanted:
            return []
        sources = list(dict.fromkeys(job.source for job in wanted))
        numbers = {source: number for number, source in enumerate(sources)}
        jobs, left = [], VARIABLES_OCTETS
        for job in wanted:
            variables = json.dumps(dict(job.variables))
            left -= len(variables)
            if left < 0:
                return [_TOO_MANY_VARIABLES] * len(wanted)
            jobs.append(f"[{numbers[job.source]}, {variables}]")
        written = f"[{', '.join(jobs)}]"
        seconds = min(_FIRST_SECONDS + _FURTHER_SECONDS * (len(wanted) - 1), _MOST_SECONDS)
        printed = await self._print(sources, written, seconds=seconds, application=application)
        done = list(_read(printed.results))
        return done + [_undone(printed, seconds)] * (len(wanted) - len(done))

    async def examine(self, source: Source, *, application: str) -> Examined:
        """Compile a source and run nothing of it; raises a 503 problem `rendering_busy`."""
        printed = await self._print([source], "[]", seconds=_EXAMINE_SECONDS, application=application)
        variables: set[str] = set()
        faults: list[BadTemplate] = []
        seen = [
            json.loads(line) for line in printed.results.splitlines(keepends=True) if line.endswith(b"\n")
        ]
        for part, found in zip_longest(source.parts(), seen):
            if found is None:  # the copy came to its end over this part
                faults.append(replace(_undone(printed, _EXAMINE_SECONDS), part=part))
                break
            variables.update(found["variables"])
            if found["fault"] is not None:
                faults.append(BadTemplate(**found["fault"]))
        return Examined(variables=tuple(sorted(variables)), faults=tuple(faults))

    async def close(self) -> None:
        """End every press."""
        await self._presses.close()

    async def _print(
        self, sources: Sequence[Source], jobs: str, *, seconds: float, application: str
    ) -> Printed:
        named = json.dumps([source.parts() for source in sources])
        request = f'{{"sources": {named}, "jobs": {jobs}}}'.encode()
        try:
            return await self._presses.print(request, seconds=seconds, application=application)
        except Busy:
            raise Problem(
                status=503,
                code="rendering_busy",
                detail="Too many templates are being rendered at the moment. Nothing was accepted: "
                "send the request again, with the same Idempotency-Key.",
                retry_after=1,
            ) from None


_TOO_MANY_VARIABLES = BadTemplate(
    code="template_limit_exceeded",
    detail=f"All variables of one request may have {VARIABLES_OCTETS:,} octets, written as JSON.",
    part=None,
    line=None,
    variable=None,
)


def _undone(printed: Printed, seconds: float) -> BadTemplate:
    """Say why a job has no result: its copy was ended before it came to it, or while it was at it."""
    detail = (
        f"The rendering took longer than the {seconds:.1f} seconds that it may."
        if printed.out_of_time
        else "The rendering broke its process: it needs more memory than it may, or is nested too deep."
    )
    return BadTemplate(code="template_limit_exceeded", detail=detail, part=None, line=None, variable=None)


def _read(results: bytes) -> Iterator[Rendered | BadTemplate]:
    """Read the results that are complete; the last one may have been cut off."""
    at = 0
    while (end := results.find(b"\n", at)) >= 0:
        head, at = json.loads(results[at:end]), end + 1
        if "bad" in head:
            yield BadTemplate(**head["bad"])
            continue
        parts: dict[str, str | None] = {}
        for name, size in head.items():
            if size is not None and at + size > len(results):
                return
            parts[name] = None if size is None else results[at : at + size].decode()
            at += size or 0
        yield Rendered(subject=parts["subject"] or "", text=parts["text"], html=parts["html"])
