"""SPF records: parsed by RFC 7208's grammar, surveyed within its limits, judged for a route."""

from ipaddress import ip_address
from typing import Any

import pytest

from service.routes.kinds import Cloud
from service.routes.preflight import spf
from service.routes.preflight.lookups import DnsTrouble, Lookups
from service.routes.preflight.senders import Needed, domains_of, judge, needed_for, spf_steps
from service.routes.preflight.spf import BadSpf, Qualifier, parse, survey
from service.routes.preflight.steps import Status, Step
from service.routes.route import RouteKind
from tests.routes.builders import a_route, an_account
from tests.routes.nameserver import NameServer

MICROSOFT = "spf.protection.outlook.com"
OURS = ip_address("203.0.113.10")
SUBMISSION = Needed(include=MICROSOFT)
OWN = Needed(include=MICROSOFT, addresses=(OURS,))


class Table:
    """Answers from a table, as DNS would."""

    def __init__(self) -> None:
        self.txt: dict[str, list[str]] = {}
        self.hosts: dict[str, list[str]] = {}
        self.mx: dict[str, list[str]] = {}
        self.asked = 0

    def has(self, name: str, *records: str) -> "Table":
        self.txt[name] = list(records)
        return self

    async def texts(self, name: str) -> list[str]:
        self.asked += 1
        return self.txt.get(name, [])

    async def addresses(self, name: str) -> list[Any]:
        self.asked += 1
        return [ip_address(each) for each in self.hosts.get(name, [])]

    async def exchangers(self, name: str) -> list[str]:
        self.asked += 1
        return self.mx.get(name, [])


def a_table(record: str | None, *more: str) -> Table:
    table = Table().has(MICROSOFT, "v=spf1 ip4:40.92.0.0/15 -all")
    return table if record is None else table.has("contoso.com", record, *more)


async def judged(record: str | None, *more: str, needed: Needed = SUBMISSION) -> Step:
    return judge("contoso.com", await survey("contoso.com", a_table(record, *more)), needed)


@pytest.mark.parametrize(
    "record",
    [
        "v=spf1",
        "v=spf1 -all",
        "V=SPF1 MX A:mail.contoso.com/24//64 ~ALL",
        "v=spf1 a/24 mx//64 a:contoso.com//128 ?all",
        "v=spf1 ip4:192.0.2.0/24 ip6:2001:db8::/32 ip6:2001:db8::1 -all",
        "v=spf1  include:spf.protection.outlook.com   -all",
        "v=spf1 exists:%{ir}.%{v}._spf.%{d2} -all",
        "v=spf1 include:%{d}._spf.contoso.com redirect=_spf.%{d}",
        "v=spf1 ptr ptr:contoso.com -all exp=explain._spf.%{d}",
        "v=spf1 redirect=_spf.contoso.com x-note=whatever:%%20",
    ],
)
def test_what_the_grammar_has(record: str) -> None:
    """Every form of RFC 7208 §12, in any case and with extra spaces, is read."""
    assert parse(record).text == record


@pytest.mark.parametrize(
    ("record", "term"),
    [
        ("v=spf1 ip4:10.0.0.256 -all", "ip4:10.0.0.256"),
        ("v=spf1 ip4:203.0.113.0/33 -all", "ip4:203.0.113.0/33"),
        ("v=spf1 ip4:203.0.113.0/255.255.255.0 -all", "ip4:203.0.113.0/255.255.255.0"),
        ("v=spf1 ip6:203.0.113.10 -all", "ip6:203.0.113.10"),
        ("v=spf1 ip4:2001:db8::1 -all", "ip4:2001:db8::1"),
        ("v=spf1 ip:203.0.113.10 -all", "ip:203.0.113.10"),
        ("v=spf1 include -all", "include"),
        ("v=spf1 include: -all", "include:"),
        ("v=spf1 include:localhost -all", "include:localhost"),
        ("v=spf1 include:%{q}.contoso.com -all", "include:%{q}.contoso.com"),
        ("v=spf1 a:contoso.com/33 -all", "a:contoso.com/33"),
        ("v=spf1 a: -all", "a:"),
        ("v=spf1 all:contoso.com", "all:contoso.com"),
        ("v=spf1 ptr/24 -all", "ptr/24"),
        ("v=spf1 redirect=a.com redirect=b.com", "redirect=b.com"),
        ("v=spf1 spf.protection.outlook.com -all", "spf.protection.outlook.com"),
        ("v=spf1 include:spf.protection.outlook.com, -all", "include:spf.protection.outlook.com,"),
        ("v=spf1 −all", "−all"),  # a minus sign of a word processor
    ],
)
def test_what_breaks_the_grammar(record: str, term: str) -> None:
    """The term that breaks the record is named."""
    with pytest.raises(BadSpf) as broken:
        parse(record)

    assert broken.value.term == term


