"""Rules at the door: when an address is suppressed by itself.

There is none unless somebody makes one. An application sees its own rules and those of every application
("*"), which operators make and take away.
"""

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from service.ledger.ids import is_id
from service.ledger.keys import Key
from service.ledger.suppression_rules import NewRule, Rule
from service.routes.diagnoses import CATALOGUE
from service.submission.door import BODY, Budget, Door, guarded, json_body, refusals
from service.submission.models import Shape
from service.submission.problems import not_found, unprocessable
from service.submission.representation import moment
from service.submission.request import query
from service.submission.request.durations import DurationText, duration, read_duration
from service.submission.request.validation import read
from service.submission.suppressing.suppressions import ALL, ApplicationText, RemovedOut, demand_own, whose
from service.submission.who.callers import sees

#: The longest span in which failures are counted.
_LONGEST_SPAN = timedelta(days=365)

#: The longest time that an entry of a rule lasts, other than for ever.
_LONGEST_LAST = timedelta(days=3650)

_KNOWN = frozenset(entry.id for entry in CATALOGUE)

EnhancedText = Annotated[
    str, Field(strict=True, pattern=r"^[45]\.[0-9]{1,3}\.[0-9]{1,3}$", max_length=9, examples=["5.1.1"])
]
DiagnosisText = Annotated[str, Field(strict=True, max_length=100, examples=["exo.recipient_not_found"])]


class SuppressionRuleIn(Shape):
    """Which failures of an address, and how many of them, end its mail."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"enhanced": ["5.1.1", "5.1.10"], "failures": 2, "within": "30d", "lasts": "90d"}]
        }
    )

    enhanced: Annotated[list[EnhancedText], Field(max_length=50)] = Field(
        default=[], description="Enhanced statuses (RFC 3463) that count.", examples=[["5.1.1", "5.1.10"]]
    )
    diagnoses: Annotated[list[DiagnosisText], Field(max_length=50)] = Field(
        default=[], description="Diagnoses of the catalogue that count.", examples=[[]]
    )
    failures: Annotated[int, Field(strict=True, ge=1, le=100)] = Field(
        default=1, description="So many of them suppress the address."
    )
    within: DurationText = Field(default="30d", description="The span in which they are counted.")
    lasts: DurationText | None = Field(
        default=None, description="How long an entry lasts; until it is lifted unless said.", examples=["90d"]
    )
    application: ApplicationText | None = Field(
        default=None,
        description="The key's own unless said. `*` counts the failures of every application and suppresses for "
        "all of them; that and other applications need the scope operate or admin.",
        examples=["billing"],
    )


class SuppressionRuleOut(BaseModel):
    """When an address is suppressed by itself."""

    object: Literal["suppression_rule"]
    id: str
    application: str = Field(description="`*`: every application.", examples=["billing"])
    enhanced: list[str] = Field(examples=[["5.1.1", "5.1.10"]])
    diagnoses: list[str] = Field(examples=[[]])
    failures: int
    within: str = Field(examples=["30d"])
    lasts: str | None = Field(examples=["90d"])
    created_by: str = Field(examples=["key_01JDB6Z0Q5V8W6K3T1E9F4H2RC"])
    created_at: datetime


class SuppressionRuleListOut(BaseModel):
    object: Literal["list"]
    data: list[SuppressionRuleOut]
    has_more: bool
    next: str | None


SHAPES = (SuppressionRuleIn,)


def endpoints(door: Door) -> APIRouter:
    """Make the endpoints of rules; they go before those of the entries, whose ids would match `rules`."""
    router = APIRouter(tags=["suppressions"])
    desk = _Rules(door)
    router.add_api_route(
        "/suppressions/rules",
        desk.list,
        methods=["GET"],
        summary="List the rules",
        operation_id="list_suppression_rules",
        responses={200: {"model": SuppressionRuleListOut}, **refusals(422)},
        **guarded(parameters=list(query.PAGE_PARAMETERS)),
    )
    router.add_api_route(
        "/suppressions/rules",
        desk.add,
        methods=["POST"],
        status_code=201,
        summary="Suppress by rule",
        operation_id="create_suppression_rule",
        responses={201: {"model": SuppressionRuleOut, "description": "Made."}, **refusals(*BODY)},
        **json_body(SuppressionRuleIn),
    )
    router.add_api_route(
        "/suppressions/rules/{rule_id}",
        desk.see,
        methods=["GET"],
        summary="See a rule",
        operation_id="get_suppression_rule",
        responses={200: {"model": SuppressionRuleOut}, **refusals(404)},
        **guarded(),
    )
    router.add_api_route(
        "/suppressions/rules/{rule_id}",
        desk.remove,
        methods=["DELETE"],
        summary="Take a rule away",
        operation_id="delete_suppression_rule",
        responses={200: {"model": RemovedOut, "description": "Taken away."}, **refusals(404)},
        **guarded(),
    )
    return router


class _Rules:
    def __init__(self, door: Door) -> None:
        self._door = door

    async def list(self, request: Request) -> Response:
        """Newest first: the application's own rules, and those of every application."""
        budget = self._door.budget()
        key = await self._door.caller(request, "suppressions.read", budget)
        wanted = query.page(query.parameters(request, ("limit", "after", "before")), "sru")
        rows = await budget.spend(self._door.ledger.suppressions.rules(sees=sees(key), **wanted.bounds()))
        return JSONResponse(query.listed([_shown(rule) for rule in rows], wanted))

    async def add(self, request: Request) -> Response:
        """From now on addresses whose mail fails in this way are suppressed, a moment after the failure.

        Failures from before count where several are needed. Test mail never counts.
        """
        budget = self._door.budget()
        key = await self._door.caller(request, "suppressions.write", budget)
        wanted = _wanted(await read(self._door, request, SuppressionRuleIn), key)
        rule = await budget.spend(
            self._door.ledger.suppressions.add_rule(wanted, self._door.actor(request, key))
        )
        headers = {"Location": f"/suppressions/rules/{rule.id}"}
        return JSONResponse(_shown(rule), status_code=201, headers=headers)

    async def see(self, request: Request, rule_id: str) -> Response:
        """Which failures it counts."""
        budget = self._door.budget()
        key = await self._door.caller(request, "suppressions.read", budget)
        return JSONResponse(_shown(await self._rule(rule_id, key, budget)))

    async def remove(self, request: Request, rule_id: str) -> Response:
        """It adds no more entries; those that it added stay."""
        budget = self._door.budget()
        key = await self._door.caller(request, "suppressions.write", budget)
        rule = await self._rule(rule_id, key, budget)
        demand_own(rule.application, key)
        actor = self._door.actor(request, key)
        if not await budget.spend(self._door.ledger.suppressions.remove_rule(rule, actor)):
            raise not_found()
        return JSONResponse({"object": "suppression_rule", "id": rule.id, "deleted": True})

    async def _rule(self, rule_id: str, key: Key, budget: Budget) -> Rule:
        if not is_id(rule_id, "sru"):
            raise not_found()
        rule = await budget.spend(self._door.ledger.suppressions.rule(rule_id, sees=sees(key)))
        if rule is None:
            raise not_found()
        return rule


