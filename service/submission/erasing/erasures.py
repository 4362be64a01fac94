"""Erase a person: everything in the ledger that names one address, of every application.

The work is done by the workers, in small steps; the answer says how far it is. Messages that are still under way are
scrubbed when they are over. What stays is what counts and proves: ids, times, sizes, hashes, states, codes and
diagnoses. Suppressions of the address stay too, because they keep mail from going there.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from service.ledger.erasing import Erasure
from service.ledger.ids import is_id
from service.mail.address import Address, BadAddress
from service.submission.door import BODY, Door, guarded, json_body, refusals
from service.submission.models import Shape
from service.submission.problems import not_found, unprocessable
from service.submission.representation import moment
from service.submission.request.query import parameters
from service.submission.request.validation import read


class ErasureIn(Shape):
    """Whom to erase."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"email": "ana@example.com"}]})

    email: Annotated[str, Field(strict=True, min_length=1, max_length=998)] = Field(
        description="The person's address, in any spelling.", examples=["ana@example.com"]
    )


class ErasureOut(BaseModel):
    """How far an erasure is."""

    object: Literal["erasure"]
    id: str = Field(examples=["era_01JDB6Z0Q5V8W6K3T1E9F4H2RC"])
    status: Literal["running", "finished"]
    sha256: str = Field(description="Of the address, lower case: proves afterwards whose erasure it was.")
    messages: int = Field(description="Messages that were scrubbed so far.")
    waiting: int = Field(description="Messages that were still under way at the last look.")
    created_by: str = Field(examples=["key_01JDB6Z0Q5V8W6K3T1E9F4H2RC"])
    created_at: datetime
    finished_at: datetime | None


SHAPES = (ErasureIn,)


def endpoints(door: Door) -> APIRouter:
    """Make the endpoints of erasures."""
    router = APIRouter(tags=["erasures"])
    desk = _Erasures(door)
    router.add_api_route(
        "/erasures",
        desk.begin,
        methods=["POST"],
        status_code=202,
        summary="Erase a person",
        operation_id="create_erasure",
        responses={202: {"model": ErasureOut, "description": "It is under way."}, **refusals(*BODY)},
        **json_body(ErasureIn),
    )
    router.add_api_route(
        "/erasures/{erasure_id}",
        desk.see,
        methods=["GET"],
        summary="See how far an erasure is",
        operation_id="get_erasure",
        responses={200: {"model": ErasureOut}, **refusals(404)},
        **guarded(),
    )
    return router


class _Erasures:
    def __init__(self, door: Door) -> None:
        self._door = door

    async def begin(self, request: Request) -> Response:
        """Have everything erased that names a person; needs the scope admin. It is in the audit, by the hash."""
        budget = self._door.budget()
        key = await self._door.caller(request, "admin", budget)
        parameters(request, ())
        asked = await read(self._door, request, ErasureIn)
        try:
            address = Address.parse(asked.email)
        except BadAddress as exc:
            raise unprocessable("/email", exc.code, exc.detail) from None
        erasure = await budget.spend(
            self._door.ledger.erasing.begin(address.key, self._door.actor(request, key))
        )
        headers = {"Location": f"/erasures/{erasure.id}"}
        return JSONResponse(_shown(erasure), status_code=202, headers=headers)

    async def see(self, request: Request, erasure_id: str) -> Response:
        """Say how far it is."""
        budget = self._door.budget()
        await self._door.caller(request, "admin", budget)
        parameters(request, ())
        found = (
            await budget.spend(self._door.ledger.erasing.get(erasure_id))
            if is_id(erasure_id, "era")
            else None
        )
        if found is None:
            raise not_found()
        return JSONResponse(_shown(found))


def _shown(erasure: Erasure) -> dict[str, Any]:
    return {
        "object": "erasure",
        "id": erasure.id,
        "status": "running" if erasure.finished_at is None else "finished",
        "sha256": erasure.sha256,
        "messages": erasure.messages,
        "waiting": erasure.waiting,
        "created_by": erasure.created_by,
        "created_at": moment(erasure.created_at),
        "finished_at": moment(erasure.finished_at),
    }
