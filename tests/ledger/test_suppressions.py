"""Suppressions in the ledger: who is named, what waits is stopped, and what rules make of failures."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from service.ledger import Ledger
from service.ledger.audit import Actor
from service.ledger.claiming import Claimed
from service.ledger.engine import open_engine, transaction
from service.ledger.states import Status
from service.ledger.suppression_rules import NewRule
from service.ledger.suppressions import Added, Filters, NewSuppression, Suppression
from service.local.servers import LocalPostgres
from tests.builders import a_closing, a_submission, claim
from tests.waiting import eventually

ACTOR = Actor(application="tests", id="key_x", address="127.0.0.1", request_id="req_x")
EVERYBODY = ""


@pytest.fixture
async def ledger(database_url: str) -> AsyncIterator[Ledger]:
    """A ledger on a database of this test's own."""
    opened = Ledger.open(database_url, name="test", connections=5)
    yield opened
    await opened.dispose()


def error_of(entry: Suppression) -> Mapping[str, Any]:
    return {"code": entry.code, "diagnosis": {"id": f"postroom.{entry.code}"}}


def an_entry(address: str, *, application: str = "tests", **changes: Any) -> NewSuppression:
    values: dict[str, Any] = {
        "reason": "unsubscribed",
        "source": "manual",
        "created_by": "key_x",
        "expires_at": None,
    }
    return NewSuppression(application=application, address=address, **(values | changes))


async def suppress(ledger: Ledger, *addresses: str, **changes: Any) -> tuple[list[Added], int]:
    return await ledger.suppressions.add([an_entry(each, **changes) for each in addresses], ACTOR, error_of)


async def accepted(ledger: Ledger, **changes: Any) -> str:
    submission = a_submission(**changes)
    await ledger.accept(submission)
    return submission.messages[0].id


async def states(ledger: Ledger, message_id: str) -> list[tuple[str, str, str | None]]:
    view = await ledger.message(message_id, application=None)
    assert view is not None
    return [(each.email, each.status, each.reason) for each in view.recipients]


async def status(ledger: Ledger, message_id: str) -> str:
    return (await states(ledger, message_id))[0][1]


async def failed(ledger: Ledger, to: str, *, enhanced: str = "5.1.1", **changes: Any) -> str:
    """Let a message to `to` be refused; return its id."""
    message_id = await accepted(ledger, to=(to,), **changes)
    (claimed,) = (await claim(ledger)).claimed
    await ledger.close(refused(claimed, enhanced))
    return message_id


def refused(claimed: Claimed, enhanced: str) -> Any:
    closing = a_closing(claimed, Status.FAILED)
    reply = {"code": 550, "enhanced": enhanced, "text": "no"}
    error = {"code": "x", "diagnosis": {"id": f"exo.{enhanced}"}}
    verdicts = tuple(
        type(each)(
            **{name: getattr(each, name) for name in each.__slots__} | {"reply": reply, "error": error}
        )
        for each in closing.recipients
    )
    return a_closing(claimed, Status.FAILED, recipients=verdicts)


async def add_rule(ledger: Ledger, *, application: str = "tests", **changes: Any) -> str:
    values: dict[str, Any] = {
        "enhanced": ("5.1.1",),
        "diagnoses": (),
        "failures": 1,
        "within": timedelta(days=30),
        "lasts": None,
        "created_by": "key_x",
    }
    rule = await ledger.suppressions.add_rule(NewRule(application=application, **(values | changes)), ACTOR)
    return rule.id


async def judged(ledger: Ledger) -> None:
    """Let the rules look at everything that has happened."""
    while await ledger.suppressions.judge(limit=1000) is not None:
        pass


async def rules_found(ledger: Ledger, address: str, *, application: str = "tests") -> Suppression:
    """Wait until the rules have an entry for this address; a transaction of another test's may hold the feed back."""

    async def there() -> Suppression | None:
        await ledger.suppressions.judge(limit=1000)
        return (await ledger.suppressions.among(application, [address])).get(address)

    return await eventually(there)


# -- who is named -----------------------------------------------------------------------------


