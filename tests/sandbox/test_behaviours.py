"""The address chooses: what each local part does, on the wire and in the record."""

import asyncio
from pathlib import Path

import aiosmtplib
import pytest

from service.sandbox import HELP, Sandbox
from service.sandbox.behaviours import BEHAVIOURS, Act, Behaviour, Tries, When, behaviour_of
from tests.sandbox.client import MAILBOX, PASSWORD, Client, logged_in, message
from tests.waiting import eventually

BY_NAME = {behaviour.name: behaviour for behaviour in BEHAVIOURS}
REFUSED_AT_RCPT = [one for one in BEHAVIOURS if one.when is When.RCPT and one.act is Act.REPLY]
REFUSED_AT_DOT = [one for one in BEHAVIOURS if one.when is When.DOT and one.act is Act.REPLY]


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("deferred@contoso.com", "deferred"),
        ("Deferred@contoso.com", "deferred"),
        ("deferred+ana@contoso.com", "deferred"),
        ("deferred-42@fabrikam.com", "deferred"),
        ("always-deferred-1@contoso.com", "always-deferred"),
        ("goodbye-after-dot@contoso.com", "goodbye-after-dot"),
        ("goodbye-after@contoso.com", "goodbye"),
        ('"deferred"@contoso.com', "deferred"),
        ("deferredly@contoso.com", None),
        ("ana@contoso.com", None),
        ("ana+deferred@contoso.com", None),
        ("postmaster", None),
    ],
)
def test_the_longest_name_that_fits_wins(address: str, name: str | None) -> None:
    """A tag or a suffix does not change what an address asks for; a mere beginning does not ask."""
    behaviour = behaviour_of(address)

    assert (behaviour.name if behaviour else None) == name


def test_help_tells_every_behaviour() -> None:
    """The list that people read is made of the list that is obeyed."""
    for behaviour in BEHAVIOURS:
        assert f"  {behaviour.name}@" in HELP
        assert behaviour.meaning in HELP


def test_the_manual_tells_every_behaviour() -> None:
    """docs/sandbox.md has each local part."""
    manual = (Path(__file__).parents[2] / "docs" / "sandbox.md").read_text(encoding="utf-8")

    assert [one.name for one in BEHAVIOURS if f"`{one.name}@`" not in manual] == []


def test_tries_are_counted_per_thing_and_start_anew() -> None:
    """It happens as often as it says, then once not, then again; each thing has a count of its own."""
    tries, deferred = Tries(keep=2), BY_NAME["deferred"]

    assert [tries.happens(deferred, "a") for _ in range(4)] == [True, True, False, True]
    assert tries.happens(deferred, "b")
    assert tries.happens(BY_NAME["bounced"], "a")


def test_the_oldest_counts_are_forgotten() -> None:
    """A long campaign does not fill the memory with counts."""
    tries, once = Tries(keep=2), BY_NAME["drop-after-dot"]

    for thing in ("a", "b", "c"):
        assert tries.happens(once, thing)

    assert tries.happens(once, "a"), "was forgotten"
    assert not tries.happens(once, "c")


@pytest.mark.parametrize("behaviour", REFUSED_AT_RCPT, ids=lambda one: one.name)
async def test_refusals_at_rcpt_touch_one_recipient(sandbox: Sandbox, behaviour: Behaviour) -> None:
    """The others of the same transaction are taken, and the words are Microsoft's."""
    assert behaviour.reply is not None

    async with logged_in(sandbox) as client:
        await client.say(f"MAIL FROM:<{MAILBOX}>")
        refusal = await client.say(f"RCPT TO:<{behaviour.name}@fabrikam.com>")
        await client.say("RCPT TO:<ana@fabrikam.com>")
        await client.say("DATA")
        final = await client.content(message())

    assert str(refusal).startswith(behaviour.reply.line[:9])
    assert "{" not in refusal.text
    assert final.code == 250
    assert sandbox.taken[0].recipients == ("ana@fabrikam.com",)


