"""The configuration: its sources, its rules, and how mistakes are told."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml
from pydantic import SecretStr

from service.routes.route import BasicLogin, Limits, OAuthLogin, RouteKind
from service.settings import BadSettings, Settings
from service.settings.sources import SECRETS
from service.settings.values import duration, size, written
from service.smtp.peer import TlsMode

TENANT = "11111111-2222-3333-4444-555555555555"
URLS = {"database_url": "postgresql://u:db-password@db/postroom", "redis_url": "redis://cache:6379/0"}


@dataclass
class Place:
    """A folder with a configuration file, and an environment."""

    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    def write(self, text: str, name: str = "postroom.yaml") -> Path:
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return path

    def load(self, **values: Any) -> Settings:
        return Settings.load(self.write(yaml.safe_dump(URLS | values)), self.env)

    def mistakes(self, **values: Any) -> list[str]:
        with pytest.raises(BadSettings) as bad:
            self.load(**values)
        return list(bad.value.lines)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def a_mailbox(**other: Any) -> dict[str, Any]:
    return {
        "address": "noreply@contoso.com",
        "login": {"method": "oauth", "client_id": "app-1", "client_secret": "oauth-secret"},
    } | other


def submission(**other: Any) -> dict[str, Any]:
    return {"name": "noreply", "kind": "client_submission", "mailboxes": [a_mailbox()]} | other


def smarthost(**other: Any) -> dict[str, Any]:
    return {"name": "house", "kind": "smarthost", "host": "mail.contoso.com"} | other


def direct_send(**other: Any) -> dict[str, Any]:
    return {
        "name": "direct",
        "kind": "direct_send",
        "host": "contoso-com.mail.protection.outlook.com",
    } | other


def relay(by: str, **other: Any) -> dict[str, Any]:
    host = "contoso-com.mail.protection.outlook.com"
    return {"name": "connector", "kind": "smtp_relay", "host": host, "authenticate_by": by} | other


def organization(**other: Any) -> dict[str, Any]:
    return {"accepted_domains": ["contoso.com", "contoso.onmicrosoft.com"], "licences": 250} | other


def hve(**other: Any) -> dict[str, Any]:
    return {"name": "hve", "kind": "high_volume_email", "accounts": [a_mailbox()]} | other


def acs(**other: Any) -> dict[str, Any]:
    login = {"method": "basic", "username": "resource|app|tenant", "password": "p"}
    return {"name": "acs", "kind": "azure_communication_services", "login": login} | other


def a_tenant(*routes: dict[str, Any], **other: Any) -> dict[str, Any]:
    """A whole configuration around some routes."""
    return {"organization": organization(), "entra": {"tenant_id": TENANT}, "routes": list(routes)} | other


# --- sources


def test_the_least_that_is_needed(place: Place) -> None:
    """Two URLs make a configuration; all else has a default."""
    settings = place.load()

    assert settings.database_url.get_secret_value() == URLS["database_url"]
    assert settings.dispatch.lease == timedelta(seconds=30)
    assert settings.dispatch.poll_interval == timedelta(seconds=5)
    assert (settings.dispatch.retry.first, settings.dispatch.retry.factor, settings.dispatch.retry.cap) == (
        timedelta(seconds=30),
        2,
        timedelta(minutes=15),
    )
    assert settings.dispatch.uncertain_after == timedelta(minutes=15)
    assert settings.dispatch.expires_after == timedelta(hours=72)
    assert settings.dispatch.shutdown_grace == timedelta(seconds=60)
    assert settings.dispatch.queue_limit >= 100_000
    assert settings.api.max_body == 50 * 1024 * 1024


def test_the_environment_alone_is_enough() -> None:
    """Without a file every value may come from the environment, whatever its letters' case."""
    settings = Settings.load(
        None,
        {
            "POSTROOM_DATABASE_URL": "postgresql://db/x",
            "postroom_redis_url": "redis://cache",
            "POSTROOM_DISPATCH__RETRY__FIRST": "1m",
            "POSTROOM_ORGANIZATION__ACCEPTED_DOMAINS": "contoso.com, fabrikam.com",
        },
    )

    assert settings.dispatch.retry.first == timedelta(minutes=1)
    assert settings.organization.accepted_domains == ("contoso.com", "fabrikam.com")


def test_the_environment_goes_over_the_file(place: Place) -> None:
    """A single value from the environment replaces the file's, and leaves its neighbours."""
    place.env = {"POSTROOM_DISPATCH__LEASE": "10s"}

    settings = place.load(dispatch={"lease": "20s", "poll_interval": "1s"})

    assert (settings.dispatch.lease, settings.dispatch.poll_interval) == (
        timedelta(seconds=10),
        timedelta(seconds=1),
    )


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """`load` reads the environment of the process, and other settings classes' variables have no effect."""
    monkeypatch.setenv("POSTROOM_DATABASE_URL", "postgresql://db/x")
    monkeypatch.setenv("POSTROOM_REDIS_URL", "redis://cache")
    monkeypatch.setenv("DISPATCH", '{"lease": "1h"}')
    monkeypatch.setenv("LOG_LEVEL", "debug")

    settings = Settings.load(None)

    assert (settings.dispatch.lease, settings.log_level) == (timedelta(seconds=30), "info")


def test_the_file_may_be_named_by_the_environment(place: Place) -> None:
    """POSTROOM_CONFIG names the file where --config does not."""
    path = place.write(yaml.safe_dump(URLS | {"log_level": "debug"}))

    assert Settings.load(None, {"POSTROOM_CONFIG": str(path)}).log_level == "debug"


def test_routes_as_json(place: Place) -> None:
    """A list comes as JSON and replaces the file's."""
    place.env = {"POSTROOM_ROUTES": json.dumps([smarthost(name="other")])}

    assert [route.name for route in place.load(routes=[smarthost()]).routes] == ["other"]


def test_one_place_in_a_list(place: Place) -> None:
    """A number in a variable's name changes one entry of the file's list, or appends the next."""
    place.env = {
        "POSTROOM_ROUTES__0__PORT": "2525",
        "POSTROOM_ROUTES__1__NAME": "second",
        "POSTROOM_ROUTES__1__KIND": "smarthost",
        "POSTROOM_ROUTES__1__HOST": "mail2.contoso.com",
    }

    first, second = place.load(routes=[smarthost()]).routes

    assert (first.name, first.port, second.name, second.host) == (
        "house",
        2525,
        "second",
        "mail2.contoso.com",
    )


def test_json_and_single_values_together(place: Place) -> None:
    """A deeper variable goes over a group that is given as JSON."""
    place.env = {"POSTROOM_ENTRA": '{"cloud": "dod", "tenant_id": "t"}', "POSTROOM_ENTRA__CLOUD": "china"}

    settings = place.load()

    assert (settings.entra().cloud, settings.entra().tenant_id) == ("china", "t")


