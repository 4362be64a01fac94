"""MX records: who takes a domain's mail, how long that holds, and what is refused."""

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from service.routes.internet import is_public
from service.routes.mx import LONGEST, REST, SHORTEST, STALE, MxFinder, Resolver, first_reached
from service.routes.route import Route, RouteKind
from service.smtp.faults import CannotConnect, CannotResolve, SmtpFault
from service.smtp.peer import Peer, TlsMode
from service.smtp.session import Session, open_session
from tests.peer import ScriptedPeer
from tests.routes.builders import a_route
from tests.routes.nameserver import Mood, NameServer
from tests.waiting import eventually

MAIL = "contoso-com.a-v1.mx.microsoft"
PUBLIC = "52.101.73.2"


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def dns() -> AsyncIterator[NameServer]:
    async with NameServer() as server:
        server.has("contoso.com", "MX", f"10 {MAIL}.")
        server.has(MAIL, "A", PUBLIC)
        yield server


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def finder(dns: NameServer, clock: Clock) -> MxFinder:
    return MxFinder(dns.resolver(), clock=clock)


def an_mx_route(**changes: object) -> Route:
    route = a_route("direct", RouteKind.DIRECT_SEND, mx_of="contoso.com")
    peer = replace(route.peer, address_family="ipv4")
    return replace(route, peer=peer, **changes)  # type: ignore[arg-type]  # the tests name fields of a route


async def refusal(finder: MxFinder, domain: str = "contoso.com") -> CannotResolve:
    with pytest.raises(CannotResolve) as refused:
        await finder.find(domain)
    return refused.value


# --- what is found


async def test_hosts_by_preference(dns: NameServer, finder: MxFinder) -> None:
    """The hosts come in the order of their preference, with both families of addresses."""
    dns.has("contoso.com", "MX", "20 second.example.", f"10 {MAIL}.", "30 third.example.")
    dns.has("second.example", "A", "52.101.73.3")
    dns.has("third.example", "A", "52.101.73.4")
    dns.has(MAIL, "AAAA", "2a01:111:f403::1")

    answer = await finder.find("contoso.com")

    assert [(host.name, host.preference) for host in answer.hosts] == [
        (MAIL, 10),
        ("second.example", 20),
        ("third.example", 30),
    ]
    assert set(answer.hosts[0].addresses) == {PUBLIC, "2a01:111:f403::1"}
    assert (answer.ttl, answer.stale_because) == (300, None)


async def test_only_ipv4_is_asked_for_where_only_that_is_used(dns: NameServer, finder: MxFinder) -> None:
    """A route that goes over IPv4 does not look for other addresses."""
    await finder.find("contoso.com", ipv4_only=True)

    assert [(name, rdtype) for name, rdtype, _ in dns.asked] == [("contoso.com", "MX"), (MAIL, "A")]


async def test_aliases_are_followed(dns: NameServer, finder: MxFinder, clock: Clock) -> None:
    """A chain of aliases leads to the records, and the shortest life in it holds for all."""
    dns.has("alias.example", "CNAME", "further.example.", ttl=60)
    dns.has("further.example", "CNAME", "contoso.com.", ttl=900)
    dns.has("contoso.com", "MX", "10 mail.example.", ttl=600)
    dns.has("mail.example", "CNAME", f"{MAIL}.")

    answer = await finder.find("alias.example")

    assert (answer.hosts[0].name, answer.hosts[0].addresses, answer.ttl) == ("mail.example", (PUBLIC,), 60)


async def test_a_truncated_answer_is_asked_for_over_tcp(dns: NameServer, finder: MxFinder) -> None:
    """What does not fit a datagram comes over TCP."""
    dns.truncates = True

    answer = await finder.find("contoso.com", ipv4_only=True)

    assert answer.hosts[0].addresses == (PUBLIC,)
    assert [way for name, rdtype, way in dns.asked if rdtype == "MX"] == ["udp", "tcp"]


