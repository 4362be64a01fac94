"""Logging in: by password and by token, and the many ways to be refused."""

import base64
import json

import pytest

from service.sandbox import Sandbox
from tests.sandbox.client import MAILBOX, PASSWORD, connected, encoded, logged_in, secured, xoauth2
from tests.sandbox.entra import signed_in_log, token_for


async def test_auth_login_asks_for_name_and_password(sandbox: Sandbox) -> None:
    """The challenges are the two that every client knows."""
    async with secured(sandbox) as client:
        assert str(await client.say("AUTH LOGIN")) == "334 VXNlcm5hbWU6"
        assert str(await client.say(encoded(MAILBOX))) == "334 UGFzc3dvcmQ6"
        assert str(await client.say(encoded(PASSWORD))) == "235 2.7.0 Authentication successful"


async def test_auth_login_takes_the_name_at_once(sandbox: Sandbox) -> None:
    """The initial response may be the user name, as smtplib sends it."""
    async with secured(sandbox) as client:
        assert str(await client.say(f"auth login {encoded(MAILBOX.upper())}")) == "334 UGFzc3dvcmQ6"
        assert (await client.say(encoded(PASSWORD))).code == 235


async def test_plain_is_not_taken(sandbox: Sandbox) -> None:
    """Microsoft offers LOGIN and XOAUTH2 only; PLAIN is 504."""
    async with secured(sandbox) as client:
        refusal = await client.say(f"AUTH PLAIN {encoded(f'{chr(0)}{MAILBOX}{chr(0)}{PASSWORD}')}")

    assert str(refusal).startswith("504 5.7.4 Unrecognized authentication type")


@pytest.mark.parametrize(
    ("username", "password", "reason"),
    [
        (MAILBOX, "open-sesame", "wrong password"),
        ("nobody@contoso.com", PASSWORD, "there is no such mailbox"),
    ],
)
async def test_a_wrong_password_is_refused_without_a_reason(
    sandbox: Sandbox, username: str, password: str, reason: str
) -> None:
    """The client hears 5.7.3 only; the sign-in log has the reason and never the password."""
    async with secured(sandbox) as client:
        refusal = await client.login(username, password)

    (entry,) = await signed_in_log(sandbox)
    assert str(refusal).startswith("535 5.7.3 Authentication unsuccessful [")
    assert entry["reason"] == reason
    assert entry["succeeded"] is False
    assert password not in json.dumps(entry)


@pytest.mark.parametrize("answer", ["*", "no base64!", "/w=="])
async def test_a_cancelled_or_garbled_login_is_535(sandbox: Sandbox, answer: str) -> None:
    """Where RFC 4954 has 501, Exchange Online answers 535."""
    async with secured(sandbox) as client:
        await client.say("AUTH LOGIN")
        assert str(await client.say(answer)).startswith("535 5.7.3")


FAILED = "535 5.7.139 Authentication unsuccessful, "
SMTP_AUTH_OFF = f"{FAILED}SmtpClientAuthentication is disabled for the"


@pytest.mark.parametrize(
    ("switches", "words"),
    [
        ({"basic_disabled": True}, f"{FAILED}basic authentication is disabled."),
        ({"basic_retired": True}, "550 5.7.30 Basic authentication is not supported for Client Submission."),
        ({"security_defaults": True}, f"{FAILED}user is locked by your organization's security defaults policy. "),
        ({"conditional_access": True}, f"{FAILED}the request did not meet the criteria to be authenticated "),
        ({"smtp_auth_org": False}, f"{SMTP_AUTH_OFF} Tenant. Visit https://aka.ms/smtp_auth_disabled for more "),
        ({"smtp_auth_mailboxes": {MAILBOX: False}}, f"{SMTP_AUTH_OFF} Mailbox. Visit https://aka.ms/smtp_auth_disabled"),
        ({"login_busy": True}, "454 4.7.0 Temporary authentication failure"),
    ],
)  # fmt: skip
async def test_the_administrators_switches_refuse_passwords(
    sandbox: Sandbox, switches: dict[str, object], words: str
) -> None:
    """Each policy that forbids a password has its own words."""
    sandbox.switch(**switches)

    async with secured(sandbox) as client:
        assert str(await client.login()).startswith(words)


async def test_the_mailboxes_own_switch_beats_the_organisations(sandbox: Sandbox) -> None:
    """SMTP AUTH is a tri-state: on for the mailbox wins over off for the organisation."""
    sandbox.switch(smtp_auth_org=False, smtp_auth_mailboxes={MAILBOX.upper(): True})

    async with secured(sandbox) as client:
        assert (await client.login()).code == 235