def test_secrets_from_files(place: Place) -> None:
    """Each secret may stand in a file of its own, named in the file or in the environment; the line end is not part of it."""
    place.write("from-file\n", "secret")
    place.write("postgresql://from/file\r\n", "url")
    place.env = {"POSTROOM_DATABASE_URL_FILE": str(place.folder / "url")}
    mailbox = a_mailbox(login={"method": "oauth", "client_id": "app-1", "client_secret_file": "secret"})

    settings = place.load(**a_tenant(submission(mailboxes=[mailbox])))

    assert settings.database_url.get_secret_value() == "postgresql://from/file"
    [lane] = settings.route_book().lanes()
    assert lane.login == OAuthLogin(client_id="app-1", client_secret="from-file")


def test_an_overruled_secret_need_not_exist(place: Place) -> None:
    """A file that the configuration names is not read where the environment gives the secret itself."""
    place.env = {"POSTROOM_REDIS_URL": "redis://x"}
    path = place.write(yaml.safe_dump({"database_url": URLS["database_url"], "redis_url_file": "nowhere"}))

    assert Settings.load(path, place.env).redis_url.get_secret_value() == "redis://x"


def test_what_looks_like_something_else_stays_text(place: Place) -> None:
    """A password of digits, a truth value and a brace are texts, in the file and in the environment."""
    login = "login: {method: basic, username: 007, password: 0123}"
    path = place.write(
        f"database_url: postgresql://db/x\nredis_url: redis://x\nroutes: [{{name: house, kind: smarthost, host: m, {login}}}]"
    )
    place.env = {"POSTROOM_ROUTES__0__LOGIN__PASSWORD": '["no"]'}

    def logins(env: dict[str, str]) -> BasicLogin | None:
        return Settings.load(path, env).route_book().routes["house"].login

    assert logins({}) == BasicLogin(username="007", password="0123")
    assert logins(place.env) == BasicLogin(username="007", password='["no"]')


def test_what_is_not_a_setting_is_left_alone(place: Place) -> None:
    """An empty variable counts as not set, and Kubernetes' service links and the commands' own variables are not ours."""
    place.env = {
        "POSTROOM_LOG_LEVEL": "",
        "POSTROOM_STATE": "/var/lib/x",
        "POSTROOM_PORT": "tcp://10.0.0.1:80",
        "POSTROOM_PORT_80_TCP": "tcp://10.0.0.1:80",
        "POSTROOM_PORT_80_TCP_ADDR": "10.0.0.1",
        "POSTROOM_API_SERVICE_HOST": "10.0.0.1",
        "POSTROOM_API_SERVICE_PORT_HTTP": "80",
        "OTHER": "x",
    }

    assert place.load().log_level == "info"


def test_empty_groups_are_defaults(place: Place) -> None:
    """A name with nothing behind it is a group or a list in which nothing is set."""
    settings = place.load(organization=None, routes=None, dispatch=None)

    assert (settings.routes, settings.organization.accepted_domains) == ((), ())


def test_anchors_may_be_used(place: Place) -> None:
    """YAML's aliases repeat what stands elsewhere."""
    path = place.write(
        "database_url: postgresql://db/x\nredis_url: redis://x\nlog_level: &level debug\n"
        "routes: [{name: a, kind: smarthost, host: m, timeouts: &t {dot: 1m}}, {name: b, kind: smarthost, host: m, timeouts: *t}]\n"
    )

    assert [route.peer.timeouts.dot for route in Settings.load(path, {}).route_book().routes.values()] == [
        60,
        60,
    ]


# --- what cannot be read


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: [", "line 1, column 5: is not YAML"),
        ("- a", "is not a list of settings"),
        ("just text", "is not a list of settings"),
        ("password: *s3cret", "line 1, column 11: is not YAML"),
        ("organization: &a {egress: *a}", "line 1 of postroom.yaml: contains itself"),
        ("log_level: info\nlog_level: debug", "line 2 of postroom.yaml: the name is there twice"),
        ("? [a]\n: b", "is not a plain name"),
        ("password: \x00", "is not YAML"),
        ("[" * 5000, "is not YAML"),
    ],
)
def test_a_file_that_is_no_configuration(place: Place, text: str, line: str) -> None:
    """Broken YAML is told by its place; its text, which may be a secret, is not repeated."""
    with pytest.raises(BadSettings) as bad:
        Settings.load(place.write(text), {})

    assert line in str(bad.value)
    assert "s3cret" not in str(bad.value)


def test_a_file_that_cannot_be_read(place: Place) -> None:
    """A missing file, a folder and a file in another encoding are told as what they are."""
    with pytest.raises(BadSettings, match=r"nowhere.yaml: cannot be read \(No such file"):
        Settings.load(place.folder / "nowhere.yaml", {})
    with pytest.raises(BadSettings, match=r"cannot be read \(Is a directory"):
        Settings.load(place.folder, {})
    (place.folder / "latin.yaml").write_bytes("log_level: ä".encode("latin-1"))
    with pytest.raises(BadSettings, match="is not UTF-8 text"):
        Settings.load(place.folder / "latin.yaml", {})


def test_a_secret_that_cannot_be_read(place: Place) -> None:
    """A missing or empty file is told with its setting, once, beside the other mistakes."""
    place.write("", "empty")

    lines = place.mistakes(
        routes=[
            smarthost(login={"method": "basic", "username": "u", "password_file": "nowhere"}, tls="required"),
            smarthost(
                name="b", login={"method": "basic", "username": "u", "password_file": "empty"}, tls="required"
            ),
        ],
        log_level="loud",
    )

    assert [line.split(" (")[0] for line in lines] == [
        "routes[0].login.password_file",
        "routes[1].login.password_file",
        "log_level",
    ]


def test_a_secret_given_both_ways(place: Place) -> None:
    """A secret and its file beside each other are a mistake."""
    place.write("x", "secret")

    assert any(
        "redis_url and redis_url_file are both given" in line
        for line in place.mistakes(redis_url_file="secret")
    )


