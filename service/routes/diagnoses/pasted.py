r"""Find SMTP replies in any text: a log line, an exception, a report, a terminal's window.

A text is read in two ways, because nobody can see whether a line break stands for a space (a mail
client wrapped the text) or for nothing (a terminal broke a word): `readings` gives both.

In a reading, three kinds of places may be a reply (`candidates`):

- a code with an enhanced status, `550 5.7.1`, `550-5.7.1`, `(550, b'5.7.1`: always one;
- a code alone: only where a program introduces it (`said: 550 …`), or a line begins with it, and
  what follows refuses something;
- an enhanced status alone: only where it is announced (`Status: 5.7.1`, `dsn=5.7.1`) or nearly all
  there is. Elsewhere three numbers with dots may be a version or an address.

Lines of one reply (`550-…`, `550 …`) are put together. A reply ends where the next one begins, at
Microsoft's trailer, at a closing quote if it was quoted, or where the text starts something else.

Every expression here is bounded in what it looks back and ahead, so the time is linear in the text.
"""

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

from service.smtp.phase import Phase
from service.smtp.reply import readable

#: Characters that are looked at; longer texts are cut.
LONGEST = 65_536

#: Characters of a reply that are kept.
_LONGEST_REPLY = 4_096

# Two characters that no text has: Unicode sets them aside for programs.
_END = "\ufdd0"  # here something else begins
_LINE = "\ufdd1"  # here a line began with a number

_PLAIN = str.maketrans(
    {"“": '"', "”": '"', "„": '"', "‘": "'", "’": "'", "«": '"', "»": '"', "`": "'", "\u00a0": " "}
    | {_END: " ", _LINE: " "}
)
_ESCAPED = re.compile(r"\\(?:r\\n|[rn]|u00(2[27]|3[CcEe])|([\"']))")
_QUOTED_PRINTABLE = re.compile(r"=[ \t]{0,8}\r?\n")
_MAIL_QUOTE = re.compile(r"(?m)^[ \t]{0,8}(?:>{1,3} ?){1,8}(?=\S)")
_SOMETHING_ELSE = re.compile(
    r"\n(?=[ \t]{0,8}\n|[ \t]{1,16}at [\w$.<]|[ \t]{0,16}File \"|Traceback |Caused by: |---"
    r"|[A-Z][A-Za-z]{1,20}(?:-[A-Z][A-Za-z]{0,20}){1,3}: |(?:Action|Status|Subject|From|To|Date|Received): )"
)
_LINE_WITH_CODE = re.compile(r"\n[ \t]{0,16}(?=[245]\d\d[ \-])")
_SPACES = re.compile(r"[ \t\r\n\f\v]+")
_SAID_BY_QMAIL = re.compile(r"said:_[245]\d\d")

# -- places that may be a reply ---------------------------------------------------------------

_STATUS = r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?!\.?\d|\w)"
_WITH_STATUS = re.compile(r"(?<![\w.])([245][0-7]\d)([ \-#:,;()\[\]'\"b]{1,6})" + _STATUS)
_CODES = r"(?:2(?:20|21|35|5[0-3])|4(?:2[12]|3[12]|4[1-9]|5[0-9]|71)|5(?:0[0-5]|1[0-7]|2[1-5]|3[0-8]|4[0-6]|5[0-9]|7[0-7]))"
_CODE = re.compile(rf"(?<![\w.,$€£#+/\-])({_CODES})[\"')]{{0,2}}(-|:? |, ?b?['\"])(?=[A-Za-z\"'<(\[])")
_STATUS_ALONE = re.compile(r"(?<![\w.])#?" + _STATUS)
_ONLY_CODE = re.compile(rf"[\s\"'(]{{0,8}}({_CODES})[\s\"').]{{0,8}}")
_ONLY_STATUS = re.compile(
    r"[\s\"'(\[]{0,8}(?:(?:smtp|exchange|online|enhanced|status|code|error|ndr|dsn|reply|number)[\s:=#,]{1,3}){0,5}"
    rf"[\"'(]{{0,2}}#?{_STATUS}[\s\"').,#\]]{{0,8}}",
    re.IGNORECASE,
)

