"""Who of a message's recipients can be sent to once more, and by which way.

Two things may have changed since a message was planned: the configuration may no longer have a lane, and
an address may be suppressed. Recipients of a lane that is gone are planned anew, as if the message came
now; where no route takes them, and for suppressed addresses, they stay as they are.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from service.ledger.acting import ACTS
from service.ledger.history import MessageView, RecipientView
from service.ledger.ids import new_id
from service.ledger.keys import Key
from service.ledger.rerouting import Reroute
from service.ledger.states import Status
from service.mail import adopt
from service.mail.address import Address
from service.routes.choice import NoRoute, Plan, Rest, Wanted
from service.submission.door import Budget, Door
from service.submission.history import expectations
from service.submission.problems import Problem
from service.submission.suppressing.suppressions import Suppressed


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """What an act that sends again has to know of its recipients."""

    reroutes: Mapping[int, Reroute] = field(default_factory=dict)  # by position
    spared: frozenset[int] = frozenset()  # positions that cannot be sent to
    refusal: Problem | None = None  # why, where that is all that is in the way


class Replanning:
    """Finds ways; one for each process."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._suppressed = Suppressed(door.ledger)

    async def ways(
        self, view: MessageView, key: Key, budget: Budget, *, deed: str, positions: frozenset[int] | None
    ) -> Ways:
        """Find the ways of those recipients that the act would send to."""
        starts = set(ACTS[deed].starts)
        meant = [each for each in view.recipients if positions is None or each.position in positions]
        movable = [each for each in meant if each.status in starts]
        addresses = {Address.parse(each.email).key: each.position for each in movable}
        stopped = await self._suppressed.among(view.application, addresses, budget)
        spared = {addresses[address] for address in stopped}
        if ACTS[deed].anew:
            starts |= {Status.QUEUED, Status.SCHEDULED}
        gone = [
            each
            for each in meant
            if each.status in starts
            and each.position not in spared
            and each.lane is not None
            and self._door.book.lane(each.lane) is None
        ]
        if not gone:
            return Ways(spared=frozenset(spared), refusal=_suppressed() if spared else None)
        try:
            plan = await self._planned(view, gone, key, budget)
        except NoRoute as refused:
            spared |= {each.position for each in gone}
            return Ways(spared=frozenset(spared), refusal=_lane_gone(refused.plan))
        return Ways(
            reroutes=self._reroutes(plan, gone),
            spared=frozenset(spared),
            refusal=_suppressed() if spared else None,
        )

    async def _planned(
        self, view: MessageView, gone: Sequence[RecipientView], key: Key, budget: Budget
    ) -> Plan:
        sender = Address.parse(view.from_email)
        octets = await budget.spend(self._door.ledger.octets(view.id))
        authors = await asyncio.to_thread(adopt.authors, octets)
        resting = await budget.spend(self._door.ledger.resting())
        return self._door.book.plan(
            Wanted(
                sender=sender,
                recipients=tuple(Address.parse(each.email) for each in gone),
                route=view.route_requested,
                size=view.size,
                stream=view.stream,
                allowed_routes=key.routes,
                test=view.test,
                authors=tuple(author for author in authors if author.key != sender.key),
                resting={
                    lane: Rest(until=rest.until, because=expectations.reason(rest.error))
                    for lane, rest in resting.items()
                },
            )
        )

    def _reroutes(self, plan: Plan, gone: Sequence[RecipientView]) -> dict[int, Reroute]:
        lanes = {Address.parse(each.email).key: each for each in gone}
        found = {}
        for planned in plan.deliveries:
            delivery_id = new_id("dlv")
            for address in planned.recipients:
                recipient = lanes[address.key]
                found[recipient.position] = Reroute(
                    gone=recipient.lane or "",
                    delivery_id=delivery_id,
                    route=planned.route,
                    lane=planned.lane,
                    external=planned.external_recipients > 0 and self._door.book.external([address]) > 0,
                )
        return found


def _suppressed() -> Problem:
    return Problem(
        status=409,
        code="suppressed",
        detail="Nothing was put back to be sent: the addresses are suppressed, or in another state. "
        "`GET /suppressions` lists them; lift the entry first.",
    )


def _lane_gone(plan: Plan) -> Problem:
    return Problem(
        status=409,
        code="lane_gone",
        detail="Nothing was put back to be sent: the configuration no longer has the lane of these recipients, "
        "and no other route takes them; `plan` says for each one why not. Configure the route again, or "
        "another one that takes them.",
        members={"plan": plan.as_json()},
    )
