"""What is said of an attempt that is over, for operators: counted always, and a span where somebody wants spans.

Counting is done for every message and costs a microsecond. A span is put together afterwards, from what the
transcript says of each phase; while traces are off none of it happens.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from service.delivery.verdict import Judgement
from service.ledger.claiming import Claimed
from service.ledger.states import Outcome
from service.routes.route import Lane
from service.telemetry import figures, traces

_TAKEN = frozenset({Outcome.SENT, Outcome.PARTIAL})

#: What the catalogue calls a mistake of ours.
_BUG = "postroom.internal"

#: What a span calls an error: somebody may have to act.
_FAILED = frozenset({Outcome.FAILED, Outcome.UNCERTAIN})


def note(
    claimed: Claimed,
    judgement: Judgement,
    *,
    lane: Lane,
    began: datetime,
    dot_seconds: float | None,
    number: int | None,
    opening: Sequence[Mapping[str, str]],
    transcript: Sequence[Mapping[str, str]],
) -> None:
    """Count an attempt, and trace it; `opening` is the transcript of a session that was opened for it."""
    route, outcome, now = lane.route.name, judgement.outcome, datetime.now(UTC)
    diagnosis = _diagnosis(judgement)
    figures.ATTEMPTS.add(route, lane.name, outcome.value, diagnosis)
    if diagnosis == _BUG:
        figures.BUGS.add("attempt")
    if number == 1:
        figures.SESSIONS_OPENED.add(route)
    if dot_seconds is not None:
        figures.REPLY.observe(dot_seconds, route)
    if outcome in _TAKEN and claimed.since is not None:
        figures.DELIVERY.observe(max((now - claimed.since).total_seconds(), 0.0), route)
    if traces.on():
        traces.attempt(
            claimed.traceparent,
            name=f"send {route}",
            began=began,
            ended=now,
            attributes=_attributes(claimed, judgement, lane=lane, began=began, number=number),
            events=_phases([*(opening if number == 1 else ()), *transcript]),
            failed=outcome in _FAILED,
        )


def _diagnosis(judgement: Judgement) -> str:
    return "" if judgement.error is None else str(judgement.error["diagnosis"]["id"])


def _attributes(
    claimed: Claimed, judgement: Judgement, *, lane: Lane, began: datetime, number: int | None
) -> dict[str, str | int | float | bool]:
    facts: dict[str, str | int | float | None] = {
        "postroom.message_id": claimed.message_id,
        "postroom.attempt_id": claimed.attempt_id,
        "postroom.attempt_number": claimed.number,
        "postroom.application": claimed.application,
        "postroom.route": lane.route.name,
        "postroom.recipients": len(claimed.recipients),
        "postroom.size": claimed.size,
        "postroom.outcome": judgement.outcome.value,
        "postroom.phase": judgement.phase.word,
        "postroom.diagnosis": _diagnosis(judgement) or None,
        "postroom.session_message": number,
        "postroom.waited_seconds": None if claimed.since is None else (began - claimed.since).total_seconds(),
        "smtp.reply_code": None if judgement.reply is None else judgement.reply["code"],
        "smtp.enhanced_status": None if judgement.reply is None else judgement.reply["enhanced"],
        "server.address": lane.route.peer.host,
        "server.port": lane.route.peer.port,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _phases(entries: Iterable[Mapping[str, Any]]) -> list[traces.Event]:
    """List the phases in their order: when each began, and the code of the last reply in it."""
    began: dict[str, datetime] = {}
    codes: dict[str, dict[str, int]] = {}
    for entry in entries:
        phase = entry["phase"]
        if phase == "dot" and entry["who"] == "peer":
            phase = "reply"
        if phase not in began:
            began[phase] = datetime.fromisoformat(entry["at"])
        if entry["who"] == "peer" and entry["text"][:3].isdecimal():
            codes[phase] = {"smtp.reply_code": int(entry["text"][:3])}
    return [(phase, at, codes.get(phase, {})) for phase, at in began.items()]
