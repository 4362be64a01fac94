"""Access tokens of Entra ID for Postroom's own API: an application shows one instead of a key.

Postroom is registered in the directory with app roles that are named as the scopes. An application
with such roles gets a token by the client credentials grant, and sends it as a bearer.

What is checked ("Access tokens in the Microsoft identity platform"; RFC 8725):

    signature   RS256 and nothing else, with a key that the directory publishes (`directory`)
    iss, tid    this tenant, as version 1.0 or 2.0 of the tokens writes it
    aud         one of `entra.api.audience`
    exp nbf iat with SKEW
    for whom    an application, not a person (`scp`, `idtyp`), and no ID token, which has no `azp`
    roles       at least one of ours; roles that we do not know say nothing

`idtyp` is an optional claim. Where it is missing, a token is an application's when it speaks for its own
client (`sub` is `oid`), which proved itself by a secret or a certificate (`azpacr`, `appidacr`).

Accepted tokens are remembered by their digest until they end, or until the key that signed them is no
longer published. Neither a token nor a claim is ever logged.
"""

import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import jwt
import structlog

from service.ledger.keys import SCOPES, Key
from service.routes.directory import Directory, DirectoryUnavailable
from service.routes.kinds import Cloud
from service.routes.tokens import Entra
from service.submission.problems import Problem, unauthorized

#: Clocks of Entra ID, of the application and of this machine may differ by so many seconds.
SKEW = 60.0

#: The longest token that is looked at, in characters; the groups of an application make it long.
LONGEST = 16_384

_REMEMBERED = 5_000
_END_OF_TIME = datetime(9999, 12, 31, tzinfo=UTC).timestamp()
_SHAPE = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
_GUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

#: Who signs tokens of version 1.0; that of version 2.0 is the authority itself.
_ISSUERS: Mapping[Cloud, str] = {
    Cloud.WORLDWIDE: "https://sts.windows.net",
    Cloud.GCC_HIGH: "https://sts.windows.net",
    Cloud.DOD: "https://sts.windows.net",
    Cloud.CHINA: "https://sts.chinacloudapi.cn",
}