#: How programs announce a reply, up to the code itself.
_ANNOUNCED = re.compile(
    r"(?:(?:(?:exception|error|\b(?:said|says|replied|reply|returned|respon\w{1,6}|answer\w{0,3}|failed|failure|refused|rejected"
    r"|message|login|client|inbound|smtp|data|recipients?|code|stat|result|S))['\")\]>]{0,2} ?[:;=]"
    r"|>:|<<<|<-|<\*\*|<~\*|->)"
    r"|\b(?:returned|said|replied|responded with|code|smtp error))[\s\"'(\[]{0,3}$"
    r"|\bafter (?:RCPT|MAIL|DATA|end|EHLO|HELO|AUTH|initial|pipelined).{0,80}: ?$",
    re.IGNORECASE,
)
_STATUS_LABEL = re.compile(r"(?:\b(?:status|dsn)[ :=]{1,3}|smtp[;:] ?|#)$", re.IGNORECASE)
_INTRODUCED = re.compile(r"(?:exception|error|response was|status)\w{0,2}: ?$", re.IGNORECASE)
_BEGINS = re.compile(rf"(?:^|{_LINE})[\s\"'(\[]{{0,4}}$")
_REFUSES = re.compile(
    r"denied|refus|reject|unavailable|unknown|block|gr[ae]ylist|\blater\b|too (?:many|large|big|much)|exceed|disabled"
    r"|invalid|unable|cannot|can't|no such|not (?:accept|allow|permit|found|exist|authen|deliver|local|our|availab|relay)"
    r"|relay|quota|over limit|temporar|time-?d? ?out|closing|polic|bad (?:sequence|address|helo|command|recipient|sender)"
    r"|syntax|must |require|unrecognized|not implemented|doesn't|does not|sorry|banned|is full|unrout|try again|spam"
    r"|busy|deferred|authenticat|go away|no mailbox|^no[.!]?$|^later[.!]?$",
    re.IGNORECASE,
)
_TAKES = re.compile(r"^(?:ok\b|.{0,80}(?:queued|accepted|E?SMTP\b|sender|recipient))", re.IGNORECASE)
_OF_THE_WEB = re.compile(
    r"^\W{0,2}(?:internal server error|not implemented\W{0,3}$|bad gateway|service unavailable\W{0,3}$|gateway time-?out"
    r"|http |range not|unavailable for legal)",
    re.IGNORECASE,
)
_MAIL = re.compile(
    r"smtp|mail|rcpt|recipient|sender|relay|postfix|exim|sendmail|qmail|[eh][he]lo\b|such user|gr[ae]ylist|spam"
    r"|said:|outlook|tenant|invalid login",
    re.IGNORECASE,
)

# -- where a reply ends -----------------------------------------------------------------------

_TRAILER = re.compile(
    r"\[(?:[A-Za-z0-9.\-]{3,255} \d{4}-\d\d-\d\dT[\d:.]{8,16}Z [0-9A-F]{14,16}"
    r"|(?:InternalId=\d{1,20}, )?Hostname=[^\]]{1,255}"
    r"|(?:[A-Za-z0-9\-]{1,63}\.){2,8}(?i:outlook|exchangelabs|office365)\.[A-Za-z]{2,3})\]"
)
_CLOSING = {"'": re.compile(r"'(?=\W|$)"), '"': re.compile(r"\"(?=\W|$)")}
_IN_REPLY_TO = re.compile(r"\(in reply to ([^)]{1,60}?)(?: command)?\)")
_LEADING, _TRAILING = " -:;,\"'", " \"'}"

# -- phases -----------------------------------------------------------------------------------

