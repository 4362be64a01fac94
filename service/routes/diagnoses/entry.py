"""One entry of the catalogue: what it is recognised by, what it says, and what dispatch does about it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from typing import Any, Literal

from service.routes.route import RouteKind
from service.smtp.phase import Phase
from service.smtp.reply import Reply

Who = Literal["application", "exchange_admin", "entra_admin", "network", "operator", "nobody"]


class Class(StrEnum):
    """What kind of trouble it is."""

    T1 = "T1"  # passing trouble of the service: again soon
    T2 = "T2"  # a throttle: slow down, again in minutes
    T3 = "T3"  # a window is used up: again when it frees
    A = "A"  # an administrator must act; more tries make it worse
    PM = "PM"  # this message will never be taken
    PR = "PR"  # this recipient never
    CFG = "CFG"  # our own settings or dialogue are wrong


class Scope(StrEnum):
    """What the trouble touches, and so what rests or fails."""

    LANE = "lane"  # everything on this lane
    SENDER = "sender"  # this reverse-path on this lane
    EXTERNAL = "external"  # every external recipient of the tenant
    MESSAGE = "message"
    RECIPIENT = "recipient"
    SPLIT = "split"  # nothing but the number of recipients: the same again, in smaller transactions


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """Seconds until the next try or probe, for Microsoft 365's own pace."""

    first: float
    factor: float = 2.0
    cap: float


MINUTE, HOUR = 60.0, 3600.0

_WAITS: Mapping[Class, Waits] = {
    Class.T1: Waits(first=30.0, cap=15 * MINUTE),
    Class.T2: Waits(first=5 * MINUTE, cap=HOUR),
    Class.T3: Waits(first=HOUR, factor=1.0, cap=HOUR),
    Class.A: Waits(first=15 * MINUTE, cap=HOUR),
    Class.CFG: Waits(first=15 * MINUTE, cap=HOUR),
    Class.PM: Waits(first=15 * MINUTE, cap=HOUR),
    Class.PR: Waits(first=15 * MINUTE, cap=HOUR),
}

_SCOPES: Mapping[Class, Scope] = {
    Class.T1: Scope.MESSAGE,
    Class.T2: Scope.LANE,
    Class.T3: Scope.LANE,
    Class.A: Scope.LANE,
    Class.CFG: Scope.LANE,
    Class.PM: Scope.MESSAGE,
    Class.PR: Scope.RECIPIENT,
}


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """One entry. `{mailbox}`, `{sender}`, `{recipient}`, `{host}`, … stand for the real names.

    It is recognised where everything that it names fits: the code, the whole enhanced status,
    words (a regular expression, searched without regard to case), the phase, and the kind of
    route; where the phase or the kind is not known, only what names none. An entry that is
    `reported` speaks of non-delivery reports and fits where there is no phase: the same digits in a
    dialogue are no more than what they say. An entry with `faults` speaks of no reply, but of
    faults of that code.
    """

    id: str
    title: str
    explanation: str
    who: Who
    remedy: tuple[str, ...]  # never empty; where nobody must act: what happens by itself
    kind: Class
    source: str
    codes: frozenset[int] = frozenset()
    enhanced: str | None = None
    words: str | None = None
    phases: frozenset[Phase] = frozenset()
    kinds: frozenset[RouteKind] = frozenset()
    faults: frozenset[str] = frozenset()
    reported: bool = False
    touches: Scope | None = None  # None: what its class usually touches
    waits: Waits | None = None  # None: what its class usually waits
    with_password: tuple[str, ...] = ()  # the remedy where the login is a password; empty: the same one
    doubt: str | None = None  # what of it is unverified; None: as much as its source leaves open

    @property
    def code(self) -> str:
        """The stable name in errors: the id without its family."""
        return self.id.split(".", 1)[1]

    @property
    def scope(self) -> Scope:
        """What rests or fails."""
        return self.touches or _SCOPES[self.kind]

    @property
    def first(self) -> float:
        """Seconds until the next try or probe."""
        return (self.waits or _WAITS[self.kind]).first

    @property
    def factor(self) -> float:
        """By how much each wait is longer than the one before."""
        return (self.waits or _WAITS[self.kind]).factor

    @property
    def cap(self) -> float:
        """Seconds that no later wait exceeds; `first` may, where a long rest comes before shorter ones."""
        return (self.waits or _WAITS[self.kind]).cap

    @cached_property
    def _words(self) -> "re.Pattern[str] | None":
        return None if self.words is None else re.compile(self.words, re.IGNORECASE)

    @cached_property
    def _enhanced(self) -> "re.Pattern[str] | None":
        return None if self.enhanced is None else re.compile(self.enhanced)

    def matches(self, reply: Reply, phase: Phase | None, kind: RouteKind | None) -> bool:
        """Say whether this entry speaks of the reply."""
        return (
            not self.faults
            and not (self.reported and phase is not None)
            and (not self.codes or reply.code in self.codes)
            and (not self.phases or phase in self.phases)
            and (not self.kinds or kind in self.kinds)
            and (self._enhanced is None or self._enhanced.fullmatch(reply.enhanced or "") is not None)
            and (self._words is None or self._words.search(reply.text) is not None)
        )

    def _remedy(self, names: Mapping[str, str]) -> tuple[str, ...]:
        return self.with_password if self.with_password and names.get("login") == "password" else self.remedy

    def as_json(self, names: Mapping[str, str]) -> dict[str, object]:
        """Write the diagnosis with the real names filled in; those in its remedies are safe to paste."""
        doubt = self.doubt or _DOUBTS.get(self.source)
        return {
            "id": self.id,
            "title": _filled(self.title, names),
            "explanation": _filled(self.explanation, names) + (f" Unverified: {doubt}." if doubt else ""),
            "who": self.who,
            "remedy": [_filled(step, names, quoted=True) for step in self._remedy(names)],
            "source": self.source,
        }


