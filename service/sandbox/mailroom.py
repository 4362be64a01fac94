"""What the sandbox took, kept before it is answered.

The newest messages are kept, by number and by octets; the oldest are forgotten. Their content
stays in memory up to a limit and lies in files beyond it, so that a long campaign costs disk for a
while and not memory. A restarted sandbox starts empty.

A copy with the Message-ID and Date of an earlier one is taken like any other, and counted, but
delivered only to those who do not have it yet: that is how Exchange's store treats the second copy
of a message whose reply was lost ("duplicate detection" in Microsoft's documentation).
"""

import hashlib
import shutil
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uuid_utils

from service.sandbox.content import Head

_SEEN = 100_000  # pairs of message and recipient that are remembered as delivered


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """One message that the sandbox took."""

    id: str
    at: datetime  # when its last octet had come
    door: str  # which service took it: submission, mx, hve or acs
    mailbox: str  # whose login it came by; "" at the MX
    method: str  # login, xoauth2; at the MX certificate, ip (the connector's kind) or anonymous
    connector: str | None  # the MX's connector that matched
    client_certificate: str | None  # subject of the one that the client proved to own
    session: str
    tls: str | None
    client: str
    hello: str
    reverse_path: str  # "" is the null reverse-path
    recipients: tuple[str, ...]
    delivered_to: tuple[str, ...]  # without those who had it already, and without `returned`
    returned: tuple[str, ...]  # for whom it came back after all; the sender has a report
    delivered_at: datetime  # later than `at` where the mailbox was above its pace
    duplicate_of: str | None
    message_id: str | None
    date: str | None
    subject: str | None
    authors: tuple[str, ...]
    size: int  # octets
    sha256: str
    sent_items: bool  # a copy lies in the mailbox
    dsn: dict[str, Any] | None  # which reports the client asked for (RFC 3461)

    def as_json(self) -> dict[str, Any]:
        """Return it for people and tests, times in RFC 3339."""
        return {"object": "taken_message"} | {
            name: value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value
            for name, value in asdict(self).items()
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """Who brought a message, and with which envelope."""

    door: str
    mailbox: str
    method: str
    session: str
    tls: str | None
    client: str
    hello: str
    reverse_path: str
    recipients: tuple[str, ...]
    dsn: dict[str, Any] | None = None
    connector: str | None = None
    client_certificate: str | None = None


class Mailroom:
    """The messages that were taken, the oldest first."""

    def __init__(self, *, folder: Path, keep_messages: int, keep_octets: int, memory_octets: int) -> None:
        """Start empty; `folder` is emptied of what an earlier sandbox left."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700, parents=True)
        self._folder = folder
        self._keep_messages = keep_messages
        self._keep_octets = keep_octets
        self._memory_octets = memory_octets
        self._messages: OrderedDict[str, Taken] = OrderedDict()
        self._in_memory: OrderedDict[str, bytes] = OrderedDict()
        self._octets = 0
        self._octets_in_memory = 0
        self._seen: OrderedDict[tuple[str, str, str], str] = OrderedDict()
        self.total = 0  # taken since the start, forgotten ones included

    def __iter__(self) -> Iterator[Taken]:
        """Go through them, the oldest first."""
        return iter(self._messages.values())

    def get(self, name: str) -> Taken | None:
        """Return one of them."""
        return self._messages.get(name)

    def content(self, name: str) -> bytes | None:
        """Return its octets as they came, less the stuffed dots."""
        if name not in self._messages:
            return None
        held = self._in_memory.get(name)
        return held if held is not None else (self._folder / name).read_bytes()

    def take(
        self,
        octets: bytes,
        head: Head,
        *,
        carried: Carried,
        delay: float,
        sent_items: bool,
        returned: tuple[str, ...] = (),
    ) -> Taken:
        """Keep a message; `delay` is in seconds until it is delivered to all but `returned`."""
        now = datetime.now(UTC)
        name = f"sbx_{uuid_utils.uuid7().hex}"
        arriving = tuple(one for one in carried.recipients if one not in returned)
        first, delivered_to = self._deliver(name, head, recipients=arriving)
        taken = Taken(
            id=name,
            at=now,
            delivered_to=delivered_to,
            returned=returned,
            delivered_at=datetime.fromtimestamp(now.timestamp() + delay, UTC),
            duplicate_of=first,
            message_id=head.message_id,
            date=head.date,
            subject=head.subject,
            authors=head.authors,
            size=len(octets),
            sha256=hashlib.sha256(octets).hexdigest(),
            sent_items=sent_items,
            **asdict(carried),
        )
        self._messages[name] = taken
        self._in_memory[name] = octets
        self._octets += len(octets)
        self._octets_in_memory += len(octets)
        self.total += 1
        self._make_room()
        return taken

    def clear(self) -> None:
        """Forget them all, and who has what."""
        while self._messages:
            self._forget_oldest()
        self._seen.clear()

    def _deliver(
        self, name: str, head: Head, *, recipients: tuple[str, ...]
    ) -> tuple[str | None, tuple[str, ...]]:
        if head.message_id is None or head.date is None:
            return None, recipients
        first = None
        fresh = []
        for recipient in recipients:
            key = (head.message_id, head.date, recipient.lower())
            if key in self._seen:
                first = first or self._seen[key]
            else:
                self._seen[key] = name
                fresh.append(recipient)
        while len(self._seen) > _SEEN:
            self._seen.popitem(last=False)
        return first, tuple(fresh)

    def _make_room(self) -> None:
        while len(self._messages) > self._keep_messages or self._octets > self._keep_octets:
            self._forget_oldest()
        while self._octets_in_memory > self._memory_octets:
            name, octets = self._in_memory.popitem(last=False)
            (self._folder / name).write_bytes(octets)
            self._octets_in_memory -= len(octets)

    def _forget_oldest(self) -> None:
        name, taken = self._messages.popitem(last=False)
        self._octets -= taken.size
        if self._in_memory.pop(name, None) is not None:
            self._octets_in_memory -= taken.size
        else:
            (self._folder / name).unlink(missing_ok=True)


class Journal:
    """The newest of what was asked and answered, for `GET /transactions` and its like."""

    def __init__(self, *, keep: int) -> None:
        """Start empty."""
        self._entries: deque[dict[str, Any]] = deque(maxlen=keep)

    def note(self, **entry: Any) -> None:
        """Write one entry with its time."""
        self._entries.append({"at": datetime.now(UTC).isoformat().replace("+00:00", "Z"), **entry})

    def newest_first(self) -> list[dict[str, Any]]:
        """Return what is kept."""
        return list(reversed(self._entries))
