"""What the console keeps in the ledger, and what it counts there."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from service.ledger import Ledger
from service.ledger.audit import Actor, Wanted
from service.ledger.keys import DEFAULT_SCOPES
from service.ledger.sign_ins import Person

SOMEBODY = Actor(application="shop", id="key_1", address="192.0.2.1", request_id="req_1")
HOUR = timedelta(hours=1)


@pytest.fixture
async def ledger(database_url: str) -> AsyncIterator[Ledger]:
    """A ledger of this test's own."""
    opened = Ledger.open(database_url, name="test", connections=2)
    yield opened
    await opened.dispose()


async def test_a_sign_in_stands_for_its_key_as_the_key_is_now(ledger: Ledger) -> None:
    """What was signed in with a key may do what the key may do, and ends when the key is revoked."""
    made = await ledger.create_key("shop", scopes=DEFAULT_SCOPES, senders=[])
    new = await ledger.sign_ins.begin(made.id, lasts=HOUR, actor=SOMEBODY)

    found = await ledger.sign_ins.find(new.token)
    assert found is not None
    assert (made.id, set(DEFAULT_SCOPES)) == (found.key.id, set(found.key.scopes))

    await ledger.revoke_key(made.id)
    assert await ledger.sign_ins.find(new.token) is None


async def test_a_sign_in_ends_by_itself_and_by_signing_out(ledger: Ledger) -> None:
    """A sign-in whose time is over opens nothing, nor one that was ended; another one goes on."""
    ana = Person(subject="0001", name="ana@contoso.com", scopes=["operate"])
    over = await ledger.sign_ins.begin(ana, lasts=timedelta(0), actor=SOMEBODY)
    ended = await ledger.sign_ins.begin(ana, lasts=HOUR, actor=SOMEBODY)
    lasting = await ledger.sign_ins.begin(ana, lasts=HOUR, actor=SOMEBODY)
    await ledger.sign_ins.end(ended.id, actor=SOMEBODY)

    assert [await ledger.sign_ins.find(each.token) for each in (over, ended)] == [None, None]
    found = await ledger.sign_ins.find(lasting.token)
    assert found is not None
    assert (found.key.id, found.name) == ("entra:0001", "ana@contoso.com")
    assert found.key.sees_everything


async def test_the_audit_is_read_page_by_page(ledger: Ledger) -> None:
    """Entries come newest first, narrowed by what is asked for, from any entry on in both directions."""
    ana = Person(subject="0001", name="ana@contoso.com", scopes=["operate"])
    made = [await ledger.sign_ins.begin(ana, lasts=HOUR, actor=SOMEBODY) for _ in range(3)]
    await ledger.sign_ins.end(made[0].id, actor=SOMEBODY)

    everything = await ledger.audit.page(Wanted(), most=10)
    signed_in = await ledger.audit.page(Wanted(action="console.sign_in"), most=2)
    older = await ledger.audit.page(Wanted(action="console.", after=signed_in[-1].id), most=10)
    newer = await ledger.audit.page(Wanted(before=signed_in[-1].id), most=10)

    assert ["console.sign_out", *["console.sign_in"] * 3] == [each.action for each in everything]
    assert [made[2].id, made[1].id] == [each.target for each in signed_in]
    assert [made[0].id] == [each.target for each in older]
    assert [made[2].id, made[0].id] == [each.target for each in newer]
    assert await ledger.audit.page(Wanted(action="console_"), most=10) == []


async def test_an_empty_ledger_has_figures_too(ledger: Ledger) -> None:
    """Volumes and trends of nothing are nothing, for one application and for all."""
    now = datetime.now(UTC)
    for application in (None, "shop"):
        volume = await ledger.volumes.volume(since=now - HOUR, application=application)
        assert (volume.states, volume.routes, volume.diagnoses, volume.not_reached) == ([], [], [], [])
    assert await ledger.trends.attempts(["a"], since=now - HOUR, slot=HOUR) == {"a": {}}
