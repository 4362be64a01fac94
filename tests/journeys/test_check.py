"""Each setting broken on purpose, and only `postroom check` read: it names the cause and the remedy.

The tenant is the sandbox, the DNS a small server of the tests, the database and Redis are real. Mistakes
that the rules find are read from the message at the start.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.ledger import Ledger
from service.local.check import Findings, Wanted, check
from service.mail.address import Address
from service.sandbox import Sandbox, contoso
from service.sandbox.config import SandboxApplication
from service.settings import BadSettings, Settings
from tests import tenant
from tests.house import QUICK, ROOT, Processes, a_house
from tests.peer import ScriptedPeer
from tests.routes.nameserver import NameServer
from tests.sandbox import broken
from tests.waiting import eventually

GOOD_SPF = '"v=spf1 ip4:203.0.113.10 include:spf.protection.outlook.com ~all"'
MICROSOFT_SPF = '"v=spf1 ip4:40.92.0.0/15 -all"'


@dataclass(kw_only=True)
class World:
    """A tenant, a DNS, and where the configuration lies."""

    sandbox: Sandbox
    dns: NameServer
    folder: Path
    database_url: str
    redis_url: str
    printed: list[str] = field(default_factory=list)

    def given(self, *routes: dict[str, Any], **changes: Any) -> dict[str, Any]:
        return {
            "database_url": self.database_url,
            "redis_url": self.redis_url,
            "routes": list(routes),
            "dispatch": QUICK,
            "dns": {"nameservers": [f"127.0.0.1:{self.dns.port}"], "timeout": "2s"},
            "checks": {"enabled": False},
            **tenant.settings(self.sandbox, licences=250),
            **changes,
        }

    def configuration(self, *routes: dict[str, Any], **changes: Any) -> Path:
        path = self.folder / "postroom.yaml"
        path.write_text(yaml.safe_dump(self.given(*routes, **changes)))
        return path

    async def check(self, *routes: dict[str, Any], wanted: Wanted | None = None, **changes: Any) -> Findings:
        """Do what `postroom check` does, and keep what it prints."""
        settings = Settings.load(self.configuration(*routes, **changes), env={})
        return await check(settings, wanted or Wanted(), tell=self.printed.append)

    @property
    def text(self) -> str:
        """What was printed, without line breaks and indentation."""
        return " ".join("\n".join(self.printed).split())


@pytest.fixture
async def world(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[World]:
    async with NameServer() as dns, Sandbox(contoso(tmp_path / "sandbox")) as sandbox:
        dns.has("contoso.com", "TXT", GOOD_SPF)
        dns.has("spf.protection.outlook.com", "TXT", MICROSOFT_SPF)
        yield World(sandbox=sandbox, dns=dns, folder=tmp_path, database_url=database_url, redis_url=redis_url)


def steps(findings: Findings, route: int = 0) -> dict[str, dict[str, Any]]:
    """Give the steps of a route by name; the first one of each name."""
    found: dict[str, dict[str, Any]] = {}
    for step in findings.routes[route]["steps"]:
        found.setdefault(step["name"], step)
    return found


def failed(findings: Findings) -> list[str]:
    return [step["name"] for step in findings.routes[0]["steps"] if step["status"] == "fail"]


async def test_all_is_well(world: World) -> None:
    """A sound route: every step from the connection to QUIT is told, and nothing was sent."""
    findings = await world.check(tenant.submission(world.sandbox))

    found = steps(findings)
    assert findings.result == "ok", world.text
    assert [name for name, step in found.items() if step["status"] == "ok"] == [
        "token", "connect", "greeting", "ehlo", "starttls", "tls", "peer_certificate", "auth", "mail", "rcpt",
        "rset", "quit", "spf",
    ]  # fmt: skip
    assert found["token"]["facts"]["roles"] == ["SMTP.SendAsApp", "Mail.Send"]
    assert found["token"]["facts"]["audience"] == "https://outlook.office365.com"
    assert found["ehlo"]["facts"]["our_address"] == "127.0.0.1"
    assert "AUTH LOGIN XOAUTH2" in found["ehlo"]["detail"]
    assert found["tls"]["facts"]["version"] in {"TLSv1.2", "TLSv1.3"}
    assert found["peer_certificate"]["facts"]["days_left"] > 300
    assert world.sandbox.taken == ()
    assert "eyJ" not in json.dumps(findings.as_json())
    assert "sandbox-client-secret" not in json.dumps(findings.as_json())
    assert world.text.endswith("All well.")


Break = Callable[[World], tuple[dict[str, Any], dict[str, Any]]]  # the route, and changes to the settings


def _wrong_secret(world: World) -> tuple[dict[str, Any], dict[str, Any]]:
    return tenant.submission(world.sandbox, login=tenant.oauth(client_secret="not-the-secret")), {}


def _wrong_application(world: World) -> tuple[dict[str, Any], dict[str, Any]]:
    nobody = "99999999-9999-4999-8999-999999999999"
    return tenant.submission(world.sandbox, login=tenant.oauth(client_id=nobody)), {}


def _wrong_mailbox(world: World) -> tuple[dict[str, Any], dict[str, Any]]:
    mailbox = {"address": "nobody@contoso.com", "login": tenant.oauth()}
    return tenant.submission(world.sandbox, mailboxes=[mailbox]), {}


def _wrong_password(world: World) -> tuple[dict[str, Any], dict[str, Any]]:
    return tenant.submission(world.sandbox, login=tenant.basic("not-the-password")), {}


def _off_for_the_tenant(world: World) -> tuple[dict[str, Any], dict[str, Any]]:
    world.sandbox.switch(smtp_auth_org=False)
    return tenant.submission(world.sandbox), {}


def _off_for_the_mailbox(world: World) -> tuple[dict[str, Any], dict[str, Any]]:
    world.sandbox.switch(smtp_auth_mailboxes={"noreply@contoso.com": False})
    return tenant.submission(world.sandbox), {}


def _wrong_tenant(world: World) -> tuple[dict[str, Any], dict[str, Any]]:
    entra = tenant.settings(world.sandbox)["entra"] | {"tenant_id": "00000000-0000-4000-8000-000000000000"}
    return tenant.submission(world.sandbox), {"entra": entra}


def _reject_direct_send(world: World) -> tuple[dict[str, Any], dict[str, Any]]:
    world.sandbox.switch(reject_direct_send=True)
    return tenant.direct_send(world.sandbox), {}


def _banned_address(world: World) -> tuple[dict[str, Any], dict[str, Any]]:
    world.sandbox.switch(seen_as="203.0.113.10", banned_ips=["203.0.113.0/24"])
    return tenant.direct_send(world.sandbox), {}


def _unknown_name(world: World) -> tuple[dict[str, Any], dict[str, Any]]:
    route = {"name": "house", "kind": "smarthost", "host": "mail.nowhere.invalid", "tls": "opportunistic"}
    return route, {}


def _no_mx(world: World) -> tuple[dict[str, Any], dict[str, Any]]:
    return tenant.direct_send(world.sandbox, host=None, mx_of="contoso.com", connect_to=None), {}


def _private_mx(world: World) -> tuple[dict[str, Any], dict[str, Any]]:
    world.dns.has("contoso.com", "MX", f"0 {tenant.MX_HOST}.")
    world.dns.has(tenant.MX_HOST, "A", "10.0.0.5")
    return tenant.direct_send(world.sandbox, host=None, mx_of="contoso.com", connect_to=None), {}


def _nobody_listens(world: World) -> tuple[dict[str, Any], dict[str, Any]]:
    # Port 1 of this machine: nothing that the tests start can be there.
    return tenant.submission(world.sandbox, connect_to="127.0.0.1:1"), {}


def _wrong_name(world: World) -> tuple[dict[str, Any], dict[str, Any]]:
    return tenant.submission(world.sandbox, host="smtp.fabrikam.com"), {}


def _foreign_authority(world: World) -> tuple[dict[str, Any], dict[str, Any]]:
    authority = world.folder / "another-ca.pem"
    authority.write_bytes(broken.authority())
    return tenant.submission(world.sandbox, ca_file=str(authority)), {}


BROKEN: list[tuple[Break, str, str, str]] = [
    # what is broken, the step that fails, words of the cause, words of the remedy
    (_wrong_secret, "token", "AADSTS7000215", "secret's *value*, not its id"),
    (_wrong_application, "token", "AADSTS700016", "set client_id to the Application (client) ID"),
    (_wrong_tenant, "token", "AADSTS90002", "Set entra.tenant_id"),
    (_wrong_mailbox, "auth", "535 5.7.3", "Add-MailboxPermission -Identity nobody@contoso.com"),
    (_wrong_password, "auth", "535 5.7.3", "set the password in the login again"),
    (_off_for_the_tenant, "auth", "SmtpClientAuthentication is disabled for the Tenant",
     "Set-CASMailbox -Identity noreply@contoso.com -SmtpClientAuthenticationDisabled $false"),
    (_off_for_the_mailbox, "auth", "SmtpClientAuthentication is disabled for the Mailbox",
     "Set-CASMailbox -Identity noreply@contoso.com -SmtpClientAuthenticationDisabled $false"),
    (_reject_direct_send, "rcpt", "5.7.68", "RejectDirectSend $false"),
    (_banned_address, "rcpt", "5.7.606", "sender.office.com"),
    (_unknown_name, "name", "mail.nowhere.invalid", "DNS"),
    (_no_mx, "name", "has no MX record", "Publish the MX record of contoso.com"),
    (_private_mx, "name", "10.0.0.5", "dns.nameservers"),
    (_nobody_listens, "connect", "connection refused", "Nothing listens at 127.0.0.1:1"),
    (_wrong_name, "peer_certificate", "smtp.office365.com", "Set `host` of route noreply to a name that the certificate has"),
    (_foreign_authority, "peer_certificate", "issued by", "not in ca_file (another-ca.pem)"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("breaks", "step", "cause", "remedy"),
    BROKEN,
    ids=[each[0].__name__.removeprefix("_") for each in BROKEN],
)
async def test_what_is_broken_is_named(
    world: World, breaks: Break, step: str, cause: str, remedy: str
) -> None:
    """One setting is broken: the step that shows it fails alone, with the cause and what to do."""
    route, changes = breaks(world)

    findings = await world.check(route, **changes)

    found = steps(findings)[step]
    assert failed(findings) == [step], world.text
    assert cause in found["detail"]
    assert remedy in " ".join(found["remedy"]), found["remedy"]
    assert findings.result == "fail"
    assert "1 step failed" in world.text
    assert world.sandbox.taken == ()


async def test_a_missing_role_is_the_first_thing_to_mend(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """A token without SMTP.SendAsApp: the login's refusal says nothing, the check says which permission."""
    application = SandboxApplication(
        client_id=tenant.CLIENT_ID, client_secret="sandbox-client-secret", roles=()
    )
    async with NameServer() as dns:
        async with Sandbox(contoso(tmp_path / "sandbox", applications=(application,))) as sandbox:
            dns.has("contoso.com", "TXT", GOOD_SPF)
            dns.has("spf.protection.outlook.com", "TXT", MICROSOFT_SPF)
            world = World(
                sandbox=sandbox, dns=dns, folder=tmp_path, database_url=database_url, redis_url=redis_url
            )
            findings = await world.check(tenant.submission(sandbox))

    found = steps(findings)
    assert found["token"]["status"] == "warn"
    assert "no role at all" in found["token"]["detail"]
    assert failed(findings) == ["auth"]
    assert "SMTP.SendAsApp, then Grant admin consent" in found["auth"]["remedy"][0]


