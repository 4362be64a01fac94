"""The token endpoint, asked by msal, and the tokens as Exchange sees them."""

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from service.sandbox import Sandbox, SandboxApplication, SandboxMailbox, contoso
from tests.sandbox.client import CLIENT_ID, MAILBOX, secured
from tests.sandbox.entra import SCOPE, TENANT, ask_msal, readback, signed_in_log, token_for
from tests.waiting import eventually

OTHER_CLIENT = "22222222-2222-4222-8222-222222222222"


async def test_msal_gets_a_token_with_a_secret(sandbox: Sandbox) -> None:
    """The token names tenant, application, audience and role, and lives about an hour."""
    answer = await asyncio.to_thread(ask_msal, sandbox)

    claims = jwt.decode(answer["access_token"], options={"verify_signature": False})
    assert answer["expires_in"] == 3599
    assert claims["aud"] == "https://outlook.office365.com"
    assert claims["roles"] == ["SMTP.SendAsApp", "Mail.Send"]
    assert (claims["tid"], claims["appid"]) == (TENANT, CLIENT_ID)
    assert claims["exp"] - claims["iat"] == 3599


async def test_a_token_is_signed_with_the_published_key(sandbox: Sandbox) -> None:
    """The key that discovery leads to verifies the token."""
    token = await token_for(sandbox)

    async with _entra(sandbox) as client:
        found = (await client.get(f"/{TENANT}/v2.0/.well-known/openid-configuration")).json()
        (key,) = (await client.get(found["jwks_uri"])).json()["keys"]

    assert jwt.get_unverified_header(token)["kid"] == key["kid"]
    jwt.decode(token, jwt.PyJWK(key).key, algorithms=["RS256"], audience="https://outlook.office365.com")


async def test_the_tenant_may_be_named_by_its_domain(sandbox: Sandbox) -> None:
    """An accepted domain is as good as the tenant's id."""
    assert await token_for(sandbox, tenant="contoso.onmicrosoft.com")


@pytest.mark.parametrize(
    ("asked", "error", "code"),
    [
        ({"credential": "wrong"}, "invalid_client", 7000215),
        ({"client_id": OTHER_CLIENT}, "unauthorized_client", 700016),
        ({"scope": "https://outlook.office365.com/SMTP.Send"}, "invalid_scope", 1002012),
        ({"scope": "https://nothing.example/.default"}, "invalid_resource", 500011),
    ],
)
async def test_entra_refuses_in_its_own_words(
    sandbox: Sandbox, asked: dict[str, str], error: str, code: int
) -> None:
    """A wrong secret, application or scope gets Entra's error, number and description."""
    answer = await asyncio.to_thread(lambda: ask_msal(sandbox, **asked))

    assert answer["error"] == error
    assert answer["error_codes"] == [code]
    assert answer["error_description"].startswith(f"AADSTS{code}: ")
    assert "Trace ID: " in answer["error_description"]
    assert "wrong" not in answer["error_description"]


async def test_an_unknown_tenant_has_no_discovery(sandbox: Sandbox) -> None:
    """There is nothing for msal to go on: it stops at discovery for a tenant that is not there."""
    with pytest.raises(ValueError, match="Unable to get authority configuration"):
        await asyncio.to_thread(lambda: ask_msal(sandbox, tenant="other.example"))


@pytest.mark.parametrize(
    ("form", "status", "code"),
    [
        ({}, 400, 900144),
        ({"grant_type": "password"}, 400, 70003),
        ({"grant_type": "client_credentials"}, 400, 900144),
        ({"grant_type": "client_credentials", "client_id": CLIENT_ID}, 401, 7000218),
    ],
)
async def test_an_incomplete_request_is_refused(
    sandbox: Sandbox, form: dict[str, str], status: int, code: int
) -> None:
    """What is missing is named, with the status that Entra gives."""
    async with _entra(sandbox) as client:
        response = await client.post(f"/{TENANT}/oauth2/v2.0/token", data=form)

    assert (response.status_code, response.json()["error_codes"]) == (status, [code])


