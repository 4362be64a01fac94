"""The post of one call of a webhook: one request over one new connection, through httpx.

`service.delivery.calling` says what a call is, and loads this with the first one.
"""

import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import httpx2

from service.delivery.calling import Answer, retry_after
from service.routes.internet import Ip
from service.routes.targets import Target

#: Seconds within which a connection has to be there, TLS included.
_CONNECT = 5.0

#: Octets of an answer that are read, so that an ordinary receiver can finish; none is kept.
_READ = 4096


class Poster:
    """Posts to addresses that were judged."""

    def __init__(self, *, timeout: float, ca_file: Path | None) -> None:
        """Take the seconds of each wait, and authorities to trust besides the system's; raises OSError."""
        self._timeout = timeout
        context = ssl.create_default_context()
        if ca_file is not None:
            context.load_verify_locations(ca_file)
        self._transport = httpx2.AsyncHTTPTransport(
            verify=context,
            trust_env=False,
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
        )

    async def aclose(self) -> None:
        """Close what is open."""
        await self._transport.aclose()

    async def post(self, target: Target, address: Ip, octets: bytes, headers: Mapping[str, str]) -> Answer:
        """Post to this address of the target, and say what came of it."""
        try:
            return await self._post(target, address, octets, headers)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as trouble:
            return Answer(error=_said(trouble), unreached=True)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as trouble:
            return Answer(error=_said(trouble))

    async def _post(self, target: Target, address: Ip, octets: bytes, headers: Mapping[str, str]) -> Answer:
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
        response = await self._transport.handle_async_request(request)
        try:
            return await _read(response)
        finally:
            await response.aclose()


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