def test_only_a_whole_version_is_spf() -> None:
    """`v=spf10` and other TXT records are not SPF (RFC 7208 §4.5)."""
    assert [spf.is_spf(text) for text in ("v=spf1", "v=spf1 -all", "v=spf10 -all", "MS=ms123")] == [
        True, True, False, False,
    ]  # fmt: skip


async def test_a_record_is_evaluated_in_order() -> None:
    """The first match decides; an include matches only where it passes."""
    table = (
        Table()
        .has("contoso.com", "v=spf1 -ip4:203.0.113.99 ip4:203.0.113.0/24 include:others.com ~all")
        .has("others.com", "v=spf1 -ip4:198.51.100.1 ip4:198.51.100.0/24 -all")
    )

    found = await survey("contoso.com", table)

    assert [
        found.verdict(ip_address(each))
        for each in ("203.0.113.99", "203.0.113.1", "198.51.100.1", "198.51.100.2")
    ] == [Qualifier.FAIL, Qualifier.PASS, Qualifier.SOFTFAIL, Qualifier.PASS]


async def test_a_and_mx_are_followed() -> None:
    """Addresses behind a and mx count, with their prefix length."""
    table = Table().has("contoso.com", "v=spf1 a/24 mx -all")
    table.hosts |= {"contoso.com": ["203.0.113.1"], "mail.contoso.com": ["198.51.100.7"]}
    table.mx["contoso.com"] = ["mail.contoso.com"]

    found = await survey("contoso.com", table)

    assert found.verdict(ip_address("203.0.113.77")) is Qualifier.PASS
    assert found.verdict(ip_address("198.51.100.7")) is Qualifier.PASS
    assert found.verdict(ip_address("198.51.100.8")) is Qualifier.FAIL


async def test_lookups_are_counted_through_includes() -> None:
    """Eleven terms that ask DNS, spread over two records, are one too many."""
    table = a_table(
        f"v=spf1 {' '.join(f'a:h{n}.com' for n in range(5))} include:{MICROSOFT} include:more.com -all"
    )
    table.has("more.com", f"v=spf1 {' '.join(f'exists:e{n}.com' for n in range(4))} -all")
    table.hosts |= {f"h{n}.com": ["203.0.113.1"] for n in range(5)}
    table.hosts |= {f"e{n}.com": ["127.0.0.2"] for n in range(4)}

    found = await survey("contoso.com", table)
    step = judge("contoso.com", found, SUBMISSION)

    assert found.lookups == 11
    assert found.voids == 0
    assert step.status is Status.FAIL
    assert "11 lookups, and receivers stop after 10" in step.detail
    assert "Fewer includes" in " ".join(step.remedy)


async def test_void_lookups_are_counted() -> None:
    """Three names without an answer: receivers may stop (RFC 7208 §4.6.4)."""
    found = await survey("contoso.com", a_table("v=spf1 a:x.com a:y.com mx:z.com -all"))

    assert found.voids == 3
    assert found.errors == ("3 of its names have no answer, and receivers stop after 2",)


async def test_a_loop_is_found() -> None:
    """An include that leads back to where it came from is an error, and the survey ends."""
    table = a_table("v=spf1 include:a.com -all")
    table.has("a.com", "v=spf1 redirect=b.com").has("b.com", "v=spf1 include:a.com -all")

    found = await survey("contoso.com", table)

    assert found.errors == ("b.com leads back to a.com: a loop",)


async def test_the_work_is_bounded() -> None:
    """A tree of records that grows without end costs a bounded number of questions."""
    table = a_table("v=spf1 include:n1.com include:n2.com -all")
    for n in range(1, 5000):
        table.has(f"n{n}.com", f"v=spf1 include:n{2 * n}.com include:n{2 * n + 1}.com -all")

    found = await survey("contoso.com", table)

    assert table.asked <= 60
    assert found.unfinished
    assert any("lookups" in error for error in found.errors)


