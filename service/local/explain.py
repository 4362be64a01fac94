"""`postroom explain`: any pasted text, explained in a terminal without any configuration."""

import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from service.routes.diagnoses.explain import LONGEST, Explanation, explain
from service.routes.route import RouteKind

__all__ = ["Question", "WrongUse", "explain", "question", "readable"]

_WHO = {
    "application": "the application that sends the message",
    "exchange_admin": "the Exchange administrator",
    "entra_admin": "the Entra ID administrator",
    "network": "whoever looks after network, DNS and addresses",
    "operator": "whoever operates Postroom",
    "nobody": "nobody",
}
_WIDTH = 100
#: Octets of UTF-8 in the longest text that is looked at.
_MOST_OCTETS = 4 * LONGEST


class WrongUse(Exception):
    """The command cannot be carried out as it was given; its text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is to be explained."""

    text: str
    kind: RouteKind | None


def question(text: str, *, kind: str | None) -> Question:
    """Read the arguments, and stdin for `-`. Raises WrongUse."""
    try:
        route_kind = None if kind is None else RouteKind(kind)
    except ValueError:
        raise WrongUse(f"--kind takes one of: {', '.join(RouteKind)}.") from None
    if text == "-":
        text = sys.stdin.buffer.read(_MOST_OCTETS).decode("utf-8", "replace")
    if not text.strip():
        raise WrongUse("TEXT is empty: give the reply, or the lines around the error.")
    return Question(text=text, kind=route_kind)


def readable(explanation: Explanation) -> Iterator[str]:
    """Write an explanation for people, line by line. Control characters were taken out before."""
    recognized, shown = explanation.recognized, explanation.as_json({})
    if recognized is None:
        yield explanation.then
        return
    digits = " ".join(str(part) for part in (recognized.code, recognized.enhanced) if part is not None)
    phase = f" ({recognized.phase.word})" if recognized.phase is not None else ""
    yield from _paragraph(f"Recognised{phase}: {digits} {recognized.text}".replace("  ", " "))
    if explanation.trailer is not None:
        of = explanation.trailer
        yield f"At Microsoft: {', '.join(part for part in (of.host, of.time, of.session) if part)}"
    yield ""
    diagnosis = shown["diagnosis"]
    if explanation.diagnosis is None or not isinstance(diagnosis, dict):
        yield explanation.then
        return
    yield str(diagnosis["title"])
    yield from _paragraph(str(diagnosis["explanation"]), indent="  ")
    yield ""
    yield f"Who must act: {_WHO[explanation.diagnosis.who]}"
    yield "What to do:"
    # Not folded: a command is pasted as it stands.
    yield from (f"  - {step}" for step in diagnosis["remedy"])
    yield from _paragraph(f"What Postroom does: {explanation.then}")
    yield ""
    yield f"{diagnosis['id']}, class {explanation.diagnosis.kind}; source: {diagnosis['source']}"


def _paragraph(text: str, *, indent: str = "") -> Iterator[str]:
    plain = " ".join(text.split())
    yield from textwrap.wrap(
        plain, _WIDTH, initial_indent=indent, subsequent_indent=indent or "  ", break_long_words=False
    )
