"""The tenant's description: what is wrong with it is said at once, line by line."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from service.sandbox import (
    BadSandbox,
    SandboxAcsResource,
    SandboxApplication,
    SandboxConfig,
    SandboxConnector,
    SandboxHveAccount,
    SandboxMailbox,
    Switches,
    contoso,
)

BOX = SandboxMailbox(address="noreply@contoso.com")
BY_IP = SandboxConnector(name="By IP", addresses=("203.0.113.10",))


@pytest.mark.parametrize(
    ("changes", "mistake"),
    [
        ({"accepted_domains": ("contoso.com", "not a domain")}, "accepted_domains: not a domain name: not a domain"),
        ({"mailboxes": (BOX, SandboxMailbox(address="NoReply@contoso.com"))}, "mailboxes: noreply@contoso.com is there twice"),
        ({"mailboxes": (SandboxMailbox(address="noreply"),)}, "mailboxes: not a plain address: noreply"),
        ({"mailboxes": (SandboxMailbox(address="a@fabrikam.com"),)}, "mailboxes: the domain of a@fabrikam.com is not among"),
        ({"mailboxes": (SandboxMailbox(address="a@contoso.com", send_as=("*",)),)}, "mailboxes: not a plain address: *"),
        ({"recipients": ("ana",)}, "recipients: not a plain address: ana"),
        ({"connectors": (BY_IP, BY_IP)}, "connectors: By IP is there twice"),
        ({"hve_accounts": (SandboxHveAccount(address="hve@fabrikam.com"),)}, "hve_accounts: not a plain address of an accepted"),
        ({"hve_accounts": (SandboxHveAccount(address="hve@contoso.com", applications=("x",)),)},
         "hve_accounts: hve@contoso.com names an application that does not exist: x"),
        ({"acs_resources": (SandboxAcsResource(name="acs", application="x", senders=("a@contoso.com",)),)},
         "acs_resources: acs names an application that does not exist"),
        ({"applications": ()}, "mailboxes: noreply@contoso.com names an application that does not exist"),
        ({"applications": (SandboxApplication(client_id="x", certificate="no PEM"),), "mailboxes": (BOX,)},
         "applications: x has no readable RSA certificate"),
    ],
)  # fmt: skip
def test_a_tenant_that_does_not_hang_together_is_refused(changes: dict[str, Any], mistake: str) -> None:
    """Each contradiction between domains, mailboxes and applications is named."""
    with pytest.raises(ValueError, match=mistake.replace("*", r"\*")):
        contoso(Path("state"), **changes)


@pytest.mark.parametrize("changes", [{"http_port": 70_000}, {"nonsense": 1}, {"max_sessions": 0}])
def test_a_field_out_of_range_is_refused(changes: dict[str, Any]) -> None:
    """Ports, counts and names of fields are checked when the configuration is made."""
    with pytest.raises(ValidationError):
        contoso(Path("state"), **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"certificate": "*.contoso.com", "addresses": ("203.0.113.10",)},
        {"certificate": "mail.*.contoso.com"},
        {"certificate": "*"},
        {"addresses": ("203.0.112.0/23",)},
        {"addresses": ("203.0.113.10/24",)},
        {"addresses": ("2001:db8::1",)},
        {"addresses": ("contoso.com",)},
        {"certificate": "contoso.com", "kind": "Internet"},
    ],
)
def test_a_connector_that_exchange_would_refuse_is_refused(changes: dict[str, Any]) -> None:
    """By certificate or by IPv4 of /24 to /32; a wildcard stands in front or nowhere."""
    with pytest.raises(ValidationError):
        SandboxConnector(name="Wrong", **changes)


@pytest.mark.parametrize(
    "staged",
    [
        {"at": "rcpt", "text": "550"},
        {"at": "rcpt", "text": "550 5.7.1 a\r\n250 b"},
        {"at": "rcpt", "text": "350 5.7.1 not a refusal"},
        {"at": "rcpt", "text": "550-5.7.1 of many lines"},
        {"at": "rcpt", "text": "560 5.7.1 no such code"},
        {"at": "mail", "text": "250 2.1.0 Sender OK"},
        {"at": "rcpt", "text": "550 5.7.1 caf\u00e9"},
        {"at": "quit", "text": "550 5.7.1 no such moment"},
        {"at": "rcpt", "text": "550 5.7.1 x", "times": 0},
        {"at": "rcpt", "text": "550 5.7.1 x", "door": "window"},
    ],
)
def test_a_reply_that_cannot_be_said_is_not_staged(staged: dict[str, Any]) -> None:
    """A staged reply is one line with a code that fits its moment."""
    with pytest.raises(BadSandbox):
        Switches().changed({"replies": [staged]})


def test_secrets_do_not_show() -> None:
    """The configuration can be logged."""
    shown = repr(contoso(Path("state")))

    assert "noreply@contoso.com" in shown
    assert "sandbox-password" not in shown
    assert "sandbox-hve-password" not in shown
    assert "sandbox-client-secret" not in shown


def test_every_mistake_in_the_switches_is_named_once() -> None:
    """Several wrong switches give several lines, sorted."""
    with pytest.raises(BadSandbox) as wrong:
        Switches().changed({"connections": -1, "wording": "odd", "x": 1, "y": 2})

    assert [line.split(":")[0] for line in wrong.value.mistakes] == [
        "connections",
        "there is no such switch",
        "wording",
    ]


def test_switches_change_without_touching_the_old_ones() -> None:
    """What a session has read stays as it was."""
    before = Switches()

    after = before.changed({"token_faults": {"*": {"kind": "slow"}}})

    assert before.token_faults == {}
    assert after.token_faults["*"].kind == "slow"


def test_the_documented_tenant_needs_no_more_than_a_folder(tmp_path: Path) -> None:
    """A newcomer's sandbox listens on this machine only."""
    config: SandboxConfig = contoso(tmp_path)

    assert config.host == "127.0.0.1"


def test_the_manual_tells_every_switch() -> None:
    """docs/sandbox.md has each switch."""
    manual = (Path(__file__).parents[2] / "docs" / "sandbox.md").read_text(encoding="utf-8")

    assert [name for name in Switches().as_json() if f"`{name}`" not in manual] == []
