"""Who is calling, and what the caller may do.

A key travels as `Authorization: Bearer pr_live_…` (RFC 6750), and so does an access token of Entra ID
where an audience is configured (`entra`). Either becomes a `Key`, which says what the caller may do.

Found keys are remembered for a few seconds, so that a busy application does not ask PostgreSQL for each
message, and a revoked key is shut out soon; where it was revoked, at once (`forget`). Requests that come
together ask once. Keys that are not known are remembered for a while too, and few are looked up at a time:
guessing is no way to keep PostgreSQL busy. Who guesses is counted and slowed (`wrong_keys`); a key that
was seen to be good is looked up whatever else comes from its address.

Tokens are never logged and never remembered in clear.
"""

import asyncio
import contextlib
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

import structlog

from service.ledger import LedgerUnavailable
from service.ledger.keys import Key, is_token
from service.mail.address import Address
from service.submission.problems import FieldError, Problem, unauthorized
from service.submission.who.entra import LONGEST, AccessTokens, looks_like_token
from service.submission.who.peers import Ip, is_inside, neighbourhood
from service.submission.who.wrong_keys import WrongKeys

_REMEMBERED_SECONDS = 3.0
_REMEMBERED_KEYS = 1000
_UNKNOWN_SECONDS = 10.0
_UNKNOWN_KEYS = 10_000
_GOOD_KEYS = 10_000

#: Keys that nobody has seen to be good are looked up so many at a time.
_STRANGERS = 3

#: How old the time of a key's last use may become before it is written anew.
_USE_APART = timedelta(minutes=1)

#: Every answer comes within a second: the rest of it is the answer's own.
_LATEST = 0.85  # seconds

Value = TypeVar("Value")

_log = structlog.get_logger(__name__)


class FindsKeys(Protocol):
    """What of the ledger is needed here."""

    async def find_key(self, token: str) -> Key | None: ...

    async def touch_keys(self, key_ids: Sequence[str]) -> None: ...


