"""One message: where it is and why, what can be done, and everything that happened, from its acceptance to the 250.

The page asks the API what an application would ask (`GET /messages/{id}`, `/explain`, `/attempts`, `/events`) and lays it out
in time. Acts are the API's: a button posts here, this module posts there, and what the API refuses is told on the page. A
dialogue is shown to those who have `transcripts.read`; the newest attempt's is open from the start.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from service.console import forms, words
from service.console.asking import Api, Refused
from service.console.pages import Pages, elsewhere
from service.console.who import SignedIn
from service.ledger import Ledger
from service.ledger.ids import is_id

#: What a page shows of each list, unless everything is asked for: a slow line has to carry it. Whom somebody has to
#: look after comes first, of attempts and moves the newest.
_RECIPIENTS, _ATTEMPTS, _MOVES = 20, 10, 40

#: Characters of a dialogue that are shown: one with many recipients is long.
_DIALOGUE = 12_000

_ACTS = {
    "retry": "Retry", "release": "Release", "hold": "Hold", "cancel": "Cancel",
    "settle_sent": "They have it", "settle_resend": "Send it again", "settle_drop": "Leave it at that",
}  # fmt: skip

_DONE = {
    "retry": "It goes again.",
    "release": "It was released.",
    "hold": "It is held until somebody releases it.",
    "cancel": "It was canceled.",
    "settle_sent": "It counts as sent.",
    "settle_resend": "The same octets go again.",
    "settle_drop": "It was left at that.",
}

#: Which recipients a reader wants to see first.
_URGENT = ("uncertain", "failed", "bounced", "expired", "held", "deferred", "sending", "queued", "scheduled")


class MessagePage:
    """The page of a message, and its acts."""

    def __init__(self, pages: Pages, api: Api, ledger: Ledger) -> None:
        self._pages = pages
        self._api = api
        self._ledger = ledger

    async def page(self, request: Request, who: SignedIn) -> Response:
        """Show a message."""
        return await self._shown(request, who, request.path_params["message_id"])

    async def act(self, request: Request, who: SignedIn) -> Response:
        """Do what a button says, and show what came of it."""
        message_id = request.path_params["message_id"]
        form = await forms.read_guarded(request, who.token)
        deed = form.get("deed", "")
        if deed not in _ACTS:
            raise Refused(status=422, code="unknown_act", detail="There is no such act.")
        act, _, decision = deed.partition("_")
        body = {"reason": form["reason"]} if form.get("reason") else {}
        try:
            await self._api.post(
                request,
                who.key,
                "messages",
                message_id,
                act,
                body=body | ({"decision": decision} if decision else {}),
            )
        except Refused as refused:
            if refused.status not in {403, 409, 422}:
                raise
            return await self._shown(request, who, message_id, refused=refused)
        return elsewhere(f"/console/messages/{quote(message_id, safe='')}?done={deed}")

    async def attempt(self, request: Request, who: SignedIn) -> Response:
        """Lead from an attempt's name to its place on the page of its message."""
        found = await self._api.get(request, who.key, "attempts", request.path_params["attempt_id"])
        return elsewhere(f"/console/messages/{found['message']}?dialogue={found['id']}#{found['id']}")

    async def _shown(
        self, request: Request, who: SignedIn, message_id: str, *, refused: Refused | None = None
    ) -> Response:
        at = ("messages", message_id)
        await self._api.get(request, who.key, *at)  # is it theirs?
        seen = await self._ledger.explaining.pulse(message_id)  # before the rest: what comes later is told
        message, why, attempts, events = await asyncio.gather(
            self._api.get(request, who.key, *at),
            self._api.get(request, who.key, *at, "explain"),
            self._api.get(request, who.key, *at, "attempts"),
            self._api.get(request, who.key, *at, "events"),
        )
        view = await self._ledger.message(message_id, application=who.key.sees)
        actions = why["actions"] if who.may_act else []
        everything = "everything" in request.query_params
        recipients = _sorted(why["recipients"], message["recipients"])
        tries, moves = attempts["data"][::-1], _moves(events["data"])
        left_out = not everything and (
            len(recipients) > _RECIPIENTS or len(tries) > _ATTEMPTS or len(moves) > _MOVES
        )
        return self._pages.page(
            request,
            "message",
            who,
            status=200 if refused is None else refused.status,
            message=message,
            application="" if view is None else view.application,
            why=why,
            acts=[(deed, title) for deed, title in _ACTS.items() if deed.partition("_")[0] in actions],
            recipients=recipients if everything else recipients[:_RECIPIENTS],
            attempts=tries if everything else tries[:_ATTEMPTS],
            moves=moves if everything else moves[:_MOVES],
            left_out=left_out,
            dialogues=await self._dialogues(request, who, attempts["data"]),
            done=_DONE.get(request.query_params.get("done", "")),
            refused=refused,
            seen=seen,
            ended=message["status"] in words.ENDED,
        )

    async def _dialogues(
        self, request: Request, who: SignedIn, attempts: Sequence[Mapping[str, Any]]
    ) -> dict[str, str]:
        """Read the dialogue that was asked for, and the newest attempt's."""
        if not attempts or not who.may("transcripts.read"):
            return {}
        known = {each["id"] for each in attempts}
        wanted = {attempts[-1]["id"], request.query_params.get("dialogue", "")} & known
        found = {}
        for attempt_id in sorted(wanted):
            assert is_id(attempt_id, "att")
            answer = await self._api.ask(request, who.key, "GET", "attempts", attempt_id, "transcript")
            text = answer.body.decode("utf-8", "replace")
            short = len(text) <= _DIALOGUE or "everything" in request.query_params
            found[attempt_id] = (
                text if short else f"{text[:_DIALOGUE]}\n… the rest is in the support bundle\n"
            )
        return found


def _sorted(
    explained: Sequence[Mapping[str, Any]], shown: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Lay both views of the recipients side by side, those first that need somebody."""
    both = [{**mine, "why": why} for mine, why in zip(shown, explained, strict=True)]
    rank = {state: number for number, state in enumerate(_URGENT)}
    return sorted(both, key=lambda each: rank.get(each["status"], len(rank)))


def _moves(events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Tell the moves, the newest first; what many recipients did together is one line."""
    told: list[dict[str, Any]] = []
    for event in events:
        last = told[-1] if told else None
        same = last is not None and all(
            last[name] == event[name] for name in ("from_status", "status", "reason", "attempt", "actor")
        )
        if same and last is not None and last["recipient"] != event["recipient"]:
            last["others"] += 1
        else:
            told.append({**event, "others": 0})
    return told[::-1]
