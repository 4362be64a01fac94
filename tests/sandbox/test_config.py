"""The tenant's description: what is wrong with it is said at once, line by line."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from service.sandbox import BadSandbox, SandboxApplication, SandboxConfig, SandboxMailbox, Switches, contoso

BOX = SandboxMailbox(address="noreply@contoso.com")


@pytest.mark.parametrize(
    ("changes", "mistake"),
    [
        ({"accepted_domains": ("contoso.com", "not a domain")}, "accepted_domains: not a domain name: not a domain"),
        ({"mailboxes": (BOX, SandboxMailbox(address="NoReply@contoso.com"))}, "mailboxes: noreply@contoso.com is there twice"),
        ({"mailboxes": (SandboxMailbox(address="noreply"),)}, "mailboxes: not a plain address: noreply"),
        ({"mailboxes": (SandboxMailbox(address="a@fabrikam.com"),)}, "mailboxes: the domain of a@fabrikam.com is not among"),
        ({"mailboxes": (SandboxMailbox(address="a@contoso.com", send_as=("*",)),)}, "mailboxes: not a plain address: *"),
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


def test_secrets_do_not_show() -> None:
    """The configuration can be logged."""
    shown = repr(contoso(Path("state")))

    assert "noreply@contoso.com" in shown
    assert "sandbox-password" not in shown
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
