"""Which route a message takes, and why not another."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.routes.choice import NoRoute, Plan, Rest, RouteBook, Wanted
from service.routes.route import Limits, Route, RouteKind
from tests.routes.builders import a_route, a_wish, an_account, an_address

DOMAINS = ("contoso.com", "contoso.onmicrosoft.com")


def submission() -> Route:
    return a_route("noreply")


def direct() -> Route:
    return a_route("direct", RouteKind.DIRECT_SEND, sender_domains=DOMAINS, recipient_domains=DOMAINS)


def relay() -> Route:
    return a_route("connector", RouteKind.SMTP_RELAY)


def house(*, limits: Limits | None = None, enabled: bool = True) -> Route:
    return a_route("house", RouteKind.SMARTHOST, limits=limits, enabled=enabled)


def a_book(
    *routes: Route,
    order: tuple[str, ...] | None = None,
    sandbox: Route | None = None,
    external_budget: int | None = None,
    pass_over_resting: bool = True,
) -> RouteBook:
    return RouteBook(
        routes,
        order=[each.name for each in routes] if order is None else order,
        sandbox=sandbox,
        accepted_domains=DOMAINS,
        external_budget=external_budget,
        pass_over_resting=pass_over_resting,
    )


def ways(plan: Plan) -> list[tuple[str, str, list[str]]]:
    return [(each.route, each.lane, [str(to) for to in each.recipients]) for each in plan.deliveries]


def reasons(plan: Plan) -> list[tuple[str, str]]:
    return [(each.route, each.code) for each in plan.why_not]


def refusal(book: RouteBook, wanted: Wanted) -> NoRoute:
    with pytest.raises(NoRoute) as refused:
        book.plan(wanted)
    return refused.value


def test_auto_takes_the_first_that_fits() -> None:
    """Of several routes that would take the message, the first of the order does."""
    plan = a_book(submission(), relay()).plan(a_wish("ana@contoso.com", "bob@example.net"))

    assert ways(plan) == [("noreply", "noreply/noreply@contoso.com", ["ana@contoso.com", "bob@example.net"])]
    assert reasons(plan) == [("connector", "later_in_order")]


def test_the_order_is_the_configurations() -> None:
    """route_order decides, not the order in which the routes are written; what it leaves out is not tried."""
    book = a_book(submission(), relay(), house(), order=("house", "noreply"))

    plan = book.plan(a_wish())

    assert ways(plan)[0][0] == "house"
    assert reasons(plan) == [("noreply", "later_in_order"), ("connector", "not_in_order")]


def test_recipients_are_split_where_no_route_fits_all() -> None:
    """Internal recipients go by direct send and the others by relay, when neither order nor rules allow one way."""
    far = a_route("far", RouteKind.SMARTHOST, recipient_domains=("example.net",))

    plan = a_book(direct(), far).plan(a_wish("ana@contoso.com", "bob@example.net", "eve@contoso.com"))

    assert ways(plan) == [
        ("direct", "direct", ["ana@contoso.com", "eve@contoso.com"]),
        ("far", "far", ["bob@example.net"]),
    ]
    assert reasons(plan) == []


def test_one_way_is_better_than_two() -> None:
    """A route that fits every recipient is taken before a split, though others come first for some."""
    plan = a_book(direct(), relay()).plan(a_wish("ana@contoso.com", "bob@example.net"))

    assert [way[0] for way in ways(plan)] == ["connector", "connector"]
    assert reasons(plan) == [("direct", "recipients_outside")]


def test_a_recipient_that_nobody_takes_stops_all() -> None:
    """Where one recipient has no way, nothing is sent to the others either, and each route says why."""
    refused = refusal(a_book(direct(), submission()), a_wish("bob@example.net", sender="x@contoso.com"))

    assert not refused.unknown
    assert refused.plan.deliveries == ()
    assert reasons(refused.plan) == [("direct", "recipients_outside"), ("noreply", "sender_not_permitted")]


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        (a_wish(sender="ceo@contoso.com"), "sender_not_permitted"),
        (a_wish(stream="bulk"), "bulk_not_allowed"),
        (a_wish(size=35 * 1024 * 1024 + 1), "message_too_large"),
        (a_wish(allowed_routes=("other",)), "not_allowed_for_key"),
    ],
)
def test_what_speaks_against_client_submission(wanted: Wanted, code: str) -> None:
    """A foreign sender, bulk mail, too many octets and the key's own restriction each stop it."""
    assert reasons(refusal(a_book(submission()), wanted).plan) == [("noreply", code)]


