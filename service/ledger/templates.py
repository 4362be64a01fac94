"""Templates: named content of an application, in versions.

A version never changes: who wants another text adds a version. The published version is what a message gets
that names none, so that a text goes live, and back, by one small write. A message keeps the octets that were
made of a version, and outlives the template.

Names are unique within an application, and a name never looks like an id, so that one word finds a template
by either. `application` narrows what is found; None, for operators, sees all. What cannot be done is a
`Refusal`, and nothing was written then. Each act and its entry in the audit are one transaction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.ledger import audit
from service.ledger.audit import Actor
from service.ledger.engine import transaction
from service.ledger.ids import new_id


class Refusal(Enum):
    """Why nothing was written."""

    NO_TEMPLATE = auto()  # that the caller sees
    NO_VERSION = auto()  # of this number
    NAME_TAKEN = auto()  # by another template of the application


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A template, without its content."""

    id: str
    application: str
    name: str
    description: str
    published: int | None  # the version that is used where none is named
    latest: int | None  # the highest version; None: there is none yet
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTemplate:
    """A template that is to be made."""

    application: str
    name: str
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVersion:
    """Content that was seen to compile, and the variables that it uses."""

    subject: str
    text: str | None
    html: str | None
    variables: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateVersion:
    """One version; in a list without `text` and `html`, which may be large."""

    template_id: str
    version: int
    subject: str
    text: str | None
    html: str | None
    variables: Sequence[str]
    published: bool  # now
    created_by: str
    created_at: datetime


_COLUMNS = """
    t.id, t.application, t.name, t.description, t.published, t.created_at, t.updated_at,
    (SELECT max(version) FROM template_versions v WHERE v.template_id = t.id) AS latest
"""

_SEEN = "t.id = :id AND (CAST(:application AS text) IS NULL OR t.application = :application)"

_ONE = text(f"SELECT {_COLUMNS} FROM templates t WHERE {_SEEN}")  # noqa: S608

_LOCK = text(f"SELECT t.id FROM templates t WHERE {_SEEN} FOR UPDATE")  # noqa: S608

_INSERT = text("""
    INSERT INTO templates (id, application, name, description) VALUES (:id, :application, :name, :description)
""")

_UPDATE = text("""
    UPDATE templates SET name = COALESCE(CAST(:name AS text), name), updated_at = clock_timestamp(),
           description = COALESCE(CAST(:description AS text), description)
     WHERE id = :id
""")

_ADD = text("""
    INSERT INTO template_versions (template_id, version, subject, text, html, variables, created_by)
    SELECT :id, COALESCE(max(version), 0) + 1, :subject, CAST(:text AS text), CAST(:html AS text),
           CAST(:variables AS text[]), :created_by
      FROM template_versions WHERE template_id = :id
    RETURNING version
""")

_PUBLISH = text("""
    UPDATE templates SET published = CAST(:version AS integer), updated_at = clock_timestamp()
     WHERE id = :id AND (CAST(:version AS integer) IS NULL OR EXISTS (
           SELECT FROM template_versions WHERE template_id = :id AND version = CAST(:version AS integer)))
    RETURNING id
""")

_VERSION_COLUMNS = """
    v.template_id, v.version, v.subject, v.variables, v.created_by, v.created_at,
    v.version IS NOT DISTINCT FROM t.published AS published
"""

_VERSION = text(f"""
    SELECT {_VERSION_COLUMNS}, v.text, v.html
      FROM template_versions v JOIN templates t ON t.id = v.template_id WHERE {_SEEN} AND v.version = :version
""")  # noqa: S608

_VERSIONS = f"""
    SELECT {_VERSION_COLUMNS}, CAST(NULL AS text) AS text, CAST(NULL AS text) AS html
      FROM template_versions v JOIN templates t ON t.id = v.template_id
     WHERE t.id = :id AND (CAST(:after AS integer) IS NULL OR v.version < :after)
       AND (CAST(:before AS integer) IS NULL OR v.version > :before)
     ORDER BY v.version
"""  # noqa: S608


async def one(db: AsyncConnection, template_id: str, *, application: str | None) -> Template | None:
    """Return one template, or None."""
    row = (await db.execute(_ONE, {"id": template_id, "application": application})).mappings().one_or_none()
    return None if row is None else Template(**row)


