"""What a mailbox may send, counted as Microsoft counts it."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from service.sandbox import Sandbox, SandboxMailbox, contoso
from service.sandbox.limits import Meter, Pace, Window
from tests.sandbox.client import MAILBOX, PASSWORD, Client, logged_in, message
from tests.sandbox.entra import readback


def test_a_window_rolls() -> None:
    """What happened a whole span ago no longer counts."""
    window = Window(span=60)
    window.add(2, now=0)
    window.add(3, now=30)

    assert [window.used(now) for now in (30, 59.9, 60, 89.9, 90)] == [5, 5, 3, 3, 0]


def test_the_pace_leaves_no_minute_with_more_than_the_limit() -> None:
    """Messages above the limit are moved to where their minute has room."""
    pace = Pace()
    moments = []
    for _ in range(7):
        at = pace.next_at(10.0, limit=3)
        pace.add(at)
        moments.append(at)

    assert moments == [10, 10, 10, 70, 70, 70, 130]


def test_a_pace_of_nothing_never_goes() -> None:
    """A limit of 0 is always a minute away."""
    assert Pace().next_at(5.0, limit=0) == 65.0


def test_repeated_errors_close_the_mailbox_for_their_time() -> None:
    """Only so many within an hour do, and only until the time is over."""
    meter = Meter()
    for now in (0, 3599, 3601):
        meter.error("send as denied", now=now, limit=3, closed_for=100)
    assert meter.closed_for(3601) is None, "the first one is an hour old"

    meter.error("send as denied", now=3602, limit=3, closed_for=100)

    assert meter.closed_for(3603) == "send as denied"
    assert meter.closed_for(3702) is None


async def test_above_thirty_a_minute_delivery_is_delayed(sandbox: Sandbox) -> None:
    """In Microsoft's milder reading the message is taken at once and delivered when its minute has room."""
    sandbox.switch(messages_per_minute=2)

    async with logged_in(sandbox) as client:
        for number in range(3):
            assert (await client.send("ana@fabrikam.com", octets=message(number))).code == 250

    delays = [(taken.delivered_at - taken.at).total_seconds() for taken in sandbox.taken]
    assert delays[:2] == [0, 0]
    assert 30 < delays[2] <= 60


async def test_above_thirty_a_minute_mail_can_be_refused(sandbox: Sandbox) -> None:
    """In the harsher one the reply is 421 4.4.2 and the session ends; the refused one does not count."""
    sandbox.switch(messages_per_minute=1, throttle_mode="refuse")

    async with logged_in(sandbox) as client:
        assert (await client.send("ana@fabrikam.com")).code == 250
        assert str(await client.send("ana@fabrikam.com")).startswith("421 4.4.2 Message submission rate")
        assert await client.closed()

    assert len(sandbox.taken) == 1


async def test_recipients_of_the_day_are_counted_not_messages(sandbox: Sandbox) -> None:
    """The quota is of recipients; a message that does not fit is refused as a 554, a smaller one is taken."""
    sandbox.switch(recipients_per_day=3)

    async with logged_in(sandbox) as client:
        assert (await client.send("a@fabrikam.com", "b@fabrikam.com")).code == 250
        refusal = await client.send("c@fabrikam.com", "d@fabrikam.com")
        assert str(refusal).startswith(
            "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException;"
        )
        assert (await client.send("c@fabrikam.com")).code == 250
        assert (await client.send("d@fabrikam.com")).code == 554


async def test_the_fourth_connection_is_refused_only_after_its_dot(sandbox: Sandbox) -> None:
    """It may log in and say DATA; then 432 4.3.2, until an older session of the mailbox has left."""
    async with AsyncExitStack() as stack:
        sessions: list[Client] = [await stack.enter_async_context(logged_in(sandbox)) for _ in range(4)]
        await sessions[3].envelope("ana@fabrikam.com")
        refusal = await sessions[3].content(message())
        assert str(refusal).startswith(
            "432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/"
        )
        assert (await sessions[0].send("ana@fabrikam.com")).code == 250

        assert (await sessions[1].say("QUIT")).code == 221
        assert (await sessions[3].send("ana@fabrikam.com")).code == 250


