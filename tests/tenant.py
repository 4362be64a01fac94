"""A tenant for journeys: the sandbox as Contoso, and routes of every kind into it."""

from typing import Any

from service.sandbox import Sandbox

CLIENT_ID = "11111111-1111-4111-8111-111111111111"
TENANT_ID = "c0ffee00-0000-4000-8000-000000000365"
MX_HOST = "contoso-com.mail.protection.outlook.com"
EHLO_NAME = "postroom.contoso.com"

#: As the sandbox's MX sees our address, and as the connector by IP knows it.
PUBLIC_ADDRESS = "203.0.113.10"


def _base(name: str, kind: str, sandbox: Sandbox, port: int, changes: dict[str, Any]) -> dict[str, Any]:
    route = {
        "name": name,
        "kind": kind,
        "connect_to": f"127.0.0.1:{port}",
        "ca_file": str(sandbox.ca_file),
        "ehlo_name": EHLO_NAME,
    }
    return {key: value for key, value in (route | changes).items() if value is not None}


def oauth(**changes: Any) -> dict[str, Any]:
    """The login of an application."""
    login = {"method": "oauth", "client_id": CLIENT_ID, "client_secret": "sandbox-client-secret"}
    return login | changes


def basic(password: str = "sandbox-password", **changes: Any) -> dict[str, Any]:
    """The login by password."""
    return {"method": "basic", "password": password, **changes}


def submission(sandbox: Sandbox, *, login: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """SMTP AUTH client submission."""
    mailbox = {
        "address": "noreply@contoso.com",
        "login": login or oauth(),
        "send_as": ["billing@contoso.com"],
    }
    route = {"mailboxes": [mailbox]}
    return _base("noreply", "client_submission", sandbox, sandbox.submission_port, route | changes)


def direct_send(sandbox: Sandbox, **changes: Any) -> dict[str, Any]:
    """Direct send to the tenant's MX."""
    return _base("inside", "direct_send", sandbox, sandbox.mx_port, {"host": MX_HOST} | changes)


def relay_by_certificate(sandbox: Sandbox, **changes: Any) -> dict[str, Any]:
    """A connector that knows us by certificate."""
    certificate = {
        "certificate_file": str(sandbox.client_certificate),
        "private_key_file": str(sandbox.client_key),
    }
    route = {"host": MX_HOST, "authenticate_by": "certificate", "client_certificate": certificate}
    return _base("connector", "smtp_relay", sandbox, sandbox.mx_port, route | changes)


def relay_by_ip(sandbox: Sandbox, **changes: Any) -> dict[str, Any]:
    """A connector that knows us by our address."""
    route = {"host": MX_HOST, "authenticate_by": "ip"}
    return _base("connector", "smtp_relay", sandbox, sandbox.mx_port, route | changes)


def high_volume(sandbox: Sandbox, *, login: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """High Volume Email."""
    account = {"address": "hve@contoso.com", "login": login or basic("sandbox-hve-password")}
    route = {"accounts": [account]}
    return _base("newsletter", "high_volume_email", sandbox, sandbox.hve_port, route | changes)


def communication_services(sandbox: Sandbox, **changes: Any) -> dict[str, Any]:
    """Azure Communication Services."""
    login = {
        "method": "basic",
        "username": f"contoso-acs|{CLIENT_ID}|{TENANT_ID}",
        "password": "sandbox-client-secret",
    }
    return _base(
        "azure", "azure_communication_services", sandbox, sandbox.acs_port, {"login": login} | changes
    )


def settings(sandbox: Sandbox, **organization: Any) -> dict[str, Any]:
    """What a house needs beside its routes."""
    given = {
        "accepted_domains": ["contoso.com", "contoso.onmicrosoft.com"],
        "egress": {"static_ips": [PUBLIC_ADDRESS], "hosting": "own_static_ip"},
    }
    return {
        "organization": given | organization,
        "entra": {
            "tenant_id": TENANT_ID,
            "authority": f"https://localhost:{sandbox.https_port}",
            "ca_file": str(sandbox.ca_file),
        },
    }
