"""Where webhooks may lead: which addresses are read, and which networks are open."""

from ipaddress import ip_network

import pytest

from service.routes.mx import Resolver
from service.routes.targets import Target, TargetRefused, TargetRules, Targets
from tests.routes.nameserver import NameServer

STRICT = TargetRules()
INSIDE = TargetRules(allow_private=True)
LISTED = TargetRules(allowed_networks=[ip_network("10.20.0.0/16"), ip_network("fd12::/16")])


def code(url: str, rules: TargetRules = STRICT) -> str | None:
    """Say with which code an address is refused; None where it is taken."""
    try:
        Target.parse(url, rules)
    except TargetRefused as refused:
        return refused.code
    return None


@pytest.mark.parametrize(
    ("url", "refused"),
    [
        ("https://hooks.contoso.com/a/b?c=d%20e&f", None),
        ("HTTPS://Hooks.Contoso.COM:8443", None),
        ("https://hooks.contoso.com?x=1", None),
        ("https://xn--mnchen-3ya.example/", None),
        ("https://8.8.8.8/", None),
        ("https://[2606:4700::1111]/", None),
        ("http://hooks.contoso.com/", "http_not_allowed"),
        ("https://user@hooks.contoso.com/", "login_in_address"),
        ("https://user:pw@hooks.contoso.com/", "login_in_address"),
        ("https://hooks.contoso.com@evil.example/", "login_in_address"),
        ("https://hooks.contoso.com/#part", "fragment"),
        (f"https://hooks.contoso.com/{'x' * 2000}", "too_long"),
        ("ftp://hooks.contoso.com/", "not_an_address"),
        ("file:///etc/passwd", "not_an_address"),
        ("gopher://127.0.0.1:25/", "not_an_address"),
        ("//hooks.contoso.com/", "not_an_address"),
        ("https:hooks.contoso.com", "not_an_address"),
        ("https:///x", "not_an_address"),
        ("https://hooks.contoso.com:0/", "not_an_address"),
        ("https://hooks.contoso.com:65536/", "not_an_address"),
        ("https://hooks.contoso.com:x/", "not_an_address"),
        ("https://hooks.contoso.com\\@evil.example/", "login_in_address"),
        ("https://hooks.contoso.com\\evil.example/", "not_an_address"),
        ("https://hooks.contoso.com/\r\nX-Evil: 1", "not_an_address"),
        ("https://hooks.contoso.com/ x", "not_an_address"),
        ("https://münchen.example/", "not_an_address"),
        ("https://hooks..contoso.com/", "not_an_address"),
        ("https://-.example/", "not_an_address"),
        ("https://127.1/", "not_an_address"),
        ("https://0x7f000001/", "not_an_address"),
        ("https://2130706433/", "not_an_address"),
        ("https://0177.0.0.1/", "not_an_address"),
        ("https://127.0.0.1./", "not_an_address"),
        ("https://[fe80::1%25eth0]/", "not_an_address"),
        ("https://[::1/", "not_an_address"),
        ("https://127.0.0.1/", "address_not_allowed"),
        ("https://[::1]/", "address_not_allowed"),
        ("https://[::ffff:127.0.0.1]/", "address_not_allowed"),
        ("", "not_an_address"),
    ],
)
def test_which_addresses_are_read(url: str, refused: str | None) -> None:
    """An absolute address of a web server with a plain host, and nothing else; numbers in disguise are none."""
    assert refused == code(url)


CLOSED = [
    "0.0.0.0",
    "0.1.2.3",
    "169.254.169.254",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "198.18.0.1",
    "203.0.113.1",
    "192.88.99.1",
    "100.100.100.200",
    "::",
    "::2",
    "::7f00:1",
    "::ffff:169.254.169.254",
    "fe80::1",
    "ff02::1",
    "fec0::1",
    "2001:db8::1",
    "2001::1",
    "100::1",
    "3fff::1",
    "5f00::1",
    "4000::1",
    "fd00:ec2::254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::",
]
PRIVATE = [
    "127.0.0.1",
    "127.255.255.254",
    "10.0.0.1",
    "10.20.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "::1",
    "fc00::1",
    "fd12::1",
    "::ffff:10.0.0.1",
    "64:ff9b::a00:1",
    "64:ff9b:1::a00:1",
    "2002:a00:1::",
]
PUBLIC = [
    "8.8.8.8",
    "52.101.73.2",
    "172.32.0.1",
    "100.128.0.1",
    "2606:4700::1111",
    "2a01:111:f403::1",
    "64:ff9b::808:808",
]


