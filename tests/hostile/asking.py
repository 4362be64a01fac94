"""One request and what is true of every answer, whatever was asked.

No answer has a status of 500 or more, none comes later than a second, and a refusal has the form of refusals,
repeats nothing, and names the field where one is wrong.
"""

import asyncio
import time
from collections.abc import Collection
from typing import Any

import httpx2

from tests.hostile.corpora.strings import CANARY
from tests.hostile.surface import NAMES, Operation

SLOW = 1.0  # seconds

#: Codes of 503 that say that a place is taken, which on a busy machine it may be.
_BUSY = {"rendering_busy"}

_PROBLEM = {"type", "title", "status", "detail", "code", "request_id", "retryable", "errors"}
_RESEND = {"statusCode", "name", "message"}


async def ask(client: httpx2.AsyncClient, method: str, url: str, **request: Any) -> httpx2.Response:
    """Ask; where the answer takes over a second, again, because the machine of a test has other things to do."""
    took = []
    for _ in range(3):
        began = time.monotonic()
        answer = await client.request(method, url, **request)
        took.append(time.monotonic() - began)
        if answer.status_code == 503 and answer.json().get("code") in _BUSY:
            await asyncio.sleep(0.5)
        elif took[-1] < SLOW:
            return answer
    raise AssertionError(f"slow or busy: {took} s, {answer.status_code} {answer.text[:500]}")


def judge(operation: Operation, answer: httpx2.Response, *, quiet: Collection[str] = (CANARY,)) -> None:
    """Hold an answer against what is true of all; raises AssertionError."""
    told = f"{answer.status_code} of {operation}: {answer.text[:2000]}"
    assert answer.status_code < 500, told
    if answer.status_code < 400:
        return
    said = answer.text + str(answer.headers)
    assert not [each for each in quiet if each in said], f"it repeats what it was sent: {told}"
    kind = answer.headers["content-type"]
    if operation.resend:
        assert kind == "application/json", told
        assert answer.json().keys() == _RESEND, told
        return
    assert kind == "application/problem+json", told
    assert answer.json().keys() >= _PROBLEM, told
    parameters = {f"?{name}" for name in operation.named("query")} | set(operation.named("header"))
    for pointer in pointers(answer):
        names = [] if pointer in {"", *parameters} else pointer.removeprefix("/").split("/")
        assert all(name.isdigit() or name in NAMES for name in names), told


def pointers(answer: httpx2.Response) -> list[str]:
    """List what a problem points at."""
    return [str(error["pointer"]) for error in answer.json()["errors"]]
