"""Suppressions at the door: who of a message's recipients gets no mail, and the list of those.

`Suppressed` is asked for every message. Most applications suppress nobody, so it remembers for a second
whether an application has any entry; what this process adds or lifts it knows at once, and what another one
adds in that second is found by the worker's sweep.

An application sees its own entries and those for every application ("*"), because both stop its mail. Those
for every application are written and lifted by operators alone.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from service.ledger import Ledger
from service.ledger.ids import is_id
from service.ledger.keys import Key
from service.ledger.suppressions import EVERYBODY, Filters, NewSuppression, Suppression
from service.mail.address import Address, BadAddress, domain_name
from service.routes.diagnoses.suppressed import error_of
from service.submission.door import BODY, Budget, Door, guarded, json_body, refusals
from service.submission.intake.messages import read_moment
from service.submission.models import Shape
from service.submission.problems import Problem, not_found, not_ones_own, unprocessable
from service.submission.representation import moment
from service.submission.request import query
from service.submission.request.validation import read
from service.submission.sharing import Readings
from service.submission.who.callers import sees, sees_everything

__all__ = ["SHAPES", "Suppressed", "endpoints", "error_of"]

#: Applications that are remembered at the most.
_MOST = 10_000

#: What stands for every application in requests and answers.
ALL = "*"


class Suppressed:
    """Who gets no mail; one for each process."""

    def __init__(self, ledger: Ledger) -> None:
        self._suppressions = ledger.suppressions
        self._any: Readings[bool] = Readings(most=_MOST)

    async def among(self, application: str, keys: Collection[str], budget: Budget) -> dict[str, Suppression]:
        """Find those of these addresses, in their comparison form, that get no mail of the application."""
        # What was changed here counts at once.
        name = (application, self._suppressions.changes)
        ask = partial(self._suppressions.any_for, application)
        there_are = self._any.now(name, ask)
        if there_are is None:
            there_are = await budget.spend(self._any.read(name, ask))
        return await budget.spend(self._suppressions.among(application, keys)) if there_are else {}


# -- shapes -----------------------------------------------------------------------------------

EntryText = Annotated[str, Field(strict=True, max_length=998)]
ApplicationText = Annotated[str, Field(strict=True, min_length=1, max_length=200)]


class SuppressionIn(Shape):
    """An address or a domain that is to get no mail, or up to 1,000 of them."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"address": "ana@example.com", "reason": "unsubscribed"}]}
    )

    address: EntryText | None = Field(
        default=None,
        description="`ana@example.com`, or `@example.com` for every address of exactly this domain.",
        examples=["ana@example.com"],
    )
    addresses: Annotated[list[EntryText], Field(min_length=1, max_length=1000)] | None = Field(
        default=None, description="Several at once, instead of `address`; the answer is a list."
    )
    reason: Annotated[str, Field(strict=True, min_length=1, max_length=500)] = Field(
        default="added by hand",
        description="For people: `unsubscribed`, for example.",
        examples=["unsubscribed"],
    )
    expires_at: (
        Annotated[str, Field(strict=True, max_length=64, json_schema_extra={"format": "date-time"})] | None
    ) = Field(default=None, description="When it ends by itself; not by itself unless said.")
    application: ApplicationText | None = Field(
        default=None,
        description="The key's own unless said. `*`, every application, and other applications need the scope "
        "operate or admin.",
        examples=["billing"],
    )


class SuppressionOut(BaseModel):
    """An address or a domain that gets no mail."""

    object: Literal["suppression"]
    id: str
    application: str = Field(description="`*`: every application.", examples=["billing"])
    address: str = Field(
        description="As addresses are compared, in lower case; or `@domain`.", examples=["ana@example.com"]
    )
    reason: str = Field(examples=["unsubscribed"])
    source: Literal["manual", "rule"]
    rule: str | None = Field(description="The rule that added it.", examples=[None])
    message: str | None = Field(
        description="The message whose failure made the rule speak, where the caller may see it.",
        examples=[None],
    )
    active: bool = Field(description="False: its time is over.", examples=[True])
    created_by: str = Field(
        description="The key that added it, or the rule.", examples=["key_01JDB6Z0Q5V8W6K3T1E9F4H2RC"]
    )
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None


class SuppressionListOut(BaseModel):
    object: Literal["list"]
    data: list[SuppressionOut]
    has_more: bool
    next: str | None


class AddedSuppressionOut(SuppressionOut):
    """The entry, and what it did at once."""

    stopped: int = Field(
        description="Recipients of waiting messages that became `suppressed` at once; further ones follow."
    )