def test_the_limits_themselves_are_allowed() -> None:
    """A message of exactly the largest size is taken."""
    assert a_book(submission()).plan(a_wish(size=35 * 1024 * 1024)).deliveries


def test_bulk_takes_another_way() -> None:
    """A bulk message passes client submission by and takes the next route."""
    plan = a_book(submission(), house()).plan(a_wish(stream="bulk"))

    assert ways(plan)[0][0] == "house"
    assert reasons(plan) == [("noreply", "bulk_not_allowed")]


def test_all_reasons_are_told_at_once() -> None:
    """A route says everything that speaks against it, so that one correction is enough."""
    refused = refusal(a_book(submission()), a_wish(sender="ceo@contoso.com", stream="bulk", size=10**9))

    assert reasons(refused.plan) == [
        ("noreply", "bulk_not_allowed"),
        ("noreply", "sender_not_permitted"),
        ("noreply", "message_too_large"),
    ]


def test_a_disabled_route_takes_nothing() -> None:
    """Disabled means passed by under auto and refused by name; its lane stays for its backlog."""
    book = a_book(house(enabled=False), relay())

    assert reasons(book.plan(a_wish())) == [("house", "disabled")]
    assert ("house", "disabled") in reasons(refusal(book, a_wish(route="house")).plan)
    assert book.lane("house") is not None


def test_a_route_by_name_is_the_only_one() -> None:
    """Who names a route gets this one, in the order or not, and no other stands in for it."""
    book = a_book(submission(), house(), order=("noreply",))

    plan = book.plan(a_wish(route="house"))
    assert (ways(plan)[0][0], reasons(plan)) == ("house", [("noreply", "not_asked_for")])

    refused = refusal(book, a_wish(route="noreply", sender="ceo@contoso.com"))
    assert reasons(refused.plan) == [("noreply", "sender_not_permitted"), ("house", "not_asked_for")]


@pytest.mark.parametrize("name", ["nowhere", "", "sandbox", "AUTO", "noreply/noreply@contoso.com"])
def test_an_unknown_name_is_said_to_be_unknown(name: str) -> None:
    """A route that does not exist is told apart from one that does not fit, and its name is not repeated."""
    refused = refusal(
        a_book(submission(), sandbox=a_route("sandbox", RouteKind.SMARTHOST)), a_wish(route=name)
    )

    assert refused.unknown
    assert reasons(refused.plan) == [("noreply", "not_asked_for")]


def test_a_test_key_sends_to_the_sandbox_only() -> None:
    """Mail of a test key takes the sandbox, whatever route it names and whoever its sender is."""
    book = a_book(submission(), sandbox=a_route("sandbox", RouteKind.SMARTHOST))

    for route in ("auto", "noreply", "nowhere"):
        plan = book.plan(a_wish(route=route, sender="x@example.net", test=True))
        assert {each.route for each in plan.deliveries} == {"sandbox"}
        assert reasons(plan) == [("noreply", "test_key")]


def test_a_test_key_without_a_sandbox_sends_nowhere() -> None:
    """Where there is no sandbox, a test key's mail is refused rather than sent."""
    refused = refusal(a_book(submission()), a_wish(test=True))

    assert (refused.unknown, reasons(refused.plan)) == (False, [("noreply", "test_key")])


def test_mx_routes_get_a_transaction_for_each_domain() -> None:
    """Exchange Online gives a transaction to one tenant, so recipients of two domains travel apart."""
    plan = a_book(relay()).plan(a_wish("a@one.example", "b@two.example", "c@one.example"))

    assert [way[2] for way in ways(plan)] == [["a@one.example", "c@one.example"], ["b@two.example"]]


@pytest.mark.parametrize(("route", "limit"), [(submission, 500), (relay, 100), (house, 100), (direct, 100)])
def test_deliveries_keep_the_limit_on_recipients(route: Callable[[], Route], limit: int) -> None:
    """No delivery has more recipients than its route allows, none gets lost, and they keep their order."""
    recipients = [f"r{n}@contoso.com" for n in range(2 * limit + 1)]

    plan = a_book(route()).plan(a_wish(*recipients))

    assert [len(each.recipients) for each in plan.deliveries] == [limit, limit, 1]
    assert [str(to) for each in plan.deliveries for to in each.recipients] == recipients


def test_a_delivery_fits_into_the_days_allowance() -> None:
    """A day's limit below that of a message parts the recipients, for such a delivery could never leave."""
    plan = a_book(house(limits=Limits(recipients_per_day=2))).plan(
        a_wish("a@b.example", "c@b.example", "d@b.example")
    )

    assert [len(each.recipients) for each in plan.deliveries] == [2, 1]


