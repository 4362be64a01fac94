"""Find messages: `GET /messages` with its filters and pages."""

import re
from collections.abc import Mapping

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from service.ledger.facets import METADATA, value_of
from service.ledger.finding import Bounds, Filters
from service.ledger.states import Status
from service.mail.address import Address, BadAddress
from service.submission import models, representation
from service.submission.door import Door, guarded, refusals
from service.submission.history.expectations import Expectation
from service.submission.problems import not_ones_own
from service.submission.request.query import PAGE_PARAMETERS, listed, moment, page, parameters, wrong
from service.submission.who.callers import sees

_STATES = frozenset({*map(str, Status), "partially_sent"})
_CODE = re.compile(r"[2-5][0-9][0-9]")
_ENHANCED = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}")

#: What a list says instead of a forecast.
_NOT_IN_LISTS = Expectation(at=None, because=())

#: Filters that are compared as they are, by where the ledger has them.
_PLAIN = {
    "route": "facets",
    "lane": "facets",
    "diagnosis": "facets",
    "stream": "columns",
    "idempotency_key": "columns",
}

_DESCRIBED = {
    "status": "Of the whole message.",
    "to": "The address of a recipient, whatever its kind.",
    "from": "The address in From.",
    "domain": "The domain of a recipient.",
    "subject": "Words of the subject, or their beginnings; all of them have to be there.",
    "tag": "A tag, as it was given.",
    "route": "The route of one of its recipients.",
    "lane": "The lane of one of its recipients.",
    "stream": "The stream, as it was given.",
    "code": "A code with which one of its attempts was answered: 550.",
    "enhanced": "An enhanced status with which one of its attempts was answered: 5.1.1.",
    "diagnosis": "The id of a diagnosis of one of its attempts.",
    "message_id": "Its Message-ID, with or without angle brackets.",
    "idempotency_key": "The key under which it was sent.",
    "created_after": "Accepted at this time or later (RFC 3339).",
    "created_before": "Accepted before this time (RFC 3339).",
    "application": "For operators: the messages of this application.",
}

_PARAMETERS = [
    *(
        {
            "name": name,
            "in": "query",
            "required": False,
            "schema": {
                "type": "string",
                **({"enum": sorted(_STATES)} if name == "status" else {}),
                **({"format": "date-time"} if name.startswith("created_") else {}),
            },
            "description": description,
        }
        for name, description in _DESCRIBED.items()
    ),
    {
        "name": "metadata",
        "in": "query",
        "required": False,
        "style": "deepObject",
        "explode": True,
        "schema": {"type": "object", "additionalProperties": {"type": "string"}},
        "description": "`metadata[order_id]=42`: an entry of its metadata.",
    },
    *PAGE_PARAMETERS,
]


def endpoints(door: Door) -> APIRouter:
    """Make the endpoint that finds messages."""
    router = APIRouter(tags=["messages"])
    router.add_api_route(
        "/messages",
        _Finding(door).messages,
        methods=["GET"],
        summary="Find messages",
        operation_id="list_messages",
        responses={200: {"model": models.MessageListOut}, **refusals(422)},
        **guarded(parameters=_PARAMETERS),
    )
    return router


class _Finding:
    def __init__(self, door: Door) -> None:
        self._door = door

    async def messages(self, request: Request) -> Response:
        """Find messages by any of the filters, newest first.

        Pages stay where they are while new messages arrive. When a message is expected to go is told by
        `GET /messages/{id}` alone.
        """
        budget = self._door.budget()
        key = await self._door.caller(request, "messages.read", budget)
        given = parameters(request, {*_DESCRIBED, "limit", "after", "before"}, open_names="metadata")
        bounds = page(given, "msg")
        wanted = _filters(given, application=sees(key))
        found = await budget.spend(
            self._door.ledger.finding.find(
                wanted, Bounds(limit=bounds.limit, after=bounds.after, before=bounds.before)
            )
        )
        return JSONResponse(listed([representation.message(each, _NOT_IN_LISTS) for each in found], bounds))


def _filters(given: Mapping[str, str], *, application: str | None) -> Filters:
    """Read the filters; raises a 422 problem that names the parameter."""
    facets: dict[str, str] = {}
    columns: dict[str, str] = {}
    success: dict[str, str] = {}
    for name, kind in _PLAIN.items():
        if name in given:
            (facets if kind == "facets" else columns)[name] = given[name]
    for name, value in given.items():
        if name.startswith("metadata["):
            facets[METADATA + name[len("metadata[") : -1]] = value_of(value)
    if "tag" in given:
        facets["tag"] = value_of(given["tag"])
    if "to" in given:
        facets["to"] = value_of(_address(given["to"], "to").key)
    if "domain" in given:
        facets["domain"] = value_of(_address(f"postmaster@{given['domain']}", "domain").domain)
    if "from" in given:
        columns["from"] = _address(given["from"], "from").key
    if "message_id" in given:
        columns["message_id"] = _bracketed(given["message_id"])
    for name, form, example in (("code", _CODE, "550"), ("enhanced", _ENHANCED, "5.1.1")):
        if name in given:
            if not form.fullmatch(given[name]):
                raise wrong(name, "string_pattern_mismatch", f"{name} looks like {example}.")
            (success if given[name].startswith("2") else facets)[name] = given[name]
    return Filters(
        application=_whose(given.get("application"), application),
        status=_status(given.get("status")),
        subject=given.get("subject"),
        columns=columns,
        facets=facets,
        success=success,
        created_after=moment(given, "created_after"),
        created_before=moment(given, "created_before"),
    )


def _whose(wanted: str | None, own: str | None) -> str | None:
    """Say whose messages are looked at; others' are for operators."""
    if wanted is None or wanted == own:
        return own
    if own is not None:
        raise not_ones_own("?application", "Only operators may look at the messages of another application.")
    return wanted


def _status(written: str | None) -> str | None:
    if written is not None and written not in _STATES:
        raise wrong("status", "literal_error", f"status is one of {', '.join(sorted(_STATES))}.")
    return written


def _address(written: str, name: str) -> Address:
    try:
        return Address.parse(written)
    except BadAddress as bad:
        raise wrong(name, bad.code, bad.detail) from None


def _bracketed(written: str) -> str:
    return written if written.startswith("<") else f"<{written}>"