async def test_a_client_certificate_that_expired_after_the_start(world: World) -> None:
    """A certificate replaced by an expired one behind a running service: the check reads the file again."""
    files = broken.right(world.sandbox)
    here = [world.folder / "client.pem", world.folder / "client.key"]
    for mine, given in zip(here, files, strict=True):
        mine.write_bytes(given.read_bytes())
    certificate = {"certificate_file": str(here[0]), "private_key_file": str(here[1])}
    route = tenant.relay_by_certificate(world.sandbox, client_certificate=certificate)
    settings = Settings.load(world.configuration(route), env={})
    for mine, given in zip(here, broken.expired(world.sandbox, world.folder), strict=True):
        mine.write_bytes(given.read_bytes())

    findings = await check(settings, Wanted(), tell=world.printed.append)

    found = steps(findings)["client_certificate"]
    assert found["status"] == "fail"
    assert "expired at" in found["detail"]
    assert found["remedy"] == ["Renew it."]


async def test_each_kind_of_route_is_checked(world: World) -> None:
    """Routes to the MX, HVE and ACS: each goes to RCPT and back, with the connector and its certificate."""
    world.sandbox.switch(seen_as=tenant.PUBLIC_ADDRESS)
    routes = [
        tenant.direct_send(world.sandbox),
        tenant.relay_by_certificate(world.sandbox),
        tenant.high_volume(world.sandbox),
        tenant.communication_services(world.sandbox),
    ]

    findings = await world.check(*routes)

    assert [shown["result"] for shown in findings.routes] == ["ok"] * 4, world.text
    assert steps(findings, 0)["egress"]["status"] == "ok"
    assert steps(findings, 1)["client_certificate"]["facts"]["days_left"] > 0
    assert "relay.contoso.com" in steps(findings, 1)["client_certificate"]["detail"]
    assert steps(findings, 2)["spf"]["status"] == "skip"
    assert world.sandbox.taken == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"port": 465}, "465 is for TLS from the first octet, which Microsoft 365 does not offer"),
        ({"host": "52.97.1.2"}, "is an IP address, and Microsoft's addresses change"),
        ({"tls": "none"}, "tls: none would let the logins of mailboxes go out unprotected"),
    ],
)
async def test_what_the_rules_find_is_said_at_the_start(
    world: World, change: dict[str, Any], words: str
) -> None:
    """Port 465, an address as host, no TLS: `check` ends with 2, and each line names setting and remedy."""
    config = world.configuration(tenant.submission(world.sandbox, **change))

    code, out, err = await _postroom("check", "--json", config=config)

    assert code == 2
    assert words in err
    assert words in json.loads(out)["steps"][0]["remedy"][0]


