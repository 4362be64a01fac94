"""The tenant's MX: who may send what to whom, rule by rule."""

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from service.sandbox import Sandbox, contoso
from tests.sandbox import broken
from tests.sandbox.client import MAILBOX, connected, encoded, message, met, rcpt, secured
from tests.sandbox.entra import readback

OUTSIDE = "ana@fabrikam.com"
INSIDE = "ana@contoso.com"
FOREIGN = "news@northwind.example"
BY_IP = {"name": "By IP", "addresses": ["203.0.113.0/24"]}
RELAY_DENIED = "550 5.7.64 TenantAttribution; Relay Access Denied ["


async def test_greeting_and_list_are_the_mxs(sandbox: Sandbox) -> None:
    """It greets as the MX does, names our public address, and never offers AUTH."""
    async with connected(sandbox, "mx") as client:
        before = await client.say("EHLO client.example")
        await client.starttls()
        after = await client.say("EHLO client.example")

    greeting = str(client.greeting)
    host = before.lines[0].split()[0]
    assert greeting.startswith(f"220 {host} Microsoft ESMTP MAIL Service ready at ")
    assert host.endswith(".mail.protection.outlook.com")
    assert before.lines[0].endswith(" Hello [203.0.113.10]")
    assert before.lines[1:] == (
        "SIZE 157286400", "PIPELINING", "DSN", "ENHANCEDSTATUSCODES", "STARTTLS", "8BITMIME", "BINARYMIME",
        "CHUNKING", "SMTPUTF8",
    )  # fmt: skip
    assert after.lines[1:] == tuple(line for line in before.lines[1:] if line != "STARTTLS")


async def test_there_is_no_login(sandbox: Sandbox) -> None:
    """AUTH is an unknown command, with and without TLS."""
    for opened in (connected(sandbox, "mx"), secured(sandbox, "mx")):
        async with opened as client:
            await client.say("EHLO client.example")
            assert str(await client.say(f"AUTH LOGIN {encoded(MAILBOX)}")).startswith("500 5.3.3")


async def test_direct_send_is_taken_in_plain_text(sandbox: Sandbox) -> None:
    """Mail to the tenant needs neither TLS nor login, and the final yes tells size and Message-ID."""
    async with met(sandbox) as client:
        final = await client.send(INSIDE)

    (taken,) = sandbox.taken
    assert str(final).startswith("250 2.6.0 <1@contoso.com> [InternalId=")
    assert final.text.endswith(
        f"] {taken.size} bytes in 0.125, {taken.size / 128:.3f} KB/sec Queued mail for delivery"
    )
    assert (taken.door, taken.mailbox, taken.method, taken.tls) == ("mx", "", "anonymous", None)
    assert (taken.client, taken.connector, taken.sent_items) == ("203.0.113.10", None, False)


@pytest.mark.parametrize(
    ("wording", "words"),
    [
        ("new", "550 5.4.1 Recipient address rejected: Access denied. For more information see https://aka.ms/EXOSmtp"),
        ("old", "550 5.4.1 Recipient address rejected: Access denied. AS(201806281) ["),
    ],
)  # fmt: skip
async def test_an_unknown_recipient_of_the_tenant_is_refused(
    sandbox: Sandbox, wording: str, words: str
) -> None:
    """In both wordings, for every accepted domain, and the others of the transaction are taken."""
    sandbox.switch(wording=wording)

    async with met(sandbox) as client:
        await client.say(f"MAIL FROM:<{MAILBOX}>")
        for unknown in ("nobody@contoso.com", "unknown.person@contoso.onmicrosoft.com"):
            assert str(await client.say(f"RCPT TO:<{unknown}>")).startswith(words)
        assert (await client.say(f"RCPT TO:<{INSIDE}>")).code == 250


async def test_known_recipients_can_be_listed(state: Path) -> None:
    """Then nobody else is known but mailboxes and accounts, and what asks for a behaviour."""
    async with (
        Sandbox(contoso(state, recipients=("ana@contoso.com",))) as sandbox,
        met(sandbox) as client,
    ):
        known = ["ana@contoso.com", "Ana@Contoso.com", "ana+list@contoso.com", MAILBOX, "hve@contoso.com"]
        assert [(await rcpt(client, one)).code for one in known] == [250] * 5
        assert (await rcpt(client, "bo@contoso.com")).text.startswith("5.4.1")
        assert (await rcpt(client, "deferred@contoso.com")).code == 451