async def listed(
    db: AsyncConnection,
    *,
    application: str | None,
    name: str | None,
    after: str | None,
    before: str | None,
    most: int,
) -> list[Template]:
    """Read a part of the list: newest first, or oldest first with `before`."""
    given = {"application": application, "name": name, "after": after, "before": before}
    conditions = {
        "application": "t.application = :application",
        "name": "t.name = :name",
        "after": "t.id < :after",
        "before": "t.id > :before",
    }
    used = {key: value for key, value in given.items() if value is not None}
    where = " AND ".join(["true", *(conditions[key] for key in used)])
    order = "ASC" if before is not None else "DESC"
    query = text(f"SELECT {_COLUMNS} FROM templates t WHERE {where} ORDER BY t.id {order} LIMIT :most")  # noqa: S608
    rows = await db.execute(query, {**used, "most": most})
    return [Template(**row) for row in rows.mappings()]


async def create(
    db: AsyncConnection, new: NewTemplate, first: NewVersion | None, *, publish: bool, actor: Actor
) -> Template:
    """Make a template, with its first version where there is one; a taken name breaks a constraint."""
    template_id = new_id("tpl")
    await db.execute(
        _INSERT,
        {
            "id": template_id,
            "application": new.application,
            "name": new.name,
            "description": new.description,
        },
    )
    await audit.write(db, actor, action="template.create", target=template_id, details={"name": new.name})
    if first is not None:
        await _add(db, template_id, first, publish=publish, actor=actor)
    made = await one(db, template_id, application=None)
    assert made is not None
    return made


async def update(
    db: AsyncConnection,
    template_id: str,
    *,
    application: str | None,
    name: str | None,
    description: str | None,
    actor: Actor,
) -> Template | Refusal:
    """Change what is said about a template, None leaves it; a taken name breaks a constraint."""
    if not await _locked(db, template_id, application):
        return Refusal.NO_TEMPLATE
    await db.execute(_UPDATE, {"id": template_id, "name": name, "description": description})
    details = ({} if name is None else {"name": name}) | {"description": description is not None}
    await audit.write(db, actor, action="template.update", target=template_id, details=details)
    return await one(db, template_id, application=None) or Refusal.NO_TEMPLATE


async def delete(db: AsyncConnection, template_id: str, *, application: str | None, actor: Actor) -> bool:
    """Take a template away with its versions; what was made of them stays. False: there is none."""
    found = await one(db, template_id, application=application)
    gone = await db.execute(
        text(f"DELETE FROM templates t WHERE {_SEEN} RETURNING t.id"),  # noqa: S608
        {"id": template_id, "application": application},
    )
    if found is None or gone.one_or_none() is None:
        return False
    details = {"name": found.name, "published": found.published, "latest": found.latest}
    await audit.write(db, actor, action="template.delete", target=template_id, details=details)
    return True


async def add_version(
    db: AsyncConnection,
    template_id: str,
    new: NewVersion,
    *,
    application: str | None,
    publish: bool,
    actor: Actor,
) -> TemplateVersion | Refusal:
    """Add a version, whose number is the next one, and publish it where that is asked for."""
    if not await _locked(db, template_id, application):
        return Refusal.NO_TEMPLATE
    number = await _add(db, template_id, new, publish=publish, actor=actor)
    return await version(db, template_id, number, application=None) or Refusal.NO_VERSION


async def publish(
    db: AsyncConnection, template_id: str, number: int | None, *, application: str | None, actor: Actor
) -> Template | Refusal:
    """Let a version, also an older one, be used where a message names none; None publishes nothing."""
    if not await _locked(db, template_id, application):
        return Refusal.NO_TEMPLATE
    if not await _publish(db, template_id, number, actor):
        return Refusal.NO_VERSION
    return await one(db, template_id, application=None) or Refusal.NO_TEMPLATE


async def version(
    db: AsyncConnection, template_id: str, number: int, *, application: str | None
) -> TemplateVersion | None:
    """Return one version with its content, or None."""
    found = await db.execute(_VERSION, {"id": template_id, "application": application, "version": number})
    row = found.mappings().one_or_none()
    return None if row is None else TemplateVersion(**row)


async def versions(
    db: AsyncConnection, template_id: str, *, after: int | None, before: int | None, most: int
) -> list[TemplateVersion]:
    """List versions without their text and HTML: newest first, or oldest first with `before`."""
    query = text(f"{_VERSIONS} {'ASC' if before is not None else 'DESC'} LIMIT :most")
    rows = await db.execute(query, {"id": template_id, "after": after, "before": before, "most": most})
    return [TemplateVersion(**row) for row in rows.mappings()]


#: What a message names: an id or a name, and a version, or None for the published one.
Named = tuple[str, int | None]


