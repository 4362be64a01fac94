"""What an administrator is told to do: settings that load, records that are right, real names."""

from datetime import date
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.mail.address import Address
from service.routes.advice import Hosting, Option, Organization
from service.routes.advice.compare import Mark, Possible, Way, compare
from service.routes.advice.names import names_of
from service.routes.advice.powershell import quoted
from service.routes.advice.retirement import judge, milestones
from service.routes.advice.steps import set_up
from service.routes.kinds import Cloud
from service.routes.route import RouteKind
from service.settings import BadSettings, Settings
from tests.routes.builders import a_route

CONTOSO = Organization(
    accepted_domains=("contoso.com",),
    external_budget=33_351,
    static_ips=(ip_address("203.0.113.10"), ip_address("10.5.3.2")),
    hosting=Hosting.OWN_STATIC_IP,
    tenant_id="11111111-2222-3333-4444-555555555555",
)
NAMES = names_of(
    CONTOSO,
    sender=Address.parse("noreply@contoso.com"),
    mx_host=None,
    smarthost="mail.contoso.com",
    client_id="app-1",
)
LOADABLE = [option for option in Option if option not in {Option.GRAPH, Option.SPECIALISED_PROVIDER}]


@pytest.mark.parametrize("option", LOADABLE)
def test_the_configuration_loads(option: Option, tmp_path: Path) -> None:
    """What is given as a snippet is a configuration of ours, but for files that nobody has yet."""
    given: dict[str, Any] = yaml.safe_load(set_up(option, NAMES).configuration or "")
    secret = tmp_path / "secret"
    secret.write_text("s3cret")
    path = tmp_path / "postroom.yaml"
    path.write_text(
        yaml.safe_dump(
            _with_file(given, str(secret))
            | {"database_url": "postgresql://db/postroom", "redis_url": "redis://cache"}
        )
    )

    try:
        lines: tuple[str, ...] = ()
        Settings.load(path, env={})
    except BadSettings as wrong:
        lines = tuple(wrong.lines)

    # The certificate is the only thing that cannot be made up here.
    expected = 1 if option is Option.SMTP_RELAY_CERTIFICATE else 0
    assert len(lines) == expected, lines
    assert all("client_certificate" in line for line in lines)


def _with_file(value: Any, path: str) -> Any:
    """Put a file that exists in the place of every secret's."""
    if isinstance(value, dict):
        return {
            name: path if name.endswith("_file") else _with_file(member, path)
            for name, member in value.items()
        }
    return [_with_file(member, path) for member in value] if isinstance(value, list) else value


@pytest.mark.parametrize("option", list(Option))
def test_every_way_is_told_to_its_end(option: Option) -> None:
    """Settings, SPF, steps and what is unverified are there for each."""
    shown = set_up(option, NAMES)

    assert [name for name, _ in shown.settings][:2] == ["Server or smart host", "Port"]
    assert all(value for _, value in shown.settings)
    assert shown.admin_centre
    assert shown.unverified
    assert shown.spf.domain == "contoso.com"
    assert (shown.configuration is None) == (option is Option.GRAPH)


def test_spf_names_public_addresses_only() -> None:
    """The guide's own example is a private address; it never gets into a record."""
    record = set_up(Option.DIRECT_SEND, NAMES).spf.record

    assert record == "v=spf1 ip4:203.0.113.10 include:spf.protection.outlook.com ~all"


def test_spf_of_mail_that_leaves_from_microsoft() -> None:
    """Client submission needs the include alone, that of its cloud."""
    china = names_of(Organization(accepted_domains=("contoso.cn",), cloud=Cloud.CHINA), sender=None)

    assert set_up(Option.CLIENT_SUBMISSION_OAUTH, NAMES).spf.record == (
        "v=spf1 include:spf.protection.outlook.com -all"
    )
    assert set_up(Option.CLIENT_SUBMISSION_OAUTH, china).spf.record == (
        "v=spf1 include:spf.protection.partner.outlook.cn -all"
    )
    assert any("host" in mark for mark in set_up(Option.CLIENT_SUBMISSION_OAUTH, china).unverified)