async def test_an_expired_client_certificate_stops_the_start(world: World) -> None:
    """The same certificate in the configuration: the settings say which file, the rule and the remedy."""
    certificate, key = broken.expired(world.sandbox, world.folder)
    given = {"certificate_file": str(certificate), "private_key_file": str(key)}

    with pytest.raises(BadSettings) as refused:
        Settings.load(
            world.configuration(tenant.relay_by_certificate(world.sandbox, client_certificate=given)), env={}
        )

    (line,) = refused.value.lines
    assert line.startswith("routes[0].client_certificate.certificate_file: expired at")
    assert line.endswith("Renew it.")


async def test_no_send_as_is_found_by_a_real_message(world: World) -> None:
    """Exchange refuses a missing Send As only after the content: a test message finds it and names the command."""
    mailbox = {
        "address": "noreply@contoso.com",
        "login": tenant.oauth(),
        "send_as": ["sales@contoso.com"],
    }
    route = tenant.submission(world.sandbox, mailboxes=[mailbox])
    wanted = Wanted(
        route="noreply", sender=Address.parse("sales@contoso.com"), send_to=Address.parse("ana@contoso.com")
    )
    async with _working(world, route):
        findings = await world.check(route, wanted=wanted)

    found = steps(findings)["test_message"]
    assert failed(findings) == ["test_message"], world.text
    assert "5.2.252" in found["detail"]
    assert "Add-RecipientPermission" in " ".join(found["remedy"])
    assert "sales@contoso.com" in " ".join(found["remedy"])


