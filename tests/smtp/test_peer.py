"""The scripted peer itself: what the tests of other rooms rely on."""

import asyncio

import pytest

from tests.peer import ScriptedPeer
from tests.smtp.builders import ANA, BEN, CONTENT, SHORT, a_session, an_envelope, send
from tests.waiting import eventually


async def test_a_message_is_written_down_before_it_is_answered() -> None:
    """What the peer took is known while its answer still waits, so a killed client cannot hide it."""
    answer = asyncio.Event()
    async with ScriptedPeer() as peer, a_session(peer) as session:
        peer.on("dot", until=answer)
        sending = asyncio.create_task(send(session))
        await eventually(lambda: peer.transactions and peer.transactions[0].dot)
        assert not sending.done()
        answer.set()
        report = await sending

    (taken,) = peer.taken
    assert report.final is not None
    assert report.replied_at is not None
    assert taken.at <= report.replied_at
    assert taken.replied == str(report.final)


@pytest.mark.parametrize(
    ("script", "taken"),
    [
        ({}, 1),
        ({"reply": "250 OK"}, 1),
        ({"reply": "451 4.3.0 later"}, 0),
        ({"reply": "554 5.6.0 no"}, 0),
        ({"then": "close"}, 1),
        ({"then": "close", "take": False}, 0),
        ({"reply": "554 5.6.0 no", "take": True}, 1),
    ],
)
async def test_who_is_responsible_for_a_message(script: dict[str, object], taken: int) -> None:
    """A refused message is not taken, one that is answered by silence is, and a rule may say otherwise."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        peer.on("dot", **script)  # type: ignore[arg-type]  # words of a rule
        await send(session)

    assert len(peer.taken) == taken


async def test_rules_count_and_the_newest_wins() -> None:
    """`times` bounds a rule, `when` looks at its argument, and newer rules hide older ones."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        peer.on("rcpt", reply="450 4.2.0 older")
        peer.on("rcpt", reply="550 5.1.1 newer", times=1, when=lambda path: path == str(ANA))
        first = await send(session, an_envelope(ANA, BEN))
        second = await send(session, an_envelope(ANA, BEN))
        peer.behave()
        third = await send(session, an_envelope(ANA, BEN))

    assert [reply.code for reply in first.recipients.values()] == [550, 450]
    assert [reply.code for reply in second.recipients.values()] == [450, 450]
    assert [reply.code for reply in third.recipients.values()] == [250, 250]


async def test_transactions_have_every_reply() -> None:
    """Each MAIL to its end is kept with the replies that were given, also when nothing was taken."""
    async with ScriptedPeer() as peer, a_session(peer) as session:
        peer.on("rcpt", reply="550 5.1.1 no", when=lambda path: path == str(BEN))
        await send(session, an_envelope(ANA, BEN))
        peer.on("mail", then="close")
        await send(session)

    first, second = peer.transactions
    assert first.rcpts == [(str(ANA), "250 2.1.5 Recipient OK"), (str(BEN), "550 5.1.1 no")]
    assert (first.octets, first.ended, first.accepted) == (CONTENT, "dot", (str(ANA),))
    assert (second.mail_reply, second.ended, second.dot) == (None, "lost", False)


async def test_connections_are_counted() -> None:
    """How many are open, how many were open at a time, and how many there ever were."""
    async with ScriptedPeer() as peer:
        async with a_session(peer), a_session(peer):
            assert peer.connections == 2
        await eventually(lambda: peer.connections == 0)
        async with a_session(peer):
            pass

    assert (peer.max_connections, peer.sessions) == (2, 3)


def test_a_phase_that_nothing_happens_in_is_refused() -> None:
    """A misspelt phase is an error, not a rule that never acts."""
    with pytest.raises(ValueError, match="nothing can be scripted"):
        ScriptedPeer().on("reply")


async def test_a_stopped_peer_refuses_and_lets_go() -> None:
    """Stopping ends stalled dialogues too."""
    async with ScriptedPeer() as peer, a_session(peer, dot=SHORT) as session:
        peer.on("dot", then="stall")
        await send(session)
        await peer.stop()

    assert peer.connections == 0
