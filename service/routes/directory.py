"""The keys with which Entra ID signs, fetched when they are needed and kept while they hold.

`{authority}/{tenant}/v2.0/.well-known/openid-configuration` names the set of keys (OpenID Connect
Discovery 1.0, RFC 7517). Microsoft asks to look for new keys once a day, and at once when a token names
one that is not known ("Signing key rollover in the Microsoft identity platform"). So:

- Keys are fresh for a day; then they are fetched anew beside their use.
- A name that is not known is looked for, at most once in REFETCH_APART seconds: a flood of forged names
  is no flood of fetches.
- One fetch serves all who wait. They wait PATIENCE at the most; the fetch goes on without them.
- While the endpoint is down, the keys that are there stay in use, however old they are.

Nobody waits here but the bearer of a token whose key is not known.
"""

import asyncio
import json
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx2
import structlog
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK, PyJWTError

from service.routes.tokens import Entra

FRESH = 24 * 3600.0  # seconds
REFETCH_APART = 30.0  # seconds between two fetches that an unknown name asks for
FAILURE_REST = 2.0  # seconds after a failed fetch, where there are no keys at all
PATIENCE = 0.6  # seconds that a caller waits for a fetch

_ANSWER_OCTETS = 1024 * 1024
_MOST_KEYS = 100
_LEAST_BITS = 2048

_log = structlog.get_logger(__name__)


class DirectoryUnavailable(Exception):
    """The keys cannot be had at the moment, so no token can be judged."""


class Directory:
    """The keys of one tenant. Belongs to one event loop."""

    def __init__(self, entra: Entra, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` counts seconds and never goes back."""
        self._entra = entra
        self._clock = clock
        self._keys: Mapping[str, RSAPublicKey] = {}
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        self._failed = False
        self._fetching: asyncio.Task[None] | None = None
        self._client: httpx2.AsyncClient | None = None
        self.fetches = 0  # since the process began

    async def key(self, name: str) -> RSAPublicKey | None:
        """Return the key of this name; None where the directory does not publish it.

        Raises DirectoryUnavailable where that cannot be known.
        """
        found = self._keys.get(name)
        if found is not None:
            if self._is_stale() and self._may_fetch():
                self._fetch()
            return found
        if self._fetching is None and self._may_fetch():
            self._fetch()
        if self._fetching is not None:
            await asyncio.wait({self._fetching}, timeout=PATIENCE)
        found = self._keys.get(name)
        if found is None and (self._fetching is not None or self._failed or self._fetched_at is None):
            raise DirectoryUnavailable
        return found

    def knows(self, name: str) -> bool:
        """Say whether a key is still among those that were published last."""
        return name in self._keys

    def prefetch(self) -> None:
        """Fetch the keys before somebody needs them."""
        if self._fetching is None and self._fetched_at is None:
            self._fetch()

    async def aclose(self) -> None:
        """Give up what is under way."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait({self._fetching})
        if self._client is not None:
            await self._client.aclose()

    def _is_stale(self) -> bool:
        return self._fetched_at is None or self._clock() - self._fetched_at > FRESH

    def _may_fetch(self) -> bool:
        if self._fetching is not None:
            return False
        rest = REFETCH_APART if self._keys else FAILURE_REST
        return self._tried_at is None or self._clock() - self._tried_at >= rest

    def _fetch(self) -> None:
        self._tried_at = self._clock()
        self.fetches += 1
        self._fetching = asyncio.create_task(self._renew())
        self._fetching.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._fetching = None
        if not task.cancelled() and (fault := task.exception()) is not None:
            _log.error("directory.bug", exc_info=fault)

    async def _renew(self) -> None:
        try:
            async with asyncio.timeout(self._entra.timeout.total_seconds()):
                keys = await self._published()
        except (OSError, TimeoutError, ValueError, RecursionError, httpx2.HTTPError) as fault:
            # ValueError: what came is not JSON, or not what we asked for.
            self._failed = True
            _log.warning(
                "directory.unavailable",
                error=type(fault).__name__,
                keys=len(self._keys),
                remedy="can the API reach entra.authority, and is entra.ca_file its authority?",
            )
            return
        self._keys, self._fetched_at, self._failed = keys, self._clock(), False
        _log.info("directory.keys", keys=len(keys))

    async def _published(self) -> dict[str, RSAPublicKey]:
        client = await self._http()
        base = f"{self._entra.authority}/{self._entra.tenant_id}/v2.0"
        described = await _get(client, f"{base}/.well-known/openid-configuration")
        place = described.get("jwks_uri")
        if not isinstance(place, str) or not place.startswith("https://"):
            raise ValueError("the directory names no place of its keys")
        listed = (await _get(client, place)).get("keys")
        if not isinstance(listed, list):
            raise ValueError("the directory's keys are no list")  # noqa: TRY004  # one kind of fault
        keys = {name: key for entry in listed[:_MOST_KEYS] for name, key in _usable(entry)}
        if not keys:
            raise ValueError("the directory publishes no key that can be used")
        return keys

    async def _http(self) -> httpx2.AsyncClient:
        if self._client is None:
            ca_file = None if self._entra.ca_file is None else str(self._entra.ca_file)
            # In a thread: the system's authorities take tens of milliseconds to read.
            trust = await asyncio.to_thread(ssl.create_default_context, cafile=ca_file)
            self._client = httpx2.AsyncClient(
                verify=trust,
                trust_env=not self._entra.own_authority,
                timeout=self._entra.timeout.total_seconds(),
                follow_redirects=False,
                limits=httpx2.Limits(max_connections=2, max_keepalive_connections=0),
            )
        return self._client


async def _get(client: httpx2.AsyncClient, url: str) -> Mapping[str, Any]:
    body = bytearray()
    async with client.stream("GET", url, headers={"Accept": "application/json"}) as response:
        if response.status_code != 200:
            raise ValueError("the directory did not answer 200")
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) > _ANSWER_OCTETS:
                raise ValueError("the directory's answer has no end")
    value = json.loads(bytes(body))
    if not isinstance(value, dict):
        raise ValueError("the directory's answer is no object")  # noqa: TRY004  # one kind of fault
    return value


def _usable(entry: object) -> list[tuple[str, RSAPublicKey]]:
    """Read one key; what is not for RS256 signatures, or too short, counts as not there."""
    if not isinstance(entry, dict):
        return []
    name = entry.get("kid")
    if (
        not isinstance(name, str)
        or entry.get("kty") != "RSA"
        or entry.get("use", "sig") != "sig"
        or entry.get("alg", "RS256") != "RS256"
    ):
        return []
    try:
        key = PyJWK.from_dict(entry, algorithm="RS256").key
    except (PyJWTError, ValueError, TypeError):
        return []
    return [(name, key)] if isinstance(key, RSAPublicKey) and key.key_size >= _LEAST_BITS else []
