"""How a database stands towards this version of the service: what a process asks when it starts.

ready        at the schema that this version needs
newer        at one that this version does not know: that is a rolling update, or a release that was taken
             back, and works, because each schema tolerates the release before (docs/upgrade.md)
older        `postroom migrate` was not run yet
empty        it has no tables at all
read_only    it takes no writes
unavailable  it cannot be asked
"""

from dataclasses import dataclass
from typing import Literal

from service.ledger import migrate
from service.ledger.engine import LedgerUnavailable
from service.ledger.ledger import Ledger
from service.ledger.reasons import READ_ONLY, why

State = Literal["ready", "newer", "older", "empty", "read_only", "unavailable"]

_MIGRATE = "Run `postroom migrate`."


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What was found, and what to do about it: sentences without any part of the configuration."""

    state: State
    detail: str
    remedy: str | None = None  # None: nothing

    @property
    def usable(self) -> bool:
        """Whether this version can work with it."""
        return self.state in {"ready", "newer"}


async def standing(ledger: Ledger) -> Standing:
    """Ask the database; never raises for what an operator can mend."""
    try:
        found, writable = await ledger.revision(), await ledger.writable()
    except LedgerUnavailable as gone:
        reason = why(gone)
        return Standing(state="unavailable", detail=reason.detail, remedy=reason.remedy)
    return judged(found, writable=writable)


def judged(found: str | None, *, writable: bool) -> Standing:
    """Say what a revision means to this version."""
    wanted = migrate.head()
    if found is None:
        return Standing(state="empty", detail="The database has no tables yet.", remedy=_MIGRATE)
    if found != wanted and found in migrate.revisions():
        detail = f"The database is at revision {found}, and this version needs {wanted}."
        return Standing(state="older", detail=detail, remedy=_MIGRATE)
    if not writable:
        return Standing(state="read_only", detail=READ_ONLY.detail, remedy=READ_ONLY.remedy)
    if found != wanted:
        return Standing(
            state="newer",
            detail=f"The database is at revision {found}, which is newer than this version ({wanted}).",
            remedy="That is usual during a rolling update; otherwise update this process.",
        )
    return Standing(state="ready", detail=f"PostgreSQL is at revision {found} and takes writes.")
