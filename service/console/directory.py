"""Sign-in by Entra ID: authorization code with PKCE, for people with a role of Postroom's application.

    1  `begin` sends the browser to the directory, and gives it what the answer is recognised by, for ten minutes:
       state, nonce and verifier (RFC 6749 §10.12, OpenID Connect Core §3.1.2.1, RFC 7636), in a cookie of its own
    2  the directory signs the person in and sends the browser back with a code
    3  `end` changes the code into an ID token, over TLS and with the application's secret, and checks it like any token:
       signature by a published key, issuer, audience, tenant, times, and the nonce

What the person may do stands in `roles`: the app roles of the application, which are named as the scopes. Without
`operate` or `admin` nobody gets in: whoever works for one application only uses its key.
"""

import asyncio
import base64
import hashlib
import hmac
import secrets
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import httpx2
import jwt
import structlog
from starlette.requests import Request

from service.console.asking import Refused
from service.ledger.keys import SCOPES
from service.ledger.sign_ins import Person
from service.routes.directory import Directory, DirectoryUnavailable
from service.routes.tokens import Entra

#: Seconds that somebody may take at the directory.
TAKES = 600

#: Clocks may differ by so many seconds.
_SKEW = 60.0

_ANSWER_OCTETS = 256 * 1024

#: What PyJWT raises for what is no token.
_NO_TOKEN = (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class EntraSignIn:
    """The application by which people sign in."""

    entra: Entra
    client_id: str
    client_secret: str = field(repr=False)
    back: str  # where the directory sends people: an address that is registered with the application


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A sign-in on its way: where to go, and what the browser keeps meanwhile."""

    address: str
    kept: str = field(repr=False)


class People:
    """Signs people in. Belongs to one event loop."""

    def __init__(self, given: EntraSignIn) -> None:
        self._given = given
        self._directory = Directory(given.entra)
        self._client: httpx2.AsyncClient | None = None

    def begin(self, after: str) -> Begun:
        """Begin a sign-in after which the browser goes on to `after`."""
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
        query = {
            "client_id": self._given.client_id,
            "response_type": "code",
            "redirect_uri": self._given.back,
            "response_mode": "query",
            "scope": "openid profile",
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        packed = base64.urlsafe_b64encode(after.encode()).decode()
        kept = f"{state}.{nonce}.{verifier}.{packed}"
        return Begun(address=f"{self._base}/oauth2/v2.0/authorize?{urlencode(query)}", kept=kept)

    async def end(self, request: Request, kept: str) -> tuple[Person, str]:
        """Say who came back, and where they wanted to go; raises Refused."""
        query, parts = request.query_params, kept.split(".")
        if len(parts) != 4 or not hmac.compare_digest(query.get("state", "").encode(), parts[0].encode()):
            raise _not_begun()
        if "code" not in query:
            detail = f"Entra ID did not sign you in: {_code(query.get('error', 'no code'))}."
            raise Refused(status=403, code="not_signed_in", detail=detail)
        _, nonce, verifier, packed = parts
        token = await self._token(query["code"], verifier)
        person = _person(await self._claims(token, nonce))
        try:
            return person, base64.urlsafe_b64decode(packed).decode()
        except ValueError:
            raise _not_begun() from None

    async def aclose(self) -> None:
        """End what goes on in the background."""
        await self._directory.aclose()
        if self._client is not None:
            await self._client.aclose()

    @property
    def _base(self) -> str:
        return f"{self._given.entra.authority}/{self._given.entra.tenant_id}"

    async def _token(self, code: str, verifier: str) -> str:
        form = {
            "grant_type": "authorization_code",
            "client_id": self._given.client_id,
            "client_secret": self._given.client_secret,
            "code": code,
            "redirect_uri": self._given.back,
            "code_verifier": verifier,
        }
        try:
            async with asyncio.timeout(self._given.entra.timeout.total_seconds()):
                client = await self._opened()
                answer = await client.post(f"{self._base}/oauth2/v2.0/token", data=form)
            found = answer.json() if len(answer.content) <= _ANSWER_OCTETS else None
        except (OSError, TimeoutError, ValueError, RecursionError, httpx2.HTTPError):
            raise _unavailable() from None
        if not isinstance(found, dict):
            raise _unavailable()
        if answer.status_code != 200 or not isinstance(found.get("id_token"), str):
            codes = found.get("error_codes") or [found.get("error")]
            log.warning(
                "console.sign_in_refused", status=answer.status_code, codes=[_code(str(c)) for c in codes]
            )
            detail = "Entra ID did not accept the sign-in. Begin again; the log of the API has its reason."
            raise Refused(status=403, code="not_signed_in", detail=detail)
        return str(found["id_token"])

    async def _claims(self, token: str, nonce: str) -> Mapping[str, Any]:
        entra = self._given.entra
        try:
            name = jwt.get_unverified_header(token).get("kid")
            key = await self._directory.key(str(name))
            if key is None:
                raise ValueError("signed with a key that the directory does not publish")
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=["RS256"],
                audience=self._given.client_id,
                issuer=f"{entra.authority}/{entra.tenant_id}/v2.0",
                leeway=_SKEW,
                options={"require": ["exp", "nbf", "iat", "iss", "aud", "tid"]},
            )
            same = hmac.compare_digest(str(claims.get("nonce", "")).encode(), nonce.encode())
            if claims["tid"] != entra.tenant_id or not same:
                raise ValueError("of another tenant, or of another sign-in")
        except DirectoryUnavailable:
            raise _unavailable() from None
        except _NO_TOKEN as fault:
            log.warning("console.bad_id_token", error=type(fault).__name__)
            raise Refused(
                status=403, code="not_signed_in", detail="Entra ID's answer is not good: begin again."
            ) from None
        return claims

    async def _opened(self) -> httpx2.AsyncClient:
        if self._client is None:
            entra = self._given.entra
            # Reading the system's certificates takes a while.
            trust = await asyncio.to_thread(ssl.create_default_context, cafile=entra.ca_file)
            self._client = httpx2.AsyncClient(
                verify=trust,
                trust_env=not entra.own_authority,
                timeout=entra.timeout.total_seconds(),
                follow_redirects=False,
                limits=httpx2.Limits(max_connections=4, max_keepalive_connections=0),
            )
        return self._client


def _person(claims: Mapping[str, Any]) -> Person:
    """Read who it is and what they may do; raises Refused."""
    roles = claims.get("roles")
    scopes = [scope for scope in SCOPES if isinstance(roles, list) and scope in roles]
    if {"operate", "admin"}.isdisjoint(scopes):
        raise Refused(
            status=403,
            code="no_roles",
            detail="You have neither the role operate nor the role admin of Postroom's application in Entra ID. "
            "An administrator assigns them under Enterprise applications → Users and groups.",
        )
    subject = str(claims.get("oid") or claims.get("sub") or "")
    name = str(claims.get("preferred_username") or claims.get("name") or subject)
    if not subject:
        raise Refused(status=403, code="not_signed_in", detail="Entra ID did not say who you are.")
    return Person(subject=subject[:100], name=name[:200].replace("\0", ""), scopes=scopes)


def _code(written: str) -> str:
    """Keep of a directory's word what a code looks like."""
    return "".join(sign for sign in written[:60] if sign.isascii() and (sign.isalnum() or sign in "_ "))


def _not_begun() -> Refused:
    detail = "This sign-in was not begun here, or a while ago. Begin again."
    return Refused(status=403, code="not_begun", detail=detail)


def _unavailable() -> Refused:
    detail = "Entra ID cannot be reached at the moment. A key works as ever."
    return Refused(status=503, code="entra_unavailable", detail=detail, retry_after="5")
