"""The pages that let people in and out: with a key, or by Entra ID where it is configured."""

from starlette.requests import Request
from starlette.responses import Response

from service.console import directory, forms
from service.console.asking import Refused
from service.console.directory import People
from service.console.pages import Pages, elsewhere
from service.console.who import NotSignedIn, SignedIn, Who, next_address

#: What the browser keeps while somebody is at the directory.
_ON_THE_WAY = "postroom_entra"


class SignInPage:
    """Sign in, and out again."""

    def __init__(self, pages: Pages, who: Who, people: People | None) -> None:
        """`people` signs in by Entra ID; None: nobody does."""
        self._pages = pages
        self._who = who
        self._people = people

    async def page(self, request: Request) -> Response:
        """Ask for a key; who is signed in already goes on."""
        wanted = next_address(request.query_params.get("next", ""))
        try:
            await self._who.of(request)
        except NotSignedIn:
            return self._asked(request, wanted)
        return elsewhere(wanted)

    async def by_key(self, request: Request) -> Response:
        """Let somebody in who has a key."""
        form = await forms.read(request)
        wanted = next_address(form.get("next", ""))
        try:
            new = await self._who.by_key(request, form.get("key", ""))
        except Refused as refused:
            if refused.status not in {401, 403, 429}:
                raise
            return self._asked(request, wanted, refused=refused)
        response = elsewhere(wanted)
        self._who.remember(request, response, new)
        return response

    async def to_entra(self, request: Request) -> Response:
        """Send somebody to the directory."""
        if self._people is None:
            return elsewhere("/console/sign-in")
        begun = self._people.begin(next_address(request.query_params.get("next", "")))
        response = elsewhere(begun.address)
        response.set_cookie(
            self._who.cookie(request, _ON_THE_WAY),
            begun.kept,
            max_age=directory.TAKES,
            path="/",
            secure=self._who.is_https(request),
            httponly=True,
            samesite="lax",
        )
        return response

    async def from_entra(self, request: Request) -> Response:
        """Let somebody in whom the directory has sent back."""
        if self._people is None:
            return elsewhere("/console/sign-in")
        name = self._who.cookie(request, _ON_THE_WAY)
        try:
            person, wanted = await self._people.end(request, request.cookies.get(name, ""))
        except Refused as refused:
            response: Response = self._asked(request, "/console", refused=refused)
        else:
            new = await self._who.by_entra(request, person)
            response = elsewhere(next_address(wanted))
            self._who.remember(request, response, new)
        response.delete_cookie(
            name, path="/", secure=self._who.is_https(request), httponly=True, samesite="lax"
        )
        return response

    async def out(self, request: Request, who: SignedIn) -> Response:
        """Let somebody go."""
        await forms.read_guarded(request, who.token)
        await self._who.end(request, who)
        response = elsewhere("/console/sign-in")
        self._who.forget(request, response)
        return response

    def _asked(self, request: Request, wanted: str, *, refused: Refused | None = None) -> Response:
        page = self._pages.page(
            request,
            "sign_in",
            None,
            status=200 if refused is None else refused.status,
            next=wanted,
            entra=self._people is not None,
            refused=refused,
        )
        if refused is not None and refused.retry_after is not None:
            page.headers["Retry-After"] = refused.retry_after
        return page