#: What PyJWT raises for what is no token: numbers beyond all bounds and endless brackets are among it.
_NO_TOKEN = (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """What the configuration says about an application of the directory."""

    name: str  # the application's name in Postroom
    test: bool = False
    senders: tuple[str, ...] = ()
    restrictions: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EntraApi:
    """Which tokens are for us."""

    entra: Entra
    audiences: tuple[str, ...]
    applications: Mapping[str, Application]  # by client id, lower case


def looks_like_token(text: str) -> bool:
    """Say whether this has the form of a signed token (RFC 7515 §3.1)."""
    return _SHAPE.fullmatch(text) is not None


class AccessTokens:
    """Judges access tokens. Belongs to one event loop."""

    def __init__(self, api: EntraApi, *, clock: Callable[[], float] = time.time) -> None:
        """`clock` is the time of day, in seconds."""
        self._api = api
        self._clock = clock
        self.directory = Directory(api.entra)
        self._accepted: OrderedDict[bytes, tuple[float, str, Key]] = OrderedDict()  # until, signed by, caller

    async def caller(self, token: str) -> Key:
        """Return what the token stands for; raises 401, 403 and 503 problems."""
        digest = hashlib.sha256(token.encode()).digest()
        known = self._accepted.get(digest)
        if known is not None:
            until, signed_by, caller = known
            if self._clock() < until and self.directory.knows(signed_by):
                self._accepted.move_to_end(digest)
                return caller
            del self._accepted[digest]
        name = _key_name(token)
        claims = await self._verified(token, name)
        caller = self._read(claims)
        self._accepted[digest] = (float(claims["exp"]) + SKEW, name, caller)
        if len(self._accepted) > _REMEMBERED:
            self._accepted.popitem(last=False)
        return caller

    async def aclose(self) -> None:
        """End what goes on in the background."""
        await self.directory.aclose()

    async def _verified(self, token: str, name: str) -> dict[str, Any]:
        try:
            key = await self.directory.key(name)
        except DirectoryUnavailable:
            raise Problem(
                status=503,
                code="entra_unavailable",
                detail="The keys of Entra ID cannot be had at the moment, so this token cannot be judged. "
                "API keys work as ever.",
                retry_after=5,
            ) from None
        if key is None:
            raise unauthorized(
                "unknown_signing_key", "This token is signed with a key that the directory does not publish."
            )
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=["RS256"],
                audience=self._api.audiences,
                issuer=self._issuers(),
                leeway=SKEW,
                options={"require": ["exp", "nbf", "iat", "iss", "aud", "tid"]},
            )
        except _NO_TOKEN as fault:
            raise _refused(fault) from None
        return claims

    def _issuers(self) -> tuple[str, str]:
        entra = self._api.entra
        return (f"{entra.authority}/{entra.tenant_id}/v2.0", f"{_ISSUERS[entra.cloud]}/{entra.tenant_id}/")

    def _read(self, claims: Mapping[str, Any]) -> Key:
        """Turn the claims of a token that is good into a caller; raises a 401 or 403 problem."""
        if claims["tid"] != self._api.entra.tenant_id:
            raise unauthorized("wrong_tenant", "This token is of another directory.")
        client_id = str(claims.get("azp") or claims.get("appid") or "").lower()
        if not _is_an_applications(claims) or not _GUID.fullmatch(client_id):
            raise Problem(
                status=403,
                code="delegated_token",
                detail="This token speaks for a person, or is an ID token. Postroom takes tokens of applications: "
                "ask for one by the client credentials grant, with the scope `<audience>/.default`.",
            )
        roles = claims.get("roles")
        scopes = tuple(scope for scope in SCOPES if isinstance(roles, list) and scope in roles)
        if not scopes:
            raise Problem(
                status=403,
                code="no_roles",
                detail="The application has none of Postroom's app roles, which are named as the scopes "
                "(messages.send …). Assign one in Entra ID, consent to it, and ask for a new token.",
            )
        given = self._api.applications.get(client_id, Application(name=client_id))
        return Key(
            kind="access_token",
            id=f"entra:{client_id}",
            application=given.name,
            test=given.test,
            scopes=scopes,
            senders=given.senders,
            restrictions=given.restrictions,
            created_at=_moment(claims["iat"]),
            expires_at=_moment(claims["exp"]),
            revoked_at=None,
            last_used_at=None,
        )


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(min(max(float(seconds), 0.0), _END_OF_TIME), UTC)


def _key_name(token: str) -> str:
    """Return the name of the key that signed; raises a 401 problem."""
    try:
        header = jwt.get_unverified_header(token)
    except _NO_TOKEN:
        raise unauthorized("invalid_token", "This is no access token of Entra ID.") from None
    name = header.get("kid")
    if header.get("alg") != "RS256" or not isinstance(name, str) or not 0 < len(name) <= 200:
        raise unauthorized("invalid_token", "This token is not signed as Entra ID signs (RS256, with `kid`).")
    return name


def _is_an_applications(claims: Mapping[str, Any]) -> bool:
    if "scp" in claims:
        return False
    if "idtyp" in claims:
        return bool(claims["idtyp"] == "app")
    speaks_for_itself = claims.get("sub") is not None and claims.get("sub") == claims.get("oid")
    return speaks_for_itself and str(claims.get("azpacr", claims.get("appidacr"))) in {"1", "2"}


def _refused(fault: Exception) -> Problem:
    """Say what is wrong with a token; its signature has been checked before its claims."""
    match fault:
        case jwt.ExpiredSignatureError():
            return unauthorized("token_expired", "This token has expired: ask Entra ID for a new one.")
        case jwt.ImmatureSignatureError():
            return unauthorized("token_not_yet_valid", "This token is not valid yet: are the clocks right?")
        case jwt.InvalidAudienceError():
            return unauthorized(
                "wrong_audience",
                "This token is for another API. Ask for the scope `<audience>/.default`, with the audience "
                "that is configured here.",
            )
        case jwt.InvalidIssuerError():
            return unauthorized(
                "wrong_issuer", "This token was not issued by the directory that is configured here."
            )
        case jwt.InvalidSignatureError():
            return unauthorized("invalid_token", "The signature of this token is wrong.")
        case _:
            return unauthorized("invalid_token", "This is no access token of Entra ID.")
