"""Room for the contents in hand: what a worker holds in memory of large messages, bounded for all its lanes together.

An attempt takes room before it reads its message's octets from the ledger and gives it back when it is over. Where
there is none it waits, with its lease renewed and before the first octet of a dialogue, so that waiting is no try
and costs nothing but time. Small messages never wait: they are bounded by the number of connections.

One lane has half of the room, so that a route that stalls with large messages leaves the other half to the others.
Who came first goes first, unless only its own lane keeps it waiting. A message that is larger than its lane's half,
or than all of the room, goes when nothing else of its lane, or nothing at all, is in hand.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

#: Octets up to which a message is small.
SMALL = 256 * 1024


@dataclass(eq=False, slots=True, kw_only=True)
class _Turn:
    """A message that waits."""

    lane: str
    octets: int
    granted: asyncio.Event


class Room:
    """The room of one worker. Belongs to one event loop."""

    def __init__(self, octets: int) -> None:
        """Take how many octets of large messages may be in hand together."""
        self._octets = octets
        self._held: Counter[str] = Counter()  # octets, by lane
        self._turns: list[_Turn] = []

    @property
    def held(self) -> int:
        """The octets of large messages that are in hand now."""
        return self._held.total()

    @property
    def waiting(self) -> int:
        """The messages that wait for room."""
        return len(self._turns)

    @asynccontextmanager
    async def of(self, lane: str, octets: int) -> AsyncIterator[None]:
        """Hold room for a message of so many octets, waiting for it where there is none."""
        if octets <= SMALL:
            yield
            return
        turn = _Turn(lane=lane, octets=octets, granted=asyncio.Event())
        self._turns.append(turn)
        self._grant()
        try:
            await turn.granted.wait()
            yield
        finally:
            if turn.granted.is_set():
                self._held[lane] -= octets
                self._held += Counter()  # forgets the lanes that have none
            else:
                self._turns.remove(turn)
            self._grant()

    def _grant(self) -> None:
        """Let those in whose turn it is."""
        for turn in list(self._turns):
            if not self._fits(turn.octets, held=self._held[turn.lane], within=self._octets // 2):
                continue  # its own lane holds it up, and nobody behind it has to wait for that
            if not self._fits(turn.octets, held=self.held, within=self._octets):
                return  # nobody overtakes it: else a large one would wait for ever
            self._turns.remove(turn)
            self._held[turn.lane] += turn.octets
            turn.granted.set()

    @staticmethod
    def _fits(octets: int, *, held: int, within: int) -> bool:
        return held == 0 or held + octets <= within