@pytest.mark.parametrize("body", [b"\xff\xfe", b"a=" + b"x" * 100_000, b"&" * 5000, b"client_id=\xc3\xa4"])
async def test_a_hostile_body_is_a_bad_request(sandbox: Sandbox, body: bytes) -> None:
    """Broken, huge and endless forms count as empty ones."""
    async with _entra(sandbox) as client:
        assert (await client.post(f"/{TENANT}/oauth2/v2.0/token", content=body)).status_code == 400


async def test_msal_gets_a_token_with_a_certificate(state: Path) -> None:
    """A client assertion signed with the registered certificate's key is taken; another's is not."""
    key, certificate = _certificate()
    other_key, other = _certificate()
    application = SandboxApplication(client_id=CLIENT_ID, certificate=certificate)

    async with Sandbox(contoso(state, applications=(application,))) as sandbox:
        good, foreign, forged = [
            await asyncio.to_thread(
                ask_msal, sandbox, credential={"private_key": private, "public_certificate": public}
            )
            for private, public in [(key, certificate), (other_key, other), (other_key, certificate)]
        ]

    assert good["token_type"] == "Bearer"
    assert foreign["error_codes"] == forged["error_codes"] == [700027]


async def test_an_old_assertion_is_refused(state: Path) -> None:
    """An assertion beyond its time, or for somebody else, has its own number."""
    key, certificate = _certificate()
    application = SandboxApplication(client_id=CLIENT_ID, certificate=certificate)

    async with Sandbox(contoso(state, applications=(application,))) as sandbox, _entra(sandbox) as client:
        endpoint = f"{sandbox.authority}/{TENANT}/oauth2/v2.0/token"
        old = await _assert(client, endpoint, key=key, certificate=certificate, age=timedelta(hours=1))
        foreign = await _assert(client, "https://evil.example/token", key=key, certificate=certificate)

    assert (old, foreign) == (700024, 700023)


@pytest.mark.parametrize(
    ("roles", "scope", "applications", "reason"),
    [
        ((), SCOPE, (CLIENT_ID,), "the token lacks the role SMTP.SendAsApp"),
        (("SMTP.SendAsApp",), "https://graph.microsoft.com/.default", (CLIENT_ID,),
         "the token is for another resource than Exchange Online"),
        (("SMTP.SendAsApp",), SCOPE, (), "the application has no permission on the mailbox (Add-MailboxPermission)"),
    ],
)  # fmt: skip
async def test_exchange_refuses_what_entra_issues(
    state: Path, roles: tuple[str, ...], scope: str, applications: tuple[str, ...], reason: str
) -> None:
    """Without role, audience or permission the token is issued all the same, and SMTP says 535."""
    application = SandboxApplication(client_id=CLIENT_ID, client_secret="sandbox-client-secret", roles=roles)
    mailbox = SandboxMailbox(address=MAILBOX, applications=applications)

    async with Sandbox(contoso(state, applications=(application,), mailboxes=(mailbox,))) as sandbox:
        token = await token_for(sandbox, scope=scope)
        async with secured(sandbox) as client:
            assert str(await client.token(token)).startswith("535 5.7.3")
        assert (await signed_in_log(sandbox))[0]["reason"] == reason


async def test_an_expired_token_is_refused_and_an_open_session_goes_on(sandbox: Sandbox) -> None:
    """Expiry is looked at when a session logs in; what is open stays open."""
    # A token of two seconds may be too old on a busy machine before it is shown: then ask for another.
    sandbox.switch(token_seconds=2, failed_logins=0)

    async with secured(sandbox) as early, secured(sandbox) as late:

        async def logged_in_with() -> str | None:
            token = await token_for(sandbox)
            return token if (await early.token(token)).code == 235 else None

        token = await eventually(logged_in_with)
        expires = jwt.decode(token, options={"verify_signature": False, "verify_exp": False})["exp"]
        await eventually(lambda: datetime.now(UTC).timestamp() > expires)

        assert (await late.token(token)).code == 535
        assert (await early.send("ana@fabrikam.com")).code == 250
    assert (await signed_in_log(sandbox))[0]["reason"] == "the token has expired"


async def test_revoked_tokens_are_refused_and_a_fresh_one_is_taken(sandbox: Sandbox) -> None:
    """After a revocation only a new token opens the mailbox."""
    old = await token_for(sandbox)
    async with readback(sandbox) as http:
        assert (await http.post("/tokens/revoke")).status_code == 204

    async with secured(sandbox) as client:
        assert (await client.token(old)).code == 535
        assert (await client.token(await token_for(sandbox))).code == 235


