"""The console, put together: pages, assets, streams, and what is shown when something goes wrong."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from service.console.asking import Api, Refused
from service.console.assets import Assets
from service.console.audit import AuditPage
from service.console.bundle import Bundle
from service.console.content import ContentPage
from service.console.directory import EntraSignIn, People
from service.console.explain import ExplainPage
from service.console.lanes import LanesPage
from service.console.live import Live
from service.console.message import MessagePage
from service.console.pages import Pages, elsewhere
from service.console.reports import ReportsPage
from service.console.routes import RoutesPage
from service.console.search import Search
from service.console.sign_in import SignInPage
from service.console.who import ClientOf, NotSignedIn, SignedIn, Who, sign_in_address
from service.ledger import Ledger, LedgerUnavailable

log = structlog.get_logger()

_TITLES = {
    400: "This request cannot be read",
    401: "Sign in first",
    403: "This is not for you",
    404: "There is nothing here",
    410: "It is no longer kept",
    429: "Too many at a time",
    503: "The ledger does not answer",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleRules:
    """The console's share of the settings."""

    lasts: timedelta  # a sign-in
    url: str | None  # where browsers find the service
    entra: EntraSignIn | None = None  # by which people sign in, beside keys


def create_console(
    *, api: ASGIApp, ledger: Ledger, rules: ConsoleRules, client_of: ClientOf, closing: asyncio.Event
) -> Starlette:
    """Make the console, to be mounted at `/console` of the application that is its API.

    `client_of` says from which address a request comes, as the API sees it. Streams end when `closing` is set. Whoever
    calls awaits `state.aclose()` in the end.
    """
    assets = Assets()
    pages, asked = Pages(assets), Api(api)
    who = Who(ledger, asked, lasts=rules.lasts, url=rules.url, client_of=client_of)
    search, message, content = (
        Search(pages, asked, ledger),
        MessagePage(pages, asked, ledger),
        ContentPage(pages, asked),
    )
    lanes, routes, reports = (
        LanesPage(pages, asked, ledger),
        RoutesPage(pages, asked),
        ReportsPage(pages, asked, ledger),
    )
    explain, audit, bundle = ExplainPage(pages, asked), AuditPage(pages, ledger), Bundle(asked)
    live = Live(ledger, asked, who, closing=closing)
    people = People(rules.entra) if rules.entra is not None else None
    sign_in = SignInPage(pages, who, people)
    to = who.guarded
    console = Starlette(
        routes=[
            Route("/", to(search.page)),
            Route("/assets/{name}", assets.serve),
            Route("/sign-in", sign_in.page),
            Route("/sign-in", sign_in.by_key, methods=["POST"]),
            Route("/sign-in/entra", sign_in.to_entra),
            Route("/sign-in/entra/back", sign_in.from_entra),
            Route("/sign-out", to(sign_in.out), methods=["POST"]),
            Route("/messages/{message_id}", to(message.page)),
            Route("/messages/{message_id}/act", to(message.act), methods=["POST"]),
            Route("/messages/{message_id}/live", to(live.message)),
            Route("/messages/{message_id}/content", to(content.page)),
            Route("/messages/{message_id}/content/html", to(content.html)),
            Route("/messages/{message_id}/content/files/{number}", to(content.file)),
            Route("/messages/{message_id}/content/message.eml", to(content.file)),
            Route("/messages/{message_id}/support.zip", to(bundle.file)),
            Route("/attempts/{attempt_id}", to(message.attempt)),
            Route("/lanes", to(lanes.page)),
            Route("/lanes/live", to(live.lanes)),
            Route("/routes", to(routes.page)),
            Route("/routes/{name}/{act}", to(routes.act), methods=["POST"]),
            Route("/reports", to(reports.page)),
            Route("/explain", to(explain.page)),
            Route("/explain", to(explain.explain), methods=["POST"]),
            Route("/audit", to(audit.page)),
        ],
    )
    console.router.redirect_slashes = False

    async def aclose() -> None:
        await live.aclose()
        if people is not None:
            await people.aclose()

    console.state.aclose = aclose
    trouble = _Trouble(pages, who)
    console.add_exception_handler(NotSignedIn, trouble.not_signed_in)
    console.add_exception_handler(Refused, trouble.refused)
    console.add_exception_handler(LedgerUnavailable, trouble.ledger)
    console.add_exception_handler(HTTPException, trouble.http)
    return console


def mount(app: Starlette, console: Starlette) -> None:
    """Put the console under `/console` of an application; the bare path is its first page."""
    app.router.routes.append(Route("/console", _Bare(console)))
    app.router.routes.append(Mount("/console", console))


class _Bare:
    """What a mount leaves out: its own path, without anything behind it."""

    def __init__(self, console: ASGIApp) -> None:
        self._console = console

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        root = f"{scope.get('root_path', '')}/console"
        await self._console({**scope, "root_path": root, "path": f"{scope['path']}/"}, receive, send)


class _Trouble:
    """The pages for what goes wrong."""

    def __init__(self, pages: Pages, who: Who) -> None:
        self._pages = pages
        self._who = who

    async def not_signed_in(self, request: Request, exc: Exception) -> Response:
        if request.url.path.endswith("/live"):
            return Response(status_code=204)  # the browser is not to come again by itself
        return elsewhere(sign_in_address(request))

    async def refused(self, request: Request, exc: Exception) -> Response:
        assert isinstance(exc, Refused)
        return await self._page(request, exc.status, exc.detail, retry_after=exc.retry_after)

    async def ledger(self, request: Request, exc: Exception) -> Response:
        detail = "PostgreSQL cannot be used at the moment, so nothing can be shown. Nothing is sent meanwhile, either."
        return await self._page(request, 503, detail, retry_after="2")

    async def http(self, request: Request, exc: Exception) -> Response:
        assert isinstance(exc, HTTPException)
        return await self._page(request, exc.status_code, "There is no such page.")

    async def _page(
        self, request: Request, status: int, detail: str, *, retry_after: str | None = None
    ) -> Response:
        title = _TITLES.get(status, "This did not work")
        page = self._pages.page(
            request, "trouble", await self._reader(request), status=status, title=title, detail=detail
        )
        if retry_after is not None:
            page.headers["Retry-After"] = retry_after
        return page

    async def _reader(self, request: Request) -> SignedIn | None:
        try:
            return await self._who.of(request)
        except (NotSignedIn, LedgerUnavailable):
            return None
