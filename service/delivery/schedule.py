"""When to try again: pure functions of how often it failed and of what was said.

A recipient that failed by itself waits as `retry` says, or as the diagnosis does where that
knows better (a throttle, a window, an administrator). What rests as a whole (a lane, a sender,
the tenant's external mail) waits as the diagnosis says. The catalogue's waits are those for
Microsoft 365; `Policy.scale` shrinks them together where the configuration is in a hurry, so
that a rehearsal against a sandbox meets each of them within its own cap.
"""

from dataclasses import dataclass

from service.routes.diagnoses import Class, Diagnosis

#: The cap of the retries for which the catalogue's waits are meant, in seconds.
_USUAL_CAP = 900.0

#: The first rest where no reply came at all, in seconds: most of what breaks so is back in moments.
_NO_ANSWER = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """The waits between tries, in seconds: `first`, then `factor` times longer each, up to `cap`.

    `first` may exceed `cap`: a long rest, and then shorter ones for as long as it goes on.
    """

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

    @property
    def scale(self) -> float:
        """By how much the catalogue's waits are shortened, at most 1."""
        return min(1.0, self.retry.cap / _USUAL_CAP)


def wait_before(tries: int, *, retry: Retry, jitter: float) -> float:
    """Say how many seconds to wait after `tries` failures (1 after the first).

    `jitter` in [-1, 1] moves the wait by up to a fifth of itself, so that what failed together
    does not come back together. With the defaults the waits are 30 s, 1, 2, 4, 8 min, and
    then 15 min each. RFC 5321 §4.5.4.1 asks for 30 minutes towards strangers; our peer is
    one service that told us to come back, so we start sooner. The message's `expires_at`
    ends the tries, not a count.
    """
    if tries <= 1:
        return float(retry.first * (1 + jitter / 5))
    grown = retry.first * retry.factor ** min(tries - 1, 30)
    return float(min(grown, retry.cap) * (1 + jitter / 5))


def rest_for(diagnosis: Diagnosis, policy: Policy) -> Retry:
    """Say how long to rest what this diagnosis touches, the first time and when it goes on."""
    if min(diagnosis.first, diagnosis.cap) <= 0:
        return policy.retry  # an entry that expected nobody to wait
    first, cap = diagnosis.first * policy.scale, diagnosis.cap * policy.scale
    if diagnosis.kind is Class.T1 and diagnosis.waits is None:
        # Who wants the first retry sooner than usual wants the first probe so, too. And where nobody
        # answered there is nobody whom an early probe could annoy.
        first = min(first, _NO_ANSWER if diagnosis.faults else first, policy.retry.first)
    return Retry(first=first, factor=max(diagnosis.factor, 1.0), cap=cap)


def retry_for(diagnosis: Diagnosis, policy: Policy) -> Retry:
    """Say how a recipient waits between its own tries."""
    usual = diagnosis.kind is Class.T1 and diagnosis.waits is None
    return policy.retry if usual else rest_for(diagnosis, policy)