async def test_a_real_message_through_a_named_route(world: World) -> None:
    """The guide's last step: a message is accepted, sent by the worker, and followed to its end."""
    route = tenant.submission(world.sandbox)
    wanted = Wanted(route="noreply", send_to=Address.parse("ana@contoso.com"))
    async with _working(world, route):
        findings = await world.check(route, wanted=wanted)

    (taken,) = world.sandbox.taken
    shown = findings.routes[0]["test_message"]
    assert findings.result == "ok", world.text
    assert shown["status"] == "sent"
    assert shown["id"] in steps(findings)["test_message"]["detail"]
    assert taken.recipients == ("ana@contoso.com",)


async def test_no_message_follows_a_failed_step(world: World) -> None:
    """Where a step failed, nothing is sent: it would only repeat the error."""
    route, _ = _off_for_the_tenant(world)

    findings = await world.check(
        route, wanted=Wanted(route="noreply", send_to=Address.parse("ana@contoso.com"))
    )

    assert steps(findings)["test_message"]["status"] == "skip"
    assert world.sandbox.taken == ()


async def test_without_ledger_and_redis_the_routes_are_checked_all_the_same(world: World) -> None:
    """PostgreSQL and Redis are down: both are named with their settings, and the route is well."""
    world.database_url, world.redis_url = "postgresql://nobody@127.0.0.1:1/none", "redis://127.0.0.1:1/0"

    findings = await world.check(tenant.submission(world.sandbox))

    installation = {step.name: step for step in findings.steps}
    assert installation["database"].status == "fail"
    assert "database_url" in installation["database"].remedy[0]
    assert installation["redis"].status == "fail"
    assert findings.routes[0]["result"] == "ok"
    assert findings.routes[0]["id"] is None


