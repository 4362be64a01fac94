"""docs/tenant.md: what an administrator copies out of it is taken by Postroom, and is what Postroom itself advises."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from service.mail.address import Address
from service.routes.advice import Hosting, Option, Organization
from service.routes.advice.names import names_of
from service.routes.advice.steps import set_up
from service.routes.diagnoses.explain import explain
from service.routes.route import RouteKind
from service.settings import Settings
from tests.tools.cache import REPOSITORY

DOCUMENT = (REPOSITORY / "docs/tenant.md").read_text()
URLS = {"database_url": "postgresql://db/postroom", "redis_url": "redis://cache"}

_CMDLET = re.compile(r"\b(?:Add|Connect|Disable|Enable|Get|Install|New|Read|Remove|Set)-[A-Z][A-Za-z0-9]+\b")
_PARAMETER = re.compile(r"(?<= )-[A-Z][A-Za-z0-9]+\b")
_YAML = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)

#: What the advice has no line for: the session, looking around, and undoing.
FURTHER = {
    "Connect-ExchangeOnline",
    "Get-AcceptedDomain",
    "Get-BlockedConnector",
    "Get-MessageTraceV2",
    "Install-Module",
    "Remove-AuthenticationPolicy",
    "Remove-BlockedConnector",
    "Remove-HVEAppAccess",
    "Remove-InboundConnector",
    "Remove-MailUser",
    "Remove-MailboxPermission",
    "Remove-RecipientPermission",
    "Remove-ServicePrincipal",
    "Set-InboundConnector",
    "Set-Mailbox",
}


#: Mail that stays inside asks for no SPF record; that of Azure, the portal shows.
_WITHOUT_RECORD = {Option.HIGH_VOLUME_EMAIL, Option.AZURE_COMMUNICATION_SERVICES}


@dataclass(frozen=True, kw_only=True)
class Way:
    """What the section of one way has to have."""

    kind: RouteKind
    option: Option
    proofs: tuple[str, ...]  # how its settings prove themselves, one a YAML block
    replies: tuple[str, ...]  # the diagnoses of what usually goes wrong


WAYS = {
    "Client submission with OAuth": Way(
        kind=RouteKind.CLIENT_SUBMISSION,
        option=Option.CLIENT_SUBMISSION_OAUTH,
        proofs=("client_secret_file", "certificate_file"),
        replies=(
            "exo.authentication_unsuccessful",
            "exo.smtp_auth_disabled_for_tenant",
            "exo.send_as_denied",
        ),
    ),
    "Client submission with a password": Way(
        kind=RouteKind.CLIENT_SUBMISSION,
        option=Option.CLIENT_SUBMISSION_BASIC,
        proofs=("password_file",),
        replies=("exo.basic_auth_disabled", "entra.security_defaults", "entra.conditional_access"),
    ),
    "Direct send": Way(
        kind=RouteKind.DIRECT_SEND,
        option=Option.DIRECT_SEND,
        proofs=("mx_of",),
        replies=("exo.direct_send_rejected", "exo.address_banned", "exo.recipient_not_found"),
    ),
    "SMTP relay by certificate": Way(
        kind=RouteKind.SMTP_RELAY,
        option=Option.SMTP_RELAY_CERTIFICATE,
        proofs=("authenticate_by: certificate",),
        replies=("exo.relay_denied", "exo.client_certificate_refused", "exo.unregistered_domains"),
    ),
    "SMTP relay by IP": Way(
        kind=RouteKind.SMTP_RELAY,
        option=Option.SMTP_RELAY_IP,
        proofs=("authenticate_by: ip",),
        replies=("exo.relay_denied", "exo.server_busy", "exo.connector_blocked"),
    ),
    "A smarthost": Way(
        kind=RouteKind.SMARTHOST,
        option=Option.OWN_MAIL_SERVER,
        proofs=("password_file",),
        replies=("smtp.relay_refused", "smtp.not_authenticated", "smtp.client_refused"),
    ),
    "High Volume Email": Way(
        kind=RouteKind.HIGH_VOLUME_EMAIL,
        option=Option.HIGH_VOLUME_EMAIL,
        proofs=("client_secret_file", "password_file"),
        replies=(
            "exo.authentication_not_allowed",
            "hve.application_not_allowed",
            "hve.sender_not_account",
        ),
    ),
    "Azure Communication Services": Way(
        kind=RouteKind.AZURE_COMMUNICATION_SERVICES,
        option=Option.AZURE_COMMUNICATION_SERVICES,
        proofs=("password_file",),
        replies=("acs.application_refused", "acs.message_rate", "smtp.message_too_large"),
    ),
}


def sections() -> dict[str, str]:
    """Cut the document at its second headings."""
    _, *parts = re.split(r"^## (.+)$", DOCUMENT, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def blocks(text: str) -> Iterator[str]:
    return (found[1] for found in _YAML.finditer(text))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Make the files that the settings name: a certificate for the domain with its key, and a secret."""
    folder = tmp_path_factory.mktemp("tenant")
    authority = trustme.CA()
    issued = authority.issue_cert("*.contoso.com", key_type=trustme.KeyType.RSA)
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    issued.private_key_pem.write_to_path(str(folder / "key.pem"))
    for part in issued.cert_chain_pems:
        part.write_to_path(str(folder / "chain.pem"), append=True)
    (folder / "secret").write_text("s3cret")
    names = {"certificate_file": "chain.pem", "private_key_file": "key.pem", "ca_file": "ca.pem"}
    return {setting: str(folder / name) for setting, name in names.items()} | {
        setting: str(folder / "secret") for setting in ("client_secret_file", "password_file")
    }