class Callers:
    """Finds out who is behind a request. Belongs to one event loop."""

    def __init__(
        self, ledger: FindsKeys, clock: Callable[[], datetime], *, tokens: AccessTokens | None = None
    ) -> None:
        """`tokens` judges access tokens, where they are taken at all."""
        self._ledger = ledger
        self._clock = clock
        self._tokens = tokens
        self._known: OrderedDict[bytes, tuple[float, Key]] = OrderedDict()  # until
        self._unknown: OrderedDict[bytes, float] = OrderedDict()  # until
        self._good: OrderedDict[bytes, None] = OrderedDict()  # seen to open the door, by whoever
        self._asking: dict[bytes, asyncio.Task[Key | None]] = {}
        self._strangers = asyncio.Semaphore(_STRANGERS)
        self._forgotten = 0  # how often `forget` was called
        self._used: set[str] = set()
        self._noting: asyncio.Task[None] | None = None
        self.wrong_keys = WrongKeys()

    async def caller(self, authorization: Sequence[str], address: Ip | None) -> Key:
        """Return who calls, by these headers, from this address; raises 401, 403, 429 and 503 problems."""
        began, client = time.monotonic(), neighbourhood(address)
        try:
            caller = await self._caller(authorization, client)
        except Problem as refused:
            if refused.status in {401, 403}:
                await self._refuse(refused, client, began)
            raise
        return self.admitted(caller, address)

    def admitted(self, caller: Key, address: Ip | None) -> Key:
        """Return the caller, where they may call from this address; raises a 403 problem."""
        if caller.networks is not None and not is_inside(address, caller.networks):
            self._count("network_not_allowed", neighbourhood(address), caller.id)
            raise Problem(
                status=403,
                code="network_not_allowed",
                detail="This key may not be used from this network; its `networks` say from which.",
            )
        return caller

    def remembered(self, authorization: Sequence[str], address: Ip | None) -> Key | None:
        """Return who calls where that is known without asking anybody; None says nothing at all."""
        scheme, _, token = (authorization[0] if len(authorization) == 1 else "").partition(" ")
        if scheme.lower() != "bearer" or len(token) > LONGEST:
            return None
        until, key = self._known.get(hashlib.sha256(token.encode()).digest(), (0.0, None))
        if key is None or until <= time.monotonic() or not key.usable(self._clock()):
            return None
        return key if key.networks is None or is_inside(address, key.networks) else None

    def forget(self, key_id: str) -> None:
        """Look this key up anew from now on: it was changed or revoked."""
        self._forgotten += 1
        for digest in [digest for digest, (_, key) in self._known.items() if key.id == key_id]:
            del self._known[digest]

    def prefetch(self) -> None:
        """Fetch the keys of Entra ID before the first token comes."""
        if self._tokens is not None:
            self._tokens.directory.prefetch()

    async def aclose(self) -> None:
        """End what goes on in the background."""
        tasks = {*self._asking.values(), *([self._noting] if self._noting else [])}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._tokens is not None:
            await self._tokens.aclose()

    async def _caller(self, authorization: Sequence[str], client: str) -> Key:
        token = _bearer(authorization)
        if self._tokens is not None and looks_like_token(token):
            return await self._tokens.caller(token)
        if not is_token(token):
            raise unauthorized("invalid_key", "This is not an API key of Postroom.")
        key = await self._key(token, client)
        if key is None:
            raise unauthorized("invalid_key", "This API key is not known.")
        if not key.usable(self._clock()):
            raise unauthorized("key_closed", "This API key was revoked or has expired.")
        return key

    async def _refuse(self, refused: Problem, client: str, began: float) -> None:
        """Count a refusal; answer a wrong key the later, the more of them there were."""
        self._count(refused.code, client)
        if refused.status != 401 or refused.code == "missing_key":
            return
        if rest := self.wrong_keys.rest(client):
            raise _too_many(rest) from None
        delay = self.wrong_keys.strike(client)
        await asyncio.sleep(max(0.0, min(delay, began + _LATEST - time.monotonic())))

    def _count(self, code: str, client: str, key: str | None = None) -> None:
        self.wrong_keys.refused[code] += 1
        if not self.wrong_keys.rest(client):  # a client that goes on and on fills no log
            _log.info("caller.refused", code=code, client=client, key=key)

    async def _key(self, token: str, client: str) -> Key | None:
        digest = hashlib.sha256(token.encode()).digest()
        now = time.monotonic()
        known = self._known.get(digest)
        if known is not None and known[0] > now:
            return known[1]
        if self._unknown.get(digest, 0.0) > now:
            return None
        if digest not in self._good and (rest := self.wrong_keys.rest(client)):
            self._count("too_many_wrong_keys", client)
            raise _too_many(rest)
        task = self._asking.get(digest)
        if task is None:
            task = self._asking[digest] = asyncio.create_task(self._look_up(token, digest))
            task.add_done_callback(lambda _: self._asking.pop(digest, None))
        # Shielded: who loses patience does not take the answer from the others.
        return await asyncio.shield(task)

    async def _look_up(self, token: str, digest: bytes) -> Key | None:
        forgotten = self._forgotten
        if digest in self._good:
            key = await self._ledger.find_key(token)
        else:
            async with self._strangers:
                key = await self._ledger.find_key(token)
        self._known.pop(digest, None)
        if key is None:
            self._good.pop(digest, None)
            _remember(self._unknown, digest, time.monotonic() + _UNKNOWN_SECONDS, most=_UNKNOWN_KEYS)
            return None
        if key.usable(self._clock()):
            _remember(self._good, digest, None, most=_GOOD_KEYS)
            self._note_use(key)
        if forgotten == self._forgotten:
            _remember(
                self._known, digest, (time.monotonic() + _REMEMBERED_SECONDS, key), most=_REMEMBERED_KEYS
            )
        return key

    def _note_use(self, key: Key) -> None:
        if key.last_used_at is not None and self._clock() - key.last_used_at < _USE_APART:
            return
        self._used.add(key.id)
        if self._noting is None:
            self._noting = asyncio.create_task(self._note_uses())
            self._noting.add_done_callback(self._noted)

    async def _note_uses(self) -> None:
        while self._used:
            used, self._used = sorted(self._used), set()
            # It is said again with the next use; a ledger that cannot write says so elsewhere.
            with contextlib.suppress(LedgerUnavailable):
                await self._ledger.touch_keys(used)

    def _noted(self, task: "asyncio.Task[None]") -> None:
        self._noting = None
        if not task.cancelled() and (fault := task.exception()) is not None:
            _log.error("keys.use_not_noted", exc_info=fault)


def _bearer(authorization: Sequence[str]) -> str:
    """Return the token of the header; raises a 401 problem."""
    if len(authorization) > 1:
        raise unauthorized("invalid_key", "There is more than one Authorization header.")
    scheme, _, token = (authorization[0] if authorization else "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise unauthorized("missing_key", "Send the API key as `Authorization: Bearer pr_…`.", error=None)
    if len(token) > LONGEST or not token.isascii():
        raise unauthorized("invalid_key", "This is not an API key of Postroom.")
    return token


def _remember(memory: "OrderedDict[bytes, Value]", digest: bytes, value: "Value", *, most: int) -> None:
    """Keep a value under a digest; the oldest goes where there are too many."""
    memory[digest] = value
    memory.move_to_end(digest)
    if len(memory) > most:
        memory.popitem(last=False)


def _too_many(rest: int) -> Problem:
    return Problem(
        status=429,
        code="too_many_wrong_keys",
        detail="Too many wrong keys came from this address. Keys that are known here still work.",
        retry_after=rest,
    )


def demand_scope(key: Key, scope: str) -> None:
    """Raise a 403 problem where the key lacks the scope."""
    if scope not in key.scopes:
        raise Problem(
            status=403, code="insufficient_scope", detail=f"This key does not have the scope {scope}."
        )


def sees_everything(key: Key) -> bool:
    """Say whether the caller works for all applications: an operator or an administrator."""
    return key.sees_everything


def sees(key: Key) -> str | None:
    """Return the application whose things the caller sees; None: everybody's."""
    return key.sees


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