@pytest.mark.parametrize(
    ("variable", "value", "line"),
    [
        (
            "POSTROOM_DATABSE_URL",
            "x",
            "databse_url (POSTROOM_DATABSE_URL): there is no such setting here. Is database_url meant?",
        ),
        (
            "POSTROOM_DISPATCH__LEESE",
            "x",
            "dispatch.leese (POSTROOM_DISPATCH__LEESE): there is no such setting",
        ),
        ("POSTROOM_ROUTES__1__NAME", "x", "routes: the numbers in the environment leave a gap"),
        ("POSTROOM_ROUTES", "[{", "routes (POSTROOM_ROUTES): is not a list"),
        ("POSTROOM_ENTRA", "{", "entra (POSTROOM_ENTRA): is not a group of settings"),
        (
            "POSTROOM_ENTRA",
            '{"cloud": "dod", "cloud": "china"}',
            "POSTROOM_ENTRA: is not UTF-8 text, or JSON with a name twice",
        ),
        ("POSTROOM_ROUTE_ORDER", '["a"', "route_order (POSTROOM_ROUTE_ORDER): is not valid JSON"),
        ("POSTROOM_DISPATCH____LEASE", "1s", "POSTROOM_DISPATCH____LEASE: is not a setting's name"),
        ("POSTROOM_0", "x", "0 (POSTROOM_0): there is no such setting"),
        ("POSTROOM_ORGANIZATION__0", "x", "organization"),
        ("POSTROOM_LOG_LEVEL", "\udcff", "POSTROOM_LOG_LEVEL: is not UTF-8 text"),
        ("POSTROOM_DISPATCH__LEASE", "soon", "dispatch.lease (POSTROOM_DISPATCH__LEASE): is not a duration"),
        (
            "POSTROOM_RETENTION__ATTEMPTS",
            "1d",
            "retention.attempts (POSTROOM_RETENTION__ATTEMPTS): has to be greater than or equal to 2d.",
        ),
        (
            "POSTROOM_ORGANIZATION__CLIENT_ID",
            "x",
            "organization.client_id (POSTROOM_ORGANIZATION__CLIENT_ID): there is no such setting here. Remove it.",
        ),
        ("POSTROOM_REDIS_URL", "http://s3cret", "redis_url (POSTROOM_REDIS_URL): is not a URL of this kind"),
        (
            "POSTROOM_LOG_LEVEL",
            "s3cret",
            "log_level (POSTROOM_LOG_LEVEL): has to be 'debug', 'info', 'warning' or 'error'.",
        ),
        (
            "POSTROOM_ORGANIZATION__LICENCES",
            "s3cret",
            "organization.licences (POSTROOM_ORGANIZATION__LICENCES): has to be a whole number",
        ),
    ],
)
def test_a_wrong_variable(place: Place, variable: str, value: str, line: str) -> None:
    """A variable that cannot be used is told by its name, with what is wrong and never with its value."""
    place.env = {variable: value}

    [told] = place.mistakes()

    assert line in told
    assert "s3cret" not in told


def test_what_is_missing(place: Place) -> None:
    """A required setting that is nowhere is named, with both ways to give it."""
    with pytest.raises(BadSettings) as bad:
        Settings.load(place.write(""), {})

    assert bad.value.lines == (
        "database_url: is missing. Set it, or database_url_file.",
        "redis_url: is missing. Set it, or redis_url_file.",
    )


def test_what_is_missing_where_no_file_was_named() -> None:
    """Who forgot to name the file is told so, and how it is named."""
    with pytest.raises(BadSettings) as bad:
        Settings.load(None, {"POSTROOM_REDIS_URL": "redis://cache"})

    assert bad.value.lines == (
        (
            "database_url (no file was named: --config, or POSTROOM_CONFIG): is missing. "
            "Set it, or database_url_file."
        ),
    )


def test_unknown_names_at_every_level(place: Place) -> None:
    """No group takes a name that it does not know."""
    lines = place.mistakes(
        **a_tenant(
            submission(hosst="x", limits={"speed": 1}, mailboxes=[a_mailbox(alias="x")]),
            dispatch={"retry": {"tries": 5}},
            extra="x",
        )
    )

    assert sorted(line.split(" (")[0] for line in lines) == [
        "dispatch.retry.tries",
        "extra",
        "routes[0].hosst",
        "routes[0].limits.speed",
        "routes[0].mailboxes[0].alias",
    ]
    assert all("there is no such setting here" in line for line in lines)


def test_all_mistakes_are_told_at_once(place: Place) -> None:
    """One route's broken field hides neither another route's broken rule nor a wrong order."""
    lines = place.mistakes(
        **a_tenant(
            submission(port="many"), smarthost(), submission(name="third", port=465), dispatch={"lease": "0s"}
        )
    )

    assert [line.split(":")[0].split(" ")[0] for line in lines] == [
        "routes[0].port",
        "dispatch.lease",
        "routes[2].port",
    ]


def test_no_secret_in_any_trace(place: Place) -> None:
    """Neither the lines nor the chain of exceptions of a refused configuration show a secret."""
    with pytest.raises(BadSettings) as bad:
        place.load(**a_tenant(submission(port=465), database_url="db-password", log_level="loud"))

    assert "oauth-secret" not in repr(bad.getrepr(style="long", chain=True))
    assert "db-password" not in str(bad.value)
    assert bad.value.__cause__ is None


# --- rules


Rule = tuple[dict[str, Any], str]

CERTIFICATE = {"certificate_file": "c.pem", "private_key_file": "c.key"}
DYNAMIC = {"egress": {"static_ips": ["203.0.113.10"], "hosting": "own_dynamic_ip"}}

