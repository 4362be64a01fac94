"""Entra ID's page for people: the authorization code flow with PKCE, as far as a web application sees it.

The page asks nobody for a password: it lists the people of the tenant, and a click signs one in. Everything that Entra checks is
checked: the application, its registered address, PKCE with S256, the code's single use and its ten minutes. Errors
that concern the application are shown on the page, as Entra does, because the address is not to be trusted then.
"""

import base64
import hashlib
import hmac
import html
import secrets
import time
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from fastapi.responses import HTMLResponse, RedirectResponse, Response

from service.sandbox.config import SandboxApplication, SandboxPerson
from service.sandbox.tenant import Tenant

_LASTS = 600.0  # seconds of a code
_KEPT = 1000  # codes at a time


class BadCode(Exception):
    """The code is not taken; `code` is Microsoft's number."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


@dataclass(frozen=True, slots=True, kw_only=True)
class _Granted:
    person: SandboxPerson
    client_id: str
    redirect_uri: str
    challenge: str
    nonce: str | None
    until: float


class Authorizations:
    """The codes of one tenant."""

    def __init__(self, tenant: Tenant) -> None:
        self._people = {person.username: person for person in tenant.config.people}
        self._applications = {each.client_id: each for each in tenant.config.applications}
        self._granted: OrderedDict[str, _Granted] = OrderedDict()

    def page(self, query: Mapping[str, str]) -> Response:
        """Answer a browser that an application has sent."""
        application = self._applications.get(query.get("client_id", ""))
        if application is None:
            return _shown("AADSTS700016", "The application was not found in the directory.")
        back = query.get("redirect_uri", "")
        if back not in application.redirect_uris:
            return _shown(
                "AADSTS50011", "The redirect URI is not one of those that the application has registered."
            )
        if query.get("response_type") != "code" or query.get("code_challenge_method") != "S256":
            return _back(back, query, error="invalid_request")
        if query.get("as") == "nobody":
            return _back(back, query, error="access_denied")
        person = self._people.get(query.get("as", ""))
        if person is None:
            return self._choice(query)
        code = secrets.token_urlsafe(32)
        self._granted[code] = _Granted(
            person=person,
            client_id=application.client_id,
            redirect_uri=back,
            challenge=query.get("code_challenge", ""),
            nonce=query.get("nonce"),
            until=time.monotonic() + _LASTS,
        )
        if len(self._granted) > _KEPT:
            self._granted.popitem(last=False)
        return _back(back, query, code=code)

    def redeem(self, form: Mapping[str, str], application: SandboxApplication) -> dict[str, Any]:
        """Change a code into the claims of an ID token about the person; raises BadCode."""
        granted = self._granted.pop(form.get("code", ""), None)
        if granted is None or granted.client_id != application.client_id or granted.until < time.monotonic():
            raise BadCode(
                70008, "The provided authorization code or refresh token has expired due to inactivity."
            )
        if granted.redirect_uri != form.get("redirect_uri"):
            raise BadCode(
                500112, "The reply address does not match the reply address provided when requesting."
            )
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if not hmac.compare_digest(challenge, granted.challenge):
            raise BadCode(
                501481, "The Code_Verifier does not match the code_challenge supplied in the request."
            )
        person = granted.person
        object_id = str(uuid.uuid5(uuid.NAMESPACE_URL, person.username))
        roles = list(person.roles.get(application.client_id, ()))
        return {
            "aud": application.client_id,
            "oid": object_id,
            "sub": object_id,
            "name": person.name,
            "preferred_username": person.username,
            "ver": "2.0",
            **({"nonce": granted.nonce} if granted.nonce is not None else {}),
            **({"roles": roles} if roles else {}),
        }

    def _choice(self, query: Mapping[str, str]) -> Response:
        people = [(person.username, f"{person.name}, {person.username}") for person in self._people.values()]
        links = "".join(
            f'<li><a href="?{html.escape(urlencode({**query, "as": name}))}">{html.escape(title)}</a></li>'
            for name, title in [*people, ("nobody", "Cancel")]
        )
        return HTMLResponse(f"<!doctype html><title>Sign in</title><h1>Pick an account</h1><ul>{links}</ul>")


def _back(address: str, query: Mapping[str, str], **answer: str) -> Response:
    state = {"state": query["state"]} if "state" in query else {}
    return RedirectResponse(f"{address}?{urlencode({**answer, **state})}", status_code=302)


def _shown(code: str, text: str) -> Response:
    page = f"<!doctype html><title>Sign in</title><h1>Sorry, but we're having trouble signing you in.</h1><p>{code}: {text}"
    return HTMLResponse(page, status_code=400)
