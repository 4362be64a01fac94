"""Which route a message takes: a pure function, and why not another one.

`auto` takes the first route of the order that fits every recipient. Where none does, the
recipients are split: each takes the first route that leads to it. A route whose lane rests is
passed over where others fit without it; where only resting routes fit, the first of them is
taken, and the message waits there. A route that was asked for by name has to fit alone. A
message of a test key has one way only, the sandbox, and no other message ever takes that.

A plan is made of deliveries, and a delivery is what travels in one SMTP transaction. So the
recipients of a route are parted here: by the limit on recipients of a transaction, and on MX
routes by domain, because Exchange Online gives a transaction to one tenant and refuses the
other recipients (452 4.5.3).

Each delivery says why its route was chosen, and each route that was not taken gets its
reasons, all of them at once. They name the configuration, never an address or a name that the
caller sent.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from service.mail.address import Address
from service.routes.kinds import kind_of
from service.routes.route import Lane, Route

AUTO = "auto"
BULK = "bulk"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """That a lane takes nothing for a while."""

    until: datetime | None  # when it is tried again; None: not known
    because: str  # a few words: "Microsoft 365 refuses the login (535 5.7.3)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be sent, as far as the choice of a route depends on it."""

    sender: Address | None  # the reverse-path; None is the null one of notifications
    recipients: tuple[Address, ...]  # at least one, no duplicates
    route: str  # "auto" or a route's name
    size: int  # octets of the whole message
    stream: str  # "bulk" never takes client submission
    allowed_routes: tuple[str, ...] | None = None  # what the API key may use; None: all
    test: bool = False  # the message of a test key
    authors: tuple[Address, ...] = ()  # of the header From, where they are not the sender alone
    resting: Mapping[str, Rest] = field(default_factory=dict)  # by lane


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One delivery: the recipients that travel in one transaction on one lane."""

    route: str
    lane: str
    recipients: tuple[Address, ...]
    sender: str  # the reverse-path in its form for comparisons; empty for the null one
    external_recipients: int  # how many of them count towards the tenant's budget of external recipients
    why: str  # one sentence: why this route


@dataclass(frozen=True, slots=True, kw_only=True)
class WhyNot:
    """One reason why one route was not taken."""

    route: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The deliveries of a message in the order of their routes, and what spoke against the other routes."""

    deliveries: tuple[Planned, ...]
    why_not: tuple[WhyNot, ...]

    def as_json(self) -> dict[str, object]:
        """Write the plan as it is shown and kept with the message."""
        return {
            "deliveries": [
                {
                    "route": planned.route,
                    "lane": planned.lane,
                    "recipients": [str(to) for to in planned.recipients],
                    "external_recipients": planned.external_recipients,
                    "why": planned.why,
                }
                for planned in self.deliveries
            ],
            "why_not": [{"route": no.route, "code": no.code, "detail": no.detail} for no in self.why_not],
        }


class NoRoute(Exception):
    """No route, and no split over routes, takes this message. `plan.why_not` has each route's reasons."""

    def __init__(self, plan: Plan, *, unknown: bool = False) -> None:
        self.plan = plan
        self.unknown = unknown  # the route asked for does not exist
        super().__init__("There is no route of that name." if unknown else "No route takes this message.")


