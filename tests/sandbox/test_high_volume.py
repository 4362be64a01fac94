"""High Volume Email: its own logins, its own limits, and nobody outside the tenant."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from service.sandbox import Sandbox, SandboxApplication, SandboxHveAccount, contoso
from tests.sandbox.client import (
    CLIENT_ID,
    CLIENT_SECRET,
    HVE_ACCOUNT,
    HVE_PASSWORD,
    MAILBOX,
    PASSWORD,
    Client,
    encoded,
    message,
    secured,
)
from tests.sandbox.entra import signed_in_log, token_for
from tests.waiting import eventually

INSIDE = "ana@contoso.com"
MAIL = message(sender=HVE_ACCOUNT)


async def test_it_takes_mail_to_the_tenant(sandbox: Sandbox) -> None:
    """The account logs in by password, sends as itself, and leaves no copy in Sent Items."""
    async with secured(sandbox, "hve") as client:
        lines = (await client.say("EHLO client.example")).lines
        assert str(await client.login(HVE_ACCOUNT, HVE_PASSWORD)) == "235 2.7.0 Authentication successful"
        final = await client.send(INSIDE, sender=HVE_ACCOUNT, octets=MAIL)

    (taken,) = sandbox.taken
    assert {"AUTH LOGIN XOAUTH2", "SIZE 10485760"} <= set(lines)
    assert str(final).startswith("250 2.0.0 OK <1@contoso.com> [Hostname=")
    assert (taken.door, taken.mailbox, taken.method, taken.sent_items) == ("hve", HVE_ACCOUNT, "login", False)


async def test_a_token_opens_it(sandbox: Sandbox) -> None:
    """Of an application with Mail.Send that the account allows; for either name of Exchange Online."""
    for scope in ("https://outlook.office.com/.default", "https://outlook.office365.com/.default"):
        token = await token_for(sandbox, scope=scope)
        async with secured(sandbox, "hve") as client:
            assert (await client.token(token, HVE_ACCOUNT)).code == 235


@pytest.mark.parametrize(
    ("switches", "code"),
    [
        ({"smtp_auth_org": False}, 235),
        ({"basic_retired": True}, 235),
        ({"conditional_access": True}, 235),
        ({"security_defaults": True}, 535),
        ({"basic_disabled": True}, 535),
    ],
)
async def test_the_switches_of_smtp_auth_do_not_matter(
    sandbox: Sandbox, switches: dict[str, Any], code: int
) -> None:
    """Security defaults and the authentication policy do, in words of their own."""
    sandbox.switch(**switches)

    async with secured(sandbox, "hve") as client:
        answer = await client.login(HVE_ACCOUNT, HVE_PASSWORD)

    assert answer.code == code
    assert code == 235 or "the organization configuration does not allow this authentication" in answer.text


@pytest.mark.parametrize(
    ("username", "password", "words", "reason"),
    [
        (HVE_ACCOUNT, "open-sesame", "535 5.7.3 Authentication unsuccessful", "wrong password"),
        ("hve2@contoso.com", HVE_PASSWORD, "535 5.7.3 Authentication unsuccessful", "there is no such HVE account"),
        (MAILBOX, PASSWORD, "535 5.2.240 ", "a mailbox is no HVE account"),
    ],
)  # fmt: skip
async def test_wrong_passwords(
    sandbox: Sandbox, username: str, password: str, words: str, reason: str
) -> None:
    """A mailbox is told that it is no HVE account; the log has the true reason."""
    async with secured(sandbox, "hve") as client:
        assert str(await client.login(username, password)).startswith(words)

    (entry,) = await signed_in_log(sandbox)
    assert entry["reason"] == reason


async def test_an_hve_account_is_no_mailbox(sandbox: Sandbox) -> None:
    """smtp.office365.com does not know it."""
    async with secured(sandbox) as client:
        assert (await client.login(HVE_ACCOUNT, HVE_PASSWORD)).code == 535


async def test_wrong_tokens(state: Path) -> None:
    """Each fault of a token has a number of its own."""
    other = "22222222-2222-4222-8222-222222222222"
    no_role = "33333333-3333-4333-8333-333333333333"
    applications = (
        SandboxApplication(client_id=CLIENT_ID, client_secret=CLIENT_SECRET, roles=("Mail.Send",)),
        SandboxApplication(client_id=other, client_secret=CLIENT_SECRET, roles=("Mail.Send",)),
        SandboxApplication(client_id=no_role, client_secret=CLIENT_SECRET),
    )
    account = SandboxHveAccount(address=HVE_ACCOUNT, applications=(CLIENT_ID, no_role))

    async with Sandbox(
        contoso(state, mailboxes=(), applications=applications, hve_accounts=(account,))
    ) as sandbox:
        tokens = {
            "535 5.7.3 ": await token_for(sandbox, scope="https://graph.microsoft.com/.default"),
            "550 5.7.240 ": await token_for(sandbox, client_id=other),
            "535 5.7.144 ": await token_for(sandbox, client_id=no_role),
        }
        sandbox.switch(token_seconds=30)
        tokens["535 5.7.142 "] = await token_for(sandbox)
        for words, token in tokens.items():
            async with secured(sandbox, "hve") as client:
                assert str(await client.token(token, HVE_ACCOUNT)).startswith(words)


async def test_an_expired_token(sandbox: Sandbox) -> None:
    """It has its own number here, where smtp.office365.com says 5.7.3."""
    sandbox.switch(token_seconds=1, failed_logins=0)
    token = await token_for(sandbox)

    async with secured(sandbox, "hve") as client:

        async def expired() -> bool:
            return str(await client.token(token, HVE_ACCOUNT)).startswith("535 5.7.143 ")

        assert await eventually(expired)


@pytest.mark.parametrize(
    ("blob", "words"),
    [
        ("no base64!", "501 5.5.121 "),
        (encoded("auth=Bearer x\x01\x01"), "501 5.5.122 "),
        (encoded("user=\x01auth=Bearer x\x01\x01"), "501 5.5.123 "),
        (encoded("user=a@contoso.com\x01\x01"), "501 5.5.124 "),
        (encoded("user=a@contoso.com\x01auth=Basic x\x01\x01"), "501 5.5.125 "),
        (encoded("user=a@contoso.com\x01auth=Bearer\x01\x01"), "501 5.5.126 "),
    ],
)
async def test_malformed_xoauth2_says_what_is_missing(sandbox: Sandbox, blob: str, words: str) -> None:
    """Six numbers for six ways to write it wrongly."""
    async with secured(sandbox, "hve") as client:
        assert str(await client.say(f"AUTH XOAUTH2 {blob}")).startswith(f"{words}Invalid XOAUTH2 argument")


async def test_it_sends_as_itself_only(sandbox: Sandbox) -> None:
    """Another reverse-path is refused at MAIL, another From after the dot."""
    async with _logged_in(sandbox) as client:
        assert str(await client.say(f"MAIL FROM:<{MAILBOX}>")).startswith("550 5.7.62 ")
        assert str(await client.say("MAIL FROM:<>")).startswith("550 5.7.62 ")
        refusal = await client.send(INSIDE, sender=HVE_ACCOUNT, octets=message(sender=MAILBOX))
        assert str(refusal).startswith("550 5.6.241 ")
        assert (await client.send(INSIDE, sender=HVE_ACCOUNT.upper(), octets=MAIL)).code == 250


async def test_nobody_outside_and_fifty_inside(sandbox: Sandbox) -> None:
    """External recipients and the fifty-first are refused; the others are taken."""
    async with _logged_in(sandbox) as client:
        await client.say(f"MAIL FROM:<{HVE_ACCOUNT}>")
        assert str(await client.say("RCPT TO:<ana@fabrikam.com>")).startswith("550 5.7.54 ")
        told = [str(await client.say(f"RCPT TO:<r{number}@contoso.com>"))[:9] for number in range(51)]
        await client.say("DATA")
        assert (await client.content(MAIL)).code == 250

    assert told == ["250 2.1.5"] * 50 + ["452 4.5.3"]


async def test_ten_megabytes_and_no_more(sandbox: Sandbox) -> None:
    """Refused by SIZE, and after the dot where SIZE was not said."""
    big = MAIL + b"x" * 70 + b"\r\n" + (b"y" * 70 + b"\r\n") * (10 * 1024 * 1024 // 72)

    async with _logged_in(sandbox) as client:
        refusal = await client.say(f"MAIL FROM:<{HVE_ACCOUNT}> SIZE={len(big)}")
        assert str(refusal).startswith("552 5.3.4 ")
        assert str(await client.send(INSIDE, sender=HVE_ACCOUNT, octets=big)).startswith("552 5.3.4 ")


@pytest.mark.parametrize(
    "billing", ["NoProperBillingPolicyStored", "BillingPolicyNotFound", "SubscriptionIsNotActive"]
)
async def test_without_billing_nothing_is_sent(sandbox: Sandbox, billing: str) -> None:
    """The refusal names the state that Get-HVEAccountBillingPolicy would show."""
    async with _logged_in(sandbox) as client:
        sandbox.switch(hve_billing=billing)
        refusal = await client.say(f"MAIL FROM:<{HVE_ACCOUNT}>")
        sandbox.switch(hve_billing="BillingPolicyValid")
        assert (await client.say(f"MAIL FROM:<{HVE_ACCOUNT}>")).code == 250

    assert refusal.code == 550
    assert billing in refusal.text


async def test_no_rates_are_counted(sandbox: Sandbox) -> None:
    """What holds back a mailbox does not hold back an HVE account."""
    sandbox.switch(
        messages_per_minute=0, throttle_mode="refuse", recipients_per_day=0, connections=1, external_per_day=0
    )

    async def send(number: int) -> int:
        async with _logged_in(sandbox) as client:
            octets = message(number, sender=HVE_ACCOUNT)
            return (await client.send(INSIDE, sender=HVE_ACCOUNT, octets=octets)).code

    assert await asyncio.gather(*map(send, range(5))) == [250] * 5


@contextlib.asynccontextmanager
async def _logged_in(sandbox: Sandbox) -> AsyncIterator[Client]:
    async with secured(sandbox, "hve") as client:
        assert (await client.login(HVE_ACCOUNT, HVE_PASSWORD)).code == 235
        yield client
