"""Small pictures, drawn on the server: how busy a lane was in the last hours, and how full a budget is.

A picture is a handful of numbers for the template, which writes them as SVG attributes: no script draws, no style is
inline. Slots that are over are counted once in a process and remembered.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from service.ledger import Ledger

_SLOT = timedelta(minutes=10)
_SLOTS = 36  # six hours

#: The picture's size, in its own units.
WIDTH, HEIGHT = 360, 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """The attempts of a lane over the last hours, oldest first."""

    line: str  # the outline as an SVG path
    most: int  # of a slot
    total: int
    since: datetime


class Plots:
    """Draws the lanes of a process."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._counted: dict[str, dict[int, int]] = {}
        self._until: dict[str, int] = {}  # slots before this one are over, and counted

    async def of(self, lanes: Sequence[str]) -> Mapping[str, Plot]:
        """Draw these lanes; raises LedgerUnavailable where counting takes too long."""
        now = int(datetime.now(UTC).timestamp() // _SLOT.total_seconds())
        first = now - _SLOTS + 1
        since = max(first, min((self._until.get(lane, first) for lane in lanes), default=first))
        fresh = await self._ledger.trends.attempts(list(lanes), since=_at(since), slot=_SLOT)
        plots = {}
        for lane in lanes:
            kept = {
                slot: count for slot, count in self._counted.get(lane, {}).items() if first <= slot < since
            }
            counts = self._counted[lane] = kept | fresh[lane]
            self._until[lane] = (
                now - 1
            )  # what ended in the last moment of a slot may be written in the next one
            plots[lane] = _drawn([counts.get(slot, 0) for slot in range(first, now + 1)], since=_at(first))
        return plots


def _drawn(counts: Sequence[int], *, since: datetime) -> Plot:
    """Draw steps from left to right, on the ground where nothing happened."""
    most = max(counts, default=0)
    width = WIDTH / len(counts)
    parts = [f"M0 {HEIGHT}"]
    for number, count in enumerate(counts):
        top = HEIGHT - (0 if most == 0 else round((HEIGHT - 4) * count / most, 1))
        parts.append(f"V{top:g}H{round(width * (number + 1), 1):g}")
    return Plot(line="".join([*parts, f"V{HEIGHT}Z"]), most=most, total=sum(counts), since=since)


def _at(slot: int) -> datetime:
    return datetime.fromtimestamp(slot * _SLOT.total_seconds(), UTC)
