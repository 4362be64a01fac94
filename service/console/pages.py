"""Pages: templates that write everything as text, and the headers that hold for every answer.

Whatever comes out of the ledger may have been written by a stranger: Jinja2 escapes all of it, there is no filter that
would not, and templates never put it inside a script or a style. The content security policy is the second wall: no script and
no style but our own files, nothing from elsewhere, no frame but those of message contents.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse

from service.console import words
from service.console.assets import Assets
from service.console.forms import guard
from service.console.who import SignedIn

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

#: What every page says to the browser; the envelope of the API adds `nosniff` and `no-store`.
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "X-Frame-Options": "DENY",
    "X-DNS-Prefetch-Control": "off",
}

#: Characters of a value that are looked at.
_LONGEST = 1000

#: The pages, in the order of the bar above them, each with the scope without which it shows nothing.
_PLACES = (
    ("/console", "Search", "messages.read"),
    ("/console/lanes", "Lanes", "routes.read"),
    ("/console/routes", "Routes", "routes.read"),
    ("/console/reports", "Reports", "messages.read"),
    ("/console/explain", "Explain", "messages.read"),
    ("/console/audit", "Audit", "admin"),
)


class Pages:
    """Makes pages out of templates."""

    def __init__(self, assets: Assets) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(Path(__file__).with_name("templates")),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update(
            time=words.time,
            clock=words.clock,
            size=words.size,
            number=words.number,
            span=words.span,
            tone=words.tone,
            sentence=words.sentence,
            plural=words.plural,
            told=words.told,
            plain=words.plain,
        )
        self._environment.globals.update(asset=assets.url)

    def page(
        self, request: Request, name: str, who: SignedIn | None, *, status: int = 200, **values: Any
    ) -> HTMLResponse:
        """Make a page of the template of this name; `who` is None where nobody is signed in."""
        scopes: frozenset[str] = frozenset(who.key.scopes) if who is not None else frozenset()
        text = self._environment.get_template(f"{name}.html").render(
            who=who,
            scopes=scopes,
            guard="" if who is None else guard(who.token),
            places=[(path, title) for path, title, scope in _PLACES if scope in scopes],
            here=request.url.path.rstrip("/"),
            now=datetime.now(UTC),
            **values,
        )
        return HTMLResponse(text, status_code=status, headers=HEADERS)


def elsewhere(path: str) -> RedirectResponse:
    """Send the browser on to a page of ours, by GET."""
    return RedirectResponse(path, status_code=303, headers=HEADERS)


class Given(dict[str, str]):
    """What a page's address says; for a template, what is not there is empty."""

    def __missing__(self, name: str) -> str:
        return ""


def given(request: Request, *names: str) -> Given:
    """Read what a page's address says, as far as the page knows the names; the empty is left out."""
    query = request.query_params
    found = {name: "".join(filter(str.isprintable, query.get(name, "")[:_LONGEST])).strip() for name in names}
    return Given({name: value for name, value in found.items() if value})
