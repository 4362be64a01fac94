"""Asking the sandbox's token endpoint with real msal, and its read-back with a real HTTP client."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import msal
import requests

from service.sandbox import Sandbox
from tests.sandbox.client import CLIENT_ID, CLIENT_SECRET

TENANT = "c0ffee00-0000-4000-8000-000000000365"
SCOPE = "https://outlook.office365.com/.default"


def ask_msal(
    sandbox: Sandbox,
    *,
    client_id: str = CLIENT_ID,
    credential: str | dict[str, str] = CLIENT_SECRET,
    scope: str = SCOPE,
    tenant: str = TENANT,
) -> dict[str, Any]:
    """Return what msal gets for an application; it blocks, so call it in a thread."""
    with requests.Session() as http:
        http.trust_env = False
        http.verify = str(sandbox.ca_file)
        application = msal.ConfidentialClientApplication(
            client_id,
            client_credential=credential,
            authority=f"{sandbox.authority}/{tenant}",
            instance_discovery=False,
            http_client=http,
        )
        answer: dict[str, Any] = application.acquire_token_for_client([scope])
        return answer


async def token_for(sandbox: Sandbox, **asked: Any) -> str:
    """Return an access token."""
    answer = await asyncio.to_thread(ask_msal, sandbox, **asked)
    return str(answer["access_token"])


@asynccontextmanager
async def readback(sandbox: Sandbox) -> AsyncIterator[httpx2.AsyncClient]:
    """Open a client of the read-back."""
    async with httpx2.AsyncClient(
        base_url=f"http://127.0.0.1:{sandbox.http_port}", trust_env=False
    ) as client:
        yield client


async def signed_in_log(sandbox: Sandbox) -> list[dict[str, Any]]:
    """Return the sign-in log, the newest first."""
    async with readback(sandbox) as client:
        entries: list[dict[str, Any]] = (await client.get("/logins")).json()["data"]
        return entries