async def test_an_include_without_a_record_is_an_error() -> None:
    """RFC 7208 §5.2: an included domain without SPF is a permanent error."""
    found = await survey("contoso.com", a_table("v=spf1 include:gone.com -all"))

    assert found.errors == ("contoso.com leads to gone.com, which has no SPF record",)


@pytest.mark.parametrize(
    ("record", "needed"),
    [
        (f"v=spf1 include:{MICROSOFT} -all", SUBMISSION),
        (f"v=spf1 include:{MICROSOFT} ~all", SUBMISSION),
        (f"v=spf1 include:{MICROSOFT.upper()} ~all", SUBMISSION),
        (f"v=spf1 redirect={MICROSOFT}", SUBMISSION),
        (f"v=spf1 ip4:203.0.113.10 include:{MICROSOFT} ~all", OWN),
        (f"v=spf1 ip4:203.0.113.8/29 include:{MICROSOFT} ~all", OWN),
        ("v=spf1 ip4:198.51.100.1 -all", Needed()),  # a smarthost: the record only has to be sound
    ],
)
async def test_what_is_right(record: str, needed: Needed) -> None:
    """A record with the senders of the route is well, and its end is noted."""
    step = await judged(record, needed=needed)

    assert step.status is Status.OK, step.detail
    assert record in step.detail
    assert not step.remedy


async def test_nothing_is_invented_for_a_service_whose_record_is_not_known() -> None:
    """A smarthost's or Azure's record is theirs to say: no record of ours is proposed."""
    step = await judged(None, needed=Needed())

    assert step.status is Status.WARN
    assert "v=spf1" not in " ".join(step.remedy)
    assert step.remedy


async def test_an_include_below_an_include_counts() -> None:
    """The cloud's name may stand in a record of one's own that is included."""
    table = a_table("v=spf1 include:_spf.contoso.com -all").has(
        "_spf.contoso.com", f"v=spf1 ip4:203.0.113.10 include:{MICROSOFT} -all"
    )

    step = judge("contoso.com", await survey("contoso.com", table), OWN)

    assert step.status is Status.OK


@pytest.mark.parametrize(
    ("records", "needed", "status", "words", "proposed"),
    [
        ((), SUBMISSION, "fail", "There is no SPF record", f"v=spf1 include:{MICROSOFT} ~all"),
        ((), OWN, "fail", "There is no SPF record", f"v=spf1 ip4:203.0.113.10 include:{MICROSOFT} ~all"),
        (("v=spf1 mx -all",), SUBMISSION, "fail", f"include:{MICROSOFT} is missing",
         f"v=spf1 mx include:{MICROSOFT} -all"),
        ((f"v=spf1 -include:{MICROSOFT} ~all",), SUBMISSION, "fail", "is missing",
         f"v=spf1 include:{MICROSOFT} ~all"),
        ((f"v=spf1 -all include:{MICROSOFT}",), SUBMISSION, "fail", "is missing",
         f"v=spf1 include:{MICROSOFT} -all"),
        ((f"v=spf1 include:{MICROSOFT} ~all",), OWN, "fail", "Our address 203.0.113.10 may not send",
         f"v=spf1 ip4:203.0.113.10 include:{MICROSOFT} ~all"),
        # The guide's own example: a private address.
        ((f"v=spf1 ip4:10.5.3.2 include:{MICROSOFT} ~all",), SUBMISSION, "fail",
         "ip4:10.5.3.2 is not a public address", f"v=spf1 include:{MICROSOFT} ~all"),
        ((f"v=spf1 ip6:fe80::1 include:{MICROSOFT} ~all",), SUBMISSION, "fail",
         "ip6:fe80::1 is not a public address", f"v=spf1 include:{MICROSOFT} ~all"),
        ((f"v=spf1 include:{MICROSOFT} +all",), SUBMISSION, "warn", "lets everybody send",
         f"v=spf1 include:{MICROSOFT} ~all"),
        ((f"v=spf1 include:{MICROSOFT} ?all",), SUBMISSION, "warn", "says nothing about strangers",
         f"v=spf1 include:{MICROSOFT} ~all"),
        ((f"v=spf1 include:{MICROSOFT}",), SUBMISSION, "warn", "It has no end",
         f"v=spf1 include:{MICROSOFT} ~all"),
        ((f"v=spf1 ptr include:{MICROSOFT} -all",), SUBMISSION, "warn", "It uses ptr",
         f"v=spf1 include:{MICROSOFT} -all"),
        ((f"v=spf1 include:{MICROSOFT} -all", "v=spf1 mx -all"), SUBMISSION, "fail",
         "has 2 SPF records, and may have one", None),
        ((f"v=spf1 include:{MICROSOFT} ip4:1.2.3 -all",), SUBMISSION, "fail",
         "cannot be read at `ip4:1.2.3`", None),
    ],
)  # fmt: skip
async def test_what_is_wrong(
    records: tuple[str, ...], needed: Needed, status: str, words: str, proposed: str | None
) -> None:
    """Each fault is said in words, and the corrected record is the remedy."""
    step = await judged(records[0] if records else None, *records[1:], needed=needed)

    assert step.status == status
    assert words in step.detail
    assert step.remedy
    if proposed is not None:
        assert step.facts["proposed"] == proposed
        assert f'"{proposed}"' in " ".join(step.remedy)


