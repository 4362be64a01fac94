"""One call of a webhook: signed as Standard Webhooks 1.0 has it, to an address that was judged.

The name is resolved and judged right before the call (`service.routes.targets`), and the connection goes to one
of exactly these addresses, with the name in Host, in SNI and on the certificate. Every call has a connection of
its own: a kept one could belong to another name at the same address. There are no proxies, no cookies, no
redirects, and of the answer nothing is kept but its status and `Retry-After`.

What can go wrong is an `Answer` with an error in one sentence; nothing raises. A call takes no longer than its
limit, whatever the other side does.

What posts, httpx, is loaded with the first call: a worker that tells nobody has it not in memory.
"""

import asyncio
import base64
import hashlib
import hmac
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Self

from service.routes.targets import TargetRefused, Targets

if TYPE_CHECKING:
    from service.delivery.posting import Poster

#: Addresses of one name that are tried.
_ADDRESSES = 3

#: `Retry-After` is obeyed up to here.
LONGEST_WAIT = timedelta(hours=24)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of one call."""

    status: int | None = None  # of HTTP; None: there was no answer
    error: str | None = None  # None: it was taken
    retry_after: timedelta | None = None
    seconds: float = 0.0
    unreached: bool = False  # there was no connection, and nothing was sent

    @property
    def taken(self) -> bool:
        return self.error is None

    @property
    def gone(self) -> bool:
        """Say whether the receiver wants nothing any more."""
        return self.status == HTTPStatus.GONE


def signed(payload: str, *, message_id: str, at: datetime, secrets: Sequence[str]) -> dict[str, str]:
    """Make the fields that prove a payload, with one signature for each secret (Standard Webhooks 1.0)."""
    timestamp = str(int(at.timestamp()))
    content = f"{message_id}.{timestamp}.{payload}".encode()
    signatures = [
        base64.b64encode(hmac.digest(_key(secret), content, hashlib.sha256)).decode() for secret in secrets
    ]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def _key(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix("whsec_"))


def retry_after(field: str | None, *, now: datetime) -> timedelta | None:
    """Read `Retry-After` (RFC 9110 §10.2.3): seconds, or a date; None where it says nothing usable."""
    written = (field or "").strip()
    if written.isascii() and written.isdigit():
        return min(timedelta(seconds=int(written[:9])), LONGEST_WAIT)
    try:
        at = parsedate_to_datetime(written)
    except (ValueError, OverflowError):
        return None
    wait = (at if at.tzinfo else at.replace(tzinfo=UTC)) - now
    return min(max(wait, timedelta(0)), LONGEST_WAIT)


class Caller:
    """Calls receivers; one for each worker."""

    def __init__(self, targets: Targets, *, timeout: timedelta, ca_file: Path | None) -> None:
        """Take what judges addresses, the limit of one call, and authorities to trust besides the system's."""
        self._targets = targets
        self._timeout = timeout.total_seconds()
        self._ca_file = ca_file
        self._poster: Poster | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._poster is not None:
            await self._poster.aclose()

    async def call(self, url: str, payload: str, headers: Mapping[str, str]) -> Answer:
        """Post a payload, and say what came of it."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout):
                answer = await self._post(url, payload.encode(), headers)
        except TimeoutError:
            answer = Answer(error=f"There was no answer within {self._timeout:g} s.")
        except TargetRefused as refused:
            answer = Answer(error=refused.detail)
        except OSError:
            answer = Answer(error="The connection broke.")
        return Answer(
            status=answer.status,
            error=answer.error,
            retry_after=answer.retry_after,
            seconds=time.monotonic() - began,
        )

    async def _post(self, url: str, octets: bytes, headers: Mapping[str, str]) -> Answer:
        from service.delivery.posting import Poster

        target, addresses = await self._targets.addresses(url)
        if self._poster is None:
            self._poster = Poster(timeout=self._timeout, ca_file=self._ca_file)
        answer: Answer | None = None
        for address in addresses[:_ADDRESSES]:
            answer = await self._poster.post(target, address, octets, headers)
            if not answer.unreached:
                break  # at this one nothing was sent: the next address may be reachable
        assert answer is not None, "a name that has no address is refused"
        return answer
