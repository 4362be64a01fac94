"""A real browser before the console: Debian's Chromium, headless, driven by Playwright.

It reports everything that a page should not do: violations of the content security policy, errors of scripts, requests that
leave the machine. `CONSOLE_PICTURES=folder` keeps pictures of what it saw, for people.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from tests.tools.debian import program

_ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
]  # fmt: skip

#: Tells of violations, from the first moment of every page and frame.
_WATCH = """
addEventListener("securitypolicyviolation", (event) =>
  console.error(`VIOLATION ${event.violatedDirective} ${event.blockedURI} ${event.sample}`), true);
"""

#: A machine with other work may take its time.
PATIENT = 30_000.0  # milliseconds


#: The folder in which pictures are kept; empty: none are.
PICTURES = os.environ.get("CONSOLE_PICTURES", "")


@dataclass(slots=True)
class Watched:
    """A browser that somebody signs in with, and what its pages did."""

    context: BrowserContext
    page: Page
    base: str
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    @property
    def strangers(self) -> list[str]:
        """Requests that went elsewhere."""
        return [each for each in self.requests if not each.startswith((self.base, "data:", "about:"))]

    async def sign_in(self, key: str) -> None:
        await self.page.goto(f"{self.base}/console")
        await self.page.get_by_label("API key").fill(key)
        await self.page.get_by_role("button", name="Sign in", exact=True).click()
        await self.page.wait_for_selector("#q")

    async def picture(self, name: str) -> None:
        """Keep a picture of the page, where somebody wants pictures."""
        if PICTURES:
            await self.page.screenshot(path=Path(PICTURES) / f"{name}.png", full_page=True)


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Start the browser; skips the test where there is none."""
    path = program("chromium", package="chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=_ARGUMENTS, timeout=90_000)
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def watched(browser: Browser, base: str, **options: object) -> AsyncIterator[Watched]:
    """Open a window on the service at `base`; `options` are Playwright's own for a context."""
    context = await browser.new_context(**options)  # type: ignore[arg-type]  # passed on as they are
    context.set_default_timeout(PATIENT)
    await context.add_init_script(_WATCH)
    page = await context.new_page()
    seen = Watched(context, page, base)
    page.on("console", lambda said: seen.errors.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.on("dialog", lambda dialog: seen.errors.append(f"DIALOG {dialog.message}"))
    context.on("request", lambda request: seen.requests.append(request.url))
    try:
        yield seen
    finally:
        await context.close()
