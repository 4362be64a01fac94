"""The sandbox and the reports that a client asks for: read, kept, refused where malformed (RFC 3461)."""

import pytest

from service.sandbox import Sandbox
from tests.sandbox.client import MAILBOX, logged_in, message
from tests.sandbox.entra import readback


async def test_what_was_asked_is_read_back(sandbox: Sandbox) -> None:
    """Message and recipients with what was said of them, xtext decoded; null where nothing was asked."""
    async with logged_in(sandbox) as client:
        await client.say(f"MAIL FROM:<{MAILBOX}> RET=HDRS ENVID=order+2042")
        await client.say(
            "RCPT TO:<ana@fabrikam.com> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;ana+2Bx@fabrikam.com"
        )
        await client.say("RCPT TO:<ben@fabrikam.com>")
        assert (await client.say("DATA")).code == 354
        assert (await client.content(message(1))).code == 250
        assert (await client.send("ana@fabrikam.com", octets=message(2))).code == 250

    async with readback(sandbox) as http:
        second, first = (await http.get("/messages")).json()["data"]
    assert first["dsn"] == {
        "ret": "HDRS",
        "envid": "order 42",
        "recipients": {
            "ana@fabrikam.com": {"notify": "SUCCESS,FAILURE", "orcpt": "rfc822;ana+x@fabrikam.com"}
        },
    }
    assert second["dsn"] is None


@pytest.mark.parametrize(
    ("mail", "rcpt"),
    [
        ("RET=ALL", ""),
        ("ENVID=", ""),
        ("ENVID=a+4x", ""),
        ("ENVID=a+0D+0Ab", ""),
        (f"ENVID={'x' * 101}", ""),
        ("", "NOTIFY=NEVER,FAILURE"),
        ("", "NOTIFY=SOMETIMES"),
        ("", "NOTIFY="),
        ("", "ORCPT=ana@fabrikam.com"),
        ("", "ORCPT=rfc822;a=b"),
    ],
)
async def test_malformed_wishes_are_refused(sandbox: Sandbox, mail: str, rcpt: str) -> None:
    """501 5.5.4 for a parameter that RFC 3461 does not know in this form."""
    async with logged_in(sandbox) as client:
        answers = [await client.say(f"MAIL FROM:<{MAILBOX}> {mail}".rstrip())]
        if rcpt:
            answers.append(await client.say(f"RCPT TO:<ana@fabrikam.com> {rcpt}"))

    assert str(answers[-1]).startswith("501 5.5.4")


async def test_who_wants_no_report_gets_none(sandbox: Sandbox) -> None:
    """NOTIFY without FAILURE keeps the non-delivery report away; with it the report names the envelope."""
    for number, notify in ((1, "NEVER"), (2, "SUCCESS"), (3, "FAILURE")):
        async with logged_in(sandbox) as client:
            await client.say(f"MAIL FROM:<{MAILBOX}> ENVID=order-{number}")
            await client.say(f"RCPT TO:<returned-{number}@fabrikam.com> NOTIFY={notify}")
            assert (await client.say("DATA")).code == 354
            assert (await client.content(message(number))).code == 250

    (report,) = sandbox.reports
    assert report.recipients == ("returned-3@fabrikam.com",)
    assert b"Original-Envelope-Id: order-3\r\n" in (sandbox.content(report) or b"")
    assert sandbox.taken[0].returned == ("returned-1@fabrikam.com",)
