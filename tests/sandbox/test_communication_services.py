"""Azure Communication Services: its user names, its senders, its small rates."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.sandbox import Sandbox, SandboxAcsResource, contoso
from tests.sandbox.client import (
    ACS_SENDER,
    ACS_USER,
    CLIENT_ID,
    CLIENT_SECRET,
    MAILBOX,
    PASSWORD,
    Client,
    message,
    secured,
)
from tests.sandbox.entra import readback, signed_in_log

OUTSIDE = "ana@fabrikam.com"
RATE = "450 4.5.127 Message rejected. Excessive message rate from sender. For more information see https://aka.ms/EXO"


async def test_it_takes_mail_for_anybody(sandbox: Sandbox) -> None:
    """Resource, application and tenant make the user name, in any case; the secret is the password."""
    async with _logged_in(sandbox) as client:
        final = await _send(client, 1)

    (taken,) = sandbox.taken
    assert str(client.greeting).partition(" Microsoft")[0].endswith(".azurecomm.net")
    assert final.startswith("250 2.0.0 OK <1@contoso.com>")
    assert (taken.door, taken.mailbox, taken.method, taken.sent_items) == (
        "acs",
        ACS_USER.upper(),
        "login",
        False,
    )


async def test_a_friendly_user_name_opens_the_same_resource(state: Path) -> None:
    """An SMTP Username resource stands for the long name."""
    resource = SandboxAcsResource(
        name="acs", application=CLIENT_ID, senders=(ACS_SENDER,), username="mailer@contoso.com"
    )

    async with (
        Sandbox(contoso(state, acs_resources=(resource,))) as sandbox,
        secured(sandbox, "acs") as client,
    ):
        assert (await client.login("mailer@contoso.com", CLIENT_SECRET)).code == 235
        assert (await _send(client, 1)).startswith("250 ")


@pytest.mark.parametrize(
    ("username", "password", "reason"),
    [
        (ACS_USER, "open-sesame", "the password is no client secret of the resource's application"),
        (ACS_USER.replace("contoso-acs", "other-acs"), CLIENT_SECRET, "no resource has this user name"),
        (ACS_USER.replace("|", "."), CLIENT_SECRET, "no resource has this user name"),
        (MAILBOX, PASSWORD, "no resource has this user name"),
    ],
)
async def test_wrong_logins(sandbox: Sandbox, username: str, password: str, reason: str) -> None:
    """All of them hear the same; the log has the reason."""
    async with secured(sandbox, "acs") as client:
        assert str(await client.login(username, password)).startswith("535 5.7.3 Authentication unsuccessful")

    (entry,) = await signed_in_log(sandbox)
    assert entry["reason"] == reason


async def test_the_sender_is_a_verified_one(sandbox: Sandbox) -> None:
    """Reverse-path and From have to be MailFrom addresses of the resource."""
    async with _logged_in(sandbox) as client:
        assert str(await client.say(f"MAIL FROM:<{MAILBOX}>")).startswith("550 5.7.60 ")
        refusal = await client.send(OUTSIDE, sender=ACS_SENDER, octets=message(sender=MAILBOX))
        assert str(refusal).startswith("550 5.7.60 ")


async def test_fifty_recipients(sandbox: Sandbox) -> None:
    """The fifty-first waits."""
    async with _logged_in(sandbox) as client:
        await client.say(f"MAIL FROM:<{ACS_SENDER}>")
        told = [str(await client.say(f"RCPT TO:<r{number}@fabrikam.com>"))[:9] for number in range(51)]

    assert told == ["250 2.1.5"] * 50 + ["452 4.5.3"]


@pytest.mark.parametrize("switch", ["acs_per_minute", "acs_per_hour"])
async def test_above_the_rates_messages_are_put_off(sandbox: Sandbox, switch: str) -> None:
    """After the dot, for the resource and not for the connection; what was refused does not count."""
    sandbox.switch(**{switch: 2})

    async with _logged_in(sandbox) as client:
        assert [(await _send(client, number))[:3] for number in range(2)] == ["250", "250"]
        assert (await _send(client, 2)).startswith(RATE)
    async with _logged_in(sandbox) as client, readback(sandbox) as http:
        assert (await _send(client, 2)).startswith(RATE)
        await http.delete("/limits")
        assert (await _send(client, 2)).startswith("250 ")


async def test_azures_own_domain_is_slower_still(state: Path) -> None:
    """Five messages a minute, whatever the switches say."""
    resource = SandboxAcsResource(
        name="contoso-acs", application=CLIENT_ID, senders=(ACS_SENDER,), managed=True
    )

    async with Sandbox(contoso(state, acs_resources=(resource,))) as sandbox, _logged_in(sandbox) as client:
        told = [(await _send(client, number))[:9] for number in range(6)]

    assert told == ["250 2.0.0"] * 5 + ["450 4.5.1"]


async def test_the_tenants_external_recipients_are_not_counted(sandbox: Sandbox) -> None:
    """It is no route of Exchange."""
    sandbox.switch(external_per_day=0, external_mode="refuse")

    async with _logged_in(sandbox) as client:
        assert (await _send(client, 1)).startswith("250 ")


@contextlib.asynccontextmanager
async def _logged_in(sandbox: Sandbox) -> AsyncIterator[Client]:
    async with secured(sandbox, "acs") as client:
        assert (await client.login(ACS_USER.upper(), CLIENT_SECRET)).code == 235
        yield client


async def _send(client: Client, number: int) -> str:
    octets = message(number, sender=ACS_SENDER)
    return str(await client.send(OUTSIDE, sender=ACS_SENDER, octets=octets))