#: What PowerShell takes as one plain word: `-` at its beginning would be a parameter, `@` a splat.
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9@._+\-]*")
#: What PowerShell takes for a single quote, the typographic ones included.
_QUOTES = re.compile("(['\u2018\u2019\u201a\u201b])")


def _filled(template: str, names: Mapping[str, str], *, quoted: bool = False) -> str:
    def name(match: re.Match[str]) -> str:
        value = "".join(char if char.isprintable() else " " for char in names.get(match[1]) or "")
        if not value:
            return f"<{match[1]}>"
        if quoted and not _PLAIN.fullmatch(value):
            # PowerShell takes a single-quoted string word for word; a quote in it is doubled.
            return "'" + _QUOTES.sub(r"\1\1", value) + "'"
        return value

    return re.sub(r"\{(\w+)\}", name, template)


def also(entry: Diagnosis, **other: Any) -> tuple[Diagnosis, Diagnosis]:
    """Give an entry a second way to be recognised: `other` instead of its own code, status and words."""
    return entry, replace(entry, **({"codes": frozenset(), "enhanced": None, "words": None} | other))


def phases(*names: str) -> frozenset[Phase]:
    """Write a set of phases by their words."""
    return frozenset(Phase[name.upper()] for name in names)


OPENING = phases("connect", "greeting", "ehlo", "starttls")
ENVELOPE = phases("mail", "rcpt")
CONTENT = phases("data", "body", "dot", "reply")

SUBMISSION = frozenset({RouteKind.CLIENT_SUBMISSION})
DIRECT_SEND = frozenset({RouteKind.DIRECT_SEND})
RELAY = frozenset({RouteKind.SMTP_RELAY})
MX = DIRECT_SEND | RELAY
SMARTHOST = frozenset({RouteKind.SMARTHOST})
HIGH_VOLUME = frozenset({RouteKind.HIGH_VOLUME_EMAIL})
AZURE = frozenset({RouteKind.AZURE_COMMUNICATION_SERVICES})

WAITS_BY_ITSELF = "Nobody has to act: Postroom tries again by itself until the message expires."
USE_OAUTH = "Change the mailbox's login in Postroom to `method: oauth`."

# Where Microsoft says so. Titles of pages on learn.microsoft.com, as they were in November 2026.
GUIDE = "Microsoft: How to set up a multifunction device or application to send email using Microsoft 365"
FIX = (
    "Microsoft: Fix issues with printers, scanners, and LOB applications that send email using Microsoft 365"
)
NDR = "Microsoft: Email non-delivery reports and SMTP errors in Exchange Online"
IMPROVEMENTS = "Microsoft: Improvements in SMTP client submission"
CONTINUOUS = "Microsoft: Sender throttled due to continuous errors (550 5.2.251 to 5.2.255)"
OAUTH = "Microsoft: Authenticate an IMAP, POP or SMTP connection using OAuth"
RELAY_RULES = "Microsoft: Updated requirements for SMTP relay through Exchange Online"
REJECT_DIRECT_SEND = "Microsoft: Introducing more control over Direct Send in Exchange Online"
TERRL = "Microsoft: Tenant External Recipient Rate Limit (TERRL)"
HVE = "Microsoft: Manage high volume emails for Microsoft 365; the reply from one source"
ACS = "Microsoft: Service limits for Azure Communication Services"
ACS_LOGIN = "Microsoft: Create credentials for Simple Mail Transfer Protocol (SMTP) authentication"
BUSY = "Microsoft: 4.7.500-4.7.699 server busy"
ATTR35 = "Microsoft: Mail sent to the wrong Office 365 region (ATTR35)"
LEGACY_TLS = "Microsoft: Opt in to the Exchange Online endpoint for legacy TLS clients"
EXCHANGE = "the wording of Exchange Server's transport, whose lineage Exchange Online shares"
SEEN = "public logs of others"
ONE_SOURCE = "one source outside Microsoft"

#: What is left open by everything that rests on such a source.
_DOUBTS: Mapping[str, str] = {
    EXCHANGE: "the wording is known from Exchange Server, not from Exchange Online",
    HVE: "the reply is known from one source, not from Microsoft's pages",
    SEEN: "the reply is known from logs, not from Microsoft's pages",
    ONE_SOURCE: "the reply is known from one source, not from Microsoft's pages",
}
LATE = "at which point of the dialogue it comes"