class AddedSuppressionsOut(SuppressionListOut):
    """The entries in the order of the request, and what they did at once."""

    stopped: int = Field(
        description="Recipients of waiting messages that became `suppressed` at once; further ones follow."
    )


class RemovedOut(BaseModel):
    """What was taken away."""

    object: Literal["suppression", "suppression_rule"]
    id: str = Field(examples=["sup_01JDB6Z0Q5V8W6K3T1E9F4H2RC"])
    deleted: Literal[True]


SHAPES = (SuppressionIn,)

_PARAMETERS: tuple[dict[str, Any], ...] = tuple(
    {"name": name, "in": "query", "required": False, "schema": {"type": "string"}, "description": said}
    for name, said in (
        ("address", "An address, or `@domain` for the entry of a whole domain."),
        ("domain", "A domain: its own entry and those of its addresses."),
        ("source", "`manual` or `rule`."),
        ("application", "An application's entries, or `*` for those of every application."),
    )
)


def endpoints(door: Door) -> APIRouter:
    """Make the endpoints of suppressions."""
    router = APIRouter(tags=["suppressions"])
    desk = _Entries(door)
    router.add_api_route(
        "/suppressions",
        desk.list,
        methods=["GET"],
        summary="List who gets no mail",
        operation_id="list_suppressions",
        responses={200: {"model": SuppressionListOut}, **refusals(422)},
        **guarded(parameters=[*_PARAMETERS, *query.PAGE_PARAMETERS]),
    )
    both = AddedSuppressionOut | AddedSuppressionsOut
    router.add_api_route(
        "/suppressions",
        desk.add,
        methods=["POST"],
        status_code=201,
        summary="Send no more mail to an address or a domain",
        operation_id="create_suppression",
        responses={
            200: {"model": both, "description": "All of them were there already, and have changed."},
            201: {"model": both, "description": "Added."},
            **refusals(*BODY),
        },
        **json_body(SuppressionIn),
    )
    router.add_api_route(
        "/suppressions/{suppression_id}",
        desk.see,
        methods=["GET"],
        summary="See one entry",
        operation_id="get_suppression",
        responses={200: {"model": SuppressionOut}, **refusals(404)},
        **guarded(),
    )
    router.add_api_route(
        "/suppressions/{suppression_id}",
        desk.lift,
        methods=["DELETE"],
        summary="Let an address get mail again",
        operation_id="delete_suppression",
        responses={200: {"model": RemovedOut, "description": "Lifted."}, **refusals(404)},
        **guarded(),
    )
    return router


class _Entries:
    def __init__(self, door: Door) -> None:
        self._door = door

    async def list(self, request: Request) -> Response:
        """Newest first: the application's own entries, and those that count for every application."""
        budget = self._door.budget()
        key = await self._door.caller(request, "suppressions.read", budget)
        given = query.parameters(
            request, ("address", "domain", "source", "application", "limit", "after", "before")
        )
        wanted = query.page(given, "sup")
        rows = await budget.spend(
            self._door.ledger.suppressions.listed(_filters(given, key), **wanted.bounds())
        )
        now = self._door.clock()
        return JSONResponse(query.listed([shown(entry, key, now=now) for entry in rows], wanted))

    async def add(self, request: Request) -> Response:
        """Suppress an address, a domain, or up to 1,000 of them; what waits for them is stopped.

        Who is there already gets the new reason and the new end. A recipient that is being sent to at this
        moment takes its course.
        """
        budget = self._door.budget()
        key = await self._door.caller(request, "suppressions.write", budget)
        asked = await read(self._door, request, SuppressionIn)
        now = self._door.clock()
        application = whose(asked.application, key)
        until = _end(asked.expires_at, now=now)
        wanted = [
            NewSuppression(
                application=application,
                address=address,
                reason=asked.reason,
                source="manual",
                created_by=key.id,
                expires_at=until,
            )
            for address in _entries(asked)
        ]
        actor = self._door.actor(request, key)
        added, stopped = await budget.spend(self._door.ledger.suppressions.add(wanted, actor, error_of))
        entries = [shown(each.suppression, key, now=now) for each in added]
        status = 201 if any(each.new for each in added) else 200
        if asked.addresses is not None:
            body = {"object": "list", "data": entries, "has_more": False, "next": None, "stopped": stopped}
            return JSONResponse(body, status_code=status)
        headers = {"Location": f"/suppressions/{entries[0]['id']}"} if status == 201 else None
        return JSONResponse({**entries[0], "stopped": stopped}, status_code=status, headers=headers)

    async def see(self, request: Request, suppression_id: str) -> Response:
        """Who gets no mail since when, and why."""
        budget = self._door.budget()
        key = await self._door.caller(request, "suppressions.read", budget)
        entry = await self._entry(suppression_id, key, budget)
        return JSONResponse(shown(entry, key, now=self._door.clock()))

    async def lift(self, request: Request, suppression_id: str) -> Response:
        """New messages to the address are sent again; what was stopped stays stopped."""
        budget = self._door.budget()
        key = await self._door.caller(request, "suppressions.write", budget)
        entry = await self._entry(suppression_id, key, budget)
        demand_own(entry.application, key)
        actor = self._door.actor(request, key)
        if not await budget.spend(self._door.ledger.suppressions.remove(entry, actor)):
            raise not_found()
        return JSONResponse({"object": "suppression", "id": entry.id, "deleted": True})

    async def _entry(self, suppression_id: str, key: Key, budget: Budget) -> Suppression:
        if not is_id(suppression_id, "sup"):
            raise not_found()
        entry = await budget.spend(self._door.ledger.suppressions.one(suppression_id, sees=sees(key)))
        if entry is None:
            raise not_found()
        return entry


