"""Templates: made, changed by new versions, published, rolled back, and tried out.

A version is compiled before it is kept, so that what is stored works but for its variables; a broken one is
a 422 that names the part and the line. `render` shows what a version becomes without sending anything, and
refuses with the same words as a message that uses the template.

A template belongs to one application; an operator sees all.
"""

import re
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from service.ledger.ids import is_id
from service.ledger.keys import Key
from service.ledger.templates import NewTemplate, NewVersion, Refusal, TemplateVersion
from service.submission.door import BODY, Budget, Door, guarded, json_body, refusals
from service.submission.problems import FieldError, Problem, invalid, not_found, unprocessable
from service.submission.request import query, validation
from service.submission.templating import template_models
from service.submission.templating.rendering import BadTemplate, RenderJob, Source
from service.submission.templating.template_models import (
    PublishIn,
    RenderIn,
    RenderingOut,
    TemplateChangeIn,
    TemplateIn,
    TemplateListOut,
    TemplateOut,
    TemplateVersionIn,
    TemplateVersionListOut,
    TemplateVersionOut,
)
from service.submission.who.callers import sees

SHAPES = (TemplateIn, TemplateChangeIn, TemplateVersionIn, PublishIn, RenderIn)

_NUMBER = re.compile(r"[1-9][0-9]{0,6}")

_NAME_PARAMETER = {
    "name": "name",
    "in": "query",
    "required": False,
    "schema": {"type": "string"},
    "description": "The template of exactly this name.",
}

_VERSION_PARAMETERS = tuple(
    {**each, "schema": {"type": "integer", "minimum": 1}, "description": says}
    if (says := {"after": "Versions below this one.", "before": "Versions above this one."}.get(each["name"]))
    else each
    for each in query.PAGE_PARAMETERS
)


def endpoints(door: Door) -> APIRouter:
    """Make the endpoints of templates."""
    router = APIRouter(tags=["templates"])
    templates = _Templates(door)
    one, of_version = "/templates/{template_id}", "/templates/{template_id}/versions/{version}"
    listing = guarded(parameters=[*query.PAGE_PARAMETERS, _NAME_PARAMETER])
    versions = guarded(parameters=list(_VERSION_PARAMETERS))
    taken = "Another template of the application has this name."
    routes: tuple[tuple[str, str, Any, str, int, Any, Any, Any], ...] = (
        ("POST", "/templates", templates.create, "Make a template", 201, TemplateOut,
         refusals(409, *BODY, s409=taken), json_body(TemplateIn)),
        ("GET", "/templates", templates.listed, "List templates", 200, TemplateListOut, refusals(422), listing),
        ("GET", one, templates.one, "See a template", 200, TemplateOut, refusals(404), guarded()),
        ("PATCH", one, templates.update, "Rename or describe a template", 200, TemplateOut,
         refusals(404, 409, *BODY, s409=taken), json_body(TemplateChangeIn)),
        ("DELETE", one, templates.delete, "Delete a template with its versions", 204, None, refusals(404),
         guarded()),
        ("POST", f"{one}/versions", templates.add_version, "Add a version", 201, TemplateVersionOut,
         refusals(404, *BODY), json_body(TemplateVersionIn)),
        ("GET", f"{one}/versions", templates.versions, "List its versions", 200, TemplateVersionListOut,
         refusals(404, 422), versions),
        ("GET", of_version, templates.version, "See a version", 200, TemplateVersionOut, refusals(404),
         guarded()),
        ("POST", f"{one}/publish", templates.publish, "Publish a version, or roll back", 200, TemplateOut,
         refusals(404, *BODY), json_body(PublishIn)),
        ("POST", f"{one}/unpublish", templates.unpublish, "Publish no version", 200, TemplateOut,
         refusals(404), guarded()),
        ("POST", f"{one}/render", templates.render, "See what a version becomes", 200, RenderingOut,
         refusals(404, *BODY), json_body(RenderIn, required=False)),
    )  # fmt: skip
    for method, path, endpoint, summary, status, shape, refused, described in routes:
        router.add_api_route(
            path,
            endpoint,
            methods=[method],
            status_code=status,
            summary=summary,
            operation_id=_OPERATIONS[endpoint.__name__],
            response_class=Response if shape is None else JSONResponse,
            responses=refused if shape is None else {status: {"model": shape}, **refused},
            **described,
        )
    return router


_OPERATIONS = {
    "create": "create_template",
    "listed": "list_templates",
    "one": "get_template",
    "update": "update_template",
    "delete": "delete_template",
    "add_version": "create_template_version",
    "versions": "list_template_versions",
    "version": "get_template_version",
    "publish": "publish_template",
    "unpublish": "unpublish_template",
    "render": "render_template",
}