def test_high_volume_email_is_told_to_its_end() -> None:
    """OAuth needs an application with Mail.Send before an account can let it in; mail inside asks for no SPF record."""
    shown = set_up(Option.HIGH_VOLUME_EMAIL, NAMES)
    steps = " ".join(shown.admin_centre)

    assert "App registrations" in steps
    assert "Mail.Send → Grant admin consent" in steps
    assert "SMTP.SendAsApp" not in steps
    assert shown.spf.record is None
    assert "No record is needed" in " ".join(shown.spf.notes)


def test_azure_gives_the_application_a_role_that_is_enough() -> None:
    """The built-in role of Microsoft's page, or the three rights that it names for one of one's own."""
    steps = " ".join(set_up(Option.AZURE_COMMUNICATION_SERVICES, NAMES).admin_centre)

    assert "Communication and Email Service Owner" in steps
    for right in ("CommunicationServices/Read", "CommunicationServices/Write", "EmailServices/write"):
        assert f"Microsoft.Communication/{right}" in steps


def test_the_service_principal_id_is_found_before_it_is_used() -> None:
    """What the commands call the service principal id, a command before them shows."""
    lines = set_up(Option.CLIENT_SUBMISSION_OAUTH, NAMES).powershell
    shows = next(place for place, line in enumerate(lines) if line.startswith("Get-ServicePrincipal"))
    uses = [place for place, line in enumerate(lines) if "<service principal id>" in line]

    assert uses
    assert min(uses) > shows
    assert "Identity is the service principal id" in lines[shows]


def test_commands_have_the_real_names() -> None:
    """PowerShell lines can be pasted; what only an administrator knows stands in angle brackets."""
    oauth = "\n".join(set_up(Option.CLIENT_SUBMISSION_OAUTH, NAMES).powershell)
    relay = "\n".join(set_up(Option.SMTP_RELAY_CERTIFICATE, NAMES).powershell)
    by_ip = "\n".join(set_up(Option.SMTP_RELAY_IP, NAMES).powershell)

    assert "Set-CASMailbox -Identity noreply@contoso.com -SmtpClientAuthenticationDisabled $false" in oauth
    assert "New-ServicePrincipal -AppId app-1 -ObjectId <" in oauth
    assert "Add-MailboxPermission -Identity noreply@contoso.com" in oauth
    assert "-ConnectorType OnPremises" in relay
    assert "-TlsSenderCertificateName *.contoso.com" in relay
    assert "-SenderIPAddresses 203.0.113.10/32" in by_ip
    assert "10.5.3.2" not in by_ip


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("noreply@contoso.com", "noreply@contoso.com"),
        ("*.contoso.com", "*.contoso.com"),
        ("o'neil@contoso.com", "'o''neil@contoso.com'"),
        ("a$b@contoso.com", "'a$b@contoso.com'"),
        ("a;Remove-Mailbox@contoso.com", "'a;Remove-Mailbox@contoso.com'"),
        ("o\u2019neil@contoso.com", "'o\u2019\u2019neil@contoso.com'"),
        ("-Force", "'-Force'"),
        ("", "''"),
    ],
)
def test_a_name_stays_one_word_of_powershell(word: str, written: str) -> None:
    """No name of anybody becomes a command."""
    assert quoted(word) == written


def test_the_mx_is_never_made_up() -> None:
    """Without a host in the configuration the snippet reads it from DNS."""
    assert "mx_of: contoso.com" in (set_up(Option.DIRECT_SEND, NAMES).configuration or "")
    assert (
        "MX record of contoso.com" in dict(set_up(Option.DIRECT_SEND, NAMES).settings)["Server or smart host"]
    )


# -- the comparison ---------------------------------------------------------------------------