@pytest.mark.parametrize("behaviour", REFUSED_AT_DOT, ids=lambda one: one.name)
async def test_refusals_after_the_dot_touch_the_whole_message(sandbox: Sandbox, behaviour: Behaviour) -> None:
    """MAIL, RCPT and DATA said yes; then nothing is taken, and the session goes on."""
    assert behaviour.reply is not None

    async with logged_in(sandbox) as client:
        final = await client.send("ana@fabrikam.com", f"{behaviour.name}-1@fabrikam.com")
        assert str(final).startswith(behaviour.reply.line[:9])
        assert "{" not in final.text
        assert sandbox.taken == ()
        assert (await client.send("ana@fabrikam.com")).code == 250


@pytest.mark.parametrize(
    "name",
    [
        one.name
        for one in BEHAVIOURS
        if one.tries is not None and one.when in {When.RCPT, When.DATA, When.BODY}
    ],
)
async def test_what_heals_before_the_dot_heals_on_the_third_try(sandbox: Sandbox, name: str) -> None:
    """The same sender and recipient fail twice; the third time the message is taken."""
    for _ in range(2):
        async with logged_in(sandbox) as client:
            assert not await _goes_through(client, f"{name}@fabrikam.com")
            assert sandbox.taken == ()

    async with logged_in(sandbox) as client:
        assert await _goes_through(client, f"{name}@fabrikam.com")
    assert len(sandbox.taken) == 1


@pytest.mark.parametrize("name", ["throttled", "proxy-error", "goodbye-after-dot"])
async def test_what_heals_after_the_dot_is_counted_by_message_id(sandbox: Sandbox, name: str) -> None:
    """Each Message-ID fails twice and is taken on its third try, whatever else is sent between."""
    for number in (1, 2, 1, 2):
        async with logged_in(sandbox) as client:
            assert (await client.send(f"{name}@fabrikam.com", octets=message(number))).code in {421, 432, 451}

    async with logged_in(sandbox) as client:
        for number in (1, 2):
            assert (await client.send(f"{name}@fabrikam.com", octets=message(number))).code == 250
    assert [taken.message_id for taken in sandbox.taken] == ["<1@contoso.com>", "<2@contoso.com>"]


@pytest.mark.parametrize(
    ("name", "copies"), [("drop-after-dot", 1), ("reset-after-dot", 1), ("lost-after-dot", 0)]
)
async def test_lost_after_the_dot_and_resent(sandbox: Sandbox, name: str, copies: int) -> None:
    """The first try ends without a reply; the identical second one is answered and kept as well."""
    async with logged_in(sandbox) as client:
        await client.envelope(f"{name}@fabrikam.com")
        await client.raw(message() + b".\r\n")
        assert await client.closed()
    assert len(sandbox.taken) == copies

    async with logged_in(sandbox) as client:
        assert (await client.send(f"{name}@fabrikam.com")).code == 250
    assert len(sandbox.taken) == copies + 1


async def test_the_second_copy_of_a_message_is_delivered_to_nobody(sandbox: Sandbox) -> None:
    """Same Message-ID and Date: taken twice, delivered once, but for those who did not have it."""
    async with logged_in(sandbox) as client:
        await client.send("ana@fabrikam.com")
        await client.send("Ana@fabrikam.com", "bo@fabrikam.com")
        await client.send("ana@fabrikam.com", octets=message(2))

    first, second, other = sandbox.taken
    assert (first.duplicate_of, second.duplicate_of, other.duplicate_of) == (None, first.id, None)
    assert second.delivered_to == ("bo@fabrikam.com",)


async def test_silence_after_the_dot_lasts_until_the_client_leaves(sandbox: Sandbox) -> None:
    """The message is taken before the silence begins, and nothing is ever said."""
    async with logged_in(sandbox) as client:
        await client.envelope("silent-after-dot@fabrikam.com")
        await client.raw(message() + b".\r\nNOOP\r\n")
        await eventually(lambda: sandbox.taken)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.reader.readline(), 0.05)


async def test_a_silent_session_ends_without_a_word(sandbox: Sandbox) -> None:
    """Even the limit of a session's time does not make it speak."""
    sandbox.switch(session_seconds=2)

    async with logged_in(sandbox) as client:
        await client.envelope("silent-after-dot@fabrikam.com")
        await client.raw(message() + b".\r\n")
        assert await client.closed()
    assert len(sandbox.taken) == 1


