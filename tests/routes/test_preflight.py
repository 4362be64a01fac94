"""A preflight against a scripted peer: what each answer of the peer becomes, and that nothing is sent."""

from dataclasses import replace
from datetime import date, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest

from service.mail.address import Address
from service.routes.kinds import Cloud
from service.routes.mx import MxFinder
from service.routes.preflight.check import Ground, Preflights
from service.routes.preflight.lookups import Lookups
from service.routes.preflight.steps import Preflight, Status, Step
from service.routes.route import Account, BasicLogin, Route, RouteKind
from service.routes.tokens import Entra, Tokens
from service.smtp.peer import TlsMode
from service.smtp.phase import Phase
from tests.peer import ScriptedPeer
from tests.routes.builders import a_route, an_account
from tests.routes.entra import TENANT, FakeEntra
from tests.routes.nameserver import NameServer

PASSWORD = "correct horse"
NOREPLY = Account(
    address=Address.parse("noreply@contoso.com"), login=BasicLogin(username="noreply", password=PASSWORD)
)


def an_entra(**changes: object) -> Entra:
    values: dict[str, object] = {
        "cloud": Cloud.WORLDWIDE,
        "tenant_id": TENANT,
        "authority": "https://localhost:1",
        "own_authority": True,
        "ca_file": None,
    }
    return Entra(**(values | {"timeout": timedelta(seconds=5)} | changes))  # type: ignore[arg-type]  # from a table


async def checked(
    route: Route, *, entra: Entra | None = None, to: str | None = None, static_ips: tuple[str, ...] = ()
) -> Preflight:
    entra = entra or an_entra()
    async with NameServer() as dns:
        dns.has("contoso.com", "TXT", '"v=spf1 include:spf.protection.outlook.com -all"')
        dns.has("spf.protection.outlook.com", "TXT", '"v=spf1 -all"')
        preflights = Preflights(
            tokens=Tokens(entra),
            mx=MxFinder(dns.resolver()),
            answers=Lookups(dns.resolver()),
            ground=Ground(
                entra=entra, accepted_domains=("contoso.com",), static_ips=tuple(map(ip_address, static_ips))
            ),
        )
        return await preflights.check(route, to=Address.parse(to) if to else None)


def smarthost(peer: ScriptedPeer, *, kind: RouteKind = RouteKind.SMARTHOST, **changes: object) -> Route:
    return replace(a_route("peer", kind, accounts=()), peer=replace(peer.as_peer(), **changes))  # type: ignore[arg-type]  # fields of Peer


def submission(peer: ScriptedPeer, *accounts: Account) -> Route:
    return replace(a_route("noreply", accounts=accounts or (NOREPLY,)), peer=peer.as_peer())


def step(found: Preflight, name: str, lane: str | None = None) -> Step:
    return next(each for each in found.steps if each.name == name and lane in {None, each.lane})


async def test_a_plain_peer() -> None:
    """No TLS, no login: MAIL, RCPT and RSET are said in this order, DATA never."""
    async with ScriptedPeer() as peer:
        found = await checked(smarthost(peer))

        assert found.result is Status.OK, found
        verbs = [command.split(":")[0] for command in peer.commands]
        assert verbs == ["EHLO client.contoso.com", "MAIL FROM", "RCPT TO", "RSET", "QUIT"]
    assert step(found, "starttls").status is Status.SKIP
    assert found.well == {"peer": Phase.RCPT}
    assert peer.taken == []


async def test_each_mailbox_is_logged_in() -> None:
    """Two mailboxes, one with a wrong password: the way there is told once, the logins one by one."""
    wrong = Account(
        address=Address.parse("billing@contoso.com"), login=BasicLogin(username="billing", password="wrong")
    )
    async with ScriptedPeer(tls=True, logins={"noreply": PASSWORD, "billing": "right"}) as peer:
        found = await checked(submission(peer, NOREPLY, wrong))

    assert [each.name for each in found.steps].count("connect") == 1
    assert step(found, "auth", "noreply/noreply@contoso.com").status is Status.OK
    assert step(found, "auth", "noreply/billing@contoso.com").status is Status.FAIL
    assert step(found, "mail", "noreply/billing@contoso.com").status is Status.SKIP
    assert found.well == {"noreply/noreply@contoso.com": Phase.RCPT}
    assert len([tried for tried in peer.logins_tried if tried[1] == "billing"]) == 1
    assert PASSWORD not in str(found)


