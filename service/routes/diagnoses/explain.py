"""Explain any text that somebody pastes: a reply, a line of a log, an exception, a report.

`pasted.py` finds what may be a reply; here the catalogue says what each means, and the most telling
one is taken: a refusal before an acceptance, words that the catalogue knows before digits alone, a
5yz before a 4yz, the first before the later ones. Where there are no digits, words of the
catalogue that nobody writes by chance are enough. Nothing is made up: a text without a reply
gives no diagnosis, and a code that was not there is not shown.

The text is cut at `LONGEST` characters, and the time is bounded for every text.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice

from service.routes.diagnoses import CATALOGUE, Class, Diagnosis, of_reply
from service.routes.diagnoses.content import GENERAL
from service.routes.diagnoses.entry import Scope
from service.routes.diagnoses.pasted import (
    LONGEST,
    Candidate,
    candidates,
    readings,
    status_places,
    without_signs,
)
from service.routes.diagnoses.trailer import Trailer, trailer
from service.routes.route import RouteKind
from service.smtp.phase import Phase
from service.smtp.reply import Reply

__all__ = ["LONGEST", "Explanation", "Recognized", "explain"]

#: Replies of one text that are looked up; the others of a long log are left aside.
_MOST = 48

#: A status alone: which codes it may have come with, the usual ones first …
_CODES_OF = {"2": (250,), "4": (450, 451, 452, 454, 432), "5": (550, 554, 501, 552, 503)}
#: … and the one code of some.
_CODE_OF = {"5.7.3": 535, "5.7.4": 504, "5.7.8": 535, "5.7.9": 534, "5.7.57": 530, "5.7.139": 535}

_THEN: Mapping[Class, str] = {
    Class.T1: "It passes by itself: Postroom tries again after {wait}, then less and less often.",
    Class.T2: "It is a throttle: Postroom slows down and tries again after {wait}, then less often.",
    Class.T3: "A limit over 24 hours is used up: Postroom waits and tries again after {wait}.",
    Class.A: "It does not heal by itself: Postroom lets {what} rest and tries it with one message after {wait}.",
    Class.CFG: "Something of ours is wrong: Postroom lets {what} rest and tries it with one message after {wait}.",
    Class.PM: "This message fails: sending the same again would be refused again.",
    Class.PR: "This recipient fails; the others of the message are not touched.",
}
_PASSING = frozenset({Class.T1, Class.T2, Class.T3})
_WIDE = frozenset({Scope.LANE, Scope.EXTERNAL, Scope.SPLIT})
_WHAT = {
    Scope.LANE: "the lane",
    Scope.SENDER: "this sender",
    Scope.EXTERNAL: "all external mail",
    Scope.MESSAGE: "the message",
    Scope.RECIPIENT: "the recipient",
    Scope.SPLIT: "nothing",
}

# -- names that a text gives away: plain ones only, because remedies are pasted into shells -----

_ADDRESS = r"([A-Za-z0-9._+\-]{1,64}@[A-Za-z0-9.\-]{3,253}[A-Za-z0-9])"
_IP = r"\[?((?:\d{1,3}\.){3}\d{1,3})\b"
_NAMES: tuple[tuple[str, "re.Pattern[str]"], ...] = (
    ("mailbox", re.compile(rf"SendAsDenied; {_ADDRESS} not allowed to send as", re.IGNORECASE)),
    ("sender", re.compile(rf"not allowed to send as {_ADDRESS}", re.IGNORECASE)),
    ("sender", re.compile(rf"MAIL FROM:<{_ADDRESS}>", re.IGNORECASE)),
    ("recipient", re.compile(rf"(?:RCPT TO:|\bto=)<{_ADDRESS}>", re.IGNORECASE)),
    ("recipient", re.compile(rf"Final-Recipient: rfc822; ?{_ADDRESS}", re.IGNORECASE)),
    ("recipient", re.compile(rf"Recipient {_ADDRESS} not found", re.IGNORECASE)),
    (
        "address",
        re.compile(rf"(?:sending IP|banned sender|later from|mail server|messages from|Client host) {_IP}", re.IGNORECASE),
    ),
    ("host", re.compile(r"\bhost ([A-Za-z0-9\-]{1,63}(?:\.[A-Za-z0-9\-]{1,63}){1,8}) ?\[", re.IGNORECASE)),
)  # fmt: skip

# -- words alone --------------------------------------------------------------------------------

#: Entries whose words are everyday language: they need digits beside them.
_EVERYDAY = frozenset(
    {
        "smtp.idle_too_long",
        "smtp.dialogue_refused",
        "smtp.message_too_large",
        "smtp.message_malformed",
        "exo.service_trouble",
        "exo.ipv6_not_taken",
    }
)
_SHORTEST = 15  # characters of a phrase that is no accident
_TECHNICAL = re.compile(r"[a-z][A-Z]|[A-Za-z]\d{2,}|\d\)|[a-z]\.[A-Z]|[A-Z]{2}\w*\.[A-Z]|X\d")
_ABOUT_MAIL = re.compile(
    r"smtp|mail|recipient|sender|relay|tenant|authenticat|spamhaus|DMARC|SPF\b|\bTLS\b|direct send|exchange|office 365"
    r"|connector|block list",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognized:
    """What a text holds of a reply: what was not there is None."""

    code: int | None
    enhanced: str | None
    text: str
    phase: Phase | None

    def as_json(self) -> dict[str, object]:
        """Write it as the API shows it."""
        phase = None if self.phase is None else self.phase.word
        return {"code": self.code, "enhanced": self.enhanced, "text": self.text, "phase": phase}


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What was recognised in a text, and what it means; all None where nothing was."""

    recognized: Recognized | None
    trailer: Trailer | None
    diagnosis: Diagnosis | None  # None also for an acceptance
    names: Mapping[str, str] = field(default_factory=dict)  # that the text itself gives: mailbox, sender …

    @property
    def retryable(self) -> bool:
        """Whether Postroom would try this message again by itself."""
        if self.diagnosis is None:
            return False
        if self.diagnosis.kind in _PASSING or self.diagnosis.scope in _WIDE:
            return True  # it heals, or the way is mended and then the message goes
        return self.diagnosis.kind in {Class.A, Class.CFG} and self._digits.startswith("4")

    @property
    def then(self) -> str:
        """Say in one sentence what Postroom does with it."""
        if self.recognized is None:
            return "Nothing in this text looks like an SMTP reply that the catalogue knows."
        if self.diagnosis is None:
            return "It is no refusal: the server took this step."
        if self.diagnosis.scope is Scope.SPLIT:
            return "Postroom sends to the other recipients at once, in smaller transactions."
        wait, what = _duration(self.diagnosis.first), _WHAT[self.diagnosis.scope]
        if self.retryable:
            return _THEN[self.diagnosis.kind].format(wait=wait, what=what)
        if self.diagnosis.scope is Scope.SENDER:
            return f"This message fails; what else its sender has waiting rests, and one of it is tried after {wait}."
        return _THEN[Class.PR if self.diagnosis.scope is Scope.RECIPIENT else Class.PM]

    @property
    def _digits(self) -> str:
        of = self.recognized
        return "" if of is None else str(of.code or of.enhanced or "")

    def as_json(self, names: Mapping[str, str]) -> dict[str, object]:
        """Write it as the API shows it; `names` go before those of the text."""
        diagnosis = self.diagnosis
        shown = None if diagnosis is None else diagnosis.as_json({**self.names, **names})
        if shown is not None:
            # In prose, a host without a name is still a server; in commands the gap has to be seen.
            prose = {
                part: str(shown[part]).replace("<host>", "the server") for part in ("title", "explanation")
            }
            shown |= prose | {"title": re.sub(r"^the\b", "The", prose["title"])}
        return {
            "object": "explanation",
            "recognized": None if self.recognized is None else self.recognized.as_json(),
            "trailer": None if self.trailer is None else self.trailer.as_json(),
            "diagnosis": shown,
            "class": None if diagnosis is None else diagnosis.kind.value,
            "retryable": self.retryable,
            "then": self.then,
        }