async def test_a_stranger_may_not_relay(sandbox: Sandbox) -> None:
    """Mail to the internet needs a connector, whatever the sender; old and new words."""
    async with met(sandbox) as client:
        for sender in (MAILBOX, FOREIGN, ""):
            assert str(await rcpt(client, OUTSIDE, sender=sender)).startswith(RELAY_DENIED)
        sandbox.switch(wording="old")
        assert str(await rcpt(client, OUTSIDE)).startswith("550 5.7.64 Relay Access Denied ATTR36 [")


@pytest.mark.parametrize(
    ("by", "sender", "code"),
    [
        ("certificate", MAILBOX, 250),
        ("certificate", FOREIGN, 250),
        ("certificate", "", 250),
        ("ip", MAILBOX, 250),
        ("ip", "app@contoso.onmicrosoft.com", 250),
        ("ip", FOREIGN, 550),
        ("ip", "", 550),
    ],
)
async def test_who_may_relay(sandbox: Sandbox, by: str, sender: str, code: int) -> None:
    """The certificate's domain or the reverse-path's must be accepted; bounces need a certificate."""
    if by == "ip":
        sandbox.switch(connectors=[BY_IP])

    async with met(sandbox, shows=broken.right(sandbox) if by == "certificate" else None) as client:
        answer = await rcpt(client, OUTSIDE, sender=sender)

    assert answer.code == code
    assert code == 250 or str(answer).startswith(RELAY_DENIED)


