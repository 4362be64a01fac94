"""Access tokens from Entra ID, by the client credentials grant (RFC 6749 §4.4), through msal.

A token belongs to an application and a scope, not to a mailbox: a hundred messages that wait
for one cause one request, and all lanes of the application share what comes. From ten minutes
before its end a token is renewed while it is still handed out; in its last five minutes a
caller waits for the new one, and gets the old one only where no new one is to be had.

msal blocks, so each request runs in a thread of its own: a token service that takes its time
keeps nobody waiting but those who need this very token, and not even the end of the process.

What can go wrong:

- `TokenRefused`: Entra ID said no to the application. Somebody has to act.
- `TokenUnavailable`: no answer, a useless one, or "not now".

Either is remembered for a while, and given again without a new request: for as long as
Retry-After says (RFC 9110 §10.2.3), otherwise for a time that doubles with each failure.

msal has memories of its own, for tokens and for failures. They are not used: each request is
made by a new msal application. It is loaded with the first request, in that request's thread: a
process that needs no token is spared its 6 MB, and the 2 MB of httpx.
"""

import asyncio
import email.utils
import json
import re
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_never
from urllib.parse import urlencode

import structlog

from service.routes.certificates import BadCertificate, check_application_certificate
from service.routes.kinds import CLOUDS, HIGH_VOLUME_SCOPE, Cloud
from service.routes.route import BasicLogin, Lane, OAuthLogin, RouteKind
from service.smtp.aside import aside
from service.smtp.peer import Login
from service.smtp.transcript import STARS, Strikeout
from service.telemetry import figures

if TYPE_CHECKING:
    import httpx2

EARLY = 600.0  # seconds before its end in which a token is renewed beside its use
URGENT = 300.0  # seconds before its end in which a caller waits for the new one
FORCED_APART = 30.0  # seconds between two renewals for a token that a peer refused
REFUSED_REST = 30.0  # seconds in which a refusal is not asked for again
LEAST_REST = 1.0  # seconds between a failure and the next request
LONGEST_REST = 60.0  # seconds; the most between two requests where the service does not say
LONGEST_RETRY_AFTER = 24 * 3600.0  # seconds
LONGEST_LIFE = 24 * 3600.0  # seconds; Entra ID gives an hour to a day

_ANSWER_OCTETS = 1024 * 1024
_FOR_A_WHILE = frozenset({"temporarily_unavailable", "server_error"})
_AADSTS = re.compile(r"AADSTS\d+")
_TOKEN = re.compile(r"[\x21-\x7e]{1,65536}")
_ASSERTION = re.compile(r"eyJ[\w-]{10,}\.[\w-]+\.?[\w-]*")  # signed, and good for some minutes

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entra:
    """Which directory gives the tokens, and where it is reached."""

    cloud: Cloud
    tenant_id: str
    authority: str  # base URL without the tenant
    own_authority: bool  # it is not the cloud's: no proxy on the way there
    ca_file: Path | None  # trusted instead of the system's authorities
    timeout: timedelta  # of one request for a token


class TokenRefused(Exception):
    """Entra ID does not give this application a token; somebody has to act.

    `code` is Microsoft's (`AADSTS7000215`) where there is one, otherwise the OAuth error or a
    name of ours.
    """

    def __init__(self, code: str, detail: str) -> None:
        self.code = code
        self.detail = detail
        super().__init__(f"{code}: {detail}")


class TokenUnavailable(Exception):
    """There is no token now. The next request is made in `retry_after` seconds at the earliest."""

    def __init__(self, retry_after: float | None, detail: str) -> None:
        self.retry_after = retry_after
        self.detail = detail
        super().__init__(detail)


