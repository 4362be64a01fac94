"""API keys over HTTP: make, see, change, revoke and rotate them.

All of it asks for the scope `admin`, and is audited. An administrator makes keys for any application and
gives any scope; nobody else can make a key at all, so nobody gets more than somebody with `admin` gave.
A test key makes test keys only: what never reaches Microsoft cannot open a way to it.

One act is open to others: a key with the scope `keys.rotate` puts another one in its own place
(`POST /me/rotate`). It gains nothing by that: the new key has the same rights and the same end, the old
one ends with the overlap, and a key that was replaced cannot do it again. Because a thief could do it too
and outlive the revocation of the key that was stolen, no key has this scope unless it was asked for,
and every key shows by which one it was replaced.

A key is shown once, in the answer that made it.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from service.ledger import rights
from service.ledger.ids import is_id
from service.ledger.keys import DEFAULT_SCOPES, LONGEST_OVERLAP, Key, Rotated, WantedKey
from service.submission import models, representation
from service.submission.door import BODY, Budget, Door, guarded, json_body, refusals
from service.submission.intake.messages import read_moment
from service.submission.problems import FieldError, Problem, invalid, not_found, unprocessable
from service.submission.request import query
from service.submission.request.validation import read

Entry = Annotated[str, Field(strict=True, max_length=320)]
Entries = Annotated[list[Entry], Field(max_length=rights.MOST_ENTRIES)]
Allowance = Annotated[int, Field(strict=True, ge=1, le=rights.MOST_MESSAGES)]
Label = Annotated[str, Field(strict=True, min_length=1, max_length=100)]
Moment = Annotated[str, Field(strict=True, max_length=64, json_schema_extra={"format": "date-time"})]
Overlap = Annotated[str, Field(strict=True, max_length=16, pattern=r"^[0-9]{1,6}[smhd]$")]

_RIGHTS = ("scopes", "senders", *rights.RESTRICTIONS)
_OVERLAP = "24h"


class KeyChangesIn(models.Shape):
    """What is to be different about a key; null lifts a restriction."""

    name: Label | None = Field(default=None, description="What its owner calls it.")
    scopes: Annotated[list[Entry], Field(min_length=1, max_length=50)] | None = Field(
        default=None, description="What it may do: " + ", ".join(rights.SCOPES) + "."
    )
    senders: Entries | None = Field(
        default=None,
        description="Addresses or @domains that it may send from; any of the routes' unless set.",
    )
    routes: Entries | None = Field(default=None, description="Routes that its mail may take.")
    recipient_domains: Entries | None = Field(default=None, description="Domains that it may send to.")
    networks: Entries | None = Field(
        default=None, description="Networks that it may be used from.", examples=[["10.0.0.0/8"]]
    )
    messages_per_minute: Allowance | None = None
    messages_per_day: Allowance | None = None
    expires_at: Moment | None = Field(default=None, description="When it ends by itself; never unless set.")


class KeyIn(KeyChangesIn):
    """A key to be made."""

    application: Label = Field(description="The application that will use it.", examples=["billing"])
    test: bool = Field(
        default=False, strict=True, description="Whether its mail goes to the sandbox, never to Microsoft."
    )


class KeyRotationIn(models.Shape):
    """How a key is put in the place of another one."""

    overlap: Overlap = Field(
        default=_OVERLAP,
        description="How long the old key lives on, 30 days at the most: 0s, 30m, 24h, 7d.",
        examples=["24h"],
    )


class NewKeyOut(models.KeyOut):
    key: str = Field(description="The key itself. It is shown here and never again.")


class RotatedKeyOut(NewKeyOut):
    replaced: models.KeyOut = Field(description="The old key; it ends at its `expires_at`.")


class KeyListOut(BaseModel):
    object: Literal["list"]
    data: list[models.KeyOut]
    has_more: bool
    next: str | None


SHAPES = (KeyIn, KeyChangesIn, KeyRotationIn)


def endpoints(door: Door) -> APIRouter:
    """Make the endpoints about keys."""
    router = APIRouter(tags=["keys"])
    keys = _Keys(door)
    changing = refusals(404, 409, *BODY, s409="The key is revoked, has expired, or was replaced already.")
    router.add_api_route(
        "/keys", keys.create, methods=["POST"], summary="Make a key", operation_id="create_key", status_code=201,
        responses={201: {"model": NewKeyOut}, **refusals(*BODY)}, **json_body(KeyIn),
    )  # fmt: skip
    application = {
        "name": "application",
        "in": "query",
        "required": False,
        "schema": {"type": "string"},
        "description": "Only this application's keys.",
    }
    router.add_api_route(
        "/keys", keys.list, methods=["GET"], summary="List keys", operation_id="list_keys",
        responses={200: {"model": KeyListOut}, **refusals(422)},
        **guarded(parameters=[*query.PAGE_PARAMETERS, application]),
    )  # fmt: skip
    router.add_api_route(
        "/keys/{key_id}", keys.get, methods=["GET"], summary="See a key", operation_id="get_key",
        responses={200: {"model": models.KeyOut}, **refusals(404)}, **guarded(),
    )  # fmt: skip
    router.add_api_route(
        "/keys/{key_id}", keys.change, methods=["PATCH"], summary="Change a key", operation_id="change_key",
        responses={200: {"model": models.KeyOut}, **changing}, **json_body(KeyChangesIn),
    )  # fmt: skip
    router.add_api_route(
        "/keys/{key_id}", keys.revoke, methods=["DELETE"], summary="Revoke a key", operation_id="revoke_key",
        responses={200: {"model": models.KeyOut}, **refusals(404)}, **guarded(),
    )  # fmt: skip
    router.add_api_route(
        "/keys/{key_id}/rotate", keys.rotate, methods=["POST"], summary="Put another key in its place",
        operation_id="rotate_key", status_code=201,
        responses={201: {"model": RotatedKeyOut}, **changing}, **json_body(KeyRotationIn, required=False),
    )  # fmt: skip
    router.add_api_route(
        "/me/rotate", keys.rotate_own, methods=["POST"], summary="Put another key in the place of this one",
        operation_id="rotate_own_key", status_code=201,
        responses={201: {"model": RotatedKeyOut}, **changing}, **json_body(KeyRotationIn, required=False),
    )  # fmt: skip
    return router


class _Keys:
    def __init__(self, door: Door) -> None:
        self._door = door
        self._routes = frozenset({*door.book.routes, rights.SANDBOX})

    async def create(self, request: Request) -> Response:
        """Make a key for an application; the answer is the only one that shows it."""
        budget = self._door.budget()
        caller = await self._door.caller(request, "admin", budget)
        asked = await read(self._door, request, KeyIn)
        _demand_same_kind(caller, test=asked.test)
        found = self._rights({name: getattr(asked, name) for name in _RIGHTS if name != "scopes"})
        scopes = DEFAULT_SCOPES if asked.scopes is None else self._rights({"scopes": asked.scopes})["scopes"]
        wanted = WantedKey(
            application=_label("/application", asked.application),
            name=None if asked.name is None else _label("/name", asked.name),
            scopes=scopes,
            senders=found["senders"],
            restrictions=rights.restrictions_of(found),
            test=asked.test,
            expires_at=self._end(asked.expires_at),
        )
        made = await budget.spend(
            self._door.ledger.keys.create(wanted, actor=self._door.actor(request, caller))
        )
        shown = {**representation.key(made.key), "key": made.token}
        return JSONResponse(shown, status_code=201, headers={"Location": f"/keys/{made.id}"})

    async def list(self, request: Request) -> Response:
        """List the keys of every application, the newest first; revoked ones too."""
        budget = self._door.budget()
        await self._door.caller(request, "admin", budget)
        given = query.parameters(request, {"limit", "after", "before", "application"})
        wanted = query.page(given, "key")
        found = await budget.spend(
            self._door.ledger.keys.page(application=given.get("application"), **wanted.bounds())
        )
        return JSONResponse(query.listed([representation.key(each) for each in found], wanted))

    async def get(self, request: Request, key_id: str) -> Response:
        """Show a key, never its secret."""
        budget = self._door.budget()
        await self._door.caller(request, "admin", budget)
        return JSONResponse(representation.key(await self._found(key_id, budget)))

    async def change(self, request: Request, key_id: str) -> Response:
        """Change what a key is called, what it may do, and when it ends."""
        budget = self._door.budget()
        caller = await self._door.caller(request, "admin", budget)
        asked = await read(self._door, request, KeyChangesIn)
        found = await self._found(key_id, budget)
        _demand_same_kind(caller, test=found.test)
        changed = await budget.spend(
            self._door.ledger.keys.change(
                key_id, self._changes(asked), actor=self._door.actor(request, caller)
            )
        )
        self._door.callers.forget(key_id)
        if isinstance(changed, Key):
            return JSONResponse(representation.key(changed))
        raise _refused(changed)

    async def revoke(self, request: Request, key_id: str) -> Response:
        """Close a key for ever: at once where this is answered, within 3 seconds everywhere."""
        budget = self._door.budget()
        caller = await self._door.caller(request, "admin", budget)
        if not is_id(key_id, "key"):
            raise not_found()
        actor = self._door.actor(request, caller)
        revoked = await budget.spend(self._door.ledger.keys.revoke(key_id, actor=actor))
        self._door.callers.forget(key_id)
        if revoked is None:
            raise not_found()
        return JSONResponse(representation.key(revoked))

    async def rotate(self, request: Request, key_id: str) -> Response:
        """Make a key with the same rights; the old one lives on for the overlap."""
        budget = self._door.budget()
        caller = await self._door.caller(request, "admin", budget)
        asked = await read(self._door, request, KeyRotationIn, optional=True)
        found = await self._found(key_id, budget)
        _demand_same_kind(caller, test=found.test)
        return await self._rotated(request, caller, key_id, asked, budget)

    async def rotate_own(self, request: Request) -> Response:
        """Make a key with the same rights and the same end; the one that asks lives on for the overlap."""
        budget = self._door.budget()
        caller = await self._door.caller(request, "keys.rotate", budget)
        asked = await read(self._door, request, KeyRotationIn, optional=True)
        if caller.kind != "key":
            detail = "An access token is renewed by Entra ID, not here."
            raise Problem(status=409, code="not_a_key", detail=detail)
        return await self._rotated(request, caller, caller.id, asked, budget)

    async def _rotated(
        self, request: Request, caller: Key, key_id: str, asked: KeyRotationIn, budget: Budget
    ) -> Response:
        overlap = rights.span(asked.overlap)
        if overlap > LONGEST_OVERLAP:
            raise unprocessable("/overlap", "out_of_range", "The old key lives on for 30 days at the most.")
        actor = self._door.actor(request, caller)
        rotated = await budget.spend(self._door.ledger.keys.rotate(key_id, overlap=overlap, actor=actor))
        self._door.callers.forget(key_id)
        if not isinstance(rotated, Rotated):
            raise _refused(rotated)
        shown = {
            **representation.key(rotated.new.key),
            "key": rotated.new.token,
            "replaced": representation.key(rotated.old),
        }
        return JSONResponse(shown, status_code=201, headers={"Location": f"/keys/{rotated.new.id}"})

    async def _found(self, key_id: str, budget: Budget) -> Key:
        found = await budget.spend(self._door.ledger.keys.get(key_id)) if is_id(key_id, "key") else None
        if found is None:
            raise not_found()
        return found

    def _changes(self, asked: KeyChangesIn) -> dict[str, Any]:
        given = asked.model_fields_set
        if "scopes" in given and asked.scopes is None:
            raise unprocessable("/scopes", "required", "A key has scopes; `DELETE` takes all rights away.")
        changes = self._rights({name: getattr(asked, name) for name in _RIGHTS if name in given})
        if "name" in given:
            changes["name"] = None if asked.name is None else _label("/name", asked.name)
        if "expires_at" in given:
            changes["expires_at"] = self._end(asked.expires_at)
        return changes

    def _rights(self, given: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return rights.read(given, routes=self._routes)
        except rights.BadRights as bad:
            raise invalid(
                [
                    FieldError(
                        pointer=f"/{each.member}" + ("" if each.index is None else f"/{each.index}"),
                        code=each.code,
                        detail=each.detail,
                    )
                    for each in bad.mistakes[:50]
                ]
            ) from None

    def _end(self, written: str | None) -> datetime | None:
        if written is None:
            return None
        at = read_moment(written, "/expires_at")
        if at <= self._door.clock():
            raise unprocessable("/expires_at", "in_the_past", "The time has passed already.")
        return at


def _label(pointer: str, text: str) -> str:
    stripped = text.strip()
    if not stripped or not stripped.isprintable():
        raise unprocessable(pointer, "not_printable", "This is 1 to 100 printable characters.")
    return stripped


def _demand_same_kind(caller: Key, *, test: bool) -> None:
    if caller.test and not test:
        detail = "A test key makes and changes test keys only."
        raise Problem(status=403, code="test_key", detail=detail)


def _refused(why: Literal["unknown", "closed", "replaced"]) -> Problem:
    if why == "unknown":
        return not_found()
    if why == "closed":
        detail = "This key is revoked or has expired."
        return Problem(status=409, code="key_closed", detail=detail)
    detail = "Another key has taken the place of this one already; revoke that one to rotate this one again."
    return Problem(status=409, code="key_replaced", detail=detail)
