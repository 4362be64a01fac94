"""Who is calling, and what the caller may do.

A key travels as `Authorization: Bearer pr_live_…` (RFC 6750). Found keys are remembered for a
few seconds, so that a busy application does not ask PostgreSQL for each message, and a
revoked key is shut out soon. Tokens are never logged and never remembered in clear.
"""

import hashlib
import time
from collections.abc import Awaitable, Callable
from datetime import datetime

from service.ledger.keys import Key
from service.mail.address import Address
from service.submission.problems import FieldError, Problem

_REMEMBERED_SECONDS = 3.0
_REMEMBERED_KEYS = 1000


class Callers:
    """Finds the key behind a request."""

    def __init__(self, find: Callable[[str], Awaitable[Key | None]], clock: Callable[[], datetime]) -> None:
        self._find = find
        self._clock = clock
        self._remembered: dict[bytes, tuple[float, Key]] = {}

    async def caller(self, authorization: str | None) -> Key:
        """Return the key of this header; raises a 401 problem."""
        scheme, _, token = (authorization or "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise _unauthorized("missing_key", "Send the API key as `Authorization: Bearer pr_…`.", None)
        if len(token) > 200 or not token.isascii():
            raise _unauthorized("invalid_key", "This is not an API key of Postroom.", "invalid_token")
        key = await self._known(token)
        if key is None:
            raise _unauthorized("invalid_key", "This API key is not known.", "invalid_token")
        if not key.usable(self._clock()):
            raise _unauthorized("key_closed", "This API key was revoked or has expired.", "invalid_token")
        return key

    async def _known(self, token: str) -> Key | None:
        digest = hashlib.sha256(token.encode()).digest()
        remembered = self._remembered.get(digest)
        if remembered is not None and remembered[0] > time.monotonic():
            return remembered[1]
        key = await self._find(token)
        self._remembered.pop(digest, None)
        if key is not None:
            if len(self._remembered) >= _REMEMBERED_KEYS:
                self._remembered.pop(next(iter(self._remembered)))
            self._remembered[digest] = (time.monotonic() + _REMEMBERED_SECONDS, key)
        return key


def _unauthorized(code: str, detail: str, error: str | None) -> Problem:
    challenge = 'Bearer realm="postroom"' + (f', error="{error}"' if error else "")
    return Problem(status=401, code=code, detail=detail, headers={"WWW-Authenticate": challenge})


def demand_scope(key: Key, scope: str) -> None:
    """Raise a 403 problem where the key lacks the scope."""
    if scope not in key.scopes:
        raise Problem(
            status=403, code="insufficient_scope", detail=f"This key does not have the scope {scope}."
        )


def sees_everything(key: Key) -> bool:
    """Say whether the caller works for all applications: an operator or an administrator."""
    return not {"operate", "admin"}.isdisjoint(key.scopes)


def sees(key: Key) -> str | None:
    """Return the application whose things the caller sees; None: everybody's."""
    return None if sees_everything(key) else key.application


def demand_sender(key: Key, sender: Address, *, pointer: str) -> None:
    """Raise a 403 problem where the key may not send from this address."""
    if not key.senders:
        return
    for allowed in key.senders:
        if allowed.startswith("@"):
            if sender.domain == allowed[1:].lower():
                return
        elif Address.parse(allowed).key == sender.key:
            return
    detail = "This key may not send from this address; `GET /me` lists the ones it may use."
    raise Problem(
        status=403,
        code="sender_not_allowed",
        detail=detail,
        errors=[FieldError(pointer=pointer, code="sender_not_allowed", detail=detail)],
    )


def demand_recipient(key: Key, recipient: Address, *, pointer: str) -> None:
    """Raise a 403 problem where the key may not send to this address's domain."""
    allowed = key.recipient_domains
    if allowed is None or recipient.domain in allowed:
        return
    detail = "This key may not send to this domain; `GET /me` lists the ones it may use."
    raise Problem(
        status=403,
        code="recipient_not_allowed",
        detail=detail,
        errors=[FieldError(pointer=pointer, code="recipient_not_allowed", detail=detail)],
    )
