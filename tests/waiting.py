"""Waiting for a fact instead of sleeping for a while.

    message = await eventually(lambda: sent(message_id))

A test that must wait says for what; how long it took is nobody's business, only that it came.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

Fact = TypeVar("Fact")


@overload
async def eventually(probe: Callable[[], Awaitable[Fact | None]], *, within: float = 20.0) -> Fact: ...
@overload
async def eventually(probe: Callable[[], Fact | None], *, within: float = 20.0) -> Fact: ...
async def eventually(probe: Callable[[], object], *, within: float = 20.0) -> object:
    """Ask `probe` until its answer is true, and return that answer.

    An AssertionError of the probe counts as "not yet", so a probe may assert. After `within` seconds the
    last AssertionError is raised, or one that shows the last answer.
    """
    loop = asyncio.get_running_loop()
    deadline, pause = loop.time() + within, 0.005
    while True:
        trouble: AssertionError | None = None
        answer: object = None
        try:
            answer = probe()
            if inspect.isawaitable(answer):
                answer = await answer
            if answer:
                return answer
        except AssertionError as error:
            trouble = error
        if loop.time() > deadline:
            raise trouble or AssertionError(f"not within {within:g} s; the last answer was {answer!r}")
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, 0.2)
