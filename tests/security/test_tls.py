"""Verification of certificates cannot be switched off in silence: not by a setting, not in the code."""

import ast
import json
import ssl
from pathlib import Path
from typing import Any

import pytest

from service.settings import BadSettings, Settings
from service.smtp.peer import Peer, TlsMode
from service.smtp.tls import context_for
from tests.house import ROOT, configuration

#: The one place that takes any certificate: opportunistic TLS (RFC 7435), which carries no login.
ANY_CERTIFICATE = {"service/smtp/tls.py"}


def test_no_code_takes_any_certificate() -> None:
    """Nothing but opportunistic TLS asks for it, in any of the ways that Python has."""
    found = set()
    for path in sorted((ROOT / "service").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = {getattr(node, "attr", None), getattr(node, "id", None), getattr(node, "arg", None)}
            off = isinstance(node, ast.keyword) and node.arg in {"verify", "check_hostname", "validate_certs"}
            off = off and isinstance(node.value, ast.Constant) and node.value.value is False  # type: ignore[attr-defined]  # narrowed above
            if off or names & {
                "CERT_NONE",
                "CERT_OPTIONAL",
                "_create_unverified_context",
                "disable_warnings",
            }:
                found.add(str(path.relative_to(ROOT)))

    assert found - {each for each in found if each.startswith("service/sandbox/")} == ANY_CERTIFICATE


def test_no_setting_switches_it_off() -> None:
    """No name in the schema says so; `ca_file` adds whom to trust, and `tls` is said by name."""
    names = {name.lower() for name in _names(Settings.schema())}

    assert "ca_file" in names
    assert not [
        name
        for name in names
        for word in ("verify", "insecure", "skip", "unsafe", "trust_all", "allow_invalid")
        if word in name
    ]


def _names(schema: Any) -> list[str]:
    if isinstance(schema, list):
        return [name for each in schema for name in _names(each)]
    if not isinstance(schema, dict):
        return []
    return [*schema.get("properties", {}), *[name for each in schema.values() for name in _names(each)]]


def with_route(tmp_path: Path, **route: Any) -> Path:
    path = tmp_path / "postroom.yaml"
    given = configuration(
        "postgresql://x@127.0.0.1/x", "redis://127.0.0.1/0", routes=[{"name": "r", **route}]
    )
    path.write_text(json.dumps(given))
    return path


PASSWORD = {"method": "basic", "username": "u", "password": "secret"}
MAILBOX = [{"address": "a@contoso.com", "login": {"method": "basic", "password": "secret"}}]


@pytest.mark.parametrize("tls", ["none", "opportunistic"])
@pytest.mark.parametrize(
    "route",
    [
        {"kind": "smarthost", "host": "smtp.contoso.com", "login": PASSWORD},
        {"kind": "client_submission", "mailboxes": MAILBOX},
        {"kind": "high_volume_email", "accounts": MAILBOX},
        {"kind": "azure_communication_services", "login": {**PASSWORD, "username": "a|b|c"}},
    ],
    ids=lambda route: str(route["kind"]),
)
def test_a_login_needs_tls_that_is_verified(route: dict[str, Any], tls: str, tmp_path: Path) -> None:
    """No route with a login starts without it, and the mistake names the setting and not the password."""
    with pytest.raises(BadSettings) as refused:
        Settings.load(with_route(tmp_path, **route, tls=tls), env={})

    assert "tls" in str(refused.value)
    assert "secret" not in str(refused.value).replace("client_secret", "")


def test_the_environment_switches_nothing_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that other clients obey change neither what is verified nor against whom."""
    for name in ("PYTHONHTTPSVERIFY", "NODE_TLS_REJECT_UNAUTHORIZED", "GIT_SSL_NO_VERIFY", "CURL_INSECURE"):
        monkeypatch.setenv(name, "0")
    context = context_for(
        Peer(host="smtp.office365.com", port=587, tls=TlsMode.REQUIRED, ehlo_name="postroom.contoso.com")
    )

    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
