"""Wrong keys: counted for each client, answered more and more slowly, and then not looked at.

Each client has a bucket of strikes. A wrong key adds one, time takes one away every few seconds. The
first few are answered at once (a person mistypes), the next ones later and later, up to a bound at which
every answer still comes within a second. A full bucket means 429 with Retry-After, without a look into
the ledger, until a strike has run out; then one more guess is looked at, and so on.

Nothing here slows a good key down: who waits is the one who was refused. Clients are addresses, of
IPv6 their /64; the least recent are forgotten when there are too many. The counts are this process's own.
"""

import math
import time
from collections import Counter, OrderedDict
from collections.abc import Callable

#: Wrong keys that are answered at once.
FREE = 4

#: The first delay, in seconds; each further one is twice as long, up to LONGEST.
FIRST_DELAY = 0.05
LONGEST_DELAY = 0.7

#: Strikes that fill a bucket.
BOUND = 20

#: Seconds in which one strike runs out: a full bucket is empty again after three minutes.
RUNS_OUT = 9.0

#: Clients that are remembered.
CLIENTS = 10_000


class WrongKeys:
    """The strikes of every client, and the sum of what was refused."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` counts seconds and never goes back."""
        self._clock = clock
        self._strikes: OrderedDict[str, tuple[float, float]] = OrderedDict()  # strikes, at
        #: What was refused since the process began, by the code of the refusal.
        self.refused: Counter[str] = Counter()

    def rest(self, client: str) -> int:
        """Say for how many seconds this client's unknown keys are not looked at; 0 where they are."""
        excess = self._now(client) - (BOUND - 1)
        return math.ceil(excess * RUNS_OUT) if excess > 0 else 0

    def strike(self, client: str) -> float:
        """Count a wrong key; return the seconds to wait before it is answered."""
        strikes = self._now(client) + 1
        self._strikes[client] = (strikes, self._clock())
        self._strikes.move_to_end(client)
        if len(self._strikes) > CLIENTS:
            self._strikes.popitem(last=False)
        if strikes <= FREE:
            return 0.0
        return min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** (math.floor(strikes) - FREE - 1))

    def _now(self, client: str) -> float:
        strikes, at = self._strikes.get(client, (0.0, 0.0))
        return max(0.0, strikes - (self._clock() - at) / RUNS_OUT)