async def test_an_entry_names_its_address_alone(ledger: Ledger) -> None:
    """Other addresses of the domain get their mail, and so does everybody of other applications."""
    await suppress(ledger, "ana@example.com")

    found = await ledger.suppressions.among("tests", ["ana@example.com", "bo@example.com"])
    others = await ledger.suppressions.among("others", ["ana@example.com"])

    assert found.keys() == {"ana@example.com"}
    assert others == {}


async def test_a_domain_names_all_its_addresses_and_no_other_domain(ledger: Ledger) -> None:
    """`@example.com` is every address of exactly this domain: not of a subdomain, nor of a longer name."""
    await suppress(ledger, "@example.com")

    found = await ledger.suppressions.among(
        "tests", ["ana@example.com", "ana@sub.example.com", "ana@myexample.com"]
    )

    assert found.keys() == {"ana@example.com"}


async def test_the_nearest_entry_speaks(ledger: Ledger) -> None:
    """The address comes before the domain, the application's own before everybody's."""
    for reason, address, application in (
        ("own address", "ana@example.com", "tests"),
        ("everybody's address", "ana@example.com", EVERYBODY),
        ("everybody's address", "bo@example.com", EVERYBODY),
        ("own domain", "@example.com", "tests"),
        ("everybody's domain", "@example.com", EVERYBODY),
    ):
        await suppress(ledger, address, application=application, reason=reason)

    keys = ["ana@example.com", "bo@example.com", "cy@example.com"]
    mine = await ledger.suppressions.among("tests", keys)
    theirs = await ledger.suppressions.among("others", keys)

    assert [mine[key].reason for key in keys] == ["own address", "everybody's address", "own domain"]
    assert [theirs[key].reason for key in keys] == [
        "everybody's address",
        "everybody's address",
        "everybody's domain",
    ]


async def test_an_entry_that_is_over_names_nobody(ledger: Ledger) -> None:
    """After `expires_at` the address gets mail again."""
    await suppress(ledger, "ana@example.com", expires_at=datetime.now(UTC) - timedelta(seconds=1))

    assert await ledger.suppressions.among("tests", ["ana@example.com"]) == {}


async def test_the_same_address_again_changes_the_entry(ledger: Ledger) -> None:
    """There is one entry for an address and an application: its id stays, its reason and end are the new ones."""
    (first,), _ = await suppress(ledger, "ana@example.com", expires_at=datetime.now(UTC) + timedelta(days=1))
    (second,), _ = await suppress(ledger, "ana@example.com", reason="asked by telephone")

    assert (first.new, second.new) == (True, False)
    assert second.suppression.id == first.suppression.id
    assert (second.suppression.reason, second.suppression.expires_at) == ("asked by telephone", None)


async def test_entries_come_back_in_the_order_of_the_request(ledger: Ledger) -> None:
    """Whatever order they are written in, an answer can be laid beside its question."""
    addresses = [f"{name}@example.com" for name in ("zoe", "ana", "moe")]

    added, _ = await suppress(ledger, *addresses)

    assert [each.suppression.address for each in added] == addresses


async def test_two_crossed_additions_do_not_wait_for_each_other(ledger: Ledger) -> None:
    """The same addresses in opposite order at the same time end without a deadlock."""
    addresses = [f"a{n}@example.com" for n in range(50)]

    await asyncio.gather(
        *(suppress(ledger, *each) for each in (addresses, addresses[::-1], addresses, addresses[::-1]))
    )

    found = await ledger.suppressions.listed(Filters(sees="tests"), after=None, before=None, most=100)
    assert len(found) == 50


# -- what waits -------------------------------------------------------------------------------


async def test_what_waits_for_the_address_is_stopped(ledger: Ledger) -> None:
    """The recipient that asked for no mail is suppressed, with its reason; the one beside it is sent to."""
    message_id = await accepted(ledger, to=("ana@example.com", "bo@example.com"))

    _, stopped = await suppress(ledger, "ana@example.com")

    (claimed,) = (await claim(ledger)).claimed
    assert stopped == 1
    assert [each.email for each in claimed.recipients] == ["bo@example.com"]
    assert await states(ledger, message_id) == [
        ("ana@example.com", "suppressed", "suppressed_manual"),
        ("bo@example.com", "sending", "claimed"),
    ]


