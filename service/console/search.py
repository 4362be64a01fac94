"""Where is my mail? One box for whatever somebody has at hand, filters beside it, an answer in plain words.

What is written into the box is tried in the meanings that it can have, the most likely first, until one of them finds
something (`guesses`): an address may be a recipient's or a sender's, or the Message-ID without its brackets. Every meaning is a
filter of `GET /messages`, so each is answered by an index. The answer above the table says how the messages of the page
stand, and tells the newest one's story as `GET /messages/{id}/explain` does.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from service.console import words
from service.console.asking import Api, Refused
from service.console.pages import Pages, elsewhere, given
from service.console.who import SignedIn
from service.ledger import Ledger
from service.ledger.ids import is_id

_PAGE = "25"

#: The filters beside the box, as `GET /messages` names them.
FILTERS = (
    "to", "from", "subject", "message_id", "application", "status", "diagnosis", "domain", "route", "lane", "tag", "code",
    "enhanced",
)  # fmt: skip

#: How far back, by the name in the address.
SPANS: Mapping[str, tuple[str, timedelta]] = {
    "1h": ("the last hour", timedelta(hours=1)),
    "24h": ("the last 24 hours", timedelta(hours=24)),
    "7d": ("the last 7 days", timedelta(days=7)),
    "30d": ("the last 30 days", timedelta(days=30)),
}

_ADDRESS = re.compile(r"[^\s@<>]+@[^\s@<>]+")
_DIAGNOSIS = re.compile(r"[a-z][a-z0-9_]*\.[a-z0-9_]+")
_NAMED = re.compile(rf"({'|'.join(FILTERS)}):(\S+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """One meaning of what is in the box."""

    meaning: str  # "to ana@contoso.com"
    filters: Mapping[str, str]


def guesses(text: str) -> list[Guess]:
    """Say what a text may mean, the most likely first; there is always one meaning at least."""
    if named := dict(_NAMED.findall(text)):
        rest = _NAMED.sub("", text).strip()
        found = named | ({"subject": rest} if rest else {})
        return [
            Guess(meaning=" and ".join(f"{name} {value}" for name, value in found.items()), filters=found)
        ]
    if text.startswith("<") and text.endswith(">"):
        return [Guess(meaning=f"with the Message-ID {text}", filters={"message_id": text})]
    words_of_subject = Guess(meaning=f"with “{text}” in the subject", filters={"subject": text})
    if _ADDRESS.fullmatch(text):
        return [
            Guess(meaning=f"to {text}", filters={"to": text}),
            Guess(meaning=f"from {text}", filters={"from": text}),
            Guess(meaning=f"with the Message-ID <{text}>", filters={"message_id": text}),
        ]
    if text.startswith("@") and " " not in text:
        return [Guess(meaning=f"to somebody at {text[1:]}", filters={"domain": text[1:]})]
    if re.fullmatch(r"[45][0-9][0-9]", text):
        return [Guess(meaning=f"that were answered {text}", filters={"code": text}), words_of_subject]
    if re.fullmatch(r"[45]\.[0-9]{1,3}\.[0-9]{1,3}", text):
        return [Guess(meaning=f"that were answered {text}", filters={"enhanced": text}), words_of_subject]
    if _DIAGNOSIS.fullmatch(text):
        diagnosed = Guess(meaning=f"with the diagnosis {text}", filters={"diagnosis": text})
        return [
            diagnosed,
            Guess(meaning=f"to somebody at {text}", filters={"domain": text}),
            words_of_subject,
        ]
    if text in words.STATES:
        return [Guess(meaning=f"that are {text}", filters={"status": text}), words_of_subject]
    return [words_of_subject]


class Search:
    """The page of the search."""

    def __init__(self, pages: Pages, api: Api, ledger: Ledger) -> None:
        self._pages = pages
        self._api = api
        self._ledger = ledger

    async def page(self, request: Request, who: SignedIn) -> Response:
        """Find messages, and say in words how they stand."""
        asked = given(request, "q", "within", "since", "until", "after", "before", *FILTERS)
        text = asked.get("q", "")
        if is_id(text, "msg") or is_id(text, "att"):
            return elsewhere(f"/console/{'messages' if text.startswith('msg') else 'attempts'}/{text}")
        view: dict[str, Any] = {"asked": asked, "states": words.STATES, "spans": SPANS, "wrong": None}
        try:
            found, guess = await self._found(request, who, asked)
        except Refused as refused:
            if refused.status != 422:
                raise
            view |= {"wrong": refused.detail, "rows": [], "answer": None, "newer": None, "older": None}
            return self._pages.page(request, "search", who, status=422, **view)
        rows = await self._rows(found["data"], who)
        view |= {
            "rows": rows,
            "guess": guess,
            "answer": await self._answer(request, who, rows, found, guess, asked),
            **_neighbours(asked, found),
        }
        return self._pages.page(request, "search", who, **view)

    async def _found(
        self, request: Request, who: SignedIn, asked: Mapping[str, str]
    ) -> tuple[dict[str, Any], Guess | None]:
        filters = {name: asked[name] for name in FILTERS if name in asked}
        bounds = {name: asked[name] for name in ("after", "before") if name in asked}
        common = {**filters, **_span(asked), **bounds, "limit": _PAGE}
        if "q" not in asked:
            return await self._api.get(request, who.key, "messages", **common), None
        first, wrong = None, None
        for guess in guesses(asked["q"]):
            try:
                found = await self._api.get(request, who.key, "messages", **{**common, **guess.filters})
            except Refused as refused:
                if refused.status != 422:
                    raise
                wrong = refused  # it cannot be meant so
                continue
            first = first or (found, guess)
            if found["data"]:
                return found, guess
        if first is None and wrong is not None:
            raise wrong
        assert first is not None
        return first

    async def _rows(self, data: Sequence[dict[str, Any]], who: SignedIn) -> list[dict[str, Any]]:
        """Add the application, which an application's own list has no need of."""
        views = await self._ledger.messages([each["id"] for each in data], application=who.key.sees)
        applications = {view.id: view.application for view in views}
        return [{**each, "application": applications.get(each["id"], "")} for each in data]

    async def _answer(
        self,
        request: Request,
        who: SignedIn,
        rows: Sequence[Mapping[str, Any]],
        found: Mapping[str, Any],
        guess: Guess | None,
        asked: Mapping[str, str],
    ) -> dict[str, Any] | None:
        """Say in words how the messages stand."""
        meaning = guess.meaning if guess is not None else ""
        if not rows:
            return {"headline": _nothing(meaning, asked), "story": None, "newest": None}
        narrowed = guess is not None or any(name in asked for name in FILTERS)
        if not narrowed or "after" in asked or "before" in asked:
            return None
        newest = rows[0]
        story = await self._api.get(request, who.key, "messages", newest["id"], "explain")
        return {"headline": _counted(rows, meaning, more=found["has_more"]), "story": story, "newest": newest}