async def test_mail_after_a_failed_login_repeats_why(sandbox: Sandbox) -> None:
    """A client that ignores the 535 gets 530 5.7.57 with the 535 inside it."""
    sandbox.switch(basic_disabled=True)

    async with secured(sandbox) as client:
        assert str(await client.say(f"MAIL FROM:<{MAILBOX}>")).startswith(
            "530 5.7.57 Client not authenticated to send"
        )
        await client.login()
        refusal = str(await client.say(f"MAIL FROM:<{MAILBOX}>"))

    assert refusal.startswith(
        "530 5.7.57 Client not authenticated to send mail. Error: 535 5.7.139 Authentication"
    )
    assert "basic authentication is disabled." in refusal


async def test_the_third_failed_login_ends_the_session(sandbox: Sandbox) -> None:
    """Three failures are one too many: 421 4.7.0, and the line closes."""
    async with secured(sandbox) as client:
        codes = [(await client.login(password="wrong")).code for _ in range(3)]
        assert codes == [535, 535, 421]
        assert await client.closed()


async def test_a_token_opens_its_applications_mailbox(sandbox: Sandbox) -> None:
    """XOAUTH2 in one line, with a token from the sandbox's own endpoint."""
    async with secured(sandbox) as client:
        assert (await client.token(await token_for(sandbox))).code == 235
        assert (await client.send("ana@fabrikam.com")).code == 250

    assert sandbox.taken[0].method == "xoauth2"


async def test_a_token_may_come_in_a_line_of_its_own(sandbox: Sandbox) -> None:
    """After `AUTH XOAUTH2` alone comes an empty challenge, with its trailing space."""
    token = await token_for(sandbox)

    async with secured(sandbox) as client:
        await client.raw(b"AUTH XOAUTH2\r\n")
        assert await client.octets() == b"334 \r\n"
        assert (await client.say(encoded(xoauth2(MAILBOX, token)))).code == 235


@pytest.mark.parametrize(
    "blob", ["", "user=x", "user=\x01auth=Bearer y\x01\x01", "user=x\x01auth=Basic y\x01\x01"]
)
async def test_a_malformed_token_response_is_535(sandbox: Sandbox, blob: str) -> None:
    """What is no XOAUTH2 response is refused like a wrong one."""
    async with secured(sandbox) as client:
        await client.say("AUTH XOAUTH2")
        assert str(await client.say(encoded(blob))).startswith("535 5.7.3")


async def test_a_refused_token_gets_535_at_once(sandbox: Sandbox) -> None:
    """Exchange Online sends no JSON challenge before the 535."""
    async with secured(sandbox) as client:
        assert str(await client.token("ey.not.one")).startswith("535 5.7.3 Authentication unsuccessful [")


async def test_gmail_mode_sends_json_and_waits_for_an_empty_line(sandbox: Sandbox) -> None:
    """In Gmail's way the 535 comes only after the client has answered the challenge."""
    sandbox.switch(gmail_mode=True)

    async with secured(sandbox) as client:
        challenge = await client.token("ey.not.one")
        assert challenge.code == 334
        assert json.loads(base64.b64decode(challenge.text))["status"] == "400"
        assert (await client.say("")).code == 535


async def test_smtp_auth_off_refuses_tokens_too(sandbox: Sandbox) -> None:
    """OAuth does not remove the need to switch SMTP AUTH on."""
    sandbox.switch(smtp_auth_org=False, basic_disabled=True, security_defaults=True)

    async with secured(sandbox) as client:
        refusal = await client.token(await token_for(sandbox))

    assert "SmtpClientAuthentication is disabled for the Tenant" in str(refusal)


async def test_policies_against_passwords_leave_tokens_alone(sandbox: Sandbox) -> None:
    """Basic authentication off, security defaults on: a token still opens the mailbox."""
    sandbox.switch(basic_disabled=True, security_defaults=True, conditional_access=True)

    async with secured(sandbox) as client:
        assert (await client.token(await token_for(sandbox))).code == 235


async def test_nobody_logs_in_before_tls(sandbox: Sandbox) -> None:
    """AUTH in clear text is refused before a name is asked for."""
    async with connected(sandbox) as client:
        await client.say("EHLO client.example")
        assert str(await client.say("AUTH LOGIN")).startswith("530 5.7.0 Must issue a STARTTLS command first")


async def test_a_second_login_on_a_session_is_refused(sandbox: Sandbox) -> None:
    """One login a session."""
    async with logged_in(sandbox) as client:
        assert (await client.say("AUTH LOGIN")).code == 503
