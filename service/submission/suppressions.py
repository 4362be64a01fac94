"""Suppressions at the door: who of a message's recipients gets no mail, and why.

`Suppressed` is asked for every message. Most applications suppress nobody, so it remembers for a second
whether an application has any entry; what this process adds or lifts it knows at once, and what another one
adds in that second is found by the worker's sweep.
"""

import time
from collections.abc import Collection

from service.ledger import Ledger
from service.ledger.suppressions import Suppression
from service.routes.diagnoses.suppressed import suppressed
from service.submission.door import Budget

#: How long it is remembered that an application suppresses nobody, in seconds.
_REMEMBERED = 1.0

#: Applications that are remembered at the most.
_MOST = 10_000


class Suppressed:
    """Who gets no mail; one for each process."""

    def __init__(self, ledger: Ledger) -> None:
        self._suppressions = ledger.suppressions
        self._none_until: dict[str, tuple[float, int]] = {}

    async def among(self, application: str, keys: Collection[str], budget: Budget) -> dict[str, Suppression]:
        """Find those of these addresses, in their comparison form, that get no mail of the application."""
        changes = self._suppressions.changes
        until, seen = self._none_until.get(application, (0.0, -1))
        if seen == changes and time.monotonic() < until:
            return {}
        if not await budget.spend(self._suppressions.any_for(application)):
            if len(self._none_until) >= _MOST:
                self._none_until.clear()
            self._none_until[application] = (time.monotonic() + _REMEMBERED, changes)
            return {}
        return await budget.spend(self._suppressions.among(application, keys))


def error_of(entry: Suppression) -> dict[str, object]:
    """Write the error that a recipient shows which this entry suppresses."""
    return suppressed(
        entry.code,
        suppression_id=entry.id,
        address=entry.address,
        reason=entry.reason,
        until=entry.expires_at,
    )
