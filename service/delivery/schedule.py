"""When to try again: a pure function of how often it failed."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """The waits between tries of one recipient, in seconds."""

    first: float
    factor: float
    cap: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Everything that dispatch is told about time, in seconds."""

    lease: float
    poll_interval: float
    retry: Retry
    uncertain_after: float
    shutdown_grace: float
    idle_session: float = 15.0  # an unused session is closed after this long


def wait_before(tries: int, *, retry: Retry, jitter: float) -> float:
    """Say how many seconds to wait after `tries` failures (1 after the first).

    `jitter` in [-1, 1] moves the wait by up to a fifth of itself, so that what failed together
    does not come back together. With the defaults the waits are 30 s, 1, 2, 4, 8 min, and
    then 15 min each. RFC 5321 §4.5.4.1 asks for 30 minutes towards strangers; our peer is
    one service that told us to come back, so we start sooner. The message's `expires_at`
    ends the tries, not a count.
    """
    grown = retry.first * retry.factor ** min(tries - 1, 30)
    return float(min(grown, retry.cap) * (1 + jitter / 5))
