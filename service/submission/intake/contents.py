"""The contents of messages that name a template: fetched in one statement, rendered in one call."""

from collections.abc import Mapping, Sequence
from typing import Any

from service.ledger.keys import Key
from service.ledger.templates import TemplateVersion
from service.submission.door import Budget, Door
from service.submission.intake.messages import Addressed, Content
from service.submission.problems import FieldError, Problem, invalid
from service.submission.templating.rendering import BadTemplate, RenderJob, Source


class Contents:
    """Renders what messages ask for."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def of(
        self, addressed: Sequence[Addressed], key: Key, budget: Budget
    ) -> Mapping[Addressed, Content | Problem]:
        """Render the messages that have a template; what cannot be rendered is a problem in its place."""
        using = [(each, use) for each in addressed if (use := each.asked.shape.template) is not None]
        if not using:
            return {}
        stored = await budget.spend(
            self._door.ledger.templates.for_rendering(
                key.application, list({(use.id, use.version) for _, use in using})
            )
        )
        found: dict[Addressed, Content | Problem] = {}
        jobs: list[tuple[Addressed, TemplateVersion, RenderJob]] = []
        sources = {
            named: Source(subject=each.subject, text=each.text, html=each.html)
            for named, each in stored.items()
        }
        for each, use in using:
            version = stored.get((use.id, use.version))
            if version is None:
                found[each] = _unknown(use.version)
                continue
            job = RenderJob(source=sources[use.id, use.version], variables=each.asked.variables)
            jobs.append((each, version, job))
        # One call for all of them: it has one limit of time.
        rendered = await self._door.renderer.render([job for *_, job in jobs], application=key.application)
        for (each, version, _), result in zip(jobs, rendered, strict=True):
            template = {"id": version.template_id, "version": version.version}
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
