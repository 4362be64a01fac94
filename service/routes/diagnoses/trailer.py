"""What Microsoft writes behind its replies: server, time and session, for a support case.

Since about 2023 a refusal ends in `[HOST 2026-10-08T20:36:23.875Z 08DF254F56560914]`, older ones in
`[HOST]`; the final 250 names `[Hostname=HOST]`.
"""

import re
from dataclasses import dataclass

from service.routes.kinds import MICROSOFT_DOMAINS, is_below

_FULL = re.compile(
    r"\[(?P<host>[A-Za-z0-9.-]{3,255}) (?P<time>\d{4}-\d\d-\d\dT[\d:.]{8,16}Z)(?: (?P<session>[0-9A-F]{14,16}))?\]"
)
_HOST = re.compile(r"\[(?:InternalId=\d+, )?(?:Hostname=)?(?P<host>[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+){2,})\]")
#: A host alone in brackets may be anybody's; only below these names it is where a reply was made.
_MICROSOFT = (*MICROSOFT_DOMAINS, "exchangelabs.com")


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
    """Find the trailer in a reply's text; None where there is none. The last one is the nearest to us."""
    full = list(_FULL.finditer(text))
    if full:
        last = full[-1]
        return Trailer(host=last["host"], time=last["time"], session=last["session"])
    hosts = [found["host"] for found in _HOST.finditer(text)]
    ours = [host for host in hosts if is_below(host.lower(), _MICROSOFT)]
    return Trailer(host=ours[-1]) if ours else None
