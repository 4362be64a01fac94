r"""Explain any text that somebody pastes: a reply, a line of a log, an exception, a report.

What is looked for, in this order: a code with an enhanced status (`535 5.7.139 …`), a code with
text where one is likely to stand, an enhanced status alone, and at last words of the catalogue.
Of several replies the worst one counts. Where the text says at which command it came ("in reply
to RCPT TO command", "after end of data"), that is used, otherwise any phase fits.

Every expression here is linear in the text, and the text is cut at `LONGEST`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from service.routes.diagnoses import CATALOGUE, Class, Diagnosis, of_reply
from service.routes.diagnoses.entry import Scope
from service.routes.diagnoses.trailer import Trailer, trailer
from service.routes.route import RouteKind
from service.smtp.phase import Phase
from service.smtp.reply import BadReply, Reply

#: Characters that are looked at; longer texts are cut.
LONGEST = 65_536

_WITH_STATUS = re.compile(r"(?<![\d.])([2-5]\d\d)[ \-#]{1,3}([245]\.\d{1,3}\.\d{1,3})(?![\d.])")
_CODE = re.compile(r"(?:^|[\s'\"(:;,\[>])([45]\d\d)[ \-](?=[A-Za-z\"'<(])")
_STATUS = re.compile(r"(?<![\d.])#?([45]\.\d{1,3}\.\d{1,3})(?![\d.])")
_QUOTES = str.maketrans({"“": '"', "”": '"', "„": '"', "‘": "'", "’": "'", "«": '"', "»": '"', "\u00a0": " "})
_CONTINUED = re.compile(r"(?<=\d)-(?=[245]\.\d)")
_SPACES = re.compile(r"\s+")
#: `(535, b'5.7.139 …')` of Python, and the same in other brackets.
_TUPLE = re.compile(r"\(?\b([45]\d\d)\b, ?b?['\"]")
#: What ends a reply in a log line or an exception.
_TAIL = re.compile(r"\s*(?:['\"]\)?|\(in reply to [^)]{1,60}\)|\))+\s*$")

_PHASES: tuple[tuple[str, Phase], ...] = (
    (r"end of (data|message)|after (the )?(final )?dot|DATA\s*\.|end-of-data", Phase.REPLY),
    (r"RCPT( TO)?\b", Phase.RCPT),
    (r"MAIL( FROM)?:?<|MAIL FROM|in reply to MAIL|after MAIL", Phase.MAIL),
    (r"\bAUTH\b|invalid login|SMTPAuthentication|authentication (failed|error|unsuccessful)", Phase.AUTH),
    (r"in reply to (HELO|EHLO)|after (HELO|EHLO)|\bEHLO\b", Phase.EHLO),
    (r"\bSTARTTLS\b", Phase.STARTTLS),
    (r"in reply to DATA|after DATA|DATA command", Phase.DATA),
    (r"initial connection|while connecting|greeting", Phase.GREETING),
)

_THEN: Mapping[Class, str] = {
    Class.T1: "It passes by itself: Postroom tries again after {wait}, then less and less often.",
    Class.T2: "It is a throttle: Postroom slows down and tries again after {wait}, then less often.",
    Class.T3: "A limit over 24 hours is used up: Postroom waits and tries again after {wait}.",
    Class.A: "It does not heal by itself: Postroom lets {what} rest and tries it with one message after {wait}.",
    Class.CFG: "Something of ours is wrong: Postroom lets {what} rest and tries it with one message after {wait}.",
    Class.PM: "This message fails: sending the same again would be refused again.",
    Class.PR: "This recipient fails; the others of the message are not touched.",
}
_WHAT = {
    Scope.LANE: "the lane",
    Scope.SENDER: "this sender",
    Scope.EXTERNAL: "all external mail",
    Scope.MESSAGE: "the message",
    Scope.RECIPIENT: "the recipient",
    Scope.SPLIT: "nothing",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What was recognised in a text, and what it means. Without a diagnosis: nothing was."""

    reply: Reply | None  # None: words or a status alone
    phase: Phase | None
    trailer: Trailer | None
    diagnosis: Diagnosis | None

    @property
    def retryable(self) -> bool:
        """Whether Postroom would try again by itself."""
        return self.diagnosis is not None and self.diagnosis.kind not in {Class.PM, Class.PR}

    @property
    def then(self) -> str:
        """Say in one sentence what Postroom does with it."""
        if self.diagnosis is None:
            return "Nothing in this text looks like an SMTP reply."
        if self.diagnosis.scope is Scope.SPLIT:
            return "Postroom sends to the other recipients at once, in smaller transactions."
        if self.diagnosis.scope is Scope.SENDER and self.diagnosis.kind is Class.A:
            wait = _duration(self.diagnosis.first)
            return f"This message fails; the sender's others wait, and one of them tries after {wait}."
        wait, what = _duration(self.diagnosis.first), _WHAT[self.diagnosis.scope]
        return _THEN[self.diagnosis.kind].format(wait=wait, what=what)