async def test_a_delivery_without_anybody_left_is_over(ledger: Ledger) -> None:
    """Where all of its recipients are suppressed, nothing is claimed, and the message has an end."""
    message_id = await accepted(ledger, to=("ana@example.com", "bo@example.com"))

    await suppress(ledger, "@example.com")

    assert (await claim(ledger)).claimed == ()
    assert [each[1] for each in await states(ledger, message_id)] == ["suppressed", "suppressed"]


async def test_the_move_names_who_made_it(ledger: Ledger) -> None:
    """The event has the key that acted, and the audit has the entry."""
    message_id = await accepted(ledger)

    await suppress(ledger, "ana@example.com")

    event = (await ledger.events(message_id))[-1]
    assert (event.to_status, event.actor, event.diagnosis) == (
        "suppressed",
        "key_x",
        "postroom.suppressed_manual",
    )


async def test_other_applications_mail_goes_on(ledger: Ledger) -> None:
    """An application's entry stops its own mail; everybody's entry stops all."""
    mine = await accepted(ledger, application="tests")
    theirs = await accepted(ledger, application="others")

    await suppress(ledger, "ana@example.com")
    assert (await status(ledger, mine), await status(ledger, theirs)) == ("suppressed", "queued")

    await suppress(ledger, "ana@example.com", application=EVERYBODY)
    assert await status(ledger, theirs) == "suppressed"


async def test_what_is_in_hand_takes_its_course_and_is_stopped_when_it_comes_back(ledger: Ledger) -> None:
    """A recipient in an open attempt is let go; deferred by it, it is not tried again."""
    message_id = await accepted(ledger)
    (claimed,) = (await claim(ledger)).claimed

    _, stopped = await suppress(ledger, "ana@example.com")
    assert (stopped, await status(ledger, message_id)) == (0, "sending")

    await ledger.close(a_closing(claimed, Status.DEFERRED, due_in=600.0))
    assert await ledger.suppressions.sweep(error_of) == 1
    assert await status(ledger, message_id) == "suppressed"


async def test_the_sweep_looks_again_until_nothing_is_open(
    ledger: Ledger, shared_postgres: LocalPostgres, database_url: str
) -> None:
    """An entry with something in hand is due again; one with nothing open is done after its first seconds."""

    def sweep_at() -> Any:
        (row,) = shared_postgres.execute(
            "SELECT sweep_at, clock_timestamp() AS now FROM suppressions",
            database=database_url.rsplit("/", 1)[1],
        )
        return row["sweep_at"]

    def an_hour_later() -> None:
        shared_postgres.execute(
            "UPDATE suppressions SET updated_at = clock_timestamp() - interval '1 hour', "
            "sweep_at = clock_timestamp()",
            database=database_url.rsplit("/", 1)[1],
        )

    await accepted(ledger)
    (claimed,) = (await claim(ledger)).claimed
    await suppress(ledger, "ana@example.com")
    an_hour_later()

    assert await ledger.suppressions.sweep(error_of) == 0
    assert sweep_at() is not None
    assert await ledger.suppressions.sweep(error_of) is None

    await ledger.close(a_closing(claimed, Status.SENT))
    an_hour_later()
    assert await ledger.suppressions.sweep(error_of) == 0
    assert sweep_at() is None


async def test_a_message_that_was_accepted_a_moment_later_is_swept(ledger: Ledger) -> None:
    """A process that did not know of the entry yet accepted it as queued: the sweep finds it."""
    await suppress(ledger, "@example.com")
    late = await accepted(ledger)

    assert await ledger.suppressions.sweep(error_of) == 1
    assert await status(ledger, late) == "suppressed"


async def test_many_messages_are_stopped_page_by_page(ledger: Ledger) -> None:
    """More messages than one step looks at are stopped all the same, other recipients among them or not."""
    ids = [await accepted(ledger, to=("ana@example.com", "bo@example.org")) for _ in range(205)]

    _, stopped = await suppress(ledger, "@example.com")
    swept = 0
    while (more := await ledger.suppressions.sweep(error_of)) is not None:
        swept += more

    assert stopped + swept == 205
    others = [(await states(ledger, ids[n]))[1][1] for n in (0, 100, 204)]
    assert others == ["queued", "queued", "queued"]


