"""The console in a real browser: a person finds a message that failed, reads why, and sees it go."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvicorn
from playwright.async_api import Error, expect

from service.ledger.keys import SCOPES
from tests.console.browser import PATIENT, PICTURES, Watched, chromium, watched
from tests.house import House, a_house, smarthost
from tests.peer import ScriptedPeer
from tests.waiting import eventually

pytestmark = pytest.mark.debian

HOSTILE = "<script>alert(1)</script><img src=//evil.example/x onerror=alert(2)>\"'{{7*7}}"


def reaching_out(port: int) -> str:
    """HTML that tries everything to be noticed at this port, beside running a script of its own."""
    there = f"http://127.0.0.1:{port}"
    return (
        "<h1 style='color:red'>Hello</h1><script>parent.document.title='owned'</script>"
        f"<img src='{there}/pixel.png'><link rel=preconnect href='{there}'><LINK rel=stylesheet href='{there}/a.css'>"
        f"<style>@import '{there}/b.css'; h1 {{background: url({there}/c.png)}}</style>"
        f"<meta http-equiv=refresh content='0;url={there}/'><iframe src='{there}/frame'></iframe>"
        f"<video src='{there}/v.mp4' autoplay></video><form action='{there}/form'><button id=send>Send</button></form>"
        f"<a id=out href='{there}/'>click</a><a id=top target=_top href='{there}/'>top</a>"
    )


#: Widths of a telephone, a tablet and a desk.
WIDTHS = (360, 768, 1280)


@asynccontextmanager
async def served(house: House) -> AsyncIterator[str]:
    """Serve the house on a socket; give its address."""
    assert house.app is not None
    server = uvicorn.Server(uvicorn.Config(house.app, port=0, log_config=None, lifespan="off"))
    task = asyncio.create_task(server.serve())
    try:
        await eventually(lambda: server.started)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        house.app.state.door.telling.streams.close()
        server.should_exit = True
        await task


@pytest.fixture
async def peer() -> AsyncIterator[ScriptedPeer]:
    """A peer that refuses what a hostile message asks of it, with a hostile reply."""
    async with ScriptedPeer() as running:
        running.on(
            "rcpt",
            reply=f"550 5.7.54 SMTP; Unable to relay {HOSTILE}",
            when=lambda path: path.startswith("eve"),
        )
        yield running


@pytest.fixture
async def house(
    database_url: str, redis_url: str, tmp_path: Path, peer: ScriptedPeer
) -> AsyncIterator[House]:
    route = smarthost(peer, limits={"messages_per_minute": 30})
    async with a_house(database_url, redis_url, routes=[route], folder=tmp_path) as running:
        yield running


async def test_somebody_finds_a_failed_message_and_sees_it_go(house: House, peer: ScriptedPeer) -> None:
    """From the sign-in to the 250 without a reload; what a stranger wrote stays text, and nothing leaves the machine."""
    key = await house.ledger.create_key("operators", scopes=SCOPES, senders=[])
    await house.submit(subject="Your receipt", to=["ana@example.com"])
    failed = await house.submit(
        subject=HOSTILE,
        to=[{"email": "eve@example.com", "name": HOSTILE}],
        tags=[HOSTILE[:50]],
        metadata={"note": HOSTILE},
    )
    await house.in_state(failed, "failed")
    async with served(house) as base, chromium() as browser, watched(browser, base) as seen:
        page = seen.page
        await seen.sign_in(key.token)

        # It is found by its recipient, and the answer names the cause.
        await page.keyboard.press("/")
        await page.locator("#q").fill("eve@example.com")
        await page.keyboard.press("Enter")
        await expect(page.locator(".answer")).to_contain_text("failed", timeout=PATIENT)
        await page.locator(".rows .subject a").first.click()

        # The remedy is read, and the act is there.
        await expect(page.locator("h1")).to_have_text(HOSTILE, timeout=PATIENT)
        await expect(page.locator(".diagnosis")).to_contain_text("Who must act", timeout=PATIENT)
        await expect(page.locator(".attempt .reply").first).to_contain_text(HOSTILE, timeout=PATIENT)
        await seen.picture("failed")

        # The cause is mended, the message goes, and the page follows by itself.
        peer.behave()
        peer.on("dot", reply="250 2.0.0 taken at last")
        await page.get_by_role("button", name="Retry").click()
        await expect(page.locator(".head .badge")).to_have_text("sent", timeout=PATIENT)
        await expect(page.locator("[data-part=timeline]")).to_contain_text("taken at last", timeout=PATIENT)
        await expect(page.locator(".acts")).to_have_count(0)
        await seen.picture("sent")

        assert seen.errors == []
        assert seen.strangers == []


async def test_what_a_message_says_reaches_nobody(house: House) -> None:
    """The HTML of a message runs no script and makes no connection, whatever it holds and wherever one clicks."""
    noticed: list[str] = []

    async def notice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        noticed.append((await reader.readline()).decode())
        writer.close()

    key = await house.ledger.create_key("operators", scopes=SCOPES, senders=[])
    async with await asyncio.start_server(notice, "127.0.0.1", 0) as stranger:
        port = stranger.sockets[0].getsockname()[1]
        message_id = await house.submit(html=reaching_out(port))
        async with served(house) as base, chromium() as browser, watched(browser, base) as seen:
            await seen.sign_in(key.token)
            await seen.page.goto(f"{base}/console/messages/{message_id}")
            await seen.page.get_by_role("link", name="Read the content").click()
            frame = seen.page.frame_locator("iframe.mail")
            await expect(frame.locator("h1")).to_have_text("Hello", timeout=PATIENT)
            for target in ("#send", "#top", "#out"):
                await frame.locator(target).click(no_wait_after=True)
            await seen.page.wait_for_timeout(500)

            assert await seen.page.title() == "Content · Postroom"
            assert noticed == []

            # The stranger would have noticed.
            with contextlib.suppress(Error):
                await seen.page.goto(f"http://127.0.0.1:{port}/")
            assert noticed


async def test_no_page_is_wider_than_its_window(house: House, peer: ScriptedPeer) -> None:
    """At three widths. Where CONSOLE_PICTURES names a folder, pictures for people, light and dark, lie there afterwards."""
    key = await house.ledger.create_key("operators", scopes=SCOPES, senders=[])
    peer.on(
        "dot",
        reply="451 4.7.500 Server busy. Please try again later",
        when=lambda rcpts: rcpts.startswith("busy"),
    )
    for number in range(8):
        await house.submit(subject=f"Your receipt {number}", to=[f"ana{number}@example.com"])
    failed = await house.submit(
        subject="Invoice 2026-1188 for the quarter", to=["eve@example.com"], html=reaching_out(9)
    )
    await house.in_state(failed, "failed")
    for number in range(60):
        await house.submit(subject=f"Newsletter {number}", to=[f"reader{number}@example.com"], stream="bulk")
    await house.client.post("/routes/peer/check")
    async with served(house) as base, chromium() as browser:
        for scheme in ("light", "dark") if PICTURES else ("light",):
            for width in WIDTHS:
                options = {"color_scheme": scheme, "viewport": {"width": width, "height": 900}}
                async with watched(browser, base, **options) as seen:
                    await _pictures(seen, key.token, failed, f"{width}-{scheme}")


async def _pictures(seen: Watched, key: str, failed: str, suffix: str) -> None:
    await seen.page.goto(f"{seen.base}/console")
    await seen.picture(f"signin-{suffix}")
    await seen.sign_in(key)
    pages = {
        "search": "/console",
        "answer": "/console?q=eve@example.com",
        "message": f"/console/messages/{failed}",
        "content": f"/console/messages/{failed}/content",
        "lanes": "/console/lanes",
        "routes": "/console/routes",
        "reports": "/console/reports",
        "explain": "/console/explain",
        "audit": "/console/audit",
    }
    for name, path in pages.items():
        await seen.page.goto(f"{seen.base}{path}", wait_until="load")
        wide = await seen.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{name} is {wide} px too wide at {suffix}"
        await seen.picture(f"{name}-{suffix}")
