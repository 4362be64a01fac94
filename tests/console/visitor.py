"""A person with a browser, as far as HTTP goes: signs in, opens pages, sends the forms that stand on them."""

import re
from html.parser import HTMLParser
from typing import Any

import httpx2

from service.ledger.keys import SCOPES
from tests.house import House


class Page(HTMLParser):
    """What a page holds: its words, its links, its forms."""

    def __init__(self, answer: httpx2.Response) -> None:
        super().__init__()
        self.answer = answer
        self.links: list[str] = []
        self.forms: list[dict[str, Any]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._words: list[str] = []
        self._field: str | None = None
        self.feed(answer.text)

    @property
    def words(self) -> str:
        """The text of the page, in one line."""
        return re.sub(r"\s+", " ", " ".join(self._words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        if tag == "a" and given.get("href"):
            self.links.append(str(given["href"]))
        elif tag == "form":
            self.forms.append({"action": given.get("action"), "fields": {}, "deeds": []})
        elif tag in {"input", "button"} and self.forms and given.get("name"):
            if given["name"] == "deed":
                self.forms[-1]["deeds"].append(given["value"])
            else:
                self.forms[-1]["fields"][given["name"]] = given.get("value") or ""

    def handle_data(self, data: str) -> None:
        self._words.append(data)

    def form(self, action: str) -> dict[str, Any]:
        """Find the form that goes to this address."""
        return next(each for each in self.forms if each["action"] == action)


class Visitor:
    """Somebody at the console of a house."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self.client = client

    async def sign_in(self, key: str, **more: str) -> httpx2.Response:
        return await self.client.post("/console/sign-in", data={"key": key, **more})

    async def open(self, path: str, *, status: int = 200) -> Page:
        answer = await self.client.get(path)
        assert answer.status_code == status, answer.text[:2000]
        return Page(answer)

    async def send(self, page: Page, action: str, **fields: str) -> httpx2.Response:
        """Send a form of a page."""
        return await self.client.post(action, data={**page.form(action)["fields"], **fields})


def a_stranger(house: House) -> Visitor:
    """Somebody who is not signed in."""
    assert house.app is not None
    transport = httpx2.ASGITransport(app=house.app, client=("192.0.2.7", 4711))
    return Visitor(httpx2.AsyncClient(transport=transport, base_url="http://postroom"))


async def signed_in(
    house: House, *, scopes: tuple[str, ...] = SCOPES, application: str = "operators"
) -> Visitor:
    """Somebody who is signed in with a key of these scopes."""
    key = await house.ledger.create_key(application, scopes=scopes, senders=[])
    visitor = a_stranger(house)
    answer = await visitor.sign_in(key.token)
    assert answer.status_code == 303, answer.text
    return visitor