async def test_a_certificate_of_a_foreign_domain_needs_an_own_sender(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    """A connector for a domain that is not accepted relays only for senders of the tenant."""
    sandbox.switch(connectors=[{"name": "Partner's host", "certificate": "relay.fabrikam.com"}])

    async with met(sandbox, shows=broken.wrong_name(sandbox, tmp_path)) as client:
        assert (await rcpt(client, OUTSIDE)).code == 250
        assert (await rcpt(client, OUTSIDE, sender=FOREIGN)).code == 550


async def test_what_stands_in_from_does_not_matter(sandbox: Sandbox) -> None:
    """Since 2023 the header's author opens nothing, and closes nothing."""
    sandbox.switch(connectors=[BY_IP])

    async with met(sandbox) as client:
        assert (await rcpt(client, OUTSIDE, sender=FOREIGN)).code == 550
        assert (await client.send(OUTSIDE, octets=message(sender=FOREIGN))).code == 250

    assert (sandbox.taken[0].method, sandbox.taken[0].connector) == ("ip", "By IP")


async def test_a_partners_connector_does_not_relay(sandbox: Sandbox) -> None:
    """Only type OnPremises leads to the internet; a Partner's mail to the tenant is no Direct Send."""
    sandbox.switch(connectors=[{**BY_IP, "kind": "Partner"}], reject_direct_send=True)

    async with met(sandbox) as client:
        assert str(await rcpt(client, OUTSIDE)).startswith(RELAY_DENIED)
        assert (await rcpt(client, INSIDE)).code == 250


@pytest.mark.parametrize(("seen_as", "code"), [("203.0.113.99", 250), ("203.0.114.10", 550), (None, 550)])
async def test_the_clients_address_can_be_chosen(sandbox: Sandbox, seen_as: str | None, code: int) -> None:
    """A connector by address knows the client by what the MX sees; null is the true address."""
    sandbox.switch(connectors=[BY_IP], seen_as=seen_as)

    async with met(sandbox) as client:
        assert (await rcpt(client, OUTSIDE)).code == code
        assert (await client.say("EHLO x")).lines[0].endswith(f" Hello [{seen_as or '127.0.0.1'}]")


@pytest.mark.parametrize(
    ("sender", "certificate", "code"),
    [(MAILBOX, False, 550), (FOREIGN, False, 250), ("", False, 250), (MAILBOX, True, 250)],
)
async def test_a_tenant_may_reject_direct_send(
    sandbox: Sandbox, sender: str, certificate: bool, code: int
) -> None:
    """It refuses strangers that use its own domains, at RCPT; other inbound mail and connectors go on."""
    sandbox.switch(reject_direct_send=True)

    async with met(sandbox, shows=broken.right(sandbox) if certificate else None) as client:
        answer = await rcpt(client, INSIDE, sender=sender)

    assert answer.code == code
    assert code == 250 or answer.text.startswith(
        "5.7.68 TenantInboundAttribution; Direct Send not allowed for this organization from unauthorized sources ["
    )


async def test_a_second_tenant_waits_for_a_transaction_of_its_own(sandbox: Sandbox) -> None:
    """The first recipient decides whose transaction it is; the tenant's two domains go together."""
    async with met(sandbox) as client:
        await client.say(f"MAIL FROM:<{FOREIGN}>")
        told = [
            str(await client.say(f"RCPT TO:<{recipient}>"))[:9]
            for recipient in (INSIDE, "bo@contoso.onmicrosoft.com", OUTSIDE, "cy@contoso.com")
        ]

    assert told == ["250 2.1.5", "250 2.1.5", "452 4.5.3", "250 2.1.5"]


async def test_a_connectors_transaction_may_have_many_domains(sandbox: Sandbox) -> None:
    """It belongs to the connector's tenant, unless the switch asks for one domain at a time."""
    recipients = (OUTSIDE, INSIDE, "bo@northwind.example")

    async with met(sandbox, shows=broken.right(sandbox)) as client:
        assert (await client.send(*recipients)).code == 250
        sandbox.switch(one_domain=True)
        await client.say(f"MAIL FROM:<{MAILBOX}>")
        codes = [(await client.say(f"RCPT TO:<{recipient}>")).code for recipient in recipients]

    assert sandbox.taken[0].recipients == recipients
    assert codes == [250, 452, 452]


async def test_the_surplus_of_a_domain_waits_and_the_rest_is_taken(sandbox: Sandbox) -> None:
    """Two hundred recipients of one domain are taken, the next is told to come again."""
    async with met(sandbox) as client:
        await client.say(f"MAIL FROM:<{MAILBOX}>")
        told = [str(await client.say(f"RCPT TO:<r{number}@contoso.com>"))[:9] for number in range(201)]
        await client.say("DATA")
        assert (await client.content(message())).code == 250

    assert told == ["250 2.1.5"] * 200 + ["452 4.5.3"]
    assert len(sandbox.taken[0].recipients) == 200


@pytest.mark.parametrize(
    ("switches", "sender", "words"),
    [
        ({"ip_reputation": "new"}, MAILBOX, "451 4.7.500 Server busy. Please try again later from [203.0.113.10]. (S77714"),
        ({"banned_ips": ["203.0.113.10"]}, MAILBOX, "550 5.7.606 Access denied, banned sending IP [203.0.113.10]."),
        ({"banned_ips": ["203.0.113.0/24"]}, MAILBOX, "550 5.7.606 Access denied, banned sending IP [203.0.113.10]."),
        ({"subscription": False}, MAILBOX, "550 4.4.4 Mail received as unauthenticated, incoming to a recipient domain"),
        ({"connectors": [BY_IP], "blocked_connectors": ["By IP"]}, MAILBOX, "550 5.7.711 Access denied, bad inbound"),
        ({"connectors": [BY_IP], "unregistered_domains": "refused"}, FOREIGN, "550 5.7.750 Service unavailable. Client"),
    ],
)  # fmt: skip
async def test_a_client_can_be_refused_as_such(
    sandbox: Sandbox, switches: dict[str, Any], sender: str, words: str
) -> None:
    """MAIL is accepted; every recipient hears it, the tenant's own too."""
    sandbox.switch(**switches)

    async with met(sandbox) as client:
        assert (await client.say(f"MAIL FROM:<{sender}>")).code == 250
        assert str(await client.say(f"RCPT TO:<{INSIDE}>")).startswith(words)


async def test_a_ban_is_for_its_addresses_only(sandbox: Sandbox) -> None:
    """Another address sends, and an IPv6 client is compared as well."""
    sandbox.switch(banned_ips=["198.51.100.0/24", "2001:db8::/32"])

    async with met(sandbox) as client:
        assert (await rcpt(client, INSIDE)).code == 250
    sandbox.switch(seen_as="2001:db8::25")
    async with met(sandbox) as client:
        assert (await rcpt(client, INSIDE)).text.startswith("5.7.606")


async def test_a_connector_ends_the_throttling_of_an_address(sandbox: Sandbox) -> None:
    """Mail that belongs to a connector is not measured by the reputation of its address."""
    sandbox.switch(ip_reputation="new")

    async with met(sandbox) as stranger, met(sandbox, shows=broken.right(sandbox)) as known:
        assert (await rcpt(stranger, INSIDE)).code == 451
        assert (await rcpt(known, INSIDE)).code == 250


async def test_a_stranger_that_sends_too_much_waits_an_hour(sandbox: Sandbox) -> None:
    """AS780090 speaks of recipients and means volume; it is over after its time, or with a connector."""
    sandbox.switch(unknown_ip_per_hour=2)

    async with met(sandbox) as client:
        for number in range(2):
            assert (await client.send(INSIDE, octets=message(number))).code == 250
        assert str(await rcpt(client, INSIDE)).startswith("452 4.5.3 Too many recipients (AS780090)")
        sandbox.switch(connectors=[BY_IP])
        assert (await rcpt(client, INSIDE)).code == 250
        sandbox.switch(connectors=[], seen_as="198.51.100.1")
        async with met(sandbox) as other, readback(sandbox) as http:
            assert (await rcpt(other, INSIDE)).code == 250, "another address has a count of its own"
            await http.delete("/limits")
        assert (await rcpt(client, INSIDE)).code == 250


async def test_the_block_of_an_address_is_over_after_its_time(sandbox: Sandbox) -> None:
    """With no time at all it does not even begin."""
    sandbox.switch(unknown_ip_per_hour=1, ip_block_seconds=0)

    async with met(sandbox) as client:
        for number in range(2):
            assert (await client.send(INSIDE, octets=message(number))).code == 250


@pytest.mark.parametrize(
    ("switches", "in_tls"),
    [
        ({"mx_requires_tls": True}, 250),
        ({"connectors": [{**BY_IP, "require_tls": True}]}, 250),
        ({"wrong_region": True}, 451),
    ],
)
async def test_four_that_do_not_heal_at_mail(sandbox: Sandbox, switches: dict[str, Any], in_tls: int) -> None:
    """Plain text where TLS is demanded, and the wrong region, are said as 451."""
    sandbox.switch(**switches)

    async with met(sandbox) as plain, secured(sandbox, "mx") as safe:
        refusal = await plain.say(f"MAIL FROM:<{MAILBOX}>")
        assert (await safe.say(f"MAIL FROM:<{MAILBOX}>")).code == in_tls

    expected = (
        "4.4.62 Mail sent to the wrong Office 365 region. ATTR35"
        if in_tls == 451
        else "5.7.3 STARTTLS is required"
    )
    assert refusal.code == 451
    assert refusal.text.startswith(expected)


async def test_bad_addresses_and_bad_content_are_refused_here_too(sandbox: Sandbox) -> None:
    """The rules for every service: addresses, bare line feeds, From, several authors without Sender."""
    two = b"From: <a@contoso.com>, <b@contoso.com>\r\nSubject: x\r\n\r\nx\r\n"

    async with met(sandbox) as client:
        assert (await rcpt(client, "not an address")).code == 501
        assert (await client.send(INSIDE, octets=message(body=b"bare\nline\r\n"))).text.startswith("5.6.11")
        assert (await client.send(INSIDE, octets=b"Subject: x\r\n\r\nx\r\n")).text.startswith("5.7.512")
        assert (await client.send(INSIDE, octets=two)).text.startswith("5.1.20")

    assert sandbox.taken == ()


async def test_the_trailer_names_the_mxs_host_and_the_sessions_id(sandbox: Sandbox) -> None:
    """The id of the banner stands at the end of every refusal."""
    async with met(sandbox) as client:
        refusal = await rcpt(client, OUTSIDE)

    number = str(client.greeting).rpartition("[")[2].rstrip("]")
    host, _, session = refusal.text.rpartition("[")[2].rstrip("]").split()
    assert session == number
    assert host.endswith(".prod.protection.outlook.com")


async def test_every_door_says_where_it_is(sandbox: Sandbox) -> None:
    """GET /doors has the ports that were really taken, and the files a client needs."""
    async with readback(sandbox) as http:
        doors = (await http.get("/doors")).json()

    async with AsyncExitStack() as stack:
        for name in ("submission", "mx", "hve", "acs"):
            client = await stack.enter_async_context(connected(sandbox, name))
            assert client.greeting is not None
            assert doors[name]["port"] == getattr(sandbox, f"{name}_port")
    assert Path(doors["client_certificate"]).read_bytes() == sandbox.client_certificate.read_bytes()
    assert Path(doors["client_key"]).exists()
