"""What is taken and comes back: non-delivery reports as Exchange Online writes them."""

from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest

from service.sandbox import Sandbox
from service.sandbox.behaviours import BEHAVIOURS, Behaviour, When
from tests.sandbox.client import HVE_ACCOUNT, HVE_PASSWORD, MAILBOX, logged_in, message, met, secured
from tests.sandbox.entra import readback

RETURNED = [behaviour for behaviour in BEHAVIOURS if behaviour.when is When.LATER]


@pytest.mark.parametrize("behaviour", RETURNED, ids=lambda one: one.name)
async def test_a_message_comes_back_after_its_250(sandbox: Sandbox, behaviour: Behaviour) -> None:
    """The client hears yes; the report has the status, and the original's Message-ID in its last part."""
    assert behaviour.reply is not None

    async with logged_in(sandbox) as client:
        assert (await client.send("ana@fabrikam.com", f"{behaviour.name}-1@fabrikam.com")).code == 250

    async with readback(sandbox) as http:
        (entry,) = (await http.get("/reports", params={"to": MAILBOX.upper()})).json()["data"]
        octets = (await http.get(f"/reports/{entry['id']}/content")).content
    mail, status, original = _read(octets)
    assert mail["To"] == MAILBOX
    assert mail["Subject"] == "Undeliverable: Number 1"
    assert mail["Auto-Submitted"] == "auto-replied"
    assert mail.get_content_type() == "multipart/report"
    assert mail.get_param("report-type") == "delivery-status"
    assert status["Final-Recipient"] == f"rfc822;{behaviour.name}-1@fabrikam.com"
    assert status["Action"] == "failed"
    assert status["Status"] == behaviour.reply.line.split()[1]
    assert status["Diagnostic-Code"].startswith(f"smtp;{behaviour.reply.line[:9]}")
    assert original["Message-ID"] == "<1@contoso.com>"
    assert entry["message_id"] == "<1@contoso.com>"
    assert sandbox.taken[0].delivered_to == ("ana@fabrikam.com",)


async def test_the_diagnostic_code_is_folded(sandbox: Sandbox) -> None:
    """Whoever reads the report line by line reads half of it."""
    async with logged_in(sandbox) as client:
        await client.send("returned@fabrikam.com")

    octets = sandbox.content(sandbox.reports[0]) or b""
    assert b"\r\nDiagnostic-Code: smtp;550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient\r\n\t" in octets
    assert max(map(len, octets.split(b"\r\n"))) <= 998


async def test_unknown_recipients_of_the_tenant_come_back(sandbox: Sandbox) -> None:
    """Client submission and High Volume Email take them first, unlike the MX."""
    async with logged_in(sandbox) as client:
        assert (await client.send("nobody@contoso.com")).code == 250
    async with secured(sandbox, "hve") as client:
        await client.login(HVE_ACCOUNT, HVE_PASSWORD)
        octets = message(2, sender=HVE_ACCOUNT)
        assert (await client.send("nobody@contoso.com", sender=HVE_ACCOUNT, octets=octets)).code == 250

    assert [report.to for report in sandbox.reports] == [MAILBOX, HVE_ACCOUNT]
    assert [taken.delivered_to for taken in sandbox.taken] == [(), ()]


async def test_one_report_names_all_who_were_not_reached(sandbox: Sandbox) -> None:
    """Each recipient has a block of fields of its own."""
    async with logged_in(sandbox) as client:
        await client.send("returned@fabrikam.com", "returned-full@fabrikam.com")

    (report,) = sandbox.reports
    octets = sandbox.content(report) or b""
    assert report.recipients == ("returned@fabrikam.com", "returned-full@fabrikam.com")
    assert octets.count(b"\r\nFinal-Recipient: rfc822;") == 2


async def test_the_null_reverse_path_gets_no_report(sandbox: Sandbox) -> None:
    """Or two servers would write to each other for ever (RFC 5321 §4.5.5)."""
    async with met(sandbox) as client:
        assert (await client.send("returned@contoso.com", sender="")).code == 250

    assert sandbox.reports == ()
    assert sandbox.taken[0].returned == ("returned@contoso.com",)


async def test_nothing_in_a_message_breaks_the_report(sandbox: Sandbox) -> None:
    """A subject with a folded line, and a header without an end, make no field of the report's."""
    octets = f"From: <{MAILBOX}>\r\nSubject: one\r\n Bcc: two =?utf-8?q?=0D=0ABcc:_x?=\r\nMessage-ID: <9@contoso.com>\r\n"

    async with logged_in(sandbox) as client:
        assert (await client.send("returned@fabrikam.com", octets=octets.encode())).code == 250

    mail, _, original = _read(sandbox.content(sandbox.reports[0]) or b"")
    assert mail.get_all("Bcc") is None
    assert original["Message-ID"] == "<9@contoso.com>"


async def test_reports_are_forgotten_with_the_messages(sandbox: Sandbox) -> None:
    """DELETE /messages empties both, and an unknown report is a 404."""
    async with logged_in(sandbox) as client:
        await client.send("returned@fabrikam.com")

    async with readback(sandbox) as http:
        name = sandbox.reports[0].id
        by_id = (await http.get("/reports", params={"message_id": "1@contoso.com"})).json()["data"]
        await http.delete("/messages")
        assert [entry["id"] for entry in by_id] == [name]
        assert (await http.get("/reports")).json()["data"] == []
        assert (await http.get(f"/reports/{name}/content")).status_code == 404


def _read(octets: bytes) -> tuple[EmailMessage, EmailMessage, EmailMessage]:
    """Return the report, its first recipient's fields, and the original's header."""
    mail = message_from_bytes(octets, policy=policy.SMTP)
    assert isinstance(mail, EmailMessage)
    _, status, original = mail.iter_parts()
    blocks = status.get_payload()
    assert isinstance(blocks, list)
    headers = message_from_bytes(original.get_payload(decode=True), policy=policy.SMTP)  # type: ignore[arg-type]  # octets: decoded
    return mail, blocks[1], headers  # type: ignore[return-value]  # the same policy makes the same class
