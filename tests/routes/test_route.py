"""Routes, their lanes, and who may send on them."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from service.routes.kinds import KINDS, RELAY_BY_CERTIFICATE, RELAY_BY_IP, kind_of
from service.routes.route import BasicLogin, Limits, Route, RouteKind
from service.smtp.peer import TlsMode
from tests.routes.builders import a_peer, a_route, an_account, an_address


def test_each_mailbox_has_its_lane() -> None:
    """Client submission is counted by mailbox, so each mailbox of the route has a lane."""
    route = a_route(accounts=(an_account("a@contoso.com"), an_account("b@contoso.com")))

    assert [lane.name for lane in route.lanes()] == ["noreply/a@contoso.com", "noreply/b@contoso.com"]


def test_a_route_without_mailboxes_is_one_lane() -> None:
    """Where nobody logs in by mailbox, the route is the lane."""
    [lane] = a_route("connector", RouteKind.SMTP_RELAY).lanes()

    assert (lane.name, lane.account, lane.login) == ("connector", None, None)


def test_capitals_do_not_make_another_lane() -> None:
    """A lane keeps its name, and so its use of limits, when the mailbox is written differently."""
    [lane] = a_route(accounts=(an_account("NoReply@Contoso.com"),)).lanes()

    assert lane.name == "noreply/noreply@contoso.com"


@pytest.mark.parametrize(
    ("sender", "lane"),
    [
        ("a@contoso.com", "noreply/a@contoso.com"),
        ("A@CONTOSO.com", "noreply/a@contoso.com"),
        ("billing@contoso.com", "noreply/a@contoso.com"),
        ("b@contoso.com", "noreply/b@contoso.com"),
        ("anyone@shop.contoso.com", "noreply/b@contoso.com"),
        ("anyone@contoso.com", None),
        ("a@deep.shop.contoso.com", None),
    ],
)
def test_a_sender_finds_its_mailbox(sender: str, lane: str | None) -> None:
    """The sender's own mailbox comes before one that may send as it; without either there is no lane."""
    route = a_route(
        accounts=(
            an_account("a@contoso.com", send_as=("billing@contoso.com", "b@contoso.com")),
            an_account("b@contoso.com", send_as_domains=("shop.contoso.com",)),
        )
    )

    found = route.lane_for(an_address(sender))

    assert (found.name if found else None) == lane


def test_send_as_everybody() -> None:
    """The star stands for every sender there is."""
    route = a_route(accounts=(an_account(send_as_domains=("*",)),))

    assert route.lane_for(an_address("x@anywhere.example")) is not None


def test_a_route_keeps_to_its_senders_domains() -> None:
    """A route without mailboxes takes the senders of its domains, or all where it names none."""
    own = a_route("direct", RouteKind.DIRECT_SEND, sender_domains=("contoso.com",))

    assert own.lane_for(an_address("x@contoso.com")) is not None
    assert own.lane_for(an_address("x@fabrikam.com")) is None
    assert a_route("house", RouteKind.SMARTHOST).lane_for(an_address("x@fabrikam.com")) is not None


def test_a_lane_logs_in_with_what_its_mailbox_or_route_has() -> None:
    """A mailbox's login is its own; without mailboxes it is the route's."""
    login = BasicLogin(username="u", password="p")

    assert a_route("house", RouteKind.SMARTHOST, login=login).lanes()[0].login == login
    assert a_route(accounts=(an_account(login=login),)).lanes()[0].login == login


@pytest.mark.parametrize(
    ("limits", "most"),
    [
        (Limits(), None),
        (Limits(recipients_per_message=500), 500),
        (Limits(recipients_per_message=500, recipients_per_day=10), 10),
        (Limits(recipients_per_day=10_000), 10_000),
    ],
)
def test_a_transaction_fits_into_a_day(limits: Limits, most: int | None) -> None:
    """No delivery has more recipients than a day allows, for it could never leave."""
    assert limits.recipients_per_transaction == most


def test_how_the_peer_knows_us() -> None:
    """A lane is known by its token, its password, its certificate or its address, or by nothing."""
    basic = BasicLogin(username="u", password="p")
    by_certificate = a_route("connector", RouteKind.SMTP_RELAY, relay_by="certificate")
    by_certificate = replace(by_certificate, peer=replace(a_peer(), client_certificate=Path("c.pem")))

    def proof(route: Route) -> str | None:
        return route.lanes()[0].authenticates_by

    assert proof(a_route()) == "oauth"
    assert proof(a_route(accounts=(an_account(login=basic),))) == "basic"
    assert proof(a_route("house", RouteKind.SMARTHOST, login=basic)) == "basic"
    assert proof(by_certificate) == "certificate"
    assert proof(a_route("connector", RouteKind.SMTP_RELAY, relay_by="ip")) == "ip"
    assert proof(a_route("direct", RouteKind.DIRECT_SEND)) is None


def test_relay_has_the_rules_of_its_way() -> None:
    """The two ways of relay are two kinds; every other route has its kind's rules."""
    assert kind_of(a_route("connector", RouteKind.SMTP_RELAY, relay_by="ip")) is RELAY_BY_IP
    assert kind_of(a_route("connector", RouteKind.SMTP_RELAY, relay_by="certificate")) is RELAY_BY_CERTIFICATE
    for kind in RouteKind:
        assert kind_of(a_route("r", kind)) is KINDS[kind]


def test_what_counts_towards_the_tenants_budget() -> None:
    """What Exchange Online sends out for the tenant counts; the other ways do not."""
    counting = {kind for kind in RouteKind if a_route("r", kind).counts_external}

    assert counting == {RouteKind.CLIENT_SUBMISSION, RouteKind.SMTP_RELAY}


def test_every_kind_has_its_rules() -> None:
    """Each kind of route stands in the table, with a default that its own rules allow."""
    for kind in [KINDS[kind] for kind in RouteKind] + [RELAY_BY_CERTIFICATE, RELAY_BY_IP]:
        assert kind.tls in kind.tls_modes
        assert kind.ports is None or kind.port in kind.ports
        assert set(kind.sources) == {name for name, limit in asdict(kind.limits).items() if limit is not None}


def test_nothing_that_logs_in_goes_without_tls() -> None:
    """The kinds that log in at Microsoft know no other mode than TLS required."""
    for kind in (
        RouteKind.CLIENT_SUBMISSION,
        RouteKind.HIGH_VOLUME_EMAIL,
        RouteKind.AZURE_COMMUNICATION_SERVICES,
    ):
        assert KINDS[kind].tls_modes == {TlsMode.REQUIRED}