async def test_a_password_that_high_volume_email_refuses() -> None:
    """The remedy speaks of the account's password: not of an application, nor of a mailbox that there is not."""
    account = Account(
        address=Address.parse("hve@contoso.com"), login=BasicLogin(username="hve", password="wrong")
    )
    async with ScriptedPeer(tls=True, logins={"hve": "right"}) as peer:
        peer.on("auth", reply="535 5.7.3 Authentication unsuccessful")
        route = a_route("high-volume", RouteKind.HIGH_VOLUME_EMAIL, accounts=(account,))
        found = await checked(replace(route, peer=peer.as_peer()))

    refused = step(found, "auth")
    told = " ".join(refused.remedy)
    assert refused.diagnosis == "exo.hve_authentication_unsuccessful"
    assert "present password of the account hve@contoso.com" in told
    assert "HVEAppAccess" not in told
    assert "CASMailbox" not in told


@pytest.mark.parametrize(
    ("phase", "reply", "status", "words"),
    [
        ("mail", "550 5.7.60 SMTP; Client does not have permissions to send as this sender", "fail", "RecipientPermission"),
        ("mail", "451 4.7.0 Temporary server error. Please try again later.", "warn", ""),
        ("rcpt", "550 5.4.1 Recipient address rejected: Access denied. AS(201806281)", "warn", "--to <address>"),
        ("rcpt", "550 5.7.64 TenantAttribution; Relay Access Denied", "fail", "onnector"),
        ("rcpt", "451 4.7.500 Server busy. Please try again later from [203.0.113.10]. (S77714)", "warn", ""),
    ],
)  # fmt: skip
async def test_what_is_refused_is_explained(phase: str, reply: str, status: str, words: str) -> None:
    """What heals by itself, or touches one address only, is a warning; the rest fails with its remedy."""
    async with ScriptedPeer() as peer:
        peer.on(phase, reply=reply)
        found = await checked(smarthost(peer, kind=RouteKind.SMTP_RELAY))

    refused = step(found, phase)
    assert refused.status == status
    assert reply[:9] in refused.detail
    assert refused.diagnosis
    assert words in " ".join(refused.remedy)
    assert found.well == {"peer": Phase.AUTH}


@pytest.mark.parametrize(
    ("phase", "failing"), [("greeting", "greeting"), ("ehlo", "ehlo"), ("mail", "mail"), ("rcpt", "rcpt")]
)
async def test_a_connection_that_is_lost(phase: str, failing: str) -> None:
    """Wherever it breaks, that step fails, what lies behind it was not tried, and the check ends well."""
    async with ScriptedPeer() as peer:
        peer.on(phase, then="close")
        found = await checked(smarthost(peer))

    broken = step(found, failing)
    assert broken.status is Status.FAIL
    assert broken.remedy
    assert [each.name for each in found.steps if each.status is Status.FAIL] == [failing]


async def test_a_silent_peer_on_port_465() -> None:
    """Nobody greets where TLS is awaited from the first octet: the remedy names the port."""
    async with ScriptedPeer() as peer:
        peer.on("greeting", then="stall")
        timeouts = replace(peer.as_peer().timeouts, greeting=0.3)
        found = await checked(smarthost(peer, port=465, timeouts=timeouts))

    assert "Port 465 waits for TLS from the first octet" in step(found, "greeting").remedy[0]


