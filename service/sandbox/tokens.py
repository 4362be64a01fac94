"""Entra ID's token endpoint: discovery, keys, the client-credentials grant, and codes of people (`authorize`).

Enough of `login.microsoftonline.com` for msal with `authority=https://localhost:PORT/TENANT` and
`instance_discovery=False`, for an application that identifies itself with a client secret or with a
certificate (RFC 7523). Errors are Entra's: its JSON, its AADSTS numbers and the text of its page
"Microsoft Entra authentication and authorization error codes".

Besides Microsoft's own resources the tenant may have APIs of its own (`SandboxApi`): Postroom is one, and
takes their tokens as the bearers of its callers.

A token without the role that a service wants (SMTP.SendAsApp, Mail.Send), or for another resource, is issued like any other; it is
Exchange that refuses it. Expiry is looked at when a session logs in, not later.
"""

import asyncio
import hmac
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from service.sandbox.authorize import Authorizations, BadCode
from service.sandbox.config import SandboxApi, SandboxApplication, TokenFault
from service.sandbox.mailroom import Journal
from service.sandbox.signing import SigningKeys, base64
from service.sandbox.tenant import Tenant

_EXCHANGE = tuple(f"https://{host}" for host in (
    "outlook.office365.com", "outlook.office.com", "outlook.office365.us", "outlook-dod.office365.us",
    "partner.outlook.cn",
))  # fmt: skip
_RESOURCES = (
    *_EXCHANGE,
    "https://graph.microsoft.com",
    "https://graph.microsoft.us",
    "https://management.azure.com",
)
#: What PyJWT raises for what is no token; deep JSON in one reaches the interpreter's limit.
_NO_TOKEN = (jwt.PyJWTError, ValueError, RecursionError)
_JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_BODY_LIMIT = 64 * 1024

_SCOPE_INVALID = (
    "The provided value for scope is not valid. Client credential flows must have a scope value with /.default "
    "suffixed to the resource identifier (application ID URI)."
)
_APPLICATION_UNKNOWN = (
    "Application was not found in the directory. This can happen if the application has not been installed by the "
    "administrator of the tenant or consented to by any user in the tenant."
)
_CREDENTIAL_WRONG = (
    "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not "
    "the client secret ID, for a secret added to app '{app}'."
)


