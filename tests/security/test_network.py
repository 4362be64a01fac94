"""Addresses inside the network, in every disguise: neither a webhook nor an MX record leads there."""

import re

import pytest

from service.routes.internet import is_public
from service.routes.mx import MxFinder, Resolver
from service.routes.targets import Target, TargetRefused, TargetRules, Targets
from service.smtp.faults import CannotResolve
from tests.routes.nameserver import NameServer

#: Closed unless the configuration opens it, as addresses; each is in a range of its own.
INSIDE = (
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254", "172.16.0.1",
    "172.31.255.255", "192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.0.1", "198.18.0.1", "198.51.100.1", "203.0.113.1",
    "224.0.0.1", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:0:127.0.0.1", "64:ff9b::127.0.0.1",
    "64:ff9b::a9fe:a9fe", "64:ff9b:1::a00:1", "100::1", "2001::1", "2001:db8::1", "2001:10::1", "2002:7f00:1::",
    "2002:a9fe:a9fe::1", "3fff::1", "4000::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1",
)  # fmt: skip

OUTSIDE = ("52.101.73.2", "8.8.8.8", "2a01:111:f403::1", "::ffff:52.101.73.2", "64:ff9b::3465:4902")

#: How programs that resolve names by themselves write 127.0.0.1, ::1 and the like; none of it is an address here.
DISGUISED = (
    "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "127.0.1", "0", "00000177.1", "127.0.0.1.", "127。0。0。1",
    "①②⑦.⓪.⓪.①", "%31%32%37.0.0.1", "[::1%25lo]", "[::1%lo]", "[0:0:0:0:0:0:0:1", "[::ffff:127.0.0.1.]", "localhost%00.example.com",
    "localhost\\@example.com", "example.com@127.0.0.1", "127.0.0.1\t.example.com", "127.0.0.1#example.com",
    "127.0.0.1?.example.com#", "example.com:443@127.0.0.1:80", "[127.0.0.1]", "127.0.0.1:99999", "localhost:80:80", " 127.0.0.1",
)  # fmt: skip


@pytest.mark.parametrize("address", INSIDE)
def test_an_address_inside_is_not_the_internets(address: str) -> None:
    """For MX hosts and webhooks alike, also as an address of a URL."""
    literal = f"[{address}]" if ":" in address else address

    assert not is_public(address)
    with pytest.raises(TargetRefused):
        Target.parse(f"https://{literal}/", TargetRules())


@pytest.mark.parametrize("address", OUTSIDE)
def test_an_address_outside_is(address: str) -> None:
    """The rules would otherwise be none."""
    literal = f"[{address}]" if ":" in address else address

    assert is_public(address)
    assert Target.parse(f"https://{literal}/", TargetRules()).literal is not None


@pytest.mark.parametrize("host", DISGUISED)
@pytest.mark.parametrize(
    "rules", [TargetRules(), TargetRules(allow_private=True, allow_http=True)], ids=["open", "inside"]
)
def test_no_disguise_is_an_address(host: str, rules: TargetRules) -> None:
    """What another parser might read as an address inside is refused before anybody resolves it."""
    for scheme in ("https", "http"):
        try:
            target = Target.parse(f"{scheme}://{host}/", rules)
        except TargetRefused:
            continue
        # What is left is an address in its usual form, which the rules allow by name.
        assert rules.allow_private
        assert re.fullmatch(r"127\.0\.0\.1", target.host)


@pytest.mark.parametrize(
    "scheme", ["file", "gopher", "ftp", "dict", "ldap", "unix", "https+unix", "javascript", "data", "//", ""]
)
def test_a_webhook_is_https(scheme: str) -> None:
    """Nothing but the web is called, whatever is allowed inside."""
    with pytest.raises(TargetRefused):
        Target.parse(f"{scheme}://example.com/", TargetRules(allow_private=True, allow_http=True))


async def test_a_name_that_leads_inside_is_closed_however_many_addresses_it_has() -> None:
    """A webhook's name with one address inside among public ones is refused; an MX host's address inside is left out."""
    async with NameServer() as dns:
        resolver = Resolver(nameservers=(("127.0.0.1", dns.port),), timeout=2.0)
        for number, inside in enumerate(INSIDE):
            name, kind = f"host{number}.example.com", "AAAA" if ":" in inside else "A"
            dns.has(name, "A", "52.101.73.2")
            dns.has(name, kind, *(["52.101.73.2"] if kind == "A" else []), inside)
            dns.has(f"only{number}.example.com", "MX", f"10 in{number}.example.com.")
            dns.has(f"in{number}.example.com", kind, inside)

        for number, inside in enumerate(INSIDE):
            with pytest.raises(TargetRefused, match="address_not_allowed"):
                await Targets(TargetRules(), resolver).addresses(f"https://host{number}.example.com/")
            with pytest.raises(CannotResolve) as refused:
                await MxFinder(resolver).find(f"only{number}.example.com")
            assert refused.value.code == "mx_private", inside
