"""The token service is down, slow, throttles or refuses; the DNS fails: one lane waits and says why, the others do not.

Before each fault the lane's sessions are ended and its token is over, so that nothing goes without a new one.
Another lane is busy all the time: its way from POST to 250 is measured before and during each fault.
"""

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from tests.chaos.infrastructure import (
    Act,
    all_sent,
    at_once,
    delays,
    knock,
    letters,
    moved,
    states,
    submit,
)
from tests.chaos.proxy import HOST, Proxy
from tests.chaos.records import count
from tests.chaos.registry import Run, scenario
from tests.chaos.world import World, a_world
from tests.house import smarthost
from tests.journeys.test_mx_routes import MAIL, asking, direct_send
from tests.peer import ScriptedPeer
from tests.routes.builders import SECRET
from tests.routes.entra import TENANT, Answer, FakeEntra
from tests.routes.nameserver import Mood, NameServer

MAILBOX = "noreply@contoso.com"
HOST_NAME = "smtp.office365.com"

#: Letters of the lane in trouble, and for how long the other one is looked at.
WAITING, SECONDS = 10, 8.0

#: Seconds until what waited is sent when the fault is over. A refusal is not asked for again within 30 s.
HEALED_WITHIN = 45.0


class _AnyToken(str):
    """What the peer takes for the password: any token of the service."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return str(other).startswith("token-")


class Lanes:
    """A lane in trouble, and one beside it."""

    def __init__(self, run: Run, world: World, *, sick: ScriptedPeer, well: ScriptedPeer, route: str) -> None:
        self.run, self.world, self.sick, self.well, self.route = run, world, sick, well, route
        self.before: list[float] = []
        self._number = 0

    async def measure(self) -> None:
        """Look at the other lane while all is well."""
        self.before = await self._beside("before")

    async def _beside(self, prefix: str) -> list[float]:
        sent, answers = await knock(self.world, prefix, seconds=SECONDS, every=0.1, route="well")
        await asyncio.gather(*answers)
        await all_sent(self.world, [each.key for each in sent], within=30.0)
        return delays(self.world, self.well, [each.key for each in sent])

    async def during(
        self, done: str, *, harm: Act, mend: Act, says: Sequence[str], goes: bool = False, rest: float = 2.5
    ) -> None:
        """Let a fault happen; `says` are the codes one of which the waiting messages must show."""
        self._number += 1
        prefix = f"{self.route}{self._number}"
        await harm()
        await self.sick.hang_up()
        await asyncio.sleep(rest)
        waiting = await submit(self.world, letters(f"{prefix}-sick", WAITING, route=self.route))
        keys = [each.key for each in waiting]
        during = await self._beside(f"{prefix}-well")
        found = await states(self.world, keys)
        codes = await self._codes(keys)
        resting = await self._resting()
        await mend()
        mended = time.monotonic()
        await all_sent(self.world, keys, within=180.0)
        healed = time.monotonic() - mended
        figures, wrong = moved(self.before, during, expected=len(during))
        if goes and found != {"sent": WAITING}:
            wrong.append(f"what goes slowly has not gone: {found}")
        if not goes and set(found) - {"queued", "deferred", "sending"}:
            wrong.append(f"{found} while there was no way")
        if not goes and not set(codes) & set(says):
            wrong.append(f"the waiting messages say {codes or 'nothing'}, and not one of {says}")
        if not goes and not resting:
            wrong.append("GET /lanes says that the lane is well")
        if healed > HEALED_WITHIN:
            wrong.append(f"sent only {healed:.0f} s after the fault was over")
        account = await count(self.world, [self.sick, self.well], keys=keys)
        self.run.row(
            done,
            figures=f"the other lane: {figures}. {WAITING} waited: {dict(found)}, {', '.join(codes) or 'no error'},"
            f" {resting or 'well'}; sent {healed:.1f} s after the fault. {account.figures()}",
            promise="1, 2, 7, 11",
            wrong=wrong + account.wrong,
        )

    async def _codes(self, keys: Sequence[str]) -> list[str]:
        rows = await self.world.query(
            "SELECT DISTINCT a.error ->> 'code' AS code FROM attempts a JOIN messages m ON m.id = a.message_id"
            " WHERE m.idempotency_key = ANY($1) AND a.error IS NOT NULL",
            list(keys),
        )
        return [row["code"] for row in rows]

    async def _resting(self) -> str:
        _, found = await self.world.clients.get("/lanes")
        lanes: list[dict[str, Any]] = [each for each in found["data"] if each["route"] == self.route]
        # While its one probe is under way, it does not rest.
        return "; ".join(
            f"{each['state']} after {each['troubles']} troubles"
            for each in lanes
            if each["resting"] or each["troubles"]
        )


@scenario("token service: down, slow, throttling, refusing")
async def tokens(run: Run) -> None:
    """No token is to be had: its lane waits and says why, the other lane does not notice, and it heals by itself."""
    run.folder.mkdir(parents=True, exist_ok=True)
    names = [f"tokens{fault}-sick-{n}@contoso.com" for fault in range(1, 10) for n in range(WAITING)]
    async with (
        FakeEntra(run.folder) as entra,
        Proxy(HOST, entra.port) as proxy,
        ScriptedPeer(tls=True, logins={MAILBOX: _AnyToken("token")}, certificate_names=[HOST_NAME]) as sick,
        ScriptedPeer() as well,
    ):
        entra.port = proxy.port  # the discovery names the way past the proxy otherwise
        entra.lifetime = 2
        login = {"method": "oauth", "client_id": TENANT, "client_secret": SECRET}
        submission = {
            "name": "tokens",
            "kind": "client_submission",
            "connect_to": f"127.0.0.1:{sick.port}",
            "ca_file": str(sick.ca_file),
            "ehlo_name": "postroom.contoso.com",
            "mailboxes": [{"address": MAILBOX, "login": login, "send_as": names}],
            "limits": {"messages_per_minute": 1000},
        }
        settings = {
            "tenant_id": TENANT,
            "authority": entra.authority,
            "ca_file": str(entra.ca_file),
            "timeout": "4s",
        }
        routes = [submission, smarthost(well, name="well", limits={"connections": 4})]
        async with a_world(run.folder, routes=routes, entra=settings) as world:
            lanes = Lanes(run, world, sick=sick, well=well, route="tokens")
            await lanes.measure()
            await lanes.during(
                "down (refused)", harm=proxy.refuse, mend=proxy.behave, says=["token_unavailable"]
            )
            await lanes.during(
                "a black hole", harm=at_once(proxy.black_hole), mend=proxy.behave, says=["token_unavailable"]
            )
            await lanes.during(
                "its answers come half a second late each",
                harm=at_once(lambda: proxy.slow(0.5)),
                mend=proxy.behave,
                says=[],
                goes=True,
            )
            for done, answer, says in (
                (
                    "429 with Retry-After: 3",
                    Answer(status=429, headers={"Retry-After": "3"}, body={"error": "throttled"}),
                    "token_unavailable",
                ),
                (
                    "the secret has expired (AADSTS7000222)",
                    Answer(
                        status=401,
                        body={
                            "error": "invalid_client",
                            "error_description": "AADSTS7000222: The provided client secret keys are expired.",
                            "error_codes": [7000222],
                        },
                    ),
                    "token_refused",
                ),
            ):
                await lanes.during(
                    done,
                    harm=at_once(partial(entra.answers.extend, [answer] * 1000)),
                    mend=at_once(entra.answers.clear),
                    says=[says],
                )


@scenario("DNS: fails for one route")
async def names(run: Run) -> None:
    """The MX record of one route is not to be had: its messages wait and say why, the other lane does not notice."""
    async with NameServer() as dns, ScriptedPeer() as sick, ScriptedPeer() as well:
        domains = ("contoso.com", "example.com")
        routes = [direct_send(sick, name=domain.replace(".", "-"), mx_of=domain) for domain in domains]
        routes.append(smarthost(well, name="well", limits={"connections": 4}))
        async with a_world(
            run.folder,
            routes=routes,
            organization={"accepted_domains": list(domains)},
            route_order=["well"],
            **asking(dns),
        ) as world:
            inside, outside = (
                Lanes(run, world, sick=sick, well=well, route=domain.replace(".", "-")) for domain in domains
            )
            await inside.measure()
            outside.before = inside.before

            def mood(word: Mood | None) -> Act:
                async def change() -> None:
                    dns.trouble = word
                    for domain in domains:
                        dns.has(domain, "MX", f"10 {MAIL}.", ttl=1)

                return change

            await inside.during(
                "SERVFAIL, never known", harm=mood("SERVFAIL"), mend=mood(None), says=["unreachable"]
            )
            await outside.during(
                "silence, never known", harm=mood("silent"), mend=mood(None), says=["unreachable"]
            )
            await inside.during(
                "silence, what was known is used on", harm=mood("silent"), mend=mood(None), says=[], goes=True
            )
