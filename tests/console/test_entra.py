"""Sign-in by Entra ID, at the sandbox's directory: who gets in, as whom, and what does not open the door."""

import html
import re
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from service.sandbox import Sandbox, SandboxApplication, SandboxPerson, contoso
from tests.console.visitor import Page, Visitor, a_stranger
from tests.house import House, a_house, smarthost
from tests.peer import ScriptedPeer
from tests.sandbox.entra import TENANT

CLIENT_ID = "99999999-9999-4999-8999-999999999999"
SECRET = "sandbox-console-secret"
BACK = "http://postroom/console/sign-in/entra/back"
OPERATOR = ("messages.read", "operate")


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    """A directory with an operator, and somebody without a role."""
    tenant = contoso(
        tmp_path / "sandbox",
        applications=(SandboxApplication(client_id=CLIENT_ID, client_secret=SECRET, redirect_uris=(BACK,)),),
        people=(
            SandboxPerson(username="ana@contoso.com", name="Ana", roles={CLIENT_ID: OPERATOR}),
            SandboxPerson(username="bob@contoso.com", name="Bob", roles={CLIENT_ID: ("messages.read",)}),
        ),
        mailboxes=(),
    )
    async with Sandbox(tenant) as running:
        yield running


@pytest.fixture
async def house(sandbox: Sandbox, database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[House]:
    """A house whose console knows the directory."""
    changes = {
        "entra": {
            "tenant_id": TENANT, "authority": sandbox.authority, "ca_file": str(sandbox.ca_file), "timeout": "10s",
        },
        "console": {"url": "http://postroom", "entra": {"client_id": CLIENT_ID, "client_secret": SECRET}},
    }  # fmt: skip
    async with (
        ScriptedPeer() as peer,
        a_house(
            database_url,
            redis_url,
            routes=[smarthost(peer)],
            folder=tmp_path,
            workers=0,
            settings_changes=changes,
        ) as opened,
    ):
        yield opened


async def at_the_directory(sandbox: Sandbox, address: str, username: str) -> str:
    """Pick an account on the directory's page; return the address that it sends the browser to."""
    async with httpx2.AsyncClient(verify=_trust(sandbox), trust_env=False) as browser:
        page = await browser.get(address)
        assert page.status_code == 200, page.text
        links = [html.unescape(link) for link in re.findall(r'href="([^"]+)"', page.text)]
        (link,) = [link for link in links if parse_qs(link[1:])["as"] == [username]]
        answer = await browser.get(f"{address.partition('?')[0]}{link}")
        assert answer.status_code == 302
        return str(answer.headers["location"])


def _trust(sandbox: Sandbox) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=sandbox.ca_file)


async def sent_back(house: House, sandbox: Sandbox, username: str) -> tuple[Visitor, str]:
    """Go to the directory from the console; return the visitor, and where the directory sends them."""
    visitor = a_stranger(house)
    begun = await visitor.client.get("/console/sign-in/entra?next=/console/lanes")
    assert begun.status_code == 303
    return visitor, await at_the_directory(sandbox, begun.headers["location"], username)


async def test_an_operator_of_the_directory_gets_in(house: House, sandbox: Sandbox) -> None:
    """Somebody with a role signs in, lands on the page that was wanted, and may do what the roles say."""
    visitor, back = await sent_back(house, sandbox, "ana@contoso.com")

    answer = await visitor.client.get(back)
    search = await visitor.open("/console")

    assert (answer.status_code, answer.headers["location"]) == (303, "/console/lanes")
    assert "ana@contoso.com" in search.words
    assert "/console/audit" not in search.links
    await visitor.open("/console/audit", status=403)


async def test_who_has_no_role_stays_outside(house: House, sandbox: Sandbox) -> None:
    """Somebody of the directory without the role of an operator is told which role is missing."""
    visitor, back = await sent_back(house, sandbox, "bob@contoso.com")

    page = await visitor.open(back, status=403)

    assert "neither the role operate nor the role admin" in page.words
    assert (await visitor.client.get("/console")).status_code == 303


async def test_an_answer_counts_once_and_where_it_was_asked_for(house: House, sandbox: Sandbox) -> None:
    """A code that was used, a state of somebody else, and a refusal of the directory let nobody in."""
    ana, back = await sent_back(house, sandbox, "ana@contoso.com")
    code = parse_qs(urlsplit(back).query)["code"][0]
    thief = a_stranger(house)

    stolen = Page(await thief.client.get(back))
    other, _ = await sent_back(house, sandbox, "bob@contoso.com")
    mixed = Page(await other.client.get(back))
    assert (await ana.client.get(back)).status_code == 303
    again = Page(await ana.client.get(back))
    canceled, gone = await sent_back(house, sandbox, "nobody")
    refused = Page(await canceled.client.get(gone))

    assert code
    for page in (stolen, mixed, again):
        assert page.answer.status_code == 403
        assert "not begun here" in page.words
    assert "access_denied" in refused.words


async def test_a_code_needs_its_verifier(house: House, sandbox: Sandbox) -> None:
    """A code that was got for another challenge is not exchanged, and nobody is let in."""
    visitor, back = await sent_back(house, sandbox, "ana@contoso.com")
    _other, elsewhere = await sent_back(house, sandbox, "ana@contoso.com")
    mine, theirs = (parse_qs(urlsplit(each).query) for each in (back, elsewhere))

    page = Page(await visitor.client.get(BACK, params={"code": theirs["code"][0], "state": mine["state"][0]}))

    assert page.answer.status_code == 403
    assert "did not accept the sign-in" in page.words