class BadToken(Exception):
    """Exchange does not take this token; `reason` says why."""

    def __init__(self, reason: str, *, expired: bool = False) -> None:
        """`reason` is for the sandbox's sign-in log."""
        super().__init__(reason)
        self.reason = reason
        self.expired = expired


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What Exchange reads in an access token of this tenant."""

    client_id: str
    roles: tuple[str, ...]
    expires_in: float  # seconds

    def demand(self, role: str) -> None:
        """Raise BadToken where the application lacks a role."""
        if role not in self.roles:
            raise BadToken(f"the token lacks the role {role}")


class _Refused(Exception):
    """Entra refuses the request."""

    def __init__(self, status: int, error: str, *, code: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.error = error
        self.code = code
        self.text = text


class Entra:
    """The token service of one tenant."""

    def __init__(self, tenant: Tenant, *, key: RSAPrivateKey) -> None:
        """`key` signs the tokens."""
        self._tenant = tenant
        self._keys = SigningKeys(key)
        self._generation = 0
        self._applications = {
            application.client_id: application for application in tenant.config.applications
        }
        self._authorizations = Authorizations(tenant)
        self.requests = Journal(keep=1000)

    # What Exchange asks

    def read(self, token: str) -> Token:
        """Read a token for Exchange Online. Raises BadToken."""
        try:
            key = self._keys.key_of(token)
            if key is None:
                raise BadToken("the token is not one of this tenant's")
            claims = jwt.decode(
                token,
                key,
                algorithms=["RS256"],
                audience=list(_EXCHANGE),
                options={"require": ["exp", "aud", "tid", "appid"]},
            )
        except jwt.ExpiredSignatureError:
            raise BadToken("the token has expired", expired=True) from None
        except jwt.InvalidAudienceError:
            raise BadToken("the token is for another resource than Exchange Online") from None
        except _NO_TOKEN:
            raise BadToken("the token is not one of this tenant's") from None
        if claims.get("sandbox_generation") != self._generation:
            raise BadToken("the token was revoked")
        return Token(
            client_id=str(claims["appid"]),
            roles=tuple(claims.get("roles", ())),
            expires_in=claims["exp"] - time.time(),
        )

    def revoke_all(self) -> None:
        """Let Exchange refuse every token issued so far."""
        self._generation += 1

    async def roll(self) -> None:
        """Sign with a new key; the one before is still published, older ones are not."""
        await asyncio.to_thread(self._keys.roll)

    # What an application asks

    def app(self) -> FastAPI:
        """Return the endpoints, to be served over TLS."""
        app = FastAPI(title="Entra ID, simulated", docs_url=None, redoc_url=None, openapi_url=None)
        app.add_api_route("/{tenant}/v2.0/.well-known/openid-configuration", self.discovery)
        app.add_api_route("/{tenant}/discovery/v2.0/keys", self.keys)
        app.add_api_route("/{tenant}/oauth2/v2.0/authorize", self.authorize)
        app.add_api_route("/{tenant}/oauth2/v2.0/token", self.token, methods=["POST"])
        return app

    async def discovery(self, tenant: str, request: Request) -> Response:
        """OpenID Connect discovery, as far as msal and Postroom read it."""
        if (staged := await self._directory_fault()) is not None:
            return staged
        try:
            self._check_tenant(tenant)
        except _Refused as refused:
            return _problem(refused)
        base = _base(request, tenant)
        return JSONResponse({
            "issuer": f"{base}/v2.0",
            "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
            "token_endpoint": f"{base}/oauth2/v2.0/token",
            "device_authorization_endpoint": f"{base}/oauth2/v2.0/devicecode",
            "jwks_uri": f"{base}/discovery/v2.0/keys",
            "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt"],
            "response_types_supported": ["code"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["RS256"],
        })  # fmt: skip

    async def keys(self, tenant: str) -> Response:
        """Return the public keys of the tokens (RFC 7517)."""
        if (staged := await self._directory_fault()) is not None:
            return staged
        self.requests.note(client_id="", outcome="keys")
        return JSONResponse(self._keys.published())

    async def authorize(self, tenant: str, request: Request) -> Response:
        """The page on which a person signs in (RFC 6749 §4.1)."""
        try:
            self._check_tenant(tenant)
        except _Refused as refused:
            return _problem(refused)
        return self._authorizations.page(request.query_params)

    async def token(self, tenant: str, request: Request) -> Response:
        """The client-credentials grant (RFC 6749 §4.4), and the exchange of a person's code (§4.1.3)."""
        form = await _form(request)
        client_id = form.get("client_id", "")
        fault = self._fault(client_id)
        if fault is not None:
            self.requests.note(client_id=client_id[:64], outcome=fault.kind)
            if fault.kind != "slow":
                return _staged(fault)
            await asyncio.sleep(fault.seconds)
        try:
            self._check_tenant(tenant)
            issued = self._grant(form, endpoint=f"{_base(request, tenant)}/oauth2/v2.0/token")
        except _Refused as refused:
            self.requests.note(client_id=client_id[:64], outcome=f"AADSTS{refused.code}")
            return _problem(refused)
        self.requests.note(client_id=client_id[:64], outcome="issued")
        return JSONResponse(issued, headers={"Cache-Control": "no-store"})

    def _check_tenant(self, tenant: str) -> None:
        known = {self._tenant.config.tenant_id, *self._tenant.config.accepted_domains}
        if tenant.lower() not in {name.lower() for name in known}:
            raise _Refused(
                400,
                "invalid_request",
                code=90002,
                text="Tenant was not found. Check to make sure you have the correct tenant ID and are signing "
                "into the correct cloud.",
            )

    def _grant(self, form: Mapping[str, str], *, endpoint: str) -> dict[str, Any]:
        if "grant_type" not in form:
            raise _missing("grant_type")
        if form["grant_type"] == "authorization_code":
            return self._exchange(form, endpoint=endpoint)
        if form["grant_type"] != "client_credentials":
            raise _Refused(
                400, "unsupported_grant_type", code=70003, text="The app requested an unsupported grant type."
            )
        application = self._identify(form, endpoint=endpoint)
        resource, default, _ = form.get("scope", "").partition("/.default")
        if not default:
            raise _Refused(400, "invalid_scope", code=1002012, text=_SCOPE_INVALID)
        api = self._api(resource)
        if api is None and resource not in _RESOURCES:
            text = "The resource principal was not found in the tenant."
            raise _Refused(400, "invalid_resource", code=500011, text=text)
        claims = self._claims(application)
        if api is None:
            roles = list(application.roles) if resource in _EXCHANGE else []
            claims |= self._first_version(application, audience=resource, roles=roles)
        elif api.token_version == 1:
            claims |= self._first_version(application, audience=resource, roles=_roles(application, api))
        else:
            base = endpoint.removesuffix("/oauth2/v2.0/token")
            claims |= _second_version(application, api, issuer=f"{base}/v2.0")
        return self._issue(claims)

    def _exchange(self, form: Mapping[str, str], *, endpoint: str) -> dict[str, Any]:
        """Change a code into an ID token."""
        application = self._identify(form, endpoint=endpoint)
        try:
            claims = self._authorizations.redeem(form, application)
        except BadCode as bad:
            raise _Refused(400, "invalid_grant", code=bad.code, text=bad.text) from None
        now = int(time.time())
        life = self._tenant.switches.token_seconds
        claims |= {
            "iss": f"{endpoint.removesuffix('/oauth2/v2.0/token')}/v2.0", "tid": self._tenant.config.tenant_id,
            "iat": now, "nbf": now, "exp": now + life,
        }  # fmt: skip
        return {"token_type": "Bearer", "expires_in": life, "id_token": self._keys.sign(claims)}

    def _api(self, resource: str) -> SandboxApi | None:
        """Find an API of the tenant's own by its URI or its client id."""
        apis = self._tenant.config.apis
        return next((api for api in apis if resource in {api.identifier, api.client_id}), None)

    def _identify(self, form: Mapping[str, str], *, endpoint: str) -> SandboxApplication:
        """Return the application that the request proves to come from."""
        if "client_id" not in form:
            raise _missing("client_id")
        application = self._applications.get(form["client_id"])
        if application is None:
            raise _Refused(400, "unauthorized_client", code=700016, text=_APPLICATION_UNKNOWN)
        if "client_assertion" in form:
            _check_assertion(form, application, endpoint=endpoint)
        elif "client_secret" in form:
            _check_secret(form["client_secret"], application)
        else:
            text = "The request body must contain the following parameter: 'client_assertion' or 'client_secret'."
            raise _Refused(401, "invalid_client", code=7000218, text=text)
        return application

    def _claims(self, application: SandboxApplication) -> dict[str, Any]:
        """What every token of an application says."""
        now = int(time.time())
        subject = str(uuid.uuid5(uuid.NAMESPACE_URL, application.client_id))
        return {
            "iat": now, "nbf": now, "exp": now + self._tenant.switches.token_seconds,
            "oid": subject, "sub": subject, "tid": self._tenant.config.tenant_id, "uti": uuid.uuid4().hex,
        }  # fmt: skip

    def _first_version(
        self, application: SandboxApplication, *, audience: str, roles: list[str]
    ) -> dict[str, Any]:
        return {
            "aud": audience, "iss": f"https://sts.windows.net/{self._tenant.config.tenant_id}/",
            "appid": application.client_id, "appidacr": _proof(application), "ver": "1.0", "idtyp": "app",
            "roles": roles, "sandbox_generation": self._generation,
        }  # fmt: skip

    def _issue(self, claims: dict[str, Any]) -> dict[str, Any]:
        life = claims["exp"] - claims["iat"]
        token = self._keys.sign(claims)
        return {"token_type": "Bearer", "expires_in": life, "ext_expires_in": life, "access_token": token}

    async def _directory_fault(self) -> Response | None:
        """Treat a question for the directory as the switch says."""
        fault = self._tenant.switches.directory_fault
        if fault is None:
            return None
        if fault.kind != "slow":
            return _staged(fault)
        await asyncio.sleep(fault.seconds)
        return None

    def _fault(self, client_id: str) -> TokenFault | None:
        faults = self._tenant.switches.token_faults
        name = client_id if client_id in faults else "*"
        fault = faults.get(name)
        if fault is None:
            return None
        given = self._tenant.token_faults_given
        if fault.times is not None and given[name] >= fault.times:
            return None
        given[name] += 1
        return fault