async def test_an_expired_certificate_is_shown() -> None:
    """The peer's certificate is described though it is not trusted; no login went out to see it."""
    async with ScriptedPeer(tls=True, logins={"noreply": PASSWORD}, certificate_expired=True) as peer:
        found = await checked(submission(peer))

    broken = step(found, "peer_certificate")
    assert broken.status is Status.FAIL
    assert "expired" in broken.detail
    assert "for localhost" in broken.detail
    assert step(found, "starttls").status is Status.OK
    assert "Renew the certificate of localhost" in broken.remedy[0]
    assert peer.logins_tried == []


async def test_opportunistic_tls_is_noted_and_not_judged() -> None:
    """A certificate of a foreign authority does no harm where the route does not ask for a good one."""
    async with ScriptedPeer(tls=True, certificate_untrusted=True) as peer:
        found = await checked(smarthost(peer, tls=TlsMode.OPPORTUNISTIC))

    noted = step(found, "peer_certificate")
    assert noted.status is Status.OK
    assert "not judged" in noted.detail


async def test_a_refused_starttls_goes_on_in_the_clear() -> None:
    """Opportunistic TLS that the peer offers and refuses is a warning, and the check goes on."""
    async with ScriptedPeer(tls=True) as peer:
        peer.on("starttls", reply="454 4.7.0 TLS not available")
        found = await checked(smarthost(peer, tls=TlsMode.OPPORTUNISTIC))

    assert step(found, "starttls").status is Status.WARN
    assert step(found, "tls").status is Status.SKIP
    assert step(found, "rcpt").status is Status.OK


async def test_our_address_is_compared() -> None:
    """Microsoft says which address it sees: one that is not among the static ones breaks relay by IP."""
    route = replace(a_route("peer", RouteKind.SMTP_RELAY, accounts=()), relay_by="ip")
    async with ScriptedPeer() as peer:
        peer.on("ehlo", reply="250-mx.contoso.com Hello [8.8.4.4]\n250 SIZE 1000")
        found = await checked(replace(route, peer=peer.as_peer()), static_ips=("203.0.113.10",))

    seen = step(found, "egress")
    assert seen.status is Status.FAIL
    assert "8.8.4.4" in seen.detail
    assert "SenderIPAddresses" in seen.remedy[0]


async def test_a_token_that_is_no_jwt(tmp_path: Path) -> None:
    """A token that cannot be read is passed over; it never shows."""
    account = an_account()
    async with (
        FakeEntra(tmp_path) as entra,
        ScriptedPeer(tls=True, logins={"noreply@contoso.com": "token-1"}) as peer,
    ):
        ours = an_entra(authority=entra.authority, ca_file=entra.ca_file)
        found = await checked(submission(peer, account), entra=ours)

    assert step(found, "token").status is Status.SKIP
    assert step(found, "auth").status is Status.OK
    assert "token-1" not in str(found)


async def test_a_token_service_that_is_gone() -> None:
    """No token: the login is not tried, the way to the peer is checked all the same."""
    async with ScriptedPeer(tls=True) as peer:
        found = await checked(submission(peer, an_account()))

    assert step(found, "token").status is Status.FAIL
    assert step(found, "tls").status is Status.OK
    assert step(found, "auth").status is Status.SKIP


async def test_a_secret_that_ends_soon() -> None:
    """`client_secret_expires` of yesterday and of a far day: a warning with the place, and none."""
    for ends, status in ((date(2020, 1, 1), Status.WARN), (date(9998, 1, 1), Status.OK)):
        login = BasicLogin(username="noreply", password=PASSWORD, client_secret_expires=ends)
        async with ScriptedPeer(tls=True, logins={"noreply": PASSWORD}) as peer:
            found = await checked(submission(peer, replace(NOREPLY, login=login)))

        assert step(found, "client_secret").status is status


async def test_another_recipient() -> None:
    """`to` is named in RCPT instead of the usual one."""
    async with ScriptedPeer() as peer:
        await checked(smarthost(peer), to="ana@example.com")

        assert "RCPT TO:<ana@example.com>" in peer.commands
