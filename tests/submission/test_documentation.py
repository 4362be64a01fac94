"""`/docs` and `/openapi.json`: documentation that needs nothing but this service."""

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from pathlib import Path

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI

from service.submission.contract.document import operations, unconnected
from tests.tools.debian import program
from tests.waiting import eventually


@pytest.fixture(scope="module")
def app() -> FastAPI:
    return unconnected()


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://postroom") as opened:
        yield opened


class _References(HTMLParser):
    """Collects what a page refers to, and the scripts and styles that stand in it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.found += [value for name in ("src", "href") if (value := given.get(name))]
        if tag == "style" or (tag == "script" and "src" not in given) or "style" in given:
            self.inline.append(tag)


@pytest.mark.parametrize("prefix", ["", "/v1"])
async def test_the_page_needs_no_other_host(client: httpx2.AsyncClient, prefix: str) -> None:
    """Everything that it refers to is served here with its type; nothing in it is inline or elsewhere."""
    page = await client.get(f"{prefix}/docs")
    references = _References()
    references.feed(page.text)
    kinds = {"css": "text/css", "js": "text/javascript", "png": "image/png"}

    assert "http" not in page.text
    assert references.inline == []
    assert len(references.found) == 4
    for reference in references.found:
        asset = await client.get(str(page.url.join(reference)))
        assert asset.status_code == 200, reference
        assert asset.headers["content-type"].startswith(kinds[reference.rpartition(".")[2]])
        assert len(asset.content) > 100
    started = (await client.get(f"{prefix}/docs/start.js")).text
    named = re.findall(r'url: "([^"]+)"', started)
    document = await client.get(str(page.url.join(named[0])))
    assert document.json()["openapi"].startswith("3.1")


async def test_its_policy_is_its_own(client: httpx2.AsyncClient) -> None:
    """The page may load from this origin alone and run nothing inline; other answers may load nothing."""
    policy = (await client.get("/docs")).headers["content-security-policy"]
    other = (await client.get("/livez")).headers["content-security-policy"]

    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in policy
    assert "http" not in policy
    assert other == "default-src 'none'; frame-ancestors 'none'"


@pytest.mark.parametrize("name", ["start.html", "..%2f__init__.py", "redoc.standalone.js", "%2e%2e", "a%00"])
async def test_only_its_own_files_are_served(client: httpx2.AsyncClient, name: str) -> None:
    """Another name is a 404 like everywhere."""
    answer = await client.get(f"/docs/{name}")

    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.debian
async def test_a_browser_shows_every_operation(app: FastAPI, tmp_path: Path) -> None:
    """Chromium renders the page, opens an operation, and complains of nothing under its policy."""
    chromium = program("chromium", package="chromium")
    expected = {path for path, item in app.openapi()["paths"].items() if item}

    async with _served(app) as url:
        shown, console = await _rendered(chromium, f"{url}/docs#/messages/send_message", tmp_path)

    paths = set(re.findall(r'opblock-summary-path"[^>]*data-path="([^"]+)"', shown))
    assert expected <= paths
    assert "Idempotent" in shown or "Idempotency-Key" in shown
    # Of anything that the policy stops the console says so; a foreign host is never even asked.
    complaints = [line for line in console if "escaping deep link whitespace" not in line]
    assert complaints == []
    assert len(list(operations(app.openapi()))) >= len(expected)


@contextlib.asynccontextmanager
async def _served(app: FastAPI) -> AsyncIterator[str]:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        task = asyncio.create_task(server.serve(sockets=[bound]))
        await eventually(lambda: server.started)
        yield f"http://127.0.0.1:{port}"
        server.should_exit = True
        await task


async def _rendered(chromium: str, url: str, folder: Path) -> tuple[str, list[str]]:
    """Give the page as it stands when its scripts have run, and the lines of the console."""
    child = await asyncio.create_subprocess_exec(
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-component-update",
        "--disable-background-networking", "--disable-dev-shm-usage", f"--user-data-dir={folder / 'profile'}",
        "--enable-logging=stderr", "--virtual-time-budget=30000", "--dump-dom", url,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(90):
        out, err = await child.communicate()
    return out.decode(), [line for line in err.decode(errors="replace").splitlines() if "CONSOLE" in line]