def allowed(rules: TargetRules, addresses: list[str]) -> list[str]:
    def url(address: str) -> str:
        return f"https://[{address}]/" if ":" in address else f"https://{address}/"

    return [each for each in addresses if code(url(each), rules) is None]


def test_which_networks_are_open() -> None:
    """Only the internet; private networks by setting; link-local, metadata, multicast and reserved ones never."""
    assert allowed(STRICT, CLOSED) == []
    assert allowed(STRICT, PRIVATE) == []
    assert allowed(STRICT, PUBLIC) == PUBLIC
    assert allowed(INSIDE, CLOSED) == []
    assert allowed(INSIDE, PRIVATE) == PRIVATE


def test_single_networks_can_be_opened() -> None:
    """A listed network is open, in IPv6's clothes too, and to http; everything beside it stays as it was."""
    assert allowed(LISTED, PRIVATE) == ["10.20.0.1", "fd12::1"]
    assert code("https://[::ffff:10.20.3.4]/", LISTED) is None
    assert allowed(LISTED, CLOSED) == []


async def refusal(url: str, rules: TargetRules, dns: NameServer) -> str | None:
    try:
        await Targets(rules, dns.resolver(timeout=0.5)).addresses(url)
    except TargetRefused as refused:
        return refused.code
    return None


async def test_every_address_of_a_name_is_judged() -> None:
    """One closed address among open ones closes the name; along aliases, and in both families."""
    async with NameServer() as dns:
        dns.has("good.example", "A", "8.8.8.8", "8.8.4.4")
        dns.has("good.example", "AAAA", "2606:4700::1111")
        dns.has("mixed.example", "A", "8.8.8.8", "10.0.0.1")
        dns.has("six.example", "A", "8.8.8.8")
        dns.has("six.example", "AAAA", "::ffff:127.0.0.1")
        dns.has("alias.example", "CNAME", "meta.example.")
        dns.has("meta.example", "A", "169.254.169.254")
        names = {
            "good": None,
            "mixed": "address_not_allowed",
            "six": "address_not_allowed",
            "alias": "address_not_allowed",
            "none": "name_not_found",
        }

        assert names == {name: await refusal(f"https://{name}.example/", STRICT, dns) for name in names}
        assert await refusal("https://localhost/", STRICT, dns) == "address_not_allowed"
        dns.trouble = "SERVFAIL"
        assert await refusal("https://good.example/", STRICT, dns) == "name_lookup_failed"


async def test_http_is_for_inside_addresses_that_are_allowed() -> None:
    """Without `allow_http` an allowed private address may be called in clear, and one of the internet may not."""
    async with NameServer() as dns:
        dns.has("inside.example", "A", "10.20.0.5")
        dns.has("outside.example", "A", "8.8.8.8")

        assert await refusal("http://inside.example/", LISTED, dns) is None
        assert await refusal("http://outside.example/", LISTED, dns) == "http_not_allowed"
        assert await refusal("http://inside.example/", STRICT, dns) == "http_not_allowed"
        assert await refusal("http://outside.example/", TargetRules(allow_http=True), dns) is None


async def test_the_addresses_are_those_that_were_judged() -> None:
    """What is given back is what the name has, IPv4 first, with what the call needs to keep the name."""
    async with NameServer() as dns:
        dns.has("good.example", "A", "8.8.8.8")
        dns.has("good.example", "AAAA", "2606:4700::1111")
        targets = Targets(STRICT, Resolver(nameservers=(("127.0.0.1", dns.port),)))

        target, addresses = await targets.addresses("https://Good.example:8443?a=b")

    assert [str(each) for each in addresses] == ["8.8.8.8", "2606:4700::1111"]
    assert (target.host_header, target.path) == ("good.example:8443", "/?a=b")
    assert [target.at(each) for each in addresses] == [
        "https://8.8.8.8:8443",
        "https://[2606:4700::1111]:8443",
    ]