def _wanted(asked: SuppressionRuleIn, key: Key) -> NewRule:
    """Read a rule; raises Problem."""
    if not asked.enhanced and not asked.diagnoses:
        detail = "A rule names at least one enhanced status or diagnosis."
        raise unprocessable("/enhanced", "required", detail)
    for at, each in enumerate(asked.diagnoses):
        if each not in _KNOWN:
            detail = "There is no such diagnosis in the catalogue; `GET /explain?reply=…` names a reply's."
            raise unprocessable(f"/diagnoses/{at}", "unknown_diagnosis", detail)
    return NewRule(
        application=whose(asked.application, key),
        enhanced=tuple(dict.fromkeys(asked.enhanced)),
        diagnoses=tuple(dict.fromkeys(asked.diagnoses)),
        failures=asked.failures,
        within=read_duration(asked.within, "/within", most=_LONGEST_SPAN),
        lasts=None if asked.lasts is None else read_duration(asked.lasts, "/lasts", most=_LONGEST_LAST),
        created_by=key.id,
    )


def _shown(rule: Rule) -> dict[str, Any]:
    return {
        "object": "suppression_rule",
        "id": rule.id,
        "application": rule.application or ALL,
        "enhanced": list(rule.enhanced),
        "diagnoses": list(rule.diagnoses),
        "failures": rule.failures,
        "within": duration(rule.within_seconds),
        "lasts": None if rule.lasts_seconds is None else duration(rule.lasts_seconds),
        "created_by": rule.created_by,
        "created_at": moment(rule.created_at),
    }
