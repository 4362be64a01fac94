"""What came of one transaction, as values. Nothing here is a judgement.

Refusals are replies and stand in `mail`, `recipients`, `data` and `final`. `fault` says why a transaction ended
before its time; refused recipients and a refusal after the dot are no faults, a refused MAIL or DATA is one,
with the reply in it. The same replies make the same report, however many commands travelled together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from service.mail.address import Address
from service.smtp.faults import SmtpFault
from service.smtp.phase import Phase
from service.smtp.reply import Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came of one transaction."""

    phase: Phase  # the furthest one reached: the one whose reply was awaited
    mail: Reply | None
    recipients: Mapping[Address, Reply]  # those that were answered
    data: Reply | None
    final: Reply | None  # the reply to the dot
    fault: SmtpFault | None  # why the transaction ended before its time
    dot_sent: bool
    fenced: bool  # `before_dot` said no
    untouched: bool  # the session had ended before: nothing was sent, another one will do
    transcript: list[dict[str, str]]  # of this transaction, as the ledger keeps it
    replied_at: datetime | None  # when `final` came
    octets: int  # the size of the content, without stuffing
    number: int = 0  # which transaction of its session, from 1; 0 where nothing was sent
    #: The session ended with the message before, behind whose dot this one's commands were sent: the peer may
    #: have seen them, and has no message. Nobody's fault; another session will do. `session_ended_behind`.
    begun_behind: bool = False

    @property
    def uncertain(self) -> bool:
        """Whether the dot was sent and no usable reply came (RFC 1047)."""
        return self.dot_sent and self.final is None

    @property
    def accepted(self) -> tuple[Address, ...]:
        """The recipients that the peer accepted at RCPT."""
        return tuple(path for path, reply in self.recipients.items() if reply.positive())