def _nothing(meaning: str, asked: Mapping[str, str]) -> str:
    told = f"No message {meaning}" if meaning else "No message fits"
    return f"{told} in {SPANS[asked['within']][0]}." if asked.get("within") in SPANS else f"{told}."


def _counted(rows: Sequence[Mapping[str, Any]], meaning: str, *, more: bool) -> str:
    """Count the page's messages by state: `3 messages to ana@…: 2 sent, 1 failed.`"""
    told = f"{words.plural(len(rows), 'message')} {meaning}".strip()
    if more:
        told = f"The newest {told}"
    counts = Counter(str(row["status"]).replace("_", " ") for row in rows)
    if len(counts) == 1:
        (state,) = counts
        return f"{told}: {state}." if len(rows) == 1 else f"{told}, all {state}."
    return f"{told}: {', '.join(f'{count} {state}' for state, count in counts.most_common())}."


def _span(asked: Mapping[str, str]) -> dict[str, str]:
    """Say from when to when; what a browser's field for times gives is UTC."""
    span = {}
    if asked.get("within") in SPANS:
        since = datetime.now(UTC) - SPANS[asked["within"]][1]
        span["created_after"] = since.isoformat(timespec="seconds").replace("+00:00", "Z")
    for name, bound in (("since", "created_after"), ("until", "created_before")):
        if name in asked:
            span[bound] = (
                f"{asked[name]}:00Z" if re.fullmatch(r"[\d-]{10}T\d\d:\d\d", asked[name]) else asked[name]
            )
    return span


def _neighbours(asked: Mapping[str, str], found: Mapping[str, Any]) -> dict[str, str | None]:
    """Give the addresses of the pages on both sides of this one."""
    kept = {name: value for name, value in asked.items() if name not in {"after", "before"}}
    data = found["data"]
    older = newer = None
    if data and (found["has_more"] or "before" in asked):
        older = f"/console?{urlencode({**kept, 'after': data[-1]['id']})}"
    if data and ("after" in asked or ("before" in asked and found["has_more"])):
        newer = f"/console?{urlencode({**kept, 'before': data[0]['id']})}"
    return {"older": older, "newer": newer}
