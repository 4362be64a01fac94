"""Parts of the benchmark that run in processes of their own, and how they are asked.

    async with program("sink", "--delay", "30") as sink:
        sink.ready["port"], sink.pid
        answer = await sink.ask(op="count")

A program is a module of this package. It prints a line of JSON when it is ready, then answers each line
of JSON on its standard input with one on its standard output, and ends when its input does: so none
outlives the benchmark.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

ROOT = Path(__file__).resolve().parents[2]
_LONGEST_LINE = 2**28

Answering = Callable[[dict[str, Any]], Awaitable[Any]]


@dataclass(slots=True)
class Program:
    """A running part."""

    process: asyncio.subprocess.Process
    ready: dict[str, Any]

    @property
    def pid(self) -> int:
        return self.process.pid

    async def ask(self, *, within: float = 600.0, **question: Any) -> Any:
        """Ask, and wait for the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(question).encode() + b"\n")
        return await self._line(within)

    async def _line(self, within: float) -> Any:
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), within)
        assert line, "the program has ended; what it said is on stderr"
        return json.loads(line)


@asynccontextmanager
async def program(name: str, *arguments: str) -> AsyncIterator[Program]:
    """Start a module of this package, and end it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        f"tests.bench.{name}",
        *arguments,
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_LONGEST_LINE,
    )
    running = Program(process, {})
    try:
        running.ready = await running._line(30.0)
        yield running
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 10.0)
        except TimeoutError:
            process.kill()
            await process.wait()


async def answer_for_ever(ready: dict[str, Any], answering: Answering) -> None:
    """Be a program: say that it is ready, then answer until the input ends."""
    print(json.dumps(ready), flush=True)
    reader = asyncio.StreamReader(limit=_LONGEST_LINE)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        print(json.dumps(await answering(json.loads(line))), flush=True)


def run(main: Awaitable[None]) -> None:
    """Run a program on uvloop."""

    async def wait() -> None:
        await main

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(wait())
