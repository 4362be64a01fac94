"""Put the rooms together: what each process opens, and in which order it closes.

The only place that knows all rooms. Settings come in, and each part gets its own small,
frozen share of them; nothing below ever asks for a setting.

What only one process needs is loaded where it is opened: a worker has no web framework in its memory.
"""

import asyncio
import contextlib
import gc
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import structlog

from service.delivery.attempt import Kit
from service.delivery.bell import Bell, open_redis
from service.delivery.calling import Caller
from service.delivery.checks import RouteKeeper
from service.delivery.keeper import Keeper
from service.delivery.retention import RetentionKeeper
from service.delivery.room import Room
from service.delivery.schedule import Policy, Retry
from service.delivery.suppressing import SuppressionKeeper
from service.delivery.tasks import end as end_tasks
from service.delivery.webhooks import Dispatcher, Schedule
from service.delivery.worker import Worker
from service.exposition.health import readiness
from service.exposition.listener import Answer, Endpoint, listening
from service.exposition.page import Page
from service.ledger import Ledger, LedgerUnavailable, migrate, rights
from service.ledger.ids import new_id
from service.ledger.pace import LaneLimits
from service.ledger.retention import Retention
from service.ledger.sealing import Seal
from service.ledger.standing import Standing, standing
from service.memory import keep_small
from service.routes.mx import MxFinder
from service.routes.preflight.check import Ground, Preflights
from service.routes.preflight.conduct import Conductor, Nudge
from service.routes.preflight.lookups import Lookups
from service.routes.targets import Targets
from service.routes.tokens import Tokens
from service.settings import Settings
from service.settings.build import SANDBOX, rights_of
from service.telemetry import figures, traces

if TYPE_CHECKING:
    from fastapi import FastAPI

    from service.routes.advice import Organization
    from service.submission.feed.telling import Telling
    from service.submission.limits import SubmissionLimits
    from service.submission.who.entra import EntraApi

log = structlog.get_logger()

_API_CONNECTIONS = 10
_WORKER_CONNECTIONS = 10

#: Seconds that a probe waits for each answer of the ledger.
_PROBE_PATIENCE = 1.5


def open_ledger(settings: Settings, *, name: str, connections: int = 2) -> Ledger:
    """Make the ledger of a process; nothing is connected yet."""
    return Ledger.open(
        settings.database_url.get_secret_value(),
        name=f"postroom-{name}",
        connections=connections,
        seal=seal_of(settings),
    )


def seal_of(settings: Settings) -> Seal:
    """Make what seals contents and the secrets of others."""
    return Seal(settings.sealing_key(), previous=settings.previous_sealing_key())


def policy(settings: Settings) -> Policy:
    """Dispatch's share of the settings."""
    dispatch = settings.dispatch
    return Policy(
        lease=dispatch.lease.total_seconds(),
        poll_interval=dispatch.poll_interval.total_seconds(),
        retry=Retry(
            first=dispatch.retry.first.total_seconds(),
            factor=dispatch.retry.factor,
            cap=dispatch.retry.cap.total_seconds(),
        ),
        uncertain_after=dispatch.uncertain_after.total_seconds(),
        shutdown_grace=dispatch.shutdown_grace.total_seconds(),
    )


#: Connections of a lane that has no limit of its own.
_MANY = 10


def lane_limits(settings: Settings) -> dict[str, LaneLimits]:
    """Say what each lane may use, by its name; the tenant's external budget where a lane counts towards it."""
    book = settings.route_book()
    return {
        lane.name: LaneLimits(
            connections=lane.limits.connections or _MANY,
            messages_per_minute=lane.limits.messages_per_minute,
            messages_per_hour=lane.limits.messages_per_hour,
            recipients_per_day=lane.limits.recipients_per_day,
            counts_external=lane.route.counts_external,
            external_per_day=book.external_budget if lane.route.counts_external else None,
        )
        for lane in book.lanes()
    }


def organization(settings: Settings) -> "Organization":
    """What advice needs to know of the tenant."""
    from service.routes.advice import Hosting, Organization

    given, egress = settings.organization, settings.organization.egress
    return Organization(
        accepted_domains=given.accepted_domains,
        external_budget=settings.route_book().external_budget,
        static_ips=egress.static_ips,
        hosting=Hosting(egress.hosting) if egress.hosting else None,
        cloud=settings.directory.cloud,
        tenant_id=settings.directory.tenant_id,
    )


def preflights(settings: Settings, *, tokens: Tokens, mx: MxFinder) -> Preflights:
    """Make what checks routes, with the tokens and hosts of the process that it runs in."""
    return Preflights(
        tokens=tokens,
        mx=mx,
        answers=Lookups(settings.resolver()),
        ground=Ground(
            entra=settings.entra(),
            accepted_domains=settings.organization.accepted_domains,
            static_ips=settings.organization.egress.static_ips,
        ),
    )


