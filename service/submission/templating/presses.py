"""The presses: the few processes that render, started when they are first needed, and replaced when they die.

A press prints one request at a time (`render_child`). The first request starts the first press; more are
started while requests wait, up to `MOST`. Of those that wait the application goes first that has used the
presses least in the last moments. One has no more than `MOST_OF_ONE` at a time, and the last free press is for
those that used little, so that bombs leave a press to everybody else. Nobody waits for long, nor beside many:
then it is `Busy`, which says nothing about the template.

A press is killed with its copies, as a group, when the API closes, when a request is given up in the middle,
and when the press does not keep its time; another one takes its place. Should the API be killed, its presses
read the end of their input and end too. Where the API is the first process of a container, the copies of a press that
is gone become its own children, and it takes note of their end.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import structlog

from service.submission.templating.render_child import ANSWER, REQUEST

log = structlog.get_logger()

PROGRAM = Path(__file__).with_name("render_child.py")

MOST = 3  # presses of this process, with about 25 MB of memory each
MOST_OF_ONE = 2  # that print for one application at a time
_LITTLE_SECONDS = 1.0  # of a press, used lately: who used more does not get the last free one
_HALF_LIFE_SECONDS = 5.0  # of what was used
_REMEMBERED = 1_000  # applications
_WAITING, _WAITING_OF_ONE = 64, 32  # requests
_WAIT_SECONDS = 0.4  # for a press
_WHOLE_SECONDS = 0.7  # for a press and the printing: the answer is there within a second
_LEAST_SECONDS = 0.05  # with less there is no use in beginning
_GRACE_SECONDS = 0.1  # that a press may be late
_START_SECONDS = 10.0  # a press has loaded Jinja after 0.1 s, on a machine with nothing else to do


class Busy(Exception):
    """No press was free in time; nothing was found out about the template."""


class _Died(Exception):
    """A press or its copy ended in the middle, by nothing that a template does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Printed:
    """What a press answered."""

    results: bytes  # those that were complete, as `render_child` writes them
    ended: int  # 0, the copy's exit code, or minus the signal that ended it

    @property
    def out_of_time(self) -> bool:
        return self.ended == -signal.SIGALRM


class _Press:
    """One process, and the conversation with it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._to, self._from = process.stdin, process.stdout
        self.sound = True  # ready for the next request

    @classmethod
    async def start(cls) -> Self:
        """Start a press and wait until it is ready; raises OSError, TimeoutError or _Died.

        It gets no environment, which may hold secrets, no descriptor but its two pipes, and a process group
        of its own, so that it can be killed with its copies and a terminal's Ctrl-C is not for it.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-X", "utf8", str(PROGRAM),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
            env={}, cwd="/", start_new_session=True, limit=1024 * 1024,
        )  # fmt: skip
        press = cls(process)
        try:
            async with asyncio.timeout(_START_SECONDS):
                await press._answer()
        except BaseException:
            press.kill()
            await press.gone()
            raise
        return press

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def print(self, request: bytes, *, seconds: float) -> Printed:
        """Have a request carried out in so many seconds; raises _Died."""
        self.sound = False
        try:
            async with asyncio.timeout(seconds + _GRACE_SECONDS):
                self._to.writelines((REQUEST.pack(seconds, len(request)), request))
                await self._to.drain()
                printed = await self._answer()
        except (OSError, TimeoutError):
            raise _Died from None
        self.sound = True
        if printed.ended == -signal.SIGKILL:
            raise _Died
        return printed

    async def _answer(self) -> Printed:
        try:
            ended, size = ANSWER.unpack(await self._from.readexactly(ANSWER.size))
            return Printed(results=await self._from.readexactly(size), ended=ended)
        except asyncio.IncompleteReadError:
            raise _Died from None

    def kill(self) -> None:
        """Kill it with its copies; `gone` waits for the end."""
        self.sound = False
        if self.alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def gone(self) -> None:
        """Wait until the process is gone and its pipes are closed."""
        self._to.close()
        with contextlib.suppress(OSError):
            await self._to.wait_closed()
        await self._process.wait()
        await self._copies_gone()

    async def _copies_gone(self) -> None:
        """Kill and bury the copies that it leaves, where they have become our children: else they stay as zombies."""
        group = self._process.pid
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):  # there is none, or it is another process' child
            while True:
                await asyncio.to_thread(os.waitpid, -group, 0)


@dataclass(eq=False, slots=True, kw_only=True)
class _Turn:
    """A request that waits for a press."""

    application: str
    press: asyncio.Future[_Press]


