"""Telling in the ledger: who gets a place, what a lost lease does, and what is forgotten."""

from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.ledger import Ledger, telling, webhooks
from service.ledger.audit import Actor
from service.ledger.engine import open_engine, transaction
from service.ledger.history import EventView
from service.ledger.ids import new_id
from service.ledger.telling import Claimed, Room, Told
from tests.builders import a_submission

LEASE = timedelta(minutes=1)
ACTOR = Actor(application="tests", id="key_x", address=None, request_id=None)


@pytest.fixture
async def ledger(database_url: str) -> AsyncIterator[Ledger]:
    opened = Ledger.open(database_url, name="test", connections=5)
    yield opened
    await opened.dispose()


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    opened = open_engine(database_url, name="test", size=5)
    yield opened
    await opened.dispose()


def show(event: EventView) -> Mapping[str, Any]:
    return {"id": f"evt_{event.id}", "type": f"recipient.{event.to_status}", "created_at": "now"}


def room(most: int = 20, **changes: Any) -> Room:
    return Room(
        **{
            "most": most,
            "for_a_webhook": 4,
            "for_an_application": 10,
            "in_hand": {},
            "in_hand_of": {},
            **changes,
        }
    )


def told(**changes: Any) -> Told:
    given = {"ended": None, "wait": timedelta(0), "gone": False, "status": 500, "error": "It answered 500."}
    return Told(**{**given, "seconds": 0.1, **changes})


async def a_webhook(ledger: Ledger, application: str = "tests", *, tests: int = 0) -> str:
    """Make a webhook with so many deliveries that are due."""
    webhook = await ledger.webhooks.create(
        new_id("whk"),
        application=application,
        url="https://hooks.example/",
        description="",
        events=[],
        stored_secret="whsec_AAAA",
        actor=ACTOR,
    )
    for _ in range(tests):
        await ledger.webhook_deliveries.test(webhook, payload="{}", delivery_id=new_id("whd"), actor=ACTOR)
    return webhook.id


async def close(ledger: Ledger, claimed: Claimed, answer: Told, *, disable_after: float = 3600) -> str | None:
    return await ledger.telling.close(claimed, answer, disable_after=timedelta(seconds=disable_after))


async def test_each_event_becomes_one_delivery_for_each_webhook(ledger: Ledger) -> None:
    """Fan-out sees each event once, whatever several workers do, and makes one delivery for a webhook."""
    one, two = await a_webhook(ledger), await a_webhook(ledger)
    await a_webhook(ledger, "others")
    await ledger.accept(a_submission(to=("ana@example.com", "ben@example.com")))

    look = await ledger.telling.look(most=10)
    seen = [await ledger.telling.fan_out("tests", limit=10, show=show) for _ in range(2)]
    claimed = await ledger.telling.claim(room(), lease=LEASE)

    assert look.behind == ["tests"]
    assert seen == [2, 0]
    assert sorted(each.webhook_id for each in claimed) == sorted([one, one, two, two])
    assert {each.attempt for each in claimed} == {1}
    assert (await ledger.telling.look(most=10)).behind == []


async def test_places_are_shared(ledger: Ledger) -> None:
    """No webhook and no application gets more than its places, what is in hand counts, and all take turns."""
    loud = [await a_webhook(ledger, "loud", tests=9) for _ in range(4)]
    quiet = await a_webhook(ledger, "quiet", tests=1)

    first = await ledger.telling.claim(room(most=5), lease=LEASE)
    in_hand = {each.webhook_id: 0 for each in first}
    for each in first:
        in_hand[each.webhook_id] += 1
    held = room(in_hand=in_hand, in_hand_of={"loud": 4})
    second = await ledger.telling.claim(held, lease=LEASE)

    assert quiet in {each.webhook_id for each in first}
    assert len(first) == 5
    assert [each.application for each in second] == ["loud"] * 6
    for webhook in loud:
        assert sum(each.webhook_id == webhook for each in [*first, *second]) <= 4


async def test_one_that_fails_gets_one_place(ledger: Ledger) -> None:
    """After a failure a webhook's deliveries go one at a time, until one gets through."""
    await a_webhook(ledger, tests=5)
    (claimed,) = await ledger.telling.claim(room(most=1), lease=LEASE)
    await close(ledger, claimed, told())

    (only,) = await ledger.telling.claim(room(), lease=LEASE)
    await close(ledger, only, told(ended="delivered", status=200, error=None))
    more = await ledger.telling.claim(room(), lease=LEASE)

    assert len(more) == 4