def test_lanes_are_found_by_name() -> None:
    """The book knows the lanes of all its routes and of the sandbox, and no others."""
    book = a_book(submission(), relay(), sandbox=a_route("sandbox", RouteKind.SMARTHOST))

    assert [lane.name for lane in book.lanes()] == ["noreply/noreply@contoso.com", "connector", "sandbox"]
    assert all(book.lane(lane.name) == lane for lane in book.lanes())
    assert book.lane("gone/noreply@contoso.com") is None


def test_a_plan_is_shown_as_json() -> None:
    """A plan is plain JSON: deliveries with their recipients and why they go that way, and the reasons against others."""
    plan = a_book(submission(), house()).plan(a_wish("ana@contoso.com"))

    assert json.loads(json.dumps(plan.as_json())) == {
        "deliveries": [
            {
                "route": "noreply",
                "lane": "noreply/noreply@contoso.com",
                "recipients": ["ana@contoso.com"],
                "external_recipients": 0,
                "why": "It is the first in route_order that takes all recipients.",
            }
        ],
        "why_not": [
            {
                "route": "house",
                "code": "later_in_order",
                "detail": "It would take the message, but a route before it in route_order does.",
            }
        ],
    }


def test_reasons_repeat_nothing_that_was_sent() -> None:
    """No detail has an address, a route's name or a stream of the caller in it."""
    wish = a_wish("victim@secret.example", sender="mallory@secret.example", route="auto", stream="bulk")

    told = json.dumps(refusal(a_book(submission(), direct()), wish).plan.as_json())

    assert "secret.example" not in told


@given(
    recipients=st.lists(
        st.sampled_from(
            [f"r{n}@{domain}" for n in range(40) for domain in (*DOMAINS, "example.net", "b.example")]
        ),
        min_size=1,
        unique=True,
    ),
    order=st.permutations(["noreply", "direct", "connector", "house"]),
    sender=st.sampled_from(["noreply@contoso.com", "x@contoso.com", "x@example.net"]),
    stream=st.sampled_from(["bulk", "transactional"]),
)
def test_nobody_is_lost_or_doubled(recipients: list[str], order: list[str], sender: str, stream: str) -> None:
    """Whatever the order and the sender: each recipient is in exactly one delivery, on a lane that the book knows."""
    book = a_book(submission(), direct(), relay(), house(), order=tuple(order))

    plan = book.plan(a_wish(*recipients, sender=sender, stream=stream))

    planned = [to for each in plan.deliveries for to in each.recipients]
    assert sorted(map(str, planned)) == sorted(recipients)
    assert all(book.lane(each.lane) is not None for each in plan.deliveries)
    assert not {each.route for each in plan.deliveries} & {each.route for each in plan.why_not}


def test_a_mailbox_of_the_same_route_may_send() -> None:
    """The lane is that of the mailbox that the sender belongs to."""
    route = a_route(
        accounts=(an_account("a@contoso.com"), an_account("b@contoso.com", send_as=("c@contoso.com",)))
    )

    [delivery] = a_book(route).plan(a_wish(sender="c@contoso.com")).deliveries

    assert (delivery.lane, delivery.recipients) == ("noreply/b@contoso.com", (an_address("ana@contoso.com"),))


# --- lanes that rest


REST = Rest(until=datetime(2026, 11, 23, 20, 41, 14, tzinfo=UTC), because="Microsoft 365 refuses the login.")
LANE = "noreply/noreply@contoso.com"


def whys(plan: Plan) -> list[str]:
    return [each.why for each in plan.deliveries]


def test_a_resting_route_is_passed_over() -> None:
    """Where another route fits, the one that rests is not waited for, and the plan says until when and why."""
    plan = a_book(submission(), house()).plan(a_wish(resting={LANE: REST}))

    assert ways(plan)[0][0] == "house"
    assert [(no.code, no.detail) for no in plan.why_not] == [
        ("resting", "It rests until 2026-11-23T20:41:14Z because Microsoft 365 refuses the login.")
    ]
    assert whys(plan) == ["It is the first in route_order that takes all recipients and does not rest."]


def test_the_end_of_a_rest_is_told_in_utc() -> None:
    """Whatever clock the end of a rest was read from, the plan says it in UTC."""
    later = Rest(until=REST.until and REST.until.astimezone(timezone(timedelta(hours=5))), because="so")

    plan = a_book(submission(), house()).plan(a_wish(resting={LANE: later}))

    assert "2026-11-23T20:41:14Z" in plan.why_not[0].detail