RULES: list[Rule] = [
    (submission(host="52.97.1.2"), "routes[0].host: is an IP address"),
    (submission(host="2603:1026::1"), "routes[0].host: is an IP address"),
    (direct_send(host="[52.97.1.2]"), "routes[0].host: is an IP address"),
    (submission(host="2130706433"), "routes[0].host: is an IP address"),
    (submission(host="0x7f.1"), "routes[0].host: is an IP address"),
    (relay("ip", host="0x34610102"), "routes[0].host: is an IP address"),
    (direct_send(host="52.97.258"), "routes[0].host: is an IP address"),
    (hve(host="::ffff:52.97.1.2"), "routes[0].host: is an IP address"),
    (acs(host="017700000001"), "routes[0].host: is an IP address"),
    (direct_send(host="smtp.office365.com"), "routes[0].host: is the endpoint of client submission"),
    (submission(host="contoso-com.mail.protection.outlook.com"), "routes[0].host: is an MX endpoint"),
    (direct_send(allow_private=True), "routes[0].allow_private: is about the host that mx_of finds"),
    (direct_send(host=None, mx_of="contoso.com", tls="none"), "routes[0].tls: none is not possible with direct_send"),
    (hve(port=25), "routes[0].port: a high_volume_email route uses port 587"),
    (hve(tls="none"), "routes[0].tls: none would let the logins of accounts go out unprotected; Postroom logs in over TLS only. Set required."),
    (hve(tls="opportunistic", host="hve.contoso.test"), "routes[0].tls: opportunistic would let the logins of accounts go out"),
    (acs(tls="opportunistic"), "routes[0].tls: opportunistic would let the password of login go out unprotected; Postroom logs in over TLS only. Set required."),
    (hve(accounts=[]), "routes[0].accounts: is empty"),
    (hve(accounts=[a_mailbox(send_as=["billing@contoso.com"])]), "routes[0].accounts[0].send_as: an account of High Volume Email sends as itself only"),
    (acs(port=465), "routes[0].port: 465 is for TLS from the first octet"),
    (acs(login={"method": "basic", "username": "resource|app", "password": "p"}), "routes[0].login.username: has three parts"),
    (acs(login={"method": "basic", "username": "resource||tenant", "password": "p"}), "routes[0].login.username: has three parts"),
    (acs(login={"method": "oauth", "client_id": "x", "client_secret": "s"}), "routes[0].login"),
    (
        submission(mailboxes=[a_mailbox(login={"method": "oauth", "client_id": "x", "client_secret": "s", "client_secret_expires": "soon"})]),
        "routes[0].mailboxes[0].login.client_secret_expires (line",
    ),
    (
        submission(mailboxes=[a_mailbox(login={"method": "oauth", "client_id": "x", "client_secret_expires": "2027-01-01"} | CERTIFICATE)]),
        "routes[0].mailboxes[0].login: client_secret_expires is for a secret",
    ),
    (
        submission(mailboxes=[a_mailbox(login={"method": "oauth", "client_id": "x", "client_secret": "s", "scope": "mail"})]),
        "routes[0].mailboxes[0].login.scope (line",
    ),
    (
        submission(
            mailboxes=[
                a_mailbox(login={"method": "basic", "username": "shared@contoso.com", "password": "p"}),
                a_mailbox(address="shared@contoso.com"),
            ]
        ),
        "routes[0].mailboxes[1]: routes[0].mailboxes[0] logs in to this mailbox, too",
    ),
    (submission(port=465), "routes[0].port: 465 is for TLS from the first octet, which Microsoft 365 does not offer"),
    (submission(port=2525), "routes[0].port: a client_submission route uses port 587 or 25"),
    (direct_send(port=587), "routes[0].port: a direct_send route uses port 25"),
    (relay("ip", port=587), "routes[0].port: a smtp_relay route uses port 25"),
    (submission(port=0), "routes[0].port (line"),
    (submission(tls="none"), "routes[0].tls: none would let the logins of mailboxes go out unprotected"),
    (submission(tls="opportunistic"), "routes[0].tls: opportunistic would let the logins of mailboxes go out unprotected"),
    (submission(tls="none", host="mail.sandbox.test", connect_to="127.0.0.1:2587"), "routes[0].tls: none would let the logins of mailboxes"),
    (submission(tls="maybe"), "routes[0].tls (line"),
    (direct_send(tls="none"), "routes[0].tls: none is not possible with direct_send at this host"),
    (
        smarthost(tls="none", login={"method": "basic", "username": "u", "password": "p"}),
        "routes[0].tls: none would let the password of login go out unprotected",
    ),
    (
        smarthost(tls="opportunistic", login={"method": "basic", "username": "u", "password": "p"}),
        "routes[0].tls: opportunistic would let the password",
    ),
    (smarthost(host="smtp.office365.com"), "routes[0].host: is the endpoint of client submission, which takes nothing without a login"),
    (smarthost(host=None), "routes[0].host: is missing, and a smarthost route has no usual one"),
    (direct_send(host=None), "routes[0].host: is missing, and a direct_send route has no usual one. Set host or mx_of."),
    (direct_send(mx_of="contoso.com"), "routes[0].mx_of: host is given too"),
    (direct_send(host=None, mx_of="fabrikam.com"), "routes[0].mx_of: is not one of organization.accepted_domains"),
    (direct_send(client_certificate=CERTIFICATE), "routes[0].client_certificate: direct send must not match a connector"),
    (relay("certificate"), "routes[0].client_certificate: is missing"),
    (relay("certificate", client_certificate=CERTIFICATE, tls="opportunistic"), "routes[0].tls: opportunistic is not"),
    (relay("certificate", client_certificate=CERTIFICATE), "routes[0].client_certificate.certificate_file: cannot be read"),
    (relay("ip", client_certificate=CERTIFICATE), "routes[0].client_certificate: is given, but authenticate_by says ip"),
    (relay("ip"), "routes[0].authenticate_by: ip needs a static public IPv4"),
    (relay("magic"), "routes[0].authenticate_by (line"),
    (smarthost(host="http://mail"), "routes[0].host (line"),
    (smarthost(host="mail:25"), "routes[0].host (line"),
    (smarthost(connect_to="mail"), "routes[0].connect_to (line"),
    (smarthost(connect_to="mail:99999"), "routes[0].connect_to (line"),
    (smarthost(ehlo_name="my host"), "routes[0].ehlo_name (line"),
    (smarthost(ehlo_name="x\r\nMAIL FROM:<a@b>"), "routes[0].ehlo_name (line"),
    (smarthost(ca_file="nowhere.pem"), "routes[0].ca_file: cannot be read"),
    (smarthost(name="auto"), "routes[0].name: auto has a meaning of its own"),
    (smarthost(name="sandbox"), "routes[0].name: sandbox has a meaning of its own"),
    (smarthost(name="no/reply"), "routes[0].name (line"),
    (smarthost(name="House"), "routes[0].name (line"),
    (smarthost(limits={"connections": 0}), "routes[0].limits.connections (line"),
    (smarthost(limits={"message_bytes": "35 apples"}), "routes[0].limits.message_bytes (line"),
    (smarthost(timeouts={"dot": "0s"}), "routes[0].timeouts.dot (line"),
    (smarthost(timeouts={"reply": "1s"}), "routes[0].timeouts.reply (line"),
    (smarthost(enabled="perhaps"), "routes[0].enabled (line"),
    (submission(mailboxes=[]), "routes[0].mailboxes: is empty"),
    (submission(mailboxes=[a_mailbox(), a_mailbox(address="NoReply@contoso.com")]), "routes[0].mailboxes[1].address: the mailbox is there twice"),
    (submission(mailboxes=[a_mailbox(address="nobody")]), "routes[0].mailboxes[0].address (line"),
    (submission(mailboxes=[a_mailbox(send_as=["Ana <ana@contoso.com>"])]), "routes[0].mailboxes[0].send_as[0] (line"),
    (submission(mailboxes=[a_mailbox(login={"method": "magic"})]), "routes[0].mailboxes[0].login.method (line"),
    (submission(mailboxes=[a_mailbox(login={"client_id": "x"})]), "routes[0].mailboxes[0].login.method: is missing"),
    (submission(mailboxes=[a_mailbox(login={"method": "basic"})]), "routes[0].mailboxes[0].login.password: is missing. Set it, or password_file."),
    (submission(mailboxes=[a_mailbox(login={"method": "basic", "password": ""})]), "routes[0].mailboxes[0].login.password (line"),
    (submission(mailboxes=[a_mailbox(login={"method": "oauth", "client_id": "x"})]), "routes[0].mailboxes[0].login: an application proves itself by one credential"),
    (
        submission(mailboxes=[a_mailbox(login={"method": "oauth", "client_id": "x", "certificate_file": "c.pem"})]),
        "routes[0].mailboxes[0].login",
    ),
    (
        submission(mailboxes=[a_mailbox(login={"method": "oauth", "client_id": "x"} | CERTIFICATE)]),
        "routes[0].mailboxes[0].login.certificate_file: cannot be read",
    ),
    ({"name": "x", "kind": "carrier_pigeon"}, "routes[0].kind (line"),
    ({"name": "x"}, "routes[0].kind: is missing"),
    ({"name": "acs", "kind": "azure_communication_services"}, "routes[0].login: is missing"),
]  # fmt: skip


