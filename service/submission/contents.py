"""The contents of messages that name a template: fetched once for each version, rendered together."""

from collections.abc import Mapping, Sequence
from typing import Any

from service.ledger.keys import Key
from service.submission.door import Budget, Door
from service.submission.messages import Addressed, Content
from service.submission.problems import FieldError, Problem, invalid
from service.submission.rendering import BadTemplate, RenderJob, Source


class Contents:
    """Renders what messages ask for."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def of(
        self, addressed: Sequence[Addressed], key: Key, budget: Budget
    ) -> Mapping[Addressed, Content | Problem]:
        """Render the messages that have a template; what cannot be rendered is a problem in its place."""
        wanted: dict[tuple[str, int | None], list[Addressed]] = {}
        for each in addressed:
            if (use := each.asked.shape.template) is not None:
                wanted.setdefault((use.id, use.version), []).append(each)
        found: dict[Addressed, Content | Problem] = {}
        for (name, version), group in wanted.items():
            stored = await budget.spend(
                self._door.ledger.templates.for_rendering(key.application, name, version=version)
            )
            if stored is None:
                found.update(dict.fromkeys(group, _unknown(version)))
                continue
            source = Source(subject=stored.subject, text=stored.text, html=stored.html)
            template = {"id": stored.template_id, "version": stored.version}
            jobs = [RenderJob(source=source, variables=each.asked.variables) for each in group]
            rendered = await self._door.renderer.render(jobs, application=key.application)
            for each, result in zip(group, rendered, strict=True):
                found[each] = _content(result, template, of_merge=each.asked.own is not None)
        return found


def _content(result: Any, template: Mapping[str, Any], *, of_merge: bool) -> Content | Problem:
    if isinstance(result, BadTemplate):
        variables = "/variables" if of_merge else "/template/variables"
        pointer = variables if result.code == "template_variable_missing" else "/template"
        return invalid([result.field_error(pointer)])
    return Content(subject=result.subject, text=result.text, html=result.html, template=template)


def _unknown(version: int | None) -> Problem:
    if version is None:
        detail = "There is no template of this id or name that has a published version."
        return invalid([FieldError(pointer="/template/id", code="template_not_found", detail=detail)])
    detail = "There is no such version of this template."
    return invalid([FieldError(pointer="/template/version", code="template_not_found", detail=detail)])