def shown(entry: Suppression, key: Key, *, now: datetime) -> dict[str, Any]:
    """Show an entry; the message that failed is shown to its own application alone, and to operators."""
    may_see_message = sees_everything(key) or entry.application == key.application
    return {
        "object": "suppression",
        "id": entry.id,
        "application": entry.application or ALL,
        "address": entry.address,
        "reason": entry.reason,
        "source": entry.source,
        "rule": entry.rule_id,
        "message": entry.message_id if may_see_message else None,
        "active": entry.expires_at is None or entry.expires_at > now,
        "created_by": entry.created_by,
        "created_at": moment(entry.created_at),
        "updated_at": moment(entry.updated_at),
        "expires_at": moment(entry.expires_at),
    }


def whose(named: str | None, key: Key) -> str:
    """Return the application that an entry or a rule is for; raises a 403 problem."""
    if named is None or named == key.application:
        return key.application
    if not sees_everything(key):
        detail = "Only a key with the scope operate or admin may name every application, or another one."
        raise not_ones_own("/application", detail)
    return EVERYBODY if named == ALL else named


def demand_own(application: str, key: Key) -> None:
    """Raise a 403 problem where the caller sees a thing without being allowed to take it away."""
    if application != key.application and not sees_everything(key):
        detail = "What counts for every application is changed with the scope operate or admin."
        raise Problem(status=403, code="insufficient_scope", detail=detail)


def _entries(asked: SuppressionIn) -> list[str]:
    """Read the addresses, each once, in their order."""
    if (asked.address is None) == (asked.addresses is None):
        pointer, code = ("/address", "required") if asked.address is None else ("/addresses", "exclusive")
        raise unprocessable(pointer, code, "Give either `address` or `addresses`.")
    if asked.addresses is None:
        assert asked.address is not None
        return [_entry(asked.address, "/address")]
    return list(dict.fromkeys(_entry(each, f"/addresses/{at}") for at, each in enumerate(asked.addresses)))


def _entry(written: str, pointer: str) -> str:
    """Bring an address or "@domain" into its comparison form; raises a 422 problem."""
    try:
        if written.startswith("@"):
            return "@" + domain_name(written[1:])
        return Address.parse(written).key
    except BadAddress as exc:
        raise unprocessable(pointer, exc.code, exc.detail) from None


def _end(written: str | None, *, now: datetime) -> datetime | None:
    if written is None:
        return None
    at = read_moment(written, "/expires_at")
    if at <= now:
        raise unprocessable("/expires_at", "in_the_past", "The time has passed already.")
    return at


def _filters(given: Mapping[str, str], key: Key) -> Filters:
    """Read the filters of the list; raises a 422 problem."""
    source, application = given.get("source"), given.get("application")
    if source is not None and source not in {"manual", "rule"}:
        raise query.wrong("source", "literal_error", "This is `manual` or `rule`.")
    try:
        domain = domain_name(given["domain"].removeprefix("@")) if "domain" in given else None
    except BadAddress as exc:
        raise query.wrong("domain", exc.code, exc.detail) from None
    return Filters(
        sees=sees(key),
        address=_entry(given["address"], "?address") if "address" in given else None,
        domain=domain,
        source=source,
        application=EVERYBODY if application == ALL else application,
    )
