"""The envelope: who the message comes back to, and whom it goes to (RFC 5321 §2.3.1).

The envelope decides who gets the mail. It is built once, from what the caller asked for, and is
never read back out of headers: that is what keeps Bcc blind.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service.mail.address import Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A reverse-path and at least one forward-path.

    An address that is named twice (compared by `Address.key`) is kept once, where it stood first:
    somebody in To and in Cc gets one copy. Raises `ValueError` where nobody is left to send to.
    """

    reverse_path: Address | None  # None is the null reverse-path of notifications, `<>`
    forward_paths: tuple[Address, ...]

    def __post_init__(self) -> None:
        if not self.forward_paths:
            raise ValueError("an envelope has at least one forward-path")
        first: dict[str, Address] = {}
        for path in self.forward_paths:
            first.setdefault(path.key, path)
        object.__setattr__(self, "forward_paths", tuple(first.values()))

    def batches(self, limit: int) -> Iterator[Envelope]:
        """Split into envelopes of at most `limit` forward-paths each, in order (RFC 5321 §4.5.3.1.8)."""
        if limit < 1:
            raise ValueError("a batch has at least one forward-path")
        for start in range(0, len(self.forward_paths), limit):
            yield replace(self, forward_paths=self.forward_paths[start : start + limit])

    @property
    def smtputf8(self) -> bool:
        """Whether any path needs SMTPUTF8 (RFC 6531 §3.3)."""
        paths = (self.reverse_path, *self.forward_paths)
        return any(path.smtputf8 for path in paths if path is not None)