async def for_rendering(
    db: AsyncConnection, application: str, wanted: Sequence[Named]
) -> dict[Named, TemplateVersion]:
    """Find what messages name; what there is not is left out."""
    found = await db.execute(
        text(f"""
            SELECT row.named, row.version AS wanted, {_VERSION_COLUMNS}, v.text, v.html
              FROM unnest(CAST(:named AS text[]), CAST(:versions AS integer[])) AS row (named, version)
              JOIN templates t ON t.application = :application
                   AND (t.id = row.named OR t.name = row.named)
              JOIN template_versions v
                ON v.template_id = t.id AND v.version = COALESCE(row.version, t.published)
        """),  # noqa: S608
        {
            "application": application,
            "named": [named for named, _ in wanted],
            "versions": [version for _, version in wanted],
        },
    )
    versions = {}
    for row in found.mappings():
        values = dict(row)
        named = values.pop("named"), values.pop("wanted")
        versions[named] = TemplateVersion(**values)
    return versions


async def _locked(db: AsyncConnection, template_id: str, application: str | None) -> bool:
    """Keep others from changing the template until the end; False: the caller sees none."""
    found = await db.execute(_LOCK, {"id": template_id, "application": application})
    return found.one_or_none() is not None


async def _add(db: AsyncConnection, template_id: str, new: NewVersion, *, publish: bool, actor: Actor) -> int:
    values: dict[str, Any] = {
        "id": template_id,
        "subject": new.subject,
        "text": new.text,
        "html": new.html,
        "variables": list(new.variables),
        "created_by": actor.id,
    }
    number = int((await db.execute(_ADD, values)).scalar_one())
    await audit.write(db, actor, action="template.version", target=template_id, details={"version": number})
    if publish:
        await _publish(db, template_id, number, actor)
    return number


async def _publish(db: AsyncConnection, template_id: str, number: int | None, actor: Actor) -> bool:
    done = await db.execute(_PUBLISH, {"id": template_id, "version": number})
    if done.one_or_none() is None:
        return False
    action = "template.unpublish" if number is None else "template.publish"
    details = {} if number is None else {"version": number}
    await audit.write(db, actor, action=action, target=template_id, details=details)
    return True


class Templates:
    """Templates as the door holds them: each act one transaction."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def one(self, template_id: str, *, application: str | None) -> Template | None:
        async with transaction(self._engine) as db:
            return await one(db, template_id, application=application)

    async def listed(
        self,
        *,
        application: str | None,
        name: str | None,
        after: str | None,
        before: str | None,
        most: int,
    ) -> list[Template]:
        async with transaction(self._engine) as db:
            return await listed(db, application=application, name=name, after=after, before=before, most=most)

    async def create(
        self, new: NewTemplate, first: NewVersion | None, *, publish: bool, actor: Actor
    ) -> Template | Refusal:
        """Make a template, with its first version where there is one."""
        try:
            async with transaction(self._engine) as db:
                return await create(db, new, first, publish=publish, actor=actor)
        except IntegrityError:
            return Refusal.NAME_TAKEN

    async def update(
        self,
        template_id: str,
        *,
        application: str | None,
        name: str | None,
        description: str | None,
        actor: Actor,
    ) -> Template | Refusal:
        """Change what is said about a template; None leaves it."""
        try:
            async with transaction(self._engine) as db:
                return await update(
                    db,
                    template_id,
                    application=application,
                    name=name,
                    description=description,
                    actor=actor,
                )
        except IntegrityError:
            return Refusal.NAME_TAKEN

    async def delete(self, template_id: str, *, application: str | None, actor: Actor) -> bool:
        async with transaction(self._engine) as db:
            return await delete(db, template_id, application=application, actor=actor)

    async def add_version(
        self, template_id: str, new: NewVersion, *, application: str | None, publish: bool, actor: Actor
    ) -> TemplateVersion | Refusal:
        async with transaction(self._engine) as db:
            return await add_version(
                db, template_id, new, application=application, publish=publish, actor=actor
            )

    async def publish(
        self, template_id: str, number: int | None, *, application: str | None, actor: Actor
    ) -> Template | Refusal:
        async with transaction(self._engine) as db:
            return await publish(db, template_id, number, application=application, actor=actor)

    async def version(
        self, template_id: str, number: int, *, application: str | None
    ) -> TemplateVersion | None:
        async with transaction(self._engine) as db:
            return await version(db, template_id, number, application=application)

    async def versions(
        self, template_id: str, *, after: int | None, before: int | None, most: int
    ) -> list[TemplateVersion]:
        async with transaction(self._engine) as db:
            return await versions(db, template_id, after=after, before=before, most=most)

    async def for_rendering(self, application: str, wanted: Sequence[Named]) -> dict[Named, TemplateVersion]:
        """Find what messages name by id or name: that version, or the published one."""
        async with transaction(self._engine) as db:
            return await for_rendering(db, application, wanted)