def _proof(application: SandboxApplication) -> str:
    """Say how the application proves itself: 1 by a secret, 2 by a certificate."""
    return "1" if application.client_secret is not None else "2"


def _roles(application: SandboxApplication, api: SandboxApi) -> list[str]:
    return list(application.api_roles.get(api.identifier, ()))


def _second_version(application: SandboxApplication, api: SandboxApi, *, issuer: str) -> dict[str, Any]:
    """What is different in a token of version 2.0; `idtyp` is not there unless an API asks for it."""
    claims: dict[str, Any] = {
        "aud": api.client_id, "iss": issuer, "azp": application.client_id, "azpacr": _proof(application), "ver": "2.0",
    }  # fmt: skip
    roles = _roles(application, api)
    return claims | ({"roles": roles} if roles else {})


def _check_secret(secret: str, application: SandboxApplication) -> None:
    expected = application.client_secret
    if expected is None or not hmac.compare_digest(secret.encode(), expected.encode()):
        text = _CREDENTIAL_WRONG.format(app=application.client_id)
        raise _Refused(401, "invalid_client", code=7000215, text=text)


def _check_assertion(form: Mapping[str, str], application: SandboxApplication, *, endpoint: str) -> None:
    """Check a client assertion (RFC 7523 §3): the certificate, its signature, whom it is for, its time."""
    unsigned = _Refused(
        401,
        "invalid_client",
        code=700027,
        text="The certificate with identifier used to sign the client assertion is not registered on application.",
    )
    if application.certificate is None or form.get("client_assertion_type") != _JWT_BEARER:
        raise unsigned
    certificate = x509.load_pem_x509_certificate(application.certificate.encode())
    key = certificate.public_key()
    assert isinstance(key, RSAPublicKey), "the configuration takes no other"
    try:
        header = jwt.get_unverified_header(form["client_assertion"])
        # RFC 7515 §4.1.7 has no padding; msal sends some, and Entra does not mind.
        given = (str(header.get("x5t")).rstrip("="), str(header.get("x5t#S256")).rstrip("="))
        own = (base64(certificate.fingerprint(SHA1())), base64(certificate.fingerprint(SHA256())))  # noqa: S303
        if given[0] != own[0] and given[1] != own[1]:
            raise unsigned
        jwt.decode(
            form["client_assertion"],
            key,
            algorithms=["RS256", "PS256"],
            audience=[endpoint, endpoint.removesuffix("/oauth2/v2.0/token") + "/v2.0"],
            issuer=application.client_id,
            options={"require": ["exp", "iss", "sub", "aud"]},
        )
    except (jwt.ExpiredSignatureError, jwt.ImmatureSignatureError):
        text = "Client assertion is not within its valid time range."
        raise _Refused(401, "invalid_client", code=700024, text=text) from None
    except (jwt.InvalidAudienceError, jwt.InvalidIssuerError):
        text = "Client assertion audience or issuer claim does not match."
        raise _Refused(401, "invalid_client", code=700023, text=text) from None
    except _NO_TOKEN:
        text = "Client assertion failed signature validation."
        raise _Refused(401, "invalid_client", code=700027, text=text) from None


