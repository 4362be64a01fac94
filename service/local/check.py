"""`postroom check`: configuration, database, Redis, then each route, step by step.

Where the ledger works, checks go through it as everybody's do: one of a route at a time, and kept.
Without it the routes are checked all the same, because that is when one wants to know.

Exit status: 0 all well, warnings included; 1 a step failed; 2 the configuration is wrong.
"""

import contextlib
import json
import textwrap
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import typer

from service import wiring
from service.delivery.bell import Bell, open_redis
from service.ledger import Ledger, LedgerUnavailable
from service.ledger.ids import new_id
from service.ledger.keys import SCOPES, Key
from service.ledger.standing import standing
from service.mail.address import Address
from service.routes.mx import MxFinder
from service.routes.preflight.check import Preflights
from service.routes.preflight.conduct import Asked, Conducted, Conductor
from service.routes.preflight.steps import Preflight, Status, Step, fail, ok, skip, warn, worst
from service.routes.route import Route
from service.routes.tokens import Tokens
from service.settings import Settings
from service.submission.intake.messages import Intake
from service.submission.problems import Problem
from service.submission.representation import moment
from service.submission.ways.checking import representation
from service.submission.ways.trial import APPLICATION, Trial, Trials, refused

_WIDTH = 110


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to check."""

    route: str | None = None  # None: all that are enabled
    to: Address | None = None
    sender: Address | None = None
    send_to: Address | None = None  # needs `route`


@dataclass(slots=True, kw_only=True)
class Findings:
    """What was found so far."""

    steps: list[Step] = field(default_factory=list)  # of the installation
    routes: list[dict[str, Any]] = field(default_factory=list)

    @property
    def result(self) -> Status:
        return worst(
            [*(step.status for step in self.steps), *(Status(route["result"]) for route in self.routes)]
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "object": "check",
            "result": self.result.value,
            "steps": [step.as_json() for step in self.steps],
            "routes": self.routes,
        }


class UnknownRoute(Exception):
    """There is no route of the name that was asked for."""


async def check(settings: Settings, wanted: Wanted, *, tell: Callable[[str], None]) -> Findings:
    """Check everything; `tell` is given each part for people as soon as it is known. Raises UnknownRoute."""
    findings = Findings()
    routes = _chosen(settings, wanted)
    async with _opened(settings) as (ledger, bell):
        findings.steps.append(_configuration(settings))
        database = await _database(ledger)
        findings.steps += [database, await _redis(bell)]
        tell("\n".join(_lines("Installation", (step.as_json() for step in findings.steps))))
        usable = database.status is not Status.FAIL
        preflights = wiring.preflights(
            settings, tokens=Tokens(settings.entra()), mx=MxFinder(settings.resolver())
        )
        for route in routes:
            shown = await _route(settings, route, wanted, preflights, ledger if usable else None, bell)
            findings.routes.append(shown)
            title = f"{route.name} ({route.kind}, {route.peer.host}:{route.peer.port})"
            tell("\n".join(["", *_lines(title, shown["steps"], note=shown["note"])]))
    tell(f"\n{_summary(findings)}")
    return findings


def _chosen(settings: Settings, wanted: Wanted) -> list[Route]:
    book = settings.route_book()
    known = {**book.routes, **({book.sandbox.name: book.sandbox} if book.sandbox else {})}
    if wanted.route is None:
        return [route for route in book.routes.values() if route.enabled]
    if wanted.route not in known:
        names = ", ".join(known) or "none"
        raise UnknownRoute(f"There is no route {wanted.route}. There are: {names}.")
    return [known[wanted.route]]


@contextlib.asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[tuple[Ledger, Bell]]:
    async with contextlib.AsyncExitStack() as stack:
        ledger = wiring.open_ledger(settings, name="check")
        stack.push_async_callback(ledger.dispose)
        redis = open_redis(settings.redis_url.get_secret_value())
        stack.push_async_callback(redis.aclose, close_connection_pool=True)
        yield ledger, Bell(redis)


def _configuration(settings: Settings) -> Step:
    count = len(settings.routes)
    detail = f"Every rule holds; {count} route{'s' if count != 1 else ''}."
    warnings = settings.warnings()
    return warn("configuration", detail, *warnings) if warnings else ok("configuration", detail)


async def _database(ledger: Ledger) -> Step:
    found = await standing(ledger)
    remedy = [found.remedy] if found.remedy else []
    if not found.usable:
        return fail("database", found.detail, *remedy)
    return warn("database", found.detail, *remedy) if remedy else ok("database", found.detail)


async def _redis(bell: Bell) -> Step:
    remedy = await bell.trouble()
    if remedy is None:
        return ok("redis", "Redis answers.")
    detail = "Redis cannot be used. Mail goes on, some seconds later than it could."
    return fail("redis", detail, f"{remedy[0].upper()}{remedy[1:]}.")


async def _route(
    settings: Settings,
    route: Route,
    wanted: Wanted,
    preflights: Preflights,
    ledger: Ledger | None,
    bell: Bell,
) -> dict[str, Any]:
    """Check one route, through the ledger where there is one."""
    conducted: Conducted | None = None
    if ledger is not None:
        asked = Asked(by="cli", fresh=timedelta(0), to=wanted.to, sender=wanted.sender)
        with contextlib.suppress(LedgerUnavailable):
            conducted = await Conductor(preflights, ledger, nudge=bell.ring).check(route, asked)
    if conducted is None:
        preflight = await preflights.check(route, to=wanted.to, sender=wanted.sender)
        trial = None
        if wanted.send_to is not None:
            why = "Not sent: without the ledger no message is accepted."
            trial = Trial(step=skip("test_message", why), message_id=None)
        return _unkept(preflight, trial)
    trial = None
    if wanted.send_to is not None:
        assert ledger is not None
        trial = await _trial(settings, route, wanted, conducted, ledger, bell)
    return representation(conducted, trial)


def _unkept(preflight: Preflight, trial: Trial | None) -> dict[str, Any]:
    steps = [*preflight.steps, *([trial.step] if trial else [])]
    return {
        "object": "route_check",
        "id": None,
        "route": preflight.route,
        "result": worst(step.status for step in steps).value,
        "asked_by": "cli",
        "started_at": moment(preflight.started_at),
        "ended_at": moment(preflight.ended_at),
        "shared": False,
        "note": "This check is not kept: the ledger cannot be used.",
        "steps": [step.as_json() for step in steps],
        "test_message": None,
    }


async def _trial(
    settings: Settings, route: Route, wanted: Wanted, conducted: Conducted, ledger: Ledger, bell: Bell
) -> Trial:
    """Send a test mail as the API would, with a key that exists nowhere but here."""
    assert wanted.send_to is not None
    if conducted.kept.result == Status.FAIL:
        why = "Not sent: a step failed. Mend it, then ask again."
        return Trial(step=skip("test_message", why), message_id=None)
    trials = Trials(
        ledger=ledger,
        intake=Intake(
            book=settings.route_book(),
            limits=wiring.submission_limits(settings),
            clock=lambda: datetime.now(UTC),
        ),
        nudge=bell.ring,
        clock=lambda: datetime.now(UTC),
        accepted_domains=settings.organization.accepted_domains,
    )
    sandbox = settings.route_book().sandbox
    key = _key(test=sandbox is not None and sandbox.name == route.name)
    try:
        return await trials.send(route, to=wanted.send_to, sender=wanted.sender, key=key)
    except Problem as problem:
        return refused(problem)


def _key(*, test: bool) -> Key:
    return Key(
        id=new_id("key"),
        application=APPLICATION,
        test=test,
        scopes=SCOPES,
        senders=(),
        restrictions={},
        created_at=datetime.now(UTC),
        expires_at=None,
        revoked_at=None,
        last_used_at=None,
    )


# -- for people ---------------------------------------------------------------------------------


def _lines(title: str, steps: Iterable[Mapping[str, Any]], note: str | None = None) -> Iterator[str]:
    yield title
    if note:
        yield f"  {note}"
    lane: str | None = None
    for step in steps:
        if step["lane"] != lane and step["lane"] is not None:
            yield f"  {step['lane']}"
        lane = step["lane"]
        yield from _step(step)


def _step(step: Mapping[str, Any]) -> Iterator[str]:
    first, *more = str(step["detail"]).splitlines() or [""]
    yield from _wrapped(first, begin=f"  {step['status']:<5}{step['name']:<20}", then=" " * 27)
    for line in more:
        yield from _wrapped(line, begin=" " * 27, then=" " * 27)
    for remedy in step["remedy"]:
        yield from _wrapped(remedy, begin=" " * 25 + "→ ", then=" " * 27)


def _wrapped(text: str, *, begin: str, then: str) -> list[str]:
    # Commands and addresses are to be copied: no line is broken inside a word.
    return textwrap.wrap(
        text,
        width=_WIDTH,
        initial_indent=begin,
        subsequent_indent=then,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [begin.rstrip()]


def _summary(findings: Findings) -> str:
    statuses = _statuses(findings)
    failed, warned = statuses.count(Status.FAIL), statuses.count(Status.WARN)
    if failed:
        also = f", {_count(warned, 'warning')}" if warned else ""
        return f"{_count(failed, 'step')} failed{also}. The arrows say what to do."
    return f"All well, {_count(warned, 'warning')}." if warned else "All well."


def _statuses(findings: Findings) -> list[Status]:
    routes = [Status(step["status"]) for route in findings.routes for step in route["steps"]]
    return [*(step.status for step in findings.steps), *routes]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"


def wrong_configuration(lines: Collection[str]) -> str:
    """Say in JSON that the configuration is wrong."""
    step = fail("configuration", "The configuration breaks a rule.", *lines)
    return json.dumps(Findings(steps=[step]).as_json())


def print_json(findings: Findings) -> None:
    """Print the findings, and nothing else, to stdout."""
    typer.echo(json.dumps(findings.as_json()))