def with_files(given: Any, files: dict[str, str]) -> Any:
    """Put files that exist in the place of those that the document names."""
    if isinstance(given, list):
        return [with_files(each, files) for each in given]
    if not isinstance(given, dict):
        return given
    made = {
        name: files[name] if name.endswith("_file") else with_files(value, files)
        for name, value in given.items()
    }
    # The authority of the tests is not one of this machine's.
    return made | ({"ca_file": files["ca_file"]} if "client_certificate" in made else {})


@pytest.mark.parametrize("title", WAYS)
def test_each_way_has_its_settings(title: str, files: dict[str, str], tmp_path: Path) -> None:
    """Each block of YAML is a configuration that starts, with a route of the section's kind and proof."""
    way, found = WAYS[title], list(blocks(sections()[title]))

    assert len(found) == len(way.proofs)
    for text, proof in zip(found, way.proofs, strict=True):
        path = tmp_path / "postroom.yaml"
        path.write_text(yaml.safe_dump(URLS | with_files(yaml.safe_load(text), files)))
        [route] = Settings.load(path, env={}).route_book().routes.values()
        assert route.kind is way.kind
        assert proof in text
        assert f"postroom check --route {route.name}" in sections()[title]
        assert f"--route {route.name}`" in sections()[title]  # the first message


def test_no_kind_and_no_block_is_left_out() -> None:
    """Each kind of route has a section, and no block of YAML stands outside of them."""
    assert {way.kind for way in WAYS.values()} == set(RouteKind)
    assert len(list(blocks(DOCUMENT))) == DOCUMENT.count("```yaml")
    assert len(list(blocks(DOCUMENT))) == sum(len(way.proofs) for way in WAYS.values())


def test_no_command_is_made_up() -> None:
    """Each cmdlet is one that the advice gives, too, or one of the few others that are known."""
    advice = "".join(path.read_text() for path in (REPOSITORY / "service/routes/advice").glob("*.py"))
    named, known = set(_CMDLET.findall(DOCUMENT)), set(_CMDLET.findall(advice))

    assert named - known == FURTHER


@pytest.mark.parametrize("title", WAYS)
def test_it_says_what_the_advice_says(title: str) -> None:
    """Each cmdlet and parameter, and the SPF record, of POST /routes/recommend stand in the section of that way."""
    contoso = Organization(
        accepted_domains=("contoso.com",),
        static_ips=(ip_address("203.0.113.10"),),
        hosting=Hosting.OWN_STATIC_IP,
    )
    names = names_of(contoso, sender=Address.parse("noreply@contoso.com"))
    way, text = WAYS[title], sections()[title]
    advised = set_up(way.option, names)
    lines = "\n".join(advised.powershell)

    assert set(_CMDLET.findall(lines)) <= set(_CMDLET.findall(text))
    assert set(_PARAMETER.findall(lines)) <= set(_PARAMETER.findall(text))
    # The record of a password's way is said once, at OAuth's.
    assert way.option is Option.CLIENT_SUBMISSION_BASIC or (advised.spf.record or "") in text
    assert (advised.spf.record is None) is (way.option in _WITHOUT_RECORD)


@pytest.mark.parametrize("title", WAYS)
def test_what_goes_wrong_is_in_the_catalogue(title: str) -> None:
    """The replies that a section lists are recognised on its route, as what the section takes them for."""
    way = WAYS[title]
    replies = re.findall(r"^\| `(\d{3} \d\.[^`]+)`", sections()[title], flags=re.MULTILINE)

    found = [explain(reply, kind=way.kind).diagnosis for reply in replies]
    assert tuple(each and each.id for each in found) == way.replies