class Tokens:
    """Gives each lane what to log in with. Belongs to one event loop."""

    def __init__(self, entra: Entra, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the directory to ask; `clock` counts seconds and never goes back."""
        self._entra = entra
        self._clock = clock
        self._applications: dict[tuple[OAuthLogin, str], _Application] = {}

    @property
    def tenant_id(self) -> str:
        """The directory that gives the tokens, as the remedies name it."""
        return self._entra.tenant_id

    def lives(self) -> dict[str, float]:
        """Say how long the token of each application still lives, in seconds; 0 where it has none."""
        now = self._clock()
        return {
            login.client_id: application.lives(now) for (login, _), application in self._applications.items()
        }

    async def login_for(self, lane: Lane, *, refresh: bool = False) -> Login | None:
        """Find what to log in with on this lane; None where its peer asks for no login.

        `refresh` says that the peer refused the token that it was given. A new one is asked for,
        but not twice within FORCED_APART: a mailbox without a permission refuses any token.

        Raises TokenRefused and TokenUnavailable.
        """
        match lane.login:
            case None:
                return None
            case BasicLogin(username=username, password=password):
                return Login(method="login", username=username, secret=password)
            case OAuthLogin() as login:
                assert lane.account is not None, "only mailboxes log in with OAuth"
                token = await self._application(login, self._scope(lane, login)).token(refresh=refresh)
                return Login(method="xoauth2", username=str(lane.account.address), secret=token)
            case _:
                assert_never(lane.login)

    def _scope(self, lane: Lane, login: OAuthLogin) -> str:
        if login.scope is not None:
            return login.scope
        if lane.route.kind is RouteKind.HIGH_VOLUME_EMAIL:
            return HIGH_VOLUME_SCOPE
        return CLOUDS[self._entra.cloud].submission_scope

    def _application(self, login: OAuthLogin, scope: str) -> "_Application":
        key = (login, scope)
        if key not in self._applications:
            asker = _Asker(self._entra, login, scope)
            self._applications[key] = _Application(
                asker, timeout=self._entra.timeout.total_seconds(), clock=self._clock
            )
        return self._applications[key]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Token:
    """A token and its times, in seconds of the clock."""

    text: str = field(repr=False)
    renew_at: float
    urgent_at: float
    ends_at: float

    @classmethod
    def living(cls, text: str, *, since: float, lifetime: float) -> "_Token":
        """Give a token its times; one that lives shortly is renewed in its second half."""
        return cls(
            text=text,
            renew_at=since + lifetime - min(EARLY, lifetime / 2),
            urgent_at=since + lifetime - min(URGENT, lifetime / 4),
            ends_at=since + lifetime,
        )


class _Application:
    """The one token of one application, and the one request for the next."""

    def __init__(self, asker: "_Asker", *, timeout: float, clock: Callable[[], float]) -> None:
        self._asker = asker
        self._timeout = timeout
        self._clock = clock
        self._held: _Token | None = None
        self._pending: asyncio.Task[_Token] | None = None
        self._failure: TokenRefused | TokenUnavailable | None = None
        self._failures = 0  # in a row
        self._rest_until = 0.0
        self._forced_at: float | None = None

    def lives(self, now: float) -> float:
        """Say how long the token lives from now on."""
        return 0.0 if self._held is None else max(self._held.ends_at - now, 0.0)

    async def token(self, *, refresh: bool) -> str:
        """Give the token, renewing it as far as its age or a peer's refusal asks for."""
        now, held = self._clock(), self._held
        forced = refresh and self._may_force(now)
        if held is not None and not forced:
            if now >= held.renew_at and now >= self._rest_until:
                self._renewal()
            if now < held.urgent_at:
                return held.text
        try:
            return (await asyncio.shield(self._renewal())).text
        except (TokenRefused, TokenUnavailable):
            if held is not None and not forced and self._clock() < held.ends_at:
                return held.text
            raise

    def _may_force(self, now: float) -> bool:
        """Let the first of those through whose token was refused; the others get what it brings."""
        if self._forced_at is not None and now < self._forced_at + FORCED_APART:
            return self._pending is not None
        self._forced_at = now
        return True

    def _renewal(self) -> "asyncio.Task[_Token]":
        """Join the request that is under way, or start one."""
        if self._pending is None:
            rest = self._rest_until - self._clock()
            if self._failure is not None and rest > 0:
                raise self._again(self._failure, rest)
            self._pending = asyncio.create_task(self._renew())
            self._pending.add_done_callback(self._done)
        return self._pending

    @staticmethod
    def _again(failure: TokenRefused | TokenUnavailable, rest: float) -> Exception:
        if isinstance(failure, TokenRefused):
            return TokenRefused(failure.code, failure.detail)
        return TokenUnavailable(rest, failure.detail)

    async def _renew(self) -> _Token:
        since = self._clock()
        try:
            async with asyncio.timeout(self._timeout):
                answer = await aside(self._asker.ask, name="entra")
        except TimeoutError:
            fault = TokenUnavailable(
                None, f"The token service did not answer within {self._timeout:g} seconds."
            )
            raise self._failed(fault) from None
        except (TokenRefused, TokenUnavailable) as fault:
            raise self._failed(fault) from fault.__cause__
        self._failures, self._failure = 0, None
        self._held = _Token.living(answer.token, since=since, lifetime=answer.lifetime)
        figures.TOKEN_REQUESTS.add("given")
        _log.info("token.renewed", client_id=self._asker.client_id, lifetime=answer.lifetime)
        return self._held

    def _failed(self, fault: TokenRefused | TokenUnavailable) -> TokenRefused | TokenUnavailable:
        """Remember a failure, and until when it is not to be tried again."""
        self._failures += 1
        if isinstance(fault, TokenRefused):
            rest = REFUSED_REST
        else:
            # Retry-After may say 0; a service in trouble still gets a pause.
            rest = max(LEAST_REST, self._own_rest() if fault.retry_after is None else fault.retry_after)
            fault = TokenUnavailable(rest, fault.detail)
        self._failure, self._rest_until = fault, self._clock() + rest
        figures.TOKEN_REQUESTS.add("failed")
        _log.warning("token.failed", client_id=self._asker.client_id, error=str(fault), rest=rest)
        return fault

    def _own_rest(self) -> float:
        return min(LONGEST_REST, LEAST_REST * 2.0 ** min(self._failures - 1, 10))

    def _done(self, task: "asyncio.Task[_Token]") -> None:
        self._pending = None
        if not task.cancelled():
            task.exception()  # seen: where nobody waited, the next caller hears of it


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    token: str = field(repr=False)
    lifetime: float  # seconds


class _Asker:
    """Asks Entra ID for a token for one application, blocking."""

    def __init__(self, entra: Entra, login: OAuthLogin, scope: str) -> None:
        self.client_id = login.client_id
        self._entra = entra
        self._login = login
        self._scope = scope

    def ask(self) -> _Answer:
        """Make one request. Raises TokenRefused and TokenUnavailable, and nothing else."""
        import httpx2

        try:
            with _http_client(self._entra) as client:
                return self._read(self._request(_Http(client, limit=self._entra.timeout.total_seconds())))
        except (TokenRefused, TokenUnavailable):
            raise
        except httpx2.TransportError as fault:
            raise TokenUnavailable(
                None, f"The token service cannot be reached: {_one_line(str(fault))}"
            ) from fault
        except Exception as fault:
            # msal reads what a foreign server sent, and says no more about what it may raise.
            raise TokenUnavailable(None, f"No token could be asked for ({type(fault).__name__}).") from fault

    def _request(self, http: "_Http") -> Mapping[str, object]:
        import msal

        # A new one for each request. Its certificate may have been renewed, and msal's memory of
        # a token or a failure would answer in the service's place.
        application = msal.ConfidentialClientApplication(
            self.client_id,
            client_credential=self._credential(),
            authority=f"{self._entra.authority}/{self._entra.tenant_id}",
            # The host is the cloud's or the operator's own choice: there is nothing to find out.
            instance_discovery=False,
            http_client=http,
        )
        result: Mapping[str, object] = application.acquire_token_for_client(scopes=[self._scope])
        return result

    def _credential(self) -> str | dict[str, str]:
        if self._login.certificate is None or self._login.private_key is None:
            assert self._login.client_secret is not None, "an application has a secret or a certificate"
            return self._login.client_secret
        try:
            check_application_certificate(
                self._login.certificate, self._login.private_key, now=datetime.now(UTC)
            )
        except BadCertificate as bad:
            raise TokenRefused("bad_certificate", f"{bad.field} {bad}") from bad
        return {
            "private_key": self._login.private_key.read_text(encoding="ascii"),
            "public_certificate": self._login.certificate.read_text(encoding="ascii"),
        }

    def _read(self, result: Mapping[str, object]) -> _Answer:
        if "access_token" not in result:
            raise self._refusal(str(result.get("error")), str(result.get("error_description", "")))
        token = str(result["access_token"])
        lifetime = float(str(result.get("expires_in", 3600)))
        if not _TOKEN.fullmatch(token) or not lifetime > 0:
            raise TokenUnavailable(None, "The token service gave something that is no token.")
        return _Answer(token=token, lifetime=min(lifetime, LONGEST_LIFE))

    def _refusal(self, error: str, description: str) -> TokenRefused | TokenUnavailable:
        strike_out = Strikeout()
        strike_out.add(self._login.client_secret or "")
        detail = _one_line(_ASSERTION.sub(STARS, strike_out(description[:4000])))
        error = strike_out(error)
        if error in _FOR_A_WHILE:
            return TokenUnavailable(None, detail or error)
        code = _AADSTS.search(detail)
        if code is None:
            return TokenRefused(_one_line(error), detail or "The token service gave no reason.")
        return TokenRefused(code[0], detail.removeprefix(f"{code[0]}: "))


def _http_client(entra: Entra) -> "httpx2.Client":
    """Open a client that trusts what the settings say.

    The variables that move other clients' trust (REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE) have no say
    here. HTTPS_PROXY has on the way to Microsoft, not to an authority of one's own.
    """
    import httpx2

    try:
        trust = ssl.create_default_context(cafile=None if entra.ca_file is None else str(entra.ca_file))
    except (OSError, ValueError) as fault:
        raise TokenUnavailable(
            None, "The certificates to trust for the token service (entra.ca_file) cannot be read."
        ) from fault
    return httpx2.Client(
        verify=trust,
        trust_env=not entra.own_authority,
        timeout=entra.timeout.total_seconds(),
        follow_redirects=False,  # a secret goes where it was meant to go
    )


@dataclass(frozen=True, slots=True)
class _Response:
    """What msal wants to see of a response."""

    status_code: int
    text: str
    headers: Mapping[str, str]

    def raise_for_status(self) -> None:
        """Do nothing: what is no answer never got here."""


class _Http:
    """Carries msal's requests, bounded in time and size, and hands on only answers that say something."""

    def __init__(self, client: "httpx2.Client", *, limit: float) -> None:
        self._client = client
        self._deadline = time.monotonic() + limit

    def get(self, url: str, *, params: Any = None, headers: Any = None, **_: object) -> _Response:
        """Fetch a discovery document; without one there is nothing to ask."""
        response = self._send("GET", url, params=params, headers=headers)
        if response.status_code != 200:
            detail = _one_line(str(json.loads(response.text).get("error_description", "")))
            code = _AADSTS.search(detail)
            if code is None:
                raise TokenRefused(
                    "no_directory", f"There is none at {_one_line(url)} (HTTP {response.status_code})."
                )
            raise TokenRefused(code[0], detail.removeprefix(f"{code[0]}: "))
        return response

    def post(
        self, url: str, *, data: Mapping[str, object], params: Any = None, headers: Any = None, **_: object
    ) -> _Response:
        """Ask for a token."""
        # Encoded here: msal signs assertions as bytes, which the client would write as "b'…'".
        headers = {**(headers or {}), "Content-Type": "application/x-www-form-urlencoded"}
        return self._send("POST", url, params=params, content=urlencode(data).encode(), headers=headers)

    def close(self) -> None:
        """Leave it to the one who opened the client."""

    def _send(self, method: str, url: str, **parts: Any) -> _Response:
        if not url.startswith("https://"):
            raise TokenUnavailable(None, "The directory names a token endpoint without TLS.")
        with self._client.stream(method, url, **parts) as response:
            text = self._body(response)
        wait = retry_after(response.headers.get("retry-after"), now=datetime.now(UTC))
        if (
            response.status_code in {408, 429}
            or response.status_code >= 500
            or (wait and response.status_code >= 400)
        ):
            raise TokenUnavailable(wait, f"The token service answered HTTP {response.status_code}.")
        if 300 <= response.status_code < 400 or not _is_object(text):
            detail = (
                f"HTTP {response.status_code} came from the token service's address, and not in its language."
            )
            raise TokenUnavailable(None, detail)
        return _Response(response.status_code, text, response.headers)

    def _body(self, response: "httpx2.Response") -> str:
        # The client's own limits are for each read; a server that drips stays within all of them.
        body = bytearray()
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > _ANSWER_OCTETS or time.monotonic() > self._deadline:
                raise TokenUnavailable(None, "The token service's answer was too long or too slow.")
        return body.decode(errors="replace")


def retry_after(value: str | None, *, now: datetime) -> float | None:
    """Read Retry-After (RFC 9110 §10.2.3), seconds or a date, as seconds from now; None where it says nothing."""
    if value is None:
        return None
    if value.isascii() and value.strip().isdecimal():
        return min(float(value.strip()[:9]), LONGEST_RETRY_AFTER)
    try:
        at = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return min(max((at - now).total_seconds(), 0.0), LONGEST_RETRY_AFTER)


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _one_line(text: str) -> str:
    """Make foreign text fit for a log: one line, printable, not endless."""
    return " ".join("".join(char if char.isprintable() else " " for char in text[:4000]).split())[:600]
