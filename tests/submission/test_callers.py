"""Who is calling: wrong keys are slowed and counted, networks and proxies are looked at, PostgreSQL is spared."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from service.ledger.keys import Key
from service.submission.problems import Problem
from service.submission.who.callers import Callers
from service.submission.who.peers import client_of, neighbourhood
from service.submission.who.wrong_keys import BOUND, CLIENTS, FREE, LONGEST_DELAY, RUNS_OUT, WrongKeys
from tests.house import House, a_house, smarthost
from tests.peer import ScriptedPeer
from tests.waiting import eventually


@pytest.fixture
async def house(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[House]:
    """A door behind a proxy on 127.0.0.1, without a worker."""
    async with (
        ScriptedPeer() as peer,
        a_house(
            database_url,
            redis_url,
            routes=[smarthost(peer)],
            folder=tmp_path,
            workers=0,
            settings_changes={"api": {"trusted_proxies": ["127.0.0.1/32"]}},
        ) as opened,
    ):
        yield opened


def a_guess() -> str:
    """A key that has the right form, and that nobody made."""
    return f"pr_live_01JDB6Z0Q5V8W6K3T1E9F4H2RC_{secrets.token_urlsafe(32)}"


async def ask(house: House, token: str, *, address: str) -> Any:
    headers = {"Authorization": f"Bearer {token}", "X-Forwarded-For": address}
    return await house.client.get("/me", headers=headers)


class CountingLedger:
    """A ledger with one key, which counts how often it is asked and how many ask at once."""

    def __init__(self, good: str) -> None:
        self.good = good
        self.asked = 0
        self.at_once = 0
        self.most_at_once = 0
        self.touched: list[str] = []

    async def find_key(self, token: str) -> Key | None:
        self.asked += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0.01)
        self.at_once -= 1
        return a_key() if token == self.good else None

    async def touch_keys(self, key_ids: Sequence[str]) -> None:
        self.touched.extend(key_ids)


def a_key(**changes: Any) -> Key:
    return Key(**{
        "id": "key_01JDB6Z0Q5V8W6K3T1E9F4H2RC", "application": "billing", "test": False,
        "scopes": ("messages.send",), "senders": (), "restrictions": {}, "created_at": datetime.now(UTC),
        "expires_at": None, "revoked_at": None, "last_used_at": None, **changes,
    })  # fmt: skip


async def answers(callers: Callers, token: str, address: str = "192.0.2.1") -> int:
    """Return the status that this caller gets."""
    try:
        await callers.caller([f"Bearer {token}"], ip_address(address))
    except Problem as refused:
        return refused.status
    return 200


async def test_wrong_keys_are_slowed_then_not_looked_at_and_a_good_key_is_not(house: House) -> None:
    """From one address: at once, later, 429 with Retry-After; the good key as ever."""
    good = await house.ledger.create_key("billing", scopes=["messages.read"], senders=[])
    assert (await ask(house, good.token, address="192.0.2.1")).status_code == 200
    assert house.app is not None
    strikes = house.app.state.door.callers.wrong_keys
    statuses, times = [], []

    for number in range(12):
        if number == FREE + 5:  # on to the end of the bucket: each guess there takes its time
            strikes._strikes["192.0.2.1"] = (BOUND - 1, time.monotonic())
        began = time.monotonic()
        last = await ask(house, a_guess(), address="192.0.2.1")
        times.append(time.monotonic() - began)
        statuses.append(last.status_code)

    assert statuses == [401] * 10 + [429] * 2
    assert last.json()["code"] == "too_many_wrong_keys"
    assert 1 <= int(last.headers["Retry-After"]) <= RUNS_OUT
    assert sum(times[FREE : FREE + 5]) > 0.05 * (1 + 2 + 4 + 8)
    assert (await ask(house, good.token, address="192.0.2.1")).status_code == 200
    assert (await ask(house, a_guess(), address="192.0.2.2")).status_code == 401


async def test_what_was_refused_is_counted_by_its_code(house: House) -> None:
    """Each refusal is counted; a request without a key is no wrong key."""
    assert house.app is not None
    callers = house.app.state.door.callers

    for _ in range(BOUND + 5):
        answer = await house.client.get("/me", headers={"Authorization": "", "X-Forwarded-For": "192.0.2.1"})
        assert answer.json()["code"] == "missing_key"
    await ask(house, "nonsense", address="192.0.2.1")

    assert callers.wrong_keys.refused == {"missing_key": BOUND + 5, "invalid_key": 1}
    assert callers.wrong_keys.rest("192.0.2.1") == 0


async def test_guesses_do_not_keep_the_ledger_busy() -> None:
    """One guess again and again is looked up once; different ones few at a time, and no more than the bound."""
    ledger = CountingLedger(good=a_guess())
    callers, same = Callers(ledger, lambda: datetime.now(UTC)), a_guess()

    await asyncio.gather(*[answers(callers, same, f"192.0.2.{n}") for n in range(50)])
    once = ledger.asked
    await asyncio.gather(*[answers(callers, a_guess(), f"198.51.100.{n}") for n in range(100)])
    assert once == 1
    assert ledger.asked == 101
    assert ledger.most_at_once <= 3

    # The bucket is full: what comes now is not looked up.
    callers.wrong_keys._strikes["203.0.113.1"] = (BOUND + 10.0, time.monotonic())
    statuses = {await answers(callers, a_guess(), "203.0.113.1") for _ in range(30)}
    await callers.aclose()
    assert statuses == {429}
    assert ledger.asked == 101


async def test_requests_that_come_together_ask_once() -> None:
    """A hundred requests with a key that is not remembered are one question, and one note of its use."""
    ledger = CountingLedger(good=a_guess())
    callers = Callers(ledger, lambda: datetime.now(UTC))

    statuses = await asyncio.gather(*[answers(callers, ledger.good) for _ in range(100)])
    await eventually(lambda: ledger.touched)
    await callers.aclose()

    assert set(statuses) == {200}
    assert ledger.asked == 1
    assert ledger.touched == [a_key().id]


async def test_a_key_that_is_forgotten_in_the_middle_of_a_look_up_is_not_remembered() -> None:
    """A look-up that began before a revocation does not bring the old state back."""
    ledger = CountingLedger(good=a_guess())
    callers = Callers(ledger, lambda: datetime.now(UTC))

    asking = asyncio.create_task(answers(callers, ledger.good))
    await eventually(lambda: ledger.at_once)
    callers.forget(a_key().id)
    await asking
    await answers(callers, ledger.good)
    await callers.aclose()

    assert ledger.asked == 2


def test_strikes_run_out_and_the_memory_has_an_end() -> None:
    """A full bucket lets one guess through after a while and is empty in the end; old clients are forgotten."""
    now = [0.0]
    wrong = WrongKeys(clock=lambda: now[0])
    delays = [wrong.strike("a") for _ in range(BOUND)]
    full = wrong.rest("a")
    now[0] += RUNS_OUT
    after_one = wrong.rest("a")
    now[0] += RUNS_OUT * BOUND
    emptied = wrong.strike("a")
    for number in range(CLIENTS + 10):
        wrong.strike(str(number))

    assert delays[:FREE] == [0.0] * FREE
    assert delays == sorted(delays)
    assert max(delays) == LONGEST_DELAY
    assert 0 < full <= RUNS_OUT
    assert after_one == 0
    assert emptied == 0.0
    assert len(wrong._strikes) == CLIENTS


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.1", None, "192.0.2.1"),
        ("192.0.2.1", "198.51.100.1", "192.0.2.1"),  # nobody trusts this peer
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "203.0.113.9, 198.51.100.1", "198.51.100.1"),  # the left one the client wrote
        ("10.0.0.1", "198.51.100.1, 10.0.0.2", "198.51.100.1"),
        ("10.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
        ("10.0.0.1", "[2001:db8::1]:4711", "2001:db8::1"),
        ("10.0.0.1", "2001:db8::1", "2001:db8::1"),
        ("10.0.0.1", "198.51.100.1, unknown", "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("::ffff:192.0.2.1", None, "192.0.2.1"),
        ("::ffff:10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("nonsense", None, None),
    ],
)
def test_the_client_is_the_last_one_that_no_trusted_proxy_is(
    peer: str, forwarded: str | None, client: str | None
) -> None:
    """X-Forwarded-For is read from the right, as far as those who wrote it are trusted."""
    headers = [(b"x-forwarded-for", forwarded.encode())] if forwarded is not None else []
    request = Request({"type": "http", "client": (peer, 1), "headers": headers})

    found = client_of(request, trusted=[ip_network("10.0.0.0/8")])

    assert found == (None if client is None else ip_address(client))


def test_an_ipv6_customer_is_one_client() -> None:
    """All addresses of a /64 are counted together, IPv4 addresses alone."""
    assert neighbourhood(ip_address("2001:db8::1")) == neighbourhood(ip_address("2001:db8::ffff:1"))
    assert neighbourhood(ip_address("2001:db8:0:1::1")) != neighbourhood(ip_address("2001:db8::1"))
    assert neighbourhood(ip_address("192.0.2.1")) != neighbourhood(ip_address("192.0.2.2"))


async def test_a_key_works_from_its_networks_only(house: House) -> None:
    """From elsewhere it is 403 `network_not_allowed`, remembered or not."""
    key = await house.ledger.create_key(
        "inside",
        scopes=["messages.read"],
        senders=[],
        restrictions={"networks": ["10.0.0.0/8", "2001:db8::/32"]},
    )

    inside = [
        await ask(house, key.token, address=each) for each in ("10.1.2.3", "2001:db8::7", "::ffff:10.1.2.3")
    ]
    outside = [await ask(house, key.token, address=each) for each in ("192.0.2.1", "2001:db9::7")]

    assert {each.status_code for each in inside} == {200}
    assert {(each.status_code, each.json()["code"]) for each in outside} == {(403, "network_not_allowed")}


async def test_what_is_no_key_is_a_401(house: House) -> None:
    """Also a token of three parts, while no audience is configured; nothing of it is repeated."""
    house.client.headers.pop("Authorization")

    for shown in (
        "Basic abc",
        "Bearer",
        "Bearer " + "x" * 100_000,
        "Bearer a.b.c",
        "Bearer ..",
        "Bearer pr_live_x",
    ):
        answer = await house.client.get("/me", headers={"Authorization": shown})
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith('Bearer realm="postroom"')
        assert "xxxx" not in answer.text


async def test_two_headers_are_refused_even_where_one_is_good(house: House) -> None:
    """A proxy and Postroom might take a different one."""
    good = await house.ledger.create_key("billing", scopes=["messages.read"], senders=[])
    house.client.headers.pop("Authorization")

    answer = await house.client.get(
        "/me", headers=[("Authorization", f"Bearer {good.token}"), ("Authorization", f"Bearer {a_guess()}")]
    )

    assert answer.status_code == 401