@pytest.mark.parametrize(("route", "line"), RULES, ids=[line for _, line in RULES])
def test_a_broken_rule(place: Place, route: dict[str, Any], line: str) -> None:
    """Each broken rule gives a line that names the setting."""
    lines = place.mistakes(**a_tenant({name: value for name, value in route.items() if value is not None}))

    assert any(told.startswith(line) for told in lines), lines


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (a_tenant(smarthost(), smarthost()), "routes[1].name: another route has it too"),
        (a_tenant(smarthost(), route_order=["house", "gone"]), "route_order[1]: there is no route of that name"),
        (a_tenant(smarthost(), route_order=["house", "house"]), "route_order[1]: the route is there twice"),
        (a_tenant(submission(), entra={}), "routes[0].mailboxes[0].login: OAuth needs to know the directory. Set entra.tenant_id."),
        (a_tenant(direct_send(), organization={}), "routes[0].kind: direct_send sends for the accepted domains only"),
        (a_tenant(relay("ip"), organization=organization(**DYNAMIC)), "routes[0].authenticate_by: ip does not work from own_dynamic_ip"),
        (
            a_tenant(relay("ip"), organization=organization(egress={"static_ips": ["10.5.3.2", "2001:db8::1"]})),
            "routes[0].authenticate_by: ip needs a static public IPv4",
        ),
        (a_tenant(submission(), submission(name="again")), "routes[1].mailboxes[0]: routes[0].mailboxes[0] logs in to this mailbox, too"),
        (a_tenant(submission(), hve()), "routes[1].accounts[0]: routes[0].mailboxes[0] logs in to this mailbox, too"),
        (a_tenant(hve(), entra={"tenant_id": TENANT, "cloud": "china"}), "routes[0].kind: High Volume Email is not offered in the China cloud"),
        (
            a_tenant(relay("ip"), organization=organization(egress={"static_ips": ["203.0.113.10"], "hosting": "third_party_cloud"})),
            "routes[0].authenticate_by: ip does not work from third_party_cloud",
        ),
        (a_tenant(dns={"nameservers": ["dns.contoso.com"]}), "dns.nameservers[0] (line"),
        (a_tenant(dns={"timeout": "0s"}), "dns.timeout (line"),
        (a_tenant(organization=organization(licences=0)), "organization.licences (line"),
        (a_tenant(organization=organization(external_recipients_per_day=0)), "organization.external_recipients_per_day (line"),
        (a_tenant(entra={"authority": "http://localhost:1"}), "entra.authority (line"),
        (a_tenant(entra={"authority": "https://localhost/tenant"}), "entra.authority (line"),
        (a_tenant(entra={"tenant_id": "a/b"}), "entra.tenant_id (line"),
        (a_tenant(entra={"ca_file": "nowhere"}), "entra.ca_file: cannot be read"),
        (a_tenant(organization={"accepted_domains": ["a@b"]}), "organization.accepted_domains[0] (line"),
        (a_tenant(organization={"egress": {"static_ips": ["x"]}}), "organization.egress.static_ips[0] (line"),
        ({"dispatch": {"retry": {"first": "1h"}}}, "dispatch.retry.first: is longer than dispatch.retry.cap"),
        ({"dispatch": {"queue_limit": 0}}, "dispatch.queue_limit (line"),
        ({"sandbox": {"login": {"method": "basic", "username": "u", "password": "p"}}}, "sandbox.tls: a login needs TLS"),
        ({"routes": {"name": "x"}}, "routes"),
        ({"routes": ["x"]}, "routes[0]"),
        ({"organization": []}, "organization"),
    ],
)  # fmt: skip
def test_a_broken_rule_between_settings(place: Place, values: dict[str, Any], line: str) -> None:
    """Rules that hold between groups name the setting, too."""
    lines = place.mistakes(**values)

    assert any(told.startswith(line) for told in lines), lines


GOOD: list[dict[str, Any]] = [
    submission(port=25, connect_to="127.0.0.1:2525"),
    submission(host="localhost", connect_to="[::1]:2525"),
    submission(mailboxes=[a_mailbox(login={"method": "basic", "password": "p"})]),
    submission(enabled=False),
    smarthost(host="10.0.0.1", port=465, tls="none"),
    smarthost(host="fd00::1", ehlo_name="[192.0.2.1]"),
    smarthost(login={"method": "basic", "username": "u", "password": "p"}),
    smarthost(timeouts={"dot": "1s", "connect": 2.5, "body": "500ms"}, limits={"message_bytes": 1000}),
    smarthost(sender_domains=["contoso.com"], recipient_domains="contoso.com, fabrikam.com"),
    direct_send(),
    direct_send(host=None, mx_of="contoso.com"),
    direct_send(host="sandbox.internal", tls="none", connect_to="127.0.0.1:2525"),
    {"name": "hve", "kind": "high_volume_email", "accounts": [a_mailbox()]},
    {"name": "acs", "kind": "azure_communication_services", "login": {"method": "basic", "username": "r|a|t", "password": "p"}},
]  # fmt: skip


@pytest.mark.parametrize("route", GOOD, ids=str)
def test_what_is_allowed(place: Place, route: dict[str, Any]) -> None:
    """Each of these routes is right and can be built."""
    settings = place.load(**a_tenant({name: value for name, value in route.items() if value is not None}))

    assert len(settings.route_book().lanes()) == 1


def test_relay_by_ip(place: Place) -> None:
    """With a static public IPv4 of one's own relay by address is right, and goes over IPv4."""
    egress = {"static_ips": ["10.0.0.1", "203.0.113.10"], "hosting": "own_static_ip"}

    [route] = (
        place.load(**a_tenant(relay("ip"), organization=organization(egress=egress)))
        .route_book()
        .routes.values()
    )

    assert (route.peer.address_family, route.peer.tls) == ("ipv4", TlsMode.OPPORTUNISTIC)
    assert route.sender_domains == ("contoso.com", "contoso.onmicrosoft.com")
    assert route.recipient_domains is None


def relay_files(place: Place, *, not_after: datetime | None = None) -> None:
    """Write a client certificate for an accepted domain, its key, and its authority."""
    authority = trustme.CA()
    issued = authority.create_child_ca().issue_cert("*.contoso.com", not_after=not_after)
    authority.cert_pem.write_to_path(str(place.folder / "ca.pem"))
    issued.private_key_pem.write_to_path(str(place.folder / "c.key"))
    for blob in issued.cert_chain_pems:
        blob.write_to_path(str(place.folder / "c.pem"), append=True)


def test_relay_by_certificate(place: Place) -> None:
    """A certificate for an accepted domain, with its chain up to ca_file, makes a relay."""
    relay_files(place)

    [route] = place.load(
        **a_tenant(relay("certificate", client_certificate=CERTIFICATE, ca_file="ca.pem"))
    ).route_book().routes.values()  # fmt: skip

    assert route.peer.client_certificate == place.folder / "c.pem"
    assert route.peer.client_key == place.folder / "c.key"
    assert (route.peer.tls, route.sender_domains) == (TlsMode.REQUIRED, None)