def submission_limits(settings: Settings) -> "SubmissionLimits":
    """The door's share of the settings."""
    from service.submission.limits import SubmissionLimits

    return SubmissionLimits(
        body_octets=settings.api.max_body,
        body_seconds=settings.api.body_timeout.total_seconds(),
        expires_after=settings.dispatch.expires_after,
        queue_limit=settings.dispatch.queue_limit,
        bodies_octets=settings.api.bodies_in_flight,
        trusted_proxies=settings.api.trusted_proxies,
    )


def entra_api(settings: Settings) -> "EntraApi | None":
    """Say which access tokens the door takes; None: none."""
    from service.submission.who.entra import Application, EntraApi

    given, entra = settings.directory.api, settings.entra()
    if not given.audience:
        return None
    applications: dict[str, Application] = {}
    for each in given.applications:
        found = rights.read(rights_of(each), routes=[*settings.route_book().routes, SANDBOX])
        applications[each.client_id.lower()] = Application(
            name=each.name,
            test=each.test,
            senders=found["senders"],
            restrictions=rights.restrictions_of(found),
        )
    return EntraApi(
        # Claims have the id in lower case.
        entra=replace(entra, tenant_id=entra.tenant_id.lower()),
        audiences=given.audience,
        applications=applications,
    )


def add_console(app: "FastAPI", settings: Settings, ledger: Ledger) -> Callable[[], Awaitable[None]]:
    """Put the operators' pages beside the API, which they ask in the name of whoever is signed in.

    Returns what closes them.
    """
    from service.console.app import ConsoleRules, create_console, mount
    from service.console.directory import EntraSignIn
    from service.submission.who.peers import client_of

    trusted, given = settings.api.trusted_proxies, settings.console
    by_entra = None
    if given.entra is not None:
        entra = settings.entra()
        by_entra = EntraSignIn(
            entra=replace(entra, tenant_id=entra.tenant_id.lower()),
            client_id=given.entra.client_id,
            client_secret=given.entra.client_secret.get_secret_value(),
            back=f"{(given.url or '').rstrip('/')}/console/sign-in/entra/back",
        )
    console = create_console(
        api=app,
        ledger=ledger,
        rules=ConsoleRules(lasts=given.sign_in, url=given.url, entra=by_entra),
        client_of=lambda request: str(client) if (client := client_of(request, trusted=trusted)) else None,
        closing=app.state.door.telling.streams.closing,
    )
    mount(app, console)
    aclose: Callable[[], Awaitable[None]] = console.state.aclose
    return aclose


def telling(settings: Settings, ledger: Ledger) -> "Telling":
    """Make what the door needs for webhooks and streams."""
    from service.submission.feed.telling import Telling

    return Telling(
        ledger,
        targets=Targets(settings.target_rules(), settings.resolver()),
        seal=seal_of(settings),
    )


def metrics_page(settings: Settings, ledger: Ledger, *, process: str) -> Page | None:
    """Make what writes the figures of a process; None where they are switched off."""
    if not settings.metrics.enabled:
        return None
    book = settings.route_book()
    figures.BUILD.set(1, process, version("postroom"), migrate.head())
    return Page(ledger, lanes=book.lanes(), limits=lane_limits(settings), routes=list(book.routes.values()))


@asynccontextmanager
async def listener(
    settings: Settings, ledger: Ledger, bell: Bell, page: Page | None
) -> AsyncIterator[int | None]:
    """Open the port for probes and figures, where there is one; gives it. Raises SystemExit where it cannot."""
    if settings.metrics.port is None:
        yield None
        return
    health = Health(bell)

    async def patient(work: Any) -> Any:
        try:
            return await asyncio.wait_for(work, _PROBE_PATIENCE)
        except TimeoutError:
            raise LedgerUnavailable("no answer in time") from None

    async def livez(_accept: str) -> Answer:
        return Answer.json({"status": "alive"})

    async def readyz(_accept: str) -> Answer:
        found = await readiness(ledger, health, spend=patient)
        return Answer.json(found.body, status=found.status)

    async def metrics(accept: str) -> Answer:
        assert page is not None, "the path is there with the page"
        content, content_type = await page.write(accept)
        return Answer(status=200, content=content, content_type=content_type)

    endpoints: dict[str, Endpoint] = {"/livez": livez, "/readyz": readyz}
    if page is not None:
        endpoints["/metrics"] = metrics
    async with contextlib.AsyncExitStack() as stack:
        try:
            port = await stack.enter_async_context(
                listening(endpoints, host=settings.metrics.host, port=settings.metrics.port)
            )
        except OSError as fault:
            raise SystemExit(
                f"metrics.port cannot be listened on ({fault.strerror}). Choose another one for this process, "
                "or end what has it."
            ) from None
        yield port


