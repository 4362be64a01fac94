"""The pages that let people in and out."""

from starlette.requests import Request
from starlette.responses import Response

from service.console import forms
from service.console.asking import Refused
from service.console.pages import Pages, elsewhere
from service.console.who import NotSignedIn, SignedIn, Who, next_address


class SignInPage:
    """Sign in with a key, and out again."""

    def __init__(self, pages: Pages, who: Who) -> None:
        self._pages = pages
        self._who = who

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
            entra=False,
            refused=refused,
        )
        if refused is not None and refused.retry_after is not None:
            page.headers["Retry-After"] = refused.retry_after
        return page