async def test_one_question_for_many_who_ask(dns: NameServer, finder: MxFinder) -> None:
    """Fifty who wait for the same answer cause one question, and one who gives up spoils nothing."""
    dns.hold = asyncio.Event()
    waiting = [asyncio.create_task(finder.find("contoso.com", names_only=True)) for _ in range(50)]
    await eventually(lambda: bool(dns.asked))
    waiting[0].cancel()
    dns.hold.set()

    answers = await asyncio.gather(*waiting[1:])

    assert {answer.hosts[0].name for answer in answers} == {MAIL}
    assert dns.asked == [("contoso.com", "MX", "udp")]


# --- how long it holds


@pytest.mark.parametrize(("ttl", "holds"), [(300, 300.0), (1, SHORTEST), (7 * 86400, LONGEST)])
async def test_an_answer_holds_for_its_ttl(
    dns: NameServer, finder: MxFinder, clock: Clock, ttl: int, holds: float
) -> None:
    """An answer is believed as long as it says, within bounds; then the new one counts."""
    dns.has("contoso.com", "MX", "10 old.example.", ttl=ttl)
    assert (await finder.find("contoso.com", names_only=True)).hosts[0].name == "old.example"
    dns.has("contoso.com", "MX", "10 new.example.", ttl=ttl)

    clock.now += holds - 1
    assert (await finder.find("contoso.com", names_only=True)).hosts[0].name == "old.example"
    clock.now += 1
    assert (await finder.find("contoso.com", names_only=True)).hosts[0].name == "new.example"
    assert len(dns.asked) == 2


@pytest.mark.parametrize(("mood", "code"), [("SERVFAIL", "resolver_failed"), ("REFUSED", "resolver_failed")])
async def test_an_old_answer_stands_in(
    dns: NameServer, finder: MxFinder, clock: Clock, mood: Mood, code: str
) -> None:
    """While the DNS is out of order the old answer is used, and says so; after a day it is too old."""
    fresh = await finder.find("contoso.com", ipv4_only=True)
    dns.trouble = mood

    clock.now += LONGEST
    old = await finder.find("contoso.com", ipv4_only=True)
    assert old.hosts == fresh.hosts
    assert old.found_at == fresh.found_at
    assert old.stale_because is not None
    assert mood in old.stale_because

    clock.now += STALE - LONGEST
    assert (await refusal(finder)).code == code

    dns.trouble = None
    clock.now += REST
    assert (await finder.find("contoso.com", ipv4_only=True)).stale_because is None


async def test_a_sick_dns_is_not_asked_without_end(dns: NameServer, finder: MxFinder, clock: Clock) -> None:
    """After a question without an answer there is a rest, in which all get the same fault."""
    dns.trouble = "SERVFAIL"
    await refusal(finder)
    asked = len(dns.asked)

    await refusal(finder)
    assert len(dns.asked) == asked

    clock.now += REST
    await refusal(finder)
    assert len(dns.asked) > asked


async def test_a_definite_no_is_no_trouble(dns: NameServer, finder: MxFinder, clock: Clock) -> None:
    """A domain that has lost its MX record is not helped by an old answer."""
    await finder.find("contoso.com")
    dns.loses("contoso.com", "MX")
    clock.now += LONGEST

    assert (await refusal(finder)).code == "mx_missing"


# --- what is refused


async def test_a_domain_that_does_not_exist(finder: MxFinder) -> None:
    """NXDOMAIN is said as such."""
    refused = await refusal(finder, "nowhere.example")

    assert (refused.code, refused.phase.word) == ("mx_missing", "connect")
    assert "nowhere.example does not exist" in refused.detail


async def test_no_mx_record_is_not_replaced_by_an_address(dns: NameServer, finder: MxFinder) -> None:
    """A domain with an address and no MX record has no host for us."""
    dns.has("bare.example", "A", PUBLIC)

    refused = await refusal(finder, "bare.example")

    assert (refused.code, "has no MX record" in refused.detail) == ("mx_missing", True)
    assert ("bare.example", "A", "udp") not in dns.asked