async def test_what_was_stopped_stays_stopped_when_the_entry_is_lifted(ledger: Ledger) -> None:
    """Lifting counts for new messages; nothing that was given up is sent behind anybody's back."""
    message_id = await accepted(ledger)
    (added,), _ = await suppress(ledger, "ana@example.com")

    assert await ledger.suppressions.remove(added.suppression, ACTOR) is True
    assert await ledger.suppressions.remove(added.suppression, ACTOR) is False

    assert await status(ledger, message_id) == "suppressed"
    assert await ledger.suppressions.among("tests", ["ana@example.com"]) == {}


# -- rules ------------------------------------------------------------------------------------


async def test_without_a_rule_nobody_is_suppressed(ledger: Ledger) -> None:
    """A failure alone makes no entry, and the feed is not even read."""
    await failed(ledger, "ana@example.com")

    assert await ledger.suppressions.judge(limit=1000) is None
    assert await ledger.suppressions.among("tests", ["ana@example.com"]) == {}


async def test_a_rule_suppresses_what_fails_as_it_says(ledger: Ledger) -> None:
    """The entry names the rule, the message and the status; another status makes none."""
    rule_id = await add_rule(ledger)
    await failed(ledger, "bo@example.com", enhanced="5.7.1")
    message_id = await failed(ledger, "Ana@Example.com")

    entry = await rules_found(ledger, "ana@example.com")

    assert (entry.source, entry.rule_id, entry.message_id) == ("rule", rule_id, message_id)
    assert (entry.reason, entry.expires_at) == ("rule: 5.1.1", None)
    assert await ledger.suppressions.among("tests", ["bo@example.com"]) == {}


async def test_a_rule_by_diagnosis_and_with_an_end(ledger: Ledger) -> None:
    """A rule may name diagnoses of the catalogue, and its entries may last for a while."""
    await add_rule(ledger, enhanced=(), diagnoses=("exo.5.1.10",), lasts=timedelta(days=90))
    await failed(ledger, "ana@example.com", enhanced="5.1.10")

    entry = await rules_found(ledger, "ana@example.com")

    assert entry.reason == "rule: exo.5.1.10"
    assert entry.expires_at is not None
    assert timedelta(days=89) < entry.expires_at - datetime.now(UTC) <= timedelta(days=90)


async def test_a_rule_counts_within_its_span(
    ledger: Ledger, shared_postgres: LocalPostgres, database_url: str
) -> None:
    """Two failures within 30 days make an entry; a failure of two months ago does not count."""
    await add_rule(ledger, failures=2)
    await failed(ledger, "ana@example.com")
    await failed(ledger, "bo@example.com")
    shared_postgres.execute(
        "UPDATE events SET created_at = created_at - interval '60 days'",
        database=database_url.rsplit("/", 1)[1],
    )
    await failed(ledger, "cy@example.com")
    await failed(ledger, "cy@example.com")
    await failed(ledger, "ana@example.com")

    entry = await rules_found(ledger, "cy@example.com")
    await judged(ledger)

    assert entry.reason == "rule: 5.1.1 twice within 30 days"
    assert (await ledger.suppressions.among("tests", ["ana@example.com", "cy@example.com"])).keys() == {
        "cy@example.com"
    }


async def test_a_rule_does_not_speak_of_what_failed_before_it(ledger: Ledger) -> None:
    """Old failures alone suppress nobody; they count when the next one comes."""
    await failed(ledger, "ana@example.com")
    await failed(ledger, "bo@example.com")
    await add_rule(ledger, failures=2)
    await failed(ledger, "bo@example.com")

    await rules_found(ledger, "bo@example.com")

    assert await ledger.suppressions.among("tests", ["ana@example.com"]) == {}


async def test_a_rule_of_an_application_is_nobody_elses(ledger: Ledger) -> None:
    """Failures of another application are not looked at, and the entry stops the own mail alone."""
    await add_rule(ledger)
    await failed(ledger, "bo@example.com", application="others")
    await failed(ledger, "ana@example.com")

    await rules_found(ledger, "ana@example.com")
    await judged(ledger)

    assert await ledger.suppressions.among("others", ["ana@example.com", "bo@example.com"]) == {}
    assert await ledger.suppressions.among("tests", ["bo@example.com"]) == {}