def explain(text: str, *, kind: RouteKind | None = None, phase: Phase | None = None) -> Explanation:
    """Find the reply in a text and what it means, on a route of this kind where that is known."""
    line = _one_line(text)
    phase = phase or _phase(line)
    found = list(_replies(line))
    best = max(
        found, key=lambda reply: (reply.code >= 400, reply.enhanced is not None, reply.code), default=None
    )
    if best is not None and best.code >= 400:
        known = of_reply(best, phase, kind)
        return Explanation(reply=best, phase=phase, trailer=trailer(best.text), diagnosis=known)
    by_words = None if best is not None else _by_words(line, phase, kind)
    return Explanation(reply=best, phase=phase, trailer=trailer(line), diagnosis=by_words)


def _one_line(text: str) -> str:
    """Join what mail clients and terminals broke, and make quotes plain."""
    plain = text[:LONGEST].translate(_QUOTES)
    plain = plain.replace("\\r\\n", " ").replace("\\n", " ")
    plain = _TUPLE.sub(r"\1 ", plain)
    return _SPACES.sub(" ", _CONTINUED.sub(" ", plain)).strip()


def _phase(line: str) -> Phase | None:
    return next((phase for words, phase in _PHASES if re.search(words, line, re.IGNORECASE)), None)


def _replies(line: str) -> Iterator[Reply]:
    """Take each reply with its text up to the next one."""
    marks = list(_WITH_STATUS.finditer(line))
    marks = marks or list(_CODE.finditer(line)) or list(_STATUS.finditer(line))
    for mark, following in zip(marks, [*marks[1:], None], strict=True):
        end = len(line) if following is None else following.start()
        rest = _TAIL.sub("", line[mark.end() : end])
        if mark.re is _WITH_STATUS:
            written = f"{mark[1]} {mark[2]} {rest.strip(' -:')}"
        elif mark.re is _CODE:
            written = f"{mark[1]} {rest.strip()}"
        else:
            # An enhanced status alone has its class for a code: 5.7.139 is some 5yz.
            written = f"{mark[1][0]}50 {mark[1]} {rest.strip(' -:;')}"
        try:
            reply = Reply.from_text(_without_repeats(written))
        except BadReply:
            continue
        yield reply


def _without_repeats(written: str) -> str:
    """Drop the code that a reply of several lines repeats before each line."""
    code = written[:3]
    return written[:4] + re.sub(rf"(?<= ){code}[ -](?=[A-Za-z245])", "", written[4:])


def _by_words(line: str, phase: Phase | None, kind: RouteKind | None) -> Diagnosis | None:
    """Find an entry by its words alone."""
    for entry in CATALOGUE:
        if (
            entry.words is None
            or entry.faults
            or (entry.kinds and kind is not None and kind not in entry.kinds)
        ):
            continue
        if re.search(entry.words, line, re.IGNORECASE):
            code = min(entry.codes, default=550)
            reply = Reply(code=code, enhanced=None, text=line, lines=(line,))
            return entry if entry.enhanced is None else of_reply(reply, phase, kind)
    return None


def _duration(seconds: float) -> str:
    for size, name in ((3600, "hour"), (60, "minute"), (1, "second")):
        if seconds >= size:
            count = round(seconds / size)
            return f"{count} {name}{'s' if count != 1 else ''}"
    return "a moment"
