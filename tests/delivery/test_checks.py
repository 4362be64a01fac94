"""The worker looks after the routes: checks on a schedule, by one worker at a time, and announcements."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import structlog

from service.delivery.checks import RouteKeeper
from service.delivery.tasks import end
from service.ledger import Ledger
from service.ledger.checks import KEPT, Check, NewNotice
from service.mail.address import Address
from service.routes.kinds import Cloud
from service.routes.mx import MxFinder, Resolver
from service.routes.preflight.check import Ground, Preflights
from service.routes.preflight.conduct import Conductor
from service.routes.preflight.lookups import Lookups
from service.routes.route import Account, BasicLogin, Route, RouteKind
from service.routes.tokens import Entra, Tokens
from tests.peer import ScriptedPeer
from tests.routes.builders import a_route
from tests.waiting import eventually

HOUR = timedelta(hours=1)


@pytest.fixture
async def ledger(database_url: str) -> AsyncIterator[Ledger]:
    ledger = Ledger.open(database_url, name="test", connections=5)
    yield ledger
    await ledger.dispose()


@pytest.fixture
async def peer() -> AsyncIterator[ScriptedPeer]:
    async with ScriptedPeer() as peer:
        yield peer


def a_conductor(ledger: Ledger) -> Conductor:
    entra = Entra(
        cloud=Cloud.WORLDWIDE,
        tenant_id="contoso.com",
        authority="https://localhost:1",
        own_authority=True,
        ca_file=None,
        timeout=timedelta(seconds=5),
    )
    nobody = Resolver(nameservers=(("127.0.0.1", 1),), timeout=0.2)
    preflights = Preflights(
        tokens=Tokens(entra),
        mx=MxFinder(nobody),
        answers=Lookups(nobody),
        ground=Ground(entra=entra, accepted_domains=("contoso.com",), static_ips=()),
    )
    return Conductor(preflights, ledger)


def a_keeper(ledger: Ledger, *routes: Route, interval: timedelta = HOUR) -> RouteKeeper:
    return RouteKeeper(routes, conductor=a_conductor(ledger), ledger=ledger, interval=interval)


def to(peer: ScriptedPeer, name: str = "peer", **changes: Any) -> Route:
    return replace(a_route(name, RouteKind.SMARTHOST), peer=peer.as_peer(), **changes)


def with_secret(peer: ScriptedPeer, ends: date) -> Route:
    login = BasicLogin(username="app", password="password", client_secret_expires=ends)
    account = Account(address=Address.parse("noreply@contoso.com"), login=login)
    return replace(a_route("noreply", accounts=(account,)), peer=peer.as_peer())


async def test_every_enabled_route_is_checked(ledger: Ledger, peer: ScriptedPeer) -> None:
    """One round: each enabled route has its check in the ledger, a disabled one has none."""
    await a_keeper(ledger, to(peer, "one"), to(peer, "two"), to(peer, "off", enabled=False)).round(fresh=HOUR)

    checks = {name: await ledger.latest_check(name) for name in ("one", "two", "off")}
    assert [name for name, check in checks.items() if check] == ["one", "two"]
    assert {check.asked_by for check in checks.values() if check} == {"schedule"}
    assert peer.taken == []


async def test_only_one_worker_checks(ledger: Ledger, peer: ScriptedPeer) -> None:
    """Five workers come by at once: the peer is dialled once, and again only when the check is old."""
    keepers = [a_keeper(ledger, to(peer)) for _ in range(5)]

    await asyncio.gather(*(keeper.round(fresh=HOUR) for keeper in keepers))
    assert peer.sessions == 1

    await keepers[0].round(fresh=timedelta(0))
    assert peer.sessions == 2


async def test_a_dead_checker_holds_nobody_up(ledger: Ledger, database_url: str, peer: ScriptedPeer) -> None:
    """A worker that dies in the middle of a check loses its right to it with its connection."""
    dying = Ledger.open(database_url, name="dying", connections=1)
    held = asyncio.Event()

    async def hold() -> None:
        async with dying.checking("peer") as ours:
            assert ours
            held.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    await held.wait()
    async with ledger.checking("peer") as ours:
        assert not ours
    await end([task])
    await dying.dispose()

    await a_keeper(ledger, to(peer)).round(fresh=HOUR)

    assert await ledger.latest_check("peer")


async def test_a_check_takes_a_seat(ledger: Ledger) -> None:
    """Mail uses all three connections of a mailbox: the check logs in on none, and says why; later it does."""
    async with ScriptedPeer(tls=True, logins={"app": "password"}) as peer:
        route = with_secret(peer, date(9998, 1, 1))
        lane = "noreply/noreply@contoso.com"
        seats = [await ledger.take_seat(lane, route="noreply", of=3, lease=60.0) for _ in range(4)]
        assert [seat is None for seat in seats] == [False, False, False, True]

        await a_keeper(ledger, route).round(fresh=timedelta(0))
        busy = await ledger.latest_check("noreply")
        assert peer.logins_tried == []
        await ledger.give_back([seat for seat in seats if seat])
        await a_keeper(ledger, route).round(fresh=timedelta(0))
        free = await ledger.latest_check("noreply")

    assert busy is not None
    assert free is not None
    assert _status(busy, "tls") == "ok"
    assert _status(busy, "auth") == "skip"
    assert _status(free, "auth") == "ok"
    again = [await ledger.take_seat(lane, route="noreply", of=3, lease=60.0) for _ in range(3)]
    assert None not in again, "a check gives its seat back"


def _status(check: Check, name: str) -> str:
    return next(str(step["status"]) for step in check.steps if step["name"] == name)


async def test_a_failing_check_is_one_warning(ledger: Ledger, peer: ScriptedPeer) -> None:
    """One line with all that is to be mended; a check that is well says nothing above INFO."""
    peer.on("greeting", reply="554 5.7.1 No")
    with structlog.testing.capture_logs() as logs:
        await a_keeper(ledger, to(peer)).round(fresh=HOUR)

    (line,) = [log for log in logs if log["log_level"] == "warning"]
    assert line["event"] == "route.check_failed"
    assert line["route"] == "peer"
    assert line["steps"] == ["greeting"]
    assert line["remedy"]


async def test_the_newest_are_kept(ledger: Ledger) -> None:
    """Of sixty checks of a route the newest fifty are kept, and another route's is left alone."""
    now = datetime.now(UTC)

    async def write(route: str, second: int) -> None:
        at = now + timedelta(seconds=second)
        await ledger.write_check(
            route=route, asked_by="cli", started_at=at, ended_at=at, result="ok", steps=[{"detail": "a\x00b"}]
        )

    await write("other", 0)
    for second in range(KEPT + 10):
        await write("peer", second)

    kept = await ledger.checks_of("peer", most=1000)
    assert [check.ended_at for check in kept] == [now + timedelta(seconds=n) for n in range(KEPT + 9, 9, -1)]
    assert len(await ledger.checks_of("other")) == 1
    assert kept[0].steps == [{"detail": "a\ufffdb"}]