async def test_a_database_without_tables(world: World, empty_database_url: str) -> None:
    """An empty database is named as one, with the command that mends it."""
    world.database_url = empty_database_url

    findings = await world.check(tenant.submission(world.sandbox))

    database = next(step for step in findings.steps if step.name == "database")
    assert database.remedy == ("Run `postroom migrate`.",)


async def test_a_peer_that_says_nothing_more(world: World) -> None:
    """A firewall that takes STARTTLS out of the list: named as such, and no secret left the house."""
    async with ScriptedPeer(tls=False) as peer:
        host, port = peer.as_peer().connect_to or ("", 0)
        findings = await world.check(tenant.submission(world.sandbox, connect_to=f"{host}:{port}"))

    assert failed(findings) == ["starttls"]
    assert "inspect esmtp" in steps(findings)["starttls"]["remedy"][0]
    assert peer.logins_tried == []


async def test_the_command(world: World) -> None:
    """`postroom check`: 0 and JSON alone on stdout when all is well, 1 with text, 2 for an unknown route."""
    config = world.configuration(tenant.submission(world.sandbox))

    code, out, _ = await _postroom("check", "--json", config=config)
    assert code == 0
    assert json.loads(out)["result"] == "ok"
    assert json.loads(out)["routes"][0]["id"].startswith("chk_")

    code, _, err = await _postroom("check", "--route", "nothing", config=config)
    assert code == 2
    assert "There is no route nothing. There are: noreply." in err

    world.sandbox.switch(smtp_auth_org=False)
    code, out, _ = await _postroom("check", "--route", "noreply", config=config)
    assert code == 1
    assert "→ Set-CASMailbox -Identity noreply@contoso.com" in out
    assert out.rstrip().endswith("1 step failed. The arrows say what to do.")


async def test_the_worker_checks_by_itself(world: World) -> None:
    """`postroom worker`: the route has its check without being asked, the mailbox's connections are left to mail."""
    given = world.given(tenant.submission(world.sandbox), checks={"interval": "1s"})
    folder = world.folder / "processes"
    folder.mkdir()
    processes = Processes(folder, given)
    ledger = Ledger.open(world.database_url, name="test", connections=1)
    worker = processes.start_worker()
    try:
        check = await eventually(lambda: ledger.latest_check("noreply"), within=60)
    finally:
        worker.terminate()
        code = await asyncio.to_thread(worker.wait, 30)
        await ledger.dispose()

    assert check.asked_by == "schedule"
    assert check.result == "ok", check.steps
    assert code == 0
    assert world.sandbox.taken == ()


async def _postroom(*arguments: str, config: Path) -> tuple[int, str, str]:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "service", *arguments, "--config", str(config),
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await child.communicate()
    assert child.returncode is not None
    return child.returncode, out.decode(), err.decode()


@asynccontextmanager
async def _working(world: World, route: dict[str, Any]) -> AsyncIterator[None]:
    """Let a worker of the same installation run."""
    folder = world.folder / "house"
    folder.mkdir()
    async with a_house(
        world.database_url,
        world.redis_url,
        routes=[route],
        folder=folder,
        settings_changes=tenant.settings(world.sandbox),
    ):
        yield