async def test_a_forged_token_is_refused(sandbox: Sandbox) -> None:
    """A token that somebody else signed with the right claims opens nothing."""
    claims = jwt.decode(await token_for(sandbox), options={"verify_signature": False})
    forged = jwt.encode(
        claims, rsa.generate_private_key(public_exponent=65537, key_size=2048), algorithm="RS256"
    )

    async with secured(sandbox) as client:
        assert (await client.token(forged)).code == 535


@pytest.mark.parametrize(("kind", "status"), [("throttled", 429), ("unavailable", 503), ("garbled", 200)])
async def test_one_applications_tokens_can_fail(sandbox: Sandbox, kind: str, status: int) -> None:
    """A fault holds for its application as often as it says, with Retry-After, and is gone then."""
    sandbox.switch(token_faults={CLIENT_ID: {"kind": kind, "retry_after": 7, "times": 1}})
    form = {"grant_type": "client_credentials", "client_id": CLIENT_ID, "client_secret": "sandbox-client-secret",
            "scope": SCOPE}  # fmt: skip

    async with _entra(sandbox) as client:
        first = await client.post(f"/{TENANT}/oauth2/v2.0/token", data=form)
        second = await client.post(f"/{TENANT}/oauth2/v2.0/token", data=form)

    assert first.status_code == status
    assert first.headers.get("Retry-After") == (None if kind == "garbled" else "7")
    assert second.json()["token_type"] == "Bearer"


async def test_a_token_of_endless_brackets_is_refused(sandbox: Sandbox) -> None:
    """JSON nested beyond the interpreter's depth is no token, and no trouble."""
    deep = jwt.utils.base64url_encode(b"[" * 4000).decode()

    async with secured(sandbox) as client:
        assert (await client.token(f"{deep}.e30.")).code == 535


async def test_a_slow_endpoint_answers_in_the_end(sandbox: Sandbox) -> None:
    """A slow fault for every application delays the answer and does not change it."""
    sandbox.switch(token_faults={"*": {"kind": "slow", "seconds": 0.05}})

    assert await token_for(sandbox)
    async with readback(sandbox) as client:
        outcomes = [entry["outcome"] for entry in (await client.get("/token-requests")).json()["data"]]
    assert outcomes == ["issued", "slow"]


async def test_a_token_outlives_a_restart(state: Path) -> None:
    """The signing key lies in the state folder, so what was issued before stays good."""
    async with Sandbox(contoso(state)) as sandbox:
        token = await token_for(sandbox)

    async with Sandbox(contoso(state)) as sandbox, secured(sandbox) as client:
        assert (await client.token(token)).code == 235


def _entra(sandbox: Sandbox) -> httpx2.AsyncClient:
    trust = ssl.create_default_context(cafile=sandbox.ca_file)
    return httpx2.AsyncClient(base_url=sandbox.authority, verify=trust, trust_env=False)


async def _assert(
    client: httpx2.AsyncClient, audience: str, *, key: str, certificate: str, age: timedelta = timedelta(0)
) -> int:
    """Ask with an assertion of our own making; return the number of the error."""
    now = datetime.now(UTC) - age
    claims = {
        "aud": audience,
        "iss": CLIENT_ID,
        "sub": CLIENT_ID,
        "exp": now + timedelta(minutes=5),
        "nbf": now,
    }
    fingerprint = x509.load_pem_x509_certificate(certificate.encode()).fingerprint(SHA256())
    thumbprint = jwt.utils.base64url_encode(fingerprint).decode()
    assertion = jwt.encode(claims, key, algorithm="PS256", headers={"x5t#S256": thumbprint})
    form = {"grant_type": "client_credentials", "client_id": CLIENT_ID, "scope": SCOPE, "client_assertion": assertion,
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}  # fmt: skip
    answer = (await client.post(f"/{TENANT}/oauth2/v2.0/token", data=form)).json()
    return int(answer["error_codes"][0])


def _certificate() -> tuple[str, str]:
    """Return a private key and its self-signed certificate, both PEM."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "postroom")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return private, certificate.public_bytes(Encoding.PEM).decode()