async def test_sending_as_others_needs_send_as(sandbox: Sandbox) -> None:
    """Reverse-path, From and Sender are looked at after the dot; with Send As they may differ, in any case."""
    async with logged_in(sandbox) as client:
        for sender in ("billing@contoso.com", "Billing@Contoso.com"):
            octets = message(sender=sender)
            assert (await client.send("ana@fabrikam.com", sender=sender, octets=octets)).code == 250
        for sender, author in (("ceo@contoso.com", MAILBOX), (MAILBOX, "ceo@contoso.com")):
            refusal = await client.send("ana@fabrikam.com", sender=sender, octets=message(sender=author))
            assert str(refusal).startswith(
                f"554 5.2.252 SendAsDenied; {MAILBOX} not allowed to send as ceo@contoso.com;"
            )
        assert (await client.send("ana@fabrikam.com", sender="")).code == 250, (
            "the null reverse-path is nobody"
        )


async def test_repeated_send_as_errors_close_the_mailbox_for_good_mail(sandbox: Sandbox) -> None:
    """A client that loops on an administrator's error is throttled with its good mail too."""
    sandbox.switch(repeated_errors=2)

    async with logged_in(sandbox) as client:
        for _ in range(2):
            await client.send("ana@fabrikam.com", octets=message(sender="ceo@contoso.com"))
        refusal = await client.send("ana@fabrikam.com")
        assert str(refusal).startswith("550 5.2.252 Sender throttled due to continuous send as denied errors")

        async with readback(sandbox) as http:
            assert (await http.delete("/limits")).status_code == 204
        assert (await client.send("ana@fabrikam.com")).code == 250


async def test_staged_errors_do_not_close_the_mailbox(sandbox: Sandbox) -> None:
    """Rehearsing `send-as-denied@` many times has no consequences for others."""
    sandbox.switch(repeated_errors=1)

    async with logged_in(sandbox) as client:
        assert (await client.send("send-as-denied@fabrikam.com")).code == 554
        assert (await client.send("ana@fabrikam.com")).code == 250


async def test_too_many_recipients(state: Path) -> None:
    """Above the mailbox's limit the message is refused; above the organisation's, the surplus at RCPT."""
    mailbox = SandboxMailbox(address=MAILBOX, password=PASSWORD, recipient_limit=2)

    async with Sandbox(contoso(state, mailboxes=(mailbox,))) as sandbox:
        sandbox.switch(recipients_per_envelope=3)
        async with logged_in(sandbox) as client:
            await client.say(f"MAIL FROM:<{MAILBOX}>")
            codes = [(await client.say(f"RCPT TO:<r{n}@fabrikam.com>")).code for n in range(4)]
            await client.say("DATA")
            assert codes == [250, 250, 250, 452]
            assert str(await client.content(message())).startswith("550 5.5.3 RESOLVER.ADR.RecipLimit")
            assert (await client.send("a@fabrikam.com", "b@fabrikam.com")).code == 250


@pytest.mark.parametrize(("sent_items", "code"), [(True, 554), (False, 250)])
async def test_sent_items_fill_the_mailbox(state: Path, sent_items: bool, code: int) -> None:
    """Each message leaves a copy in the mailbox until it is full, unless that is switched off."""
    octets = message(body=b"x" * 500 + b"\r\n")
    mailbox = SandboxMailbox(address=MAILBOX, password=PASSWORD, quota_octets=1000, sent_items=sent_items)

    async with Sandbox(contoso(state, mailboxes=(mailbox,))) as sandbox, logged_in(sandbox) as client:
        assert (await client.send("ana@fabrikam.com", octets=octets)).code == 250
        assert (await client.send("ana@fabrikam.com", octets=octets)).code == code
        assert sandbox.taken[0].sent_items is sent_items
