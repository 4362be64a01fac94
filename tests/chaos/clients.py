"""Applications that post until they know: each with a key of its own, and every answer is written down.

    answer = await clients.submit(Letter(key="n17"))    # asks again, with the same key, until the answer is definite

Definite are a 202, a refusal for good and a 500. Everything else is asked again: no connection, a connection that broke,
silence, 409 (the first request still runs), 429 and 503. Where there are several APIs, each try takes the next one.
"""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx2

from tests.house import a_message

#: Asked again after so many seconds.
_PAUSE = 0.1

#: The longest that one try may take, in seconds.
_TRY = 15.0


#: Answers that ask for another try. A 500 is definite: it is a mistake of ours, and the count says so.
_AGAIN = frozenset({408, 409, 429, 503})


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """One message to be sent. Its addresses are nobody else's, so that the peer's records name it."""

    key: str
    recipients: int = 1
    on_uncertain: str = "resend"
    route: str = "auto"
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def sender(self) -> str:
        return f"{self.key}@contoso.com"

    @property
    def to(self) -> tuple[str, ...]:
        return tuple(f"{self.key}.{n}@example.com" for n in range(self.recipients))

    def body(self) -> dict[str, Any]:
        return a_message(
            **{"from": self.sender},
            to=list(self.to),
            on_uncertain=self.on_uncertain,
            route=self.route,
            **self.changes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one request came to."""

    key: str
    status: int | None  # None: no answer
    id: str | None = None  # of the message, behind a 202
    replayed: bool = False
    code: str | None = None  # of the refusal, or what broke
    asked_at: float  # monotonic
    seconds: float

    @property
    def definite(self) -> bool:
        return self.status is not None and self.status not in _AGAIN


class Clients:
    """All applications of a world, with one key of theirs."""

    def __init__(self, *, token: str) -> None:
        self.ports: list[int] = []
        self.letters: dict[str, Letter] = {}
        self.answers: list[Answer] = []
        self._turn = 0
        limits = httpx2.Limits(max_connections=200)
        headers = {"Authorization": f"Bearer {token}"}
        self._http = httpx2.AsyncClient(headers=headers, timeout=_TRY, limits=limits, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def submit(self, letter: Letter, *, within: float = 120.0) -> Answer:
        """Post until the answer is definite; raise AssertionError where none comes."""
        until = time.monotonic() + within
        while time.monotonic() < until:
            answer = await self.post(letter)
            if answer.definite:
                return answer
            await asyncio.sleep(_PAUSE)
        said = Counter(str(each.status or each.code) for each in self.answers if each.key == letter.key)
        raise AssertionError(f"{letter.key} has no definite answer within {within:.0f} s: {dict(said)}")

    async def post(self, letter: Letter) -> Answer:
        """Post once, and write the answer down."""
        self.letters[letter.key] = letter
        asked_at = time.monotonic()
        found: dict[str, Any]
        try:
            response = await self._http.post(
                f"{self._next()}/messages", json=letter.body(), headers={"Idempotency-Key": letter.key}
            )
        except httpx2.HTTPError as broken:
            found = {"status": None, "code": type(broken).__name__}
        else:
            content = _json(response)
            found = {
                "status": response.status_code,
                "id": content.get("id") if response.status_code == 202 else None,
                "code": content.get("code"),
                "replayed": response.headers.get("idempotent-replayed") == "true",
            }
        answer = Answer(key=letter.key, asked_at=asked_at, seconds=time.monotonic() - asked_at, **found)
        self.answers.append(answer)
        return answer

    async def get(self, path: str) -> tuple[int, dict[str, Any]]:
        """Read something, from whichever API answers."""
        response = await self._http.get(f"{self._next()}{path}")
        return response.status_code, _json(response)

    async def ready(self, port: int) -> bool:
        """Say whether the API on this port is ready."""
        try:
            return (await self._http.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200
        except httpx2.HTTPError:
            return False

    def _next(self) -> str:
        self._turn += 1
        return f"http://127.0.0.1:{self.ports[self._turn % len(self.ports)]}"


def _json(response: httpx2.Response) -> dict[str, Any]:
    try:
        found = response.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