def test_where_all_rest_the_first_is_taken() -> None:
    """When only resting routes fit, the message waits on the first of them."""
    book = a_book(submission(), house(), direct())
    resting = {LANE: REST, "house": Rest(until=None, because="its host does not answer")}

    plan = book.plan(a_wish("bob@example.net", resting=resting))

    assert ways(plan)[0][0] == "noreply"
    assert reasons(plan) == [("house", "resting"), ("direct", "recipients_outside")]
    assert "none is at work now" in whys(plan)[0]
    assert "for now because its host does not answer" in plan.why_not[0].detail


def test_a_split_is_better_than_a_rest() -> None:
    """Two routes that are at work are taken before one that takes all and rests."""
    far = a_route("far", RouteKind.SMARTHOST, recipient_domains=("example.net",))

    plan = a_book(submission(), direct(), far).plan(
        a_wish("ana@contoso.com", "bob@example.net", resting={LANE: REST})
    )

    assert [way[0] for way in ways(plan)] == ["direct", "far"]
    assert reasons(plan) == [("noreply", "resting")]


def test_a_split_with_a_rest_in_it() -> None:
    """Where recipients are split, only those whom nobody else takes wait on a resting route."""
    near = a_route("near", RouteKind.SMARTHOST, recipient_domains=("contoso.com",))
    far = a_route("far", RouteKind.SMARTHOST, recipient_domains=("contoso.com", "example.net"))
    farther = a_route("farther", RouteKind.SMARTHOST, recipient_domains=("b.example",))

    plan = a_book(near, far, farther).plan(
        a_wish("ana@contoso.com", "bob@example.net", "eve@b.example", resting={"near": REST, "farther": REST})
    )

    assert ways(plan) == [
        ("far", "far", ["ana@contoso.com", "bob@example.net"]),
        ("farther", "farther", ["eve@b.example"]),
    ]


def test_policy_may_keep_to_the_order() -> None:
    """With pass_over_resting off, a rest changes nothing."""
    plan = a_book(submission(), house(), pass_over_resting=False).plan(a_wish(resting={LANE: REST}))

    assert ways(plan)[0][0] == "noreply"
    assert reasons(plan) == [("house", "later_in_order")]


def test_a_route_by_name_is_waited_for() -> None:
    """Who names a route that rests gets it, and reads that it rests."""
    plan = a_book(submission(), house()).plan(a_wish(route="noreply", resting={LANE: REST}))

    assert ways(plan)[0][0] == "noreply"
    assert whys(plan) == [
        "It was asked for by name; it rests until 2026-11-23T20:41:14Z because Microsoft 365 refuses the login."
    ]


def test_another_mailbox_of_the_route_may_stand_in() -> None:
    """Of two mailboxes that may send as the sender, the one that does not rest does."""
    route = a_route(
        accounts=(
            an_account("a@contoso.com", send_as=("c@contoso.com",)),
            an_account("b@contoso.com", send_as=("c@contoso.com",)),
        )
    )

    plan = a_book(route).plan(a_wish(sender="c@contoso.com", resting={"noreply/a@contoso.com": REST}))

    assert plan.deliveries[0].lane == "noreply/b@contoso.com"


# --- senders


def test_the_null_reverse_path() -> None:
    """Notifications without a sender go by certificate relay and smarthost alone."""
    by_ip = a_route("by-ip", RouteKind.SMTP_RELAY, relay_by="ip", sender_domains=DOMAINS)
    book = a_book(submission(), direct(), by_ip, relay())

    plan = book.plan(a_wish(sender=None))

    assert (ways(plan)[0][0], plan.deliveries[0].sender) == ("connector", "")
    assert reasons(plan) == [(name, "null_sender_not_permitted") for name in ("noreply", "direct", "by-ip")]
    assert a_book(house()).plan(a_wish(sender=None)).deliveries


def test_relay_by_ip_takes_accepted_domains_only() -> None:
    """A connector that knows us by address asks for a sender of the tenant; a certificate speaks for itself."""
    by_ip = a_route("by-ip", RouteKind.SMTP_RELAY, relay_by="ip", sender_domains=DOMAINS)

    plan = a_book(by_ip, relay()).plan(a_wish(sender="x@fabrikam.com"))

    assert (ways(plan)[0][0], reasons(plan)) == ("connector", [("by-ip", "sender_not_permitted")])