class Shares:
    """Which application uses how many presses now, and how long it used them lately."""

    def __init__(self) -> None:
        self._printing: Counter[str] = Counter()
        self._used: dict[str, tuple[float, float]] = {}  # seconds, and when that was said

    def used(self, application: str, now: float) -> float:
        """Say how many seconds of a press it used; what is long ago counts less and less."""
        seconds, at = self._used.get(application, (0.0, now))
        return float(seconds * 0.5 ** ((now - at) / _HALF_LIFE_SECONDS))

    def may_take(self, application: str, now: float) -> bool:
        """Say whether it may have one more press."""
        if self._printing[application] >= MOST_OF_ONE:
            return False
        return self._printing.total() < MOST - 1 or self.used(application, now) < _LITTLE_SECONDS

    def take(self, application: str) -> None:
        self._printing[application] += 1

    def give_back(self, application: str, seconds: float, now: float) -> None:
        """Take note that a press is free again, after so many seconds."""
        self._printing[application] -= 1
        self._printing += Counter()  # forgets those that have none
        if len(self._used) >= _REMEMBERED:
            self._used.clear()
        self._used[application] = (self.used(application, now) + seconds, now)


class Presses:
    """All presses of this process, and who may use them."""

    def __init__(self) -> None:
        self._idle: list[_Press] = []
        self._all: set[_Press] = set()
        self._starting = 0
        self._turns: list[_Turn] = []
        self._shares = Shares()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def print(self, request: bytes, *, seconds: float, application: str) -> Printed:
        """Have a request carried out, in so many seconds at the most; raises Busy.

        What a press left undone because it died is tried once more, where time is left.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + _WHOLE_SECONDS
        for _ in range(2):
            press = await self._take(application, patience=min(_WAIT_SECONDS, until - loop.time()))
            began = loop.time()
            try:
                left = until - began
                if left < _LEAST_SECONDS:
                    raise Busy
                printed = await press.print(request, seconds=min(seconds, left))
            except _Died:
                if not self._closed:
                    log.warning("press.died", remedy="it is replaced; is the machine short of memory?")
                continue
            finally:
                self._give_back(press, application, seconds=loop.time() - began)
            if printed.out_of_time and left < seconds:
                raise Busy
            return printed
        raise Busy

    async def close(self) -> None:
        """End every press; who waits for one gets Busy."""
        self._closed = True
        for turn in self._turns:
            turn.press.cancel()
        self._turns.clear()
        self._idle.clear()
        for press in list(self._all):
            self._dismiss(press)
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _take(self, application: str, *, patience: float) -> _Press:
        waiting = sum(turn.application == application for turn in self._turns)
        if self._closed or waiting >= _WAITING_OF_ONE or len(self._turns) >= _WAITING:
            raise Busy
        turn = _Turn(application=application, press=asyncio.get_running_loop().create_future())
        self._turns.append(turn)
        self._hand_out()
        try:
            # This leaves the future alone, so that no press is lost between its hands and ours.
            await asyncio.wait((turn.press,), timeout=patience)
        except asyncio.CancelledError:
            self._leave(turn)
            raise
        if not turn.press.done() or turn.press.cancelled():
            self._leave(turn)
            raise Busy
        return turn.press.result()

    def _leave(self, turn: _Turn) -> None:
        if turn in self._turns:
            self._turns.remove(turn)
        elif turn.press.done() and not turn.press.cancelled():
            self._give_back(turn.press.result(), turn.application, seconds=0.0)

    def _give_back(self, press: _Press, application: str, *, seconds: float) -> None:
        self._shares.give_back(application, seconds, asyncio.get_running_loop().time())
        if press.sound and press in self._all:
            self._idle.append(press)
        else:
            self._dismiss(press)
            self._start()
        self._hand_out()

    def _hand_out(self) -> None:
        """Give idle presses to those who wait and may have one, and start more where they are too few."""
        for press in [press for press in self._idle if not press.alive]:
            self._idle.remove(press)
            self._dismiss(press)
        now = asyncio.get_running_loop().time()
        for turn in sorted(self._turns, key=lambda turn: self._shares.used(turn.application, now)):
            if not self._shares.may_take(turn.application, now):
                continue
            if not self._idle:
                self._start()
                return
            self._turns.remove(turn)
            self._shares.take(turn.application)
            turn.press.set_result(self._idle.pop())

    def _start(self) -> None:
        if self._closed or self._starting or len(self._all) >= MOST:
            return
        self._starting += 1
        self._keep(self._start_one())

    async def _start_one(self) -> None:
        try:
            press = await _Press.start()
        except (OSError, TimeoutError, _Died) as exc:
            log.warning(
                "press.not_started", error=type(exc).__name__, remedy="is the machine short of memory?"
            )
            return
        finally:
            self._starting -= 1
        self._all.add(press)
        if self._closed:
            self._dismiss(press)
            return
        self._idle.append(press)
        self._hand_out()

    def _dismiss(self, press: _Press) -> None:
        press.kill()
        if press in self._all:
            self._all.discard(press)
            self._keep(press.gone())

    def _keep(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