class RouteBook:
    """All routes of the configuration, and the order in which `auto` tries them."""

    def __init__(
        self,
        routes: Sequence[Route],
        *,
        order: Sequence[str],
        sandbox: Route | None = None,
        accepted_domains: Sequence[str] = (),
        external_budget: int | None = None,
        pass_over_resting: bool = True,
    ) -> None:
        """Take the routes.

        `order` names the ones that `auto` tries, `sandbox` is the way of test keys. Recipients
        in `accepted_domains` are internal; `external_budget` is how many others the tenant may
        have in 24 hours, None where nobody knows.
        """
        self.routes: Mapping[str, Route] = {route.name: route for route in routes}
        self.order = tuple(order)
        self.sandbox = sandbox
        self.accepted_domains = frozenset(accepted_domains)
        self.external_budget = external_budget
        self.pass_over_resting = pass_over_resting
        known = (*routes, sandbox) if sandbox else tuple(routes)
        self._lanes = {lane.name: lane for route in known for lane in route.lanes()}

    def lanes(self) -> tuple[Lane, ...]:
        """List every lane, those of disabled routes and of the sandbox included: they may hold a backlog."""
        return tuple(self._lanes.values())

    def lane(self, name: str) -> Lane | None:
        """Find a lane by the name that the ledger keeps; None when the configuration no longer has it."""
        return self._lanes.get(name)

    def external(self, recipients: Sequence[Address]) -> int:
        """Count the recipients outside the organisation's accepted domains."""
        return sum(recipient.domain not in self.accepted_domains for recipient in recipients)

    def plan(self, wanted: Wanted) -> Plan:
        """Choose the way of each recipient; raises NoRoute with every route's reasons when one has none."""
        candidates = self._candidates(wanted)
        offers = [self._offer(route, wanted) for route in candidates]
        shares = _shares(offers, wanted)
        plan = Plan(
            deliveries=tuple(self._planned(offers, shares, wanted)),
            why_not=(
                *(no for offer in offers if offer.route.name not in shares for no in _why_not(offer)),
                *(_not_considered(route, wanted) for route in self._others(candidates, wanted)),
            ),
        )
        if not shares:
            raise NoRoute(plan, unknown=not candidates and wanted.route != AUTO and not wanted.test)
        return plan

    def _candidates(self, wanted: Wanted) -> tuple[Route, ...]:
        if wanted.test:
            return (self.sandbox,) if self.sandbox else ()
        names = self.order if wanted.route == AUTO else (wanted.route,)
        return tuple(self.routes[name] for name in names if name in self.routes)

    def _others(self, candidates: Sequence[Route], wanted: Wanted) -> Iterator[Route]:
        considered = {route.name for route in candidates}
        return (route for route in self.routes.values() if wanted.test or route.name not in considered)

    def _offer(self, route: Route, wanted: Wanted) -> "_Offer":
        resting = wanted.resting if self.pass_over_resting else {}
        lane = _lane(route, wanted, avoid=resting)
        return _Offer(
            route=route,
            lane=lane,
            objections=tuple(_objections(route, lane, wanted)),
            rest=resting.get(lane.name) if lane else None,
        )

    def _planned(
        self, offers: "Sequence[_Offer]", shares: Mapping[str, tuple[Address, ...]], wanted: Wanted
    ) -> Iterator[Planned]:
        for offer in offers:
            recipients = shares.get(offer.route.name, ())
            if offer.lane is None or not recipients:
                continue
            groups = list(self._transactions(offer.lane, recipients))
            because = _because(offer, offers, wanted, split=len(shares) > 1)
            rule = _parted(offer.lane, self._most(offer.lane))
            for number, group in enumerate(groups, 1):
                yield Planned(
                    route=offer.route.name,
                    lane=offer.lane.name,
                    recipients=group,
                    sender=wanted.sender.key if wanted.sender else "",
                    external_recipients=self.external(group) if offer.route.counts_external else 0,
                    why=because if len(groups) == 1 else f"{because} {number} of {len(groups)}: {rule}",
                )

    def _transactions(self, lane: Lane, recipients: Sequence[Address]) -> Iterator[tuple[Address, ...]]:
        """Part a lane's recipients into transactions."""
        groups: dict[str, list[Address]] = {}
        for recipient in recipients:
            groups.setdefault(recipient.domain if kind_of(lane.route).mx else "", []).append(recipient)
        for group in groups.values():
            step = self._most(lane) or len(group)
            for start in range(0, len(group), step):
                yield tuple(group[start : start + step])

    def _most(self, lane: Lane) -> int | None:
        """Say how many recipients a transaction may have; more than a whole budget could never leave."""
        budget = self.external_budget if lane.route.counts_external else None
        caps = [cap for cap in (lane.limits.recipients_per_transaction, budget) if cap is not None]
        return min(caps, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Offer:
    """What one route has to say to one message."""

    route: Route
    lane: Lane | None  # None: nobody of this route may send as the sender
    objections: tuple[WhyNot, ...]
    rest: Rest | None  # the lane rests, and is to be passed over where others fit

    @property
    def fits_some(self) -> bool:
        """Whether nothing speaks against it but that it does not lead to all recipients."""
        return all(no.code == "recipients_outside" for no in self.objections)


def _shares(offers: Sequence[_Offer], wanted: Wanted) -> dict[str, tuple[Address, ...]]:
    """Give each recipient to a route; empty where one recipient has none.

    First among the routes that do not rest. Where these do not do, a resting route stands
    behind the others only where recipients are split: a whole message goes by the order.
    """
    awake = [offer for offer in offers if offer.rest is None]
    return (
        _whole(awake, wanted)
        or _split(awake, wanted)
        or _whole(offers, wanted)
        or _split(sorted(offers, key=lambda offer: offer.rest is not None), wanted)
    )


def _whole(offers: Sequence[_Offer], wanted: Wanted) -> dict[str, tuple[Address, ...]]:
    """Give all recipients to the first route that nothing speaks against; empty when there is none."""
    fitting = next((offer for offer in offers if not offer.objections), None)
    return {} if fitting is None else {fitting.route.name: wanted.recipients}


def _split(offers: Sequence[_Offer], wanted: Wanted) -> dict[str, tuple[Address, ...]]:
    """Give each recipient to the first route that leads to it; empty when one recipient has none."""
    usable = [offer.route for offer in offers if offer.fits_some]
    shares: dict[str, list[Address]] = {}
    for recipient in wanted.recipients:
        taker = next((route for route in usable if route.takes(recipient)), None)
        if taker is None:
            return {}
        shares.setdefault(taker.name, []).append(recipient)
    return {name: tuple(recipients) for name, recipients in shares.items()}


def _lane(route: Route, wanted: Wanted, *, avoid: Mapping[str, Rest]) -> Lane | None:
    """Find the lane that may send as the sender and as every author."""
    if wanted.sender is None and not kind_of(route).null_sender:
        return None
    if wanted.sender is None:
        return next(iter(route.lanes()), None)
    # Only a mailbox is asked for the header, too: elsewhere the reverse-path decides.
    authors = wanted.authors if route.accounts else ()
    return route.lane_for(wanted.sender, *authors, avoid=avoid)


def _objections(route: Route, lane: Lane | None, wanted: Wanted) -> Iterator[WhyNot]:
    """Say everything that speaks against this route for this message."""

    def no(code: str, detail: str) -> WhyNot:
        return WhyNot(route=route.name, code=code, detail=detail)

    if not route.enabled:
        yield no("disabled", "The configuration has it disabled.")
    if wanted.allowed_routes is not None and route.name not in wanted.allowed_routes and not wanted.test:
        yield no("not_allowed_for_key", "The API key may not use it.")
    if wanted.stream == BULK and not kind_of(route).bulk:
        yield no("bulk_not_allowed", "Client submission is not for bulk mail (Microsoft).")
    if lane is None and wanted.sender is None:
        yield no("null_sender_not_permitted", _who_may_be_nobody(route))
    elif lane is None:
        yield no("sender_not_permitted", _who_may_send(route, wanted))
    limit = route.limits.message_bytes
    if limit is not None and wanted.size > limit:
        yield no("message_too_large", f"The message has {wanted.size:,} octets, the limit is {limit:,}.")
    outside = sum(not route.takes(recipient) for recipient in wanted.recipients)
    if outside:
        yield no(
            "recipients_outside",
            f"{outside} of {len(wanted.recipients)} recipients are outside the domains that it leads to.",
        )


def _who_may_be_nobody(route: Route) -> str:
    if route.accounts:
        return "A mailbox that logs in sends as itself; the null reverse-path goes by certificate relay or smarthost."
    return "Microsoft takes the null reverse-path from a connector by certificate only; a smarthost may, too."


def _who_may_send(route: Route, wanted: Wanted) -> str:
    if not route.accounts:
        return f"The sender has to be an address of {', '.join(route.sender_domains or ())}."
    mailboxes = ", ".join(str(account.address) for account in route.accounts)
    both = " So has each author in the From header." if wanted.authors else ""
    if not any(account.send_as or account.send_as_domains for account in route.accounts):
        return f"The sender has to be a mailbox of this route ({mailboxes}), and none of them has a send_as.{both}"
    return f"The sender has to be a mailbox of this route ({mailboxes}) or an address in its send_as.{both}"


def _because(offer: _Offer, offers: Sequence[_Offer], wanted: Wanted, *, split: bool) -> str:
    """Say why this route was chosen."""
    if wanted.test:
        return "Mail of a test key goes to the sandbox."
    if wanted.route != AUTO:
        return f"It was asked for by name{f'; it {_rests(offer.rest)}' if offer.rest else ''}."
    if offer.rest is not None:
        return f"Of the routes that fit, none is at work now, and this is the first of them: it {_rests(offer.rest)}."
    before = offers[: offers.index(offer)]
    if split:
        return "No single route takes all recipients; this is the first in route_order that leads to these."
    if any(passed.rest is not None and not passed.objections for passed in before):
        return "It is the first in route_order that takes all recipients and does not rest."
    place = f", after {len(before)} that {'does' if len(before) == 1 else 'do'} not" if before else ""
    return f"It is the first in route_order that takes all recipients{place}."


def _parted(lane: Lane, most: int | None) -> str:
    """Say by which rule a route's recipients travel in several transactions."""
    rules = [] if most is None else [f"at most {most:,} recipients"]
    rules += ["one recipient domain"] if kind_of(lane.route).mx else []
    return f"a transaction has {' and '.join(rules)}."


def _why_not(offer: _Offer) -> Iterator[WhyNot]:
    yield from offer.objections
    if offer.rest is not None:
        yield WhyNot(route=offer.route.name, code="resting", detail=f"It {_rests(offer.rest)}.")
    elif not offer.objections:
        yield WhyNot(
            route=offer.route.name,
            code="later_in_order",
            detail="It would take the message, but a route before it in route_order does.",
        )


def _rests(rest: Rest) -> str:
    until = f"until {rest.until.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" if rest.until else "for now"
    return f"rests {until} because {rest.because.rstrip('.')}"


def _not_considered(route: Route, wanted: Wanted) -> WhyNot:
    if wanted.test:
        return WhyNot(
            route=route.name, code="test_key", detail="Mail of a test key goes to the sandbox only."
        )
    if wanted.route != AUTO:
        return WhyNot(route=route.name, code="not_asked_for", detail="Another route was asked for by name.")
    return WhyNot(
        route=route.name, code="not_in_order", detail="It is not in route_order; ask for it by name."
    )