# --- what comes out


def test_a_client_submission_route(place: Place) -> None:
    """A mailbox gets Microsoft's host, port and limits, and the login with what it may send as."""
    mailbox = a_mailbox(send_as=["billing@contoso.com", "*@shop.contoso.com"])
    settings = place.load(**a_tenant(submission(mailboxes=[mailbox], limits={"connections": 2})))

    [lane] = settings.route_book().lanes()

    assert (lane.name, lane.route.kind) == ("noreply/noreply@contoso.com", RouteKind.CLIENT_SUBMISSION)
    assert (lane.route.peer.host, lane.route.peer.port, lane.route.peer.tls) == (
        "smtp.office365.com",
        587,
        "required",
    )
    assert lane.route.peer.timeouts.dot == 600
    assert lane.limits == Limits(
        messages_per_minute=30,
        recipients_per_day=10_000,
        connections=2,
        recipients_per_message=500,
        message_bytes=36_700_160,
    )
    assert lane.account is not None
    assert [str(address) for address in lane.account.send_as] == ["billing@contoso.com"]
    assert lane.account.send_as_domains == ("shop.contoso.com",)


@pytest.mark.parametrize(
    ("cloud", "host", "authority"),
    [
        ("worldwide", "smtp.office365.com", "https://login.microsoftonline.com"),
        ("gcc_high", "smtp.office365.us", "https://login.microsoftonline.us"),
        ("dod", "outlook-dod.office365.us", "https://login.microsoftonline.us"),
        ("china", "smtp.partner.outlook.cn", "https://login.partner.microsoftonline.cn"),
    ],
)
def test_each_cloud_has_its_hosts(place: Place, cloud: str, host: str, authority: str) -> None:
    """The national clouds have hosts of their own."""
    settings = place.load(**a_tenant(submission(), entra={"tenant_id": TENANT, "cloud": cloud}))

    assert settings.route_book().routes["noreply"].peer.host == host
    assert (settings.entra().authority, settings.entra().own_authority) == (authority, False)


def test_an_authority_of_ones_own(place: Place) -> None:
    """The token service may be another one, with another trust."""
    trustme.CA().cert_pem.write_to_path(str(place.folder / "ca.pem"))

    entra = place.load(
        entra={"tenant_id": TENANT, "authority": "https://localhost:8443/", "ca_file": "ca.pem"}
    ).entra()

    assert (entra.authority, entra.own_authority, entra.ca_file) == (
        "https://localhost:8443",
        True,
        place.folder / "ca.pem",
    )


def test_a_smarthost_has_few_limits(place: Place) -> None:
    """Unless set, an own mail server has no message limit; TLS is used when offered, and required for a login."""
    login = {"method": "basic", "username": "u", "password": "p"}
    book = place.load(routes=[smarthost(), smarthost(name="login", login=login)]).route_book()

    assert book.routes["house"].limits == Limits(connections=10, recipients_per_message=100)
    assert (book.routes["house"].peer.port, book.routes["house"].peer.tls) == (25, TlsMode.OPPORTUNISTIC)
    assert book.routes["login"].peer.tls is TlsMode.REQUIRED
    assert book.routes["login"].login == BasicLogin(username="u", password="p")


def test_a_limit_can_be_lifted(place: Place) -> None:
    """Null in place of a limit is no limit, not the default."""
    [route] = (
        place.load(**a_tenant(submission(limits={"messages_per_minute": None}))).route_book().routes.values()
    )

    assert (route.limits.messages_per_minute, route.limits.connections) == (None, 3)


def test_the_order_of_routes(place: Place) -> None:
    """Without route_order the routes are tried as they are listed; an empty one tries none."""
    both = [smarthost(), smarthost(name="second")]

    assert place.load(routes=both).route_book().order == ("house", "second")
    assert place.load(routes=both, route_order=["second"]).route_book().order == ("second",)
    assert place.load(routes=both, route_order=[]).route_book().order == ()


def test_the_sandbox_is_off_unless_configured(place: Place) -> None:
    """Test keys have a way only where the configuration gives them one."""
    assert place.load().route_book().sandbox is None

    sandbox = place.load(sandbox={"enabled": True, "port": 2587, "tls": "none"}).route_book().sandbox

    assert sandbox is not None
    assert (sandbox.name, sandbox.peer.host, sandbox.peer.port) == ("sandbox", "localhost", 2587)


def test_our_name_is_one_that_exchange_takes(place: Place) -> None:
    """The EHLO name is the one that is set, or made from the host name and the first domain."""
    made, given = (
        place.load(**a_tenant(smarthost(**other))).route_book().routes["house"].peer.ehlo_name
        for other in ({}, {"ehlo_name": "mx.contoso.com"})
    )

    assert "." in made
    assert "_" not in made
    assert given == "mx.contoso.com"


def test_settings_do_not_change(place: Place) -> None:
    """What was loaded stays as it is."""
    settings = place.load()

    with pytest.raises(ValueError, match="frozen"):
        settings.log_level = "debug"  # type: ignore[misc]


# --- warnings


SCOPED = {
    "method": "oauth",
    "client_id": "x",
    "client_secret": "s",
    "scope": "https://outlook.office.com/.default",
}
ACS_LOGIN = {
    "method": "basic",
    "username": "resource|11111111-2222-3333-4444-555555555555|66666666-7777-8888-9999-000000000000",
    "password": "p",
}
STATIC = organization(egress={"static_ips": ["203.0.113.10"], "hosting": "own_static_ip"})


def test_passwords_are_warned_about(place: Place) -> None:
    """A basic login gets the dates at which Microsoft ends it."""
    mailbox = a_mailbox(login={"method": "basic", "password": "p"})

    [warning] = place.load(**a_tenant(submission(mailboxes=[mailbox]))).warnings()

    assert warning.startswith("routes[0].mailboxes[0].login: basic login")
    assert "end of December 2026" in warning
    assert "second half of 2027" in warning