@asynccontextmanager
async def tracing(process: str) -> AsyncIterator[None]:
    """Send spans, where the environment says where to; the last ones get some seconds to leave."""
    traces.set_up(process, version=version("postroom"))
    try:
        yield
    finally:
        if traces.on():
            await asyncio.to_thread(traces.end)


class Health:
    """What the probes ask beside the ledger."""

    def __init__(self, bell: Bell) -> None:
        self._bell = bell
        self.revision = migrate.head()

    async def redis(self) -> bool:
        return await self._bell.answers()


@asynccontextmanager
async def api_app(settings: Settings) -> AsyncIterator["FastAPI"]:
    """Open what the HTTP door needs, and close it in reverse."""
    from service.submission.app import create_app

    async with contextlib.AsyncExitStack() as stack:
        ledger = open_ledger(settings, name="api", connections=_API_CONNECTIONS)
        stack.push_async_callback(ledger.dispose)
        redis = open_redis(settings.redis_url.get_secret_value())
        stack.push_async_callback(redis.aclose, close_connection_pool=True)
        bell = Bell(redis)

        async def nudge(lanes: Collection[str]) -> None:
            await bell.ring(lanes)

        checker = preflights(settings, tokens=Tokens(settings.entra()), mx=MxFinder(settings.resolver()))
        app = create_app(
            ledger=ledger,
            book=settings.route_book(),
            lane_limits=lane_limits(settings),
            organization=organization(settings),
            limits=submission_limits(settings),
            nudge=nudge,
            clock=lambda: datetime.now(UTC),
            health=Health(bell),
            check=Conductor(checker, ledger, nudge=nudge).check,
            telling=telling(settings, ledger),
            entra=entra_api(settings),
        )
        if settings.console.enabled:
            stack.push_async_callback(add_console(app, settings, ledger))
        page = metrics_page(settings, ledger, process="api")
        if page is not None:
            page.before(app.state.door.look)
        if page is not None and settings.metrics.port is None:
            app.state.door.page = page.write
        await stack.enter_async_context(listener(settings, ledger, bell, page))
        app.state.door.begin()
        stack.push_async_callback(app.state.door.aclose)
        stack.push_async_callback(app.state.renderer.close)
        yield app


async def run_api(settings: Settings, *, host: str | None, port: int | None) -> None:
    """Serve HTTP until SIGTERM or SIGINT, then finish what is in hand."""
    from service.submission.request.connections import ConnectionLimits
    from service.submission.serving import serve

    async with tracing("api"), api_app(settings) as app:
        tidying = asyncio.create_task(keep_small())
        # It serves at once, and answers 503 meanwhile; what is missing, its log says.
        looking = asyncio.create_task(_tell_of(app.state.door.ledger))
        _settled()
        await serve(
            app,
            host=host or settings.api.host,
            port=settings.api.port if port is None else port,
            limits=ConnectionLimits(
                connections=settings.api.connections,
                head_seconds=settings.api.head_timeout.total_seconds(),
            ),
            grace=settings.dispatch.shutdown_grace.total_seconds(),
        )
        await end_tasks([tidying, looking])