async def test_a_rule_of_everybody_counts_over_all_applications(ledger: Ledger) -> None:
    """One failure at each of two applications makes two, also where one of them sends for the first time."""
    await failed(ledger, "x@example.com", application="first", enhanced="4.0.0")
    await add_rule(ledger, application=EVERYBODY, failures=2)
    await failed(ledger, "ana@example.com", application="first")
    await failed(ledger, "ana@example.com", application="newcomer")

    entry = await rules_found(ledger, "ana@example.com", application="a third one")

    assert (entry.application, entry.reason) == (EVERYBODY, "rule: 5.1.1 twice within 30 days")


async def test_test_mail_makes_no_entries(
    ledger: Ledger, shared_postgres: LocalPostgres, database_url: str
) -> None:
    """A rehearsed failure in the sandbox says nothing about a person's mailbox."""
    await add_rule(ledger)
    await failed(ledger, "ana@example.com")
    shared_postgres.execute("UPDATE messages SET test = true", database=database_url.rsplit("/", 1)[1])
    await failed(ledger, "bo@example.com")

    await rules_found(ledger, "bo@example.com")

    assert await ledger.suppressions.among("tests", ["ana@example.com"]) == {}


async def test_a_rule_leaves_an_entry_by_hand_alone(ledger: Ledger) -> None:
    """What a person wrote stays as it is while it counts."""
    await add_rule(ledger)
    message_id = await accepted(ledger)
    (claimed,) = (await claim(ledger)).claimed
    await suppress(ledger, "ana@example.com", reason="asked by telephone")
    await ledger.close(refused(claimed, "5.1.1"))
    await failed(ledger, "bo@example.com")

    await rules_found(ledger, "bo@example.com")

    entry = (await ledger.suppressions.among("tests", ["ana@example.com"]))["ana@example.com"]
    assert (await status(ledger, message_id), entry.reason) == ("failed", "asked by telephone")


async def test_a_rule_that_is_gone_looks_at_nothing(ledger: Ledger) -> None:
    """Its entries stay; without another rule the feed is followed no longer."""
    rule_id = await add_rule(ledger)
    await failed(ledger, "ana@example.com")
    await rules_found(ledger, "ana@example.com")
    rule = await ledger.suppressions.rule(rule_id, sees="tests")
    assert rule is not None

    assert await ledger.suppressions.remove_rule(rule, ACTOR) is True
    await failed(ledger, "bo@example.com")

    assert await ledger.suppressions.judge(limit=1000) is None
    assert (await ledger.suppressions.among("tests", ["ana@example.com", "bo@example.com"])).keys() == {
        "ana@example.com"
    }


async def test_each_failure_is_judged_once(ledger: Ledger) -> None:
    """Four workers at the same time make one entry, and a lifted one does not come back by itself."""
    await add_rule(ledger)
    await failed(ledger, "ana@example.com")

    await asyncio.gather(*(rules_found(ledger, "ana@example.com") for _ in range(4)))
    entry = (await ledger.suppressions.among("tests", ["ana@example.com"]))["ana@example.com"]
    await ledger.suppressions.remove(entry, ACTOR)
    await judged(ledger)

    assert await ledger.suppressions.among("tests", ["ana@example.com"]) == {}


async def test_acts_are_audited(ledger: Ledger, database_url: str) -> None:
    """Adding, changing and lifting an entry, making and taking away a rule: each names who did it."""
    (added,), _ = await suppress(ledger, "ana@example.com")
    await suppress(ledger, "ana@example.com")
    await ledger.suppressions.remove(added.suppression, ACTOR)
    rule = await ledger.suppressions.rule(await add_rule(ledger), sees=None)
    assert rule is not None
    await ledger.suppressions.remove_rule(rule, ACTOR)

    engine = open_engine(database_url, name="test", size=1)
    async with transaction(engine) as db:
        acts = (await db.execute(text("SELECT action, actor FROM audit ORDER BY id"))).all()
    await engine.dispose()

    assert [tuple(act) for act in acts] == [
        (action, "key_x")
        for action in (
            "suppression.create",
            "suppression.update",
            "suppression.delete",
            "suppression_rule.create",
            "suppression_rule.delete",
        )
    ]