@pytest.mark.parametrize("name", ["garbled-reply", "mixed-reply"])
async def test_odd_replies_come_as_they_are(sandbox: Sandbox, name: str) -> None:
    """The message is taken, and the octets that follow are no honest reply."""
    babble = BY_NAME[name].babble

    async with logged_in(sandbox) as client:
        await client.envelope(f"{name}@fabrikam.com")
        await client.raw(message() + b".\r\n")
        assert await client.reader.readexactly(len(babble)) == babble
    assert len(sandbox.taken) == 1


@pytest.mark.parametrize("name", ["slow-reply", "slow-rcpt"])
async def test_slow_answers_come_in_the_end(sandbox: Sandbox, name: str) -> None:
    """A slow answer is a yes like any other."""
    async with logged_in(sandbox) as client:
        assert (await client.send(f"{name}@fabrikam.com")).code == 250
    assert len(sandbox.taken) == 1


async def test_goodbye_takes_the_message_and_closes(sandbox: Sandbox) -> None:
    """The yes comes first; the 421 that follows it belongs to no command."""
    async with logged_in(sandbox) as client:
        assert (await client.send("goodbye@fabrikam.com")).code == 250
        assert str(await client.reply()).startswith("421 4.3.2 Service not available")
        assert await client.closed()


async def test_accidents_happen_to_chunks_as_well(sandbox: Sandbox) -> None:
    """BDAT … LAST counts as the dot, and the first chunk as the middle of the content."""
    octets = message()
    chunk = b"BDAT %d LAST\r\n" % len(octets) + octets

    for name, copies in (("drop-after-dot", 1), ("drop-in-data", 1)):
        async with logged_in(sandbox) as client:
            await client.say(f"MAIL FROM:<{MAILBOX}>")
            await client.say(f"RCPT TO:<{name}@fabrikam.com>")
            await client.raw(chunk)
            assert await client.closed()
        assert len(sandbox.taken) == copies


async def test_the_send_as_reply_is_as_long_as_microsofts(sandbox: Sandbox) -> None:
    """About two thousand octets on one line, which a client must be able to read."""
    async with aiosmtplib.SMTP(
        hostname="localhost", port=sandbox.submission_port, cert_bundle=str(sandbox.ca_file), start_tls=True
    ) as client:
        await client.login(MAILBOX, PASSWORD)
        with pytest.raises(aiosmtplib.SMTPDataError) as refused:
            await client.sendmail(MAILBOX, ["send-as-denied@fabrikam.com"], message())

    assert refused.value.code == 554
    assert refused.value.message.startswith(
        f"5.2.252 SendAsDenied; {MAILBOX} not allowed to send as {MAILBOX}; "
    )
    assert 1900 < len(refused.value.message) < 2600


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("unknown", "550 5.4.1 Recipient address rejected: Access denied. AS(201806281)",
         "550 5.4.1 Recipient address rejected: Access denied. For more information see https://aka.ms/EXOSmtpErrors"),
        ("throttled", "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded",
         "432 4.3.2 Concurrent connections limit exceeded."),
        ("send-as-denied", "554 5.2.0 STOREDRV.Submission.Exception:SendAsDeniedException", "554 5.2.252 SendAsDenied;"),
    ],
)  # fmt: skip
async def test_texts_can_be_those_of_years_ago(sandbox: Sandbox, name: str, old: str, new: str) -> None:
    """Where Microsoft changed a text, both are to be had."""
    async with logged_in(sandbox) as client:
        for wording, text in (("new", new), ("old", old)):
            sandbox.switch(wording=wording)
            await client.say("RSET")
            await client.say(f"MAIL FROM:<{MAILBOX}>")
            answer = await client.say(f"RCPT TO:<{name}@fabrikam.com>")
            if answer.code == 250:
                await client.say("DATA")
                answer = await client.content(message())
            assert str(answer).startswith(text)


async def _goes_through(client: Client, recipient: str) -> bool:
    """Send one message, and say whether the final reply was a yes."""
    await client.raw(f"MAIL FROM:<{MAILBOX}>\r\nRCPT TO:<{recipient}>\r\n".encode())
    await client.reply()
    answer = await client.octets()
    if not answer.startswith(b"250"):
        return False
    if not str(await client.say("DATA")).startswith("354"):
        return False
    await client.raw(message() + b".\r\n")
    return (await client.octets()).startswith(b"250")
