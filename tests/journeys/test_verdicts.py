"""What the peer says decides who waits: the lane, the sender, the tenant's external mail, or one message.

Times: `SLOW` rests for as long as in production, so that what must not happen would not happen within
any test; `QUICK` (tests/house.py) shrinks each rest to seconds, so that probes come by. Nothing here asks
how quick something was; waits have a least length only.
"""

from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from service.ledger.stops import REFUSALS
from tests.house import House, a_house, copies, smarthost
from tests.peer import ScriptedPeer
from tests.waiting import eventually

#: Retries and rests as in production.
SLOW = {"retry": {"first": "10m", "factor": 2, "cap": "15m"}}

#: The time between the end of an attempt in PostgreSQL and the pause that it caused, generously.
_SAME_INSTANT = 0.05

PASSWORD = "correct horse battery staple"
SEND_AS_DENIED = (
    "554 5.2.252 SendAsDenied; noreply@contoso.com not allowed to send as billing@contoso.com; "
    "STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied; "
    "[Hostname=VI1PR01MB0001.eurprd01.prod.outlook.com]"
)
EXTERNAL_SPENT = (
    "550 5.7.233 Your message can't be sent because your tenant exceeded its daily limit for sending email "
    "to external recipients (tenant external recipient rate limit)"
)


def submission_peer(**changes: Any) -> ScriptedPeer:
    """A peer that looks like client submission: STARTTLS, AUTH LOGIN."""
    return ScriptedPeer(
        tls=True,
        logins={"noreply@contoso.com": PASSWORD},
        certificate_names=("smtp.office365.com",),
        **changes,
    )


def submission(peer: ScriptedPeer, **changes: Any) -> dict[str, Any]:
    """A client submission route to it, with one mailbox that may send as billing@."""
    return {
        "name": "noreply",
        "kind": "client_submission",
        "connect_to": f"{peer.host}:{peer.port}",
        "ca_file": str(peer.ca_file),
        "mailboxes": [
            {
                "address": "noreply@contoso.com",
                "login": {"method": "basic", "password": PASSWORD},
                "send_as": ["billing@contoso.com"],
            }
        ],
        **changes,
    }


async def attempts_of(house: House, ids: list[str]) -> list[dict[str, Any]]:
    """All attempts of these messages, in the order in which they began."""
    found = [attempt for message_id in ids for attempt in await house.attempts(message_id)]
    return sorted(found, key=lambda attempt: moment(attempt["started_at"]))


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def mails_from(peer: ScriptedPeer, sender: str) -> int:
    """How many transactions this reverse-path began."""
    return sum(transaction.mail == sender for transaction in peer.transactions)


async def reason_to_wait(house: House, message_id: str) -> str | None:
    """Why it rests, as the message says it; a reading of its lane may be a second old."""
    because = (await house.message(message_id))["expected_because"]
    return next((reason for reason in because if "rests" in reason), None)


async def until_tried(house: House, message_id: str) -> dict[str, Any]:
    """Wait until the first attempt is judged."""
    return await house.in_state(message_id, "deferred", "failed", "sent")


@pytest.mark.parametrize(
    ("phase", "reply", "rest"),
    [
        pytest.param(
            "auth",
            "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. Visit "
            "https://aka.ms/smtp_auth_disabled for more information.",
            1.0,
            id="an administrator's error: 15 minutes",
        ),
        pytest.param(
            "rcpt",
            "451 4.7.500 Server busy. Please try again later from [203.0.113.10]. (S77714)",
            0.3,
            id="a throttle: 5 minutes",
        ),
        pytest.param(
            "dot",
            "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; x",
            4.0,
            id="a window, told after the dot as 5yz: 1 hour",
        ),
    ],
)
async def test_a_lane_in_trouble_rests_and_is_probed_by_one_at_a_time(
    database_url: str, redis_url: str, tmp_path: Path, phase: str, reply: str, rest: float
) -> None:
    """Two workers, three messages: one probe after another, never two; then each goes once, and none lost a try."""
    async with submission_peer() as peer:
        peer.on(phase, reply=reply)
        async with a_house(
            database_url, redis_url, routes=[submission(peer)], folder=tmp_path, workers=2
        ) as house:
            ids = [await house.submit()]
            refused = await until_tried(house, ids[0])
            ids += [await house.submit(to=f"user{n}@example.com") for n in range(2)]
            waiting = [(await house.message(message_id))["status"] for message_id in ids]
            # Another probe is refused, and only then the peer changes its mind.
            seen = len(peer.logins_tried)
            await eventually(lambda: len(peer.logins_tried) > seen, within=60.0)
            peer.behave()
            for message_id in ids:
                await house.in_state(message_id, "sent")
            tried = await attempts_of(house, ids)

    assert refused["status"] == "deferred"
    assert refused["last_error"]["retryable"] is True
    assert refused["last_error"]["diagnosis"]["remedy"]
    assert set(waiting) <= {"queued", "sending", "deferred"}
    assert sum(len(taken.rcpts) for taken in peer.taken) == 3
    assert all(copies(peer, recipient) == 1 for taken in peer.taken for recipient in taken.rcpts)
    assert {attempt["outcome"] for attempt in tried} == {"deferred", "sent"}
    probes = [attempt for attempt in tried if attempt["outcome"] == "deferred"]
    first_sent = next(attempt for attempt in tried if attempt["outcome"] == "sent")
    for before, after in pairwise([*probes, first_sent]):
        waited = moment(after["started_at"]) - moment(before["ended_at"])
        assert waited.total_seconds() >= rest - _SAME_INSTANT


