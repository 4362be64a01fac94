"""What the door demands of a request before it looks inside."""

from dataclasses import dataclass
from datetime import timedelta

from service.submission.who.peers import Network


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmissionLimits:
    body_octets: int  # of one request
    body_seconds: float  # that a request's body may take to arrive
    expires_after: timedelta  # a message that says nothing else is given up after this
    queue_limit: int  # deliveries that may wait before the door closes
    ledger_seconds: float = 1.7  # one request's whole patience with the ledger; 503 comes within 2 s
    longest_life: timedelta = timedelta(days=30)  # the furthest `expires_at`, from when it may be sent
    longest_schedule: timedelta = timedelta(days=30)  # the furthest `scheduled_at`
    recipients: int = 1000  # of one message, over to, cc and bcc (Exchange Online's own maximum)
    recipients_together: int = 5_000  # of all messages of one request, a batch or a merge
    batch: int = 500  # messages of one batch
    waiters: int = 200  # requests that wait for their message's end (`Prefer: wait`) at a time
    bodies_octets: int = 256 * 1024 * 1024  # of all requests' bodies in hand together
    trusted_proxies: tuple[Network, ...] = ()  # whose X-Forwarded-For says who the client is

    @property
    def together_octets(self) -> int:
        """The octets that all messages of one request may have, as they go over the wire: a merge has many."""
        return max(64 * 1024 * 1024, 3 * self.body_octets // 2)