async def test_a_lost_lease_is_due_again_and_its_holder_too_late(ledger: Ledger) -> None:
    """What a dead worker had in hand is claimed again; the result of the first holder changes nothing."""
    webhook = await a_webhook(ledger, tests=1)
    (first,) = await ledger.telling.claim(room(), lease=timedelta(0))
    (second,) = await ledger.telling.claim(room(), lease=LEASE)

    late = await close(ledger, first, told(gone=True, ended="failed", status=410))
    in_hand = await ledger.webhook_deliveries.find(webhook, first.id)
    await close(ledger, second, told(ended="delivered", status=200, error=None))
    done = await ledger.webhook_deliveries.find(webhook, first.id)

    assert (first.id, first.attempt, second.attempt, late) == (second.id, 1, 2, None)
    assert in_hand is not None
    assert (in_hand.status, in_hand.in_hand, in_hand.tries) == ("pending", True, [])
    assert done is not None
    assert (done.status, [each["status"] for each in done.tries]) == ("delivered", [200])


async def test_a_disabled_webhook_waits(ledger: Ledger) -> None:
    """Nothing is claimed for it, and a gone one says so once; the looks do not see what waits."""
    webhook = await a_webhook(ledger, tests=3)
    (claimed,) = await ledger.telling.claim(room(most=1), lease=LEASE)

    reason = await close(
        ledger, claimed, told(gone=True, ended="failed", status=410, error="It answered 410.")
    )
    look = await ledger.telling.look(most=10)
    shown = await ledger.webhooks.find(webhook, application="tests")

    assert reason == "gone"
    assert (look.webhooks, look.due_in) == (False, None)
    assert await ledger.telling.claim(room(), lease=LEASE) == []
    assert shown is not None
    assert (shown.enabled, shown.disabled_reason, shown.last_error) == (False, "gone", "It answered 410.")


async def test_what_waits_says_when_it_is_due(ledger: Ledger) -> None:
    """A look tells the seconds until the next try, so that nobody comes late or looks in vain."""
    await a_webhook(ledger, tests=1)
    (claimed,) = await ledger.telling.claim(room(), lease=LEASE)
    await close(ledger, claimed, told(wait=timedelta(seconds=90)))

    look = await ledger.telling.look(most=10)

    assert look.due_in is not None
    assert 60 < look.due_in <= 90


async def test_old_deliveries_and_deleted_webhooks_are_forgotten(ledger: Ledger, engine: AsyncEngine) -> None:
    """What ended long ago goes, what is pending stays; a deleted webhook goes with all it was told."""
    kept, deleted = await a_webhook(ledger, tests=2), await a_webhook(ledger, tests=2)
    (claimed,) = [
        each
        for each in await ledger.telling.claim(room(for_a_webhook=1), lease=LEASE)
        if each.webhook_id == kept
    ]
    await close(ledger, claimed, told(ended="delivered", status=200, error=None))
    await ledger.webhooks.remove(deleted, application="tests", actor=ACTOR)

    async with transaction(engine) as db:
        await telling.forget_old(db)
        young = (await db.execute(text("SELECT count(*) FROM webhook_deliveries"))).scalar_one()
        await db.execute(text("UPDATE webhooks SET deleted_at = deleted_at - interval '2 minutes'"))
        await telling.forget_old(db, kept=timedelta(0))
        left = (await db.execute(text("SELECT status FROM webhook_deliveries"))).scalars().all()
        hooks = (await db.execute(text("SELECT id FROM webhooks"))).scalars().all()

    assert young == 2
    assert list(left) == ["pending"]
    assert list(hooks) == [kept]


async def test_a_rotation_keeps_five_secrets_at_most(ledger: Ledger, engine: AsyncEngine) -> None:
    """However often it is rotated, the newest secrets alone sign; each overlap only ever gets shorter."""
    webhook = await a_webhook(ledger)
    async with transaction(engine) as db:
        for number in range(8):
            rotated = await webhooks.rotate(
                db, webhook, stored_secret=f"whsec_{number}", overlap=timedelta(hours=number + 1)
            )

    assert [each.stored for each in rotated.secrets] == [f"whsec_{n}" for n in (7, 6, 5, 4, 3)]
    assert rotated.secrets[0].expires_at is None
    ends = [each.expires_at for each in rotated.secrets[1:]]
    assert ends == sorted(ends, reverse=True)  # type: ignore[type-var]  # none of these is None