class _Templates:
    def __init__(self, door: Door) -> None:
        self._door = door

    async def create(self, request: Request) -> Response:
        """Make a template; with a subject and a text or html it has its first version at once."""
        budget = self._door.budget()
        key = await self._door.caller(request, "templates.write", budget)
        asked = await validation.read(self._door, request, TemplateIn)
        _check_name(asked.name)
        new = NewTemplate(application=key.application, name=asked.name, description=asked.description)
        first = None
        if asked.subject is not None or asked.text is not None or asked.html is not None or asked.publish:
            first = await self._examined(asked.subject, asked.text, asked.html, key)
        made = await budget.spend(
            self._door.ledger.templates.create(
                new, first, publish=asked.publish, actor=self._door.actor(request, key)
            )
        )
        if isinstance(made, Refusal):
            raise _refused(made)
        headers = {"Location": f"/templates/{made.id}"}
        return JSONResponse(template_models.template(made), status_code=201, headers=headers)

    async def listed(self, request: Request) -> Response:
        """List templates, the newest first."""
        budget = self._door.budget()
        key = await self._door.caller(request, "templates.read", budget)
        given = query.parameters(request, {"limit", "after", "before", "name"})
        wanted = query.page(given, "tpl")
        rows = await budget.spend(
            self._door.ledger.templates.listed(
                application=sees(key), name=given.get("name"), **wanted.bounds()
            )
        )
        return JSONResponse(query.listed([template_models.template(row) for row in rows], wanted))

    async def one(self, request: Request, template_id: str) -> Response:
        """Show a template: its name, and which version is published."""
        budget = self._door.budget()
        key = await self._door.caller(request, "templates.read", budget)
        found = await budget.spend(self._door.ledger.templates.one(_id(template_id), application=sees(key)))
        if found is None:
            raise not_found()
        return JSONResponse(template_models.template(found))

    async def update(self, request: Request, template_id: str) -> Response:
        """Change the name or the description; a member that is missing or null stays as it is."""
        budget = self._door.budget()
        key = await self._door.caller(request, "templates.write", budget)
        asked = await validation.read(self._door, request, TemplateChangeIn)
        if asked.name is not None:
            _check_name(asked.name)
        changed = await budget.spend(
            self._door.ledger.templates.update(
                _id(template_id),
                application=sees(key),
                name=asked.name,
                description=asked.description,
                actor=self._door.actor(request, key),
            )
        )
        if isinstance(changed, Refusal):
            raise _refused(changed)
        return JSONResponse(template_models.template(changed))

    async def delete(self, request: Request, template_id: str) -> Response:
        """Delete a template with its versions; messages that were made of it are not touched."""
        budget = self._door.budget()
        key = await self._door.caller(request, "templates.write", budget)
        gone = await budget.spend(
            self._door.ledger.templates.delete(
                _id(template_id), application=sees(key), actor=self._door.actor(request, key)
            )
        )
        if not gone:
            raise not_found()
        return Response(status_code=204)

    async def add_version(self, request: Request, template_id: str) -> Response:
        """Add the next version, after it was seen to compile; it is used when it is published."""
        budget = self._door.budget()
        key = await self._door.caller(request, "templates.write", budget)
        asked = await validation.read(self._door, request, TemplateVersionIn)
        templates, application = self._door.ledger.templates, sees(key)
        if await budget.spend(templates.one(_id(template_id), application=application)) is None:
            raise not_found()
        new = await self._examined(asked.subject, asked.text, asked.html, key)
        added = await budget.spend(
            templates.add_version(
                template_id,
                new,
                application=application,
                publish=asked.publish,
                actor=self._door.actor(request, key),
            )
        )
        if isinstance(added, Refusal):
            raise _refused(added)
        headers = {"Location": f"/templates/{template_id}/versions/{added.version}"}
        return JSONResponse(template_models.version(added), status_code=201, headers=headers)

    async def versions(self, request: Request, template_id: str) -> Response:
        """List the versions, the newest first; `after` and `before` are versions."""
        budget = self._door.budget()
        key = await self._door.caller(request, "templates.read", budget)
        given = query.parameters(request, {"limit", "after", "before"})
        after, before = _number(given, "after"), _number(given, "before")
        cursors = {"after", "before"}
        limit = query.page({name: given[name] for name in given.keys() - cursors}, "tpl").limit
        if after is not None and before is not None:
            raise query.wrong("before", "exclusive", "Give after or before, not both.")
        templates = self._door.ledger.templates
        if await budget.spend(templates.one(_id(template_id), application=sees(key))) is None:
            raise not_found()
        rows = await budget.spend(templates.versions(template_id, after=after, before=before, most=limit + 1))
        data = [template_models.version_head(row) for row in rows[:limit]]
        last = data[-1]["version"] if data and len(rows) > limit else None
        if before is not None:
            data.reverse()
        return JSONResponse({"object": "list", "data": data, "has_more": len(rows) > limit, "next": last})

    async def version(self, request: Request, template_id: str, version: str) -> Response:
        """Show a version with its content."""
        budget = self._door.budget()
        key = await self._door.caller(request, "templates.read", budget)
        if not _NUMBER.fullmatch(version):
            raise not_found()
        found = await budget.spend(
            self._door.ledger.templates.version(_id(template_id), int(version), application=sees(key))
        )
        if found is None:
            raise not_found()
        return JSONResponse(template_models.version(found))

    async def publish(self, request: Request, template_id: str) -> Response:
        """Let this version be used where a message names none; an older version rolls back."""
        budget = self._door.budget()
        key = await self._door.caller(request, "templates.write", budget)
        asked = await validation.read(self._door, request, PublishIn)
        return await self._published(request, template_id, asked.version, key, budget)

    async def unpublish(self, request: Request, template_id: str) -> Response:
        """Publish no version: messages have to name one then."""
        budget = self._door.budget()
        key = await self._door.caller(request, "templates.write", budget)
        return await self._published(request, template_id, None, key, budget)

    async def _published(
        self, request: Request, template_id: str, version: int | None, key: Key, budget: Budget
    ) -> Response:
        done = await budget.spend(
            self._door.ledger.templates.publish(
                _id(template_id), version, application=sees(key), actor=self._door.actor(request, key)
            )
        )
        if isinstance(done, Refusal):
            raise _refused(done)
        return JSONResponse(template_models.template(done))

    async def render(self, request: Request, template_id: str) -> Response:
        """Show what a version becomes with these variables; nothing is sent."""
        budget = self._door.budget()
        key = await self._door.caller(request, "templates.read", budget)
        asked = await validation.read(self._door, request, RenderIn, optional=True)
        found = await self._version(_id(template_id), asked.version, key, budget)
        source = Source(subject=found.subject, text=found.text, html=found.html)
        job = RenderJob(source=source, variables=asked.variables or {})
        (rendered,) = await self._door.renderer.render([job], application=key.application)
        if isinstance(rendered, BadTemplate):
            raise invalid([rendered.field_error("/variables")])
        return JSONResponse(template_models.rendering(found, rendered))

    async def _version(
        self, template_id: str, version: int | None, key: Key, budget: Budget
    ) -> TemplateVersion:
        templates, application = self._door.ledger.templates, sees(key)
        if version is None:
            template = await budget.spend(templates.one(template_id, application=application))
            if template is None:
                raise not_found()
            if template.published is None:
                detail = "No version of this template is published: name the one that is meant."
                raise unprocessable("/version", "template_not_published", detail)
            version = template.published
        elif await budget.spend(templates.one(template_id, application=application)) is None:
            raise not_found()
        found = await budget.spend(templates.version(template_id, version, application=application))
        if found is None:
            raise _refused(Refusal.NO_VERSION)
        return found

    async def _examined(
        self, subject: str | None, text: str | None, html: str | None, key: Key
    ) -> NewVersion:
        """Compile what is to become a version; raises a 422 problem that names every broken part."""
        if subject is None:
            raise unprocessable("/subject", "required", "A version needs a subject.")
        if text is None and html is None:
            raise unprocessable("/text", "required", "A version needs text, html or both.")
        source = Source(subject=subject, text=text, html=html)
        examined = await self._door.renderer.examine(source, application=key.application)
        if examined.faults:
            raise invalid([fault.field_error(f"/{fault.part}") for fault in examined.faults])
        return NewVersion(subject=subject, text=text, html=html, variables=examined.variables)


