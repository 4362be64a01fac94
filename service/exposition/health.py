"""Whether a process can do its work: what /readyz answers, of an API and of a worker.

Without Redis it can (`degraded`: what no bell rings for, the sweep finds some seconds later); without a usable
ledger it cannot.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from service.ledger import Ledger, LedgerUnavailable, migrate


class Health(Protocol):
    """What is asked beside the ledger."""

    revision: str  # the schema that this version needs

    async def redis(self) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """The answer of /readyz."""

    status: int  # of HTTP
    body: dict[str, Any]


async def readiness(
    ledger: Ledger, health: Health, *, spend: Callable[[Awaitable[Any]], Awaitable[Any]]
) -> Readiness:
    """Ask everything that is needed; `spend` waits for the ledger, and raises LedgerUnavailable in good time."""
    checks = {"ledger": "ok", "schema": "ok", "redis": "ok"}
    try:
        if not await spend(ledger.writable()):
            checks["ledger"] = "read-only"
        found = await spend(ledger.revision())
        if found is not None and found not in migrate.revisions():
            # A rolling update, or a release that was taken back: the newer schema tolerates us (docs/upgrade.md).
            checks["schema"] = f"at {found}, newer than {health.revision}"
        elif found != health.revision:
            checks["schema"] = f"at {found or 'nothing'}, needs {health.revision}: run `postroom migrate`"
    except LedgerUnavailable:
        checks["ledger"] = "unavailable"
    if not await health.redis():
        checks["redis"] = "unavailable"
    if checks["ledger"] != "ok" or checks["schema"].endswith("`postroom migrate`"):
        return Readiness(status=503, body={"status": "unavailable", "checks": checks})
    status = "ready" if checks["redis"] == "ok" else "degraded"
    return Readiness(status=200, body={"status": status, "checks": checks})