async def test_a_null_mx(dns: NameServer, finder: MxFinder) -> None:
    """RFC 7505: the domain says that it takes no mail."""
    dns.has("contoso.com", "MX", "0 .")

    assert (await refusal(finder)).code == "mx_null"


@pytest.mark.parametrize("target", ["52.101.73.2.", "_x\\032y.example.", "mail.1."])
async def test_an_mx_record_that_names_no_host(dns: NameServer, finder: MxFinder, target: str) -> None:
    """An address in place of a name, or a name that no host can have, is not dialled."""
    dns.has("contoso.com", "MX", f"10 {target}")

    assert (await refusal(finder)).code == "mx_missing"


@pytest.mark.parametrize(
    "address",
    ["10.0.0.1", "127.0.0.1", "169.254.169.254", "192.168.1.1", "0.0.0.0", "192.0.2.1", "224.0.0.1"],
)
async def test_private_addresses_are_refused(dns: NameServer, finder: MxFinder, address: str) -> None:
    """A poisoned or split DNS must not lead into our own network; who wants that says so."""
    dns.has(MAIL, "A", address)

    refused = await refusal(finder)

    assert refused.code == "mx_private"
    assert address in refused.detail
    allowed = await finder.find("contoso.com", allow_private=True)
    assert allowed.hosts[0].addresses == (address,)
    assert (await finder.find("contoso.com", names_only=True)).hosts[0].name == MAIL


async def test_a_private_address_beside_a_public_one_is_left_out(dns: NameServer, finder: MxFinder) -> None:
    """The public addresses of a host are used, the others told."""
    dns.has(MAIL, "A", "10.0.0.1", PUBLIC)
    dns.has(MAIL, "AAAA", "::1")

    [host] = (await finder.find("contoso.com")).hosts

    assert (host.addresses, set(host.refused)) == ((PUBLIC,), {"10.0.0.1", "::1"})


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("52.101.73.2", True),
        ("2a01:111:f403::1", True),
        ("::ffff:52.101.73.2", True),
        ("::ffff:127.0.0.1", False),
        ("2002:7f00:1::", False),
        ("64:ff9b::a00:1", False),
        ("fd00::1", False),
        ("fe80::1", False),
        ("::", False),
        ("100.64.0.1", False),
        ("255.255.255.255", False),
        ("ff0e::1", False),
    ],
)
def test_what_is_public(address: str, public: bool) -> None:
    """Wrapped into IPv6, an address is still what it is."""
    assert is_public(address) is public


async def test_a_host_without_an_address_is_passed_over(dns: NameServer, finder: MxFinder) -> None:
    """Of two hosts the one that has an address is left; without any the name is at fault."""
    dns.has("contoso.com", "MX", "5 ghost.example.", f"10 {MAIL}.")
    assert [host.name for host in (await finder.find("contoso.com")).hosts] == [MAIL]

    dns.loses(MAIL, "A")
    dns.has("other.example", "MX", "5 ghost.example.")
    assert (await refusal(finder, "other.example")).code == "name_not_found"


async def test_silence(dns: NameServer) -> None:
    """A name server that says nothing is given up after its time."""
    dns.trouble = "silent"

    refused = await refusal(MxFinder(dns.resolver(timeout=0.3)))

    assert (refused.code, refused.detail) == (
        "resolve_timeout",
        "The MX record of contoso.com was not told within 0.3 s.",
    )


