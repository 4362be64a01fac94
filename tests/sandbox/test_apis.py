"""Access tokens for an API of the tenant's own: both versions, app roles, keys that roll, a directory in trouble."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import jwt
import pytest

from service.sandbox import Sandbox, SandboxApi, SandboxApplication, contoso
from tests.sandbox.client import secured
from tests.sandbox.entra import TENANT, readback, token_for

CALLER = {"client_id": "55555555-5555-4555-8555-555555555555", "credential": "sandbox-caller-secret"}
API, API_ID = "api://postroom", "77777777-7777-4777-8777-777777777777"


@asynccontextmanager
async def entra(sandbox: Sandbox) -> AsyncIterator[httpx2.AsyncClient]:
    """Open a client of the token endpoint."""
    trust = ssl.create_default_context(cafile=sandbox.ca_file)
    async with httpx2.AsyncClient(base_url=sandbox.authority, verify=trust, trust_env=False) as client:
        yield client


async def published(sandbox: Sandbox) -> dict[str, jwt.PyJWK]:
    async with entra(sandbox) as client:
        place = (await client.get(f"/{TENANT}/v2.0/.well-known/openid-configuration")).json()["jwks_uri"]
        return {key["kid"]: jwt.PyJWK(key) for key in (await client.get(place)).json()["keys"]}


def read(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


@pytest.mark.parametrize("name", [API, API_ID])
async def test_an_application_gets_a_token_with_its_app_roles(sandbox: Sandbox, name: str) -> None:
    """Version 2.0: the audience is the API's client id, the client is `azp`, and nothing says `idtyp`."""
    claims = read(await token_for(sandbox, scope=f"{name}/.default", **CALLER))

    assert claims["aud"] == API_ID
    assert claims["iss"] == f"{sandbox.authority}/{TENANT}/v2.0"
    assert (claims["azp"], claims["azpacr"], claims["ver"]) == (CALLER["client_id"], "1", "2.0")
    assert claims["sub"] == claims["oid"]
    assert "messages.send" in claims["roles"]
    assert "idtyp" not in claims


async def test_an_application_without_roles_gets_a_token_without_them(sandbox: Sandbox) -> None:
    """Entra ID issues it all the same; it is the API that refuses it."""
    assert "roles" not in read(await token_for(sandbox, scope=f"{API}/.default"))


async def test_an_api_may_ask_for_tokens_of_version_one(state: Path) -> None:
    """The audience is what was asked for, the client is `appid`, the issuer sts.windows.net."""
    api = SandboxApi(identifier=API, client_id=API_ID, token_version=1)
    application = SandboxApplication(
        client_id=CALLER["client_id"], client_secret=CALLER["credential"], api_roles={API: ("messages.read",)}
    )
    async with Sandbox(contoso(state, apis=(api,), applications=(application,), mailboxes=())) as sandbox:
        claims = read(await token_for(sandbox, scope=f"{API}/.default", **CALLER))

    assert claims["aud"] == API
    assert claims["iss"] == f"https://sts.windows.net/{TENANT}/"
    assert (claims["appid"], claims["roles"], claims["ver"]) == (
        CALLER["client_id"],
        ["messages.read"],
        "1.0",
    )


async def test_a_token_for_an_api_opens_no_mailbox(sandbox: Sandbox) -> None:
    """Exchange refuses it: it is for another resource."""
    token = await token_for(sandbox, scope=f"{API}/.default", **CALLER)

    async with secured(sandbox) as client:
        assert (await client.token(token)).code == 535


async def test_keys_roll_and_the_one_before_stays_published(sandbox: Sandbox) -> None:
    """A new key signs at once; two are published; what the one before signed still opens a mailbox."""
    (first,) = await published(sandbox)
    old = await token_for(sandbox)
    async with readback(sandbox) as http:
        assert (await http.post("/tokens/roll")).status_code == 204
    second = jwt.get_unverified_header(await token_for(sandbox))["kid"]
    async with secured(sandbox) as client:
        assert (await client.token(old)).code == 235
    both = await published(sandbox)
    async with readback(sandbox) as http:
        await http.post("/tokens/roll")
    async with secured(sandbox) as client:
        assert (await client.token(old)).code == 535

    assert set(both) == {first, second}
    assert first not in await published(sandbox)


@pytest.mark.parametrize(("kind", "status"), [("unavailable", 503), ("throttled", 429), ("garbled", 200)])
async def test_the_directory_can_be_in_trouble(sandbox: Sandbox, kind: str, status: int) -> None:
    """`directory_fault` holds for discovery and keys until it is taken back."""
    sandbox.switch(directory_fault={"kind": kind})
    paths = (f"/{TENANT}/v2.0/.well-known/openid-configuration", f"/{TENANT}/discovery/v2.0/keys")

    async with entra(sandbox) as client:
        answers = [await client.get(path) for path in paths]
        sandbox.switch(directory_fault=None)
        after = [await client.get(path) for path in paths]

    assert [each.status_code for each in answers] == [status] * 2
    assert [each.headers["content-type"] for each in after] == ["application/json"] * 2