def test_authors_have_to_be_permitted_as_the_sender_is() -> None:
    """Exchange Online looks at the header From, too, where a mailbox logs in (5.2.252)."""
    account = an_account(send_as=("billing@contoso.com",))
    book = a_book(a_route(accounts=(account,)))

    assert book.plan(a_wish(authors=("billing@contoso.com",))).deliveries
    refused = refusal(book, a_wish(authors=("ceo@contoso.com",)))
    assert reasons(refused.plan) == [("noreply", "sender_not_permitted")]
    assert "author in the From header" in refused.plan.why_not[0].detail
    assert a_book(house()).plan(a_wish(authors=("ceo@contoso.com",))).deliveries


def test_an_account_of_high_volume_email_sends_as_itself_to_its_own() -> None:
    """Another sender and an outside recipient are each told, and 51 recipients are two transactions."""
    route = a_route("hve", RouteKind.HIGH_VOLUME_EMAIL, recipient_domains=DOMAINS)

    refused = refusal(a_book(route), a_wish("x@example.net", sender="ceo@contoso.com"))
    plan = a_book(route).plan(a_wish(*(f"r{n}@contoso.com" for n in range(51)), stream="bulk"))

    assert reasons(refused.plan) == [("hve", "sender_not_permitted"), ("hve", "recipients_outside")]
    assert [len(each.recipients) for each in plan.deliveries] == [50, 1]


# --- internal and external


def test_internal_by_direct_send_and_external_by_another_way() -> None:
    """A bulk message may be split: what direct send reaches by it, the others by the connector that takes them."""
    external = a_route("out", RouteKind.SMTP_RELAY, recipient_domains=("example.net",))

    plan = a_book(submission(), direct(), external).plan(
        a_wish("ana@contoso.com", "bob@example.net", stream="bulk")
    )

    assert [way[0] for way in ways(plan)] == ["direct", "out"]
    assert all("No single route takes all recipients" in why for why in whys(plan))


def test_a_named_route_has_to_fit_alone() -> None:
    """A route by name is not helped by another one, though together they would do."""
    refused = refusal(a_book(direct(), relay()), a_wish("ana@contoso.com", "bob@example.net", route="direct"))

    assert ("direct", "recipients_outside") in reasons(refused.plan)
    assert "1 of 2 recipients" in refused.plan.why_not[0].detail
    assert refused.plan.deliveries == ()


def test_external_recipients_are_counted_where_microsoft_counts_them() -> None:
    """Client submission and relay count towards the tenant's budget; a smarthost, for one, does not."""
    wish = ("ana@contoso.com", "eve@CONTOSO.onmicrosoft.com", "bob@example.net", "x@sub.contoso.com")

    def counted(route: Route) -> int:
        return sum(each.external_recipients for each in a_book(route).plan(a_wish(*wish)).deliveries)

    assert counted(submission()) == 2
    assert counted(relay()) == 2
    assert counted(house()) == 0
    assert a_book().external(a_wish(*wish).recipients) == 2


def test_no_delivery_is_larger_than_the_tenants_budget() -> None:
    """A transaction with more external recipients than the tenant has in a day could never leave."""
    recipients = [f"r{n}@example.net" for n in range(7)]

    plan = a_book(submission(), external_budget=3).plan(a_wish(*recipients))

    assert [len(each.recipients) for each in plan.deliveries] == [3, 3, 1]
    assert whys(plan)[1].endswith("2 of 3: a transaction has at most 3 recipients.")


def test_each_delivery_says_who_sends_it() -> None:
    """The reverse-path comes with the delivery in the form in which senders are compared."""
    plan = a_book(submission()).plan(a_wish(sender="NoReply@contoso.com"))

    assert plan.deliveries[0].sender == "noreply@contoso.com"


def test_each_way_says_why() -> None:
    """The sentence tells a test key's sandbox, the asked-for route, the order, and the parting into transactions."""
    sandbox = a_route("sandbox", RouteKind.SMARTHOST)
    book = a_book(direct(), relay(), sandbox=sandbox)

    assert whys(book.plan(a_wish(test=True))) == ["Mail of a test key goes to the sandbox."]
    assert whys(book.plan(a_wish(route="connector"))) == ["It was asked for by name."]
    assert whys(book.plan(a_wish("a@b.example", "c@d.example"))) == [
        "It is the first in route_order that takes all recipients, after 1 that does not. "
        f"{number} of 2: a transaction has at most 100 recipients and one recipient domain."
        for number in (1, 2)
    ]