@pytest.mark.parametrize(
    ("values", "warning"),
    [
        ({}, "routes: there is none"),
        (
            a_tenant(submission(mailboxes=[a_mailbox(send_as=["*"])])),
            "routes[0].mailboxes[0].send_as: one mailbox",
        ),
        (
            a_tenant(submission(mailboxes=[a_mailbox(address="a@other.com")])),
            "routes[0].mailboxes[0].address: its domain",
        ),
        (
            a_tenant(submission(limits={"messages_per_minute": 31})),
            "routes[0].limits.messages_per_minute: Microsoft's",
        ),
        (a_tenant(submission(mailboxes=[a_mailbox(send_as=["*@contoso.com"])])), "routes[0].mailboxes[0].send_as: one mailbox"),
        (a_tenant(submission(limits={"recipients_per_message": 1001})), "routes[0].limits.recipients_per_message: Microsoft's limit is 1,000"),
        (a_tenant(submission(limits={"recipients_per_message": 1000, "message_bytes": "150MB"})), None),
        (a_tenant(direct_send(limits={"recipients_per_message": 201})), "routes[0].limits.recipients_per_message: Microsoft's limit is 200"),
        (a_tenant(hve(limits={"message_bytes": "11MB"}, accounts=[a_mailbox(login=SCOPED)])), "routes[0].limits.message_bytes: Microsoft's"),
        (
            a_tenant(acs(login=ACS_LOGIN, sender_domains=["1111.azurecomm.net"], limits={"messages_per_minute": 30})),
            "routes[0].limits.messages_per_minute: Microsoft's limit is 5",
        ),
        (a_tenant(acs(login=ACS_LOGIN)), None),
        (a_tenant(acs(login=ACS_LOGIN | {"username": "friendly"})), None),
        (a_tenant(acs(login=ACS_LOGIN | {"username": "r|a|t"})), "routes[0].login.username: its second part is the application's id"),
        (a_tenant(submission(host="smtp.office365.us")), "routes[0].host: is the endpoint of the gcc_high cloud"),
        (a_tenant(submission(host="smtp.contoso.com")), "routes[0].host: is none of Microsoft's endpoints"),
        (a_tenant(direct_send(host="contoso.com")), "routes[0].host: is none of Microsoft's MX endpoints"),
        (a_tenant(direct_send(host="contoso.com", connect_to="127.0.0.1:2525")), None),
        (a_tenant(direct_send(host=None, mx_of="contoso.com")), None),
        (a_tenant(submission(host="smtp-legacy.office365.com")), "routes[0].host: is Microsoft's endpoint for TLS 1.0"),
        (a_tenant(hve(host="smtp-hve.office365.com", accounts=[a_mailbox(login=SCOPED)])), "routes[0].host: is the old name"),
        (a_tenant(hve()), "routes[0].accounts[0].login: that tokens for High Volume Email have the scope"),
        (
            a_tenant(hve(accounts=[a_mailbox(login={"method": "basic", "password": "p"})])),
            "routes[0].accounts[0].login: basic login: High Volume Email goes on",
        ),
        (
            a_tenant(hve(accounts=[a_mailbox(login=SCOPED)]), entra={"tenant_id": TENANT, "cloud": "gcc_high"}),
            "routes[0].kind: whether High Volume Email is offered in the gcc_high cloud is unverified",
        ),
        (
            a_tenant(submission(mailboxes=[a_mailbox(login=SCOPED)]), entra={"tenant_id": TENANT, "cloud": "dod"}),
            "routes[0].host: that outlook-dod.office365.us is the endpoint of the dod cloud is unverified",
        ),
        (
            a_tenant(submission(host="smtp.partner.outlook.cn"), entra={"tenant_id": TENANT, "cloud": "china"}),
            "routes[0].mailboxes[0].login: that tokens of the china cloud",
        ),
        (a_tenant(submission(), entra={"tenant_id": TENANT, "cloud": "gcc_high"}), None),
        (
            a_tenant(submission(mailboxes=[a_mailbox(address="a@contoso.onmicrosoft.com")])),
            "routes[0].mailboxes[0].address: a sender in onmicrosoft.com has at most 100",
        ),
        (a_tenant(direct_send(), relay("ip"), organization=STATIC), "routes[0].kind: direct send must never match a connector"),
        (a_tenant(direct_send(enabled=False), relay("ip"), organization=STATIC), None),
        (a_tenant(direct_send(), direct_send(name="again")), "routes[1].host: routes[0] leads there in the same way"),
        (a_tenant(smarthost(), smarthost(name="again")), None),
        (
            a_tenant(organization=organization(egress={"static_ips": ["10.5.3.2"]}), routes=[smarthost()]),
            "organization.egress.static_ips[0]: is no public IPv4",
        ),
        (a_tenant(submission(), organization=organization(licences=None)), "organization.licences: is not set"),
        (a_tenant(direct_send(), organization=organization(licences=None)), None),
        (
            a_tenant(submission(), organization=organization(licences=None, external_recipients_per_day=7000)),
            None,
        ),
        (a_tenant(submission(), organization=organization(trial=True)), "organization.trial: a trial tenant has 5,000"),
        (a_tenant(submission(mailboxes=[a_mailbox(login=SCOPED | {"client_secret_expires": "2020-05-31"})])), "routes[0].mailboxes[0].login.client_secret_expires: the secret ended on 2020-05-31"),
        (a_tenant(submission(mailboxes=[a_mailbox(login=SCOPED | {"client_secret_expires": "2999-05-31"})])), None),
        (a_tenant(acs(login=ACS_LOGIN | {"client_secret_expires": "2020-05-31"})), "routes[0].login.client_secret_expires: the secret ended"),
        (a_tenant(submission()), None),
        ({"routes": [smarthost(login={"method": "basic", "username": "u", "password": "p"})]}, None),
    ],
)  # fmt: skip
def test_what_is_warned_about(place: Place, values: dict[str, Any], warning: str | None) -> None:
    """What is allowed and will surprise someone is told, and nothing else is."""
    told = place.load(**values).warnings()

    assert len(told) == (0 if warning is None else 1)
    assert all(line.startswith(warning or "") for line in told)


@pytest.mark.parametrize(("days", "told"), [(59, True), (61, False)])
def test_the_end_of_a_client_certificate_is_told_in_time(place: Place, days: int, told: bool) -> None:
    """A certificate that ends within 60 days is warned about; a chain up to ca_file is not Microsoft's liking."""
    ends = datetime.now(UTC) + timedelta(days=days)
    relay_files(place, not_after=ends)

    lines = place.load(
        **a_tenant(relay("certificate", client_certificate=CERTIFICATE, ca_file="ca.pem"))
    ).warnings()

    assert any("certificate_file: the certificate or its chain ends on" in line for line in lines) is told
    assert any("its chain ends in ca_file" in line for line in lines)


def test_the_external_budget(place: Place) -> None:
    """The licences give the tenant's budget of external recipients; a number of one's own goes over them."""

    def budget(**other: Any) -> int | None:
        return place.load(**a_tenant(organization=organization(**other))).route_book().external_budget

    assert budget() == 33_352
    assert budget(licences=None) is None
    assert budget(licences=None, trial=True) == 5000
    assert budget(external_recipients_per_day=7) == 7


def test_whom_to_ask_for_mx_records(place: Place) -> None:
    """Name servers are addresses, with a port where it is not 53."""
    place.env = {"POSTROOM_DNS__NAMESERVERS": "192.0.2.53, 127.0.0.1:5353, [::1]:54, 2001:db8::53"}

    resolver = place.load(dns={"timeout": "2s"}).resolver()

    assert resolver.nameservers == (
        ("192.0.2.53", 53),
        ("127.0.0.1", 5353),
        ("::1", 54),
        ("2001:db8::53", 53),
    )
    assert resolver.timeout == 2
    assert place.load(dns={"timeout": "2s"}).effective()
    place.env = {}
    assert place.load().resolver().nameservers == ()