async def refuse_billing(house: House) -> list[dict[str, Any]]:
    """Send as billing@ until it rests; return the messages, which have failed."""
    return [
        await house.in_state(
            await house.submit(**{"from": "billing@contoso.com"}, to=f"bill-first{n}@example.com"), "failed"
        )
        for n in range(REFUSALS)
    ]


async def test_a_refused_sender_fails_thrice_and_stops_there(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """SendAsDenied fails its message with the remedy; after three in a row no more are even tried, others go."""
    async with submission_peer() as peer:
        peer.on("dot", reply=SEND_AS_DENIED, when=lambda rcpts: "bill" in rcpts)
        async with a_house(
            database_url, redis_url, routes=[submission(peer)], folder=tmp_path, dispatch=SLOW, workers=2
        ) as house:
            refused, *_ = await refuse_billing(house)
            stopped = [
                await house.submit(**{"from": "billing@contoso.com"}, to=f"bill{n}@example.com")
                for n in range(1, 4)
            ]
            others = [await house.submit(to=f"user{n}@example.com") for n in range(4)]
            for message_id in others:
                await house.in_state(message_id, "sent")
            waiting = [await house.message(message_id) for message_id in stopped]
            because = await eventually(lambda: reason_to_wait(house, stopped[0]))

    error = refused["last_error"]
    assert (error["code"], error["retryable"], error["phase"]) == ("send_as_denied", False, "reply")
    assert any(
        "billing@contoso.com" in step and "noreply@contoso.com" in step
        for step in error["diagnosis"]["remedy"]
    )
    assert mails_from(peer, "billing@contoso.com") == REFUSALS
    assert mails_from(peer, "noreply@contoso.com") == 4
    assert [(shown["status"], shown["attempts"]) for shown in waiting] == [("queued", 0)] * 3
    assert "may not send as billing@contoso.com" in because


async def test_a_stopped_sender_is_probed_alone_and_goes_on(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """After the pause one message tries the sender; when it is taken, what waited goes, each once."""
    async with submission_peer() as peer:
        denied = peer.on("dot", reply=SEND_AS_DENIED, when=lambda rcpts: "bill" in rcpts)
        async with a_house(
            database_url, redis_url, routes=[submission(peer)], folder=tmp_path, workers=2
        ) as house:
            first = [str(each["id"]) for each in await refuse_billing(house)]
            ids = [
                await house.submit(**{"from": "billing@contoso.com"}, to=f"bill{n}@example.com")
                for n in range(1, 4)
            ]
            await eventually(lambda: denied.acted > REFUSALS, within=60.0)  # a probe is refused
            peer.behave()
            ended = [await house.in_state(message_id, "sent", "failed") for message_id in ids]
            again = await house.submit(**{"from": "billing@contoso.com"}, to="bill9@example.com")
            await house.in_state(again, "sent")
            tried = await attempts_of(house, [*first, *ids])

    # Each refused probe fails its own message, and no more than that one.
    failed = [attempt for attempt in tried if attempt["outcome"] == "failed"]
    assert len(failed) == denied.acted
    assert [shown["status"] for shown in ended].count("failed") == denied.acted - REFUSALS
    assert [shown["status"] for shown in ended].count("sent") >= 1
    first_sent = next(attempt for attempt in tried if attempt["outcome"] == "sent")
    for before, after in pairwise([*failed[REFUSALS - 1 :], first_sent]):
        waited = moment(after["started_at"]) - moment(before["ended_at"])
        assert waited.total_seconds() >= 1.0 - _SAME_INSTANT


async def test_a_spent_external_budget_leaves_internal_mail_flowing(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """5.7.233: external recipients wait, no second one is tried, colleagues get their mail."""
    async with submission_peer() as peer:
        peer.on("dot", reply=EXTERNAL_SPENT, when=lambda rcpts: "@example.com" in rcpts)
        async with a_house(
            database_url,
            redis_url,
            routes=[submission(peer)],
            folder=tmp_path,
            dispatch=SLOW,
            workers=2,
            settings_changes={"organization": {"accepted_domains": ["contoso.com"], "licences": 250}},
        ) as house:
            refused = await house.in_state(await house.submit(to="ana@example.com"), "deferred")
            external = [await house.submit(to=f"user{n}@example.com") for n in range(3)]
            internal = [await house.submit(to=f"user{n}@contoso.com") for n in range(3)]
            for message_id in internal:
                await house.in_state(message_id, "sent")
            waiting = [await house.message(message_id) for message_id in external]

    assert refused["last_error"]["retryable"] is True
    assert refused["last_error"]["reply"]["code"] == 550
    assert [shown["status"] for shown in waiting] == ["queued"] * 3
    assert (
        sum(any("@example.com" in path for path, _ in transaction.rcpts) for transaction in peer.transactions)
        == 1
    )


async def test_surplus_recipients_go_at_once(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """452 4.5.3 beyond the second: the rest follows in transactions of its own, minutes before any retry is due."""
    async with ScriptedPeer() as peer:
        peer.on(
            "rcpt",
            reply="452 4.5.3 Too many recipients",
            when=lambda _: len(peer.transactions[-1].accepted) >= 2,
        )
        async with a_house(
            database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path, dispatch=SLOW
        ) as house:
            to = [f"user{n}@example.com" for n in range(5)]
            message_id = await house.submit(to=to)
            shown = await house.in_state(message_id, "sent")
            tried = await house.attempts(message_id)

    assert [copies(peer, recipient) for recipient in to] == [1] * 5
    assert [len(taken.rcpts) for taken in peer.taken] == [2, 2, 1]
    assert [attempt["outcome"] for attempt in tried] == ["partial", "partial", "sent"]
    assert shown["last_error"] is None


async def test_too_many_for_anybody_is_halved_at_once(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """A limit that is told after the dot: the delivery is halved until it fits, and each gets one copy."""
    async with ScriptedPeer() as peer:
        peer.on(
            "dot",
            reply="550 5.5.3 too many recipients (RESOLVER.ADR.RecipLimit)",
            when=lambda rcpts: len(rcpts.split()) > 2,
        )
        async with a_house(
            database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path, dispatch=SLOW
        ) as house:
            to = [f"user{n}@example.com" for n in range(7)]
            message_id = await house.submit(to=to)
            await house.in_state(message_id, "sent")

    assert [copies(peer, recipient) for recipient in to] == [1] * 7
    assert max(len(taken.rcpts) for taken in peer.taken) <= 2


async def test_a_late_refusal_names_the_peers_machine(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """The host, the time and the session in Microsoft's trailer are kept with the attempt, for its support."""
    refusal = (
        "550 5.7.703 Your message can't be delivered because messages to x@example.com are blocked by your "
        "organization using Tenant Allow Block List. "
        "[AM0PR01MB0001.eurprd01.prod.exchangelabs.com 2026-11-24T10:11:12.345Z 08DE1A2B3C4D5E6F]"
    )
    async with ScriptedPeer() as peer:
        peer.on("dot", reply=refusal)
        async with a_house(database_url, redis_url, routes=[smarthost(peer)], folder=tmp_path) as house:
            message_id = await house.submit(to=["x@example.com", "y@example.com"])
            shown = await house.in_state(message_id, "failed")
            (attempt,) = await house.attempts(message_id)

    assert [recipient["status"] for recipient in shown["recipients"]] == ["failed", "failed"]
    assert attempt["peer_trailer"]["host"] == "AM0PR01MB0001.eurprd01.prod.exchangelabs.com"
    assert "08DE1A2B3C4D5E6F" in attempt["peer_trailer"].values()


async def test_remedies_call_things_by_their_names(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """The address that the peer sees, learnt from its EHLO answer, stands in the remedy of a banned address."""
    refusal = (
        "550 5.7.606 Access denied, banned sending IP [127.0.0.1]. To request removal from this list please visit "
        "https://sender.office.com/ and follow the directions. AS(1430)"
    )
    async with ScriptedPeer() as peer:
        peer.on("rcpt", reply=refusal)
        route = {
            "name": "own-domain",
            "kind": "direct_send",
            "host": "contoso-com.mail.protection.outlook.com",
            "connect_to": f"{peer.host}:{peer.port}",
        }
        async with a_house(database_url, redis_url, routes=[route], folder=tmp_path, dispatch=SLOW) as house:
            shown = await house.in_state(await house.submit(to="ana@contoso.com"), "deferred")

    diagnosis = shown["last_error"]["diagnosis"]
    told = " ".join([diagnosis["title"], diagnosis["explanation"], *diagnosis["remedy"]])
    assert "127.0.0.1" in told
    assert "<address>" not in told