def _missing(name: str) -> _Refused:
    text = f"The request body must contain the following parameter: '{name}'."
    return _Refused(400, "invalid_request", code=900144, text=text)


def _problem(refused: _Refused) -> Response:
    """Write an error as Entra does."""
    now = datetime.now(UTC)
    trace, correlation = str(uuid.uuid4()), str(uuid.uuid4())
    stamp = f"{now:%Y-%m-%d %H:%M:%S}Z"
    description = f"AADSTS{refused.code}: {refused.text} Trace ID: {trace} Correlation ID: {correlation} Timestamp: {stamp}"
    return JSONResponse(
        {
            "error": refused.error,
            "error_description": description,
            "error_codes": [refused.code],
            "timestamp": stamp,
            "trace_id": trace,
            "correlation_id": correlation,
            "error_uri": f"https://login.microsoftonline.com/error?code={refused.code}",
        },
        status_code=refused.status,
    )


def _staged(fault: TokenFault) -> Response:
    """Answer as the switch says."""
    headers = {"Retry-After": str(fault.retry_after)} if fault.retry_after is not None else {}
    if fault.kind == "garbled":
        return Response("<html><body>Service unavailable</body></html>", media_type="text/html")
    if fault.kind == "throttled":
        text = "The server has terminated an operation because it encountered a client request limit."
        response = _problem(_Refused(429, "temporarily_unavailable", code=90055, text=text))
    else:
        text = "A transient error has occurred. Please try again."
        response = _problem(_Refused(503, "temporarily_unavailable", code=90033, text=text))
    response.headers.update(headers)
    return response


async def _form(request: Request) -> dict[str, str]:
    """Return the form's first values; what is too large or no form counts as empty."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > _BODY_LIMIT:
            return {}
    try:
        fields = parse_qs(body.decode("ascii"), max_num_fields=50)
    except ValueError:
        return {}
    return {name: values[0] for name, values in fields.items()}


def _base(request: Request, tenant: str) -> str:
    return f"{request.url.scheme}://{request.url.netloc}/{tenant}"