async def test_an_announcement_is_made_once(ledger: Ledger, peer: ScriptedPeer) -> None:
    """A secret that ends in five days: one warning among three workers and two rounds, kept for the API."""
    route = with_secret(peer, datetime.now(UTC).date() + timedelta(days=5))
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            await asyncio.gather(*(a_keeper(ledger, route).round(fresh=HOUR) for _ in range(3)))

    (line,) = [log for log in logs if log["event"] == "expiry.announced"]
    assert line["log_level"] == "warning"
    assert (line["days"], line["route"]) == (7, "noreply")
    assert "Certificates & secrets" in line["remedy"]
    (notice,) = await ledger.notices(route="noreply")
    assert "ends in 4 days" in notice.detail


async def test_a_renewed_secret_is_quiet(ledger: Ledger, peer: ScriptedPeer) -> None:
    """After the renewal nothing is announced until sixty days before the new end."""
    today = datetime.now(UTC).date()
    await a_keeper(ledger, with_secret(peer, today + timedelta(days=5))).round(fresh=HOUR)
    with structlog.testing.capture_logs() as logs:
        await a_keeper(ledger, with_secret(peer, today + timedelta(days=400))).round(fresh=HOUR)

    assert [log for log in logs if log["event"] == "expiry.announced"] == []


async def test_who_announces_second_does_not(ledger: Ledger) -> None:
    """The ledger takes each announcement once."""
    notice = NewNotice(
        subject="client_secret:app-1", expires_at=datetime.now(UTC), days=7, route="noreply", detail="…"
    )

    assert [await ledger.announce(notice), await ledger.announce(notice)] == [True, False]
    assert await ledger.announced({"client_secret:app-1", "other"}) == {
        ("client_secret:app-1", notice.expires_at, 7)
    }


async def test_it_comes_by_again_and_again(ledger: Ledger, peer: ScriptedPeer) -> None:
    """It starts by itself, repeats after the interval, and ends when told."""
    async with _running(a_keeper(ledger, to(peer), interval=timedelta(milliseconds=50))):

        async def thrice() -> bool:
            return len(await ledger.checks_of("peer")) >= 3

        await eventually(thrice)


async def test_a_ledger_that_is_gone_ends_nothing(peer: ScriptedPeer) -> None:
    """Without PostgreSQL the rounds go on, and the log says why nothing is checked."""
    gone = Ledger.open("postgresql://nobody@127.0.0.1:1/none", name="test", connections=1)
    with structlog.testing.capture_logs() as logs:
        async with _running(a_keeper(gone, to(peer), interval=timedelta(milliseconds=20))):
            await eventually(lambda: [log["event"] for log in logs].count("checks.no_ledger") >= 2)
    await gone.dispose()

    assert peer.sessions == 0


@asynccontextmanager
async def _running(keeper: RouteKeeper) -> AsyncIterator[None]:
    task = asyncio.create_task(keeper.run())
    try:
        yield
        assert not task.done()
    finally:
        await end([task])