def _id(template_id: str) -> str:
    if not is_id(template_id, "tpl"):
        raise not_found()
    return template_id


def _number(given: Mapping[str, str], name: str) -> int | None:
    written = given.get(name)
    if written is None:
        return None
    if not _NUMBER.fullmatch(written):
        raise query.wrong(name, "not_a_version", "This is the number of a version.")
    return int(written)


def _check_name(name: str) -> None:
    """Refuse a name that cannot be read as one, or that could be taken for an id; raises a 422 problem."""
    if name != name.strip() or not name.isprintable():
        detail = "A name has printable characters, and no space at its ends."
        raise unprocessable("/name", "name_invalid", detail)
    if name.startswith("tpl_"):
        raise unprocessable("/name", "name_invalid", "A name does not begin as an id does, with tpl_.")


def _refused(refusal: Refusal) -> Problem:
    match refusal:
        case Refusal.NO_TEMPLATE:
            return not_found()
        case Refusal.NO_VERSION:
            detail = "The template has no version of this number."
            return unprocessable("/version", "template_version_not_found", detail)
        case Refusal.NAME_TAKEN:
            detail = "Another template of the application has this name."
            error = FieldError(pointer="/name", code="name_taken", detail=detail)
            return Problem(status=409, code="name_taken", detail=detail, errors=[error])
