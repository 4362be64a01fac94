"""What a suppressed recipient shows: who decided that it gets no mail, and how to lift it."""

from datetime import datetime
from typing import Protocol

from service.routes.diagnoses import error, of_code


class Entry(Protocol):
    """A suppression, as the ledger has it: this room may not look into that one."""

    @property
    def id(self) -> str: ...
    @property
    def address(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def expires_at(self) -> datetime | None: ...
    @property
    def code(self) -> str:
        """`suppressed_manual` or `suppressed_rule`."""


def error_of(entry: Entry) -> dict[str, object]:
    """Write the error of a recipient that this entry suppresses."""
    span = "" if entry.expires_at is None else f" until {entry.expires_at:%Y-%m-%d}"
    return error(
        of_code(entry.code),
        phase=None,
        reply=None,
        retryable=False,
        names={"suppression": entry.id, "recipient": entry.address},
        detail=f"{entry.address} is suppressed{span}: {entry.reason}",
    )
