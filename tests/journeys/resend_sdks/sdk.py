"""Resend's published SDKs, each in a process of its own, driven by a test.

    async with an_sdk("node", url) as sdk:
        answer = await sdk.call("send", {"from": …}, key=…, idempotency_key="order-42")

An application's own words are in `driver.py` and `driver.cjs`; the test and they talk in lines of JSON, in
the names of the HTTP API. The only thing that is set is the environment's base URL.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.tools import node

_FOLDER = Path(__file__).parent

Language = Literal["python", "node"]
LANGUAGES: tuple[Language, ...] = ("python", "node")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What the SDK gave to the application."""

    data: Any
    error: Any  # name, status, message, retry_after; in Python the exception's class too


class Sdk:
    """One SDK at work."""

    def __init__(self, process: asyncio.subprocess.Process, language: Language) -> None:
        self._process = process
        self.language = language

    async def call(self, name: str, given: Any = None, *, key: str, **options: str) -> Answered:
        """Make one call of the SDK, and wait for what comes of it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = json.dumps({"call": name, "given": given, "key": key, "options": options})
        self._process.stdin.write(line.encode() + b"\n")
        told = await asyncio.wait_for(self._process.stdout.readline(), 60)
        assert told, f"the driver ended at {name}; see its traceback"
        return Answered(**json.loads(told))

    async def done(self, name: str, given: Any = None, *, key: str, **options: str) -> Any:
        """Make one call that works; return what it gave."""
        answered = await self.call(name, given, key=key, **options)
        assert answered.error is None, answered.error
        return answered.data

    async def refused(self, name: str, given: Any = None, *, key: str, **options: str) -> Any:
        """Make one call that does not; return the error."""
        answered = await self.call(name, given, key=key, **options)
        assert answered.error is not None, answered.data
        return answered.error


@asynccontextmanager
async def an_sdk(language: Language, url: str) -> AsyncIterator[Sdk]:
    """Start an SDK's driver; raises Unobtainable where Node or the package cannot be had."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RESEND_")}
    if language == "python":
        command = [sys.executable, str(_FOLDER / "driver.py")]
        environment |= {"RESEND_API_URL": url}
    else:
        found = await asyncio.to_thread(node.obtain)
        command = [found.program, str(_FOLDER / "driver.cjs")]
        environment |= {"RESEND_BASE_URL": url, "NODE_PATH": str(found.folder / "node_modules")}
    process = await asyncio.create_subprocess_exec(
        *command,
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=64_000_000,
    )
    try:
        yield Sdk(process, language)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
