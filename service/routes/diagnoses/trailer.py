"""What Microsoft writes behind its replies: server, time and session, for a support case.

Since about 2023 a refusal ends in `[HOST 2026-10-08T20:36:23.875Z 08DF254F56560914]`, older ones in
`[HOST]`; the final 250 names `[Hostname=HOST]`.
"""

import re
from dataclasses import dataclass

_FULL = re.compile(
    r"\[(?P<host>[A-Za-z0-9.-]{3,255}) (?P<time>\d{4}-\d\d-\d\dT[\d:.]{8,16}Z) (?P<session>[0-9A-F]{16})\]"
)
_HOST = re.compile(r"\[(?:InternalId=\d+, )?(?:Hostname=)?(?P<host>[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+){2,})\]")
_ADDRESS = re.compile(r"[\d.]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trailer:
    """Where and when at Microsoft a reply was made."""

    host: str
    time: str | None = None  # as it was written, RFC 3339
    session: str | None = None  # 16 hex digits, also in the greeting

    def as_json(self) -> dict[str, str | None]:
        """Write it as the ledger keeps it."""
        return {"host": self.host, "time": self.time, "session": self.session}


def trailer(text: str) -> Trailer | None:
    """Find the trailer in a reply's text; None where there is none."""
    full = None
    for full in _FULL.finditer(text):  # noqa: B007  the last one is the nearest to us
        pass
    if full is not None:
        return Trailer(host=full["host"], time=full["time"], session=full["session"])
    hosts = [found["host"] for found in _HOST.finditer(text) if not _ADDRESS.fullmatch(found["host"])]
    return Trailer(host=hosts[-1]) if hosts else None
