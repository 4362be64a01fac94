"""One call of a webhook: signed as Standard Webhooks 1.0 has it, to an address that was judged.

The name is resolved and judged right before the call (`service.routes.targets`), and the connection goes to one
of exactly these addresses, with the name in Host, in SNI and on the certificate. Every call has a connection of
its own: a kept one could belong to another name at the same address. There are no proxies, no cookies, no
redirects, and of the answer nothing is kept but its status and `Retry-After`.

What can go wrong is an `Answer` with an error in one sentence; nothing raises. A call takes no longer than its
limit, whatever the other side does.
"""

import asyncio
import base64
import hashlib
import hmac
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import Self

import httpx2

from service.routes.targets import Ip, Target, TargetRefused, Targets

#: Seconds within which a connection has to be there, TLS included.
_CONNECT = 5.0

#: Octets of an answer that are read, so that an ordinary receiver can finish; none is kept.
_READ = 4096

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
        self._transport: httpx2.AsyncHTTPTransport | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._transport is not None:
            await self._transport.aclose()

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
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as trouble:
            answer = Answer(error=_said(trouble))
        return Answer(
            status=answer.status,
            error=answer.error,
            retry_after=answer.retry_after,
            seconds=time.monotonic() - began,
        )

    async def _post(self, url: str, octets: bytes, headers: Mapping[str, str]) -> Answer:
        target, addresses = await self._targets.addresses(url)
        *others, last = addresses[:_ADDRESSES]
        for address in others:
            try:
                return await self._post_to(target, address, octets, headers)
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                continue  # nothing was sent: the next address may be reachable
        return await self._post_to(target, last, octets, headers)

    async def _post_to(
        self, target: Target, address: Ip, octets: bytes, headers: Mapping[str, str]
    ) -> Answer:
        request = httpx2.Request(
            "POST",
            httpx2.URL(target.at(address)).copy_with(raw_path=target.path.encode()),
            headers={
                "host": target.host_header,
                "user-agent": "Postroom (webhooks)",
                "content-type": "application/json",
                "content-length": str(len(octets)),
                **headers,
            },
            content=octets,
            extensions={
                "sni_hostname": target.host,
                "timeout": {
                    "connect": min(_CONNECT, self._timeout),
                    "read": self._timeout,
                    "write": self._timeout,
                    "pool": self._timeout,
                },
            },
        )
        response = await self._sender().handle_async_request(request)
        try:
            return await _read(response)
        finally:
            await response.aclose()

    def _sender(self) -> httpx2.AsyncHTTPTransport:
        if self._transport is None:
            context = ssl.create_default_context()
            if self._ca_file is not None:
                context.load_verify_locations(self._ca_file)
            self._transport = httpx2.AsyncHTTPTransport(
                verify=context,
                trust_env=False,
                limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
            )
        return self._transport


async def _read(response: httpx2.Response) -> Answer:
    """Judge an answer: 2yz is success, and everything else is not."""
    status = response.status_code
    octets = 0
    async for piece in response.aiter_raw():
        octets += len(piece)
        if octets >= _READ:
            break
    if 200 <= status < 300:
        return Answer(status=status)
    wait = retry_after(response.headers.get("retry-after"), now=datetime.now(UTC))
    if 300 <= status < 400:
        return Answer(
            status=status, error=f"It answered {status}; redirects are not followed.", retry_after=wait
        )
    return Answer(status=status, error=f"It answered {status}.", retry_after=wait)


def _said(trouble: Exception) -> str:
    """Say what went wrong in our own words: the library's may repeat the address."""
    cause: BaseException | None = trouble
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"The certificate is not the host's: {cause.verify_message}."
        if isinstance(cause, ssl.SSLError):
            return "The TLS handshake failed."
        if isinstance(cause, ConnectionRefusedError):
            return "The connection was refused."
        cause = cause.__cause__ or cause.__context__
    match trouble:
        case httpx2.ConnectTimeout():
            return f"There was no connection within {_CONNECT:g} s."
        case httpx2.TimeoutException():
            return "There was no answer in time."
        case httpx2.ConnectError():
            return "The host cannot be reached."
        case httpx2.RemoteProtocolError():
            return "What came back is not HTTP, or the connection ended before the answer."
        case _:
            return "The connection broke."