def _settled() -> None:
    """Take what is loaded out of the garbage collector's sight: it lives as long as the process.

    Each of the collector's full rounds would otherwise look through all of it, for some 100 ms. And it comes by
    every 20,000 objects instead of every 700: a request makes some thousand that are gone with it.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


async def run_worker(settings: Settings) -> None:
    """Drain the lanes until SIGTERM or SIGINT, then finish what is in hand."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(tracing("worker"))
        ledger = open_ledger(settings, name="worker", connections=_WORKER_CONNECTIONS)
        stack.push_async_callback(ledger.dispose)
        redis = open_redis(settings.redis_url.get_secret_value())
        stack.push_async_callback(redis.aclose, close_connection_pool=True)
        page = metrics_page(settings, ledger, process="worker")
        await stack.enter_async_context(listener(settings, ledger, Bell(redis), page))
        if not await _schema_in_place(ledger, stop):
            return
        rules = policy(settings)
        kit = Kit(
            worker=f"{new_id('wrk')}@{socket.gethostname()}:{os.getpid()}",
            ledger=ledger,
            tokens=Tokens(settings.entra()),
            mx=MxFinder(settings.resolver()),
            keeper=Keeper(ledger, lease=rules.lease),
            policy=rules,
            room=Room(settings.dispatch.contents_in_flight),
        )
        book = settings.route_book()
        lanes = [lane for lane in book.lanes() if lane.route.enabled]
        worker = Worker(lanes, limits=lane_limits(settings), kit=kit, redis=redis)
        if page is not None:
            page.before(worker.look)
        if settings.checks.enabled:
            stack.push_async_callback(
                end_tasks, [asyncio.create_task(route_keeper(settings, kit, nudge=Bell(redis).ring).run())]
            )
        stack.push_async_callback(end_tasks, [asyncio.create_task(keep_small())])
        stack.push_async_callback(end_tasks, [asyncio.create_task(_look_out(ledger))])
        keeper = SuppressionKeeper(ledger, interval=rules.poll_interval)
        stack.push_async_callback(end_tasks, [asyncio.create_task(keeper.run())])
        caretaker = RetentionKeeper(
            ledger, kept(settings), interval=settings.retention.interval.total_seconds()
        )
        stack.push_async_callback(end_tasks, [asyncio.create_task(caretaker.run())])
        dispatcher = await stack.enter_async_context(webhook_dispatcher(settings))
        telling_webhooks = asyncio.create_task(dispatcher.run(stop))
        stack.push_async_callback(end_tasks, [telling_webhooks])
        _settled()
        await worker.run(stop)
        # Calls that are under way may end: cut off, they would come a second time.
        await asyncio.wait({telling_webhooks}, timeout=settings.webhooks.timeout.total_seconds())


def kept(settings: Settings) -> Retention:
    """Say how long each kind of data is kept."""
    given = settings.retention
    return Retention(
        content=given.content,
        transcripts=given.transcripts,
        personal=given.personal,
        attempts=given.attempts,
        events=given.events,
        audit=given.audit,
    )


@asynccontextmanager
async def webhook_dispatcher(settings: Settings) -> AsyncIterator[Dispatcher]:
    """Open what tells webhooks beside a worker; it has a ledger of its own, so that mail never waits for it."""
    from service.submission import representation

    async with contextlib.AsyncExitStack() as stack:
        ledger = open_ledger(settings, name="webhooks")
        stack.push_async_callback(ledger.dispose)
        given = settings.webhooks
        targets = Targets(settings.target_rules(), settings.resolver())
        caller = Caller(targets, timeout=given.timeout, ca_file=given.ca_file)
        yield Dispatcher(
            ledger,
            caller=await stack.enter_async_context(caller),
            seal=seal_of(settings),
            schedule=Schedule(
                retries=given.retries, disable_after=given.disable_after, timeout=given.timeout
            ),
            show=representation.event,
        )


def route_keeper(settings: Settings, kit: Kit, *, nudge: Nudge) -> RouteKeeper:
    """Make what looks after the routes beside a worker, with the worker's own tokens and hosts."""
    checker = preflights(settings, tokens=kit.tokens, mx=kit.mx)
    return RouteKeeper(
        list(settings.route_book().routes.values()),
        conductor=Conductor(checker, kit.ledger, nudge=nudge),
        ledger=kit.ledger,
        interval=settings.checks.interval,
    )


#: Seconds between two looks at a ledger that is there, and until the one that confirms that it is not.
_LOOK, _LOOK_AGAIN = 5.0, 1.0


async def _schema_in_place(ledger: Ledger, stop: asyncio.Event) -> bool:
    """Wait for the schema that this version needs: a pod may start before the migration. False: told to stop.

    A schema that is newer than this version is worked with: that is a rolling update. What is wrong is said once,
    and again when it has changed.
    """
    said: Standing | None = None
    while not stop.is_set():
        found = await standing(ledger)
        if found != said and found.state != "ready":
            log.warning(f"ledger.{found.state}", detail=found.detail, remedy=found.remedy)
        said = found
        if found.usable:
            return True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2.0):
                await stop.wait()
    return False


async def _tell_of(ledger: Ledger) -> None:
    """Say how the ledger stands, from the start of an API on."""
    await _schema_in_place(ledger, asyncio.Event())
    await _look_out(ledger)


async def _look_out(ledger: Ledger) -> None:
    """Say what becomes of the ledger while a process works: once when it goes, with the remedy, and once when it is back.

    What is over at a second look is not worth a line.
    """
    said: Standing | None = None
    while True:
        await asyncio.sleep(_LOOK)
        found = await standing(ledger)
        if not found.usable:
            await asyncio.sleep(_LOOK_AGAIN)
            found = await standing(ledger)
        if said is not None and not said.usable and found.usable:
            log.info("ledger.back", detail=found.detail)
        elif found != said and not found.usable:
            log.warning(f"ledger.{found.state}", detail=found.detail, remedy=found.remedy)
        said = found