_HINTS = re.compile(
    r"(?P<reply>end of (?:data|message)|end-of-data|DATA END|final dot|SMTPDataError|message failed|MessageNotAccepted)"
    r"|(?P<rcpt>\bRCPT\b|SMTPRecipientsRefused|SMTPAddressFailed|SmtpFailedRecipient|recipients? w\w{2,3} re\w{4,6}"
    r"|recipient command failed|RecipientNotAccepted|does.not.like.recipient)"
    r"|(?P<mail>\bMAIL FROM\b|SMTPSenderRefused|SMTPSenderFailed|mail command failed|SenderNotAccepted)"
    r"|(?P<auth>\b(?-i:AUTH)\b|SMTPAuthentication|AuthenticationFailed|invalid login|password command failed"
    r"|could not authenticate)"
    r"|(?P<starttls>\bSTARTTLS\b)"
    r"|(?P<ehlo>\b(?-i:EHLO|HELO)\b|SMTPHelo)"
    r"|(?P<data>\b(?-i:DATA)\b)"
    r"|(?P<greeting>initial connection|SMTPConnectError|refused to talk to me)",
    re.IGNORECASE,
)
_AT_LOGIN = frozenset({235, 534, 535, 538})


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A place in a text that reads like a reply; code or status are None where they are not there."""

    code: int | None
    enhanced: str | None
    text: str
    phase: Phase | None  # where the text around it tells
    introduced: bool = False  # a status alone that a colon introduces, as after the name of an exception

    @property
    def refuses(self) -> bool:
        """Say whether it is a 4yz or 5yz."""
        return not str(self.code or self.enhanced).startswith("2")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mark:
    """Where a reply begins: its digits, and what stood between and before them."""

    start: int
    end: int
    code: int | None
    enhanced: str | None
    gap: str = ""
    labelled: bool = False  # a status that was announced by its name: no text of a reply follows


def readings(text: str) -> tuple[str, ...]:
    """Read a text as one line: line breaks as spaces, and if there are any, also as nothing."""
    plain = html.unescape(text[:LONGEST])[:LONGEST].translate(_PLAIN)
    plain = _ESCAPED.sub(_unescaped, plain)
    plain = readable(plain, keep="\r\n")
    plain = _MAIL_QUOTE.sub("", _QUOTED_PRINTABLE.sub("", plain.replace("\r\n", "\n").replace("\r", "\n")))
    if _SAID_BY_QMAIL.search(plain):
        plain = plain.replace("_", " ")
    plain = _SOMETHING_ELSE.sub("\n" + _END, plain.strip())
    plain = _LINE_WITH_CODE.sub("\n" + _LINE, plain)
    spaced = _SPACES.sub(" ", plain)
    glued = _SPACES.sub(" ", plain.replace("\n", ""))
    return (spaced,) if spaced == glued else (spaced, glued)


def candidates(line: str) -> Iterator[Candidate]:
    """Take the replies out of one reading, in their order."""
    whole = without_signs(line)
    if (only := _ONLY_CODE.fullmatch(whole)) is not None:
        yield Candidate(code=int(only[1]), enhanced=None, text="", phase=None)
        return
    if (only := _ONLY_STATUS.fullmatch(whole)) is not None:
        yield Candidate(code=None, enhanced=only[1], text="", phase=None)
        return
    marks = list(_replies(line))
    for place, mark in enumerate(marks):
        before = marks[place - 1] if place else None
        if before is not None and _goes_on(before, mark):
            continue
        yield _candidate(line, marks, place)


def without_signs(line: str) -> str:
    """Take out the signs that `readings` puts in."""
    return line.replace(_END, " ").replace(_LINE, "")


def status_places(line: str) -> Iterator[Candidate]:
    """Take every status that stands alone, with what follows it: some are versions or addresses."""
    marks = [mark for mark in _marks(line) if mark.enhanced is not None]
    for mark, following in zip_longest(marks, marks[1:]):
        end = len(line) if following is None else following.start
        if mark.code is None:
            text = _text(line, mark, end)
            yield Candidate(
                code=None,
                enhanced=mark.enhanced,
                text=text,
                phase=_phase(line, mark, end),
                introduced=_INTRODUCED.search(line[max(0, mark.start - 60) : mark.start]) is not None,
            )


def _unescaped(found: "re.Match[str]") -> str:
    if found[1]:
        return chr(int(found[1], 16))
    return found[2] or "\n"


def _replies(line: str) -> Iterator[_Mark]:
    """Take the marks that are replies, in their order."""
    context = _MAIL.search(line) is not None
    last: _Mark | None = None
    for mark in _marks(line):
        if mark.code is not None and mark.enhanced is not None:
            # Exchange Online names the true reason of a 530 5.7.57 inside of it; the catalogue reads that.
            hides = last is not None and last.enhanced == "5.7.57" and line.endswith("Error: ", 0, mark.start)
            accepted = not hides
        elif mark.code is not None:
            accepted = (last is not None and _goes_on(last, mark)) or _is_reply(line, mark, context=context)
        else:
            accepted = mark.labelled
        if accepted:
            yield mark
            last = mark


def _marks(line: str) -> Iterator[_Mark]:
    """Take every place with a code, a status or both, in their order, none within another."""
    both = [
        _Mark(start=found.start(), end=found.end(), code=int(found[1]), enhanced=found[3], gap=found[2])
        for found in _WITH_STATUS.finditer(line)
    ]
    starts, ends = {mark.start for mark in both}, {mark.end for mark in both}
    codes = [
        _Mark(start=found.start(), end=found.end(), code=int(found[1]), enhanced=None, gap=found[2])
        for found in _CODE.finditer(line)
        if found.start() not in starts
    ]
    statuses = [
        _Mark(
            start=found.start(),
            end=found.end(),
            code=None,
            enhanced=found[1],
            labelled=_STATUS_LABEL.search(line[max(0, found.start(1) - 40) : found.start(1)]) is not None,
        )
        for found in _STATUS_ALONE.finditer(line)
        if found.end() not in ends
    ]
    return iter(sorted([*both, *codes, *statuses], key=lambda mark: mark.start))


def _goes_on(mark: _Mark, following: _Mark) -> bool:
    """Say whether the second is a further line of the first: `550-…`, `550 …`."""
    return mark.gap.startswith("-") and following.code == mark.code


def _is_reply(line: str, mark: _Mark, *, context: bool) -> bool:
    """Say whether a code without a status is one: numbers stand in many texts."""
    before, after = (
        line[max(0, mark.start - 100) : mark.start],
        without_signs(line[mark.end : mark.end + 160]),
    )
    begins = _BEGINS.search(before) is not None
    if mark.code is not None and mark.code < 400:
        return begins and _TAKES.search(after) is not None
    of_python = mark.gap.startswith(",") and before.endswith("(")  # (550, b'…')
    announced = context and (of_python or _ANNOUNCED.search(before) is not None)
    if not (begins or announced) or _REFUSES.search(after.split(_END)[0].strip()) is None:
        return False
    return context or _OF_THE_WEB.search(after) is None


def _candidate(line: str, marks: list[_Mark], place: int) -> Candidate:
    """Put a reply together out of its lines."""
    first, parts, enhanced = marks[place], [], marks[place].enhanced
    for index in range(place, len(marks)):
        mark = marks[index]
        if index > place and not _goes_on(marks[index - 1], mark):
            break
        end = marks[index + 1].start if index + 1 < len(marks) else len(line)
        enhanced = enhanced or mark.enhanced
        parts.append("" if mark.labelled and mark.code is None else _text(line, mark, end))
        if sum(map(len, parts)) > _LONGEST_REPLY:
            break
    text = " ".join(part for part in parts if part)[:_LONGEST_REPLY]
    phase = _phase(line, first, end)
    if phase is None and first.code in _AT_LOGIN:
        phase = Phase.AUTH
    return Candidate(code=first.code, enhanced=enhanced, text=text, phase=phase)


def _text(line: str, mark: _Mark, end: int) -> str:
    """Take what a reply says, without what the program around it wrote."""
    text = line[mark.end : min(end, mark.end + _LONGEST_REPLY)].split(_END, maxsplit=1)[0]
    opened = (mark.gap.rstrip() or line[max(0, mark.start - 4) : mark.start].rstrip())[-1:]
    quote = _CLOSING.get(opened)
    if quote is not None and (closed := quote.search(text)) is not None:
        text = text[: closed.start()]
    if (said := _IN_REPLY_TO.search(text)) is not None:
        text = text[: said.start()]
    trailers = list(_TRAILER.finditer(text))
    if trailers:
        text = text[: trailers[-1].end()]
    return without_signs(text).strip(_LEADING).rstrip(_TRAILING)


def _phase(line: str, mark: _Mark, end: int) -> Phase | None:
    """Say at which command a reply came: what follows it, then the last hint before it."""
    after = line[mark.end : min(end, mark.end + _LONGEST_REPLY)]
    if (said := _IN_REPLY_TO.search(after)) is not None:
        hints = list(_HINTS.finditer(said[1]))
    else:
        hints = list(_HINTS.finditer(line[max(0, mark.start - 300) : mark.start]))
    if not hints:
        return None
    name = hints[-1].lastgroup
    return None if name is None else Phase.named(name)