def test_an_mx_route(place: Place) -> None:
    """A route with mx_of knows whose MX it wants, over IPv4, and whether it may be private."""
    direct = direct_send(host=None, mx_of="contoso.com", allow_private=True, tls="none")

    [route] = place.load(**a_tenant(direct)).route_book().routes.values()

    assert (route.mx_of, route.allow_private, route.peer.address_family) == ("contoso.com", True, "ipv4")


def test_each_limit_has_its_source(place: Place) -> None:
    """A limit is Microsoft's with its page, Postroom's, or the configuration's; what has no limit has no source."""
    [route] = place.load(**a_tenant(submission(limits={"connections": 2}))).route_book().routes.values()

    sources = route.limit_sources
    assert sources["connections"] == "configuration"
    assert sources["messages_per_minute"].startswith("Microsoft 365: Exchange Online limits")
    assert "messages_per_hour" not in sources


def test_a_domain_that_azure_manages_has_lower_limits(place: Place) -> None:
    """Azure's own domains are held to 5 messages a minute and 10 an hour."""
    managed, own = (
        place.load(**a_tenant(acs(login=ACS_LOGIN, sender_domains=[domain])))
        .route_book()
        .routes["acs"]
        .limits
        for domain in ("1111.azurecomm.net", "contoso.com")
    )

    assert (managed.messages_per_minute, managed.messages_per_hour) == (5, 10)
    assert (own.messages_per_minute, own.messages_per_hour) == (30, 100)


def test_resting_routes_may_be_kept_to(place: Place) -> None:
    """The setting reaches the choice."""
    assert place.load().route_book().pass_over_resting
    assert not place.load(pass_over_resting="false").route_book().pass_over_resting


# --- explaining


def test_every_setting_with_its_source(place: Place) -> None:
    """`effective` lists each setting with the value in force and where it comes from."""
    place.write("redis://:redis-password@cache/0", "url")
    place.env = {
        "POSTROOM_REDIS_URL_FILE": str(place.folder / "url"),
        "POSTROOM_ROUTES__0__LIMITS__CONNECTIONS": "2",
    }
    path = place.write(yaml.safe_dump({"database_url": URLS["database_url"]} | a_tenant(submission())))

    shown = {each.name: (each.value, each.source) for each in Settings.load(path, place.env).effective()}

    assert shown["database_url"] == ("postgresql://u:********@db/postroom", "file")
    assert shown["redis_url"] == ("redis://:********@cache/0", "secret file")
    assert shown["organization.accepted_domains"] == (["contoso.com", "contoso.onmicrosoft.com"], "file")
    assert shown["entra.tenant_id"] == (TENANT, "file")
    assert shown["routes[0].host"] == ("smtp.office365.com", "default")
    assert shown["routes[0].limits.connections"] == (2, "environment")
    assert shown["routes[0].limits.messages_per_minute"] == (30, "default")
    assert shown["routes[0].timeouts.dot"] == ("10m", "default")
    assert shown["routes[0].mailboxes[0].address"] == ("noreply@contoso.com", "file")
    assert shown["routes[0].mailboxes[0].login.client_secret"] == ("********", "file")
    assert shown["dispatch.lease"] == ("30s", "default")
    assert "password" not in json.dumps(shown)
    assert "oauth-secret" not in json.dumps(shown)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://db/postroom", "postgresql://db/postroom"),
        ("postgresql://u@db/postroom", "postgresql://u@db/postroom"),
        ("postgresql://u:p@ss/w:rd@db/postroom", "postgresql://u:********@db/postroom"),
        ("postgresql://db/postroom?user=u&password=p%40ss&sslmode=require", "postgresql://db/postroom?user=u&password=********&sslmode=require"),
    ],
)  # fmt: skip
def test_passwords_in_urls_are_struck_out(place: Place, url: str, shown: str) -> None:
    """The part of a URL that is a password is hidden wherever it stands, and the rest is shown."""
    assert (
        next(each.value for each in place.load(database_url=url).effective() if each.name == "database_url")
        == shown
    )


def test_settings_can_be_printed(place: Place) -> None:
    """A repr of the settings shows no secret."""
    shown = repr(place.load(**a_tenant(submission())))

    assert "oauth-secret" not in shown
    assert "db-password" not in shown


def test_the_schema_describes_the_file() -> None:
    """The JSON schema knows every group, requires what is required, and takes secrets either way."""
    schema: Any = Settings.schema()

    assert {"database_url", "database_url_file", "routes", "entra", "dispatch"} <= set(schema["properties"])
    assert {"required": ["database_url_file"]} in schema["allOf"][0]["oneOf"]
    assert "password_file" in schema["$defs"]["Password"]["properties"]
    assert schema["additionalProperties"] is False
    json.dumps(schema)


def test_every_secret_can_be_in_a_file() -> None:
    """The names that may be given as `<name>_file` are those of the secret fields, all of them."""
    schema: Any = Settings.model_json_schema()
    groups = [schema, *schema["$defs"].values()]
    secret = {
        name
        for group in groups
        for name, described in group.get("properties", {}).items()
        if '"writeOnly": true' in json.dumps(described)
    }

    assert secret == SECRETS


# --- single values


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("30s", 30), ("10m", 600), ("24h", 86400), ("3d", 259200), ("1.5s", 1.5), (90, 90), ("90", 90), (0.25, 0.25), ("5 m", 300)],
)  # fmt: skip
def test_durations(text: object, seconds: float) -> None:
    """Durations are read with their unit; a number alone counts seconds."""
    assert duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "soon", "-5s", "1e3", "5 weeks", True, None, "nan", "٣s", "1m30s"])
def test_what_is_no_duration(text: object) -> None:
    """Anything else is refused."""
    with pytest.raises(ValueError, match="is not a duration"):
        duration(text)


@pytest.mark.parametrize("text", ["0ms", "1ms", "30s", "90s", "10m", "24h", "72h", "15m"])
def test_durations_are_written_as_they_are_read(text: str) -> None:
    """What is written can be read again and means the same."""
    span = duration(text)
    assert isinstance(span, timedelta)
    assert duration(written(span)) == span


@pytest.mark.parametrize(
    ("text", "octets"),
    [("35MB", 36_700_160), ("35 MB", 36_700_160), ("512kB", 524_288), ("1GB", 2**30), ("1000", 1000), (1000, 1000), ("1B", 1)],
)  # fmt: skip
def test_sizes(text: object, octets: int) -> None:
    """Sizes are read as Exchange writes them: 1 MB is 1,048,576 octets."""
    assert size(text) == octets


@pytest.mark.parametrize("text", ["", "big", "-1", "1.5MB", "1TB", True, None])
def test_what_is_no_size(text: object) -> None:
    """Anything else is refused."""
    with pytest.raises(ValueError, match="is not a size"):
        size(text)


def test_secret_type(place: Place) -> None:
    """The URLs are kept as secrets, for they hold passwords."""
    assert isinstance(place.load().database_url, SecretStr)
