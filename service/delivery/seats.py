"""Seats of a lane in this worker, and the sessions that sit on them.

The other side allows a lane so many connections, for any number of workers, so the right to
hold one open is a seat in the ledger, granted by a claim and given back when the session is
closed. A seat keeps its session between messages; an idle one is closed after a while,
because nobody publishes when Microsoft closes it, and because another worker may want it.
"""

import asyncio
import time
from dataclasses import dataclass, field

from service.smtp.session import Session


@dataclass(eq=False, slots=True, kw_only=True)
class Seat:
    id: str
    session: Session | None = None
    busy: bool = True
    lost: bool = False  # the ledger gave it to somebody else: close when the message in hand is over
    free_since: float = field(default_factory=time.monotonic)

    def usable_session(self, *, most_messages: int | None) -> Session | None:
        """Return the session if another message may travel on it."""
        if self.session is None or not self.session.usable:
            return None
        if most_messages is not None and self.session.messages >= most_messages:
            return None
        return self.session

    async def empty(self) -> None:
        """Close the session, politely where that is possible; the seat stays ours."""
        session, self.session = self.session, None
        if session is not None:
            await session.close()


class Seats:
    """All seats of one lane in one worker."""

    def __init__(self, *, most: int) -> None:
        self.most = most
        self._seats: list[Seat] = []

    def __len__(self) -> int:
        return len(self._seats)

    def free(self) -> list[Seat]:
        """The seats that carry nothing now; those with an open session first, the latest used before."""
        idle = [seat for seat in self._seats if not seat.busy and not seat.lost]
        return sorted(idle, key=lambda seat: (seat.session is None, -seat.free_since))

    def add(self, seat_id: str) -> Seat:
        seat = Seat(id=seat_id)
        self._seats.append(seat)
        return seat

    def release(self, seat: Seat) -> None:
        """The message is over; the seat is free again."""
        seat.busy = False
        seat.free_since = time.monotonic()

    def superfluous(self, *, idle: float) -> list[Seat]:
        """Take out the seats that were lost, or not used for `idle` seconds."""
        now = time.monotonic()
        gone = [
            seat for seat in self._seats if not seat.busy and (seat.lost or now - seat.free_since >= idle)
        ]
        self._seats = [seat for seat in self._seats if seat not in gone]
        return gone

    def next_superfluous(self, *, idle: float) -> float | None:
        """Seconds until the next free seat will have been idle for too long."""
        waiting = [seat.free_since for seat in self._seats if not seat.busy]
        return max(min(waiting) + idle - time.monotonic(), 0.0) if waiting else None

    def everything(self) -> list[Seat]:
        return list(self._seats)


async def close_all(seats: list[Seat]) -> None:
    """Close the sessions on these seats at the same time."""
    await asyncio.gather(*(seat.empty() for seat in seats))
