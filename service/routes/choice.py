"""Which route a message takes: a pure function, and why not another one.

`auto` takes the first route of the order that fits every recipient. Where none does, the
recipients are split: each takes the first route that leads to it. A route that was asked for
by name has to fit alone. A message of a test key has one way only, the sandbox, and no other
message ever takes that.

A plan is made of deliveries, and a delivery is what travels in one SMTP transaction. So the
recipients of a route are parted here: by the limit on recipients of a transaction, and on MX
routes by domain, because Exchange Online gives a transaction to one tenant and refuses the
other recipients (452 4.5.3).

Each route that was not taken gets its reasons, all of them at once. They name the
configuration, never an address or a name that the caller sent.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from service.mail.address import Address
from service.routes.kinds import KINDS
from service.routes.route import Lane, Route

AUTO = "auto"
BULK = "bulk"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be sent, as far as the choice of a route depends on it."""

    sender: Address  # the reverse-path
    recipients: tuple[Address, ...]  # at least one, no duplicates
    route: str  # "auto" or a route's name
    size: int  # octets of the whole message
    stream: str  # "bulk" never takes client submission
    allowed_routes: tuple[str, ...] | None = None  # what the API key may use; None: all
    test: bool = False  # the message of a test key


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One delivery: the recipients that travel in one transaction on one lane."""

    route: str
    lane: str
    recipients: tuple[Address, ...]


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
        self, routes: Sequence[Route], *, order: Sequence[str], sandbox: Route | None = None
    ) -> None:
        """Take the routes; `order` names the ones that `auto` tries, `sandbox` is the way of test keys."""
        self.routes: Mapping[str, Route] = {route.name: route for route in routes}
        self.order = tuple(order)
        self.sandbox = sandbox
        known = (*routes, sandbox) if sandbox else tuple(routes)
        self._lanes = {lane.name: lane for route in known for lane in route.lanes()}

    def lanes(self) -> tuple[Lane, ...]:
        """List every lane, those of disabled routes and of the sandbox included: they may hold a backlog."""
        return tuple(self._lanes.values())

    def lane(self, name: str) -> Lane | None:
        """Find a lane by the name that the ledger keeps; None when the configuration no longer has it."""
        return self._lanes.get(name)

    def plan(self, wanted: Wanted) -> Plan:
        """Choose the way of each recipient; raises NoRoute with every route's reasons when one has none."""
        candidates = self._candidates(wanted)
        objections = {route.name: tuple(_objections(route, wanted)) for route in candidates}
        shares = _whole(candidates, wanted, objections) or _split(candidates, wanted, objections)
        plan = Plan(
            deliveries=tuple(
                planned
                for route in candidates
                for planned in _deliveries(route, wanted, shares.get(route.name, ()))
            ),
            why_not=(
                *(
                    no
                    for route in candidates
                    if route.name not in shares
                    for no in self._why(route, objections)
                ),
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

    @staticmethod
    def _why(route: Route, objections: Mapping[str, tuple[WhyNot, ...]]) -> tuple[WhyNot, ...]:
        later = WhyNot(
            route=route.name,
            code="later_in_order",
            detail="It would take the message, but a route before it in route_order does.",
        )
        return objections[route.name] or (later,)


def _whole(
    candidates: Sequence[Route], wanted: Wanted, objections: Mapping[str, tuple[WhyNot, ...]]
) -> dict[str, tuple[Address, ...]]:
    """Give all recipients to the first route that nothing speaks against; empty when there is none."""
    fitting = next((route for route in candidates if not objections[route.name]), None)
    return {} if fitting is None else {fitting.name: wanted.recipients}


def _split(
    candidates: Sequence[Route], wanted: Wanted, objections: Mapping[str, tuple[WhyNot, ...]]
) -> dict[str, tuple[Address, ...]]:
    """Give each recipient to the first route that leads to it; empty when one recipient has none."""
    usable = [
        route for route in candidates if all(no.code == "recipients_outside" for no in objections[route.name])
    ]
    shares: dict[str, list[Address]] = {}
    for recipient in wanted.recipients:
        taker = next((route for route in usable if route.takes(recipient)), None)
        if taker is None:
            return {}
        shares.setdefault(taker.name, []).append(recipient)
    return {name: tuple(recipients) for name, recipients in shares.items()}


def _deliveries(route: Route, wanted: Wanted, recipients: Sequence[Address]) -> Iterator[Planned]:
    """Part a route's recipients into transactions."""
    lane = route.lane_for(wanted.sender)
    if lane is None or not recipients:
        return
    groups: dict[str, list[Address]] = {}
    for recipient in recipients:
        groups.setdefault(recipient.domain if KINDS[route.kind].mx else "", []).append(recipient)
    for group in groups.values():
        step = lane.limits.recipients_per_transaction or len(group)
        for start in range(0, len(group), step):
            yield Planned(route=route.name, lane=lane.name, recipients=tuple(group[start : start + step]))


def _objections(route: Route, wanted: Wanted) -> Iterator[WhyNot]:
    """Say everything that speaks against this route for this message."""

    def no(code: str, detail: str) -> WhyNot:
        return WhyNot(route=route.name, code=code, detail=detail)

    if not route.enabled:
        yield no("disabled", "The configuration has it disabled.")
    if wanted.allowed_routes is not None and route.name not in wanted.allowed_routes and not wanted.test:
        yield no("not_allowed_for_key", "The API key may not use it.")
    if route.mx_of is not None:
        yield no(
            "host_unknown", "Its host is to be looked up by mx_of, which this version does not do: set host."
        )
    if wanted.stream == BULK and not KINDS[route.kind].bulk:
        yield no("bulk_not_allowed", "Client submission is not for bulk mail (Microsoft).")
    if route.lane_for(wanted.sender) is None:
        yield no("sender_not_permitted", _who_may_send(route))
    limit = route.limits.message_bytes
    if limit is not None and wanted.size > limit:
        yield no("message_too_large", f"The message has {wanted.size:,} octets, the limit is {limit:,}.")
    outside = sum(not route.takes(recipient) for recipient in wanted.recipients)
    if outside:
        yield no(
            "recipients_outside",
            f"{outside} of {len(wanted.recipients)} recipients are outside the domains that it leads to.",
        )


def _who_may_send(route: Route) -> str:
    if not route.accounts:
        return f"The sender has to be an address of {', '.join(route.sender_domains or ())}."
    mailboxes = ", ".join(str(account.address) for account in route.accounts)
    return f"The sender has to be a mailbox of this route ({mailboxes}) or an address in its send_as."


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