async def test_nobody_at_home() -> None:
    """A name server that is not there is trouble that may pass."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]

    refused = await refusal(MxFinder(Resolver(nameservers=(("127.0.0.1", port),), timeout=0.5)))

    assert refused.code in {"resolver_failed", "resolve_timeout"}


# --- where a session goes


async def test_a_route_with_a_host_of_its_own_asks_nobody(dns: NameServer, finder: MxFinder) -> None:
    """Only mx_of makes a question."""
    route = a_route("house", RouteKind.SMARTHOST)

    assert await finder.peers(route) == (route.peer,)
    assert dns.asked == []


async def test_the_peers_of_an_mx_route(dns: NameServer, finder: MxFinder) -> None:
    """Each host becomes an endpoint with its own name, which TLS and the ledger see, and its addresses."""
    dns.has("contoso.com", "MX", f"10 {MAIL}.", "20 second.example.")
    dns.has("second.example", "A", "52.101.73.3")

    peers = await finder.peers(an_mx_route())

    assert [(peer.host, peer.addresses) for peer in peers] == [
        (MAIL, (PUBLIC,)),
        ("second.example", ("52.101.73.3",)),
    ]


async def test_hosts_of_equal_preference_take_turns(dns: NameServer, finder: MxFinder) -> None:
    """RFC 5321 asks for a random order among equals, so that the load spreads."""
    dns.has("contoso.com", "MX", *(f"10 m{n}.example." for n in range(3)), "20 last.example.")
    route = an_mx_route()
    route = replace(route, peer=replace(route.peer, connect_to=("127.0.0.1", 25)))

    orders = {tuple(peer.host for peer in await finder.peers(route)) for _ in range(200)}

    assert len(orders) > 1
    assert {order[-1] for order in orders} == {"last.example"}


async def opened_at(peer: Peer) -> Session:
    return await open_session(peer, None, session_id="ses_1")


async def test_the_address_that_was_looked_at_is_dialled(dns: NameServer, finder: MxFinder) -> None:
    """The session goes to the address out of the DNS answer, under the name of the MX host."""
    dns.has(MAIL, "A", "127.0.0.1")
    async with ScriptedPeer() as peer:
        _, port = peer.as_peer().connect_to or ("", 0)
        route = an_mx_route(allow_private=True)
        route = replace(route, peer=replace(peer.as_peer(tls=TlsMode.NONE), connect_to=None, port=port))

        session = await first_reached(await finder.peers(route), opened_at)

        assert (session.facts.host, session.facts.peer_address) == (MAIL, f"127.0.0.1:{port}")
        await session.close()


async def test_the_next_host_is_tried(dns: NameServer, finder: MxFinder) -> None:
    """A host that takes no connection is passed over for the next one."""
    dns.has("contoso.com", "MX", "10 dead.example.", "20 alive.example.")
    dns.has("dead.example", "A", "127.0.0.2")
    dns.has("alive.example", "A", "127.0.0.1")
    async with ScriptedPeer() as peer:  # listens on 127.0.0.1 only
        _, port = peer.as_peer().connect_to or ("", 0)
        route = an_mx_route(allow_private=True)
        route = replace(route, peer=replace(peer.as_peer(tls=TlsMode.NONE), connect_to=None, port=port))

        session = await first_reached(await finder.peers(route), opened_at)

        assert session.facts.host == "alive.example"
        await session.close()


async def test_where_no_host_is_reached_the_last_ones_fault_is_told() -> None:
    """All are tried in their order, and the last fault is raised."""
    tried: list[str] = []
    some = [replace(a_route("r", RouteKind.SMARTHOST).peer, host=name) for name in ("a", "b", "c")]

    async def unreachable(peer: Peer) -> None:
        tried.append(peer.host)
        dead = replace(peer, connect_to=("127.0.0.1", _closed_port()))
        await open_session(dead, None, session_id="ses_1")

    with pytest.raises(CannotConnect):
        await first_reached(some, unreachable)
    assert tried == ["a", "b", "c"]


async def test_a_host_that_answers_has_the_word() -> None:
    """A refusal in the dialogue is the domain's answer: another host is not asked for a better one."""
    async with ScriptedPeer() as peer:
        peer.on("greeting", reply="554 5.3.2 No", then="close")
        tried = [peer.as_peer(tls=TlsMode.NONE)] * 2

        with pytest.raises(SmtpFault) as refused:
            await first_reached(tried, opened_at)

        assert (refused.value.code, peer.sessions) == ("greeting_refused", 1)


def _closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