def test_the_comparison_has_every_cell() -> None:
    """Each feature says something for each way, with a source and a mark."""
    found = compare(CONTOSO, [])

    assert [column.way for column in found.columns] == list(Way)
    assert len(found.rows) >= 11  # the guide's eleven, and more
    for row in found.rows:
        assert set(row.cells) == set(Way)
        assert row.source
        assert all(cell.value for cell in row.cells.values())


@pytest.mark.parametrize(
    ("feature", "values"),
    [
        ("external_recipients", {"client_submission": "yes", "direct_send": "no", "smtp_relay_ip": "yes", "high_volume_email": "no"}),
        ("third_party_hosting", {"client_submission": "yes", "direct_send": "yes", "smtp_relay_ip": "no"}),
        ("sent_items", {"client_submission": "yes", "direct_send": "no", "smtp_relay_certificate": "no"}),
        ("port", {"client_submission": "587 or 25", "direct_send": "25", "smtp_relay_ip": "25"}),
        ("rate", {"client_submission": "30 messages a minute, 10,000 recipients a day"}),
    ],
)  # fmt: skip
def test_the_comparison_says_what_the_guide_says(feature: str, values: dict[str, str]) -> None:
    """The guide's own rows have the guide's own answers."""
    row = next(row for row in compare(CONTOSO, []).rows if row.feature == feature)

    assert values == {way: row.cells[Way(way)].value for way in values}


def test_the_comparison_knows_the_organisation() -> None:
    """Configured routes stand in their column, and what is impossible here says why."""
    cloud = Organization(
        accepted_domains=("contoso.com",), hosting=Hosting.THIRD_PARTY_CLOUD, cloud=Cloud.CHINA
    )
    columns = {column.way: column for column in compare(cloud, [a_route("noreply")]).columns}
    rows = {row.feature: row for row in compare(cloud, []).rows}

    assert columns[Way.CLIENT_SUBMISSION].configured == ("noreply",)
    assert columns[Way.SMTP_RELAY_IP].possible is Possible.NO
    assert columns[Way.HIGH_VOLUME_EMAIL].possible is Possible.NO
    assert columns[Way.GRAPH].kind is None
    assert rows["host"].cells[Way.CLIENT_SUBMISSION].value == "smtp.partner.outlook.cn"
    assert rows["host"].cells[Way.CLIENT_SUBMISSION].mark is Mark.ONE_SOURCE


# -- the end of passwords ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("today", "days"), [(date(2026, 11, 24), 37), (date(2026, 12, 31), 0), (date(2027, 3, 1), 0)]
)
def test_days_left_until_passwords_are_off(today: date, days: int) -> None:
    """Counted to the last day of December 2026, and never below nothing."""
    assert {each.code: each.days_left for each in milestones(today)}["off_by_default"] == days


@pytest.mark.parametrize(
    ("kind", "affected"),
    [
        (RouteKind.CLIENT_SUBMISSION, True),
        (RouteKind.HIGH_VOLUME_EMAIL, False),
        (RouteKind.AZURE_COMMUNICATION_SERVICES, False),
        (RouteKind.SMARTHOST, False),
        (None, False),
    ],
)
def test_whom_the_retirement_concerns(kind: RouteKind | None, affected: bool) -> None:
    """Client submission alone; each verdict says what to do, also where it is nothing."""
    found = judge(kind, mailbox="noreply@contoso.com", client_id="app-1", today=date(2026, 11, 24))

    assert found.affected is affected
    assert found.steps
    assert any("noreply@contoso.com" in step for step in found.steps) is affected


def test_the_verdict_changes_on_the_day() -> None:
    """Before the end of December it will stop; after it, it works by an administrator's leave."""
    before = judge(
        RouteKind.CLIENT_SUBMISSION, mailbox="a@b.example", client_id=None, today=date(2026, 12, 30)
    )
    after = judge(
        RouteKind.CLIENT_SUBMISSION, mailbox="a@b.example", client_id=None, today=date(2026, 12, 31)
    )

    assert "stops working" in before.verdict
    assert "only where an administrator" in after.verdict
