"""Who is signed in: the cookie, the sign-in by a key, the sign-out.

A key is shown once, on the page for it. The API judges it (`GET /me` with that key), so wrong keys are counted, slowed
and refused as they are everywhere else. Then the browser gets a token of the sign-in in a cookie that no script can read
and that no other site's form or picture sends along (`HttpOnly`, `SameSite=Lax`: a link in a chat still opens the page). The
key itself is kept nowhere.

`Secure`, and the prefix `__Host-` that lets no neighbour set it, where the browser came by https: by the scheme, by
`console.url`, or by what a proxy says (X-Forwarded-Proto), which at the worst makes a cookie safer than it need be.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from urllib.parse import quote, urlsplit

from starlette.requests import Request
from starlette.responses import Response

from service.console.asking import Api, Refused
from service.ledger import Ledger
from service.ledger.audit import Actor
from service.ledger.keys import Key
from service.ledger.sign_ins import CONSOLE, NewSignIn, Person, person_id

_COOKIE = "postroom"
_LONGEST = 200  # characters of a key, or of a cookie, that are looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIn:
    """Whoever looks at a page."""

    id: str  # of the sign-in
    key: Key  # what they may do
    name: str
    token: str = field(repr=False)

    def may(self, *scopes: str) -> bool:
        """Say whether they have all of these scopes."""
        return set(scopes) <= set(self.key.scopes)

    @property
    def may_act(self) -> bool:
        """Whether the API would let them act on the messages that they see."""
        return self.key.sees_everything or self.may("messages.send")


class NotSignedIn(Exception):
    """Nobody is signed in: the page for it comes first."""


ClientOf = Callable[[Request], str | None]
Page = Callable[[Request, SignedIn], Awaitable[Response]]


class Who:
    """Finds out who looks at a page."""

    def __init__(
        self, ledger: Ledger, api: Api, *, lasts: timedelta, url: str | None, client_of: ClientOf
    ) -> None:
        """A sign-in `lasts` so long; `url` is where browsers find the service, where that is configured.

        `client_of` says from which address a request comes, as the API sees it.
        """
        self._ledger = ledger
        self._api = api
        self._lasts = lasts
        self._url = url
        self._client_of = client_of

    def guarded(self, page: Page) -> Callable[[Request], Awaitable[Response]]:
        """Let only those see a page who are signed in; raises NotSignedIn."""

        async def endpoint(request: Request) -> Response:
            return await page(request, await self.of(request))

        return endpoint

    async def of(self, request: Request) -> SignedIn:
        """Say who it is; raises NotSignedIn."""
        token = request.cookies.get(self._cookie(request), "")
        found = await self._ledger.sign_ins.find(token) if 0 < len(token) <= _LONGEST else None
        if found is None:
            raise NotSignedIn
        return SignedIn(id=found.id, key=found.key, name=found.name, token=token)

    async def by_key(self, request: Request, written: str) -> NewSignIn:
        """Sign in whoever has this key; raises Refused as the API refuses a wrong one."""
        if not written or len(written) > _LONGEST or not written.isascii() or not written.isprintable():
            raise Refused(status=401, code="invalid_key", detail="This is not an API key of Postroom.")
        bearer = (b"authorization", b"Bearer " + written.encode())
        found = (await self._api.ask(request, None, "GET", "me", headers=[bearer])).json()
        if found["object"] != "key":
            detail = "This is an access token of an application. People sign in with a key, or by Entra ID."
            raise Refused(status=401, code="invalid_key", detail=detail)
        actor = self.actor(request, application=found["application"], actor_id=found["id"])
        return await self._ledger.sign_ins.begin(found["id"], lasts=self._lasts, actor=actor)

    async def by_entra(self, request: Request, person: Person) -> NewSignIn:
        """Sign in somebody whom the directory has named."""
        actor = self.actor(request, application=CONSOLE, actor_id=person_id(person.subject))
        return await self._ledger.sign_ins.begin(person, lasts=self._lasts, actor=actor)

    async def end(self, request: Request, who: SignedIn) -> None:
        """Sign out, everywhere."""
        actor = self.actor(request, application=who.key.application, actor_id=who.key.id)
        await self._ledger.sign_ins.end(who.id, actor=actor)

    def remember(self, request: Request, response: Response, new: NewSignIn) -> None:
        """Give the browser what it is known by."""
        response.set_cookie(
            self._cookie(request),
            new.token,
            max_age=int(self._lasts.total_seconds()),
            path="/",
            secure=self.is_https(request),
            httponly=True,
            samesite="lax",
        )

    def forget(self, request: Request, response: Response) -> None:
        """Take it away again."""
        response.delete_cookie(
            self._cookie(request), path="/", secure=self.is_https(request), httponly=True, samesite="lax"
        )

    def is_https(self, request: Request) -> bool:
        """Say whether the browser came by https."""
        said = request.headers.get("x-forwarded-proto", "").partition(",")[0].strip()
        return "https" in {request.url.scheme, said, urlsplit(self._url or "").scheme}

    def actor(self, request: Request, *, application: str, actor_id: str) -> Actor:
        """Say who acts, for the audit of what the API does not write itself."""
        return Actor(
            application=application,
            id=actor_id,
            address=self._client_of(request),
            request_id=request.scope.get("state", {}).get("request_id"),
        )

    def _cookie(self, request: Request) -> str:
        return self.cookie(request, _COOKIE)

    def cookie(self, request: Request, name: str) -> str:
        """Name a cookie so that no neighbour of ours can set it, where the browser can be told so."""
        return f"__Host-{name}" if self.is_https(request) else name


def sign_in_address(request: Request) -> str:
    """Say where to sign in, and come back to this page from."""
    wanted = request.url.path.rstrip("/") + (f"?{request.url.query}" if request.url.query else "")
    after = f"?next={quote(wanted, safe='')}" if request.method == "GET" and wanted != "/console" else ""
    return f"/console/sign-in{after}"


def next_address(written: str) -> str:
    """Say where to go after the sign-in: to a page of ours, whatever was asked for."""
    ours = written == "/console" or written.startswith(("/console/", "/console?"))
    return (
        written
        if ours and "\\" not in written and written.isascii() and written.isprintable()
        else "/console"
    )