async def test_the_proposal_is_sound_itself() -> None:
    """What is proposed for a record with every fault is judged well."""
    step = await judged("v=spf1 ip4:10.5.3.2 ptr ip4:192.168.0.1 +all", needed=OWN)

    again = await judged(str(step.facts["proposed"]), needed=OWN)

    assert again.status is Status.OK, again.detail


async def test_dns_without_an_answer_is_a_warning() -> None:
    """Where nobody answers, nothing is said about the record."""
    async with NameServer() as dns:
        dns.trouble = "SERVFAIL"
        (step,) = await spf_steps(["contoso.com"], SUBMISSION, Lookups(dns.resolver(timeout=1.0)))

    assert step.status is Status.WARN
    assert "could not be looked up" in step.detail


async def test_records_come_from_dns() -> None:
    """Over a real socket: pieces of a record are joined, names without records are void."""
    async with NameServer() as dns:
        dns.has("contoso.com", "TXT", '"v=spf1 include:spf.protection" ".outlook.com -all"', '"MS=ms1"')
        dns.has(MICROSOFT, "TXT", '"v=spf1 ip4:40.92.0.0/15 -all"')
        dns.has("contoso.com", "MX", "20 b.contoso.com.", "10 a.contoso.com.")
        dns.has("a.contoso.com", "A", "203.0.113.1")
        dns.has("a.contoso.com", "AAAA", "2001:db8::1")
        lookups = Lookups(dns.resolver())

        (step,) = await spf_steps(["contoso.com"], SUBMISSION, lookups)

        assert step.status is Status.OK, step.detail
        assert await lookups.exchangers("contoso.com") == ["a.contoso.com", "b.contoso.com"]
        assert await lookups.addresses("a.contoso.com") == [
            ip_address("203.0.113.1"),
            ip_address("2001:db8::1"),
        ]
        assert await lookups.texts("nothing.contoso.com") == []
        assert await lookups.texts(f"{'x' * 64}.contoso.com") == []
        dns.trouble = "REFUSED"
        with pytest.raises(DnsTrouble):
            await lookups.texts("contoso.com")


def test_what_a_route_needs() -> None:
    """Client submission needs the cloud's name, direct send our addresses as well, HVE nothing."""
    ips = (OURS,)

    def needed(kind: RouteKind, cloud: Cloud = Cloud.WORLDWIDE) -> Needed | None:
        return needed_for(a_route(kind=kind), cloud=cloud, static_ips=ips)

    assert needed(RouteKind.CLIENT_SUBMISSION) == SUBMISSION
    assert needed(RouteKind.DIRECT_SEND) == OWN
    assert needed(RouteKind.SMTP_RELAY) == OWN
    assert needed(RouteKind.SMARTHOST) == Needed()
    assert needed(RouteKind.HIGH_VOLUME_EMAIL) is None
    china = needed(RouteKind.CLIENT_SUBMISSION, Cloud.CHINA)
    assert china is not None
    assert china.include == "spf.protection.partner.outlook.cn"
    government = needed(RouteKind.CLIENT_SUBMISSION, Cloud.GCC_HIGH)
    assert government is not None
    assert government.unverified


def test_which_domains_a_route_sends_for() -> None:
    """The mailboxes' and their Send As domains, once each, and none that Microsoft writes itself."""
    account = an_account(send_as=("billing@contoso.com", "info@fabrikam.com"))
    managed = an_account("x@contoso.onmicrosoft.com")

    assert domains_of(a_route(accounts=(account, managed)), ()) == ["contoso.com", "fabrikam.com"]
    assert domains_of(a_route(kind=RouteKind.SMTP_RELAY), ("contoso.com",)) == ["contoso.com"]