def explain(text: str, *, kind: RouteKind | None = None, phase: Phase | None = None) -> Explanation:
    """Find the reply in a text and what it means, on a route of this kind where that is known.

    `phase` goes before what the text says about it.
    """
    best: _Found | None = None
    lines = readings(text)
    for line in lines:
        found = _best(line, kind=kind, phase=phase)
        if found is not None and (best is None or found.tells > best.tells):
            best = found
    if best is None:
        return Explanation(recognized=None, trailer=None, diagnosis=None)
    given = best.candidate
    return Explanation(
        recognized=Recognized(
            code=given.code, enhanced=given.enhanced, text=given.text, phase=phase or given.phase
        ),
        trailer=trailer(given.text),
        diagnosis=best.diagnosis,
        names=_names(without_signs(lines[0])),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A candidate, what it means, and how much it tells: greater ranks tell more."""

    candidate: Candidate
    diagnosis: Diagnosis | None
    rank: tuple[bool, int, bool, bool, bool]

    @property
    def tells(self) -> tuple[tuple[bool, int, bool, bool, bool], int]:
        """Compare two readings of one text: the catalogue has the special before the general."""
        return self.rank, 0 if self.diagnosis not in CATALOGUE else -CATALOGUE.index(self.diagnosis)


def _best(line: str, *, kind: RouteKind | None, phase: Phase | None) -> _Found | None:
    """Take the most telling reply of one reading; the first of several that tell the same."""
    seen: dict[Candidate, Candidate] = {}
    taken: list[Candidate] = []
    for each in islice(candidates(line), _MOST * 8):
        if each.refuses:
            seen.setdefault(replace(each, phase=None), each)
        elif not taken:
            taken.append(each)
    found = [_found(each, kind=kind, phase=phase or each.phase) for each in list(seen.values())[:_MOST]]
    found = found or [_acceptance(each) for each in taken]
    if not found:
        found = [*_by_status(line, kind=kind, phase=phase), *_by_words(line, kind=kind, phase=phase)]
    return max(found, key=lambda each: each.rank, default=None)


def _found(candidate: Candidate, *, kind: RouteKind | None, phase: Phase | None) -> _Found:
    """Say what a candidate means; a status alone may have come with one of several codes."""
    enhanced = candidate.enhanced
    code = candidate.code or _CODE_OF.get(enhanced or "")
    codes = (code,) if code is not None else _CODES_OF[(enhanced or "5")[0]]
    meanings = [
        of_reply(Reply(code=each, enhanced=enhanced, text=candidate.text, lines=()), phase, kind)
        for each in codes
    ]
    diagnosis = max(meanings, key=_telling)  # the first of the best
    digits = str(candidate.code or enhanced)
    return _Found(
        candidate=candidate,
        diagnosis=diagnosis,
        rank=(
            True,
            _telling(diagnosis),
            # x.0.x says "something else", and 5.7.57 follows a login that was refused before.
            enhanced is not None and enhanced[2:4] != "0." and enhanced != "5.7.57",
            digits.startswith("5"),
            candidate.code is not None and enhanced is not None,
        ),
    )


def _acceptance(candidate: Candidate) -> _Found:
    return _Found(candidate=candidate, diagnosis=None, rank=(False, 0, False, False, False))


def _telling(diagnosis: Diagnosis) -> int:
    """Say how special an entry is: known by words, by its status, by its code, or by the first digit."""
    if diagnosis in GENERAL:
        return 0
    return 3 if diagnosis.words is not None else 2 if diagnosis.enhanced is not None else 1


def _by_status(line: str, *, kind: RouteKind | None, phase: Phase | None) -> Iterator[_Found]:
    """Take a status that stands anywhere, where words that the catalogue knows stand beside it."""
    places = {replace(each, phase=None): each for each in islice(status_places(line), _MOST * 8)}
    for candidate in islice(places.values(), _MOST):
        found = _found(candidate, kind=kind, phase=phase or candidate.phase)
        entry = found.diagnosis
        if entry is not None and entry.words is not None and _no_accident(entry, candidate) is not None:
            yield found


def _by_words(line: str, *, kind: RouteKind | None, phase: Phase | None) -> Iterator[_Found]:
    """Take the first entry whose words stand in a text without digits."""
    whole = without_signs(line)
    for entry in CATALOGUE:
        if entry.words is None or entry.enhanced is not None or entry.faults:
            continue
        if entry.kinds and (kind is None or kind not in entry.kinds):
            continue
        place = Candidate(code=None, enhanced=None, text=whole, phase=phase)
        if (words := _no_accident(entry, place)) is not None:
            candidate = replace(place, text=words)
            yield _Found(candidate=candidate, diagnosis=entry, rank=(True, 3, False, False, False))
            return


def _no_accident(entry: Diagnosis, place: Candidate) -> str | None:
    """Give the words of an entry that stand in a text, where they are not everyday language."""
    found = None if entry.words is None else re.search(entry.words, place.text, re.IGNORECASE)
    if found is None:
        return None
    if _TECHNICAL.search(found[0]) is not None or place.introduced:
        return found[0]
    if entry.id in _EVERYDAY or len(found[0]) < _SHORTEST or _ABOUT_MAIL.search(place.text) is None:
        return None
    return found[0]


def _names(line: str) -> dict[str, str]:
    """Take the names out of a text that remedies may call things by."""
    names: dict[str, str] = {}
    for name, pattern in _NAMES:
        if name not in names and (found := pattern.search(line)) is not None:
            names[name] = found[1]
    if "sender" in names:
        names["domain"] = names["sender"].rpartition("@")[2]
    return names


def _duration(seconds: float) -> str:
    for size, name in ((3600, "hour"), (60, "minute"), (1, "second")):
        if seconds >= size:
            count = round(seconds / size)
            return f"{count} {name}{'s' if count != 1 else ''}"
    return "a moment"
